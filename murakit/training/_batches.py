"""Training data in batches, with targets and weights, and the mean of the losses of an epoch."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ..utils._threading import ahead

if TYPE_CHECKING:
    from ._inputs import Dataset

# Size up to which several small batches in memory are gathered at once: gathering them one by one would take
# longer than the training steps of a head.
_GATHERED_BYTES = 2**20

# Alignment of a tensor's memory in PyTorch, in bytes. Batches are only gathered together if each starts at a
# multiple of it: a batch that does not may be computed with other last bits.
_ALIGNMENT = 64

# A batch with the target and the weight of each image.
Batch = tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]


class TrainingData:
    """Data of a training or of its validation.

    Parameters
    ----------
    inputs : Rows, ViewRows or TensorRows
        Dataset of the network's inputs: ``inputs.__getitems__(rows)`` returns a batch.
    target : ndarray or Tensor of shape (n,), dtype int64
        Class of each image, as an index.
    weight : ndarray or Tensor of shape (n,), dtype float32
        Weight of each image in the loss.
    head_inputs : Rows, ViewRows, TensorRows or None
        Dataset of the inputs while only the head is trained. None: `inputs`.
    """

    def __init__(
        self,
        inputs: "Dataset",
        target: NDArray[np.int64] | torch.Tensor,
        weight: NDArray[np.floating] | torch.Tensor,
        head_inputs: "Dataset | None" = None,
    ) -> None:
        self.inputs = inputs
        self.head_inputs = head_inputs
        self.target = torch.as_tensor(target, dtype=torch.int64)
        self.weight = torch.as_tensor(weight, dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.target)

    def in_phase(self, *, head_only: bool) -> "TrainingData":
        """Return the data of the epochs that train only the head, or of the other epochs."""
        if not head_only or self.head_inputs is None:
            return self
        return TrainingData(self.head_inputs, self.target, self.weight)


class Batches:
    """Iterable over the batches of a `TrainingData`, as a PyTorch DataLoader.

    If reading a batch takes time, a thread reads the next batch while this one is computed.

    In training, a last batch of one image is added to the batch before, because a BatchNorm needs more
    than one value to compute a variance.

    Parameters
    ----------
    data : TrainingData
    batch_size : int
    rng : numpy.random.Generator or None
        Shuffles the images of each epoch. None: no shuffling, for validation.
    device : str or torch.device
    """

    def __init__(
        self,
        data: TrainingData,
        batch_size: int,
        rng: np.random.Generator | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
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

    def __len__(self) -> int:
        return len(self._starts())

    def __iter__(self) -> Iterator[Batch]:
        n_rows = len(self.data)
        order = np.arange(n_rows) if self.rng is None else self.rng.permutation(n_rows)
        batches = self._iter_batches(order, [*self._starts(), n_rows])
        return batches if self.data.inputs.in_memory else ahead(batches)

    def _iter_batches(self, order, bounds):
        n_done, n_together = 0, 1
        while n_done < len(bounds) - 1:
            cuts = bounds[n_done : n_done + n_together + 1]
            rows = order[cuts[0] : cuts[-1]]
            inputs = self._gather(self.data.inputs, rows)
            rows = torch.from_numpy(rows)
            parts = inputs, self.data.target[rows], self.data.weight[rows]
            if n_together == 1 and self.data.inputs.in_memory and inputs.nbytes % _ALIGNMENT == 0:
                n_together = max(1, _GATHERED_BYTES // max(1, inputs.nbytes))
            n_done += len(cuts) - 1
            for start, stop in pairwise(cuts):
                batch, target, weight = (part[start - cuts[0] : stop - cuts[0]] for part in parts)
                yield batch, (target, weight)

    def _gather(self, inputs, rows):
        batch = inputs.__getitems__(rows)
        if self.device.type == "cuda" and not batch.is_cuda:
            # A copy from pinned memory runs while the GPU computes.
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        return batch


class MeanLoss:
    """Mean of an epoch's losses, weighted by the weights of the images.

    Losses stay tensors until `update`, because reading one makes the CPU wait for the GPU.

    Attributes
    ----------
    count : int
        Number of batches that `update` has added.
    last : float
        Loss of the last of them.
    """

    def __init__(self) -> None:
        self.pending: list[tuple[torch.Tensor, float]] = []
        self.weighted_sum = self.weight_sum = 0.0
        self.count = 0
        self.last = math.nan

    def add(self, loss: torch.Tensor, weight: torch.Tensor) -> None:
        """Note the loss of a batch and the weights of its images."""
        self.pending.append((loss.detach(), float(weight.sum())))

    def update(self) -> int | None:
        """Add the noted losses to the mean; return the number of the first batch whose loss is not finite."""
        if not self.pending:
            return None
        losses = torch.stack([loss for loss, _ in self.pending]).tolist()
        for loss, (_, weight) in zip(losses, self.pending):
            self.count += 1
            self.last = loss
            if not math.isfinite(loss):
                return self.count
            self.weighted_sum += loss * weight
            self.weight_sum += weight
        self.pending = []
        return None
