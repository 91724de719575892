"""Memory of predicting: it must not grow with the number of radiographs.

Synthetic radiographs (512 px files, 64 px), ResNet18. Peak of the anonymous memory of a process of its
own that predicts 2,000 or 20,000 of them, interleaved; a single pair of runs gave ratios from 0.99 to
1.05, hence the median of five. Limit: the same to 5 %.
"""

import numpy as np

from ._measure import peak_memory
from ._work import copy_many, radiographs

PREDICT = """
import sys, glob, torch
from murakit import MuraClassifier
torch.set_num_threads(2)
paths = sorted(glob.glob(sys.argv[1] + "/**/*.png", recursive=True))[: int(sys.argv[2])]
train = paths[:40]
clf = MuraClassifier(weights=None, unfreeze="head", augment=False, image_size=64, max_epochs=1,
                     early_stopping=False, random_state=0)
clf.fit(train, [0, 1] * 20)
assert len(clf.predict_proba(paths)) == int(sys.argv[2])
"""


def run(quick):
    counts, rounds = ((100, 400), 1) if quick else ((2000, 20000), 5)
    with radiographs(50, 128 if quick else 512) as (folder, X, _):
        copies = copy_many(X, folder / "copies" / "train" / "XR_WRIST", max(counts))
        peaks = np.array([[peak_memory(PREDICT, copies, n) for n in counts] for _ in range(rounds)])
    rows = [
        {
            "what": f"{n_images:,} images",
            "median MB": f"{np.median(column) / 1e6:.0f}",
            "spread MB": f"{column.min() / 1e6:.0f} – {column.max() / 1e6:.0f}",
        }
        for n_images, column in zip(counts, peaks.T)
    ]
    growth = float(np.divide(*np.median(peaks, axis=0)[::-1]))
    ok = quick or growth <= 1.05
    return [
        *rows,
        {"what": "ratio of the medians", "median MB": f"{growth:.3f}", "limit": "≤ 1.05", "ok": ok},
    ]
