"""Scores per study, as radiology papers report them."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import cohen_kappa_score, get_scorer, make_scorer
from sklearn.pipeline import Pipeline

from ..datasets._samples import as_samples
from ..utils._validation import plain
from ._labels import abnormal_last, positive_index, positive_label
from ._predictions import as_proba, mean_of_groups, predicted_codes
from ._weighted import Ranking, kappa


class FixedPredictions(ClassifierMixin, BaseEstimator):
    """A fitted classifier that answers every question with the probabilities it was given.

    scikit-learn's scorers ask a classifier, not an array; with this, one forward pass serves any
    number of them.

    Parameters
    ----------
    classes : ndarray of shape (k,)
    proba : ndarray of shape (n, k)
    threshold : float or None
        Probability of one of two classes from which on it is predicted.
    positive : int
        The position of that class.
    """

    def __init__(self, classes, proba, threshold=None, positive=1):
        self.classes = classes
        self.proba = proba
        self.threshold = threshold
        self.positive = positive

    @property
    def classes_(self):
        return self.classes

    def __sklearn_is_fitted__(self):
        return True

    def predict_proba(self, X):
        return self.proba

    def predict(self, X):
        return self.classes[predicted_codes(self.proba, self.threshold, self.positive)]


def as_scorer(scoring):
    """Return a scorer for a name of scikit-learn's, for ``"kappa"``, or for a callable.

    Raises
    ------
    ValueError
        For a name that scikit-learn does not know.
    """
    if callable(scoring):
        return scoring
    if scoring == "kappa":
        return make_scorer(cohen_kappa_score)
    return get_scorer(scoring)


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
    return y_study, mean_of_groups(proba, study, len(names)), names


class _StudyScorer:
    """A scorer that asks for image probabilities once and scores their means per study."""

    def __init__(self, metric, studies=None, pos_label=None):
        self.metric = metric
        self.studies = studies
        self.pos_label = pos_label

    def __call__(self, estimator, X, y):
        studies = self._studies_of(X)
        y_study, proba, _ = study_predictions(y, estimator.predict_proba(X), studies)
        classes, threshold, positive = estimator.classes_, None, 1
        pos_label = positive_label(estimator) if self.pos_label is None else self.pos_label
        # A scorer of one's own knows its classes; only a threshold has to be put on one of them.
        asks = not callable(self.metric) or pos_label is not None or threshold_of(estimator) is not None
        if len(classes) == 2 and asks:
            positive = positive_index(classes, pos_label)
            threshold = threshold_of(estimator, plain(classes[positive]))
            if not callable(self.metric):
                # As 0 and 1, so that every named metric knows which class is the abnormal one.
                classes, proba = abnormal_last(classes, proba, positive)
                y_study, classes = (y_study == classes[1]).astype(int), np.array([0, 1])
                positive = 1
        # A column of zeros: the predictions are there already, a scorer only hands X on.
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
                    "Name the study of every path, as it is spelt in X."
                )
        return [self.studies[path] for path in paths]

    @property
    def _score_func(self):
        # TunedThresholdClassifierCV takes a scorer apart to try its metric on many thresholds.
        raise TypeError(
            f"{self!r} cannot be taken apart into a metric of labels. To tune a threshold per study, load "
            "with level='study' and pass the plain metric."
        )

    def __repr__(self):
        told = "" if self.studies is None else f", studies=<of {len(self.studies)} paths>"
        return f"study_scorer({self.metric!r}{told})"


def threshold_of(estimator, pos_label=None):
    """Return the threshold of a classifier, ours or scikit-learn's, or of the one inside that predicts; or None.

    It is one on the probability of `pos_label`; None: of the second class.
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
    judged = classes[-1] if pos_label is None else pos_label
    own = getattr(estimator, "pos_label_", None)
    own = getattr(estimator, "pos_label", None) if own is None else own
    own = classes[-1] if own is None else plain(own)
    # What a meta-estimator has encoded as 0 and 1 has names of its own inside.
    if own in classes and judged in classes and own != judged:
        raise ValueError(
            f"{type(estimator).__name__} has a threshold on the probability of {own!r}, and {judged!r} is judged as "
            f"the abnormal class. Pass pos_label={judged!r} to it, or pos_label={own!r} here."
        )
    return float(threshold)


def study_scorer(metric, *, studies=None, pos_label=None):
    """Return a scorer that judges studies, not images.

    The probabilities of a study are the mean over its images; the study is read from the path, and
    the threshold is that of a ``FixedThresholdClassifier`` or ``TunedThresholdClassifierCV``.
    Usable wherever scikit-learn takes ``scoring``, alone or in a dict of several.

    Parameters
    ----------
    metric : str or callable
        The name of a scikit-learn scorer ("roc_auc", "f1", ...), ``"kappa"`` for Cohen's kappa, or
        a scorer ``metric(estimator, X, y)``.
    studies : dict or Series of str to str, default=None
        The study of each path, for paths that are not in MURA's layout. None: read from the paths.
    pos_label : label, default=None
        The abnormal one of two classes. None: the estimator's own ``pos_label``; known for 0/1, False/True,
        normal/abnormal and negative/positive.

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

    Of a table of one's own, ``mine = load_radiographs(...)``::

        study_scorer("roc_auc", studies=dict(zip(mine.data, mine.studies)))
    """
    as_scorer(metric)
    return _StudyScorer(metric, None if studies is None else dict(studies), pos_label)


def threshold_at(y, proba, *, sensitivity=None, specificity=None, metric=None, studies=None, pos_label=None):
    """Choose the probability from which on a sample is called abnormal.

    On validation patients only: a threshold that was chosen on the patients who judge it makes them
    judge too well. `MuraClassifier` keeps it as ``decision_threshold``.

    Parameters
    ----------
    y : array-like of shape (n,)
        Labels of two classes.
    proba : array-like of shape (n,) or (n, 2)
        Probabilities of the abnormal class, or of both.
    sensitivity : float, default=None
        Call at least this share of the abnormal samples so, and as few of the normal ones as that
        allows.
    specificity : float, default=None
        Call at least this share of the normal samples so, and as few of the abnormal ones.
    metric : {"kappa", "youden"}, default=None
        Make Cohen's kappa, or sensitivity + specificity, as large as possible.
    studies : array-like of shape (n,), default=None
        Study of each row; then the mean probabilities of studies are looked at.
    pos_label : label, default=None
        The abnormal one of the two classes. None: 1 of 0/1, True, "abnormal" or "positive"; other pairs
        are asked for.

    Returns
    -------
    threshold : float
        Half way between two probabilities that occur, so that neither is decided by its last bits.

    Raises
    ------
    ValueError
        Unless exactly one of the three is asked for; for one class; and where no threshold reaches
        what is asked for.

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
    asked = {"sensitivity": sensitivity, "specificity": specificity, "metric": metric}
    asked = {name: value for name, value in asked.items() if value is not None}
    if len(asked) != 1:
        raise ValueError(
            f"Pass one of sensitivity, specificity and metric, not {', '.join(asked) or 'none'}."
        )
    (what, value), *_ = asked.items()
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
    # Beside each score that occurs, "nothing is called abnormal" is a choice, where a number is left for it.
    tp, fp = np.r_[0, tp], np.r_[0, fp]
    scores = np.r_[1.0, ranking.scores]
    chosen = _operating_point(tp, fp, what, value)
    if chosen == 0 and ranking.scores[0] >= 1:
        raise ValueError(
            f"{what}={value!r} cannot be reached: normal samples have a probability of 1. Ask for less, or calibrate."
        )
    if chosen == len(scores) - 1:
        return float(scores[chosen] / 2)
    above, below = scores[chosen], scores[chosen + 1]
    middle = (above + below) / 2
    return float(middle if below < middle <= above else above)


def _operating_point(tp, fp, what, value):
    """Return how many of the distinct scores are called abnormal."""
    sensitivity, specificity = tp / tp[-1], 1 - fp / fp[-1]
    # Shares such as 0.95 x 20 / 20 are one bit off what a user writes.
    slack = 1e-12
    if what == "sensitivity":
        _check_share(what, value)
        return int(np.argmax(sensitivity >= value - slack))
    if what == "specificity":
        _check_share(what, value)
        return int(np.flatnonzero(specificity >= value - slack)[-1])
    if value == "youden":
        return int(np.argmax(sensitivity + specificity))
    if value != "kappa":
        raise ValueError(f"metric={value!r} is not known: pass 'kappa' or 'youden'.")
    matrix = np.stack([np.stack([fp[-1] - fp, fp], axis=1), np.stack([tp[-1] - tp, tp], axis=1)], axis=1)
    return int(np.nanargmax(kappa(matrix)))


def _check_share(what, value):
    if not 0 <= value <= 1:
        raise ValueError(f"{what}={value!r}: pass a share between 0 and 1, such as 0.95.")
