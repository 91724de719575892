"""A classifier for each region, and models that tell region and abnormality at once."""

import joblib
import numpy as np
import pytest
import sklearn
from helpers import quick_classifier
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline

from murakit import (
    PatientKFold,
    PerRegionClassifier,
    evaluate,
    load_model,
    load_mura,
    predict_abnormal,
    predict_region,
    region_confusion,
    save_model,
    study_scorer,
)
from murakit.persistence import _save as persistence


class Fixed(ClassifierMixin, BaseEstimator):
    """Gives each path the probabilities of a function."""

    def __init__(self, classes, proba_of):
        self.classes_ = np.array(classes, dtype=object)
        self.proba_of = proba_of

    def predict_proba(self, X):
        return np.array([self.proba_of(path) for path in X])


def of_region(mura, region):
    return mura.data[mura.regions == region], mura.target[mura.regions == region]


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_each_region_is_predicted_by_a_clone_fitted_on_it_alone(images, n_jobs):
    # Another process knows the real backbones only.
    start = quick_classifier(backbone="small", unfreeze="head")
    per_region = PerRegionClassifier(start, n_jobs=n_jobs).fit(images.data, images.target)
    assert per_region.regions_.tolist() == ["elbow", "wrist"]
    proba, labels = per_region.predict_proba(images.data), per_region.predict(images.data)
    for region in per_region.regions_:
        X, y = of_region(images, region)
        alone = clone(start).fit(X, y)
        np.testing.assert_array_equal(proba[images.regions == region], alone.predict_proba(X))
        np.testing.assert_array_equal(labels[images.regions == region], alone.predict(X))


def test_patients_that_are_passed_reach_each_region(images):
    class Spy(DummyClassifier):
        def fit(self, X, y, groups=None):
            self.seen_ = groups
            return super().fit(X, y)

    per_region = PerRegionClassifier(Spy()).fit(images.data, images.target, groups=images.patients)
    for region, estimator in zip(per_region.regions_, per_region.estimators_):
        assert estimator.seen_.tolist() == images.patients[images.regions == region].tolist()


def test_models_that_start_from_one_of_all_regions_go_on_from_its_weights(images):
    start = quick_classifier(max_epochs=3)
    per_region = PerRegionClassifier(start, start_from_all=True).fit(images.data, images.target)
    for region, estimator in zip(per_region.regions_, per_region.estimators_):
        X, y = of_region(images, region)
        by_hand = clone(start).fit(images.data, images.target).set_params(warm_start=True).fit(X, y)
        np.testing.assert_array_equal(by_hand.predict_proba(X), estimator.predict_proba(X))
        assert estimator.warm_start is False


def test_an_estimator_without_warm_start_cannot_start_from_another(images):
    with pytest.raises(ValueError, match="DummyClassifier knows no warm_start"):
        PerRegionClassifier(DummyClassifier(), start_from_all=True).fit(images.data, images.target)


def test_an_unknown_region_is_refused_by_its_row(images):
    per_region = PerRegionClassifier(DummyClassifier()).fit(*of_region(images, "wrist"))
    row = int(np.flatnonzero(images.regions == "elbow")[0])
    for method in (per_region.predict, per_region.predict_proba):
        with pytest.raises(ValueError, match=rf"row {row} is of the region 'elbow'.*knows wrist only"):
            method(images.data)


def test_what_fails_in_a_region_names_it(images):
    clf = PerRegionClassifier(quick_classifier(max_epochs=1), start_from_all=True)
    few = np.isin(images.patients, np.unique(images.patients[images.regions == "wrist"])[:1])
    rows = (images.regions == "elbow") | few
    y = np.where(images.regions[rows] == "wrist", np.arange(rows.sum()) % 2, images.target[rows])
    with pytest.raises(ValueError, match=r"The region 'wrist' \(start_from_all .*warm_start\): "):
        clf.fit(images.data[rows], y)


def test_a_region_of_one_class_is_refused_before_any_training(images):
    kept = (images.regions == "wrist") | (images.target == 0)
    with pytest.raises(ValueError, match="region 'elbow' holds only the class 0"):
        PerRegionClassifier(quick_classifier()).fit(images.data[kept], images.target[kept])


def test_paths_outside_of_muras_layout_are_refused(images):
    with pytest.raises(ValueError, match="region of row 0 is not known"):
        PerRegionClassifier(DummyClassifier()).fit(["a.png", "b.png"], [0, 1])


def test_it_is_an_estimator_of_scikit_learn(images, tmp_path):
    per_region = PerRegionClassifier(quick_classifier())
    scores = cross_val_score(per_region, images.data, images.target, cv=PatientKFold(2))
    assert np.isfinite(scores).all()
    with sklearn.config_context(enable_metadata_routing=True):
        cross_val_predict(
            per_region, images.data, images.target, cv=PatientKFold(2), params={"groups": images.patients}
        )
    assert clone(per_region).set_params(estimator__lr=0.5).estimator.lr == 0.5
    per_region.fit(images.data, images.target)
    joblib.dump(per_region, tmp_path / "model.joblib")
    again = joblib.load(tmp_path / "model.joblib")
    np.testing.assert_array_equal(again.predict_proba(images.data), per_region.predict_proba(images.data))


def test_it_is_saved_without_a_pickle(images, tmp_path):
    per_region = PerRegionClassifier(quick_classifier()).fit(images.data, images.target)
    save_model(per_region, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.predict_proba(images.data), per_region.predict_proba(images.data))
    assert again.get_params().keys() == per_region.get_params().keys()
    again.fit(images.data, images.target)
    np.testing.assert_array_equal(again.predict_proba(images.data), per_region.predict_proba(images.data))


@pytest.mark.parametrize("regions", [["wrist"], ["wrist", "elbow"], ["elbow", 1], "elbow"], ids=str)
def test_a_file_whose_regions_do_not_fit_is_refused(images, tmp_path, monkeypatch, regions):
    per_region = PerRegionClassifier(quick_classifier()).fit(images.data, images.target)
    about = {"regions": regions, "start_from_all": False, "n_jobs": None}
    cls, parts, _, assemble = persistence._KINDS["PerRegionClassifier"]
    forged = cls, parts, lambda _: about, assemble
    monkeypatch.setitem(persistence._KINDS, "PerRegionClassifier", forged)
    with pytest.raises(ValueError, match="could not be loaded again"):
        save_model(per_region, tmp_path / "model.safetensors")


def test_models_of_others_by_region_are_for_joblib(images, tmp_path):
    per_region = PerRegionClassifier(DummyClassifier()).fit(images.data, images.target)
    with pytest.raises(TypeError, match="not of DummyClassifier: use joblib"):
        save_model(per_region, tmp_path / "model.safetensors")


def test_judging_it_on_patients_that_it_knows_is_refused(images):
    per_region = PerRegionClassifier(quick_classifier()).fit(images.data, images.target)
    with pytest.raises(ValueError, match="were trained on"):
        evaluate(per_region, images.data, images.target)


def test_abnormality_and_region_are_sums_over_the_classes():
    classes = ["hand_abnormal", "hand_normal", "wrist_abnormal", "wrist_normal"]
    clf = Fixed(classes, {"a": [0.1, 0.2, 0.3, 0.4], "b": [0.2, 0.35, 0.4, 0.05]}.get)
    np.testing.assert_allclose(predict_abnormal(clf, ["a", "b"]), [0.4, 0.6])
    assert predict_region(clf, ["a", "b"]).tolist() == ["wrist", "hand"]


def test_of_two_classes_the_second_is_abnormal(images):
    clf = quick_classifier().fit(images.data, images.target)
    np.testing.assert_array_equal(predict_abnormal(clf, images.data), clf.predict_proba(images.data)[:, 1])


def test_models_of_something_else_are_refused():
    with pytest.raises(ValueError, match="do not say what is abnormal"):
        predict_abnormal(Fixed(["elbow", "hand", "wrist"], None), ["a"])
    with pytest.raises(ValueError, match="are no regions"):
        predict_region(Fixed([0, 1], None), ["a"])


@pytest.mark.parametrize("wrap", [lambda clf: clf, lambda clf: make_pipeline("passthrough", clf)])
def test_figures_are_those_of_what_is_predicted(images, wrap):
    always = wrap(PerRegionClassifier(quick_classifier(decision_threshold=0.0)))
    always.fit(images.data, images.target)
    assert (always.predict(images.data) == 1).all()
    evaluation = evaluate(always, images.data, images.target, allow_known_patients=True, n_resamples=0)
    assert evaluation.get("sensitivity").value == 1.0
    assert study_scorer("recall")(always, images.data, images.target) == 1.0


def test_thresholds_that_differ_have_no_common_figures(images):
    per_region = PerRegionClassifier(quick_classifier()).fit(images.data, images.target)
    per_region.estimators_[0].set_params(decision_threshold=0.2)
    with pytest.raises(ValueError, match="different thresholds"):
        evaluate(per_region, images.data, images.target, allow_known_patients=True)


def test_regions_of_another_length_are_refused(images):
    clf = Fixed(["hand", "wrist"], lambda path: [0.4, 0.6])
    with pytest.raises(ValueError, match="regions has 2 entries for 3 samples"):
        region_confusion(clf, images.data[:3], regions=["hand", "wrist"])


def test_region_confusion_is_scikit_learns(small_mura):
    mura = load_mura(small_mura, target="region_abnormal")
    clf = quick_classifier(early_stopping=False).fit(mura.data, mura.target)
    counts = region_confusion(clf, mura.data)
    expected = confusion_matrix(mura.regions, predict_region(clf, mura.data), labels=counts.index)
    np.testing.assert_array_equal(counts.to_numpy(), expected)
