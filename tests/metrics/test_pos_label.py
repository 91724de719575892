"""Which of two classes is the abnormal one is known or asked for, never guessed from the alphabet."""

import numpy as np
import pytest
from helpers import quick_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics import recall_score
from sklearn.model_selection import FixedThresholdClassifier, cross_val_predict

from murakit import (
    PatientKFold,
    evaluate,
    evaluate_predictions,
    load_model,
    load_mura,
    predict_abnormal,
    predict_frame,
    save_model,
    study_scorer,
    threshold_at,
)
from murakit.metrics._labels import positive_index

# (abnormal, normal) as people write them, in five languages.
PAIRS = [
    ("fracture", "none"),
    ("abnormal", "unremarkable"),
    ("broken", "intact"),
    ("disease", "healthy"),
    ("Fx", "no Fx"),
    ("ill", "well"),
    ("case", "control"),
    ("malignant", "benign"),
    ("Fraktur", "keine"),
    ("auffällig", "unauffällig"),
    ("krank", "gesund"),
    ("Befund", "ohne Befund"),
    ("anormal", "normal"),
    ("fracture", "sain"),
    ("malade", "sain"),
    ("fractura", "sano"),
    ("patológico", "sano"),
    ("frattura", "sano"),
    ("anomalo", "normale"),
    (1, 2),
]


@pytest.mark.parametrize(("abnormal", "normal"), PAIRS)
@pytest.mark.parametrize("swapped", [False, True])
def test_no_pair_of_labels_is_inverted(abnormal, normal, swapped):
    classes = sorted([abnormal, normal])
    with pytest.raises(ValueError, match="Which of the classes .* pos_label="):
        positive_index(classes)
    pos_label = normal if swapped else abnormal
    assert classes[positive_index(classes, pos_label)] == pos_label
    y = np.array([abnormal, normal, abnormal, normal, normal])
    proba = np.array([0.9, 0.1, 0.6, 0.7, 0.2])
    found = evaluate_predictions(y, proba, patients=list("abcde"), n_resamples=0, pos_label=abnormal)
    assert found.get("sensitivity").value == 1.0
    assert found.get("specificity").value == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("normal", "abnormal"),
    [
        (0, 1),
        (0.0, 1.0),
        (False, True),
        ("normal", "abnormal"),
        ("Negative", "Positive"),
        ("0", "1"),
        ("NORMAL", "ABNORMAL"),
    ],
    ids=str,
)
def test_known_pairs_need_no_word(normal, abnormal):
    for classes in ([normal, abnormal], [abnormal, normal]):
        assert classes[positive_index(classes)] == abnormal


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(ValueError, match="pos_label='Fracture' is none of the classes"):
        positive_index(["fracture", "none"], "Fracture")


@pytest.fixture(scope="module")
def words(images):
    """Labels of the images in words whose order is the reverse of their meaning."""
    return np.array(["none", "fracture"], dtype=object)[images.target]


@pytest.fixture
def named(images, words):
    """A classifier that was fitted on words."""
    return quick_classifier(pos_label="fracture").fit(images.data, words)


def test_a_classifier_asks_before_it_trains(images, words):
    with pytest.raises(ValueError, match="Which of the classes of y, 'fracture' and 'none'"):
        quick_classifier().fit(images.data, words)


def test_of_more_than_two_classes_none_is_the_abnormal_one(images):
    y = np.array(["a", "b", "c"])[np.arange(len(images.data)) % 3]
    with pytest.raises(ValueError, match="pos_label='a' is for two classes, and y has 3"):
        quick_classifier(pos_label="a").fit(images.data, y)


def test_sensitivity_is_that_of_the_class_that_is_called_abnormal(named, small_mura, tmp_path):
    valid = load_mura(small_mura, subset="valid")
    words = np.array(["none", "fracture"], dtype=object)[valid.target]
    assert named.classes_.tolist() == ["fracture", "none"] and named.pos_label_ == "fracture"
    save_model(named, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.pos_label == "fracture"
    abnormal = named.predict_proba(valid.data)[:, 0]
    threshold = float(np.median(abnormal))
    for clf in (named, loaded):
        found = evaluate(clf, valid.data, words, level="image", threshold=threshold, n_resamples=0)
        expected = recall_score(valid.target, abnormal >= threshold)
        assert found.get("sensitivity").value == pytest.approx(expected)
        np.testing.assert_allclose(predict_abnormal(clf, valid.data), abnormal)
        table = predict_frame(clf, valid.data)
        assert set(table["probability_of"]) == {"fracture"}
        np.testing.assert_allclose(table["probability"], abnormal)
    scorer = study_scorer("recall")
    clf = named.set_params(decision_threshold=threshold)
    assert ((clf.predict(valid.data) == "fracture") == (abnormal >= threshold)).all()
    by_study = evaluate(clf, valid.data, words, n_resamples=0).get("sensitivity").value
    assert scorer(clf, valid.data, words) == pytest.approx(by_study)


def test_meta_estimators_that_encode_labels_still_work(images, words):
    clf = quick_classifier(pos_label="fracture", max_epochs=1)
    proba = cross_val_predict(clf, images.data, words, cv=PatientKFold(2), method="predict_proba")
    assert proba.shape == (len(words), 2)
    calibrated = CalibratedClassifierCV(clf, cv=PatientKFold(2)).fit(images.data, words)
    found = evaluate(calibrated, images.data, words, allow_known_patients=True, n_resamples=0)
    assert found.classes.tolist() == ["none", "fracture"]


def test_a_threshold_on_the_other_class_is_refused(named, images, words):
    fixed = FixedThresholdClassifier(named, threshold=0.3, pos_label="none")
    fixed.fit(images.data, words)
    with pytest.raises(ValueError, match="has a threshold on the probability of 'none'"):
        evaluate(fixed, images.data, words, allow_known_patients=True, n_resamples=0, pos_label="fracture")


def test_thresholds_are_on_the_abnormal_class():
    y = ["none", "fracture", "fracture", "none"]
    both = np.array([[0.2, 0.8], [0.9, 0.1], [0.6, 0.4], [0.5, 0.5]])  # fracture, none
    expected = threshold_at([0, 1, 1, 0], both[:, 0], sensitivity=1.0)
    assert threshold_at(y, both, sensitivity=1.0, pos_label="fracture") == expected
    assert threshold_at(y, both[:, 0], sensitivity=1.0, pos_label="fracture") == expected
