"""A DICOM file to one ``uint8`` array, as its header says that it is to be seen.

Stored values pass the modality LUT or rescale, then the VOI LUT or window, and MONOCHROME1 is turned so that bone is
bright; pixels that are not square are made so. pydicom is imported where it is used.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ._dicom_file import dataset_of, item_of
from ._dicom_file import starts_dicom as _starts_dicom
from ._dicom_pixels import pixels_of
from ._filesystem import DICOM_SUFFIXES, IMAGE_SUFFIXES, read_bytes
from ._gray import by_value, ends_of, refuse_bomb

if TYPE_CHECKING:
    from pydicom import Dataset

_START = 132

_GRAY = ("MONOCHROME1", "MONOCHROME2")

_REQUIRED = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored")

# Where the distances of pixels are stated, first the one that counts (PS3.3 C.7.6.3.1.7).
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")

# Pixels are square for all that can be seen within this share, and no detector is beyond this ratio.
_SQUARE, _MOST_RATIO = 0.01, 10.0

Transform = Callable[[NDArray], NDArray]


def is_dicom(path: str) -> bool:
    """Tell whether a file is to be read as DICOM: by its name, and without a known one by how it begins."""
    name = path.lower()
    if name.endswith(IMAGE_SUFFIXES):
        return name.endswith(DICOM_SUFFIXES)
    return _starts_dicom(read_bytes(path, _START))


def read_dicom(file: BinaryIO, max_pixels: int | None = None) -> NDArray[np.uint8]:
    """Return the pixels of a DICOM file as they are meant to be seen.

    Parameters
    ----------
    file : file-like
        At its beginning.
    max_pixels : int or None
        More are refused.

    Returns
    -------
    image : ndarray of shape (height, width), dtype uint8

    Raises
    ------
    ImportError
        Where pydicom or the decoder of this file's compression is not installed.
    Exception
        Whatever pydicom and its decoders raise for what they cannot read.
    """
    ds = dataset_of(file)
    _refuse(ds, max_pixels)
    shape = _square_shape(ds, max_pixels)
    pixels = pixels_of(ds)
    image = _luminance(pixels) if ds.SamplesPerPixel > 1 else _shown(pixels, ds)
    if image.shape == shape:
        return image
    return np.array(Image.fromarray(image).resize(shape[::-1], Image.Resampling.BILINEAR))


def read_tags(file: BinaryIO, keywords: Sequence[str]) -> "Dataset":
    """Return the header of a DICOM file, as far as these keywords; pixels are not read."""
    return dataset_of(file, keywords)


def _refuse(ds: "Dataset", max_pixels: int | None) -> None:
    if "PixelData" not in ds:
        raise ValueError(f"it holds no pixels (modality {ds.get('Modality') or 'not stated'})")
    if missing := [keyword for keyword in _REQUIRED if ds.get(keyword) in (None, "")]:
        raise ValueError(f"its header does not state {', '.join(missing)}")
    frames = int(ds.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ValueError(
            f"it holds {frames} frames; a radiograph has one. Write the frame that is meant to a file"
        )
    refuse_bomb(ds.Columns, ds.Rows, max_pixels)
    if ds.SamplesPerPixel == 1 and ds.PhotometricInterpretation not in _GRAY:
        raise ValueError(
            f"its colours, {ds.PhotometricInterpretation}, are not read: write it as MONOCHROME2"
        )
    if ds.SamplesPerPixel > 1 and (ds.SamplesPerPixel != 3 or ds.BitsAllocated != 8):
        raise ValueError(
            f"its colours, {ds.SamplesPerPixel} samples of {ds.BitsAllocated} bits, are not read: write it as "
            "MONOCHROME2, or with 8 bits"
        )
    if ds.SamplesPerPixel == 1 and (_number(ds, "HighBit") or ds.BitsStored - 1) != ds.BitsStored - 1:
        # pydicom would take the lower bits for the value.
        raise ValueError(f"its High Bit, {ds.HighBit}, is not Bits Stored - 1 = {ds.BitsStored - 1}")


def _number(ds: "Dataset", keyword: str) -> float | int | None:
    """Return a number of the header, the first of several, or None where it is missing or empty."""
    value = ds.get(keyword)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if len(value) else None
    if value is None or value == "":
        return None
    number = int(value) if isinstance(value, int) else float(value)
    if not np.isfinite(number):
        raise ValueError(f"its {keyword} is {value}, which is no number")
    return number


# -- the size of pixels -----------------------------------------------------------------------------


def _square_shape(ds: "Dataset", max_pixels: int | None) -> tuple[int, int]:
    """Return the height and width that make the pixels square, with none of them lost."""
    rows, columns = int(ds.Rows), int(ds.Columns)
    ratio = _ratio(ds)
    if abs(ratio - 1) < _SQUARE:
        return rows, columns
    if not 1 / _MOST_RATIO <= ratio <= _MOST_RATIO:
        raise ValueError(f"its pixels are {ratio:.3g} times as high as wide, which no radiograph's are")
    shape = (round(rows * ratio), columns) if ratio > 1 else (rows, round(columns / ratio))
    refuse_bomb(shape[1], shape[0], max_pixels)
    return shape


def _ratio(ds: "Dataset") -> float:
    """Return how many times as high as wide a pixel is: all of these say the vertical value first."""
    for keyword in _SPACINGS:
        values = ds.get(keyword)
        if not values or isinstance(values, str) or len(values) != 2:
            continue
        height, width = map(float, values)
        if height > 0 and width > 0 and np.isfinite(height / width):
            return height / width
    return 1.0


# -- from stored values to shades ---------------------------------------------------------------------


def _luminance(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # pydicom has made RGB of YBR.
    return np.array(Image.fromarray(pixels).convert("L"))


def _shown(pixels: NDArray, ds: "Dataset") -> NDArray[np.uint8]:
    padding = _padding(pixels, ds)
    if padding is None:
        return _gray(pixels, ds)
    image = np.zeros(pixels.shape, dtype=np.uint8)
    if not padding.all():
        image[~padding] = _gray(pixels[~padding], ds)
    return image


def _padding(pixels: NDArray, ds: "Dataset") -> NDArray[np.bool_] | None:
    """Return where pixels are padding, or None where there is none."""
    value, limit = _number(ds, "PixelPaddingValue"), _number(ds, "PixelPaddingRangeLimit")
    if value is None:
        return None
    low, high = sorted((value, value if limit is None else limit))
    padding = (pixels >= low) & (pixels <= high)
    return padding if padding.any() else None


def _gray(pixels: NDArray, ds: "Dataset") -> NDArray[np.uint8]:
    low, high = int(pixels.min()), int(pixels.max())
    modality = _modality(ds)
    voi = _voi(ds)
    if voi is None:
        voi = _own_range(*ends_of(pixels, modality))
    turned = ds.PhotometricInterpretation == "MONOCHROME1"

    def shades(values: NDArray) -> NDArray[np.uint8]:
        share = voi(modality(values))
        # Rounded twice: an image and its MONOCHROME1 copy come to the same half on other ways, and with other
        # last bits; only the second rounding may decide where a half goes.
        return np.round(np.round((1 - share if turned else share) * 255.0, 6)).astype(np.uint8)

    if voi is _black:
        return np.zeros(pixels.shape, dtype=np.uint8)
    return by_value(pixels, shades, low, high)


def _black(values: NDArray) -> NDArray:
    return np.zeros(values.shape)


def _own_range(low: float, high: float) -> Transform:
    if not np.isfinite(high - low):
        raise ValueError("its rescale makes NaN or infinite values")
    return _black if low == high else lambda values: (values - low) / (high - low)


def _modality(ds: "Dataset") -> Transform:
    """Return what makes of stored values those that the header speaks of (PS3.3 C.11.1)."""
    item = item_of(ds, "ModalityLUTSequence")
    if (table := _table(item, ds)) is not None:
        return table.__call__
    slope, intercept = _number(ds, "RescaleSlope"), _number(ds, "RescaleIntercept")
    if slope == 0:
        raise ValueError("its Rescale Slope is 0, which makes one value of all pixels")
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    return lambda values: values * np.float64(slope) + intercept


def _voi(ds: "Dataset") -> Transform | None:
    """Return what makes of the modality's values shades of 0 to 1 (PS3.3 C.11.2); None where nothing is said."""
    if (table := _table(item_of(ds, "VOILUTSequence"), ds)) is not None:
        return lambda values: table(values) / table.most
    center, width = _number(ds, "WindowCenter"), _number(ds, "WindowWidth")
    function = str(ds.get("VOILUTFunction") or "LINEAR").strip().upper()
    if center is None or width is None:
        return None
    if function == "LINEAR":
        return _linear(center - 0.5, width - 1)
    if function == "LINEAR_EXACT":
        return _linear(center, width) if width > 0 else None
    if function == "SIGMOID":
        return _sigmoid(center, width) if width > 0 else None
    raise ValueError(f"its VOI LUT Function is {function!r}, which DICOM does not know")


def _linear(center: float, width: float) -> Transform | None:
    # Window Width shall be 1 or more for LINEAR (PS3.3 C.11.2.1.2.1). Some write 0 for "no window", and then none is
    # applied.
    if width < 0:
        return None
    if width == 0:
        return lambda values: (values > center).astype(np.float64)
    return lambda values: np.clip((values - center) / width + 0.5, 0, 1)


def _sigmoid(center: float, width: float) -> Transform:
    def shade(values: NDArray) -> NDArray:
        # Beyond these ends, the curve is 0 or 1 in any case, and exp would overflow.
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))

    return shade


class _Table(NamedTuple):
    """A lookup table of the header."""

    entries: NDArray[np.float64]
    first: int
    most: int

    def __call__(self, values: NDArray) -> NDArray[np.float64]:
        at = np.clip(np.round(values) - self.first, 0, len(self.entries) - 1)
        return self.entries[at.astype(np.int64)]


def _table(item: "Dataset | None", ds: "Dataset") -> _Table | None:
    if item is None:
        return None
    descriptor, data = item.get("LUTDescriptor"), item.get("LUTData")
    if descriptor is None or data is None or len(descriptor) != 3:
        return None
    # 0 stands for 2^16 (PS3.3 C.11.1.1.1), and a writer with signed values may have made -n of 2^16 - n.
    n_entries, first, depth = int(descriptor[0]) % 2**16 or 2**16, int(descriptor[1]), int(descriptor[2])
    if ds.get("PixelRepresentation") == 1 and first >= 2**15:
        first -= 2**16
    entries = _entries(data, n_entries, little=_is_little(ds))
    # Tables are met whose entries have more or fewer bits than they state. Those that they have count then.
    bits = int(entries.max()).bit_length()
    return _Table(entries.astype(np.float64), first, 2 ** (depth if bits == depth else max(bits, 1)) - 1)


def _entries(data: bytes | int | Sequence[int], n_entries: int, *, little: bool) -> NDArray:
    """Return the entries of a table, which lie in words of 16 bits, or two in a word.

    Which of both shows from their number (PS3.3 C.7.6.3.1.5 says so of other tables), the depth being wrong at times.
    """
    if isinstance(data, bytes):
        words = np.frombuffer(data + b"\0" * (len(data) % 2), dtype="<u2" if little else ">u2")
    else:
        words = np.atleast_1d(np.array(data, dtype=np.int64)).astype("<u2")
    if len(words) >= n_entries:
        return words[:n_entries]
    # The first of two lies in the lower byte (PS3.5 8.2).
    halves = words.astype("<u2").view(np.uint8)
    if len(halves) >= n_entries:
        return halves[:n_entries]
    raise ValueError(f"a lookup table of its header holds {len(halves)} bytes for {n_entries} entries")


def _is_little(ds: "Dataset") -> bool:
    return ds.original_encoding[1] is not False
