"""A DICOM file to one ``uint8`` array, by pydicom's pipeline; and what its header says.

Stored values pass the modality LUT or rescale, then the VOI LUT or window, and MONOCHROME1 is turned
so that bone is bright. pydicom is imported where it is used.
"""

import numpy as np
from PIL import Image

from ._filesystem import DICOM_SUFFIXES, IMAGE_SUFFIXES, read_bytes

_PREAMBLE = 128

_MAGIC = b"DICM"

_GRAY = ("MONOCHROME1", "MONOCHROME2")

# Above this range of stored values, a table of them would be larger than most images.
_TABLE = 2**16


def is_dicom(path):
    """Tell whether a file is to be read as DICOM: by its name, and without a known one by its preamble."""
    name = path.lower()
    if name.endswith(IMAGE_SUFFIXES):
        return name.endswith(DICOM_SUFFIXES)
    return read_bytes(path, _PREAMBLE + len(_MAGIC))[_PREAMBLE:] == _MAGIC


def read_dicom(source, max_pixels=None):
    """Return the pixels of a DICOM file as they are meant to be seen.

    Parameters
    ----------
    source : str or file-like
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
    ds = _import().dcmread(source)
    _refuse(ds, max_pixels)
    _require_decoder(ds.file_meta.TransferSyntaxUID)
    pixels = ds.pixel_array
    if ds.SamplesPerPixel > 1:
        # pixel_array has made RGB of YBR.
        return np.array(Image.fromarray(pixels).convert("L"))
    padding = _padding(pixels, ds)
    if padding is None:
        return _gray(pixels, ds)
    image = np.zeros(pixels.shape, dtype=np.uint8)
    if not padding.all():
        image[~padding] = _gray(pixels[~padding], ds)
    return image


def read_tags(source, keywords):
    """Return the header of a DICOM file, as far as these keywords; pixels are not read."""
    # SpecificCharacterSet comes along by itself, so that names are decoded as meant.
    return _import().dcmread(source, stop_before_pixels=True, specific_tags=list(keywords))


def _import():
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as error:
        raise ImportError("Reading DICOM files needs pydicom: pip install 'murakit[dicom]'.") from error
    return pydicom


def _refuse(ds, max_pixels):
    if "PixelData" not in ds:
        raise ValueError(f"it holds no pixels (modality {ds.get('Modality') or 'not stated'})")
    frames = int(ds.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ValueError(
            f"it holds {frames} frames; a radiograph has one. Write the frame that is meant to a file"
        )
    if max_pixels is not None and ds.Rows * ds.Columns > max_pixels:
        raise Image.DecompressionBombError(
            f"{ds.Columns} x {ds.Rows} pixels exceed PIL.Image.MAX_IMAGE_PIXELS = {max_pixels}"
        )
    if ds.SamplesPerPixel == 1 and ds.PhotometricInterpretation not in _GRAY:
        raise ValueError(
            f"its colours, {ds.PhotometricInterpretation}, are not read: write it as MONOCHROME2"
        )
    if ds.SamplesPerPixel > 1 and (ds.SamplesPerPixel != 3 or ds.BitsAllocated != 8):
        raise ValueError(
            f"its colours, {ds.SamplesPerPixel} samples of {ds.BitsAllocated} bits, are not read: write it as "
            "MONOCHROME2, or with 8 bits"
        )
    if ds.SamplesPerPixel == 1 and ds.get("HighBit", ds.BitsStored - 1) != ds.BitsStored - 1:
        # pydicom would take the lower bits for the value.
        raise ValueError(f"its High Bit, {ds.HighBit}, is not Bits Stored - 1 = {ds.BitsStored - 1}")


def _require_decoder(syntax):
    from pydicom.pixels import get_decoder

    if syntax.is_compressed and not get_decoder(syntax).is_available:
        raise ImportError(
            f"Reading DICOM files compressed as {syntax.name} needs a decoder: pip install 'murakit[dicom]'."
        )


def _padding(pixels, ds):
    """Return where pixels are padding, or None where there is none."""
    value = ds.get("PixelPaddingValue")
    if value is None:
        return None
    limit = ds.get("PixelPaddingRangeLimit")
    low, high = sorted((value, value if limit is None else limit))
    padding = (pixels >= low) & (pixels <= high)
    return padding if padding.any() else None


def _gray(pixels, ds):
    low, high = pixels.min(), pixels.max()
    if not np.issubdtype(pixels.dtype, np.integer) or int(high) - int(low) >= _TABLE:
        return _shades(pixels, ds)
    # Every value of a pixel once, instead of every pixel.
    offsets = pixels.astype(np.int64) - int(low)
    present = np.zeros(int(high) - int(low) + 1, dtype=bool)
    present[offsets.ravel()] = True
    table = np.zeros(len(present), dtype=np.uint8)
    table[present] = _shades(np.flatnonzero(present) + int(low), ds)
    return table[offsets]


def _shades(values, ds):
    """Return the ``uint8`` that stored values are shown as."""
    from pydicom.pixels import apply_modality_lut

    if ds.get("ModalityLUTSequence"):
        _widen(ds.ModalityLUTSequence[0])
    values, low, high = _apply_voi(apply_modality_lut(values, ds), ds)
    if not np.isfinite(float(low) + float(high)):
        raise ValueError("its rescale or window makes NaN or infinite values")
    if low == high:
        return np.zeros(values.shape, dtype=np.uint8)
    above = high - values if ds.PhotometricInterpretation == "MONOCHROME1" else values - low
    # Rounded twice: an image and its MONOCHROME1 copy come to the same half on other ways, and with other
    # last bits; only the second rounding may decide where a half goes.
    return np.round(np.round(above * (255.0 / (high - low)), 6)).astype(np.uint8)


def _apply_voi(values, ds):
    """Return values after the VOI LUT or window, and the ends of its output; of neither, of the values."""
    from pydicom.pixels import apply_voi, apply_windowing

    lut = (ds.get("VOILUTSequence") or [None])[0]
    if lut is not None and None not in (lut.get("LUTDescriptor"), lut.get("LUTData")):
        entries, first, depth = lut.LUTDescriptor
        _widen(lut)
        # Whole numbers in the range of the table: pydicom would wrap those that lie far beyond.
        values = np.clip(np.round(values).astype(np.int64), first, first + (entries or _TABLE) - 1)
        return apply_voi(values, ds).astype(np.float64), 0, 2**depth - 1
    if None not in (ds.get("WindowCenter"), ds.get("WindowWidth")):
        # What lies below and above every window is shown as the ends of its output.
        low, high = apply_windowing(np.array([-np.inf, np.inf]), ds)
        return apply_windowing(values, ds), low, high
    return values.astype(np.float64), values.min(), values.max()


def _widen(lut):
    # pydicom counts the entries of a table in the type of its output: with 8 bits, entry 256 becomes 0.
    entries, first, _ = lut.LUTDescriptor
    lut.LUTDescriptor = [entries, first, 16]
