"""Checked labels, groups and images: what a fit works on."""

import math
import re
import unicodedata
from collections.abc import Sized
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, column_or_1d


def plain(value: Any) -> Any:
    """Return a NumPy scalar as what a user wrote."""
    return value.item() if isinstance(value, np.generic) else value


# Labels with more values than this are no classes of radiographs.
MOST_CLASSES = 50

_WHOLE_NUMBER = re.compile(r"(-?(?:0|[1-9]\d*))\.0+")

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


def as_numpy(values: Any) -> Any:
    """Return a column of pandas, polars or pyarrow as one of NumPy; anything else as it is."""
    if isinstance(values, pd.Series) and not isinstance(values.dtype, np.dtype):
        # Whole numbers stay whole beside a missing value.
        return values.to_numpy(dtype=object) if values.isna().any() else values.to_numpy()
    package = type(values).__module__.partition(".")[0]
    if package == "pyarrow":
        return (
            np.array(values.to_pylist(), dtype=object) if values.null_count else np.array(values.to_pylist())
        )
    return values.to_numpy() if package == "polars" else values


def _one_of(name):
    return _ONE_OF.get(name.removesuffix("_a").removesuffix("_b"), "value")


def check_length(values: Sized, n_rows: int, name: str) -> None:
    """Raise where a column has another number of entries than there are samples."""
    if len(values) != n_rows:
        raise ValueError(
            f"{name} has {len(values)} entries for {n_rows} samples: inconsistent numbers of samples. Pass one entry a "
            "sample."
        )


def check_present(values: Any, name: str, remedy: str) -> None:
    """Raise where a column has missing values (NaN, NaT, None or pandas' NA)."""
    missing = np.flatnonzero(pd.isna(values))
    if len(missing):
        raise ValueError(
            f"{name}: row {missing[0]} has no {_one_of(name)}; it is NaN or None, as are {len(missing)} of "
            f"{len(values)} entries. {remedy}"
        )


def check_labels(y: Any, n_rows: int, name: str = "y") -> np.ndarray:
    """Return labels as a 1-D array; raise for labels that are missing, mixed or no classes."""
    if y is None:
        raise ValueError(f"This classifier requires {name} to be passed, but the target {name} is None.")
    y = column_or_1d(as_numpy(y), warn=True)
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
    if all(isinstance(label, str) for label in y):
        y = np.array([as_label(label) for label in y], dtype=y.dtype)
    n_classes = len(np.unique(y))
    if y.dtype.kind == "f" and (y != np.round(y)).any():
        row = int(np.flatnonzero(y != np.round(y))[0])
        raise ValueError(
            f"Unknown label type: continuous. {name}: row {row} is {y[row]:g}, which is no class. Is this a "
            "regression? murakit classifies: bin the values, or pass whole numbers or names."
        )
    if n_classes > MOST_CLASSES:
        raise ValueError(
            f"{name} has {n_classes} classes, more than {MOST_CLASSES}. Is this a regression, or a column of "
            "identifiers? murakit classifies: bin the values, or pass the column of labels."
        )
    check_classification_targets(y)
    return y


def as_identifier(value: Any) -> str:
    """Return the name of a patient, study or region in its one spelling.

    "7", "7.0", 7, 7.0 and " 7 " are one patient: spreadsheets and pandas turn one into the other. Leading zeros
    stay, because they keep patients apart; letters with accents are composed (Unicode's NFC).
    """
    value = plain(value)
    if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
        whole = math.floor(value)
        if whole == value:
            return str(whole)
    text = unicodedata.normalize("NFC", str(value)).strip()
    found = _WHOLE_NUMBER.fullmatch(text)
    return found[1] if found else text


def as_label(value: Any) -> Any:
    """Return a label in its one spelling: text without spaces around it, numbers as they are."""
    value = plain(value)
    return unicodedata.normalize("NFC", value).strip() if isinstance(value, str) else value


def check_identifiers(values: Any, n_rows: int, name: str = "groups") -> np.ndarray:
    """Return patients (or studies, or regions) as a 1-D object array of text, one an entry and none missing."""
    values = column_or_1d(as_numpy(values))
    check_length(values, n_rows, name)
    remedy = "Name it or leave the row out: a sample of an unknown patient could leak."
    check_present(values, name, remedy)
    # Each spelling once: a column has far fewer identifiers than rows.
    known: dict[tuple, str] = {}
    named = np.empty(n_rows, dtype=object)
    for row, value in enumerate(values):
        key = type(value), value
        text = known.get(key)
        if text is None:
            text = known[key] = as_identifier(value)
            if not text:
                raise ValueError(
                    f"{name}: row {row} has no {_one_of(name)}; it is {plain(value)!r}. {remedy}"
                )
        named[row] = text
    return named


def check_weights(weights: Any, n_rows: int) -> np.ndarray:
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
