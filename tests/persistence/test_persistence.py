"""A fitted classifier is its weights and little else, and is the same after loading."""

import json
import os
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import quick_classifier, same_state, state_of
from PIL import Image
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import TunedThresholdClassifierCV
from skorch.callbacks import Callback

from murakit import (
    MuraClassifier,
    MuraSearchCV,
    PatientKFold,
    evaluate,
    load_model,
    load_mura,
    model_info,
    save_model,
)
from murakit.inspection import grad_cam

# Written by make_fixture below, and what that printed.
DATA = Path(__file__).parent / "data"
FIXTURE_PROBA = [0.45580947, 0.54419053]


def size_of_weights(*classifiers):
    states = [clf.net_.module_.state_dict() for clf in classifiers]
    return sum(value.numel() * value.element_size() for state in states for value in state.values())


def resnet(**params):
    return quick_classifier(backbone="resnet18", unfreeze="layer4", max_epochs=1, **params)


def fitted_models(images):
    X, y = images.data, images.target
    clf = resnet(callbacks=["roc_auc"]).fit(X, y)
    yield "classifier", clf, [clf]
    search = MuraSearchCV(resnet(), {"lr": [1e-3, 1e-2]}, n_trials=2, cv=PatientKFold(2)).fit(X, y)
    yield "search", search, [search.best_estimator_]
    calibrated = CalibratedClassifierCV(resnet(), cv=PatientKFold(2)).fit(X, y)
    yield "calibrated", calibrated, [fold.estimator for fold in calibrated.calibrated_classifiers_]
    tuned = TunedThresholdClassifierCV(resnet(), cv=PatientKFold(2), scoring="f1").fit(X, y)
    yield "tuned", tuned, [tuned.estimator_]


def test_models_are_as_large_as_their_weights_and_predict_the_same_in_another_process(images, tmp_path):
    script = (
        "import joblib, sys, numpy as np\n"
        "for path in sys.argv[2:]:\n"
        "    model, X = joblib.load(path), np.load(sys.argv[1], allow_pickle=True)\n"
        "    np.save(path + '.npy', model.predict_proba(X))\n"
    )
    np.save(tmp_path / "X.npy", images.data, allow_pickle=True)
    paths, expected = [], []
    for name, model, parts in fitted_models(images):
        path = str(tmp_path / f"{name}.joblib")
        joblib.dump(model, path)
        assert os.path.getsize(path) <= 1.1 * size_of_weights(*parts), name
        paths.append(path)
        expected.append(model.predict_proba(images.data))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "X.npy"), *paths], check=True, env=environment
    )
    for path, proba in zip(paths, expected):
        np.testing.assert_array_equal(np.load(path + ".npy"), proba, err_msg=path)


def test_after_fit_the_network_is_on_the_cpu_and_trains_nothing(images):
    clf = resnet().fit(images.data, images.target)
    assert {p.device.type for p in clf.net_.module_.parameters()} == {"cpu"}
    assert not any(p.requires_grad for p in clf.net_.module_.parameters())
    assert clf.net_.optimizer_ is None and not clf.net_.module_.training


@pytest.mark.skipif("not __import__('torch').cuda.is_available()", reason="needs a GPU")
def test_a_model_trained_on_a_gpu_loads_without_one(images, tmp_path):
    clf = resnet(device="cuda").fit(images.data, images.target)
    joblib.dump(clf, tmp_path / "model.joblib")
    script = "import joblib, sys; print(joblib.load(sys.argv[1]).predict_proba(sys.argv[2:]).tolist())"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "model.joblib"), *images.data[:3]],
        check=True,
        env=environment,
        capture_output=True,
        text=True,
    )
    np.testing.assert_allclose(eval(done.stdout), clf.predict_proba(images.data[:3]), atol=2e-2)


def test_training_goes_on_after_loading(images, tmp_path):
    clf = quick_classifier(warm_start=True).fit(images.data, images.target)
    joblib.dump(clf, tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib").fit(images.data, images.target)
    clf.fit(images.data, images.target)
    np.testing.assert_array_equal(loaded.predict_proba(images.data), clf.predict_proba(images.data))


def test_the_history_has_a_row_an_epoch(images):
    clf = quick_classifier().fit(images.data, images.target)
    assert len(clf.history_) == clf.n_epochs_ == 2
    assert {"epoch", "train_loss", "valid_loss", "lr", "stage", "best", "dur"} <= set(clf.history_)


# -- save_model and load_model --------------------------------------------------------------


@pytest.fixture(scope="session")
def valid(small_mura):
    return load_mura(small_mura, subset="valid")


@pytest.fixture
def kept(tmp_path):
    """A function that saves a classifier and loads it again."""
    path = tmp_path / "model.safetensors"

    def kept(clf, **options):
        save_model(clf, path, overwrite=True, **options)
        return load_model(path)

    kept.path = path
    return kept


def make_fixture(path):
    """Write what tests/data holds of this version of the format, and print what it predicts."""
    rng = np.random.default_rng(0)
    folder = path.parent / "images"
    images = []
    for at in range(16):
        study = f"study1_{'positive' if at % 2 else 'negative'}"
        images.append(folder / f"train/XR_WRIST/patient{at:05d}/{study}/image1.png")
        images[-1].parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(images[-1])
    clf = quick_classifier(class_weight={"a": 1, "b": 2}).fit(images, np.array(["a", "b"] * 8))
    save_model(clf, path, metrics={"kappa": 0.25})
    print(clf.predict_proba(fixture_image(folder)))


def fixture_image(folder):
    slope = np.arange(32, dtype=np.uint8)
    path = folder / "slope.png"
    Image.fromarray(slope * 4 + 3 * slope[:, None]).save(path)
    return [path]


def test_a_saved_model_predicts_the_same_bits_in_another_process(images, tmp_path):
    clf = resnet().fit(images.data, images.target)
    save_model(clf, tmp_path / "model.safetensors")
    assert os.path.getsize(tmp_path / "model.safetensors") <= 1.01 * size_of_weights(clf)
    script = (
        "import sys, murakit, numpy as np\n"
        "clf = murakit.load_model(sys.argv[1])\n"
        "np.save(sys.argv[2], clf.predict_proba(sys.argv[3:]))\n"
    )
    found = tmp_path / "proba.npy"
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "model.safetensors"), str(found), *images.data],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    np.testing.assert_array_equal(np.load(found), clf.predict_proba(images.data))


def test_all_that_a_fit_learnt_comes_back(images, kept):
    clf = quick_classifier(callbacks=["roc_auc"], augment={"rotation": 5}, warm_start=True, tta=True)
    clf.fit(images.data, images.target)
    # Columns that the first epochs lack, and a stage that was frozen then.
    clf.set_params(callbacks=["accuracy"], unfreeze="one").fit(images.data, images.target)
    loaded = kept(clf, patients="keep")
    assert type(loaded) is MuraClassifier and loaded.get_params() == clf.get_params()
    assert clone(loaded).get_params() == clf.get_params()
    pd.testing.assert_frame_equal(loaded.history_, clf.history_, check_exact=True)
    for name in ("n_epochs_", "best_epoch_", "validation_score_", "n_features_in_"):
        assert getattr(loaded, name) == getattr(clf, name), name
    for name in ("classes_", "train_patients_", "validation_patients_"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(clf, name))
        assert getattr(loaded, name).dtype == getattr(clf, name).dtype
    assert same_state(state_of(loaded), state_of(clf))
    assert not loaded.net_.module_.training and loaded.net_.optimizer_ is None
    assert not any(parameter.requires_grad for parameter in loaded.net_.module_.parameters())
    np.testing.assert_array_equal(loaded.predict_proba(images.data), clf.predict_proba(images.data))


@pytest.mark.parametrize(
    "classes",
    [
        np.array([-7, 40]),
        np.array([3, 200], dtype=np.uint8),
        np.array([False, True]),
        np.array([0.0, 2.0]),
        np.array(["abnormal", "normal with a longer name"]),
        np.array(["gesund", "krank"], dtype=object),
    ],
    ids=lambda classes: f"{classes.dtype}",
)
def test_labels_of_any_type_are_kept(images, kept, classes):
    y = classes[images.target]
    clf = quick_classifier(max_epochs=1, pos_label=classes.tolist()[1]).fit(images.data, y)
    loaded = kept(clf)
    np.testing.assert_array_equal(loaded.classes_, classes)
    assert loaded.classes_.dtype == clf.classes_.dtype
    assert [type(label) for label in loaded.classes_] == [type(label) for label in clf.classes_]
    np.testing.assert_array_equal(loaded.predict(images.data), clf.predict(images.data))


def test_more_than_two_classes_are_kept(small_mura, kept):
    mura = load_mura(small_mura, target="region_abnormal")
    clf = quick_classifier(max_epochs=1, class_weight=None).fit(mura.data, mura.target)
    np.testing.assert_array_equal(kept(clf).predict_proba(mura.data), clf.predict_proba(mura.data))


def test_parameters_from_numpy_and_pytorch_are_kept_as_plain_values(images, kept):
    clf = quick_classifier(
        class_weight={0: np.float32(0.5), np.int64(1): 2},
        lr=np.float64(0.1) / 3,
        max_epochs=np.int64(1),
        device=torch.device("cpu"),
        verbose=0,
        random_state=np.int32(3),
    ).fit(images.data, images.target)
    loaded = kept(clf.set_params(decision_threshold=np.float32(0.3), runtime="torch"))
    params = loaded.get_params()
    assert params["class_weight"] == {0: 0.5, 1: 2} and params["device"] == "cpu"
    assert (params["lr"], params["max_epochs"], params["random_state"]) == (0.1 / 3, 1, 3)
    np.testing.assert_array_equal(loaded.predict(images.data), clf.predict(images.data))


def test_what_cannot_be_kept_is_told(images, kept, tmp_path):
    torch.save(
        quick_classifier().fit(images.data, images.target).net_.module_.state_dict(), tmp_path / "my.pt"
    )
    clf = quick_classifier(
        weights=tmp_path / "my.pt",
        callbacks=[Callback(), "roc_auc"],
        random_state=np.random.RandomState(0),
        cache=tmp_path / "cache",
        max_epochs=1,
    ).fit(images.data, images.target)
    with pytest.warns(UserWarning, match=r"does not keep .*my\.pt.*Callback.*random_state"):
        loaded = kept(clf)
    assert loaded.weights is loaded.random_state is loaded.cache is None
    assert loaded.callbacks == ["roc_auc"]
    assert str(tmp_path).encode() not in kept.path.read_bytes()
    assert len(model_info(kept.path)["not_kept"]) == 3
    np.testing.assert_array_equal(loaded.predict_proba(images.data), clf.predict_proba(images.data))


def test_a_parameter_that_was_changed_after_the_fit_is_kept_as_it_is_now(images, kept):
    clf = quick_classifier().fit(images.data, images.target).set_params(image_size=48, unfreeze="head")
    np.testing.assert_array_equal(kept(clf).predict_proba(images.data), clf.predict_proba(images.data))
    with pytest.raises(ValueError, match="trained as backbone='tiny'.*'resnet18' since"):
        kept(clf.set_params(backbone="resnet18"))


def test_training_goes_on_from_a_file(images, kept):
    clf = quick_classifier(warm_start=True).fit(images.data, images.target)
    loaded = kept(clf).fit(images.data, images.target)
    clf.fit(images.data, images.target)
    assert same_state(state_of(loaded), state_of(clf))
    assert len(loaded.history_) == 4 and len(loaded.train_patients_) == len(clf.train_patients_)
    rows = np.isin(images.patients, clf.validation_patients_[:1])
    for one in (loaded, clf):
        one.partial_fit(images.data[rows], images.target[rows])
    assert same_state(state_of(loaded), state_of(clf))
    assert len(loaded.train_patients_) == len(clf.train_patients_)
    assert len(loaded.validation_patients_) == len(clf.validation_patients_)


def test_a_loaded_model_is_explained_and_dumped(images, kept, tmp_path):
    clf = quick_classifier().fit(images.data, images.target)
    loaded = kept(clf)
    np.testing.assert_array_equal(
        grad_cam(loaded, images.data[:2]).maps[0], grad_cam(clf, images.data[:2]).maps[0]
    )
    joblib.dump(loaded, tmp_path / "model.joblib")
    np.testing.assert_array_equal(
        joblib.load(tmp_path / "model.joblib").predict_proba(images.data), clf.predict_proba(images.data)
    )


def test_models_that_were_loaded_do_not_share_weights(images, kept):
    one, other = (
        quick_classifier(unfreeze="head", random_state=seed).fit(images.data, images.target)
        for seed in (0, 1)
    )
    loaded, expected = kept(one), one.predict_proba(images.data)
    kept(other).net_.module_.stages["one"][0].weight.data.zero_()
    np.testing.assert_array_equal(loaded.predict_proba(images.data), expected)
    again = quick_classifier(unfreeze="head").fit(images.data, images.target)
    np.testing.assert_array_equal(again.predict_proba(images.data), expected)


def test_loading_a_model_changes_no_other_one(images, kept, tmp_path):
    models = []
    for seed in (0, 1):
        start = quick_classifier(unfreeze="all", random_state=seed).fit(images.data, images.target)
        torch.save(state_of(start), tmp_path / f"{seed}.pt")
        # What is frozen, statistics of BatchNorms among it, differs from one file to the other.
        clf = quick_classifier(weights=tmp_path / f"{seed}.pt", unfreeze="two", image_size=64)
        models.append(clf.fit(images.data, images.target))
    with pytest.warns(UserWarning, match="does not keep the path of weights="):
        loaded = [kept(clf) for clf in models]
    for one, other in zip(loaded, models):
        assert same_state(state_of(one), state_of(other))
        np.testing.assert_array_equal(one.predict_proba(images.data), other.predict_proba(images.data))


def test_what_is_changed_in_one_network_is_changed_in_no_other(images, tmp_path):
    torch.save(state_of(quick_classifier().fit(images.data, images.target)), tmp_path / "weights.pt")
    clf = quick_classifier(weights=tmp_path / "weights.pt")
    one, other = (clone(clf).fit(images.data, images.target) for _ in range(2))
    before = other.predict_proba(images.data)
    with torch.no_grad():
        for tensor in one.net_.module_.state_dict().values():
            tensor += 1
    again = clone(clf).fit(images.data, images.target)
    for each in (other, again):
        assert same_state(state_of(each), state_of(other))
        np.testing.assert_array_equal(each.predict_proba(images.data), before)
    assert not same_state(state_of(one), state_of(other))


def test_loading_leaves_the_global_random_state_alone(images, kept):
    clf = quick_classifier(max_epochs=1).fit(images.data, images.target)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    kept(clf)
    assert torch.equal(torch.get_rng_state(), before)


# -- patients -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["hash", "keep"])
def test_a_loaded_model_is_not_judged_on_patients_it_knows(images, valid, kept, how):
    clf = quick_classifier(validation_fraction=0.3).fit(images.data, images.target)
    loaded = kept(kept(clf, patients=how), patients=how)
    for attribute, did in (("train_patients_", "trained on"), ("validation_patients_", "chose the epoch")):
        rows = np.isin(images.patients, getattr(clf, attribute))
        with pytest.raises(ValueError, match=f"{did}.*{images.patients[rows][0]}"):
            evaluate(loaded, images.data[rows], images.target[rows])
    one, other = (evaluate(model, valid.data, valid.target, n_resamples=20) for model in (clf, loaded))
    pd.testing.assert_frame_equal(one.to_frame(), other.to_frame())
    names_are_there = images.patients[0].encode() in kept.path.read_bytes()
    assert names_are_there == (how == "keep")


def test_a_loaded_model_never_validates_on_patients_it_was_trained_on(images, kept):
    clf = quick_classifier(warm_start=True, early_stopping=False).fit(images.data, images.target)
    loaded = kept(clf).set_params(early_stopping=True)
    with pytest.raises(ValueError, match="trained on every patient of X"):
        loaded.fit(images.data, images.target)
    with pytest.raises(ValueError, match="were trained on before"):
        loaded.fit(images.data[6:], images.target[6:], X_val=images.data[:1], y_val=images.target[:1])


def test_hashes_of_two_files_have_nothing_in_common(images, kept):
    clf = quick_classifier(max_epochs=1).fit(images.data, images.target)
    one, other = kept(clf), kept(clf)
    assert not set(one.train_patients_) & set(other.train_patients_)


def test_without_patients_nobody_is_told_from_them(images, kept):
    clf = quick_classifier(max_epochs=1, warm_start=True).fit(images.data, images.target)
    loaded = kept(clf, patients=None)
    assert loaded.train_patients_ is None and loaded.validation_patients_ is None
    with pytest.raises(ValueError, match="patients of an earlier fit are not known"):
        loaded.fit(images.data, images.target)


def test_patients_that_are_numbers_are_known_again(images, kept):
    groups = pd.factorize(images.patients)[0]
    clf = quick_classifier(warm_start=True).fit(images.data, images.target, groups=groups)
    loaded = kept(clf)
    assert len(loaded.train_patients_) == len(clf.train_patients_)
    with pytest.raises(ValueError, match="patients to judge on"):
        evaluate(loaded, images.data, images.target, patients=groups)
    loaded.fit(images.data, images.target, groups=groups)
    assert len(loaded.train_patients_) == len(clf.train_patients_)
    kept_by_name = kept(clf, patients="keep")
    np.testing.assert_array_equal(kept_by_name.train_patients_, clf.train_patients_)


# -- what else a file says ------------------------------------------------------------------


def test_a_file_tells_where_it_is_from_and_how_good_it_is(images, valid, kept):
    clf = quick_classifier(max_epochs=1).fit(images.data, images.target)
    evaluation = evaluate(clf, valid.data, valid.target, n_resamples=20)
    kept(clf, metrics=evaluation)
    info = model_info(kept.path)
    assert info["metrics"] == json.loads(evaluation.to_json())
    assert {"murakit", "torch", "python"} <= set(info["versions"]) and info["kind"] == "MuraClassifier"
    assert info["models"][0]["classes"]["values"] == [0, 1]
    metrics = {"kappa": np.float64(0.1), "by fold": (1, 2.5), 3: np.arange(2), "nan": float("inf")}
    kept(clf, metrics=metrics)
    expected = {"kappa": 0.1, "by fold": (1, 2.5), 3: [0, 1], "nan": float("inf")}
    assert model_info(kept.path)["metrics"] == expected


def test_a_file_of_the_first_format_is_still_read(tmp_path):
    clf = load_model(DATA / "model_format_1.safetensors")
    assert clf.classes_.tolist() == ["a", "b"] and clf.class_weight == {"a": 1, "b": 2}
    assert model_info(DATA / "model_format_1.safetensors")["metrics"] == {"kappa": 0.25}
    np.testing.assert_allclose(clf.predict_proba(fixture_image(tmp_path)), [FIXTURE_PROBA], atol=1e-5)


def test_a_model_may_be_kept_whose_epochs_were_lowered_after_the_fit(images, tmp_path):
    clf = quick_classifier(head_epochs=1, augment=False).fit(images.data[:16], images.target[:16])
    save_model(clf.set_params(max_epochs=1), tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.predict_proba(images.data[:4]), clf.predict_proba(images.data[:4]))


# -- what save_model refuses ----------------------------------------------------------------


def test_what_is_no_fitted_classifier_is_refused(tmp_path):
    search = MuraSearchCV(quick_classifier(), {"lr": [1e-3]})
    with pytest.raises(TypeError, match=r"not a MuraSearchCV: use joblib\.dump .*best_estimator_"):
        save_model(search, tmp_path / "model.safetensors")
    with pytest.raises(NotFittedError):
        save_model(quick_classifier(), tmp_path / "model.safetensors")


def test_a_file_is_not_overwritten_unasked(images, tmp_path):
    clf = quick_classifier(max_epochs=1).fit(images.data, images.target)
    path = tmp_path / "model.safetensors"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_model(clf, path)
    assert path.read_text() == "mine"
    save_model(clf, path, overwrite=True)
    assert load_model(path).n_epochs_ == 1


def test_a_file_may_be_read_by_whom_other_files_may_be_read_by(images, tmp_path):
    (tmp_path / "other").touch()
    clf = quick_classifier(max_epochs=1).fit(images.data, images.target)
    save_model(clf, tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("model.pt", {}, "let it end with '.safetensors'"),
        ("none/model.safetensors", {}, "there is no folder"),
        ("model.safetensors", {"patients": "names"}, "pass 'hash', 'keep' or None"),
        (
            "model.safetensors",
            {"metrics": {"model": object()}},
            "metrics holds <object.*a object: a model's file",
        ),
    ],
)
def test_what_cannot_be_written_leaves_nothing(images, tmp_path, name, options, message):
    clf = quick_classifier(max_epochs=1).fit(images.data, images.target)
    with pytest.raises((ValueError, OSError), match=message):
        save_model(clf, tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_cannot_be_built_again_is_not_written(images, tmp_path):
    clf = quick_classifier(max_epochs=1).fit(images.data, images.target)
    clf.net_.module_.stages["one"].append(torch.nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match="could not be loaded again .*joblib.dump"):
        save_model(clf, tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_history_of_objects_is_named(images, tmp_path):
    clf = quick_classifier(max_epochs=1).fit(images.data, images.target)
    clf.history_["parts"] = [[1, 2.5]]
    save_model(clf, tmp_path / "lists.safetensors")
    pd.testing.assert_frame_equal(load_model(tmp_path / "lists.safetensors").history_, clf.history_)
    clf.history_["plan"] = [object()]
    with pytest.raises(ValueError, match=r"history_\['plan'\] holds"):
        save_model(clf, tmp_path / "model.safetensors")
