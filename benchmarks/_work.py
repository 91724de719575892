"""What several cases share: radiographs, weights, and the same start for every way of training."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from torchvision.models import resnet18

from murakit import MuraClassifier, load_mura, make_mura
from murakit.networks import build_radiograph
from murakit.utils._random import seeds_of

DATA = Path(os.environ.get("MURAKIT_DATA", Path(__file__).parents[1].parent / "shared" / "data"))
SEED = 0
BATCH = 32


@contextlib.contextmanager
def radiographs(n_images, image_size=512):
    """Yield a folder for files, paths of synthetic radiographs of MURA's size, and their labels."""
    with tempfile.TemporaryDirectory() as folder:
        # About 3.1 images a patient.
        root = make_mura(
            f"{folder}/MURA-v1.1", n_patients=n_images // 2, image_size=image_size, random_state=0
        )
        data = load_mura(root, subset="all")
        rows = np.random.default_rng(0).permutation(len(data.data))[:n_images]
        assert len(rows) == n_images
        rows.sort()
        yield Path(folder), data.data[rows], data.target[rows]


def weights_file(folder):
    """Write the weights that everybody starts from: ImageNet's where they are at hand, else random ones."""
    path = Path(folder) / "resnet18.pth"
    restored = DATA / "resnet18_imagenet_restored.pth"
    if restored.exists():
        state = torch.load(restored, weights_only=True)
    else:
        torch.manual_seed(0)
        state = resnet18(weights=None).state_dict()
    torch.save(state, path)
    return path, state


def classifier(weights, unfreeze, size, **params):
    """Return our classifier with the settings of the plain loop: as many epochs as told, nothing held out."""
    common = {
        "weights": weights,
        "unfreeze": unfreeze,
        "image_size": size,
        "resize": "squash",
        "augment": False,
        "early_stopping": False,
        "lr_patience": None,
        "batch_size": BATCH,
        "random_state": SEED,
    }
    return MuraClassifier(**{**common, **params})


def same_start(weights, unfreeze):
    """Return the head that a fit with the seed begins with, and the orders of its epochs."""
    seeds = seeds_of(SEED)
    network = build_radiograph(
        "resnet18", 2, weights=weights, unfreeze=unfreeze, dropout=0.0, augmentation=None, seed=seeds.network
    )
    return {key: value.clone() for key, value in network.head.state_dict().items()}, seeds.order


def orders(rng, n_images):
    while True:
        yield rng.permutation(n_images)


def largest_difference(ours, theirs):
    return float(np.abs(np.asarray(ours) - np.asarray(theirs)).max())


def settings():
    """Return what a table has to say of how it was measured."""
    return f"{torch.get_num_threads()} threads, batches of {BATCH}, seed {SEED}"


def copy_many(paths, region, n_images):
    """Write copies of a few files as the images of many patients, and return the folder."""
    for number in range(n_images):
        study = region / f"patient{number:05d}" / f"study1_{('negative', 'positive')[number % 2]}"
        study.mkdir(parents=True)
        shutil.copyfile(paths[number % len(paths)], study / "image1.png")
    return region.parents[1]
