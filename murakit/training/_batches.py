"""What a training goes through: data with targets and weights, in batches, and the mean of their losses."""

import math
from itertools import pairwise

import numpy as np
import torch

from ..utils._threading import ahead

# Small batches that lie in memory are gathered several at a time: one by one it would take longer than a
# step of a head. Where such a batch begins, kernels must find it aligned as one of its own would be, or
# its last bits may differ.
_TOGETHER_BYTES = 2**20

_ALIGNED = 64


class TrainingData:
    """What a network trains on or is validated with.

    Parameters
    ----------
    inputs : Rows or TensorRows
        Anything of that length whose ``__getitems__(rows)`` returns the tensor of a batch, with the
        attributes ``held`` (whether that takes no time) and ``stage`` (the first stage that the
        network runs on it; None: from the beginning).
    target : ndarray of shape (n,), dtype int64
        Codes of the classes.
    weight : ndarray of shape (n,), dtype float32
        Weight of each image in the loss.
    head_inputs : Rows, TensorRows or None
        What to take instead of `inputs` while only the head is trained.
    """

    def __init__(self, inputs, target, weight, head_inputs=None):
        self.inputs = inputs
        self.head_inputs = head_inputs
        self.target = torch.as_tensor(target, dtype=torch.int64)
        self.weight = torch.as_tensor(weight, dtype=torch.float32)

    def __len__(self):
        return len(self.target)

    def in_phase(self, *, head_only):
        """Return the data of the epochs in which only the head is trained, or of the others."""
        if not head_only or self.head_inputs is None:
            return self
        return TrainingData(self.head_inputs, self.target, self.weight)


class Batches:
    """Batches of a `TrainingData`, shuffled anew each time where a generator is given.

    Where it takes time, the next batch is gathered while this one is computed on.

    A last batch of one image would have no variance for a BatchNorm to divide by; it goes to the
    batch before.
    """

    def __init__(self, data, batch_size, rng=None, device="cpu"):
        self.data = data
        self.batch_size = batch_size
        self.rng = rng
        self.device = torch.device(device)

    def _starts(self):
        n_rows = len(self.data)
        starts = list(range(0, n_rows, self.batch_size))
        if self.rng is not None and len(starts) > 1 and n_rows - starts[-1] == 1:
            starts.pop()
        return starts

    def __len__(self):
        return len(self._starts())

    def __iter__(self):
        n_rows = len(self.data)
        order = np.arange(n_rows) if self.rng is None else self.rng.permutation(n_rows)
        batches = self._gathered(order, [*self._starts(), n_rows])
        return batches if self.data.inputs.in_memory else ahead(batches)

    def _gathered(self, order, bounds):
        done, together = 0, 1
        while done < len(bounds) - 1:
            cuts = bounds[done : done + together + 1]
            rows = order[cuts[0] : cuts[-1]]
            inputs = self._gather(self.data.inputs, rows)
            rows = torch.from_numpy(rows)
            parts = inputs, self.data.target[rows], self.data.weight[rows]
            if together == 1 and self.data.inputs.in_memory and inputs.nbytes % _ALIGNED == 0:
                together = max(1, _TOGETHER_BYTES // max(1, inputs.nbytes))
            done += len(cuts) - 1
            for start, stop in pairwise(cuts):
                batch, *about = (part[start - cuts[0] : stop - cuts[0]] for part in parts)
                yield batch, tuple(about)

    def _gather(self, inputs, rows):
        batch = inputs.__getitems__(rows)
        if self.device.type == "cuda" and not batch.is_cuda:
            # From pinned memory the copy runs while the GPU computes.
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        return batch


class Tally:
    """The mean of an epoch's losses, weighted as its images are."""

    def __init__(self):
        self.waiting = []
        self.total = self.norm = 0.0
        self.count = 0
        self.last = math.nan

    def add(self, loss, weight):
        self.waiting.append((loss.detach(), float(weight.sum())))

    def read(self):
        """Take up the losses that were added; return the number of the first batch that has none."""
        if not self.waiting:
            return None
        losses = torch.stack([loss for loss, _ in self.waiting]).tolist()
        for loss, (_, weight) in zip(losses, self.waiting):
            self.count += 1
            self.last = loss
            if not math.isfinite(loss):
                return self.count
            self.total += loss * weight
            self.norm += weight
        self.waiting = []
        return None
