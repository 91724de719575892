"""Atomic writes: a file gets its name only when it is complete."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def written_whole(path: str | os.PathLike, *, overwrite: bool = True) -> Iterator[str]:
    """Yield a temporary name to write to; the file is renamed to `path` when it is complete.

    Until then, `path` is the old file or does not exist. Where writing fails, the temporary file is removed.

    Parameters
    ----------
    path : str or os.PathLike
    overwrite : bool
        Whether to replace a file of that name.

    Yields
    ------
    unfinished : str
        In the same folder, because a file cannot be renamed on to another disk.

    Raises
    ------
    FileExistsError
        Where the file is there already and is not to be overwritten.
    FileNotFoundError
        Where the folder does not exist.
    """
    path = os.path.abspath(os.fspath(path))
    folder, name = os.path.split(path)
    _check_free(path, overwrite)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{path!r} cannot be written: there is no folder {folder!r}. Make it first.")
    unfinished = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.unfinished")
    try:
        yield unfinished
        _check_free(path, overwrite)
        os.replace(unfinished, path)
    finally:
        if os.path.exists(unfinished):
            os.remove(unfinished)


def _check_free(path: str, overwrite: bool) -> None:
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path!r} is a folder: pass the name of a file.")
    if not overwrite and os.path.exists(path):
        raise FileExistsError(f"{path!r} exists already: pass another name, or overwrite=True.")
