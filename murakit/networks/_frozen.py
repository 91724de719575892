"""What is derived from the weights of stages: their folded form for evaluation, and their hash."""

import copy
import hashlib
import weakref

import torch

from ._fuse import _fold, _take_grey

# Raised with every change of last bits in what folded stages compute; stored activations carry it.
ARITHMETIC = 4


class Derived:
    """What was derived from the weights of some stages, by stage."""

    def __init__(self):
        self.folded = {}
        self.hashes = {}
        self.sessions = {}
        self.shapes = {}
        self.probe = None


class SharedWeights:
    """Weights that the frozen stages of many networks have in common; nobody may change them.

    Parameters
    ----------
    state : dict of str to dict
        State dict of each stage.
    """

    def __init__(self, state):
        self.state = state
        self.derived = Derived()


# Kept beside the networks, not in them: never saved or copied with them.
_own = weakref.WeakKeyDictionary()

_shared = weakref.WeakKeyDictionary()


def share(network, weights, names):
    """Note that some stages of a network have shared weights."""
    if names:
        _shared[network] = weights, frozenset(names)


def make_own(network):
    """Give a network weights of its own, which may be changed without changing another's."""
    _, names = _shared.pop(network, (None, ()))
    for name in names:
        for tensor in network.stages[name].state_dict(keep_vars=True).values():
            tensor.data = tensor.data.clone()


def fold(network, name):
    """Return a stage of a network as it is in evaluation: BatchNorms folded, channels last."""
    place = next((str(t.device) for t in network.stages[name].parameters()), "cpu")
    folded = _derived(network, name, place).folded
    if (name, place) not in folded:
        with torch.inference_mode(False), torch.no_grad():
            folded[name, place] = _fold(network.stages[name])
    return folded[name, place]


def fold_entry(network, name):
    """Return the first stage, folded, for grey values from 0 to 1, or None where it is not of that kind."""
    folded = _derived(network, name, "cpu").folded
    if ("entry", name) not in folded:
        with torch.inference_mode(False), torch.no_grad():
            folded["entry", name] = _take_grey(copy.deepcopy(fold(network, name)), network.mean, network.std)
    return folded["entry", name]


def weights_hash(network, names):
    """Return a hash of the weights of some stages of a network, and of what they are."""
    digest = hashlib.sha256(network.name.encode())
    for name in names:
        hashes = _derived(network, name).hashes
        if name not in hashes:
            hashes[name] = _hash(network.stages[name])
        digest.update(f"{name} {hashes[name]}".encode())
    return digest.hexdigest()


def sessions(network):
    """Return what other runtimes have made of a network, a dict to be added to."""
    return _own.setdefault(network, Derived()).sessions


def shapes(network, names):
    """Return the shapes of what some stages of a network make of images, a dict to be added to."""
    return _derived(network, names[-1] if names else "").shapes


def forget(network):
    """Drop what was derived from a network's own weights."""
    _own.pop(network, None)


def refresh(network):
    """Drop what was derived from a network's own weights where they have been changed since."""
    if network in _shared:
        return
    probe = [
        (tensor.data_ptr(), tensor._version, float(tensor.detach().sum(dtype=torch.float64)))
        for tensor in network.state_dict(keep_vars=True).values()
    ]
    derived = _own.setdefault(network, Derived())
    if derived.probe != probe:
        _own[network] = derived = Derived()
        derived.probe = probe


def _derived(network, name, place="cpu"):
    weights, names = _shared.get(network, (None, ()))
    if name in names and place == "cpu":
        return weights.derived
    return _own.setdefault(network, Derived())


def _hash(stage):
    digest = hashlib.sha256()
    for key, tensor in stage.state_dict().items():
        # Counters play no part in the computation, and not every file has them.
        if not key.endswith("num_batches_tracked"):
            digest.update(f"{key} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()
