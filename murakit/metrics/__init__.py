"""Predictions per study, metrics of many resamples at once, intervals, scorers, thresholds."""

from ._scorer import study_predictions, study_scorer, threshold_at

__all__ = ["study_predictions", "study_scorer", "threshold_at"]
