"""scikit-learn's callbacks see a fit and its epochs."""

import numpy as np
import pytest
from helpers import quick_classifier, same_state, state_of
from sklearn.base import clone
from sklearn.callback import ProgressBar, ScoringMonitor

from murakit import MuraSearchCV, PatientKFold


class Recording:
    """Writes down which task begins and which ends; ends the training after some epochs."""

    max_propagation_depth = 1

    def __init__(self, stop_after=None):
        self.seen, self.stop_after, self.n_epochs = [], stop_after, 0

    def setup(self, estimator, context):
        self.seen.append("setup")

    def teardown(self, estimator, context):
        self.seen.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None, metadata=None):
        self.seen.append(f"{context.task_name} {context.task_id} begins")
        self.given = X, y, metadata

    def on_fit_task_end(self, estimator, context):
        self.seen.append(f"{context.task_name} {context.task_id} ends")
        self.n_epochs += context.task_name == "epoch"
        return self.n_epochs == self.stop_after


def test_a_fit_is_a_task_and_each_epoch_a_task_of_it(images):
    seen = Recording()
    weight = np.ones(len(images.data))
    clf = quick_classifier().set_callbacks(seen)
    clf.fit(images.data, images.target, sample_weight=weight)
    epochs = [f"epoch {number} {what}" for number in (0, 1) for what in ("begins", "ends")]
    assert seen.seen == ["setup", "fit 0 begins", *epochs, "fit 0 ends", "teardown"]
    assert seen.given[0] is images.data and seen.given[1] is images.target
    assert seen.given[2]["sample_weight"] is weight


def test_a_fit_that_fails_is_torn_down(images):
    seen = Recording()
    with pytest.raises(ValueError, match="only one class"):
        quick_classifier().set_callbacks(seen).fit(images.data, np.zeros(len(images.data)))
    assert seen.seen == ["setup", "fit 0 begins", "teardown"]


def test_a_callback_may_end_the_training(images):
    settings = {"max_epochs": 5, "early_stopping": False}
    clf = quick_classifier(**settings).set_callbacks(Recording(stop_after=2)).fit(images.data, images.target)
    alone = quick_classifier(**{**settings, "max_epochs": 2}).fit(images.data, images.target)
    assert clf.n_epochs_ == 2 and same_state(state_of(clf), state_of(alone))


@pytest.mark.parametrize(
    "params",
    [
        {"early_stopping": False},
        {"early_stopping": False, "head_epochs": 1, "unfreeze": "all"},
        {"early_stopping": False, "ema_decay": 0.5, "dropout": 0.3},
    ],
    ids=str,
)
def test_a_scoring_monitor_sees_what_a_shorter_fit_would_give(images, params):
    monitor = ScoringMonitor(scoring=["neg_log_loss", "accuracy"])
    clf = quick_classifier(max_epochs=4, **params).set_callbacks(monitor).fit(images.data, images.target)
    plain = quick_classifier(max_epochs=4, **params).fit(images.data, images.target)
    assert same_state(state_of(clf), state_of(plain))
    log = monitor.get_logs().data
    assert [row["task_id_path"] for row in log] == [(0, number) for number in range(4)]
    for number in range(2, 5):
        alone = quick_classifier(max_epochs=number, **params).fit(images.data, images.target)
        proba = alone.predict_proba(images.data)[np.arange(len(images.target)), images.target]
        assert log[number - 1]["neg_log_loss"] == pytest.approx(np.log(proba).mean(), abs=1e-12)
        assert log[number - 1]["accuracy"] == alone.score(images.data, images.target)


def test_a_scoring_monitor_sees_the_best_epoch_so_far(images):
    monitor = ScoringMonitor(scoring="neg_log_loss")
    clf = quick_classifier(max_epochs=5, n_iter_no_change=5, lr=0.1).set_callbacks(monitor)
    clf.fit(images.data, images.target)
    scores = [row["neg_log_loss"] for row in monitor.get_logs().data]
    best = clf.history_["best"].tolist()
    assert not all(best), "choose a rate at which an epoch is worse"
    for number in range(1, 5):
        assert (scores[number] == scores[number - 1]) is not best[number]
    proba = clf.predict_proba(images.data)[np.arange(len(images.target)), images.target]
    assert scores[-1] == pytest.approx(np.log(proba).mean(), abs=1e-12)


def test_epochs_of_a_search_are_tasks_of_its_fits(images):
    seen = Recording()
    search = MuraSearchCV(quick_classifier(), {"lr": [1e-3, 1e-2]}, n_trials=1, cv=PatientKFold(2))
    search.set_callbacks(seen).fit(images.data, images.target)  # warnings are errors
    # Two folds and the refit, of two epochs each.
    assert seen.n_epochs == 6 and seen.seen.count("setup") == seen.seen.count("teardown") == 1


def test_a_progress_bar_shows_the_epochs(images, capsys):
    pytest.importorskip("rich")
    quick_classifier().set_callbacks(ProgressBar()).fit(images.data, images.target)
    assert "MuraClassifier - fit" in capsys.readouterr().out


def test_callbacks_of_scikit_learn_stay_with_a_clone_and_beside_those_of_skorch(images):
    seen = Recording()
    clf = clone(quick_classifier(callbacks=["roc_auc"]).set_callbacks(seen)).fit(images.data, images.target)
    assert seen.n_epochs == 2 and "valid_roc_auc" in clf.history_
