"""Weights of backbones: downloaded, read from a file or drawn, once a process."""

import copy
import os
from collections import OrderedDict
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..io._safetensors import is_model, known_patients, opened, prefix_of, single_model
from ..utils._threading import Lock
from ._frozen import SharedWeights

# Backbones whose weights are kept for the next network: cross-validation builds one after another.
_MOST_KEPT = 2

# Last layers of auxiliary classifiers, which are for other classes too.
_AUXILIARY_LAST = ("auxiliary.fc.", "AuxLogits.fc.")

_kept = OrderedDict()

_keeping = Lock()

_seeding = Lock()


def backbone_weights(entry, weights, seed):
    """Return the weights of a backbone's stages and, where there are any, of a head.

    Parameters
    ----------
    entry : Backbone
    weights : "imagenet", path-like, or None
    seed : int
        Of random weights.

    Returns
    -------
    shared : SharedWeights
        To be copied before they are changed.
    head : dict of str to Tensor
        Empty, or the state of a last layer.
    """
    key = entry, _identity(weights, seed)
    with _keeping:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    found = _read(entry, weights, seed)
    with _keeping:
        # Another thread may have been as quick: then all share what it has read.
        found = _kept.setdefault(key, found)
        _kept.move_to_end(key)
        while len(_kept) > _MOST_KEPT:
            _kept.popitem(last=False)
    return found


def empty_stages(entry):
    """Return the stages of a backbone without memory, for weights to be assigned."""
    # Building draws weights even where there is no memory, and takes three times as long as a copy.
    return copy.deepcopy(_built(entry))


@lru_cache(maxsize=_MOST_KEPT)
def _built(entry):
    with torch.device("meta"):
        return entry.take_apart(entry.build())


def forget_weights():
    """Drop the weights that are kept for the next network."""
    _kept.clear()


@contextmanager
def seeded(seed, device="cpu"):
    """Make repeatable what takes no generator of its own: initialisers, and layers that drop paths."""
    device = torch.device(device)
    on_gpu = device.type == "cuda"
    with _seeding, torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def known_in(weights):
    """Return the patients that a model's weights come from: trained on, and those who chose an epoch.

    Parameters
    ----------
    weights : "imagenet", path-like, or None

    Returns
    -------
    known : tuple of two (ndarray or None), or None
        Names or hashes. None: the weights do not say.
    """
    if weights is None or weights == "imagenet":
        return None
    path = os.path.expanduser(os.fspath(weights))
    if not is_model(path):
        return None
    with opened(path) as file:
        trained, held = known_patients(single_model(file)).values()
    if trained is None:
        return None
    return np.array(trained, dtype=object), None if held is None else np.array(held, dtype=object)


def _identity(weights, seed):
    if weights is None:
        return None, seed
    if weights == "imagenet":
        return weights, None
    path = os.path.abspath(os.path.expanduser(os.fspath(weights)))
    try:
        found = os.stat(path)
    except OSError:
        return path, None
    return path, (found.st_size, found.st_mtime_ns)


def _read(entry, weights, seed):
    if weights is None:
        with seeded(seed):
            return _split(entry.take_apart(entry.build())), {}
    state = _imagenet_state(entry) if weights == "imagenet" else _file_state(weights)
    with torch.device("meta"):
        model = entry.build()
    return _fill(model, entry, state, weights)


def _split(stages):
    """Return the weights of modules, channels last, as convolutions are fastest with."""

    def laid_out(tensor):
        tensor = tensor.detach()
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

    return SharedWeights(
        {
            name: {
                key: laid_out(value)
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
    state = _safetensors_state(path) if path.endswith(".safetensors") else _torch_state(path)
    # DataParallel's names.
    return {key.removeprefix("module."): value for key, value in state.items()}


def _torch_state(path):
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
    return state


def _safetensors_state(path):
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"weights={path!r} cannot be read as a file of safetensors ({error}). Was it cut short on the way? Fetch "
            "it anew."
        ) from error


def _fill(model, entry, state, weights):
    """Take a state dict of the model, or one of `Radiograph`, with or without a last layer."""
    own = any(key.startswith(f"stages.{entry.stages[0]}.") for key in state)
    parts = torch.nn.ModuleDict(entry.take_apart(model))
    if own:
        target, last = parts, "head."
        expected = {_own_name(key): value for key, value in parts.state_dict().items()}
    else:
        target, last = model, f"{entry.last_layer}."
        expected = model.state_dict()
    lasts = (last, *_AUXILIARY_LAST)
    expected = {key: value for key, value in expected.items() if not key.startswith(lasts)}
    head = {key.removeprefix(last): value for key, value in state.items() if key.startswith(last)}
    rest = {key: value for key, value in state.items() if not key.startswith(lasts)}
    # Files from before PyTorch 0.4.1 lack the counters; they play no part in the computation.
    missing = [key for key in expected if key not in rest and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in rest if key not in expected]
    shapes = [key for key in rest if key in expected and rest[key].shape != expected[key].shape]
    if missing or unexpected or shapes:
        raise ValueError(
            f"weights={str(weights)!r} does not fit {entry.name}: {len(missing)} entries are missing "
            f"{missing[:3]}, {len(unexpected)} are unknown {unexpected[:3]}, {len(shapes)} have another "
            f"shape {shapes[:3]}. Pass a state dict of that model."
        )
    full = {
        key.removeprefix("stages.") if own else key: rest[key].to(like.dtype)
        if key in rest
        else torch.zeros((), dtype=like.dtype)
        for key, like in expected.items()
    }
    target.load_state_dict(full, strict=False, assign=True)
    return _split(parts), {key: value.to(torch.float32) for key, value in head.items()}


def _own_name(key):
    return key if key.startswith("auxiliary.") else f"stages.{key}"
