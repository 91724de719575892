"""Memory that a training keeps at hand."""

import sys

import psutil
import pytest
import torch

from murakit.utils._allocator import _glibc, freed_memory_kept, give_back

pytestmark = pytest.mark.skipif(_glibc() is None, reason="the allocator is not glibc's, or tuned already")

SIZE = 256 * 2**20


def resident():
    return psutil.Process().memory_info().rss


def left_after_freeing():
    """Return the bytes that stay with the process after a large array was filled and freed."""
    before = resident()
    array = torch.ones(SIZE, dtype=torch.uint8)
    assert resident() - before > SIZE / 2
    del array
    return resident() - before


def test_freed_memory_is_kept_inside_and_given_back_at_the_end():
    before = resident()
    with freed_memory_kept():
        assert left_after_freeing() > SIZE / 2
        with freed_memory_kept():
            pass
        assert resident() - before > SIZE / 2  # the inner one is not the last
    assert resident() - before < SIZE / 2
    assert left_after_freeing() < SIZE / 2


def test_it_is_given_back_after_an_exception():
    before = resident()
    with pytest.raises(KeyboardInterrupt), freed_memory_kept():
        left_after_freeing()
        raise KeyboardInterrupt
    assert resident() - before < SIZE / 2


def test_an_allocator_that_was_tuned_is_left_alone(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    with freed_memory_kept():
        assert left_after_freeing() < SIZE / 2


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with freed_memory_kept():
        assert left_after_freeing() < SIZE / 2


def test_memory_is_given_back_on_the_way():
    before = resident()
    with freed_memory_kept():
        kept = []
        for number in give_back(range(4), every=4):
            if number == 0:
                left_after_freeing()
            kept.append(number)
            assert resident() - before > SIZE / 2
        assert kept == [0, 1, 2, 3]
        assert resident() - before < SIZE / 2
