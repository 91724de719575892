"""What training does to the weights, epoch by epoch."""

import pickle

import numpy as np
import pytest
import torch
from helpers import quick_classifier, same_state, state_of
from skorch.callbacks import Callback, Checkpoint, EarlyStopping
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_post_hook

from murakit import evaluate, networks
from murakit.io._images import read_square
from murakit.utils._random import seeds_of


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@pytest.mark.parametrize("unfreeze", ["head", "layer4", "layer2"])
def test_frozen_stages_are_bit_equal_after_training(images, backbone, unfreeze):
    clf = quick_classifier(backbone=backbone, unfreeze=unfreeze, max_epochs=1, lr=0.1)
    untrained = clf._build_network(2, seeds_of(clf.random_state).network).state_dict()
    clf.fit(images.data[:24], images.target[:24])
    trained = clf.net_.module_.state_dict()
    names = list(clf.net_.module_.stages)
    first = len(names) if unfreeze == "head" else names.index(unfreeze)
    frozen = tuple(f"stages.{name}." for name in names[:first])
    for key, value in trained.items():
        if key.startswith(frozen):
            assert torch.equal(value, untrained[key]), key
    changed = {
        key.split(".")[1] if key.startswith("stages") else "head"
        for key in trained
        if not torch.equal(trained[key], untrained[key])
    }
    assert changed == {*names[first:], "head"}


def hand_written(images, optimizer, *, our_features):
    """A model of ours, and the network of a loop by hand with the same data, seeds and settings."""
    X, y = images.data[:40], images.target[:40]
    clf = quick_classifier(
        backbone="resnet18",
        unfreeze="layer4",
        image_size=64,
        augment=False,
        early_stopping=False,
        max_epochs=3,
        lr=1e-3,
        optimizer=optimizer,
        lr_patience=None,
        class_weight="balanced",
        random_state=7,
    )
    clf.fit(X, y)

    seeds = seeds_of(clf.random_state)
    network = networks.build_radiograph(
        "resnet18", 2, weights=None, unfreeze="all", dropout=0.0, augmentation=None, seed=seeds.network
    )
    pixels = torch.stack([torch.from_numpy(read_square(path, 64)) for path in X])[:, None]
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    inputs = (pixels.repeat(1, 3, 1, 1) / 255 - mean) / std
    target = torch.from_numpy(y)
    stages = list(network.stages.values())
    prefix, last = torch.nn.Sequential(*stages[:-1]).eval(), stages[-1]
    if our_features:
        with torch.no_grad():
            before = network.eval().run_before("layer4", pixels)
        last.to(memory_format=torch.channels_last)
    else:
        with torch.no_grad():
            before = prefix(inputs)
    weight = torch.tensor(len(y) / (2 * np.bincount(y)), dtype=torch.float32)
    groups = [{"params": network.head.parameters(), "lr": 1e-3}, {"params": last.parameters(), "lr": 1e-4}]
    optimizer = {
        "adamw": lambda: torch.optim.AdamW(groups, weight_decay=1e-2),
        "sgd": lambda: torch.optim.SGD(groups, weight_decay=1e-2, momentum=0.9),
    }[optimizer]()
    for _ in range(3):
        order = seeds.order.permutation(len(y))
        for start in range(0, len(y), 8):
            rows = order[start : start + 8]
            last.train()
            logits = network.head(functional.adaptive_avg_pool2d(last(before[rows]), 1).flatten(1))
            loss = functional.cross_entropy(logits, target[rows], weight=weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return clf.net_.module_.state_dict(), network.state_dict()


def test_a_hand_written_loop_ends_in_the_same_weights(images):
    # Adam would make steps of full length out of differences in the last bits of frozen stages.
    ours, theirs = hand_written(images, "adamw", our_features=True)
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, atol=1e-5, rtol=1e-5, msg=key)


def test_a_hand_written_loop_over_plain_frozen_stages_ends_in_the_same_weights(images):
    ours, theirs = hand_written(images, "sgd", our_features=False)
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, atol=1e-5, rtol=1e-4, msg=key)


def test_the_last_batch_is_never_one_image(images):
    # A BatchNorm has no variance to divide by there; 9 = 8 + 1.
    quick_classifier(backbone="resnet18", unfreeze="layer4", early_stopping=False, max_epochs=1).fit(
        images.data[:9], [0, 1] * 4 + [0]
    )


def test_the_best_epoch_is_restored(images):
    class Snapshots(Callback):
        states = {}

        def on_epoch_end(self, net, **kwargs):
            Snapshots.states[len(net.history)] = {
                key: value.clone() for key, value in net.module_.state_dict().items()
            }

    # A rate so high that later epochs are worse.
    clf = quick_classifier(
        lr=0.5, max_epochs=6, n_iter_no_change=6, callbacks=[Snapshots()], lr_patience=None
    )
    clf.fit(images.data, images.target)
    best = int(clf.history_["valid_loss"].idxmin()) + 1
    assert best < clf.n_epochs_
    assert clf.best_epoch_ == best
    assert clf.validation_score_ == clf.history_["valid_loss"].min()
    assert same_state(state_of(clf), Snapshots.states[best])


def test_early_stopping_waits_n_iter_no_change_epochs(images):
    clf = quick_classifier(lr=0.5, max_epochs=30, n_iter_no_change=2, lr_patience=None)
    clf.fit(images.data, images.target)
    assert clf.n_epochs_ == clf.best_epoch_ + 2 < 30


def test_without_early_stopping_all_patients_are_trained_on_and_the_last_epoch_is_kept(images):
    clf = quick_classifier(early_stopping=False, max_epochs=3).fit(images.data, images.target)
    assert clf.best_epoch_ == clf.n_epochs_ == 3
    assert clf.validation_patients_ is None and clf.validation_score_ is None
    assert set(clf.train_patients_) == set(images.patients)


def test_the_learning_rate_falls_on_a_plateau(images):
    clf = quick_classifier(lr=0.5, max_epochs=8, n_iter_no_change=8, lr_patience=0)
    clf.fit(images.data, images.target)
    rates = clf.history_["lr"].to_numpy()
    gained = clf.history_["best"].to_numpy()
    expected = [0.5]
    for had_gain in gained[:-1]:
        expected.append(expected[-1] * (1 if had_gain else 0.1))
    np.testing.assert_allclose(rates, expected)
    assert rates[-1] < rates[0]


def test_head_epochs_train_the_head_alone_first(images):
    class Stages(Callback):
        states = []

        def on_epoch_end(self, net, **kwargs):
            rates = [group["lr"] for group in net.optimizer_.param_groups]
            Stages.states.append((net.module_.stages["two"][0].weight.detach().clone(), rates))

    clf = quick_classifier(
        head_epochs=2, max_epochs=4, early_stopping=False, callbacks=[Stages()], lr_patience=None
    )
    clf.fit(images.data, images.target)
    weights = [weight for weight, _ in Stages.states]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    assert clf.history_["stage"].tolist() == ["head", "head", "two", "two"]
    assert Stages.states[2][1] == pytest.approx([1e-2, 1e-3])


def test_early_stopping_does_not_end_the_head_phase(images):
    clf = quick_classifier(head_epochs=4, max_epochs=6, n_iter_no_change=1, lr=5.0, lr_patience=None)
    clf.fit(images.data, images.target)
    assert clf.n_epochs_ > 4


def test_a_best_epoch_of_the_head_phase_is_restored_with_its_backbone(images):
    class Ruin(Callback):
        def on_epoch_begin(self, net, **kwargs):
            if len(net.history) > 1:
                net.module_.head.weight.data[0] += 1000

    clf = quick_classifier(head_epochs=1, max_epochs=3, callbacks=[Ruin()]).fit(images.data, images.target)
    assert clf.best_epoch_ == 1
    untrained = clf._build_network(2, seeds_of(clf.random_state).network)
    assert torch.equal(clf.net_.module_.stages["two"][0].weight, untrained.stages["two"][0].weight)


def test_warm_start_goes_on_from_the_last_weights(images):
    clf = quick_classifier(early_stopping=False, max_epochs=1, warm_start=True, lr=1e-3)
    clf.fit(images.data, images.target)
    first = state_of(clf)
    clf.fit(images.data, images.target)
    assert clf.history_["epoch"].tolist() == [1, 2] and clf.n_epochs_ == 2
    assert torch.equal(first["stages.one.0.weight"], state_of(clf)["stages.one.0.weight"])
    cold = quick_classifier(early_stopping=False, max_epochs=1, lr=1e-3).fit(images.data, images.target)
    assert same_state(first, state_of(cold))
    assert clf.history_["train_loss"].iloc[1] < clf.history_["train_loss"].iloc[0]


def test_warm_start_may_unfreeze_further(images):
    clf = quick_classifier(unfreeze="head", early_stopping=False, max_epochs=1, warm_start=True)
    clf.fit(images.data, images.target)
    before = state_of(clf)
    clf.set_params(unfreeze="two").fit(images.data, images.target)
    after = state_of(clf)
    assert torch.equal(before["stages.one.0.weight"], after["stages.one.0.weight"])
    assert not torch.equal(before["stages.two.0.weight"], after["stages.two.0.weight"])


def test_warm_start_refuses_other_classes(images):
    clf = quick_classifier(warm_start=True).fit(images.data, images.target)
    with pytest.raises(ValueError, match=r"y: row \d+ has the label '[ab]'.*warm_start=False"):
        clf.fit(images.data, np.where(images.target == 1, "b", "a"))


def test_partial_fit_is_one_epoch_each_and_keeps_the_optimizer(images):
    X, y = images.data, images.target
    stepwise = quick_classifier(augment=False)
    for _ in range(2):
        stepwise.partial_fit(X, y, classes=[0, 1])
    assert stepwise.n_epochs_ == 2 and len(stepwise.history_) == 2
    assert stepwise._optimizer_state[1]["state"][0]["step"] == 2 * -(-len(X) // 8)
    assert "_optimizer_state" not in stepwise.__getstate__()


def test_partial_fit_may_see_one_class_at_a_time(images):
    clf = quick_classifier()
    for label in (0, 1):
        rows = images.target == label
        clf.partial_fit(images.data[rows], images.target[rows], classes=[0, 1])
    assert clf.predict_proba(images.data[:2]).shape == (2, 2)


def test_skorch_callbacks_are_called_and_left_as_they_were(images):
    class Count(Callback):
        def __init__(self):
            self.calls = []

        def on_epoch_end(self, net, **kwargs):
            self.calls.append(net.history[-1]["valid_loss"])

    count = Count()
    clf = quick_classifier(callbacks=[count]).fit(images.data, images.target)
    assert count.calls == []
    assert clf.net_.callbacks_[0][1].calls == clf.history_["valid_loss"].tolist()


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
def test_skorchs_checkpoint_may_pickle_the_net(images, tmp_path, optimizer, schedule):
    files = {"f_params": None, "f_optimizer": None, "f_criterion": None, "f_history": None}
    keep = Checkpoint(monitor=None, f_pickle="net.pkl", dirname=str(tmp_path), **files)
    clf = quick_classifier(callbacks=[keep], optimizer=optimizer, lr_schedule=schedule)
    clf.set_params(early_stopping=False).fit(images.data, images.target)
    net = pickle.loads((tmp_path / "net.pkl").read_bytes())
    assert torch.equal(net.module_.head.weight, clf.net_.module_.head.weight)


@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
def test_hooks_of_all_optimizers_are_called(images, schedule):
    steps = []
    handle = register_optimizer_step_post_hook(lambda *_: steps.append(1))
    try:
        quick_classifier(lr_schedule=schedule, early_stopping=False).fit(images.data, images.target)
    finally:
        handle.remove()
    assert len(steps) == 2 * -(-len(images.data) // 8)


def test_names_of_scorers_are_logged_each_epoch(images):
    clf = quick_classifier(callbacks=["roc_auc", "kappa"], monitor="f1").fit(images.data, images.target)
    assert {"valid_roc_auc", "valid_kappa", "valid_f1"} <= set(clf.history_)
    assert clf.validation_score_ == clf.history_["valid_f1"].max()


def test_skorch_early_stopping_ends_training_without_an_error(images):
    stop = EarlyStopping(monitor="train_loss", patience=1, threshold=1e9, lower_is_better=True)
    clf = quick_classifier(callbacks=[stop], max_epochs=20, early_stopping=False).fit(
        images.data, images.target
    )
    assert clf.n_epochs_ < 20


def test_an_interrupted_fit_is_no_fit(images):
    class Interrupt(Callback):
        def on_batch_end(self, net, **kwargs):
            raise KeyboardInterrupt

    clf = quick_classifier(callbacks=[Interrupt()])
    with pytest.raises(KeyboardInterrupt):
        clf.fit(images.data, images.target)
    assert not hasattr(clf, "net_") and not hasattr(clf, "classes_")


def test_a_loss_that_is_no_number_ends_with_advice(images):
    with pytest.raises(
        FloatingPointError, match=r"training loss became \w+ in epoch \d+, batch \d+\. Try a smaller lr"
    ):
        quick_classifier(lr=1e30, max_epochs=5).fit(images.data, images.target)


def test_balanced_weights_are_scikit_learns(images):
    rows = np.r_[np.flatnonzero(images.target == 0)[:12], np.flatnonzero(images.target == 1)[:4]]
    X, y = images.data[rows], images.target[rows]
    # SGD: Adam turns the rounding of a gradient that is zero into a step.
    options = {"early_stopping": False, "augment": False, "optimizer": "sgd"}
    balanced = quick_classifier(class_weight="balanced", **options).fit(X, y)
    by_hand = quick_classifier(class_weight={0: 16 / 24, 1: 16 / 8}, **options).fit(X, y)
    plain = quick_classifier(class_weight=None, **options).fit(X, y)
    weighted = quick_classifier(class_weight=None, **options).fit(
        X, y, sample_weight=np.where(y == 1, 2.0, 2 / 3)
    )
    assert same_state(state_of(balanced), state_of(by_hand))
    for key, value in state_of(weighted).items():
        torch.testing.assert_close(value, state_of(balanced)[key], atol=1e-4, rtol=1e-4, msg=key)
    assert not same_state(state_of(balanced), state_of(plain))


def test_region_weights_are_the_papers(images):
    options = {"early_stopping": False, "augment": False}
    by_region = quick_classifier(class_weight="region", **options).fit(images.data, images.target)
    weight = np.empty(len(images.target))
    for region in np.unique(images.regions):
        here = images.regions == region
        n_abnormal, n_normal = (images.target[here] == 1).sum(), (images.target[here] == 0).sum()
        share = np.where(images.target == 1, n_normal, n_abnormal) / (n_normal + n_abnormal)
        weight[here] = share[here]
    by_hand = quick_classifier(class_weight=None, **options).fit(
        images.data, images.target, sample_weight=weight
    )
    assert same_state(state_of(by_region), state_of(by_hand))


def test_a_sample_of_weight_zero_is_left_out(images):
    weight = np.ones(len(images.data))
    weight[12:] = 0
    options = {"early_stopping": False, "class_weight": None}
    weighted = quick_classifier(**options).fit(images.data, images.target, sample_weight=weight)
    assert set(weighted.train_patients_) == set(images.patients[:12])
    alone = quick_classifier(**options).fit(images.data[:12], images.target[:12])
    assert same_state(state_of(weighted), state_of(alone))


def test_validation_samples_of_ones_own_replace_the_inner_split(images, small_mura):
    from murakit import load_mura

    valid = load_mura(small_mura, subset="valid")
    clf = quick_classifier().fit(images.data, images.target, X_val=valid.data, y_val=valid.target)
    assert set(clf.train_patients_) == set(images.patients)
    assert set(clf.validation_patients_) == set(valid.patients)
    expected = functional.cross_entropy(
        torch.from_numpy(np.log(clf.predict_proba(valid.data))),
        torch.from_numpy(valid.target),
        weight=torch.from_numpy(len(images.target) / (2.0 * np.bincount(images.target))),
    )
    assert clf.validation_score_ == pytest.approx(float(expected), rel=1e-4)


def test_one_line_an_epoch_where_nobody_watches(images, capsys):
    quick_classifier(verbose=1, callbacks=["roc_auc"]).fit(images.data, images.target)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("MuraClassifier")]
    assert len(lines) == 2
    assert lines[0].startswith("MuraClassifier: epoch 1") and "valid_roc_auc" in lines[0]


def test_nothing_is_printed_by_default(images, capsys):
    quick_classifier().fit(images.data, images.target).predict(images.data)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ""


@pytest.mark.parametrize("unfreeze", ["layer4", "head"])
def test_running_the_frozen_stages_once_changes_no_bit(images, monkeypatch, unfreeze):
    options = {
        "backbone": "resnet18",
        "unfreeze": unfreeze,
        "augment": False,
        "image_size": 64,
        "max_epochs": 3,
    }
    once = quick_classifier(**options).fit(images.data, images.target)
    monkeypatch.setattr("murakit.utils._device.free_memory", lambda: 0)
    monkeypatch.setattr("murakit.cache._base.free_memory", lambda: 0)
    every_epoch = quick_classifier(**options).fit(images.data, images.target)
    assert same_state(state_of(once), state_of(every_epoch))
    assert once.history_["valid_loss"].tolist() == every_epoch.history_["valid_loss"].tolist()


def test_a_warm_start_holds_out_the_same_patients_again(images):
    clf = quick_classifier(warm_start=True, random_state=None).fit(images.data, images.target)
    held = set(clf.validation_patients_)
    clf.fit(images.data, images.target)
    assert set(clf.validation_patients_) == held and not held & set(clf.train_patients_)


def test_patients_who_chose_an_epoch_stay_known_to_a_warm_start(images):
    half = np.isin(images.patients, np.unique(images.patients)[::2])
    clf = quick_classifier(warm_start=True).fit(images.data[half], images.target[half])
    held = set(clf.validation_patients_)
    clf.fit(images.data[~half], images.target[~half])
    assert held < set(clf.validation_patients_)
    chosen = np.isin(images.patients, list(held))
    with pytest.raises(ValueError, match="chose the epoch"):
        evaluate(clf, images.data[chosen], images.target[chosen])


def test_patients_may_be_named_by_numbers_and_by_text(images):
    groups = np.array(
        [int(name[-5:]) if name[-1] in "13579" else name for name in images.patients], dtype=object
    )
    clf = quick_classifier().fit(images.data, images.target, groups=groups)
    assert set(clf.train_patients_) | set(clf.validation_patients_) == {str(group) for group in groups}


@pytest.mark.parametrize("monitor", ["loss", "neg_log_loss", "roc_auc"])
def test_the_best_epoch_is_the_best_by_what_is_monitored(images, monitor):
    clf = quick_classifier(monitor=monitor, max_epochs=6, lr=0.1, n_iter_no_change=6)
    history = clf.fit(images.data, images.target).history_
    values = history[f"valid_{monitor}"] * (-1 if monitor == "loss" else 1)
    assert values.nunique() > 2
    assert clf.best_epoch_ == history["epoch"][values.argmax()]
    assert clf.validation_score_ == history[f"valid_{monitor}"][values.argmax()]


def test_a_warm_start_never_validates_on_patients_it_was_trained_on(images):
    clf = quick_classifier(warm_start=True, early_stopping=False).fit(images.data, images.target)
    clf.set_params(early_stopping=True)
    with pytest.raises(ValueError, match="trained on every patient of X"):
        clf.fit(images.data, images.target)
    with pytest.raises(ValueError, match="were trained on before"):
        clf.fit(images.data[6:], images.target[6:], X_val=images.data[:1], y_val=images.target[:1])


def test_partial_fit_counts_its_patients_as_trained_on(images):
    clf = quick_classifier().fit(images.data, images.target)
    trained, held = set(clf.train_patients_), set(clf.validation_patients_)
    rows = np.isin(images.patients, list(held)[:1])
    clf.partial_fit(images.data[rows], images.target[rows])
    assert set(clf.train_patients_) == trained | set(images.patients[rows])
    assert set(clf.validation_patients_) == held - set(images.patients[rows])


def test_going_on_draws_other_orders_and_augmentations(images):
    class Orders(Callback):
        seen = []

        def on_batch_begin(self, net, batch=None, training=False, **kwargs):
            Orders.seen.append(batch[0].clone())

    clf = quick_classifier(callbacks=[Orders()], augment=False, unfreeze="all")
    for _ in range(2):
        clf.partial_fit(images.data, images.target)
    half = len(Orders.seen) // 2
    assert not all(torch.equal(a, b) for a, b in zip(Orders.seen[:half], Orders.seen[half:]))


def test_partial_fit_obeys_changed_parameters(images):
    clf = quick_classifier().partial_fit(images.data, images.target)
    clf.set_params(lr=1e-9, weight_decay=0.0)
    before = state_of(clf)["head.weight"]
    clf.partial_fit(images.data, images.target)
    torch.testing.assert_close(state_of(clf)["head.weight"], before, atol=1e-6, rtol=0)
    clf.set_params(optimizer="sgd", unfreeze="head").partial_fit(images.data, images.target)


def test_a_warm_start_obeys_changed_parameters_and_refuses_another_backbone(images):
    clf = quick_classifier(warm_start=True).fit(images.data, images.target)
    clf.set_params(augment=False, dropout=0.5).fit(images.data, images.target)
    assert clf.net_.module_.augmentation is None and clf.net_.module_.dropout.p == 0.5
    with pytest.raises(ValueError, match="not built as backbone='resnet18'"):
        clf.set_params(backbone="resnet18").fit(images.data, images.target)


def test_numpy_values_are_parameters_like_any_other(images):
    options = {"augment": np.False_, "batch_size": np.int64(8), "max_epochs": np.int64(1)}
    clf = quick_classifier(**options).fit(images.data, images.target)
    assert clf.net_.module_.augmentation is None
    plain = quick_classifier(augment=False, max_epochs=1).fit(images.data, images.target)
    assert same_state(state_of(clf), state_of(plain))


def test_batches_that_weigh_nothing_teach_nothing(images):
    clf = quick_classifier(class_weight={0: 0.0, 1: 1.0}, batch_size=2, early_stopping=False)
    clf.fit(images.data, images.target)
    assert np.isfinite(clf.history_["train_loss"]).all()
    with pytest.raises(ValueError, match="leave the training images without any weight"):
        quick_classifier(class_weight={0: 0.0, 1: 0.0}).fit(images.data, images.target)
