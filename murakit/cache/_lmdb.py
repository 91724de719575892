"""A storage on disk: values under keys in one LMDB file, which many processes read and fill at once."""

import errno
import inspect
import json
import os
import shutil
import time
import warnings
import weakref
import zlib

import lmdb
import numpy as np

from ..utils._threading import Lock

# Raised when the layout of keys or values changes; stores of another format are left alone.
FORMAT = 1

FILE = "murakit.lmdb"

_FORMAT_KEY = b"murakit"

_ABOUT = b"about:"

_CHECKSUM = 4

_FIRST_MAP = 2**30

# Of a disk's free space, what is left to others where no limit is given.
_LEFT_FREE = 2**30

# Seconds that a file may be shorter than it counts, while the process that writes it lengthens it.
_OTHERS_TURN = 1.0

_FAILURES = (lmdb.Error, OSError)

_NO_ACCESS = (errno.EACCES, errno.EROFS, errno.EPERM)


class CacheWarning(UserWarning):
    """A cache that cannot do all it was asked for; the message says what happens instead."""


# LMDB allows one handle a file in a process; it is shared, and closed when nobody holds it any more.
_open_disks = weakref.WeakValueDictionary()

_opening = Lock()


def open_disk(folder, limit=None):
    """Return the storage of a folder, or None where it cannot be used, with a warning that says so.

    Parameters
    ----------
    folder : str or os.PathLike
        Made where it does not exist.
    limit : int or None
        Most bytes that its file may take; None: all but 1 GiB of the free space.
    """
    path = path_in(folder)
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, exist_ok=True)
        disk = connect(path)
    except _FAILURES as error:
        warn(
            f"cache={folder!r} cannot be used: {_reason(error)}. What would be kept there is computed for "
            f"this run alone. {_remedy(error, folder)}"
        )
        return None
    if not disk.writable and disk.failed is None:
        warn(
            f"cache={folder!r} cannot be written to: what it holds is used, the rest is computed for this run "
            "alone. Allow writing there, or pass another folder."
        )
    return LimitedStorage(disk, limit)


def connect(path):
    """Return the `Disk` of a file, the one that is open already where there is one; raise as that does."""
    with _opening:
        disk = _open_disks.get(path)
        # A file that was deleted, or made anew by another process, is no longer this one. After a
        # fork, LMDB forbids to go on with the parent's handle.
        if disk is not None and not disk.is_current():
            disk.close()
            disk = None
        if disk is None:
            disk = Disk(path)
            _open_disks[path] = disk
        return disk


def delete(folder):
    """Delete the file of a folder; return the bytes that it took."""
    path = path_in(folder)
    freed = 0
    with _opening:
        disk = _open_disks.pop(path, None)
        if disk is not None:
            disk.close()
        for name in (path, f"{path}-lock"):
            try:
                found = os.stat(name)
                os.remove(name)
            except FileNotFoundError:
                continue
            # A file with holes takes less than its length.
            freed += getattr(found, "st_blocks", found.st_size / 512) * 512
    return int(freed)


def path_in(folder):
    """Return the path of the file in a folder."""
    # Of a folder with two names, one: LMDB must not open a file twice.
    return os.path.join(os.path.realpath(os.path.expanduser(os.fspath(folder))), FILE)


class Disk:
    """Values under keys, each with a checksum, in one file.

    A value is there whole or not at all, whenever a writer is killed. Every failure of the disk
    ends in a warning and in values that are not found; it never raises and never returns other
    bytes than those that were written.

    Parameters
    ----------
    path : str
        The file. Raises `lmdb.Error` or `OSError` where it cannot be opened.
    """

    place = "on disk"

    def __init__(self, path):
        self.path = path
        self.pid = os.getpid()
        # LMDB's handles may be shared by threads, but the map may only grow while none reads.
        self.lock = Lock()
        self.failed = None
        self.corrupt = set()
        self.env, self.writable = _open(path)
        try:
            self._check()
        except BaseException:
            self.env.close()
            raise
        self.file = _identity(path)

    def _check(self):
        deadline = time.monotonic() + _OTHERS_TURN
        while self._lacks_pages():
            if time.monotonic() > deadline:
                # Reading beyond its end would kill the process.
                raise lmdb.CorruptedError("the file has been cut short")
            time.sleep(0.01)  # another process may be about to lengthen it: see `_pad`
        written = self._format(write=False)
        if written is None and self.writable:
            written = self._format(write=True)
        if written is not None and (found := _format_of(written)) != FORMAT:
            raise lmdb.VersionMismatchError(
                f"it was written by another version of murakit (format {found}; this one writes {FORMAT})"
            )

    def _format(self, write):
        # The key and the number of entries have to come from one snapshot: another process may be
        # making the same file at this moment.
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
    def wanted(self):
        """Whether it was asked for and can be used: of a failure, its user has been told already."""
        return self.writable

    def is_current(self):
        """Tell whether the open file is still the one that its path names, in this process."""
        return self.pid == os.getpid() and self.env is not None and _identity(self.path) == self.file

    def close(self):
        with self.lock:
            env, self.env = self.env, None
            if env is not None:
                env.close()

    # -- what every storage does --------------------------------------------------------------

    def has(self, keys):
        """Tell which keys have a value, as an array of bool."""
        return self._look(keys, lambda txn, row, key: txn.get(key) is not None)

    def read(self, keys, out):
        """Copy values into the rows of `out`, (n, n_bytes) uint8; tell which were there, whole."""

        def copy(txn, row, key):
            value = txn.get(key)
            if value is None or len(value) != out.shape[1] + _CHECKSUM:
                return False
            out[row] = np.frombuffer(value, np.uint8, out.shape[1])
            if zlib.crc32(out[row]).to_bytes(_CHECKSUM, "little") == bytes(value[-_CHECKSUM:]):
                return True
            self._note_corrupt(key)
            return False

        return self._look(keys, copy)

    def write(self, keys, values):
        """Store rows of (n, n_bytes) uint8 at once; return whether they were."""
        if not self.writable:
            return False
        pairs = [
            (key, b"".join((value.data, zlib.crc32(value).to_bytes(_CHECKSUM, "little"))))
            for key, value in zip(keys, values)
        ]
        return self._put(pairs)

    def room_for(self, n_values, n_bytes, limit=None):
        """Tell whether that many values more are within a limit and on the disk."""
        if not self.writable:
            return False
        page = 4096
        # Where few values share a page, keys in random order can leave one alone in each.
        alone = n_bytes > page // 8
        pages = n_values * -(-(n_bytes + 64) // page) if alone else -(-2 * n_values * n_bytes // page)
        # And the tree's own: entries of those values, and copies of what a write changes.
        need = (pages + n_values // 16 + 4) * page
        try:
            free = shutil.disk_usage(os.path.dirname(self.path)).free
            used = os.path.getsize(self.path)
        except OSError:
            return False
        if limit is not None:
            return used + need <= limit and need <= free
        return need <= free - min(_LEFT_FREE, free // 10)

    def describe(self, group, about):
        """Note what the keys that begin with `group` stand for, for `cache_info`."""
        if self.writable and not self.has([_ABOUT + group])[0]:
            self._put([(_ABOUT + group, json.dumps(about).encode())])

    def contents(self):
        """Yield each description with its number of values and their bytes."""
        counts, about = {}, {}
        with self.lock, self._begin() as txn:
            for key, value in txn.cursor():
                key = bytes(key)
                if key.startswith(_ABOUT):
                    about[key.removeprefix(_ABOUT)] = json.loads(bytes(value))
                elif key != _FORMAT_KEY:
                    # Keys are a group and an identity of fixed lengths; see _store.py.
                    n_values, n_bytes = counts.get(key[:16], (0, 0))
                    counts[key[:16]] = n_values + 1, n_bytes + len(value)
        for group, (n_values, n_bytes) in counts.items():
            yield about.get(group, {}), n_values, n_bytes

    # -- LMDB -------------------------------------------------------------------------------

    def _begin(self, **kwargs):
        if self.env is None:
            raise lmdb.InvalidError("it was deleted meanwhile")
        try:
            return self.env.begin(buffers=True, **kwargs)
        except lmdb.MapResizedError:
            # Another process has made the file longer than this one has mapped.
            self.env.set_mapsize(0)
            return self.env.begin(buffers=True, **kwargs)

    def _look(self, keys, function):
        found = np.zeros(len(keys), dtype=bool)
        if self.failed is not None:
            return found
        try:
            with self.lock, self._begin() as txn:
                for row, key in enumerate(keys):
                    found[row] = function(txn, row, key)
        except _FAILURES as error:
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
                self._pad()
        except _FAILURES as error:
            self._fail(error, "written to")
            return False
        if self.corrupt:
            self.corrupt.difference_update(key for key, _ in pairs)
        return True

    def _pad(self):
        """Keep the file as long as LMDB counts it, which it is not after pages at its end came free."""
        if self._lacks_pages():
            with self._begin(write=True):  # nobody else makes it longer meanwhile
                if self._lacks_pages():
                    os.truncate(self.path, self._counted())

    def _lacks_pages(self):
        counted = self._counted()  # before its length is asked for, which only grows
        return counted > os.path.getsize(self.path)

    def _counted(self):
        return (self.env.info()["last_pgno"] + 1) * self.env.stat()["psize"]

    def _fail(self, error, what):
        self.writable = False
        if what == "read":
            self.failed = error
        warn(
            f"cache={os.path.dirname(self.path)!r} cannot be {what} any more: {_reason(error)}. What it lacks is "
            f"computed for this run alone. {_remedy(error, os.path.dirname(self.path))}"
        )

    def _note_corrupt(self, key):
        if not self.corrupt:
            warn(
                f"cache={os.path.dirname(self.path)!r} is damaged: values do not have the checksum that they were "
                "written with. They are computed anew. Check the disk; murakit.clear_cache deletes the cache."
            )
        self.corrupt.add(key)


class LimitedStorage:
    """A `Disk` under a limit of one user, for the handle is shared by all users of a folder.

    Parameters
    ----------
    disk : Disk
    limit : int or None
        Most bytes that its file may take.
    """

    def __init__(self, disk, limit):
        self.disk = disk
        self.limit = limit
        self.path = disk.path
        self.place = disk.place
        self.has = disk.has
        self.read = disk.read
        self.write = disk.write
        self.describe = disk.describe

    @property
    def wanted(self):
        """Whether somebody asked for it, and is to be warned where it cannot be used."""
        return self.disk.wanted

    def room_for(self, n_values, n_bytes):
        """Tell whether that many values more are within the limit and on the disk."""
        return self.disk.room_for(n_values, n_bytes, self.limit)


def _open(path):
    """Return the LMDB environment of a file and whether it can be written to."""
    kwargs = {"subdir": False, "map_size": _FIRST_MAP, "meminit": False, "max_readers": 1024}
    try:
        env = lmdb.open(path, **kwargs)
        # Readers that were killed would keep pages from being used again.
        env.reader_check()
        return env, True
    except _FAILURES as error:
        if not os.path.isfile(path) or _errno(error) not in _NO_ACCESS:
            raise
    try:
        return lmdb.open(path, readonly=True, **kwargs), False
    except _FAILURES:
        # The lock file may be out of reach as well; then nobody writes here.
        return lmdb.open(path, readonly=True, lock=False, **kwargs), False


def _identity(path):
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _format_of(written):
    try:
        return json.loads(written)["format"]
    except (ValueError, KeyError, TypeError):
        return "unknown"


def _errno(error):
    return error.errno if isinstance(error, OSError) else getattr(error, "code", None)


def _reason(error):
    if isinstance(error, lmdb.InvalidError) and "MDB_INVALID" in str(error):
        return "its file is no LMDB database, or a damaged one"
    if isinstance(error, lmdb.VersionMismatchError) and "MDB_" in str(error):
        return "its file was written by another version of LMDB"
    return str(error)


def _remedy(error, folder):
    if _errno(error) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "Make room on that disk, or pass another folder."
    if _errno(error) in (*_NO_ACCESS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return "Allow writing there, or pass another folder."
    return f"murakit.clear_cache({folder!r}) deletes it, so that it is made anew; or pass another folder."


def warn(message):
    """Warn whoever called murakit."""
    warnings.warn(message, CacheWarning, stacklevel=_depth())


def _depth():
    """Return the level of the first caller outside murakit, which is what a user knows."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("murakit."):
        level, frame = level + 1, frame.f_back
    return max(1, level - 1)
