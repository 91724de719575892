"""Arrays of files, each computed once and kept on a storage; see `murakit.cache._store` for what they are."""

import hashlib
import json
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import torch

from ..io._filesystem import identity
from ..utils._device import free_memory
from ..utils._progress import progress_bar, say
from ._lmdb import open_disk, warn

# What is computed before it is written and handed on: enough to make a commit cheap, little to hold
# in memory, and little to lose where the process is killed.
_CHUNK_BYTES = 16 * 2**20

_CHUNK_IMAGES = 256

# Rows that take no more are held as one tensor: batches of a few features are gathered faster than
# they could be looked up.
_HELD_BYTES = 128 * 2**20

# Images that are computed together. Not batch_size: what is stored serves fits of any.
PASS = 32


class Files:
    """Paths with the identities of their files, which are looked up when first asked for."""

    def __init__(self, paths, ids=None):
        self.paths = np.asarray(paths, dtype=object)
        self._ids = ids

    def __len__(self):
        return len(self.paths)

    @property
    def ids(self):
        if self._ids is None:
            self._ids = np.fromiter((_identity(path) for path in self.paths), dtype=object, count=len(self))
        return self._ids

    def take(self, rows):
        return Files(self.paths[rows], None if self._ids is None else self._ids[rows])


def _identity(path):
    return hashlib.blake2b(identity(path).encode("utf-8", "surrogateescape"), digest_size=16).digest()


class Memory:
    """A storage in memory, with the methods of a `murakit.cache._lmdb.Disk`."""

    place = "in memory"
    path = None

    def __init__(self, limit=None):
        self.limit = limit
        # Whether somebody asked for it, and is to be told where it cannot be used.
        self.wanted = limit is not None
        self.used = 0
        self.values = {}

    def has(self, keys):
        return np.fromiter((key in self.values for key in keys), dtype=bool, count=len(keys))

    def read(self, keys, out):
        found = np.zeros(len(keys), dtype=bool)
        for row, key in enumerate(keys):
            value = self.values.get(key)
            if value is not None:
                out[row] = value
                found[row] = True
        return found

    def write(self, keys, values):
        self.values.update(zip(keys, values.copy()))
        self.used += values.nbytes
        return True

    def room_for(self, n_values, n_bytes):
        need = n_values * n_bytes
        # Other fits may run at the same time; a quarter leaves them theirs.
        return need <= (free_memory() // 4 if self.limit is None else self.limit - self.used)

    def describe(self, group, about):
        pass


def storages_of(cache, cache_limit, *, memory=True):
    """Return where values may be kept: the folder `cache`, then memory for what does not fit there."""
    disk = None if cache is None else open_disk(cache, cache_limit)
    storages = [] if disk is None else [disk]
    if memory:
        # The limit is that of the folder; without one, it is that of the memory.
        storages.append(Memory(cache_limit if cache is None else None))
    return storages


class Store(ABC):
    """Arrays of one shape and type, one a file, each computed once.

    Parameters
    ----------
    storages : list
        Where arrays are looked for, and kept: the first with room.
    about : dict
        What decides the values; part of every key.
    shape, dtype : tuple, str
        Of one array.
    what : str
        What one is called, in the plural.
    verbose : int
    """

    # Whether single rows can be had without being stored.
    lazy = False

    def __init__(self, storages, about, shape, dtype, what, verbose=0):
        self.storages = storages
        self.about = about
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.what = what
        self.verbose = verbose
        self.place = None
        self.n_bytes = int(np.prod(self.shape)) * self.dtype.itemsize
        self.group = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16).digest()

    @abstractmethod
    def _compute(self, files):
        """Yield blocks of arrays, in order, of files that no storage has."""

    def present(self, tensor):
        """Return a tensor (b, *shape) of stored arrays as what a network takes."""
        return tensor

    def to_tensor(self, block):
        """Return a block (b, *shape) of stored arrays as what a network takes."""
        return self.present(torch.from_numpy(block))

    def open(self, paths, *, report=True):
        """Compute what is missing, and return the `Rows` of these paths.

        Parameters
        ----------
        paths : array-like of shape (n,)
            Files of images.
        report : bool
            Whether to `report` where they are kept.

        Returns
        -------
        rows : Rows or None
            None where there is no room to keep them, and they are too dear to compute each time.
        """
        files = paths if isinstance(paths, Files) else Files(paths)
        lacking = self.lacking(files)
        self.place = self.storages[0].place if self.storages else None
        for storage in self.storages:
            if not len(lacking):
                break
            if not storage.room_for(len(lacking), self.n_bytes):
                continue
            self.place = storage.place
            self._fill(files.take(lacking), storage)
            # A disk may have failed, and then the next storage gets the rest.
            lacking = lacking[~self._has(files.take(lacking))]
        if report:
            self.report(files, len(lacking))
        return Rows(self, files, stored=not len(lacking)) if self.lazy or not len(lacking) else None

    def lacking(self, files):
        """Return the rows that are on no storage."""
        if self.storages:
            # Once for all batches to come: a file that is touched meanwhile stays what it was.
            files.ids  # noqa: B018
        return np.flatnonzero(~self._has(files))

    def fits(self, files, others=()):
        """Tell whether the rows that this store and others of its kind lack fit on one storage."""
        need = sum(len(store.lacking(files)) for store in (self, *others))
        return not need or any(storage.room_for(need, self.n_bytes) for storage in self.storages)

    def stream(self, paths, batch_size, storage=None, bar=None):
        """Yield blocks of `batch_size` arrays, in order; what no storage has is computed and kept on `storage`.

        Without a `storage`, it is kept on disk, where there is one with room.
        """
        files = paths if isinstance(paths, Files) else Files(paths)
        chunk = self._chunk(batch_size)
        with ThreadPoolExecutor(1) as writer:
            written = None
            for start in range(0, len(files), chunk):
                part = files.take(slice(start, start + chunk))
                flat, found = self._read(part)
                block = flat.view(self.dtype).reshape(len(part), *self.shape)
                lacking = np.flatnonzero(~found)
                if len(lacking):
                    new = part.take(lacking)
                    done = 0
                    for values in self._compute(new):
                        block[lacking[done : done + len(values)]] = values
                        done += len(values)
                        if bar is not None:
                            bar.update(len(values))
                    if written is not None:
                        written.result()  # before the room is asked for that it takes
                    # Again: what this is computed from may have been written since.
                    room = storage is None or storage.room_for(len(lacking), self.n_bytes)
                    target = (storage or self._disk_for(len(lacking))) if room else None
                    if target is not None:
                        target.describe(self.group, self.about)
                        # A copy: what is handed on may be changed in place.
                        written = writer.submit(target.write, self._keys(new), flat[lacking])
                for first in range(0, len(part), batch_size):
                    yield block[first : first + batch_size]
            if written is not None:
                written.result()

    def _fill(self, files, storage):
        chunk = self._chunk(PASS)
        chunks = [files.take(slice(start, start + chunk)) for start in range(0, len(files), chunk)]
        if storage.path is not None:
            # Each process in an order of its own, so that those which fill one store share the work.
            np.random.default_rng().shuffle(chunks)
        with progress_bar(total=len(files), desc=self.doing, unit="image", disable=not self.verbose) as bar:
            for part in chunks:
                # Others may have filled it meanwhile.
                if not storage.room_for(len(part), self.n_bytes):
                    break
                for _ in self.stream(part, PASS, storage, bar):
                    pass

    def _chunk(self, batch_size):
        """Return the number of images of whole batches that are computed before they are written."""
        most = min(_CHUNK_IMAGES, _CHUNK_BYTES // self.n_bytes)
        return batch_size * max(1, most // batch_size)

    def _disk_for(self, n_values):
        disk = self.storages[0] if self.storages and self.storages[0].path is not None else None
        return disk if disk is not None and disk.room_for(n_values, self.n_bytes) else None

    def _keys(self, files):
        return [self.group + identity for identity in files.ids]

    def _has(self, files):
        found = np.zeros(len(files), dtype=bool)
        for storage in self.storages:
            rest = np.flatnonzero(~found)
            if not len(rest):
                break
            found[rest] = storage.has(self._keys(files.take(rest)))
        return found

    def _read(self, files):
        """Return the arrays of files as bytes, (n, n_bytes), and which of them were on a storage."""
        flat = np.empty((len(files), self.n_bytes), dtype=np.uint8)
        found = np.zeros(len(files), dtype=bool)
        for storage in self.storages:
            rest = np.flatnonzero(~found)
            if not len(rest):
                break
            if len(rest) == len(files):
                found = storage.read(self._keys(files), flat)
            else:
                part = np.empty((len(rest), self.n_bytes), dtype=np.uint8)
                there = storage.read(self._keys(files.take(rest)), part)
                flat[rest[there]] = part[there]
                found[rest[there]] = True
        return flat, found

    def report(self, files, n_lacking, n_stores=1):
        """Say where the arrays are kept, and warn where they do not go where they were meant to."""
        size = human(len(files) * self.n_bytes * n_stores)
        subject = f"{self.what} of {len(files)} images" + (f" in {n_stores} views" if n_stores > 1 else "")
        instead = "read from their files each time" if self.lazy else "computed in every step"
        first = self.storages[0] if self.storages else None
        if first is not None and first.wanted and (n_lacking or self.place != first.place):
            leaves = "is free" if first.limit is None else f"cache_limit={human(first.limit)} leaves"
            warn(
                f"{subject} take {size}, more than {leaves} {first.place}: they are "
                f"{instead if n_lacking else 'kept in memory for this fit'}. Raise cache_limit, make room, or delete "
                "what is no longer needed with murakit.clear_cache."
            )
        elif self.verbose:
            kept = (
                f"are {instead}: there is no room for {size}"
                if n_lacking
                else f"are kept {self.place} ({size})"
            )
            say(f"{subject} {kept}")


class Rows:
    """Arrays of a store by row number, as a tensor a batch; usable as a dataset of PyTorch.

    Parameters
    ----------
    store : Store
    files : Files
    stored : bool
        Whether all of them are on a storage; else they are computed each time.
    """

    def __init__(self, store, files, *, stored):
        self.store = store
        self.files = files
        self.stored = stored
        self.stage = store.stage
        self.n_bytes = len(files) * store.n_bytes

    def __len__(self):
        return len(self.files)

    @property
    def held(self):
        """Whether they lie in memory as one array, so that a batch is gathered at once."""
        return self.stored and self.n_bytes <= _HELD_BYTES

    def __getitem__(self, rows):
        chosen = np.arange(len(self))[rows]
        batch = self.__getitems__(np.atleast_1d(chosen))
        return batch if chosen.ndim else batch[0]

    def __getitems__(self, rows):
        """Return the batch (b, ...) of some rows."""
        rows = np.asarray(rows)
        if self._array is not None:
            return self.store.to_tensor(self._array[rows])
        return self.store.to_tensor(self._gather(rows))

    @cached_property
    def _array(self):
        return self._gather(np.arange(len(self))) if self.held else None

    def _gather(self, rows):
        files = self.files.take(rows)
        blocks = list(self.store.stream(files, max(1, len(files))))
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


class TensorRows:
    """Rows that are a tensor, on any device."""

    held = True

    def __init__(self, tensor, present=lambda tensor: tensor, stage=None):
        self.tensor = tensor
        self.present = present
        self.stage = stage

    def __len__(self):
        return len(self.tensor)

    def __getitems__(self, rows):
        rows = torch.as_tensor(rows, device=self.tensor.device)
        return self.present(self.tensor.index_select(0, rows))


def human(n_bytes):
    """Return a number of bytes as a person reads it."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
