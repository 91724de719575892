"""A DICOM file to pydicom's data set, whatever its beginning lacks, in bounded time and memory."""

import io
import struct
import zlib
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ._bounded import BoundedFile

if TYPE_CHECKING:
    from pydicom import Dataset

_PREAMBLE = 128

_MAGIC = b"DICM"

# A header of a radiograph has some hundred elements. Each takes pydicom one to three readings of the file.
_MOST_READINGS = 100_000
_MOST_BYTES = 2**30

# What a deflated file may inflate to, and a sequence may take that is looked into.
_MOST_INFLATED = 256 * 2**20
_MOST_SEQUENCE = 4 * 2**20
_MOST_ITEMS = 100

_DEFLATED = b"1.2.840.10008.1.2.1.99"

_ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")


def starts_dicom(start: bytes) -> bool:
    """Tell whether the first 132 bytes of a file are those of a DICOM file, with or without its preamble."""
    return start[_PREAMBLE:] == _MAGIC or _is_bare(start)


def _is_bare(start: bytes) -> bool:
    """Tell whether a file begins with an element of group 2 or 8, as those do that lack the preamble."""
    if len(start) < 8:
        return False
    group, element, vr, length = struct.unpack("<HH2s2x", start[:8]) + struct.unpack("<I", start[4:8])
    # Group 8 begins with its length, the character set, or the image's type; none of those is long.
    return group in (2, 8) and element <= 0x20 and ((vr.isalpha() and vr.isupper()) or length <= 256)


def dataset_of(file: BinaryIO, keywords: Sequence[str] | None = None) -> "Dataset":
    """Return the data set of a DICOM file, with a transfer syntax.

    Parameters
    ----------
    file : file-like
        At its beginning.
    keywords : sequence of str or None
        These elements alone, and no pixels; None means all.

    Raises
    ------
    ImportError
        Where pydicom is not installed.
    ValueError
        For what is no DICOM file, and where reading it would take too long or too much memory.
    """
    pydicom = _import()
    start = file.read(4096)
    file.seek(0)
    if not starts_dicom(start[: _PREAMBLE + len(_MAGIC)]):
        raise ValueError("it is no DICOM file, or its beginning is lost")
    if _DEFLATED in start:
        file = _inflated(file)
    # SpecificCharacterSet comes along by itself, so that names are decoded as meant.
    options = {} if keywords is None else {"stop_before_pixels": True, "specific_tags": list(keywords)}
    bounded = BoundedFile(file, _MOST_READINGS, _MOST_BYTES)
    try:
        ds = pydicom.dcmread(bounded, force=True, **options)
    except Exception:
        # pydicom makes an error of its own of those that a file raises within a sequence.
        bounded.check()
        raise
    if ds.file_meta.get("TransferSyntaxUID") is None:
        ds.file_meta.TransferSyntaxUID = _syntax_of(ds)
    return ds


def item_of(ds: "Dataset", keyword: str) -> "Dataset | None":
    """Return the first item of a sequence, or None where there is none."""
    # pydicom parses a sequence when it is first looked at.
    content = ds.get_item(keyword).value if keyword in ds else None
    if isinstance(content, bytes) and (
        len(content) > _MOST_SEQUENCE or max(map(content.count, _ITEMS)) > _MOST_ITEMS
    ):
        raise ValueError(f"its {keyword} is larger than any lookup tables are")
    sequence = ds.get(keyword)
    return sequence[0] if sequence else None


def _inflated(file: BinaryIO) -> BinaryIO:
    """Return a deflated file as one that is not, which pydicom would inflate without a limit."""
    from pydicom.filereader import read_dataset
    from pydicom.filewriter import write_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

    start = _PREAMBLE + len(_MAGIC) if file.read(_PREAMBLE + len(_MAGIC))[_PREAMBLE:] == _MAGIC else 0
    file.seek(start)
    meta = read_dataset(
        cast(BinaryIO, BoundedFile(file, _MOST_READINGS, _MOST_BYTES)),
        False,
        True,
        stop_when=lambda tag, vr, length: tag >> 16 != 2,
    )
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        file.seek(0)
        return file
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    content = stream.decompress(file.read(_MOST_INFLATED), _MOST_INFLATED)
    if not stream.eof:
        more = (
            f"it inflates to more than {_MOST_INFLATED:,} bytes"
            if stream.unconsumed_tail
            else "it is truncated"
        )
        raise ValueError(f"{more}: fetch it anew, or write it without deflating")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    whole = io.BytesIO()
    whole.write(bytes(_PREAMBLE) + _MAGIC)
    # pydicom's hints are narrower than what it takes.
    write_file_meta_info(cast(Any, whole), cast(Any, meta), enforce_standard=False)
    whole.write(content)
    whole.seek(0)
    return whole


def _syntax_of(ds: "Dataset") -> str:
    """Return the transfer syntax that pydicom has found a file to be written in, which does not state it."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "PixelData" in ds and ds["PixelData"].is_undefined_length:
        raise ValueError("its pixels are compressed, and it does not state how (Transfer Syntax UID)")
    implicit, little = ds.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _import() -> ModuleType:
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as error:
        raise ImportError("Reading DICOM files needs pydicom: pip install 'murakit[dicom]'.") from error
    return pydicom
