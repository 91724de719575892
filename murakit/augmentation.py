"""Random changes of training images; the same as `murakit.networks.augmentation`."""

from .networks.augmentation import Augmentation

__all__ = ["Augmentation"]
