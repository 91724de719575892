"""What helps on real radiographs: our recipe, its parts, and what others do, patients apart.

340 chest radiographs (ChestX-ray8, Wang et al., CVPR 2017) with ImageNet weights for a ResNet18; five
`PatientKFold` folds, one seed. Each row is one way to train; AUROC per study over all folds'
predictions, and the difference to the row that it is compared with, with an interval from 2,000 paired
resamples of patients. An interval that holds zero shows no difference. The parts are tried at 128 px, for
time; "strong" has what helped, so that its figures, on the same patients, are a little too good. Limit:
"strong" above "resnet18-partial", interval and all. CLAHE (scikit-image) is laid over copies of the
files. Predictions are kept in runs/ablation, so that a run that was interrupted goes on; delete them
after a change of the code. Needs MURAKIT_DATA or ../shared/data.
"""

import tempfile
from pathlib import Path

import joblib
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

SMALL = 128
KEPT = Path("runs/ablation")
FLIPS = {"flip": 0.5, "rotation": 0.0, "scale": 0.0, "shift": 0.0, "brightness": 0.0, "contrast": 0.0}


def ways():
    """Return each way to train: its name, what it is compared with, and its parameters."""
    plain = {
        "backbone": "resnet18",
        "unfreeze": "layer4",
        "image_size": 224,
        "augment": False,
        "early_stopping": False,
        "max_epochs": 10,
        "lr_patience": None,
    }
    small = {**plain, "image_size": SMALL}
    reference = f"layer4 alone, at {SMALL} px"
    parts = {
        "test-time flips": {"tta": True},
        "cosine schedule": {"lr_schedule": "cosine"},
        "cosine schedule, one epoch of warm-up": {"lr_schedule": "cosine", "warmup_epochs": 1},
        "label smoothing 0.1": {"label_smoothing": 0.1},
        "mixup 0.2": {"mixup": 0.2},
        "averaged weights (0.95)": {"ema_decay": 0.95},
        "layer3 too, at a tenth of the rate": {"unfreeze": "layer3", "stage_lr_decay": 0.1},
        "head alone": {"unfreeze": "head", "lr": 3e-3},
        "CLAHE": {"clahe": True},
        "early stopping": {"early_stopping": True},
        "flipped views in training": {"augment": FLIPS, "augment_views": 2},
        "augmentation, four views": {"augment": True, "augment_views": 4},
    }
    return [
        ("strong", None, recipe("strong")),
        ("resnet18-partial", "strong", recipe("resnet18-partial")),
        ("layer4 alone, at 224 px", "strong", plain),
        (
            "320 px, cosine schedule, test-time flips",
            "layer4 alone, at 224 px",
            {**plain, "image_size": 320, "lr_schedule": "cosine", "tta": True},
        ),
        (reference, "layer4 alone, at 224 px", small),
        *((name, reference, {**small, **change}) for name, change in parts.items()),
        (f"strong, at {SMALL} px", reference, recipe("strong", image_size=SMALL)),
    ]


def run(quick):
    if not (DATA / "nih_cxr").is_dir():
        return [{"what": "skipped: no real radiographs in MURAKIT_DATA or ../shared/data"}]
    data = load_mura(DATA / "nih_cxr", subset="all")
    evaluations, rows = {}, []
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) if quick else KEPT
        for name, other, params in ways():
            file = kept / f"{joblib.hash(params)}.npy"
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                np.save(file, predicted(dict(params), data, Path(folder), quick))
            evaluations[name] = evaluate_predictions(
                data.target, np.load(file), patients=data.patients, studies=data.studies, random_state=SEED
            )
            row = {"what": name, "AUROC (95 % interval)": str(evaluations[name].get("auroc"))}
            if other is not None:
                difference = compare({key: evaluations[key] for key in (other, name)}).difference(
                    name, "auroc"
                )
                row |= {"compared with": other, "difference": str(difference)}
            if name == "resnet18-partial":
                row |= {"limit": "below, interval and all", "ok": quick or difference.high < 0}
            print(row, flush=True)
            rows.append(row)
    return rows


def predicted(params, data, folder, quick):
    """Return the probability of a finding for each image, by the fold that has not seen its patient."""
    paths = equalised(data.data, folder) if params.pop("clahe", False) else data.data
    if quick:
        params |= {"image_size": 64, "max_epochs": 1}
    clf = MuraClassifier(
        **params,
        weights=DATA / "resnet18_imagenet_restored.pth",
        random_state=SEED,
        cache=folder / "cache",
    )
    # By the original files: whatever changed the pixels, the patients of a fold are the same.
    folds = list(PatientKFold(5).split(data.data, data.target))
    return cross_val_predict(clf, paths, data.target, cv=folds, method="predict_proba")[:, 1]


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
