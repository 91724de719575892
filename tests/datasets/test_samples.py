"""A table of samples says whose each image is, in the order of X, and is built once."""

import numpy as np
import pandas as pd
import pytest
from helpers import quick_classifier

from murakit import evaluate, load_mura
from murakit.datasets import _samples
from murakit.datasets._samples import as_rows, as_samples


def test_a_study_folder_is_replaced_by_its_images(studies):
    samples = as_samples(studies.data)
    frame = studies.frame.reset_index(drop=True)
    assert samples.n_images().tolist() == frame["n_images"].tolist()
    assert samples.patient.tolist() == frame["patient"].to_numpy()[samples.row].tolist()
    assert samples.study.tolist() == frame["study"].to_numpy()[samples.row].tolist()
    assert samples.region.tolist() == frame["region"].to_numpy()[samples.row].tolist()
    assert samples.by_sample().path.tolist() == studies.data.tolist()


def test_given_columns_take_the_place_of_what_paths_say(images):
    n = len(images.data)
    samples = as_samples(images.data, patients=np.arange(n), regions=["left"] * n)
    assert samples.patient.tolist() == [str(number) for number in range(n)]
    assert set(samples.region) == {"left"}
    assert samples.study.tolist() == images.studies.tolist()


def test_samples_are_chosen_in_the_order_that_is_asked_for(studies):
    samples = as_samples(studies.data)
    chosen = samples.of_samples(np.array([5, 0, 3]))
    assert chosen.sample.tolist() == studies.data[[5, 0, 3]].tolist()
    expected = np.concatenate([np.flatnonzero(samples.row == row) for row in (5, 0, 3)])
    assert chosen.path.tolist() == samples.path[expected].tolist()
    assert chosen.n_images().tolist() == samples.n_images()[[5, 0, 3]].tolist()


def test_rows_that_are_no_paths_are_named_by_their_number():
    rows = as_rows(3, patients=pd.Series(["a", "b", "a"]))
    assert rows.path.tolist() == ["0", "1", "2"] and rows.patient.tolist() == ["a", "b", "a"]
    assert rows.known("study") is None
    with pytest.raises(ValueError, match="regions has 2 entries for 3 samples"):
        as_rows(3, regions=["a", "b"])


def test_the_table_cannot_be_changed_in_place(images):
    samples = as_samples(images.data)
    with pytest.raises(AttributeError):
        samples.path = samples.path[:1]


@pytest.mark.parametrize("level", ["image", "study"])
def test_evaluating_parses_each_path_once_and_lists_each_folder_once(small_mura, images, monkeypatch, level):
    clf = quick_classifier(max_epochs=1).fit(images.data, images.target)
    valid = load_mura(small_mura, subset="valid", level=level)
    parsed, listed = [], []
    split_path, images_in = _samples.split_path, _samples.images_in
    monkeypatch.setattr(_samples, "split_path", lambda path: parsed.append(path) or split_path(path))
    monkeypatch.setattr(_samples, "images_in", lambda path: listed.append(path) or images_in(path))
    evaluate(clf, valid.data, valid.target, n_resamples=10)
    assert sorted(parsed) == sorted(valid.data)
    assert sorted(listed) == (sorted(valid.data) if level == "study" else [])
