"""Patients by name and by salted hash are the same patients."""

import hashlib

import numpy as np

from murakit.datasets._patients import hashed, joined, known_among, salt_of, without

SALT = "0123456789abcdef"


def objects(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def test_a_hash_is_salted_sha256():
    digest = hashlib.sha256(f"{SALT}:patient00001".encode()).hexdigest()
    assert hashed(["patient00001"], SALT) == [f"sha256:{SALT}:{digest[:32]}"]


def test_the_order_of_hashes_says_nothing_of_names():
    names = [f"patient{number:05d}" for number in range(50)]
    hashes = hashed(names, SALT)
    assert hashes == sorted(hashes)
    assert hashes != [hashed([name], SALT)[0] for name in names]


def test_hashing_twice_is_hashing_once():
    once = hashed(["a", "b"], SALT)
    assert hashed(once, salt_of(objects(once))) == once
    assert salt_of(objects(once)) == SALT


def test_known_patients_are_found_by_name_and_by_hash():
    known = objects([*hashed(["a", 7], SALT), *hashed(["c"], "f" * 16), "d"])
    asked = ["a", "b", "c", "d", 7, "7", 8]
    assert known_among(asked, known).tolist() == [True, False, True, True, True, True, False]
    assert known_among([], known).tolist() == [] and not known_among(["a"], []).any()


def test_patients_are_joined_once():
    known = objects(hashed(["a", "b"], SALT))
    both = joined(known, ["b", "c"])
    assert set(both) == {*known, "c"} and joined(both, ["a", "b", "c"]).tolist() == both.tolist()
    assert set(joined(objects([1, 2]), objects([2, 3]))) == {1, 2, 3}
    assert set(joined(known, objects([5]))) == {*known, 5}


def test_patients_are_taken_out_by_name_and_by_hash():
    known = objects([*hashed(["a", "b"], SALT), "c"])
    assert without(known, ["a", "c"]).tolist() == hashed(["b"], SALT)
    assert without(known, known).tolist() == []
    assert without(known, []).tolist() == known.tolist()
    assert without(objects([1, 2]), objects([2])).tolist() == [1]
