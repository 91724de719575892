"""A seed decides everything, in any process, and nobody else's random state is touched."""

import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import quick_classifier, same_state, state_of
from sklearn.base import clone

from murakit.training._net import TrainingNet


def test_the_same_seed_gives_the_same_bits_and_another_does_not(images):
    fitted = [
        quick_classifier(random_state=seed, dropout=0.3).fit(images.data, images.target) for seed in (0, 0, 1)
    ]
    one, same, other = map(state_of, fitted)
    assert same_state(one, same)
    assert not same_state(one, other)
    assert set(fitted[0].validation_patients_) != set(fitted[2].validation_patients_)


def test_without_a_seed_two_fits_differ(images):
    one, two = (quick_classifier(random_state=None).fit(images.data, images.target) for _ in range(2))
    assert not same_state(state_of(one), state_of(two))


def threads_in_fit(monkeypatch, images):
    """The number of threads that a fit computes with."""
    seen = []
    train_on = TrainingNet.train_on

    def watched(self, *args):
        seen.append(torch.get_num_threads())
        return train_on(self, *args)

    monkeypatch.setattr(TrainingNet, "train_on", watched)
    quick_classifier(max_epochs=1).fit(images.data, images.target)
    return seen


# In a process of its own, as a user's: the kernels of this one have run with other numbers of threads.
_FOLDS = """
import sys
import torch
from sklearn.model_selection import cross_validate
from murakit import MuraClassifier, PatientKFold, load_mura

if __name__ == "__main__":
    mura = load_mura(sys.argv[1])
    clf = MuraClassifier(
        weights=None, unfreeze="layer3", image_size=32, batch_size=8, max_epochs=1, lr=1e-2, random_state=3
    )
    states = []
    for n_jobs in (None, 2):
        folds = cross_validate(
            clf, mura.data, mura.target, cv=PatientKFold(2), n_jobs=n_jobs, return_estimator=True, error_score="raise"
        )
        states.append([fold.net_.module_.state_dict() for fold in folds["estimator"]])
    for here, there in zip(*states):
        assert all(torch.equal(here[key], there[key]) for key in here)
    print("the same bits")
"""


def test_folds_in_worker_processes_repeat_bit_for_bit_where_the_threads_are_chosen(small_mura, tmp_path):
    script = tmp_path / "folds.py"
    script.write_text(_FOLDS)
    done = subprocess.run(
        [sys.executable, script, small_mura],
        env={**os.environ, "MURAKIT_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "the same bits", done.stderr


@pytest.mark.parametrize("given", [1, 2])
def test_a_process_uses_the_threads_that_it_was_given(images, monkeypatch, given):
    monkeypatch.delenv("MURAKIT_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(given)
    try:
        assert threads_in_fit(monkeypatch, images) == [given]
        assert torch.get_num_threads() == given
    finally:
        torch.set_num_threads(before)


def test_a_chosen_number_of_threads_is_used_in_fits_only(images, monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setenv("MURAKIT_NUM_THREADS", str(before + 1))
    assert threads_in_fit(monkeypatch, images) == [before + 1]
    assert torch.get_num_threads() == before


def test_importing_murakit_changes_no_environment():
    script = "import os; before = dict(os.environ); import murakit; print({**os.environ} == before)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "True"


def test_a_number_of_threads_that_is_none_is_refused(images, monkeypatch):
    monkeypatch.setenv("MURAKIT_NUM_THREADS", "all")
    with pytest.raises(ValueError, match="MURAKIT_NUM_THREADS='all' is no number of threads"):
        quick_classifier().fit(images.data, images.target)


@pytest.mark.parametrize("n_jobs", [1, 2, -1])
def test_the_number_of_reading_threads_does_not_matter(images, n_jobs):
    reference = quick_classifier(n_jobs=None).fit(images.data, images.target)
    other = quick_classifier(n_jobs=n_jobs).fit(images.data, images.target)
    assert same_state(state_of(reference), state_of(other))
    np.testing.assert_array_equal(reference.predict_proba(images.data), other.predict_proba(images.data))


def test_the_callers_random_states_and_threads_are_untouched(images):
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = (
        random.getstate(),
        np.random.get_state()[1].copy(),
        torch.get_rng_state(),
        torch.get_num_threads(),
    )
    for seed in (0, None):
        quick_classifier(random_state=seed, dropout=0.5).fit(images.data, images.target).predict(images.data)
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()
    assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.get_num_threads() == before[3]


def test_the_callers_seed_does_not_change_the_result(images):
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        states.append(state_of(quick_classifier(dropout=0.5).fit(images.data, images.target)))
    assert same_state(*states)


def test_a_random_state_instance_moves_on(images):
    clf = quick_classifier(random_state=np.random.RandomState(0))
    first = state_of(clf.fit(images.data, images.target))
    assert not same_state(first, state_of(clf.fit(images.data, images.target)))


def test_a_clone_of_a_fitted_classifier_is_unfitted(images):
    clf = quick_classifier().fit(images.data, images.target)
    copy = clone(clf)
    assert not [name for name in vars(copy) if name.endswith("_")]
    assert copy.get_params() == clf.get_params()
    assert same_state(state_of(copy.fit(images.data, images.target)), state_of(clf))


def test_fit_changes_no_parameter(images):
    clf = quick_classifier(callbacks=["roc_auc"], augment={"rotation": 30})
    before = dict(clf.get_params())
    clf.fit(images.data, images.target)
    assert clf.get_params() == before
