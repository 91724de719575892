"""Splits that never part a patient."""

import numpy as np
from sklearn.model_selection import BaseCrossValidator, BaseShuffleSplit
from sklearn.utils import check_random_state
from sklearn.utils.validation import column_or_1d

from ._data import check_groups
from ._paths import as_paths, patients_of, regions_or_none
from ._splits import patient_folds, patient_holdout

__all__ = ["PatientKFold", "PatientShuffleSplit"]


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

    def __init__(self, n_splits=5, *, shuffle=False, random_state=None):
        self.n_splits = n_splits
        self.shuffle = shuffle
        self.random_state = random_state

    def split(self, X, y=None, groups=None):
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
        y = _checked_labels(y, len(patients))
        fold = patient_folds(
            patients,
            y,
            regions,
            self.n_splits,
            shuffle=self.shuffle,
            random_state=self.random_state,
        )
        for number in range(self.n_splits):
            yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)

    def get_n_splits(self, X=None, y=None, groups=None):
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

    def __init__(self, n_splits=10, *, test_size=0.2, random_state=None):
        super().__init__(n_splits=n_splits, test_size=test_size, random_state=random_state)

    def split(self, X, y=None, groups=None):
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
        y = _checked_labels(y, len(patients))
        labels = np.zeros(len(patients), dtype=int) if y is None else y
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
    if len(y) != n_rows:
        raise ValueError(
            f"X has {n_rows} samples, but y has {len(y)} labels: inconsistent numbers of samples."
        )
    return y


def _patients_and_regions(X, groups):
    if groups is None:
        paths = as_paths(X)
        return patients_of(paths), regions_or_none(paths)
    n_rows = X.shape[0] if hasattr(X, "shape") else len(X)
    patients = check_groups(groups, n_rows)
    try:
        return patients, regions_or_none(as_paths(X))
    except (TypeError, ValueError):
        # Samples that are no paths, a table of numbers for example, have no region.
        return patients, None
