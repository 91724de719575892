"""Metrics of many weighted samples at once: one row of weights is one resample.

Every function takes weights of shape (b, n) and returns b values, NaN where a metric is undefined.
"""

import numpy as np

# Equal-width bins of the expected calibration error.
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


def _ratio(above, below):
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / below, np.nan)


def measure(code, proba, predicted, weights):
    """Return all of `METRICS` for each row of weights.

    Parameters
    ----------
    code : ndarray of shape (n,), dtype int
        True class.
    proba : ndarray of shape (n, k)
    predicted : ndarray of shape (n,), dtype int
    weights : ndarray of shape (b, n)

    Returns
    -------
    values : ndarray of shape (b, len(METRICS))
        Of two classes, the second is the positive one. Of more, kappa and accuracy are those of all
        classes, the Brier score is summed over classes, the calibration error is that of the
        predicted class, and the others are means over the classes that occur.
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


def confusion(code, predicted, n_classes, weights):
    """Return confusion matrices (b, n_classes, n_classes): true class, predicted class."""
    cell = np.zeros((len(code), n_classes * n_classes))
    cell[np.arange(len(code)), code * n_classes + predicted] = 1
    return (weights @ cell).reshape(-1, n_classes, n_classes)


def kappa(matrix):
    """Cohen's kappa of confusion matrices; undefined where only one class is there, true or predicted."""
    total = matrix.sum(axis=(1, 2))
    observed = _ratio(np.trace(matrix, axis1=1, axis2=2), total)
    expected = _ratio((matrix.sum(axis=1) * matrix.sum(axis=2)).sum(axis=1), total**2)
    return _ratio(observed - expected, 1 - expected)


def accuracy(matrix):
    return _ratio(np.trace(matrix, axis1=1, axis2=2), matrix.sum(axis=(1, 2)))


def rates(matrix):
    """Return sensitivity, specificity, PPV, NPV and F1 of the second of two classes."""
    (tn, fp), (fn, tp) = np.moveaxis(matrix, 0, -1)
    return {
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "ppv": _ratio(tp, tp + fp),
        "npv": _ratio(tn, tn + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
    }


class Ranking:
    """Weights of positives and negatives at each distinct score, the highest first.

    Parameters
    ----------
    positive : ndarray of shape (n,), dtype bool
    score : ndarray of shape (n,)
    weights : ndarray of shape (b, n)

    Attributes
    ----------
    scores : ndarray of shape (m,)
    positives, negatives : ndarray of shape (b, m)
    """

    def __init__(self, positive, score, weights):
        order = np.argsort(-score, kind="stable")
        ranked = score[order]
        starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
        ranked_weights = weights[:, order]
        of_positives = ranked_weights * positive[order]
        if len(starts) < len(order):  # ties count together
            of_positives = np.add.reduceat(of_positives, starts, axis=1)
            ranked_weights = np.add.reduceat(ranked_weights, starts, axis=1)
        self.scores = ranked[starts]
        self.positives, self.negatives = of_positives, ranked_weights - of_positives

    def auroc(self):
        above = np.cumsum(self.positives, axis=1) - self.positives / 2
        pairs = np.einsum("bm,bm->b", above, self.negatives)
        return _ratio(pairs, self.positives.sum(axis=1) * self.negatives.sum(axis=1))

    def average_precision(self):
        tp = np.cumsum(self.positives, axis=1)
        precision = np.nan_to_num(_ratio(tp, tp + np.cumsum(self.negatives, axis=1)))
        return _ratio(np.einsum("bm,bm->b", self.positives, precision), tp[:, -1])

    def roc(self):
        """Return the false and the true positive rates (b, m) where each score is the threshold."""
        return tuple(
            _ratio(np.cumsum(part, axis=1), part.sum(axis=1, keepdims=True))
            for part in (self.negatives, self.positives)
        )


def brier(positive, proba, weights):
    """Mean squared difference of the probability and the label."""
    return _ratio(weights @ (proba - positive) ** 2, weights.sum(axis=1))


def calibration_error(positive, proba, weights):
    """Expected calibration error: |mean probability - frequency|, averaged over bins as they are filled."""
    bins = np.minimum((proba * N_BINS).astype(int), N_BINS - 1)
    gap = np.zeros((len(proba), N_BINS))
    gap[np.arange(len(proba)), bins] = proba - positive
    return _ratio(np.abs(weights @ gap).sum(axis=1), weights.sum(axis=1))
