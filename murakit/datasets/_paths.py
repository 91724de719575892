"""What a MURA path looks like: the only module that knows.

``.../train/XR_WRIST/patient00006/study1_positive/image1.png``: region, patient, study with its
label, image. A sample is the path of an image or of a study folder.
"""

import os
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..io._dicom import is_dicom
from ..io._filesystem import (
    components,
    is_image_name,
    isfile,
    join,
    names,
)
from ..utils._validation import as_numpy

REGION_PREFIX = "XR_"

MURA_REGIONS = ("elbow", "finger", "forearm", "hand", "humerus", "shoulder", "wrist")

LABEL_NAMES = ("normal", "abnormal")

_STUDY = re.compile(r"study\d+(?:_(positive|negative))?", re.ASCII | re.IGNORECASE)

_PATIENT = re.compile(r"patient\d+", re.ASCII | re.IGNORECASE)

_LABELS = {"negative": 0, "positive": 1, None: -1}

PATH_FORM = ".../XR_REGION/patientNNNNN/studyN[_positive|_negative][/imageN.png]"


class SamplePath(str):
    """A path that carries the patient, study and region of its sample, which it does not say itself.

    `load_radiographs` returns them, so that whatever hands rows of `data` on (cross-validation, searches, calibration)
    hands on whose they are. It is text like any other path; written to a file it becomes one.
    """

    __slots__ = ("patient", "region", "study")

    def __new__(cls, path, patient=None, study=None, region=None):
        self = super().__new__(cls, path)
        self.patient, self.study, self.region = patient, study, region
        return self

    def __reduce__(self):
        return SamplePath, (str(self), self.patient, self.study, self.region)


class PathParts(NamedTuple):
    """What a path says of its sample."""

    region: str  # "wrist"
    patient: str  # "patient00006"
    study: str  # "XR_WRIST/patient00006/study1_positive"
    label: int  # 0 normal, 1 abnormal, -1 not said


def as_paths(X, name="X"):
    """Return X as a 1-D object array of ``str`` paths.

    Parameters
    ----------
    X : array-like of shape (n,) or (n, 1)
        Paths as ``str`` or ``os.PathLike``: a list, array, Series, or a single-column array
        or DataFrame.
    name : str
        What errors call it.

    Returns
    -------
    paths : ndarray of shape (n,), dtype object
    """
    if isinstance(X, (str, bytes, os.PathLike)):
        raise ValueError(f"{name} is one path, {X!r}; pass a list of paths, [{X!r}].")
    if isinstance(X, dict):
        raise ValueError(
            f"{name} is a {type(X).__name__} of {', '.join(map(repr, X))}; pass its paths, {name}.data."
        )
    X = as_numpy(X)
    if isinstance(X, (pd.DataFrame, pd.Series)):
        # Copied: pandas hands out a read-only view, and the values are normalised in place below.
        values = X.to_numpy(dtype=object, copy=True)
    elif isinstance(X, np.ndarray):
        values = X.astype(object)
    elif isinstance(X, Iterable):
        # Filled by hand: NumPy would make a 2-D array of a list of equal-length sequences.
        rows = list(X)
        values = np.empty(len(rows), dtype=object)
        values[:] = rows
        if rows and all(isinstance(row, (list, tuple, np.ndarray)) and len(row) == 1 for row in rows):
            values = np.array([row[0] for row in rows], dtype=object)
    else:
        raise TypeError(f"{name} must be an array of paths, got {type(X).__name__}.")
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise ValueError(
            f"{name} must hold one path a sample: shape (n,) or (n, 1), got {values.shape}. "
            "Select the column of paths."
        )
    for row, value in enumerate(values):
        if type(value) in (str, SamplePath) and value:
            continue
        if isinstance(value, (str, os.PathLike)) and os.fspath(value):
            values[row] = str(os.fspath(value))
        else:
            raise ValueError(
                f"{name}: row {row} is {value!r}, not the path of an image or a study folder. "
                "Pass paths, for example load_mura(...).data."
            )
    return values


def split_path(path):
    """Return the `PathParts` of one path, or None where it is not in MURA's layout."""
    parts = components(path)
    for end in (len(parts) - 2, len(parts) - 1):
        # The parent is tried first: an image is by far the more frequent sample.
        if end < 2:
            continue
        region, patient, study = parts[end - 2 : end + 1]
        label = study_label(study)
        if label is not None and is_patient_name(patient) and is_region_name(region):
            return PathParts(region_name(region), patient, f"{region}/{patient}/{study}", label)
    return None


def is_region_name(name):
    """Tell whether a folder name is a region's, such as ``XR_WRIST``."""
    return name.upper().startswith(REGION_PREFIX) and len(name) > len(REGION_PREFIX)


def is_patient_name(name):
    """Tell whether a folder name is a patient's, such as ``patient00006``."""
    return _PATIENT.fullmatch(name) is not None


# Cached because a data set has some ten study names, repeated over all of its patients.
@lru_cache(maxsize=4096)
def study_label(name):
    """Return the label that a study folder's name says: 0, 1, -1 (not said), or None (no study)."""
    study = _STUDY.fullmatch(name)
    return None if study is None else _LABELS[study[1] and study[1].lower()]


def objects(values):
    """Return values as a 1-D object array, whatever they are."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def region_name(region):
    """Return "wrist" for "wrist", "XR_WRIST" or "xr_wrist"."""
    name = str(region)
    return (name[len(REGION_PREFIX) :] if name.upper().startswith(REGION_PREFIX) else name).lower()


def natural_key(name):
    """Sort key that puts image2 before image10."""
    parts = [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", name)]
    # The name itself settles image1 against image01, so that no order is left to the file system.
    return parts, name


# Cached because nearly every study holds some of image1 ... image4: the name lists of a data set repeat.
@lru_cache(maxsize=4096)
def image_names(listed):
    """Return the names of a folder (a tuple) that are images', in natural order, as a tuple."""
    return tuple(sorted(filter(is_image_name, listed), key=natural_key))


def images_in(folder):
    """Return the paths of the images in a study folder, in natural order."""
    return [join(folder, name) for name in images_among(folder, tuple(names(folder)))]


def images_among(folder, listed):
    """Return which names of a folder are images', in natural order: by their suffix, or DICOM by how they begin."""
    known = image_names(listed)
    if len(known) == len(listed):
        return known
    # Scanners write DICOM files without a suffix, such as IM000001; a view must not be lost for its name.
    others = [name for name in set(listed).difference(known) if _may_be_dicom(folder, name)]
    return tuple(sorted((*known, *others), key=natural_key)) if others else known


def _may_be_dicom(folder, name):
    path = join(folder, name)
    if name.startswith(".") or name.upper() == "DICOMDIR" or not isfile(path):
        return False
    try:
        return is_dicom(path)
    except OSError:
        return False


@lru_cache(maxsize=4096)
def study_names(listed):
    """Return the names of a folder (a tuple) that are studies', in natural order, as a tuple."""
    return tuple(sorted((name for name in listed if study_label(name) is not None), key=natural_key))
