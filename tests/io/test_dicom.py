"""DICOM radiographs are shown as their headers say, and their headers say whose they are."""

import os
import shutil
import sys
import zipfile

import numpy as np
import pandas as pd
import pydicom
import pytest
from helpers import quick_classifier
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from murakit import UnreadableImage, check_mura, load_radiographs, read_image, read_square
from murakit.cache import ImageStore
from murakit.datasets._paths import as_paths
from murakit.datasets._samples import expand
from murakit.evaluation._shortcuts import audit_shortcuts
from murakit.io._images import read_header

RAMP = (np.arange(64, dtype=np.uint16) * 50 + 100).reshape(8, 8)  # 100 ... 3250
# JPEG 2000 makes six resolutions of an image.
LARGE = np.kron(RAMP, np.ones((16, 16), dtype=np.uint16))


def dataset(pixels=RAMP, photometric="MONOCHROME2", bits=12, **tags):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID = "1.2.3.4"
    ds.PatientID, ds.StudyInstanceUID, ds.BodyPartExamined, ds.Modality = "007", "1.2.3", "HAND", "DX"
    ds.set_pixel_data(pixels, photometric, bits)
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    return ds


def saved(tmp_path, ds, name="a.dcm"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    # The store's own class identifier is not what is tested.
    ds.save_as(path, enforce_file_format=True)
    return path


def written(tmp_path, pixels=RAMP, photometric="MONOCHROME2", bits=12, name="a.dcm", **tags):
    return saved(tmp_path, dataset(pixels, photometric, bits, **tags), name)


def scaled(values, low, high):
    """What lies between low and high as 0 to 255."""
    return np.round((np.clip(np.asarray(values, dtype=np.float64), low, high) - low) * 255 / (high - low))


def table(first, depth, data):
    """A lookup table as an item of a sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(data), first, depth])
    data = np.asarray(data, dtype="<u2")
    # US holds no more than 64 KiB.
    item.add_new("LUTData", *(("US", data.tolist()) if len(data) < 2**15 else ("OW", data.tobytes())))
    return Sequence([item])


# -- real radiographs ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["UNCR", "UNCI", "J2KR", "J2KI"])
@pytest.mark.parametrize("film", ["RG1", "RG3"])
def test_real_radiographs_are_what_pydicoms_pipeline_makes_of_them(film, kind):
    path = get_testdata_file(f"{film}_{kind}.dcm", download=False)
    ds = pydicom.dcmread(path)
    values = apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds)
    most = 2**ds.BitsStored - 1
    if ds.PhotometricInterpretation == "MONOCHROME1":
        values = most - values
    image = read_image(path)
    np.testing.assert_array_equal(image, np.round(values * 255 / most))
    assert image.shape == (ds.Rows, ds.Columns) and image.std() > 10
    assert read_square(path, 64).shape == (64, 64)


@pytest.mark.parametrize("name", ["vlut_04.dcm", "mlut_18.dcm"])
def test_real_lookup_tables(name):
    path = get_testdata_file(name, download=False)
    ds = pydicom.dcmread(path)
    values = apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds)
    if "VOILUTSequence" in ds:
        low, high = 0, 2 ** ds.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif "WindowCenter" in ds:
        low, high = 0, 2 ** ds.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    else:
        low, high = values.min(), values.max()
    np.testing.assert_array_equal(read_image(path), np.round((values - low) * 255.0 / (high - low)))


# -- from stored values to 8 bits -----------------------------------------------------------------


def test_without_a_window_the_own_range_counts_as_in_a_16_bit_png(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(written(tmp_path)), read_image(tmp_path / "a.png"))


def test_a_window_is_applied(tmp_path):
    # LINEAR, PS3.3 C.11.2.1.2.1: from 1000 - 0.5 - 499.5 to 1000 - 0.5 + 499.5.
    path = written(tmp_path, WindowCenter=1000, WindowWidth=1000)
    np.testing.assert_array_equal(read_image(path), scaled(RAMP, 500, 1499))
    path = written(tmp_path, WindowCenter=1000, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT")
    np.testing.assert_array_equal(read_image(path), scaled(RAMP, 500, 1500))
    path = written(tmp_path, WindowCenter=1000, WindowWidth=1000, VOILUTFunction="SIGMOID")
    expected = 255 / (1 + np.exp(-4 * (RAMP - 1000.0) / 1000))
    np.testing.assert_array_equal(read_image(path), np.round(expected))


def test_the_first_of_several_windows_is_applied(tmp_path):
    path = written(tmp_path, WindowCenter=[1000, 5], WindowWidth=[1000, 5])
    np.testing.assert_array_equal(read_image(path), scaled(RAMP, 500, 1499))


def test_a_window_applies_to_rescaled_values(tmp_path):
    path = written(tmp_path, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=1000, WindowWidth=1000)
    np.testing.assert_array_equal(read_image(path), scaled(RAMP * 2.0 - 100, 500, 1499))


def test_a_negative_slope_turns_the_image(tmp_path):
    path = written(tmp_path, RescaleSlope=-1, RescaleIntercept=4095)
    np.testing.assert_array_equal(read_image(path), scaled(4095.0 - RAMP, 4095 - 3250, 4095 - 100))
    path = written(
        tmp_path,
        RescaleSlope=-1,
        RescaleIntercept=4095,
        WindowCenter=2000,
        WindowWidth=1001,
        VOILUTFunction="LINEAR",
    )
    np.testing.assert_array_equal(read_image(path), scaled(4095.0 - RAMP, 1999.5 - 500, 1999.5 + 500))


@pytest.mark.parametrize("depth", [8, 10, 12, 16])
def test_a_voi_lut_goes_before_a_window(tmp_path, depth):
    # With 8 bits out of 12 in, pydicom's own apply_voi wraps entries above 255.
    data = np.linspace(0, 2**depth - 1, 2001).round()
    path = written(tmp_path, VOILUTSequence=table(500, depth, data), WindowCenter=1, WindowWidth=2)
    expected = scaled(data[np.clip(RAMP.astype(int) - 500, 0, 2000)], 0, 2**depth - 1)
    np.testing.assert_array_equal(read_image(path), expected)


def test_a_voi_lut_after_a_rescale(tmp_path):
    data = np.arange(4096)[::-1]
    path = written(tmp_path, RescaleSlope=1, RescaleIntercept=0, VOILUTSequence=table(0, 12, data))
    np.testing.assert_array_equal(read_image(path), scaled(4095 - RAMP.astype(int), 0, 4095))


@pytest.mark.parametrize("depth", [8, 12, 16])
def test_a_modality_lut(tmp_path, depth):
    data = (np.linspace(0, 1, 4096) ** 2 * (2**depth - 1)).round()
    path = written(tmp_path, ModalityLUTSequence=table(0, depth, data))
    seen = data[RAMP]
    np.testing.assert_array_equal(read_image(path), scaled(seen, seen.min(), seen.max()))


def test_only_stored_bits_count(tmp_path):
    ds = dataset()
    # Old overlays lie in the upper four bits.
    ds.PixelData = (RAMP | 0xF000).tobytes()
    np.testing.assert_array_equal(
        read_image(saved(tmp_path, ds)), read_image(written(tmp_path, name="b.dcm"))
    )


def test_8_bits_without_a_window_are_scaled(tmp_path):
    pixels = np.array([[10, 20], [30, 60]], dtype=np.uint8)
    assert read_image(written(tmp_path, pixels, bits=8)).tolist() == [[0, 51], [102, 255]]


def test_signed_values(tmp_path):
    pixels = np.array([[-2048, -1000], [0, 2047]], dtype=np.int16)
    path = written(tmp_path, pixels, WindowCenter=0, WindowWidth=4096)
    np.testing.assert_array_equal(read_image(path), scaled(pixels, -2048, 2047))
    extreme = np.array([[-32768, 0], [1, 32767]], dtype=np.int16)
    path = written(tmp_path, extreme, bits=16)
    np.testing.assert_array_equal(read_image(path), scaled(extreme, -32768, 32767))


def test_32_bits(tmp_path):
    pixels = np.array([[0, 10_000_000], [20_000_000, 40_000_000]], dtype=np.uint32)
    ds = dataset(np.zeros((2, 2), dtype=np.uint16), BitsAllocated=32, BitsStored=32, HighBit=31)
    ds["PixelData"].VR, ds.PixelData = "OW", pixels.tobytes()
    assert read_image(saved(tmp_path, ds)).tolist() == [[0, 64], [128, 255]]


def test_one_value_is_black(tmp_path):
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        path = written(tmp_path, np.full((4, 4), 7, dtype=np.uint16), photometric)
        assert not read_image(path).any()


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("windowed", ["no", "linear", "exact", "rescaled", "table"])
def test_a_monochrome1_copy_has_the_same_pixels(tmp_path, bits, windowed):
    most = 2**bits - 1
    pixels = np.random.default_rng(0).integers(0, most + 1, (300, 300), dtype=np.uint16)
    one, two = {}, {}
    if windowed == "linear":
        # The same window of 4 bits less, from the other end.
        one = {"WindowCenter": 2 ** (bits - 1) + 9, "WindowWidth": 2 ** (bits - 2)}
        two = {"WindowCenter": most + 1 - one["WindowCenter"], "WindowWidth": one["WindowWidth"]}
    elif windowed == "exact":
        one = {"WindowCenter": 300, "WindowWidth": 255, "VOILUTFunction": "LINEAR_EXACT"}
        two = one | {"WindowCenter": most - 300}
    elif windowed == "rescaled":
        one = two = {"RescaleSlope": 0.1, "RescaleIntercept": 7.3}
    elif windowed == "table":
        data = (np.linspace(0, 1, most + 1) ** 2 * most).round().astype(int)
        one = {"VOILUTSequence": table(0, bits, data[:65535])}
        two = {"VOILUTSequence": table(most + 1 - len(data[:65535]), bits, most - data[:65535][::-1])}
    first = written(tmp_path, pixels, "MONOCHROME1", bits, "one.dcm", **one)
    second = written(tmp_path, most - pixels, "MONOCHROME2", bits, "two.dcm", **two)
    np.testing.assert_array_equal(read_image(first), read_image(second))
    np.testing.assert_array_equal(read_square(first, 64), read_square(second, 64))


def test_padding_is_black_and_does_not_count(tmp_path):
    pixels = RAMP.copy()
    pixels[:, 0] = 4095
    pixels[0] = 4000
    ranged = {"PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 4000}
    for photometric, light in (("MONOCHROME2", lambda a: a), ("MONOCHROME1", lambda a: -a)):
        image = read_image(written(tmp_path, pixels, photometric, **ranged))
        assert not image[0].any() and not image[:, 0].any()
        rest = light(RAMP[1:, 1:].astype(int))
        np.testing.assert_array_equal(image[1:, 1:], scaled(rest, rest.min(), rest.max()))
    image = read_image(written(tmp_path, pixels, PixelPaddingValue=4095))
    assert not image[1:, 0].any() and (image[0] == 255).all()


def test_signed_padding_where_the_file_does_not_say_the_type(tmp_path):
    pixels = np.array([[-2000, 0], [100, 255]], dtype=np.int16)
    ds = dataset(pixels, PixelPaddingValue=-2000)
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    assert read_image(saved(tmp_path, ds)).tolist() == [[0, 0], [100, 255]]


def test_only_padding_is_black(tmp_path):
    assert not read_image(written(tmp_path, np.full((4, 4), 9, np.uint16), PixelPaddingValue=9)).any()


def test_8_bit_colour_becomes_luminance(tmp_path):
    colour = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=np.uint8)
    # ITU-R 601, as of every other file.
    assert read_image(written(tmp_path, colour, "RGB", 8)).tolist() == [[76, 150, 29]]


def test_colour_spaces_of_one_image_look_the_same():
    rgb, ybr = (
        read_image(get_testdata_file(name, download=False))
        for name in ("SC_rgb_expb.dcm", "SC_ybr_full_uncompressed.dcm")
    )
    assert rgb.std() > 10
    np.testing.assert_allclose(rgb.astype(int), ybr.astype(int), atol=2)


# -- transfer syntaxes ----------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless], ids=lambda uid: uid.keyword)
def test_compressed_files_have_the_pixels_of_plain_ones(tmp_path, syntax):
    plain = dataset(LARGE, WindowCenter=1000, WindowWidth=1000)
    compressed = dataset(LARGE, WindowCenter=1000, WindowWidth=1000)
    compressed.compress(syntax, generate_instance_uid=False)
    a, b = saved(tmp_path, plain, "plain.dcm"), saved(tmp_path, compressed, "packed.dcm")
    np.testing.assert_array_equal(read_image(a), read_image(b))


def test_lossless_jpeg():
    path = get_testdata_file("JPGLosslessP14SV1_1s_1f_8b.dcm", download=False)
    ds = pydicom.dcmread(path)
    values = apply_voi_lut(ds.pixel_array, ds)
    assert np.abs(read_image(path).astype(int) - scaled(values, values.min(), values.max())).max() <= 1


def test_big_endian(tmp_path):
    ds = dataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds.PixelData = RAMP.astype(">u2").tobytes()
    path = tmp_path / "big.dcm"
    ds.save_as(path, little_endian=False, implicit_vr=False, enforce_file_format=True)
    np.testing.assert_array_equal(read_image(path), read_image(written(tmp_path)))


def test_a_missing_decoder_names_the_extra(tmp_path, monkeypatch):
    path = get_testdata_file("RG3_J2KI.dcm", download=False)
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", property(lambda self: False))
    with pytest.raises(ImportError, match=r"JPEG 2000 .*pip install 'murakit\[dicom\]'"):
        read_image(path)


def test_a_missing_pydicom_names_the_extra(tmp_path, monkeypatch):
    path = written(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "pydicom"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    for read in (read_image, lambda file: load_radiographs(file.parent)):
        with pytest.raises(ImportError, match=r"pip install 'murakit\[dicom\]'"):
            read(path)


# -- which files are DICOM -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.dcm", "A.DCM", "a.dicom", "IM000001", "1.2.840.113619.2.5"])
def test_files_are_known_by_name_or_preamble(tmp_path, name):
    path = written(tmp_path, name=name)
    expected = read_image(written(tmp_path, name="other.dcm"))
    np.testing.assert_array_equal(read_image(path), expected)
    np.testing.assert_array_equal(read_image(str(path)), expected)
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        archive.write(path, name)
    np.testing.assert_array_equal(read_image(f"{tmp_path}/films.zip!{name}"), expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"PixelData": RAMP.tobytes()[:60]}, "number of bytes"),
        ({"NumberOfFrames": 3}, "it holds 3 frames"),
        (
            {"PhotometricInterpretation": "PALETTE COLOR"},
            "PALETTE COLOR, are not read: write it as MONOCHROME2",
        ),
        ({"HighBit": 15}, "High Bit, 15, is not Bits Stored - 1 = 11"),
        ({"WindowCenter": 5, "WindowWidth": 5, "VOILUTFunction": "CUBIC"}, "VOI LUT Function is 'CUBIC'"),
        ({"RescaleSlope": 0, "RescaleIntercept": 5}, "Rescale Slope is 0"),
        ({"BitsStored": None}, "does not state BitsStored"),
        ({"PixelAspectRatio": [1, 50]}, "0.02 times as high as wide"),
        ({"PixelData": None}, "no pixels .modality DX"),
        ({"Rows": 60_000, "Columns": 60_000}, "decompression bomb"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "3 samples of 16 bits, are not read"),
    ],
)
def test_what_cannot_be_shown_is_unreadable_by_name(tmp_path, change, words):
    ds = dataset()
    for keyword, value in change.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    path = saved(tmp_path, ds)
    with pytest.raises(
        UnreadableImage, match=rf"a\.dcm' cannot be read as an image: .*{words}.*Replace the file"
    ):
        read_image(path)


def test_a_real_file_of_several_frames_is_refused():
    with pytest.raises(UnreadableImage, match="it holds 10 frames; a radiograph has one"):
        read_image(get_testdata_file("emri_small_jpeg_ls_lossless.dcm", download=False))


def test_broken_files_are_unreadable_by_name(tmp_path):
    whole = written(tmp_path).read_bytes()
    compressed = dataset(LARGE)
    compressed.compress(JPEG2000Lossless, generate_instance_uid=False)
    packed = saved(tmp_path, compressed, "packed.dcm").read_bytes()
    for content in (b"", b"no image", whole[:100], whole[:200], whole[:-50], packed[:-80]):
        path = tmp_path / "broken.dcm"
        path.write_bytes(content)
        with pytest.raises(UnreadableImage, match=r"broken\.dcm' cannot be read as an image"):
            read_image(path)


# -- in data sets ----------------------------------------------------------------------------------


def test_study_folders_stores_checks_and_headers_take_dicom(tmp_path):
    study = "MURA/train/XR_HAND/patient00001/study1_positive"
    for number in (2, 1, 10):
        written(tmp_path, RAMP + np.uint16(number), name=f"{study}/image{number}.dcm")
    images, _ = expand(as_paths([tmp_path / study]))
    assert [path.rpartition("/")[2] for path in images] == ["image1.dcm", "image2.dcm", "image10.dcm"]
    rows = ImageStore(image_size=8).open(images)
    np.testing.assert_array_equal(rows[:].numpy()[0, 0], read_image(images[0]))
    assert read_header(images[0]) == (8, 8, "MONOCHROME2")
    (tmp_path / study / "image3.dcm").write_bytes(b"junk")
    problems = check_mura(tmp_path / "MURA", verbose=0)
    assert problems["problem"].tolist() == ["unreadable image"]


@pytest.fixture
def export(tmp_path):
    """A folder as a PACS exports it: twelve patients, other files beside the radiographs."""
    folder = tmp_path / "export"
    rng = np.random.default_rng(0)
    for number in range(12):
        pixels = rng.integers(0, 2000 + 2000 * (number % 2), (16, 16), dtype=np.uint16)
        tags = {"PatientID": f"{number:03d}", "StudyInstanceUID": f"1.2.{number}"}
        written(folder, pixels, name=f"{number}/IM1" if number == 3 else f"{number}/1.dcm", **tags)
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (folder / "notes.txt").write_text("by hand")
    (folder / ".hidden.dcm").write_bytes(b"junk")
    return folder


def test_other_files_that_cannot_be_read_are_passed_over(export):
    expected = load_radiographs(export).data.tolist()
    (export / "gone").symlink_to(export / "nowhere")
    assert load_radiographs(export).data.tolist() == expected
    (export / "gone").unlink()
    with zipfile.ZipFile(f"{export}.zip", "w") as archive:
        for path in expected:
            archive.write(path, os.path.relpath(path, export))
        archive.writestr("notes.txt", "by hand", zipfile.ZIP_BZIP2)
    assert len(load_radiographs(f"{export}.zip").data) == len(expected)


def test_a_folder_says_patients_studies_and_regions(export):
    films = load_radiographs(export)
    names = [f"{number}/{'IM1' if number == 3 else '1.dcm'}" for number in range(12)]
    assert films.data.tolist() == [f"{export}/{name}" for name in names]
    assert films.patients.tolist() == [f"{number:03d}" for number in range(12)]
    assert films.studies.tolist() == [f"1.2.{number}" for number in range(12)]
    assert set(films.regions) == {"hand"}
    assert films.target is None and films.target_names == [] and films.frame["target"].isna().all()
    about = ["sex", "age", "view_position", "laterality", "manufacturer", "station", "date"]
    assert list(films.frame.columns) == ["path", "region", "patient", "study", "target", "image", *about]
    assert films.problems.empty and "12 samples, 12 studies, 12 patients" in films.DESCR
    assert "unlabelled" in films.DESCR


def test_labels_of_a_folder_are_by_file_or_study(export):
    by_study = {f"1.2.{number}": number % 2 for number in range(12)}
    expected = [number % 2 for number in range(12)]
    assert load_radiographs(export, label=by_study).target.tolist() == expected
    assert load_radiographs(export, label=pd.Series(by_study)).target.tolist() == expected
    by_file = {f"{n}/{'IM1' if n == 3 else '1.dcm'}": "yes" if n % 2 else "no" for n in range(12)}
    films = load_radiographs(export, label=by_file)
    assert films.target.tolist() == ["yes" if n % 2 else "no" for n in range(12)]
    assert films.target_names == ["no", "yes"]
    absolute = {export / name: label for name, label in by_file.items()}
    assert load_radiographs(export, label=absolute).target.tolist() == films.target.tolist()


def test_a_folder_is_trained_on_by_patient(export):
    films = load_radiographs(export, label={f"1.2.{number}": number % 2 for number in range(12)})
    clf = quick_classifier().fit(films.data, films.target, groups=films.patients)
    assert clf.predict_proba(films.data).shape == (12, 2)
    assert not set(clf.train_patients_) & set(clf.validation_patients_)
    given = {"patients": films.patients, "studies": films.studies}
    audit = audit_shortcuts(films.data, films.target, **given, n_splits=2, n_resamples=20)
    assert (audit.properties["width"] == 16).all() and audit.properties["n_bytes"].min() > 512


def test_an_archive_is_a_folder(export):
    shutil.make_archive(str(export), "zip", export)
    packed, plain = load_radiographs(f"{export}.zip"), load_radiographs(export)
    assert packed.data.tolist() == [f"{export}.zip!{path.removeprefix(f'{export}/')}" for path in plain.data]
    pd.testing.assert_frame_equal(packed.frame.drop(columns="path"), plain.frame.drop(columns="path"))
    films = load_radiographs(f"{export}.zip", label={f"1.2.{number}": 1 for number in range(12)})
    assert films.target.tolist() == [1] * 12
    np.testing.assert_array_equal(read_image(packed.data[3]), read_image(plain.data[3]))


def test_files_without_pixels_are_told(export):
    report = dataset(Modality="SR")
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(report, keyword)
    path = saved(export, report, "12/report.dcm")
    with pytest.warns(UserWarning, match="passed over 1 DICOM files without pixels"):
        films = load_radiographs(export)
    assert len(films.data) == 12
    assert films.problems.values.tolist() == [[str(path), "no pixels", "modality SR"]]


def test_a_radiograph_that_was_cut_short_is_told_from_files_that_have_no_pixels(export):
    film = dataset()
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(film, keyword)
    path = saved(export, film, "12/film.dcm")
    with pytest.warns(UserWarning, match="see the Bunch's `problems`"):
        films = load_radiographs(export)
    assert films.problems.detail.tolist() == ["modality DX: the file is damaged, fetch it anew"]
    assert films.problems.path.tolist() == [str(path)]


def test_a_link_to_a_folder_above_is_followed_once(export):
    (export / "0" / "up").symlink_to(export)
    assert len(load_radiographs(export).data) == 12


def test_headers_that_do_not_say_it(export):
    written(export, name="0/2.dcm", StudyInstanceUID="", BodyPartExamined="", PatientID="0")
    films = load_radiographs(export)
    assert films.regions[1] == "unknown" and films.studies[1] == f"{export}/0/2.dcm"
    written(export, name="0/2.dcm", PatientID=" ")
    with pytest.raises(ValueError, match=r"0/2\.dcm' has no PatientID .*Fill it in"):
        load_radiographs(export)
    (export / "0/2.dcm").write_bytes(b"junk")
    with pytest.raises(UnreadableImage, match=r"0/2\.dcm"):
        load_radiographs(export)


def test_a_study_of_two_patients_is_refused(export):
    written(export, name="0/2.dcm", PatientID="other", StudyInstanceUID="1.2.0")
    with pytest.raises(ValueError, match=r"study '1\.2\.0' has two patients"):
        load_radiographs(export)


def test_bad_labels_of_a_folder_are_named(export):
    labels = {f"1.2.{number}": number % 2 for number in range(12)}
    with pytest.raises(ValueError, match=r"neither the file '3/IM1' nor its study '1\.2\.3'"):
        load_radiographs(export, label={key: value for key, value in labels.items() if key != "1.2.3"})
    with pytest.raises(ValueError, match=r"1 keys .*'1\.2\.99'"):
        load_radiographs(export, label=labels | {"1.2.99": 1})
    with pytest.raises(ValueError, match="no label"):
        load_radiographs(export, label=labels | {"1.2.3": None})
    with pytest.raises(ValueError, match="'a' twice"):
        load_radiographs(export, label=pd.Series([0, 1], index=["a", "a"]))
    with pytest.raises(TypeError, match=r"got str.*set_index"):
        load_radiographs(export, label="fracture")
    with pytest.raises(ValueError, match=r"path=, patient=: for a table"):
        load_radiographs(export, path="file", patient="who")
    with pytest.raises(ValueError, match="holds no DICOM"):
        load_radiographs(
            shutil.copytree(export, export.parent / "none", ignore=shutil.ignore_patterns("*1*"))
        )


def test_a_table_of_dicom_needs_no_patients(export):
    table = pd.DataFrame({"file": ["3/IM1", "0/1.dcm", "5"], "fracture": [1, 0, 1]})
    films = load_radiographs(table, path="file", label="fracture", root=export)
    assert films.patients.tolist() == ["003", "000", "005"]
    assert films.studies.tolist() == ["1.2.3", "1.2.0", "1.2.5"]
    assert films.regions.tolist() == ["hand"] * 3 and films.target.tolist() == [1, 0, 1]
    table["who"], table["part"] = ["a", "b", "c"], "wrist"
    films = load_radiographs(table, path="file", label="fracture", patient="who", region="part", root=export)
    assert films.patients.tolist() == ["a", "b", "c"] and set(films.regions) == {"wrist"}
    assert films.studies.tolist() == ["1.2.3", "1.2.0", "1.2.5"]


def test_a_table_of_other_files_needs_patients(export):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(export / "a.png")
    table = pd.DataFrame({"file": ["0/1.dcm", "a.png"], "fracture": [0, 1]})
    with pytest.raises(ValueError, match=r"row 1 .*a\.png', which is not DICOM.*Pass patient="):
        load_radiographs(table, path="file", label="fracture", root=export)
    with pytest.raises(ValueError, match="path=None"):
        load_radiographs(table, label="fracture", patient="file")
    unlabelled = load_radiographs(table, path="file", patient="fracture", root=export)
    assert unlabelled.target is None and unlabelled.target_names == []


def test_a_listed_folder_of_two_patients_is_refused(export):
    written(export, name="0/2.dcm", PatientID="other")
    table = pd.DataFrame({"file": ["0"], "fracture": [0]})
    with pytest.raises(ValueError, match=r"holds two patients, '000' .* and 'other'"):
        load_radiographs(table, path="file", label="fracture", root=export)
