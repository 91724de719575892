"""Synthetic radiographs: anatomy, projection, findings, exposure."""

from ._make import make_mura

__all__ = ["make_mura"]
