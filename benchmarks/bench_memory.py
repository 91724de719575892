"""Memory of a training on as many images as MURA has for it.

36,808 small synthetic files, a 224 px store on disk, ResNet18 with only the head trained and fresh
augmentation, so that every batch comes from the store; one epoch with early stopping. Peak of the
anonymous memory of a process of its own, which is what it takes beyond the page cache. Limit: 2 GB.
"""

import tempfile
from pathlib import Path

from ._measure import peak_memory
from ._work import copy_many, radiographs

TRAIN = """
import sys, glob
from murakit import MuraClassifier, load_mura
mura = load_mura(sys.argv[1])
assert len(mura.data) == int(sys.argv[2])
clf = MuraClassifier(weights=None, unfreeze="head", image_size=int(sys.argv[4]), max_epochs=1, random_state=0,
                     cache=sys.argv[3])
clf.fit(mura.data, mura.target)
"""


def run(quick):
    n_images, size = (200, 64) if quick else (36_808, 224)
    with radiographs(50, 64) as (_, X, _), tempfile.TemporaryDirectory() as folder:
        root = copy_many(X, Path(folder) / "MURA-v1.1" / "train" / "XR_WRIST", n_images)
        cache = Path(folder) / "cache"
        peak = peak_memory(TRAIN, root, n_images, cache, size)
        stored = (cache / "murakit.lmdb").stat().st_size
    return [
        {
            "what": f"{n_images:,} images, {size} px",
            "store on disk": f"{stored / 1e9:.2f} GB",
            "peak memory": f"{peak / 1e9:.2f} GB",
            "limit": "≤ 2 GB",
            "ok": quick or peak <= 2e9,
        }
    ]
