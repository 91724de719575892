"""MuraClassifier inside everything that scikit-learn users do with a classifier.

A spy on every fit and prediction shows that no patient was on both sides of any split, the inner
validation split included.
"""

import numpy as np
import optuna
import pandas as pd
import pytest
import sklearn
from helpers import patients_of, quick_classifier
from optuna.distributions import FloatDistribution
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import RocCurveDisplay
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_validate,
    learning_curve,
    permutation_test_score,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from murakit import MuraClassifier, MuraSearchCV, PatientKFold, PatientShuffleSplit
from murakit.datasets._paths import as_paths

LR = {"lr": [1e-3, 1e-2]}
CV = PatientKFold(2)


class Spy(MuraClassifier):
    """Keeps which patients each fit was given, and notes where it is asked for one of them again."""

    fits = []
    leaks = []

    def fit(self, X, y, groups=None, **kwargs):
        super().fit(X, y, groups, **kwargs)
        inner = set(self.train_patients_) & set(self.validation_patients_)
        Spy.fits.append(self)
        if inner:
            Spy.leaks.append(("inner", inner))
        assert set(self.train_patients_) | set(self.validation_patients_) == set(patients_of(X))
        return self

    def _log_proba(self, X):
        asked = set(patients_of(as_paths(X)))
        own = {*self.train_patients_, *self.validation_patients_} & asked
        if own:
            Spy.leaks.append(("training score" if own == asked else "outer", own))
        return super()._log_proba(X)


@pytest.fixture(autouse=True)
def watch():
    Spy.fits.clear()
    Spy.leaks.clear()
    yield
    assert Spy.fits, "the spy never saw a fit"
    assert Spy.leaks == []


def spy(**params):
    return Spy(**quick_classifier(max_epochs=1, **params).get_params())


FORMS = {
    "array": lambda paths: paths,
    "list": list,
    "Series": pd.Series,
    "column": lambda paths: paths.reshape(-1, 1),
    "DataFrame": lambda paths: pd.DataFrame({"path": paths}),
}


@pytest.fixture(params=["image", "study"])
def bunch(request, images, studies):
    return images if request.param == "image" else studies


@pytest.fixture(params=list(FORMS))
def X(request, bunch):
    return FORMS[request.param](bunch.data)


@pytest.fixture(params=[False, True], ids=["routing off", "routing on"], autouse=True)
def routing(request):
    with sklearn.config_context(enable_metadata_routing=request.param):
        yield request.param


def test_cross_validate_and_cross_val_predict(X, bunch, routing):
    scores = cross_validate(
        spy(), X, bunch.target, cv=CV, scoring=["roc_auc", "neg_log_loss"], error_score="raise"
    )
    assert np.isfinite(scores["test_roc_auc"]).all()
    groups = {"params": {"groups": bunch.patients}} if routing else {"groups": bunch.patients}
    proba = cross_val_predict(spy(), X, bunch.target, cv=GroupKFold(2), method="predict_proba", **groups)
    assert proba.shape == (len(bunch.target), 2)
    cross_val_predict(spy(), X, bunch.target, cv=PatientKFold(2), method="decision_function")


def search_cases():
    return {
        "GridSearchCV": GridSearchCV(spy(), LR, cv=CV, error_score="raise"),
        "HalvingGridSearchCV": HalvingGridSearchCV(
            spy(),
            LR,
            cv=CV,
            min_resources=12,
            factor=2,
            error_score="raise",
            random_state=0,
            # The scores of the training side are predictions of its own patients.
            return_train_score=False,
        ),
        "RandomizedSearchCV": RandomizedSearchCV(
            spy(), LR, n_iter=2, cv=CV, error_score="raise", random_state=0
        ),
        "MuraSearchCV": MuraSearchCV(
            spy(), {"lr": FloatDistribution(1e-3, 1e-2)}, n_trials=2, cv=CV, error_score="raise"
        ),
    }


@pytest.mark.parametrize("name", list(search_cases()))
def test_searches(name, X, bunch):
    search = search_cases()[name].fit(X, bunch.target)
    assert search.best_params_["lr"] > 0
    Spy.fits.append(search.best_estimator_)
    # best_estimator_ is fitted on everything, so that predicting is predicting its own patients.
    _predict_own(search, X)


@pytest.mark.parametrize("form", ["array", "DataFrame"])
def test_optuna_search_cv(form, images):
    from optuna_integration import OptunaSearchCV

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = OptunaSearchCV(
        spy(), {"lr": FloatDistribution(1e-3, 1e-2)}, cv=CV, n_trials=2, error_score="raise", random_state=0
    )
    X = FORMS[form](images.data)
    search.fit(X, images.target)
    _predict_own(search, X)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
def test_calibrated_classifier(method, X, bunch):
    calibrated = CalibratedClassifierCV(spy(), method=method, cv=CV).fit(X, bunch.target)
    _predict_own(calibrated, X)


def test_tuned_threshold(X, bunch):
    tuned = TunedThresholdClassifierCV(spy(), scoring="balanced_accuracy", cv=CV, random_state=0)
    tuned.fit(X, bunch.target)
    assert 0 <= tuned.best_threshold_ <= 1
    _predict_own(tuned, X)


def test_voting_and_stacking(X, bunch):
    members = [("one", spy()), ("two", spy(random_state=1))]
    _predict_own(VotingClassifier(members, voting="soft").fit(X, bunch.target), X)
    stack = StackingClassifier(members, final_estimator=LogisticRegression(), cv=CV)
    _predict_own(stack.fit(X, bunch.target), X)


@pytest.mark.parametrize("form", ["column", "DataFrame"])
def test_bagging(form, bunch):
    # scikit-learn's bagging takes tables only; a draw of images is passed on as weights.
    X = FORMS[form](bunch.data)
    with sklearn.config_context(enable_metadata_routing=False):
        bag = SpyBagging(n_estimators=2, random_state=0).fit(X, bunch.target)
    _predict_own(bag, X)


def SpyBagging(**params):
    return BaggingClassifier(spy_of_weights(), **params)


class WeightSpy(Spy):
    def fit(self, X, y, groups=None, sample_weight=None, **kwargs):
        MuraClassifier.fit(self, X, y, groups, sample_weight=sample_weight, **kwargs)
        Spy.fits.append(self)
        assert not set(self.train_patients_) & set(self.validation_patients_)
        drawn = np.asarray(sample_weight) > 0
        drawn_patients = set(patients_of(as_paths(X)[drawn]))
        assert set(self.train_patients_) | set(self.validation_patients_) == drawn_patients
        return self


def spy_of_weights():
    return WeightSpy(**quick_classifier(max_epochs=1).get_params())


def test_learning_curve_and_permutation_test(X, bunch):
    learning_curve(spy(), X, bunch.target, cv=CV, train_sizes=[0.8, 1.0], error_score="raise")
    # The curve has training scores too; those are of known patients alone.
    Spy.leaks[:] = [leak for leak in Spy.leaks if leak[0] != "training score"]
    permutation_test_score(spy(), X, bunch.target, cv=CV, n_permutations=2, random_state=0)


def test_a_pipeline_and_a_roc_curve(X, bunch):
    pipe = Pipeline([("same", FunctionTransformer()), ("clf", spy())])
    cross_validate(pipe, X, bunch.target, cv=PatientShuffleSplit(2, random_state=0), error_score="raise")
    (train, test), *_ = CV.split(X, bunch.target)
    pipe.fit(as_paths(X)[train], bunch.target[train])
    display = RocCurveDisplay.from_estimator(pipe, as_paths(X)[test], bunch.target[test])
    assert 0 <= display.roc_auc <= 1


def _predict_own(model, X):
    """Predict what the model was fitted on, which is no leak: nothing is scored."""
    before = list(Spy.leaks)
    assert model.predict(X).shape == (len(X),)
    Spy.leaks[:] = before
