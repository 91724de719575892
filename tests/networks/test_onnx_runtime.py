"""Predicting with ONNX Runtime: PyTorch's numbers, or PyTorch."""

import sys

import numpy as np
import pytest
import torch
from helpers import quick_classifier

from murakit.networks import _onnx

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)


@pytest.fixture
def runs(monkeypatch):
    """The sizes of the batches that ONNX Runtime computed."""
    sizes = []
    logits = _onnx.onnx_logits

    def watch(network, images):
        result = logits(network, images)
        if result is not None:
            sizes.append(len(images))
        return result

    monkeypatch.setattr("murakit.estimators._classifier.onnx_logits", watch)
    return sizes


@pytest.mark.parametrize("backbone", ["tiny", "resnet18"])
@pytest.mark.parametrize("tta", [False, True])
def test_onnx_runtime_gives_pytorchs_probabilities(images, runs, backbone, tta):
    clf = quick_classifier(backbone=backbone, unfreeze="head", image_size=64, tta=tta, max_epochs=1)
    clf.fit(images.data, images.target)
    expected = clf.predict_proba(images.data)
    assert runs == []
    np.testing.assert_allclose(clf.set_params(runtime="onnx").predict_proba(images.data), expected, atol=1e-5)
    assert sum(runs) == len(images.data) * (2 if tta else 1)
    # Another number of images: the batch is free.
    np.testing.assert_allclose(clf.predict_proba(images.data[:1]), expected[:1], atol=1e-5)


def test_numbers_that_differ_are_pytorchs(images, runs, monkeypatch):
    clf = quick_classifier(max_epochs=1).fit(images.data, images.target)
    expected = clf.predict_proba(images.data)
    monkeypatch.setattr(_onnx, "TOLERANCE", -1.0)
    with pytest.warns(UserWarning, match="differ from PyTorch's by .* PyTorch predicts"):
        proba = clf.set_params(runtime="onnx").predict_proba(images.data)
    np.testing.assert_array_equal(proba, expected)
    assert runs == []


def test_a_missing_package_is_named_before_any_training(images, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"needs onnxruntime: pip install 'murakit\[onnx\]'"):
        quick_classifier(runtime="onnx").fit(images.data, images.target)


def test_weights_that_were_changed_by_hand_are_exported_anew(images):
    clf = quick_classifier(runtime="onnx", max_epochs=1).fit(images.data, images.target)
    clf.predict_proba(images.data)
    with torch.no_grad():
        clf.net_.module_.head.weight.mul_(3)
    changed = clf.predict_proba(images.data)
    np.testing.assert_allclose(changed, clf.set_params(runtime="torch").predict_proba(images.data), atol=1e-5)
