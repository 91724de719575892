"""MuraSearchCV against GridSearchCV on the same candidates."""

import ast
import re
import warnings
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import sklearn
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, ClassifierMixin, clone, is_classifier, is_regressor
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.cluster import KMeans
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, check_scoring, log_loss, make_scorer
from sklearn.model_selection import GridSearchCV, KFold, ParameterGrid, ShuffleSplit, cross_validate
from sklearn.svm import SVC
from sklearn.utils import get_tags

import murakit
from murakit import MuraSearchCV
from murakit.model_selection._scores import table_of_results

CV = KFold(3)


@pytest.fixture(scope="module")
def numbers():
    return make_classification(90, random_state=0)


class Toy(ClassifierMixin, BaseEstimator):
    """Predicts by one feature; `kind` and `pair` change nothing, so that candidates tie."""

    def __init__(self, column=0, shift=0.0, kind="plain", pair=None, fails_at=None):
        self.column, self.shift, self.kind, self.pair, self.fails_at = column, shift, kind, pair, fails_at

    def fit(self, X, y, sample_weight=None):
        first_fold = self.fails_at == "first fold" and self.column == 1 and X[0, 0] == Toy.first
        if self.column == self.fails_at or (first_fold and len(X) < 90):
            raise MemoryError("too small a machine")
        self.classes_, self.n_features_in_ = np.unique(y), X.shape[1]
        return self

    def predict_proba(self, X):
        positive = 1 / (1 + np.exp(-X[:, self.column] - self.shift))
        return np.column_stack([1 - positive, positive])

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def both(estimator, grid, data, params=None, **options):
    """Search the same candidates in the same order by the two, and return both."""
    X, y = data
    candidates = list(ParameterGrid(grid))
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="s", direction="maximize")
    for candidate in candidates:
        study.enqueue_trial(candidate)
    ours = MuraSearchCV(
        clone(estimator), grid, n_trials=len(candidates), storage=storage, study_name="s", **options
    )
    theirs = GridSearchCV(estimator, grid, **options)
    with warnings.catch_warnings():
        # Of failed fits, of means that are no numbers, and of tuples as choices.
        warnings.simplefilter("ignore")
        ours.fit(X, y, **(params or {}))
        theirs.fit(X, y, **(params or {}))
    return ours, theirs


def assert_same(ours, theirs):
    found, expected = dict(ours.cv_results_), theirs.cv_results_
    assert found.pop("trial_number").tolist() == list(range(len(expected["params"])))
    assert len(found.pop("trial_state")) == len(expected["params"])
    assert set(found) == set(expected)
    for name, column in expected.items():
        assert type(found[name]) is type(column), name
        if name == "params":
            assert found[name] == column
            continue
        assert found[name].dtype == column.dtype and found[name].shape == column.shape, name
        if name.endswith("_time"):
            assert (np.isfinite(found[name]) == np.isfinite(column)).all() and (found[name] >= 0).all(), name
        else:
            np.testing.assert_array_equal(np.ma.getmaskarray(found[name]), np.ma.getmaskarray(column))
            np.testing.assert_array_equal(found[name], column, err_msg=name, strict=True)
    for name in ("best_index_", "best_score_", "best_params_", "n_splits_", "multimetric_"):
        assert hasattr(ours, name) == hasattr(theirs, name), name
        assert getattr(ours, name, None) == getattr(theirs, name, None), name
    for name in ("best_estimator_", "refit_time_"):
        assert hasattr(ours, name) == hasattr(theirs, name), name
    assert str(ours.scorer_) == str(theirs.scorer_)


def one_number(estimator, X, y):
    return estimator.score(X, y)


def two_numbers(estimator, X, y):
    return {"accuracy": estimator.score(X, y), "shift": np.float32(estimator.shift)}


def second(results):
    return 1


def named(value):
    """A name that all processes that run the tests agree on: the repr of a function holds its address."""
    return re.sub(r" at 0x\w+", "", str(value))


GRID = {"column": [0, 1], "shift": [0.5, 2.0], "kind": ["plain"], "pair": [None, 3]}


@pytest.mark.parametrize(
    ("scoring", "refit"),
    [
        (None, True),
        ("roc_auc", True),
        ("neg_log_loss", False),
        (make_scorer(accuracy_score), second),
        (one_number, "any name"),
        (two_numbers, "shift"),
        (["accuracy", "roc_auc"], "roc_auc"),
        (("accuracy", "neg_brier_score"), "accuracy"),
        ({"a": "accuracy", "b": make_scorer(log_loss, response_method="predict_proba")}, "b"),
        ({"own": one_number}, "own"),
    ],
    ids=named,
)
def test_every_column_is_that_of_grid_search(numbers, scoring, refit):
    ours, theirs = both(Toy(), GRID, numbers, cv=CV, scoring=scoring, refit=refit, return_train_score=True)
    ranks = [column for name, column in theirs.cv_results_.items() if name.startswith("rank_")]
    assert all(len(np.unique(rank)) < len(rank) for rank in ranks), "no ties"
    assert_same(ours, theirs)
    if refit:
        X, y = numbers
        assert ours.score(X, y) == theirs.score(X, y)
        np.testing.assert_array_equal(ours.predict_proba(X), theirs.predict_proba(X))
        assert ours.classes_.tolist() == theirs.classes_.tolist() and ours.n_features_in_ == 20


@pytest.mark.parametrize("fails_at", [1, "first fold"], ids=["all folds", "one fold"])
@pytest.mark.parametrize("error_score", [np.nan, -1.0, 0])
@pytest.mark.parametrize(
    ("scoring", "refit"),
    [("accuracy", True), (["accuracy", "roc_auc"], "roc_auc"), (two_numbers, "shift")],
    ids=named,
)
def test_failed_fits_are_entered_as_grid_search_enters_them(numbers, fails_at, error_score, scoring, refit):
    Toy.first = numbers[0][0, 0]
    options = {"cv": CV, "scoring": scoring, "refit": refit, "error_score": error_score}
    ours, theirs = both(Toy(fails_at=fails_at), GRID, numbers, return_train_score=True, **options)
    assert_same(ours, theirs)
    states = set(ours.cv_results_["trial_state"].tolist())
    assert states == ({"COMPLETE", "FAIL"} if np.isnan(error_score) else {"COMPLETE"})


@pytest.mark.parametrize("scoring", ["accuracy", ["accuracy", "failing"], "callable"], ids=named)
def test_failed_scores_are_warned_of_and_entered(numbers, scoring):
    def failing(estimator, X, y):
        if estimator.column == 1:
            raise OSError("no score today")
        return 0.5

    scoring = {"accuracy": failing, "callable": failing}.get(
        str(scoring), {"accuracy": "accuracy", "failing": failing}
    )
    options = {"cv": CV, "scoring": scoring, "refit": "accuracy", "error_score": 0.0}
    assert_same(*both(Toy(), {"column": [0, 1]}, numbers, return_train_score=True, **options))
    search = MuraSearchCV(Toy(column=1), {"shift": [0.0]}, n_trials=1, **options)
    with pytest.warns(UserWarning, match=r"Scoring failed(.|\n)*no score today"):
        search.fit(*numbers)
    with pytest.raises(OSError, match="no score today"):
        search.set_params(error_score="raise").fit(*numbers)


def test_a_score_that_is_no_number_is_an_error(numbers):
    search = MuraSearchCV(Toy(), {"column": [0]}, n_trials=1, cv=CV, scoring=lambda estimator, X, y: [1, 2])
    with pytest.raises(ValueError, match="scoring must return a number"):
        search.fit(*numbers)


def test_parameters_that_some_trials_lack_are_masked(numbers):
    grid = [{"column": [0, 1], "pair": [(1, 2), (3, 4)]}, {"kind": ["a"], "column": [2]}, {"shift": [1.5]}]
    theirs = GridSearchCV(Toy(), grid, cv=CV, return_train_score=True).fit(*numbers).cv_results_
    records = [
        [
            {
                "test_scores": theirs[f"split{fold}_test_score"][row],
                "train_scores": theirs[f"split{fold}_train_score"][row],
                "fit_time": 1.0,
                "score_time": 1.0,
            }
            for fold in range(3)
        ]
        for row in range(len(theirs["params"]))
    ]
    ours = table_of_results(theirs["params"], records, 3, True)
    assert set(ours) == set(theirs)
    for name in [name for name in theirs if "_time" not in name and name != "params"]:
        assert ours[name].dtype == theirs[name].dtype and type(ours[name]) is type(theirs[name]), name
        np.testing.assert_array_equal(np.ma.getmaskarray(ours[name]), np.ma.getmaskarray(theirs[name]))
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("scoring", ["accuracy", ["accuracy", "roc_auc"]], ids=named)
def test_weights_reach_fits_and_scores_as_in_grid_search(numbers, routing, scoring):
    weight = np.random.default_rng(0).uniform(0.1, 5, len(numbers[1]))
    with sklearn.config_context(enable_metadata_routing=routing):
        estimator = LogisticRegression()
        if routing:
            estimator.set_fit_request(sample_weight=True)
            names = scoring if isinstance(scoring, list) else [scoring]
            scorers = {n: sklearn.metrics.get_scorer(n).set_score_request(sample_weight=True) for n in names}
            scoring = scorers if isinstance(scoring, list) else scorers[scoring]
        options = {"cv": CV, "scoring": scoring, "refit": "accuracy"}
        params = {"sample_weight": weight}
        ours, theirs = both(estimator, {"C": [0.01, 1.0]}, numbers, params, **options)
        assert_same(ours, theirs)
        plain, _ = both(LogisticRegression(), {"C": [0.01, 1.0]}, numbers, cv=CV, scoring="accuracy")
        names = [name for name in ours.cv_results_ if name.startswith("mean_test")]
        assert not np.allclose(ours.cv_results_[names[0]], plain.cv_results_["mean_test_score"])
        if routing:
            expected = theirs.score(*numbers, sample_weight=weight)
            assert ours.score(*numbers, sample_weight=weight) == expected
        else:
            with pytest.raises(ValueError, match="enable_metadata_routing"):
                ours.score(*numbers, sample_weight=weight)


def test_a_shuffled_splitter_deals_once_for_the_whole_search(numbers):
    seen = []

    class Watching(Toy):
        def fit(self, X, y):
            seen.append(X.sum())
            return super().fit(X, y)

    cv = ShuffleSplit(2, random_state=np.random.RandomState(0))
    for pruner in (None, optuna.pruners.NopPruner()):
        seen.clear()
        MuraSearchCV(Watching(), {"shift": [1.0]}, n_trials=3, cv=cv, refit=False, pruner=pruner).fit(
            *numbers
        )
        assert len(seen) == 6 and len(set(seen)) == 2


@pytest.mark.parametrize(
    "estimator", [LogisticRegression(), Ridge(), KMeans(2, n_init=1, random_state=0), PCA(2)], ids=str
)
def test_the_search_is_what_its_estimator_is(numbers, estimator):
    name = "C" if isinstance(estimator, LogisticRegression) else "tol"
    ours, theirs = both(estimator, {name: [1e-2]}, numbers, cv=CV)
    assert is_classifier(ours) == is_classifier(theirs) and is_regressor(ours) == is_regressor(theirs)
    assert get_tags(ours) == get_tags(theirs)
    methods = (
        "predict",
        "predict_proba",
        "predict_log_proba",
        "decision_function",
        "score_samples",
        "transform",
    )
    for method in (*methods, "inverse_transform"):
        assert hasattr(ours, method) == hasattr(theirs, method), method
        assert hasattr(clone(ours), method) == hasattr(clone(theirs), method), method
    for method in [method for method in methods if hasattr(ours, method)]:
        np.testing.assert_array_equal(getattr(ours, method)(numbers[0]), getattr(theirs, method)(numbers[0]))
    assert hasattr(ours, "classes_") == hasattr(theirs, "classes_")
    assert ours.n_features_in_ == theirs.n_features_in_
    assert not hasattr(clone(ours), "n_features_in_") and not hasattr(clone(ours), "classes_")


def test_a_precomputed_kernel_is_cut_on_both_sides(numbers):
    X, y = numbers
    assert_same(*both(SVC(kernel="precomputed"), {"C": [0.1, 1.0]}, (X @ X.T, y), cv=CV))


def test_lists_of_rows_and_masks_as_folds_are_cut_as_by_grid_search(numbers):
    X, y = numbers
    folds = [(np.arange(90) % 3 != fold, np.arange(90) % 3 == fold) for fold in range(3)]
    assert_same(*both(LogisticRegression(), {"C": [0.01, 1.0]}, (X.tolist(), y.tolist()), cv=folds))
    assert_same(*both(LogisticRegression(), {"C": [0.01, 1.0]}, (pd.DataFrame(X), pd.Series(y)), cv=folds))
    assert_same(*both(LogisticRegression(), {"C": [0.01, 1.0]}, (csr_array(X), y), cv=folds))


def test_without_a_refit_there_is_nothing_to_predict_with(numbers):
    search = MuraSearchCV(Toy(), {"column": [0]}, n_trials=1, cv=CV, refit=False)
    with pytest.raises(NotFittedError):
        search.set_params(refit=True).predict(numbers[0])
    search.set_params(refit=False).fit(*numbers)
    with pytest.raises(AttributeError, match="refit=False"):
        search.score(*numbers)
    with pytest.raises(AttributeError, match="no attribute 'predict'") as caught:
        search.predict(numbers[0])
    assert "refit=False" in str(caught.value.__cause__)


def test_a_refit_that_names_no_trial_is_an_error(numbers):
    search = MuraSearchCV(Toy(), {"column": [0]}, n_trials=1, cv=CV)
    with pytest.raises(TypeError, match="must be an integer"):
        search.set_params(refit=lambda results: 0.5).fit(*numbers)
    with pytest.raises(IndexError, match="there are 1 trials"):
        search.set_params(refit=lambda results: 1).fit(*numbers)


def test_nonsense_is_refused_before_the_first_fit(numbers):
    search = MuraSearchCV(Toy(), {"column": [0]}, n_trials=1, cv=CV)
    with pytest.raises(ValueError, match="error_score='none' must be 'raise' or a number"):
        clone(search).set_params(error_score="none").fit(*numbers)
    with pytest.raises(ValueError, match="gives no folds"):
        clone(search).set_params(cv=[]).fit(*numbers)
    assert not hasattr(search, "study_")


def test_nested_in_cross_validate(numbers):
    options = {"cv": CV, "scoring": "accuracy"}
    ours = MuraSearchCV(Toy(), {"column": [0, 1, 2]}, n_trials=9, random_state=0, **options)
    theirs = GridSearchCV(Toy(), {"column": [0, 1, 2]}, **options)
    scores = [cross_validate(search, *numbers, cv=CV)["test_score"] for search in (ours, theirs)]
    np.testing.assert_array_equal(*scores)


def test_folds_in_worker_processes_score_the_same(numbers):
    ours, theirs = both(LogisticRegression(), {"C": [0.01, 1.0]}, numbers, cv=CV, n_jobs=2)
    assert_same(ours, theirs)


# -- scikit-learn's callbacks ------------------------------------------------------------------


class Recording:
    """Writes down which task begins and which ends."""

    max_propagation_depth = 1

    def __init__(self):
        self.begun, self.ended, self.lifetime = [], [], []

    def setup(self, estimator, context):
        self.lifetime.append("setup")

    def teardown(self, estimator, context):
        self.lifetime.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.begun.append((context.source_task_name or context.task_name, context.max_subtasks))

    def on_fit_task_end(self, estimator, context):
        self.ended.append(context.source_task_name or context.task_name)


@pytest.mark.parametrize("pruner", [None, optuna.pruners.NopPruner()], ids=["none", "by fold"])
def test_callbacks_of_scikit_learn_see_the_search_its_folds_and_the_refit(numbers, pruner):
    seen = Recording()
    search = MuraSearchCV(Toy(), {"column": [0, 1]}, n_trials=4, cv=CV, random_state=0, pruner=pruner)
    with pytest.warns(UserWarning, match="does not support callbacks"):
        search.set_callbacks(seen).fit(*numbers)
    names = ["fit", "search", *["candidate-split-evaluation"] * 12, "refit-with-best-params"]
    assert [name for name, _ in seen.begun] == names
    assert dict(seen.begun)["search"] == 12
    assert sorted(seen.ended) == sorted(names) and seen.ended[-1] == "fit"
    assert seen.lifetime == ["setup", "teardown"]


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_a_scoring_monitor_of_the_estimator_logs_each_fold_as_in_grid_search(numbers, n_jobs):
    logs = []
    for number in range(2):
        monitor = ScoringMonitor(scoring="accuracy")
        estimator = LogisticRegression().set_callbacks(monitor)
        name = type(both(estimator, {"C": [0.1, 1.0]}, numbers, cv=CV, n_jobs=n_jobs)[number]).__name__
        (log,) = [log for log in monitor.get_logs(select="all") if log.estimator_name == name]
        logs.append([(row["task_id_path"], row["task_name"], row["accuracy"]) for row in log.data])
    assert logs[0] == logs[1] and len(logs[0]) > 7


def test_a_progress_bar_of_scikit_learn_shows_the_search(numbers, capsys):
    pytest.importorskip("rich")
    search = MuraSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, n_trials=2, cv=CV)
    search.set_callbacks(ProgressBar()).fit(*numbers)
    assert "MuraSearchCV - search" in capsys.readouterr().out


# -- public names only -------------------------------------------------------------------------


def private_names(numbers):
    """The private names of scikit-learn's searches and scorers and of Optuna's objects."""
    study = optuna.create_study()
    fitted = GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=CV).fit(*numbers)
    scorers = [check_scoring(LogisticRegression(), scoring) for scoring in ("accuracy", ["accuracy"])]
    owners = [fitted, *scorers, study, study.ask(), optuna.storages.InMemoryStorage()]
    names = {name for owner in owners for name in dir(owner) if name.startswith("_")}
    # scikit-learn's guide for developers counts this one among its public names.
    return {name for name in names if not name.startswith("__")} - {"_init_callback_context"}


def private_uses(source, names):
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module=str(module), names=aliases) if module.split(".")[0] in (
                "sklearn",
                "optuna",
            ):
                used = {
                    part for part in [*module.split("."), *(a.name for a in aliases)] if part.startswith("_")
                }
            case ast.Import(names=aliases):
                parts = [a.name.split(".") for a in aliases]
                used = {
                    p for part in parts if part[0] in ("sklearn", "optuna") for p in part if p.startswith("_")
                }
            case ast.Attribute(attr=name) | ast.FunctionDef(name=name) | ast.Constant(value=str(name)):
                used = {name} & names
            case _:
                used = set()
        yield from used


def test_the_search_uses_public_names_of_scikit_learn_and_optuna_only(numbers):
    names = private_names(numbers)
    assert {
        "_run_search",
        "_format_results",
        "_get_scorers",
        "_stop_flag",
        "_thread_local",
        "_scorers",
    } <= names
    room = Path(murakit.__file__).parent / "model_selection"
    found = {path.name: list(private_uses(path.read_text(), names)) for path in room.glob("*.py")}
    assert len(found) >= 4 and not any(found.values()), found
    for bad in (
        "from sklearn.model_selection._search import BaseSearchCV",
        "study._stop_flag = False",
        "import optuna._x",
    ):
        assert list(private_uses(bad, names))


def test_no_module_imports_scikit_learns_search_or_optuna_by_private_names():
    for path in Path(murakit.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or node.level:
                continue
            parts = [*node.module.split("."), *(alias.name for alias in node.names)]
            if parts[0] == "optuna" or parts[:2] == ["sklearn", "model_selection"]:
                assert not any(part.startswith("_") for part in parts), path
