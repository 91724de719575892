"""Noise, texture and ripples, made once and cut up for every radiograph."""

from functools import lru_cache

import numpy as np
from PIL import Image

# Only arithmetic that is exact on every platform; `_phantom` says why.

TILE = 1024  # side of the noise and texture tiles

STEPS = 256  # samples of a bone's profile along its axis


@lru_cache(maxsize=1)
def texture_tile():
    """Trabecular texture: smooth noise of several finenesses in -1..1, from which patients get a cutting."""
    rng = np.random.Generator(np.random.PCG64(20171211))
    total = np.zeros((TILE, TILE), np.float32)
    for cells, weight in ((64, 0.3), (128, 0.35), (256, 0.35), (512, 0.3)):
        coarse = Image.fromarray(rng.integers(0, 256, size=(cells, cells), dtype=np.uint8))
        fine = coarse.resize((TILE, TILE), Image.Resampling.BICUBIC)
        total += (np.asarray(fine).astype(np.float32) - np.float32(127.5)) * np.float32(weight / 100)
    return np.minimum(np.maximum(total, -1), 1)


@lru_cache(maxsize=1)
def _ripple_tile():
    rng = np.random.Generator(np.random.PCG64(18951108))
    coarse = Image.fromarray(rng.integers(0, 256, size=(TILE, 28), dtype=np.uint8))
    fine = np.asarray(coarse.resize((4 * STEPS, TILE), Image.Resampling.BICUBIC))
    return (fine.astype(np.float32) - np.float32(127.5)) * np.float32(1 / 127.5)


def ripples(rows):
    """Two smooth irregular curves in -1..1 along each bone, the same for the same of `rows`."""
    tile = _ripple_tile()[np.array(rows) % TILE]
    return tile[..., :STEPS], tile[..., 2 * STEPS : 3 * STEPS]


@lru_cache(maxsize=4)
def noise_tile(strength):
    """Noise that looks normal, its standard deviation 9 times `strength`; the tile repeats seamlessly."""
    rng = np.random.Generator(np.random.PCG64(1895))
    half = TILE // 2
    noise = sum(rng.integers(-8, 9, size=(half, half), dtype=np.int16) for _ in range(4))
    # Neighbouring pixels of a scanned film share some of their noise.
    noise = 2 * noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)
    noise = np.minimum(np.maximum(noise * (strength * 0.375), -400), 400).astype(np.int16)
    return np.tile(noise, (2, 2))
