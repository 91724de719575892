"""Displays of regions: a metric of each with its interval, and confusion matrices."""

from typing import TYPE_CHECKING, Self

import numpy as np
from sklearn.metrics import ConfusionMatrixDisplay

from ..evaluation._published import published_results
from ..evaluation._result import METRIC_NAMES, Evaluation
from ..metrics._labels import label_name
from ..metrics._weighted import METRICS, confusion
from ._curves import FromEvaluation
from ._style import COLOURS, COLUMN, GREY, LIGHT, MARKS, axes, paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PAPER = "DenseNet-169 ensemble of the MURA paper"

# Of confusion matrices side by side, so that their numbers can be read on a page.
_MOST_CLASSES = 8


class RegionDisplay(FromEvaluation):
    """A metric of each region and of all studies, with intervals, beside published values.

    Parameters
    ----------
    evaluation : Evaluation
        With regions.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    References
    ----------
    Rajpurkar et al., "MURA: Large Dataset for Abnormality Detection in Musculoskeletal
    Radiographs", arXiv 1712.06957 (2017): the published values.

    Examples
    --------
    >>> from murakit.plotting import RegionDisplay
    >>> display = RegionDisplay.from_predictions(
    ...     [0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], patients=list("abcd"), regions=["wrist"] * 4, n_resamples=100
    ... )
    >>> display.ax_.get_xlabel()
    "Cohen's kappa per study"
    """

    def plot(self, ax: "Axes | None" = None, *, metric: str = "kappa", published: bool = True) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None: a new figure of a paper's column width.
        metric : str, default="kappa"
            Such as ``"auroc"``.
        published : bool, default=True
            Draw the values of the MURA paper, where it has this metric; they were measured on other
            studies, and the legend says so.

        Returns
        -------
        self : RegionDisplay
        """
        if metric not in METRICS:
            raise ValueError(f"metric={metric!r} is not known; choose one of {', '.join(METRICS)}.")
        evaluation = self.evaluation
        frame = evaluation.to_frame()
        groups = [*frame.index[frame.kind == "region"], "all"]
        place = np.arange(len(groups))[::-1]
        with paper():
            self.ax_, self.figure_ = axes(ax, height=0.9 + 0.28 * len(groups))
            ax = self.ax_
            ax.axhline(0.5, color=LIGHT, linewidth=0.8)
            self._draw_published(ax, metric, groups, place, published)
            for group, y in zip(groups, place):
                self._draw_one(ax, evaluation.get(metric, group), y, last=y == 0)
            ax.set_yticks(
                place, [f"{group.capitalize()} (n = {frame.n_studies[group]:,})" for group in groups]
            )
            per = "study" if evaluation.level == "study" else "image"
            ax.set(xlabel=f"{METRIC_NAMES[metric]} per {per}", ylim=(-0.6, len(groups) - 0.4))
            ax.grid(axis="x", color=LIGHT, linewidth=0.4)
            ax.set_axisbelow(True)
            ax.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=1)
        return self

    def _draw_one(self, ax, estimate, y, *, last):
        if np.isnan(estimate.value):
            ax.text(0.01, y, "undefined", va="center", color=GREY, transform=ax.get_yaxis_transform())
            return
        arms = None
        if not np.isnan(estimate.low):
            arms = np.maximum([[estimate.value - estimate.low], [estimate.high - estimate.value]], 0)
        label = f"this evaluation, {self.evaluation.confidence_level:.0%} interval" if last else None
        ax.errorbar(
            estimate.value, y, xerr=arms, fmt=MARKS[0], color=COLOURS[0], markersize=4, capsize=2, label=label
        )

    def _draw_published(self, ax, metric, groups, place, published):
        if not published or len(self.evaluation.classes) > 2:
            return  # what is published is of two classes
        try:
            table = published_results(metric)
        except ValueError:
            return  # nothing is published in this metric
        of_paper = table[table.who == _PAPER].set_index("group")
        known = [(group, y) for group, y in zip(groups, place) if group in of_paper.index]
        if not known:
            return
        ax.scatter(
            [of_paper.value[group] for group, _ in known],
            [y - 0.22 for _, y in known],
            marker=MARKS[2],
            s=18,
            facecolor="white",
            edgecolor=COLOURS[1],
            linewidth=1,
            label="MURA paper, DenseNet-169 (on the hidden test set)",
        )


class RegionConfusionDisplay(FromEvaluation):
    """Confusion matrices of all studies and of each region: counts, and shares of the true class.

    Of more than four classes, only the matrix of all is drawn; those of regions are in ``matrices_``.

    Parameters
    ----------
    evaluation : Evaluation
        What `murakit.evaluate` returns.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
    ax_ : matplotlib Axes
        The first of them.
    figure_ : matplotlib Figure
    matrices_ : dict of str to ndarray
        Counts; rows are true classes, columns predicted ones.

    See Also
    --------
    sklearn.metrics.ConfusionMatrixDisplay : Draws each of them.

    References
    ----------
    Rajpurkar et al., "MURA: Large Dataset for Abnormality Detection in Musculoskeletal
    Radiographs", arXiv 1712.06957 (2017): the regions.

    Examples
    --------
    >>> from murakit.plotting import RegionConfusionDisplay
    >>> display = RegionConfusionDisplay.from_predictions(
    ...     [0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], patients=list("abcd"), regions=["wrist"] * 4, n_resamples=0
    ... )
    >>> display.matrices_["wrist"].tolist()
    [[1, 1], [1, 1]]
    """

    def plot(self, ax: "Axes | None" = None, *, n_columns: int | None = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            For an evaluation without regions; several matrices make a figure of their own.
        n_columns : int, default=None
            Matrices side by side. None: four for two classes, fewer for more of them.

        Returns
        -------
        self : RegionConfusionDisplay
        """
        evaluation = self.evaluation
        if not isinstance(evaluation, Evaluation):
            raise TypeError(f"RegionConfusionDisplay draws an Evaluation, not a {type(evaluation).__name__}.")
        predictions = evaluation.predictions
        regions = predictions.regions()
        groups = ["all", *(regions if len(regions) > 1 or ax is None else [])]
        n_classes = len(predictions.classes)
        shown = groups if n_classes <= _MOST_CLASSES // 2 else ["all"]
        if ax is not None and len(shown) > 1:
            raise ValueError(f"{len(shown)} matrices do not fit into one ax; leave ax out.")
        self.matrices_ = {}
        for group in groups:
            in_group = (
                np.ones(len(predictions), dtype=bool) if group == "all" else predictions.region == group
            )
            found = predictions.take(np.flatnonzero(in_group))
            ones = np.ones((1, len(found)))
            matrix = confusion(found.code, found.predicted, len(found.classes), ones)[0]
            self.matrices_[group] = matrix.astype(int)
        with paper() as plt:
            if ax is None:
                n_columns = max(1, _MOST_CLASSES // n_classes) if n_columns is None else n_columns
                n_rows = -(-len(shown) // n_columns)
                n_columns = min(n_columns, len(shown))
                size = COLUMN / 2 if n_classes == 2 else COLUMN * max(1, n_classes / _MOST_CLASSES)
                self.figure_, grid = plt.subplots(
                    n_rows,
                    n_columns,
                    figsize=(max(size * n_columns, COLUMN), size * n_rows),
                    layout="constrained",
                    squeeze=False,
                )
                self.axes_ = grid.ravel()
            else:
                self.axes_, self.figure_ = np.array([ax]), ax.figure
            self.ax_ = self.axes_[0]
            for group, place in zip(shown, self.axes_):
                self._draw_matrix(self.matrices_[group], group, place)
            for place in self.axes_[len(shown) :]:
                place.axis("off")
        return self

    def _draw_matrix(self, matrix, group, ax):
        binary = len(matrix) == 2
        names = [label_name(label) if binary else str(label) for label in self.evaluation.classes]
        with np.errstate(invalid="ignore"):
            shares = matrix / matrix.sum(axis=1, keepdims=True)
        display = ConfusionMatrixDisplay(np.nan_to_num(shares), display_labels=names)
        display.plot(ax=ax, colorbar=False, cmap="Greys", im_kw={"vmin": 0, "vmax": 1}, include_values=False)
        for row, column in np.ndindex(matrix.shape):
            share = "–" if np.isnan(shares[row, column]) else f"{shares[row, column]:.0%}"
            text = f"{matrix[row, column]:,}\n{share}" if binary else f"{matrix[row, column]:,}"
            dark = np.nan_to_num(shares[row, column]) > 0.5
            ax.text(
                column, row, text, ha="center", va="center", color="white" if dark else "black", fontsize=7
            )
        ax.set_title(f"{group.capitalize()} (n = {matrix.sum():,})")
        ax.set(xlabel="Predicted", ylabel="True")
        ax.tick_params(length=0)
        if binary:
            ax.set_yticks([0, 1], names, rotation=90, va="center")
        else:
            ax.tick_params(axis="x", labelrotation=90)
