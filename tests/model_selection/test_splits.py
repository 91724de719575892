"""Splits never part a patient, and keep labels and regions in proportion."""

import numpy as np
import pytest
from helpers import draw_studies, patients_of, regions_of
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.utils import check_random_state

from murakit import PatientKFold, PatientShuffleSplit
from murakit.model_selection._split import patient_holdout


@pytest.fixture(params=range(5))
def random_studies(request):
    """Image paths of patients with one to four studies, in any region and with any label."""
    return draw_studies(request.param)


def splitters():
    return [
        PatientKFold(5),
        PatientKFold(3, shuffle=True, random_state=0),
        PatientShuffleSplit(4, test_size=0.25, random_state=0),
    ]


@pytest.mark.parametrize("splitter", splitters(), ids=repr)
def test_no_patient_is_on_both_sides(splitter, random_studies):
    X, y = random_studies
    patients = patients_of(X)
    for train, test in splitter.split(X, y):
        assert not set(patients[train]) & set(patients[test])
        assert sorted([*train, *test]) == list(range(len(X)))


def test_every_sample_is_tested_once(random_studies):
    X, y = random_studies
    tests = np.concatenate([test for _, test in PatientKFold(5).split(X, y)])
    assert sorted(tests) == list(range(len(X)))


@pytest.mark.parametrize("splitter", splitters(), ids=repr)
def test_labels_and_regions_keep_their_proportions(splitter, random_studies):
    X, y = random_studies
    regions = regions_of(X)
    for _, test in splitter.split(X, y):
        assert np.mean(y[test]) == pytest.approx(np.mean(y), abs=0.06)
        for region in np.unique(regions):
            assert np.mean(regions[test] == region) == pytest.approx(np.mean(regions == region), abs=0.06)


def test_the_share_held_out_is_the_wanted_one(random_studies):
    X, y = random_studies
    for fraction in (0.1, 0.15, 0.3, 0.5):
        for _, test in PatientShuffleSplit(3, test_size=fraction, random_state=1).split(X, y):
            assert len(test) / len(X) == pytest.approx(fraction, abs=0.04)


def test_a_seed_repeats_and_another_differs(random_studies):
    X, y = random_studies

    def tests(splitter):
        return [test.tolist() for _, test in splitter.split(X, y)]

    for kind in (
        lambda seed: PatientKFold(3, shuffle=True, random_state=seed),
        lambda seed: PatientShuffleSplit(3, random_state=seed),
    ):
        assert tests(kind(1)) == tests(kind(1)) != tests(kind(2))


def test_a_seed_without_shuffling_changes_nothing_with_labels_or_without(random_studies):
    X, y = random_studies
    for labels in (y, None):
        splits = [PatientKFold(3, random_state=seed).split(X, labels) for seed in (None, 0)]
        for (_, one), (_, other) in zip(*splits):
            assert one.tolist() == other.tolist()


def test_the_global_random_state_is_left_alone(random_studies):
    X, y = random_studies
    before = check_random_state(None).get_state()[1].copy()
    list(PatientShuffleSplit(3, random_state=0).split(X, y))
    assert (check_random_state(None).get_state()[1] == before).all()


def test_groups_are_used_instead_of_paths_where_given():
    X = np.arange(20).reshape(10, 2)
    groups = np.repeat(list("abcde"), 2)
    for splitter in (PatientKFold(5), PatientShuffleSplit(3, test_size=0.4, random_state=0)):
        for train, test in splitter.split(X, [0, 1] * 5, groups):
            assert not set(groups[train]) & set(groups[test])
    expected = sorted(test.tolist() for _, test in GroupKFold(5).split(X, groups=groups))
    assert sorted(test.tolist() for _, test in PatientKFold(5).split(X, groups=groups)) == expected


def test_a_patient_that_cannot_be_told_is_an_error():
    paths = ["a/XR_HAND/patient00001/study1_negative/image1.png", "elsewhere/hand.png"]
    for splitter in (PatientKFold(2), PatientShuffleSplit(2)):
        with pytest.raises(ValueError, match=r"row 1 .*'elsewhere/hand.png'.*groups="):
            list(splitter.split(paths, [0, 1]))


def test_more_folds_than_patients_is_an_error(random_studies):
    X, y = random_studies
    with pytest.raises(ValueError, match=r"n_splits=5000 folds of \d+ patients"):
        list(PatientKFold(5000).split(X, y))


@pytest.mark.parametrize("n_splits", [1, 0, 2.5])
def test_fewer_than_two_folds_is_an_error(n_splits):
    with pytest.raises(ValueError, match="2 folds or more"):
        list(PatientKFold(n_splits).split(["a"], [0]))


@pytest.mark.parametrize("test_size", [0, 1, 1.5])
def test_a_share_outside_of_zero_to_one_is_an_error(test_size):
    with pytest.raises(ValueError, match="share of the samples"):
        list(PatientShuffleSplit(2, test_size=test_size).split(["a"], [0]))


def test_one_patient_alone_cannot_be_held_out():
    X = [f"XR_HAND/patient00001/study{i}_negative" for i in range(4)]
    with pytest.raises(ValueError, match="of one patient, 'patient00001'"):
        list(PatientShuffleSplit(2).split(X, [0, 1, 0, 1]))


def test_every_class_stays_in_training_and_comes_to_validation_where_it_can():
    for seed in range(50):
        rng = np.random.default_rng(seed)
        patients = rng.integers(0, 12, 40)
        labels = rng.integers(0, 2, 12)[patients]
        if len(np.unique(labels)) < 2:
            continue
        held = patient_holdout(patients, labels, None, 0.15, rng)
        holders = {label: len(np.unique(patients[labels == label])) for label in (0, 1)}
        for label, count in holders.items():
            assert label in labels[~held]
            assert count < 2 or label in labels[held]


def test_image_wise_folds_leak_and_patient_folds_do_not(random_studies):
    """A nearest-neighbour on the patient's number knows every label it has seen."""
    from sklearn.model_selection import KFold
    from sklearn.neighbors import KNeighborsClassifier

    X, _ = random_studies
    patients = patients_of(X)
    numbers = np.unique(patients, return_inverse=True)[1][:, None]
    y = np.random.default_rng(0).integers(0, 2, numbers.max() + 1)[numbers[:, 0]]
    knn = KNeighborsClassifier(1)
    leaky = cross_val_score(knn, numbers, y, cv=KFold(5, shuffle=True, random_state=0)).mean()
    honest = cross_val_score(knn, numbers, y, cv=PatientKFold(5), groups=patients).mean()
    assert leaky > 0.75 and honest < 0.65


def test_each_fold_has_every_label_where_labels_alone_allow_it():
    for seed in range(20):
        X, y = draw_studies(seed, n_patients=25)
        holders = min(len(set(patients_of(X)[y == label])) for label in (0, 1))
        if holders < 10:
            continue
        for _, test in PatientKFold(5).split(X, y):
            assert set(y[test]) == {0, 1}


def test_a_split_that_can_hold_nobody_out_is_an_error():
    X = [f"XR_HAND/patient0000{p}/study1_negative" for p in (1, 2)]
    with pytest.raises(ValueError, match="No patient can be held out"):
        list(PatientShuffleSplit(1).split(X, [0, 1]))


def small_set(seed):
    """Few patients with several rows each; in odd sets a patient has rows of both labels."""
    rng = np.random.default_rng(seed)
    n_patients = int(rng.integers(2, 9))
    n_rows = int(rng.integers(n_patients, 4 * n_patients))
    patients = np.concatenate([np.arange(n_patients), rng.integers(n_patients, size=n_rows - n_patients)])
    labels = (
        rng.integers(2, size=n_rows) if seed % 2 else (rng.random(n_patients) < 0.4).astype(int)[patients]
    )
    return patients, labels, int(rng.integers(2, n_patients + 1))


# Of the first 3,000, these had an empty fold; the others are any.
@pytest.mark.parametrize("seed", [1470, 1521, 2180, 2921, *range(100)])
def test_no_fold_is_empty_for_few_patients(seed):
    patients, labels, n_splits = small_set(seed)
    splitter = PatientKFold(n_splits, shuffle=True, random_state=seed)
    if np.bincount(labels).max() < n_splits:
        with pytest.raises(ValueError, match="n_splits"):
            list(splitter.split(np.zeros(len(labels)), labels, groups=patients))
        return
    tests = [test for _, test in splitter.split(np.zeros(len(labels)), labels, groups=patients)]
    assert all(len(test) for test in tests)
    assert sorted(np.concatenate(tests)) == list(range(len(labels)))


def test_each_class_is_in_as_many_folds_as_it_has_patients_for():
    # Two patients of the rare class, in two regions each: stratified by region they may share a fold.
    patients = np.repeat(np.arange(12), 2)
    labels = (patients < 2).astype(int)
    regions = np.array(["XR_HAND", "XR_WRIST"])[np.arange(24) % 2]
    X = [f"{region}/patient{patient:05d}/study1" for region, patient in zip(regions, patients)]
    for n_splits in (2, 3, 4):
        tests = [test for _, test in PatientKFold(n_splits).split(X, labels)]
        assert sum((labels[test] == 1).any() for test in tests) == 2
