"""Real radiographs, where they are at hand: real film, real patients, a task of real difficulty."""

import numpy as np
import pytest
from sklearn.model_selection import cross_val_score

from murakit import MuraClassifier, PatientKFold, check_disjoint, check_mura, load_mura, study_scorer

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def chest(real_data):
    return load_mura(real_data / "nih_cxr", subset="all")


def test_they_load_with_their_patients(real_data, chest):
    assert len(chest.data) == 340 and chest.target.sum() == 170
    assert len(set(chest.patients)) == 211 and set(chest.regions) == {"chest"}
    check_disjoint(*(load_mura(real_data / "nih_cxr", subset=subset) for subset in ("train", "valid")))


def test_they_have_no_problems(real_data):
    assert check_mura(real_data / "nih_cxr", verbose=0).empty


def test_the_head_on_imagenet_features_tells_pneumonia_from_none(real_data, chest):
    weights = real_data / "resnet18_imagenet_restored.pth"
    if not weights.exists():
        pytest.skip(f"no {weights.name}")
    clf = MuraClassifier(
        weights=weights, unfreeze="head", augment=False, image_size=96, lr=3e-3, max_epochs=15, random_state=0
    )
    scores = cross_val_score(
        clf,
        chest.data,
        chest.target,
        cv=PatientKFold(3),
        scoring=study_scorer("roc_auc"),
        error_score="raise",
    )
    # 0.77 when this was written; chance is 0.5, give or take 0.03.
    assert np.mean(scores) > 0.7
