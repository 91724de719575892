"""DICOM as vendors write it: headers that contradict themselves, files without a beginning, damaged streams."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pydicom
import pytest
from helpers import encoded, film
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from murakit import UnreadableImage, load_radiographs, read_image, read_square

RAMP = (np.arange(96, dtype=np.uint16) * 40 + 100).reshape(8, 12)  # 100 ... 3900

FILM = film()


def dataset(pixels=RAMP, bits=12, photometric="MONOCHROME2", **tags):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = DigitalXRayImageStorageForPresentation, "1.2.3.4"
    ds.PatientID, ds.StudyInstanceUID, ds.BodyPartExamined, ds.Modality = "7", "1.2.3", "HAND", "DX"
    ds.set_pixel_data(pixels, photometric, bits)
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    return ds


def saved(tmp_path, ds, name="a.dcm"):
    ds.save_as(tmp_path / name, enforce_file_format=True)
    return tmp_path / name


def written(tmp_path, pixels=RAMP, bits=12, name="a.dcm", **tags):
    return saved(tmp_path, dataset(pixels, bits, **tags), name)


def scaled(values, low, high):
    return np.round((np.clip(np.asarray(values, dtype=np.float64), low, high) - low) * 255 / (high - low))


def table(n_entries, first, depth, vr, data):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [n_entries % 2**16, first, depth])
    item.add_new("LUTData", vr, data)
    return Sequence([item])


OWN = scaled(RAMP, RAMP.min(), RAMP.max())


# -- lookup tables ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stated", [8, 10, 16])
def test_a_table_counts_by_its_entries_where_it_states_another_depth(tmp_path, stated):
    entries = np.arange(4096)[::-1]
    for vr, data in (("US", entries.tolist()), ("OW", entries.astype("<u2").tobytes())):
        path = written(tmp_path, VOILUTSequence=table(4096, 0, stated, vr, data))
        np.testing.assert_array_equal(read_image(path), scaled(4095 - RAMP.astype(int), 0, 4095))


@pytest.mark.parametrize("kind", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("vr", ["OW", "US"])
def test_8_bit_entries_may_lie_two_in_a_word(tmp_path, kind, vr):
    entries = np.round(np.linspace(0, 1, 4096) ** 2 * 255).astype(np.uint8)
    data = entries.tobytes() if vr == "OW" else entries.view("<u2").tolist()
    seen = entries[RAMP].astype(int)
    ends = (0, 255) if kind == "VOILUTSequence" else (seen.min(), seen.max())
    path = written(tmp_path, **{kind: table(4096, 0, 8, vr, data)})
    np.testing.assert_array_equal(read_image(path), scaled(seen, *ends))


def test_packed_entries_of_big_endian_files(tmp_path):
    entries = np.arange(4096) // 16
    packed = table(4096, 0, 8, "OW", entries.astype(np.uint8).view("<u2").astype(">u2").tobytes())
    ds = dataset(VOILUTSequence=packed)
    ds.file_meta.TransferSyntaxUID, ds.PixelData = ExplicitVRBigEndian, RAMP.astype(">u2").tobytes()
    ds.save_as(tmp_path / "a.dcm", little_endian=False, implicit_vr=False, enforce_file_format=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a.dcm"), entries[RAMP])


def test_a_table_of_all_values_and_one_that_is_too_short(tmp_path):
    pixels = np.array([[0, 30000], [50000, 65535]], dtype=np.uint16)
    entries = np.arange(2**16, dtype="<u2")[::-1]
    path = written(tmp_path, pixels, 16, VOILUTSequence=table(2**16, 0, 16, "OW", entries.tobytes()))
    np.testing.assert_array_equal(read_image(path), scaled(65535 - pixels.astype(int), 0, 65535))
    path = written(tmp_path, VOILUTSequence=table(4096, 0, 16, "OW", bytes(100)))
    with pytest.raises(UnreadableImage, match="holds 100 bytes for 4096 entries"):
        read_image(path)


def test_the_first_value_of_a_table_of_signed_pixels_may_be_written_unsigned(tmp_path):
    pixels = (RAMP.astype(np.int16) - 2000).astype(np.int16)
    path = written(tmp_path, pixels, VOILUTSequence=table(4096, 2**16 - 2048, 12, "US", list(range(4096))))
    np.testing.assert_array_equal(read_image(path), scaled(pixels + 2048, 0, 4095))


def test_an_empty_table_is_none(tmp_path):
    item = Dataset()
    item.LUTExplanation = "normal"
    for content in (Sequence([]), Sequence([item])):
        path = written(tmp_path, VOILUTSequence=content, ModalityLUTSequence=content)
        np.testing.assert_array_equal(read_image(path), OWN)


# -- windows and rescale ------------------------------------------------------------------------------


def test_an_empty_function_is_linear(tmp_path):
    tags = {"WindowCenter": 2000, "WindowWidth": 1000}
    expected = read_image(written(tmp_path, **tags))
    np.testing.assert_array_equal(expected, scaled(RAMP, 1500, 2499))
    for function in ("", " "):
        ds = dataset(**tags)
        ds.add_new("VOILUTFunction", "CS", function)
        np.testing.assert_array_equal(read_image(saved(tmp_path, ds)), expected)


@pytest.mark.parametrize(
    "window", [(2000, 0), (2000, -5), (0.5, 0.5), ("", ""), (2000, ""), ("", 100), (2000, None)]
)
def test_a_window_that_cannot_be_is_none(tmp_path, window):
    ds = dataset()
    for keyword, value in zip(("WindowCenter", "WindowWidth"), window):
        ds.add_new(keyword, "DS", value)
    np.testing.assert_array_equal(read_image(saved(tmp_path, ds)), OWN)
    for function in ("LINEAR_EXACT", "SIGMOID"):
        if window[1] == 0:
            ds.VOILUTFunction = function
            np.testing.assert_array_equal(read_image(saved(tmp_path, ds)), OWN)


def test_a_window_of_width_1_is_a_threshold(tmp_path):
    # PS3.3 C.11.2.1.2.1: dark up to the centre - 0.5, bright above.
    path = written(tmp_path, WindowCenter=2000.5, WindowWidth=1)
    np.testing.assert_array_equal(read_image(path), np.where(RAMP > 2000, 255, 0))


def test_a_narrow_exact_window_of_small_rescaled_values(tmp_path):
    path = written(
        tmp_path,
        RescaleSlope="0.0002",
        RescaleIntercept="0",
        WindowCenter="0.4",
        WindowWidth="0.5",
        VOILUTFunction="LINEAR_EXACT",
    )
    assert np.abs(read_image(path) - scaled(RAMP * 0.0002, 0.15, 0.65)).max() <= 1


@pytest.mark.parametrize("slope", ["", None])
@pytest.mark.parametrize("intercept", ["", None, "-500"])
def test_an_empty_rescale_changes_nothing_that_is_seen(tmp_path, slope, intercept):
    ds = dataset(WindowCenter=2000, WindowWidth=1000)
    for keyword, value in (("RescaleSlope", slope), ("RescaleIntercept", intercept)):
        if value is not None:
            ds.add_new(keyword, "DS", value)
    offset = int(intercept or 0)
    np.testing.assert_array_equal(
        read_image(saved(tmp_path, ds)), scaled(RAMP.astype(int) + offset, 1500, 2499)
    )


def test_values_of_a_wide_range_are_scaled_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("murakit.io._gray._PIECE", 7)
    pixels = np.arange(60, dtype=np.uint32).reshape(6, 10) * 70_000
    ds = dataset(np.zeros((6, 10), np.uint16), BitsAllocated=32, BitsStored=32, HighBit=31)
    ds["PixelData"].VR, ds.PixelData = "OW", pixels.tobytes()
    np.testing.assert_array_equal(read_image(saved(tmp_path, ds)), scaled(pixels, 0, pixels.max()))


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small.dcm", "RG1_UNCI.dcm", "RG3_UNCR.dcm", "mlut_18.dcm"]
)
def test_pieces_do_not_change_what_pydicoms_pipeline_gives(monkeypatch, name):
    monkeypatch.setattr("murakit.io._gray._PIECE", 1000)
    path = get_testdata_file(name, download=False)
    ds = pydicom.dcmread(path)
    values = apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds).astype(float)
    if ds.PhotometricInterpretation == "MONOCHROME1":
        values = -values
    image = read_image(path).astype(float)
    assert np.corrcoef(values.ravel(), image.ravel())[0, 1] > 0.9999


# -- the beginning of a file ----------------------------------------------------------------------------


def bare(path, keep_meta=False):
    """Take the preamble off a file, and what group 2 says with it."""
    data = path.read_bytes()
    start = 132 if keep_meta else 144 + int.from_bytes(data[140:144], "little")
    path.write_bytes(data[start:])
    return path


@pytest.mark.parametrize("name", ["a.dcm", "IM1"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("keep_meta", [True, False])
def test_files_without_preamble_are_read(tmp_path, name, syntax, keep_meta):
    ds = dataset()
    ds.file_meta.TransferSyntaxUID = syntax
    path = bare(saved(tmp_path, ds, name), keep_meta)
    np.testing.assert_array_equal(read_image(path), OWN)
    films = load_radiographs(tmp_path)
    assert films.data.tolist() == [str(path)] and films.patients.tolist() == ["7"]


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_a_transfer_syntax_are_read(tmp_path, implicit):
    ds = dataset()
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    path = saved(tmp_path, ds)
    ds = pydicom.dcmread(path)
    del ds.file_meta.TransferSyntaxUID
    pydicom.dcmwrite(path, ds, implicit_vr=implicit, little_endian=True)
    np.testing.assert_array_equal(read_image(path), OWN)


def test_compressed_pixels_without_a_transfer_syntax_are_refused(tmp_path):
    ds = dataset()
    ds.compress(RLELossless, generate_instance_uid=False)
    path = bare(saved(tmp_path, ds))
    with pytest.raises(UnreadableImage, match="does not state how .Transfer Syntax UID"):
        read_image(path)


@pytest.mark.parametrize(
    "content", [b"MM\0*" + bytes(200), b'{"a": 1}' * 30, bytes(400), b"\x08\0\xff\xff" + b"\xff" * 300]
)
def test_other_files_are_no_dicom(tmp_path, content):
    (tmp_path / "notes").write_bytes(content)
    written(tmp_path)
    assert len(load_radiographs(tmp_path).data) == 1
    (tmp_path / "notes").rename(tmp_path / "notes.dcm")
    with pytest.raises(UnreadableImage, match="it is no DICOM file"):
        read_image(tmp_path / "notes.dcm")


def test_deflated_files_are_read(tmp_path):
    ds = dataset(VOILUTSequence=table(4096, 0, 12, "US", list(range(4096))))
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = saved(tmp_path, ds)
    np.testing.assert_array_equal(read_image(path), scaled(RAMP, 0, 4095))
    assert load_radiographs(tmp_path).regions.tolist() == ["hand"]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UnreadableImage, match="it is truncated"):
        read_image(path)


# -- pixels that are not square ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "shape"),
    [
        ({"PixelAspectRatio": [2, 1]}, (16, 12)),
        ({"PixelAspectRatio": [1, 2]}, (8, 24)),
        ({"PixelSpacing": [0.3, 0.2]}, (12, 12)),
        ({"ImagerPixelSpacing": [0.2, 0.4]}, (8, 24)),
        ({"NominalScannedPixelSpacing": [0.4, 0.2]}, (16, 12)),
        # The spacing in the patient counts before that of the detector, and both before the ratio.
        ({"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.4, 0.2], "PixelAspectRatio": [3, 1]}, (8, 12)),
        ({"PixelSpacing": [0.1432, 0.143]}, (8, 12)),
        ({"PixelSpacing": [0, 0.2], "PixelAspectRatio": [0, 0]}, (8, 12)),
        ({"PixelSpacing": ""}, (8, 12)),
    ],
    ids=str,
)
def test_pixels_become_square(tmp_path, tags, shape):
    path = written(tmp_path, **tags)
    expected = Image.fromarray(OWN.astype(np.uint8)).resize(shape[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(read_image(path), np.asarray(expected))


def test_a_square_film_of_high_pixels_fills_the_square(tmp_path):
    path = written(tmp_path, np.where(RAMP > 200, RAMP, 200)[:6], PixelAspectRatio=[2, 1], RescaleSlope=-1)
    assert (read_square(path, 12) > 0).any(axis=1).all()


# -- compressed streams --------------------------------------------------------------------------------------


def encapsulated(stream, shape, syntax, bits=8):
    ds = dataset(np.zeros(shape, np.uint8 if bits == 8 else np.uint16), bits)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return ds


def test_a_jpeg_in_dicom_that_lost_its_end_or_middle_is_found(tmp_path):
    stream = encoded(FILM, "JPEG")
    half = len(stream) // 2
    whole = saved(tmp_path, encapsulated(stream, FILM.shape, JPEGBaseline8Bit))
    pixels = np.asarray(Image.open(io.BytesIO(stream)))
    np.testing.assert_array_equal(read_image(whole), scaled(pixels, pixels.min(), pixels.max()))
    for broken in (stream[:half] + b"\xff\xd9", stream[:half] + stream[half + half // 4 :], stream[:half]):
        path = saved(tmp_path, encapsulated(broken, FILM.shape, JPEGBaseline8Bit))
        with pytest.raises(UnreadableImage, match="JPEG|end marker is missing"):
            read_image(path)


@pytest.mark.parametrize(
    "name", ["JPGLosslessP14SV1_1s_1f_8b.dcm", "RG3_J2KI.dcm", "RG1_J2KR.dcm", "JPEGLSNearLossless_16.dcm"]
)
def test_a_real_stream_that_lost_its_second_half_is_found(tmp_path, name):
    ds = pydicom.dcmread(get_testdata_file(name, download=False))
    assert read_image(ds.filename).std() > 10
    stream = get_frame(ds.PixelData, 0, number_of_frames=1)
    half = len(stream) // 4 * 2
    for broken in (stream[:half] + b"\xff\xd9", stream[:half], stream[:half] + bytes(len(stream) - half)):
        ds.PixelData = encapsulate([broken])
        with pytest.raises(UnreadableImage):
            read_image(saved(tmp_path, ds))


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless])
def test_a_stream_of_another_size_than_the_header_is_refused(tmp_path, syntax):
    large = np.kron(RAMP, np.ones((16, 16), dtype=np.uint16))
    if syntax == JPEG2000Lossless:
        ds = dataset(large)
        ds.compress(syntax, generate_instance_uid=False)
        stream = bytearray(ds.PixelData)
        at = stream.index(b"\xff\x4f\xff\x51")
        stream[at + 8 : at + 16] = stream[at + 24 : at + 32] = struct.pack(">II", 40_000, 30_000)
        ds.PixelData = bytes(stream)
        path = saved(tmp_path, ds)
        words = "40000 x 30000 in the compressed stream and 192 x 128 in the header"
    else:
        stream = encoded(np.zeros((3000, 2000), np.uint8), "JPEG")
        path, words = saved(tmp_path, encapsulated(stream, (20, 30), syntax)), "2000 x 3000 in the compressed"
    with pytest.raises(UnreadableImage, match=words):
        read_image(path)


def test_a_missing_decoder_of_12_bits_is_named():
    path = get_testdata_file("JPGExtended.dcm", download=False)
    with pytest.raises(
        ImportError, match="12 bits needs pylibjpeg-libjpeg, .*GPL: pip install pylibjpeg-libjpeg"
    ):
        read_image(path)


def test_a_decoder_that_panics_is_an_unreadable_image(tmp_path, monkeypatch):
    class PanicException(BaseException):
        """As extensions in Rust raise it."""

    def panic(self):
        raise PanicException("index out of bounds")

    path = written(tmp_path)
    monkeypatch.setattr(Dataset, "pixel_array", property(panic))
    with pytest.raises(UnreadableImage, match=r"a\.dcm' cannot be read .*index out of bounds"):
        read_image(path)

    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Dataset, "pixel_array", property(stop))
    with pytest.raises(KeyboardInterrupt):
        read_image(path)


def test_flipped_bits_of_rle_raise_nothing_else(tmp_path, capfd):
    ds = dataset(np.random.default_rng(0).integers(0, 4096, (60, 52)).astype(np.uint16))
    ds.compress(RLELossless, generate_instance_uid=False)
    data, rng = saved(tmp_path, ds).read_bytes(), np.random.default_rng(0)
    start = data.index(ds.PixelData[100:140])
    for _ in range(200):
        broken = bytearray(data)
        broken[int(rng.integers(start, len(data)))] ^= 1 << int(rng.integers(8))
        (tmp_path / "b.dcm").write_bytes(broken)
        with contextlib.suppress(UnreadableImage):
            assert read_image(tmp_path / "b.dcm").shape == (60, 52)


# -- small files that would take long ---------------------------------------------------------------------------


def after_patient(data, content):
    """Put elements into a file, before the first of group 0x10."""
    at = data.index(struct.pack("<HH", 0x10, 0x20))
    return data[:at] + content + data[at:]


ITEM, END_OF_SEQUENCE = b"\xfe\xff\x00\xe0" + bytes(4), b"\xfe\xff\xdd\xe0" + bytes(4)


def test_endless_empty_items_and_elements_are_refused(tmp_path):
    path = written(tmp_path)
    data = path.read_bytes()
    sequence = struct.pack("<HH2sHI", 9, 0x1001, b"SQ", 0, 0xFFFFFFFF)
    element = b"".join(struct.pack("<HH2sH", 9, at, b"LO", 0) for at in range(0x1001, 0xF000))
    path.write_bytes(after_patient(data, sequence + ITEM * 200_000 + END_OF_SEQUENCE))
    with pytest.raises(UnreadableImage, match="more elements than any radiograph's"):
        read_image(path)
    path.write_bytes(after_patient(data, element * 3))
    with pytest.raises(UnreadableImage, match="more elements than any radiograph's"):
        read_image(path)
    items = ITEM * 50_000
    path.write_bytes(after_patient(data, struct.pack("<HH2sHI", 0x28, 0x3010, b"SQ", 0, len(items)) + items))
    with pytest.raises(UnreadableImage, match="VOILUTSequence is larger than any lookup tables are"):
        read_image(path)


def test_deflated_files_inflate_to_no_more_than_a_limit(tmp_path, monkeypatch):
    ds = dataset()
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data = saved(tmp_path, ds).read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    monkeypatch.setattr("murakit.io._dicom_file._MOST_INFLATED", 2**20)
    packer = zlib.compressobj(wbits=-15)
    (tmp_path / "a.dcm").write_bytes(data[:start] + packer.compress(bytes(2**22)) + packer.flush())
    for read in (read_image, lambda path: load_radiographs(path.parent)):
        with pytest.raises(UnreadableImage, match="inflates to more than 1,048,576 bytes"):
            read(tmp_path / "a.dcm")
