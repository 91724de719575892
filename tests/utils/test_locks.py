"""A lock that somebody held while a process forked is free in the new process."""

import multiprocessing
import threading

import pytest

from murakit.cache import _lmdb
from murakit.io import _filesystem
from murakit.networks import _fuse, _pretrained
from murakit.utils._threading import Lock

HELD = [_filesystem._reading, _lmdb._opening, _fuse._tracing, _pretrained._cache_lock]
HELD += [_pretrained._seed_lock]


def take(*locks):
    for lock in locks:
        with lock:
            pass


@pytest.fixture
def fork():
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork on this platform")
    return multiprocessing.get_context("fork").Process


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("locks", [HELD, [Lock(), Lock()]], ids=["the library's", "new ones"])
def test_a_process_forked_while_another_thread_holds_locks_takes_them(fork, locks):
    held, done = threading.Event(), threading.Event()

    def hold():
        held.set()
        done.wait()

    def nest(rest):
        if not rest:
            return hold()
        with rest[0]:
            nest(rest[1:])

    thread = threading.Thread(target=nest, args=(locks,))
    thread.start()
    held.wait()
    child = fork(target=take, args=locks)
    child.start()
    child.join(30)
    code = child.exitcode
    done.set()
    thread.join()
    child.kill()
    assert code == 0


def test_in_one_process_a_lock_is_held_by_one_thread():
    lock, inside, most = Lock(), [], []

    def enter():
        for _ in range(200):
            with lock:
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 800 and max(most) == 1
