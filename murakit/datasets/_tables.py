"""The columns of a user's table of radiographs, checked row by row."""

import os

import numpy as np
import pandas as pd

from ..io._filesystem import absolute, as_folder, basename, dirname, exists, isfile, join, readable
from ..utils._validation import as_identifier, as_label
from ._dicom_headers import UNKNOWN_REGION, origin_of, patient_of
from ._paths import objects, region_name, split_path


def table_columns(table, *, path, label, patient, study, region, root):
    """Return what to call a table, and the columns that `load_radiographs` makes of it."""
    if path is None:
        raise ValueError("path=None: a table needs the name of its column of paths. Pass path=.")
    source, rows, folder = read_table(table, root, label, [path, patient, study, region])
    data = resolve_paths(source, rows, path, folder)
    parts = [split_path(name) for name in data]
    # Headers are read only for what neither a column nor a path says.
    origins = [
        origin_of(name) if patient is None or (part is None and None in (study, region)) else None
        for name, part in zip(data, parts)
    ]
    if region is not None:
        regions = [region_name(name) for name in identifiers(source, rows, region)]
    else:
        regions = [
            part.region if part else origin.region if origin else UNKNOWN_REGION
            for part, origin in zip(parts, origins)
        ]
    if study is not None:
        studies = identifiers(source, rows, study)
    else:
        studies = [
            part.study if part else (origin and origin.study) or name
            for part, origin, name in zip(parts, origins, data)
        ]
    return source, {
        "path": data,
        "region": objects(regions),
        "patient": (
            identifiers(source, rows, patient)
            if patient is not None
            else objects([_stated(source, *row) for row in zip(range(len(data)), origins, data)])
        ),
        "study": objects(studies),
        "target": None if label is None else labels(source, rows, label),
        "image": objects([basename(name) for name in data]),
    } | _other_columns(rows, {path, label, patient, study, region})


def _other_columns(rows, used):
    """Return the columns that were not asked for; where the Bunch has one of that name, with "table_" before."""
    own = ("path", "region", "patient", "study", "target", "image")
    others = [name for name in rows.columns if name not in used]
    return {f"table_{name}" if name in own else name: rows[name].array for name in others}


def _stated(source, row, origin, path):
    if origin is None:
        raise ValueError(
            f"{source}: row {row} (counted from 0) lists {path!r}, which is not DICOM, so that no header says its "
            "patient. Pass patient=, the name of a column."
        )
    return patient_of(origin, path)


def as_pandas(table):
    """Return tables of polars and pyarrow as a DataFrame of pandas; anything else as it is."""
    package = type(table).__module__.partition(".")[0]
    if package == "polars" and hasattr(table, "collect"):
        table = table.collect()
    if package == "polars" and hasattr(table, "to_dict"):
        return pd.DataFrame(table.to_dict(as_series=False))
    if package == "pyarrow" and hasattr(table, "to_pydict"):
        return pd.DataFrame(table.to_pydict())
    return table


def read_table(table, root, label, columns):
    """Return what to call the table, its rows, and the folder its paths are relative to."""
    table = as_pandas(table)
    if isinstance(table, pd.DataFrame):
        source, rows, folder = "the table", table.reset_index(drop=True), os.curdir
    elif isinstance(table, (str, os.PathLike)):
        file = absolute(os.path.expanduser(os.fspath(table)))
        source, folder = repr(file), dirname(file)
        if not isfile(file):
            raise FileNotFoundError(
                f"There is no table {source}. Pass the path of a CSV, a DataFrame, or a folder of DICOM files."
            )
        try:
            # As text, because numbers would lose their leading zeros, and so join two patients.
            rows = pd.read_csv(readable(file), dtype={name: str for name in columns if name is not None})
        except ValueError as error:
            raise ValueError(
                f"{source} cannot be read as a CSV: {error}. Read it with pandas and pass the DataFrame."
            ) from error
    else:
        raise TypeError(
            f"table must be the path of a CSV, a folder of DICOM files, or a DataFrame of pandas, polars or "
            f"pyarrow, got {type(table).__qualname__} of {type(table).__module__}. Make a DataFrame of it."
        )
    if not len(rows.columns):
        raise ValueError(f"{source} has no columns: there is nothing to load.")
    missing = [name for name in [label, *columns] if name is not None and name not in rows.columns]
    if missing:
        raise ValueError(
            f"{source} has no column {', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, rows.columns))}. Name one of these; read a file with another separator "
            "with pandas and pass the DataFrame."
        )
    for name in {name for name in [label, *columns] if name is not None}:
        if list(rows.columns).count(name) > 1:
            raise ValueError(
                f"{source} has several columns {name!r}. Rename them, so that each has a name of its own."
            )
    if rows.empty:
        raise ValueError(f"{source} has no rows: there is nothing to load. Check the file.")
    return source, rows, folder if root is None else as_folder(os.path.expanduser(os.fspath(root)))


def resolve_paths(source, rows, column, folder):
    """Return the absolute paths; each must exist and occur once."""
    refuse_missing(source, rows, column, "path")
    paths = np.empty(len(rows), dtype=object)
    seen, absent = {}, []
    for row, value in enumerate(rows[column].to_numpy(dtype=object)):
        if not isinstance(value, (str, os.PathLike)):
            raise ValueError(f"{source}: row {row} has {value!r} in {column!r}, which is not a path.")
        file = absolute(join(folder, os.path.expanduser(os.fspath(value))))
        if (other := seen.setdefault(file, row)) != row:
            raise ValueError(
                f"{source}: rows {other} and {row} (counted from 0) both list {file!r}. Drop one of them."
            )
        if not exists(file):
            absent.append((row, file))
        paths[row] = file
    if absent:
        shown = "; ".join(f"row {row}: {file!r}" for row, file in absent[:3])
        raise FileNotFoundError(
            f"{source}: {len(absent)} of {len(rows)} files do not exist ({shown}; rows counted from 0). Pass "
            "root=, the folder that the paths are relative to, or drop the rows."
        )
    return paths


def identifiers(source, rows, column):
    """Return a column of identifiers as text, the same for 12, 12.0, "12" and " 12"."""
    refuse_missing(source, rows, column, "value")
    texts = objects([as_identifier(value) for value in rows[column].to_numpy(dtype=object)])
    if (texts == "").any():
        raise ValueError(
            f"{source}: row {np.flatnonzero(texts == '')[0]} (counted from 0) has no {column!r}."
        )
    return texts


def labels(source, rows, column):
    """Return the labels as int64 or object (str)."""
    refuse_missing(source, rows, column, "label")
    values = rows[column].to_numpy(dtype=object)
    numbers = [isinstance(value, (bool, int, float, np.number, np.bool_)) for value in values]
    if not any(numbers):
        return objects([as_label(str(value)) for value in values])
    if not all(numbers):
        row = numbers.index(not numbers[0])
        raise ValueError(
            f"{source}: {column!r} mixes numbers and text ({values[0]!r} in row 0, {values[row]!r} in row "
            f"{row}, counted from 0). Use one of the two."
        )
    for row, value in enumerate(values):
        if not float(value).is_integer():
            raise ValueError(
                f"{source}: row {row} (counted from 0) has {value!r} in {column!r}; a label is a class: a "
                "whole number or a string. Is this a regression? Bin or round the values first."
            )
    return values.astype(np.int64)


def check_studies(source, columns):
    """Raise where a study has two patients or two labels."""
    told = {"patient": "patients"} | ({} if columns["target"] is None else {"target": "labels"})
    first = {}
    for row, study in enumerate(columns["study"]):
        other = first.setdefault(study, row)
        for name, what in told.items():
            a, b = columns[name][other], columns[name][row]
            if a != b:
                raise ValueError(
                    f"{source}: study {study!r} has two {what}, {a} in row {other} and {b} in row {row} "
                    "(counted from 0). Correct the rows, or make study names unique, such as patient/study."
                )


def refuse_missing(source, rows, column, what):
    """Raise where a column holds NaN or None."""
    missing = np.flatnonzero(rows[column].isna())
    if len(missing):
        others = f", nor have {len(missing) - 1} others" if len(missing) > 1 else ""
        raise ValueError(
            f"{source}: row {missing[0]} (counted from 0) has no {what} in {column!r}{others}. Fill it in or "
            "drop the row. (pandas reads 'None', 'NA' and the like in a CSV as missing; to keep them, pass a "
            "DataFrame read with keep_default_na=False.)"
        )
