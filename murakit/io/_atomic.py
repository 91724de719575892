"""Atomic writes: a file gets its name only when it is complete."""

import errno
import hashlib
import os
import platform
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def written_whole(path: str | os.PathLike, *, overwrite: bool = True) -> Iterator[str]:
    """Yield a temporary name to write to; the file is renamed to `path` when it is complete.

    Until then, `path` is the old file or does not exist. Where writing fails, the temporary file is removed.
    What a killed process left of this file is deleted.

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
    OSError
        Where the disk is full.
    """
    path = os.path.abspath(os.fspath(path))
    if os.path.islink(path):
        # What it points to is written, and the link stays.
        path = os.path.realpath(path)
    folder, name = os.path.split(path)
    _check_free(path, overwrite)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{path!r} cannot be written: there is no folder {folder!r}. Make it first.")
    _delete_leftovers(folder, name)
    unfinished = os.path.join(folder, f".{name}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.unfinished")
    try:
        yield unfinished
        _check_free(path, overwrite)
        os.replace(unfinished, path)
    except OSError as error:
        if error.errno in _FULL:
            raise OSError(
                error.errno,
                f"{path!r} cannot be written: {os.strerror(error.errno)}. Make room on that disk, or pass another "
                "folder.",
            ) from error
        raise
    finally:
        if os.path.exists(unfinished):
            os.remove(unfinished)


def _delete_leftovers(folder: str, name: str) -> None:
    """Delete the unfinished files of a name whose writers were processes of this machine that have ended."""
    ours = re.compile(rf"\.{re.escape(name)}\.{_machine()}-(\d+)-[0-9a-f]{{8}}\.unfinished")
    for entry in os.listdir(folder):
        found = ours.fullmatch(entry)
        if found is not None and not psutil.pid_exists(int(found[1])):
            # Another writer may be quicker, or the folder keep the files of others.
            with suppress(OSError):
                os.remove(os.path.join(folder, entry))


def _machine() -> str:
    """Return a short name of this machine: folders may be shared, and process numbers are each machine's own."""
    return hashlib.sha256(platform.node().encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _check_free(path: str, overwrite: bool) -> None:
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path!r} is a folder: pass the name of a file.")
    if os.path.exists(path) and not os.path.isfile(path):
        raise FileExistsError(
            f"{path!r} is a pipe or device, which no file can replace: pass the name of a file."
        )
    if not overwrite and os.path.exists(path):
        raise FileExistsError(f"{path!r} exists already: pass another name, or overwrite=True.")
