import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from murakit.datasets._checks import check_disjoint, check_mura
from murakit.datasets._load import load_mura

TREE = {
    "train/XR_HAND/patient00001/study1_negative": 3,
    "train/XR_HAND/patient00002/study1_positive": 2,
    "valid/XR_WRIST/patient00003/study1_positive": 2,
}


@pytest.fixture
def root(mura_tree):
    return mura_tree(TREE)


def study(root, number):
    return root / list(TREE)[number - 1]


def found(root):
    problems = check_mura(root, verbose=0)
    assert list(problems.columns) == ["path", "problem", "detail"]
    return list(zip(problems["problem"], problems["path"]))


def test_a_sound_data_set_has_no_problems(root, capsys):
    assert check_mura(root).empty
    out, err = capsys.readouterr()
    assert out == f"{root}: 7 images, 3 studies, 3 patients in train, valid: no problems\n"
    # A bar that redraws itself would only fill a log file.
    assert err == ""


def test_a_progress_bar_is_shown_where_somebody_watches(root, capsys, monkeypatch):
    monkeypatch.setattr("murakit.utils._progress.is_interactive", lambda stream=None: True)
    check_mura(root)
    err = capsys.readouterr().err
    assert "Reading" in err and "/7 " in err


def test_the_summary_is_one_line_with_counts(root, capsys):
    for name in ("image1.png", "image2.png"):
        (study(root, 1) / name).write_bytes(b"")
    (root / "valid_labeled_studies.csv").unlink()
    (study(root, 3) / "image1.png").unlink()
    check_mura(root.parent)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "3 problems (missing image: 1, unreadable image: 2)" in out


def test_verbose_0_is_silent(root, capfd):
    (study(root, 1) / "image1.png").write_bytes(b"")
    check_mura(root, verbose=0)
    assert capfd.readouterr() == ("", "")


def test_unreadable_and_truncated_images(root):
    truncated, empty, text = (study(root, 1) / f"image{i}.png" for i in (1, 2, 3))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(truncated)
    truncated.write_bytes(truncated.read_bytes()[:-1000])
    empty.write_bytes(b"")
    text.write_text("no image")
    assert found(root) == [("unreadable image", str(path)) for path in (truncated, empty, text)]
    details = check_mura(root, verbose=0)["detail"]
    assert "truncated" in details[0] and "empty" in details[1] and "cannot identify" in details[2]


def test_a_dangling_link_is_unreadable(root):
    image = study(root, 1) / "image1.png"
    image.unlink()
    try:
        image.symlink_to("nowhere.png")
    except OSError:
        pytest.skip("this system makes no links")
    assert found(root) == [("unreadable image", str(image))]


def test_empty_studies(root):
    for image in study(root, 2).iterdir():
        image.unlink()
    (study(root, 2) / ".DS_Store").write_text("")
    assert ("empty study", str(study(root, 2))) in found(root)


def test_labels_that_disagree_with_the_csvs(root):
    csv = root / "train_labeled_studies.csv"
    csv.write_text(csv.read_text().replace("study1_negative/,0", "study1_negative/,1"))
    assert found(root) == [("label disagrees", str(study(root, 1)))]


def test_rows_without_a_file_and_files_without_a_row(root):
    old, new = study(root, 3) / "image2.png", study(root, 3) / "image3.png"
    old.rename(new)
    assert found(root) == [("missing image", str(old)), ("unlisted image", str(new))]


def test_studies_without_a_folder_or_a_row(root):
    moved = study(root, 2).rename(study(root, 2).with_name("study2_positive"))
    problems = found(root)
    assert ("missing study", str(study(root, 2))) in problems and ("unlisted study", str(moved)) in problems


def test_unlabelled_studies_among_others(mura_tree):
    hidden = {f"test/XR_HAND/patient0000{i}/study1": 1 for i in (7, 8)}
    root = mura_tree({**TREE, **hidden}, csvs=False)
    assert found(root) == []
    bare = study(root, 1).rename(study(root, 1).with_name("study1"))
    assert found(root) == [("unlabelled study", str(bare))]


def test_patients_in_both_subsets(root):
    patient = study(root, 3).parent
    moved = patient.rename(patient.with_name("patient00001"))
    for csv in root.glob("valid_*.csv"):
        csv.write_text(csv.read_text().replace("patient00003", "patient00001"))
    assert found(root) == [("patient in several subsets", str(moved))]
    assert check_mura(root, verbose=0)["detail"].tolist() == ["patient00001 is in train and valid"]


def test_exact_duplicates_across_patients(root):
    one, other = study(root, 1) / "image1.png", study(root, 3) / "image2.png"
    # The same pixels in another file: channels and container differ.
    with Image.open(one) as image:
        image.convert("RGB").save(other, compress_level=0)
    assert found(root) == [("duplicate image", str(other))]
    [detail] = check_mura(root, verbose=0)["detail"]
    assert detail == f"patient00003 has the same pixels as patient00001 in {one}"


def test_duplicates_of_one_patient_are_left_alone(root):
    shutil.copy(study(root, 1) / "image1.png", study(root, 1) / "image2.png")
    assert found(root) == []


def test_the_same_bytes_in_another_shape_are_no_duplicate(root):
    Image.fromarray(np.zeros((2, 8), dtype=np.uint8)).save(study(root, 1) / "image1.png")
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(study(root, 2) / "image1.png")
    assert found(root) == []


@pytest.mark.parametrize("n_jobs", [None, 1, 3, -1])
def test_the_number_of_threads_changes_nothing(root, n_jobs):
    (study(root, 1) / "image1.png").write_bytes(b"")
    shutil.copy(study(root, 1) / "image2.png", study(root, 2) / "image2.png")
    problems = check_mura(root, n_jobs=n_jobs, verbose=0)
    assert problems["problem"].tolist() == ["duplicate image", "unreadable image"]


def test_no_data_set_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no data set"):
        check_mura(tmp_path)


@pytest.mark.real_data
def test_real_radiographs(real_data):
    assert check_mura(real_data / "nih_cxr", verbose=0).empty


# Two sides of a split

A = ["train/XR_WRIST/patient00001/study1_positive/image1.png", "train/XR_WRIST/patient00002/study1_negative"]
B = ["valid/XR_HAND/patient00001/study1_negative/image1.png", "valid/XR_HAND/patient00003/study1_negative"]


def test_disjoint_samples(root):
    assert check_disjoint(A, B[1:]) is None
    assert check_disjoint(np.array(A, dtype=object), pd.Series(B[1:])) is None
    assert check_disjoint(load_mura(root), load_mura(root, subset="valid")) is None
    assert check_disjoint([], []) is None


def test_shared_patients_are_counted_and_named():
    with pytest.raises(ValueError, match="a and b share 1 patient: patient00001"):
        check_disjoint(A, B)
    many = [f"XR_HAND/patient{i}/study1_negative" for i in range(1, 10)]
    with pytest.raises(ValueError, match=r"share 9 patients: patient1, .*patient5, \.\.\."):
        check_disjoint(many, many)


def test_bunches_share_patients(root):
    with pytest.raises(ValueError, match="share 2 patients"):
        check_disjoint(load_mura(root), load_mura(root, subset="all").data)


def test_groups_say_what_paths_do_not():
    with pytest.raises(ValueError, match=r"a\.png.*groups_a="):
        check_disjoint(["a.png"], B)
    assert check_disjoint(["a.png"], ["b.png"], groups_a=[1], groups_b=[2]) is None
    with pytest.raises(ValueError, match="share 1 patient: 1"):
        check_disjoint(["a.png"], ["b.png"], groups_a=[1], groups_b=np.array([1]))
    with pytest.raises(ValueError, match="share 1 patient: patient00001"):
        check_disjoint(["a.png"], B, groups_a=["patient00001"])


def test_bad_groups():
    with pytest.raises(ValueError, match="share 1 patient: 7"):
        check_disjoint(["a.png"], ["b.png"], groups_a=[7.0], groups_b=["7"])
    with pytest.raises(ValueError, match="groups_a has 2 entries for 1 samples"):
        check_disjoint(["a.png"], B, groups_a=["p", "q"])
    with pytest.raises(ValueError, match="groups_b: row 0 has no patient"):
        check_disjoint(A, ["b.png"], groups_b=[None])
