"""Training starts from a file: of a saved model, whose patients stay known, or of a state dict."""

import numpy as np
import pytest
import torch
from helpers import quick_classifier, same_state, state_of
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

from murakit import (
    ModelFileError,
    PatientKFold,
    PatientShuffleSplit,
    PerRegionClassifier,
    evaluate,
    save_model,
)


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
