"""`evaluate`: every number against scikit-learn or a hand calculation, and what is refused."""

import json

import numpy as np
import pytest
from helpers import quick_classifier
from scipy import stats
from sklearn import metrics
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from murakit import (
    evaluate,
    evaluate_predictions,
    load_mura,
    read_image,
    study_predictions,
    threshold_at,
    write_report,
)
from murakit.metrics._bootstrap import Estimate, interval, patient_weights
from murakit.metrics._weighted import METRICS, measure


def drawn(n=200, seed=0, n_classes=2, tied=False):
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n)
    logits = 1.5 * np.eye(n_classes)[y] + rng.normal(size=(n, n_classes))
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if tied:
        proba = np.round(proba, 1)
        proba /= proba.sum(axis=1, keepdims=True)
    return y, proba


def by_scikit_learn(y, proba, predicted, weight=None):
    w = {"sample_weight": weight}
    tn, fp, fn, _ = metrics.confusion_matrix(y, predicted, labels=[0, 1], **w).ravel()
    return {
        "kappa": metrics.cohen_kappa_score(y, predicted, **w),
        "auroc": metrics.roc_auc_score(y, proba, **w),
        "average_precision": metrics.average_precision_score(y, proba, **w),
        "accuracy": metrics.accuracy_score(y, predicted, **w),
        "f1": metrics.f1_score(y, predicted, **w),
        "sensitivity": metrics.recall_score(y, predicted, **w),
        "specificity": tn / (tn + fp),
        "ppv": metrics.precision_score(y, predicted, **w),
        "npv": tn / (tn + fn),
        "brier": metrics.brier_score_loss(y, proba, **w),
    }


# -- each metric ----------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("threshold", [None, 0.3])
def test_metrics_are_scikit_learns(tied, threshold):
    y, proba = drawn(tied=tied)
    found = evaluate_predictions(y, proba, patients=np.arange(len(y)), n_resamples=0, threshold=threshold)
    predicted = proba.argmax(axis=1) if threshold is None else proba[:, 1] >= threshold
    for name, value in by_scikit_learn(y, proba[:, 1], predicted).items():
        assert found.get(name).value == pytest.approx(value, abs=1e-12), name


def test_resampled_metrics_are_scikit_learns_with_weights():
    y, proba = drawn(80, tied=True)
    weights = np.random.default_rng(1).integers(0, 4, size=(5, len(y))).astype(float)
    predicted = proba.argmax(axis=1)
    found = measure(y, proba, predicted, weights)
    for row, weight in zip(found, weights):
        for name, value in by_scikit_learn(y, proba[:, 1], predicted, weight).items():
            assert row[METRICS.index(name)] == pytest.approx(value, abs=1e-12), name


def test_metrics_of_several_classes_are_scikit_learns():
    y, proba = drawn(300, n_classes=4)
    y[y == 3] = 2  # a class that never occurs plays no part in a mean
    found = evaluate_predictions(y, proba, patients=np.arange(len(y)), n_resamples=0, classes=[0, 1, 2, 3])
    predicted = proba.argmax(axis=1)
    per_class = [metrics.roc_auc_score(y == k, proba[:, k]) for k in range(3)]
    expected = {
        "kappa": metrics.cohen_kappa_score(y, predicted),
        "accuracy": metrics.accuracy_score(y, predicted),
        "auroc": np.mean(per_class),
        "sensitivity": metrics.recall_score(y, predicted, average="macro", labels=[0, 1, 2]),
        "f1": metrics.f1_score(y, predicted, average="macro", labels=[0, 1, 2]),
        "brier": np.mean(((proba - np.eye(4)[y]) ** 2).sum(axis=1)),
    }
    for name, value in expected.items():
        assert found.get(name).value == pytest.approx(value, abs=1e-12), name
    assert found.get("auroc", "1").value == pytest.approx(per_class[1], abs=1e-12)
    assert found.to_frame().loc["1", "prevalence"] == np.mean(y == 1)
    assert np.isnan(found.get("auroc", "3").value)


def test_calibration_error_by_hand():
    # Two bins: 0.2 and 0.3 with one of two abnormal in [0.2, 0.4): gaps of 0.2 - 1 and 0.3 - 0 apart.
    found = evaluate_predictions([1, 0, 1, 1], [0.25, 0.28, 0.95, 0.91], patients=list("abcd"), n_resamples=0)
    expected = (abs(0.25 + 0.28 - 1) + abs(0.95 + 0.91 - 2)) / 4
    assert found.get("calibration_error").value == pytest.approx(expected)


def test_a_study_counts_once_with_its_mean_probability():
    y = [1, 1, 1, 0, 0]
    proba = [0.9, 0.3, 0.2, 0.4, 0.1]
    studies = ["s1", "s1", "s2", "s3", "s3"]
    found = evaluate_predictions(y, proba, studies=studies, patients=list("aabcc"), n_resamples=0)
    np.testing.assert_allclose(found.predictions.proba[:, 1], [0.6, 0.2, 0.25])
    assert found.get("sensitivity").value == 0.5
    assert found.to_frame().loc["all", ["n_patients", "n_studies", "n_images"]].tolist() == [3, 3, 5]
    y_study, proba_study, _ = study_predictions(y, np.column_stack([1 - np.array(proba), proba]), studies)
    assert found.get("auroc").value == metrics.roc_auc_score(y_study, proba_study[:, 1])
    by_image = evaluate_predictions(
        y, proba, studies=studies, patients=list("aabcc"), n_resamples=0, level="image"
    )
    assert by_image.get("auroc").value == metrics.roc_auc_score(y, proba)


def test_one_class_alone_leaves_rankings_undefined_and_says_why():
    found = evaluate_predictions([0, 0, 0], [0.1, 0.6, 0.2], patients=list("abc"), n_resamples=50)
    assert np.isnan(found.get("auroc").value) and np.isnan(found.get("sensitivity").value)
    assert found.get("specificity").value == pytest.approx(2 / 3)
    assert any("all studies are normal" in sentence for sentence in found.undefined())
    assert "all studies are normal" in repr(found)


@pytest.mark.parametrize(
    "names", [("abnormal", "normal"), ("fracture", "healthy"), ("wrist_abnormal", "wrist_normal")], ids=str
)
def test_a_normal_class_is_never_judged_as_the_abnormal_one(names):
    y = np.array(names)[[0, 1, 0, 1]]
    proba = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.1, 0.9]])
    pos_label = "fracture" if "fracture" in names else None
    found = evaluate_predictions(y, proba, patients=list("abcd"), n_resamples=0, pos_label=pos_label)
    assert (found.get("sensitivity").value, found.get("specificity").value) == (0.5, 1.0)
    assert found.classes.tolist() == [names[1], names[0]]
    # 0.9 and 0.4 are abnormal, 0.2 and 0.1 are not: half way between 0.4 and 0.2.
    assert threshold_at(y, proba, sensitivity=1.0, pos_label=pos_label) == pytest.approx(0.3)
    if pos_label:
        for ask in (
            lambda: evaluate_predictions(y, proba, patients=list("abcd"), n_resamples=0),
            lambda: threshold_at(y, proba, sensitivity=0.9),
        ):
            with pytest.raises(ValueError, match="Which of the classes of y, 'fracture' and 'healthy'"):
                ask()


def test_an_interval_with_a_minus_sign_is_written_in_words():
    assert str(Estimate(0.2, 0.1, 0.3)) == "0.200 (0.100–0.300)"
    assert str(Estimate(-0.2, -0.3, -0.1)) == "-0.200 (-0.300 to -0.100)"


def test_the_share_of_a_class_bears_its_name():
    found = evaluate_predictions(
        ["no", "yes", "no"], [0.1, 0.6, 0.2], patients=list("abc"), n_resamples=0, pos_label="yes"
    )
    assert found.table().Yes["all"] == "33.3%"
    found = evaluate_predictions([0, 1, 0], [0.1, 0.6, 0.2], patients=list("abc"), n_resamples=0)
    assert found.table().Abnormal["all"] == "33.3%"


def test_regions_as_classes_have_one_row_each(tmp_path):
    y = np.array(["elbow", "wrist", "hand"] * 4)
    proba = np.full((12, 3), 0.2) + 0.4 * np.eye(3)[np.tile([0, 2, 1], 4)]
    found = evaluate_predictions(y, proba, patients=range(12), regions=y, n_resamples=50)
    assert found.to_frame().index.tolist() == ["all", "elbow", "hand", "wrist"]
    assert found.get("sensitivity", "hand").value == 1
    assert json.loads(found.to_json())["groups"]["wrist"]["n_studies"] == 12
    assert "wrist" in repr(found) and "wrist" in found.to_markdown()
    assert write_report(found, tmp_path / "report.html", n_mistakes=0)


def test_resamples_that_cannot_differ_make_no_interval():
    # One patient a class: the same six are drawn each time.
    proba = np.full((6, 6), 0.02) + 0.88 * np.eye(6)[[0, 1, 2, 3, 0, 0]]
    found = evaluate_predictions(list("abcdef"), proba, patients=range(6), classes=list("abcdef"))
    assert found.get("accuracy").value == pytest.approx(4 / 6) and np.isnan(found.get("accuracy").low)
    assert any("all: no interval for Cohen's kappa" in note for note in found.undefined())
    # Everything is called abnormal: kappa is zero whoever is drawn, but says nothing of its precision.
    found = evaluate_predictions([0, 1, 0, 1], [0.9] * 4, patients=list("abcd"))
    assert found.get("kappa").value == 0 and np.isnan(found.get("kappa").low)
    assert found.get("sensitivity") == (1, 1, 1)


def test_one_study_alone_has_its_numbers():
    found = evaluate_predictions([1], [0.8], patients=["a"], n_resamples=50)
    assert found.get("sensitivity") == (1.0, 1.0, 1.0)
    assert found.get("brier").value == pytest.approx(0.04)
    assert np.isnan(found.get("auroc").value)


# -- the table of a paper -------------------------------------------------------------------

TABLE = """\
| Group | Patients | Studies | Images | Abnormal | Cohen's kappa | AUROC | Sensitivity | Specificity |
|---|---:|---:|---:|---:|---:|---:|---:|---:|
| all | 8 | 8 | 8 | 50.0% | 0.500 | 0.875 | 0.750 | 0.750 |
| hand | 4 | 4 | 4 | 50.0% | 0.000 | 0.750 | 0.500 | 0.500 |
| wrist | 4 | 4 | 4 | 50.0% | 1.000 | 1.000 | 1.000 | 1.000 |
| mean of regions | 8 | 8 | 8 | 50.0% | 0.500 | 0.875 | 0.750 | 0.750 |

Per study (mean probability of its images), called abnormal above 0.5; no intervals."""


def test_a_table_worked_by_hand_is_reproduced_to_the_last_digit():
    # Wrist: all right. Hand: one abnormal of two found (0.7, 0.4), one normal of two wrong (0.6, 0.2): of the
    # four pairs three are in order. All: 3 of 4 found, 3 of 4 spared, kappa (0.75 - 0.5) / 0.5; of 16 pairs,
    # 0.4 is below 0.6 only, and 0.9, 0.8 and 0.7 are above all: 15 are in order, less 0.4 < 0.45.
    y = [0, 0, 1, 1, 0, 0, 1, 1]
    proba = [0.1, 0.45, 0.8, 0.9, 0.2, 0.6, 0.7, 0.4]
    regions = ["wrist"] * 4 + ["hand"] * 4
    found = evaluate_predictions(y, proba, patients=list("abcdefgh"), regions=regions, n_resamples=0)
    assert found.to_markdown() == TABLE


# -- intervals ------------------------------------------------------------------------------


def test_whole_patients_are_drawn():
    patients = np.array(["a", "a", "b", "c", "c", "c"])
    weights = np.concatenate(
        list(patient_weights(patients, np.zeros(6, dtype=int), 300, np.random.default_rng(0)))
    )
    assert weights.shape == (300, 6)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 1])
    np.testing.assert_array_equal(weights[:, 3], weights[:, 5])
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert abs(weights[:, 2].mean() - 1) < 0.2


def test_patients_are_drawn_within_their_stratum():
    patients, strata = np.arange(10), np.repeat([0, 1], [7, 3])
    (weights,) = patient_weights(patients, strata, 100, np.random.default_rng(0))
    assert (weights[:, :7].sum(axis=1) == 7).all() and (weights[:, 7:].sum(axis=1) == 3).all()


def test_the_interval_of_an_accuracy_is_the_binomial_one():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=400)
    proba = np.where(rng.random(400) < 0.8, y, 1 - y) * 0.8 + 0.1
    found = evaluate_predictions(y, proba, patients=np.arange(400)).get("accuracy")
    half = 1.96 * np.sqrt(found.value * (1 - found.value) / 400)
    assert found.low == pytest.approx(found.value - half, abs=0.008)
    assert found.high == pytest.approx(found.value + half, abs=0.008)


def test_repeated_studies_of_a_patient_widen_the_interval():
    y, proba = drawn(100)
    once = evaluate_predictions(y, proba, patients=np.arange(100))
    twice = evaluate_predictions(
        np.repeat(y, 2), np.repeat(proba, 2, axis=0), patients=np.repeat(np.arange(100), 2)
    )
    as_if_others = evaluate_predictions(np.repeat(y, 2), np.repeat(proba, 2, axis=0), patients=np.arange(200))
    assert twice.get("auroc") == pytest.approx(once.get("auroc"))
    width = {e: e.get("auroc").high - e.get("auroc").low for e in (twice, as_if_others)}
    assert width[as_if_others] < 0.8 * width[twice]


def test_intervals_repeat_with_the_seed_and_only_then():
    y, proba = drawn(60)
    one, again, other = (
        evaluate_predictions(y, proba, patients=np.arange(60), random_state=seed) for seed in (0, 0, 1)
    )
    assert one.get("auroc") == again.get("auroc")
    assert one.get("auroc") != other.get("auroc")


def test_an_interval_that_is_mostly_undefined_is_left_out():
    values = np.full((100, 2), 0.5)
    values[:50, 1] = np.nan
    bounds = interval(values, 0.95, 1000)
    np.testing.assert_array_equal(bounds[:, 0], [0.5, 0.5])
    assert np.isnan(bounds[:, 1]).all()


@pytest.mark.parametrize("level", ["study", "image"])
def test_every_interval_holds_its_estimate(level):
    y, proba = drawn(150)
    regions = np.array(["hand", "wrist", "elbow"])[np.arange(150) % 3]
    found = evaluate_predictions(y, proba, patients=np.arange(150) // 2, regions=regions, level=level)
    frame = found.to_frame()
    for metric in METRICS:
        assert (frame[f"{metric}_low"] <= frame[metric]).all(), metric
        assert (frame[metric] <= frame[f"{metric}_high"]).all(), metric


def test_the_mean_of_regions_is_their_mean():
    y, proba = drawn(120)
    regions = np.array(["hand", "wrist"])[(np.arange(120) > 30).astype(int)]
    found = evaluate_predictions(y, proba, patients=np.arange(120), regions=regions, n_resamples=100)
    parts = [found.get("kappa", region).value for region in ("hand", "wrist")]
    assert found.get("kappa", "mean of regions").value == pytest.approx(np.mean(parts))


@pytest.mark.parametrize("n_patients", [5, 20, 400])
def test_the_interval_of_a_mean_is_students(n_patients):
    # What the expansion is made for: resampled means, against the t interval of the same sample.
    rng = np.random.default_rng(0)
    sample = rng.normal(size=n_patients)
    means = rng.choice(sample, size=(40_000, n_patients)).mean(axis=1)
    low, high = interval(means, 0.95, n_patients)
    expected = stats.t.interval(0.95, n_patients - 1, sample.mean(), stats.sem(sample))
    assert high - low == pytest.approx(expected[1] - expected[0], rel=0.12)


# -- an estimator on paths ------------------------------------------------------------------


@pytest.fixture(scope="module")
def valid(small_mura):
    return load_mura(small_mura, subset="valid")


def mean_brightness(paths):
    return np.array([[read_image(path).mean() / 255] for path in np.ravel(paths)])


@pytest.fixture(scope="module")
def pipeline(images):
    """Somebody else's model over paths."""
    model = make_pipeline(FunctionTransformer(mean_brightness), LogisticRegression())
    return model.fit(images.data.reshape(-1, 1), images.target)


def test_a_plain_pipeline_over_paths_is_judged(pipeline, valid):
    found = evaluate(pipeline, valid.data.reshape(-1, 1), valid.target, n_resamples=50)
    proba = pipeline.predict_proba(valid.data.reshape(-1, 1))
    y, expected, names = study_predictions(valid.target, proba, valid.studies)
    assert found.predictions.name.tolist() == names.tolist()
    np.testing.assert_allclose(found.predictions.proba, expected)
    assert found.get("auroc").value == pytest.approx(metrics.roc_auc_score(y, expected[:, 1]))
    assert set(found.to_frame().index) == {"all", "elbow", "wrist", "mean of regions"}
    assert found.name == "Pipeline"


def test_study_folders_and_images_give_the_same_numbers(images, valid, small_mura):
    clf = quick_classifier().fit(images.data, images.target)
    folders = load_mura(small_mura, subset="valid", level="study")
    one = evaluate(clf, valid.data, valid.target, n_resamples=20)
    other = evaluate(clf, folders.data, folders.target, n_resamples=20)
    np.testing.assert_allclose(one.predictions.proba, other.predictions.proba, atol=1e-6)
    assert one.to_frame()[["n_images", "n_studies"]].equals(other.to_frame()[["n_images", "n_studies"]])


@pytest.mark.parametrize("wrap", [lambda clf: clf, lambda clf: CalibratedClassifierCV(clf, cv=2)])
def test_patients_who_were_trained_on_are_refused(images, wrap):
    clf = wrap(quick_classifier(early_stopping=False)).fit(images.data, images.target)
    with pytest.raises(ValueError, match="patients to judge on were trained on .*allow_known_patients"):
        evaluate(clf, images.data, images.target)
    assert evaluate(clf, images.data, images.target, allow_known_patients=True, n_resamples=0)


def test_patients_who_chose_the_epoch_are_refused(images):
    clf = quick_classifier(validation_fraction=0.3).fit(images.data, images.target)
    held = np.isin(images.patients, clf.validation_patients_)
    with pytest.raises(ValueError, match="chose the epoch"):
        evaluate(clf, images.data[held], images.target[held])


def test_the_estimators_threshold_is_used(images, valid):
    clf = quick_classifier().fit(images.data, images.target)
    plain = evaluate(clf, valid.data, valid.target, n_resamples=0, level="image")
    middle = float(np.median(plain.predictions.proba[:, 1]))
    clf.set_params(decision_threshold=middle)
    found = evaluate(clf, valid.data, valid.target, n_resamples=0, level="image")
    assert found.threshold == middle
    predicted = clf.predict(valid.data)
    assert set(predicted) == {0, 1}
    assert found.get("accuracy").value == pytest.approx(metrics.accuracy_score(valid.target, predicted))
    fixed = FixedThresholdClassifier(clf, threshold=middle).fit(images.data, images.target)
    assert evaluate(fixed, valid.data, valid.target, n_resamples=0).threshold == middle


def test_a_classifier_without_probabilities_is_refused(valid):
    class Scores:
        def decision_function(self, X):
            return np.zeros(len(X))

    with pytest.raises(TypeError, match=r"no predict_proba.*CalibratedClassifierCV"):
        evaluate(Scores(), valid.data, valid.target)


def test_other_samples_than_paths_need_their_patients(pipeline):
    with pytest.raises(ValueError, match="holds no paths, so the patients cannot be read"):
        evaluate(pipeline, np.zeros((4, 2)), [0, 1, 0, 1])


# -- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, message",
    [
        ({"patients": None}, "no honest intervals"),
        ({"patients": ["a", "b"]}, "patients has 2 entries for 4 samples"),
        ({"patients": ["a", None, "b", "c"]}, "patients: row 1 has no patient"),
        ({"proba": [0.1, 1.2, 0.3, 0.4]}, "row 1 is 1.2, no probability"),
        ({"proba": [0.1, np.nan, 0.3, 0.4]}, "row 1 is nan, no probability"),
        ({"proba": np.full((4, 2), 0.7)}, "row 0 sums to 1.4"),
        ({"proba": np.full((4, 3), 1 / 3)}, "3 columns, and there are 2 classes"),
        ({"y": [0, 1]}, "y has 2 labels and proba 4 rows"),
        ({"y": [0, 1, 2, 0], "classes": [0, 1]}, "row 2 is 2, which is none of the classes"),
        ({"studies": list("ssst")}, "Study 's' has two patients: 'a' .row 0. and 'b' .row 1."),
        ({"level": "patient"}, "level='patient' is not known"),
        ({"n_resamples": -1}, "n_resamples=-1"),
        ({"confidence_level": 95}, "confidence_level=95"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {"y": [0, 1, 0, 1], "proba": [0.1, 0.2, 0.3, 0.4], "patients": list("abcd")}
    with pytest.raises(ValueError, match=message):
        evaluate_predictions(**{**good, **change})


def test_a_study_of_two_labels_is_refused():
    with pytest.raises(ValueError, match="two labels: 0 .row 0. and 1 .row 1."):
        evaluate_predictions([0, 1], [0.1, 0.2], patients=["a", "a"], studies=["s", "s"])


def test_unknown_names_are_answered_with_the_known_ones():
    found = evaluate_predictions([0, 1], [0.1, 0.2], patients=["a", "b"], n_resamples=0)
    with pytest.raises(KeyError, match="there are kappa, auroc"):
        found.get("auc")
    with pytest.raises(KeyError, match="there are all"):
        found.get("auroc", "wrist")


# -- as text --------------------------------------------------------------------------------


def test_json_holds_every_number(tmp_path):
    y, proba = drawn(60)
    found = evaluate_predictions(y, proba, patients=np.arange(60), n_resamples=50)
    found.to_json(tmp_path / "evaluation.json")
    read = json.loads((tmp_path / "evaluation.json").read_text())
    assert read == json.loads(found.to_json())
    assert read["groups"]["all"]["kappa"] == found.get("kappa").value
    assert read["threshold"] is None and read["n_resamples"] == 50


def test_undefined_numbers_are_null_in_json():
    found = evaluate_predictions([0, 0], [0.1, 0.2], patients=["a", "b"], n_resamples=0)
    assert json.loads(found.to_json())["groups"]["all"]["auroc"] is None


def test_notebooks_get_a_table():
    y, proba = drawn(60)
    found = evaluate_predictions(y, proba, patients=np.arange(60), n_resamples=50)
    page = found._repr_html_()
    assert page.count("<tr") == 3 and "Per study" in page


def test_labels_of_any_type_are_judged():
    y, proba = drawn(60)
    words = np.array(["fine", "ill"])[y]
    found = evaluate_predictions(words, proba, patients=np.arange(60), n_resamples=0, pos_label="ill")
    assert found.get("kappa").value == pytest.approx(metrics.cohen_kappa_score(y, proba.argmax(axis=1)))
    assert "called ill above 0.5" in found.caption()
