"""On a GPU: epochs from the store, against the bare step on tensors that lie on the device.

ResNet18 and ResNet50, all layers, augmentation on, 2,000 synthetic radiographs at 224 px, batches of
128, bfloat16 autocast where the GPU has it, the second epoch. The bare step is the same network with
the same augmentation on `uint8` tensors on the device. The plain loop is that of `plain_pytorch.py`,
with the model and the batches moved to the GPU. Limit: 90 % of the bare step's rate.
"""

import tempfile
import time

import numpy as np
import torch
from torch.nn import functional

from murakit import MuraClassifier
from murakit.augmentation import Augmentation
from murakit.cache import ImageStore
from murakit.networks import build_radiograph

from . import plain_pytorch as plain
from ._work import SEED, radiographs


def run(quick):
    if not torch.cuda.is_available():
        return [{"what": "skipped: no GPU"}]
    n_images, batch, rounds = (256, 64, 1) if quick else (2000, 128, 5)
    rows = []
    with radiographs(n_images, 512) as (_, X, y), tempfile.TemporaryDirectory() as cache:
        ImageStore(cache).open(X)
        for backbone in ("resnet18", "resnet50"):
            seconds = {"bare step": [], "murakit": [], "plain loop": []}
            for _ in range(rounds):
                seconds["bare step"].append(bare(backbone, X, y, batch))
                clf = MuraClassifier(
                    backbone,
                    weights=None,
                    unfreeze="all",
                    early_stopping=False,
                    max_epochs=2,
                    batch_size=batch,
                    cache=cache,
                    device="cuda",
                    random_state=SEED,
                ).fit(X, y)
                seconds["murakit"].append(float(clf.history_["dur"].iloc[1]))
                if backbone == "resnet18":
                    seconds["plain loop"].append(by_hand(X, y, batch))
            for name, values in seconds.items():
                if values:
                    rate = np.median(np.array(seconds["bare step"]) / values)
                    row = {
                        "what": f"{backbone}, {name}",
                        "median s": f"{np.median(values):.2f}",
                        "images/s": f"{n_images / np.median(values):.0f}",
                        "rate of the bare step": f"{rate:.0%}",
                    }
                    if name == "murakit":
                        row.update(limit="≥ 90 %", ok=quick or bool(rate >= 0.9))
                    rows.append(row)
    rows.append({"what": torch.cuda.get_device_name()})
    return rows


def bare(backbone, X, y, batch):
    network = build_radiograph(
        backbone, 2, weights=None, unfreeze="all", dropout=0.0, augmentation=Augmentation(), seed=SEED
    )
    network.to("cuda").train()
    network.generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    pixels, labels = ImageStore().open(X)[:].cuda(), torch.from_numpy(y).cuda()
    for _ in range(2):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for rows in torch.randperm(len(y), device="cuda").split(batch):
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.bfloat16, enabled=torch.cuda.is_bf16_supported()):
                logits = network(pixels[rows])
            functional.cross_entropy(logits.float(), labels[rows]).backward()
            optimizer.step()
        torch.cuda.synchronize()
    return time.perf_counter() - started


def by_hand(X, y, batch):
    torch.manual_seed(SEED)
    state = plain.resnet18(weights=None).state_dict()
    model = plain.model_of(state, torch.nn.Linear(512, 2).state_dict(), "all").cuda()
    loader = torch.utils.data.DataLoader(
        plain.Radiographs(X, y, 224, augment=True), batch, shuffle=True, num_workers=2, pin_memory=True
    )
    optimizer, weight = plain.optimizer_of(model), plain.class_weights(y).cuda()
    for _ in range(2):
        started = time.perf_counter()
        for images, labels in loader:
            images, labels = images.cuda(non_blocking=True), labels.cuda(non_blocking=True)
            plain.step(model, optimizer, images, labels, weight)
        torch.cuda.synchronize()
    return time.perf_counter() - started
