"""Seeds, and a number of threads with which every process computes the same bits."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch

# The last bits of PyTorch's sums depend on the number of threads, and joblib gives its worker processes fewer
# threads. So a fit with a seed uses as many threads as the first process that imported murakit. Its worker
# processes inherit the number by an environment variable. OMP_WAIT_POLICY, set in _device.py, makes waiting
# threads sleep: threads that share a core and spin while they wait are five times slower.
_N_THREADS_AT_IMPORT = torch.get_num_threads()

_N_THREADS_SHARED = int(os.environ.setdefault("MURAKIT_NUM_THREADS", str(_N_THREADS_AT_IMPORT)))


class Seeds(NamedTuple):
    """Independent seeds and generators of a training, all derived from ``random_state``.

    Attributes
    ----------
    split : numpy.random.Generator
        Generator of the validation split.
    order : numpy.random.Generator
        Generator of the order of the images, and of mixup.
    network : int
        Seed of the random weights.
    torch : int
        Seed of augmentation and dropout.
    """

    split: np.random.Generator
    order: np.random.Generator
    network: int
    torch: int


def seeds_of(random_state: int | np.random.RandomState | None, n_epochs_before: int | None = None) -> Seeds:
    """Return the `Seeds` of a training.

    Parameters
    ----------
    random_state : int, RandomState or None
    n_epochs_before : int or None
        Number of epochs that the network was trained for before, if this training continues another one.
    """
    if random_state is None:
        # Entropy of the operating system: NumPy's global random state is not used or changed.
        entropy = np.random.SeedSequence().entropy
    elif isinstance(random_state, Integral):
        entropy = int(random_state)
    else:
        entropy = int(random_state.randint(2**31 - 1))
    split, order, network, generator = np.random.SeedSequence(entropy).spawn(4)
    if n_epochs_before is not None:
        # The order and the augmentation of the images must differ from those of the epochs before.
        order, generator = np.random.SeedSequence([entropy, n_epochs_before]).spawn(2)
    return Seeds(
        np.random.default_rng(split),
        np.random.default_rng(order),
        int(network.generate_state(1)[0]),
        int(generator.generate_state(1)[0]),
    )


@contextmanager
def repeatable_threads(random_state: int | np.random.RandomState | None) -> Iterator[None]:
    """Use the same number of threads in every process inside a with block, if a seed is given."""
    before = torch.get_num_threads()
    # A number of threads that the caller has set in this process is kept.
    set_by_caller = before != _N_THREADS_AT_IMPORT
    if random_state is not None and not set_by_caller and before != _N_THREADS_SHARED:
        torch.set_num_threads(_N_THREADS_SHARED)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
