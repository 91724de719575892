"""A damaged PNG or JPEG is never presented as a whole one."""

import io
import struct
import threading
import zlib

import numpy as np
import pytest
from helpers import encoded, film
from PIL import Image, ImageFile

from murakit import UnreadableImage, read_image, read_square
from murakit.io import _pillow

Y, X = np.mgrid[:200, :168]
SMOOTH = ((Y + 2 * X) // 3 + 20).astype(np.uint8)
FILM = film()


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def chunks(data):
    """The names and contents of a PNG's chunks."""
    found, at = [], 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def png(parts):
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def with_pixels(data, change):
    """A PNG whose compressed pixels are changed, with checksums of its chunks that are right."""
    parts = chunks(data)
    stream = b"".join(content for name, content in parts if name == b"IDAT")
    return png(
        [
            *(part for part in parts if part[0] not in (b"IDAT", b"IEND")),
            (b"IDAT", change(stream)),
            (b"IEND", b""),
        ]
    )


def written(tmp_path, data, name="image1.png"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def interlaced(pixels):
    """An interlaced PNG, filtered by nothing; Pillow writes none."""
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
        b"\0" + row.tobytes()
        for left, top, across, down in passes
        for row in pixels[top::down, left::across]
        if row.size
    )
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 0, 0, 0, 1)
    return png([(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")])


PALETTE = Image.fromarray(FILM).quantize(30)
PNGS = {
    "smooth": encoded(SMOOTH),
    "film": encoded(FILM),
    "one colour": encoded(np.full((60, 70), 9, np.uint8)),
    "colour": encoded(np.stack([FILM, SMOOTH, FILM], axis=-1)),
    "16 bits": encoded(FILM.astype(np.uint16) * 200),
    "palette": encoded(PALETTE),
    "interlaced": interlaced(FILM),
}


@pytest.mark.parametrize("kind", PNGS)
def test_every_cut_or_zeroed_tail_of_a_png_is_found(tmp_path, kind):
    data = PNGS[kind]
    expected = read_image(written(tmp_path, data))
    assert expected.shape == np.asarray(Image.open(io.BytesIO(data))).shape[:2]
    for share in (0.3, 0.5, 0.7, 0.9, 0.97, 1):
        # With share 1, the last byte.
        keep = min(round(len(data) * share), len(data) - 1)
        for tail in (b"", bytes(len(data) - keep)):
            if data[:keep] + tail == data:
                continue
            with pytest.raises(UnreadableImage, match=r"image1\.png"):
                read_image(written(tmp_path, data[:keep] + tail))


def test_any_flipped_bit_of_a_png_is_found(tmp_path):
    data, rng = encoded(FILM[:40, :40]), np.random.default_rng(0)
    for at in rng.choice(len(data), 150, replace=False):
        broken = bytearray(data)
        broken[at] ^= 1 << int(rng.integers(8))
        with pytest.raises(UnreadableImage):
            read_image(written(tmp_path, bytes(broken)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda stream: stream[:-4] + b"\1\2\3\4", "incorrect data check"),
        (lambda stream: stream[:-4], "truncated"),
        (lambda stream: stream[: len(stream) // 2], "truncated"),
        (lambda stream: zlib.compress(zlib.decompress(stream)[:-1]), "truncated"),
        (lambda stream: zlib.compress(zlib.decompress(stream) + b"\0"), "more than its header states"),
        (lambda stream: b"", "truncated"),
    ],
    ids=["adler", "no adler", "half", "a byte less", "a byte more", "empty"],
)
def test_a_wrong_stream_in_chunks_with_right_checksums_is_found(tmp_path, change, words):
    for data in (PNGS["film"], PNGS["interlaced"]):
        with pytest.raises(UnreadableImage, match=words):
            read_image(written(tmp_path, with_pixels(data, change)))
    np.testing.assert_array_equal(read_image(written(tmp_path, with_pixels(PNGS["film"], bytes))), FILM)


def test_large_pngs_are_checked_too(tmp_path, monkeypatch):
    monkeypatch.setattr("murakit.io._png._HELD", 1000)
    np.testing.assert_array_equal(read_image(written(tmp_path, PNGS["film"])), FILM)
    for change in (lambda stream: stream[:-4] + b"\1\2\3\4", lambda stream: stream[:-4]):
        with pytest.raises(UnreadableImage):
            read_image(written(tmp_path, with_pixels(PNGS["film"], change)))


def test_pixels_may_come_in_many_chunks_and_other_chunks_do_not_matter(tmp_path):
    parts = chunks(PNGS["film"])
    header, stream = parts[0], b"".join(content for name, content in parts if name == b"IDAT")
    pieces = [(b"IDAT", stream[at : at + 100]) for at in range(0, len(stream), 100)]
    text = (b"tEXt", b"Comment\0film")
    whole = png([header, text, (b"IDAT", b""), *pieces, (b"zzZz", b"own"), (b"IEND", b"")]) + b"after the end"
    np.testing.assert_array_equal(read_image(written(tmp_path, whole)), FILM)
    apart = png([header, *pieces[:3], text, *pieces[3:], (b"IEND", b"")])
    with pytest.raises(UnreadableImage, match="other chunks lie between"):
        read_image(written(tmp_path, apart))


def test_the_first_image_of_an_animation_is_read(tmp_path):
    data = encoded(FILM, save_all=True, append_images=[Image.fromarray(SMOOTH)], duration=10)
    assert b"fcTL" in data
    np.testing.assert_array_equal(read_image(written(tmp_path, data)), FILM)
    with pytest.raises(UnreadableImage):
        read_image(written(tmp_path, data[:-100] + bytes(100)))


def test_a_palette_must_be_there_and_have_every_colour(tmp_path):
    data = PNGS["palette"]
    expected = np.asarray(PALETTE.convert("L"))
    np.testing.assert_array_equal(read_image(written(tmp_path, data)), expected)
    parts = chunks(data)
    with pytest.raises(UnreadableImage, match="its palette is missing"):
        read_image(written(tmp_path, png([part for part in parts if part[0] != b"PLTE"])))
    short = [(name, content[:-3] if name == b"PLTE" else content) for name, content in parts]
    with pytest.raises(UnreadableImage, match="has colour 29 of a palette of 29"):
        read_image(written(tmp_path, png(short)))


def test_other_chunks_have_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("murakit.io._png._MOST_BESIDE", 1000)
    header, *rest = chunks(PNGS["film"])
    with pytest.raises(UnreadableImage, match="more than 1,000 bytes beside its pixels"):
        read_image(written(tmp_path, png([header, (b"tEXt", bytes(1001)), *rest])))


@pytest.mark.parametrize("depth_and_colour", [(3, 0), (16, 3), (8, 5)])
def test_headers_that_png_does_not_know(tmp_path, depth_and_colour):
    header = (b"IHDR", struct.pack(">IIBBBBB", 4, 4, *depth_and_colour, 0, 0, 0))
    with pytest.raises(UnreadableImage, match="what PNG does not know"):
        read_image(written(tmp_path, png([header, *chunks(PNGS["film"])[1:]])))


# -- JPEG --------------------------------------------------------------------------------------

END = b"\xff\xd9"
KINDS = {
    "grey": (Image.fromarray(FILM), {}),
    "progressive": (Image.fromarray(FILM), {"progressive": True}),
    "restarts": (Image.fromarray(FILM), {"restart_marker_blocks": 7}),
    "colour": (Image.merge("RGB", [Image.fromarray(part) for part in (FILM, SMOOTH, FILM)]), {}),
    "colour 4:4:4": (
        Image.merge("RGB", [Image.fromarray(part) for part in (FILM, SMOOTH, FILM)]),
        {"subsampling": 0},
    ),
    "cmyk": (Image.merge("CMYK", [Image.fromarray(part) for part in (FILM, SMOOTH, FILM, SMOOTH)]), {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_jpegs_have_the_pixels_that_pillow_gives(tmp_path, kind):
    image, options = KINDS[kind]
    data = encoded(image, "JPEG", **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    np.testing.assert_array_equal(read_image(written(tmp_path, data, "a.jpg")), expected)
    np.testing.assert_array_equal(read_image(written(tmp_path, data + b"after the end", "a.jpg")), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_jpegs_that_lost_their_end_or_middle_are_found(tmp_path, kind):
    image, options = KINDS[kind]
    data = encoded(image, "JPEG", **options)
    half = len(data) // 2
    for broken in (
        data[:half],
        data[:half] + END,
        data[:-30] + END,
        data[:half] + bytes(len(data) - half),
        data[:half] + data[half + half // 4 :],
    ):
        path = written(tmp_path, broken, "a.jpg")
        for read in (read_image, lambda file: read_square(file, 16)):
            with pytest.raises(UnreadableImage, match=r"a\.jpg' cannot be read"):
                read(path)


# -- Pillow's switch for truncated files --------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_pillows_switch_for_truncated_files_changes_nothing(tmp_path, monkeypatch, format):
    data = encoded(FILM, format)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(UnreadableImage):
        read_image(written(tmp_path, data[: len(data) // 2], f"a.{format.lower()}"))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert read_image(written(tmp_path, data, f"a.{format.lower()}")).shape == FILM.shape
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_the_switch_is_restored_by_the_last_of_several_threads(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    inside, go_on = threading.Event(), threading.Event()

    def other():
        with _pillow.refusing_truncated():
            inside.set()
            go_on.wait(10)

    thread = threading.Thread(target=other)
    with _pillow.refusing_truncated():
        thread.start()
        assert inside.wait(10)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    go_on.set()
    thread.join()
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
