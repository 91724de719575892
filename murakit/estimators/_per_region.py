"""Models by region: one for each, and what a model of region and abnormality together says of both."""

import copy

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from ..datasets._paths import as_paths
from ..datasets._samples import as_samples
from ..metrics._scorer import threshold_of
from ..utils._validation import check_labels, plain


def _has_proba(classifier):
    return hasattr(classifier.estimator, "predict_proba")


class PerRegionClassifier(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    """One classifier for each region, each fitted on its own images only.

    The region of an image is read from its path. A region that was not among those of the fit is an
    error, never a guess.

    Parameters
    ----------
    estimator : classifier
        What is cloned for each region: a `MuraClassifier`, or any classifier of paths.
    start_from_all : bool, default=False
        Fit a model on all regions first, from which each region's goes on by ``warm_start``; the
        patients that it held out stay held out.
    n_jobs : int or None, default=None
        Regions that are fitted at the same time, in processes of their own. None: one.

    Attributes
    ----------
    regions_ : ndarray of shape (n_regions,)
        The regions that are known, sorted.
    estimators_ : list of classifiers
        The fitted classifiers, in the order of ``regions_``.
    classes_ : ndarray of shape (n_classes,)
        The class labels of all regions.
    n_features_in_ : int
        Always 1: the path.

    See Also
    --------
    MuraClassifier : One classifier for all regions.
    evaluate : Metrics with intervals, region by region.

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

    # With metadata routing on, `groups` goes to fit without set_fit_request.
    __metadata_request__fit = {"groups": True}

    def __init__(self, estimator, *, start_from_all=False, n_jobs=None):
        self.estimator = estimator
        self.start_from_all = start_from_all
        self.n_jobs = n_jobs

    def fit(self, X, y, groups=None):
        """Fit a clone of the estimator on each region.

        Parameters
        ----------
        X : array-like of shape (n,) or (n, 1)
            Paths of images or of study folders, in MURA's layout.
        y : array-like of shape (n,)
            Labels.
        groups : array-like of shape (n,), default=None
            The patient of each sample, handed on to the estimator. None: not handed on.

        Returns
        -------
        self : PerRegionClassifier

        Raises
        ------
        ValueError
            For paths that do not say their region, for a region with labels of one class only, and
            with `start_from_all` for an estimator that knows no ``warm_start``.
        """
        samples = as_samples(X, patients=groups, list_folders=False, patients_name="groups")
        paths, regions = samples.sample, _regions_of(samples)
        y = np.asarray(check_labels(y, len(paths)))
        known = np.unique(regions)
        for region in known:
            if len(labels := np.unique(y[regions == region])) < 2:
                raise ValueError(
                    f"The region {region!r} holds only the class {plain(labels[0])!r}: a classifier needs two. Leave "
                    "the region out, or load its other studies too."
                )
        groups = None if groups is None else samples.patient
        start = self.estimator
        if self.start_from_all:
            if "warm_start" not in self.estimator.get_params():
                raise ValueError(
                    f"start_from_all: {type(self.estimator).__name__} knows no warm_start, so it cannot go on from "
                    "another fit. Set start_from_all=False."
                )
            start = _fit(clone(self.estimator), paths, y, groups)
        self.estimators_ = Parallel(n_jobs=self.n_jobs)(
            delayed(_fit_region)(
                region, start, self.start_from_all, *_rows(regions == region, paths, y, groups)
            )
            for region in known
        )
        self.regions_ = known
        self.classes_ = np.unique(y)
        self.n_features_in_ = 1
        return self

    def predict(self, X):
        """Return the class that its region's classifier predicts for each sample.

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
            For a region that is not known.
        """
        check_is_fitted(self)
        paths = as_paths(X)
        labels = np.empty(len(paths), dtype=self.classes_.dtype)
        for rows, estimator, part in self._by_region(paths):
            labels[rows] = estimator.predict(part)
        return labels

    @available_if(_has_proba)
    def predict_proba(self, X):
        """Return the probability of each class, by its region's classifier.

        Parameters
        ----------
        X : array-like of shape (n,) or (n, 1)
            Paths of images or of study folders.

        Returns
        -------
        proba : ndarray of shape (n, n_classes), dtype float64
            In the order of ``classes_``; zero for a class that the region does not have.

        Raises
        ------
        ValueError
            For a region that is not known.
        """
        check_is_fitted(self)
        paths = as_paths(X)
        proba = np.zeros((len(paths), len(self.classes_)))
        for rows, estimator, part in self._by_region(paths):
            columns = np.searchsorted(self.classes_, estimator.classes_)
            proba[np.ix_(rows, columns)] = estimator.predict_proba(part)
        return proba

    @property
    def decision_threshold(self):
        """The threshold of all regions' classifiers, or None; where they differ, it is an error."""
        check_is_fitted(self)
        found = {threshold_of(estimator) for estimator in self.estimators_}
        if len(found) > 1:
            raise ValueError(
                f"The classifiers of the regions have different thresholds, {sorted(found, key=str)}: judge each "
                "region alone, or set one threshold for all."
            )
        return found.pop()

    def _by_region(self, X):
        """Yield the rows of each region, its classifier and its paths."""
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


def _fit_region(region, start, go_on, paths, y, groups):
    try:
        if not go_on:
            return _fit(clone(start), paths, y, groups)
        estimator = copy.deepcopy(start)
        wished = estimator.warm_start
        return _fit(estimator.set_params(warm_start=True), paths, y, groups).set_params(warm_start=wished)
    except ValueError as error:
        shared = " (start_from_all goes on from the model of all regions by warm_start)" if go_on else ""
        raise ValueError(f"The region {region!r}{shared}: {error}") from error
