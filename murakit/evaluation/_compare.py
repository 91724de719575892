"""`compare`: differences between models on the same patients, and beside what others publish."""

import html

import numpy as np
import pandas as pd

from ..metrics._bootstrap import Estimate, bounds_of, point, questions, resampled, with_mean_of_regions
from ..metrics._weighted import METRICS
from ._published import published_results
from ._result import METRIC_NAMES, Evaluation, estimate_in, markdown_lines

_SHOWN = ("kappa", "auroc", "sensitivity", "specificity")


class Comparison:
    """Differences between evaluations; made by `compare`.

    Parameters
    ----------
    evaluations : dict of str to Evaluation
        The models; the first is what the others are compared with.
    frame : DataFrame
        The differences, as `to_frame` returns them.

    Attributes
    ----------
    baseline : str
        Name of the first.

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

    def __init__(self, evaluations, frame):
        self.evaluations = evaluations
        self.baseline = next(iter(evaluations))
        self._frame = frame

    def to_frame(self):
        """Return the differences.

        Returns
        -------
        table : DataFrame
            One row for each other model and group (a MultiIndex model, group), value minus that of
            the first model, with bounds: ``kappa``, ``kappa_low``, ``kappa_high`` and so on.
        """
        return self._frame.copy()

    def difference(self, model, metric="kappa", group="all"):
        """Return a model's metric minus the first model's.

        Parameters
        ----------
        model : str
            Not the first.
        metric : str, default="kappa"
            Such as ``"auroc"``.
        group : str, default="all"
            ``"all"``, a region, or a class.

        Returns
        -------
        difference : Estimate
        """
        return estimate_in(self._frame.loc[(model, group)], metric)

    def table(self, metrics=_SHOWN, group="all"):
        """Return each model's numbers, and its differences from the first.

        Parameters
        ----------
        metrics : sequence of str, default=("kappa", "auroc", "sensitivity", "specificity")
            What to show.
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

    def beside_published(self, metric="kappa", group="all"):
        """Return the models' numbers beside those that others report on MURA.

        They were measured on other studies, some per image, with other labels: the third column says
        where. A difference between lines of different origin is no result.

        Parameters
        ----------
        metric : str, default="kappa"
            Such as ``"auroc"``.
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

    def caption(self):
        """Return what the differences are.

        Returns
        -------
        text : str
        """
        first = self.evaluations[self.baseline]
        what = "studies" if first.level == "study" else "images"
        return (
            f"{len(first.units):,} {what} of {len(set(first.units.patient)):,} patients; differences with "
            f"{first.confidence_level:.0%} intervals from {first.n_resamples:,} resamples of patients, the same for "
            "all models. An interval that holds 0 shows no difference."
        )

    def to_markdown(self, metrics=_SHOWN, group="all"):
        """Return `table` in Markdown, with the caption below.

        Parameters
        ----------
        metrics : sequence of str, default=("kappa", "auroc", "sensitivity", "specificity")
            What to show.
        group : str, default="all"
            ``"all"``, a region, or a class.

        Returns
        -------
        text : str
        """
        return "\n".join([*markdown_lines(self.table(metrics, group)), "", self.caption()])

    def __repr__(self):
        return "\n".join(["Comparison", self.table().to_string(), self.caption()])

    def _repr_html_(self):
        return self.table().to_html(classes="murakit", border=0) + f"<p>{html.escape(self.caption())}</p>"


def as_comparison(evaluation):
    """Return an evaluation as a comparison with nobody, to stand beside what is published."""
    return Comparison({evaluation.name or "this model": evaluation}, pd.DataFrame())


def _signed(estimate):
    if np.isnan(estimate.value):
        return "–"
    value, low, high = (f"{number:+.3f}" for number in estimate)
    return value if np.isnan(estimate.low) else f"{value} ({low} to {high})"


def compare(evaluations):
    """Compare models on the same studies.

    The same patients are drawn for all models, so that what makes a study easy or hard for all of
    them cancels out, and an interval of the difference is narrower than those of the models suggest.

    Parameters
    ----------
    evaluations : dict of str to Evaluation
        Two or more, of the same studies; the first is what the others are compared with.

    Returns
    -------
    comparison : Comparison

    Raises
    ------
    ValueError
        For fewer than two, and for evaluations of other studies, labels or patients.

    See Also
    --------
    evaluate : Makes an evaluation.

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
        units = _aligned(evaluation.units, first.units, name, baseline)
        asked = questions(units)
        drawn = with_mean_of_regions(asked, resampled(units, asked, first.n_resamples, first.random_state))
        values = with_mean_of_regions(asked, point(asked))
        if reference is None:
            reference = values, drawn
            continue
        difference = values - reference[0]
        bounds = np.full((2, *values.shape), np.nan)
        if first.n_resamples:
            bounds = bounds_of(units, asked, drawn - reference[1], first.confidence_level)
        frames[name] = _frame(first.to_frame().index, difference, bounds)
    return Comparison(dict(evaluations), pd.concat(frames, names=["model", "group"]))


def _aligned(units, reference, name, baseline):
    """Return units in the order of the reference's; raise where they are others."""
    place = {key: row for row, key in enumerate(units.name)}
    missing = [key for key in reference.name if key not in place]
    if missing or len(units) != len(reference) or units.level != reference.level:
        example = f", such as {missing[0]!r}" if missing else ""
        raise ValueError(
            f"{name!r} and {baseline!r} are not of the same samples ({len(units)} {units.level} rows and "
            f"{len(reference)} {reference.level} rows; {len(missing)} of the latter are missing{example}). Evaluate "
            "both on the same studies, at the same level."
        )
    units = units.take(np.array([place[key] for key in reference.name]))
    for what, ours, theirs in (
        ("classes", units.classes.astype(str), reference.classes.astype(str)),
        ("labels", units.code, reference.code),
        ("patients", units.patient, reference.patient),
        ("regions", units.regions() and units.region, reference.regions() and reference.region),
    ):
        if not np.array_equal(ours, theirs):
            raise ValueError(
                f"{name!r} and {baseline!r} have other {what} for the same samples. Correct one of them."
            )
    return units


def _frame(groups, values, bounds):
    columns = {}
    for at, metric in enumerate(METRICS):
        columns[metric] = values[:, at]
        columns[f"{metric}_low"], columns[f"{metric}_high"] = bounds[:, :, at]
    return pd.DataFrame(columns, index=groups)
