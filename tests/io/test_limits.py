"""No file takes memory or time without bound."""

import io
import zlib

import numpy as np
import pytest
from helpers import encoded, film
from PIL import Image
from pydicom.data import get_testdata_file

from murakit import UnreadableImage, read_image
from murakit.io._bounded import BoundedFile

FILM = film()


def test_absurd_aspect_ratios_are_refused(tmp_path):
    for shape in ((140_000, 1), (1, 140_000)):
        Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / "a.png")
        with pytest.raises(UnreadableImage, match="a side of more than 131,072"):
            read_image(tmp_path / "a.png")


def test_progressive_jpegs_of_endless_scans_are_refused(tmp_path, monkeypatch):
    data = encoded(FILM, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    (tmp_path / "a.jpg").write_bytes(data[:last] + data[last:-2] * 90_000 + b"\xff\xd9")
    with pytest.raises(
        UnreadableImage, match=r"it has 900\d\d scans of 168 x 200 pixels, which take too long"
    ):
        read_image(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes(data)
    assert read_image(tmp_path / "a.jpg").shape == FILM.shape


@pytest.mark.parametrize(
    ("limit", "image", "name", "words"),
    [
        (
            "murakit.io._images._MOST_BYTES",
            FILM,
            "a.jpg",
            "more than the 1,000 of a file that is read at once",
        ),
        ("murakit.io._images._MOST_WEBP", FILM, "a.webp", "a WebP of more than 1,000 pixels"),
    ],
)
def test_limits_are_named(tmp_path, monkeypatch, limit, image, name, words):
    monkeypatch.setattr(limit, 1000)
    Image.fromarray(image).save(tmp_path / name)
    with pytest.raises(UnreadableImage, match=words):
        read_image(tmp_path / name)


def test_headers_of_endless_parts_are_refused(tmp_path):
    data = encoded(FILM, "JPEG")
    (tmp_path / "a.jpg").write_bytes(data[:2] + b"\xff\xe5\0\2" * 300_000 + data[2:])
    with pytest.raises(UnreadableImage, match="more elements than any radiograph's"):
        read_image(tmp_path / "a.jpg")
    data = encoded(FILM)
    empty = bytes(4) + b"teXt" + zlib.crc32(b"teXt").to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data[:33] + empty * 300_000 + data[33:])
    with pytest.raises(UnreadableImage, match="more than 262,144 chunks"):
        read_image(tmp_path / "a.png")


def test_a_bounded_file_counts_readings_and_bytes():
    file = BoundedFile(io.BytesIO(bytes(1000)), 3, 500)
    assert len(file.read(400)) == 400 and file.tell() == 400
    with pytest.raises(ValueError, match="more elements"):
        file.read(400)
    file = BoundedFile(io.BytesIO(bytes(1000)), 3, 500)
    for _ in range(3):
        file.read(1)
    with pytest.raises(ValueError, match="more elements"):
        file.read(1)
    file.allow(1, 2000)
    assert len(file.read()) == 997


def test_large_jpeg_2000_is_refused(monkeypatch):
    path = get_testdata_file("RG3_J2KI.dcm", download=False)
    assert read_image(path).size > 10**6
    monkeypatch.setattr("murakit.io._dicom_pixels._MOST_J2K", 10**6)
    with pytest.raises(
        UnreadableImage, match="JPEG 2000 of more than 1,000,000 pixels.*write it uncompressed"
    ):
        read_image(path)
