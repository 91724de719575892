"""What a training goes through, in what order."""

import numpy as np
import pytest
import torch

from murakit.cache._base import TensorRows
from murakit.training import _batches
from murakit.training._batches import Batches, TrainingData


class Counted(TensorRows):
    def __init__(self, tensor):
        super().__init__(tensor)
        self.asked = []

    def __getitems__(self, rows):
        self.asked.append(len(rows))
        return super().__getitems__(rows)


def data_of(n_rows, n_features=16):
    values = torch.arange(n_rows * n_features, dtype=torch.float32).reshape(n_rows, n_features)
    return TrainingData(Counted(values), np.arange(n_rows), np.arange(n_rows) / 2)


def one_by_one(data, batch_size, rng):
    """Batches as a loop by hand gathers them; a last one of one row goes to the batch before."""
    order = rng.permutation(len(data))
    cuts = list(range(batch_size, len(data), batch_size))
    if cuts and len(data) - cuts[-1] == 1:
        cuts.pop()
    return [torch.from_numpy(rows) for rows in np.split(order, cuts)]


@pytest.mark.parametrize("n_bytes", [0, 1000, 2**20])
@pytest.mark.parametrize(
    "n_rows, batch_size", [(1, 4), (3, 4), (40, 4), (41, 4), (42, 4), (300, 32), (257, 32)]
)
def test_batches_are_those_of_a_loop_by_hand(n_rows, batch_size, n_bytes, monkeypatch):
    monkeypatch.setattr(_batches, "_GATHERED_BYTES", n_bytes)
    data = data_of(n_rows)
    expected = one_by_one(data, batch_size, np.random.default_rng(0))
    batches = list(Batches(data, batch_size, np.random.default_rng(0)))
    assert len(batches) == len(expected)
    for (inputs, (target, weight)), rows in zip(batches, expected):
        assert torch.equal(inputs, data.inputs.tensor[rows])
        assert torch.equal(target, data.target[rows])
        assert torch.equal(weight, data.weight[rows])


def test_small_batches_are_gathered_together():
    data = data_of(300)
    assert len(list(Batches(data, 32, np.random.default_rng(0)))) == 10
    assert data.inputs.asked == [32, 268]


def test_every_batch_begins_where_memory_is_aligned():
    # 15 numbers of 4 bytes: the second batch of 3 would begin in the middle of a line.
    for n_features, n_asked in ((15, 100), (16, 2)):
        data = data_of(300, n_features)
        batches = list(Batches(data, 3, np.random.default_rng(0)))
        assert len(data.inputs.asked) == n_asked
        assert all(inputs.data_ptr() % 64 == 0 for inputs, _ in batches)
