"""Images are decoded once and frozen stages run once; whatever happens to the store, the result is right."""

import errno
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from helpers import TinyNet, quick_classifier, same_state, state_of
from PIL import Image
from sklearn.model_selection import cross_val_score
from torch.utils.data import DataLoader

from murakit import (
    CacheWarning,
    MuraSearchCV,
    PatientKFold,
    cache_info,
    clear_cache,
    networks,
    read_square,
)
from murakit.augmentation import Augmentation
from murakit.cache import FeatureStore, ImageStore
from murakit.cache import _base as _store
from murakit.cache import _lmdb as disk_room
from murakit.cache import _store as store
from murakit.cache._base import Files, Memory, TensorRows
from murakit.cache._lmdb import FILE, open_disk
from murakit.training._inputs import ViewRows, rows_on_device


@pytest.fixture
def counted(monkeypatch):
    """The paths that are decoded, in a list."""
    decoded = []

    def read(path, *args):
        decoded.append(path)
        return read_square(path, *args)

    monkeypatch.setattr(store, "read_square", read)
    return decoded


@pytest.fixture
def passes(monkeypatch):
    """The numbers of images that were sent through frozen stages."""
    sizes = []
    run = store.FeatureStore._run_frozen

    def counting(self, block):
        sizes.append(len(block))
        return run(self, block)

    monkeypatch.setattr(store.FeatureStore, "_run_frozen", counting)
    return sizes


def pixels(paths, size=32):
    return np.stack([read_square(path, size) for path in paths])[:, None]


def put_junk(path, at, n_bytes=64):
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * n_bytes)


# -- images ---------------------------------------------------------------------------------


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_store_returns_what_the_reader_reads(images, tmp_path, on_disk):
    rows = ImageStore(tmp_path if on_disk else None, image_size=32).open(images.data)
    np.testing.assert_array_equal(rows[:].numpy(), pixels(images.data))
    np.testing.assert_array_equal(rows.__getitems__([5, 0, 5]).numpy(), pixels(images.data[[5, 0, 5]]))


@pytest.mark.parametrize("n_jobs", [1, 3, -1])
def test_the_number_of_threads_changes_nothing(images, n_jobs):
    rows = ImageStore(image_size=32, n_jobs=n_jobs).open(images.data)
    np.testing.assert_array_equal(rows[:].numpy(), pixels(images.data))


def test_rows_are_a_dataset_of_pytorch(images, tmp_path):
    rows = ImageStore(tmp_path, image_size=32).open(images.data)
    loader = DataLoader(rows, batch_size=7, collate_fn=lambda batch: batch)
    np.testing.assert_array_equal(torch.cat(list(loader)).numpy(), pixels(images.data))


def test_an_image_is_decoded_once(images, tmp_path, counted):
    for _ in range(3):
        ImageStore(tmp_path, image_size=32).open(images.data)[:]
    assert sorted(counted) == sorted(images.data)


def test_every_option_that_changes_pixels_is_told_apart(images, tmp_path):
    for size, resize in ((32, "pad"), (40, "pad"), (32, "squash")):
        rows = ImageStore(tmp_path, image_size=size, resize=resize).open(images.data)
        expected = np.stack([read_square(path, size, resize) for path in images.data])[:, None]
        np.testing.assert_array_equal(rows[:].numpy(), expected)
    info = cache_info(tmp_path)
    assert sorted((what["image_size"], what["resize"]) for what in info.what) == [
        (32, "pad"),
        (32, "squash"),
        (40, "pad"),
    ]
    assert (info.kind == "images").all() and (info.n_images == len(images.data)).all()


def test_a_changed_file_is_decoded_again(tmp_path):
    path = tmp_path / "image1.png"
    for value in (10, 200):
        Image.fromarray(np.full((32, 32), value, dtype=np.uint8)).save(path)
        # The clock of a file system may not tell two quick writes apart.
        os.utime(path, ns=(value, value))
        rows = ImageStore(tmp_path / "cache", image_size=32).open([path])
        assert (rows[:] == value).all()


def test_an_unreadable_image_is_named(images, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    from murakit import UnreadableImage

    with pytest.raises(UnreadableImage, match=r"bad\.png"):
        ImageStore(tmp_path / "cache", image_size=32).open([*images.data[:3], bad])
    rows = ImageStore(tmp_path / "cache", image_size=32).open(images.data)
    np.testing.assert_array_equal(rows[:].numpy(), pixels(images.data))


# -- what a classifier gains ----------------------------------------------------------------


OPTIONS = {
    "head": {"unfreeze": "head", "augment": False},
    "stage": {"unfreeze": "two", "augment": False},
    "head first": {"unfreeze": "two", "augment": False, "head_epochs": 1},
    "all, head first": {"unfreeze": "all", "augment": False, "head_epochs": 1},
    "augmented": {"unfreeze": "two", "augment": True},
    "views": {"unfreeze": "two", "augment": True, "augment_views": 3},
    "views, head first": {"unfreeze": "two", "augment": True, "augment_views": 3, "head_epochs": 1},
    "nothing frozen": {"unfreeze": "all", "augment": True, "augment_views": 3},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_same_bits_come_out_wherever_things_are_stored(images, tmp_path, monkeypatch, name):
    fits = [quick_classifier(**OPTIONS[name], cache=cache) for cache in (None, tmp_path, tmp_path)]
    for clf in fits:
        clf.fit(images.data, images.target)
    monkeypatch.setattr("murakit.cache._base.free_memory", lambda: 0)
    fits.append(quick_classifier(**OPTIONS[name]).fit(images.data, images.target))
    proba = [clf.predict_proba(images.data) for clf in fits]
    for clf, theirs in zip(fits[1:], proba[1:]):
        assert same_state(state_of(fits[0]), state_of(clf))
        np.testing.assert_array_equal(proba[0], theirs)
        assert fits[0].history_.drop(columns="dur").equals(clf.history_.drop(columns="dur"))


@pytest.mark.parametrize("tta", [False, True])
def test_stored_features_predict_what_pixels_do(images, tmp_path, tta):
    clf = quick_classifier(tta=tta).fit(images.data, images.target)
    expected = clf.predict_proba(images.data)
    clf.set_params(cache=tmp_path)
    for _ in range(2):
        np.testing.assert_array_equal(clf.predict_proba(images.data), expected)


def test_cross_validation_of_a_head_sends_each_image_through_the_network_once(
    images, tmp_path, counted, passes
):
    clf = quick_classifier(unfreeze="head", augment=False, cache=tmp_path)
    cross_val_score(clf, images.data, images.target, cv=PatientKFold(3), scoring="roc_auc")
    cross_val_score(clf.set_params(lr=0.1), images.data, images.target, cv=PatientKFold(4))
    assert sorted(counted) == sorted(images.data)
    assert sum(passes) == len(images.data)


def test_other_weights_make_other_features(images, tmp_path, passes):
    for seed in (0, 1):
        quick_classifier(unfreeze="head", augment=False, cache=tmp_path, random_state=seed).fit(
            images.data, images.target
        )
    assert sum(passes) == 2 * len(images.data)


def test_what_frozen_stages_make_of_the_validation_images_is_kept_beside_augmentation(images, passes):
    clf = quick_classifier(max_epochs=4).fit(images.data, images.target)
    validated = np.isin(images.patients, clf.validation_patients_).sum()
    assert sum(passes) == validated


def test_each_view_is_computed_once_for_all_seeds(images, tmp_path, passes):
    weights = tmp_path / "tiny.pth"
    torch.save(TinyNet().state_dict(), weights)
    for seed in (0, 1):
        quick_classifier(
            augment_views=2,
            cache=tmp_path / "cache",
            early_stopping=False,
            max_epochs=5,
            weights=weights,
            random_state=seed,
        ).fit(images.data, images.target)
    assert sum(passes) == 2 * len(images.data)


def test_a_view_after_the_other_is_shown_by_partial_fits_too(images, monkeypatch):
    shown = []
    monkeypatch.setattr(ViewRows, "start_epoch", lambda rows, epoch: shown.append(epoch))
    clf = quick_classifier(augment_views=3)
    for _ in range(3):
        clf.partial_fit(images.data, images.target)
    clf.set_params(warm_start=True, early_stopping=False).fit(images.data, images.target)
    assert shown == [0, 1, 2, 3, 4]


def test_an_epoch_shows_one_view_of_each_image_and_the_next_another():
    n_images, n_views = 6, 3
    views = [TensorRows(torch.arange(n_images)[:, None] + 100 * number) for number in range(n_views)]
    rows = ViewRows(views)
    order = np.array([4, 0, 5, 3, 1, 2])
    seen = []
    for epoch in range(n_views):
        rows.start_epoch(epoch)
        batch = rows.__getitems__(order)[:, 0].numpy()
        np.testing.assert_array_equal(batch % 100, order)
        assert len(set(batch // 100)) == n_views  # no epoch shows one view alone
        seen.append(batch // 100)
    assert all(set(views) == {0, 1, 2} for views in zip(*seen))


def test_views_differ_from_each_other_and_from_the_image(images, tmp_path):
    quick_classifier(augment_views=2, cache=tmp_path, early_stopping=False).fit(images.data, images.target)
    quick_classifier(augment=False, cache=tmp_path, early_stopping=False).fit(images.data, images.target)
    info = cache_info(tmp_path)
    assert sorted(str(what.get("view")) for what in info.what[info.kind == "features"]) == ["0", "1", "None"]


def test_half_precision_is_stored_on_request(images, tmp_path):
    full = quick_classifier(augment=False).fit(images.data, images.target)
    half = quick_classifier(augment=False, feature_dtype="float16", cache=tmp_path)
    half.fit(images.data, images.target)
    info = cache_info(tmp_path)
    assert set(info.what[info.kind == "features"].map(lambda what: what["dtype"])) == {"float16"}
    # 8 x 8 positions of 4 channels at 2 bytes, and a checksum.
    features = info[info.kind == "features"].iloc[0]
    assert features.n_bytes == features.n_images * (8 * 8 * 4 * 2 + 4)
    np.testing.assert_allclose(half.predict_proba(images.data), full.predict_proba(images.data), atol=0.05)


def test_what_was_rounded_on_the_way_is_not_taken_for_what_was_not(images, tmp_path):
    X, y = images.data[:16], images.target[:16]
    half = {"augment": False, "feature_dtype": "float16", "early_stopping": False}
    fresh = quick_classifier(unfreeze="head", **half, cache=tmp_path / "one").fit(X, y)
    quick_classifier(unfreeze="two", head_epochs=1, **half, cache=tmp_path / "two").fit(X, y)
    after = quick_classifier(unfreeze="head", **half, cache=tmp_path / "two").fit(X, y)
    assert same_state(state_of(fresh), state_of(after))


OPENER = """
import pathlib, sys, warnings
from murakit.cache._lmdb import open_disk
warnings.simplefilter("error")
parent, n_others = pathlib.Path(sys.argv[1]), int(sys.argv[3])
for number in range(150):
    folder = parent / str(number)
    folder.mkdir(exist_ok=True)
    (folder / sys.argv[2]).touch()
    while len(list(folder.glob("process*"))) < n_others:
        pass
    assert open_disk(folder) is not None
"""


def test_processes_make_one_cache_at_the_same_moment(tmp_path):
    openers = [
        subprocess.Popen([sys.executable, "-c", OPENER, tmp_path, f"process{number}", "4"])
        for number in range(4)
    ]
    try:
        # One that fails leaves the others waiting for it.
        ended = [opener.wait(timeout=60) for opener in openers]
    finally:
        for opener in openers:
            opener.kill()
            opener.wait()
    assert ended == [0] * 4


def test_processes_share_one_cache(images, tmp_path):
    scores = [
        cross_val_score(
            # The tiny backbone is known to this process alone.
            quick_classifier(backbone="resnet18", unfreeze="head", augment=False, cache=cache),
            images.data,
            images.target,
            cv=PatientKFold(2),
            n_jobs=n_jobs,
        )
        for cache, n_jobs in ((None, 1), (tmp_path, 2), (tmp_path, 1))
    ]
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])


# -- room -----------------------------------------------------------------------------------


def test_what_does_not_fit_the_limit_is_kept_in_memory_and_that_is_said(images, tmp_path):
    expected = quick_classifier(augment=False).fit(images.data, images.target)
    clf = quick_classifier(augment=False, cache=tmp_path, cache_limit=100_000)
    with pytest.warns(
        CacheWarning, match=r"more than cache_limit=100 kB leaves on disk: they are kept in memory"
    ):
        clf.fit(images.data, images.target)
    assert same_state(state_of(expected), state_of(clf))
    assert (tmp_path / FILE).stat().st_size <= 100_000


def test_users_of_one_folder_have_limits_of_their_own(images, tmp_path):
    strict, free = ImageStore(tmp_path, image_size=32, cache_limit=0), ImageStore(tmp_path, image_size=32)
    with pytest.warns(CacheWarning, match="more than cache_limit=0 B leaves on disk"):
        strict.open(images.data)
    assert not len(cache_info(tmp_path))
    free.open(images.data)
    assert cache_info(tmp_path).n_images.tolist() == [len(images.data)]


def test_a_limit_holds_where_another_fills_the_folder_meanwhile(images, tmp_path, monkeypatch):
    monkeypatch.setattr("murakit.cache._base._MAX_CHUNK_IMAGES", 1)
    monkeypatch.setattr("murakit.cache._base.FROZEN_BATCH_SIZE", 1)
    pixels, other = (
        ImageStore(tmp_path, image_size=32, cache_limit=400_000),
        ImageStore(tmp_path, image_size=56),
    )
    compute = ImageStore._compute

    def beside(self, files):
        if self is pixels:
            other.open(images.data)
        yield from compute(self, files)

    monkeypatch.setattr(ImageStore, "_compute", beside)
    with pytest.warns(
        CacheWarning, match="more than cache_limit=400 kB leaves on disk: they are kept in memory"
    ):
        rows = pixels.open(images.data)
    np.testing.assert_array_equal(rows[:], np.stack([read_square(path, 32) for path in images.data])[:, None])
    assert 0 < cache_info(tmp_path).n_images.min() < len(images.data)
    assert (tmp_path / FILE).stat().st_size <= 400_000


def test_views_that_went_to_memory_are_told_of(images, tmp_path):
    options = {"early_stopping": False, "max_epochs": 1}
    quick_classifier(augment_views=1, cache=tmp_path, **options).fit(images.data, images.target)
    clf = quick_classifier(augment_views=3, cache=tmp_path, cache_limit=0, **options)
    with pytest.warns(CacheWarning, match=r"in 3 views .* they are kept in memory"):
        clf.fit(images.data, images.target)


def test_files_are_looked_up_once_a_fit(images, monkeypatch):
    monkeypatch.setattr("murakit.cache._base._IN_MEMORY_BYTES", 0)
    asked = []
    identity = _store._file_id
    monkeypatch.setattr(_store, "_file_id", lambda path: asked.append(path) or identity(path))
    quick_classifier(augment=False, early_stopping=False, max_epochs=4).fit(images.data, images.target)
    assert sorted(asked) == sorted(images.data)


@pytest.mark.parametrize("in_memory_bytes", [0, 2**20])
def test_one_row_is_one_array(images, monkeypatch, in_memory_bytes):
    monkeypatch.setattr("murakit.cache._base._IN_MEMORY_BYTES", in_memory_bytes)
    rows = ImageStore(image_size=32).open(images.data)
    np.testing.assert_array_equal(rows[3], rows[[3]][0])
    np.testing.assert_array_equal(rows[-1], rows[len(rows) - 1])


def test_sizes_may_be_numbers_of_numpy(images, tmp_path):
    clf = quick_classifier(image_size=np.int64(32), cache=tmp_path).fit(images.data, images.target)
    expected = quick_classifier().fit(images.data, images.target)
    assert same_state(state_of(clf), state_of(expected))


def test_a_folder_may_have_two_names(images, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "other").symlink_to(tmp_path / "real")
    stores = [ImageStore(tmp_path / name, image_size=32) for name in ("real", "other")]
    for each in stores:
        each.open(images.data)
    assert cache_info(tmp_path / "other").n_images.tolist() == [len(images.data)]


def test_a_limit_without_a_folder_is_one_of_memory(images):
    expected = quick_classifier().fit(images.data, images.target)
    clf = quick_classifier(cache_limit=1000)
    with pytest.warns(CacheWarning, match=r"leaves in memory: they are (read|computed)"):
        clf.fit(images.data, images.target)
    assert same_state(state_of(expected), state_of(clf))


def test_without_room_images_are_decoded_in_every_epoch(images, counted):
    clf = quick_classifier(unfreeze="all", cache_limit=0, early_stopping=False, max_epochs=3)
    with pytest.warns(CacheWarning, match="read from their files each time"):
        clf.fit(images.data, images.target)
    assert sorted(counted) == sorted([*images.data] * 3)


def test_where_things_are_kept_is_said_once(images, capsys):
    quick_classifier(verbose=1, augment=False, early_stopping=False).fit(images.data, images.target)
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("MuraClassifier")]
    n_images = len(images.data)
    assert lines == [
        f"Outputs of the stages before two of {n_images} images are kept in memory ({n_images * 1.024:.3g} kB)"
    ]


def test_large_activations_of_early_stages_are_not_put_on_disk(images, tmp_path):
    quick_classifier(backbone="resnet18", unfreeze="layer1", augment=False, max_epochs=1, cache=tmp_path).fit(
        images.data[:12], images.target[:12], groups=np.arange(12)
    )
    assert set(cache_info(tmp_path).kind) == {"images"}


def test_clearing_deletes_the_store_and_nothing_else(images, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    ImageStore(tmp_path, image_size=32).open(images.data)
    assert clear_cache(tmp_path) > len(images.data) * 32 * 32
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert clear_cache(tmp_path) == 0 and cache_info(tmp_path).empty


def test_a_store_that_is_cleared_while_it_is_read_goes_on_without(images, tmp_path):
    rows = ImageStore(tmp_path, image_size=32).open(images.data)
    clear_cache(tmp_path)
    with pytest.warns(CacheWarning, match="deleted meanwhile"):
        np.testing.assert_array_equal(rows[:].numpy(), pixels(images.data))


# -- what may happen to a store -------------------------------------------------------------


def trouble(images, folder, message):
    """Open a store, expect a warning and the right pixels."""
    with pytest.warns(CacheWarning, match=message):
        rows = ImageStore(folder, image_size=32).open(images.data)
        np.testing.assert_array_equal(rows[:].numpy(), pixels(images.data))


def test_a_store_of_another_version_is_left_alone(images, tmp_path):
    with lmdb.open(str(tmp_path / FILE), subdir=False) as env, env.begin(write=True) as txn:
        txn.put(b"murakit", json.dumps({"format": 99}).encode())
    before = (tmp_path / FILE).read_bytes()
    trouble(images, tmp_path, r"another version of murakit \(format 99.*clear_cache")
    assert (tmp_path / FILE).read_bytes() == before


def test_a_database_of_another_program_is_left_alone(images, tmp_path):
    with lmdb.open(str(tmp_path / FILE), subdir=False) as env, env.begin(write=True) as txn:
        txn.put(b"theirs", b"1")
    before = (tmp_path / FILE).read_bytes()
    trouble(images, tmp_path, "a database of another program")
    assert (tmp_path / FILE).read_bytes() == before


def test_a_file_that_is_no_database_is_left_alone(images, tmp_path):
    (tmp_path / FILE).write_bytes(b"something else " * 1000)
    trouble(images, tmp_path, "not an LMDB database, or is damaged.*clear_cache")


def test_what_a_damaged_cache_holds_cannot_be_told(tmp_path):
    (tmp_path / FILE).write_bytes(b"something else " * 1000)
    with pytest.raises(OSError, match=r"cannot be read: .*clear_cache"):
        cache_info(tmp_path)
    assert clear_cache(tmp_path) > 0


def test_a_folder_that_is_a_file_is_no_cache(images, tmp_path):
    (tmp_path / "file").write_text("")
    trouble(images, tmp_path / "file", "cannot be used.*pass another folder")


def test_a_store_that_was_cut_short_is_not_used(images, tmp_path):
    ImageStore(tmp_path, image_size=32).open(images.data)
    os.truncate(tmp_path / FILE, (tmp_path / FILE).stat().st_size // 2)
    trouble(images, tmp_path, "cut short")
    clear_cache(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImageStore(tmp_path, image_size=32).open(images.data)


def test_damaged_values_are_computed_again_and_mended(images, tmp_path):
    rows = ImageStore(tmp_path, image_size=64).open(images.data)
    content = (tmp_path / FILE).read_bytes()
    inside = [content.index(image.numpy().tobytes()[1000:1400]) for image in rows[:4]]
    del rows
    for at in inside:
        put_junk(tmp_path / FILE, at)
    with pytest.warns(CacheWarning, match="damaged.*checksum.*computed anew"):
        rows = ImageStore(tmp_path, image_size=64).open(images.data)
        np.testing.assert_array_equal(rows[:].numpy(), pixels(images.data, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = ImageStore(tmp_path, image_size=64).open(images.data)
        np.testing.assert_array_equal(rows[:].numpy(), pixels(images.data, 64))


def test_values_and_pages_that_changed_places_are_computed_again(images, tmp_path):
    """Whatever happens to pages behind LMDB's back, no image gets another one's pixels."""
    expected = pixels(images.data, 128)
    ImageStore(tmp_path / "whole", image_size=128).open(images.data)
    content = (tmp_path / "whole" / FILE).read_bytes()
    starts = [content.index(image.tobytes()) for image in expected]
    n_bytes = expected[0].nbytes + 4
    rng = np.random.default_rng(0)
    n_noticed = 0
    for attempt in range(200):
        damaged = bytearray(content)
        if attempt % 2:
            # Values with their checksums.
            one, other = rng.choice(starts, 2, replace=False)
            at, to, size = one, other, n_bytes
        else:
            # Whole pages that hold nothing but values.
            size = 4096
            at, to = (start - start % 4096 + 4096 for start in rng.choice(starts, 2, replace=False))
        damaged[at : at + size], damaged[to : to + size] = content[to : to + size], content[at : at + size]
        folder = tmp_path / str(attempt)
        folder.mkdir()
        (folder / FILE).write_bytes(damaged)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rows = ImageStore(folder, image_size=128, n_jobs=1).open(images.data)
            np.testing.assert_array_equal(rows[:].numpy(), expected)
        del rows
        n_noticed += any("do not match their checksums" in str(warning.message) for warning in caught)
        clear_cache(folder)
    assert n_noticed == 200


def test_settings_that_changed_places_are_not_listed_as_anothers(images, tmp_path):
    for size in (32, 40):
        ImageStore(tmp_path, image_size=size).open(images.data[:3])
    content = (tmp_path / FILE).read_bytes()
    settings = [f'"image_size": {size}'.encode() for size in (32, 40)]
    clear_cache(tmp_path)
    swapped = re.sub(b"|".join(settings), lambda found: settings[found[0] == settings[0]], content)
    assert swapped != content
    (tmp_path / FILE).write_bytes(swapped)
    info = cache_info(tmp_path)
    assert info.n_images.tolist() == [3, 3] and info.kind.tolist() == ["unknown"] * 2


def test_files_that_changed_places_are_decoded_again(tmp_path):
    """They have one size and one time of change, as copies of a camera's or a script's often have."""
    paths = [tmp_path / "one.png", tmp_path / "other.png"]
    for path, value in zip(paths, (10, 200)):
        Image.fromarray(np.full((32, 32), value, dtype=np.uint8)).save(path, compress_level=0)
        os.utime(path, ns=(10**18, 10**18))
    assert paths[0].stat().st_size == paths[1].stat().st_size
    before = ImageStore(tmp_path / "cache", image_size=32).open(paths)[:][:, 0, 0, 0].tolist()
    paths[0].rename(tmp_path / "third.png")
    paths[1].rename(paths[0])
    (tmp_path / "third.png").rename(paths[1])
    after = ImageStore(tmp_path / "cache", image_size=32).open(paths)[:][:, 0, 0, 0].tolist()
    assert (before, after) == ([10, 200], [200, 10])


def test_pixels_that_were_written_into_a_file_in_place_are_seen(tmp_path):
    path = tmp_path / "image.png"
    seen = []
    for value in (10, 200):
        image = io.BytesIO()
        Image.fromarray(np.full((32, 32), value, dtype=np.uint8)).save(image, "PNG", compress_level=0)
        path.write_bytes(image.getvalue())
        os.utime(path, ns=(10**18, 10**18))
        seen += ImageStore(tmp_path / "cache", image_size=32).open([path])[:][:, 0, 0, 0].tolist()
        time.sleep(0.02)  # the clock of a file system may not tell two quick writes apart
    assert seen == [10, 200]


@pytest.mark.parametrize("on_disk", [True, False])
def test_rows_that_repeat_an_image_are_computed_once(images, tmp_path, counted, passes, on_disk):
    paths = np.concatenate([images.data, images.data[::-1], images.data])
    rows = ImageStore(tmp_path if on_disk else None, image_size=32).open(paths)
    np.testing.assert_array_equal(rows[:].numpy(), pixels(paths))
    assert sorted(counted) == sorted(images.data)
    counted.clear()
    y = np.concatenate([images.target, images.target[::-1], images.target])
    clf = quick_classifier(augment=False, cache=tmp_path / "features" if on_disk else None)
    clf.fit(paths, y)
    assert sorted(counted) == sorted(images.data) and sum(passes) == len(images.data)


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_names_that_no_folder_has_are_refused(images, name):
    for call in (
        lambda: quick_classifier(cache=name).fit(images.data, images.target),
        lambda: ImageStore(name),
        lambda: cache_info(name),
        lambda: clear_cache(name),
    ):
        with pytest.raises(ValueError, match=r"cache='.*' is no name that a folder can have: pass"):
            call()


def test_a_folder_whose_name_is_no_unicode_is_a_cache(images, tmp_path, counted):
    folder = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"f\xe9"))
    for _ in range(2):
        np.testing.assert_array_equal(
            ImageStore(folder, image_size=32).open(images.data)[:].numpy(), pixels(images.data)
        )
    assert cache_info(folder).n_images.tolist() == [len(images.data)]
    assert clear_cache(folder) > 0


@pytest.mark.parametrize("name", [".", FILE, f"{FILE}-lock"])
def test_a_pipe_is_no_cache_and_does_not_hang(images, tmp_path, name):
    folder = tmp_path / "cache"
    if name == ".":
        os.mkfifo(folder)
    else:
        folder.mkdir()
        os.mkfifo(folder / name)
    trouble(images, folder, "cannot be used: .*pass another folder")
    with pytest.warns(CacheWarning, match="cannot be used"):
        quick_classifier(cache=folder, max_epochs=1).fit(images.data, images.target)


def test_a_folder_that_cannot_be_written_to_is_read(images, tmp_path, monkeypatch, counted):
    ImageStore(tmp_path, image_size=32).open(images.data[:20])
    real = lmdb.open

    def refuse(path, readonly=False, lock=True, **kwargs):
        # As for a user without the right to write: neither the file nor its lock.
        if not readonly or lock:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, readonly=readonly, lock=lock, **kwargs)

    monkeypatch.setattr(disk_room.lmdb, "open", refuse)
    counted.clear()
    assert cache_info(tmp_path).n_images.tolist() == [20]
    trouble(images, tmp_path, "cannot be written to: its contents are used")
    assert sorted(counted) == sorted(images.data[20:])


def test_a_full_disk_ends_in_a_warning_and_the_right_result(images, tmp_path):
    # A limit on the size of files is what a full disk is to a writer.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    try:
        expected = quick_classifier(augment=False)
        with pytest.warns(CacheWarning, match="cannot be (written to any more|used).*Make room on that disk"):
            clf = quick_classifier(augment=False, cache=tmp_path).fit(images.data, images.target)
            proba = clf.predict_proba(images.data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    expected.fit(images.data, images.target)
    assert same_state(state_of(expected), state_of(clf))
    np.testing.assert_array_equal(expected.predict_proba(images.data), proba)


# -- several processes ----------------------------------------------------------------------

FILL = """
import sys
import numpy as np
from murakit.cache import _base as _store
from murakit.augmentation import Augmentation
from murakit.cache import FeatureStore, ImageStore
_store.FROZEN_BATCH_SIZE = _store._MAX_CHUNK_IMAGES = 1  # a commit an image
paths = open(sys.argv[2]).read().splitlines()
rows = ImageStore(sys.argv[1], image_size=int(sys.argv[3]), n_jobs=1).open(paths)
np.save(sys.argv[4], rows[:].numpy())
"""


def filler(images, folder, out, size=200):
    paths = Path(out).with_suffix(".txt")
    paths.write_text("\n".join(images.data))
    return subprocess.Popen([sys.executable, "-c", FILL, str(folder), str(paths), str(size), str(out)])


def test_a_store_outlives_every_kill_of_its_writer(images, tmp_path):
    rng = np.random.default_rng(0)
    expected = pixels(images.data, 200)
    for attempt in range(10):
        process = filler(images, tmp_path / "cache", tmp_path / f"{attempt}.npy")
        deadline = time.monotonic() + 60
        while not (tmp_path / "cache" / FILE).exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.15)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if attempt % 2:
            rows = ImageStore(tmp_path / "cache", image_size=200).open(images.data[: 5 * attempt])
            np.testing.assert_array_equal(rows[:].numpy(), expected[: 5 * attempt])
            del rows
    rows = ImageStore(tmp_path / "cache", image_size=200).open(images.data)
    np.testing.assert_array_equal(rows[:].numpy(), expected)


def test_two_processes_fill_one_store_at_once(images, tmp_path):
    outs = [tmp_path / "0.npy", tmp_path / "1.npy"]
    processes = [filler(images, tmp_path / "cache", out) for out in outs]
    assert [process.wait() for process in processes] == [0, 0]
    for out in outs:
        np.testing.assert_array_equal(np.load(out), pixels(images.data, 200))
    assert cache_info(tmp_path / "cache").n_images.tolist() == [len(images.data)]


def test_a_forked_process_opens_the_store_anew(images, tmp_path):
    rows = ImageStore(tmp_path, image_size=32).open(images.data)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            again = ImageStore(tmp_path, image_size=32).open(images.data)
            code = int((again[:].numpy() != pixels(images.data)).any())
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(rows[:].numpy(), pixels(images.data))


def test_the_map_grows_with_the_file(images, tmp_path, monkeypatch):
    monkeypatch.setattr(disk_room, "_INITIAL_MAP_SIZE", 2**16)
    rows = ImageStore(tmp_path, image_size=64).open(images.data)
    np.testing.assert_array_equal(rows[:].numpy(), pixels(images.data, 64))


def test_another_process_may_make_the_map_grow(images, tmp_path, monkeypatch):
    monkeypatch.setattr(disk_room, "_INITIAL_MAP_SIZE", 2**16)
    ours = ImageStore(tmp_path, image_size=32)
    ours.open(images.data[:2])
    assert filler(images, tmp_path, tmp_path / "theirs.npy", size=200).wait() == 0
    np.testing.assert_array_equal(ours.open(images.data)[:].numpy(), pixels(images.data))


# -- the storages ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_a_shelf_gives_back_what_it_was_given(tmp_path, kind):
    storage = open_disk(tmp_path) if kind == "disk" else Memory()
    values = np.random.default_rng(0).integers(0, 256, (5, 33), dtype=np.uint8)
    keys = [f"{number:032d}".encode() for number in range(7)]
    assert storage.write(keys[:5], values)
    assert storage.has(keys).tolist() == [True] * 5 + [False] * 2
    out = np.zeros((3, 33), dtype=np.uint8)
    assert storage.read([keys[4], keys[6], keys[0]], out).tolist() == [True, False, True]
    np.testing.assert_array_equal(out[[0, 2]], values[[4, 0]])


def test_files_keep_the_identities_they_were_asked_for(images):
    files = Files(images.data)
    whole = list(files.ids)
    assert len(set(whole)) == len(images.data) and list(files.take([3, 1]).ids) == [whole[3], whole[1]]


def test_a_search_sends_each_image_through_the_network_once(images, tmp_path, passes):
    clf = quick_classifier(unfreeze="head", augment=False, cache=tmp_path)
    search = MuraSearchCV(clf, {"lr": [1e-3, 1e-2]}, n_trials=2, cv=PatientKFold(3), random_state=0)
    search.fit(images.data, images.target)
    assert sum(passes) == len(images.data)


def test_a_search_goes_on_with_another_cache(images, tmp_path):
    options = {"cv": PatientKFold(2), "storage": f"sqlite:///{tmp_path}/search.db", "study_name": "s"}
    for number in (1, 2):
        clf = quick_classifier(cache=tmp_path / f"cache{number}", max_epochs=1)
        search = MuraSearchCV(clf, {"lr": [1e-3, 1e-2]}, n_trials=number, **options)
        search.fit(images.data, images.target)
    assert len(search.study_.trials) == 2


@pytest.mark.parametrize("free", [0, 10**9])
def test_rows_on_a_device_are_the_same_rows(images, tmp_path, monkeypatch, free):
    # The CPU stands in for a GPU with and without room.
    monkeypatch.setattr("murakit.training._inputs.free_device_memory", lambda device: free)
    network = networks.build_radiograph(
        "tiny", 2, weights=None, unfreeze="two", dropout=0.0, augmentation=Augmentation(), seed=0
    ).eval()
    pixels = ImageStore(tmp_path, image_size=32)
    views = [
        FeatureStore(
            pixels, network, "two", storages=pixels.storages, view=k, augmentation=network.augmentation
        )
        for k in range(2)
    ]
    for rows in (pixels.open(images.data), ViewRows([view.open(images.data) for view in views])):
        placed = rows_on_device(rows, "cpu")
        assert placed.stage == rows.stage
        for batch in ([3, 1, 4], [0]):
            ours, theirs = placed.__getitems__(batch), rows.__getitems__(batch)
            assert torch.equal(ours, theirs) and ours.shape == theirs.shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", OPTIONS)
def test_on_a_gpu_stored_and_computed_activations_train_alike(images, tmp_path, name):
    fits = [
        quick_classifier(**OPTIONS[name], cache=cache, device="cuda", precision="float32")
        for cache in (None, tmp_path)
    ]
    proba = [clf.fit(images.data, images.target).predict_proba(images.data) for clf in fits]
    np.testing.assert_allclose(proba[0], proba[1], atol=1e-4)


def test_a_disk_that_is_nearly_full_is_not_filled_and_that_is_said(images, tmp_path, monkeypatch):
    free = disk_room.shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(disk_room.shutil, "disk_usage", lambda path: free)
    trouble(images, tmp_path, "more than is free on disk: they are kept in memory")
