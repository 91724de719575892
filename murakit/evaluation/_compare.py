"""`compare`: differences between models on the same patients, and a table beside published results."""

import html
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..metrics._bootstrap import (
    Estimate,
    bootstrap,
    groups_of,
    intervals,
    point_estimates,
    with_mean_of_regions,
)
from ..metrics._weighted import METRICS
from ._published import published_results
from ._result import METRIC_NAMES, Evaluation, estimate_in, markdown_lines

_SHOWN = ("kappa", "auroc", "sensitivity", "specificity")


class Comparison:
    """Differences between the metrics of models; made by `compare`.

    Parameters
    ----------
    evaluations : dict of str to Evaluation
        Evaluation of each model, by its name. The first is the baseline.
    frame : DataFrame
        Differences from the baseline, as `to_frame` returns them.

    Attributes
    ----------
    baseline : str
        Name of the first model, which the others are compared with.

    Examples
    --------
    >>> from murakit import compare, evaluate_predictions
    >>> y, patients = [0, 0, 1, 1], ["a", "b", "c", "d"]
    >>> settings = {"patients": patients, "n_resamples": 100}
    >>> comparison = compare(
    ...     {
    ...         "old": evaluate_predictions(y, [0.1, 0.6, 0.4, 0.9], **settings),
    ...         "new": evaluate_predictions(y, [0.1, 0.2, 0.7, 0.9], **settings),
    ...     }
    ... )
    >>> float(comparison.to_frame().loc[("new", "all"), "accuracy"])
    0.5
    """

    def __init__(self, evaluations: dict[str, Evaluation], frame: pd.DataFrame) -> None:
        self.evaluations = evaluations
        self.baseline = next(iter(evaluations))
        self._frame = frame

    def to_frame(self) -> pd.DataFrame:
        """Return all differences from the baseline.

        Returns
        -------
        table : DataFrame
            One row per model except the baseline, and per group (MultiIndex model, group). Columns: for each
            metric, the model's value minus the baseline's, and the bounds of its interval: ``kappa``,
            ``kappa_low``, ``kappa_high`` and so on.
        """
        return self._frame.copy()

    def difference(self, model: str, metric: str = "kappa", group: str = "all") -> Estimate:
        """Return a model's metric minus the baseline's.

        Parameters
        ----------
        model : str
            Name of a model other than the baseline.
        metric : str, default="kappa"
            Name of the metric, such as ``"auroc"``.
        group : str, default="all"
            ``"all"``, a region, or a class.

        Returns
        -------
        difference : Estimate
        """
        return estimate_in(self._frame.loc[(model, group)], metric)

    def table(self, metrics: Sequence[str] = _SHOWN, group: str = "all") -> pd.DataFrame:
        """Return each model's metrics, and its differences from the baseline, as text.

        Parameters
        ----------
        metrics : sequence of str, default=("kappa", "auroc", "sensitivity", "specificity")
            Metrics to show.
        group : str, default="all"
            ``"all"``, a region, or a class.

        Returns
        -------
        table : DataFrame of str
        """
        rows = {
            name: {METRIC_NAMES[m]: str(evaluation.get(m, group)) for m in metrics}
            for name, evaluation in self.evaluations.items()
        }
        for name in list(self.evaluations)[1:]:
            rows[f"{name} − {self.baseline}"] = {
                METRIC_NAMES[m]: _signed(self.difference(name, m, group)) for m in metrics
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("Model")

    def beside_published(self, metric: str = "kappa", group: str = "all") -> pd.DataFrame:
        """Return a metric of the models, and the published results for MURA, in one table.

        Published results were measured on other studies, some per image, some with other labels: see the
        column "Measured on". So a difference between a model here and a published one proves nothing.

        Parameters
        ----------
        metric : str, default="kappa"
            Name of the metric, such as ``"auroc"``.
        group : str, default="all"
            ``"all"``, or a region.

        Returns
        -------
        table : DataFrame of str

        References
        ----------
        Rajpurkar et al., "MURA: Large Dataset for Abnormality Detection in Musculoskeletal
        Radiographs", arXiv 1712.06957 (2017), and the sources that the table names.
        """
        rows = []
        for name, evaluation in self.evaluations.items():
            counts = evaluation.to_frame().loc[group]
            per = "study" if evaluation.level == "study" else "image"
            where = f"here: {counts['n_studies']:,} studies of {counts['n_patients']:,} patients, per {per}"
            rows.append((name, str(evaluation.get(metric, group)), where, "this evaluation"))
        for found in published_results(metric, group).itertuples(index=False):
            value = str(Estimate(found.value, found.low, found.high))
            rows.append((found.who, value, found.measured_on, found.source))
        return pd.DataFrame(rows, columns=["Model", METRIC_NAMES[metric], "Measured on", "Source"])

    def caption(self) -> str:
        """Return a sentence that says how the differences and their intervals were computed.

        Returns
        -------
        text : str
        """
        first = self.evaluations[self.baseline]
        what = "studies" if first.level == "study" else "images"
        return (
            f"{len(first.predictions):,} {what} of {len(set(first.predictions.patient)):,} patients; differences with "
            f"{first.confidence_level:.0%} intervals from {first.n_resamples:,} resamples of patients, the same for "
            "all models. An interval that contains 0 shows no difference."
        )

    def to_markdown(self, metrics: Sequence[str] = _SHOWN, group: str = "all") -> str:
        """Return `table` in Markdown, with the caption below.

        Parameters
        ----------
        metrics : sequence of str, default=("kappa", "auroc", "sensitivity", "specificity")
            Metrics to show.
        group : str, default="all"
            ``"all"``, a region, or a class.

        Returns
        -------
        text : str
        """
        return "\n".join([*markdown_lines(self.table(metrics, group)), "", self.caption()])

    def __repr__(self) -> str:
        return "\n".join(["Comparison", self.table().to_string(), self.caption()])

    def _repr_html_(self) -> str:
        return self.table().to_html(classes="murakit", border=0) + f"<p>{html.escape(self.caption())}</p>"


def as_comparison(evaluation: Evaluation) -> Comparison:
    """Return a `Comparison` of one model, to show it beside published results."""
    return Comparison({evaluation.name or "this model": evaluation}, pd.DataFrame())


def _signed(estimate):
    if np.isnan(estimate.value):
        return "–"
    value, low, high = (f"{number:+.3f}" for number in estimate)
    return value if np.isnan(estimate.low) else f"{value} ({low} to {high})"


def compare(evaluations: dict[str, Evaluation]) -> Comparison:
    """Compare models on the same studies: differences of their metrics, with paired bootstrap intervals.

    The resamples are paired: each draws the same patients for all models. What makes a study easy or hard for
    all models cancels out in the difference, so its interval is narrower than the intervals of the two
    models suggest.

    Parameters
    ----------
    evaluations : dict of str to Evaluation
        Two or more evaluations of the same studies, by the names of their models. The first is the
        baseline, which the others are compared with.

    Returns
    -------
    comparison : Comparison

    Raises
    ------
    ValueError
        If there are fewer than two evaluations, or their studies, labels or patients differ.

    See Also
    --------
    evaluate : Evaluate one classifier.

    References
    ----------
    Efron and Tibshirani, "An Introduction to the Bootstrap", Chapman & Hall (1993).

    Examples
    --------
    >>> from murakit import compare, evaluate_predictions
    >>> y, patients = [0, 0, 1, 1], ["a", "b", "c", "d"]
    >>> one = evaluate_predictions(y, [0.1, 0.6, 0.4, 0.9], patients=patients, n_resamples=100)
    >>> compare({"one": one, "again": one}).difference("again", "auroc")
    Estimate(value=0.0, low=0.0, high=0.0)
    """
    if len(evaluations) < 2:
        raise ValueError(f"compare needs two evaluations or more, and got {len(evaluations)}.")
    if not isinstance(evaluations, dict):
        raise TypeError(
            f"evaluations is a {type(evaluations).__name__}: pass a dict that names each, "
            "{'one': evaluation, 'other': evaluation}."
        )
    for name, evaluation in evaluations.items():
        if not isinstance(evaluation, Evaluation):
            raise TypeError(
                f"{name!r} is a {type(evaluation).__name__}, not an Evaluation: see murakit.evaluate."
            )
    baseline, first = next(iter(evaluations.items()))
    frames = {}
    reference = None
    for name, evaluation in evaluations.items():
        predictions = _aligned(evaluation.predictions, first.predictions, name, baseline)
        groups = groups_of(predictions)
        replicates = with_mean_of_regions(
            groups, bootstrap(predictions, groups, first.n_resamples, first.random_state)
        )
        values = with_mean_of_regions(groups, point_estimates(groups))
        if reference is None:
            reference = values, replicates
            continue
        difference = values - reference[0]
        bounds = np.full((2, *values.shape), np.nan)
        if first.n_resamples:
            bounds = intervals(predictions, groups, replicates - reference[1], first.confidence_level)
        frames[name] = _frame(first.to_frame().index, difference, bounds)
    return Comparison(dict(evaluations), pd.concat(frames, names=["model", "group"]))


def _aligned(predictions, reference, name, baseline):
    """Return predictions in the order of the reference; raise if they are not of the same samples."""
    row_of = {key: row for row, key in enumerate(predictions.name)}
    missing = [key for key in reference.name if key not in row_of]
    if missing or len(predictions) != len(reference) or predictions.level != reference.level:
        example = f", such as {missing[0]!r}" if missing else ""
        raise ValueError(
            f"{name!r} and {baseline!r} are not of the same samples ({len(predictions)} {predictions.level} rows and "
            f"{len(reference)} {reference.level} rows; {len(missing)} of the latter are missing{example}). Evaluate "
            "both on the same studies, at the same level."
        )
    predictions = predictions.take(np.array([row_of[key] for key in reference.name]))
    for what, ours, theirs in (
        ("classes", predictions.classes.astype(str), reference.classes.astype(str)),
        ("labels", predictions.code, reference.code),
        ("patients", predictions.patient, reference.patient),
        ("regions", predictions.regions() and predictions.region, reference.regions() and reference.region),
    ):
        if not np.array_equal(ours, theirs):
            raise ValueError(
                f"{name!r} and {baseline!r} have other {what} for the same samples. Correct one of them."
            )
    return predictions


def _frame(groups, values, bounds):
    columns = {}
    for at, metric in enumerate(METRICS):
        columns[metric] = values[:, at]
        columns[f"{metric}_low"], columns[f"{metric}_high"] = bounds[:, :, at]
    return pd.DataFrame(columns, index=groups)
