"""No file takes memory or time without bound."""

import numpy as np
import pytest
from helpers import encoded, film
from PIL import Image

from murakit import UnreadableImage, read_image

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
