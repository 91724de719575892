"""Display of a training: losses, scores and learning rate, epoch by epoch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import pandas as pd

from ..estimators._classifier import MuraClassifier
from ._style import COLOURS, COLUMN, GREY, LIGHT, LINES, MARKS, paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class HistoryDisplay:
    """Losses, scores and learning rate of a training, the epoch that is kept, and what was trained.

    Parameters
    ----------
    history : DataFrame
        ``history_`` of a `MuraClassifier`.
    best_epoch : int, default=None
        The epoch whose weights are kept.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
    ax_ : matplotlib Axes
        The first: losses.
    figure_ : matplotlib Figure

    References
    ----------
    Prechelt, "Early Stopping - But When?", Neural Networks: Tricks of the Trade (1998).

    Examples
    --------
    >>> import pandas as pd
    >>> from murakit.plotting import HistoryDisplay
    >>> history = pd.DataFrame({"epoch": [1, 2], "stage": "all", "lr": 1e-3, "train_loss": [0.7, 0.5]})
    >>> HistoryDisplay(history, best_epoch=2).plot().ax_.get_ylabel()
    'Loss'
    """

    def __init__(self, history: pd.DataFrame, best_epoch: int | None = None) -> None:
        self.history = history
        self.best_epoch = best_epoch

    @classmethod
    def from_estimator(cls, estimator: MuraClassifier, *, axes: "Sequence[Axes] | None" = None) -> Self:
        """Draw the training of a fitted `MuraClassifier`.

        Parameters
        ----------
        estimator : MuraClassifier
            Fitted.
        axes : array-like of matplotlib Axes, default=None
            Where to draw, see `plot`.

        Returns
        -------
        display : HistoryDisplay

        Raises
        ------
        AttributeError
            For an estimator that keeps no ``history_``.
        """
        if not hasattr(estimator, "history_"):
            raise AttributeError(
                f"this {type(estimator).__name__} has no history_: fit it, or pass the MuraClassifier inside of it."
            )
        return cls(estimator.history_, estimator.best_epoch_).plot(axes=axes)

    def plot(self, axes: "Sequence[Axes] | None" = None) -> Self:
        """Draw.

        Parameters
        ----------
        axes : array-like of matplotlib Axes, default=None
            Two, or three where the history holds scores: losses, scores, learning rate. None: a new
            figure of a paper's column width.

        Returns
        -------
        self : HistoryDisplay

        Raises
        ------
        ValueError
            For a history without epochs, or another number of axes.
        """
        history = self.history
        if not len(history):
            raise ValueError("The history holds no epoch: fit first.")
        scores = [name for name in history if name.startswith("valid_") and name != "valid_loss"]
        n_panels = 3 if scores else 2
        with paper() as plt:
            if axes is None:
                _, axes = plt.subplots(
                    n_panels,
                    1,
                    figsize=(COLUMN, 1.35 * n_panels + 0.6),
                    sharex=True,
                    layout="constrained",
                    height_ratios=[2, *([2] if scores else []), 1],
                )
            self.axes_ = list(axes)
            if len(self.axes_) != n_panels:
                raise ValueError(f"This history takes {n_panels} axes, and {len(self.axes_)} were passed.")
            self.ax_, self.figure_ = self.axes_[0], self.axes_[0].figure
            self._lines(self.ax_, {"training": "train_loss", "validation": "valid_loss"}, "Loss")
            if scores:
                names = {name.removeprefix("valid_"): name for name in scores}
                self._lines(self.axes_[1], names, "Validation score")
            rates = self.axes_[-1]
            rates.step(history["epoch"], history["lr"], where="mid", color=COLOURS[0])
            rates.set(xlabel="Epoch", ylabel="Learning rate", yscale="log")
            for ax in self.axes_:
                self._mark(ax, named=ax is self.ax_)
                ax.grid(axis="y", color=LIGHT, linewidth=0.4)
                ax.xaxis.get_major_locator().set_params(integer=True)
            self.ax_.legend(loc="best")
            if scores:
                self.axes_[1].legend(loc="best")
        return self

    def _lines(self, ax, columns, label):
        found = [(name, column) for name, column in columns.items() if column in self.history]
        for number, (name, column) in enumerate(found):
            ax.plot(
                self.history["epoch"],
                self.history[column],
                color=COLOURS[number % 4],
                linestyle=LINES[number % 4],
                marker=MARKS[number % 4],
                markersize=2.5,
                label=name,
            )
        ax.set_ylabel(label)

    def _mark(self, ax, *, named):
        """Mark the epoch that is kept, and those in which other stages begin to be trained."""
        if self.best_epoch is not None:
            ax.axvline(
                self.best_epoch,
                color=GREY,
                linestyle=":",
                linewidth=1,
                label=f"kept: epoch {self.best_epoch}" if named else None,
            )
        if "stage" not in self.history:
            return
        stages, epochs = list(self.history["stage"]), list(self.history["epoch"])
        for before, stage, epoch in zip([None, *stages], stages, epochs):
            if stage != before and before is not None:
                ax.axvline(epoch - 0.5, color="black", linewidth=0.6)
                if named:
                    ax.annotate(
                        f"trained from {stage} on" if stage not in ("all", "head") else f"trained: {stage}",
                        (epoch - 0.5, 1),
                        xycoords=("data", "axes fraction"),
                        xytext=(2, -2),
                        textcoords="offset points",
                        va="top",
                        fontsize=6,
                    )
