"""Seeds, and the number of threads that a training computes with."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

# The last bits of PyTorch's sums depend on the number of threads, and joblib gives its worker processes fewer
# threads. Who wants the same bits in all processes sets this variable; otherwise a process uses what it was given.
N_THREADS_VARIABLE = "MURAKIT_NUM_THREADS"


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
        entropy: Any = np.random.SeedSequence().entropy
    elif isinstance(random_state, np.random.RandomState):
        entropy = int(random_state.randint(2**31 - 1))
    else:
        entropy = int(random_state)
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
def chosen_threads() -> Iterator[None]:
    """Use as many threads as ``MURAKIT_NUM_THREADS`` says inside a with block, if it is set.

    Raises
    ------
    ValueError
        If the variable is no whole number above zero.
    """
    chosen = os.environ.get(N_THREADS_VARIABLE)
    before = torch.get_num_threads()
    if chosen is not None:
        if not chosen.strip().isdecimal() or int(chosen) < 1:
            raise ValueError(
                f"{N_THREADS_VARIABLE}={chosen!r} is no number of threads: set it to 1 or more, or unset it."
            )
        torch.set_num_threads(int(chosen))
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
