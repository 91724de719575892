"""The baseline: what an able PyTorch user writes by hand.

A `DataLoader` with two workers, PIL, torchvision's v2 transforms, ``requires_grad=False`` below the
trained stages with their BatchNorms in evaluation, AdamW with a rate for the head and one for the
backbone, weighted cross-entropy, ``model.eval()`` and ``inference_mode`` to predict.
"""

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.models import resnet18
from torchvision.transforms import v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4", "head")


def transforms(image_size, augment):
    changes = [
        v2.RandomHorizontalFlip(),
        v2.RandomAffine(
            degrees=15, translate=(0.05, 0.05), scale=(0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR
        ),
        v2.ColorJitter(brightness=0.1, contrast=0.1),
    ]
    return v2.Compose(
        [
            v2.Resize((image_size, image_size)),
            *(changes if augment else []),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


class Radiographs(Dataset):
    def __init__(self, paths, y, image_size, augment=False):
        self.paths, self.y = list(paths), torch.as_tensor(y)
        self.transform = transforms(image_size, augment)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, row):
        with Image.open(self.paths[row]) as image:
            return self.transform(image.convert("RGB")), self.y[row]


def model_of(weights, head, unfreeze):
    """ResNet18 with given weights and a given new last layer; stages before `unfreeze` frozen."""
    model = resnet18(weights=None)
    model.load_state_dict({key: value.float() for key, value in weights.items()})
    model.fc = nn.Linear(512, 2)
    model.fc.load_state_dict(head)
    first = 0 if unfreeze == "all" else STAGES.index(unfreeze)
    stem = [model.conv1, model.bn1]
    frozen = [*stem, *(getattr(model, name) for name in STAGES[1:5])]
    model.frozen_parts = frozen[: 0 if first == 0 else first + 1]
    for part in model.frozen_parts:
        part.requires_grad_(False)
    return model


def optimizer_of(model, lr=1e-3, backbone_lr=1e-4, weight_decay=1e-2):
    trained = [p for name, p in model.named_parameters() if p.requires_grad and not name.startswith("fc.")]
    groups = [{"params": list(model.fc.parameters()), "lr": lr}]
    if trained:
        groups.append({"params": trained, "lr": backbone_lr})
    return torch.optim.AdamW(groups, weight_decay=weight_decay)


def class_weights(y):
    return torch.tensor(len(y) / (2 * np.bincount(y)), dtype=torch.float32)


def step(model, optimizer, images, labels, weight):
    optimizer.zero_grad()
    loss = functional.cross_entropy(model(images), labels, weight=weight)
    loss.backward()
    optimizer.step()
    return loss.item()


def training_mode(model):
    model.train()
    for part in model.frozen_parts:
        part.eval()
    return model


class Loop:
    """A training that can be run an epoch at a time.

    Parameters
    ----------
    model : Module
        Of `model_of`.
    paths, y : arrays
    image_size, batch_size : int
    orders : iterator of arrays
        The order of the images, an epoch each.
    augment : bool
    """

    def __init__(self, model, paths, y, image_size, orders, batch_size=32, augment=False):
        self.model = model
        self.optimizer = optimizer_of(model)
        self.weight = class_weights(y)
        self.orders = orders
        self.order = []
        data = Radiographs(paths, y, image_size, augment)
        self.loader = DataLoader(
            data, batch_size=batch_size, sampler=self, num_workers=2, persistent_workers=True
        )

    def __iter__(self):  # the loader's sampler
        return iter(self.order)

    def __len__(self):
        return len(self.order)

    def epoch(self):
        self.order = next(self.orders)
        training_mode(self.model)
        for images, labels in self.loader:
            step(self.model, self.optimizer, images, labels, self.weight)


def predict_proba(model, paths, image_size, batch_size=32, num_workers=2):
    loader = DataLoader(Radiographs(paths, [0] * len(paths), image_size), batch_size, num_workers=num_workers)
    model.eval()
    with torch.inference_mode():
        return torch.cat([model(images).softmax(dim=1) for images, _ in loader]).numpy()
