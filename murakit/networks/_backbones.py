"""Table of backbones: models of torchvision, and a small one, each split into named stages."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)

IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """Backbone that a network can be built on: one entry of the table.

    Parameters
    ----------
    name : str
        Name that users pass: torchvision's name of the model, or "timm/NAME".
    stages : tuple of str
        Names of the stages, from the first to the last.
    n_features : int
        Number of features after the last stage and the pooling.
    build : callable
        Returns the whole model with random weights; its state dicts have this model's keys.
    take_apart : callable
        Splits that model into a dict of modules, one for each of `stages`. A model with an auxiliary
        classifier has that under the key "auxiliary".
    last_layer : str
        Name of the classification layer in the model's state dict; its entries are not loaded.
    input_size : int
        Side of the images that the ImageNet weights were trained on, in pixels.
    min_size : int
        Side of the smallest image that the model takes, in pixels.
    fixed_size : bool
        Whether the model takes images of `input_size` only.
    mean, std : tuple of three floats
        Channel statistics that images are normalised by for the ImageNet weights.
    auxiliary_after : str or None
        Name of the stage whose output the auxiliary classifier takes.
    imagenet : callable or None
        Returns the state dict of the ImageNet weights, downloaded if needed. None: there are none.
    """

    name: str
    stages: tuple[str, ...]
    n_features: int
    build: Callable[[], nn.Module]
    take_apart: Callable[[nn.Module], dict[str, nn.Module]]
    last_layer: str
    input_size: int = 224
    min_size: int = 32
    fixed_size: bool = False
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    auxiliary_after: str | None = None
    imagenet: Callable[[], dict] | None = None

    @property
    def later_half(self) -> str:
        """First stage of the later half of the stages: the default of ``unfreeze``."""
        return self.stages[len(self.stages) // 2]


def _torchvision_backbone(name, stages, n_features, take_apart, last_layer, **fields):
    def build():
        # Imported here because importing torchvision takes longer than all the rest of murakit.
        from torchvision.models import get_model

        # Inception warns if this option is not given.
        options = {"init_weights": True} if name == "inception_v3" else {}
        return get_model(name, weights=None, **options)

    def imagenet():
        import torch
        from torchvision.models import get_model_weights

        weights = get_model_weights(name).DEFAULT
        try:
            return weights.get_state_dict(progress=False, check_hash=True)
        except Exception as error:
            raise OSError(
                f"weights='imagenet': {weights.url} could not be downloaded ({error}). Without internet access, "
                "download that file on another computer and pass its path as weights=, or copy it to "
                f"{torch.hub.get_dir()}/checkpoints; weights=None starts from random weights."
            ) from error

    return Backbone(name, stages, n_features, build, take_apart, last_layer, imagenet=imagenet, **fields)


def _group_modules(modules: Iterable[nn.Module], groups: Mapping[str, int]) -> dict[str, nn.Module]:
    """Group the modules of a chain into stages.

    Parameters
    ----------
    modules : iterable of Module
    groups : dict of str to int
        Index of the first module of each stage, in order.
    """
    modules = list(modules)
    stops = [*list(groups.values())[1:], len(modules)]
    return {name: nn.Sequential(*modules[start:stop]) for (name, start), stop in zip(groups.items(), stops)}


# -- torchvision's families -----------------------------------------------------------------

_RESNET = ("stem", "layer1", "layer2", "layer3", "layer4")


def _resnet_stages(model):
    stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
    return {"stem": stem, **{name: getattr(model, name) for name in _RESNET[1:]}}


_DENSENET = {"stem": 0, "denseblock1": 4, "denseblock2": 6, "denseblock3": 8, "denseblock4": 10}


def _densenet_stages(model):
    # torchvision applies the last ReLU in forward(), not as a module.
    return _group_modules([*model.features, nn.ReLU()], _DENSENET)


_INCEPTION = ("stem", "mixed5", "mixed6", "mixed7")


def _inception_stages(model):
    parts = {name: [] for name in _INCEPTION}
    for name, module in model.named_children():
        if name.startswith("Mixed_"):
            parts[f"mixed{name[6]}"].append(module)
        elif name.startswith(("Conv2d", "maxpool")):
            parts["stem"].append(module)
    stages = {name: nn.Sequential(*modules) for name, modules in parts.items()}
    return {**stages, "auxiliary": model.AuxLogits}


_EFFICIENTNET = {"stem": 0, **{f"stage{number}": number for number in range(1, 8)}, "conv_head": 8}

_EFFICIENTNET_V2_S = {"stem": 0, **{f"stage{number}": number for number in range(1, 7)}, "conv_head": 7}

_CONVNEXT = {"stem": 0, "stage1": 1, "stage2": 2, "stage3": 4, "stage4": 6}


def _convnext_stages(model):
    # The norm comes after the pooling. It belongs to the backbone: ImageNet weights include it.
    norm = nn.Sequential(model.avgpool, model.classifier[0], nn.Flatten())
    return {**_group_modules(model.features, _CONVNEXT), "norm": norm}


_MOBILENET_LARGE = {"stem": 0, "stage1": 1, "stage2": 4, "stage3": 7, "stage4": 13}

_MOBILENET_SMALL = {"stem": 0, "stage1": 1, "stage2": 2, "stage3": 4, "stage4": 9}


def _mobilenet_stages(groups):
    def take_apart(model):
        hidden = nn.Sequential(model.avgpool, nn.Flatten(), model.classifier[0], model.classifier[1])
        return {**_group_modules(model.features, groups), "pre_logits": hidden}

    return take_apart


_VGG = ("block1", "block2", "block3", "block4", "block5")


def _vgg_stages(model):
    ends = [number + 1 for number, module in enumerate(model.features) if isinstance(module, nn.MaxPool2d)]
    return _group_modules(model.features, dict(zip(_VGG, [0, *ends])))


# -- a small network ------------------------------------------------------------------------

_SMALL_WIDTHS = (16, 32, 64, 128)


class SmallNet(nn.Module):
    """Small network of four blocks of two convolutions: 300,000 weights, to train from scratch on 64 px."""

    def __init__(self) -> None:
        super().__init__()
        n_channels = 3
        for number, width in enumerate(_SMALL_WIDTHS, 1):
            layers = []
            for n_in in (n_channels, width):
                conv = nn.Conv2d(n_in, width, 3, padding=1, bias=False)
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
                layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
            self.add_module(f"block{number}", nn.Sequential(*layers, nn.MaxPool2d(2)))
            n_channels = width


def _children(model):
    return dict(model.named_children())


BACKBONES = {
    entry.name: entry
    for entry in (
        *(
            _torchvision_backbone(name, _RESNET, n_features, _resnet_stages, "fc")
            for name, n_features in (
                ("resnet18", 512),
                ("resnet34", 512),
                ("resnet50", 2048),
                ("resnet101", 2048),
                ("resnet152", 2048),
            )
        ),
        *(
            _torchvision_backbone(name, tuple(_DENSENET), n_features, _densenet_stages, "classifier")
            for name, n_features in (("densenet121", 1024), ("densenet169", 1664), ("densenet201", 1920))
        ),
        # torchvision's weights come from TensorFlow, where channels are scaled to [-1, 1].
        _torchvision_backbone(
            "inception_v3",
            _INCEPTION,
            2048,
            _inception_stages,
            "fc",
            input_size=299,
            min_size=75,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            auxiliary_after="mixed6",
        ),
        *(
            _torchvision_backbone(
                name,
                tuple(groups),
                n_features,
                lambda model, groups=groups: _group_modules(model.features, groups),
                "classifier",
                input_size=size,
            )
            for name, groups, n_features, size in (
                ("efficientnet_b0", _EFFICIENTNET, 1280, 224),
                ("efficientnet_b1", _EFFICIENTNET, 1280, 240),
                ("efficientnet_b2", _EFFICIENTNET, 1408, 288),
                ("efficientnet_b3", _EFFICIENTNET, 1536, 300),
                ("efficientnet_b4", _EFFICIENTNET, 1792, 380),
                ("efficientnet_v2_s", _EFFICIENTNET_V2_S, 1280, 384),
            )
        ),
        *(
            _torchvision_backbone(name, (*_CONVNEXT, "norm"), 768, _convnext_stages, "classifier.2")
            for name in ("convnext_tiny", "convnext_small")
        ),
        *(
            _torchvision_backbone(
                name, (*groups, "pre_logits"), n_features, _mobilenet_stages(groups), "classifier.3"
            )
            for name, groups, n_features in (
                ("mobilenet_v3_large", _MOBILENET_LARGE, 1280),
                ("mobilenet_v3_small", _MOBILENET_SMALL, 1024),
            )
        ),
        # Without VGG's two hidden layers of 4,096 units, which hold nine tenths of the weights.
        *(_torchvision_backbone(name, _VGG, 512, _vgg_stages, "classifier") for name in ("vgg16", "vgg19")),
        Backbone(
            "small",
            ("block1", "block2", "block3", "block4"),
            _SMALL_WIDTHS[-1],
            SmallNet,
            _children,
            "fc",
            input_size=64,
        ),
    )
}
