"""A file that takes its name only when it is whole."""

import os
import secrets
from contextlib import contextmanager


@contextmanager
def written_whole(path, *, overwrite=True):
    """Yield the name of a file to write, which takes the name `path` at the end.

    Whoever looks meanwhile sees the old file or none, never half of one; where writing fails, nothing
    is left.

    Parameters
    ----------
    path : str or os.PathLike
    overwrite : bool
        Whether to take the place of a file.

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


def _check_free(path, overwrite):
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path!r} is a folder: pass the name of a file.")
    if not overwrite and os.path.exists(path):
        raise FileExistsError(f"{path!r} exists already: pass another name, or overwrite=True.")
