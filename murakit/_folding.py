"""What is derived from the weights of stages: their folded form for evaluation, and their hash."""

import copy
import hashlib
import weakref

import torch
from torch import fx, nn
from torch.nn.utils import fuse_conv_bn_eval


class Derived:
    """What was derived from the weights of some stages, by stage."""

    def __init__(self):
        self.folded = {}
        self.hashes = {}
        self.sessions = {}
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


def _fold(stage):
    # A copy: what is not folded must not share memory with a stage that is trained later.
    stage = copy.deepcopy(stage).eval().requires_grad_(False)
    try:
        traced = fx.symbolic_trace(stage)
    except Exception:
        # Control flow that depends on the data: such a stage runs unfolded.
        return stage.to(memory_format=torch.channels_last)
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        before = node.args[0]
        if before.op != "call_module" or not isinstance(modules[before.target], nn.Conv2d):
            continue
        # A convolution that something else reads as well, or that runs twice, keeps its own output.
        uses = sum(
            other.op == "call_module" and other.target == before.target for other in traced.graph.nodes
        )
        if len(before.users) > 1 or uses > 1:
            continue
        traced.set_submodule(before.target, fuse_conv_bn_eval(modules[before.target], modules[node.target]))
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced.to(memory_format=torch.channels_last)
