"""Judging: 2,000 resamples of MURA's validation set, and what judging adds to predicting.

1,199 studies of 783 patients in seven regions, eleven metrics over all, by region and in the mean of
regions, on one thread. The baseline resamples the same patients in a loop and asks scikit-learn for the
same metrics; it is run for 20 resamples and multiplied up. Then `evaluate` on 320 synthetic radiographs
(224 px, ResNet18) with its 2,000 resamples, against `predict_proba` on them. Limits: 2 s; 5 % more than
predicting.
"""

import time

import numpy as np
import torch
from sklearn import metrics
from threadpoolctl import threadpool_limits

from murakit import evaluate, evaluate_predictions

from ._measure import interleaved
from ._work import SEED, classifier, radiographs, weights_file

REGIONS = np.array(["elbow", "finger", "forearm", "hand", "humerus", "shoulder", "wrist"])


def run(quick):
    y, proba, patients, regions = drawn()
    n_plain, rounds = (2, 2) if quick else (20, 5)

    def ours():
        evaluate_predictions(y, proba, patients=patients, regions=regions)

    def by_hand():
        plain_bootstrap(y, proba, patients, regions, n_plain)

    with threadpool_limits(1):
        timings = interleaved({"ours": ours, "plain": by_hand}, rounds=rounds)
    seconds = np.median(timings["ours"].seconds)
    plain = np.median(timings["plain"].seconds) / n_plain * 2000
    rows = [
        {
            "what": "2,000 resamples of 1,199 studies, one thread",
            "median s": f"{seconds:.2f}",
            "by scikit-learn in a loop": f"{plain:.0f} s",
            "× faster": f"{plain / seconds:.0f}",
            "limit": "≤ 2 s",
            "ok": quick or bool(seconds <= 2),
        }
    ]
    added = adding(64 if quick else 320, 64 if quick else 224)
    rows.append(
        {
            "what": "evaluate / predict_proba",
            "median s": f"{added['evaluate']:.2f} / {added['predict']:.2f}",
            "× faster": f"{added['evaluate'] / added['predict']:.3f}",
            "limit": "≤ 1.05",
            "ok": quick or added["evaluate"] <= 1.05 * added["predict"],
        }
    )
    rows.append({"what": f"{torch.get_num_threads()} threads for predicting, seed {SEED}"})
    return rows


def drawn():
    rng = np.random.default_rng(SEED)
    patients = np.r_[np.arange(783), rng.integers(783, size=1199 - 783)]
    y = rng.integers(2, size=1199)
    proba = 1 / (1 + np.exp(-(2 * y - 1 + rng.normal(size=1199))))
    return y, proba, patients, REGIONS[rng.integers(7, size=1199)]


def plain_bootstrap(y, proba, patients, regions, n_resamples):
    """What one writes by hand: draw patients, collect their studies, ask scikit-learn."""
    rng = np.random.default_rng(0)
    rows_of = [np.flatnonzero(patients == patient) for patient in np.unique(patients)]
    for _ in range(n_resamples):
        rows = np.concatenate([rows_of[k] for k in rng.integers(len(rows_of), size=len(rows_of))])
        for region in (None, *REGIONS):
            part = rows if region is None else rows[regions[rows] == region]
            t, p = y[part], proba[part]
            called = p > 0.5
            metrics.cohen_kappa_score(t, called)
            metrics.roc_auc_score(t, p)
            metrics.average_precision_score(t, p)
            metrics.accuracy_score(t, called)
            metrics.f1_score(t, called)
            metrics.confusion_matrix(t, called)
            metrics.brier_score_loss(t, p)


def adding(n_images, size):
    with radiographs(n_images, 128 if size < 100 else 512) as (folder, X, y):
        weights, _ = weights_file(folder)
        clf = classifier(weights, "head", size, max_epochs=1).fit(X[:64], y[:64])
        seconds = {"predict": [], "evaluate": []}
        for _ in range(3):
            for name, call in (
                ("predict", lambda: clf.predict_proba(X)),
                ("evaluate", lambda: evaluate(clf, X, y, allow_known_patients=True)),
            ):
                started = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - started)
    return {name: float(np.median(values)) for name, values in seconds.items()}
