"""The stored values of a DICOM data set, decoded by pydicom where the compressed stream is what its header says."""

from typing import TYPE_CHECKING

from numpy.typing import NDArray

from ._jpeg import decoded_jpeg, refuse_many_scans

if TYPE_CHECKING:
    from pydicom import Dataset

_LIBJPEG = "pylibjpeg-libjpeg"


def pixels_of(ds: "Dataset") -> NDArray:
    """Return the stored values of a data set.

    Raises
    ------
    ImportError
        Where the decoder of its compression is not installed.
    ValueError
        For a stream that is damaged, or has another size than the header.
    """
    syntax = ds.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        _require_decoder(ds)
        _check_stream(ds)
    return ds.pixel_array


def _require_decoder(ds: "Dataset") -> None:
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGExtended12Bit

    syntax = ds.file_meta.TransferSyntaxUID
    decoder = get_decoder(syntax)
    if not decoder.is_available:
        raise ImportError(
            f"Reading DICOM files compressed as {syntax.name} needs a decoder: pip install 'murakit[dicom]'."
        )
    if syntax == JPEGExtended12Bit and ds.BitsStored > 8 and "pylibjpeg" not in decoder.available_plugins:
        # Neither GDCM nor Pillow decodes it. The licence is why the extra does not bring it.
        raise ImportError(
            f"Reading DICOM files compressed as {syntax.name} with {ds.BitsStored} bits needs {_LIBJPEG}, whose "
            f"licence is the GPL: pip install {_LIBJPEG}."
        )


def _check_stream(ds: "Dataset") -> None:
    from pydicom.encaps import get_frame
    from pydicom.uid import RLELossless

    frame, syntax = get_frame(ds.PixelData, 0, number_of_frames=1), ds.file_meta.TransferSyntaxUID
    if syntax == RLELossless:
        return
    size = _size_in(frame)
    if size is not None and size != (ds.Columns, ds.Rows):
        # The decoder would make room for what the stream says.
        raise ValueError(
            f"its pixels are {size[0]} x {size[1]} in the compressed stream and {ds.Columns} x {ds.Rows} in the header"
        )
    if _SOC_SIZ in frame[:_BEGINNING] and size[0] * size[1] > _MOST_J2K:
        raise ValueError(
            f"it is JPEG 2000 of more than {_MOST_J2K:,} pixels, which take too long to decode: write it uncompressed"
        )
    if frame[:2] != b"\xff\xd8" or size is None:
        return
    refuse_many_scans(frame, *size)
    if _is_dct(frame) and ds.BitsAllocated == 8:
        # pydicom's decoders show a stream that ends early as one that is half grey.
        decoded_jpeg(frame, "GRAY" if ds.SamplesPerPixel == 1 else "RGB")


# Frame headers: SOF0 to SOF15 without DHT, JPG and DAC, and SOF55 of JPEG-LS.
_FRAME_HEADERS = (set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {0xF7}

# Baseline, extended and progressive: what is 8-bit and not lossless.
_DCT = {0xC0, 0xC1, 0xC2}

_SOC_SIZ = b"\xff\x4f\xff\x51"

# Where the codestream of JPEG 2000 begins, which may lie in the boxes of a file (ISO/IEC 15444-1 A.5.1, I.5).
_BEGINNING = 4096

# OpenJPEG decodes some ten million pixels a second.
_MOST_J2K = 2**26


def _size_in(frame: bytes) -> tuple[int, int] | None:
    """Return the width and height that a JPEG, JPEG-LS or JPEG 2000 stream states."""
    if (at := frame.find(_SOC_SIZ, 0, _BEGINNING)) >= 0:
        right, bottom, left, top = (
            int.from_bytes(frame[at + start : at + start + 4], "big") for start in (8, 12, 16, 20)
        )
        return right - left, bottom - top
    if (found := _frame_header(frame)) is None:
        return None
    _, at = found
    return int.from_bytes(frame[at + 7 : at + 9], "big"), int.from_bytes(frame[at + 5 : at + 7], "big")


def _is_dct(frame: bytes) -> bool:
    found = _frame_header(frame)
    return found is not None and found[0] in _DCT


def _frame_header(frame: bytes) -> tuple[int, int] | None:
    """Return the marker of a JPEG stream's frame header and its place."""
    at = 2
    while frame[:2] == b"\xff\xd8" and at + 4 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker in _FRAME_HEADERS:
            return marker, at
        # 0xFF may fill up before a marker.
        at += 1 if marker == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None
