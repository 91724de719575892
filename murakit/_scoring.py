"""Scores from predictions that are already there, through scikit-learn's own scorers."""

from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import cohen_kappa_score, get_scorer, make_scorer


class FixedPredictions(ClassifierMixin, BaseEstimator):
    """A fitted classifier that answers every question with the probabilities it was given.

    scikit-learn's scorers ask a classifier, not an array; with this, one forward pass serves any
    number of them.

    Parameters
    ----------
    classes : ndarray of shape (k,)
    proba : ndarray of shape (n, k)
    threshold : float or None
        Probability of the second of two classes from which on it is predicted.
    """

    def __init__(self, classes, proba, threshold=None):
        self.classes = classes
        self.proba = proba
        self.threshold = threshold

    @property
    def classes_(self):
        return self.classes

    def __sklearn_is_fitted__(self):
        return True

    def predict_proba(self, X):
        return self.proba

    def predict(self, X):
        if self.threshold is not None:
            return self.classes[(self.proba[:, 1] >= self.threshold).astype(int)]
        return self.classes[self.proba.argmax(axis=1)]


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
