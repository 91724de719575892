"""Pillow's switch for truncated files, which is off while murakit reads."""

from collections.abc import Iterator
from contextlib import contextmanager

from PIL import ImageFile

from ..utils._threading import Lock

_lock = Lock()

_n_readers = 0

_wanted = False


@contextmanager
def refusing_truncated() -> Iterator[None]:
    """Let Pillow raise for truncated files, whatever ``PIL.ImageFile.LOAD_TRUNCATED_IMAGES`` says.

    The switch is the user's, and the whole process has but one. It is restored when the last of the threads that read
    at the same time has finished.
    """
    global _n_readers, _wanted
    with _lock:
        if not _n_readers:
            _wanted = ImageFile.LOAD_TRUNCATED_IMAGES
        _n_readers += 1
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        with _lock:
            _n_readers -= 1
            if not _n_readers:
                ImageFile.LOAD_TRUNCATED_IMAGES = _wanted
