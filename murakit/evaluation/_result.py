"""`Evaluation`: the numbers of a classifier, and how they are printed."""

import html
import json

import numpy as np
import pandas as pd

from ..io._atomic import written_whole
from ..metrics._bootstrap import MEAN_OF_REGIONS, Estimate, estimates
from ..metrics._labels import label_name
from ..metrics._weighted import METRICS

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

# What a paper's table has; the others are a call away.
_SHOWN = ("kappa", "auroc", "sensitivity", "specificity")


class Evaluation:
    """How good predictions are; made by `evaluate` and `evaluate_predictions`.

    Parameters
    ----------
    units : Units
        What was judged: names, patients, regions, true classes and probabilities, one row a study
        (or an image).
    images : Units or None
        The same for what was predicted one by one, before probabilities were averaged.
    n_resamples : int, default=2000
        Resamples of patients behind the intervals.
    confidence_level : float, default=0.95
        Of the intervals.
    random_state : int, default=0
        Seed of the resamples.
    name : str, default=""
        Of the estimator, where there was one.

    Attributes
    ----------
    classes : ndarray of shape (k,)
        The classes; of two, the second is the abnormal one.
    threshold : float or None
        Probability from which on a study is called abnormal. None: the most probable class.

    See Also
    --------
    evaluate : From an estimator and paths.
    evaluate_predictions : From arrays.
    compare : Two or more evaluations of the same studies.

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
        self, units, images=None, *, n_resamples=2000, confidence_level=0.95, random_state=0, name=""
    ):
        self.units = units
        self.images = units if images is None else images
        self.n_resamples = n_resamples
        self.confidence_level = confidence_level
        self.random_state = random_state
        self.name = name
        asked, values = estimates(units, n_resamples, confidence_level, random_state)
        groups = [(question.group, question.kind) for question in asked]
        if values.shape[1] > len(asked):
            groups.append((MEAN_OF_REGIONS, "mean"))
        self._frame = self._as_frame(asked, groups, values)

    @property
    def classes(self):
        return self.units.classes

    @property
    def threshold(self):
        return self.units.threshold

    @property
    def level(self):
        """Whether studies or images were judged."""
        return self.units.level

    def _as_frame(self, asked, groups, values):
        rows = []
        for at, (group, kind) in enumerate(groups):
            of = asked[at] if at < len(asked) else asked[0]
            units = self.units.take(of.rows)
            several = len(self.classes) > 2 and kind != "class"
            row = {
                "group": group,
                "kind": kind,
                "n_patients": len(set(units.patient)),
                "n_studies": len(set(units.study)),
                "n_images": int(units.n_images.sum()),
                "prevalence": np.nan if several else float((of.code == 1).mean()),
            }
            for metric, value, low, high in zip(METRICS, *values[:, at]):
                row |= {metric: value, f"{metric}_low": low, f"{metric}_high": high}
            rows.append(row)
        return pd.DataFrame(rows).set_index("group")

    def to_frame(self):
        """Return all numbers.

        Returns
        -------
        table : DataFrame
            One row a group: ``"all"``, each region, the mean of the regions, and each class where
            there are more than two. Columns: kind, n_patients, n_studies, n_images, prevalence (share of
            the abnormal), and each metric with its bounds (``kappa``, ``kappa_low``, ``kappa_high``).
        """
        return self._frame.copy()

    def get(self, metric, group="all"):
        """Return one metric of one group.

        Parameters
        ----------
        metric : str
            Such as ``"kappa"``, ``"auroc"`` or ``"sensitivity"``.
        group : str, default="all"
            ``"all"``, a region, ``"mean of regions"``, or a class.

        Returns
        -------
        estimate : Estimate
            A tuple of value, low and high.

        Raises
        ------
        KeyError
            For a metric or a group that is not there; the message lists those that are.
        """
        for what, known in ((metric, METRICS), (group, self._frame.index)):
            if what not in known:
                raise KeyError(f"{what!r} is not there; there are {', '.join(map(str, known))}.")
        return estimate_in(self._frame.loc[group], metric)

    def undefined(self):
        """Return sentences that say which metrics of which groups are undefined or lack an interval, and why.

        Returns
        -------
        sentences : list of str
        """
        groups_of = {}
        for group, row in self._frame.iterrows():
            missing = [metric for metric in METRICS if np.isnan(row[metric])]
            if missing:
                groups_of.setdefault(("no", *missing, self._reason(row)), []).append(group)
            unsure = [
                metric for metric in METRICS if metric not in missing and np.isnan(row[f"{metric}_low"])
            ]
            if unsure and self.n_resamples:
                reason = "undefined, or the same, in too many resamples of its patients"
                groups_of.setdefault(("no interval for", *unsure, reason), []).append(group)
        return [
            f"{', '.join(groups)}: {what} {', '.join(METRIC_NAMES[metric] for metric in metrics)}: {reason}."
            for (what, *metrics, reason), groups in groups_of.items()
        ]

    def _reason(self, row):
        units = "studies" if self.level == "study" else "images"
        if row["kind"] == "mean":
            return "undefined in a region"
        if row["kind"] == "class":
            return f"no {units} are of this class, or none are called so"
        if len(self.classes) > 2:
            return f"a class has no {units}, or none are called so"
        if row["prevalence"] in (0.0, 1.0):
            return f"all {units} are {label_name(self.classes[int(row['prevalence'])])}"
        return f"no {units} are called {label_name(self.classes[1])}, or all are"

    # -- as text ----------------------------------------------------------------------------

    def table(self, metrics=_SHOWN):
        """Return a table as a paper prints it: one line a group, "0.705 (0.700–0.710)".

        Parameters
        ----------
        metrics : sequence of str, default=("kappa", "auroc", "sensitivity", "specificity")
            What to show, or ``"all"``.

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
        """What the share of the second class, or of each of more than two, is called."""
        return label_name(self.classes[1]).capitalize() if len(self.classes) == 2 else "Share"

    def caption(self):
        """Return what the numbers are: level, threshold, intervals.

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

    def to_markdown(self, metrics=_SHOWN):
        """Return `table` in Markdown, with the caption below.

        Parameters
        ----------
        metrics : sequence of str, default=("kappa", "auroc", "sensitivity", "specificity")
            What to show, or ``"all"``.

        Returns
        -------
        text : str
        """
        return "\n".join([*markdown_lines(self.table(metrics)), "", self.caption(), *self.undefined()])

    def to_json(self, path=None):
        """Return all numbers and how they were made as JSON, or write them to a file.

        Parameters
        ----------
        path : str or path-like, default=None
            The file to write.

        Returns
        -------
        text : str or None
            None where a file was written.
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

    def __repr__(self):
        head = f"Evaluation of {self.name}" if self.name else "Evaluation"
        return "\n".join([head, self.table().to_string(), self.caption(), *self.undefined()])

    def _repr_html_(self):
        notes = "".join(f"<p>{html.escape(text)}</p>" for text in [self.caption(), *self.undefined()])
        return self.table().to_html(classes="murakit", border=0) + notes


def estimate_in(row, metric):
    """Return the `Estimate` of a metric in a row with its bounds."""
    return Estimate(*(float(row[f"{metric}{end}"]) for end in ("", "_low", "_high")))


def markdown_lines(table):
    """Return the lines of a table of text in Markdown."""
    table = table.reset_index()
    lines = ["| " + " | ".join(table.columns) + " |", "|---|" + "---:|" * (table.shape[1] - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in table.itertuples(index=False)]
