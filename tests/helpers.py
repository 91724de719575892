"""What several test modules share: a tiny network, classifiers that are quick to train, and image files."""

import io

import numpy as np
import torch
from PIL import Image
from torch import nn

from murakit import MuraClassifier, networks
from murakit.datasets._samples import as_samples


class TinyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.fc = nn.Linear(8, 1000)


TINY = networks.Backbone(
    "tiny", ("one", "two"), 8, TinyNet, lambda model: {"one": model.one, "two": model.two}, "fc"
)


def quick_classifier(**params):
    """A classifier that trains in a fraction of a second."""
    defaults = {
        "backbone": "tiny",
        "weights": None,
        "unfreeze": "two",
        "image_size": 32,
        "batch_size": 8,
        "max_epochs": 2,
        "lr": 1e-2,
        "random_state": 0,
    }
    return MuraClassifier(**{**defaults, **params})


def state_of(classifier):
    return {key: value.clone() for key, value in classifier.net_.module_.state_dict().items()}


def same_state(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def draw_studies(seed, n_patients=150):
    """Paths and labels of patients with one to four studies of one to four images."""
    rng = np.random.default_rng(seed)
    paths, labels = [], []
    for patient in range(n_patients):
        for study in range(1, 1 + rng.choice([1, 1, 1, 1, 2, 3, 4])):
            region = rng.choice(["WRIST", "HAND", "ELBOW"], p=[0.5, 0.3, 0.2])
            label = int(rng.random() < 0.4)
            for image in range(1, 1 + rng.integers(1, 5)):
                kind = "positive" if label else "negative"
                paths.append(f"train/XR_{region}/patient{patient:05d}/study{study}_{kind}/image{image}.png")
                labels.append(label)
    return np.array(paths, dtype=object), np.array(labels)


def column_of(column, X):
    """What the paths of X say of their patient, study or region."""
    return as_samples(X, list_folders=False).required(column, f"Pass the {column}s as groups=.")


def patients_of(X):
    return column_of("patient", X)


def studies_of(X):
    return column_of("study", X)


def regions_of(X):
    return column_of("region", X)


def film(height=200, width=168):
    """A slope with noise, of 8 bits."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 20, (height, width))
    return ((y + 2 * x) // 3 % 200 + 20 + noise).astype(np.uint8)


def encoded(image, format="PNG", **options):
    """The bytes of an image file."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, format, **options)
    return buffer.getvalue()
