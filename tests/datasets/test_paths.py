import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import patients_of, regions_of, studies_of

from murakit.datasets._paths import (
    as_paths,
    image_names,
    images_in,
    natural_key,
    region_name,
    split_path,
)
from murakit.datasets._samples import as_samples, check_repeats, expand
from murakit.io._filesystem import is_image_name

IMAGE = "MURA-v1.1/train/XR_WRIST/patient00006/study1_positive/image1.png"


@pytest.mark.parametrize(
    "X",
    [
        ["a.png", "b.png"],
        ("a.png", "b.png"),
        [["a.png"], ["b.png"]],
        [Path("a.png"), Path("b.png")],
        [Path("a.png"), "b.png"],
        np.array(["a.png", "b.png"]),
        np.array(["a.png", "b.png"], dtype=object),
        np.array([["a.png"], ["b.png"]], dtype=object),
        pd.Series(["a.png", "b.png"]),
        pd.Series([Path("a.png"), Path("b.png")]),
        pd.Series(["a.png", "b.png"], index=[7, 3], dtype=object),
        pd.DataFrame({"path": ["a.png", "b.png"]}),
        pd.DataFrame({"path": [Path("a.png"), Path("b.png")]}),
        pd.Series(["a.png", "b.png"], dtype="category"),
        (name for name in ("a.png", "b.png")),
    ],
    ids=lambda X: type(X).__name__,
)
def test_paths_come_in_any_container(X):
    paths = as_paths(X)
    assert paths.dtype == object
    assert paths.tolist() == ["a.png", "b.png"]
    assert all(type(path) is str for path in paths)


def test_the_users_array_is_not_written_to():
    for X in (np.array([Path("a.png")], dtype=object), pd.Series([Path("a.png")])):
        as_paths(X)
        assert isinstance(X[0], Path)


@pytest.mark.parametrize(
    ("X", "words"),
    [
        ("a.png", "pass a list"),
        (Path("a.png"), "pass a list"),
        (["a.png", None], "row 1 is None"),
        (["a.png", 3], "row 1 is 3"),
        (["a.png", ""], "row 1 is ''"),
        (pd.Series(["a.png", np.nan]), "row 1 is nan"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), r"\(1, 2\).*Select the column"),
        (np.zeros((2, 2)), r"\(2, 2\)"),
    ],
)
def test_what_is_no_path_is_named_by_row(X, words):
    with pytest.raises(ValueError, match=words):
        as_paths(X)


def test_a_number_is_no_array_of_paths():
    with pytest.raises(TypeError, match="int"):
        as_paths(3)


@pytest.mark.parametrize(
    "path",
    [
        IMAGE,
        "/data/" + IMAGE,
        os.path.dirname(IMAGE),
        os.path.dirname(IMAGE) + "/",
        IMAGE.replace("/", "\\"),
        "XR_WRIST/patient00006/study1_positive",
    ],
)
def test_image_and_study_say_the_same(path):
    assert split_path(path) == ("wrist", "patient00006", "XR_WRIST/patient00006/study1_positive", 1)


def test_labels_of_studies():
    assert split_path(IMAGE.replace("positive", "negative")).label == 0
    assert split_path(IMAGE.replace("_positive", "")).label == -1


@pytest.mark.parametrize(
    "path",
    [
        "",
        "image1.png",
        "XR_WRIST/patient00006/image1.png",
        "XR_WRIST/patient00006/study1_maybe/image1.png",
        "XR_WRIST/study1_positive/image1.png",
        "XR_WRIST/patient6a/study1_positive/image1.png",
        "XR_/patient00006/study1_positive/image1.png",
        "WRIST/patient00006/study1_positive/image1.png",
        "XR_WRIST/patient00006/study1_positive/more/image1.png",
        "XR_WRIST/patient00006/study1_positive\n/image1.png",
    ],
)
def test_other_paths_say_nothing(path):
    assert split_path(path) is None


def test_ids_of_many_paths():
    X = [IMAGE, "XR_HAND/patient00007/study2_negative"]
    assert patients_of(X).tolist() == ["patient00006", "patient00007"]
    assert regions_of(X).tolist() == ["wrist", "hand"]
    assert studies_of(X).tolist() == [
        "XR_WRIST/patient00006/study1_positive",
        "XR_HAND/patient00007/study2_negative",
    ]
    assert as_samples(X, list_folders=False).known("region").tolist() == ["wrist", "hand"]
    assert patients_of(X).dtype == object


def test_an_unknown_patient_is_never_guessed():
    with pytest.raises(ValueError, match=r"patient of row 1 .*'scan\.png'.*groups="):
        patients_of([IMAGE, "scan.png"])
    assert as_samples([IMAGE, "scan.png"], list_folders=False).known("region") is None


def test_region_names():
    assert [region_name(name) for name in ("wrist", "XR_WRIST", "xr_wrist")] == ["wrist"] * 3


def test_strangers_are_no_images():
    assert is_image_name("image1.png") and is_image_name("IMAGE1.JPG")
    for name in ("._image1.png", ".hidden.png", "Thumbs.db", ".DS_Store", "notes.txt", "png"):
        assert not is_image_name(name)


def test_natural_order():
    names = ("image10.png", "image2.png", "image1.png", "²1.png", "image01.png", "._image1.png", "b.txt")
    assert image_names(names) == ("image01.png", "image1.png", "image2.png", "image10.png", "²1.png")
    assert natural_key("study2") < natural_key("study10")


def test_samples_expand_to_images(mura_tree):
    study = mura_tree({"train/XR_HAND/patient00001/study1_negative": 11}) / (
        "train/XR_HAND/patient00001/study1_negative"
    )
    odd = study / "scan"
    odd.write_bytes(b"")
    images = [str(study / f"image{i}.png") for i in range(1, 12)]
    assert images_in(study) == images
    found, sample = expand(np.array([str(odd), str(study)], dtype=object))
    assert found.tolist() == [str(odd), *images]
    assert sample.tolist() == [0] + [1] * 11 and sample.dtype == np.int64


def test_expanding_names_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"1 of 2 paths in X .*row 1: .*gone\.png"):
        (tmp_path / "here.png").write_bytes(b"")
        expand([str(tmp_path / "here.png"), str(tmp_path / "gone.png")])
    with pytest.raises(ValueError, match=r"row 0 is the folder .* holds no image"):
        (tmp_path / "empty").mkdir()
        expand([str(tmp_path / "empty")])


def test_one_image_in_two_samples():
    check_repeats(as_samples(["a/1.png", "a/2.png"], missing_ok=True), np.array([0, 1]))
    check_repeats(as_samples(["a/1.png", "a/./1.png"], missing_ok=True), np.array([1, 1]))
    with pytest.raises(ValueError, match="rows 0 and 1 both stand for .*with the labels 0 and 1"):
        check_repeats(as_samples(["a/1.png", "a/./1.png"], missing_ok=True), np.array([0, 1]))
