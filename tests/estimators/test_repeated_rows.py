"""Rows that repeat an image, as a bootstrap makes them, count as often as they stand there."""

import numpy as np
import pytest
from helpers import quick_classifier
from sklearn.ensemble import BaggingClassifier
from sklearn.utils import resample


def test_bagging_works_as_it_does_by_default(images):
    X = images.data.reshape(-1, 1)
    bagging = BaggingClassifier(quick_classifier(max_epochs=1), n_estimators=2, random_state=0)
    proba = bagging.fit(X, images.target).predict_proba(X)
    assert proba.shape == (len(X), 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1)


def test_a_repeated_row_counts_as_often_as_it_stands_there(images):
    params = {
        "unfreeze": "head",
        "augment": False,
        "class_weight": None,
        "early_stopping": False,
        "batch_size": 500,
    }
    rows = resample(np.arange(len(images.data)), random_state=0)
    repeated = quick_classifier(**params, max_epochs=1).fit(images.data[rows], images.target[rows])
    counts = np.bincount(rows, minlength=len(images.data))
    weighted = quick_classifier(**params, max_epochs=1).fit(images.data, images.target, sample_weight=counts)
    assert repeated.history_["train_loss"][0] == pytest.approx(weighted.history_["train_loss"][0], rel=1e-5)
    np.testing.assert_allclose(
        repeated.predict_proba(images.data), weighted.predict_proba(images.data), atol=1e-4
    )


def test_no_patient_of_a_bootstrap_is_on_both_sides(images):
    rows = resample(np.arange(len(images.data)), random_state=1)
    clf = quick_classifier(max_epochs=1).fit(images.data[rows], images.target[rows])
    assert not set(clf.train_patients_) & set(clf.validation_patients_)
