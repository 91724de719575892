"""Displays of probabilities: the ROC curve with the threshold, and a reliability diagram."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.metrics import RocCurveDisplay

from ..evaluation._evaluate import evaluate, evaluate_predictions
from ..evaluation._result import Evaluation
from ..metrics._bootstrap import interval, patient_weights, rarer_class_size
from ..metrics._labels import label_name
from ..metrics._weighted import Ranking
from ..utils._typing import Paths
from ._style import COLOURS, COLUMN, GREY, LIGHT, MARKS, axes, paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GRID = np.linspace(0, 1, 201)


class FromEvaluation:
    """A Display of an evaluation, and the three ways to make it."""

    # Each Display has options of its own.
    plot: Callable[..., Self]

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation = evaluation

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Paths,
        y: ArrayLike,
        *,
        ax: "Axes | None" = None,
        plot_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """Judge a fitted classifier and draw.

        Parameters
        ----------
        estimator : classifier
            Fitted, with ``predict_proba``.
        X : array-like of shape (n,)
            Paths of images or of study folders.
        y : array-like of shape (n,)
            True labels.
        ax : matplotlib Axes, default=None
            Where to draw. None: a new figure of a paper's column width.
        plot_options : dict, default=None
            Passed to ``plot``.
        **options
            Passed to `murakit.evaluate`.

        Returns
        -------
        display
        """
        return cls.from_evaluation(evaluate(estimator, X, y, **options), ax=ax, **plot_options or {})

    @classmethod
    def from_predictions(
        cls,
        y: ArrayLike,
        proba: ArrayLike,
        *,
        patients: ArrayLike,
        ax: "Axes | None" = None,
        plot_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """Judge predictions and draw.

        Parameters
        ----------
        y : array-like of shape (n,)
            True labels.
        proba : array-like of shape (n,) or (n, n_classes)
            Probabilities.
        patients : array-like of shape (n,)
            Patient of each row.
        ax : matplotlib Axes, default=None
            Where to draw. None: a new figure of a paper's column width.
        plot_options : dict, default=None
            Passed to ``plot``.
        **options
            Passed to `murakit.evaluate_predictions`.

        Returns
        -------
        display
        """
        evaluation = evaluate_predictions(y, proba, patients=patients, **options)
        return cls.from_evaluation(evaluation, ax=ax, **plot_options or {})

    @classmethod
    def from_evaluation(
        cls, evaluation: Evaluation, *, ax: "Axes | None" = None, **plot_options: Any
    ) -> Self:
        """Draw an `Evaluation`.

        Parameters
        ----------
        evaluation : Evaluation
            What `murakit.evaluate` returns.
        ax : matplotlib Axes, default=None
            Where to draw. None: a new figure of a paper's column width.
        **plot_options
            Passed to ``plot``.

        Returns
        -------
        display
        """
        if not isinstance(evaluation, Evaluation):
            raise TypeError(
                f"{cls.__name__}.from_evaluation draws an Evaluation, not a {type(evaluation).__name__}: see "
                "murakit.evaluate, or call from_estimator."
            )
        return cls(evaluation).plot(ax=ax, **plot_options)


def binary_predictions(evaluation, what):
    """Return the predictions that an evaluation of two classes judged."""
    if not isinstance(evaluation, Evaluation):
        raise TypeError(
            f"{what} draws an Evaluation, not a {type(evaluation).__name__}: see murakit.evaluate."
        )
    if len(evaluation.classes) != 2:
        raise ValueError(f"{what} needs two classes, and there are {len(evaluation.classes)}.")
    return evaluation.predictions


class OperatingPointDisplay(FromEvaluation):
    """ROC curve with its interval, and the threshold that was chosen.

    Parameters
    ----------
    evaluation : Evaluation
        Of two classes, with both among the labels.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    roc_display_ : sklearn.metrics.RocCurveDisplay
    point_ : tuple of float
        1 - specificity and sensitivity at the threshold.

    References
    ----------
    Efron and Tibshirani, "An Introduction to the Bootstrap", Chapman & Hall (1993).

    Examples
    --------
    >>> from murakit.plotting import OperatingPointDisplay
    >>> display = OperatingPointDisplay.from_predictions(
    ...     [0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], patients=list("abcd"), n_resamples=100
    ... )
    >>> display.point_
    (0.5, 0.5)
    """

    def plot(self, ax: "Axes | None" = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None: a new figure of a paper's column width.

        Returns
        -------
        self : OperatingPointDisplay
        """
        evaluation = self.evaluation
        predictions = binary_predictions(evaluation, "OperatingPointDisplay")
        ranking = Ranking(predictions.code == 1, predictions.proba[:, 1], np.ones((1, len(predictions))))
        fpr, tpr = (np.r_[0, rates[0]] for rates in ranking.roc())
        if np.isnan(fpr).any() or np.isnan(tpr).any():
            raise ValueError("All samples have one label: there is no ROC curve. Judge both classes.")
        with paper():
            self.ax_, self.figure_ = axes(ax, height=COLUMN)
            ax = self.ax_
            ax.plot([0, 1], [0, 1], color=LIGHT, linewidth=0.8)
            if evaluation.n_resamples:
                low, high = self._band(predictions)
                label = f"{evaluation.confidence_level:.0%} interval"
                ax.fill_between(_GRID, low, high, color=COLOURS[0], alpha=0.18, linewidth=0, label=label)
            self.roc_display_ = RocCurveDisplay(fpr=fpr, tpr=tpr)
            self.roc_display_.plot(
                ax=ax, curve_kwargs={"color": COLOURS[0], "label": f"AUROC {evaluation.get('auroc')}"}
            )
            self._draw_point(ax, evaluation)
            ax.set(
                xlabel="1 − specificity",
                ylabel="Sensitivity",
                xlim=(-0.02, 1.02),
                ylim=(-0.02, 1.02),
                aspect="equal",
            )
            ax.legend(loc="lower right")
        return self

    def _draw_point(self, ax, evaluation):
        sensitivity, specificity = evaluation.get("sensitivity"), evaluation.get("specificity")
        self.point_ = 1 - specificity.value, sensitivity.value
        where = "above 0.5" if evaluation.threshold is None else f"from {evaluation.threshold:.3g}"
        ax.errorbar(
            *self.point_,
            xerr=_arms(1 - specificity.value, 1 - specificity.high, 1 - specificity.low),
            yerr=_arms(*sensitivity),
            fmt=MARKS[1],
            color=COLOURS[1],
            markersize=4,
            capsize=2,
            label=f"{label_name(evaluation.classes[1])} {where}:\nsensitivity {sensitivity}\nspecificity {specificity}",
        )

    def _band(self, predictions):
        """Return the bounds of the sensitivity at each specificity of the grid."""
        evaluation = self.evaluation
        rng = np.random.default_rng(evaluation.random_state)
        positive, score = predictions.code == 1, predictions.proba[:, 1]
        curves = []
        for weights in patient_weights(predictions.patient, predictions.code, evaluation.n_resamples, rng):
            for fpr, tpr in zip(*Ranking(positive, score, weights).roc()):
                curves.append(np.interp(_GRID, np.r_[0, fpr], np.r_[0, tpr]))
        return interval(
            np.array(curves),
            evaluation.confidence_level,
            rarer_class_size(predictions.patient, predictions.code),
        )


def _arms(value, low, high):
    return None if np.isnan(low) else [[max(value - low, 0)], [max(high - value, 0)]]


class ReliabilityDisplay(FromEvaluation):
    """Share of abnormal samples against the predicted probability, with intervals and counts.

    Parameters
    ----------
    evaluation : Evaluation
        Of two classes.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    bins_ : list of tuple
        Mean probability, share of abnormal, low, high and number of samples of each bin.

    See Also
    --------
    sklearn.calibration.CalibrationDisplay : Without intervals and patients.

    References
    ----------
    Bröcker and Smith, "Increasing the reliability of reliability diagrams", Weather and Forecasting
    22 (2007).

    Examples
    --------
    >>> from murakit.plotting import ReliabilityDisplay
    >>> display = ReliabilityDisplay.from_predictions(
    ...     [0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], patients=list("abcd"), n_resamples=100, plot_options={"n_bins": 2}
    ... )
    >>> [round(share, 2) for _, share, *_ in display.bins_]
    [0.5, 0.5]
    """

    def plot(self, ax: "Axes | None" = None, *, n_bins: int = 10) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None: a new figure of a paper's column width.
        n_bins : int, default=10
            Bins with equally many samples; fewer where probabilities are tied.

        Returns
        -------
        self : ReliabilityDisplay
        """
        predictions = binary_predictions(self.evaluation, "ReliabilityDisplay")
        score, positive = predictions.proba[:, 1], predictions.code == 1
        edges = np.unique(np.quantile(score, np.linspace(0, 1, n_bins + 1)))
        self.bins_ = self._bins(predictions, score, positive, np.digitize(score, edges[1:-1]))
        with paper():
            self.ax_, self.figure_ = axes(ax, height=COLUMN)
            ax = self.ax_
            ax.plot([0, 1], [0, 1], color=LIGHT, linewidth=0.8, label="perfectly calibrated")
            mean, share, low, high, _ = (np.array(part) for part in zip(*self.bins_))
            arms = np.maximum([share - low, high - share], 0)
            ax.errorbar(
                mean,
                share,
                yerr=None if np.isnan(arms).any() else arms,
                color=COLOURS[0],
                fmt=MARKS[0] + "-",
                markersize=4,
                capsize=2,
                label=f"calibration error {self.evaluation.get('calibration_error')}",
            )
            below = ax.inset_axes((0, 0, 1, 0.12), zorder=0)
            below.hist(score, bins=40, range=(0, 1), color=LIGHT, edgecolor=GREY, linewidth=0.3)
            below.set(xlim=(-0.02, 1.02))
            below.axis("off")
            what = "studies" if self.evaluation.level == "study" else "images"
            ax.set(
                xlabel=f"Predicted probability of {label_name(self.evaluation.classes[1])}",
                ylabel=f"Share of {label_name(self.evaluation.classes[1])} {what}",
                xlim=(-0.02, 1.02),
                ylim=(-0.02, 1.02),
                aspect="equal",
            )
            ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
        return self

    def _bins(self, predictions, score, positive, bin_of):
        evaluation = self.evaluation
        found = np.unique(bin_of)
        inside = (bin_of[:, None] == found).astype(float)
        shares = (inside * positive[:, None]).sum(axis=0) / inside.sum(axis=0)
        low = high = np.full(len(found), np.nan)
        if evaluation.n_resamples:
            rng = np.random.default_rng(evaluation.random_state)
            drawn = []
            for weights in patient_weights(
                predictions.patient, predictions.code, evaluation.n_resamples, rng
            ):
                total = weights @ inside
                with np.errstate(invalid="ignore"):
                    drawn.append((weights @ (inside * positive[:, None])) / total)
            n_patients = rarer_class_size(predictions.patient, predictions.code)
            low, high = interval(np.concatenate(drawn), evaluation.confidence_level, n_patients)
        means = (inside * score[:, None]).sum(axis=0) / inside.sum(axis=0)
        return [
            (float(m), float(s), float(a), float(b), int(n))
            for m, s, a, b, n in zip(means, shares, low, high, inside.sum(axis=0))
        ]
