"""Training starts from a file: of a saved model, whose patients stay known, or of a state dict."""

import json
import math
import re

import numpy as np
import pytest
import torch
import torchvision
from helpers import TinyNet, quick_classifier, same_state, state_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

from murakit import (
    ModelFileError,
    PatientKFold,
    PatientShuffleSplit,
    PerRegionClassifier,
    evaluate,
    networks,
    save_model,
)
from murakit.io._safetensors import write_model
from murakit.networks._pretrained import backbone_weights


@pytest.fixture
def parts(images):
    """Rows of patients of two halves that have nobody in common."""
    split = PatientShuffleSplit(n_splits=1, test_size=0.5, random_state=0)
    return next(split.split(images.data, images.target, images.patients))


@pytest.fixture
def pretrained(images, parts):
    return quick_classifier().fit(images.data[parts[0]], images.target[parts[0]])


@pytest.fixture
def path(pretrained, tmp_path):
    save_model(pretrained, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def still(path, **params):
    """A classifier that starts from a file, and hardly moves."""
    return quick_classifier(weights=path, lr=1e-12, weight_decay=0.0, max_epochs=1, **params)


def test_a_saved_model_is_where_training_starts(images, parts, pretrained, path):
    clf = still(path, unfreeze="head").fit(images.data[parts[1]], images.target[parts[1]])
    expected = pretrained.predict_proba(images.data[parts[1]])
    np.testing.assert_allclose(clf.predict_proba(images.data[parts[1]]), expected, atol=1e-6)
    frozen = {name: value for name, value in state_of(clf).items() if name.startswith("stages.")}
    assert same_state(frozen, {name: state_of(pretrained)[name] for name in frozen})


def test_patients_of_the_weights_stay_known(images, parts, pretrained, path):
    rows = parts[1]
    clf = still(path, early_stopping=False).fit(images.data[rows], images.target[rows])
    own = set(images.patients[rows])
    assert own < set(clf.train_patients_)
    # The others are hashes, for the file names nobody.
    assert all(str(name).startswith("sha256:") for name in set(clf.train_patients_) - own)
    known = set(pretrained.train_patients_)
    of_weights = np.isin(images.patients, list(known))
    with pytest.raises(ValueError, match=f"{len(known)} of the {len(known)} patients .* were trained on"):
        evaluate(clf, images.data[of_weights], images.target[of_weights])


def test_patients_who_chose_the_epoch_of_the_weights_stay_known(images, parts, pretrained, path):
    clf = still(path, early_stopping=False).fit(images.data[parts[1]], images.target[parts[1]])
    held = np.isin(images.patients, list(pretrained.validation_patients_))
    with pytest.raises(ValueError, match="chose the epoch"):
        evaluate(clf, images.data[held], images.target[held])


def test_patients_stay_known_over_several_files(images, parts, path, tmp_path):
    clf = still(path, early_stopping=False).fit(images.data[parts[1]], images.target[parts[1]])
    with pytest.warns(UserWarning, match="does not keep the path of weights="):
        save_model(clf, tmp_path / "second.safetensors")
    third = still(tmp_path / "second.safetensors", early_stopping=False)
    with pytest.warns(UserWarning, match="a model that knows"):
        third.fit(images.data[parts[1]], images.target[parts[1]])
    with pytest.raises(ValueError, match="were trained on"):
        evaluate(third, images.data[parts[0]], images.target[parts[0]])


def test_cross_validation_over_patients_of_the_weights_warns(images, parts, path):
    rows = parts[0]
    with pytest.warns(UserWarning, match=r"knows \d+ of the \d+ patients of this fit .* too good"):
        cross_val_score(still(path), images.data[rows], images.target[rows], cv=PatientKFold(2))


def test_going_on_with_other_patients_does_not_warn(images, parts, path):
    clf = still(path, warm_start=True).fit(images.data[parts[1]], images.target[parts[1]])
    clf.fit(images.data[parts[1]], images.target[parts[1]])  # warnings are errors


def test_partial_fit_knows_them_too(images, parts, path):
    clf = still(path)
    for _ in range(2):
        clf.partial_fit(images.data[parts[1]], images.target[parts[1]], groups=images.patients[parts[1]])
    with pytest.raises(ValueError, match="were trained on"):
        evaluate(clf, images.data[parts[0]], images.target[parts[0]])


def test_a_model_without_patients_is_weights_like_any_other(images, parts, pretrained, tmp_path):
    save_model(pretrained, tmp_path / "nobody.safetensors", patients=None)
    clf = still(tmp_path / "nobody.safetensors", early_stopping=False)
    clf.fit(images.data[parts[1]], images.target[parts[1]])
    assert set(clf.train_patients_) == set(images.patients[parts[1]])


def test_a_failed_fit_leaves_the_patients_as_they_were(images, parts, path, monkeypatch):
    clf = quick_classifier(early_stopping=False).fit(images.data[parts[1]], images.target[parts[1]])
    before = clf.train_patients_
    with pytest.raises(ValueError):
        clf.set_params(weights=path, backbone="resnet18").fit(images.data[parts[1]], images.target[parts[1]])
    np.testing.assert_array_equal(clf.train_patients_, before)


def test_other_classes_get_a_new_last_layer(images, parts, path):
    rows = parts[1]
    y = np.where(images.target[rows] == 1, "abnormal", np.where(np.arange(len(rows)) % 2, "a", "b"))
    clf = still(path, unfreeze="head", early_stopping=False).fit(images.data[rows], y)
    assert clf.predict_proba(images.data[rows]).shape == (len(rows), 3)


def test_a_state_dict_in_safetensors_is_the_one_that_torch_saved(images, pretrained, tmp_path):
    state = {name: value.contiguous() for name, value in state_of(pretrained).items()}
    save_file(state, tmp_path / "state.safetensors")
    torch.save(state, tmp_path / "state.pth")
    one, other = (
        still(tmp_path / name).fit(images.data, images.target) for name in ("state.safetensors", "state.pth")
    )
    assert same_state(state_of(one), state_of(other))
    assert set(one.train_patients_) <= set(images.patients)


def test_names_of_data_parallel_are_taken_off_in_any_file(images, parts, pretrained, tmp_path):
    state = {f"module.{name}": value.contiguous() for name, value in state_of(pretrained).items()}
    torch.save(state, tmp_path / "state.pt")
    save_file(state, tmp_path / "state.safetensors")
    one, other = (
        still(tmp_path / name).fit(images.data[parts[1]], images.target[parts[1]])
        for name in ("state.pt", "state.safetensors")
    )
    assert same_state(state_of(one), state_of(other))


def test_a_saved_model_is_known_under_any_name(images, parts, path):
    renamed = path.rename(path.with_name("shared.model"))
    clf = still(renamed, early_stopping=False).fit(images.data[parts[1]], images.target[parts[1]])
    assert set(images.patients[parts[1]]) < set(clf.train_patients_)


def test_models_of_each_region_are_no_weights(images, tmp_path):
    per_region = PerRegionClassifier(quick_classifier(max_epochs=1, early_stopping=False))
    save_model(per_region.fit(images.data, images.target), tmp_path / "regions.safetensors")
    with pytest.raises(ModelFileError, match=r"regions\.safetensors.* holds \d+ models .* one of them alone"):
        still(tmp_path / "regions.safetensors").fit(images.data, images.target)


def test_an_altered_model_is_refused(images, parts, path):
    *rest, last = path.read_bytes()
    path.write_bytes(bytes([*rest, last ^ 1]))
    with pytest.raises(ModelFileError, match="have been changed or swapped"):
        still(path).fit(images.data[parts[1]], images.target[parts[1]])


@pytest.mark.parametrize("n_bytes", [4, 100, -10])
def test_a_file_that_was_cut_short_is_refused(images, path, n_bytes):
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(ValueError, match=r"model\.safetensors.* cannot be read .* fetch it again"):
        still(path).fit(images.data, images.target)


def test_a_missing_file_is_named(images, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors.* no such file"):
        still(tmp_path / "nothing.safetensors").fit(images.data, images.target)


def test_the_tensors_of_a_model_are_those_of_its_network(pretrained, path):
    found = load_file(path)
    assert {name.removeprefix("models.0.") for name in found} == set(state_of(pretrained))
    assert clone(still(path)).weights == path


# -- state dicts of other people ------------------------------------------------------------


WRAPPED = {
    "alone": lambda state: state,
    "state_dict": lambda state: {"state_dict": state},
    "model": lambda state: {"model": state},
    "net": lambda state: {"net": state, "acc": 0.9},
    "model_state_dict": lambda state: {"model_state_dict": state},
    "beside others": lambda state: {
        "epoch": 1,
        "model_state_dict": state,
        "optimizer_state_dict": {"state": {}},
    },
    "in two": lambda state: {"model": {"state_dict": state}},
    "module.": lambda state: {f"module.{key}": value for key, value in state.items()},
    "net.": lambda state: {f"net.{key}": value for key, value in state.items()},
    "backbone.": lambda state: {f"backbone.{key}": value for key, value in state.items()},
    "state_dict, module.model.": lambda state: {
        "state_dict": {f"module.model.{key}": value for key, value in state.items()}
    },
    "backbone. and a head beside": lambda state: {
        key if key.startswith("fc.") else f"backbone.{key}": value for key, value in state.items()
    },
    "half precision": lambda state: {key: value.half() for key, value in state.items()},
    "no counters": lambda state: {
        key: value for key, value in state.items() if not key.endswith("num_batches_tracked")
    },
}


@pytest.mark.parametrize("name", WRAPPED)
def test_what_training_scripts_save_is_read(images, tmp_path, name):
    torch.manual_seed(3)
    expected = TinyNet().state_dict()
    torch.save(WRAPPED[name](expected), tmp_path / "weights.pt")
    clf = still(tmp_path / "weights.pt", unfreeze="head").fit(images.data, images.target)
    for key, value in state_of(clf).items():
        if key.startswith("stages.") and not key.endswith("num_batches_tracked"):
            wanted = expected[key.removeprefix("stages.")]
            assert torch.equal(value, wanted.half().float() if name == "half precision" else wanted), key


def test_old_names_of_densenet_are_todays(tmp_path):
    """CheXNet's, of torchvision before 0.3: "module.densenet121.features...denselayer1.norm.1.weight"."""
    torch.manual_seed(0)
    state = torchvision.models.densenet121().state_dict()
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", f"module.densenet121.{key}"): value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked") and not key.startswith("classifier")
    }
    old |= {"module.densenet121.classifier.0.weight": torch.ones(14, 1024)}
    assert "module.densenet121.features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save({"epoch": 3, "state_dict": old}, tmp_path / "chexnet.pth.tar")
    torch.save(state, tmp_path / "today.pth")
    entry = networks.BACKBONES["densenet121"]
    one, other = (
        backbone_weights(entry, tmp_path / name, 0)[0].state for name in ("chexnet.pth.tar", "today.pth")
    )
    assert one.keys() == other.keys() and all(same_state(one[stage], other[stage]) for stage in one)


def refusal_of(path, images):
    with pytest.raises(ValueError) as error:
        still(path).fit(images.data, images.target)
    assert path.name in str(error.value)
    return str(error.value)


DAMAGED = {
    "NaN": ("one.0.weight", math.nan, "1 of the 108 values of the tensor 'one.0.weight' are NaN or infinite"),
    "infinite": ("two.1.bias", math.inf, "1 of the 8 values of the tensor 'two.1.bias' are NaN or infinite"),
    "in the last layer": ("fc.bias", math.nan, "1 of the 1000 values of the tensor 'fc.bias'"),
    "negative": (
        "one.1.running_var",
        -1.0,
        "'one.1.running_var', a BatchNorm's variance, has the negative value -1",
    ),
    "too large": (
        "one.0.weight",
        1e300,
        "1 of the 108 values of the tensor 'one.0.weight' are NaN or infinite",
    ),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", DAMAGED)
def test_weights_that_no_training_leaves_are_refused(images, tmp_path, name, suffix):
    key, value, expected = DAMAGED[name]
    state = {key: tensor.double() for key, tensor in TinyNet().state_dict().items()}
    state[key].view(-1)[0] = value
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    assert expected in refusal_of(path, images)


@pytest.mark.parametrize(
    "change", [lambda t: t.to(torch.complex64), lambda t: t.to("meta")], ids=["complex", "meta"]
)
def test_tensors_that_are_no_weights_are_refused(images, tmp_path, change):
    state = TinyNet().state_dict()
    state["fc.weight"] = change(state["fc.weight"])
    torch.save(state, tmp_path / "weights.pth")
    assert "'fc.weight' is quantised, sparse, complex or without values" in refusal_of(
        tmp_path / "weights.pth", images
    )


def test_what_does_not_fit_shows_the_first_names_of_both_sides(images, tmp_path):
    torch.save({"encoder.stem.weight": torch.ones(1), "encoder.b": torch.ones(1)}, tmp_path / "weights.pth")
    message = refusal_of(tmp_path / "weights.pth", images)
    assert (
        "names begin with ['encoder.stem.weight', 'encoder.b'], and those of tiny with ['one.0.weight'"
        in message
    )


def test_a_shape_that_does_not_fit_is_shown(images, tmp_path):
    state = TinyNet().state_dict() | {"one.0.weight": torch.ones(4, 1, 3, 3)}
    torch.save(state, tmp_path / "weights.pth")
    assert "one.0.weight: (4, 1, 3, 3) instead of (4, 3, 3, 3)" in refusal_of(
        tmp_path / "weights.pth", images
    )


def test_of_two_networks_in_a_file_none_is_guessed(images, tmp_path):
    state = TinyNet().state_dict()
    both = {f"{name}.{key}": value for name in ("student", "teacher") for key, value in state.items()}
    torch.save(both, tmp_path / "both.pth")
    assert "begin with ['student.', 'teacher.']" in refusal_of(tmp_path / "both.pth", images)
    torch.save({"model": state, "net": state}, tmp_path / "two.pth")
    assert "several state dicts ['model', 'net']" in refusal_of(tmp_path / "two.pth", images)


def test_a_head_beside_the_backbone_takes_no_other_heads_place(images, tmp_path):
    state = TinyNet().state_dict()
    both = {f"backbone.{key}": value for key, value in state.items()} | {"fc.weight": torch.ones(2, 8)}
    torch.save(both, tmp_path / "both.pth")
    assert "1 are unknown ['backbone.fc.weight beside fc.weight']" in refusal_of(
        tmp_path / "both.pth", images
    )


@pytest.mark.parametrize("saved", [{}, {"epoch": 1}, [1, 2], torch.ones(2), {"model": {"lr": 0.1}}], ids=str)
def test_a_file_without_a_state_dict_is_refused(images, tmp_path, saved):
    torch.save(saved, tmp_path / "weights.pth")
    assert "holds no state dict" in refusal_of(tmp_path / "weights.pth", images)


def test_a_model_of_a_newer_format_asks_for_an_upgrade(images, parts, path):
    with safe_open(path, framework="pt") as file:
        document = json.loads(file.metadata()["murakit"])
    write_model(path, {**document, "format_version": 2}, load_file(path))
    message = refusal_of(path, images)
    assert "format version 2, and this murakit reads versions up to 1. Upgrade" in message
