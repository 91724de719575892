"""Building of networks by the name of their backbone, and the list of backbones."""

import os

import pandas as pd
import torch
from torch import nn

from ._backbones import BACKBONES, Backbone
from ._frozen import mark_shared
from ._network import Radiograph, SigmoidHead
from ._pretrained import backbone_weights, meta_stages, seeded
from ._timm import PREFIX, meta_model, timm_backbone
from .augmentation import Augmentation


def find_backbone(name: str) -> Backbone:
    """Return the `Backbone` of a name; raise ValueError for an unknown name."""
    if name.startswith(PREFIX):
        return timm_backbone(name)
    if name not in BACKBONES:
        raise ValueError(
            f"backbone={name!r} is not known; choose one of {sorted(BACKBONES)}, or 'timm/NAME' with the name of "
            "a model of timm."
        )
    return BACKBONES[name]


def count_weights(name: str) -> int:
    """Return the number of weights of a backbone's stages, without the memory that building it takes."""
    if name.startswith(PREFIX):
        return sum(tensor.numel() for tensor in meta_model(name).state_dict().values())
    stages = nn.ModuleDict(meta_stages(find_backbone(name)))
    return sum(tensor.numel() for tensor in stages.state_dict().values())


def list_backbones() -> pd.DataFrame:
    """List the backbones of `MuraClassifier`, without those of timm.

    ``backbone="timm/NAME"`` takes any model of timm (``pip install 'murakit[timm]'``);
    ``timm.list_models()`` lists their names.

    Returns
    -------
    backbones : DataFrame
        Indexed by name, with the columns ``stages`` (names of the stages from the first to the last,
        which ``unfreeze`` takes besides "all" and "head"), ``parameters`` (number of weights without the
        head), ``features`` (number of inputs of the head) and ``input_size`` (side of the images in
        pixels if ``image_size=None``).

    References
    ----------
    torchvision, "Models and pre-trained weights", https://docs.pytorch.org/vision/stable/models.html

    Examples
    --------
    >>> from murakit import list_backbones
    >>> list_backbones().loc["resnet18", "stages"]
    'stem, layer1, layer2, layer3, layer4'
    """
    rows = []
    for name, entry in BACKBONES.items():
        with torch.device("meta"):
            parts = entry.take_apart(entry.build())
        rows.append(
            {
                "name": name,
                "stages": ", ".join(entry.stages),
                "parameters": sum(p.numel() for stage in entry.stages for p in parts[stage].parameters()),
                "features": entry.n_features,
                "input_size": entry.input_size,
            }
        )
    return pd.DataFrame(rows).set_index("name")


def build_radiograph(
    backbone: str,
    n_classes: int,
    *,
    weights: str | os.PathLike[str] | None,
    unfreeze: str,
    dropout: float,
    augmentation: Augmentation | None,
    seed: int,
    share_frozen: bool = False,
    one_output: bool = False,
) -> Radiograph:
    """Build a network and load its weights.

    Parameters
    ----------
    backbone : str
        Name in `BACKBONES`, or "timm/NAME".
    n_classes : int
        Number of classes.
    weights : "imagenet", path-like, or None
        ImageNet weights, the file of a state dict, or random weights.
    unfreeze : str
        The first stage to train, see `Radiograph.freeze_below`.
    dropout : float
        Probability that a feature is set to zero before the last layer, while training.
    augmentation : Augmentation or None
        Random changes of the images, while training.
    seed : int
        Seed of the random weights; PyTorch's global random state is left as it is.
    share_frozen : bool
        Whether the frozen stages share their weights with other networks, instead of having a copy; see
        `murakit.networks._frozen.SharedWeights`.
    one_output : bool
        Whether the head has one output for two classes.

    Returns
    -------
    network : Radiograph

    Raises
    ------
    ValueError
        For an unknown backbone or stage, and for a state dict that does not fit.
    OSError
        If the file of the weights does not exist, or the weights cannot be downloaded.
    """
    entry = find_backbone(backbone)
    if unfreeze not in (*entry.stages, "head", "all"):
        raise ValueError(
            f"unfreeze={unfreeze!r} is no stage of {backbone}: choose 'all', 'head' or one of "
            f"{list(entry.stages)}, or None for the later half of the stages."
        )
    shared, last_layer = backbone_weights(entry, weights, seed)
    if backbone.startswith(PREFIX):
        # timm's models have non-persistent buffers, such as position tables, which no state dict holds.
        with seeded(seed):
            stages = entry.take_apart(entry.build())
    else:
        stages = meta_stages(entry)
    auxiliary = stages.pop("auxiliary", None)
    # Not the seed of the stages: the head's random weights would repeat their first numbers.
    with seeded(seed ^ 1):
        if auxiliary is not None:
            last = auxiliary.get_submodule("fc")
            assert isinstance(last, nn.Linear)  # in all of torchvision's auxiliary classifiers
            width = last.in_features
            auxiliary.fc = SigmoidHead(width) if one_output else nn.Linear(width, n_classes)
        network = Radiograph(
            stages,
            entry.n_features,
            n_classes,
            dropout=dropout,
            augmentation=augmentation,
            name=backbone,
            mean=entry.mean,
            std=entry.std,
            auxiliary=auxiliary,
            auxiliary_after=entry.auxiliary_after,
            one_output=one_output,
        )
    frozen = network.stages_before(unfreeze) if share_frozen else []
    for name, stage in network.stages.items():
        # Shared memory, too, gets a tensor object of its own, so that `unshare_weights` can replace it.
        own_tensor = torch.Tensor.detach if name in frozen else torch.Tensor.clone
        stage.load_state_dict(
            {key: own_tensor(value) for key, value in shared.state[name].items()}, assign=True
        )
    if auxiliary is not None:
        state = {key: value.clone() for key, value in shared.state["auxiliary"].items()}
        auxiliary.load_state_dict(state, assign=True, strict=False)
    mark_shared(network, shared, frozen)
    # A last layer for another number of classes (ImageNet has 1,000) is not loaded: the head keeps its random
    # weights.
    if {key: value.shape for key, value in last_layer.items()} == {
        key: value.shape for key, value in network.head.state_dict().items()
    }:
        network.head.load_state_dict(last_layer)
    return network.freeze_below(unfreeze)
