"""Turn layers into film: exposure, noise, collimation and markers."""

from functools import lru_cache

import numpy as np
from PIL import Image

from ._projection import LONG
from ._textures import TILE, noise_tile, texture_tile

# Only arithmetic that is exact on every platform; `_phantom` says why.

_METAL = 1.7  # what absorbs as much is not bone

_LEVELS = 1024  # entries of the film's characteristic curve


def expose(bone, soft, metal, patient, view):
    """Turn thickness into grey levels: exposure, heel effect and the film's characteristic curve."""
    height, width = bone.shape
    row, column = patient.texture
    texture = texture_tile()[row % (TILE - LONG) :, column % (TILE - LONG) :][:height, :width]
    bone = np.maximum(bone, -0.3) * (1 + np.float32(patient.grain) * texture)
    absorbed = soft * np.float32(0.25 * patient.tissue)
    absorbed *= 1 + np.float32(0.12) * texture
    absorbed += bone * np.float32(0.58 * patient.density)
    heel = 1 + np.float32(patient.heel) * (
        np.arange(height, dtype=np.float32) * np.float32(1 / height) - np.float32(0.5)
    )
    absorbed *= heel[:, None] * np.float32(1.35 * patient.gain * view.gain)
    absorbed = np.minimum(absorbed, 0.93 * _METAL) + 2 * metal
    index = np.minimum(np.maximum(absorbed, 0) * (_LEVELS / 2), _LEVELS - 1).astype(np.intp)
    return _film_curve(patient).take(index)


def _film_curve(patient):
    absorbed = np.arange(_LEVELS) * (2 / _LEVELS)
    density = np.minimum(absorbed / (absorbed + patient.contrast), 1)
    # Bone stays clearly below the white of metal.
    density = np.where(absorbed < _METAL, 0.84 * (1 + 0.55 * patient.contrast) * density, 1)
    return (patient.fog + (252 - patient.fog) * np.minimum(density, 1)).astype(np.uint8)


def add_noise(pixels, place, noise):
    """Add quantum noise: strongest where little light passes, next to none on the black of the film."""
    height, width = pixels.shape
    tile = noise_tile(noise)
    if max(height, width) > TILE // 2:
        repeats = max(height, width) // (TILE // 2) + 2
        tile = np.tile(tile[: TILE // 2, : TILE // 2], (repeats, repeats))
    row, column = (at % (TILE // 2) for at in place)
    grain = (pixels >> 2).astype(np.int16)
    grain += 6
    grain *= tile[row : row + height, column : column + width]
    grain >>= 7
    grain += pixels
    np.minimum(np.maximum(grain, 0, out=grain), 255, out=grain)
    return grain.astype(np.uint8)


def collimate(pixels, field, frame):
    """Blacken (or whiten) what lies outside the collimated field; return the field in whole pixels."""
    height, width = pixels.shape
    left, top, right, bottom = (round(side) for side in field)
    right, bottom = min(right, width), min(bottom, height)
    shade = 255 if frame == "white" else 3
    pixels[:top] = pixels[bottom:] = shade
    pixels[:, :left] = pixels[:, right:] = shade
    return left, top, right, bottom


_LETTERS = {
    "L": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
    "R": ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
}


@lru_cache(maxsize=256)
def _marker(letter, style, size):
    """A lead letter: bare, in a frame, or cut out of a plate; with beads or without."""
    cells = np.zeros((13, 11), np.uint8)
    cells[2:9, 3:8] = [[int(cell) for cell in row] for row in _LETTERS[letter]]
    if style % 3 == 1:
        cells[0, :] = cells[10, :] = 1
        cells[:11, 0] = cells[:11, 10] = 1
    elif style % 3 == 2:
        cells[:11] = 1 - cells[:11]
    if style >= 3:
        cells[12, 1:10:2] = 1
    height = max(size, 5)
    image = Image.fromarray(cells * np.uint8(240))
    return np.asarray(image.resize((max(height * 11 // 13, 4), height), Image.Resampling.BICUBIC))


def add_marker(pixels, field, patient, image_size):
    marker = _marker(patient.side, patient.marker_style, int(patient.marker_size * image_size))
    left, top, right, bottom = field
    height, width = marker.shape
    inset = image_size // 50
    x = left + inset if patient.marker_corner % 2 == 0 else right - inset - width
    y = top + inset if patient.marker_corner < 2 else bottom - inset - height
    if x >= 0 and y >= 0 and x + width <= pixels.shape[1] and y + height <= pixels.shape[0]:
        spot = pixels[y : y + height, x : x + width]
        np.maximum(spot, marker, out=spot)
