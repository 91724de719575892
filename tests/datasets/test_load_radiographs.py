import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from murakit.datasets._load import load_radiographs

NAMES = {"path": "file", "label": "fracture", "patient": "who"}


@pytest.fixture
def table(tmp_path):
    """A table of three images, which lie in tmp_path / "films"."""
    (tmp_path / "films").mkdir()
    for name in ("c.png", "a.png", "b.png"):
        (tmp_path / "films" / name).write_bytes(b"")
    return pd.DataFrame(
        {
            "file": ["films/c.png", "films/a.png", "films/b.png"],
            "fracture": [0, 1, 1],
            "who": ["007", "7", "007"],
            "exam": ["e1", "e2", "e3"],
            "part": ["XR_HAND", "wrist", "Knee"],
        }
    )


@pytest.fixture
def csv(table, tmp_path):
    path = tmp_path / "table.csv"
    table.to_csv(path, index=False)
    return path


def changed(table, row, **values):
    table = table.copy()
    for column, value in values.items():
        table[column] = table[column].astype(object)
        table.loc[row, column] = value
    return table


def test_the_bunch_is_that_of_load_mura(csv, tmp_path):
    mine = load_radiographs(csv, **NAMES, study="exam", region="part")
    assert mine.data.tolist() == [str(tmp_path / "films" / name) for name in ("c.png", "a.png", "b.png")]
    assert mine.target.tolist() == [0, 1, 1] and mine.target.dtype == np.int64
    assert mine.target_names == ["0", "1"]
    assert mine.patients.tolist() == ["007", "7", "007"]
    assert mine.studies.tolist() == ["e1", "e2", "e3"]
    assert mine.regions.tolist() == ["hand", "wrist", "knee"]
    for name in ("data", "patients", "studies", "regions"):
        assert mine[name].dtype == object and all(isinstance(value, str) for value in mine[name])
    assert list(mine.frame.columns) == ["path", "region", "patient", "study", "target", "image"]
    assert mine.frame["path"].tolist() == mine.data.tolist()
    assert mine.frame["image"].tolist() == ["c.png", "a.png", "b.png"]
    assert "3 samples, 3 studies, 2 patients" in mine.DESCR
    assert list(mine.problems.columns) == ["path", "problem", "detail"] and mine.problems.empty


def test_a_frame_and_its_csv_are_the_same(table, csv, tmp_path):
    a, b = load_radiographs(csv, **NAMES), load_radiographs(table, **NAMES, root=tmp_path)
    pd.testing.assert_frame_equal(a.frame, b.frame)


def test_a_csv_may_be_given_as_text(csv):
    assert len(load_radiographs(str(csv), **NAMES).data) == 3


def test_frame_paths_are_relative_to_the_working_directory(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert os.path.isabs(load_radiographs(table.set_index("exam"), **NAMES).data[0])


def test_root_and_absolute_paths(table, tmp_path):
    table["file"] = [Path("c.png"), tmp_path / "films" / "a.png", "b.png"]
    mine = load_radiographs(table, **NAMES, root=tmp_path / "films")
    assert [os.path.basename(path) for path in mine.data] == ["c.png", "a.png", "b.png"]


def test_study_folders_are_samples(table, tmp_path):
    mine = load_radiographs(changed(table, 0, file="films").iloc[:1], **NAMES, root=tmp_path)
    assert mine.data.tolist() == [str(tmp_path / "films")]


def test_every_image_is_a_study_by_default(csv):
    mine = load_radiographs(csv, **NAMES)
    assert mine.studies.tolist() == mine.data.tolist()
    assert set(mine.regions) == {"unknown"}


def test_paths_in_muras_layout_say_study_and_region(mura_tree):
    root = mura_tree({"train/XR_HAND/patient00001/study1_positive": 2})
    files = sorted(map(str, root.rglob("*.png")))
    table = pd.DataFrame({"file": files, "fracture": 1, "who": "somebody"})
    mine = load_radiographs(table, **NAMES)
    assert set(mine.studies) == {"XR_HAND/patient00001/study1_positive"}
    assert set(mine.regions) == {"hand"}
    assert set(mine.patients) == {"somebody"}


@pytest.mark.parametrize(
    ("labels", "target", "dtype", "names"),
    [
        (["yes", "no", "yes"], ["yes", "no", "yes"], object, ["no", "yes"]),
        ([True, False, True], [1, 0, 1], np.int64, ["0", "1"]),
        ([1.0, 0.0, 1.0], [1, 0, 1], np.int64, ["0", "1"]),
        ([2, 10, 3], [2, 10, 3], np.int64, ["2", "3", "10"]),
        (pd.Categorical(["b", "a", "b"]), ["b", "a", "b"], object, ["a", "b"]),
    ],
)
def test_labels_stay_as_they_are(table, tmp_path, labels, target, dtype, names):
    table["fracture"] = labels
    mine = load_radiographs(table, **NAMES, root=tmp_path)
    assert mine.target.tolist() == target and mine.target.dtype == dtype
    assert mine.target_names == names


@pytest.mark.parametrize("who", [[12, 7, 12], [12.0, 7.0, 12.0], ["12", " 7", "12 "]])
def test_patients_are_text_however_they_were_typed(table, tmp_path, who):
    table["who"] = who
    assert load_radiographs(table, **NAMES, root=tmp_path).patients.tolist() == ["12", "7", "12"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"fracture": None}, r"row 1 .* no label in 'fracture'.*keep_default_na"),
        ({"who": np.nan}, r"row 1 .* no value in 'who'"),
        ({"who": " "}, r"row 1 .* no 'who'"),
        ({"file": None}, r"row 1 .* no path in 'file'"),
        ({"file": 3}, r"row 1 has 3 in 'file'"),
        ({"file": "films/../films/c.png"}, r"rows 0 and 1 .* both list '.*c\.png'"),
        ({"fracture": 0.5}, r"row 1 .* 0\.5 .*class"),
        ({"fracture": float("inf")}, r"row 1 .* inf .*class"),
        ({"fracture": "yes"}, r"mixes numbers and text \(0 in row 0, 'yes' in row 1"),
        ({"exam": "e1", "fracture": 0}, r"study 'e1' has two patients, 007 in row 0 and 7 in row 1"),
        ({"exam": "e1", "who": "007"}, r"study 'e1' has two labels, 0 in row 0 and 1 in row 1"),
    ],
)
def test_a_bad_row_is_named(table, tmp_path, values, words):
    with pytest.raises(ValueError, match=words):
        load_radiographs(changed(table, 1, **values), **NAMES, study="exam", root=tmp_path)


def test_a_missing_label_in_a_csv(table, tmp_path):
    path = tmp_path / "table.csv"
    changed(table, 2, fracture=None).to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"table\.csv'.*row 2 .* no label"):
        load_radiographs(path, **NAMES)


def test_missing_files_are_named(table, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"1 of 3 files .*row 2: '.*gone\.png'.*root="):
        load_radiographs(changed(table, 2, file="gone.png"), **NAMES, root=tmp_path)


def test_a_column_that_is_there_twice(table, tmp_path):
    twice = pd.concat([table, 1 - table[["fracture"]]], axis=1)
    with pytest.raises(ValueError, match="several columns 'fracture'"):
        load_radiographs(twice, **NAMES, root=tmp_path)


def test_a_missing_column_names_those_there(csv):
    with pytest.raises(
        ValueError, match=r"no column 'Who'; it has 'file', 'fracture', 'who', 'exam', 'part'"
    ):
        load_radiographs(csv, **{**NAMES, "patient": "Who"})
    with pytest.raises(ValueError, match="no column 'bodypart'"):
        load_radiographs(csv, **NAMES, region="bodypart")


def test_what_is_no_table(table, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no table .*gone\.csv"):
        load_radiographs(tmp_path / "gone.csv", **NAMES)
    with pytest.raises(TypeError, match="got list"):
        load_radiographs([1], **NAMES)
    with pytest.raises(ValueError, match="has no rows"):
        load_radiographs(table.iloc[:0], **NAMES)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match=r"empty\.csv' cannot be read as a CSV"):
        load_radiographs(tmp_path / "empty.csv", **NAMES)


@pytest.mark.real_data
def test_real_radiographs(real_data):
    root = real_data / "nih_cxr"
    table = pd.read_csv(root / "valid_labeled_studies.csv", header=None, names=["study", "label"])
    table["patient"] = table["study"].str.split("/").str[3]
    table["study"] = table["study"].str.split("/", n=1).str[1]
    mine = load_radiographs(table, path="study", label="label", patient="patient", root=root)
    assert len(mine.data) == 70 and set(mine.regions) == {"chest"}
