"""Paths, patients, studies, regions and labels: loaders, checks, and synthetic radiographs."""

from ._checks import check_disjoint, check_mura, check_radiographs
from ._load import load_mura, load_radiographs
from ._synthetic import make_mura

__all__ = ["check_disjoint", "check_mura", "check_radiographs", "load_mura", "load_radiographs", "make_mura"]
