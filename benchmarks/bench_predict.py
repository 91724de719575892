"""Predicting 2,000 radiographs: from files to probabilities, against the loop by hand.

Synthetic radiographs (512 px files, 224 px), ResNet18. The plain loop reads with PIL, applies
torchvision's transforms and runs the eager model in `inference_mode`; once without workers, once with
two. Outputs have to agree to 1e-5 first. Limits: at least 1.4 times faster with PyTorch alone, at least
1.7 times with ONNX Runtime (its export is done before).
"""

import numpy as np

from . import plain_pytorch as plain
from ._measure import interleaved
from ._work import (
    classifier,
    largest_difference,
    radiographs,
    same_start,
    settings,
    weights_file,
)


def run(quick):
    n_images, size, rounds = (100, 64, 2) if quick else (2000, 224, 3)
    with radiographs(n_images, 128 if quick else 512) as (folder, X, y):
        weights, state = weights_file(folder)
        clf = classifier(weights, "head", size, max_epochs=1).fit(X[:64], y[:64])
        model = plain.model_of(state, same_start(weights, "head")[0], "head")
        model.fc.load_state_dict(clf.net_.module_.head.state_dict())

        def ours(runtime):
            return clf.set_params(runtime=runtime).predict_proba(X)

        expected = plain.predict_proba(model, X[:300], size)
        clf_300 = {name: clf.set_params(runtime=name).predict_proba(X[:300]) for name in ("torch", "onnx")}
        differences = {name: largest_difference(proba, expected) for name, proba in clf_300.items()}
        assert max(differences.values()) < 1e-5, differences
        timings = interleaved(
            {
                "plain PIL + eager loop": lambda: plain.predict_proba(model, X, size, num_workers=0),
                "the same with 2 workers": lambda: plain.predict_proba(model, X, size, num_workers=2),
                "murakit": lambda: ours("torch"),
                "murakit, runtime='onnx'": lambda: ours("onnx"),
            },
            rounds=rounds,
            warmup=0,
        )
    baseline = timings["plain PIL + eager loop"]
    rows = []
    for name, timing in timings.items():
        seconds = np.array(timing.seconds)
        faster = 1 / timing.ratio_to(baseline)
        asked = {"murakit": 1.4, "murakit, runtime='onnx'": 1.7}.get(name)
        rows.append(
            {
                "what": name,
                "median s": f"{np.median(seconds):.1f}",
                "spread s": f"{seconds.min():.1f} – {seconds.max():.1f}",
                "images/s": f"{n_images / np.median(seconds):.0f}",
                "× faster": f"{faster:.2f}",
                "asked": f"≥ {asked}" if asked else "",
                "ok": None if asked is None else quick or bool(faster >= asked),
            }
        )
    rows.append({"what": f"{settings()}; probabilities differ by {max(differences.values()):.0e} at most"})
    return rows
