"""Networks: backbones split into named stages, their weights, freezing, fusion, ONNX, and augmentation."""

from ._backbones import BACKBONES, Backbone
from ._build import build_radiograph, find_backbone, list_backbones
from ._network import Radiograph
from .augmentation import Augmentation

__all__ = [
    "Augmentation",
    "BACKBONES",
    "Backbone",
    "Radiograph",
    "build_radiograph",
    "find_backbone",
    "list_backbones",
]
