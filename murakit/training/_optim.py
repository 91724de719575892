"""Parameter groups of the optimizer, the cosine schedule, and the moving average of the weights."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import get_ema_multi_avg_fn

if TYPE_CHECKING:
    from ..networks._network import Radiograph


def parameter_groups(network: "Radiograph", lr_factor: float, decay: float) -> list[dict[str, Any]]:
    """Return an optimizer's parameter groups: the head first, then the trained stages of the backbone.

    Parameters
    ----------
    network : Radiograph
        Frozen parameters have ``requires_grad=False``.
    lr_factor : float
        Learning-rate multiplier of the backbone.
    decay : float
        Learning-rate multiplier of each stage relative to the stage after it. With 1, the stages are one
        group.

    Returns
    -------
    groups : list of dict
        Each has ``params``, and the multiplier ``factor`` of its learning rate.
    """
    head = list(network.head.parameters())
    groups = [{"params": head, "factor": 1.0}]
    grouped = {id(parameter) for parameter in head}
    if decay != 1:
        for depth, stage in enumerate(reversed(list(network.stages.values()))):
            params = [p for p in stage.parameters() if p.requires_grad]
            grouped |= {id(parameter) for parameter in params}
            groups.append({"params": params, "factor": lr_factor * decay**depth})
    rest = [p for p in network.parameters() if p.requires_grad and id(p) not in grouped]
    groups.append({"params": rest, "factor": lr_factor})
    return [group for group in groups if group["params"]]


def cosine_schedule(optimizer: torch.optim.Optimizer, n_steps: int, n_warmup: int) -> LambdaLR:
    """Return a scheduler for every batch: a linear warm-up, then cosine annealing to zero [1]_.

    Parameters
    ----------
    optimizer : Optimizer
        Its current learning rates are the largest ones of the schedule.
    n_steps : int
        Number of batches, warm-up included.
    n_warmup : int
        Number of batches of the warm-up.

    Returns
    -------
    scheduler : LambdaLR

    References
    ----------
    .. [1] Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR (2017).
    """

    for group in optimizer.param_groups:
        # Replaces the value that the scheduler of the head phase has left.
        group["initial_lr"] = group["lr"]
    return LambdaLR(optimizer, partial(_cosine_factor, n_steps, n_warmup))


def _cosine_factor(n_steps, n_warmup, step):
    if step < n_warmup:
        return (step + 1) / (n_warmup + 1)
    done = (step - n_warmup) / max(1, n_steps - n_warmup)
    return (1 + math.cos(math.pi * min(1.0, done))) / 2


class WeightAverage:
    """Exponential moving average of the weights during training [1]_.

    Parameters
    ----------
    network : Radiograph
    unfreeze : str
        The first trained stage.
    decay : float
        Decay of the average per step. In the first steps it is smaller, so that the initial weights lose
        their influence quickly.

    References
    ----------
    .. [1] Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM Journal on
       Control and Optimization 30 (1992).
    """

    def __init__(self, network: "Radiograph", unfreeze: str, decay: float) -> None:
        self.decay = decay
        self.n_steps = 0
        state = network.trained_state(unfreeze)
        self.current = [tensor for tensor in state.values() if tensor.is_floating_point()]
        self.average = [tensor.detach().clone() for tensor in self.current]

    def update(self) -> None:
        """Update the average with the current weights, after a training step."""
        self.n_steps += 1
        decay = min(self.decay, (1 + self.n_steps) / (10 + self.n_steps))
        get_ema_multi_avg_fn(decay)(self.average, self.current, self.n_steps)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the network the averaged weights inside a with block."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the averaged weights with the network's current ones."""
        for average, current in zip(self.average, self.current):
            copy = current.clone()
            current.copy_(average)
            average.copy_(copy)
