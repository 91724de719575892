"""How murakit's pictures look: a paper's column width, and readable without colour."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

COLUMN = 3.5  # inches, a journal's single column

GREY, LIGHT = "0.45", "0.8"

# Of different brightness, so that they also differ in a print in black and white; lines and marks do too.
COLOURS = ("#08306b", "#d9730d", "#3a7d44", "#8c6bb1")

LINES = ("-", "--", "-.", ":")

MARKS = ("o", "s", "^", "D")

_RC = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "figure.dpi": 120,
    "savefig.dpi": 300,
}


def pyplot() -> ModuleType:
    """Return ``matplotlib.pyplot``, or say how to install it."""
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise ImportError("Pictures need matplotlib: pip install 'murakit[plot]'.") from error
    return plt


@contextmanager
def paper() -> Iterator[ModuleType]:
    """Draw with small type and thin lines, whatever the caller's settings are."""
    plt = pyplot()
    # Loads the backend, which is otherwise loaded with the first figure: that of a notebook then switches
    # interactive mode on, and the end of the context would switch it off again, for all later figures.
    plt.draw_if_interactive()
    with plt.rc_context(_RC):
        yield plt


def axes(
    ax: "Axes | None", *, width: float = COLUMN, height: float = 2.8
) -> "tuple[Axes, Figure | SubFigure]":
    """Return the axes to draw into, new ones where none are given, and their figure."""
    plt = pyplot()
    if ax is None:
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    return ax, ax.figure
