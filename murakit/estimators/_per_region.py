"""`PerRegionClassifier`: one classifier per region."""

import copy
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from ..datasets._paths import as_paths
from ..datasets._samples import as_samples
from ..metrics._scorer import threshold_of
from ..utils._typing import Paths
from ..utils._validation import check_labels, plain


def _has_proba(classifier):
    return hasattr(classifier.estimator, "predict_proba")


class PerRegionClassifier(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    """Meta-estimator of one classifier per region, each fitted on the images of its region only.

    The region of an image is read from its path. Prediction of an image of a region that was not in the fit
    raises an error.

    Parameters
    ----------
    estimator : classifier
        Classifier that is cloned for each region: a `MuraClassifier`, or any classifier of paths.
    start_from_all : bool, default=False
        Whether to fit a first classifier on all regions, which the classifier of each region continues by
        ``warm_start``. Patients that the first one has held out stay held out.
    n_jobs : int or None, default=None
        Number of regions that are fitted in parallel, each in its own process. None: 1.

    Attributes
    ----------
    regions_ : ndarray of shape (n_regions,)
        The regions of the fit, sorted.
    estimators_ : list of classifiers
        The fitted classifiers, in the order of ``regions_``.
    classes_ : ndarray of shape (n_classes,)
        The class labels of all regions.
    n_features_in_ : int
        Always 1: the path.

    See Also
    --------
    MuraClassifier : One classifier for all regions.
    evaluate : Metrics with intervals, for each region.

    References
    ----------
    The project cnn_mura (https://github.com/aandrovitsanea/cnn_mura) trains a model for each region.

    Examples
    --------
    >>> import tempfile
    >>> from murakit import MuraClassifier, PerRegionClassifier, load_mura, make_mura
    >>> root = make_mura(
    ...     tempfile.mkdtemp(), n_patients=24, regions=["hand", "wrist"], image_size=64, random_state=0
    ... )
    >>> mura = load_mura(root)
    >>> clf = MuraClassifier(weights=None, image_size=32, max_epochs=1, unfreeze="head", random_state=0)
    >>> per_region = PerRegionClassifier(clf).fit(mura.data, mura.target)
    >>> per_region.regions_
    array(['hand', 'wrist'], dtype=object)
    """

    # With metadata routing enabled, `groups` reaches fit without set_fit_request.
    __metadata_request__fit = {"groups": True}

    def __init__(self, estimator: Any, *, start_from_all: bool = False, n_jobs: int | None = None) -> None:
        self.estimator = estimator
        self.start_from_all = start_from_all
        self.n_jobs = n_jobs

    def fit(self, X: Paths, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Fit a clone of the estimator on each region.

        Parameters
        ----------
        X : array-like of shape (n,) or (n, 1)
            Paths of images or of study folders, in MURA's layout.
        y : array-like of shape (n,)
            Labels.
        groups : array-like of shape (n,), default=None
            Patient of each sample, passed on to the ``fit`` of the estimator. None: not passed on.

        Returns
        -------
        self : PerRegionClassifier

        Raises
        ------
        ValueError
            If the region of a path is not known, if a region has labels of only one class, or if
            `start_from_all` is set and the estimator has no ``warm_start``.
        """
        samples = as_samples(X, patients=groups, list_folders=False, patients_name="groups")
        paths, regions = samples.sample, _regions_of(samples)
        labels = np.asarray(check_labels(y, len(paths)))
        known = np.unique(regions)
        for region in known:
            if len(classes := np.unique(labels[regions == region])) < 2:
                raise ValueError(
                    f"The region {region!r} holds only the class {plain(classes[0])!r}: a classifier needs two. Leave "
                    "the region out, or load its other studies too."
                )
        patients = None if groups is None else samples.patient
        start = self.estimator
        if self.start_from_all:
            if "warm_start" not in self.estimator.get_params():
                raise ValueError(
                    f"start_from_all: {type(self.estimator).__name__} knows no warm_start, so it cannot continue "
                    "another fit. Set start_from_all=False."
                )
            start = _fit(clone(self.estimator), paths, labels, patients)
        self.estimators_ = Parallel(n_jobs=self.n_jobs)(
            delayed(_fit_region)(
                region, start, self.start_from_all, *_rows(regions == region, paths, labels, patients)
            )
            for region in known
        )
        self.regions_ = known
        self.classes_ = np.unique(labels)
        self.n_features_in_ = 1
        return self

    def predict(self, X: Paths) -> NDArray:
        """Return the class of each sample, predicted by the classifier of its region.

        Parameters
        ----------
        X : array-like of shape (n,) or (n, 1)
            Paths of images or of study folders.

        Returns
        -------
        labels : ndarray of shape (n,)

        Raises
        ------
        ValueError
            If a region was not in the fit, or is not known.
        """
        check_is_fitted(self)
        paths = as_paths(X)
        labels = np.empty(len(paths), dtype=self.classes_.dtype)
        for rows, estimator, part in self._by_region(paths):
            labels[rows] = estimator.predict(part)
        return labels

    @available_if(_has_proba)
    def predict_proba(self, X: Paths) -> NDArray[np.float64]:
        """Return the probability of each class, predicted by the classifier of each sample's region.

        Parameters
        ----------
        X : array-like of shape (n,) or (n, 1)
            Paths of images or of study folders.

        Returns
        -------
        proba : ndarray of shape (n, n_classes), dtype float64
            Probabilities, with the columns in the order of ``classes_``; zero for a class that the region does
            not have.

        Raises
        ------
        ValueError
            If a region was not in the fit, or is not known.
        """
        check_is_fitted(self)
        paths = as_paths(X)
        proba = np.zeros((len(paths), len(self.classes_)))
        for rows, estimator, part in self._by_region(paths):
            columns = np.searchsorted(self.classes_, estimator.classes_)
            proba[np.ix_(rows, columns)] = estimator.predict_proba(part)
        return proba

    @property
    def decision_threshold(self) -> float | None:
        """Decision threshold of the classifiers of all regions, or None; an error if they differ."""
        check_is_fitted(self)
        found = {threshold_of(estimator) for estimator in self.estimators_}
        if len(found) > 1:
            raise ValueError(
                f"The classifiers of the regions have different thresholds, {sorted(found, key=str)}: evaluate each "
                "region alone, or set one threshold for all."
            )
        return found.pop()

    def _by_region(self, X: Any) -> Iterator[tuple[NDArray, Any, NDArray]]:
        """Yield the rows of each region, the classifier of the region, and the paths of the rows."""
        samples = as_samples(X, list_folders=False)
        paths, regions = samples.sample, _regions_of(samples)
        unknown = np.flatnonzero(~np.isin(regions, self.regions_))
        if len(unknown):
            row = unknown[0]
            raise ValueError(
                f"X: row {row} is of the region {regions[row]!r} ({paths[row]!r}), and this classifier knows "
                f"{', '.join(self.regions_)} only. Leave its samples out, or fit on that region too."
            )
        for region, estimator in zip(self.regions_, self.estimators_):
            rows = np.flatnonzero(regions == region)
            if len(rows):
                yield rows, estimator, paths[rows]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        return tags


def _regions_of(samples):
    return samples.required("region", "Use one classifier for all regions, or paths in MURA's layout.")


def _rows(mask, paths, y, groups):
    return paths[mask], y[mask], None if groups is None else groups[mask]


def _fit(estimator, paths, y, groups):
    return estimator.fit(paths, y) if groups is None else estimator.fit(paths, y, groups=groups)


def _fit_region(region, start, continued, paths, y, groups):
    """Fit the classifier of a region: a clone of `start`, or a copy that continues the fit of `start`."""
    try:
        if not continued:
            return _fit(clone(start), paths, y, groups)
        estimator = copy.deepcopy(start)
        warm_start = estimator.warm_start
        _fit(estimator.set_params(warm_start=True), paths, y, groups)
        return estimator.set_params(warm_start=warm_start)
    except ValueError as error:
        how = " (start_from_all continues the model of all regions by warm_start)" if continued else ""
        raise ValueError(f"The region {region!r}{how}: {error}") from error
