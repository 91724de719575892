"""Checked labels, groups and images: what a fit works on."""

from collections.abc import Sized
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, column_or_1d


def plain(value: Any) -> Any:
    """Return a NumPy scalar as what a user wrote."""
    return value.item() if isinstance(value, np.generic) else value


# What one entry of a column is called, by the name of the parameter.
_ONE_OF = {
    "groups": "patient",
    "groups_val": "patient",
    "patients": "patient",
    "studies": "study",
    "regions": "region",
    "y": "label",
    "y_val": "label",
}


def check_length(values: Sized, n_rows: int, name: str) -> None:
    """Raise where a column has another number of entries than there are samples."""
    if len(values) != n_rows:
        raise ValueError(
            f"{name} has {len(values)} entries for {n_rows} samples: inconsistent numbers of samples. Pass one entry a "
            "sample."
        )


def check_present(values: ArrayLike, name: str, remedy: str) -> None:
    """Raise where a column has missing values (NaN, NaT, None or pandas' NA)."""
    missing = np.flatnonzero(pd.isna(values))
    if len(missing):
        what = _ONE_OF.get(name.removesuffix("_a").removesuffix("_b"), "value")
        raise ValueError(
            f"{name}: row {missing[0]} has no {what}; it is NaN or None, as are {len(missing)} of {len(values)} "
            f"entries. {remedy}"
        )


def check_labels(y: ArrayLike, n_rows: int, name: str = "y") -> np.ndarray:
    """Return labels as a 1-D array; raise for labels that are missing, mixed or no classes."""
    if y is None:
        raise ValueError(f"This classifier requires {name} to be passed, but the target {name} is None.")
    y = column_or_1d(y, warn=True)
    check_length(y, n_rows, name)
    check_present(y, name, "Leave unlabelled samples out.")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError(f"{name} contains infinity; labels must be classes.")
    text = [isinstance(label, str) for label in y] if y.dtype == object else []
    if any(text) and not all(text):
        row = text.index(not text[0])
        raise ValueError(
            f"{name} mixes text and other labels: {y[0]!r} in row 0, {y[row]!r} in row {row}. Use one of the two."
        )
    check_classification_targets(y)
    return y


def check_groups(groups: ArrayLike, n_rows: int, name: str = "groups") -> np.ndarray:
    """Return patients (or studies, or regions) as a 1-D object array, one an entry and none missing."""
    groups = column_or_1d(groups)
    check_length(groups, n_rows, name)
    check_present(groups, name, "Name it or leave the row out: a sample of an unknown patient could leak.")
    # pandas turns whole numbers into floats beside a missing value: 7 and 7.0 are one patient.
    named = np.empty(n_rows, dtype=object)
    named[:] = [
        int(group) if isinstance(group, float | np.floating) and group == int(group) else plain(group)
        for group in groups
    ]
    if len({isinstance(group, str) for group in named}) > 1:
        # A column of a spreadsheet may hold both; they can only be compared as one.
        named[:] = [str(group) for group in named]
    return named


def check_weights(weights: ArrayLike, n_rows: int) -> np.ndarray:
    """Return sample weights as float64, one a sample; one number stands for all of them."""
    if np.isscalar(weights):
        weights = np.full(n_rows, weights)
    weights = check_array(weights, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
    if weights.ndim != 1:
        raise ValueError(
            f"Sample weights must be 1D array or scalar, and sample_weight has shape {weights.shape}."
        )
    if len(weights) != n_rows:
        raise ValueError(
            f"sample_weight.shape == {weights.shape}, expected {(n_rows,)}: pass one weight a sample."
        )
    if (weights < 0).any():
        row = int(np.flatnonzero(weights < 0)[0])
        raise ValueError(
            f"Negative values in data passed to `sample_weight`: row {row} is {weights[row]:g}. Pass weights of zero "
            "or more."
        )
    return weights


def check_comparable(groups: np.ndarray, groups_val: np.ndarray) -> None:
    """Raise where one side names patients by text and the other by numbers."""
    kinds = [{isinstance(group, str) for group in part} for part in (groups, groups_val)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            "groups and groups_val name patients by text and by numbers, which are never equal. "
            "Convert both to one type."
        )
