"""Scorers and thresholds per study, as radiology papers report them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import cohen_kappa_score, get_scorer, make_scorer
from sklearn.pipeline import Pipeline

from ..datasets._samples import as_samples
from ..utils._validation import plain
from ._labels import abnormal_last, positive_index, positive_label
from ._predictions import as_proba, mean_of_groups, predicted_codes
from ._weighted import Ranking, kappa


class FixedPredictions(ClassifierMixin, BaseEstimator):
    """Fitted classifier that predicts given probabilities, whatever X is.

    scikit-learn's scorers take a classifier, not an array of probabilities. With this one, several scorers
    use the probabilities of one forward pass.

    Parameters
    ----------
    classes : ndarray of shape (k,)
    proba : ndarray of shape (n, k)
    threshold : float or None
        Smallest probability of class `positive` at which it is predicted, for two classes. None: the most
        probable class is predicted.
    positive : int
        Index of the class that the threshold applies to.
    """

    def __init__(
        self,
        classes: NDArray,
        proba: NDArray[np.floating],
        threshold: float | None = None,
        positive: int = 1,
    ) -> None:
        self.classes = classes
        self.proba = proba
        self.threshold = threshold
        self.positive = positive

    @property
    def classes_(self) -> NDArray:
        return self.classes

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        return self.proba

    def predict(self, X: Any) -> NDArray:
        return self.classes[predicted_codes(self.proba, self.threshold, self.positive)]


def as_scorer(scoring: str | Callable[..., float]) -> Callable[..., float]:
    """Return the scorer of a name: one of scikit-learn's, or ``"kappa"``; a callable is returned as it is.

    Raises
    ------
    ValueError
        If scikit-learn has no scorer of that name.
    """
    if callable(scoring):
        return scoring
    if scoring == "kappa":
        return make_scorer(cohen_kappa_score)
    return get_scorer(scoring)


def study_predictions(
    y: ArrayLike, proba: ArrayLike, studies: ArrayLike
) -> tuple[NDArray, NDArray[np.float64], NDArray]:
    """Return the label and the mean probabilities of each study, from those of its images.

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
        If the inputs have different lengths, or the images of a study have different labels.

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
    return y_study, mean_of_groups(proba, study, len(names)), names


class _StudyScorer:
    """Scorer of the mean probabilities per study."""

    def __init__(
        self,
        metric: str | Callable[..., float],
        studies: dict[str, str] | None = None,
        pos_label: Any = None,
    ) -> None:
        self.metric = metric
        self.studies = studies
        self.pos_label = pos_label

    def __call__(self, estimator: Any, X: Any, y: ArrayLike) -> float:
        studies = self._studies_of(X)
        y_study, proba, _ = study_predictions(y, estimator.predict_proba(X), studies)
        classes, threshold, positive = estimator.classes_, None, 1
        pos_label = positive_label(estimator) if self.pos_label is None else self.pos_label
        # A user's own scorer works on the classes as they are. It needs to be known which one is abnormal only
        # if a threshold applies to that class.
        needs_positive = (
            not callable(self.metric) or pos_label is not None or threshold_of(estimator) is not None
        )
        if len(classes) == 2 and needs_positive:
            positive = positive_index(classes, pos_label)
            threshold = threshold_of(estimator, plain(classes[positive]))
            if not callable(self.metric):
                # Encoded as 0 and 1: scikit-learn's metrics take 1 as the positive class.
                classes, proba = abnormal_last(classes, proba, positive)
                y_study, classes = (y_study == classes[1]).astype(int), np.array([0, 1])
                positive = 1
        # The scorer only passes X on to FixedPredictions, which does not use it.
        placeholder = np.zeros((len(y_study), 1))
        return as_scorer(self.metric)(
            FixedPredictions(classes, proba, threshold, positive), placeholder, y_study
        )

    def _studies_of(self, X):
        samples = as_samples(X, list_folders=False)
        if self.studies is None:
            remedy = "For other paths, pass studies= to study_scorer, or score images with a plain scorer."
            return samples.required("study", remedy)
        paths = samples.path
        for row, path in enumerate(paths):
            if path not in self.studies:
                raise ValueError(
                    f"The study of row {row}, {path!r}, is not among the {len(self.studies)} studies= of study_scorer. "
                    "Pass the study of every path, spelt as in X."
                )
        return [self.studies[path] for path in paths]

    @property
    def _score_func(self):
        # TunedThresholdClassifierCV reads this attribute, to compute the metric for many thresholds.
        raise TypeError(
            f"{self!r} has no metric of labels that TunedThresholdClassifierCV could use. To tune a threshold per "
            "study, load with level='study' and pass the plain metric."
        )

    def __repr__(self) -> str:
        studies = "" if self.studies is None else f", studies=<of {len(self.studies)} paths>"
        return f"study_scorer({self.metric!r}{studies})"


def threshold_of(estimator: Any, pos_label: Any = None) -> float | None:
    """Return the decision threshold of a classifier, of murakit or scikit-learn; None if it has none.

    Of a search, it is that of the best estimator; of a pipeline, that of the last step.

    Parameters
    ----------
    estimator : classifier
    pos_label : label or None
        Class whose probability the threshold must apply to. None: the second class.

    Raises
    ------
    ValueError
        If the threshold applies to the probability of the other class.
    """
    inner = getattr(estimator, "best_estimator_", None)
    if inner is None and isinstance(estimator, Pipeline):
        inner = estimator.steps[-1][1]
    if inner is not None:
        return threshold_of(inner, pos_label)
    names = ("best_threshold_", "threshold", "decision_threshold")
    threshold = next((getattr(estimator, name) for name in names if hasattr(estimator, name)), None)
    if not isinstance(threshold, float | int | np.floating):
        return None
    classes = [plain(label) for label in estimator.classes_]
    wanted = classes[-1] if pos_label is None else pos_label
    own = getattr(estimator, "pos_label_", None)
    own = getattr(estimator, "pos_label", None) if own is None else own
    own = classes[-1] if own is None else plain(own)
    # A classifier that a meta-estimator fitted on 0 and 1 may still have the original label as its pos_label.
    if own in classes and wanted in classes and own != wanted:
        raise ValueError(
            f"{type(estimator).__name__} has a threshold on the probability of {own!r}, but the abnormal class is "
            f"{wanted!r}. Pass pos_label={wanted!r} to it, or pos_label={own!r} here."
        )
    return float(threshold)


def study_scorer(
    metric: str | Callable[..., float],
    *,
    studies: Mapping[str, str] | pd.Series | None = None,
    pos_label: Any = None,
) -> Callable[..., float]:
    """Return a scorer that scores studies instead of images.

    The probabilities of a study are the mean over its images. Labels are predicted with the threshold of the
    classifier, if it has one (`MuraClassifier`, ``FixedThresholdClassifier``,
    ``TunedThresholdClassifierCV``). The scorer can be used wherever scikit-learn takes ``scoring``, alone
    or in a dict of several.

    Parameters
    ----------
    metric : str or callable
        Name of a scikit-learn scorer ("roc_auc", "f1", ...), ``"kappa"`` for Cohen's kappa, or a scorer
        ``metric(estimator, X, y)``.
    studies : dict or Series of str to str, default=None
        Study of each path, for paths that are not in MURA's layout. None: read from the paths.
    pos_label : label, default=None
        The abnormal one of two classes. None: the estimator's ``pos_label``; if it has none, known for 0/1,
        False/True, normal/abnormal and negative/positive.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y)``, picklable. ``TunedThresholdClassifierCV`` cannot tune a threshold with
        it, because it needs a metric of labels. Load the data with ``level="study"`` for that, and pass a
        plain metric.

    Raises
    ------
    ValueError
        If scikit-learn has no scorer of that name.

    Examples
    --------
    >>> from murakit import study_scorer
    >>> study_scorer("kappa")
    study_scorer('kappa')

    For other paths, such as those of ``mine = load_radiographs(...)``::

        study_scorer("roc_auc", studies=dict(zip(mine.data, mine.studies)))
    """
    as_scorer(metric)
    return _StudyScorer(metric, None if studies is None else dict(studies), pos_label)


def threshold_at(
    y: ArrayLike,
    proba: ArrayLike,
    *,
    sensitivity: float | None = None,
    specificity: float | None = None,
    metric: str | None = None,
    studies: ArrayLike | None = None,
    pos_label: Any = None,
) -> float:
    """Choose the decision threshold: the smallest probability at which a sample is predicted as abnormal.

    Choose it on validation patients only: on the patients that it was chosen on, the metrics are too good.
    Set it as the ``decision_threshold`` of `MuraClassifier`.

    Parameters
    ----------
    y : array-like of shape (n,)
        Labels of two classes.
    proba : array-like of shape (n,) or (n, 2)
        Probabilities of the abnormal class, or of both classes.
    sensitivity : float, default=None
        Smallest sensitivity, in [0, 1]. Of the thresholds that reach it, the one with the largest
        specificity is chosen.
    specificity : float, default=None
        Smallest specificity, in [0, 1]. Of the thresholds that reach it, the one with the largest
        sensitivity is chosen.
    metric : {"kappa", "youden"}, default=None
        Metric to maximise: Cohen's kappa, or Youden's index, which is sensitivity + specificity - 1.
    studies : array-like of shape (n,), default=None
        Study of each row. If given, the threshold is chosen for the mean probabilities of studies.
    pos_label : label, default=None
        The abnormal one of the two classes. None: 1 of 0/1, True, "abnormal" or "positive"; for any other
        pair of labels it is required.

    Returns
    -------
    threshold : float
        Half-way between two neighbouring probabilities, so that rounding errors change no prediction.

    Raises
    ------
    ValueError
        If not exactly one of `sensitivity`, `specificity` and `metric` is given, if `y` has not two
        classes, or if no threshold reaches the value.

    References
    ----------
    Youden, "Index for rating diagnostic tests", Cancer 3 (1950).

    Examples
    --------
    >>> from murakit import threshold_at
    >>> threshold_at([0, 0, 1, 1], [0.1, 0.5, 0.3, 0.8], sensitivity=1.0)
    0.2
    >>> threshold_at([0, 0, 1, 1], [0.1, 0.5, 0.3, 0.9], specificity=1.0)
    0.7
    """
    criteria = {"sensitivity": sensitivity, "specificity": specificity, "metric": metric}
    criteria = {name: value for name, value in criteria.items() if value is not None}
    if len(criteria) != 1:
        raise ValueError(
            f"Pass one of sensitivity, specificity and metric, not {', '.join(criteria) or 'none'}."
        )
    (criterion, value), *_ = criteria.items()
    of_abnormal = np.ndim(proba) == 1 or np.shape(proba)[1:] == (1,)
    y, proba = np.asarray(y), as_proba(proba)
    if proba.shape[1] != 2:
        raise ValueError(f"proba has {proba.shape[1]} columns: a threshold needs two classes.")
    if studies is not None:
        y, proba, _ = study_predictions(y, proba, studies)
    if len(y) != len(proba):
        raise ValueError(f"y has {len(y)} labels and proba {len(proba)} rows: pass one of each a sample.")
    classes = np.unique(y)
    if len(classes) != 2:
        raise ValueError(
            f"y holds {len(classes)} classes ({', '.join(repr(plain(c)) for c in classes[:5])}): a threshold is chosen "
            "between two. Take more validation patients, or one region less."
        )
    positive = positive_index(classes, pos_label)
    score = proba[:, 1 if of_abnormal else positive]
    ranking = Ranking(y == classes[positive], score, np.ones((1, len(y))))
    tp, fp = np.cumsum(ranking.positives[0]), np.cumsum(ranking.negatives[0])
    # A first operating point, at which no sample is predicted as abnormal: its threshold is above all scores.
    tp, fp = np.r_[0, tp], np.r_[0, fp]
    scores = np.r_[1.0, ranking.scores]
    chosen = _operating_point(tp, fp, criterion, value)
    if chosen == 0 and ranking.scores[0] >= 1:
        raise ValueError(
            f"{criterion}={value!r} cannot be reached: normal samples have a probability of 1. Pass a smaller value, "
            "or calibrate."
        )
    if chosen == len(scores) - 1:
        return float(scores[chosen] / 2)
    above, below = scores[chosen], scores[chosen + 1]
    middle = (above + below) / 2
    return float(middle if below < middle <= above else above)


def _operating_point(tp, fp, criterion, value):
    """Return the number of distinct scores, from the largest down, that are predicted as abnormal."""
    sensitivity, specificity = tp / tp[-1], 1 - fp / fp[-1]
    # A quotient such as 19 / 20 may differ from the user's 0.95 by rounding.
    tolerance = 1e-12
    if criterion == "sensitivity":
        _check_share(criterion, value)
        return int(np.argmax(sensitivity >= value - tolerance))
    if criterion == "specificity":
        _check_share(criterion, value)
        return int(np.flatnonzero(specificity >= value - tolerance)[-1])
    if value == "youden":
        return int(np.argmax(sensitivity + specificity))
    if value != "kappa":
        raise ValueError(f"metric={value!r} is not known: pass 'kappa' or 'youden'.")
    matrix = np.stack([np.stack([fp[-1] - fp, fp], axis=1), np.stack([tp[-1] - tp, tp], axis=1)], axis=1)
    return int(np.nanargmax(kappa(matrix)))


def _check_share(criterion, value):
    if not 0 <= value <= 1:
        raise ValueError(f"{criterion}={value!r}: pass a number between 0 and 1, such as 0.95.")
