"""Evaluation of models: metrics with intervals, comparisons, published results, tables of predictions, audits."""

from ._compare import Comparison, compare
from ._evaluate import evaluate, evaluate_predictions
from ._predict_frame import predict_frame, write_mura_csv
from ._published import published_results
from ._regions import predict_abnormal, predict_region, region_confusion
from ._result import Evaluation
from ._shortcuts import ShortcutAudit, audit_shortcuts

__all__ = [
    "Comparison",
    "Evaluation",
    "ShortcutAudit",
    "audit_shortcuts",
    "compare",
    "evaluate",
    "evaluate_predictions",
    "predict_abnormal",
    "predict_frame",
    "predict_region",
    "published_results",
    "region_confusion",
    "write_mura_csv",
]
