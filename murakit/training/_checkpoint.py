"""Checkpoints: the state of a training, written after each epoch, to resume an interrupted training."""

import hashlib
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.history import History
from torch import nn

from ..io._atomic import written_whole

if TYPE_CHECKING:
    from skorch import NeuralNet

# Version of a checkpoint's contents. Raise it with every change of them.
# 2: a SHA-256 of the contents at the end, because PyTorch notices no bit that was flipped in a tensor.
FORMAT = 2

_DIGEST_BYTES = 32


class Checkpoint:
    """Checkpoint file of one training.

    Parameters
    ----------
    folder : path-like
        Created if it does not exist.
    settings : iterable of str, bytes or ndarray
        All that decides the result of the training: parameters, data and initial weights. The name of the
        file is its hash, so a fold of a cross-validation, or a fit with other parameters, never resumes
        another one's training.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: Iterable[str | bytes | NDArray]) -> None:
        if not str(folder) or "\0" in str(folder):
            raise ValueError(
                f"checkpoint={str(folder)!r} is no name that a folder can have: pass the path of one."
            )
        self.folder = Path(folder).expanduser()
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(
                f"checkpoint={str(folder)!r} is a file: pass a folder, which is created if it does not exist."
            )
        digest = hashlib.sha256(f"format {FORMAT}".encode())
        for part in settings:
            digest.update(part.encode("utf-8", "surrogateescape") if isinstance(part, str) else _bytes(part))
        self.path = self.folder / f"{digest.hexdigest()[:32]}.pt"

    def read(self) -> dict[str, Any] | None:
        """Return the state of the interrupted training, or None if there is no checkpoint.

        Raises
        ------
        ValueError
            For a damaged file.
        OSError
            For a file that cannot be read.
        """
        if not self.path.is_file():
            return None
        written = memoryview(self.path.read_bytes())
        content, digest = written[:-_DIGEST_BYTES], written[-_DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            raise ValueError(
                f"checkpoint: {str(self.path)!r} is damaged: its content does not match its checksum. Delete it to "
                "train from the beginning."
            )
        try:
            # Without weights_only, a file could run code.
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError(
                f"checkpoint: {str(self.path)!r} cannot be read ({type(error).__name__}). Delete it to train from the "
                "beginning."
            ) from error

    def write(self, state: dict[str, Any]) -> None:
        """Write the state of a training; the file of the epoch before is replaced only when this is done.

        Raises
        ------
        OSError
            Where it cannot be written, such as on a full disk.
        """
        content = io.BytesIO()
        torch.save(state, content)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with written_whole(self.path, overwrite=True) as unfinished, open(unfinished, "wb") as file:
                file.write(content.getbuffer())
                file.write(hashlib.sha256(content.getbuffer()).digest())
        except OSError as error:
            if error.errno is None:
                raise
            kept = (
                "is kept: the same fit goes on from it"
                if self.path.is_file()
                else "would have been the first"
            )
            raise OSError(
                error.errno,
                f"checkpoint: {str(self.path)!r} cannot be written ({os.strerror(error.errno)}). Make room on that "
                f"disk, allow writing there, or pass another folder. The state of the epoch before {kept}.",
            ) from error

    def remove(self) -> None:
        """Delete the file, after the training is complete."""
        self.path.unlink(missing_ok=True)


def _bytes(part):
    return part if isinstance(part, bytes) else np.ascontiguousarray(part).data


def weight_arrays(network: nn.Module) -> list[NDArray]:
    """Return the arrays of a network's state dict, for the `settings` of a `Checkpoint`."""
    return [tensor.detach().cpu().numpy() for tensor in network.state_dict().values()]


def training_state(net: "NeuralNet") -> dict[str, Any]:
    """Return the state of a `TrainingNet` after an epoch, as tensors and plain values."""
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


def restore_training(net: "NeuralNet", state: dict[str, Any]) -> None:
    """Load a state into an initialised `TrainingNet`.

    The state of the scheduler ``steps_`` is loaded when that is created, in the first epoch.
    """
    net.history_ = History(json.loads(state["history"]))
    if len(net.history) > net.head_epochs > 0:
        net._start_phase(head_only=False)
    net.module_.load_state_dict(state["module"], strict=False)
    net.optimizer_.load_state_dict(state["optimizer"])
    # After the last epoch of the head phase, the next phase begins with a new scheduler.
    net.kept_steps_ = None if len(net.history) == net.head_epochs else state["steps"]
    if net.plateau_ is not None:
        net.plateau_.load_state_dict(state["plateau"])
    if net.average_ is not None:
        for tensor, saved in zip(net.average_.average, state["average"]["tensors"]):
            tensor.copy_(saved)
        net.average_.n_steps = state["average"]["n_steps"]
    best = state["best"]
    net.best_score_, net.best_epoch_, net.best_state_ = best["score"], best["epoch"], best["state"]
    net.epochs_without_gain_ = state["epochs_without_gain"]
    net.rng.bit_generator.state = json.loads(state["order"])
    net.module_.generator.set_state(state["generator"])


def _plain(value):
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be saved in a checkpoint")
