"""Whatever is wrong with radiographs of one's own is listed, and nothing is listed twice."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from murakit import check_disjoint, check_mura, check_radiographs, load_mura, load_radiographs

pydicom = pytest.importorskip("pydicom")


@pytest.fixture
def films(tmp_path):
    """A folder of four images and a table that lists them."""
    rng = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(rng.integers(0, 255, (8, 8), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    table = pd.DataFrame(
        {"file": [f"{n}.png" for n in range(4)], "label": [0, 1, 0, 1], "who": ["1", "2", "3", "4"]}
    )
    return tmp_path, table


NAMES = {"path": "file", "label": "label", "patient": "who", "verbose": 0}


def write_dicom(path, pixels, patient, **tags):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    ds.SOPInstanceUID = generate_uid()
    ds.StudyInstanceUID = generate_uid()
    ds.PatientID, ds.Modality, ds.BodyPartExamined = patient, "DX", "WRIST"
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = pixels.astype(np.uint16).tobytes()
    for name, value in tags.items():
        setattr(ds, name, value)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.save_as(path, enforce_file_format=True)


def kinds(problems):
    return problems.groupby("problem").size().to_dict()


def test_a_sound_table_and_bunch_have_no_problems(films, small_mura):
    root, table = films
    assert len(check_radiographs(table, root=root, **NAMES)) == 0
    assert len(check_radiographs(load_mura(small_mura), verbose=0)) == 0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda root, t: t.assign(label=[0, None, 0, 1]), {"missing value": 1}),
        (lambda root, t: t.assign(who=["1", "2", " ", "4"]), {"missing value": 1}),
        (
            lambda root, t: t.assign(file=["0.png", "1.png", None, "9.png"]),
            {"missing value": 1, "missing file": 1},
        ),
        (lambda root, t: pd.concat([t, t[:1]]), {"repeated file": 1}),
        (lambda root, t: pd.concat([t, t[:1].assign(label=1)]), {"contradicting rows": 1}),
        (lambda root, t: pd.concat([t, t[:1].assign(who="9")]), {"contradicting rows": 1}),
        (lambda root, t: t.assign(exam=["a", "a", "b", "c"]), {"contradicting study": 1}),
        (
            lambda root, t: (root / "1.png").write_bytes((root / "0.png").read_bytes()) and t,
            {"duplicate image": 1},
        ),
        (lambda root, t: (root / "1.png").write_bytes(b"no image") and t, {"unreadable image": 1}),
    ],
)
def test_each_problem_of_a_table_is_listed_once(films, change, expected):
    root, table = films
    table = change(root, table).reset_index(drop=True)
    study = "exam" if "exam" in table else None
    assert kinds(check_radiographs(table, root=root, study=study, **NAMES)) == expected


def test_spellings_of_one_patient_are_no_contradiction(films):
    root, table = films
    table = table.assign(who=["7", 7.0, " 7 ", "7.0"], exam="one", label=["a ", "a", "a", " a"])
    assert len(check_radiographs(table, root=root, study="exam", **NAMES)) == 0


def test_problems_of_a_dicom_folder(tmp_path):
    rng = np.random.default_rng(0)
    one, two, three = rng.integers(0, 4000, (3, 8, 8))
    write_dicom(tmp_path / "a.dcm", one, "A", SOPInstanceUID="1.2.3")
    write_dicom(tmp_path / "b.dcm", one, "B", SOPInstanceUID="1.2.3")
    write_dicom(tmp_path / "c.dcm", np.tile(two, (3, 1)), "C", Rows=8, NumberOfFrames=3)
    write_dicom(tmp_path / "d.dcm", three, "")
    expected = {"repeated instance": 1, "duplicate image": 1, "several frames": 1, "no patient": 1}
    assert kinds(check_radiographs(tmp_path, verbose=0)) == expected
    # Who looks for the problem with the other function finds the same.
    assert kinds(check_mura(tmp_path, verbose=0)) == expected


def test_loading_says_what_was_left_out_and_what_repeats(tmp_path):
    pixels = np.arange(64).reshape(8, 8)
    write_dicom(tmp_path / "a.dcm", pixels, "A", SOPInstanceUID="1.2.3")
    write_dicom(tmp_path / "b.dcm", pixels, "B", SOPInstanceUID="1.2.3")
    write_dicom(tmp_path / "c.dcm", np.tile(pixels, (3, 1)), "C", Rows=8, NumberOfFrames=3)
    with pytest.warns(
        UserWarning, match="passed over 1 DICOM files of several frames, 1 DICOM files repeat an image"
    ):
        found = load_radiographs(tmp_path)
    assert found.patients.tolist() == ["A", "B"]
    assert set(found.problems["problem"]) == {"several frames", "repeated instance"}


def test_headers_stay_as_columns(tmp_path):
    pixels = np.arange(64).reshape(8, 8)
    write_dicom(
        tmp_path / "a.dcm",
        pixels,
        "A",
        PatientSex="F",
        PatientAge="018M",
        ViewPosition="PA",
        ImageLaterality="L",
        Manufacturer="ACME",
        StationName="XR1",
        StudyDate="20200229",
    )
    write_dicom(tmp_path / "b.dcm", pixels + 1, "B", PatientBirthDate="19500101", StudyDate="20200101")
    frame = load_radiographs(tmp_path).frame
    first = frame.iloc[0]
    assert (first.sex, first.age, first.view_position, first.laterality) == ("F", 1.5, "PA", "L")
    assert (first.manufacturer, first.station, first.date) == ("ACME", "XR1", pd.Timestamp("2020-02-29"))
    assert frame.age[1] == pytest.approx(70, abs=0.01) and pd.isna(frame.sex[1])


def test_the_same_pixels_under_two_names_are_found_on_request(films):
    root, table = films
    (root / "1.png").write_bytes((root / "0.png").read_bytes())
    loaded = load_radiographs(table, path="file", label="label", patient="who", root=root)
    a, b = loaded.data[:1], loaded.data[1:]
    check_disjoint(a, b)
    with pytest.raises(ValueError, match=r"share an image, pixel for pixel: '.*0\.png' and '.*1\.png'"):
        check_disjoint(a, b, content=True)
    check_disjoint(a, loaded.data[2:], content=True)
