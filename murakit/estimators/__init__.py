"""Scikit-learn classifiers of radiographs, recipes of published settings, and search spaces."""

from ._classifier import MuraClassifier
from ._per_region import PerRegionClassifier
from ._recipes import recipe, search_space

__all__ = ["MuraClassifier", "PerRegionClassifier", "recipe", "search_space"]
