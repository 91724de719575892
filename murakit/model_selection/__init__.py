"""Splits that keep each patient on one side, and a search for hyper-parameters on them."""

from importlib import import_module
from typing import Any

from ._split import PatientKFold, PatientShuffleSplit

__all__ = ["MuraSearchCV", "PatientKFold", "PatientShuffleSplit"]

# Imported when asked for: only a search needs Optuna.
_LAZY = {"MuraSearchCV": "._search"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
