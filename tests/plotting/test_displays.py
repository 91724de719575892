"""Pictures: what they draw is what was computed."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from helpers import quick_classifier
from matplotlib import pyplot
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, roc_curve
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from murakit import compare, evaluate_predictions, load_mura, published_results, read_image
from murakit.inspection import show_mistakes
from murakit.plotting import (
    DatasetDisplay,
    HistoryDisplay,
    OperatingPointDisplay,
    RegionConfusionDisplay,
    RegionDisplay,
    ReliabilityDisplay,
)

matplotlib.use("agg")


def drawn(n=120):
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=n)
    proba = 1 / (1 + np.exp(-(2 * y - 1 + rng.normal(size=n))))
    regions = np.array(["wrist", "hand"])[np.arange(n) % 2]
    return {"y": y, "proba": proba, "patients": np.arange(n) // 2, "regions": regions, "n_resamples": 100}


@pytest.fixture
def evaluation():
    return evaluate_predictions(**drawn())


EVALUATION_DISPLAYS = [OperatingPointDisplay, ReliabilityDisplay, RegionDisplay, RegionConfusionDisplay]


@pytest.mark.parametrize("display", EVALUATION_DISPLAYS)
def test_every_way_to_a_picture_gives_it(display, images, small_mura):
    data = drawn()
    shown = display.from_predictions(data.pop("y"), data.pop("proba"), **data)
    assert shown.figure_ is shown.ax_.figure
    valid = load_mura(small_mura, subset="valid")
    clf = quick_classifier().fit(images.data, images.target)
    assert display.from_estimator(clf, valid.data, valid.target, n_resamples=20).ax_ is not None


@pytest.mark.parametrize("display", EVALUATION_DISPLAYS)
def test_somebody_elses_pipeline_over_paths_is_drawn(display, images, small_mura):
    def brightness(paths):
        return np.array([[read_image(path).mean()] for path in np.ravel(paths)])

    model = make_pipeline(FunctionTransformer(brightness), StandardScaler(), LogisticRegression())
    model.fit(images.data.reshape(-1, 1), images.target)
    valid = load_mura(small_mura, subset="valid")
    shown = display.from_estimator(model, valid.data.reshape(-1, 1), valid.target, n_resamples=20)
    assert shown.evaluation.name == "Pipeline" and shown.ax_.has_data()


@pytest.mark.parametrize("display", [OperatingPointDisplay, ReliabilityDisplay, RegionDisplay])
def test_a_picture_goes_into_the_axes_it_is_given(display, evaluation):
    _, ax = pyplot.subplots()
    assert display.from_evaluation(evaluation, ax=ax).ax_ is ax


@pytest.mark.parametrize("display", [*EVALUATION_DISPLAYS])
def test_the_callers_settings_stay_as_they_are(display, evaluation):
    before = dict(matplotlib.rcParams)
    display.from_evaluation(evaluation)
    assert dict(matplotlib.rcParams) == before


def test_the_roc_curve_is_scikit_learns_and_the_point_lies_on_it(evaluation):
    display = OperatingPointDisplay.from_evaluation(evaluation)
    predictions = evaluation.predictions
    fpr, tpr, _ = roc_curve(predictions.code, predictions.proba[:, 1], drop_intermediate=False)
    np.testing.assert_allclose(display.roc_display_.fpr, fpr)
    np.testing.assert_allclose(display.roc_display_.tpr, tpr)
    assert display.point_ in [pytest.approx(point) for point in zip(fpr, tpr)]


@pytest.mark.parametrize(
    "ask, message",
    [
        (lambda clf, found: RegionDisplay.from_evaluation(clf), "draws an Evaluation, not a DummyClassifier"),
        (lambda clf, found: compare([found, found]), "evaluations is a list: pass a dict"),
        (lambda clf, found: show_mistakes(found, heat_maps=clf), "heat_maps is a DummyClassifier: pass what"),
    ],
    ids=["display", "compare", "mistakes"],
)
def test_something_else_than_what_is_asked_for_is_named(evaluation, ask, message):
    with pytest.raises(TypeError, match=message):
        ask(DummyClassifier(), evaluation)


def test_no_curve_of_one_class():
    found = evaluate_predictions([0, 0], [0.1, 0.2], patients=["a", "b"], n_resamples=10)
    with pytest.raises(ValueError, match="one label"):
        OperatingPointDisplay.from_evaluation(found)


def test_reliability_counts_every_sample_once_and_shares_are_those_of_the_bins(evaluation):
    display = ReliabilityDisplay.from_evaluation(evaluation, n_bins=4)
    predictions = evaluation.predictions
    order = np.argsort(predictions.proba[:, 1])
    expected = [predictions.code[part].mean() for part in np.split(order, 4)]
    assert [n for *_, n in display.bins_] == [30] * 4
    np.testing.assert_allclose([share for _, share, *_ in display.bins_], expected)
    assert all(low <= share <= high for _, share, low, high, _ in display.bins_)


def test_regions_are_drawn_with_their_values_and_the_papers(evaluation):
    ax = RegionDisplay.from_evaluation(evaluation).ax_
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels == ["Hand (n = 60)", "Wrist (n = 60)", "All (n = 120)"]
    drawn_at = sorted(line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o")
    expected = sorted(evaluation.get("kappa", group).value for group in ("hand", "wrist", "all"))
    np.testing.assert_allclose(drawn_at, expected)
    paper = published_results("kappa")
    paper = paper[paper.who.str.contains("MURA paper")].set_index("group").value
    points = ax.collections[-1].get_offsets()[:, 0] if len(ax.collections) else []
    all_points = np.concatenate([c.get_offsets()[:, 0] for c in ax.collections if len(c.get_offsets()) == 3])
    np.testing.assert_allclose(all_points, paper[["hand", "wrist", "all"]])
    assert points is not None
    pyplot.close("all")
    assert "hidden test set" not in str(
        [
            t.get_text()
            for t in RegionDisplay.from_evaluation(evaluation, metric="brier").ax_.get_legend().texts
        ]
    )


def test_confusion_matrices_are_scikit_learns(evaluation):
    display = RegionConfusionDisplay.from_evaluation(evaluation)
    predictions = evaluation.predictions
    for group, matrix in display.matrices_.items():
        rows = predictions.region == group if group != "all" else np.ones(len(predictions), dtype=bool)
        np.testing.assert_array_equal(
            matrix, confusion_matrix(predictions.code[rows], predictions.predicted[rows])
        )


def test_of_many_classes_one_matrix_is_drawn_that_can_be_read():
    parts = drawn()
    n = len(parts["y"])
    code = np.arange(n) % 14
    regions = np.array([f"region {number}" for number in code // 2])
    display = RegionConfusionDisplay.from_predictions(
        code, np.eye(14)[(code + 1) % 14], patients=parts["patients"], regions=regions, n_resamples=0
    )
    assert len(display.axes_) == 1 and len(display.matrices_) == 8
    np.testing.assert_array_equal(display.matrices_["region 0"].sum(axis=1)[:2], [9, 9])


def test_a_history_shows_the_epoch_kept_and_where_stages_were_unfrozen(images):
    clf = quick_classifier(head_epochs=1, max_epochs=3, monitor="roc_auc", validation_fraction=0.3)
    clf.fit(images.data, images.target)
    display = HistoryDisplay.from_estimator(clf)
    assert len(display.axes_) == 3  # losses, scores, learning rate
    losses = {line.get_label(): line for line in display.ax_.lines}
    np.testing.assert_allclose(losses["training"].get_ydata(), clf.history_["train_loss"])
    np.testing.assert_allclose(losses["validation"].get_ydata(), clf.history_["valid_loss"])
    assert losses[f"kept: epoch {clf.best_epoch_}"].get_xdata()[0] == clf.best_epoch_
    assert [text.get_text() for text in display.ax_.texts] == ["trained from two on"]
    with pytest.raises(AttributeError, match="fit it"):
        HistoryDisplay.from_estimator(quick_classifier())
    with pytest.raises(ValueError, match="takes 2 axes"):
        HistoryDisplay(pd.DataFrame({"epoch": [1], "lr": [0.1], "train_loss": [1.0]})).plot(
            axes=[display.ax_]
        )


def test_a_data_set_is_counted(images):
    display = DatasetDisplay.from_data(images)
    assert display.counts_["images"].sum() == len(images.data)
    assert display.counts_["studies"].sum() == len(set(images.studies))
    wrist_abnormal = (images.regions == "wrist") & (images.target == 1)
    assert display.counts_.loc[("wrist", "abnormal"), "patients"] == len(set(images.patients[wrist_abnormal]))
    sizes = display.axes_[1, 1].collections[0].get_offsets()
    assert len(sizes) == len(images.data) and sizes.max() == 48
