"""CSV files that are written whole and that no spreadsheet runs."""

import csv
import os
from collections.abc import Iterable
from typing import Any

from ._atomic import written_whole

# How a cell begins that a spreadsheet takes for a formula: OWASP, "CSV Injection".
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def write_csv(path: str | os.PathLike[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write rows as a CSV file; whoever looks meanwhile sees the old file or none.

    Parameters
    ----------
    path : str or os.PathLike
    rows : iterable of iterables
        Their texts are paths: one that begins as a formula does gets "./" before it, which is the same path.
    """
    with written_whole(path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
        plain = csv.writer(file, lineterminator="\n")
        # By itself, the module csv puts no quotes around a carriage return, which ends a row for others.
        quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        for row in rows:
            cells = [_defused(cell) for cell in row]
            (quoted if any("\r" in str(cell) for cell in cells) else plain).writerow(cells)


def _defused(cell):
    return f"./{cell}" if isinstance(cell, str) and cell.startswith(_FORMULAS) else cell
