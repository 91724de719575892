"""One radiograph file to one ``uint8`` grayscale array."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from ._bounded import BoundedFile
from ._dicom import is_dicom, read_dicom, read_tags
from ._filesystem import isdir, isfile, opened, read_bytes, size
from ._gray import orientation_of, refuse_bomb, to_gray
from ._jpeg import read_jpeg
from ._pillow import refusing_truncated
from ._png import MAGIC as PNG_MAGIC
from ._png import read_png
from ._wide import is_wide_colour, wide_gray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom import Dataset


Resize = Literal["pad", "squash"]


class Placed(NamedTuple):
    """Rectangle of an image inside of its square, in pixels of the square."""

    left: int
    top: int
    width: int
    height: int


def placed(width: int, height: int, size: int, resize: Resize) -> Placed:
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
PIXELS = 2

# What is opened, whatever a file is called. Pillow knows more, among them formats that start other programs.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")

_STARTS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"BM", "BMP"),
    (b"RIFF", "WebP"),
)

_JPEGS = ("JPEG", "MPO")

# Files of which everything is read at once are no larger.
_MOST_BYTES = 512 * 2**20

# libwebp and Pillow hold several copies of an image.
_MOST_WEBP = 2**26

# What a header may take.
_MOST_READINGS, _MOST_HEADER = 200_000, 64 * 2**20

_PHOTOMETRIC = 262

# From what EXIF calls an orientation to what undoes it.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(OSError):
    """A file that cannot be read as a radiograph; the message names it, the cause and the remedy."""


def read_image(path: str | os.PathLike) -> NDArray[np.uint8]:
    """Read a radiograph as 8-bit grayscale.

    8-bit files keep their values; wider ones (16- or 32-bit) are scaled by their own range. Colour
    becomes luminance, transparent pixels are laid over black, palettes are resolved, and the
    orientation that EXIF or TIFF states is applied. Of a file with several frames, the first is read.
    A damaged PNG or JPEG is never shown as a whole one; BMP, TIFF and WebP have no checksums.

    DICOM files are shown as their headers say: modality LUT or rescale, then VOI LUT or window (the
    first, if there are several), whose output becomes 0 to 255; without one, or with one that cannot be
    (width 0), they are scaled by their own range. MONOCHROME1 is turned, so that bone is bright, and
    padding is black. Pixels that are not square are resampled to square ones.

    Parameters
    ----------
    path : str or os.PathLike
        A PNG, JPEG, TIFF, BMP or WebP file, or a DICOM file (``.dcm``, ``.dicom``, or another name and
        DICOM's preamble). ``"ARCHIVE.zip!MEMBER"`` reads from a ZIP archive, members of up to 256 MiB.

    Returns
    -------
    image : ndarray of shape (height, width), dtype uint8

    Raises
    ------
    UnreadableImage
        For a truncated, damaged, empty or foreign file, for one with so many pixels that it may be a
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


def read_square(path: str | os.PathLike, size: int, resize: Resize = "pad") -> NDArray[np.uint8]:
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


def to_square(image: Image.Image, size: int, resize: Resize) -> NDArray[np.uint8]:
    """Return the square of `read_square`, of a grayscale `PIL.Image`."""
    if resize == "squash":
        return np.array(image.resize((size, size), Image.Resampling.BILINEAR))
    left, top, width, height = placed(*image.size, size, resize)
    square = np.zeros((size, size), dtype=np.uint8)
    scaled = image.resize((width, height), Image.Resampling.BILINEAR)
    square[top : top + height, left : left + width] = np.asarray(scaled)
    return square


def open_gray(path: str | os.PathLike) -> Image.Image:
    """Return the 8-bit `PIL.Image` that `read_image` makes an array of."""
    path = os.fspath(path)
    with _named(path):
        dicom = is_dicom(path)
        with opened(path) as file:
            if dicom:
                return Image.fromarray(read_dicom(file, Image.MAX_IMAGE_PIXELS))
            image, orientation, negative = _decoded(file)
        gray = to_gray(image, negative=negative)
        turn = None if orientation is None else _TURNS.get(orientation)
        return gray if turn is None else gray.transpose(turn)


def _decoded(file: BinaryIO) -> tuple[Image.Image, int | None, bool]:
    """Return an image, its EXIF orientation, and whether its smallest value is white."""
    limit = Image.MAX_IMAGE_PIXELS
    is_png = file.read(len(PNG_MAGIC)) == PNG_MAGIC
    file.seek(0)
    if is_png:
        return *read_png(file, limit), False
    # An open file and not its path, which Pillow would map to memory: TIFF comes out unturned from there.
    bounded = BoundedFile(file, _MOST_READINGS, _MOST_HEADER)
    with Image.open(bounded, formats=_FORMATS) as image:
        refuse_bomb(*image.size, limit)
        if image.format == "WEBP" and image.width * image.height > _MOST_WEBP:
            raise ValueError(f"it is a WebP of more than {_MOST_WEBP:,} pixels: write it as PNG")
        if image.format in _JPEGS:
            orientation = orientation_of(image)
            return read_jpeg(_all_of(file), image), orientation, False
        n_bytes = file.seek(0, os.SEEK_END)
        bounded.allow(2**32, _MOST_BYTES + 2 * n_bytes)
        with refusing_truncated():
            if is_wide_colour(image):
                return *wide_gray(file, image), False
            image.load()
        # PhotometricInterpretation 0, WhiteIsZero: Pillow turns 8 bits by itself and wider values not.
        negative = isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0
        # Only now: loading a TIFF turns it.
        return image, orientation_of(image), negative


def _all_of(file: BinaryIO) -> bytes:
    if (n_bytes := file.seek(0, os.SEEK_END)) > _MOST_BYTES:
        raise ValueError(
            f"it takes {n_bytes:,} bytes, more than the {_MOST_BYTES:,} of a file that is read at once"
        )
    file.seek(0)
    return file.read()


def read_header(path: str) -> tuple[int, int, str]:
    """Return the width, height and mode (of DICOM, the photometric interpretation) of an image."""
    with _named(path):
        dicom = is_dicom(path)
        with opened(path) as file:
            if dicom:
                tags = read_tags(file, ("Columns", "Rows", "PhotometricInterpretation"))
                return tags.Columns, tags.Rows, tags.PhotometricInterpretation
            with Image.open(BoundedFile(file, _MOST_READINGS, _MOST_HEADER), formats=_FORMATS) as image:
                return *image.size, image.mode


def dicom_tags(path: str, keywords: "Sequence[str]") -> "Dataset | None":
    """Return the header of a DICOM file as far as some keywords, or None for a file that is none."""
    with _named(path):
        if not is_dicom(path):
            return None
        with opened(path) as file:
            return read_tags(file, keywords)


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Turn what readers raise into an `UnreadableImage` that names the file."""
    try:
        yield
    except (FileNotFoundError, ImportError, UnreadableImage, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        # Decoders raise many types (OSError, SyntaxError, ValueError, struct.error, zlib.error,
        # DecompressionBombError, ...); for a reader of data sets they are all the same event. A decoder that is
        # written in Rust raises a PanicException, which is no Exception.
        raise UnreadableImage(
            f"{path!r} cannot be read as an image: {_cause(path, error)}. Replace the file or leave it out; "
            "murakit.check_mura lists every such file of a data set."
        ) from error


def _cause(path: str, error: BaseException) -> str:
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
        kind = next((kind for start, kind in _STARTS if read_bytes(path, len(start)) == start), None)
        if kind is None:
            return "Pillow cannot identify its format as PNG, JPEG, TIFF, BMP or WebP"
        return f"it is a damaged {kind}, or one of a kind that Pillow does not read (where it opens, save it as PNG)"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"it may be a decompression bomb ({error})"
    return f"{type(error).__name__}: {error}"
