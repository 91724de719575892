"""Locks that forked processes can go on with."""

import os
import threading
import weakref

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
