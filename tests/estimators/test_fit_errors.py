"""Bad input is refused before any training, with the place, the cause and the remedy."""

import os

import numpy as np
import pandas as pd
import pytest
from helpers import quick_classifier
from PIL import Image

from murakit import UnreadableImage


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    def train(*args, **kwargs):
        pytest.fail("training began")

    monkeypatch.setattr("murakit.training._net.TrainingNet.train_on", train)


def test_one_class(images):
    with pytest.raises(ValueError, match="only one class, 0: .* two classes"):
        quick_classifier().fit(images.data, np.zeros(len(images.data), dtype=int))


@pytest.mark.parametrize("missing", [np.nan, None])
def test_missing_labels(images, missing):
    y = images.target.astype(object)
    y[3] = missing
    with pytest.raises(ValueError, match=r"y: row 3 has no label.*1 of"):
        quick_classifier().fit(images.data, y)


def test_labels_outside_the_classes_given(images):
    with pytest.raises(ValueError, match=r"label 1, which is none of the classes \[0, 2\]"):
        quick_classifier(pos_label=2).partial_fit(images.data, images.target, classes=[0, 2])


def test_no_labels(images):
    with pytest.raises(ValueError, match="requires y to be passed"):
        quick_classifier().fit(images.data, None)


def test_labels_of_another_length(images):
    with pytest.raises(ValueError, match=r"y has 3 entries for .* samples"):
        quick_classifier().fit(images.data, [0, 1, 0])


def test_groups_of_another_length(images):
    with pytest.raises(ValueError, match=r"groups has 2 entries for"):
        quick_classifier().fit(images.data, images.target, groups=["a", "b"])


def test_a_missing_group(images):
    groups = images.patients.copy()
    groups[4] = None
    with pytest.raises(ValueError, match="groups: row 4 has no patient"):
        quick_classifier().fit(images.data, images.target, groups=groups)


def test_rows_that_contradict_each_other(images):
    other = 1 - images.target[2]
    with pytest.raises(
        ValueError, match=r"rows 2 and \d+ both stand for the image .*with the labels \d and \d"
    ):
        quick_classifier().fit([*images.data, images.data[2]], [*images.target, other])


def test_a_whole_bunch_instead_of_its_paths(images):
    with pytest.raises(ValueError, match=r"X is a RadiographBunch of 'data', .*pass its paths, X\.data"):
        quick_classifier().fit(images, images.target)


def test_labels_of_two_types(images):
    y = images.target.astype(object)
    y[3] = "1"
    with pytest.raises(ValueError, match=r"y mixes text and other labels: \d in row 0, '1' in row 3"):
        quick_classifier().fit(images.data, y)


def test_a_file_as_the_folder_of_checkpoints(images, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"checkpoint='.*file' is a file"):
        quick_classifier(checkpoint=tmp_path / "file").fit(images.data, images.target)


def test_a_path_in_two_spellings(images, monkeypatch):
    monkeypatch.chdir(os.path.dirname(images.data[2]))
    again = os.path.basename(images.data[2])
    with pytest.raises(
        ValueError, match=r"rows 2 and \d+ both stand for .*with the patients 'patient\d+' and 'x'"
    ):
        quick_classifier().fit(
            [*images.data, again], [*images.target, images.target[2]], groups=[*images.patients, "x"]
        )


def test_an_image_beside_its_own_study(images, studies):
    image = next(path for path in images.data if path.startswith(studies.data[0]))
    with pytest.raises(ValueError, match="rows 0 and 1 both stand for"):
        quick_classifier().fit([image, studies.data[0], studies.data[1]], [1, 0, 1])


def test_missing_paths(images):
    X = images.data.copy()
    X[1] = X[1].replace("image", "picture")
    with pytest.raises(FileNotFoundError, match=r"1 of \d+ paths in X do not exist \(row 1: .*picture"):
        quick_classifier().fit(X, images.target)


def test_an_unreadable_image(images, tmp_path):
    broken = tmp_path / "XR_WRIST" / "patient99999" / "study1_positive" / "image1.png"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no image")
    with pytest.raises(UnreadableImage, match="patient99999"):
        quick_classifier().fit([*images.data, broken], [*images.target, 1])


@pytest.mark.parametrize(
    "X", ["one/path.png", 3, [1, 2], [["a.png", "b.png"]], pd.DataFrame({"a": ["x"], "b": ["y"]})]
)
def test_an_X_that_is_no_column_of_paths(X):
    with pytest.raises((ValueError, TypeError), match="X"):
        quick_classifier().fit(X, [0, 1])


def test_patients_that_cannot_be_told(tmp_path):
    paths = []
    for number in range(6):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.full((8, 8), number, dtype=np.uint8)).save(path)
        paths.append(path)
    with pytest.raises(ValueError, match=r"patient of row 0 is not known.* groups= .*early_stopping=False"):
        quick_classifier().fit(paths, [0, 1] * 3)


def test_too_few_patients_for_a_validation_side(images):
    rows = [np.flatnonzero(images.target == label)[0] for label in (0, 1)]
    with pytest.raises(ValueError, match="2 patients are too few .* X_val"):
        quick_classifier().fit(images.data[rows], images.target[rows])


def test_validation_patients_that_are_trained_on(images):
    with pytest.raises(ValueError, match=r"patients are in X and in X_val, .*\(patient"):
        quick_classifier().fit(images.data, images.target, X_val=images.data[:2], y_val=images.target[:2])


def test_validation_samples_without_labels(images):
    with pytest.raises(ValueError, match="X_val was passed without y_val"):
        quick_classifier().fit(images.data, images.target, X_val=images.data[:2])


def test_validation_labels_that_training_does_not_know(images):
    with pytest.raises(ValueError, match=r"y_val has the labels \[7\]"):
        quick_classifier().fit(images.data[4:], images.target[4:], X_val=images.data[:1], y_val=[7])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"backbone": "resnet19"}, "backbone='resnet19' is not known; choose one of"),
        ({"unfreeze": "layer9"}, "unfreeze='layer9' is no stage of tiny"),
        ({"weights": "/nowhere/weights.pth"}, "there is no such file"),
        ({"class_weight": {0: 1.0}}, r"class_weight has no weight for the classes \[1\]"),
        ({"class_weight": "even"}, "class_weight"),
        ({"monitor": "roc"}, "roc"),
        ({"callbacks": ["aucc"]}, "aucc"),
        ({"lr": -1}, "lr"),
        ({"image_size": 8}, "image_size"),
        ({"augment": {"zoom": 1}}, "zoom"),
        ({"device": "cuda:7"}, "device|GPU|CUDA"),
        ({"device": "gpu"}, "device"),
    ],
)
def test_parameters_that_make_no_sense(images, params, message):
    with pytest.raises((ValueError, FileNotFoundError, TypeError, RuntimeError), match=message):
        quick_classifier(**params).fit(images.data, images.target)


def test_weights_that_cannot_be_downloaded(images, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(
        OSError, match=r"resnet18-.*\.pth could not be downloaded \(no route.*weights=, .*weights=None"
    ):
        quick_classifier(backbone="resnet18", unfreeze="head", weights="imagenet").fit(
            images.data, images.target
        )


def test_predicting_before_fitting(images):
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        quick_classifier().predict(images.data)


def test_patients_of_one_side_only(images):
    X, y, groups = images.data, images.target, images.patients
    rest = {"X_val": X[:6], "y_val": y[:6]}
    with pytest.raises(ValueError, match="groups_val is missing"):
        quick_classifier().fit(X[6:], y[6:], groups=groups[6:], **rest)
    with pytest.raises(ValueError, match="groups is missing"):
        quick_classifier().fit(X[6:], y[6:], groups_val=groups[:6], **rest)
    with pytest.raises(ValueError, match="without X_val"):
        quick_classifier().fit(X, y, y_val=y)


def test_the_same_patient_as_whole_number_and_float_is_one_patient(images):
    X, y = images.data, images.target
    number = np.unique(images.patients, return_inverse=True)[1]
    with pytest.raises(ValueError, match="patients are in X and in X_val"):
        quick_classifier().fit(
            X, y, groups=number, X_val=X[:1], y_val=y[:1], groups_val=number[:1].astype(float)
        )
    with pytest.raises(ValueError, match="patients are in X and in X_val"):
        quick_classifier().fit(X, y, groups=number, X_val=X[:1], y_val=y[:1], groups_val=[f" {number[0]}.0 "])


def test_region_weights_without_regions(images, tmp_path):
    path = tmp_path / "hand.png"
    Image.open(images.data[0]).save(path)
    with pytest.raises(
        ValueError, match="class_weight='region' needs the region of every image of X and X_val"
    ):
        quick_classifier(class_weight="region").fit(
            images.data, images.target, groups=images.patients, X_val=[path], y_val=[0], groups_val=["other"]
        )


def test_callbacks_that_cannot_work():
    from skorch.callbacks import EpochScoring

    for callback, message in (
        (EpochScoring("roc_auc"), "pass the name of its scorer"),
        (3, "neither a skorch callback"),
    ):
        with pytest.raises(ValueError, match=message):
            quick_classifier(callbacks=[callback]).fit(["a.png"], [0])


def test_one_class_in_a_first_partial_fit(images):
    with pytest.raises(ValueError, match="name all of them in classes="):
        quick_classifier().partial_fit(images.data, np.zeros(len(images.data), dtype=int))


def test_a_failed_fit_is_no_fit(images):
    from sklearn.exceptions import NotFittedError

    clf = quick_classifier()
    with pytest.raises(ValueError, match="only one class"):
        clf.fit(images.data, np.zeros(len(images.data), dtype=int))
    with pytest.raises(NotFittedError):
        clf.predict(images.data)
