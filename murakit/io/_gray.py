"""Pixels of any type to 8 bits of grey, a piece at a time."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Pixels that are converted at once: what a conversion needs beside the image stays below 100 MB.
_PIECE = 2**21

# Above this range of values, a table of them would be larger than most images.
_TABLE = 2**16

# Pillow needs 8 bytes for each row, however short it is.
_MOST_SIDE = 2**17

WIDE_MODES = {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}

_ALPHA_MODES = {"LA", "La", "PA", "RGBA", "RGBa"}

Box = tuple[int, int, int, int]


def to_gray(image: Image.Image, *, negative: bool = False) -> Image.Image:
    """Return a decoded image as 8-bit grey.

    Parameters
    ----------
    image : PIL.Image.Image
        Wider values are scaled by their own range, transparent pixels are laid over black.
    negative : bool
        Whether the smallest of wider values is white.

    Returns
    -------
    gray : PIL.Image.Image of mode "L"
    """
    if image.mode == "P":
        _refuse_colours_beyond_palette(image)
    if image.mode in WIDE_MODES:
        return Image.fromarray(_scaled(image, negative))
    convert = _over_black if image.mode in _ALPHA_MODES or "transparency" in image.info else _luminance
    if image.mode == "L" and convert is _luminance:
        return image
    if image.width * image.height <= _PIECE:
        return convert(image)
    gray = Image.new("L", image.size)
    for box in pieces(*image.size):
        gray.paste(convert(image.crop(box)), box[:2])
    return gray


def by_value(values: NDArray, shades: Callable[[NDArray], NDArray], low: int, high: int) -> NDArray[np.uint8]:
    """Return shades of an array of whole numbers, each computed once where the range allows.

    Parameters
    ----------
    values : ndarray of integers
    shades : callable
        Takes an array of values, returns a ``uint8`` for each.
    low, high : int
        The smallest and the largest value.
    """
    flat, result = values.reshape(-1), np.empty(values.size, dtype=np.uint8)
    parts = [slice(start, start + _PIECE) for start in range(0, flat.size, _PIECE)]
    if high - low >= _TABLE or values.dtype.kind not in "iu":
        for part in parts:
            result[part] = shades(flat[part])
        return result.reshape(values.shape)
    present = np.zeros(high - low + 1, dtype=bool)
    for part in parts:
        present[flat[part].astype(np.int64) - low] = True
    table = np.zeros(len(present), dtype=np.uint8)
    table[present] = shades(np.flatnonzero(present) + low)
    for part in parts:
        result[part] = table[flat[part].astype(np.int64) - low]
    return result.reshape(values.shape)


def ends_of(values: NDArray, transform: Callable[[NDArray], NDArray]) -> tuple[float, float]:
    """Return the smallest and the largest of transformed values."""
    flat = values.reshape(-1)
    ends = [
        (float(part.min()), float(part.max()))
        for part in (transform(flat[start : start + _PIECE]) for start in range(0, flat.size, _PIECE))
    ]
    return min(low for low, _ in ends), max(high for _, high in ends)


def orientation_of(image: Image.Image) -> int | None:
    """Return the EXIF orientation that an image has yet to be turned by."""
    return image.getexif().get(0x0112)


def refuse_bomb(width: int, height: int, max_pixels: int | None) -> None:
    """Raise for more pixels than are read; Pillow does so above twice its limit, and merely warns below."""
    if max_pixels is None:
        return
    if width * height > max_pixels:
        raise Image.DecompressionBombError(
            f"{width} x {height} pixels exceed PIL.Image.MAX_IMAGE_PIXELS = {max_pixels}"
        )
    if max(width, height) > _MOST_SIDE:
        raise Image.DecompressionBombError(f"{width} x {height} pixels, a side of more than {_MOST_SIDE:,}")


def pieces(width: int, height: int) -> Iterator[Box]:
    """Yield boxes that cover an image, each of at most `_PIECE` pixels."""
    columns = min(width, _PIECE)
    rows = max(1, _PIECE // columns)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield left, top, min(left + columns, width), min(top + rows, height)


def _refuse_colours_beyond_palette(image: Image.Image) -> None:
    n_colours, largest = len(image.getpalette() or ()) // 3, int(np.asarray(image.getextrema())[1])
    if largest >= n_colours:
        raise ValueError(f"a pixel has colour {largest} of a palette of {n_colours}: the file is damaged")


def _luminance(image: Image.Image) -> Image.Image:
    return image.convert("L")


def _over_black(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("L")


def _scaled(image: Image.Image, negative: bool) -> NDArray[np.uint8]:
    key = image.info.get("transparency")

    def values(box: Box) -> NDArray:
        piece = np.asarray(image if box == (0, 0, *image.size) else image.crop(box))
        # A colour key of 16-bit PNG: pixels of that value are transparent, hence black.
        return piece if key is None else np.where(piece == key, 0, piece)

    boxes = list(pieces(*image.size))
    ends = [(piece.min(), piece.max()) for piece in map(values, boxes)]
    lows, highs = (np.array(end).astype(np.float64) for end in zip(*ends))
    low, high = float(lows.min()), float(highs.max())
    result = np.zeros((image.height, image.width), dtype=np.uint8)
    if not np.isfinite(low + high):
        raise ValueError("it holds NaN or infinite values")
    if high == low:
        return result

    def shades(found: NDArray) -> NDArray[np.uint8]:
        found = found.astype(np.float64)
        above = high - found if negative else found - low
        return np.round(above * 255.0 / (high - low)).astype(np.uint8)

    for box in boxes:
        left, top, right, bottom = box
        piece = values(box)
        whole = piece.dtype.kind in "iu"
        result[top:bottom, left:right] = (
            by_value(piece, shades, int(piece.min()), int(piece.max())) if whole else shades(piece)
        )
    return result
