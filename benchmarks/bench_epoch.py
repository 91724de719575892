"""All layers, augmentation on: an epoch from the store, against the bare step and other loaders.

96 synthetic radiographs (512 px files, 224 px), ResNet18, the second epoch. The bare step is the same
network on normalised float tensors that are in memory, with the allocator as PyTorch finds it. MONAI's
`CacheDataset` (its transforms up to the normalisation cached, flip and affine an image) and fastai's
loader (flip and affine a batch) feed that same step; the plain loop is that of `plain_pytorch.py`.
Random changes are of the same kinds and strengths, not the same numbers; without them, probabilities
after one step agree with the plain loop's to 0.01, which is checked first (AdamW's first step has full
length, and the sign of the last bits where a gradient is nearly zero). Limits: faster than the plain
loop, at most 1.03 times the bare step, not slower than MONAI, at a tenth of the memory that its cache
takes.
"""

import tempfile
import time
from functools import partial

import numpy as np
import torch

from murakit.cache import ImageStore
from murakit.networks import build_radiograph

from . import plain_pytorch as plain
from ._measure import interleaved
from ._work import (
    BATCH,
    classifier,
    largest_difference,
    orders,
    radiographs,
    same_start,
    settings,
    weights_file,
)


def run(quick):
    n_images, size, rounds = (64, 64, 2) if quick else (96, 224, 3)
    with (
        radiographs(n_images, 128 if quick else 512) as (folder, X, y),
        tempfile.TemporaryDirectory() as cache,
    ):
        weights, state = weights_file(folder)
        ImageStore(cache, image_size=size, resize="squash").open(X)

        ours_of = partial(classifier, weights, "all", size, cache=cache)

        def plain_model():
            head, rng = same_start(weights, "all")
            return plain.model_of(state, head, "all"), rng

        model, rng = plain_model()
        plain.Loop(model, X[:BATCH], y[:BATCH], size, orders(rng, BATCH)).epoch()
        one = ours_of(max_epochs=1).fit(X[:BATCH], y[:BATCH])
        difference = largest_difference(one.predict_proba(X), plain.predict_proba(model, X, size))
        assert difference < 0.01, difference

        def second_epoch_of(loader):
            """Return a function that trains for two epochs and gives the time of the second."""

            def both():
                step = Step(weights, y)
                step.epoch(loader)
                return step.epoch(loader)

            return both

        def ours():
            clf = ours_of(max_epochs=2, augment={"flip": 0.5}).fit(X, y)
            return float(clf.history_["dur"].iloc[1])

        def by_hand():
            loop = plain.Loop(
                plain_model()[0], X, y, size, orders(np.random.default_rng(0), len(X)), augment=True
            )
            loop.epoch()
            started = time.perf_counter()
            loop.epoch()
            return time.perf_counter() - started

        monai, cached = monai_loader(X, y, size)
        ways = {
            "bare step, tensors in memory": second_epoch_of(InMemory(X, y, size)),
            "murakit, store on disk": ours,
            "plain loop, 2 workers": by_hand,
            "MONAI CacheDataset, same step": second_epoch_of(monai),
            "fastai loader, same step": second_epoch_of(fastai_loader(X, y, size)),
        }
        seconds = {name: [] for name in ways}
        interleaved(
            {name: lambda name=name, way=way: seconds[name].append(way()) for name, way in ways.items()},
            rounds=rounds,
            warmup=0,
        )
    seconds = {name: np.array(values) for name, values in seconds.items()}
    bare, ours_s = seconds["bare step, tensors in memory"], seconds["murakit, store on disk"]
    rows = []
    for name, values in seconds.items():
        rows.append(
            {
                "what": name,
                "median s": f"{np.median(values):.2f}",
                "spread s": f"{values.min():.2f} – {values.max():.2f}",
                "images/s": f"{n_images / np.median(values):.1f}",
                "× bare step": f"{np.median(values / bare):.3f}",
            }
        )
    faster = np.median(seconds["plain loop, 2 workers"] / ours_s)
    to_monai = np.median(ours_s / seconds["MONAI CacheDataset, same step"])
    share = size * size * len(X) / cached
    for what, value, asked, fine in (
        ("murakit / bare step", np.median(ours_s / bare), "≤ 1.03", np.median(ours_s / bare) <= 1.03),
        ("plain loop / murakit", faster, "> 1", faster > 1),
        ("murakit / MONAI", to_monai, "≤ 1", to_monai <= 1),
        ("bytes of a decoded image, murakit / MONAI", share, "≤ 0.1", share <= 0.1),
    ):
        rows.append({"what": what, "× bare step": f"{value:.3f}", "asked": asked, "ok": quick or bool(fine)})
    rows.append({"what": f"{settings()}; probabilities differ from the plain loop's by {difference:.0e}"})
    return rows


class Step:
    """The bare training step: our network, channels last, on normalised tensors."""

    def __init__(self, weights, y):
        network = build_radiograph(
            "resnet18", 2, weights=weights, unfreeze="all", dropout=0.0, augmentation=None, seed=0
        )
        self.model = torch.nn.Sequential(*network.stages.values(), network.pool, network.head).train()
        backbone = list(network.stages.parameters())
        groups = [{"params": network.head.parameters(), "lr": 1e-3}, {"params": backbone, "lr": 1e-4}]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=1e-2)
        self.weight = plain.class_weights(y)

    def epoch(self, loader):
        started = time.perf_counter()
        for images, labels in loader:
            images = images.contiguous(memory_format=torch.channels_last)
            plain.step(self.model, self.optimizer, images, labels, self.weight)
        return time.perf_counter() - started


class InMemory:
    """Batches of normalised float tensors, made beforehand."""

    def __init__(self, X, y, size):
        loader = torch.utils.data.DataLoader(plain.Radiographs(X, y, size), BATCH)
        self.batches = [
            (images.contiguous(memory_format=torch.channels_last), labels) for images, labels in loader
        ]

    def __iter__(self):
        return iter(self.batches)


def monai_loader(X, y, size):
    """Return MONAI's loader over a cache in memory, and the bytes of what it caches."""
    from monai.data import CacheDataset, DataLoader, PILReader
    from monai.transforms import (
        Compose,
        EnsureChannelFirstd,
        Lambdad,
        LoadImaged,
        NormalizeIntensityd,
        RandAffined,
        RandFlipd,
        Resized,
        ScaleIntensityRanged,
    )

    def to_rgb(image):
        return image.expand(3, -1, -1).clone()

    transform = Compose(
        [
            LoadImaged("image", reader=PILReader(converter=lambda image: image.convert("L"))),
            EnsureChannelFirstd("image", channel_dim="no_channel"),
            Resized("image", (size, size), mode="bilinear", anti_aliasing=True),
            ScaleIntensityRanged("image", 0, 255, 0, 1),
            Lambdad("image", to_rgb),
            NormalizeIntensityd("image", plain.MEAN, plain.STD, channel_wise=True),
            RandFlipd("image", prob=0.5, spatial_axis=0),
            RandAffined(
                "image",
                prob=1.0,
                rotate_range=0.26,
                translate_range=size * 0.05,
                scale_range=0.1,
                padding_mode="zeros",
            ),
        ]
    )
    items = [{"image": str(path), "label": int(label)} for path, label in zip(X, y)]
    data = CacheDataset(items, transform, progress=False, num_workers=2)
    cached = sum(item["image"].numel() * item["image"].element_size() for item in data._cache)
    loader = DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    return Pairs(loader), cached


class Pairs:
    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        for batch in self.loader:
            yield batch["image"].as_tensor(), batch["label"]


def fastai_loader(X, y, size):
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        Flip,
        ImageBlock,
        Normalize,
        Resize,
        ResizeMethod,
        Rotate,
        TensorImage,
        Zoom,
        setup_aug_tfms,
    )

    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=lambda _: list(range(len(X))),
        get_x=lambda row: X[row],
        get_y=lambda row: int(y[row]),
        splitter=lambda items: (items, items[:1]),
        item_tfms=Resize(size, ResizeMethod.Squish),
        batch_tfms=[
            *setup_aug_tfms([Flip(), Rotate(15, p=1.0), Zoom(0.9, 1.1, p=1.0)]),
            Normalize.from_stats(plain.MEAN, plain.STD, cuda=False),
        ],
    )
    loader = block.dataloaders(
        None, bs=BATCH, num_workers=2, device=torch.device("cpu"), drop_last=False
    ).train
    loader.drop_last = False

    class Plain:
        def __iter__(self):
            for images, labels in loader:
                yield images.as_subclass(torch.Tensor), labels.as_subclass(torch.Tensor)

    assert isinstance(next(iter(loader))[0], TensorImage)
    return Plain()
