"""Real radiographs: how well the classifier does, by patient-disjoint cross-validation.

340 chest radiographs (ChestX-ray8, Wang et al., CVPR 2017) with ImageNet weights, 224 px, five
`PatientKFold` folds, two seeds. Limits: AUROC of the head alone at least 0.85 (a logistic regression
on the same frozen features, the first row, reaches 0.86-0.88), and with layer4 trained not more than
0.01 below the head's. Needs MURAKIT_DATA or ../shared/data.
"""

import os
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from murakit import MuraClassifier, PatientKFold, load_mura, read_square
from murakit.networks import build_radiograph

DEFAULT = Path(__file__).parents[1].parent / "shared" / "data"
SEEDS = (0, 1)
HEAD = {"unfreeze": "head", "augment": False, "lr": 3e-3}
LAYER4 = {"unfreeze": "layer4", "augment": False}


def run(quick):
    folder = Path(os.environ.get("MURAKIT_DATA", DEFAULT))
    if not (folder / "nih_cxr").is_dir():
        return [{"what": "skipped: no real radiographs in MURAKIT_DATA or ../shared/data"}]
    weights = folder / "resnet18_imagenet_restored.pth"
    data = load_mura(folder / "nih_cxr", subset="all")
    size, seeds = (64, SEEDS[:1]) if quick else (224, SEEDS)
    rows = [reference(data, weights, size)]
    for name, params in (("head", HEAD), ("layer4", LAYER4)):
        rows.append(cross_validated(name, params, data, weights, size, seeds, quick))
    head, layer4 = rows[1]["AUROC"], rows[2]["AUROC"]
    rows[1].update(limit="≥ 0.85", ok=quick or float(head) >= 0.85)
    rows[2].update(limit="≥ head - 0.01", ok=quick or float(layer4) >= float(head) - 0.01)
    return rows


def cross_validated(name, params, data, weights, size, seeds, quick):
    started, scores = time.perf_counter(), []
    for seed in seeds:
        clf = MuraClassifier(weights=weights, image_size=size, random_state=seed, **params)
        if quick:
            clf.set_params(max_epochs=2)
        scores.append(cross_val_score(clf, data.data, data.target, cv=PatientKFold(5), scoring="roc_auc"))
    return row_of(f'MuraClassifier, unfreeze="{name}"', seeds, scores, started)


def reference(data, weights, size):
    started = time.perf_counter()
    network = build_radiograph(
        "resnet18", 2, weights=weights, unfreeze="head", dropout=0.0, augmentation=None, seed=0
    ).eval()
    pixels = torch.from_numpy(np.stack([read_square(path, size) for path in data.data])[:, None])
    with torch.no_grad():
        features = torch.cat([network.run_before("head", batch) for batch in pixels.split(32)]).numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=5000))
    folds = list(PatientKFold(5).split(data.data, data.target))
    scores = cross_val_score(model, features, data.target, cv=folds, scoring="roc_auc")
    return row_of("logistic regression on frozen features", ("-",), [scores], started)


def row_of(what, seeds, scores, started):
    scores = np.array(scores)
    return {
        "what": what,
        "seeds": ", ".join(map(str, seeds)),
        "AUROC": f"{scores.mean():.3f}",
        "a seed": ", ".join(f"{score:.3f}" for score in scores.mean(axis=1)),
        "std of folds": f"{scores.std(axis=1).mean():.3f}",
        "seconds": f"{time.perf_counter() - started:.0f}",
    }
