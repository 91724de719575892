"""What a synthetic MURA promises: the layout, the proportions, the findings, the same pixels everywhere."""

import csv
import dataclasses
import hashlib
import inspect
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from murakit.datasets._synthetic import _make as synthetic
from murakit.datasets._synthetic import _radiograph as _phantom
from murakit.datasets._synthetic import _sampling
from murakit.datasets._synthetic._make import make_mura

SEVEN = ["elbow", "finger", "forearm", "hand", "humerus", "shoulder", "wrist"]

# Of the pixels of `hashed` below. It has to be the same on every platform and with every version of the
# dependencies; whoever changes what is drawn on purpose, updates it.
PIXEL_HASH = "be84aebc0277e0eac24f3370cbf85dc2eb27796349a9fe88b1b81e610d38f0e8"


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("L")).copy()


def tree_hash(root):
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.png")):
        with Image.open(path) as image:
            digest.update(f"{path.relative_to(root).as_posix()} {image.mode} {image.size}".encode())
            digest.update(image.tobytes())
    return digest.hexdigest()


def studies_of(root):
    """(subset, region, patient, study folder, label) of every labelled study."""
    rows = [row for subset in ("train", "valid") for row in read_csv(root / f"{subset}_labeled_studies.csv")]
    return [(*path.rstrip("/").split("/")[1:], int(label)) for path, label in rows]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "MURA-v1.1"
    return make_mura(folder, n_patients=90, image_size=64, record_findings=True, random_state=3)


@pytest.fixture(scope="module")
def findings(root):
    header, *rows = read_csv(root / "findings.csv")
    assert header == ["path", "kind", "x0", "y0", "x1", "y1"]
    return [(path, kind, tuple(int(side) for side in box)) for path, kind, *box in rows]


# Layout


@pytest.mark.parametrize("subset", ["train", "valid"])
def test_csv_files_list_the_tree_and_nothing_else(root, subset):
    listed = [path for (path,) in read_csv(root / f"{subset}_image_paths.csv")]
    on_disk = {path.relative_to(root.parent).as_posix() for path in (root / subset).rglob("*.png")}
    assert len(listed) == len(set(listed))
    assert set(listed) == on_disk
    folders = {path.rsplit("/", 1)[0] + "/" for path in listed}
    labeled = read_csv(root / f"{subset}_labeled_studies.csv")
    assert {path for path, _ in labeled} == folders
    for path, label in labeled:
        assert path.endswith(("_positive/", "_negative/")[label == "0"])


def test_paths_have_the_form_of_mura(root):
    (first,) = read_csv(root / "train_image_paths.csv")[0]
    name, subset, region, patient, study, image = first.split("/")
    assert (name, subset, region, image) == ("MURA-v1.1", "train", "XR_ELBOW", "image1.png")
    assert patient.startswith("patient") and len(patient) == len("patient00001")
    assert study in ("study1_positive", "study1_negative")


def test_root_holds_the_four_lists_and_findings_only_when_asked(root, tmp_path):
    kinds = ("image_paths", "labeled_studies")
    lists = [f"{subset}_{kind}.csv" for subset in ("train", "valid") for kind in kinds]
    assert {path.name for path in root.iterdir()} == {"train", "valid", "findings.csv", *lists}
    plain = make_mura(tmp_path / "plain", n_patients=2, regions="hand", image_size=32, random_state=0)
    assert {path.name for path in plain.iterdir()} == {"train", "valid", *lists}
    assert all(path.startswith("plain/") for (path,) in read_csv(plain / "train_image_paths.csv"))


def test_no_patient_is_in_both_subsets(root):
    patients = defaultdict(set)
    for subset, _, patient, _, _ in studies_of(root):
        patients[subset].add(patient)
    assert not patients["train"] & patients["valid"]
    assert len(patients["train"]) == 72 and len(patients["valid"]) == 18


# Proportions


def test_labels_and_regions_are_apportioned(root):
    studies = studies_of(root)
    labels = [label for *_, label in studies]
    assert sum(labels) == round(0.4 * len(labels))
    for subset in ("train", "valid"):
        of_subset = [study for study in studies if study[0] == subset]
        assert {study[1] for study in of_subset} == {f"XR_{region.upper()}" for region in SEVEN}
        share = np.mean([study[-1] for study in of_subset])
        assert abs(share - 0.4) < 1 / len(of_subset)
    counts = Counter(study[1] for study in studies if study[0] == "train")
    assert counts["XR_WRIST"] > counts["XR_FINGER"] > counts["XR_HUMERUS"]


def test_more_than_nine_in_ten_patients_have_one_study(root):
    counts = Counter(study[2] for study in studies_of(root))
    assert sum(n == 1 for n in counts.values()) > 0.9 * len(counts)
    assert 2 <= max(counts.values()) <= 4


@pytest.mark.parametrize(("region", "usual"), [("humerus", 2), ("elbow", 2), ("wrist", 3), ("finger", 3)])
def test_views_per_study_are_those_of_mura(region, usual):
    rng = np.random.default_rng(0)
    counts = Counter(synthetic._draw_n_views(rng, region) for _ in range(300))
    assert counts.most_common(1)[0][0] == usual
    assert set(counts) == {1, 2, 3, 4}


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("n_patients", [2, 3, 8, 17, 500])
def test_plan_keeps_the_abnormal_fraction_and_both_labels(fraction, n_patients):
    studies = synthetic._plan_studies(n_patients, SEVEN, fraction, 0.2, seed=1)
    assert len({study.patient for study in studies}) == n_patients
    assert len({study.folder for study in studies}) == len(studies)
    if n_patients >= 7:
        assert {study.region for study in studies} == set(SEVEN)
    for subset in ("train", "valid"):
        labels = [study.label for study in studies if study.subset == subset]
        assert len(labels) == 1 or set(labels) == {0, 1}
    n_abnormal = sum(study.label for study in studies)
    assert abs(n_abnormal - fraction * len(studies)) <= (0.5 if n_patients > 17 else 1.5)


@pytest.mark.parametrize("regions", ["wrist", "XR_WRIST", ["wrist"], ("XR_WRIST", "wrist")])
def test_regions_are_named_as_one_likes(tmp_path, regions):
    root = make_mura(tmp_path / "m", n_patients=3, regions=regions, image_size=32, random_state=0)
    assert {study[1] for study in studies_of(root)} == {"XR_WRIST"}


# Images


def test_longer_side_is_the_image_size_and_the_shorter_varies(root):
    sizes = []
    for path in root.rglob("*.png"):
        with Image.open(path) as image:
            sizes.append(image.size)
    assert {max(size) for size in sizes} == {64}
    assert min(min(size) for size in sizes) >= 0.35 * 64 - 1
    assert len({min(size) for size in sizes}) > 10


def test_both_modes_occur_and_the_channels_of_a_colour_file_are_equal(root):
    modes = Counter()
    for path in root.rglob("*.png"):
        with Image.open(path) as image:
            modes[image.mode] += 1
            if image.mode == "RGB":
                pixels = np.asarray(image)
                assert (pixels == pixels[..., :1]).all()
    assert set(modes) == {"L", "RGB"}
    assert 0.5 < modes["RGB"] / modes.total() < 0.8


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("shape", [(5, 7), (40, 1), (33, 64)])
def test_png_files_hold_the_pixels_given(tmp_path, mode, shape):
    pixels = np.random.default_rng(0).integers(0, 256, size=shape, dtype=np.uint8)
    synthetic.write_png(tmp_path / "a.png", pixels, mode)
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.mode == mode
        np.testing.assert_array_equal(np.asarray(image.convert("L")), pixels)


@pytest.mark.parametrize("region", SEVEN)
def test_bone_is_brighter_than_soft_tissue_and_film_is_dark(region):
    patient = draw_patient(1, effect=0.0)
    pixels, box = _phantom.draw_radiograph(region, patient, draw_view(1), image_size=256, noise=0.0)
    assert box is None
    assert pixels.dtype == np.uint8 and pixels.max() > 150
    assert np.percentile(pixels, 2) < 40
    assert 0.01 < np.mean(pixels > 130) < 0.6


def test_noise_is_scaled():
    patient, view = draw_patient(1), draw_view(1)
    clean, some, more = (
        _phantom.draw_radiograph("hand", patient, view, image_size=128, noise=noise)[0].astype(int)
        for noise in (0.0, 1.0, 3.0)
    )
    assert 0 < np.abs(some - clean).mean() < np.abs(more - clean).mean()


def test_images_larger_than_the_noise_tile_can_be_drawn():
    pixels, _ = _phantom.draw_radiograph("wrist", draw_patient(1), draw_view(1), image_size=1100)
    assert max(pixels.shape) == 1100


# Findings


def test_every_abnormal_study_shows_a_finding_and_no_normal_one_does(root, findings):
    shown = {path.rsplit("/", 1)[0] for path, _, _ in findings}
    abnormal = {"/".join((root.name, *study)) for *study, label in studies_of(root) if label}
    assert shown == abnormal


def test_some_views_of_abnormal_studies_show_nothing(root, findings):
    abnormal = {path for path in root.rglob("*.png") if path.parent.name.endswith("_positive")}
    assert 0.6 * len(abnormal) < len(findings) < len(abnormal)


def test_hardware_is_a_share_of_the_findings(tmp_path):
    kinds = Counter(_sampling.draw_finding(np.random.default_rng(seed)).kind for seed in range(600))
    assert set(kinds) == set(_sampling.FINDINGS)
    assert 0.28 < kinds["hardware"] / kinds.total() < 0.5


def test_boxes_lie_inside_their_images(root, findings):
    for path, _, (x0, y0, x1, y1) in findings:
        with Image.open(root.parent / path) as image:
            width, height = image.size
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height


@pytest.mark.parametrize("region", SEVEN)
@pytest.mark.parametrize("kind", _sampling.FINDINGS)
def test_image_differs_from_that_of_a_healthy_limb_where_the_box_is(region, kind):
    for seed in range(6):
        patient, view = draw_patient(seed), draw_view(seed)
        finding = draw_finding(seed, kind)
        ill, box = _phantom.draw_radiograph(region, patient, view, finding, image_size=128, noise=0.0)
        healthy, _ = _phantom.draw_radiograph(region, patient, view, image_size=128, noise=0.0)
        changed = np.abs(ill.astype(int) - healthy) > 8
        assert box is not None
        x0, y0, x1, y1 = box
        inside = changed[y0:y1, x0:x1].sum()
        assert inside >= 6
        # A displaced bone differs from the break up to its end, and a box marks the break.
        assert kind in ("displaced", "fracture") or inside > 0.9 * changed.sum()


def test_asking_for_findings_leaves_the_images_as_they_are(tmp_path):
    options = {"n_patients": 4, "regions": "finger", "image_size": 48, "random_state": 5}
    with_findings = make_mura(tmp_path / "a", record_findings=True, **options)
    without = make_mura(tmp_path / "b", **options)
    assert tree_hash(with_findings) == tree_hash(without)


# Patients


def test_habits_repeat_over_a_patients_images_and_differ_between_patients():
    def look(patient, view):
        pixels, _ = _phantom.draw_radiograph("hand", patient, view, image_size=128)
        return np.bincount(pixels.ravel() // 16, minlength=16) / pixels.size

    looks = [[look(draw_patient(k), draw_view(10 * k + number)) for number in range(3)] for k in range(12)]
    within = np.mean([np.abs(a - b).sum() for views in looks for a, b in pairwise(views)])
    patients = [np.mean(views, axis=0) for views in looks]
    between = np.mean([np.abs(a - b).sum() for a, b in pairwise(patients)])
    assert between > 1.5 * within


def test_without_patient_effect_all_patients_have_the_same_habits():
    assert draw_patient(1, effect=0.0) == draw_patient(2, effect=0.0)
    assert draw_patient(1) != draw_patient(2)


# Repeatability


def test_same_seed_same_pixels_on_every_platform(tmp_path):
    root = make_mura(tmp_path / "hashed", n_patients=14, image_size=96, random_state=42)
    assert tree_hash(root) == PIXEL_HASH


def test_other_seed_other_images(tmp_path):
    options = {"n_patients": 2, "regions": "hand", "image_size": 32}
    roots = [make_mura(tmp_path / f"m{seed}", random_state=seed, **options) for seed in (0, 1, None)]
    hashes = {tree_hash(root) for root in roots}
    assert len(hashes) == 3


@pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng, int])
def test_any_kind_of_random_state_repeats(tmp_path, make):
    options = {"n_patients": 2, "regions": "hand", "image_size": 32}
    before = np.random.get_state()[1].copy()
    a, b = (make_mura(tmp_path / name, random_state=make(7), **options) for name in "ab")
    assert tree_hash(a) == tree_hash(b)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


# Errors


@pytest.mark.parametrize("leftover", ["file", "folder"])
def test_existing_root_is_left_alone(tmp_path, leftover):
    root = tmp_path / "m"
    if leftover == "file":
        root.write_text("mine")
    else:
        root.mkdir()
        (root / "mine").write_text("mine")
    with pytest.raises(FileExistsError, match="give another root, or delete it"):
        make_mura(root, n_patients=2, image_size=32)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_empty_and_missing_folders_are_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "empty", tmp_path / "not" / "yet"):
        assert make_mura(root, n_patients=2, regions="hand", image_size=32, random_state=0) == root
        assert (root / "train_image_paths.csv").exists()


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_interrupted_call_leaves_nothing(tmp_path, monkeypatch, error):
    written = []

    def write(path, pixels, mode):
        if len(written) == 3:
            raise error
        written.append(path)
        path.write_bytes(b"")

    monkeypatch.setattr(synthetic, "write_png", write)
    with pytest.raises(type(error)):
        make_mura(tmp_path / "m", n_patients=4, image_size=32, random_state=0)
    assert len(written) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"regions": ["wrist", "XR_KNEE"]}, ValueError, r"\['XR_KNEE'\]; choose from elbow, .*wrist"),
        ({"regions": []}, ValueError, "regions is empty"),
        ({"n_patients": 1}, ValueError, "n_patients must be at least 2"),
        ({"n_patients": 2.5}, TypeError, "n_patients must be an integer"),
        ({"image_size": 8}, ValueError, "image_size must be at least 32"),
        ({"abnormal_fraction": 0}, ValueError, r"abnormal_fraction must be a number in \(0, 1\)"),
        ({"abnormal_fraction": 1.0}, ValueError, "abnormal_fraction"),
        ({"valid_fraction": float("nan")}, ValueError, "valid_fraction"),
        ({"patient_effect": 1.5}, ValueError, r"patient_effect must be a number in \[0, 1\]"),
        ({"noise": -1}, ValueError, "noise"),
        ({"random_state": "0"}, TypeError, "random_state must be None, an integer"),
        ({"random_state": -1}, ValueError, "random_state must not be negative"),
    ],
)
def test_wrong_arguments_are_named_with_what_is_allowed(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        make_mura(tmp_path / "m", **options)
    assert list(tmp_path.iterdir()) == []


def test_parameters_but_the_root_are_keywords():
    kinds = [parameter.kind for parameter in inspect.signature(make_mura).parameters.values()]
    assert kinds[0] is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert set(kinds[1:]) == {inspect.Parameter.KEYWORD_ONLY}


def draw_patient(seed, effect=1.0):
    return _sampling.draw_habits(np.random.default_rng([seed, 1]), effect, "L")


def draw_view(seed):
    return _sampling.draw_view(np.random.default_rng([seed, 2]), 0)


def draw_finding(seed, kind):
    finding = _sampling.draw_finding(np.random.default_rng([seed, 3]))
    return dataclasses.replace(finding, kind=kind)
