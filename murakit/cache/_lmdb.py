"""Storage on disk: keys and values in one LMDB file, which many processes read and write at once."""

import errno
import hashlib
import inspect
import json
import os
import shutil
import time
import warnings
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lmdb
import numpy as np
from numpy.typing import NDArray

from ..utils._threading import Lock

# Version of the layout of keys and values. A file of another version is neither read nor changed.
# 2: the checksum of a value covers its key, so that values that changed places are noticed.
FORMAT = 2

FILE = "murakit.lmdb"

_FORMAT_KEY = b"murakit"

_DESCRIPTION_PREFIX = b"about:"

_CHECKSUM_BYTES = 4

_INITIAL_MAP_SIZE = 2**30

# Free space that is left on the disk if no limit is given, in bytes.
_RESERVED_BYTES = 2**30

# Seconds to wait while a file is shorter than its header says: another process may be lengthening it.
_GROWTH_TIMEOUT = 1.0

_ERRORS = (lmdb.Error, OSError)

_ACCESS_ERRORS = (errno.EACCES, errno.EROFS, errno.EPERM)


class CacheWarning(UserWarning):
    """Warning that a cache cannot be used as asked; the message says what is done instead."""


# Open files by path. LMDB allows only one handle for a file in a process, so all storages of that file share it.
# It is closed when the last of them is deleted.
_open_disks: weakref.WeakValueDictionary = weakref.WeakValueDictionary()

_opening = Lock()


def open_disk(folder: str | os.PathLike[str], limit: int | None = None) -> "LimitedStorage | None":
    """Return the storage of a folder; or warn, and return None, if the folder cannot be used.

    Parameters
    ----------
    folder : str or os.PathLike
        Created if it does not exist.
    limit : int or None
        Largest size of the file, in bytes. None: all of the free space but 1 GiB.
    """
    path = cache_file(folder)
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, exist_ok=True)
        disk = connect(path)
    except _ERRORS as error:
        warn(
            f"cache={folder!r} cannot be used: {_reason(error)}. Nothing is kept there: what this "
            f"run needs is computed for it alone. {_remedy(error, folder)}"
        )
        return None
    if not disk.writable and disk.failed is None:
        warn(
            f"cache={folder!r} cannot be written to: its contents are used, and the rest is computed for this "
            "run alone. Allow writing there, or pass another folder."
        )
    return LimitedStorage(disk, limit)


def connect(path: str) -> "Disk":
    """Return the `Disk` of a file; the same one for each call as long as the file stays open."""
    with _opening:
        disk = _open_disks.get(path)
        # Another process may have deleted the file or replaced it. And after a fork, LMDB forbids the use of
        # the parent's handle.
        if disk is not None and not disk.is_current():
            disk.close()
            disk = None
        if disk is None:
            disk = Disk(path)
            _open_disks[path] = disk
        return disk


def delete(folder: str | os.PathLike[str]) -> int:
    """Delete the cache in a folder; return its size on disk in bytes."""
    path = cache_file(folder)
    freed = 0.0
    with _opening:
        disk = _open_disks.pop(path, None)
        if disk is not None:
            disk.close()
        for name in (path, f"{path}-lock"):
            try:
                status = os.stat(name)
                os.remove(name)
            except FileNotFoundError:
                continue
            # A sparse file takes less space than its length.
            freed += getattr(status, "st_blocks", status.st_size / 512) * 512
    return int(freed)


def cache_file(folder: str | os.PathLike[str]) -> str:
    """Return the path of the cache's file in a folder."""
    folder = os.fspath(folder)
    if not folder or "\0" in folder:
        raise ValueError(
            f"cache={folder!r} is no name that a folder can have: pass the path of a folder, or None for none."
        )
    # Links are resolved: LMDB must not open one file twice, under two names.
    return os.path.join(os.path.realpath(os.path.expanduser(folder)), FILE)


class Disk:
    """Key-value file on disk, with a checksum for each key and its value.

    Writes are atomic: a process that is killed leaves a value complete or not stored. If the disk fails,
    the methods warn and treat values as not found. They never raise, and never return bytes other than
    those that were written under that key.

    Parameters
    ----------
    path : str
        Path of the file.

    Raises
    ------
    lmdb.Error, OSError
        If the file cannot be opened.
    """

    location = "on disk"

    def __init__(self, path: str) -> None:
        self.path = path
        self.pid = os.getpid()
        # Threads may share LMDB's handle, but the map may only grow while no thread reads.
        self.lock = Lock()
        self.failed: Exception | None = None
        self.corrupt: set[bytes] = set()
        self.env, self.writable = _open(path)
        try:
            self._check_file()
        except BaseException:
            self.env.close()
            raise
        self.file = _device_and_inode(path)

    def _check_file(self):
        deadline = time.monotonic() + _GROWTH_TIMEOUT
        while self._is_too_short():
            if time.monotonic() > deadline:
                # Reading beyond the end of a mapped file would kill the process.
                raise lmdb.CorruptedError("the file has been cut short")
            time.sleep(0.01)  # another process may be lengthening the file: see `_lengthen`
        written = self._read_format(write=False)
        if written is None and self.writable:
            written = self._read_format(write=True)
        if written is not None and (found := _parse_format(written)) != FORMAT:
            raise lmdb.VersionMismatchError(
                f"its file was written by another version of murakit (format {found}; this one reads {FORMAT})"
            )

    def _read_format(self, write):
        # One transaction for both the key and the number of entries: another process may be creating the
        # file at this moment.
        with self._begin(write=write) as txn:
            written = txn.get(_FORMAT_KEY)
            if written is not None:
                return bytes(written)
            if txn.stat()["entries"]:
                raise lmdb.InvalidError("it is a database of another program")
            if write:
                txn.put(_FORMAT_KEY, json.dumps({"format": FORMAT}).encode())
        return None

    @property
    def requested(self) -> bool:
        """Whether to warn if values are not stored here; after a failure, the user was warned already."""
        return self.writable

    def is_current(self) -> bool:
        """Return whether this process opened the file, and the file at that path is still the same."""
        return self.pid == os.getpid() and self.env is not None and _device_and_inode(self.path) == self.file

    def close(self) -> None:
        """Close LMDB's handle; later reads find nothing, with a warning."""
        with self.lock:
            env, self.env = self.env, None
            if env is not None:
                env.close()

    # -- methods of every storage -----------------------------------------------------------

    def has(self, keys: Sequence[bytes]) -> NDArray[np.bool_]:
        """Return, for each key, whether a value is stored."""
        return self._look_up(keys, lambda txn, row, key: txn.get(key) is not None)

    def read(self, keys: Sequence[bytes], out: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Copy values into the rows of `out`, (n, n_bytes); return which rows were found intact."""

        def copy(txn, row, key):
            value = txn.get(key)
            if value is None or len(value) != out.shape[1] + _CHECKSUM_BYTES:
                return False
            out[row] = np.frombuffer(value, np.uint8, out.shape[1])
            if _checksum(key, out[row]) == value[-_CHECKSUM_BYTES:]:
                return True
            self._add_corrupt(key)
            return False

        return self._look_up(keys, copy)

    def write(self, keys: Sequence[bytes], values: NDArray[np.uint8]) -> bool:
        """Store rows of (n, n_bytes) in one transaction; return whether they were stored."""
        if not self.writable:
            return False
        pairs = [(key, b"".join((value.data, _checksum(key, value)))) for key, value in zip(keys, values)]
        return self._put(pairs)

    def room_for(self, n_values: int, n_bytes: int, limit: int | None = None) -> bool:
        """Return whether `n_values` more values of `n_bytes` each fit into the limit and on the disk."""
        if not self.writable:
            return False
        page = 4096
        # Keys come in random order, so in the worst case a large value has pages of its own, and the pages
        # of small values are half full.
        is_large = n_bytes > page // 8
        pages = n_values * -(-(n_bytes + 64) // page) if is_large else -(-2 * n_values * n_bytes // page)
        # Further pages for the nodes of the B+ tree, and for the copies that a write makes of changed pages.
        need = (pages + n_values // 16 + 4) * page
        try:
            free = shutil.disk_usage(os.path.dirname(self.path)).free
            used = os.path.getsize(self.path)
        except OSError:
            return False
        if limit is not None:
            return used + need <= limit and need <= free
        return need <= free - min(_RESERVED_BYTES, free // 10)

    def describe(self, group: bytes, settings: Mapping[str, Any]) -> None:
        """Store the settings of the values whose keys begin with `group`; `cache_info` lists them."""
        if self.writable and not self.has([_DESCRIPTION_PREFIX + group])[0]:
            self._put([(_DESCRIPTION_PREFIX + group, json.dumps(settings).encode())])

    def contents(self) -> Iterator[tuple[dict[str, Any], int, int]]:
        """Yield the settings of each group of values, the number of values, and their size in bytes."""
        counts: dict[bytes, tuple[int, int]] = {}
        settings: dict[bytes, dict[str, Any]] = {}
        with self.lock, self._begin() as txn:
            for key, value in txn.cursor():
                key = bytes(key)
                if key.startswith(_DESCRIPTION_PREFIX):
                    group = key.removeprefix(_DESCRIPTION_PREFIX)
                    if (found := _described(bytes(value))) is not None and group_of(found) == group:
                        settings[group] = found
                elif key != _FORMAT_KEY:
                    # A key is a group of 16 bytes and the id of a file; see `Store` in _base.py.
                    n_values, n_bytes = counts.get(key[:16], (0, 0))
                    counts[key[:16]] = n_values + 1, n_bytes + len(value)
        for group, (n_values, n_bytes) in counts.items():
            yield settings.get(group, {}), n_values, n_bytes

    # -- LMDB -------------------------------------------------------------------------------

    def _begin(self, **kwargs):
        if self.env is None:
            raise lmdb.InvalidError("it was deleted meanwhile")
        try:
            return self.env.begin(buffers=True, **kwargs)
        except lmdb.MapResizedError:
            # Another process has made the file longer than the part that this process has mapped.
            self.env.set_mapsize(0)
            return self.env.begin(buffers=True, **kwargs)

    def _look_up(self, keys, function):
        found = np.zeros(len(keys), dtype=bool)
        if self.failed is not None:
            return found
        try:
            with self.lock, self._begin() as txn:
                for row, key in enumerate(keys):
                    found[row] = function(txn, row, key)
        except _ERRORS as error:
            self._fail(error, "read")
            found[:] = False
        return found

    def _put(self, pairs):
        try:
            with self.lock:
                while True:
                    try:
                        with self._begin(write=True) as txn:
                            for key, value in pairs:
                                txn.put(key, value, overwrite=key in self.corrupt)
                        break
                    except lmdb.MapFullError:
                        need = sum(len(value) + 8192 for _, value in pairs)
                        self.env.set_mapsize(2 * self.env.info()["map_size"] + need)
                self._lengthen()
        except _ERRORS as error:
            self._fail(error, "written to")
            return False
        if self.corrupt:
            self.corrupt.difference_update(key for key, _ in pairs)
        return True

    def _lengthen(self):
        """Make the file as long as LMDB's header says: it is shorter if pages at its end were freed."""
        if self._is_too_short():
            with self._begin(write=True):  # a lock: no other process lengthens the file meanwhile
                if self._is_too_short():
                    os.truncate(self.path, self._expected_size())

    def _is_too_short(self):
        expected = self._expected_size()  # first, because the file may only become longer meanwhile
        return expected > os.path.getsize(self.path)

    def _expected_size(self):
        return (self.env.info()["last_pgno"] + 1) * self.env.stat()["psize"]

    def _fail(self, error, action):
        self.writable = False
        if action == "read":
            self.failed = error
        warn(
            f"cache={os.path.dirname(self.path)!r} cannot be {action} any more: {_reason(error)}. Missing values "
            f"are computed for this run alone. {_remedy(error, os.path.dirname(self.path))}"
        )

    def _add_corrupt(self, key):
        if not self.corrupt:
            warn(
                f"cache={os.path.dirname(self.path)!r} is damaged: some values do not match their checksums. "
                "They are computed anew. Check the disk; murakit.clear_cache deletes the cache."
            )
        self.corrupt.add(key)


class LimitedStorage:
    """Storage on disk with a size limit: all storages of a folder share one `Disk`, but not the limit.

    Parameters
    ----------
    disk : Disk
    limit : int or None
        Largest size of the file, in bytes. None: all of the free space but 1 GiB.
    """

    def __init__(self, disk: Disk, limit: int | None) -> None:
        self.disk = disk
        self.limit = limit
        self.path = disk.path
        self.location = disk.location
        self.has = disk.has
        self.read = disk.read
        self.write = disk.write
        self.describe = disk.describe

    @property
    def requested(self) -> bool:
        """Whether to warn if values are not stored here."""
        return self.disk.requested

    def room_for(self, n_values: int, n_bytes: int) -> bool:
        """Return whether `n_values` more values of `n_bytes` each fit into the limit and on the disk."""
        return self.disk.room_for(n_values, n_bytes, self.limit)


def _open(path):
    """Return the LMDB environment of a file, and whether it can be written to."""
    for name in (path, f"{path}-lock"):
        # Opening a named pipe would wait for its other end for ever.
        if os.path.exists(name) and not os.path.isfile(name):
            raise OSError(
                errno.EEXIST, f"{os.path.basename(name)!r} in it is no file but a folder, pipe or device"
            )
    # As bytes: LMDB's binding cannot encode names that are no Unicode.
    path = os.fsencode(path)
    kwargs = {"subdir": False, "map_size": _INITIAL_MAP_SIZE, "meminit": False, "max_readers": 1024}
    try:
        env = lmdb.open(path, **kwargs)
        # Removes readers whose process was killed: LMDB would not reuse the pages that they read.
        env.reader_check()
        return env, True
    except _ERRORS as error:
        if not os.path.isfile(path) or _errno(error) not in _ACCESS_ERRORS:
            raise
    try:
        return lmdb.open(path, readonly=True, **kwargs), False
    except _ERRORS:
        # The lock file cannot be opened either. Reading without it is safe, as nobody can write here.
        return lmdb.open(path, readonly=True, lock=False, **kwargs), False


def group_of(settings: Mapping[str, Any]) -> bytes:
    """Return the first half of the keys of all values that were computed with these settings: their hash."""
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16).digest()


def _checksum(key, value):
    return zlib.crc32(value, zlib.crc32(key)).to_bytes(_CHECKSUM_BYTES, "little")


def _described(written):
    """Return the settings that a description holds; None for a damaged one."""
    try:
        found = json.loads(written)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _device_and_inode(path):
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _parse_format(written):
    try:
        return json.loads(written)["format"]
    except (ValueError, KeyError, TypeError):
        return "unknown"


def _errno(error):
    return error.errno if isinstance(error, OSError) else getattr(error, "code", None)


def _reason(error):
    if isinstance(error, lmdb.InvalidError) and "MDB_INVALID" in str(error):
        return "its file is not an LMDB database, or is damaged"
    if isinstance(error, lmdb.VersionMismatchError) and "MDB_" in str(error):
        return "its file was written by another version of LMDB"
    return str(error)


def _remedy(error, folder):
    if _errno(error) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "Make room on that disk, or pass another folder."
    if _errno(error) in (*_ACCESS_ERRORS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return "Allow writing there, or pass another folder."
    return f"murakit.clear_cache({folder!r}) deletes it, and the next run creates it again; or pass another folder."


def warn(message: str) -> None:
    """Give a `CacheWarning` whose location is the user's line that called murakit."""
    warnings.warn(message, CacheWarning, stacklevel=_user_stacklevel())


def _user_stacklevel():
    """Return the `stacklevel` of the first caller outside murakit."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("murakit."):
        level, frame = level + 1, frame.f_back
    return max(1, level - 1)
