"""Models as files: safetensors with a record of the classifier, and ONNX."""

from ..io._safetensors import ModelFileError
from ._onnx import to_onnx
from ._save import load_model, model_info, save_model

__all__ = ["ModelFileError", "load_model", "model_info", "save_model", "to_onnx"]
