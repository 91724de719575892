"""A training that goes on where it was interrupted: its whole state, written after each epoch."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from skorch.history import History

from ..io._atomic import written_whole

# Raised with every change of what a checkpoint holds.
FORMAT = 1


class Checkpoint:
    """The file that one training is kept in.

    Parameters
    ----------
    folder : path-like
        Made where it is not there.
    about : list
        What decides the course of the training, as texts, bytes and arrays: the file is named by it, so that
        the folds of a cross-validation, and fits of other settings, never take up each other's state.
    """

    def __init__(self, folder, about):
        self.folder = Path(folder).expanduser()
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(
                f"checkpoint={str(folder)!r} is a file: pass a folder, which is made where there is none."
            )
        digest = hashlib.sha256(f"format {FORMAT}".encode())
        for part in about:
            digest.update(part.encode("utf-8", "surrogateescape") if isinstance(part, str) else _bytes(part))
        self.path = self.folder / f"{digest.hexdigest()[:32]}.pt"

    def read(self):
        """Return the state of an interrupted training, or None where there is none."""
        if not self.path.exists():
            return None
        try:
            # weights_only: such a file must not be able to run code.
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError(
                f"checkpoint: {str(self.path)!r} cannot be read ({type(error).__name__}). Delete it to train from the "
                "beginning."
            ) from error

    def write(self, state):
        """Keep the state of a training; a file of an earlier epoch stays whole until this one is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with written_whole(self.path, overwrite=True) as unfinished:
            torch.save(state, unfinished)

    def remove(self):
        """Delete the file: the training has come to its end."""
        self.path.unlink(missing_ok=True)


def _bytes(part):
    return part if isinstance(part, bytes) else np.ascontiguousarray(part).data


def weights_of(network):
    """Return the arrays of a network, in order, to be part of what a checkpoint is named by."""
    return [tensor.detach().cpu().numpy() for tensor in network.state_dict().values()]


def state_of(net):
    """Return the state of a `TrainingNet` between two epochs, as tensors and plain values."""
    average = net.average_
    return {
        "module": net.module_.trained_state(net.unfreeze),
        "optimizer": net.optimizer_.state_dict(),
        "plateau": net.plateau_ and net.plateau_.state_dict(),
        "steps": net.steps_ and net.steps_.state_dict(),
        "average": average and {"tensors": average.average, "n_steps": average.n_steps},
        "best": {"score": net.best_score_, "epoch": net.best_epoch_, "state": net.best_state_},
        "epochs_without_gain": net.epochs_without_gain_,
        "history": json.dumps([dict(row) for row in net.history], default=_plain),
        "order": json.dumps(net.rng.bit_generator.state),
        "generator": net.module_.generator.get_state(),
    }


def restore(net, state):
    """Bring an initialised `TrainingNet` into a state; ``steps_`` is given its own when it is made."""
    net.history_ = History(json.loads(state["history"]))
    if len(net.history) > net.head_epochs > 0:
        net._start_phase(head_only=False)
    net.module_.load_state_dict(state["module"], strict=False)
    net.optimizer_.load_state_dict(state["optimizer"])
    # Those of the head's phase end with it.
    net.kept_steps_ = None if len(net.history) == net.head_epochs else state["steps"]
    if net.plateau_ is not None:
        net.plateau_.load_state_dict(state["plateau"])
    if net.average_ is not None:
        for tensor, kept in zip(net.average_.average, state["average"]["tensors"]):
            tensor.copy_(kept)
        net.average_.n_steps = state["average"]["n_steps"]
    best = state["best"]
    net.best_score_, net.best_epoch_, net.best_state_ = best["score"], best["epoch"], best["state"]
    net.epochs_without_gain_ = state["epochs_without_gain"]
    net.rng.bit_generator.state = json.loads(state["order"])
    net.module_.generator.set_state(state["generator"])


def _plain(value):
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be kept in a checkpoint")
