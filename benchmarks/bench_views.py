"""Fixed views against fresh augmentation, on real radiographs.

340 chest radiographs (ChestX-ray8, Wang et al., CVPR 2017) with ImageNet weights, 224 px, layer4
trained for ten epochs, five `PatientKFold` folds, two seeds; AUROC of the mean over folds. Limit: the
mean with ``augment_views=4`` within 0.01 of that with fresh augmentation. Needs MURAKIT_DATA or
../shared/data.
"""

import tempfile
import time

import numpy as np
from sklearn.model_selection import cross_val_score

from murakit import MuraClassifier, PatientKFold, load_mura

from ._work import DATA

SEEDS = (0, 1)


def run(quick):
    if not (DATA / "nih_cxr").is_dir():
        return [{"what": "skipped: no real radiographs in MURAKIT_DATA or ../shared/data"}]
    data = load_mura(DATA / "nih_cxr", subset="all")
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        for what, params in (
            ("fresh augmentation", {}),
            ("augment_views=4", {"augment_views": 4}),
            ("no augmentation", {"augment": False}),
        ):
            started, scores = time.perf_counter(), []
            for seed in SEEDS[:1] if quick else SEEDS:
                clf = MuraClassifier(
                    weights=DATA / "resnet18_imagenet_restored.pth",
                    unfreeze="layer4",
                    image_size=64 if quick else 224,
                    early_stopping=False,
                    max_epochs=2 if quick else 10,
                    random_state=seed,
                    cache=cache,
                    **params,
                )
                scores.append(
                    cross_val_score(clf, data.data, data.target, cv=PatientKFold(5), scoring="roc_auc").mean()
                )
            rows.append(
                {
                    "what": what,
                    "AUROC": f"{np.mean(scores):.3f}",
                    "a seed": ", ".join(f"{score:.3f}" for score in scores),
                    "seconds": f"{time.perf_counter() - started:.0f}",
                }
            )
    difference = abs(float(rows[0]["AUROC"]) - float(rows[1]["AUROC"]))
    rows[1].update(limit="within 0.01 of fresh", ok=quick or difference <= 0.01)
    return rows
