"""skorch's own callbacks work: checkpoints, and loggers whose writers are open files or connections."""

import pickle
import threading
from copy import deepcopy
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
import torch
from helpers import quick_classifier, same_state, state_of
from sklearn.model_selection import cross_val_score
from skorch import NeuralNetClassifier
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EpochScoring,
    MlflowLogger,
    TensorBoard,
    TrainEndCheckpoint,
    WandbLogger,
)

from murakit import PatientKFold, load_model, save_model


class Live:
    """What cannot be copied or pickled: it holds a lock, as open files and connections do."""

    def __init__(self):
        self.lock = threading.Lock()


class Writer(Live):
    """TensorBoard's SummaryWriter, as strict as that one is with values."""

    def __init__(self):
        super().__init__()
        self.scalars, self.closed = [], False

    def add_scalar(self, tag, scalar_value, global_step):
        assert not self.closed
        self.scalars.append((tag, float(scalar_value), global_step))

    def close(self):
        self.closed = True


class Run(Live):
    """A run of Weights & Biases."""

    def __init__(self, folder):
        super().__init__()
        self.dir, self.logs, self.watched = str(folder), [], []

    def watch(self, module):
        self.watched.append(type(module).__name__)

    def log(self, values):
        assert all(type(value) in (int, float) for value in values.values()), values
        self.logs.append(values)


class Client(Live):
    """MLflow's client, which takes no booleans and no texts."""

    def __init__(self):
        super().__init__()
        self.metrics, self.artifacts, self.ended = [], [], 0

    def log_metric(self, run_id, key, value, step):
        assert type(value) in (int, float), (key, value)
        self.metrics.append((run_id, key, value, step))

    def log_artifact(self, run_id, path):
        self.artifacts.append(path.name)

    def set_terminated(self, run_id):
        self.ended += 1


SCORES = {"train_loss", "valid_loss", "valid_roc_auc", "lr", "dur"}


@pytest.mark.parametrize("made_by", ["an instance", "a function"])
def test_tensorboard_writes_the_numbers_of_each_epoch(images, made_by):
    writer = Writer()
    callback = TensorBoard(writer, key_mapper=str)
    clf = quick_classifier(
        callbacks=[
            callback if made_by == "an instance" else lambda: TensorBoard(writer, key_mapper=str),
            "roc_auc",
        ]
    ).fit(images.data, images.target)
    assert {tag for tag, _, _ in writer.scalars} == SCORES and writer.closed
    for name in SCORES:
        written = [value for tag, value, _ in writer.scalars if tag == name]
        assert written == clf.history_[name].tolist(), name
    assert [step for tag, _, step in writer.scalars if tag == "lr"] == [1, 2]


def test_wandb_logs_the_numbers_of_each_epoch_and_saves_the_best(images, tmp_path):
    run = Run(tmp_path)
    clf = quick_classifier(callbacks=[WandbLogger(run), "roc_auc"]).fit(images.data, images.target)
    assert [set(values) for values in run.logs] == [SCORES] * 2 and run.watched == ["Radiograph"]
    assert [values["valid_loss"] for values in run.logs] == clf.history_["valid_loss"].tolist()
    assert set(torch.load(tmp_path / "best_model.pth", weights_only=True)) == set(state_of(clf))


def test_mlflow_logs_the_numbers_of_each_epoch_and_the_artifacts(images):
    client = Client()
    run = SimpleNamespace(info=SimpleNamespace(run_id="7"))
    clf = quick_classifier(callbacks=[MlflowLogger(run, client), "roc_auc"]).fit(images.data, images.target)
    assert {key for _, key, _, _ in client.metrics} == SCORES and client.ended == 1
    assert [value for _, key, value, _ in client.metrics if key == "train_loss"] == clf.history_[
        "train_loss"
    ].tolist()
    assert sorted(client.artifacts) == ["criterion.pth", "history.json", "optimizer.pth", "params.pth"]


@pytest.mark.parametrize(
    "params", [{}, {"monitor": "valid_roc_auc_best"}, {"monitor": "train_loss_best"}], ids=str
)
def test_skorchs_checkpoint_keeps_the_best_epoch(images, tmp_path, params):
    keep = Checkpoint(dirname=str(tmp_path), **params)
    clf = quick_classifier(callbacks=[keep, "roc_auc"], max_epochs=6, early_stopping=False, lr=0.05)
    part = images.patients < "patient00013"
    clf.fit(images.data[part], images.target[part], X_val=images.data[~part], y_val=images.target[~part])
    assert {path.name for path in tmp_path.iterdir()} == {
        "params.pt",
        "optimizer.pt",
        "criterion.pt",
        "history.json",
    }
    name = params.get("monitor", "valid_loss_best").removesuffix("_best")
    scores = clf.history_[name]
    best = scores.idxmin() if name.endswith("loss") else scores.idxmax()
    alone = quick_classifier(max_epochs=int(best) + 1, early_stopping=False, lr=0.05)
    alone.fit(images.data[part], images.target[part], X_val=images.data[~part], y_val=images.target[~part])
    kept = torch.load(tmp_path / "params.pt", weights_only=True)
    assert same_state(kept, state_of(alone))


def test_the_flags_are_those_that_skorch_writes(images):
    """skorch's own net, which records its scores by PassthroughScoring, given the same losses."""
    clf = quick_classifier(max_epochs=8, early_stopping=False, lr=0.05)
    part = images.patients < "patient00013"
    clf.fit(images.data[part], images.target[part], X_val=images.data[~part], y_val=images.target[~part])
    rows = clf.net_.history
    theirs = NeuralNetClassifier(torch.nn.Linear(1, 2), train_split=None, verbose=0).initialize()
    for row in rows:
        theirs.history.new_epoch()
        theirs.history.new_batch()
        for side in ("train", "valid"):
            theirs.history.record_batch(f"{side}_loss", row[f"{side}_loss"])
            theirs.history.record_batch(f"{side}_batch_size", 1)
        for name, callback in theirs.callbacks_:
            if name in ("train_loss", "valid_loss"):
                callback.on_epoch_end(theirs)
    for name in ("train_loss_best", "valid_loss_best"):
        assert [row[name] for row in rows] == [row[name] for row in theirs.history]
        assert name not in clf.history_
    assert len({row["valid_loss_best"] for row in rows}) == 2, "choose data for which both occur"


def test_skorchs_checkpoint_at_the_end_of_training(images, tmp_path):
    clf = quick_classifier(callbacks=[TrainEndCheckpoint(dirname=str(tmp_path))], early_stopping=False)
    clf.fit(images.data, images.target)
    assert same_state(torch.load(tmp_path / "train_end_params.pt", weights_only=True), state_of(clf))


def test_a_function_makes_a_callback_for_each_fold(images):
    class Count(Callback):
        def __init__(self):
            self.n_epochs = 0
            self.lock = threading.Lock()  # it cannot be cloned

        def on_epoch_end(self, net, **kwargs):
            self.n_epochs += 1

    made = []

    def count():
        made.append(Count())
        return made[-1]

    clf = quick_classifier(callbacks=[count])
    cross_val_score(clf, images.data, images.target, cv=PatientKFold(3))
    assert [callback.n_epochs for callback in made] == [2, 2, 2]


def test_a_class_is_a_function_that_makes_its_instances(images):
    class Count(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.history.record("seen", len(net.history))

    clf = quick_classifier(callbacks=[Count]).fit(images.data, images.target)
    assert clf.history_["seen"].tolist() == [1, 2]


@pytest.mark.parametrize("made", [lambda: 7, lambda: EpochScoring("roc_auc"), lambda: Callback])
def test_a_function_that_makes_no_callback_is_refused(images, made):
    with pytest.raises(ValueError, match="callbacks: "):
        quick_classifier(callbacks=[made]).fit(images.data, images.target)


class Counter(Callback):
    def __init__(self):
        self.n_epochs = 0

    def on_epoch_end(self, net, **kwargs):
        self.n_epochs += 1


def test_a_fitted_model_with_an_open_writer_can_be_kept(images, tmp_path):
    clf = quick_classifier(callbacks=[TensorBoard(Writer()), Counter(), "roc_auc"])
    clf.fit(images.data, images.target)
    with pytest.warns(UserWarning, match=r"callbacks \(TensorBoard\) cannot be pickled and are left out"):
        joblib.dump(clf, tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib")
    assert [type(callback) for callback in loaded.callbacks] == [Counter, str]
    assert loaded.net_.callbacks_ == [] and not loaded.net_.callbacks
    np.testing.assert_array_equal(loaded.predict_proba(images.data), clf.predict_proba(images.data))
    assert len(clf.callbacks) == 3
    with pytest.warns(UserWarning, match=r"save_model does not keep callbacks \(TensorBoard, Counter\)"):
        save_model(clf, tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").callbacks == ["roc_auc"]


def test_what_a_function_made_is_not_pickled(images):
    clf = quick_classifier(callbacks=[writing]).fit(images.data, images.target)
    assert pickle.loads(pickle.dumps(clf)).net_.callbacks_ == []
    assert deepcopy(clf).callbacks == [writing]


def writing():
    return TensorBoard(Writer())


def test_callbacks_change_no_weights(images):
    plain = quick_classifier().fit(images.data, images.target)
    logged = quick_classifier(callbacks=[writing, Counter()]).fit(images.data, images.target)
    assert same_state(state_of(plain), state_of(logged))
