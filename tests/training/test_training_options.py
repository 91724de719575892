"""What further options do to a training, against a loop that spells them out."""

import copy
import math

import numpy as np
import pytest
import torch
from helpers import TINY, quick_classifier, same_state, state_of
from sklearn.base import clone
from torch.nn import functional

from murakit import networks
from murakit.inspection import grad_cam
from murakit.io._images import read_square
from murakit.utils._random import seeds_of

N, BATCH, EPOCHS, LR = 40, 8, 3, 1e-2
STEPS = N // BATCH


def fitted(images, **params):
    settings = {
        "unfreeze": "all",
        "image_size": 32,
        "augment": False,
        "early_stopping": False,
        "max_epochs": EPOCHS,
        "batch_size": BATCH,
        "lr": LR,
        "optimizer": "sgd",
        "lr_patience": None,
        "class_weight": None,
        "random_state": 7,
    }
    return quick_classifier(**{**settings, **params}).fit(images.data[:N], images.target[:N])


def by_hand(images, *, loss=functional.cross_entropy, factor=None, mix=None, decay=None, rates=(0.1, 0.1)):
    """Train the same network in a loop of its own; return its weights, or their moving average."""
    seeds = seeds_of(7)
    one_output = loss is bce
    network = networks.build_radiograph(
        "tiny",
        2,
        weights=None,
        unfreeze="all",
        dropout=0.0,
        augmentation=None,
        seed=seeds.network,
        one_output=one_output,
    ).train()
    pixels = torch.stack([torch.from_numpy(read_square(path, 32)) for path in images.data[:N]])[:, None]
    target = torch.from_numpy(images.target[:N])
    stages = network.stages
    groups = [{"params": network.head.parameters(), "lr": LR}]
    groups += [
        {"params": stages[name].parameters(), "lr": LR * rate} for name, rate in zip(("one", "two"), rates)
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=1e-2)
    highest = [group["lr"] for group in optimizer.param_groups]
    average, step = copy.deepcopy(network.state_dict()), 0
    for _ in range(EPOCHS):
        order = seeds.order.permutation(N)
        for start in range(0, N, BATCH):
            rows = order[start : start + BATCH]
            x, y = pixels[rows], target[rows]
            for group, rate in zip(optimizer.param_groups, highest):
                group["lr"] = rate * (1.0 if factor is None else factor(step))
            step += 1
            if mix is None:
                value = loss(forward(network, x), y)
            else:
                share = seeds.order.beta(mix, mix)
                other = seeds.order.permutation(BATCH)
                mixed = (share * x.double() + (1 - share) * x[other].double()).round().to(torch.uint8)
                logits = forward(network, mixed)
                value = share * loss(logits, y) + (1 - share) * loss(logits, y[other])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            if decay is not None:
                kept = min(decay, (1 + step) / (10 + step))
                for key, tensor in network.state_dict().items():
                    if tensor.is_floating_point():
                        average[key] = kept * average[key] + (1 - kept) * tensor
                    else:
                        average[key] = tensor.clone()
    return network.state_dict() if decay is None else average


def forward(network, pixels):
    mean = torch.tensor(TINY.mean).view(1, 3, 1, 1)
    std = torch.tensor(TINY.std).view(1, 3, 1, 1)
    x = network.stages["two"](network.stages["one"]((pixels / 255 - mean) / std))
    head = network.head
    return functional.linear(x.mean(dim=(2, 3)), head.weight, head.bias)


def bce(logits, target):
    return functional.binary_cross_entropy_with_logits(logits[:, 0], target.float())


def smooth(logits, target):
    return functional.cross_entropy(logits, target, label_smoothing=0.2)


def cosine(step):
    # One epoch of rise, two of fall.
    if step < STEPS:
        return (step + 1) / (STEPS + 1)
    return (1 + math.cos(math.pi * (step - STEPS) / (2 * STEPS))) / 2


@pytest.mark.parametrize(
    "params, written_out",
    [
        ({"loss": "bce"}, {"loss": bce}),
        ({"label_smoothing": 0.2}, {"loss": smooth}),
        ({"mixup": 0.4}, {"mix": 0.4}),
        ({"lr_schedule": "cosine", "warmup_epochs": 1}, {"factor": cosine}),
        ({"ema_decay": 0.5}, {"decay": 0.5}),
        ({"stage_lr_decay": 0.5, "backbone_lr_factor": 0.4}, {"rates": (0.2, 0.4)}),
    ],
    ids=lambda value: next(iter(value)),
)
def test_a_loop_that_spells_it_out_ends_in_the_same_weights(images, params, written_out):
    ours, theirs = state_of(fitted(images, **params)), by_hand(images, **written_out)
    plain = by_hand(images)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-4, atol=1e-6, msg=key)
    # And the option made a difference that the tolerance would show.
    assert params.get("loss") or not torch.allclose(ours["head.weight"], plain["head.weight"], atol=1e-5)


def test_one_output_is_one_sigmoid(images):
    clf = fitted(images, loss="bce")
    network = clf.net_.module_
    assert network.head.weight.shape == (1, 8)
    pixels = torch.stack([torch.from_numpy(read_square(path, 32)) for path in images.data[:5]])[:, None]
    with torch.no_grad():
        expected = forward(network.eval(), pixels)[:, 0].sigmoid().numpy()
    np.testing.assert_allclose(clf.predict_proba(images.data[:5])[:, 1], expected, atol=1e-6)


def test_one_output_is_for_two_classes(images):
    with pytest.raises(ValueError, match="loss='bce' is for two classes, and y has 3"):
        quick_classifier(loss="bce", early_stopping=False).fit(images.data[:9], [0, 1, 2] * 3)


def test_averaged_weights_are_those_that_are_validated_and_kept(images):
    settings = {"early_stopping": True, "max_epochs": 4, "ema_decay": 0.9, "unfreeze": "all"}
    clf = quick_classifier(**settings).fit(images.data, images.target)
    held = np.isin(images.patients, clf.validation_patients_)
    proba = clf.predict_proba(images.data[held])
    weight = len(clf.classes_) * np.bincount(images.target[~held]) / (~held).sum()
    losses = -np.log(proba[np.arange(held.sum()), images.target[held]])
    each = (1 / weight)[images.target[held]]
    assert clf.validation_score_ == pytest.approx((losses * each).sum() / each.sum(), rel=1e-4)


def test_a_rate_of_its_own_for_the_head_phase(images):
    clf = fitted(images, head_epochs=2, head_lr=0.5)
    assert clf.history_["lr"].tolist() == [0.5, 0.5, LR]


def test_a_cosine_begins_anew_after_the_head_phase(images):
    clf = fitted(images, head_epochs=1, max_epochs=3, lr_schedule="cosine")
    np.testing.assert_allclose(clf.history_["lr"], [LR, LR, LR / 2])


def test_a_cosine_after_the_head_phase_begins_at_its_own_rate(images):
    clf = fitted(images, head_epochs=2, head_lr=0.5, max_epochs=4, lr_schedule="cosine")
    np.testing.assert_allclose(clf.history_["lr"], [0.5, 0.25, LR, LR / 2])


@pytest.mark.parametrize(
    "params, message",
    [
        ({"head_epochs": 3}, "head_epochs=3 leave none of max_epochs=3 to train unfreeze='all'"),
        (
            {"head_epochs": 1, "warmup_epochs": 2, "lr_schedule": "cosine"},
            "head_epochs=1 and warmup_epochs=2 leave none",
        ),
    ],
    ids=["head", "warm-up"],
)
def test_phases_that_leave_no_epoch_are_refused(images, params, message):
    with pytest.raises(ValueError, match=message):
        fitted(images, **params)


def test_phases_of_a_whole_fit_do_not_matter_to_one_epoch(images):
    clf = quick_classifier(max_epochs=2, head_epochs=2).partial_fit(images.data[:16], images.target[:16])
    assert clf.n_epochs_ == 1


def test_a_warm_start_has_no_epochs_of_the_head_alone(images):
    clf = fitted(images, head_epochs=2, warm_start=True).set_params(max_epochs=2)
    assert clf.fit(images.data[:N], images.target[:N]).n_epochs_ == EPOCHS + 2


def test_a_threshold_for_more_than_two_classes_is_refused_before_training(images):
    with pytest.raises(ValueError, match=r"decision_threshold=0.5 is for two classes, and y has 3"):
        quick_classifier(decision_threshold=0.5, early_stopping=False).fit(images.data[:9], [0, 1, 2] * 3)


def test_rates_by_stage_may_change_between_partial_fits(images):
    clf = quick_classifier(augment=False, unfreeze="all")
    for decay in (1.0, 0.5, 1.0):
        clf.set_params(stage_lr_decay=decay).partial_fit(images.data[:16], images.target[:16])
    assert clf.n_epochs_ == 3


def test_both_classes_of_one_output_have_heat_maps(images):
    clf = fitted(images, loss="bce")
    for target in (0, 1):
        maps = grad_cam(clf, images.data[:4], target=target, method="occlusion").maps
        assert max(one.max() for one in maps) == 1


@pytest.mark.parametrize(
    "params",
    [
        {"augment": False},
        {"augment": False, "unfreeze": "all", "head_epochs": 1},
        {"augment": True, "augment_views": 2, "head_epochs": 1},
        {"augment": True, "augment_views": 2, "unfreeze": "all", "head_epochs": 1},
        {"augment": True, "head_epochs": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_the_room_there_is_does_not_change_a_training(images, params, mixup):
    clf = quick_classifier(**{"unfreeze": "two", "mixup": mixup, **params})
    on = clone(clf).fit(images.data, images.target)
    with pytest.warns(UserWarning, match="cache_limit"):
        off = clone(clf).set_params(cache_limit=0).fit(images.data, images.target)
    assert same_state(state_of(on), state_of(off))


def test_mixup_draws_as_the_seed_says(images):
    one, other = (fitted(images, unfreeze="two", mixup=0.4) for _ in range(2))
    assert same_state(state_of(one), state_of(other))
    plain = fitted(images, unfreeze="two")
    assert not same_state(state_of(one), state_of(plain))
