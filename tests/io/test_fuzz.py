"""Fifteen hundred damaged files: each gives its own pixels or an `UnreadableImage`, soon and in little memory."""

import io
import struct
import sys
import time
import zlib

import numpy as np
import pytest
from helpers import encoded, film
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from murakit import UnreadableImage, read_image

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

N_EACH, SECONDS, BYTES = 100, 10, 2**30
FILM = film(120, 90)


def interlaced():
    """An interlaced PNG, which Pillow does not write."""
    passes = [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ]
    rows = b"".join(
        b"\0" + row.tobytes() for left, top, across, down in passes for row in FILM[top::down, left::across]
    )
    data = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", FILM.shape[1], FILM.shape[0], 8, 0, 0, 0, 1)
    for name, content in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        data += (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )
    return data


def dicom(syntax):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = DigitalXRayImageStorageForPresentation, "1.2.3.4"
    ds.PatientID, ds.StudyInstanceUID, ds.BodyPartExamined, ds.Modality = "7", "1.2.3", "HAND", "DX"
    ds.WindowCenter, ds.WindowWidth = 2000, 3000
    pixels = FILM.astype(np.uint16) * 16
    ds.set_pixel_data(pixels, "MONOCHROME2", 12)
    buffer, big = io.BytesIO(), syntax == ExplicitVRBigEndian
    if syntax in (RLELossless, JPEG2000Lossless):
        ds.compress(syntax, generate_instance_uid=False)
    elif big:
        ds.PixelData = pixels.astype(">u2").tobytes()
    ds.file_meta.TransferSyntaxUID = syntax
    form = {"little_endian": False, "implicit_vr": False} if big else {}
    ds.save_as(buffer, enforce_file_format=True, **form)
    return buffer.getvalue()


GRAY = Image.fromarray(FILM)
FILES = {
    "gray.png": encoded(GRAY),
    "colour.png": encoded(Image.merge("RGB", [GRAY, GRAY.rotate(180), GRAY])),
    "wide.png": encoded(FILM.astype(np.uint16) * 200),
    "palette.png": encoded(GRAY.quantize(40)),
    "interlaced.png": interlaced(),
    "gray.jpg": encoded(GRAY, "JPEG"),
    "packed.tif": encoded(GRAY, "TIFF", compression="tiff_lzw"),
    "gray.bmp": encoded(GRAY, "BMP"),
    "gray.webp": encoded(GRAY, "WEBP"),
    "explicit.dcm": dicom(ExplicitVRLittleEndian),
    "implicit.dcm": dicom(ImplicitVRLittleEndian),
    "big.dcm": dicom(ExplicitVRBigEndian),
    "deflated.dcm": dicom(DeflatedExplicitVRLittleEndian),
    "rle.dcm": dicom(RLELossless),
    "j2k.dcm": dicom(JPEG2000Lossless),
}


def damaged(data, rng):
    """Return a file with one to three of the damages that disks, networks and people do."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        # Half of them in the header, where they matter most.
        n_bytes = len(data)
        at = int(rng.integers(min(n_bytes, 600) if rng.random() < 0.5 else n_bytes))
        length = int(min(rng.integers(1, 200), n_bytes - at))
        match rng.integers(7):
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                data[at] = int(rng.choice([0, 1, 127, 128, 255]))
            case 2:
                data[at : at + length] = bytes(length)
            case 3:
                data[at : at + length] = rng.bytes(length)
            case 4:
                del data[at : at + length]
            case 5:
                data[at:at] = rng.bytes(length)
            case 6:
                data[at : at + 4] = b"\xff\xff\xff\x7f"
        if len(data) < 50:
            break
    return bytes(data)


def peak():
    """Return the most memory that this process has had, in bytes."""
    resource = pytest.importorskip("resource")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_give_their_pixels_or_an_error_that_names_them(tmp_path, name):
    rng = np.random.default_rng(list(name.encode()))
    path, data = tmp_path / name, FILES[name]
    path.write_bytes(data)
    own, n_read = read_image(path), 0
    before = peak()
    for number in range(N_EACH):
        broken = damaged(data, rng)
        path.write_bytes(broken)
        start = time.perf_counter()
        try:
            image = read_image(path)
        except UnreadableImage as error:
            assert str(path) in str(error)
        else:
            n_read += 1
            assert image.dtype == np.uint8 and image.ndim == 2
            if name.endswith(".png"):
                np.testing.assert_array_equal(image, own, err_msg=f"file {number}")
        assert time.perf_counter() - start < SECONDS, f"file {number}"
    assert n_read < N_EACH
    assert peak() - before < BYTES


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".png")])
def test_every_png_with_a_lost_tail_is_found(tmp_path, name):
    path, data = tmp_path / name, FILES[name]
    rng = np.random.default_rng(0)
    # The last byte of a PNG is no zero.
    for keep in rng.integers(0, len(data) - 1, 60):
        for tail in (b"", bytes(len(data) - keep)):
            path.write_bytes(data[:keep] + tail)
            with pytest.raises(UnreadableImage):
                read_image(path)
