import os
import shutil

import numpy as np
import pandas as pd
import pytest

from murakit.datasets._load import load_mura

TREE = {
    "train/XR_HAND/patient00002/study1_negative": 2,
    "train/XR_WRIST/patient00010/study2_positive": 1,
    "train/XR_WRIST/patient00010/study10_negative": 1,
    "train/XR_WRIST/patient00006/study1_positive": 11,
    "valid/XR_HAND/patient00011/study1_positive": 1,
}
STUDIES = [
    "XR_HAND/patient00002/study1_negative",
    "XR_WRIST/patient00006/study1_positive",
    "XR_WRIST/patient00010/study2_positive",
    "XR_WRIST/patient00010/study10_negative",
]


@pytest.fixture
def root(mura_tree):
    return mura_tree(TREE)


def ends(root, paths):
    return [os.path.relpath(path, root) for path in paths]


def test_the_bunch(root):
    mura = load_mura(root)
    n = 15
    assert mura.data.shape == mura.target.shape == mura.patients.shape == (n,)
    assert mura.studies.shape == mura.regions.shape == (n,)
    for name in ("data", "patients", "studies", "regions"):
        assert mura[name].dtype == object and all(type(value) is str for value in mura[name])
    assert mura.target.dtype == np.int64
    assert mura.target_names == ["normal", "abnormal"]
    assert mura.target.tolist() == [0] * 2 + [1] * 12 + [0]
    assert mura.patients.tolist() == ["patient00002"] * 2 + ["patient00006"] * 11 + ["patient00010"] * 2
    assert mura.regions.tolist() == ["hand"] * 2 + ["wrist"] * 13
    assert list(dict.fromkeys(mura.studies)) == STUDIES
    assert "15 samples, 4 studies, 3 patients" in mura.DESCR and str(root) in mura.DESCR
    assert list(mura.problems.columns) == ["path", "problem", "detail"] and mura.problems.empty


def test_paths_are_absolute_and_there(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    mura = load_mura("MURA-v1.1")
    assert all(os.path.isabs(path) and os.path.isfile(path) for path in mura.data)


def test_order_is_natural(root):
    names = ends(root, load_mura(root, subset="all").data)
    assert names[:2] == [f"train/{STUDIES[0]}/image{i}.png" for i in (1, 2)]
    assert names[2:13] == [f"train/{STUDIES[1]}/image{i}.png" for i in range(1, 12)]
    assert names[13:15] == [f"train/{study}/image1.png" for study in STUDIES[2:]]
    assert names[15] == "valid/XR_HAND/patient00011/study1_positive/image1.png"


def test_patient_numbers_of_other_lengths_are_in_natural_order(mura_tree):
    root = mura_tree({f"train/XR_HAND/patient{i}/study1_negative": 1 for i in (10, 9, 100)})
    assert load_mura(root).patients.tolist() == ["patient9", "patient10", "patient100"]


def test_the_frame_has_one_row_a_sample(root):
    mura = load_mura(root, subset="all")
    frame = mura.frame
    assert list(frame.columns) == [
        "path",
        "subset",
        "region",
        "patient",
        "study",
        "abnormal",
        "target",
        "image",
    ]
    assert frame["path"].tolist() == mura.data.tolist()
    assert frame["study"].tolist() == mura.studies.tolist()
    assert frame["target"].tolist() == frame["abnormal"].tolist() == mura.target.tolist()
    assert frame["subset"].tolist() == ["train"] * 15 + ["valid"]
    assert frame["image"].tolist()[:3] == ["image1.png", "image2.png", "image1.png"]
    assert frame["abnormal"].dtype == np.int64
    assert frame.groupby("study")["path"].count().max() == 11


def test_the_frame_shares_nothing_with_the_arrays(root):
    mura = load_mura(root)
    mura.target[:] = 9
    assert mura.frame["target"].max() == mura.frame["abnormal"].max() == 1


def test_level_study(root):
    mura = load_mura(root, level="study")
    assert ends(root, mura.data) == [f"train/{study}" for study in STUDIES]
    assert mura.target.tolist() == [0, 1, 1, 0]
    assert mura.studies.tolist() == STUDIES
    assert mura.frame["n_images"].tolist() == [2, 11, 1, 1]
    assert "image" not in mura.frame


def test_return_X_y(root):
    X, y = load_mura(root, return_X_y=True)
    mura = load_mura(root)
    np.testing.assert_array_equal(X, mura.data)
    np.testing.assert_array_equal(y, mura.target)


def test_target_region(root):
    mura = load_mura(root, level="study", target="region")
    assert mura.target.tolist() == ["hand", "wrist", "wrist", "wrist"]
    assert mura.target.dtype == object
    assert mura.target_names == ["hand", "wrist"]
    assert mura.frame["abnormal"].tolist() == [0, 1, 1, 0]


def test_target_region_abnormal(root):
    mura = load_mura(root, level="study", target="region_abnormal")
    assert mura.target.tolist() == ["hand_normal", "wrist_abnormal", "wrist_abnormal", "wrist_normal"]
    assert mura.target_names == ["hand_abnormal", "hand_normal", "wrist_abnormal", "wrist_normal"]
    assert mura.frame["target"].tolist() == mura.target.tolist()


@pytest.mark.parametrize(("subset", "n"), [("train", 15), ("valid", 1), ("all", 16)])
def test_subsets(root, subset, n):
    assert len(load_mura(root, subset=subset).data) == n


def test_an_absent_subset_names_those_there(root):
    with pytest.raises(ValueError, match=r"subset='test'.*there is 'train', 'valid'"):
        load_mura(root, subset="test")
    shutil.rmtree(root / "valid")
    with pytest.raises(ValueError, match=r"subset='all'.*no folder 'valid'.*there is 'train'"):
        load_mura(root, subset="all")


@pytest.mark.parametrize("regions", ["wrist", "XR_WRIST", ["wrist"], ["XR_WRIST", "Wrist"], ("wrist",)])
def test_regions(root, regions):
    assert set(load_mura(root, regions=regions).regions) == {"wrist"}


def test_several_regions(root):
    assert len(load_mura(root, regions=["wrist", "XR_HAND"]).data) == 15


@pytest.mark.parametrize(
    ("regions", "words"), [("knee", "no knee"), (["wrist", "knee"], "no knee"), ([], "empty")]
)
def test_an_unknown_region_names_those_there(root, regions, words):
    with pytest.raises(ValueError, match=rf"{words}.*it has hand, wrist\."):
        load_mura(root, regions=regions)


def test_other_regions_than_muras_are_accepted(mura_tree):
    root = mura_tree({"train/XR_CHEST/patient00001/study1_positive": 1})
    assert load_mura(root).regions.tolist() == ["chest"]


@pytest.mark.parametrize("option", ["level", "target", "on_error"])
def test_unknown_options_name_the_known(root, option):
    with pytest.raises(ValueError, match=f"{option}='nonsense' is not known: pass one of '"):
        load_mura(root, **{option: "nonsense"})


# Where the data set lies


def test_root_may_be_the_parent(root):
    assert load_mura(root.parent).data.tolist() == load_mura(root).data.tolist()


def test_several_data_sets_in_root(root):
    shutil.copytree(root, root.parent / "copy")
    with pytest.raises(ValueError, match=r"2 data sets: .*MURA-v1\.1.*copy.*Pass one"):
        load_mura(root.parent)


@pytest.mark.parametrize("csv_folder", ["csvs", "."], ids=["beside", "above"])
def test_root_may_hold_the_csvs_only(mura_tree, tmp_path, csv_folder):
    root = mura_tree(TREE, csv_folder=csv_folder)
    assert load_mura(tmp_path / csv_folder).data.tolist() == load_mura(root).data.tolist()


def test_csvs_only_are_compared(mura_tree, tmp_path):
    root = mura_tree(TREE, csv_folder="csvs")
    (root / "train" / STUDIES[0] / "image2.png").unlink()
    load_mura(root)
    with pytest.raises(ValueError, match="missing image"):
        load_mura(tmp_path / "csvs")


def test_the_folder_may_have_another_name_than_in_the_csvs(mura_tree, tmp_path):
    root = mura_tree(TREE, name="my-mura", csv_name="MURA-v1.1")
    assert len(load_mura(root).data) == 15
    assert len(load_mura(tmp_path).data) == 15


def test_csvs_beside_a_renamed_folder(mura_tree, tmp_path):
    mura_tree(TREE, name="my-mura", csv_name="MURA-v1.1", csv_folder=".")
    assert len(load_mura(tmp_path).data) == 15


@pytest.mark.parametrize("csv_name", [".", "data/MURA-v1.1", "/somewhere/else"])
def test_csv_paths_may_start_with_anything(mura_tree, csv_name):
    assert len(load_mura(mura_tree(TREE, csv_name=csv_name)).data) == 15


def test_csvs_whose_images_are_nowhere(tmp_path):
    (tmp_path / "train_image_paths.csv").write_text(
        "MURA-v1.1/train/XR_HAND/patient00001/study1_negative/a.png"
    )
    with pytest.raises(ValueError, match=r"holds no data set.*CSVs name a folder.*MURA-v1\.1"):
        load_mura(tmp_path)


@pytest.mark.parametrize(
    ("inside", "what", "words"),
    [
        ("train", "a subset folder", "subset='train'"),
        ("train/XR_WRIST", "the folder of a region", "regions="),
        ("train/XR_WRIST/patient00006", "the folder of a patient", ""),
        ("train/XR_WRIST/patient00006/study1_positive", "the folder of a study", ""),
    ],
)
def test_root_inside_the_data_set_says_what_to_pass(root, inside, what, words):
    with pytest.raises(ValueError) as caught:
        load_mura(root / inside)
    assert f"is {what}" in str(caught.value)
    assert f"Pass root={str(root)!r}" in str(caught.value) and words in str(caught.value)


def test_root_without_a_data_set(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        load_mura(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no data set in MURA's layout"):
        load_mura(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file"):
        load_mura(tmp_path / "file")


def test_home_is_expanded(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root.parent))
    monkeypatch.setenv("USERPROFILE", str(root.parent))
    assert len(load_mura("~/MURA-v1.1").data) == 15


# Strangers


def test_strangers_are_passed_over(root):
    n_expected = len(load_mura(root).data)
    levels = ["", "train", "train/XR_HAND", "train/XR_HAND/patient00002", f"train/{STUDIES[0]}"]
    for level in levels:
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._image1.png", "notes.txt", "XR_NOTES"):
            (root / level / name).write_text("stranger")
    for place in ("train/XR_HAND/patient00099", "train/XR_HAND/patient00002/study7_negative"):
        (root / place).write_text("a file with the name of a folder")
    (root / "train" / "XR_HAND" / "somebody" / "study1_positive").mkdir(parents=True)
    (root / "train" / ".hidden" / "patient00001").mkdir(parents=True)
    (root / "._train_image_paths.csv").write_bytes(b"\0\5\x16\7")
    (root / "train" / "XR_HAND" / "patient00002" / "not_a_study").mkdir()
    assert len(load_mura(root).data) == n_expected


def test_other_image_types_are_images(mura_tree):
    root = mura_tree({"train/XR_HAND/patient00001/study1_negative": ["a.JPG", "b.tiff", "c.PNG"]})
    assert load_mura(root).frame["image"].tolist() == ["a.JPG", "b.tiff", "c.PNG"]


# CSVs against folders


def missing_image(root):
    path = root / "train" / STUDIES[1] / "image3.png"
    path.unlink()
    return path


def unlisted_image(root):
    path = root / "train" / STUDIES[1] / "image99.png"
    path.write_bytes(b"")
    return path


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def drop_rows(path, word):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if word not in line))


def label_disagrees(root):
    edit(root / "train_labeled_studies.csv", f"{STUDIES[1]}/,1", f"{STUDIES[1]}/,0")
    return root / "train" / STUDIES[1]


def missing_study(root):
    path = root / "train" / STUDIES[1]
    drop_rows(root / "train_image_paths.csv", STUDIES[1])
    shutil.rmtree(path)
    return path


def unlisted_study(root):
    drop_rows(root / "train_labeled_studies.csv", STUDIES[1])
    return root / "train" / STUDIES[1]


def empty_study(root):
    path = root / "train" / STUDIES[1]
    drop_rows(root / "train_image_paths.csv", STUDIES[1])
    for image in path.iterdir():
        image.unlink()
    return path


def unlabelled_study(root):
    path = root / "train" / STUDIES[1]
    for csv in root.glob("train_*.csv"):
        csv.unlink()
    return path.rename(path.with_name("study1"))


def unreadable_csv_row(root):
    csv = root / "train_labeled_studies.csv"
    edit(csv, f"{STUDIES[0]}/,0\n", f"{STUDIES[0]}/,0\nsome/where,1\n")
    return csv


DAMAGES = {
    missing_image: (14, 3),
    unlisted_image: (15, 3),
    label_disagrees: (4, 3),
    missing_study: (4, 3),
    unlisted_study: (4, 3),
    empty_study: (4, 3),
    unlabelled_study: (4, 3),
    unreadable_csv_row: (15, 4),
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_problems_raise(root, damage):
    path = damage(root)
    with pytest.raises(ValueError) as caught:
        load_mura(root)
    text = str(caught.value)
    kind = damage.__name__.replace("_", " ").replace("csv", "CSV")
    assert f"1 problem ({kind}: 1)" in text and f"{path}: {kind}" in text
    assert "on_error='skip'" in text and "check_mura" in text


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("level", ["image", "study"])
def test_problems_are_left_out_listed_and_warned_about_once(root, damage, level):
    path = damage(root)
    with pytest.warns(UserWarning, match=r"1 problem \(.*: 1\)") as caught:
        mura = load_mura(root, on_error="skip", level=level)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert len(mura.data) == len(mura.frame) == DAMAGES[damage][level == "study"]
    assert mura.problems["path"].tolist() == [str(path)]
    assert all(os.path.exists(sample) for sample in mura.data)


def test_only_three_problems_are_quoted(root):
    for image in (root / "train" / STUDIES[1]).iterdir():
        if image.name != "image1.png":
            image.unlink()
    with pytest.raises(ValueError, match=r"10 problems \(missing image: 10\)") as caught:
        load_mura(root)
    assert str(caught.value).count(": missing image:") == 3
    assert "row 6 of train_image_paths.csv" in str(caught.value)


def test_problems_outside_of_what_is_asked_do_not_matter(root):
    missing_image(root)
    label_disagrees(root)
    assert len(load_mura(root, regions="hand").data) == 2
    assert len(load_mura(root, subset="valid").data) == 1
    shutil.rmtree(root / "train" / "XR_WRIST")
    assert len(load_mura(root, regions="hand").data) == 2


def test_without_csvs_the_folders_are_the_truth(mura_tree):
    assert len(load_mura(mura_tree(TREE, csvs=False)).data) == 15


def test_one_csv_is_compared_alone(root):
    (root / "train_labeled_studies.csv").unlink()
    load_mura(root)
    missing_image(root)
    with pytest.raises(ValueError, match="missing image: 1"):
        load_mura(root)


def test_csvs_in_other_hands(root):
    for csv in root.glob("train_*.csv"):
        rows = csv.read_text().splitlines()
        rows.insert(1, "")
        rows.append("MURA-v1.1/train/XR_HAND/patient00002/study1_negative/._image1.png")
        rows = rows[:-1] if "labeled" in csv.name else rows
        csv.write_bytes(b"\xef\xbb\xbfpath\r\n" + "\r\n".join(f'"{row}"' for row in rows).encode())
    assert len(load_mura(root).data) == 15


def test_a_label_that_is_none(root):
    edit(root / "train_labeled_studies.csv", f"{STUDIES[1]}/,1", f"{STUDIES[1]}/,maybe")
    with pytest.raises(ValueError, match=r"unreadable CSV row: 1.*unlisted study: 1"):
        load_mura(root)


def test_nothing_to_load_is_an_error(mura_tree):
    root = mura_tree({"train/XR_HAND/patient00001/study1_negative": 0})
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="nothing to load from train"):
        load_mura(root, on_error="skip")
    shutil.rmtree(root / "train" / "XR_HAND" / "patient00001")
    with pytest.raises(ValueError, match=r"nothing to load from train for the regions hand"):
        for csv in root.glob("*.csv"):
            csv.unlink()
        load_mura(root, regions="hand")


# Studies without labels


@pytest.fixture
def unlabelled(mura_tree):
    studies = {f"test/XR_HAND/patient0000{i}/study1": 2 for i in (1, 2)}
    return mura_tree(studies, csvs=False)


@pytest.mark.parametrize("target", ["abnormal", "region_abnormal"])
@pytest.mark.parametrize("level", ["image", "study"])
def test_unlabelled_studies_load_without_a_target(unlabelled, target, level):
    mura = load_mura(unlabelled, subset="test", target=target, level=level)
    assert mura.target is None
    assert len(mura.data) == (4 if level == "image" else 2)
    assert mura.frame["target"].isna().all() and mura.frame["abnormal"].isna().all()
    assert "unlabelled" in mura.DESCR
    X, y = load_mura(unlabelled, subset="test", target=target, return_X_y=True)
    assert len(X) == 4 and y is None


def test_unlabelled_studies_have_a_region(unlabelled):
    assert load_mura(unlabelled, subset="test", target="region").target.tolist() == ["hand"] * 4


def test_some_unlabelled_studies_still_have_regions(root):
    unlabelled_study(root)
    mura = load_mura(root, target="region", level="study")
    assert mura.target.tolist() == ["hand", "wrist", "wrist", "wrist"]
    assert pd.isna(mura.frame["abnormal"]).tolist() == [False, True, False, False]


def test_a_label_may_be_in_the_csv_alone(mura_tree):
    root = mura_tree({"test/XR_HAND/patient00001/study1": 1, "test/XR_HAND/patient00002/study1": 1})
    edit(root / "test_labeled_studies.csv", "patient00002/study1/,0", "patient00002/study1/,1")
    assert load_mura(root, subset="test").target.tolist() == [0, 1]
    with (root / "test_labeled_studies.csv").open("a") as file:
        file.write("MURA-v1.1/test/XR_HAND/patient00002/study1/,0\n")
    with pytest.raises(ValueError, match="label disagrees"):
        load_mura(root, subset="test")


@pytest.mark.real_data
def test_real_radiographs(real_data):
    mura = load_mura(real_data / "nih_cxr", subset="all")
    assert len(mura.data) == 340 and mura.target.sum() == 170
    assert len(set(mura.patients)) == 211
    assert set(mura.regions) == {"chest"}
    assert not set(load_mura(real_data / "nih_cxr").patients) & set(
        load_mura(real_data / "nih_cxr", subset="valid").patients
    )
