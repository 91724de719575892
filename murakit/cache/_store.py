"""What is decoded or computed once: images, and what the frozen stages of a network make of them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL
import torch

from ..io._images import PIXELS, read_square
from ..networks._frozen import ARITHMETIC
from ..utils._threading import n_threads
from ._base import PASS, Store, storages_of

# Activations that take more than so many images are read about as slowly as they are computed.
_WORTH_STORING = 8


class ImageStore(Store):
    """Decoded radiographs at one size, each decoded once.

    Parameters
    ----------
    cache : str, path-like or None, default=None
        A folder that is shared by processes and outlives them. None: memory, for as long as the
        store lives.
    image_size : int, default=224
        Side of the squares, in pixels.
    resize : {"pad", "squash"}, default="pad"
        As in `murakit.read_square`.
    cache_limit : int or None, default=None
        Most bytes to keep. None: on disk, all but 1 GiB of what is free; in memory, a quarter of
        what is free.
    n_jobs : int or None, default=None
        Threads that decode. None: as many as there are CPUs; -1 likewise.
    verbose : int, default=0
        1: a progress bar, and a line that says where the images are kept.

    See Also
    --------
    murakit.clear_cache, murakit.cache_info

    Notes
    -----
    An image is known by its path, size and time of change, and by all that decides its pixels; a
    changed file is decoded again. The file on disk is an LMDB database [1]_.

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
    doing = "Reading"
    stage = None

    def __init__(
        self,
        cache=None,
        *,
        image_size=224,
        resize="pad",
        cache_limit=None,
        n_jobs=None,
        verbose=0,
        storages=None,
    ):
        # JSON, which the key is made of, knows no numbers of NumPy.
        self.image_size = image_size = int(image_size)
        self.resize = resize
        self.n_threads = n_threads(n_jobs)
        about = {
            "kind": "images",
            "image_size": image_size,
            "resize": resize,
            # Decoders and filters differ from version to version.
            "decoder": f"murakit {PIXELS}, pillow {PIL.__version__}",
        }
        super().__init__(
            storages_of(cache, cache_limit) if storages is None else storages,
            about,
            (1, image_size, image_size),
            "uint8",
            f"Pixels ({image_size} px)",
            verbose,
        )

    def _compute(self, files):
        def read(path):
            return read_square(path, self.image_size, self.resize)

        if self.n_threads == 1 or len(files) == 1:
            yield from (read(path)[None, None] for path in files.paths)
            return
        with ThreadPoolExecutor(min(self.n_threads, len(files))) as pool:
            for image in pool.map(read, files.paths):
                yield image[None, None]


class FeatureStore(Store):
    """What the frozen stages of a network make of each image, computed once.

    Parameters
    ----------
    source : ImageStore or FeatureStore
        What the first of these stages takes.
    network : Radiograph
        With its weights, on the device to compute on.
    stage : str
        The first stage that is *not* run; ``"head"`` for the features themselves.
    view : int, "mirror" or None, default=None
        Number of a fixed random view of each image, or its mirror image, instead of the image.
    augmentation : Augmentation or None
        What random views are made by.
    dtype : {"float32", "float16"}
        Type to store.
    storages : list
    device : str
    autocast : bool
    verbose : int
    """

    doing = "Frozen stages"

    def __init__(
        self,
        source,
        network,
        stage,
        *,
        storages,
        view=None,
        augmentation=None,
        dtype="float32",
        device="cpu",
        autocast=False,
        verbose=0,
    ):
        self.source = source
        self.network = network
        self.stage = stage
        self.view = view
        self.augmentation = augmentation
        self.device = torch.device(device)
        self.autocast = autocast
        about = {
            "kind": "features",
            "backbone": network.name,
            "stage": stage,
            "view": view,
            "augmentation": None if augmentation is None else repr(augmentation),
            "images": source.about if source.stage is None else source.about["images"],
            "weights": network.fingerprint(stage),
            "dtype": dtype,
            # Other kernels, other last bits.
            "computed by": f"{_arithmetic(self.device)}, autocast {autocast}",
        }
        if source.stage is not None and source.dtype != np.float32:
            # What was rounded on the way is not what comes of the image at once.
            about["from"] = source.stage
        self.images = images = source if source.stage is None else source.images
        shape = network.shape_before(stage, images.shape)
        if int(np.prod(shape)) * np.dtype(dtype).itemsize > _WORTH_STORING * images.n_bytes:
            storages = [storage for storage in storages if storage.path is None]
        # The device's own order: channels last, so that a batch needs no more than a copy.
        shape = (*shape[1:], shape[0]) if len(shape) == 3 else shape
        super().__init__(storages, about, shape, dtype, f"Outputs of the stages before {stage}", verbose)

    def _compute(self, files):
        for block in self.source.stream(files, PASS):
            yield self._pass(block)

    def _pass(self, block):
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast),
        ):
            inputs = self.source.to_tensor(block).to(self.device)
            draws = None
            if self.source.stage is None:  # else the source has seen to it
                if self.view == "mirror":
                    inputs = inputs.flip(-1)
                elif self.view is not None:
                    draws = self.augmentation.fixed_draws(block, self.view)
            out = self.network.run_before(self.stage, inputs, begin=self.source.stage, draws=draws)
            out = out.permute(0, 2, 3, 1) if out.ndim == 4 else out
            return out.float().cpu().numpy().astype(self.dtype, copy=False)

    def present(self, tensor):
        return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor


def _arithmetic(device):
    gpu = device.type == "cuda"
    processor = torch.cuda.get_device_name(device) if gpu else torch.backends.cpu.get_cpu_capability()
    return f"murakit {ARITHMETIC}, torch {torch.__version__}, {device.type} {processor}"
