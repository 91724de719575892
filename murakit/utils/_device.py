"""Devices: where to compute, in which precision, and how much memory is free there."""

from itertools import chain

import psutil
import torch
from torch import nn


def resolve_device(device: str | torch.device, *, predicting: bool = False) -> str:
    """Return the name of the device to compute on; raise where training on it is impossible."""
    if str(device) == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device={device!r} is unknown to PyTorch. Pass 'auto', 'cpu', 'cuda' or 'cuda:1'."
        ) from error
    if found.type == "cuda" and not torch.cuda.is_available():
        if predicting:
            # A model that was trained on a GPU predicts on any machine.
            return "cpu"
        raise ValueError(f"device={device!r}, but PyTorch sees no GPU. Pass device='auto' or 'cpu'.")
    return str(found)


def placed(network: nn.Module, device: str | torch.device) -> nn.Module:
    """Move a network to a device, unless it is there: the call alone takes as long as two steps of a head."""
    device = torch.device(device)
    if any(tensor.device != device for tensor in chain(network.parameters(), network.buffers())):
        network.to(device)
    return network


def autocasts(precision: str, device: str | torch.device) -> bool:
    """Return whether to compute in bfloat16."""
    if precision == "auto":
        # On CPUs without the instructions bfloat16 is many times slower.
        on_gpu = torch.device(device).type == "cuda"
        return on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bfloat16"


def free_memory() -> int:
    """Return the bytes of main memory that are free, within the limit of a container or batch job."""
    free = psutil.virtual_memory().available
    try:
        # psutil sees the whole machine; Linux ends a process that outgrows its control group.
        with open("/sys/fs/cgroup/memory.max") as limit, open("/sys/fs/cgroup/memory.current") as used:
            free = min(free, max(0, int(limit.read()) - int(used.read())))
    except (OSError, ValueError):
        pass  # no such group, or one without a limit ("max")
    return free


def free_device_memory(device: str | torch.device) -> int:
    """Return the bytes that are free on a GPU."""
    return torch.cuda.mem_get_info(torch.device(device))[0]
