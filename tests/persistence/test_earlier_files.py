"""Models, a cache and a checkpoint that murakit wrote before its modules were parted into rooms.

They were made from the images of `radiographs`, with the settings that the tests below repeat.
"""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import PIL
import pytest
from helpers import quick_classifier
from PIL import Image

from murakit import load_model, model_info, read_square
from murakit.cache import CacheWarning
from murakit.cache._store import ImageStore
from murakit.training._net import TrainingNet

DATA = Path(__file__).parent / "data" / "flat_layout"

# The images again, in a cache of the present format.
CACHE = Path(__file__).parent / "data" / "cache_format_2"

LABELS = np.array([0, 1] * 8)


@pytest.fixture
def radiographs(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for number in range(16):
        region = "WRIST" if number % 4 < 2 else "HAND"
        study = f"study1_{'positive' if number % 2 else 'negative'}"
        path = tmp_path / f"images/train/XR_{region}/patient{number:05d}/{study}/image1.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (32, 40), dtype=np.uint8)).save(path)
        paths.append(str(path))
    return np.array(paths, dtype=object)


def slope(folder, region="WRIST"):
    path = folder / f"train/XR_{region}/patient90000/study1_positive/image1.png"
    path.parent.mkdir(parents=True)
    values = np.arange(32, dtype=np.uint8)
    Image.fromarray(values * 4 + 3 * values[:, None]).save(path)
    return str(path)


# -- models ---------------------------------------------------------------------------------


def test_a_classifier_predicts_what_it_predicted(tmp_path):
    clf = load_model(DATA / "classifier.safetensors")
    expected = {"tta": True, "resize": "squash", "decision_threshold": 0.4, "mixup": 0.2, "ema_decay": 0.8}
    assert expected.items() <= clf.get_params().items()
    path = slope(tmp_path)
    np.testing.assert_allclose(clf.predict_proba([path]), [[0.48349633, 0.51650367]], atol=1e-5)
    assert clf.predict([path]).tolist() == [1]
    assert len(clf.history_) == 2 and len(clf.train_patients_)


def test_a_classifier_per_region_predicts_what_it_predicted(tmp_path):
    clf = load_model(DATA / "per_region.safetensors")
    assert clf.regions_.tolist() == ["hand", "wrist"]
    proba = clf.predict_proba([slope(tmp_path, "HAND"), slope(tmp_path, "WRIST")])
    np.testing.assert_allclose(proba, [[0.48522883, 0.51477117], [0.4847108, 0.5152892]], atol=1e-5)
    assert model_info(DATA / "per_region.safetensors")["kind"] == "PerRegionClassifier"


# -- the cache ------------------------------------------------------------------------------


@pytest.fixture
def opened(radiographs, tmp_path, monkeypatch):
    """A function that opens the images in a cache, and returns the rows and how many were decoded."""
    folder = tmp_path / "cache"
    folder.mkdir()
    # An image is known by its place and time of change; the cache was written with names of patients instead.
    monkeypatch.setattr("murakit.cache._base.identity", lambda path: Path(path).parts[-3])
    decoded = []

    def counted(path, *args):
        decoded.append(path)
        return read_square(path, *args)

    monkeypatch.setattr("murakit.cache._store.read_square", counted)

    def open_with(pillow, kept=CACHE):
        shutil.copy(kept / "murakit.lmdb", folder)
        monkeypatch.setattr(PIL, "__version__", pillow)
        return ImageStore(folder, image_size=16).open(radiographs), len(decoded)

    return open_with


def test_what_a_cache_holds_is_read(opened):
    rows, n_decoded = opened(pillow="13.0.0")  # that which decoded the images
    assert n_decoded == 0
    assert rows[[0, 5]].sum(dim=(1, 2, 3)).tolist() == [25795, 26427]


def test_what_another_pillow_decoded_is_decoded_again(opened, radiographs):
    rows, n_decoded = opened(pillow="0.1")
    assert n_decoded == len(radiographs)
    np.testing.assert_array_equal(rows[[5]][0, 0].numpy(), read_square(radiographs[5], 16))


def test_a_cache_of_the_first_format_is_left_alone_and_said(opened, radiographs, tmp_path):
    before = (DATA / "murakit.lmdb").read_bytes()
    sentence = (
        r"another version of murakit \(format 1; this one reads 2\).*clear_cache\('.*cache'\) deletes it"
    )
    with pytest.warns(CacheWarning, match=sentence):
        rows, n_decoded = opened(pillow="13.0.0", kept=DATA)
    assert n_decoded == len(radiographs)
    np.testing.assert_array_equal(rows[[5]][0, 0].numpy(), read_square(radiographs[5], 16))
    assert (tmp_path / "cache" / "murakit.lmdb").read_bytes() == before


# -- the checkpoint -------------------------------------------------------------------------


@pytest.fixture
def interrupted(radiographs, tmp_path):
    """A classifier whose training was interrupted in the third epoch, and the file that it left."""
    judge = TrainingNet._compare_with_best

    def interrupt(net):
        if len(net.history) == 3:
            raise KeyboardInterrupt
        return judge(net)

    clf = quick_classifier(max_epochs=4, n_iter_no_change=4, augment=False, checkpoint=tmp_path / "kept")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrainingNet, "_compare_with_best", interrupt)
        clf.fit(radiographs, LABELS)
    [path] = (tmp_path / "kept").iterdir()
    return clf, path


def test_a_training_goes_on_from_a_checkpoint(interrupted, radiographs, monkeypatch):
    clf, path = interrupted
    n_trained = []
    run = TrainingNet.run_single_epoch

    def counted(net, iterator, training, *args, **kwargs):
        n_trained.append(len(net.history)) if training else None
        return run(net, iterator, training, *args, **kwargs)

    monkeypatch.setattr(TrainingNet, "run_single_epoch", counted)
    # Under the name that this training looks for: names change with the versions of murakit and torch.
    # It has the content of the present format, but for the checksum at its end.
    content = (DATA / "checkpoint.pt").read_bytes()
    path.write_bytes(content + hashlib.sha256(content).digest())
    clf.fit(radiographs, LABELS)
    assert n_trained == [3, 4] and clf.n_epochs_ == 4
    np.testing.assert_allclose(clf.history_["train_loss"][:2], [0.7034516283141119, 0.6926268482468634])
    assert not path.exists()


def test_a_checkpoint_of_another_name_is_no_part_of_this_training(interrupted, radiographs):
    clf, path = interrupted
    path.unlink()
    shutil.copy(DATA / "checkpoint.pt", path.with_name("4906291b08bc7e0e63d4fc9ffc1c7555.pt"))
    alone = quick_classifier(max_epochs=4, n_iter_no_change=4, augment=False).fit(radiographs, LABELS)
    assert (
        clf.fit(radiographs, LABELS).history_["train_loss"].tolist() == alone.history_["train_loss"].tolist()
    )
