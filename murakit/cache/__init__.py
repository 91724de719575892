"""Cache of decoded images and of the outputs of frozen stages, in an LMDB file or in memory."""

from ._lmdb import CacheWarning
from ._manage import cache_info, clear_cache
from ._store import FeatureStore, ImageStore

__all__ = ["CacheWarning", "FeatureStore", "ImageStore", "cache_info", "clear_cache"]
