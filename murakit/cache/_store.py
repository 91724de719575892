"""Stores of decoded images, and of the outputs of a network's frozen stages."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL
import torch
from numpy.typing import NDArray

from ..io._images import PIXELS, read_square
from ..networks._frozen import ARITHMETIC
from ..utils._threading import n_threads
from ._base import FROZEN_BATCH_SIZE, Files, Storage, Store, open_storages

if TYPE_CHECKING:
    from ..networks._network import Radiograph
    from ..networks.augmentation import Augmentation

# Largest size of activations that are stored on disk, as a multiple of the size of the image: larger ones are
# read about as slowly as they are computed.
_MAX_SIZE_IN_IMAGES = 8


class ImageStore(Store):
    """Store of decoded radiographs at one size, each decoded once.

    Parameters
    ----------
    cache : str, path-like or None, default=None
        Folder of the cache, which processes may share. None: the images stay in memory, for as long
        as the store exists.
    image_size : int, default=224
        Side of the square images, in pixels.
    resize : {"pad", "squash"}, default="pad"
        As in `murakit.read_square`.
    cache_limit : int or None, default=None
        Most bytes to keep. None: on disk, all of the free space but 1 GiB; in memory, a quarter of
        the free memory.
    n_jobs : int or None, default=None
        Number of threads that decode images. None and -1: one for each CPU.
    verbose : int, default=0
        1: a progress bar, and a line that says where the images are kept.
    storages : list or None, default=None
        Storages to use instead of those of `cache` and `cache_limit`.

    See Also
    --------
    murakit.clear_cache, murakit.cache_info

    Notes
    -----
    The key of an image is a hash of its file's path, size, times of change and inode, and of all settings
    that decide its pixels. So a file that was changed, replaced or moved is decoded again. The cache is an
    LMDB database [1]_.

    References
    ----------
    .. [1] Chu, "MDB: A Memory-Mapped Database and Backend for OpenLDAP" (2011), lmdb.tech.

    Examples
    --------
    >>> import tempfile
    >>> from murakit import load_mura, make_mura
    >>> from murakit.cache import ImageStore
    >>> root = make_mura(tempfile.mkdtemp() + "/mura", n_patients=4, image_size=64, random_state=0)
    >>> images = ImageStore(tempfile.mkdtemp(), image_size=32).open(load_mura(root).data)
    >>> images[[0, 2]].shape
    torch.Size([2, 1, 32, 32])
    """

    lazy = True
    progress_label = "Reading"
    stage = None

    def __init__(
        self,
        cache: str | PathLike[str] | None = None,
        *,
        image_size: int = 224,
        resize: str = "pad",
        cache_limit: int | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        storages: list[Storage] | None = None,
    ) -> None:
        # The key is made from JSON, which cannot hold NumPy's integers.
        self.image_size = image_size = int(image_size)
        self.resize = resize
        self.n_threads = n_threads(n_jobs)
        settings: dict[str, Any] = {
            "kind": "images",
            "image_size": image_size,
            "resize": resize,
            # Decoding and resizing may differ between versions of Pillow and of murakit.
            "decoder": f"murakit {PIXELS}, pillow {PIL.__version__}",
        }
        super().__init__(
            open_storages(cache, cache_limit) if storages is None else storages,
            settings,
            (1, image_size, image_size),
            "uint8",
            f"Pixels ({image_size} px)",
            verbose,
        )

    def _compute(self, files: Files) -> Iterator[NDArray]:
        def read(path):
            return read_square(path, self.image_size, self.resize)

        if self.n_threads == 1 or len(files) == 1:
            yield from (read(path)[None, None] for path in files.paths)
            return
        with ThreadPoolExecutor(min(self.n_threads, len(files))) as pool:
            for image in pool.map(read, files.paths):
                yield image[None, None]


class FeatureStore(Store):
    """Store of the outputs of a network's frozen stages, each computed once.

    Parameters
    ----------
    source : ImageStore or FeatureStore
        Store of the inputs: images, or the outputs of earlier stages.
    network : Radiograph
        Network with its weights, on `device`.
    stage : str
        The first stage that is *not* run; ``"head"``: all stages are run, and their output is pooled.
    storages : list
        Storages that outputs are read from. New ones are written to the first storage with room.
    view : int, "mirror" or None, default=None
        Number of a fixed random view of each image; or "mirror", its mirror image. None: the image.
    augmentation : Augmentation or None
        Augmentation that makes the random views.
    dtype : {"float32", "float16"}
        Type of the stored outputs.
    device : str
        Device that the stages run on.
    autocast : bool
        Whether they run in bfloat16, by `torch.autocast`.
    verbose : int
        1: a progress bar, and a line that says where the outputs are kept.
    """

    progress_label = "Frozen stages"

    def __init__(
        self,
        source: "ImageStore | FeatureStore",
        network: "Radiograph",
        stage: str,
        *,
        storages: list[Storage],
        view: int | str | None = None,
        augmentation: "Augmentation | None" = None,
        dtype: str = "float32",
        device: str | torch.device = "cpu",
        autocast: bool = False,
        verbose: int = 0,
    ) -> None:
        self.source = source
        self.network = network
        self.stage = stage
        self.view = view
        self.augmentation = augmentation
        self.device = torch.device(device)
        self.autocast = autocast
        settings: dict[str, Any] = {
            "kind": "features",
            "backbone": network.name,
            "stage": stage,
            "view": view,
            "augmentation": None if augmentation is None else repr(augmentation),
            "images": source.settings if source.stage is None else source.settings["images"],
            "weights": network.fingerprint(stage),
            "dtype": dtype,
            # The last bits depend on the kernels, and these on the processor and the version of PyTorch.
            "computed by": f"{_numerics(self.device)}, autocast {autocast}",
        }
        if source.stage is not None and source.dtype != np.float32:
            # The inputs were rounded to float16, so the outputs differ from those computed without a store
            # between.
            settings["from"] = source.stage
        self.images: ImageStore = source.images if isinstance(source, FeatureStore) else source
        images = self.images
        shape = network.shape_before(stage, images.shape)
        if int(np.prod(shape)) * np.dtype(dtype).itemsize > _MAX_SIZE_IN_IMAGES * images.n_bytes:
            storages = [storage for storage in storages if storage.path is None]
        # Stored in channels-last order, as the network uses them: a batch then needs only one copy.
        shape = (*shape[1:], shape[0]) if len(shape) == 3 else shape
        super().__init__(storages, settings, shape, dtype, f"Outputs of the stages before {stage}", verbose)

    def _compute(self, files: Files) -> Iterator[NDArray]:
        for block in self.source.stream(files, FROZEN_BATCH_SIZE):
            yield self._run_frozen(block)

    def _run_frozen(self, block):
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast),
        ):
            inputs = self.source.to_tensor(block).to(self.device)
            draws = None
            if self.source.stage is None:  # otherwise the source's outputs are those of the view already
                if self.view == "mirror":
                    inputs = inputs.flip(-1)
                elif self.view is not None:
                    draws = self.augmentation.fixed_draws(block, self.view)
            out = self.network.run_before(self.stage, inputs, begin=self.source.stage, draws=draws)
            out = out.permute(0, 2, 3, 1) if out.ndim == 4 else out
            return out.float().cpu().numpy().astype(self.dtype, copy=False)

    def network_layout(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor


def _numerics(device):
    gpu = device.type == "cuda"
    processor = torch.cuda.get_device_name(device) if gpu else torch.backends.cpu.get_cpu_capability()
    return f"murakit {ARITHMETIC}, torch {torch.__version__}, {device.type} {processor}"
