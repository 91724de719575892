"""Patients that a model knows: by their names, or by salted hashes of them.

A model that is handed on must not carry the numbers under which a hospital knows its patients, and has
still to refuse to be judged on them. A hash is a text, ``sha256:SALT:DIGEST``, and may stand wherever a
name may.
"""

import hashlib
import re
import secrets

import numpy as np

from ..utils._validation import as_identifier

_HASH = re.compile(r"sha256:([0-9a-f]{16}):[0-9a-f]{32}")


def known_among(patients, known):
    """Tell which patients are among known ones.

    Parameters
    ----------
    patients : sequence of length n
        Their names; 7 and "7" are the same patient.
    known : sequence
        Names and hashes.

    Returns
    -------
    mask : ndarray of shape (n,), dtype bool
    """
    known = set(map(as_identifier, known))
    salts = _salts(known)
    return np.array([not known.isdisjoint(_forms(patient, salts)) for patient in patients], dtype=bool)


def joined(known, patients):
    """Return known patients, and those of others that are not among them, sorted."""
    patients = np.asarray(patients, dtype=object)
    both = np.concatenate([np.asarray(known, dtype=object), patients[~known_among(patients, known)]])
    return both[np.argsort(both.astype(str))]


def without(known, patients):
    """Return known patients who are not among others."""
    salts = _salts(known)
    others = {form for patient in patients for form in _forms(patient, salts)}
    return known[np.array([as_identifier(name) not in others for name in known], dtype=bool)]


def known_after(before, trained, held):
    """Return the patients who were trained on, and those who chose an epoch, in this fit or one before.

    Parameters
    ----------
    before : tuple of two sequences (or None) or None
        The same of the fits before; None: there was none that this fit went on from.
    trained, held : sequence or None
        The patients of this fit, where they are known.

    Returns
    -------
    trained, held : ndarray or None
        Of a patient in both, the first.
    """
    if before is None:
        return trained, held
    trained_before, held_before = before
    if trained is not None:
        trained = None if trained_before is None else joined(trained_before, trained)
    if held_before is not None:
        held = held_before if held is None else joined(held_before, held)
    if held is not None and trained is not None:
        held = without(held, trained)
    return trained, held


def hashed(patients, salt):
    """Return the hashes of patients as a list of texts; what is a hash already stays as it is."""
    hashes = [str(name) if _HASH.fullmatch(str(name)) else _hash(name, salt) for name in patients]
    # In an order of their own: that of the names would help to guess them.
    return sorted(hashes)


def salt_of(*known):
    """Return the salt of the hashes among known patients, or a new one where there are none."""
    return next((salt for names in known for salt in sorted(_salts(names))), None) or secrets.token_hex(8)


def _salts(known):
    return {found[1] for name in known if (found := _HASH.fullmatch(str(name)))}


def _forms(patient, salts):
    return [as_identifier(patient), *(_hash(patient, salt) for salt in salts)]


def _hash(patient, salt):
    digest = hashlib.sha256(f"{salt}:{as_identifier(patient)}".encode()).hexdigest()
    # Half of it: two patients never meet in 128 bits, and a file holds thousands of them.
    return f"sha256:{salt}:{digest[:32]}"
