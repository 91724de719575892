"""Bytes and pixels: files in folders and ZIP archives, atomic writes, one grey array from any image file."""

from ._images import UnreadableImage, read_image, read_square

__all__ = ["UnreadableImage", "read_image", "read_square"]
