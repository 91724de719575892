"""Inputs of a network in training and prediction: pixels, or stored outputs of its frozen stages."""

from collections.abc import Iterator, Sequence
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ..cache._base import Files, Rows, TensorRows, open_storages
from ..cache._store import FeatureStore, ImageStore
from ..utils._device import free_device_memory
from ..utils._threading import ahead

if TYPE_CHECKING:
    from ..networks._network import Radiograph

# Batch size of predictions: large enough to keep the device busy.
_PREDICTION_BATCH_SIZE = {"cpu": 32, "cuda": 256}


class NetworkInputs:
    """Source of the inputs of a network, in one fit or one prediction.

    Parameters
    ----------
    network : Radiograph
        Network on `device`.
    unfreeze : str
        Its first trained stage.
    image_size, resize, cache, cache_limit, feature_dtype, n_jobs, verbose
        Parameters of `MuraClassifier`.
    device : str
    autocast : bool
        Whether frozen stages run in bfloat16, by `torch.autocast`.
    fitting : bool
        Whether to keep in memory what the disk has no room for.
    """

    def __init__(
        self,
        network: "Radiograph",
        unfreeze: str,
        *,
        image_size: int,
        resize: str,
        cache: str | PathLike[str] | None,
        cache_limit: int | None,
        feature_dtype: str,
        n_jobs: int | None,
        verbose: int,
        device: str | torch.device,
        autocast: bool,
        fitting: bool,
    ) -> None:
        self.network = network
        self.unfreeze = unfreeze
        self.device = torch.device(device)
        self.autocast = autocast
        self.feature_dtype = feature_dtype
        self.verbose = verbose
        self.storages = open_storages(cache, cache_limit, memory=fitting)
        self.images = ImageStore(
            image_size=image_size, resize=resize, n_jobs=n_jobs, verbose=verbose, storages=self.storages
        )

    # -- training ---------------------------------------------------------------------------

    def for_training(
        self,
        paths: NDArray,
        *,
        augmented: bool,
        views: int | None,
        head_epochs: int,
        mixed: bool,
    ) -> "tuple[Dataset, Dataset | None]":
        """Return the inputs of a training, and those of the epochs that train only the head.

        Parameters
        ----------
        paths : ndarray of shape (n,)
            Paths of image files.
        augmented : bool
            Whether the network augments the images at random.
        views : int or None
            Number of fixed random views of each image. None: new random changes in each epoch.
        head_epochs : int
            Number of first epochs that train only the head.
        mixed : bool
            Whether mixup blends the inputs of a batch. It must blend the outputs of the same stage whether
            or not there is room to store them. So outputs that cannot be stored are computed in each step.

        Returns
        -------
        inputs : Rows, ViewRows or TensorRows
        head_inputs : Rows, ViewRows, TensorRows or None
            Inputs while only the head is trained. None: `inputs`.
        """
        files = Files(paths)
        inputs = head_inputs = None
        if not augmented or views is not None:
            numbers: Sequence[int | None] = (None,) if not augmented or views is None else range(views)
            sources = [self.images] * len(numbers)
            if self.network.stages_before(self.unfreeze):
                stores = [self._feature_store(self.images, self.unfreeze, number) for number in numbers]
                # Views that cannot be stored are computed in each step, from the same random numbers.
                inputs = self._open_stores(stores, files, compute_if_no_room=augmented or mixed)
                sources = sources if inputs is None else stores
            if head_epochs and self.unfreeze != "head":
                stores = [self._feature_store(source, "head", view) for source, view in zip(sources, numbers)]
                # If `inputs` are views already, they are right for the head as well. Otherwise they are pixels,
                # which the network would augment with new random numbers.
                needs_views = mixed or (augmented and inputs is None)
                head_inputs = self._open_stores(stores, files, compute_if_no_room=needs_views)
        if inputs is None:
            inputs = self.images.open(files)
        return self._to_device(inputs), None if head_inputs is None else self._to_device(head_inputs)

    def _feature_store(self, source, stage, view=None):
        random = isinstance(view, int)
        return FeatureStore(
            source,
            self.network,
            stage,
            storages=self.storages,
            view=view,
            augmentation=self.network.augmentation if random else None,
            dtype=self.feature_dtype,
            device=self.device,
            autocast=self.autocast,
            verbose=self.verbose,
        )

    def _open_stores(self, stores, files, *, compute_if_no_room):
        rows = None
        if stores[0].fits(files, stores[1:]):
            rows = [store.open(files, report=False) for store in stores]
        else:
            stores[0].report(files, len(files), len(stores))
        if rows is None or any(row is None for row in rows):
            if not compute_if_no_room:
                return None
            self.images.open(files)
            rows = [Rows(store, files, stored=False) for store in stores]
            return rows[0] if len(rows) == 1 else ViewRows(rows)
        # One report for all views: that of a view which did not fit into the first storage, if there is one.
        reported = max(stores, key=lambda store: store.location != store.storages[0].location)
        reported.report(files, 0, len(stores))
        return rows[0] if len(rows) == 1 else ViewRows(rows)

    def _to_device(self, rows):
        return rows if self.device.type == "cpu" else rows_on_device(rows, self.device)

    # -- prediction -------------------------------------------------------------------------

    def for_prediction(
        self, paths: NDArray, *, mirrored: bool, stored: bool = True
    ) -> Iterator[tuple[list[torch.Tensor], str | None]]:
        """Yield batches of the inputs of images and, with `mirrored`, of their mirror images.

        Parameters
        ----------
        paths : ndarray of shape (m,)
            Paths of image files.
        mirrored : bool
            Whether to yield mirror images as well, for test-time augmentation.
        stored : bool
            Whether to use stored outputs of the frozen stages, and to store new ones.

        Yields
        ------
        inputs : list of Tensor
            Batch of the images and, with `mirrored`, batch of their mirror images.
        begin : str or None
            Stage of the network that takes them, for `Radiograph.infer`.
        """
        files = Files(paths)
        size = _PREDICTION_BATCH_SIZE.get(self.device.type, 32)
        if stored and self.storages and self.network.stages_before(self.unfreeze):
            views = (None, "mirror") if mirrored else (None,)
            stores = [self._feature_store(self.images, self.unfreeze, view) for view in views]
            if stores[0].storages:
                for of_views in zip(*(store.stream(files, size) for store in stores)):
                    yield [store.to_tensor(block) for store, block in zip(stores, of_views)], self.unfreeze
                return
        blocks = self.images.stream(files, size)
        for block in blocks if self.device.type == "cpu" else ahead(blocks):
            pixels = self.images.to_tensor(block)
            yield [pixels, pixels.flip(-1)] if mirrored else [pixels], None


def rows_on_device(rows: "Dataset", device: str | torch.device) -> "Dataset":
    """Copy rows to a GPU if half of its free memory is enough for them; otherwise return them unchanged."""
    if isinstance(rows, ViewRows):
        return ViewRows([_one_on_device(view, device) for view in rows.views])
    return _one_on_device(rows, device)


def _one_on_device(rows: Rows | TensorRows, device: str | torch.device) -> Rows | TensorRows:
    if isinstance(rows, TensorRows) or rows.n_bytes > free_device_memory(device) // 2:
        return rows
    blocks = rows.store.stream(rows.files, _PREDICTION_BATCH_SIZE["cuda"])
    tensor = torch.cat([torch.from_numpy(block).to(device) for block in blocks])
    return TensorRows(tensor, rows.store.network_layout, rows.stage)


class ViewRows:
    """Dataset of fixed views of each image: an epoch shows one view of it, the next epoch the next view.

    Parameters
    ----------
    views : list of Rows or TensorRows
        Dataset of each view.
    """

    def __init__(self, views: Sequence[Rows | TensorRows]) -> None:
        self.views = views
        self.epoch = 0
        self.stage = views[0].stage
        self.in_memory = all(view.in_memory for view in views)

    def __len__(self) -> int:
        return len(self.views[0])

    def start_epoch(self, epoch: int) -> None:
        """Select the views of an epoch, numbered from 0."""
        self.epoch = epoch

    def __getitems__(self, rows: ArrayLike) -> torch.Tensor:
        """Return a batch (b, ...) of some rows."""
        rows = np.asarray(rows)
        # Neighbouring rows show different views, so that every epoch contains all views.
        view_of = (rows + self.epoch) % len(self.views)
        order = np.argsort(view_of, kind="stable")
        parts = [
            view.__getitems__(rows[view_of == number])
            for number, view in enumerate(self.views)
            if (view_of == number).any()
        ]
        batch = torch.cat(parts)
        inverse = torch.from_numpy(np.argsort(order)).to(batch.device)
        batch = batch.index_select(0, inverse)
        return batch.contiguous(memory_format=torch.channels_last) if batch.ndim == 4 else batch


Dataset = Rows | ViewRows | TensorRows
