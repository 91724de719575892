"""Metrics of many bootstrap resamples at once: each row of weights (b, n) is one resample of the n samples.

Every metric is an array of b values, NaN where it is undefined.
"""

import numpy as np
from numpy.typing import NDArray

# Number of the bins, of equal width, of the expected calibration error.
N_BINS = 10

METRICS = (
    "kappa",
    "auroc",
    "average_precision",
    "accuracy",
    "f1",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "brier",
    "calibration_error",
)


def _ratio(numerator, denominator):
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def measure(
    code: NDArray[np.integer],
    proba: NDArray[np.floating],
    predicted: NDArray[np.integer],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return all of `METRICS` for each row of weights.

    Parameters
    ----------
    code : ndarray of shape (n,), dtype int
        True class, as an index.
    proba : ndarray of shape (n, k)
    predicted : ndarray of shape (n,), dtype int
        Predicted class, as an index.
    weights : ndarray of shape (b, n)

    Returns
    -------
    values : ndarray of shape (b, len(METRICS))
        Of two classes, the second is the positive one. Of more than two, kappa and accuracy are computed on
        all classes, the Brier score is summed over the classes, the calibration error is that of the
        predicted class, and the others are macro averages over the classes that occur.
    """
    n_classes = proba.shape[1]
    if n_classes == 2:
        return _one_against_rest(code == 1, proba[:, 1], predicted == 1, weights)
    matrix = confusion(code, predicted, n_classes, weights)
    per_class = np.stack(
        [
            _one_against_rest(code == k, proba[:, k], predicted == k, weights)
            for k in range(n_classes)
            if (code == k).any()
        ]
    )
    values = dict(zip(METRICS, per_class.mean(axis=0).T))
    values["kappa"], values["accuracy"] = kappa(matrix), accuracy(matrix)
    truth = np.eye(n_classes)[code]
    total = weights.sum(axis=1)
    values["brier"] = _ratio(weights @ ((proba - truth) ** 2).sum(axis=1), total)
    confidence = proba[np.arange(len(code)), predicted]
    values["calibration_error"] = calibration_error(predicted == code, confidence, weights)
    return np.stack([values[name] for name in METRICS], axis=1)


def _one_against_rest(positive, score, predicted, weights):
    matrix = confusion(positive.astype(int), predicted.astype(int), 2, weights)
    ranking = Ranking(positive, score, weights)
    values = {
        "kappa": kappa(matrix),
        "accuracy": accuracy(matrix),
        "auroc": ranking.auroc(),
        "average_precision": ranking.average_precision(),
        "brier": brier(positive, score, weights),
        "calibration_error": calibration_error(positive, score, weights),
        **rates(matrix),
    }
    return np.stack([values[name] for name in METRICS], axis=1)


def confusion(
    code: NDArray[np.integer], predicted: NDArray[np.integer], n_classes: int, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the weighted confusion matrices (b, n_classes, n_classes): true classes by predicted classes."""
    cell = np.zeros((len(code), n_classes * n_classes))
    cell[np.arange(len(code)), code * n_classes + predicted] = 1
    return (weights @ cell).reshape(-1, n_classes, n_classes)


def kappa(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Cohen's kappa of confusion matrices; undefined if all samples have the same true and predicted class."""
    total = matrix.sum(axis=(1, 2))
    observed = _ratio(np.trace(matrix, axis1=1, axis2=2), total)
    expected = _ratio((matrix.sum(axis=1) * matrix.sum(axis=2)).sum(axis=1), total**2)
    return _ratio(observed - expected, 1 - expected)


def accuracy(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the accuracy of confusion matrices."""
    return _ratio(np.trace(matrix, axis1=1, axis2=2), matrix.sum(axis=(1, 2)))


def rates(matrix: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return sensitivity, specificity, PPV, NPV and F1 of confusion matrices; the second class is positive."""
    (tn, fp), (fn, tp) = np.moveaxis(matrix, 0, -1)
    return {
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "ppv": _ratio(tp, tp + fp),
        "npv": _ratio(tn, tn + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
    }


class Ranking:
    """Weights of the positive and the negative samples at each distinct score, from the largest down.

    Parameters
    ----------
    positive : ndarray of shape (n,), dtype bool
    score : ndarray of shape (n,)
    weights : ndarray of shape (b, n)

    Attributes
    ----------
    scores : ndarray of shape (m,)
        The distinct scores.
    positives, negatives : ndarray of shape (b, m)
        Sums of the weights of the positive and of the negative samples with each score.
    """

    def __init__(
        self, positive: NDArray[np.bool_], score: NDArray[np.floating], weights: NDArray[np.float64]
    ) -> None:
        order = np.argsort(-score, kind="stable")
        ranked = score[order]
        starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
        ranked_weights = weights[:, order]
        of_positives = ranked_weights * positive[order]
        if len(starts) < len(order):  # tied scores
            of_positives = np.add.reduceat(of_positives, starts, axis=1)
            ranked_weights = np.add.reduceat(ranked_weights, starts, axis=1)
        self.scores = ranked[starts]
        self.positives, self.negatives = of_positives, ranked_weights - of_positives

    def auroc(self) -> NDArray[np.float64]:
        """Return the areas under the ROC curves (b,)."""
        # Pairs in which the positive sample has the larger score; tied pairs count one half.
        above = np.cumsum(self.positives, axis=1) - self.positives / 2
        pairs = np.einsum("bm,bm->b", above, self.negatives)
        return _ratio(pairs, self.positives.sum(axis=1) * self.negatives.sum(axis=1))

    def average_precision(self) -> NDArray[np.float64]:
        """Return the average precisions (b,), as scikit-learn defines them."""
        tp = np.cumsum(self.positives, axis=1)
        precision = np.nan_to_num(_ratio(tp, tp + np.cumsum(self.negatives, axis=1)))
        return _ratio(np.einsum("bm,bm->b", self.positives, precision), tp[:, -1])

    def roc(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the false and the true positive rates (b, m), with each distinct score as the threshold."""
        fpr, tpr = (
            _ratio(np.cumsum(part, axis=1), part.sum(axis=1, keepdims=True))
            for part in (self.negatives, self.positives)
        )
        return fpr, tpr


def brier(
    positive: NDArray[np.bool_], proba: NDArray[np.floating], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the Brier scores (b,): the mean squared difference of probability and label."""
    return _ratio(weights @ (proba - positive) ** 2, weights.sum(axis=1))


def calibration_error(
    positive: NDArray[np.bool_], proba: NDArray[np.floating], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the expected calibration errors (b,).

    Each is the mean over the bins of the absolute difference between the mean probability and the observed
    frequency, weighted by the number of samples in the bin.
    """
    bins = np.minimum((proba * N_BINS).astype(int), N_BINS - 1)
    gap = np.zeros((len(proba), N_BINS))
    gap[np.arange(len(proba)), bins] = proba - positive
    return _ratio(np.abs(weights @ gap).sum(axis=1), weights.sum(axis=1))
