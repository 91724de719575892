"""Scores per study, as radiology papers report them."""

import numpy as np

from ._data import plain
from ._paths import studies_of
from ._scoring import FixedPredictions, as_scorer

__all__ = ["study_predictions", "study_scorer"]


def study_predictions(y, proba, studies):
    """Return one label and one probability a study, from those of its images.

    Parameters
    ----------
    y : array-like of shape (n,)
        Label of each image; all images of a study have one label.
    proba : array-like of shape (n, n_classes)
        Probabilities of each image.
    studies : array-like of shape (n,)
        Study of each image.

    Returns
    -------
    y_study : ndarray of shape (n_studies,)
        Label of each study.
    proba_study : ndarray of shape (n_studies, n_classes), dtype float64
        Arithmetic mean of the probabilities over the study's images [1]_.
    names : ndarray of shape (n_studies,)
        The studies, sorted.

    Raises
    ------
    ValueError
        For inputs of different lengths, and for a study whose images have different labels.

    References
    ----------
    .. [1] Rajpurkar et al., "MURA: Large Dataset for Abnormality Detection in Musculoskeletal
       Radiographs", arXiv 1712.06957 (2017).

    Examples
    --------
    >>> from murakit import study_predictions
    >>> y, proba, names = study_predictions([1, 1, 0], [[0.5, 0.5], [0, 1], [1, 0]], ["a", "a", "b"])
    >>> y, proba, names.tolist()
    (array([1, 0]), array([[0.25, 0.75],
           [1.  , 0.  ]]), ['a', 'b'])
    """
    y, proba, studies = np.asarray(y), np.asarray(proba, dtype=np.float64), np.asarray(studies)
    if not len(y) == len(proba) == len(studies):
        raise ValueError(
            f"y has {len(y)} rows, proba {len(proba)} and studies {len(studies)}: pass one of each an image."
        )
    names, first, study = np.unique(studies, return_index=True, return_inverse=True)
    y_study = y[first]
    disagreeing = np.flatnonzero(y_study[study] != y)
    if len(disagreeing):
        row = disagreeing[0]
        raise ValueError(
            f"Study {studies[row]!r} has images labelled {plain(y_study[study[row]])!r} and "
            f"{plain(y[row])!r} (row {row}): a study has one label. Correct the labels, or score images "
            "instead of studies."
        )
    total = np.zeros((len(names), proba.shape[1]))
    np.add.at(total, study, proba)
    return y_study, total / np.bincount(study)[:, None], names


class _StudyScorer:
    """A scorer that asks for image probabilities once and scores their means per study."""

    def __init__(self, metric):
        self.metric = metric

    def __call__(self, estimator, X, y):
        remedy = "study_scorer reads the study from paths in MURA's layout; score images with a plain scorer."
        studies = studies_of(X, remedy=remedy)
        y_study, proba, _ = study_predictions(y, estimator.predict_proba(X), studies)
        # A column of zeros: the predictions are there already, a scorer only hands X on.
        placeholder = np.zeros((len(y_study), 1))
        predictions = FixedPredictions(estimator.classes_, proba, _threshold_of(estimator))
        return as_scorer(self.metric)(predictions, placeholder, y_study)

    @property
    def _score_func(self):
        # TunedThresholdClassifierCV takes a scorer apart to try its metric on many thresholds.
        raise TypeError(
            f"{self!r} cannot be taken apart into a metric of labels. To tune a threshold per study, load "
            "with level='study' and pass the plain metric."
        )

    def __repr__(self):
        return f"study_scorer({self.metric!r})"


def _threshold_of(estimator):
    """Return the threshold of scikit-learn's classifiers that have one of their own."""
    threshold = getattr(estimator, "best_threshold_", getattr(estimator, "threshold", None))
    if not isinstance(threshold, float | int | np.floating):
        return None
    if getattr(estimator, "pos_label", None) not in (None, estimator.classes_[-1]):
        raise ValueError(
            f"{type(estimator).__name__} has a threshold on {estimator.pos_label!r}; study_scorer knows "
            f"thresholds on the second class only, {plain(estimator.classes_[-1])!r}. Swap the labels."
        )
    return float(threshold)


def study_scorer(metric):
    """Return a scorer that judges studies, not images.

    The probabilities of a study are the mean over its images; the study is read from the path, and
    the threshold is that of a ``FixedThresholdClassifier`` or ``TunedThresholdClassifierCV``.
    Usable wherever scikit-learn takes ``scoring``, alone or in a dict of several.

    Parameters
    ----------
    metric : str or callable
        The name of a scikit-learn scorer ("roc_auc", "f1", ...), ``"kappa"`` for Cohen's kappa, or
        a scorer ``metric(estimator, X, y)``.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y)``, picklable. ``TunedThresholdClassifierCV`` cannot *tune* by it,
        for it takes metrics of single labels apart: load with ``level="study"`` for that.

    Raises
    ------
    ValueError
        For a name that scikit-learn does not know.

    Examples
    --------
    >>> from murakit import study_scorer
    >>> study_scorer("kappa")
    study_scorer('kappa')
    """
    as_scorer(metric)
    return _StudyScorer(metric)
