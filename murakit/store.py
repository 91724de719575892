"""What is decoded or computed once; the same names as in `murakit.cache`."""

from .cache import FeatureStore, ImageStore

__all__ = ["FeatureStore", "ImageStore"]
