"""The stored values of a DICOM data set, decoded by pydicom where the compressed stream is what its header says."""

from typing import TYPE_CHECKING

from numpy.typing import NDArray

from ._jpeg import refuse_damaged, refuse_many_scans

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

    if ds.file_meta.TransferSyntaxUID == RLELossless:
        return
    frame = get_frame(ds.PixelData, 0, number_of_frames=1)
    # JPEG, JPEG-LS and JPEG 2000 end in the same two bytes; one more may fill up to an even number.
    if not frame.rstrip(b"\0\xff").endswith(b"\xff\xd9"):
        raise ValueError("its compressed pixels are truncated: their end marker is missing")
    if (at := frame.find(_SOC_SIZ, 0, _BEGINNING)) >= 0:
        right, bottom, left, top = (
            int.from_bytes(frame[at + start : at + start + 4], "big") for start in (8, 12, 16, 20)
        )
        width, height = right - left, bottom - top
        _refuse_other_size(ds, width, height)
        if width * height > _MOST_J2K:
            raise ValueError(
                f"it is JPEG 2000 of more than {_MOST_J2K:,} pixels, which take long to decode: write it uncompressed"
            )
    elif (found := _frame_header(frame)) is not None:
        marker, at = found
        height, width = (int.from_bytes(frame[at + start : at + start + 2], "big") for start in (5, 7))
        _refuse_other_size(ds, width, height)
        refuse_many_scans(frame, width, height)
        if marker in _CHECKED and ds.BitsAllocated == 8:
            # pydicom's decoders show a stream that ends early as one that is half grey.
            refuse_damaged(frame, "GRAY" if ds.SamplesPerPixel == 1 else "RGB")


def _refuse_other_size(ds: "Dataset", width: int, height: int) -> None:
    # A decoder would make room for what the stream says.
    if (width, height) != (ds.Columns, ds.Rows):
        raise ValueError(
            f"its pixels are {width} x {height} in the compressed stream and {ds.Columns} x {ds.Rows} in the header"
        )


# Frame headers: SOF0 to SOF15 without DHT, JPG and DAC, and SOF55 of JPEG-LS.
_FRAME_HEADERS = (set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {0xF7}

# Baseline, extended, progressive and lossless: those that libjpeg-turbo decodes.
_CHECKED = {0xC0, 0xC1, 0xC2, 0xC3}

_SOC_SIZ = b"\xff\x4f\xff\x51"

# Where the codestream of JPEG 2000 begins, which may lie in the boxes of a file (ISO/IEC 15444-1 A.5.1, I.5).
_BEGINNING = 4096

# OpenJPEG decodes some ten million pixels a second.
_MOST_J2K = 2**26


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
