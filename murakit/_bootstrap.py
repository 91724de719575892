"""Resamples of patients: the unit that is drawn, because a patient's studies resemble each other."""

import warnings

import numpy as np
from scipy.stats import norm, t

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
