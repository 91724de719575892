"""Backbones from timm: the stages are derived from the model itself."""

from difflib import get_close_matches
from functools import lru_cache
from types import ModuleType

import torch
from torch import nn

from ._backbones import Backbone

PREFIX = "timm/"

# Largest difference between the outputs of the chained stages and of the whole model, relative to the largest
# value, with which the stages count as equivalent to the model.
_TOLERANCE = 1e-4


@lru_cache(maxsize=16)
def timm_backbone(name: str) -> Backbone:
    """Return the `Backbone` of a timm model, "timm/NAME".

    Most of timm's models, and all convolutional ones, are a chain of modules. If running the modules one
    after another gives the output of the model, they are grouped into stages as timm's own
    ``group_matcher`` groups them for layer-wise learning rates. Any other model becomes a single stage,
    "body".

    Raises
    ------
    ImportError
        If timm is not installed.
    ValueError
        If timm has no model of that name.
    """
    timm = require_timm()
    short = _known_name(name)

    def build():
        return timm.create_model(short, pretrained=False, num_classes=0)

    def imagenet():
        try:
            return timm.create_model(short, pretrained=True, num_classes=0).state_dict()
        except Exception as error:
            raise OSError(
                f"weights='imagenet': timm could not download the weights of {short} ({error}). Without internet "
                "access, download them on another computer and pass the path of the state dict as weights=; "
                "weights=None starts from random weights."
            ) from error

    with torch.random.fork_rng(devices=[]):
        model = build().eval()
    config = model.pretrained_cfg
    groups, n_features = _stages_and_width(model, config["input_size"][-1])

    def take_apart(model):
        if groups is None:
            return {"body": model}
        return {
            stage: nn.Sequential(*(model.get_submodule(path) for path in paths))
            for stage, paths in groups.items()
        }

    return Backbone(
        name,
        ("body",) if groups is None else tuple(groups),
        n_features,
        build,
        take_apart,
        _last_layer(config),
        input_size=config["input_size"][-1],
        fixed_size=bool(config.get("fixed_input_size")),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        imagenet=imagenet,
    )


def meta_model(name: str) -> nn.Module:
    """Return a timm model, "timm/NAME", on the meta device, where it takes no memory."""
    timm = require_timm()
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return timm.create_model(_known_name(name), pretrained=False, num_classes=0)


def _known_name(name):
    """Return the name of a model without the prefix; raise ValueError where timm has none of that name."""
    timm = require_timm()
    short = name.removeprefix(PREFIX)
    if not timm.is_model(short):
        similar = ", ".join(f"{PREFIX}{model}" for model in get_close_matches(short, timm.list_models()))
        raise ValueError(
            f"backbone={name!r}: timm has no model {short!r}"
            + (f"; similar names are {similar}." if similar else ".")
            + " timm.list_models() lists them all."
        )
    return short


def require_timm() -> ModuleType:
    """Return the module timm; raise ImportError where it is not installed."""
    try:
        import timm
    except ImportError as error:
        raise ImportError("backbones 'timm/NAME' need timm: pip install 'murakit[timm]'.") from error
    return timm


def _last_layer(config):
    last = config.get("classifier", "head")
    return last if isinstance(last, str) else last[0]


def _stages_and_width(model, size):
    """Return the module paths of each stage (None: the model is no chain), and the number of features."""
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(x)
        n_features = expected.shape[-1]
        chain = _module_paths(model)
        values, n_spatial = x, 0
        for number, path in enumerate(chain, 1):
            try:
                values = model.get_submodule(path)(values)
            except Exception:
                return None, n_features
            if isinstance(values, torch.Tensor) and values.ndim == 4:
                n_spatial, feature_maps = number, values
    is_chain = isinstance(values, torch.Tensor) and _is_close(values, expected)
    if not is_chain or not n_spatial or not hasattr(model, "group_matcher"):
        return None, n_features
    groups = _group_paths(model, chain[:n_spatial])
    # Modules after the last feature maps form a stage, unless they do nothing but global average pooling.
    if not _is_close(feature_maps.mean(dim=(2, 3)), expected):
        groups["pre_logits"] = chain[n_spatial:]
    return groups, n_features


def _is_close(values, expected):
    return values.shape == expected.shape and bool(
        (values - expected).abs().max() <= _TOLERANCE * expected.abs().max()
    )


def _module_paths(model):
    """Return the paths of the model's modules; a Sequential is replaced by the modules in it."""
    paths = []
    for name, module in model.named_children():
        inner = [f"{name}.{child}" for child, _ in module.named_children()]
        paths += inner if isinstance(module, nn.Sequential) and inner else [name]
    return paths


def _group_paths(model, chain):
    from timm.models import group_parameters

    found = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    groups, number = {}, None
    for path in chain:
        of_module = [found[key] for key in found if key.startswith(f"{path}.")]
        # A new stage starts with a higher group number. Modules without weights, and those whose number
        # came up before, belong to the current stage.
        if not groups or (of_module and min(of_module) > number):
            number = min(of_module, default=0)
            groups["stem" if not groups else path.replace(".", "_")] = []
        groups[list(groups)[-1]].append(path)
    return {_stage_name(stage, paths, chain): paths for stage, paths in groups.items()}


def _stage_name(stage, paths, chain):
    """Return the name of a stage: its first module's, or that of a Sequential if the stage is all of it."""
    parent = paths[0].rpartition(".")[0]
    whole = parent and [path for path in chain if path.startswith(f"{parent}.")]
    return parent.replace(".", "_") if stage != "stem" and whole == paths else stage
