"""Locks that forked processes can go on with."""

import os
import threading
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from joblib import cpu_count


def n_threads(n_jobs):
    """Return the number of threads that joblib's `n_jobs` means; None means all, for they share the GIL."""
    n_cpus = cpu_count()
    if n_jobs is None:
        return n_cpus
    return max(1, n_cpus + 1 + n_jobs) if n_jobs < 0 else max(1, n_jobs)


_END = object()


def ahead(iterable, depth=1):
    """Yield the items of an iterable, which a thread makes up to `depth` items in advance.

    An exception is raised where the item would have come; whoever stops early stops the thread.
    """
    iterator = iter(iterable)
    with ThreadPoolExecutor(1, thread_name_prefix="murakit-ahead") as pool:
        waiting = deque(pool.submit(next, iterator, _END) for _ in range(depth))
        try:
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(pool.submit(next, iterator, _END))
                yield item
        finally:
            for future in waiting:
                future.cancel()


_all = weakref.WeakSet()


class Lock:
    """A lock that is free in a forked process, whatever held it in the parent.

    Another thread may hold it at the moment of a fork. That thread is not copied, so that the child
    would wait for it for ever.
    """

    def __init__(self):
        self._lock = threading.Lock()
        _all.add(self)

    def __enter__(self):
        return self._lock.__enter__()

    def __exit__(self, *raised):
        return self._lock.__exit__(*raised)


def _renew():
    for lock in list(_all):
        lock._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
