"""`Evaluation`: the metrics of a classifier, as numbers, tables and text."""

import html
import json
from collections.abc import Sequence
from typing import overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..io._atomic import written_whole
from ..metrics._bootstrap import MEAN_OF_REGIONS, Estimate, estimates
from ..metrics._labels import label_name
from ..metrics._predictions import Predictions
from ..metrics._weighted import METRICS
from ..utils._typing import PathLike

METRIC_NAMES = {
    "kappa": "Cohen's kappa",
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "accuracy": "Accuracy",
    "f1": "F1",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "brier": "Brier score",
    "calibration_error": "Calibration error",
}

# Metrics that tables show by default: those of a paper's main table.
_SHOWN = ("kappa", "auroc", "sensitivity", "specificity")


class Evaluation:
    """Metrics of predictions with confidence intervals; made by `evaluate` and `evaluate_predictions`.

    Parameters
    ----------
    predictions : Predictions
        Names, patients, regions, true classes and probabilities, one row per study (or per image, with
        ``level="image"``).
    images : Predictions or None, default=None
        The same before the probabilities of a study were averaged, one row per predicted sample. None:
        `predictions`.
    n_resamples : int, default=2000
        Number of bootstrap resamples of patients.
    confidence_level : float, default=0.95
        Nominal coverage of the intervals.
    random_state : int, default=0
        Seed of the resamples.
    name : str, default=""
        Name of the estimator, if known.

    Attributes
    ----------
    classes : ndarray of shape (k,)
        The classes; of two, the second is the abnormal one.
    threshold : float or None
        Smallest probability at which a study is predicted as abnormal. None: the most probable class is
        predicted.

    See Also
    --------
    evaluate : Evaluate an estimator on paths.
    evaluate_predictions : Evaluate probabilities in an array.
    compare : Compare two or more evaluations of the same studies.

    Examples
    --------
    >>> from murakit import evaluate_predictions
    >>> evaluation = evaluate_predictions(
    ...     [0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], patients=["a", "b", "c", "d"], n_resamples=200
    ... )
    >>> evaluation.get("accuracy").value
    0.5
    """

    def __init__(
        self,
        predictions: Predictions,
        images: Predictions | None = None,
        *,
        n_resamples: int = 2000,
        confidence_level: float = 0.95,
        random_state: int = 0,
        name: str = "",
    ) -> None:
        self.predictions = predictions
        self.images = predictions if images is None else images
        self.n_resamples = n_resamples
        self.confidence_level = confidence_level
        self.random_state = random_state
        self.name = name
        groups, values = estimates(predictions, n_resamples, confidence_level, random_state)
        if values.shape[1] > len(groups):
            # The mean of the regions counts the samples of all of them.
            groups.append(groups[0]._replace(name=MEAN_OF_REGIONS, kind="mean"))
        self._frame = self._as_frame(groups, values)

    @property
    def classes(self) -> NDArray:
        return self.predictions.classes

    @property
    def threshold(self) -> float | None:
        return self.predictions.threshold

    @property
    def level(self) -> str:
        """What a row of `predictions` is: "study" or "image"."""
        return self.predictions.level

    def _as_frame(self, groups, values):
        rows = []
        for at, group in enumerate(groups):
            part = self.predictions.take(group.rows)
            several = len(self.classes) > 2 and group.kind != "class"
            row = {
                "group": group.name,
                "kind": group.kind,
                "n_patients": len(set(part.patient)),
                "n_studies": len(set(part.study)),
                "n_images": int(part.n_images.sum()),
                "prevalence": np.nan if several else float((group.code == 1).mean()),
            }
            for metric, value, low, high in zip(METRICS, *values[:, at]):
                row |= {metric: value, f"{metric}_low": low, f"{metric}_high": high}
            rows.append(row)
        return pd.DataFrame(rows).set_index("group")

    def to_frame(self) -> pd.DataFrame:
        """Return all metrics as numbers.

        Returns
        -------
        table : DataFrame
            One row per group: ``"all"``, each region, the mean of the regions and, of more than two classes,
            each class. Columns: kind, n_patients, n_studies, n_images, prevalence (proportion of abnormal
            samples), and each metric with the bounds of its interval (``kappa``, ``kappa_low``,
            ``kappa_high``).
        """
        return self._frame.copy()

    def get(self, metric: str, group: str = "all") -> Estimate:
        """Return one metric of one group.

        Parameters
        ----------
        metric : str
            Name of the metric, such as ``"kappa"``, ``"auroc"`` or ``"sensitivity"``.
        group : str, default="all"
            ``"all"``, a region, ``"mean of regions"``, or a class.

        Returns
        -------
        estimate : Estimate
            Named tuple of value, low and high.

        Raises
        ------
        KeyError
            If there is no such metric or group; the message lists the known ones.
        """
        for what, known in ((metric, METRICS), (group, self._frame.index)):
            if what not in known:
                raise KeyError(f"{what!r} is not there; there are {', '.join(map(str, known))}.")
        return estimate_in(self._frame.loc[group], metric)

    def undefined(self) -> list[str]:
        """Return sentences that say which metrics of which groups are undefined or have no interval, and why.

        Returns
        -------
        sentences : list of str
        """
        groups_of: dict[tuple[str, ...], list[str]] = {}
        for group, row in self._frame.iterrows():
            missing = [metric for metric in METRICS if np.isnan(row[metric])]
            if missing:
                groups_of.setdefault(("no", *missing, self._reason(row)), []).append(group)
            no_interval = [
                metric for metric in METRICS if metric not in missing and np.isnan(row[f"{metric}_low"])
            ]
            if no_interval and self.n_resamples:
                reason = "undefined, or the same, in too many resamples of its patients"
                groups_of.setdefault(("no interval for", *no_interval, reason), []).append(group)
        return [
            f"{', '.join(groups)}: {what} {', '.join(METRIC_NAMES[metric] for metric in metrics)}: {reason}."
            for (what, *metrics, reason), groups in groups_of.items()
        ]

    def _reason(self, row):
        samples = "studies" if self.level == "study" else "images"
        if row["kind"] == "mean":
            return "undefined in a region"
        if row["kind"] == "class":
            return f"no {samples} are of this class, or none are predicted as such"
        if len(self.classes) > 2:
            return f"a class has no {samples}, or none are predicted as such"
        if row["prevalence"] in (0.0, 1.0):
            return f"all {samples} are {label_name(self.classes[int(row['prevalence'])])}"
        return f"no {samples} are predicted as {label_name(self.classes[1])}, or all are"

    # -- as text ----------------------------------------------------------------------------

    def table(self, metrics: Sequence[str] = _SHOWN) -> pd.DataFrame:
        """Return a table as papers print it: one row per group, with entries such as "0.705 (0.700–0.710)".

        Parameters
        ----------
        metrics : sequence of str, default=("kappa", "auroc", "sensitivity", "specificity")
            Metrics to show, or ``"all"``.

        Returns
        -------
        table : DataFrame of str
        """
        metrics = METRICS if isinstance(metrics, str) and metrics == "all" else metrics
        shown = {}
        for group, row in self._frame.iterrows():
            prevalence = "–" if np.isnan(row["prevalence"]) else f"{row['prevalence']:.1%}"
            shown[group] = {
                "Patients": f"{row['n_patients']:,}",
                "Studies": f"{row['n_studies']:,}",
                "Images": f"{row['n_images']:,}",
                self._share_name: prevalence,
            } | {METRIC_NAMES[metric]: str(self.get(metric, group)) for metric in metrics}
        return pd.DataFrame.from_dict(shown, orient="index").rename_axis("Group")

    @property
    def _share_name(self):
        """Heading of the prevalence: the name of the abnormal class, or "Share" for more than two classes."""
        return label_name(self.classes[1]).capitalize() if len(self.classes) == 2 else "Share"

    def caption(self) -> str:
        """Return a sentence that says how the metrics were computed: level, threshold, intervals.

        Returns
        -------
        text : str
        """
        per = "study (mean probability of its images)" if self.level == "study" else "image"
        if len(self.classes) > 2:
            called = f"the most probable of {len(self.classes)} classes; means over classes except kappa and accuracy"
        elif self.threshold is None:
            called = f"called {label_name(self.classes[1])} above 0.5"
        else:
            called = f"called {label_name(self.classes[1])} from {self.threshold:.3g} on"
        intervals = (
            f"{self.confidence_level:.0%} intervals from {self.n_resamples:,} resamples of patients"
            if self.n_resamples
            else "no intervals"
        )
        return f"Per {per}, {called}; {intervals}."

    def to_markdown(self, metrics: Sequence[str] = _SHOWN) -> str:
        """Return `table` in Markdown, with the caption below.

        Parameters
        ----------
        metrics : sequence of str, default=("kappa", "auroc", "sensitivity", "specificity")
            Metrics to show, or ``"all"``.

        Returns
        -------
        text : str
        """
        return "\n".join([*markdown_lines(self.table(metrics)), "", self.caption(), *self.undefined()])

    @overload
    def to_json(self, path: None = None) -> str: ...

    @overload
    def to_json(self, path: PathLike) -> None: ...

    def to_json(self, path: PathLike | None = None) -> str | None:
        """Return all metrics and the settings of the evaluation as JSON, or write them to a file.

        Parameters
        ----------
        path : str or path-like, default=None
            File to write. None: return the text.

        Returns
        -------
        text : str or None
            None if a file was written.
        """
        groups = self._frame.astype(object).where(self._frame.notna(), None)
        text = json.dumps(
            {
                "estimator": self.name,
                "level": self.level,
                "classes": [str(label) for label in self.classes],
                "threshold": self.threshold,
                "confidence_level": self.confidence_level,
                "n_resamples": self.n_resamples,
                "random_state": self.random_state,
                "groups": groups.to_dict(orient="index"),
            },
            indent=1,
        )
        if path is None:
            return text
        with written_whole(path) as unfinished, open(unfinished, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        return None

    def __repr__(self) -> str:
        head = f"Evaluation of {self.name}" if self.name else "Evaluation"
        return "\n".join([head, self.table().to_string(), self.caption(), *self.undefined()])

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{html.escape(text)}</p>" for text in [self.caption(), *self.undefined()])
        return self.table().to_html(classes="murakit", border=0) + notes


def estimate_in(row: pd.Series, metric: str) -> Estimate:
    """Return the `Estimate` of a metric from a row of `Evaluation.to_frame` or `Comparison.to_frame`."""
    return Estimate(*(float(row[f"{metric}{end}"]) for end in ("", "_low", "_high")))


def markdown_lines(table: pd.DataFrame) -> list[str]:
    """Return the lines of a table of text in Markdown, its index as the first column."""
    table = table.reset_index()
    lines = ["| " + " | ".join(table.columns) + " |", "|---|" + "---:|" * (table.shape[1] - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in table.itertuples(index=False)]
