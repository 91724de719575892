"""MuraSearchCV: Optuna's trials as a scikit-learn search."""

import pickle
import sqlite3
import subprocess
import sys
import textwrap

import numpy as np
import optuna
import pytest
import sklearn
from helpers import quick_classifier
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from murakit import MuraClassifier, MuraSearchCV, PatientKFold, search_space

C = {"C": FloatDistribution(1e-3, 1e2, log=True)}
CV = KFold(3)


@pytest.fixture(scope="module")
def numbers():
    return make_classification(120, random_state=0)


def search(**params):
    options = {"n_trials": 4, "cv": CV, "random_state": 0, "scoring": "roc_auc"}
    return MuraSearchCV(LogisticRegression(), C, **{**options, **params})


def test_scores_are_those_of_cross_val_score(numbers):
    found = search(return_train_score=True).fit(*numbers)
    results = found.cv_results_
    for row, params in enumerate(results["params"]):
        expected = cross_val_score(LogisticRegression(**params), *numbers, cv=CV, scoring="roc_auc")
        assert [results[f"split{fold}_test_score"][row] for fold in range(3)] == pytest.approx(expected)
        assert results["mean_test_score"][row] == pytest.approx(expected.mean())
    assert found.best_score_ == results["mean_test_score"].max()
    assert found.best_index_ == results["mean_test_score"].argmax()
    assert found.best_estimator_.C == found.best_params_["C"]
    assert found.n_splits_ == 3
    assert found.study_.best_value == pytest.approx(found.best_score_)


def test_the_table_of_results_has_the_columns_of_grid_search(numbers):
    ours = search(return_train_score=True).fit(*numbers).cv_results_
    grid = GridSearchCV(
        LogisticRegression(), {"C": [1.0, 2.0]}, cv=CV, scoring="roc_auc", return_train_score=True
    )
    theirs = grid.fit(*numbers).cv_results_
    assert set(ours) == set(theirs) | {"trial_number", "trial_state"}
    for key, column in theirs.items():
        assert type(ours[key]) is type(column), key
        if key != "params":
            assert ours[key].dtype == column.dtype, key


def test_several_metrics_are_searched_by_the_one_that_refit_names(numbers):
    found = search(scoring=["accuracy", "roc_auc"], refit="roc_auc").fit(*numbers)
    assert found.multimetric_
    assert found.best_score_ == found.cv_results_["mean_test_roc_auc"].max()
    assert set(found.scorer_) == {"accuracy", "roc_auc"}


def test_several_metrics_without_a_name_to_search_by_are_an_error(numbers):
    with pytest.raises(ValueError, match="refit must name the one to search by"):
        search(scoring=["accuracy", "roc_auc"], refit=False).fit(*numbers)


def test_hopeless_trials_are_pruned_between_folds(numbers):
    fits = []

    class Counting(LogisticRegression):
        def fit(self, X, y):
            fits.append(self.C)
            return super().fit(X, y)

    class Hopeless(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.params["C"] < 1

    found = MuraSearchCV(
        Counting(),
        {"C": [0.1, 10.0]},
        n_trials=2,
        cv=CV,
        pruner=Hopeless(),
        refit=False,
        sampler=optuna.samplers.GridSampler({"C": [0.1, 10.0]}, seed=0),
    ).fit(*numbers)
    assert sorted(fits) == [0.1, 10.0, 10.0, 10.0]
    states = dict(zip([p["C"] for p in found.cv_results_["params"]], found.cv_results_["trial_state"]))
    assert states == {0.1: "PRUNED", 10.0: "COMPLETE"}
    assert found.best_params_ == {"C": 10.0}
    pruned = found.cv_results_["trial_state"] == "PRUNED"
    assert np.isnan(found.cv_results_["mean_test_score"][pruned]).all()
    assert np.isfinite(found.cv_results_["split0_test_score"]).all()


class FailsBelowOne(LogisticRegression):
    def fit(self, X, y):
        if self.C < 1:
            raise MemoryError("too small a machine")
        return super().fit(X, y)


@pytest.mark.parametrize("pruner", [None, optuna.pruners.NopPruner()])
def test_a_failed_trial_is_never_the_best_and_the_search_goes_on(numbers, pruner):
    sampler = optuna.samplers.GridSampler({"C": [0.1, 10.0]}, seed=0)
    fails = MuraSearchCV(
        FailsBelowOne(), {"C": [0.1, 10.0]}, n_trials=2, cv=CV, sampler=sampler, pruner=pruner
    )
    with pytest.warns(sklearn.exceptions.FitFailedWarning, match="too small a machine"):
        fails.fit(*numbers)
    assert fails.best_params_ == {"C": 10.0}
    assert sorted(fails.cv_results_["trial_state"]) == ["COMPLETE", "FAIL"]


def test_a_search_in_which_everything_fails_is_an_error(numbers):
    with (
        pytest.warns(sklearn.exceptions.FitFailedWarning),
        pytest.raises(ValueError, match=r"No trial was completed(.|\n)*too small a machine"),
    ):
        MuraSearchCV(FailsBelowOne(), {"C": [0.1]}, n_trials=2, cv=CV).fit(*numbers)


def test_error_score_raise_raises(numbers):
    with pytest.raises(MemoryError):
        MuraSearchCV(FailsBelowOne(), {"C": [0.1]}, n_trials=1, cv=CV, error_score="raise").fit(*numbers)


class Interrupts(LogisticRegression):
    """Interrupted in its nth fit, as by Ctrl-C."""

    left = 0

    def fit(self, X, y):
        Interrupts.left -= 1
        if Interrupts.left == 0:
            raise KeyboardInterrupt
        return super().fit(X, y)


@pytest.mark.parametrize("in_storage", [True, False])
@pytest.mark.parametrize("pruner", [None, optuna.pruners.NopPruner()])
def test_an_interrupted_search_keeps_its_finished_trials_and_resumes(numbers, tmp_path, in_storage, pruner):
    storage = {"storage": f"sqlite:///{tmp_path}/search.db", "study_name": "s"} if in_storage else {}
    options = {"n_trials": 4, "cv": CV, "random_state": 0, "pruner": pruner, **storage}
    Interrupts.left = 8  # the second fold of the third trial
    interrupted = MuraSearchCV(Interrupts(), C, **options)
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(*numbers)
    assert interrupted.cv_results_["trial_state"].tolist() == ["COMPLETE"] * 2
    assert interrupted.best_score_ == interrupted.cv_results_["mean_test_score"].max()
    assert not hasattr(interrupted, "best_estimator_")
    states = [trial.state for trial in interrupted.study_.trials]
    assert states == [TrialState.COMPLETE] * 2 + [TrialState.FAIL]
    assert interrupted.study_.trials[2].value is None

    Interrupts.left = 0
    resumed = clone(interrupted) if in_storage else interrupted
    resumed.fit(*numbers)
    results = resumed.cv_results_
    assert results["trial_state"].tolist() == ["COMPLETE"] * 4
    assert results["params"][:2] == interrupted.cv_results_["params"][:2]
    assert len({params["C"] for params in results["params"]}) == len(results["params"])
    assert resumed.best_estimator_.C == resumed.best_params_["C"]


def test_a_finished_study_is_not_run_again(numbers, tmp_path, monkeypatch):
    stored = {"storage": f"sqlite:///{tmp_path}/search.db", "study_name": "s"}
    first = search(**stored).fit(*numbers)
    fit = LogisticRegression.fit

    def only_on_everything(self, X, y):
        assert len(y) == len(numbers[1]), "only the refit on all data is left to do"
        return fit(self, X, y)

    monkeypatch.setattr(LogisticRegression, "fit", only_on_everything)
    again = search(**stored).set_params(error_score="raise").fit(*numbers)
    assert again.best_params_ == first.best_params_ and again.best_score_ == first.best_score_
    assert again.predict(numbers[0]).tolist() == first.predict(numbers[0]).tolist()
    assert again.n_splits_ == 3


def test_more_trials_are_added_to_those_of_a_study(numbers, tmp_path):
    stored = {"storage": f"sqlite:///{tmp_path}/search.db", "study_name": "s"}
    first = search(**stored).fit(*numbers)
    more = search(n_trials=6, **stored).fit(*numbers)
    assert more.cv_results_["params"][:4] == first.cv_results_["params"]
    assert len(more.cv_results_["params"]) == 6


def test_a_study_of_other_data_is_refused(numbers, tmp_path):
    stored = {"storage": f"sqlite:///{tmp_path}/search.db", "study_name": "s"}
    search(**stored).fit(*numbers)
    X, y = numbers
    with pytest.raises(ValueError, match=r"study 's' .* other data, .* another study_name"):
        search(**stored).fit(X[:60], y[:60])
    for change in (
        {"scoring": "neg_log_loss"},
        {"cv": KFold(4)},
        {"return_train_score": True},
        {"estimator": LogisticRegression(max_iter=7)},
    ):
        with pytest.raises(ValueError, match="was made with other .* another study_name"):
            search(**stored).set_params(**change).fit(X, y)
    minimised = optuna.create_study(storage=stored["storage"], direction="minimize")
    with pytest.raises(ValueError, match="minimises"):
        search(**stored).set_params(study_name=minimised.study_name).fit(X, y)


def test_what_is_other_in_a_study_is_named(images, tmp_path):
    options = {
        "cv": PatientKFold(2),
        "storage": f"sqlite:///{tmp_path}/search.db",
        "study_name": "s",
        "n_trials": 1,
    }
    weights = {"class_weight": {0: 1, 1: 1}, "lr": np.float64(1e-2), "max_epochs": 1}
    space = {"dropout": FloatDistribution(0.0, 0.5)}

    def fit(space=space, **params):
        clf = quick_classifier(**{**weights, **params})
        return MuraSearchCV(clf, space, **options).fit(images.data, images.target)

    fit()
    fit(lr=1e-2)
    with pytest.raises(
        ValueError, match=r"\(class_weight=\{'0': 1, '1': 1\} instead of \{'0': 1, '1': 9\}\)"
    ):
        fit(class_weight={0: 1, 1: 9})
    with pytest.raises(ValueError, match="other search space .*high=0.5.* instead of .*high=0.1"):
        fit({"dropout": FloatDistribution(0.0, 0.1)})


@pytest.mark.parametrize("storage", ["search.db", "sqlite:////no/such/folder/search.db"])
def test_a_storage_that_cannot_be_opened_is_an_error_with_a_remedy(numbers, storage):
    with pytest.raises(ValueError, match=r"storage='.*' cannot be opened .*sqlite:///search.db"):
        search(storage=storage, study_name="s").fit(*numbers)


def test_without_a_number_of_trials_the_time_decides(numbers):
    found = search(n_trials=None, timeout=0.3).fit(*numbers)
    assert len(found.cv_results_["params"]) >= 1
    with pytest.raises(ValueError, match="would never end"):
        search(n_trials=None).fit(*numbers)


def test_two_processes_work_on_one_study(tmp_path):
    script = textwrap.dedent(f"""
        from sklearn.datasets import make_classification
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import KFold
        from optuna.distributions import FloatDistribution
        from murakit import MuraSearchCV
        search = MuraSearchCV(
            LogisticRegression(), {{"C": FloatDistribution(1e-3, 1e2, log=True)}}, n_trials=12, cv=KFold(3),
            storage="sqlite:///{tmp_path}/search.db", study_name="shared",
        )
        search.fit(*make_classification(120, random_state=0))
        assert len(search.cv_results_["params"]) >= 12
    """)
    running = [subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) for _ in range(2)]
    errors = [process.communicate()[1].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    study = optuna.load_study(storage=f"sqlite:///{tmp_path}/search.db", study_name="shared")
    assert 12 <= len(study.trials) <= 13


def test_a_timeout_ends_the_search_with_what_is_done(numbers):
    import time

    class Slow(LogisticRegression):
        def fit(self, X, y):
            time.sleep(0.05)
            return super().fit(X, y)

    found = MuraSearchCV(Slow(), C, n_trials=1000, cv=CV, timeout=0.4).fit(*numbers)
    assert 1 <= len(found.cv_results_["params"]) < 20


def test_callbacks_see_each_trial_and_may_stop_the_search(numbers):
    seen = []

    def callback(study, trial):
        seen.append(trial.value)
        if len(seen) == 2:
            study.stop()

    found = search(callbacks=[callback]).fit(*numbers)
    assert seen == found.cv_results_["mean_test_score"].tolist() and len(seen) == 2


def test_a_seed_repeats(numbers):
    one, two = (search().fit(*numbers).cv_results_["params"] for _ in range(2))
    assert one == two


def test_trials_run_in_parallel_with_a_pruner(numbers):
    found = search(n_jobs=2, pruner=optuna.pruners.NopPruner()).fit(*numbers)
    assert (found.cv_results_["trial_state"] == "COMPLETE").sum() == 4


def test_an_int_or_nothing_as_cv_means_patient_folds(images):
    for cv, n_splits in ((2, 2), (None, 5)):
        found = MuraSearchCV(
            quick_classifier(max_epochs=1, early_stopping=False),
            {"lr": [1e-3]},
            n_trials=1,
            cv=cv,
            refit=False,
        ).fit(images.data, images.target)
        assert found.n_splits_ == n_splits
    with pytest.raises(ValueError, match="patient of row 0 is not known"):
        MuraSearchCV(LogisticRegression(), C, cv=2).fit(np.array([["a"], ["b"]] * 10), [0, 1] * 10)


@pytest.mark.parametrize("routing", [False, True])
def test_groups_reach_the_splitter(images, routing):
    seen = []

    class Watching(GroupKFold):
        def split(self, X, y=None, groups=None):
            seen.append(groups)
            return super().split(X, y, groups)

    with sklearn.config_context(enable_metadata_routing=routing):
        MuraSearchCV(
            quick_classifier(max_epochs=1),
            {"lr": [1e-3]},
            n_trials=1,
            cv=Watching(2),
            refit=False,
            error_score="raise",
        ).fit(images.data, images.target, groups=images.patients)
        MuraSearchCV(
            quick_classifier(max_epochs=1), {"lr": [1e-3]}, n_trials=1, cv=2, error_score="raise"
        ).fit(images.data, images.target, groups=images.patients)
    assert all((groups == images.patients).all() for groups in seen)


def test_what_is_no_distribution_is_an_error(numbers):
    with pytest.raises(ValueError, match=r"param_distributions\['C'\] is 3"):
        MuraSearchCV(LogisticRegression(), {"C": 3}).fit(*numbers)
    with pytest.raises(ValueError, match="param_distributions is a list: pass a dict"):
        MuraSearchCV(LogisticRegression(), ["C"]).fit(*numbers)


def test_the_search_space_names_parameters_as_the_estimator_does():
    clf = MuraClassifier()
    space = search_space(clf)
    assert isinstance(space["unfreeze"], CategoricalDistribution)
    assert set(space) <= set(clf.get_params())
    assert "unfreeze" not in search_space(MuraClassifier(weights=None))
    pipe = Pipeline([("same", FunctionTransformer()), ("clf", clf)])
    assert set(search_space(pipe)) == {f"clf__{name}" for name in space}
    with pytest.raises(ValueError, match="no MuraClassifier"):
        search_space(LogisticRegression())


def test_the_callers_optuna_is_left_as_it_was(numbers):
    before = optuna.logging.get_verbosity()
    search().fit(*numbers)
    assert optuna.logging.get_verbosity() == before


@pytest.mark.parametrize("pruner", [None, optuna.pruners.NopPruner()], ids=["none", "by fold"])
@pytest.mark.parametrize("scoring", ["accuracy", ["accuracy", "roc_auc"]], ids=["one", "two"])
def test_a_number_as_error_score_counts_as_in_scikit_learn(numbers, pruner, scoring):
    class FailsOnce(LogisticRegression):
        def fit(self, X, y):
            if len(X) < len(numbers[0]) and X[0, 0] == numbers[0][0, 0]:
                raise MemoryError("too small a machine")
            return super().fit(X, y)

    # Our search has to know by which of two scores it goes.
    options = {"scoring": scoring, "refit": "accuracy" if len(scoring) == 2 else False}
    options["error_score"] = -1.0
    with pytest.warns(sklearn.exceptions.FitFailedWarning):
        ours = MuraSearchCV(FailsOnce(), {"C": [1.0]}, n_trials=1, cv=CV, pruner=pruner, **options).fit(
            *numbers
        )
    with pytest.warns(sklearn.exceptions.FitFailedWarning):
        theirs = GridSearchCV(FailsOnce(), {"C": [1.0]}, cv=CV, **options).fit(*numbers)
    for key in [key for key in theirs.cv_results_ if "_test_" in key]:
        assert ours.cv_results_[key].tolist() == theirs.cv_results_[key].tolist()


def test_scores_that_are_no_number_are_named_as_the_cause(numbers):
    with pytest.raises(ValueError, match="scores are NaN"):
        search(scoring=lambda estimator, X, y: np.nan, n_trials=2).fit(*numbers)


def two_scores(estimator, X, y):
    return {"one": 0.5, "two": estimator.C}


def test_ctrl_c_stays_ctrl_c_with_a_callable_that_scores_twice(numbers):
    Interrupts.left = 5
    interrupted = MuraSearchCV(
        Interrupts(), C, n_trials=4, cv=CV, scoring=two_scores, refit="two", random_state=0
    )
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(*numbers)
    assert interrupted.best_score_ == pytest.approx(interrupted.best_params_["C"])
    Interrupts.left = 0
    assert len(interrupted.fit(*numbers).cv_results_["params"]) == 4


def test_an_interrupted_search_is_not_fitted(numbers):
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    Interrupts.left = 0
    searched = MuraSearchCV(Interrupts(), C, n_trials=2, cv=CV, random_state=0).fit(*numbers)
    Interrupts.left = 5
    X, y = numbers
    with pytest.raises(KeyboardInterrupt):
        searched.fit(X[:60], y[:60])
    assert not hasattr(searched, "best_estimator_")
    with pytest.raises(NotFittedError):
        check_is_fitted(searched)


def test_a_storage_without_a_name_resumes_in_the_same_object(numbers, tmp_path):
    storage = f"sqlite:///{tmp_path}/search.db"
    Interrupts.left = 5
    searched = MuraSearchCV(Interrupts(), C, n_trials=3, cv=CV, storage=storage, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        searched.fit(*numbers)
    Interrupts.left = 0
    searched.fit(*numbers)
    assert len(optuna.get_all_study_summaries(storage)) == 1


# -- storages ----------------------------------------------------------------------------------

STARTER = """
import sys
from optuna.distributions import FloatDistribution
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from murakit import MuraSearchCV
data = make_classification(60, random_state=0)
space = {"C": FloatDistribution(1e-3, 1e2, log=True)}
for storage in sys.argv[1:]:
    print("ready", flush=True)
    sys.stdin.readline()
    search = MuraSearchCV(LogisticRegression(), space, n_trials=2, cv=KFold(2), storage=storage, study_name="s")
    search.fit(*data)
    print(len(search.cv_results_["params"]), flush=True)
"""


def test_processes_that_start_one_new_study_at_once_all_go_on(tmp_path):
    storages = [f"sqlite:///{tmp_path}/{number}.db" for number in range(6)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([sys.executable, "-c", STARTER, *storages], **pipes) for _ in range(2)]
    try:
        for storage in storages:
            assert [process.stdout.readline() for process in running] == ["ready\n"] * 2, storage
            for process in running:
                process.stdin.write("go\n")
                process.stdin.flush()
            assert all(int(process.stdout.readline() or 0) >= 2 for process in running), storage
            assert optuna.get_all_study_names(storage) == ["s"]
    finally:
        for process in running:
            process.kill()
    assert [process.communicate()[1] for process in running] == [""] * 2


def test_a_locked_storage_is_said_to_be_locked(numbers, tmp_path):
    storage = f"sqlite:///{tmp_path}/search.db?timeout=0.1"
    blocking = sqlite3.connect(tmp_path / "search.db", isolation_level=None)
    blocking.execute("begin exclusive")
    with pytest.raises(
        ValueError, match=r"storage='.*' is locked \(.*database is locked\).* Close that program"
    ):
        search(storage=storage, study_name="s").fit(*numbers)
    blocking.execute("commit")

    class Blocked(LogisticRegression):
        def fit(self, X, y):
            blocking.execute("begin exclusive")
            return super().fit(X, y)

    searching = MuraSearchCV(
        Blocked(), C, n_trials=1, cv=[next(CV.split(*numbers))], storage=storage, study_name="s"
    )
    with pytest.raises(ValueError, match=r"is locked .* finished trials are kept"):
        searching.fit(*numbers)
    blocking.execute("commit")
    assert search(storage=storage, study_name="t").fit(*numbers).best_score_ > 0


def test_a_file_that_is_no_database_is_named_with_what_the_database_says(numbers, tmp_path):
    (tmp_path / "search.db").write_text("lr,score\n" * 200)
    with pytest.raises(ValueError, match=r"cannot be opened .*file is not a database"):
        search(storage=f"sqlite:///{tmp_path}/search.db", study_name="s").fit(*numbers)


def test_a_study_whose_failed_folds_have_no_record_is_resumed(numbers):
    """Earlier versions wrote null for the folds of a trial that failed in all of them."""
    storage = optuna.storages.InMemoryStorage()
    options = {"storage": storage, "study_name": "s", "scoring": ["accuracy", "roc_auc"], "refit": "roc_auc"}
    search(n_trials=1, **options).fit(*numbers)
    study = optuna.load_study(study_name="s", storage=storage)
    trial = study.ask({"C": C["C"]})
    trial.set_user_attr("murakit:folds", [None, None, None])
    study.tell(trial, state=TrialState.FAIL)
    results = search(n_trials=3, **options).fit(*numbers).cv_results_
    assert results["trial_state"].tolist() == ["COMPLETE", "FAIL", "COMPLETE"]
    assert np.isnan(results["mean_test_accuracy"]).tolist() == [False, True, False]
    assert results["rank_test_roc_auc"][1] == 3


def test_a_callable_that_scores_twice_goes_with_a_number_as_error_score(numbers):
    results = MuraSearchCV(
        FailsBelowOne(),
        {"C": [0.1, 10.0]},
        n_trials=2,
        cv=CV,
        scoring=two_scores,
        refit="two",
        error_score=-1.0,
        sampler=optuna.samplers.GridSampler({"C": [0.1, 10.0]}, seed=0),
    )
    with pytest.warns(sklearn.exceptions.FitFailedWarning):
        results.fit(*numbers)
    assert sorted(results.cv_results_["mean_test_one"]) == [-1.0, 0.5]


def test_a_study_can_be_stopped_in_optunas_own_loop_after_the_search(numbers):
    study = search(n_trials=1).fit(*numbers).study_
    study.optimize(
        lambda trial: trial.suggest_float("C", 1e-3, 1e2, log=True), callbacks=[lambda s, t: s.stop()]
    )
    assert len(study.trials) == 2


@pytest.mark.parametrize("stored", [True, False])
def test_a_pickle_leaves_the_study_to_the_storage(numbers, tmp_path, stored):
    storage = {"storage": f"sqlite:///{tmp_path}/search.db", "study_name": "s"} if stored else {}
    found = search(**storage).fit(*numbers)
    again = pickle.loads(pickle.dumps(found))
    assert hasattr(again, "study_") != stored
    assert again.predict(numbers[0]).tolist() == found.predict(numbers[0]).tolist()


def test_a_refit_that_is_interrupted_leaves_the_results_and_no_estimator(numbers):
    Interrupts.left = 4
    found = MuraSearchCV(Interrupts(), C, n_trials=1, cv=CV, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        found.fit(*numbers)
    assert len(found.cv_results_["params"]) == 1 and not hasattr(found, "best_estimator_")
    Interrupts.left = 2
    found.fit(*numbers)
    assert len(found.study_.trials) == 1 and found.best_estimator_.C == found.best_params_["C"]


def test_with_verbose_two_each_trial_has_a_line(numbers, capsys):
    search(n_trials=2, verbose=2).fit(*numbers)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].startswith("trial 1: COMPLETE, 0.")


def test_ctrl_c_while_the_sampler_learns_of_a_trial_keeps_the_trial(numbers):
    class Slow(optuna.samplers.RandomSampler):
        def after_trial(self, study, trial, state, values):
            if trial.number == 1:
                raise KeyboardInterrupt

    interrupted = search(sampler=Slow(seed=0))
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(*numbers)
    assert interrupted.cv_results_["trial_state"].tolist() == ["COMPLETE"] * 2


def test_ctrl_c_stays_ctrl_c_in_a_study_that_holds_trials_of_another_program(numbers):
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    study.add_trial(optuna.trial.create_trial(params={"C": 1.0}, distributions=C, value=0.5))
    Interrupts.left = 1
    with pytest.raises(KeyboardInterrupt):
        MuraSearchCV(Interrupts(), C, n_trials=3, cv=CV, storage=storage, study_name="s").fit(*numbers)
