"""One radiograph file to one ``uint8`` grayscale array."""

import os
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ._dicom import is_dicom, read_dicom, read_tags
from ._filesystem import isdir, isfile, readable, size


class Placed(NamedTuple):
    """Rectangle of an image inside of its square, in pixels of the square."""

    left: int
    top: int
    width: int
    height: int


def placed(width, height, size, resize):
    """Return where an image of that width and height lies in a square.

    Parameters
    ----------
    width, height : int
        Of the image, in pixels.
    size : int
        Side of the square.
    resize : {"pad", "squash"}
    """
    if resize == "squash":
        return Placed(0, 0, size, size)
    scale = size / max(width, height)
    inner = [max(1, round(side * scale)) for side in (width, height)]
    return Placed((size - inner[0]) // 2, (size - inner[1]) // 2, *inner)


# Raised with every change that makes other pixels of a file; stored images carry it.
PIXELS = 1

_WIDE_MODES = {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}


class UnreadableImage(OSError):
    """A file that cannot be read as a radiograph; the message names it, the cause and the remedy."""


def read_image(path):
    """Read a radiograph as 8-bit grayscale.

    8-bit files keep their values; wider grayscale ones (16- or 32-bit) are scaled by their own
    range. Transparent pixels are laid over black, palettes are resolved, and the orientation that
    EXIF states is applied. Of a file with several frames, the first is read. Colour becomes
    luminance; of 16-bit colour, Pillow itself keeps only the upper 8 bits.

    DICOM files are shown as their headers say: modality LUT or rescale, then VOI LUT or window (the
    first, if there are several), whose output becomes 0 to 255; without one, they are scaled by their
    own range. MONOCHROME1 is turned, so that bone is bright, and padding is black.

    Parameters
    ----------
    path : str or os.PathLike
        Any file that Pillow opens, or a DICOM file (``.dcm``, ``.dicom``, or another name and DICOM's
        preamble). ``"ARCHIVE.zip!MEMBER"`` reads from a ZIP archive, members of up to 256 MiB.

    Returns
    -------
    image : ndarray of shape (height, width), dtype uint8

    Raises
    ------
    UnreadableImage
        For a truncated, empty or foreign file, for one with so many pixels that it may be a
        decompression bomb (``PIL.Image.MAX_IMAGE_PIXELS``), for DICOM of several frames, and for an
        encrypted, damaged or oversized member of an archive.
    FileNotFoundError
        Where there is no such file.
    ImportError
        For DICOM, where the extra ``murakit[dicom]`` is not installed.

    Examples
    --------
    >>> import numpy as np, tempfile, os
    >>> from PIL import Image
    >>> from murakit import read_image
    >>> path = os.path.join(tempfile.mkdtemp(), "image1.png")
    >>> Image.fromarray(np.full((2, 3), 7, dtype=np.uint8)).save(path)
    >>> read_image(path)
    array([[7, 7, 7],
           [7, 7, 7]], dtype=uint8)
    """
    # np.array, not asarray: a view of Pillow's buffer would be read-only.
    return np.array(open_gray(path))


def read_square(path, size, resize="pad"):
    """Read a radiograph into a square of ``size`` pixels.

    Parameters
    ----------
    path : str or os.PathLike
        As for `read_image`.
    size : int
        Side of the square, in pixels.
    resize : {"pad", "squash"}
        Keep the aspect ratio and pad with black on both sides, or change the ratio.

    Returns
    -------
    image : ndarray of shape (size, size), dtype uint8

    Raises
    ------
    UnreadableImage, FileNotFoundError, ImportError
        As `read_image` does.
    ValueError
        For another `resize`, or a `size` below 1.

    Examples
    --------
    >>> import numpy as np, tempfile, os
    >>> from PIL import Image
    >>> from murakit import read_square
    >>> path = os.path.join(tempfile.mkdtemp(), "image1.png")
    >>> Image.fromarray(np.full((2, 4), 9, dtype=np.uint8)).save(path)
    >>> read_square(path, 4)
    array([[0, 0, 0, 0],
           [9, 9, 9, 9],
           [9, 9, 9, 9],
           [0, 0, 0, 0]], dtype=uint8)
    """
    if resize not in ("pad", "squash"):
        raise ValueError(f"resize={resize!r} is not known: pass 'pad' or 'squash'.")
    if size < 1:
        raise ValueError(f"size={size!r} is no side of a square: pass a whole number of pixels, such as 224.")
    return to_square(open_gray(path), size, resize)


def to_square(image, size, resize):
    """Return the square of `read_square`, of a grayscale `PIL.Image`."""
    if resize == "squash":
        return np.array(image.resize((size, size), Image.Resampling.BILINEAR))
    left, top, width, height = placed(*image.size, size, resize)
    square = np.zeros((size, size), dtype=np.uint8)
    square[top : top + height, left : left + width] = image.resize((width, height), Image.Resampling.BILINEAR)
    return square


def open_gray(path):
    """Return the 8-bit `PIL.Image` that `read_image` makes an array of."""
    path = os.fspath(path)
    with _named(path):
        if is_dicom(path):
            return Image.fromarray(read_dicom(readable(path), Image.MAX_IMAGE_PIXELS))
        with Image.open(readable(path)) as image:
            _refuse_bomb(image)
            # EXIF is looked up before load() because converting drops it.
            return _to_gray(ImageOps.exif_transpose(image))


def read_header(path):
    """Return the width, height and mode (of DICOM, the photometric interpretation) of an image."""
    with _named(path):
        if is_dicom(path):
            tags = dicom_tags(path, ("Columns", "Rows", "PhotometricInterpretation"))
            return tags.Columns, tags.Rows, tags.PhotometricInterpretation
        with Image.open(readable(path)) as image:
            return *image.size, image.mode


def dicom_tags(path, keywords):
    """Return the header of a DICOM file as far as some keywords, or None for a file that is none."""
    with _named(path):
        return read_tags(readable(path), keywords) if is_dicom(path) else None


@contextmanager
def _named(path):
    """Turn what readers raise into an `UnreadableImage` that names the file."""
    try:
        yield
    except (FileNotFoundError, ImportError, UnreadableImage):
        raise
    except Exception as error:
        # Decoders raise many types (OSError, SyntaxError, ValueError, struct.error, zlib.error,
        # DecompressionBombError, ...); for a reader of data sets they are all the same event.
        raise UnreadableImage(
            f"{path!r} cannot be read as an image: {_cause(path, error)}. Replace the file or leave it out; "
            "murakit.check_mura lists every such file of a data set."
        ) from error


def _refuse_bomb(image):
    # Pillow raises above twice its limit only, and merely warns below that.
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise Image.DecompressionBombError(
            f"{image.width} x {image.height} pixels exceed PIL.Image.MAX_IMAGE_PIXELS = {limit}"
        )


def _cause(path, error):
    try:
        if isdir(path):
            return "it is a folder"
        if isfile(path) and size(path) == 0:
            return "the file is empty"
    except ValueError:
        # An archive that is refused as a whole; the error says why.
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        # Pillow's own words would name a file in memory, where it comes from an archive.
        return "Pillow cannot identify its format"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"it may be a decompression bomb ({error})"
    return f"{type(error).__name__}: {error}"


def _to_gray(image):
    if image.mode in _WIDE_MODES:
        return Image.fromarray(_scale(np.asarray(image)))
    if "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, rgba).convert("RGB")
    # Both convert() and a plain L file need the pixels: load here, so that truncation shows here.
    image.load()
    return image if image.mode == "L" else image.convert("L")


def _scale(wide):
    values = wide.astype(np.float64)
    low, high = values.min(), values.max()
    if not np.isfinite(low + high):
        raise ValueError("it holds NaN or infinite values")
    if high == low:
        return np.zeros(values.shape, dtype=np.uint8)
    return np.round((values - low) * 255.0 / (high - low)).astype(np.uint8)
