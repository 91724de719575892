"""An interrupted training that is begun again ends as if it had not been interrupted."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
from helpers import quick_classifier, same_state, state_of
from sklearn.model_selection import cross_val_predict

from murakit import PatientKFold
from murakit.training._net import TrainingNet


def train_interrupted(clf, images, epoch):
    """Interrupt a training in its epoch of that number."""
    judge = TrainingNet._compare_with_best

    def interrupted(net):
        if len(net.history) == epoch:
            raise KeyboardInterrupt
        return judge(net)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrainingNet, "_compare_with_best", interrupted)
        clf.fit(images.data, images.target)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"early_stopping": False, "lr_schedule": "cosine", "warmup_epochs": 1},
        {"head_epochs": 3, "lr_schedule": "cosine", "early_stopping": False},
        {"head_epochs": 2, "head_lr": 0.1, "lr_patience": 0},
        {"ema_decay": 0.8, "mixup": 0.3, "optimizer": "sgd"},
        {"augment_views": 2, "dropout": 0.5},
    ],
    ids=lambda params: ", ".join(params) or "defaults",
)
@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_the_weights_and_the_history_are_the_same(images, tmp_path, monkeypatch, params, epoch):
    settings = {"max_epochs": 6, "n_iter_no_change": 6, **params}
    whole = quick_classifier(**settings).fit(images.data, images.target)
    clf = quick_classifier(**settings, checkpoint=tmp_path / "kept")
    train_interrupted(clf, images, epoch)
    epochs = []
    begin = TrainingNet.run_single_epoch

    def counted(net, iterator, training, *args, **kwargs):
        epochs.append(len(net.history)) if training else None
        return begin(net, iterator, training, *args, **kwargs)

    monkeypatch.setattr(TrainingNet, "run_single_epoch", counted)
    clf.fit(images.data, images.target)
    assert epochs == list(range(epoch, 7))
    assert same_state(state_of(clf), state_of(whole))
    columns = [name for name in whole.history_ if name != "dur"]
    pd.testing.assert_frame_equal(clf.history_[columns], whole.history_[columns])
    assert (clf.best_epoch_, clf.validation_score_) == (whole.best_epoch_, whole.validation_score_)
    assert list((tmp_path / "kept").iterdir()) == []


def test_parameters_may_be_numbers_of_numpy(images, tmp_path):
    numbers = {"max_epochs": 4, "n_iter_no_change": 4, "lr_patience": 1, "batch_size": 8, "random_state": 0}
    rates = {"lr": 1e-2, "weight_decay": 1e-2, "backbone_lr_factor": 0.1, "dropout": 0.1, "mixup": 0.2}
    rates |= {"ema_decay": 0.8, "label_smoothing": 0.1, "stage_lr_decay": 0.5}
    numpy = {name: np.int64(value) for name, value in numbers.items()}
    numpy |= {name: np.float64(value) for name, value in rates.items()}
    for schedule in ("plateau", "cosine"):
        whole = quick_classifier(**numbers, **rates, lr_schedule=schedule).fit(images.data, images.target)
        clf = quick_classifier(**numpy, lr_schedule=schedule, checkpoint=tmp_path)
        train_interrupted(clf, images, 3)
        assert same_state(state_of(clf.fit(images.data, images.target)), state_of(whole))


@pytest.mark.parametrize(
    "change", [{"lr": 0.5}, {"random_state": 1}, {"max_epochs": 5}, {"rows": slice(0, -1)}], ids=str
)
def test_another_training_begins_at_its_beginning(images, tmp_path, change):
    clf = quick_classifier(max_epochs=4, checkpoint=tmp_path)
    train_interrupted(clf, images, 3)
    rows = change.pop("rows", slice(None))
    X, y = images.data[rows], images.target[rows]
    clf.set_params(**change).fit(X, y)
    alone = quick_classifier(**{"max_epochs": 4, **change}).fit(X, y)
    assert same_state(state_of(clf), state_of(alone))


def test_folds_have_files_of_their_own(images, tmp_path):
    args = images.data, images.target
    plain = cross_val_predict(quick_classifier(), *args, cv=PatientKFold(2), method="predict_proba")
    kept = quick_classifier(checkpoint=tmp_path)
    proba = cross_val_predict(kept, *args, cv=PatientKFold(2), method="predict_proba")
    np.testing.assert_array_equal(proba, plain)


def test_a_damaged_file_is_refused_and_runs_nothing(images, tmp_path):
    clf = quick_classifier(max_epochs=4, checkpoint=tmp_path)
    train_interrupted(clf, images, 3)
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be read .*Delete it"):
        clf.fit(images.data, images.target)


@pytest.mark.parametrize("seed", [None, np.random.RandomState(0)], ids=["None", "a generator"])
def test_without_a_seed_there_is_nothing_to_go_on_from(images, tmp_path, seed):
    with pytest.raises(ValueError, match="checkpoint: with random_state="):
        quick_classifier(random_state=seed, checkpoint=tmp_path).fit(images.data, images.target)


def copies(images, folder, name_of):
    paths = []
    for number, path in enumerate(images.data):
        patient = folder / "XR_WRIST" / f"patient{number:05}" / "study1"
        patient.mkdir(parents=True)
        paths.append(os.path.join(os.fsencode(patient), name_of(number)))
        shutil.copy(path, paths[-1])
    return [os.fsdecode(path) for path in paths]


def test_other_pixels_under_the_same_names_are_another_training(images, tmp_path):
    paths = copies(images, tmp_path / "files", lambda number: b"image1.png")
    moved = images.copy() | {"data": np.array(paths, dtype=object)}
    clf = quick_classifier(max_epochs=4, checkpoint=tmp_path / "kept")
    train_interrupted(clf, type(images)(**moved), 3)
    for path, other in zip(paths, images.data[::-1]):
        shutil.copy(other, path)
    clf.fit(paths, images.target)
    alone = quick_classifier(max_epochs=4).fit(paths, images.target)
    assert same_state(state_of(clf), state_of(alone))


def test_names_that_are_no_unicode_are_kept_as_others(images, tmp_path):
    paths = copies(images, tmp_path / "files", lambda number: b"f\xe9.png")
    quick_classifier(checkpoint=tmp_path / "kept").fit(paths, images.target)
