"""Synthetic radiographs: a model learns, and a split that ignores patients claims more than is true.

400 patients of `make_mura`, all seven regions, 128 px, ResNet18 from random weights at 64 px; the first
of four folds. AUROC per study on unseen patients (`PatientKFold`) at least 0.85; scored per image, a
shuffled `KFold` claims at least 0.03 more than `PatientKFold` does.
"""

import itertools
import tempfile
import time

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold

from murakit import MuraClassifier, PatientKFold, load_mura, make_mura, study_predictions

N_FOLDS = 4


def run(quick):
    with tempfile.TemporaryDirectory() as folder:
        root = make_mura(
            f"{folder}/MURA-v1.1", n_patients=40 if quick else 400, image_size=128, random_state=0
        )
        data = load_mura(root, subset="all")
        clf = MuraClassifier(
            weights=None,
            unfreeze="all",
            backbone_lr_factor=1.0,
            image_size=32 if quick else 64,
            augment={"rotation": 5, "scale": 0.05, "shift": 0.02},
            # The last epoch is kept: an inner validation split by patient would rein in the very
            # memory of patients that the image-wise folds are to show.
            early_stopping=False,
            max_epochs=1 if quick else 14,
            random_state=0,
        )
        rows = [
            judged("PatientKFold", PatientKFold(N_FOLDS, shuffle=True, random_state=0), clf, data),
            judged("KFold, shuffled", KFold(N_FOLDS, shuffle=True, random_state=0), clf, data),
        ]
    gain = float(rows[1]["AUROC per image"]) - float(rows[0]["AUROC per image"])
    rows[0].update(limit="per study ≥ 0.85", ok=quick or float(rows[0]["AUROC per study"]) >= 0.85)
    rows[1].update(limit="per image ≥ 0.03 more", ok=quick or gain >= 0.03)
    return rows


def judged(name, cv, clf, data):
    started, per_image, per_study = time.perf_counter(), [], []
    # One fold of each: a training takes minutes on two cores, and the difference is far beyond its noise.
    for train, test in itertools.islice(cv.split(data.data, data.target), 1):
        proba = clf.fit(data.data[train], data.target[train]).predict_proba(data.data[test])
        per_image.append(roc_auc_score(data.target[test], proba[:, 1]))
        y, proba, _ = study_predictions(data.target[test], proba, data.studies[test])
        per_study.append(roc_auc_score(y, proba[:, 1]))
    return {
        "what": f"{name}({cv.get_n_splits()})",
        "images": len(data.data),
        "AUROC per study": f"{np.mean(per_study):.3f}",
        "AUROC per image": f"{np.mean(per_image):.3f}",
        "seconds": f"{time.perf_counter() - started:.0f}",
    }
