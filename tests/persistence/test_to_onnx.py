"""A model as an ONNX file: the same probabilities without murakit."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import quick_classifier
from PIL import Image
from sklearn.exceptions import NotFittedError

from murakit import load_mura, to_onnx
from murakit.persistence import _onnx as export

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)

# What somebody writes who has the file, Pillow and ONNX Runtime, and has read the docstring.
CONSUMER = """
import json, sys
import numpy as np, onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1])
about = session.get_modelmeta().custom_metadata_map
size = int(about["image_size"])

def square(path):
    image = Image.open(path).convert("L")
    if about["resize"] == "squash":
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    whole = Image.new("L", (size, size))
    whole.paste(image.resize((width, height), Image.Resampling.BILINEAR), ((size - width) // 2, (size - height) // 2))
    return np.asarray(whole)

images = np.stack([square(path) for path in sys.argv[3:]])[:, None]
np.save(sys.argv[2], session.run(["probabilities"], {"images": images})[0])
print(json.dumps({"about": about, "murakit": "murakit" in sys.modules, "torch": "torch" in sys.modules}))
"""


def consume(model, folder, paths):
    done = subprocess.run(
        [sys.executable, "-c", CONSUMER, str(model), str(folder / "proba.npy"), *map(str, paths)],
        check=True,
        capture_output=True,
        text=True,
    )
    return np.load(folder / "proba.npy"), json.loads(done.stdout)


@pytest.mark.parametrize(
    ("params", "n_images"),
    [({}, None), ({"tta": True, "resize": "squash"}, 3), ({"unfreeze": "head", "image_size": 40}, 1)],
)
def test_a_program_without_murakit_gets_the_same_probabilities(images, tmp_path, params, n_images):
    clf = quick_classifier(**params).fit(images.data, images.target)
    to_onnx(clf.set_params(decision_threshold=0.25), tmp_path / "model.onnx")
    paths = images.data[:n_images]
    proba, said = consume(tmp_path / "model.onnx", tmp_path, paths)
    np.testing.assert_allclose(proba, clf.predict_proba(paths), atol=1e-5)
    assert not said["murakit"] and not said["torch"]
    about = said["about"]
    assert json.loads(about["classes"]) == [0, 1] and float(about["decision_threshold"]) == 0.25
    assert (about["resize"], about["backbone"]) == (clf.resize, "tiny")
    assert json.loads(about["tta"]) == clf.tta and int(about["image_size"]) == clf.image_size


def test_a_residual_network_and_several_classes(small_mura, tmp_path):
    mura = load_mura(small_mura, target="region_abnormal")
    clf = quick_classifier(backbone="resnet18", unfreeze="layer4", max_epochs=1).fit(mura.data, mura.target)
    to_onnx(clf, tmp_path / "model.onnx")
    proba, said = consume(tmp_path / "model.onnx", tmp_path, mura.data[:7])
    np.testing.assert_allclose(proba, clf.predict_proba(mura.data[:7]), atol=1e-5)
    assert json.loads(said["about"]["classes"]) == mura.target_names
    assert said["about"]["decision_threshold"] == ""


def test_weights_that_were_changed_by_hand_are_written(images, tmp_path):
    clf = quick_classifier().fit(images.data, images.target)
    clf.predict_proba(images.data[:1])
    with torch.no_grad():
        clf.net_.module_.stages["one"][0].weight.data.mul_(-1)
    to_onnx(clf, tmp_path / "model.onnx")
    proba, _ = consume(tmp_path / "model.onnx", tmp_path, images.data[:2])
    np.testing.assert_allclose(proba, clf.predict_proba(images.data[:2]), atol=1e-5)


def test_the_classifier_is_left_as_it_is(images, tmp_path):
    clf = quick_classifier(precision="bfloat16", runtime="onnx", cache=tmp_path / "cache")
    clf.fit(images.data, images.target)
    before, expected = clf.get_params(), clf.predict_proba(images.data)
    to_onnx(clf, tmp_path / "model.onnx")
    assert clf.get_params() == before
    np.testing.assert_array_equal(clf.predict_proba(images.data), expected)


def test_numbers_that_differ_leave_no_file(images, tmp_path, monkeypatch):
    clf = quick_classifier().fit(images.data, images.target)
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match="differ from PyTorch's by .* no file was written"):
        to_onnx(clf, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_are_none_leave_no_file(images, tmp_path):
    clf = quick_classifier().fit(images.data, images.target)
    clf.net_.module_.head.weight.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="weights are damaged"):
        to_onnx(clf, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_check_sees_dark_and_bright_images():
    images = export._synthetic(5, 32)
    assert images.shape == (5, 32, 32) and images.dtype == np.uint8
    assert images[0].max() == 51 and images[-1].max() == 255


def test_what_is_refused(images, tmp_path, monkeypatch):
    with pytest.raises(TypeError, match="not a str"):
        to_onnx("model", tmp_path / "model.onnx")
    with pytest.raises(NotFittedError):
        to_onnx(quick_classifier(), tmp_path / "model.onnx")
    clf = quick_classifier(max_epochs=1).fit(images.data, images.target)
    (tmp_path / "model.onnx").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        to_onnx(clf, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_text() == "mine"
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"to_onnx needs onnxscript: pip install 'murakit\[onnx\]'\.$"):
        to_onnx(clf, tmp_path / "other.onnx")


def test_pillow_leaves_a_square_of_the_right_size_as_it_is():
    # What the check relies on: its images go through read_square.
    pixels = export._synthetic(1, 32)[0]
    np.testing.assert_array_equal(
        np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR)), pixels
    )
