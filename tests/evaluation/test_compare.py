"""`compare`, thresholds, tables of predictions, and what others publish."""

import numpy as np
import pandas as pd
import pytest
from helpers import quick_classifier
from sklearn.metrics import cohen_kappa_score, recall_score

from murakit import (
    compare,
    evaluate_predictions,
    load_mura,
    predict_frame,
    published_results,
    study_predictions,
    threshold_at,
    write_mura_csv,
)


def drawn(n=300, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    hard = rng.normal(size=n)
    one, other = (1 / (1 + np.exp(-(2 * y - 1 + hard + rng.normal(0, s, n)))) for s in (0.3, 0.6))
    return y, one, other


# -- compare --------------------------------------------------------------------------------


def test_a_difference_is_that_of_the_values_and_its_interval_is_paired():
    y, one, other = drawn()
    settings = {"patients": np.arange(len(y)) // 2}
    first, second = (evaluate_predictions(y, proba, **settings) for proba in (one, other))
    found = compare({"first": first, "second": second}).difference("second", "auroc")
    assert found.value == pytest.approx(second.get("auroc").value - first.get("auroc").value)
    assert found.low <= found.value <= found.high
    # What is hard for both cancels out: the interval is narrower than those of the models.
    widths = [e.get("auroc").high - e.get("auroc").low for e in (first, second)]
    assert found.high - found.low < 0.8 * min(widths)


def test_a_model_does_not_differ_from_itself():
    y, one, _ = drawn(100)
    found = evaluate_predictions(y, one, patients=np.arange(100), n_resamples=100)
    frame = compare({"one": found, "again": found}).to_frame()
    assert (frame.filter(regex="kappa|auroc|brier") == 0).all(axis=None)


def test_the_order_of_the_samples_plays_no_part():
    y, one, other = drawn(100)
    names = np.array([f"study{n}" for n in range(100)])
    first = evaluate_predictions(y, one, patients=np.arange(100), studies=names, n_resamples=100)
    order = np.random.default_rng(0).permutation(100)
    ordered, shuffled = (
        evaluate_predictions(
            y[rows], other[rows], patients=np.arange(100)[rows], studies=names[rows], n_resamples=100
        )
        for rows in (np.arange(100), order)
    )
    a, b = (compare({"first": first, "second": e}).to_frame() for e in (ordered, shuffled))
    pd.testing.assert_frame_equal(a, b)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"y": [1, 1, 0, 1]}, "other labels"),
        ({"patients": list("abce")}, "other patients"),
        ({"studies": list("wxyq")}, "1 of the latter are missing, such as 'z'"),
        ({"regions": ["wrist"] * 4}, "other regions"),
    ],
)
def test_other_samples_cannot_be_compared(change, message):
    good = {
        "y": [0, 1, 0, 1],
        "proba": [0.1, 0.9, 0.2, 0.8],
        "patients": list("abcd"),
        "studies": list("wxyz"),
    }
    first = evaluate_predictions(**good, n_resamples=10)
    second = evaluate_predictions(**{**good, **change}, n_resamples=10)
    with pytest.raises(ValueError, match=message):
        compare({"first": first, "second": second})


def test_one_evaluation_alone_cannot_be_compared():
    with pytest.raises(ValueError, match="two evaluations or more"):
        compare({"one": evaluate_predictions([0, 1], [0.1, 0.9], patients=["a", "b"], n_resamples=0)})


def test_published_results_are_shown_with_their_origin():
    y, one, other = drawn(100)
    settings = {"patients": np.arange(100), "regions": ["wrist"] * 100, "n_resamples": 50}
    found = compare({name: evaluate_predictions(y, p, **settings) for name, p in (("a", one), ("b", other))})
    table = found.beside_published("kappa", "wrist")
    assert table["Model"].tolist()[:2] == ["a", "b"]
    assert table["Cohen's kappa"].iloc[-1] == "0.931 (0.922–0.940)"
    assert "hidden test set" in table["Measured on"].iloc[-1]
    assert (table[["Measured on", "Source"]] != "").all(axis=None)


def test_the_papers_numbers_are_there():
    table = published_results("kappa", "all")
    assert table.set_index("who").value["DenseNet-169 ensemble of the MURA paper"] == 0.705
    assert set(published_results("kappa").group) == {
        "all", "elbow", "finger", "forearm", "hand", "humerus", "shoulder", "wrist"
    }  # fmt: skip
    with pytest.raises(ValueError, match="choose one of"):
        published_results("brier")


# -- thresholds -----------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("what", ["sensitivity", "specificity"])
def test_a_threshold_reaches_the_share_and_no_other_does_so_at_less_cost(what, share):
    y, proba, _ = drawn(120)
    proba = np.round(proba, 2)
    threshold = threshold_at(y, proba, **{what: share})
    cost = {"sensitivity": 0, "specificity": 1}

    def shares(t):
        called = (proba >= t).astype(int)
        reached = recall_score(y, called, pos_label=1 - cost[what])
        return reached, recall_score(y, called, pos_label=cost[what])

    reached, kept = shares(threshold)
    assert reached >= share
    for t in np.linspace(0, 1, 401):
        other_reached, other_kept = shares(t)
        assert other_reached < share or other_kept <= kept


def test_the_threshold_of_the_best_kappa_is_the_best():
    y, proba, _ = drawn(120)
    best = cohen_kappa_score(y, proba >= threshold_at(y, proba, metric="kappa"))
    assert best == pytest.approx(max(cohen_kappa_score(y, proba >= t) for t in np.unique(proba)))
    both = recall_score(y, proba >= (t := threshold_at(y, proba, metric="youden")))
    both += recall_score(y, proba >= t, pos_label=0)
    assert both == pytest.approx(
        max(recall_score(y, proba >= t) + recall_score(y, proba >= t, pos_label=0) for t in np.unique(proba))
    )


def test_a_threshold_lies_between_two_probabilities():
    assert threshold_at([0, 0, 1, 1], [0.1, 0.5, 0.3, 0.8], sensitivity=0.5) == pytest.approx(0.65)


def test_a_threshold_of_studies_looks_at_their_means():
    y, proba, studies = [0, 0, 1, 1], [0.1, 0.5, 0.6, 0.8], ["s", "s", "t", "t"]
    means = study_predictions(y, np.column_stack([1 - np.array(proba), proba]), studies)[1][:, 1]
    assert threshold_at(y, proba, sensitivity=1.0, studies=studies) == pytest.approx(means.mean())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "Pass one of"),
        ({"sensitivity": 0.9, "specificity": 0.9}, "Pass one of"),
        ({"sensitivity": 95}, "between 0 and 1"),
        ({"metric": "f1"}, "metric='f1' is not known"),
        ({"sensitivity": 0.9, "y": [1, 1, 1]}, "holds 1 classes"),
        ({"specificity": 1.0, "proba": [1.0, 0.2, 0.1]}, "cannot be reached"),
    ],
)
def test_thresholds_that_cannot_be_are_refused(arguments, message):
    given = {"y": [0, 1, 0], "proba": [0.1, 0.9, 0.2], **arguments}
    with pytest.raises(ValueError, match=message):
        threshold_at(given.pop("y"), given.pop("proba"), **given)


def test_the_classifier_keeps_its_threshold(images):
    clf = quick_classifier(decision_threshold=0.0).fit(images.data, images.target)
    assert (clf.predict(images.data) == 1).all()
    assert (clf.set_params(decision_threshold=1.0).predict(images.data) == 0).all()
    proba = clf.predict_proba(images.data)[:, 1]
    middle = float(np.median(proba))
    np.testing.assert_array_equal(
        clf.set_params(decision_threshold=middle).predict(images.data), proba >= middle
    )
    clf.set_params(decision_threshold=2.0)
    with pytest.raises(ValueError, match="decision_threshold"):
        clf.fit(images.data, images.target)


def test_a_threshold_on_three_classes_is_refused(images):
    y = np.arange(len(images.data)) % 3
    clf = quick_classifier(early_stopping=False).fit(images.data, y).set_params(decision_threshold=0.5)
    with pytest.raises(ValueError, match="needs two classes"):
        clf.predict(images.data)


# -- predictions out ------------------------------------------------------------------------


def test_predictions_of_images_and_of_studies(images, small_mura):
    clf = quick_classifier().fit(images.data, images.target)
    by_image = predict_frame(clf, images.data)
    np.testing.assert_allclose(by_image.probability, clf.predict_proba(images.data)[:, 1])
    assert by_image.path.tolist() == images.data.tolist()
    assert by_image.patient.tolist() == images.patients.tolist()
    assert by_image.region.tolist() == images.regions.tolist()
    folders = load_mura(small_mura, level="study")
    for X in (images.data, folders.data):
        by_study = predict_frame(clf, X, level="study")
        assert by_study.path.tolist() == folders.data.tolist()
        np.testing.assert_allclose(by_study.probability, clf.predict_proba(folders.data)[:, 1], atol=1e-6)
        assert by_study.prediction.tolist() == clf.predict(folders.data).tolist()


def test_the_competitions_file_has_the_form_of_the_data_sets_own(images, small_mura, tmp_path):
    folders = load_mura(small_mura, subset="valid", level="study")
    table = predict_frame(quick_classifier().fit(images.data, images.target), folders.data, level="study")
    for root in (None, small_mura):
        write_mura_csv(table.assign(prediction=folders.target), tmp_path / "out.csv", root=root)
        own = (small_mura / "valid_labeled_studies.csv").read_text().splitlines()
        assert sorted((tmp_path / "out.csv").read_text().splitlines()) == sorted(own)


@pytest.mark.parametrize(
    "table, message",
    [
        ({"path": ["a/b.png"], "prediction": [1]}, "Row 0: 'a/b.png' is no study folder"),
        ({"path": ["train/XR_HAND/patient00001/study1/image1.png"], "prediction": [1]}, "no study folder"),
        ({"path": ["train/XR_HAND/patient00001/study1"], "prediction": ["ill"]}, "Row 0 predicts 'ill'"),
    ],
)
def test_other_tables_are_no_submission(tmp_path, table, message):
    with pytest.raises(ValueError, match=message):
        write_mura_csv(pd.DataFrame(table), tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
