"""Cost per image at 500, 2,000 and 8,000 images.

A fit of one epoch from nothing (look up, decode, store, one pass through the frozen stages, train the
head) and the predictions of all images, on small synthetic files at 64 px. Limit: the time per image
at the largest and at the smallest number within 10 % of that in the middle.
"""

import tempfile

import numpy as np

from murakit import MuraClassifier

from ._measure import interleaved
from ._work import SEED, radiographs, settings, weights_file


def run(quick):
    numbers, rounds = ((50, 100, 200), 2) if quick else ((500, 2000, 8000), 5)
    with radiographs(max(numbers), 64) as (folder, X, y):
        weights, _ = weights_file(folder)

        def work(n_images):
            rows = np.random.default_rng(0).permutation(len(X))[:n_images]
            with tempfile.TemporaryDirectory() as cache:
                clf = MuraClassifier(
                    weights=weights,
                    unfreeze="head",
                    augment=False,
                    image_size=64,
                    early_stopping=False,
                    max_epochs=1,
                    random_state=SEED,
                    cache=cache,
                )
                clf.fit(X[rows], y[rows]).predict_proba(X[rows])

        timings = interleaved(
            {number: lambda number=number: work(number) for number in numbers}, rounds=rounds
        )
    middle = timings[numbers[1]].median / numbers[1]
    rows = []
    for number, timing in timings.items():
        ratio = timing.median / number / middle
        rows.append(
            {
                "images": f"{number:,}",
                "median s": f"{timing.median:.2f}",
                "ms an image": f"{1000 * timing.median / number:.3f}",
                "ratio": f"{ratio:.3f}",
                "limit": "0.9 – 1.1",
                "ok": quick or 0.9 <= ratio <= 1.1,
            }
        )
    rows.append({"images": settings()})
    return rows
