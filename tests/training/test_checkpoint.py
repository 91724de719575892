"""An interrupted training that is begun again ends as if it had not been interrupted."""

import errno
import hashlib
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import quick_classifier, same_state, state_of
from sklearn.model_selection import cross_val_predict

from murakit import PatientKFold
from murakit.training._checkpoint import Checkpoint
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
    with pytest.raises(ValueError, match="is damaged: .*Delete it"):
        clf.fit(images.data, images.target)


def test_one_bit_that_was_flipped_is_noticed_wherever_it_is(images, tmp_path):
    checkpoint = Checkpoint(tmp_path, ["settings"])
    state = {"module": {"weight": torch.arange(6.0)}, "history": "[]"}
    checkpoint.write(state)
    assert checkpoint.read()["module"]["weight"].tolist() == [0, 1, 2, 3, 4, 5]
    whole = bytearray(checkpoint.path.read_bytes())
    for at in range(0, len(whole), 7):
        whole[at] ^= 1 << at % 8
        checkpoint.path.write_bytes(whole)
        with pytest.raises(ValueError, match=f"{checkpoint.path.name}.* is damaged: .*Delete it"):
            checkpoint.read()
        whole[at] ^= 1 << at % 8


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    checkpoint = Checkpoint(tmp_path, ["settings"])
    content = pickle.dumps(Planted(tmp_path / "ran"))
    checkpoint.path.write_bytes(content + hashlib.sha256(content).digest())
    with pytest.raises(ValueError, match="cannot be read .*Delete it"):
        checkpoint.read()
    assert not (tmp_path / "ran").exists()


class Planted:
    """Leaves a folder behind when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_full_disk_is_told_with_the_file_and_the_training_goes_on_later(images, tmp_path, monkeypatch):
    whole = quick_classifier(max_epochs=4).fit(images.data, images.target)
    clf = quick_classifier(max_epochs=4, checkpoint=tmp_path)
    write = Checkpoint.write
    # A limit on the size of files is what a full disk is to a writer.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full_in_the_third_epoch(checkpoint, state):
        if len(json.loads(state["history"])) == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        write(checkpoint, state)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "write", full_in_the_third_epoch)
            with pytest.raises(
                OSError, match=r"checkpoint: '.*\.pt' cannot be written .*Make room.* is kept"
            ) as error:
                clf.fit(images.data, images.target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.errno == errno.EFBIG
    # The file of the second epoch, and nothing else.
    assert [path.suffix for path in tmp_path.iterdir()] == [".pt"]
    assert same_state(state_of(clf.fit(images.data, images.target)), state_of(whole))


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_names_that_no_folder_has_are_refused(images, name):
    with pytest.raises(ValueError, match="checkpoint='.*' is no name that a folder can have"):
        quick_classifier(checkpoint=name).fit(images.data, images.target)


def test_what_a_killed_training_left_is_cleared_by_the_next(images, tmp_path):
    checkpoint = Checkpoint(tmp_path, ["settings"])
    script = (
        "import sys, os, signal\n"
        "from murakit.io._atomic import written_whole\n"
        "with written_whole(sys.argv[1]) as unfinished:\n"
        "    open(unfinished, 'w').write('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(checkpoint.path)])
    assert len(list(tmp_path.iterdir())) == 1
    checkpoint.write({"history": "[]"})
    assert list(tmp_path.iterdir()) == [checkpoint.path]


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
