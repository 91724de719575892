"""A JPEG file that is whole, or an error.

Pillow hides what libjpeg warns of, and shows a file that lost its second half as one that is half grey.
simplejpeg decodes by the same library, to the same pixels, and raises.
"""

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

_COLOURS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}

# Parts of what libjpeg-turbo says of streams that it does not decode.
_NOT_DAMAGE = ("Unsupported", "Could not determine subsampling", "not implemented")

# Each scan of a progressive JPEG costs a pass over all of its pixels. Encoders make about ten; libjpeg-turbo's own
# fuzzing stops at 500. With that many pixels in all of the scans, decoding takes some seconds.
_MOST_SCANNED = 2**31

_USUAL_SCANS = 20


def read_jpeg(data: bytes, header: Image.Image) -> Image.Image:
    """Return the image of a JPEG file.

    Parameters
    ----------
    data : bytes
        The whole file.
    header : PIL.Image.Image
        The same file, opened and not loaded.

    Raises
    ------
    ValueError
        For a file that is damaged or cut short.
    """
    mode = header.mode
    # Of grey that is not progressive, libjpeg decodes the first scan only.
    if mode != "L" or "progressive" in header.info:
        refuse_many_scans(data, *header.size)
    pixels = decoded_jpeg(data, _COLOURS[mode])
    if mode == "CMYK":
        # As Pillow does, by Adobe's convention that 255 is no ink.
        return Image.frombytes("CMYK", header.size, np.subtract(255, pixels, out=pixels))
    return Image.fromarray(pixels[..., 0] if mode == "L" else pixels)


def decoded_jpeg(data: bytes, colours: str) -> NDArray[np.uint8]:
    """Return the pixels of an 8-bit JPEG stream; raise a ValueError where libjpeg would only warn."""
    return simplejpeg.decode_jpeg(data, colours)


def refuse_damaged(data: bytes, colours: str) -> None:
    """Raise for an 8-bit JPEG stream that is damaged; what libjpeg-turbo does not decode is left to other decoders."""
    try:
        decoded_jpeg(data, colours)
    except ValueError as error:
        if not any(words in str(error) for words in _NOT_DAMAGE):
            raise


def refuse_many_scans(data: bytes, width: int, height: int) -> None:
    """Raise for a JPEG stream that is small and takes minutes to decode."""
    n_scans = data.count(b"\xff\xda")
    if n_scans > _USUAL_SCANS and n_scans * width * height > _MOST_SCANNED:
        raise ValueError(
            f"it has {n_scans} scans of {width} x {height} pixels, which take too long to decode"
        )
