"""A report of an evaluation as one HTML page."""

from ._write import write_report

__all__ = ["write_report"]
