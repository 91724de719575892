"""Threads: how many, work done ahead by one, and locks that are free after a fork."""

import os
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from joblib import cpu_count


def n_threads(n_jobs: int | None) -> int:
    """Return the number of threads that joblib's `n_jobs` means; None means all, for they share the GIL."""
    n_cpus = cpu_count()
    if n_jobs is None:
        return n_cpus
    return max(1, n_cpus + 1 + n_jobs) if n_jobs < 0 else max(1, n_jobs)


T = TypeVar("T")

_END: Any = object()


def ahead(iterable: Iterable[T], depth: int = 1) -> Iterator[T]:
    """Yield the items of an iterable, while a thread makes up to `depth` of the next ones.

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


_all: weakref.WeakSet["Lock"] = weakref.WeakSet()


class Lock:
    """A lock that is free in a forked process, whatever held it in the parent.

    Another thread may hold it at the moment of a fork. That thread is not copied, so that the child
    would wait for it for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _all.add(self)

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(self, *raised: Any) -> None:
        self._lock.__exit__(*raised)


def _renew() -> None:
    for lock in list(_all):
        lock._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
