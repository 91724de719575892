"""Freed memory is given back while images are read, and no setting of the allocator is changed."""

import sys

import pytest

from murakit.utils import _memory
from murakit.utils._memory import trimming


def test_items_come_as_they_are_and_memory_is_given_back_every_few(monkeypatch):
    calls = []
    monkeypatch.setattr(_memory, "_malloc_trim", lambda: calls.append)
    assert list(trimming(range(10), every=4)) == list(range(10))
    assert calls == [0, 0]


def test_without_glibc_items_come_as_they_are(monkeypatch):
    monkeypatch.setattr(_memory, "_malloc_trim", lambda: None)
    assert list(trimming("abc", every=1)) == ["a", "b", "c"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_the_function_of_the_c_library_is_found():
    trim = _memory._malloc_trim()
    assert trim is None or trim(0) in (0, 1)
