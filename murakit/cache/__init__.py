"""What is decoded or computed once: the stores of images and features, on LMDB."""

from ._lmdb import CacheWarning
from ._manage import cache_info, clear_cache
from ._store import FeatureStore, ImageStore

__all__ = ["CacheWarning", "FeatureStore", "ImageStore", "cache_info", "clear_cache"]
