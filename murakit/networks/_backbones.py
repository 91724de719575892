"""The table of backbones: models of torchvision, and a small one, taken apart into named stages."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

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
        Turns that model into a dict of modules, one for each of `stages`; and "auxiliary", where an
        auxiliary classifier reads the stage `auxiliary_after`.
    last_layer : str
        Name of the classification layer in the model's state dict; all entries below it are left out.
    input_size : int
        Side of the images that its ImageNet weights were trained on, in pixels.
    min_size : int
        Side of the smallest image that it takes, in pixels.
    fixed_size : bool
        Whether it takes images of `input_size` only.
    mean, std : tuple of three floats
        What its ImageNet weights take channels to be normalised by.
    auxiliary_after : str or None
        The stage whose output the auxiliary classifier reads.
    imagenet : callable or None
        Returns the state dict of its ImageNet weights, from the network if need be. None: there are none.
    """

    name: str
    stages: tuple[str, ...]
    n_features: int
    build: Callable
    take_apart: Callable
    last_layer: str
    input_size: int = 224
    min_size: int = 32
    fixed_size: bool = False
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    auxiliary_after: str | None = None
    imagenet: Callable | None = None

    @property
    def later_half(self):
        """The first stage of the later half: what is trained where users do not say."""
        return self.stages[len(self.stages) // 2]


def _of_torchvision(name, stages, n_features, take_apart, last_layer, **fields):
    def build():
        # Imported here because it takes longer than the rest of murakit together.
        from torchvision.models import get_model

        # Inception asks to be told that random weights are wanted.
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
                f"weights='imagenet': {weights.url} could not be downloaded ({error}). Without a network, fetch "
                "that file elsewhere and pass its path as weights=, or copy it to "
                f"{torch.hub.get_dir()}/checkpoints; weights=None starts from random weights."
            ) from error

    return Backbone(name, stages, n_features, build, take_apart, last_layer, imagenet=imagenet, **fields)


def _grouped(modules, groups):
    """Return stages made of the modules from one number up to the next.

    Parameters
    ----------
    modules : sequence of Module
    groups : dict of str to int
        The number of the first module of each stage, in order.
    """
    modules = list(modules)
    stops = [*list(groups.values())[1:], len(modules)]
    return {name: nn.Sequential(*modules[start:stop]) for (name, start), stop in zip(groups.items(), stops)}


# -- torchvision's families -------------------------------------------------------------------

_RESNET = ("stem", "layer1", "layer2", "layer3", "layer4")


def _resnet_stages(model):
    stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
    return {"stem": stem, **{name: getattr(model, name) for name in _RESNET[1:]}}


_DENSENET = {"stem": 0, "denseblock1": 4, "denseblock2": 6, "denseblock3": 8, "denseblock4": 10}


def _densenet_stages(model):
    # The ReLU after the last norm is a function in torchvision's forward().
    return _grouped([*model.features, nn.ReLU()], _DENSENET)


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
    # The norm lies behind the pooling, and belongs to the features that ImageNet's weights make.
    norm = nn.Sequential(model.avgpool, model.classifier[0], nn.Flatten())
    return {**_grouped(model.features, _CONVNEXT), "norm": norm}


_MOBILENET_LARGE = {"stem": 0, "stage1": 1, "stage2": 4, "stage3": 7, "stage4": 13}

_MOBILENET_SMALL = {"stem": 0, "stage1": 1, "stage2": 2, "stage3": 4, "stage4": 9}


def _mobilenet_stages(groups):
    def take_apart(model):
        hidden = nn.Sequential(model.avgpool, nn.Flatten(), model.classifier[0], model.classifier[1])
        return {**_grouped(model.features, groups), "pre_logits": hidden}

    return take_apart


_VGG = ("block1", "block2", "block3", "block4", "block5")


def _vgg_stages(model):
    ends = [number + 1 for number, module in enumerate(model.features) if isinstance(module, nn.MaxPool2d)]
    return _grouped(model.features, dict(zip(_VGG, [0, *ends])))


# -- one of our own ---------------------------------------------------------------------------

_SMALL_WIDTHS = (16, 32, 64, 128)


class SmallNet(nn.Module):
    """Four blocks of two convolutions: 300,000 weights, to be trained from scratch on 64 px."""

    def __init__(self):
        super().__init__()
        n_before = 3
        for number, width in enumerate(_SMALL_WIDTHS, 1):
            layers = []
            for n_in in (n_before, width):
                conv = nn.Conv2d(n_in, width, 3, padding=1, bias=False)
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
                layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
            self.add_module(f"block{number}", nn.Sequential(*layers, nn.MaxPool2d(2)))
            n_before = width


def _children(model):
    return dict(model.named_children())


BACKBONES = {
    entry.name: entry
    for entry in (
        *(
            _of_torchvision(name, _RESNET, n_features, _resnet_stages, "fc")
            for name, n_features in (
                ("resnet18", 512),
                ("resnet34", 512),
                ("resnet50", 2048),
                ("resnet101", 2048),
                ("resnet152", 2048),
            )
        ),
        *(
            _of_torchvision(name, tuple(_DENSENET), n_features, _densenet_stages, "classifier")
            for name, n_features in (("densenet121", 1024), ("densenet169", 1664), ("densenet201", 1920))
        ),
        # torchvision's weights are Google's, which take channels from -1 to 1.
        _of_torchvision(
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
            _of_torchvision(
                name,
                tuple(groups),
                n_features,
                lambda model, groups=groups: _grouped(model.features, groups),
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
            _of_torchvision(name, (*_CONVNEXT, "norm"), 768, _convnext_stages, "classifier.2")
            for name in ("convnext_tiny", "convnext_small")
        ),
        *(
            _of_torchvision(
                name, (*groups, "pre_logits"), n_features, _mobilenet_stages(groups), "classifier.3"
            )
            for name, groups, n_features in (
                ("mobilenet_v3_large", _MOBILENET_LARGE, 1280),
                ("mobilenet_v3_small", _MOBILENET_SMALL, 1024),
            )
        ),
        # Without their two hidden layers of 4,096, which hold nine tenths of the weights.
        *(_of_torchvision(name, _VGG, 512, _vgg_stages, "classifier") for name in ("vgg16", "vgg19")),
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
