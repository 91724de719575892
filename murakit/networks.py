"""Backbones as ordered, named stages, and the network that turns uint8 radiographs into logits."""

import os
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

__all__ = ["BACKBONES", "Backbone", "Radiograph", "build_radiograph"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """One entry of the table of backbones.

    Parameters
    ----------
    name : str
        The name that users pass, and torchvision's where it has the model.
    stages : tuple of str
        Names of the stages, from the image to the features.
    n_features : int
        Number of features after the last stage and the pooling.
    build : callable
        Returns the model with random weights, in the form that its state dicts are for.
    take_apart : callable
        Turns that model into a dict of modules, one for each of `stages`.
    last_layer : str
        Name of the classification layer in the model's state dict.
    """

    name: str
    stages: tuple[str, ...]
    n_features: int
    build: Callable
    take_apart: Callable
    last_layer: str


def _resnet_stages(model):
    stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
    return {"stem": stem, **{name: getattr(model, name) for name in ("layer1", "layer2", "layer3", "layer4")}}


def _from_torchvision(name):
    def build():
        # Imported here because it takes longer than the rest of murakit together.
        from torchvision.models import get_model

        return get_model(name, weights=None)

    return build


_RESNET = ("stem", "layer1", "layer2", "layer3", "layer4")

BACKBONES = {
    entry.name: entry
    for entry in (
        Backbone("resnet18", _RESNET, 512, _from_torchvision("resnet18"), _resnet_stages, "fc"),
        Backbone("resnet50", _RESNET, 2048, _from_torchvision("resnet50"), _resnet_stages, "fc"),
    )
}


class SeededDropout(nn.Module):
    """Dropout that draws from the network's own generator, not from the global one."""

    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x, generator=None):
        if not self.training or self.p == 0:
            return x
        kept = torch.rand(x.shape, generator=generator).to(x.device) >= self.p
        return x * kept / (1 - self.p)


class Radiograph(nn.Module):
    """The network: augment, normalise, frozen stages, trained stages, head.

    Parameters
    ----------
    stages : dict of str to Module
        The backbone's stages, in order.
    n_features : int
        Number of features after the last stage and the pooling.
    n_classes : int
        Number of logits.
    dropout : float
        Share of the features that are dropped before the last layer while training.
    augmentation : Module or None
        Called with a batch in [0, 1] and a generator, while training only.

    Attributes
    ----------
    generator : torch.Generator or None
        Where augmentation and dropout draw from; set for the time of a training.
    """

    def __init__(self, stages, n_features, n_classes, *, dropout=0.0, augmentation=None):
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.dropout = SeededDropout(dropout)
        self.head = nn.Linear(n_features, n_classes)
        self.augmentation = augmentation
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.generator = None
        self.frozen = frozenset()

    def freeze_below(self, unfreeze):
        """Freeze every stage before ``unfreeze``: no gradient, BatchNorm statistics kept.

        Parameters
        ----------
        unfreeze : str
            The first stage to train, ``"head"`` for none of them, ``"all"`` for every one.
        """
        self.frozen = frozenset(self._before(unfreeze))
        for name, stage in self.stages.items():
            stage.requires_grad_(name not in self.frozen)
        self.train(self.training)
        return self

    def _before(self, unfreeze):
        names = list(self.stages)
        if unfreeze not in (*names, "head", "all"):
            raise ValueError(f"unfreeze={unfreeze!r} is no stage: choose 'all', 'head' or one of {names}.")
        first = {"all": 0, "head": len(names)}.get(unfreeze)
        return names[: names.index(unfreeze) if first is None else first]

    def train(self, mode=True):
        super().train(mode)
        # The training loop calls train() before every batch; a frozen BatchNorm would go on
        # moving its running statistics.
        for name in self.frozen:
            self.stages[name].eval()
        return self

    def trained_state(self, unfreeze):
        """Return the entries of the state dict that a training from ``unfreeze`` on can change."""
        frozen = tuple(f"stages.{name}." for name in self._before(unfreeze))
        return {key: value for key, value in self.state_dict().items() if not key.startswith(frozen)}

    def to_input(self, images):
        """Turn (b, 1, s, s) uint8 grey values into what the first stage takes."""
        x = images.to(torch.float32) / 255
        if self.training and self.augmentation is not None:
            x = self.augmentation(x, self.generator)
        return (x - self.mean) / self.std

    def frozen_part(self, images):
        """Return what the first trained stage takes: the output of the stages before it."""
        if len(images) == 1 and self.frozen:
            # Alone, an image takes another path through the kernels and differs in the last bits.
            return self.frozen_part(images.expand(2, -1, -1, -1))[:1]
        # Without this, autograd would keep the activations of stages that get no gradient.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            x = self.to_input(images)
            for name, stage in self.stages.items():
                if name in self.frozen:
                    x = stage(x)
            return self.pool(x) if len(self.frozen) == len(self.stages) else x

    def forward(self, inputs):
        """Return the logits (b, k) of a batch.

        Parameters
        ----------
        inputs : Tensor of shape (b, 1, s, s), dtype uint8; or float32
            Radiographs, or what `frozen_part` made of them.
        """
        x = self.frozen_part(inputs) if inputs.dtype == torch.uint8 else inputs
        for name, stage in self.stages.items():
            if name not in self.frozen:
                x = stage(x)
        features = x if x.ndim == 2 else self.pool(x)
        return self.head(self.dropout(features, self.generator))


def build_radiograph(backbone, n_classes, *, weights, unfreeze, dropout, augmentation, seed):
    """Build a network with its weights.

    Parameters
    ----------
    backbone : str
        A name in `BACKBONES`.
    n_classes : int
    weights : "imagenet", path-like, or None
        torchvision's ImageNet weights, the file of a state dict, or random weights.
    unfreeze : str
        The first stage to train, see `Radiograph.freeze_below`.
    dropout : float
    augmentation : Module or None
    seed : int
        Seed of the random weights; the caller's random state is left as it is.

    Returns
    -------
    network : Radiograph

    Raises
    ------
    ValueError
        For an unknown backbone or stage, and for a file that does not fit.
    OSError
        Where the weights can be neither found nor downloaded.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone={backbone!r} is not known; choose one of {sorted(BACKBONES)}.")
    entry = BACKBONES[backbone]
    if unfreeze not in (*entry.stages, "head", "all"):
        raise ValueError(
            f"unfreeze={unfreeze!r} is no stage of {backbone}: choose 'all', 'head' or one of "
            f"{list(entry.stages)}."
        )
    with _seeded(seed):
        model = entry.build()
        stages = entry.take_apart(model)
        network = Radiograph(stages, entry.n_features, n_classes, dropout=dropout, augmentation=augmentation)
    if weights is not None:
        state = _imagenet_state(backbone) if weights == "imagenet" else _file_state(weights)
        _load(network, model, entry, state, weights)
    return network.freeze_below(unfreeze)


_SEEDING = threading.Lock()


@contextmanager
def _seeded(seed):
    """Make PyTorch's initialisers repeatable; they take no generator of their own."""
    with _SEEDING, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _imagenet_state(backbone):
    from torchvision.models import get_model_weights

    weights = get_model_weights(backbone).DEFAULT
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except Exception as error:
        raise OSError(
            f"weights='imagenet': {weights.url} could not be downloaded ({error}). Without a network, fetch "
            "that file elsewhere and pass its path as weights=, or copy it to "
            f"{torch.hub.get_dir()}/checkpoints; weights=None starts from random weights."
        ) from error


def _file_state(path):
    path = os.path.expanduser(os.fspath(path))
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"weights={path!r}: there is no such file. Pass 'imagenet', None, or the path of a state dict "
            "saved with torch.save(model.state_dict(), path)."
        )
    try:
        # weights_only: a file of weights must not be able to run code.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"weights={path!r} cannot be read as a state dict ({type(error).__name__}). Save it with "
            "torch.save(model.state_dict(), path); whole pickled models are not loaded: they can run code."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"weights={path!r} holds no state dict (a dict of names to tensors).")
    return {key.removeprefix("module."): value for key, value in state.items()}


def _load(network, model, entry, state, weights):
    """Load a state dict of torchvision's model, or one of `Radiograph`, with or without a last layer."""
    own = any(key.startswith("stages.") for key in state)
    target, last = (network, "head.") if own else (model, f"{entry.last_layer}.")
    head = {key.removeprefix(last): value for key, value in state.items() if key.startswith(last)}
    rest = {key: value for key, value in state.items() if not key.startswith(last)}
    expected = {key: value for key, value in target.state_dict().items() if not key.startswith(last)}
    # Files from before PyTorch 0.4.1 lack the counters; they play no part in the computation.
    missing = [key for key in expected if key not in rest and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in rest if key not in expected]
    shapes = [key for key in rest if key in expected and rest[key].shape != expected[key].shape]
    if missing or unexpected or shapes:
        raise ValueError(
            f"weights={str(weights)!r} does not fit {entry.name}: {len(missing)} entries are missing "
            f"{missing[:3]}, {len(unexpected)} are unknown {unexpected[:3]}, {len(shapes)} have another "
            f"shape {shapes[:3]}. Pass a state dict of torchvision's {entry.name}."
        )
    target.load_state_dict(rest, strict=False)
    # A last layer for other classes (ImageNet's 1,000) is of no use here: the head stays new.
    if {key: value.shape for key, value in head.items()} == {
        key: value.shape for key, value in network.head.state_dict().items()
    }:
        network.head.load_state_dict(head)
