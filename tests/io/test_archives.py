"""Radiographs in ZIP archives are read in place, and give what a folder gives."""

import multiprocessing
import os
import shutil
import stat
import struct
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from helpers import patients_of, quick_classifier, regions_of, studies_of
from PIL import Image

from murakit import (
    MuraClassifier,
    UnreadableImage,
    check_mura,
    evaluate,
    load_mura,
    load_radiographs,
    predict_frame,
    read_image,
    read_square,
    write_mura_csv,
)
from murakit.cache import ImageStore
from murakit.datasets._paths import as_paths
from murakit.datasets._samples import as_samples, check_repeats, expand
from murakit.io import _filesystem

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def zipped(root, method=zipfile.ZIP_DEFLATED, *, name=None, top=True):
    """Pack a folder as MURA is packed: with the folder itself at the top."""
    path = root.parent / (name or f"{root.name}.zip")
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root.parent if top else root))
    return path


@pytest.fixture(scope="module")
def archive(small_mura, tmp_path_factory):
    copy = tmp_path_factory.mktemp("zip") / small_mura.name
    shutil.copytree(small_mura, copy)
    path = zipped(copy)
    shutil.rmtree(copy)
    return path


def png(pixels=RAMP, folder=None):
    file = folder / "png.png"
    Image.fromarray(pixels).save(file)
    data = file.read_bytes()
    file.unlink()
    return data


@pytest.fixture
def made(tmp_path):
    """A function that writes an archive of names and contents."""

    def write(members, name="films.zip", method=zipfile.ZIP_STORED):
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", method) as archive:
            for member, content in members.items():
                archive.writestr(member, png(folder=tmp_path) if content is None else content)
        return path

    return write


def inside(archive, root, paths):
    """The paths of a folder's files in its archive."""
    return [f"{archive}!{root.name}/{os.path.relpath(path, root)}" for path in paths]


# -- the same as from a folder ----------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subset": "all"},
        {"subset": "valid", "level": "study"},
        {"regions": "wrist", "target": "region_abnormal"},
        {"subset": "all", "level": "study", "target": "region"},
    ],
    ids=str,
)
def test_the_bunch_is_that_of_the_folder_but_for_the_paths(small_mura, archive, options):
    packed, plain = load_mura(archive, **options), load_mura(small_mura, **options)
    assert packed.data.tolist() == inside(archive, small_mura, plain.data)
    for name in ("target", "patients", "studies", "regions"):
        np.testing.assert_array_equal(packed[name], plain[name])
    assert packed.target_names == plain.target_names and packed.problems.empty
    pd.testing.assert_frame_equal(packed.frame.drop(columns="path"), plain.frame.drop(columns="path"))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("top", [True, False])
def test_however_it_was_packed(mura_tree, method, top):
    root = mura_tree({"train/XR_HAND/patient00001/study1_positive": 2})
    path = zipped(root, method, top=top)
    packed, plain = load_mura(path), load_mura(root)
    for a, b in zip(packed.data, plain.data, strict=True):
        np.testing.assert_array_equal(read_image(a), read_image(b))
    assert packed.patients.tolist() == plain.patients.tolist()


def test_the_top_folder_and_other_spellings_lead_to_the_same(archive, small_mura, monkeypatch):
    expected = load_mura(archive).data.tolist()
    monkeypatch.chdir(archive.parent)
    for root in (f"{archive}!", f"{archive}!{small_mura.name}", archive.name, f"{archive.name}!/"):
        assert load_mura(root).data.tolist() == expected


def test_a_region_or_subset_inside_is_pointed_out(archive, small_mura):
    with pytest.raises(ValueError, match=r"is a subset folder .*Pass root='.*\.zip!MURA-v1\.1'"):
        load_mura(f"{archive}!{small_mura.name}/train")


def test_disagreements_of_csvs_inside_are_found(mura_tree):
    root = mura_tree({"train/XR_HAND/patient00001/study1_positive": 3})
    (root / "train/XR_HAND/patient00001/study1_positive/image2.png").unlink()
    path = zipped(root)
    with pytest.raises(ValueError, match=r"zip!.*image2\.png: missing image"):
        load_mura(path)
    with pytest.warns(UserWarning, match="left out"):
        assert len(load_mura(path, on_error="skip").data) == 2


def test_what_a_mac_adds_is_passed_over(made):
    path = made(
        {
            "MURA-v1.1/train/XR_HAND/patient00001/study1_positive/image1.png": None,
            "MURA-v1.1/train/XR_HAND/patient00001/study1_positive/._image1.png": b"junk",
            "__MACOSX/MURA-v1.1/train/XR_HAND/patient00001/study1_positive/._image1.png": b"junk",
            "MURA-v1.1/.DS_Store": b"junk",
        }
    )
    assert len(load_mura(path).data) == 1


def test_pixels_are_those_of_the_folder(small_mura, archive):
    for packed, plain in zip(load_mura(archive).data[:5], load_mura(small_mura).data[:5], strict=True):
        np.testing.assert_array_equal(read_image(packed), read_image(plain))
        np.testing.assert_array_equal(read_square(packed, 24), read_square(plain, 24))


def test_every_format_of_pillow_is_read_from_an_archive(tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    for suffix in ("png", "jpg", "tif", "bmp", "webp"):
        Image.fromarray(RAMP).save(folder / f"a.{suffix}")
    path = zipped(folder)
    for file in folder.iterdir():
        np.testing.assert_array_equal(read_image(f"{path}!films/{file.name}"), read_image(file))


def test_helpers_read_patients_studies_and_regions(small_mura, archive):
    packed, plain = load_mura(archive).data, load_mura(small_mura).data
    for helper in (patients_of, studies_of, regions_of):
        assert helper(packed).tolist() == helper(plain).tolist()
    # Also where the data set has no folder of its own in the archive.
    assert patients_of(["a.zip!train/XR_HAND/patient00001/study1_positive"]).tolist() == ["patient00001"]
    assert studies_of(["a.zip!XR_HAND/patient00001/study1/image1.png"]).tolist() == [
        "XR_HAND/patient00001/study1"
    ]


def test_study_folders_stand_for_their_images(small_mura, archive):
    packed, rows = expand(load_mura(archive, level="study").data)
    plain, expected = expand(load_mura(small_mura, level="study").data)
    assert packed.tolist() == inside(archive, small_mura, plain)
    np.testing.assert_array_equal(rows, expected)


def test_missing_and_doubled_samples_are_named(archive):
    path = load_mura(archive).data[0]
    with pytest.raises(FileNotFoundError, match=r"1 of 2 paths .*gone\.png"):
        expand(as_paths([path, f"{archive}!gone.png"]))
    with pytest.raises(FileNotFoundError, match=r"1 of 1 paths .*gone\.zip"):
        expand(as_paths([f"{archive.parent}/gone.zip!a.png"]))
    twice = as_paths([path, path.replace("!", "!/")])
    with pytest.raises(ValueError, match="rows 0 and 1 both"):
        check_repeats(as_samples(twice), np.array([0, 1]))


@pytest.fixture(scope="module")
def trained(small_mura):
    train = load_mura(small_mura, regions="wrist")
    clf = MuraClassifier(weights=None, unfreeze="head", image_size=32, max_epochs=1, random_state=0)
    return clf.fit(train.data, train.target)


def test_fits_predictions_and_tables_are_those_of_the_folder(small_mura, archive, trained, tmp_path):
    train = load_mura(archive, regions="wrist")
    clf = MuraClassifier(weights=None, unfreeze="head", image_size=32, max_epochs=1, random_state=0)
    clf.fit(train.data, train.target)
    packed, plain = load_mura(archive, subset="valid"), load_mura(small_mura, subset="valid")
    expected = trained.predict_proba(plain.data)
    np.testing.assert_array_equal(clf.predict_proba(packed.data), expected)
    np.testing.assert_array_equal(clf.predict_proba(packed.data), trained.predict_proba(packed.data))
    tables = [predict_frame(clf, data.data, level="study") for data in (packed, plain)]
    pd.testing.assert_frame_equal(*(table.drop(columns="path") for table in tables))
    lines = []
    for table in tables:
        write_mura_csv(table, tmp_path / "mura.csv")
        lines.append((tmp_path / "mura.csv").read_text())
    assert lines[0] == lines[1]


@pytest.mark.parametrize("level", ["image", "study"])
def test_evaluations_are_those_of_the_folder(small_mura, archive, trained, level):
    values = []
    for root in (archive, small_mura):
        valid = load_mura(root, subset="valid", level=level)
        values.append(evaluate(trained, valid.data, valid.target, n_resamples=20).to_frame())
    pd.testing.assert_frame_equal(*values)


def test_check_mura_finds_the_same_problems(mura_tree):
    root = mura_tree(
        {"train/XR_HAND/patient00001/study1_positive": 2, "valid/XR_HAND/patient00001/study1_positive": 1}
    )
    (root / "train/XR_HAND/patient00001/study1_positive/image2.png").write_bytes(b"no image")
    shutil.copy(
        root / "train/XR_HAND/patient00001/study1_positive/image1.png",
        root / "valid/XR_HAND/patient00001/study1_positive/image1.png",
    )
    packed, plain = check_mura(zipped(root), verbose=0), check_mura(root, verbose=0)
    assert (
        packed["problem"].tolist()
        == plain["problem"].tolist()
        == [
            "patient in several subsets",
            "unreadable image",
        ]
    )
    assert packed["path"].tolist() == inside(f"{root}.zip", root, plain["path"])


def test_tables_may_list_members_or_be_one(made, tmp_path):
    path = made({"a.png": None, "b/c.png": None, "mine.csv": "file,fracture,who\na.png,0,p1\nb/c.png,1,p2\n"})
    names = {"path": "file", "label": "fracture", "patient": "who"}
    table = pd.DataFrame({"file": ["a.png", "b/c.png"], "fracture": [0, 1], "who": ["p1", "p2"]})
    expected = [f"{path}!a.png", f"{path}!b/c.png"]
    mine = load_radiographs(table, **names, root=path)
    assert mine.data.tolist() == expected
    assert mine.frame["image"].tolist() == ["a.png", "c.png"]
    assert load_radiographs(f"{path}!mine.csv", **names).data.tolist() == expected
    listed = table.assign(file=["films.zip!a.png", "films.zip!b/../b/c.png"])
    assert load_radiographs(listed, **names, root=tmp_path).data.tolist() == expected
    for gone in ("gone.png", "../mine.csv", "b/../../films/a.png"):
        with pytest.raises(FileNotFoundError, match=r"row 1: '.*films\.zip!.*root="):
            load_radiographs(table.assign(file=["a.png", gone]), **names, root=path)


# -- stores, threads and processes -------------------------------------------------------------


def test_stored_images_are_those_of_the_folder(small_mura, archive, tmp_path):
    packed = ImageStore(tmp_path / "cache", image_size=32).open(load_mura(archive).data)
    plain = ImageStore(image_size=32).open(load_mura(small_mura).data)
    np.testing.assert_array_equal(packed[:].numpy(), plain[:].numpy())


def test_a_changed_archive_is_decoded_again(made, tmp_path):
    for value in (10, 200):
        data = png(np.full((32, 32), value, dtype=np.uint8), tmp_path)
        path = made({"image1.png": data})
        # The clock of a file system may not tell two quick writes apart.
        os.utime(path, ns=(value, value))
        rows = ImageStore(tmp_path / "cache", image_size=32).open([f"{path}!image1.png"])
        assert (rows[:] == value).all()
        assert (read_image(f"{path}!image1.png") == value).all()


def test_a_directory_is_read_once(archive, monkeypatch):
    opened = []
    monkeypatch.setattr(
        _filesystem.zipfile, "ZipFile", lambda *args, zip=zipfile.ZipFile: opened.append(args) or zip(*args)
    )
    _filesystem._read_directory.cache_clear()
    mura = load_mura(archive, subset="all")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read_image, expand(mura.data)[0]))
    assert len(opened) == 1


def pixels_of(path):
    return read_image(path).tolist()


@pytest.mark.parametrize("method", sorted({"spawn", "fork"} & set(multiprocessing.get_all_start_methods())))
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_processes_read_at_the_same_time(archive, method):
    paths = load_mura(archive).data[:8]
    expected = [pixels_of(path) for path in paths]
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(pixels_of, paths, chunksize=1) == expected


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_in_the_middle_of_reading_does_not_hang(archive):
    path = load_mura(archive).data[0]
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork on this platform")
    with _filesystem._reading:
        child = multiprocessing.get_context("fork").Process(target=pixels_of, args=(path,))
        child.start()
    child.join(30)
    assert child.exitcode == 0


# -- archives that are not to be trusted -------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("/etc/a.png", "../a.png", "b/../../a.png", "C:/a.png", "b//a.png", "b/./a.png", "a\0b.png"),
        *("..\\a.png", "b\\..\\..\\a.png", "\\\\host\\a.png", "C:\\a.png", ".//a.png"),
    ],
)
def test_names_that_leave_the_archive_are_refused(made, name):
    path = made({"fine.png": None})
    # Patched in place: zipfile would tidy some of these names up.
    info = zipfile.ZipInfo("x" * len(name))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, b"pixels")
    path.write_bytes(path.read_bytes().replace(b"x" * len(name), name.encode()))
    with pytest.raises(
        UnreadableImage, match=r"films\.zip' is refused: .*Unpack it with a tool you trust"
    ) as caught:
        read_image(f"{path}!fine.png")
    assert repr(name.replace("\\", "/").removeprefix("./")) in str(caught.value)
    with pytest.raises(ValueError, match="is refused"):
        load_mura(path)


@pytest.mark.parametrize("spelt", ["{}", "./{}", "././{}", ".\\{}", "windows"])
def test_separators_and_starts_of_other_programs_are_understood(made, tmp_path, spelt):
    names = [f"MURA/train/XR_WRIST/patient0000{number}/study1_positive/image1.png" for number in (1, 2)]
    path = made({"a.txt": b""})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("./"), b"")
        for number, name in enumerate(names):
            info = zipfile.ZipInfo("x")
            # Afterwards, because zipfile would tidy it up.
            info.filename = name.replace("/", "\\") if spelt == "windows" else spelt.format(name)
            archive.writestr(info, png(RAMP + number, tmp_path))
    assert load_mura(path).data.tolist() == [f"{path}!{name}" for name in names]
    for number, name in enumerate(names):
        np.testing.assert_array_equal(read_image(f"{path}!{name}"), RAMP + number)


def test_folders_may_end_in_a_backslash(made):
    path = made({"b/": b"", "b/a.png": None})
    path.write_bytes(path.read_bytes().replace(b"b/", b"b\\"))
    assert _filesystem.open_archive(path).folders == {"": ["b"], "b": ["a.png"]}
    assert read_image(f"{path}!b/a.png").shape == RAMP.shape


def test_a_name_in_two_spellings_is_refused(made):
    with pytest.raises(ValueError, match=r"'b/a\.png' occurs twice"):
        load_mura(made({"b/a.png": None, "./b/a.png": None}))


def test_a_member_that_lies_under_another_name_is_refused(made):
    path = made({"healthy.png": None, "broken1.png": None})
    data = path.read_bytes()
    # The first is the local header, the second the entry of the central directory.
    at = data.index(b"broken1.png")
    path.write_bytes(data[:at] + b"another.png" + data[at + 11 :])
    with pytest.raises(
        UnreadableImage, match=r"member 'broken1\.png' .*'another\.png'.*pack the archive again"
    ):
        read_image(f"{path}!broken1.png")
    assert read_image(f"{path}!healthy.png").shape == RAMP.shape


def test_names_in_other_scripts_are_read(made):
    path = made({"Röntgen/手.png": None, "cafe.png": None})
    data = path.read_bytes()
    path.write_bytes(data.replace(b"cafe.png", "caf\u00e9.png".encode("cp437")))
    assert read_image(f"{path}!Röntgen/手.png").shape == RAMP.shape
    assert read_image(f"{path}!caf\u00e9.png").shape == RAMP.shape


def test_a_name_twice_is_refused(made):
    path = made({"a.png": None, "b.png": None})
    path.write_bytes(path.read_bytes().replace(b"b.png", b"a.png"))
    with pytest.raises(ValueError, match=r"'a\.png' occurs twice"):
        load_mura(path)
    path = made({"a": b"", "a/b.png": None})
    with pytest.raises(ValueError, match="'a' is both a file and a folder"):
        load_mura(path)


def test_links_are_not_followed(made, tmp_path):
    path = made({"a.png": None})
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, str(tmp_path / "secret.png"))
    with pytest.raises(UnreadableImage, match=r"'link\.png' of the archive .*films\.zip' is a symbolic link"):
        read_image(f"{path}!link.png")
    assert read_image(f"{path}!a.png").shape == RAMP.shape


def patched(path, name, *, flag=None, method=None, size=None, crc=None):
    """Change fields of a member in the central directory."""
    data = bytearray(path.read_bytes())
    at = data.rindex(name.encode()) - 46
    assert data[at : at + 4] == b"PK\1\2"
    for offset, form, value in ((8, "<H", flag), (10, "<H", method), (24, "<I", size), (16, "<I", crc)):
        if value is not None:
            struct.pack_into(form, data, at + offset, value)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"flag": 1}, "is encrypted. Unpack the archive with its password"),
        ({"method": 12}, "is packed with method 12; only 'stored' and 'deflated'"),
        ({"size": 2**31}, "has 2,147,483,648 bytes by the directory, more than the 268,435,456 .*bomb"),
        ({"size": 10}, "is damaged"),
        ({"crc": 1}, "is damaged"),
        ({"method": 8}, "is damaged"),
    ],
)
def test_members_that_are_not_read_are_named(made, change, words):
    path = made({"a.png": None, "b.png": None})
    patched(path, "a.png", **change)
    with pytest.raises(UnreadableImage, match=rf"member 'a\.png' of the archive '.*films\.zip' {words}"):
        read_image(f"{path}!a.png")
    assert read_image(f"{path}!b.png").shape == RAMP.shape


def test_no_more_is_inflated_than_declared(made, monkeypatch):
    path = made({"a.png": bytes(50_000_000)}, method=zipfile.ZIP_DEFLATED)
    patched(path, "a.png", size=1000)
    most = []
    inflate = zlib.decompressobj

    class Watched:
        def __init__(self, *args):
            self.inner = inflate(*args)

        def decompress(self, *args):
            data = self.inner.decompress(*args)
            most.append(len(data))
            return data

    monkeypatch.setattr(_filesystem.zlib, "decompressobj", Watched)
    with pytest.raises(UnreadableImage, match="is damaged"):
        read_image(f"{path}!a.png")
    assert most == [1001]


def test_what_is_no_archive_says_so(tmp_path, archive):
    (tmp_path / "a.zip").write_bytes(b"no archive")
    for read in (load_mura, lambda path: read_image(f"{path}!a.png")):
        with pytest.raises(
            (ValueError, UnreadableImage), match=r"a\.zip' cannot be read as a ZIP archive.*unpack"
        ):
            read(tmp_path / "a.zip")
    cut = tmp_path / "cut.zip"
    cut.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"cut\.zip' cannot be read as a ZIP archive"):
        load_mura(cut)
    with pytest.raises(FileNotFoundError, match="no folder"):
        load_mura(tmp_path / "gone.zip")


def test_missing_members_folders_and_strangers(made):
    path = made({"b/a.png": None, "text.png": b"text", "empty.png": b""})
    with pytest.raises(FileNotFoundError, match=r"films\.zip' has no member 'gone\.png'"):
        read_image(f"{path}!gone.png")
    with pytest.raises(FileNotFoundError):
        read_image(f"{path.parent}/gone.zip!a.png")
    for name, cause in (("b", "it is a folder"), ("text.png", "cannot identify"), ("empty.png", "is empty")):
        with pytest.raises(UnreadableImage, match=cause):
            read_image(f"{path}!{name}")


def test_a_long_name_is_refused(made):
    path = made({"d/" * 600 + "a.png": None})
    with pytest.raises(ValueError, match="is refused"):
        load_mura(path)


def test_nothing_is_written_beside_the_archive(archive):
    before = sorted(archive.parent.rglob("*"))
    quick_classifier(max_epochs=1).fit(*load_mura(archive, return_X_y=True))
    assert sorted(archive.parent.rglob("*")) == before == [archive]
