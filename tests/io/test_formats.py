"""Each documented format is read as its values are meant, and no other is opened."""

import io
import os
import stat
import struct
import sys
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from murakit import UnreadableImage, read_image
from murakit.io import _gray

RNG = np.random.default_rng(0)
TWELVE = RNG.integers(0, 4096, (9, 7)).astype(np.uint16)
OPAQUE = np.full_like(TWELVE, 65535)


def scaled(values):
    """Values as 0 to 255 over their own range."""
    values = np.asarray(values, dtype=np.float64)
    return np.round((values - values.min()) * 255 / (values.max() - values.min()))


def png16(path, pixels, colour, *chunks):
    """Write a PNG of 16 bits, which Pillow writes of grey alone."""

    def chunk(name, content):
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


def tiff16(path, pixels, photometric, *, order="<", planar=False, packed=False, extra=(), orientation=1):
    """Write a TIFF of 16 bits, of which Pillow writes the plainest alone."""
    height, width, *samples = pixels.shape
    n_samples = samples[0] if samples else 1
    planes = np.moveaxis(pixels, -1, 0) if planar else [pixels]
    strips = [plane.astype(f"{order}u2").tobytes() for plane in planes]
    strips = [zlib.compress(strip) for strip in strips] if packed else strips
    tags = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [16] * n_samples),
        259: ("H", [8 if packed else 1]),
        262: ("H", [photometric]),
        273: ("I", [0] * len(strips)),
        274: ("H", [orientation]),
        277: ("H", [n_samples]),
        278: ("I", [height]),
        279: ("I", [len(strip) for strip in strips]),
        284: ("H", [2 if planar else 1]),
    }
    if extra:
        tags[338] = ("H", list(extra))
    at = 8 + 2 + 12 * len(tags) + 4
    beyond = sum(n for form, values in tags.values() if (n := len(values) * struct.calcsize(form)) > 4)
    tags[273] = ("I", [at + beyond + sum(map(len, strips[:number])) for number in range(len(strips))])
    entries, more = b"", b""
    for tag, (form, values) in sorted(tags.items()):
        value = struct.pack(f"{order}{len(values)}{form}", *values)
        if len(value) > 4:
            value, more = struct.pack(f"{order}I", at + len(more)), more + value
        kind = 4 if form == "I" else 3
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + value.ljust(4, b"\0")
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    path.write_bytes(start + entries + bytes(4) + more + b"".join(strips))
    return path


# -- which files are opened -----------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="a program of PATH is a shell script here")
def test_no_program_is_started_for_a_file_that_calls_itself_an_image(tmp_path, monkeypatch):
    program, ran = tmp_path / "gs", tmp_path / "ran"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    path = tmp_path / "image1.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n%%EOF\n")
    with pytest.raises(UnreadableImage, match="as PNG, JPEG, TIFF, BMP or WebP"):
        read_image(path)
    assert not ran.exists()


@pytest.mark.parametrize("format", ["GIF", "PPM", "TGA", "PCX", "JPEG2000"])
def test_other_formats_of_pillow_are_not_opened(tmp_path, format):
    path = tmp_path / "image1.png"
    Image.new("L", (20, 20)).save(path, format)
    with pytest.raises(UnreadableImage, match="as PNG, JPEG, TIFF, BMP or WebP"):
        read_image(path)


def test_names_do_not_decide_between_the_formats(tmp_path):
    path = tmp_path / "image1.png"
    pixels = (TWELVE >> 4).astype(np.uint8)
    for format in ("TIFF", "BMP", "PNG"):
        Image.fromarray(pixels).save(path, format)
        np.testing.assert_array_equal(read_image(path), pixels)


# -- more than 8 bits -------------------------------------------------------------------------------


def test_12_bits_in_png_of_16_bits_keep_their_grey_values(tmp_path):
    expected = scaled(TWELVE)
    gray = np.stack([TWELVE, OPAQUE], axis=-1)
    colour = np.stack([TWELVE] * 3, axis=-1)
    colour_alpha = np.stack([TWELVE] * 3 + [OPAQUE], axis=-1)
    for pixels, kind in ((TWELVE, 0), (gray, 4), (colour, 2), (colour_alpha, 6)):
        np.testing.assert_array_equal(read_image(png16(tmp_path / "a.png", pixels, kind)), expected)


def test_16_bit_colour_becomes_luminance_over_black(tmp_path):
    pixels = RNG.integers(0, 65536, (50, 40, 4))
    luminance = pixels[..., :3] @ [0.299, 0.587, 0.114]
    # The weights are rounded to 1/65536, and so is the luminance.
    image = read_image(png16(tmp_path / "a.png", pixels[..., :3], 2)).astype(int)
    assert np.abs(image - scaled(luminance)).max() <= 1
    image = read_image(png16(tmp_path / "a.png", pixels, 6)).astype(int)
    assert np.abs(image - scaled(luminance * pixels[..., 3] / 65535)).max() <= 1
    image = read_image(png16(tmp_path / "a.png", pixels[..., 2:], 4)).astype(int)
    assert np.abs(image - scaled(pixels[..., 2] * (pixels[..., 3] / 65535))).max() <= 1


def test_the_transparent_value_of_16_bits_is_black(tmp_path):
    gray = np.array([[500, 1000, 4000]], dtype=np.uint16)
    path = png16(tmp_path / "a.png", gray, 0, (b"tRNS", struct.pack(">H", 500)))
    assert read_image(path).tolist() == [[0, 64, 255]]
    colour = np.stack([gray] * 3, axis=-1)
    path = png16(tmp_path / "a.png", colour, 2, (b"tRNS", struct.pack(">HHH", 500, 500, 500)))
    assert read_image(path).tolist() == [[0, 64, 255]]


@pytest.mark.parametrize("packed", [False, True])
def test_white_as_zero_in_tiff_of_16_bits_is_turned(tmp_path, packed):
    path = tmp_path / "a.tif"
    np.testing.assert_array_equal(read_image(tiff16(path, TWELVE, 1, packed=packed)), scaled(TWELVE))
    turned = read_image(tiff16(path, TWELVE, 0, packed=packed))
    np.testing.assert_array_equal(turned, scaled(-TWELVE.astype(int)))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("packed", [False, True])
def test_12_bits_in_colour_tiff_of_16_bits_keep_their_grey_values(tmp_path, order, packed):
    path, options = tmp_path / "a.tif", {"order": order, "packed": packed}
    colour = np.stack([TWELVE] * 3, axis=-1)
    np.testing.assert_array_equal(read_image(tiff16(path, colour, 2, **options)), scaled(TWELVE))
    alpha = np.stack([TWELVE] * 3 + [OPAQUE], axis=-1)
    np.testing.assert_array_equal(read_image(tiff16(path, alpha, 2, extra=[2], **options)), scaled(TWELVE))


def test_tiff_that_pillow_would_read_wrong_is_refused_with_the_remedy(tmp_path):
    colour = np.stack([TWELVE] * 3, axis=-1)
    with pytest.raises(UnreadableImage, match="more than 8 bits.*write it as 16-bit grey"):
        read_image(tiff16(tmp_path / "a.tif", colour, 2, planar=True))
    # Big-endian grey with white as zero: Pillow does not identify it.
    with pytest.raises(UnreadableImage, match="damaged TIFF, or one of a kind .* save it as PNG"):
        read_image(tiff16(tmp_path / "a.tif", TWELVE, 0, order=">"))


# -- orientation --------------------------------------------------------------------------------------

TURNS = [
    lambda a: a,
    np.fliplr,
    lambda a: np.rot90(a, 2),
    np.flipud,
    np.transpose,
    lambda a: np.rot90(a, -1),
    lambda a: np.rot90(np.transpose(a), 2),
    np.rot90,
]


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_orientation_of_tiff_is_applied_once(tmp_path, compression, dtype):
    pixels = np.arange(0, 255, 17, dtype=dtype).reshape(3, 5)
    path = tmp_path / "a.tif"
    expected = scaled(pixels) if dtype == np.uint16 else pixels
    for orientation, turned in enumerate(TURNS, 1):
        Image.fromarray(pixels).save(path, compression=compression, tiffinfo={274: orientation})
        np.testing.assert_array_equal(read_image(path), turned(expected))
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.write(path, "a.tif")
        np.testing.assert_array_equal(read_image(f"{tmp_path}/a.zip!a.tif"), turned(expected))


@pytest.mark.parametrize("packed", [False, True])
def test_the_orientation_of_16_bit_colour_is_applied_once(tmp_path, packed):
    for orientation, turned in enumerate(TURNS, 1):
        colour = np.stack([TWELVE] * 3, axis=-1)
        path = tiff16(tmp_path / "a.tif", colour, 2, packed=packed, orientation=orientation)
        np.testing.assert_array_equal(read_image(path), turned(scaled(TWELVE)))
        exif = struct.pack("<2sHIHHHII", b"II", 42, 8, 1, 274, 3, 1, orientation) + bytes(4)
        path = png16(tmp_path / "a.png", colour, 2, (b"eXIf", exif))
        np.testing.assert_array_equal(read_image(path), turned(scaled(TWELVE)))


# -- pieces ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 30), (1, 1200), (1200, 1)])
def test_large_images_are_converted_in_pieces_to_the_same_pixels(tmp_path, monkeypatch, shape):
    gray, alpha = (RNG.integers(0, 256, shape).astype(np.uint8) for _ in range(2))
    colours = {
        "rgb": Image.merge("RGB", [Image.fromarray(part) for part in (gray, alpha, gray)]),
        "rgba": Image.merge("RGBA", [Image.fromarray(part) for part in (gray, gray, gray, alpha)]),
        "la": Image.merge("LA", [Image.fromarray(part) for part in (gray, alpha)]),
        "palette": Image.fromarray(gray).convert("P"),
        "16 bits": Image.fromarray(gray.astype(np.uint16) * 100 + alpha),
        "32 bits": Image.fromarray(gray.astype(np.int32) * 1000 - alpha),
        "float": Image.fromarray(gray.astype(np.float32) / 7 - alpha),
    }
    files = {
        name: tmp_path / f"{name}.{'tif' if name in ('32 bits', 'float') else 'png'}" for name in colours
    }
    for name, image in colours.items():
        image.save(files[name])
    whole = {name: read_image(path) for name, path in files.items()}
    np.testing.assert_array_equal(whole["16 bits"], scaled(gray.astype(int) * 100 + alpha))
    monkeypatch.setattr(_gray, "_PIECE", 64)
    for name, path in files.items():
        np.testing.assert_array_equal(read_image(path), whole[name])


def test_a_bmp_with_colours_beyond_its_palette_is_damaged(tmp_path):
    indexed = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4), "P")
    indexed.putpalette([20 * (at % 12) for at in range(12) for _ in range(3)])
    buffer = io.BytesIO()
    indexed.save(buffer, "BMP")
    data, path = bytearray(buffer.getvalue()), tmp_path / "a.bmp"
    path.write_bytes(data)
    assert read_image(path).tolist() == (20 * np.arange(12).reshape(3, 4)).tolist()
    data[46:50] = (5).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match="of a palette of 5"):
        read_image(path)
