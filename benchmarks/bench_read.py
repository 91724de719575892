"""Reading images: checksums and all, against Pillow alone.

`read_image` of radiographs of MURA's usual size, 8 bits of grey in 512 x 400, as PNG and as JPEG, against Pillow's
decoding of the same files, which verifies no checksum of their pixels and hides what libjpeg warns of. Files in the
cache of the operating system. Limit: 1.1 times Pillow.
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from benchmarks._measure import interleaved, rows_of
from murakit import read_image

LIMIT = 1.1


def run(quick):
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for suffix in ("png", "jpg"):
            paths = made(Path(folder), suffix, n_images=4 if quick else 20)
            for path in paths:
                np.testing.assert_array_equal(read_image(path), by_pillow(path))
            names = (f"Pillow, {suffix}", f"read_image, {suffix}")
            functions = {
                names[0]: lambda paths=paths: [by_pillow(path) for path in paths],
                names[1]: lambda paths=paths: [read_image(path) for path in paths],
            }
            timings = interleaved(functions, rounds=7 if quick else 41)
            rows += rows_of(timings, baseline=names[0], limits={names[1]: LIMIT})
        return rows


def by_pillow(path):
    with Image.open(path) as image:
        return np.array(image.convert("L"))


def made(folder, suffix, n_images, height=512, width=400):
    """Write films with a bright bone and noise; return their paths."""
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:height, :width]
    paths = []
    for number in range(n_images):
        bone = 120 * np.exp(-(((x - width / 2) / (60 + 5 * number)) ** 2)) + 40 * np.sin(y / 37) + 20
        film = (bone + rng.normal(0, 4, bone.shape)).clip(0, 255).astype(np.uint8)
        paths.append(folder / f"image{number}.{suffix}")
        Image.fromarray(film).filter(ImageFilter.GaussianBlur(0.7)).save(paths[-1])
    return paths
