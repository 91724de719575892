import io
import warnings

import numpy as np
import pytest
from PIL import Image

from murakit.io._images import UnreadableImage, read_image, read_square

RAMP = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


def saved(tmp_path, image, name="image1.png", **options):
    path = tmp_path / name
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def test_8_bit_keeps_its_values(tmp_path):
    for path in (saved(tmp_path, RAMP), str(saved(tmp_path, RAMP))):
        image = read_image(path)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, RAMP)


def test_the_array_can_be_written_to(tmp_path):
    path = saved(tmp_path, RAMP)
    assert read_image(path).flags.writeable
    assert all(read_square(path, 4, resize).flags.writeable for resize in ("pad", "squash"))


def test_three_equal_channels_are_gray(tmp_path):
    np.testing.assert_array_equal(read_image(saved(tmp_path, np.stack([RAMP] * 3, axis=-1))), RAMP)


def test_colour_becomes_luminance(tmp_path):
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=np.uint8)
    # ITU-R 601: 0.299, 0.587, 0.114 of 255
    assert read_image(saved(tmp_path, pixels)).tolist() == [[76, 150, 29]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_is_scaled_by_its_own_range(tmp_path, suffix):
    wide = np.array([[1000, 2000], [3000, 5000]], dtype=np.uint16)
    # (value - 1000) * 255 / 4000
    assert read_image(saved(tmp_path, wide, f"a.{suffix}")).tolist() == [[0, 64], [128, 255]]


def test_wider_types_are_scaled_by_their_own_range(tmp_path):
    for dtype in (np.int32, np.float32):
        wide = np.array([[-100, 0, 100]], dtype=dtype)
        assert read_image(saved(tmp_path, wide, "a.tif")).tolist() == [[0, 128, 255]]


def test_16_bit_of_one_value_is_black(tmp_path):
    assert not read_image(saved(tmp_path, np.full((2, 2), 4000, dtype=np.uint16))).any()


def test_float_without_range_is_unreadable(tmp_path):
    path = saved(tmp_path, np.array([[0, np.nan]], dtype=np.float32), "a.tif")
    with pytest.raises(UnreadableImage, match="NaN"):
        read_image(path)


def palette():
    indexed = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    indexed.putpalette([200, 200, 200, 10, 10, 10, 60, 60, 60])
    return indexed


def test_palette_is_resolved(tmp_path):
    assert read_image(saved(tmp_path, palette())).tolist() == [[200, 10, 60]]


def test_transparent_palette_entries_are_black(tmp_path):
    one = saved(tmp_path, palette(), "one.png", transparency=0)
    assert read_image(one).tolist() == [[0, 10, 60]]
    # An alpha for each entry: 200 * 128 / 255, opaque, transparent.
    each = saved(tmp_path, palette(), "each.png", transparency=bytes([128, 255, 0]))
    assert read_image(each).tolist() == [[100, 10, 0]]


def test_alpha_is_over_black(tmp_path):
    gray = np.array([[[200, 255], [200, 51], [200, 0]]], dtype=np.uint8)
    assert read_image(saved(tmp_path, gray, "la.png")).tolist() == [[200, 40, 0]]
    colour = np.array([[[200, 200, 200, 255], [200, 200, 200, 51], [200, 200, 200, 0]]], dtype=np.uint8)
    assert read_image(saved(tmp_path, colour, "rgba.png")).tolist() == [[200, 40, 0]]
    keyed = saved(tmp_path, np.array([[200, 30]], dtype=np.uint8), "key.png", transparency=200)
    assert read_image(keyed).tolist() == [[0, 30]]


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("png", {}),
        ("tif", {}),
        ("tiff", {"compression": "tiff_lzw"}),
        ("bmp", {}),
        ("webp", {"lossless": True}),
    ],
)
def test_lossless_formats_keep_every_value(tmp_path, suffix, options):
    gray = Image.fromarray(RAMP)
    image = gray.convert("RGB") if suffix == "webp" else gray
    np.testing.assert_array_equal(read_image(saved(tmp_path, image, f"a.{suffix}", **options)), RAMP)


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp"])
def test_lossy_formats_keep_smooth_values(tmp_path, suffix):
    smooth = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    image = read_image(saved(tmp_path, smooth, f"a.{suffix}", quality=95))
    np.testing.assert_allclose(image.astype(int), smooth.astype(int), atol=4)


def test_1_bit_is_black_and_white(tmp_path):
    assert read_image(saved(tmp_path, np.array([[True, False]]))).tolist() == [[255, 0]]


def test_cmyk(tmp_path):
    path = saved(tmp_path, Image.new("CMYK", (8, 8), (0, 0, 0, 155)), "a.tif")
    assert read_image(path).tolist() == [[100] * 8] * 8
    path = saved(tmp_path, Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "a.jpg")
    assert (read_image(path) == 255).all()


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, np.transpose),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(np.transpose(a), 2)),
        (8, np.rot90),
    ],
)
def test_exif_orientation_is_applied(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(read_image(saved(tmp_path, RAMP, exif=exif)), turned(RAMP))
    # JPEG blurs, hence one flat half against the other.
    halves = np.repeat(np.array([[0, 240]], dtype=np.uint8), 8, axis=1).repeat(8, axis=0)
    image = read_image(saved(tmp_path, halves, "a.jpg", exif=exif))
    np.testing.assert_allclose(image, turned(halves), atol=3)


def test_exif_orientation_of_16_bit(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = np.array([[0, 255], [510, 1020]], dtype=np.uint16)
    assert read_image(saved(tmp_path, wide, exif=exif)).tolist() == [[128, 0], [255, 64]]


def test_first_frame_is_read(tmp_path):
    first, second = Image.fromarray(RAMP), Image.fromarray(RAMP[::-1].copy())
    path = saved(tmp_path, first, "a.tif", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read_image(path), RAMP)


def noise_png():
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (noise_png()[:2000], "truncated"),
        (noise_png()[:30], None),
        (noise_png()[:-30], "truncated"),
        (b"", "the file is empty"),
        (b"not an image at all", "cannot identify"),
        (noise_png()[:200] + b"\0" * 2000 + noise_png()[2200:], None),
    ],
    ids=["half", "header", "tail", "empty", "text", "zeroed"],
)
def test_broken_files_are_unreadable_by_name(tmp_path, content, cause):
    path = tmp_path / "image1.png"
    path.write_bytes(content)
    for read in (read_image, lambda file: read_square(file, 8)):
        with pytest.raises(UnreadableImage, match=cause) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert isinstance(caught.value, OSError)


@pytest.mark.parametrize("times", [1.5, 10])
def test_decompression_bombs_are_unreadable(tmp_path, monkeypatch, times):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(RAMP.size / times))
    path = saved(tmp_path, RAMP)
    with warnings.catch_warnings(), pytest.raises(UnreadableImage, match=r"bomb.*pixels"):
        # As outside of tests, where Pillow's warning below twice its limit is only a warning.
        warnings.simplefilter("ignore")
        read_image(path)
    with pytest.raises(UnreadableImage, match="bomb"):
        read_image(path)


def test_pillows_limit_may_be_lifted(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_image(saved(tmp_path, RAMP)).shape == RAMP.shape


def test_folders_and_missing_files(tmp_path):
    with pytest.raises(UnreadableImage, match="it is a folder"):
        read_image(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "gone.png")


def test_pad_keeps_the_ratio(tmp_path):
    wide = saved(tmp_path, np.full((2, 4), 9, dtype=np.uint8), "wide.png")
    assert read_square(wide, 4).tolist() == [[0] * 4, [9] * 4, [9] * 4, [0] * 4]
    high = saved(tmp_path, np.full((4, 2), 9, dtype=np.uint8), "high.png")
    assert read_square(high, 4, "pad").tolist() == [[0, 9, 9, 0]] * 4
    # 3 x 1 in 4: height round(4 / 3) = 1, one row of black above and two below.
    flat = saved(tmp_path, np.full((1, 3), 9, dtype=np.uint8), "flat.png")
    assert read_square(flat, 4).tolist() == [[0] * 4, [9] * 4, [0] * 4, [0] * 4]
    thread = saved(tmp_path, np.full((1, 100), 9, dtype=np.uint8), "thread.png")
    assert np.count_nonzero(read_square(thread, 8)) == 8


def test_squash_fills_the_square(tmp_path):
    path = saved(tmp_path, np.array([[0, 0, 80, 80]], dtype=np.uint8))
    # Two output columns: the triangle of width 2 around 1.0 weighs the inputs 0.5, 1.5, 2.5 by 3/4, 3/4, 1/4.
    triangle = [1 - abs(x - 1) / 2 for x in (0.5, 1.5, 2.5)]
    low = round(80 * triangle[2] / sum(triangle))
    assert read_square(path, 2, "squash").tolist() == [[low, 80 - low]] * 2


def test_a_square_of_its_own_size_is_untouched(tmp_path):
    square = np.arange(16, dtype=np.uint8).reshape(4, 4)
    path = saved(tmp_path, square)
    for resize in ("pad", "squash"):
        np.testing.assert_array_equal(read_square(path, 4, resize), square)


def test_unknown_resize_and_size(tmp_path):
    path = saved(tmp_path, RAMP)
    with pytest.raises(ValueError, match=r"resize='crop'.*'pad' or 'squash'"):
        read_square(path, 4, "crop")
    with pytest.raises(ValueError, match="size=0"):
        read_square(path, 0)


@pytest.mark.real_data
def test_real_radiographs(real_data):
    paths = sorted((real_data / "nih_cxr" / "valid").rglob("image*.png"))[:20]
    for path in paths:
        with Image.open(path) as image:
            size = image.size
        image = read_image(path)
        assert image.shape == size[::-1] and image.std() > 10
        assert read_square(path, 64).shape == (64, 64)
