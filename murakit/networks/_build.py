"""A network is found by its name, listed, and built."""

import pandas as pd
import torch
from torch import nn

from ._backbones import BACKBONES
from ._frozen import share
from ._network import Radiograph, SigmoidHead
from ._pretrained import backbone_weights, empty_stages, seeded
from ._timm import PREFIX, timm_backbone


def find_backbone(name):
    """Return the entry of a backbone; raise where there is none of that name."""
    if name.startswith(PREFIX):
        return timm_backbone(name)
    if name not in BACKBONES:
        raise ValueError(
            f"backbone={name!r} is not known; choose one of {sorted(BACKBONES)}, or 'timm/NAME' with any model "
            "of timm."
        )
    return BACKBONES[name]


def list_backbones():
    """List the backbones that a `MuraClassifier` can be built on, but for those of timm.

    ``backbone="timm/NAME"`` takes any model of timm (``pip install 'murakit[timm]'``), whose own
    ``timm.list_models()`` lists them.

    Returns
    -------
    backbones : DataFrame
        Indexed by name, with the columns ``stages`` (legal values of ``unfreeze``, beside "all" and
        "head"; from the image to the features), ``parameters`` (number of weights without the head),
        ``features`` (inputs of the head) and ``input_size`` (side in pixels, where ``image_size=None``).

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
    backbone,
    n_classes,
    *,
    weights,
    unfreeze,
    dropout,
    augmentation,
    seed,
    share_frozen=False,
    one_output=False,
):
    """Build a network with its weights.

    Parameters
    ----------
    backbone : str
        A name in `BACKBONES`, or "timm/NAME".
    n_classes : int
    weights : "imagenet", path-like, or None
        ImageNet weights, the file of a state dict, or random weights.
    unfreeze : str
        The first stage to train, see `Radiograph.freeze_below`.
    dropout : float
    augmentation : Module or None
    seed : int
        Seed of the random weights; the caller's random state is left as it is.
    share_frozen : bool
        Let the frozen stages share their weights with other networks, instead of copying them; see
        `murakit.networks._frozen.make_own`.
    one_output : bool
        Give the head one output for two classes.

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
    entry = find_backbone(backbone)
    if unfreeze not in (*entry.stages, "head", "all"):
        raise ValueError(
            f"unfreeze={unfreeze!r} is no stage of {backbone}: choose 'all', 'head' or one of "
            f"{list(entry.stages)}, or None for the later half of them."
        )
    shared, last_layer = backbone_weights(entry, weights, seed)
    if backbone.startswith(PREFIX):
        # timm's models hold more than weights, such as tables of positions that no state dict has.
        with seeded(seed):
            stages = entry.take_apart(entry.build())
    else:
        stages = empty_stages(entry)
    auxiliary = stages.pop("auxiliary", None)
    # Another seed than that of random stages, whose first numbers the head would repeat.
    with seeded(seed ^ 1):
        if auxiliary is not None:
            width = auxiliary.fc.in_features
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
    frozen = network.before(unfreeze) if share_frozen else []
    for name, stage in network.stages.items():
        # Other tensors even where their memory is shared, so that `make_own` can part them.
        take = torch.Tensor.detach if name in frozen else torch.Tensor.clone
        stage.load_state_dict({key: take(value) for key, value in shared.state[name].items()}, assign=True)
    if auxiliary is not None:
        own = {key: value.clone() for key, value in shared.state["auxiliary"].items()}
        auxiliary.load_state_dict(own, assign=True, strict=False)
    share(network, shared, frozen)
    # A last layer for other classes (ImageNet's 1,000) is of no use here: the head stays new.
    if {key: value.shape for key, value in last_layer.items()} == {
        key: value.shape for key, value in network.head.state_dict().items()
    }:
        network.head.load_state_dict(last_layer)
    return network.freeze_below(unfreeze)
