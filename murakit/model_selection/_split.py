"""Splits that never part a patient."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.model_selection import BaseCrossValidator, BaseShuffleSplit, GroupKFold, StratifiedGroupKFold
from sklearn.utils import check_random_state
from sklearn.utils.validation import column_or_1d

from ..datasets._samples import as_samples
from ..utils._validation import check_identifiers, check_length


def strata(labels: ArrayLike, regions: ArrayLike | None = None) -> np.ndarray:
    """Return the integer code of each row's label and region.

    Parameters
    ----------
    labels : array-like of shape (n,)
    regions : array-like of shape (n,) or None

    Returns
    -------
    codes : ndarray of shape (n,), dtype int64
    """
    _, codes = np.unique(labels, return_inverse=True)
    if regions is None:
        return codes
    names, region_codes = np.unique(np.asarray(regions, dtype=str), return_inverse=True)
    return np.unique(codes * len(names) + region_codes, return_inverse=True)[1]


def patient_folds(
    patients: np.ndarray,
    labels: np.ndarray | None,
    regions: np.ndarray | None,
    n_splits: int,
    *,
    shuffle: bool,
    random_state: int | np.random.RandomState | None,
) -> np.ndarray:
    """Return the fold of each row.

    Parameters
    ----------
    patients : ndarray of shape (n,)
    labels : ndarray of shape (n,) or None
        None: folds are balanced by their number of rows only.
    regions : ndarray of shape (n,) or None
    n_splits : int
    shuffle : bool
    random_state : int, RandomState or None

    Returns
    -------
    fold : ndarray of shape (n,), dtype int64

    Raises
    ------
    ValueError
        With fewer patients than folds, or where no class has a patient for each fold.
    """
    n_patients = len(np.unique(patients))
    if n_patients < n_splits:
        raise ValueError(
            f"Cannot make n_splits={n_splits} folds of {n_patients} patients: a patient is never split. "
            "Use fewer folds or more patients."
        )
    rows = np.zeros(len(patients))
    random_state = random_state if shuffle else None
    by_size = GroupKFold(n_splits, shuffle=shuffle, random_state=random_state)
    if labels is None:
        return _fold_numbers(by_size.split(rows, groups=patients), len(patients))
    stratified = StratifiedGroupKFold(n_splits, shuffle=shuffle, random_state=random_state)
    tried = []
    with warnings.catch_warnings():
        # A stratum rarer than the folds is no news here: it is a label *and* a region.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        for codes in _ways_to_stratify(labels, regions, n_splits):
            fold = _fold_numbers(stratified.split(rows, codes, groups=patients), len(patients))
            if _lacking(fold, patients, labels, n_splits) == 0:
                return fold
            tried.append(fold)
    # Of few patients, it may leave a fold without any; dealing patients out by their number of rows never does.
    tried.append(_fold_numbers(by_size.split(rows, groups=patients), len(patients)))
    return min(tried, key=lambda fold: _lacking(fold, patients, labels, n_splits))


def _ways_to_stratify(labels, regions, n_splits):
    """Yield the strata to keep in proportion: labels and regions, then labels alone."""
    by_label = strata(labels)
    if regions is not None:
        codes = strata(labels, regions)
        # Regions too small to be spread over the folds say nothing.
        if np.bincount(codes).max() >= n_splits:
            yield codes
    yield by_label


def _lacking(fold, patients, labels, n_splits):
    """Count the folds without a row, which count most, and the classes that a fold lacks and could have."""
    n_empty = n_splits - len(np.unique(fold))
    holders = pd.DataFrame({"patient": patients, "label": labels, "fold": fold}).groupby("label")
    possible = holders["patient"].nunique().clip(upper=n_splits)
    n_missing = int((possible - holders["fold"].nunique()).clip(lower=0).sum())
    return n_empty * (1 + int(possible.sum())) + n_missing


def _fold_numbers(splits, n_rows):
    fold = np.empty(n_rows, dtype=np.int64)
    for number, (_, test) in enumerate(splits):
        fold[test] = number
    return fold


def patient_holdout(
    patients: np.ndarray,
    labels: np.ndarray,
    regions: np.ndarray | None,
    fraction: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Choose whole patients that hold about ``fraction`` of the rows of every stratum.

    Patients are visited in random order, twice; one is taken, or put back, where that brings the
    share of its labels and regions nearer to the wanted one. Every class stays on the training side, and comes to the
    held-out side where it has two patients or more.

    Parameters
    ----------
    patients, labels : ndarray of shape (n,)
    regions : ndarray of shape (n,) or None
    fraction : float
        Share of the rows to hold out, in (0, 1).
    rng : numpy.random.Generator

    Returns
    -------
    held_out : ndarray of shape (n,), dtype bool

    Raises
    ------
    ValueError
        Where there are not two patients to part.
    """
    names, patient = np.unique(patients, return_inverse=True)
    if len(names) < 2:
        raise ValueError(
            f"All {len(patients)} images are of one patient, {names[0]!r}: none can be held out without "
            "tearing a patient apart. Give more patients."
        )
    class_counts = _counts(patient, strata(labels))
    counts = _counts(patient, strata(labels, regions))
    taken = _take(counts, fraction, rng.permutation(len(names)), _keepers(class_counts))
    _serve_missing_classes(class_counts, taken)
    return taken[patient]


def _counts(patient, codes):
    counts = np.zeros((patient.max() + 1, codes.max() + 1), dtype=np.int64)
    np.add.at(counts, (patient, codes), 1)
    return counts


def _keepers(class_counts):
    """Patients that alone hold some class: they have to stay on the training side."""
    holders = class_counts > 0
    return holders[:, holders.sum(axis=0) == 1].any(axis=1)


def _take(counts, fraction, order, barred):
    # Each stratum weighs the same, however rare, so that a small region is held out too; and the
    # rows in all count as one more, or the leftovers of many strata would add up.
    counts = np.column_stack([counts, counts.sum(axis=1)])
    total = counts.sum(axis=0)
    lacking = fraction * total
    taken = np.zeros(len(counts), dtype=bool)
    # The second visit takes back what others have made superfluous.
    for patient in np.concatenate([order, order]):
        if barred[patient]:
            continue
        left = lacking + counts[patient] if taken[patient] else lacking - counts[patient]
        if ((left**2 - lacking**2) / total).sum() < 0:
            taken[patient] = not taken[patient]
            lacking = left
    free = np.flatnonzero(~barred)
    if not taken.any() and len(free):
        taken[free[counts[free, -1].argmin()]] = True
    return taken


def _serve_missing_classes(class_counts, taken):
    """Move the smallest patient that brings a class to the side that lacks it, where one can."""
    for side in (True, False):
        for missing in np.flatnonzero(class_counts[taken == side].sum(axis=0) == 0):
            for patient in np.argsort(class_counts.sum(axis=1), kind="stable"):
                if taken[patient] == side or not class_counts[patient, missing]:
                    continue
                others = (taken != side) & (np.arange(len(taken)) != patient)
                leaves_all = (class_counts[others].sum(axis=0) > 0)[class_counts[patient] > 0].all()
                if leaves_all:
                    taken[patient] = side
                    break


class PatientKFold(BaseCrossValidator):
    """K folds in which no patient is on both sides, with labels and regions in proportion.

    The patient is read from each path, so that it works inside meta-estimators that hand no groups
    on, such as ``CalibratedClassifierCV`` or nested searches.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, 2 or more.
    shuffle : bool, default=False
        Deal the patients out in random order.
    random_state : int, RandomState instance or None, default=None
        Decides the order, with ``shuffle=True``.

    See Also
    --------
    PatientShuffleSplit : Random splits of a given size.

    Notes
    -----
    The patients are dealt out by scikit-learn's ``StratifiedGroupKFold``, over every combination
    of label and region.

    Examples
    --------
    >>> from murakit import PatientKFold
    >>> X = [f"train/XR_WRIST/patient{p:05d}/study1_{l}/image{i}.png"
    ...      for p, l in [(1, "positive"), (2, "positive"), (3, "negative"), (4, "negative")] for i in (1, 2)]
    >>> y = [1, 1, 1, 1, 0, 0, 0, 0]
    >>> for train, test in PatientKFold(2).split(X, y):
    ...     print(test)
    [0 1 4 5]
    [2 3 6 7]
    """

    # With metadata routing on, `groups` arrive without set_split_request.
    __metadata_request__split = {"groups": True}

    def __init__(
        self,
        n_splits: int = 5,
        *,
        shuffle: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ):
        self.n_splits = n_splits
        self.shuffle = shuffle
        self.random_state = random_state

    def split(
        self, X: ArrayLike, y: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the rows of the training and the test side of each fold.

        Parameters
        ----------
        X : array-like of shape (n,) or (n, 1)
            Paths in MURA's layout; of any kind where `groups` are given.
        y : array-like of shape (n,), default=None
            Labels to keep in proportion.
        groups : array-like of shape (n,), default=None
            The patient of each sample, instead of what its path says.

        Yields
        ------
        train, test : ndarray
            Rows of X.

        Raises
        ------
        ValueError
            Where the patient of a sample cannot be told, and with fewer patients than folds.
        """
        if not isinstance(self.n_splits, (int, np.integer)) or self.n_splits < 2:
            raise ValueError(f"n_splits={self.n_splits!r}: a cross-validation needs 2 folds or more.")
        patients, regions = _patients_and_regions(X, groups)
        labels = _checked_labels(y, len(patients))
        fold = patient_folds(
            patients,
            labels,
            regions,
            self.n_splits,
            shuffle=self.shuffle,
            random_state=self.random_state,
        )
        for number in range(self.n_splits):
            yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds.

        Parameters
        ----------
        X, y, groups : object, default=None
            Not used; there for scikit-learn.

        Returns
        -------
        n_splits : int
        """
        return self.n_splits


class PatientShuffleSplit(BaseShuffleSplit):
    """Random splits in which no patient is on both sides, with labels and regions in proportion.

    Parameters
    ----------
    n_splits : int, default=10
        Number of splits.
    test_size : float, default=0.2
        Share of the samples on the test side, in (0, 1); whole patients make it approximate.
    random_state : int, RandomState instance or None, default=None
        Decides the splits.

    See Also
    --------
    PatientKFold : Folds that hold every sample out once.

    Examples
    --------
    >>> from murakit import PatientShuffleSplit
    >>> X = [f"XR_HAND/patient{p:05d}/study1_negative" for p in range(10)]
    >>> [len(test) for _, test in PatientShuffleSplit(2, test_size=0.3, random_state=0).split(X, [0, 1] * 5)]
    [3, 3]
    """

    __metadata_request__split = {"groups": True}

    def __init__(
        self,
        n_splits: int = 10,
        *,
        test_size: float = 0.2,
        random_state: int | np.random.RandomState | None = None,
    ):
        super().__init__(n_splits=n_splits, test_size=test_size, random_state=random_state)

    def split(
        self, X: ArrayLike, y: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the rows of the training and the test side of each split.

        Parameters
        ----------
        X : array-like of shape (n,) or (n, 1)
            Paths in MURA's layout; of any kind where `groups` are given.
        y : array-like of shape (n,), default=None
            Labels to keep in proportion.
        groups : array-like of shape (n,), default=None
            The patient of each sample, instead of what its path says.

        Yields
        ------
        train, test : ndarray
            Rows of X.

        Raises
        ------
        ValueError
            Where the patient of a sample cannot be told, and with fewer than two patients.
        """
        if not 0 < self.test_size < 1:
            raise ValueError(f"test_size={self.test_size!r} must be a share of the samples, in (0, 1).")
        patients, regions = _patients_and_regions(X, groups)
        labels = _checked_labels(y, len(patients))
        if labels is None:
            labels = np.zeros(len(patients), dtype=int)
        random = check_random_state(self.random_state)
        for _ in range(self.n_splits):
            rng = np.random.default_rng(random.randint(2**31 - 1))
            held = patient_holdout(patients, labels, regions, self.test_size, rng)
            if not held.any():
                raise ValueError(
                    "No patient can be held out: each is the only one of some class. Use more patients."
                )
            yield np.flatnonzero(~held), np.flatnonzero(held)


def _checked_labels(y, n_rows):
    if y is None:
        return None
    y = column_or_1d(y)
    check_length(y, n_rows, "y")
    return y


def _patients_and_regions(X, groups):
    try:
        samples = as_samples(X, patients=groups, list_folders=False, patients_name="groups")
    except (TypeError, ValueError):
        if groups is None:
            raise
        # Samples that are no paths, a table of numbers for example, have no region.
        n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
        return check_identifiers(groups, n_rows), None
    return samples.required("patient", "Pass the patients as groups=."), samples.known("region")
