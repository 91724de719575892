"""Metrics of all studies, of each region and of each class, with bootstrap intervals over patients."""

import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, t

from ._predictions import Predictions
from ._weighted import METRICS, measure

# Largest number of weights in memory at a time.
_MAX_WEIGHTS = 2_000_000

# Smallest share of the resamples in which a statistic must be defined to get an interval. Where it is often
# undefined, the resamples in which it happens to be defined are not representative.
_MIN_DEFINED = 0.9


def patient_weights(
    patients: NDArray, strata: NDArray[np.integer], n_resamples: int, rng: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    """Yield the weights of the rows in bootstrap resamples of patients, a block of resamples at a time.

    Each resample draws patients with replacement, from each stratum as many as it has. The weight of a
    row is the number of times that its patient was drawn.

    Parameters
    ----------
    patients : ndarray of shape (n,)
        Patient of each row.
    strata : ndarray of shape (n,), dtype int
        Stratum of each row. A patient with rows of several strata belongs to the largest of them. With
        classes as strata, a resample of two classes almost always contains both.
    n_resamples : int
    rng : numpy.random.Generator

    Yields
    ------
    weights : ndarray of shape (b, n)
        Weights of the rows in the next b resamples.
    """
    _, patient = np.unique(patients, return_inverse=True)
    n_patients = patient.max() + 1
    stratum = np.zeros(n_patients, dtype=int)
    np.maximum.at(stratum, patient, strata)
    members = [np.flatnonzero(stratum == value) for value in np.unique(stratum)]
    block = max(1, _MAX_WEIGHTS // max(len(patient), n_patients))
    for start in range(0, n_resamples, block):
        size = min(block, n_resamples - start)
        times_drawn = np.empty((size, n_patients))
        for rows in members:
            # Positions in the flattened (size, len(rows)) table, so that one bincount serves all resamples.
            positions = rng.integers(len(rows), size=(size, len(rows)))
            positions += np.arange(size)[:, None] * len(rows)
            counts = np.bincount(positions.ravel(), minlength=size * len(rows))
            times_drawn[:, rows] = counts.reshape(size, len(rows))
        yield times_drawn[:, patient]


def interval(values: ArrayLike, level: float, n_patients: int) -> NDArray[np.float64]:
    """Return the expanded percentile interval of a bootstrap distribution [1]_.

    Percentile intervals are too narrow for few patients. The expansion moves the two percentiles outwards:
    as far as turns the normal interval of a mean into Student's t interval.

    Parameters
    ----------
    values : ndarray of shape (b, ...)
        Statistic in each of b resamples.
    level : float
        Nominal coverage before the small-sample expansion, such as 0.95.
    n_patients : int
        Sample size: the number of patients of the rarer class.

    Returns
    -------
    bounds : ndarray of shape (2, ...)
        Lower and upper bound; NaN where the statistic is undefined in more than a tenth of the resamples.

    References
    ----------
    .. [1] Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69
       (2015).
    """
    values = np.asarray(values, dtype=float)
    kept = np.isfinite(values).mean(axis=0) >= _MIN_DEFINED
    n_patients = max(n_patients, 2)
    tail = norm.cdf(np.sqrt(n_patients / (n_patients - 1)) * t.ppf((1 - level) / 2, n_patients - 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # columns without any value
        bounds = np.nanquantile(values, [tail, 1 - tail], axis=0)
    return np.where(kept, bounds, np.nan)


def rarer_class_size(patients: ArrayLike, code: ArrayLike) -> int:
    """Return the number of patients of the rarer class; of a single class, the number of all patients."""
    patients, code = np.asarray(patients), np.asarray(code)
    counts = [len(set(patients[code == value])) for value in np.unique(code)]
    return min(counts)


MEAN_OF_REGIONS = "mean of regions"


class Estimate(NamedTuple):
    """A metric with its confidence interval; NaN where it is undefined."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "–"
        if np.isnan(self.low):
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.bounds()})"

    def bounds(self) -> str:
        """Return the interval as text; with "to" before a minus sign, where a dash would be hard to read."""
        return f"{self.low:.3f}{' to ' if self.low < 0 else '–'}{self.high:.3f}"


class Group(NamedTuple):
    """A group of predictions for which metrics are computed: all of them, one region, or one class.

    It is one row of an evaluation's table.

    Attributes
    ----------
    name : str
        Its name: ``"all"``, a region or a class.
    kind : {"all", "region", "class"}
        In an `Evaluation`, also "mean", for the mean of the regions.
    rows : ndarray of shape (m,), dtype int
        Which of the predictions belong to the group.
    code : ndarray of shape (m,), dtype int
        True class of each; for ``kind="class"``, 1 for this class and 0 for all others.
    proba : ndarray of shape (m, k)
        Predicted probabilities of these classes.
    predicted : ndarray of shape (m,), dtype int
        Predicted class.
    """

    name: str
    kind: str
    rows: NDArray[np.integer]
    code: NDArray[np.integer]
    proba: NDArray[np.float64]
    predicted: NDArray[np.integer]

    def measure(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the metrics (b, len(METRICS)) for weights (b, m) of the group's rows."""
        return measure(self.code, self.proba, self.predicted, weights)


def groups_of(predictions: Predictions) -> list[Group]:
    """Return the groups of an evaluation: all predictions, each region, each of more than two classes."""
    predicted = predictions.predicted
    everything = np.arange(len(predictions))
    groups = [Group("all", "all", everything, predictions.code, predictions.proba, predicted)]
    class_names = {str(label) for label in predictions.classes}
    # A classifier of regions has its regions as classes: each gets a row as a class, not a second one.
    for region in (region for region in predictions.regions() if region not in class_names):
        rows = np.flatnonzero(predictions.region == region)
        groups.append(
            Group(region, "region", rows, predictions.code[rows], predictions.proba[rows], predicted[rows])
        )
    if len(predictions.classes) > 2:
        for k, label in enumerate(predictions.classes):
            one = predictions.proba[:, k]
            groups.append(
                Group(
                    str(label),
                    "class",
                    everything,
                    (predictions.code == k).astype(int),
                    np.stack([1 - one, one], axis=1),
                    (predicted == k).astype(int),
                )
            )
    return groups


def bootstrap(
    predictions: Predictions, groups: Sequence[Group], n_resamples: int, seed: int
) -> NDArray[np.float64]:
    """Return the metrics (n_resamples, n_groups, len(METRICS)) in bootstrap resamples of patients.

    The drawn patients depend on the seed, the patients and the true classes, not on the probabilities: two
    models evaluated on the same studies get the same resamples.
    """
    rng = np.random.default_rng(seed)
    blocks = [
        np.stack([group.measure(weights[:, group.rows]) for group in groups], axis=1)
        for weights in patient_weights(predictions.patient, predictions.code, n_resamples, rng)
    ]
    return np.concatenate(blocks) if blocks else np.empty((0, len(groups), len(METRICS)))


def point_estimates(groups: Sequence[Group]) -> NDArray[np.float64]:
    """Return the metrics (n_groups, len(METRICS)) of the predictions themselves, each with weight 1."""
    return np.stack([group.measure(np.ones((1, len(group.rows))))[0] for group in groups])


def with_mean_of_regions(groups: Sequence[Group], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Append the mean over the regions, if there are two or more, along the axis of the groups.

    Parameters
    ----------
    groups : sequence of Group
    values : ndarray of shape (..., n_groups, len(METRICS))

    Returns
    -------
    values : ndarray of shape (..., n_groups + 1, len(METRICS)), or as it was
    """
    regions = [at for at, group in enumerate(groups) if group.kind == "region"]
    if len(regions) < 2:
        return values
    return np.concatenate([values, values[..., regions, :].mean(axis=-2, keepdims=True)], axis=-2)


def estimates(
    predictions: Predictions, n_resamples: int, confidence_level: float, seed: int
) -> tuple[list[Group], NDArray[np.float64]]:
    """Return the groups of an evaluation and their metrics with confidence intervals.

    Returns
    -------
    groups : list of Group
    values : ndarray of shape (3, n_rows, len(METRICS))
        Point estimate, lower and upper bound. There is a row for each group and, with two regions or more,
        a last row for the mean of the regions.
    """
    groups = groups_of(predictions)
    values = with_mean_of_regions(groups, point_estimates(groups))
    if n_resamples:
        replicates = with_mean_of_regions(groups, bootstrap(predictions, groups, n_resamples, seed))
        bounds = intervals(predictions, groups, replicates, confidence_level)
        bounds = _bias_corrected(bounds, replicates, values)
        bounds[:, _uninformative(bounds, values)] = np.nan
    else:
        bounds = np.full((2, *values.shape), np.nan)
    return groups, np.concatenate([values[None], np.where(np.isnan(values), np.nan, bounds)])


def _uninformative(bounds, values):
    """Return a mask of the intervals without width whose metric is neither at its best nor at its worst.

    All resamples had the same value because a class has too few patients, or because all predictions are
    equal: the width says nothing about the uncertainty. Where all predictions are right, or all wrong,
    an interval without width is the one to report.
    """
    at_an_end = np.isclose(values, 1)
    at_an_end |= np.isclose(values, 0) & (np.array(METRICS) != "kappa")
    low, high = bounds
    return np.isclose(low, high, rtol=0, atol=1e-12) & ~at_an_end


def intervals(
    predictions: Predictions,
    groups: Sequence[Group],
    replicates: NDArray[np.float64],
    confidence_level: float,
) -> NDArray[np.float64]:
    """Return the bounds of the metrics, with the small-sample expansion of each group's own sample size.

    Parameters
    ----------
    predictions : Predictions
    groups : sequence of Group
    replicates : ndarray of shape (n_resamples, n_rows, len(METRICS))
        What `bootstrap` and `with_mean_of_regions` return.
    confidence_level : float

    Returns
    -------
    bounds : ndarray of shape (2, n_rows, len(METRICS))
    """
    n_patients = [rarer_class_size(predictions.patient[group.rows], group.code) for group in groups]
    # The mean of the regions depends on the patients of all of them.
    n_patients += n_patients[:1] * (replicates.shape[1] - len(groups))
    parts = [interval(replicates[:, at], confidence_level, n) for at, n in enumerate(n_patients)]
    return np.stack(parts, axis=1)


def _bias_corrected(bounds, replicates, values):
    """Subtract the bootstrap estimate of the bias from the bounds of the calibration error.

    The calibration error sums absolute differences, and resampling adds noise to each. So it is larger in
    the resamples than in the sample, and the uncorrected interval may lie above the estimate.
    """
    at = METRICS.index("calibration_error")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # groups in which it is undefined
        bias = np.nanmean(replicates[..., at], axis=0) - values[..., at]
    bounds[..., at] = np.maximum(bounds[..., at] - bias, 0)
    return bounds
