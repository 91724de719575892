"""Pictures for a paper, as Display classes in scikit-learn's manner.

Each has ``from_estimator`` or ``from_data``, ``from_predictions`` and ``from_evaluation`` where they make
sense, ``plot(ax=None)``, ``ax_`` and ``figure_``. They need ``murakit[plot]``.
"""

from ._curves import OperatingPointDisplay, ReliabilityDisplay
from ._dataset import DatasetDisplay
from ._history import HistoryDisplay
from ._regions import RegionConfusionDisplay, RegionDisplay

__all__ = [
    "DatasetDisplay",
    "HistoryDisplay",
    "OperatingPointDisplay",
    "RegionConfusionDisplay",
    "RegionDisplay",
    "ReliabilityDisplay",
]
