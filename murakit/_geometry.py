"""Where an image lies in the square that a network sees."""

from typing import NamedTuple


class Placed(NamedTuple):
    """Rectangle of an image inside of its square, in pixels of the square."""

    left: int
    top: int
    width: int
    height: int


def placed(width, height, size, resize):
    """Return where an image of that width and height lies in a square.

    Parameters
    ----------
    width, height : int
        Of the image, in pixels.
    size : int
        Side of the square.
    resize : {"pad", "squash"}
    """
    if resize == "squash":
        return Placed(0, 0, size, size)
    scale = size / max(width, height)
    inner = [max(1, round(side * scale)) for side in (width, height)]
    return Placed((size - inner[0]) // 2, (size - inner[1]) // 2, *inner)
