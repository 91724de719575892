"""Weights of backbones: downloaded, read from a file or random; kept in memory for the next network."""

import copy
import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ..io._safetensors import damage_of, is_model, known_patients, opened, prefix_of, single_model
from ..utils._threading import Lock
from ._backbones import Backbone
from ._frozen import SharedWeights

# Number of backbones whose weights stay in memory: a cross-validation builds one network after another.
_MAX_CACHED = 2

# Last layers of auxiliary classifiers: they have an output for each class, so they are never loaded.
_AUXILIARY_LAST = ("auxiliary.fc.", "AuxLogits.fc.")

# Files from before PyTorch 0.4.1 lack BatchNorm's counters, which do not influence the output.
_NOT_NEEDED = "num_batches_tracked"

# Names under which training scripts save a state dict beside the epoch, the optimizer and so on.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")

# Names of DenseNet's layers in old files, such as CheXNet's: "denselayer1.norm.1.weight".
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")

_weights_cache: OrderedDict = OrderedDict()

_cache_lock = Lock()

_seed_lock = Lock()


def backbone_weights(
    entry: Backbone, weights: str | os.PathLike[str] | None, seed: int
) -> tuple[SharedWeights, dict[str, torch.Tensor]]:
    """Return the weights of a backbone's stages and, if `weights` has one, of the last layer.

    Parameters
    ----------
    entry : Backbone
    weights : "imagenet", path-like, or None
        ImageNet weights, the file of a state dict, or random weights.
    seed : int
        Seed of the random weights.

    Returns
    -------
    shared : SharedWeights
        Read-only: copy them before changing them.
    last_layer : dict of str to Tensor
        State dict of the last layer; empty where there is none.
    """
    key = entry, _weights_key(weights, seed)
    with _cache_lock:
        if key in _weights_cache:
            _weights_cache.move_to_end(key)
            return _weights_cache[key]
    loaded = _load_weights(entry, weights, seed)
    with _cache_lock:
        # Another thread may have loaded them meanwhile: then both share the first copy.
        loaded = _weights_cache.setdefault(key, loaded)
        _weights_cache.move_to_end(key)
        while len(_weights_cache) > _MAX_CACHED:
            _weights_cache.popitem(last=False)
    return loaded


def meta_stages(entry: Backbone) -> dict[str, nn.Module]:
    """Return the stages of a backbone on the meta device, for ``load_state_dict(assign=True)``."""
    # A copy: building a model runs its initialisers even on the meta device, which takes three times as long.
    return copy.deepcopy(_build_on_meta(entry))


@lru_cache(maxsize=_MAX_CACHED)
def _build_on_meta(entry: Backbone) -> dict[str, nn.Module]:
    with torch.device("meta"):
        return entry.take_apart(entry.build())


def clear_weights_cache() -> None:
    """Drop the weights that are in memory for the next network."""
    _weights_cache.clear()


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed PyTorch's global generator inside a with block, and restore its state on exit.

    For code that takes no generator: initialisers, dropout and stochastic depth.
    """
    device = torch.device(device)
    on_gpu = device.type == "cuda"
    with _seed_lock, torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def patients_of_weights(
    weights: str | os.PathLike[str] | None,
) -> tuple[NDArray[np.object_], NDArray[np.object_] | None] | None:
    """Return the patients whose images a saved model was trained and validated on.

    Parameters
    ----------
    weights : "imagenet", path-like, or None

    Returns
    -------
    patients : tuple of (ndarray, ndarray or None), or None
        Names or hashes of the patients of the training images, and of those of the validation images,
        which chose the best epoch. None: the weights do not record it.
    """
    if weights is None or weights == "imagenet":
        return None
    path = os.path.expanduser(os.fspath(weights))
    if not is_model(path):
        return None
    with opened(path) as file:
        train, valid = known_patients(single_model(file)).values()
    if train is None:
        return None
    return np.array(train, dtype=object), None if valid is None else np.array(valid, dtype=object)


def _weights_key(weights, seed):
    """Return a key of the weights: equal where loading them gives the same weights."""
    if weights is None:
        return None, seed
    if weights == "imagenet":
        return weights, None
    path = os.path.abspath(os.path.expanduser(os.fspath(weights)))
    try:
        status = os.stat(path)
    except OSError:
        return path, None
    return path, (status.st_size, status.st_mtime_ns)


def _load_weights(entry, weights, seed):
    if weights is None:
        with seeded(seed):
            return _shared_weights(entry.take_apart(entry.build())), {}
    state = _imagenet_state(entry) if weights == "imagenet" else _file_state(weights)
    with torch.device("meta"):
        model = entry.build()
    return _load_into(model, entry, state, weights)


def _shared_weights(stages: Mapping[str, nn.Module]) -> SharedWeights:
    """Return the weights of stages, in channels-last format, the fastest for convolutions."""

    def channels_last(tensor):
        tensor = tensor.detach()
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

    return SharedWeights(
        {
            name: {
                key: channels_last(value)
                for key, value in stage.state_dict().items()
                if not f"{name}.{key}".startswith(_AUXILIARY_LAST)
            }
            for name, stage in stages.items()
        }
    )


def _imagenet_state(entry):
    if entry.imagenet is None:
        raise ValueError(
            f"weights='imagenet': there are no such weights for backbone={entry.name!r}. Set weights=None and "
            "unfreeze='all', to train it from scratch, or pass the path of a state dict."
        )
    return entry.imagenet()


def _file_state(path):
    path = os.path.expanduser(os.fspath(path))
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"weights={path!r}: there is no such file. Pass 'imagenet', None, or the path of a state dict "
            "saved with torch.save(model.state_dict(), path), or of what murakit.save_model wrote."
        )
    if is_model(path):
        with opened(path) as file:
            single_model(file)
            return {key.removeprefix(prefix_of(0)): value for key, value in file.tensors().items()}
    return _safetensors_state(path) if path.endswith(".safetensors") else _torch_state(path)


def _torch_state(path):
    try:
        # Without weights_only, a file of weights could run code.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"weights={path!r} cannot be read as a state dict ({type(error).__name__}). Save it with "
            "torch.save(model.state_dict(), path); whole pickled models are not loaded: they can run code."
        ) from error
    return _unwrapped(state, path)


def _unwrapped(state, path):
    """Return the state dict inside of a checkpoint such as ``{"epoch": 1, "model_state_dict": ...}``."""
    while isinstance(state, Mapping):
        if state and all(isinstance(value, torch.Tensor) for value in state.values()):
            return dict(state)
        inner = [name for name in _WRAPPERS if isinstance(state.get(name), Mapping)]
        if len(inner) > 1:
            raise ValueError(
                f"weights={path!r} holds several state dicts {inner}. Save the one that is meant alone, with "
                "torch.save(model.state_dict(), path)."
            )
        if not inner:
            raise ValueError(
                f"weights={path!r} holds no state dict (a dict of names to tensors), alone or as one of "
                f"{list(_WRAPPERS)}: its keys are {list(state)[:3]}. Save it with torch.save(model.state_dict(), path)."
            )
        state = state[inner[0]]
    raise ValueError(
        f"weights={path!r} holds no state dict (a dict of names to tensors) but a {type(state).__name__}. Save it with "
        "torch.save(model.state_dict(), path)."
    )


def _safetensors_state(path):
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"weights={path!r} cannot be read as a safetensors file ({error}). It may have been truncated while it "
            "was copied or downloaded: fetch it again."
        ) from error


def _load_into(model, entry, state, weights):
    """Check a state dict, load it into a backbone's model, and return the weights by stage.

    The state dict is that of the model or of `Radiograph`, with or without a last layer, and with or without a
    prefix before every name.
    """
    _check_sound(state, weights)
    state = {_OLD_DENSENET.sub(r"\1\2.", key): value for key, value in state.items()}
    parts = torch.nn.ModuleDict(entry.take_apart(model))
    layouts = [
        (model, f"{entry.last_layer}.", model.state_dict()),
        (parts, "head.", {_key_in_radiograph(key): value for key, value in parts.state_dict().items()}),
    ]
    if any(f"stages.{entry.stages[0]}." in key for key in state):
        layouts.reverse()
    target, last, names = next((each for each in layouts if _prefixes(state, *each[1:])), layouts[0])
    prefixes = _prefixes(state, last, names)
    if len(prefixes) > 1:
        raise ValueError(
            f"weights={str(weights)!r} holds several networks that fit {entry.name}, whose names begin with "
            f"{prefixes}. Save the state dict of the one that is meant alone."
        )
    own = _without_prefix(state, prefixes[0]) if prefixes else state
    head = {key.removeprefix(last): value for key, value in own.items() if key.startswith(last)}
    rest, expected = _without_last(own, last), _without_last(names, last)
    _check_fit(rest, expected, entry, weights)
    full = {
        key.removeprefix("stages.") if target is parts else key: rest[key].to(like.dtype)
        if key in rest
        else torch.zeros((), dtype=like.dtype)
        for key, like in expected.items()
    }
    head = {key: value.to(torch.float32) for key, value in head.items()}
    # Again: the conversion makes infinities of numbers that are too large.
    _check_sound({**full, **{last + key: value for key, value in head.items()}}, weights)
    target.load_state_dict(full, strict=False, assign=True)
    return _shared_weights(parts), head


def _check_sound(state, weights):
    if damage := damage_of(state):
        raise ValueError(
            f"weights={str(weights)!r}: {damage}. The training that made it failed, or the file was damaged: fetch it "
            "again, or pass other weights."
        )


def _without_last(state, last):
    return {key: value for key, value in state.items() if not key.startswith((last, *_AUXILIARY_LAST))}


def _prefixes(state, last, names):
    """Return the prefixes, such as "module.", with which a state dict has every name but those of the last layer."""
    needed = [key for key in _without_last(names, last) if not key.endswith(_NOT_NEEDED)]
    candidates = [key.removesuffix(needed[0]) for key in state if key.endswith(needed[0])]
    return [
        prefix
        for prefix in candidates
        if (not prefix or prefix.endswith(".")) and all(prefix + key in state for key in needed)
    ]


def _without_prefix(state, prefix):
    """Return a state dict with a prefix taken off its names."""
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    for key, value in state.items():
        if not key.startswith(prefix):
            # A head beside the backbone may keep its name, but never take the place of another layer.
            own[key if key not in own else f"{prefix}{key} beside {key}"] = value
    return own


def _check_fit(state, expected, entry, weights):
    missing = [key for key in expected if key not in state and not key.endswith(_NOT_NEEDED)]
    unexpected = [key for key in state if key not in expected]
    shapes = [
        f"{key}: {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in state
        if key in expected and state[key].shape != expected[key].shape
    ]
    if missing or unexpected or shapes:
        raise ValueError(
            f"weights={str(weights)!r} does not fit {entry.name}: {len(missing)} entries are missing "
            f"{missing[:3]}, {len(unexpected)} are unknown {unexpected[:3]}, {len(shapes)} have another "
            f"shape {shapes[:3]}. Pass the state dict of that model alone: the file's names begin with "
            f"{list(state)[:3]}, and those of {entry.name} with {list(expected)[:3]}."
        )


def _key_in_radiograph(key):
    return key if key.startswith("auxiliary.") else f"stages.{key}"
