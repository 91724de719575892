"""What helps on real radiographs: our recipe, its parts, and what others do, patients apart.

340 chest radiographs (ChestX-ray8, Wang et al., CVPR 2017) with ImageNet weights for a ResNet18; five
`PatientKFold` folds, one seed. Each row is one way to train; AUROC per study over all folds'
predictions, and its difference to the recipe "strong" with an interval from 2,000 paired resamples of
patients. A row whose interval holds zero shows no difference. Limit: "strong" above
"resnet18-partial", interval and all. CLAHE (scikit-image) is laid over copies of the files. Needs
MURAKIT_DATA or ../shared/data.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.model_selection import cross_val_predict

from murakit import (
    MuraClassifier,
    PatientKFold,
    compare,
    evaluate_predictions,
    load_mura,
    read_image,
    recipe,
)

from ._work import DATA, SEED

FLIPS = {"flip": 0.5, "rotation": 0.0, "scale": 0.0, "shift": 0.0, "brightness": 0.0, "contrast": 0.0}


def ways():
    """Return name and parameters of each way to train, "strong" first."""
    strong = recipe("strong")
    return {
        'recipe("strong")': strong,
        'recipe("resnet18-partial")': recipe("resnet18-partial"),
        "without test-time flips": {**strong, "tta": False},
        "constant learning rate": {**strong, "lr_schedule": "plateau", "lr_patience": None},
        "warm-up of one epoch": {**strong, "warmup_epochs": 1},
        "224 px": {**strong, "image_size": 224},
        "label smoothing 0.1": {**strong, "label_smoothing": 0.1},
        "mixup 0.2": {**strong, "mixup": 0.2},
        "averaged weights (0.95)": {**strong, "ema_decay": 0.95},
        "flipped views in training": {**strong, "augment": FLIPS, "augment_views": 2},
        "layer3 too, a tenth of the rate": {**strong, "unfreeze": "layer3", "stage_lr_decay": 0.1},
        "head alone": {**strong, "unfreeze": "head", "lr": 3e-3},
        "CLAHE": {**strong, "clahe": True},
    }


def run(quick):
    if not (DATA / "nih_cxr").is_dir():
        return [{"what": "skipped: no real radiographs in MURAKIT_DATA or ../shared/data"}]
    data = load_mura(DATA / "nih_cxr", subset="all")
    evaluations, rows = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for name, params in ways().items():
            started = time.perf_counter()
            paths = equalised(data.data, Path(folder)) if params.pop("clahe", False) else data.data
            evaluations[name] = judged(params, paths, data, folder, quick)
            rows.append({"what": name, "seconds": f"{time.perf_counter() - started:.0f}"})
    comparison = compare(evaluations)
    for row in rows:
        name = row["what"]
        row["AUROC (95 % interval)"] = str(evaluations[name].get("auroc"))
        if row is not rows[0]:
            row["difference to strong"] = str(comparison.difference(name, "auroc"))
    against = comparison.difference(rows[1]["what"], "auroc")
    rows[1].update(limit="below strong, interval and all", ok=quick or against.high < 0)
    return rows


def judged(params, paths, data, folder, quick):
    clf = MuraClassifier(
        **params,
        weights=DATA / "resnet18_imagenet_restored.pth",
        random_state=SEED,
        cache=Path(folder) / "cache",
    )
    if quick:
        clf.set_params(image_size=64, max_epochs=1)
    # Split by the patients of the original files, whose paths these resemble.
    folds = list(PatientKFold(5).split(data.data, data.target))
    proba = cross_val_predict(clf, paths, data.target, cv=folds, method="predict_proba")
    return evaluate_predictions(
        data.target, proba, patients=data.patients, studies=data.studies, random_state=SEED
    )


def equalised(paths, folder):
    """Write copies with contrast-limited adaptive histogram equalisation, in the same layout."""
    from skimage.exposure import equalize_adapthist

    copies = []
    for path in paths:
        copy = folder.joinpath("clahe", *Path(path).parts[-5:]).with_suffix(".png")
        copy.parent.mkdir(parents=True, exist_ok=True)
        pixels = equalize_adapthist(read_image(path), clip_limit=0.01)
        Image.fromarray(np.round(255 * pixels).astype(np.uint8)).save(copy)
        copies.append(str(copy))
    return np.array(copies, dtype=object)
