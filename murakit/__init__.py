"""murakit: scikit-learn-style estimators for musculoskeletal radiographs."""

from importlib import import_module

from .cache import CacheWarning, cache_info, clear_cache
from .datasets import check_disjoint, check_mura, check_radiographs, load_mura, load_radiographs, make_mura
from .estimators import MuraClassifier, PerRegionClassifier, recipe, search_space
from .evaluation import (
    audit_shortcuts,
    compare,
    evaluate,
    evaluate_predictions,
    predict_abnormal,
    predict_frame,
    predict_region,
    published_results,
    region_confusion,
    write_mura_csv,
)
from .io import UnreadableImage, read_image, read_square
from .metrics import study_predictions, study_scorer, threshold_at
from .model_selection import PatientKFold, PatientShuffleSplit
from .networks import list_backbones
from .persistence import ModelFileError, load_model, model_info, save_model, to_onnx
from .utils._versions import __version__ as __version__

__all__ = [
    "CacheWarning",
    "ModelFileError",
    "MuraClassifier",
    "MuraSearchCV",
    "PatientKFold",
    "PatientShuffleSplit",
    "PerRegionClassifier",
    "UnreadableImage",
    "audit_shortcuts",
    "cache_info",
    "check_disjoint",
    "check_mura",
    "check_radiographs",
    "clear_cache",
    "compare",
    "evaluate",
    "evaluate_predictions",
    "list_backbones",
    "load_model",
    "load_mura",
    "load_radiographs",
    "make_mura",
    "model_info",
    "predict_abnormal",
    "predict_frame",
    "predict_region",
    "published_results",
    "read_image",
    "read_square",
    "recipe",
    "region_confusion",
    "save_model",
    "search_space",
    "study_predictions",
    "study_scorer",
    "threshold_at",
    "to_onnx",
    "write_mura_csv",
    "write_report",
]

# Imported when asked for: Optuna is of use to a search only, matplotlib to pictures.
_LAZY = {"MuraSearchCV": ".model_selection", "write_report": ".report"}
_LAZY_ROOMS = ("augmentation", "inspection", "plotting", "report", "store")


def __getattr__(name):
    if name in _LAZY_ROOMS:
        return import_module(f".{name}", __name__)
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)


def __dir__():
    return sorted({*globals(), *__all__})
