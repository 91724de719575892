"""Pictures for a paper, as Display classes in scikit-learn's manner.

Each has ``from_estimator`` or ``from_data``, ``from_predictions`` and ``from_evaluation`` where they make
sense, ``plot(ax=None)``, ``ax_`` and ``figure_``. They need ``murakit[plot]``.
"""

from ._plot_curves import OperatingPointDisplay, ReliabilityDisplay
from ._plot_data import DatasetDisplay
from ._plot_groups import RegionConfusionDisplay, RegionDisplay
from ._plot_history import HistoryDisplay

__all__ = [
    "DatasetDisplay",
    "HistoryDisplay",
    "OperatingPointDisplay",
    "RegionConfusionDisplay",
    "RegionDisplay",
    "ReliabilityDisplay",
]
