"""16-bit colour to 16-bit grey.

Pillow keeps the upper 8 bits of it. A file is therefore unpacked twice, the second time as if the order of the two
bytes of a sample were the other one, which gives the lower 8 bits.
"""

import sys
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from ._gray import WIDE_MODES, orientation_of, pieces

_OTHER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}

_WHITE = 65535

# Unpacking twice takes seconds above this.
_MOST_PIXELS = 2**25


_BITS_PER_SAMPLE = 258


def is_wide_colour(image: Image.Image) -> bool:
    """Tell whether an image that is not loaded yet has colours or alpha of 16 bits."""
    if image.mode in WIDE_MODES:
        return False
    # Of TIFF with one plane a colour, Pillow takes each byte for a sample, and its raw mode does not show it.
    return ";16" in _raw_mode(image) or (
        isinstance(image, TiffImageFile) and max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))) > 8
    )


def wide_gray(file: BinaryIO, image: Image.Image) -> tuple[Image.Image, int | None]:
    """Return the luminance of 16-bit colour over black, as 16-bit grey, and its EXIF orientation.

    Parameters
    ----------
    file : file-like
    image : PIL.Image.Image
        Of that file, not loaded yet.

    Raises
    ------
    ValueError
        For an arrangement of samples that is not known.
    """
    raw_mode, key = _raw_mode(image), image.info.get("transparency")
    mode, _, order = raw_mode.partition(";16")
    if mode not in ("LA", "RGB", "RGBA") or order not in _OTHER or not hasattr(image, "tile"):
        raise ValueError(
            f"its colours of more than 8 bits, stored as {raw_mode}, are not read: write it as 16-bit grey"
        )
    if image.width * image.height > _MOST_PIXELS:
        raise ValueError(
            f"its 16-bit colours are those of more than {_MOST_PIXELS:,} pixels: write it as 16-bit grey"
        )
    # Four bytes a pixel of grey and alpha, as if they were four samples.
    raw_modes = ["RGBA"] if mode == "LA" else [f"{mode};16{end}" for end in (order, _OTHER[order])]
    parts = [_unpacked(file, str(image.format), raw_mode) for raw_mode in raw_modes]
    # Of a part, and not of the image: loading a TIFF turns it.
    width, height = parts[0].size
    gray = np.empty((height, width), dtype=np.uint16)
    for left, top, right, bottom in pieces(width, height):
        samples = [np.asarray(part.crop((left, top, right, bottom))) for part in parts]
        gray[top:bottom, left:right] = _piece(mode, *samples, key=key)
    return Image.fromarray(gray), orientation_of(parts[0])


def _raw_mode(image: Image.Image) -> str:
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else ""
    return args if isinstance(args, str) else str(args[0])


def _unpacked(file: BinaryIO, format: str, raw_mode: str) -> Image.Image:
    """Return an image whose stored bytes Pillow takes for those of another of its raw modes."""
    file.seek(0)
    image = Image.open(file, formats=(format,))
    image.tile = [
        tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)
        for tile in image.tile
    ]
    image.load()
    return image


def _piece(mode: str, upper: NDArray, lower: NDArray | None = None, *, key: tuple | None) -> NDArray:
    if mode == "LA":
        value, alpha = (_joined(upper[..., at], upper[..., at + 1]) for at in (0, 2))
        return _over_black(value, alpha)
    assert lower is not None  # colours come in two parts
    samples = _joined(upper, lower)
    red, green, blue = (samples[..., at] for at in range(3))
    # ITU-R 601, by the whole-number weights that Pillow has for 8 bits.
    gray = (
        red * np.uint32(19595) + green * np.uint32(38470) + blue * np.uint32(7471) + np.uint32(0x8000)
    ) >> 16
    if mode == "RGBA":
        return _over_black(gray, samples[..., 3])
    return gray if key is None else np.where((samples == np.array(key)).all(axis=-1), 0, gray)


def _joined(upper: NDArray, lower: NDArray) -> NDArray[np.uint32]:
    return upper.astype(np.uint32) << 8 | lower


def _over_black(value: NDArray[np.uint32], alpha: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return (value * alpha + np.uint32(_WHITE // 2)) // np.uint32(_WHITE)
