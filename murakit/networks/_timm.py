"""timm's models as backbones: their stages are read from the model itself."""

from difflib import get_close_matches
from functools import lru_cache

import torch
from torch import nn

from ._backbones import Backbone

PREFIX = "timm/"

# How far what stages make may lie from what the whole model makes, relative to its largest value.
_TOLERANCE = 1e-4


@lru_cache(maxsize=16)
def timm_backbone(name):
    """Return the entry of a timm model, "timm/NAME".

    timm's convolutional networks, and most others, are a chain of modules. Where running them one
    after another gives what the model gives, they become stages, in the groups that timm's own
    ``group_matcher`` makes for layer-wise learning rates. Another model is one stage, "body".

    Raises
    ------
    ImportError
        Without timm.
    ValueError
        Where timm does not know the model.
    """
    timm = require_timm()
    short = name.removeprefix(PREFIX)
    if not timm.is_model(short):
        near = ", ".join(f"{PREFIX}{model}" for model in get_close_matches(short, timm.list_models()))
        raise ValueError(
            f"backbone={name!r}: timm has no model {short!r}"
            + (f"; there is {near}." if near else ".")
            + " timm.list_models() lists them all."
        )

    def build():
        return timm.create_model(short, pretrained=False, num_classes=0)

    def imagenet():
        try:
            return timm.create_model(short, pretrained=True, num_classes=0).state_dict()
        except Exception as error:
            raise OSError(
                f"weights='imagenet': timm could not get the weights of {short} ({error}). Without a network, "
                "fetch them elsewhere and pass the path of the state dict as weights=; weights=None starts "
                "from random weights."
            ) from error

    with torch.random.fork_rng(devices=[]):
        model = build().eval()
    config = model.pretrained_cfg
    groups, n_features = _groups(model, config["input_size"][-1])

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


def require_timm():
    """Return timm; raise where it is missing."""
    try:
        import timm
    except ImportError as error:
        raise ImportError("backbones 'timm/NAME' need timm: pip install 'murakit[timm]'.") from error
    return timm


def _last_layer(config):
    last = config.get("classifier", "head")
    return last if isinstance(last, str) else last[0]


def _groups(model, size):
    """Return the paths of the modules of each stage, or None where they are no chain; and the features."""
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(x)
        n_features = expected.shape[-1]
        chain = _chain(model)
        values, n_maps = x, 0
        for number, path in enumerate(chain, 1):
            try:
                values = model.get_submodule(path)(values)
            except Exception:
                return None, n_features
            if isinstance(values, torch.Tensor) and values.ndim == 4:
                n_maps, maps = number, values
    is_chain = isinstance(values, torch.Tensor) and _same(values, expected)
    if not is_chain or not n_maps or not hasattr(model, "group_matcher"):
        return None, n_features
    groups = _by_group(model, chain[:n_maps])
    # What lies behind the feature maps is the pooling alone, or more than that.
    if not _same(maps.mean(dim=(2, 3)), expected):
        groups["pre_logits"] = chain[n_maps:]
    return groups, n_features


def _same(values, expected):
    return values.shape == expected.shape and bool(
        (values - expected).abs().max() <= _TOLERANCE * expected.abs().max()
    )


def _chain(model):
    """Return the paths of the modules, those of a Sequential one by one."""
    paths = []
    for name, module in model.named_children():
        inner = [f"{name}.{child}" for child, _ in module.named_children()]
        paths += inner if isinstance(module, nn.Sequential) and inner else [name]
    return paths


def _by_group(model, chain):
    from timm.models import group_parameters

    found = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    groups, number = {}, None
    for path in chain:
        of_module = [found[key] for key in found if key.startswith(f"{path}.")]
        # Modules without weights go with those before them; a group that comes up again goes on.
        if not groups or (of_module and min(of_module) > number):
            number = min(of_module, default=0)
            groups["stem" if not groups else path.replace(".", "_")] = []
        groups[list(groups)[-1]].append(path)
    return {_named(stage, paths, chain): paths for stage, paths in groups.items()}


def _named(stage, paths, chain):
    """Return the name of a stage: its module's, or that of a Sequential which it is all of."""
    parent = paths[0].rpartition(".")[0]
    whole = parent and [path for path in chain if path.startswith(f"{parent}.")]
    return parent.replace(".", "_") if stage != "stem" and whole == paths else stage
