"""Metrics of all studies, of each region and of each class, with intervals from resampled patients."""

import warnings
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, t

from ._weighted import METRICS, measure

# Weights that are held at a time.
_MOST_WEIGHTS = 2_000_000

# Of values that are often undefined, those that happen to be defined are an odd selection.
_LEAST_DEFINED = 0.9


def patient_weights(patients, strata, n_resamples, rng):
    """Yield weights (b, n) of blocks of resamples.

    In each resample, as many patients are drawn, with replacement, from each stratum as it has; a
    row counts as often as its patient was drawn.

    Parameters
    ----------
    patients : ndarray of shape (n,)
        Patient of each row.
    strata : ndarray of shape (n,), dtype int
        A patient belongs to the largest stratum that a row of the patient has: with classes as
        strata, a resample of two classes hardly ever has but one.
    n_resamples : int
    rng : numpy.random.Generator
    """
    _, patient = np.unique(patients, return_inverse=True)
    n_patients = patient.max() + 1
    stratum = np.zeros(n_patients, dtype=int)
    np.maximum.at(stratum, patient, strata)
    members = [np.flatnonzero(stratum == value) for value in np.unique(stratum)]
    block = max(1, _MOST_WEIGHTS // max(len(patient), n_patients))
    for start in range(0, n_resamples, block):
        size = min(block, n_resamples - start)
        drawn = np.empty((size, n_patients))
        for rows in members:
            picked = rng.integers(len(rows), size=(size, len(rows)))
            picked += np.arange(size)[:, None] * len(rows)
            counts = np.bincount(picked.ravel(), minlength=size * len(rows))
            drawn[:, rows] = counts.reshape(size, len(rows))
        yield drawn[:, patient]


def interval(values, level, n_patients):
    """Return the expanded percentile interval (2, ...) over the first axis, NaN where much is undefined.

    Plain percentiles are too narrow for few patients, as a normal interval with the variance of the
    sample is for the mean; the levels are moved outwards by what turns that one into Student's [1]_.

    Parameters
    ----------
    values : ndarray of shape (b, ...)
        A statistic of each resample.
    level : float
        Share of the resamples that lie inside, but for the expansion.
    n_patients : int
        Patients that the statistic rests on: those of the rarer class.

    References
    ----------
    .. [1] Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69
       (2015).
    """
    values = np.asarray(values, dtype=float)
    kept = np.isfinite(values).mean(axis=0) >= _LEAST_DEFINED
    n_patients = max(n_patients, 2)
    tail = norm.cdf(np.sqrt(n_patients / (n_patients - 1)) * t.ppf((1 - level) / 2, n_patients - 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # columns without any value
        bounds = np.nanquantile(values, [tail, 1 - tail], axis=0)
    return np.where(kept, bounds, np.nan)


def rarer(patients, code):
    """Return how many patients the rarer class has; of one class alone, all of them."""
    patients, code = np.asarray(patients), np.asarray(code)
    counts = [len(set(patients[code == value])) for value in np.unique(code)]
    return min(counts)


MEAN_OF_REGIONS = "mean of regions"


class Estimate(NamedTuple):
    """A metric with its interval; NaN where it is undefined."""

    value: float
    low: float
    high: float

    def __str__(self):
        if np.isnan(self.value):
            return "–"
        if np.isnan(self.low):
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.bounds()})"

    def bounds(self):
        """Return the interval as text; beside a minus sign, a dash would be hard to read."""
        return f"{self.low:.3f}{' to ' if self.low < 0 else '–'}{self.high:.3f}"


class Question(NamedTuple):
    """One table row: which units, and which classes are told apart."""

    group: str
    kind: str  # "all", "region", "class"
    rows: np.ndarray
    code: np.ndarray
    proba: np.ndarray
    predicted: np.ndarray

    def measure(self, weights):
        return measure(self.code, self.proba, self.predicted, weights)


def questions(units):
    """Return what is asked of some units: all together, each region, each of more than two classes."""
    predicted = units.predicted
    everything = np.arange(len(units))
    asked = [Question("all", "all", everything, units.code, units.proba, predicted)]
    told = {str(label) for label in units.classes}
    # A region that is itself what is told apart has its row as a class.
    for region in (region for region in units.regions() if region not in told):
        rows = np.flatnonzero(units.region == region)
        asked.append(Question(region, "region", rows, units.code[rows], units.proba[rows], predicted[rows]))
    if len(units.classes) > 2:
        for k, label in enumerate(units.classes):
            one = units.proba[:, k]
            asked.append(
                Question(
                    str(label),
                    "class",
                    everything,
                    (units.code == k).astype(int),
                    np.stack([1 - one, one], axis=1),
                    (predicted == k).astype(int),
                )
            )
    return asked


def resampled(units, asked, n_resamples, seed):
    """Return the metrics (n_resamples, len(asked), len(METRICS)) of resampled patients.

    The same patients are drawn for the same seed, units and classes, whatever was predicted.
    """
    rng = np.random.default_rng(seed)
    blocks = [
        np.stack([question.measure(weights[:, question.rows]) for question in asked], axis=1)
        for weights in patient_weights(units.patient, units.code, n_resamples, rng)
    ]
    return np.concatenate(blocks) if blocks else np.empty((0, len(asked), len(METRICS)))


def point(asked):
    """Return the metrics (len(asked), len(METRICS)) of the units as they are."""
    return np.stack([question.measure(np.ones((1, len(question.rows))))[0] for question in asked])


def with_mean_of_regions(asked, values):
    """Append the mean over the regions, where there are two or more, to the last axis but one."""
    at = [row for row, question in enumerate(asked) if question.kind == "region"]
    if len(at) < 2:
        return values
    return np.concatenate([values, values[..., at, :].mean(axis=-2, keepdims=True)], axis=-2)


def estimates(units, n_resamples, confidence_level, seed):
    """Return the questions and their metrics with bounds, (3, n_groups, len(METRICS))."""
    asked = questions(units)
    values = with_mean_of_regions(asked, point(asked))
    if n_resamples:
        drawn = with_mean_of_regions(asked, resampled(units, asked, n_resamples, seed))
        bounds = _centred(bounds_of(units, asked, drawn, confidence_level), drawn, values)
        bounds[:, _never_varied(bounds, values)] = np.nan
    else:
        bounds = np.full((2, *values.shape), np.nan)
    return asked, np.concatenate([values[None], np.where(np.isnan(values), np.nan, bounds)])


def _never_varied(bounds, values):
    """Tell where all resamples gave the same value, though it is not that of predictions all right or wrong.

    Of too few patients in a class, or of predictions that are all the same, resamples say nothing.
    """
    at_an_end = np.isclose(values, 1)
    at_an_end |= np.isclose(values, 0) & (np.array(METRICS) != "kappa")
    return np.isclose(*bounds, rtol=0, atol=1e-12) & ~at_an_end


def bounds_of(units, asked, drawn, confidence_level):
    """Return the bounds (2, n_groups, len(METRICS)) of what was drawn, each for the patients that it rests on."""
    n_patients = [rarer(units.patient[question.rows], question.code) for question in asked]
    # The mean of the regions rests on all patients.
    n_patients += n_patients[:1] * (drawn.shape[1] - len(asked))
    parts = [interval(drawn[:, at], confidence_level, n) for at, n in enumerate(n_patients)]
    return np.stack(parts, axis=1)


def _centred(bounds, drawn, values):
    """Move the bounds of the calibration error by what resampling alone adds to it.

    Gaps of either sign count, so that every resample looks worse calibrated than the sample that it
    is drawn from; unmoved, the interval may not even hold the estimate.
    """
    at = METRICS.index("calibration_error")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # groups in which it is undefined
        added = np.nanmean(drawn[..., at], axis=0) - values[..., at]
    bounds[..., at] = np.maximum(bounds[..., at] - added, 0)
    return bounds
