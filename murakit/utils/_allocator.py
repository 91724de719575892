"""Large arrays from memory that is at hand, instead of pages that the kernel clears anew each time."""

import ctypes
import os
import sys
from contextlib import contextmanager

from ._threading import Lock

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4

_DEFAULT_MMAP_MAX = 65536

# Where glibc's own, growing thresholds end in a process that handles large arrays.
_LARGEST_THRESHOLD = 32 * 2**20

_NEVER = 2**31 - 1

_TUNED_BY = {"GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"}

_counting = Lock()

_users = 0


def _glibc():
    """Return the C library where it is glibc and nobody has set its allocator up, else None."""
    if not sys.platform.startswith("linux") or not _TUNED_BY.isdisjoint(os.environ):
        return None
    try:
        library = ctypes.CDLL(None)
        return library if library.gnu_get_libc_version and library.mallopt and library.malloc_trim else None
    except (OSError, AttributeError):
        return None


@contextmanager
def freed_memory_kept():
    """Keep what is freed for the next array of that size, and give it back to the system at the end.

    glibc maps each array of more than 32 MB anew and unmaps it when it is freed. A training step on the
    CPU makes dozens of them, and a tenth of its time goes into clearing their pages. Where the
    allocator is not glibc's, or the environment tunes it, nothing is changed.

    References
    ----------
    ``man 3 mallopt``; PyTorch's performance guide recommends other allocators for the same reason.
    """
    global _users
    library = _glibc()
    if library is None:
        yield
        return
    with _counting:
        _users += 1
        if _users == 1:
            library.mallopt(_MMAP_MAX, 0)
            library.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        with _counting:
            _users -= 1
            if _users == 0:
                library.mallopt(_MMAP_MAX, _DEFAULT_MMAP_MAX)
                library.mallopt(_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
                library.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_THRESHOLD)
                library.malloc_trim(0)


def give_back(iterable, every=16):
    """Yield what an iterable yields; give freed memory back to the system after every so many items.

    What is read in other threads leaves holes between what stays, and the heap grows with every image.
    """
    library = _glibc()
    for number, item in enumerate(iterable, start=1):
        yield item
        if library is not None and number % every == 0:
            library.malloc_trim(0)
