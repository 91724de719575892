"""How fast what is trained moves: learning rates by stage and over time, and averaged weights."""

import math
from contextlib import contextmanager
from functools import partial

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import get_ema_multi_avg_fn


def parameter_groups(network, lr_factor, decay):
    """Return parameter groups for an optimizer: the head first, then what is trained of the backbone.

    Parameters
    ----------
    network : Module
        With a ``head``; what is not trained asks for no gradient.
    lr_factor : float
        What the backbone's rate is of the head's.
    decay : float
        What the rate of a stage is of that of the stage after it; with 1, all of them are one group.

    Returns
    -------
    groups : list of dict
        Each with ``params`` and the ``factor`` of its learning rate.
    """
    head = list(network.head.parameters())
    groups = [{"params": head, "factor": 1.0}]
    taken = {id(parameter) for parameter in head}
    if decay != 1:
        for depth, stage in enumerate(reversed(network.stages.values())):
            params = [p for p in stage.parameters() if p.requires_grad]
            taken |= {id(parameter) for parameter in params}
            groups.append({"params": params, "factor": lr_factor * decay**depth})
    rest = [p for p in network.parameters() if p.requires_grad and id(p) not in taken]
    groups.append({"params": rest, "factor": lr_factor})
    return [group for group in groups if group["params"]]


def cosine(optimizer, n_steps, n_warm):
    """Return a scheduler, stepped a batch: a linear rise, then half a cosine down to nothing [1]_.

    Parameters
    ----------
    optimizer : Optimizer
        Whose present rates are the highest ones.
    n_steps, n_warm : int
        Steps in all, and those of the rise.

    References
    ----------
    .. [1] Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR (2017).
    """

    for group in optimizer.param_groups:
        # A scheduler of an earlier phase has left its own there.
        group["initial_lr"] = group["lr"]
    return LambdaLR(optimizer, partial(_factor, n_steps, n_warm))


def _factor(n_steps, n_warm, step):
    if step < n_warm:
        return (step + 1) / (n_warm + 1)
    done = (step - n_warm) / max(1, n_steps - n_warm)
    return (1 + math.cos(math.pi * min(1.0, done))) / 2


class WeightAverage:
    """Exponential moving average of the weights in training [1]_.

    Parameters
    ----------
    network : Radiograph
    unfreeze : str
        The first trained stage.
    decay : float
        What the average keeps of itself in a step; less in the first steps, when there is little to keep.

    References
    ----------
    .. [1] Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM Journal on
       Control and Optimization 30 (1992).
    """

    def __init__(self, network, unfreeze, decay):
        self.decay = decay
        self.n_steps = 0
        state = network.trained_state(unfreeze)
        self.current = [tensor for tensor in state.values() if tensor.is_floating_point()]
        self.average = [tensor.detach().clone() for tensor in self.current]

    def update(self):
        """Take a step's weights into the average."""
        self.n_steps += 1
        decay = min(self.decay, (1 + self.n_steps) / (10 + self.n_steps))
        get_ema_multi_avg_fn(decay)(self.average, self.current, self.n_steps)

    @contextmanager
    def in_place(self):
        """Let the network have the averaged weights, for a while."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self):
        """Exchange the averaged weights with those in training."""
        for average, current in zip(self.average, self.current):
            kept = current.clone()
            current.copy_(average)
            average.copy_(kept)
