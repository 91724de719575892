"""Classifiers of radiographs in scikit-learn's manner, recipes of published settings, search spaces."""

from ._classifier import MuraClassifier
from ._per_region import PerRegionClassifier
from ._recipes import recipe, search_space

__all__ = ["MuraClassifier", "PerRegionClassifier", "recipe", "search_space"]
