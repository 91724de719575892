"""Seeds, and threads that give the same bits in every process."""

import os
from contextlib import contextmanager
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch

# Sums in PyTorch depend, in the last bits, on the number of threads, and joblib gives its worker
# processes fewer. A fit with a seed uses the threads of the process that imported murakit first;
# the workers inherit that number here, and wait without spinning, for spinning threads that share
# a core are five times slower.
_THREADS_AT_IMPORT = torch.get_num_threads()

_SHARED_THREADS = int(os.environ.setdefault("MURAKIT_NUM_THREADS", str(_THREADS_AT_IMPORT)))


class Seeds(NamedTuple):
    """Independent sources of randomness, all from ``random_state``."""

    split: np.random.Generator
    order: np.random.Generator
    network: int
    torch: int


def seeds_of(random_state, n_epochs_before=None):
    """Return the `Seeds` of a training.

    Parameters
    ----------
    random_state : int, RandomState or None
    n_epochs_before : int or None
        Epochs that the network has been trained for, where training goes on.
    """
    if random_state is None:
        # Fresh entropy: NumPy's global state is the caller's.
        entropy = np.random.SeedSequence().entropy
    elif isinstance(random_state, Integral):
        entropy = int(random_state)
    else:
        entropy = int(random_state.randint(2**31 - 1))
    split, order, network, generator = np.random.SeedSequence(entropy).spawn(4)
    if n_epochs_before is not None:
        # The epochs to come shall not see the images in the order and guise of those before.
        order, generator = np.random.SeedSequence([entropy, n_epochs_before]).spawn(2)
    return Seeds(
        np.random.default_rng(split),
        np.random.default_rng(order),
        int(network.generate_state(1)[0]),
        int(generator.generate_state(1)[0]),
    )


@contextmanager
def repeatable_threads(random_state):
    """Compute with the same number of threads in every process, where a seed is given."""
    before = torch.get_num_threads()
    # A number that the caller set in this process is the caller's wish.
    wished = before != _THREADS_AT_IMPORT
    if random_state is not None and not wished and before != _SHARED_THREADS:
        torch.set_num_threads(_SHARED_THREADS)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
