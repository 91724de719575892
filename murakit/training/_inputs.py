"""What a network trains on and predicts from: pixels, or what its frozen stages made of them."""

import numpy as np
import torch

from ..cache._base import Files, Rows, TensorRows, open_storages
from ..cache._store import FeatureStore, ImageStore
from ..utils._device import free_device_memory
from ..utils._threading import ahead

# Images in a batch of predictions: enough to fill the device.
_BATCH = {"cpu": 32, "cuda": 256}


class Sources:
    """The stores that one fit, or one prediction, reads from.

    Parameters
    ----------
    network : Radiograph
        On `device`.
    unfreeze : str
        Its first trained stage.
    image_size, resize, cache, cache_limit, feature_dtype, n_jobs, verbose
        Parameters of `MuraClassifier`.
    device : str
    autocast : bool
    fitting : bool
        Whether to keep in memory what has no place on disk.
    """

    def __init__(
        self,
        network,
        unfreeze,
        *,
        image_size,
        resize,
        cache,
        cache_limit,
        feature_dtype,
        n_jobs,
        verbose,
        device,
        autocast,
        fitting,
    ):
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

    def for_training(self, items, *, augmented, views, head_epochs, mixed):
        """Return what to train on, and what while only the head is trained, where that is something else.

        Parameters
        ----------
        items : ndarray of shape (n,)
            Paths of images.
        augmented : bool
            Whether the network changes them at random.
        views : int or None
            Number of fixed views of each image, instead of fresh changes.
        head_epochs : int
            Whether (above zero) the head is trained alone at first.
        mixed : bool
            Whether images of a batch are blended. What is blended then must not depend on the room there
            is: what a stage takes is made in each step where it cannot be stored.

        Returns
        -------
        inputs : Rows, ViewRows or TensorRows
        head_inputs : likewise, or None
        """
        files = Files(items)
        inputs = head_inputs = None
        if not augmented or views is not None:
            numbers = range(views) if augmented else (None,)
            sources = [self.images] * len(numbers)
            if self.network.stages_before(self.unfreeze):
                stores = [self._features(self.images, self.unfreeze, number) for number in numbers]
                # Without room for the views, they are made in each step, but remain the same.
                inputs = self._open(stores, files, always=augmented or mixed)
                sources = sources if inputs is None else stores
            if head_epochs and self.unfreeze != "head":
                stores = [self._features(source, "head", view) for source, view in zip(sources, numbers)]
                # The inputs of all stages would be changed afresh, those of later ones are views already.
                always = mixed or (augmented and inputs is None)
                head_inputs = self._open(stores, files, always=always)
        if inputs is None:
            inputs = self.images.open(files)
        return self._placed(inputs), None if head_inputs is None else self._placed(head_inputs)

    def _features(self, source, stage, view=None):
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

    def _open(self, stores, files, *, always):
        rows = None
        if stores[0].fits(files, stores[1:]):
            rows = [store.open(files, report=False) for store in stores]
        else:
            stores[0].report(files, len(files), len(stores))
        if rows is None or any(row is None for row in rows):
            if not always:
                return None
            self.images.open(files)
            rows = [Rows(store, files, stored=False) for store in stores]
            return rows[0] if len(rows) == 1 else ViewRows(rows)
        # What went elsewhere than the others is to be told.
        last = max(stores, key=lambda store: store.location != store.storages[0].location)
        last.report(files, 0, len(stores))
        return rows[0] if len(rows) == 1 else ViewRows(rows)

    def _placed(self, rows):
        return rows if self.device.type == "cpu" else on_device(rows, self.device)

    # -- predicting -------------------------------------------------------------------------

    def for_prediction(self, items, *, mirrored, stored=True):
        """Yield batches as lists: the input of each image, and with `mirrored` that of its mirror image.

        Parameters
        ----------
        items : ndarray of shape (m,)
            Paths of images.
        mirrored : bool
        stored : bool
            Whether to keep, and to take up, what the frozen stages make of the images.

        Yields
        ------
        inputs : list of Tensor
            Each as `Radiograph.infer` takes it with ``begin=begin``.
        begin : str or None
        """
        files = Files(items)
        size = _BATCH.get(self.device.type, 32)
        if stored and self.storages and self.network.stages_before(self.unfreeze):
            views = (None, "mirror") if mirrored else (None,)
            stores = [self._features(self.images, self.unfreeze, view) for view in views]
            if stores[0].storages:
                for blocks in zip(*(store.stream(files, size) for store in stores)):
                    yield [store.to_tensor(block) for store, block in zip(stores, blocks)], self.unfreeze
                return
        blocks = self.images.stream(files, size)
        for block in blocks if self.device.type == "cpu" else ahead(blocks):
            plain = self.images.to_tensor(block)
            yield [plain, plain.flip(-1)] if mirrored else [plain], None


def on_device(rows, device):
    """Return rows that lie on a GPU, where it has room for all of them; else the rows."""
    if isinstance(rows, ViewRows):
        return ViewRows([on_device(view, device) for view in rows.views])
    if rows.n_bytes > free_device_memory(device) // 2:
        return rows
    blocks = [torch.from_numpy(block).to(device) for block in rows.store.stream(rows.files, _BATCH["cuda"])]
    return TensorRows(torch.cat(blocks), rows.store.network_layout, rows.stage)


class ViewRows:
    """Rows of several fixed views of each image: another one in each epoch, in turns.

    Parameters
    ----------
    views : list of Rows
    """

    def __init__(self, views):
        self.views = views
        self.epoch = 0
        self.stage = views[0].stage
        self.in_memory = all(view.in_memory for view in views)

    def __len__(self):
        return len(self.views[0])

    def start_epoch(self, epoch):
        self.epoch = epoch

    def __getitems__(self, rows):
        rows = np.asarray(rows)
        # Neighbours begin with different views, so that no epoch shows one view alone.
        view_of = (rows + self.epoch) % len(self.views)
        order = np.argsort(view_of, kind="stable")
        parts = [
            view.__getitems__(rows[view_of == number])
            for number, view in enumerate(self.views)
            if (view_of == number).any()
        ]
        whole = torch.cat(parts)
        back = torch.from_numpy(np.argsort(order)).to(whole.device)
        whole = whole.index_select(0, back)
        return whole.contiguous(memory_format=torch.channels_last) if whole.ndim == 4 else whole
