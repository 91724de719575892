"""A fitted classifier is its weights and little else, and is the same after loading."""

import os
import subprocess
import sys

import joblib
import numpy as np
import pytest
from helpers import quick_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import TunedThresholdClassifierCV

from murakit import MuraSearchCV, PatientKFold


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
