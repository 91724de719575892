"""A file that a reader of headers can neither read for ever nor into all of the memory."""

from typing import Any, BinaryIO


class BoundedFile:
    """A file with a limit on the number of readings and of bytes read.

    A small file can hold a million empty elements, and a thousand tags can all point to the same megabytes.

    Parameters
    ----------
    file : file-like
    most_readings, most_bytes : int
    """

    def __init__(self, file: BinaryIO, most_readings: int, most_bytes: int) -> None:
        self._file = file
        self.allow(most_readings, most_bytes)

    def allow(self, most_readings: int, most_bytes: int) -> None:
        """Set how much may be read from now on."""
        self._readings, self._bytes = most_readings, most_bytes

    def read(self, size: int = -1) -> bytes:
        # Before, and not afterwards: a size that is damaged would be made room for.
        self._readings -= 1
        self.check()
        content = self._file.read(size if 0 <= size <= self._bytes else self._bytes + 1)
        self._bytes -= len(content)
        self.check()
        return content

    def check(self) -> None:
        """Raise where too much has been read."""
        if self._readings < 0 or self._bytes < 0:
            raise ValueError("its header has more elements than any radiograph's")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
