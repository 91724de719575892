"""Seeds, threads and devices: what makes a training the same on every run, and where it runs."""

import os
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from numbers import Integral
from typing import NamedTuple

import numpy as np
import psutil
import torch

# Sums in PyTorch depend, in the last bits, on the number of threads, and joblib gives its worker
# processes fewer. A fit with a seed uses the threads of the process that imported murakit first;
# the workers inherit that number here, and wait without spinning, for spinning threads that share
# a core are five times slower.
_THREADS_AT_IMPORT = torch.get_num_threads()
_SHARED_THREADS = int(os.environ.setdefault("MURAKIT_NUM_THREADS", str(_THREADS_AT_IMPORT)))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


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


def resolve_device(device, *, predicting=False):
    """Return the name of the device to compute on; raise where it is not there to train on."""
    if str(device) == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device={device!r} is none that PyTorch knows. Pass 'auto', 'cpu', 'cuda' or 'cuda:1'."
        ) from error
    if found.type == "cuda" and not torch.cuda.is_available():
        if predicting:
            # A model that was trained on a GPU predicts on any machine.
            return "cpu"
        raise ValueError(f"device={device!r}, but PyTorch sees no GPU. Pass device='auto' or 'cpu'.")
    return str(found)


def placed(network, device):
    """Return a network on a device; where it is there, moving it would take as long as two steps of a head."""
    device = torch.device(device)
    if any(tensor.device != device for tensor in chain(network.parameters(), network.buffers())):
        network.to(device)
    return network


def autocasts(precision, device):
    """Tell whether to compute in bfloat16."""
    if precision == "auto":
        # On CPUs without the instructions bfloat16 is many times slower.
        on_gpu = torch.device(device).type == "cuda"
        return on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bfloat16"


def free_memory():
    """Return the bytes of main memory that are free, within the limit of a container or batch job."""
    free = psutil.virtual_memory().available
    try:
        # psutil sees the whole machine; Linux ends a process that outgrows its control group.
        with open("/sys/fs/cgroup/memory.max") as limit, open("/sys/fs/cgroup/memory.current") as used:
            free = min(free, max(0, int(limit.read()) - int(used.read())))
    except (OSError, ValueError):
        pass  # no such group, or one without a limit ("max")
    return free


def free_device_memory(device):
    """Return the bytes that are free on a GPU."""
    return torch.cuda.mem_get_info(torch.device(device))[0]


def installed_versions(packages):
    """Return the version of each package that is installed, by name."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
