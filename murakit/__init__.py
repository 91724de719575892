"""murakit: scikit-learn-style estimators for musculoskeletal radiographs."""

from importlib import import_module

from ._cache import cache_info, clear_cache
from ._disk import CacheWarning
from .classifier import MuraClassifier
from .datasets import load_mura, load_radiographs
from .images import UnreadableImage, read_image, read_square
from .integrity import check_disjoint, check_mura
from .metrics import study_predictions, study_scorer
from .model_selection import PatientKFold, PatientShuffleSplit
from .synthetic import make_mura

__version__ = "0.1.0"

__all__ = [
    "CacheWarning",
    "MuraClassifier",
    "MuraSearchCV",
    "PatientKFold",
    "PatientShuffleSplit",
    "UnreadableImage",
    "cache_info",
    "check_disjoint",
    "check_mura",
    "clear_cache",
    "load_mura",
    "load_radiographs",
    "make_mura",
    "read_image",
    "read_square",
    "search_space",
    "study_predictions",
    "study_scorer",
]

# Imported when asked for: Optuna is of use to a search only.
_LAZY = {"MuraSearchCV": "._search", "search_space": "._trials"}


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)


def __dir__():
    return sorted({*globals(), *__all__})
