"""Scores per study, against scikit-learn on means computed by hand."""

import numpy as np
import pandas as pd
import pytest
from helpers import quick_classifier
from sklearn.metrics import cohen_kappa_score, f1_score, get_scorer, roc_auc_score
from sklearn.model_selection import cross_validate

from murakit import PatientKFold, study_predictions, study_scorer


class Answers:
    """A classifier whose probability of class 1 is written in a dict of paths."""

    classes_ = np.array(["no", "yes"])

    def __init__(self, answers):
        self.answers = answers

    def predict_proba(self, X):
        p = np.array([self.answers[path] for path in X])
        return np.column_stack([1 - p, p])


def image(patient, study, number):
    return f"valid/XR_HAND/patient{patient:05d}/study{study}_negative/image{number}.png"


ANSWERS = {
    image(1, 1, 1): 0.9,
    image(1, 1, 2): 0.2,  # mean 0.55
    image(1, 2, 1): 0.45,  # mean 0.45
    image(2, 1, 1): 0.6,
    image(2, 1, 2): 0.3,
    image(2, 1, 3): 0.3,  # mean 0.4
    image(3, 1, 1): 0.7,  # mean 0.7
}
X = list(ANSWERS)
Y = np.array(["yes", "yes", "no", "yes", "yes", "yes", "no"])
BY_STUDY = (["yes", "no", "yes", "no"], [0.55, 0.45, 0.4, 0.7])


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("roc_auc", roc_auc_score([1, 0, 1, 0], BY_STUDY[1])),
        ("kappa", cohen_kappa_score(BY_STUDY[0], ["yes", "no", "no", "yes"])),
        ("accuracy", 0.5),
        ("neg_log_loss", np.mean(np.log([0.55, 0.55, 0.4, 0.3]))),
    ],
)
def test_studies_are_scored_by_the_mean_of_their_images(metric, expected):
    assert study_scorer(metric, pos_label="yes")(Answers(ANSWERS), X, Y) == pytest.approx(expected)


def test_a_scorer_with_a_positive_label_of_ones_own():
    from sklearn.metrics import make_scorer

    scorer = study_scorer(make_scorer(f1_score, pos_label="yes"))
    assert scorer(Answers(ANSWERS), X, Y) == pytest.approx(f1_score([1, 0, 1, 0], [1, 0, 0, 1]))


def test_image_scores_and_study_scores_of_a_study_level_classifier_agree(studies):
    clf = quick_classifier().fit(studies.data, studies.target)
    by_study = study_scorer("roc_auc")(clf, studies.data, studies.target)
    assert by_study == pytest.approx(get_scorer("roc_auc")(clf, studies.data, studies.target))


def test_images_averaged_by_the_scorer_equal_the_folders_probability(images, studies):
    clf = quick_classifier().fit(images.data, images.target)
    _, proba, names = study_predictions(images.target, clf.predict_proba(images.data), images.studies)
    order = np.argsort(studies.studies)
    np.testing.assert_array_equal(studies.studies[order], names)
    np.testing.assert_allclose(clf.predict_proba(studies.data)[order], proba, atol=1e-6)


def test_several_study_scores_at_once(images):
    scoring = {name: study_scorer(name) for name in ("roc_auc", "kappa")}
    scores = cross_validate(
        quick_classifier(max_epochs=1), images.data, images.target, cv=PatientKFold(2), scoring=scoring
    )
    assert scores["test_roc_auc"].shape == scores["test_kappa"].shape == (2,)


def test_an_unknown_metric_is_an_error():
    with pytest.raises(ValueError, match="rock_auc"):
        study_scorer("rock_auc")


def test_paths_without_a_study_are_an_error():
    with pytest.raises(ValueError, match="study of row 0 is not known"):
        study_scorer("roc_auc")(Answers({"hand.png": 0.5}), ["hand.png"], ["yes"])


@pytest.mark.parametrize("kind", [dict, pd.Series])
def test_studies_that_no_path_says_are_passed(kind):
    renamed = {path: f"films/{number}.png" for number, path in enumerate(ANSWERS)}
    names = kind({renamed[path]: path.rpartition("/")[0] for path in ANSWERS})
    clf = Answers({renamed[path]: answer for path, answer in ANSWERS.items()})
    expected = study_scorer("kappa", pos_label="yes")(Answers(ANSWERS), X, Y)
    scorer = study_scorer("kappa", studies=names, pos_label="yes")
    assert scorer(clf, [renamed[path] for path in X], Y) == expected
    assert repr(scorer) == "study_scorer('kappa', studies=<of 7 paths>)"
    with pytest.raises(ValueError, match="The study of row 0, 'other.png', is not among the 7 studies="):
        scorer(clf, ["other.png"], ["no"])


def test_a_study_with_two_labels_is_an_error():
    y = Y.copy()
    y[1] = "no"
    with pytest.raises(ValueError, match=r"study1_negative' has images labelled 'yes' and 'no' \(row 1\)"):
        study_scorer("roc_auc")(Answers(ANSWERS), X, y)


def test_inputs_of_different_lengths_are_an_error():
    with pytest.raises(ValueError, match="y has 2 rows, proba 1 and studies 2"):
        study_predictions([0, 1], [[0.5, 0.5]], ["a", "b"])


def test_the_threshold_of_a_tuned_classifier_holds_for_studies(images):
    from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV

    clf = quick_classifier().fit(images.data, images.target)
    _, proba, _ = study_predictions(images.target, clf.predict_proba(images.data), images.studies)
    y = study_predictions(images.target, proba[:1].repeat(len(images.target), 0), images.studies)[0]
    for threshold in (0.01, 0.5, 0.99):
        fixed = FixedThresholdClassifier(clf, threshold=threshold, response_method="predict_proba")
        fixed.fit(images.data, images.target)
        own = study_predictions(images.target, fixed.predict_proba(images.data), images.studies)[1][:, 1]
        expected = np.mean((own >= threshold) == y)
        assert study_scorer("accuracy")(fixed, images.data, images.target) == pytest.approx(expected)
    with pytest.raises(TypeError, match="level='study'"):
        TunedThresholdClassifierCV(quick_classifier(), scoring=study_scorer("kappa"), cv=PatientKFold(2)).fit(
            images.data, images.target
        )


def test_the_classifiers_own_threshold_decides(images):
    clf = quick_classifier().fit(images.data, images.target)
    y, proba, _ = study_predictions(images.target, clf.predict_proba(images.data), images.studies)
    threshold = float(np.median(proba[:, 1]))
    clf.set_params(decision_threshold=threshold)
    expected = f1_score(y, proba[:, 1] >= threshold)
    assert study_scorer("f1")(clf, images.data, images.target) == pytest.approx(expected)
