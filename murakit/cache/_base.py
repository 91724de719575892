"""Base of the stores: an array for each file, computed once and kept in a folder or in memory."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ..io._filesystem import identity
from ..utils._device import free_memory
from ..utils._progress import progress_bar, say
from ._lmdb import LimitedStorage, group_of, open_disk, warn

if TYPE_CHECKING:
    from tqdm import tqdm


# Largest chunk that is computed before it is written. A larger one makes commits cheaper, but takes more
# memory, and more is lost if the process is killed.
_MAX_CHUNK_BYTES = 16 * 2**20

_MAX_CHUNK_IMAGES = 256

# Largest size of rows that are read into memory as one array: indexing an array is much faster than looking
# up every row of a batch in the storage.
_IN_MEMORY_BYTES = 128 * 2**20

# Number of images that run through the frozen stages together. It is not the fit's batch_size, because
# stored outputs are also used by fits with another batch_size.
FROZEN_BATCH_SIZE = 32


class Files:
    """Paths of image files with an id of each file, which is computed on first use.

    The id is a hash of the file's path, size, times of change and number on the disk.
    """

    def __init__(self, paths: ArrayLike, ids: NDArray[np.object_] | None = None) -> None:
        self.paths = np.asarray(paths, dtype=object)
        self._ids = ids

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def ids(self) -> NDArray[np.object_]:
        if self._ids is None:
            self._ids = np.fromiter((_file_id(path) for path in self.paths), dtype=object, count=len(self))
        return self._ids

    def take(self, rows: Any) -> "Files":
        return Files(self.paths[rows], None if self._ids is None else self._ids[rows])


def _file_id(path):
    return hashlib.blake2b(identity(path).encode("utf-8", "surrogateescape"), digest_size=16).digest()


class Memory:
    """Storage in memory, with the methods of `murakit.cache._lmdb.LimitedStorage`.

    Parameters
    ----------
    limit : int or None
        Most bytes to keep. None: a quarter of the free memory.
    """

    location = "in memory"
    path = None

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        # Whether the user set a limit for this storage, and so is warned when it is too small.
        self.requested = limit is not None
        self.used = 0
        self.values: dict[bytes, NDArray[np.uint8]] = {}

    def has(self, keys: Sequence[bytes]) -> NDArray[np.bool_]:
        """Return, for each key, whether a value is stored."""
        return np.fromiter((key in self.values for key in keys), dtype=bool, count=len(keys))

    def read(self, keys: Sequence[bytes], out: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Copy values into the rows of `out`, (n, n_bytes); return which rows were found."""
        found = np.zeros(len(keys), dtype=bool)
        for row, key in enumerate(keys):
            value = self.values.get(key)
            if value is not None:
                out[row] = value
                found[row] = True
        return found

    def write(self, keys: Sequence[bytes], values: NDArray[np.uint8]) -> bool:
        """Store rows of (n, n_bytes); return whether they were stored."""
        self.values.update(zip(keys, values.copy()))
        self.used += values.nbytes
        return True

    def room_for(self, n_values: int, n_bytes: int) -> bool:
        """Return whether `n_values` more values of `n_bytes` each fit into the limit."""
        need = n_values * n_bytes
        # No more than a quarter of the free memory: other fits may run at the same time.
        return need <= (free_memory() // 4 if self.limit is None else self.limit - self.used)

    def describe(self, group: bytes, settings: Mapping[str, Any]) -> None:
        """Do nothing: `cache_info` lists only what is on disk."""


Storage = Memory | LimitedStorage


def open_storages(
    cache: str | PathLike[str] | None, cache_limit: int | None, *, memory: bool = True
) -> list[Storage]:
    """Return the storages to use, in order: the folder `cache`, then memory for what does not fit there."""
    disk = None if cache is None else open_disk(cache, cache_limit)
    storages: list[Storage] = [] if disk is None else [disk]
    if memory:
        # cache_limit is the limit of the folder, if there is one; otherwise it is the limit of the memory.
        storages.append(Memory(cache_limit if cache is None else None))
    return storages


class Store(ABC):
    """Store of arrays of one shape and dtype, one for each file, each computed once.

    Parameters
    ----------
    storages : list
        Storages that arrays are read from. New ones are written to the first storage with room.
    settings : dict
        All that decides the values, as JSON. Its hash is the first half of every key, so a changed name
        or value here makes all stored arrays useless.
    shape : tuple of int
        Shape of one array.
    dtype : str
        Type of one array.
    label : str
        Name of the arrays in messages, in the plural.
    verbose : int
        1: a progress bar, and a line that says where the arrays are kept.
    """

    # Whether `open` may return rows that are not stored: they are then computed whenever they are read.
    lazy = False
    # Text of the progress bar.
    progress_label: str
    # Stage of the network that takes these arrays. None: the first one, which takes pixels.
    stage: str | None

    def __init__(
        self,
        storages: list[Storage],
        settings: dict[str, Any],
        shape: Iterable[int],
        dtype: DTypeLike,
        label: str,
        verbose: int = 0,
    ) -> None:
        self.storages = storages
        self.settings = settings
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.label = label
        self.verbose = verbose
        self.location: str | None = None
        self.n_bytes = int(np.prod(self.shape)) * self.dtype.itemsize
        self.group = group_of(settings)

    @abstractmethod
    def _compute(self, files: Files) -> Iterator[NDArray]:
        """Yield the arrays of files in blocks, in order."""

    def network_layout(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor (b, *shape) of stored arrays with its dimensions in the network's order."""
        return tensor

    def to_tensor(self, block: NDArray) -> torch.Tensor:
        """Return a block (b, *shape) of stored arrays as a tensor for the network."""
        return self.network_layout(torch.from_numpy(block))

    def open(self, paths: ArrayLike | Files, *, report: bool = True) -> "Rows | None":
        """Compute and store the missing arrays, and return the `Rows` of these paths.

        Parameters
        ----------
        paths : array-like of shape (n,)
            Paths of image files.
        report : bool
            Whether to call `report`.

        Returns
        -------
        rows : Rows or None
            None if there is no room for the arrays, and computing them whenever they are read would be
            too slow.
        """
        files = paths if isinstance(paths, Files) else Files(paths)
        missing = self.missing_rows(files)
        self.location = self.storages[0].location if self.storages else None
        for storage in self.storages:
            if not len(missing):
                break
            if not storage.room_for(len(missing), self.n_bytes):
                continue
            self.location = storage.location
            self._compute_missing(files.take(missing), storage)
            # If the disk failed, the next storage gets the rest.
            missing = missing[~self._is_stored(files.take(missing))]
        if report:
            self.report(files, len(missing))
        return Rows(self, files, stored=not len(missing)) if self.lazy or not len(missing) else None

    def missing_rows(self, files: Files) -> NDArray[np.intp]:
        """Return the indices of the files whose arrays are in no storage, one of each file."""
        if not self.storages:
            return np.arange(len(files))
        # Computes the ids now, for all later batches: a file that is touched meanwhile keeps its id.
        ids = files.ids
        first: dict[bytes, int] = {}
        for row in np.flatnonzero(~self._is_stored(files)):
            first.setdefault(ids[row], int(row))
        return np.fromiter(first.values(), dtype=np.intp, count=len(first))

    def fits(self, files: Files, others: Iterable["Store"] = ()) -> bool:
        """Return whether one storage has room for all that this store, and `others` of its shape, miss."""
        n_missing = sum(len(store.missing_rows(files)) for store in (self, *others))
        return not n_missing or any(storage.room_for(n_missing, self.n_bytes) for storage in self.storages)

    def stream(
        self,
        paths: ArrayLike | Files,
        batch_size: int,
        storage: Storage | None = None,
        bar: "tqdm | None" = None,
    ) -> Iterator[NDArray]:
        """Yield blocks of `batch_size` arrays, in order; missing arrays are computed and stored.

        Parameters
        ----------
        paths : array-like of shape (n,)
            Paths of image files.
        batch_size : int
        storage : Memory, LimitedStorage or None
            Storage of the arrays that are computed. None: the disk, if there is one. What it has no room
            for is not stored.
        bar : tqdm or None
            Progress bar of the images that are computed.

        Yields
        ------
        block : ndarray of shape (b, ...)
        """
        files = paths if isinstance(paths, Files) else Files(paths)
        chunk = self._chunk_size(batch_size)
        with ThreadPoolExecutor(1) as writer:
            written = None
            for start in range(0, len(files), chunk):
                part = files.take(slice(start, start + chunk))
                flat, found = self._read(part)
                block = flat.view(self.dtype).reshape(len(part), *self.shape)
                missing = np.flatnonzero(~found)
                if len(missing):
                    new = part.take(missing)
                    done = 0
                    for values in self._compute(new):
                        block[missing[done : done + len(values)]] = values
                        done += len(values)
                        if bar is not None:
                            bar.update(len(values))
                    if written is not None:
                        written.result()  # what it wrote is then counted by room_for
                    # Ask again: the input of this computation may have been stored meanwhile.
                    room = storage is None or storage.room_for(len(missing), self.n_bytes)
                    target = (storage or self._disk_for(len(missing))) if room else None
                    if target is not None:
                        target.describe(self.group, self.settings)
                        # Indexing copies: the caller may change the block that is yielded in place.
                        written = writer.submit(target.write, self._keys(new), flat[missing])
                for first in range(0, len(part), batch_size):
                    yield block[first : first + batch_size]
            if written is not None:
                written.result()

    def _compute_missing(self, files, storage):
        chunk = self._chunk_size(FROZEN_BATCH_SIZE)
        chunks = [files.take(slice(start, start + chunk)) for start in range(0, len(files), chunk)]
        if storage.path is not None:
            # In random order, so that processes that compute the same arrays divide the work.
            np.random.default_rng().shuffle(chunks)
        with progress_bar(
            total=len(files), desc=self.progress_label, unit="image", disable=not self.verbose
        ) as bar:
            for part in chunks:
                # Other processes may have filled the storage meanwhile.
                if not storage.room_for(len(part), self.n_bytes):
                    break
                for _ in self.stream(part, FROZEN_BATCH_SIZE, storage, bar):
                    pass

    def _chunk_size(self, batch_size):
        """Return the number of images, in whole batches, that are computed before they are written."""
        largest = min(_MAX_CHUNK_IMAGES, _MAX_CHUNK_BYTES // self.n_bytes)
        return batch_size * max(1, largest // batch_size)

    def _disk_for(self, n_values):
        disk = self.storages[0] if self.storages and self.storages[0].path is not None else None
        return disk if disk is not None and disk.room_for(n_values, self.n_bytes) else None

    def _keys(self, files):
        return [self.group + file_id for file_id in files.ids]

    def _is_stored(self, files):
        found = np.zeros(len(files), dtype=bool)
        for storage in self.storages:
            rest = np.flatnonzero(~found)
            if not len(rest):
                break
            found[rest] = storage.has(self._keys(files.take(rest)))
        return found

    def _read(self, files):
        """Return the arrays of files as bytes (n, n_bytes), and which rows were in a storage."""
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
                in_part = storage.read(self._keys(files.take(rest)), part)
                flat[rest[in_part]] = part[in_part]
                found[rest[in_part]] = True
        return flat, found

    def report(self, files: Files, n_missing: int, n_stores: int = 1) -> None:
        """Print where the arrays are kept; warn if they are not in the storage that the user asked for.

        Parameters
        ----------
        files : Files
        n_missing : int
            Number of arrays that no storage has room for.
        n_stores : int
            Number of stores, one for each view, that the message is about.
        """
        size = format_bytes(len(files) * self.n_bytes * n_stores)
        subject = f"{self.label} of {len(files)} images" + (f" in {n_stores} views" if n_stores > 1 else "")
        instead = "read from their files each time" if self.lazy else "computed in every step"
        first = self.storages[0] if self.storages else None
        if first is not None and first.requested and (n_missing or self.location != first.location):
            leaves = "is free" if first.limit is None else f"cache_limit={format_bytes(first.limit)} leaves"
            warn(
                f"{subject} take {size}, more than {leaves} {first.location}: they are "
                f"{instead if n_missing else 'kept in memory for this fit'}. Raise cache_limit, free some space, or "
                "delete a cache that is no longer needed with murakit.clear_cache."
            )
        elif self.verbose:
            kept = (
                f"are {instead}: there is no room for {size}"
                if n_missing
                else f"are kept {self.location} ({size})"
            )
            say(f"{subject} {kept}")


class Rows:
    """Dataset of the arrays of some files: a batch of rows is one tensor.

    It has the methods of a PyTorch dataset.

    Parameters
    ----------
    store : Store
    files : Files
    stored : bool
        Whether all arrays are in a storage; otherwise they are computed whenever they are read.

    Attributes
    ----------
    stage : str or None
        Stage of the network that takes the rows. None: the first one, which takes pixels.
    """

    def __init__(self, store: Store, files: Files, *, stored: bool) -> None:
        self.store = store
        self.files = files
        self.stored = stored
        self.stage = store.stage
        self.n_bytes = len(files) * store.n_bytes

    def __len__(self) -> int:
        return len(self.files)

    @property
    def in_memory(self) -> bool:
        """Whether the rows are one array in memory, so that reading a batch takes almost no time."""
        return self.stored and self.n_bytes <= _IN_MEMORY_BYTES

    def __getitem__(self, rows: Any) -> torch.Tensor:
        indices = np.arange(len(self))[rows]
        batch = self.__getitems__(np.atleast_1d(indices))
        return batch if indices.ndim else batch[0]

    def __getitems__(self, rows: ArrayLike) -> torch.Tensor:
        """Return a batch (b, ...): the arrays of some rows."""
        rows = np.asarray(rows)
        if self._array is not None:
            return self.store.to_tensor(self._array[rows])
        return self.store.to_tensor(self._gather(rows))

    @cached_property
    def _array(self):
        return self._gather(np.arange(len(self))) if self.in_memory else None

    def _gather(self, rows):
        files = self.files.take(rows)
        blocks = list(self.store.stream(files, max(1, len(files))))
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


class TensorRows:
    """Dataset of rows that are one tensor, on any device.

    Parameters
    ----------
    tensor : Tensor of shape (n, ...)
    network_layout : callable
        Changes the order of a batch's dimensions to the network's.
    stage : str or None
        Stage of the network that takes the rows. None: the first one, which takes pixels.
    """

    in_memory = True

    def __init__(
        self,
        tensor: torch.Tensor,
        network_layout: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor,
        stage: str | None = None,
    ) -> None:
        self.tensor = tensor
        self.network_layout = network_layout
        self.stage = stage

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitems__(self, rows: ArrayLike) -> torch.Tensor:
        """Return a batch (b, ...) of some rows."""
        rows = torch.as_tensor(rows, device=self.tensor.device)
        return self.network_layout(self.tensor.index_select(0, rows))


def format_bytes(n_bytes: float) -> str:
    """Return a number of bytes as text with a unit, such as "1.5 MB"."""
    for unit in ("B", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} GB"
