"""Checked labels, groups and images: what a fit works on."""

import numpy as np
import pandas as pd
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d


def plain(value):
    """Return a NumPy scalar as what a user wrote."""
    return value.item() if isinstance(value, np.generic) else value


def check_labels(y, n_rows, name="y"):
    if y is None:
        raise ValueError(f"This classifier requires {name} to be passed, but the target {name} is None.")
    y = column_or_1d(y, warn=True)
    if len(y) != n_rows:
        raise ValueError(
            f"X has {n_rows} samples, but {name} has {len(y)} labels: inconsistent numbers of samples."
        )
    missing = np.flatnonzero(pd.isna(y))
    if len(missing):
        raise ValueError(
            f"{name}: {len(missing)} labels are missing (NaN or None), the first in row {missing[0]}. "
            "Leave unlabelled samples out."
        )
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


def check_groups(groups, n_rows, name="groups"):
    groups = column_or_1d(groups)
    if len(groups) != n_rows:
        raise ValueError(
            f"X has {n_rows} samples, but {name} has {len(groups)} entries: pass one patient a sample."
        )
    missing = np.flatnonzero(pd.isna(groups))
    if len(missing):
        raise ValueError(
            f"{name}: row {missing[0]} has no patient (NaN or None). A sample of an unknown patient could leak: "
            "name the patient or leave the row out."
        )
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


def check_comparable(groups, groups_val):
    kinds = [{isinstance(group, str) for group in part} for part in (groups, groups_val)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            "groups and groups_val name patients by text and by numbers, which are never equal. "
            "Convert both to one type."
        )
