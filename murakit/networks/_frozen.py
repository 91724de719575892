"""Cache of what is computed from the weights of stages: fused modules, hashes, output shapes, ONNX sessions."""

import copy
import hashlib
import weakref
from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import nn

from ._fuse import fuse_batch_norms, grey_stage

# Version of the last bits that fused stages compute. Raise it with every change of them: it is part of
# the keys under which activations are stored.
ARITHMETIC = 4


class StagedNetwork(Protocol):
    """Attributes of a `Radiograph` that this module uses. That module cannot be imported: it imports this one."""

    name: str
    stages: nn.ModuleDict
    mean: torch.Tensor
    std: torch.Tensor


class StageCache:
    """Cache of what was computed from the weights of some stages.

    Attributes
    ----------
    fused : dict
        Stages with fused BatchNorms, see `fused_stage` and `fused_grey_stage`.
    hashes : dict of str to str
        Hash of the weights of each stage.
    sessions : dict
        ONNX Runtime's sessions of the network.
    shapes : dict
        Shapes of the activations of one image, see `Radiograph.shape_before`.
    tensor_versions : list or None
        State of the tensors when the cache was filled: `drop_if_changed` compares it.
    """

    def __init__(self) -> None:
        self.fused: dict = {}
        self.hashes: dict[str, str] = {}
        self.sessions: dict = {}
        self.shapes: dict = {}
        self.tensor_versions: list | None = None


class SharedWeights:
    """Read-only weights that the frozen stages of many networks share.

    Sharing saves time at every fit of a cross-validation: the frozen stages of a ResNet18 are built,
    fused and hashed in 3 ms when they are shared, and in 750 ms when they are not (two busy cores).

    Parameters
    ----------
    state : dict of str to dict
        State dict of each stage.
    """

    def __init__(self, state: dict[str, dict[str, torch.Tensor]]) -> None:
        self.state = state
        self.cache = StageCache()


# Both lie beside the networks, not in them, so that they are never pickled or copied with a network.
_caches: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

_shared: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def mark_shared(network: StagedNetwork, weights: SharedWeights, names: Sequence[str]) -> None:
    """Record that some stages of a network use shared weights, and may use what is cached with them."""
    if names:
        _shared[network] = weights, frozenset(names)


def unshare_weights(network: StagedNetwork) -> None:
    """Copy the shared weights of a network, which may then be changed without changing other networks.

    See `SharedWeights` for what sharing saves.
    """
    _, names = _shared.pop(network, (None, ()))
    for name in names:
        for tensor in network.stages[name].state_dict(keep_vars=True).values():
            tensor.data = tensor.data.clone()


def fused_stage(network: StagedNetwork, name: str) -> nn.Module:
    """Return a stage in its form for evaluation: BatchNorms fused into convolutions, channels last."""
    device = next((str(t.device) for t in network.stages[name].parameters()), "cpu")
    fused = _cache_of(network, name, device).fused
    if (name, device) not in fused:
        with torch.inference_mode(False), torch.no_grad():
            fused[name, device] = fuse_batch_norms(network.stages[name])
    return fused[name, device]


def fused_grey_stage(network: StagedNetwork, name: str) -> nn.Module | None:
    """Return the first stage, fused, for one channel of grey values in [0, 1].

    None where the stage does not begin with a convolution that `grey_stage` can convert.
    """
    fused = _cache_of(network, name, "cpu").fused
    if ("entry", name) not in fused:
        with torch.inference_mode(False), torch.no_grad():
            stage = copy.deepcopy(fused_stage(network, name))
            fused["entry", name] = grey_stage(stage, network.mean, network.std)
    return fused["entry", name]


def weights_hash(network: StagedNetwork, names: Iterable[str]) -> str:
    """Return a hash of the backbone's name, and of the names and weights of some of its stages."""
    digest = hashlib.sha256(network.name.encode())
    for name in names:
        hashes = _cache_of(network, name).hashes
        if name not in hashes:
            hashes[name] = _hash(network.stages[name])
        digest.update(f"{name} {hashes[name]}".encode())
    return digest.hexdigest()


def session_cache(network: nn.Module) -> dict:
    """Return the dict of a network's ONNX Runtime sessions, for the caller to fill."""
    return _caches.setdefault(network, StageCache()).sessions


def shape_cache(network: StagedNetwork, names: Sequence[str]) -> dict:
    """Return the dict of the output shapes of some stages of a network, for the caller to fill."""
    return _cache_of(network, names[-1] if names else "").shapes


def drop_cache(network: nn.Module) -> None:
    """Drop what was computed from a network's own weights; what was computed from shared ones stays."""
    _caches.pop(network, None)


def drop_if_changed(network: nn.Module) -> None:
    """Drop what was computed from a network's own weights if these have been changed since."""
    if network in _shared:
        return
    versions = [
        (tensor.data_ptr(), tensor._version, float(tensor.detach().sum(dtype=torch.float64)))
        for tensor in network.state_dict(keep_vars=True).values()
    ]
    cache = _caches.setdefault(network, StageCache())
    if cache.tensor_versions != versions:
        _caches[network] = cache = StageCache()
        cache.tensor_versions = versions


def _cache_of(network: StagedNetwork, name: str, device: str = "cpu") -> StageCache:
    weights, names = _shared.get(network, (None, ()))
    if name in names and device == "cpu":
        return weights.cache
    return _caches.setdefault(network, StageCache())


def _hash(stage: nn.Module) -> str:
    digest = hashlib.sha256()
    for key, tensor in stage.state_dict().items():
        # BatchNorm's counters do not influence the output, and some files of weights lack them.
        if not key.endswith("num_batches_tracked"):
            digest.update(f"{key} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()
