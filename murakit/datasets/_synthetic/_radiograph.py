"""Draw one synthetic radiograph: bones, soft tissue, findings, film."""

import math

import numpy as np
from PIL import Image

from ._anatomy import ANATOMY
from ._film import add_marker, add_noise, collimate, expose
from ._findings import injure
from ._projection import LONG, Camera, add_bar, project, soft_tissue

# Every pixel is the same on every platform: angles are rounded to coarse fixed point before use, and arrays
# see only ``+ - * / sqrt``, comparisons and table look-ups, which IEEE 754 defines to the last bit.


def draw_radiograph(region, patient, view, finding=None, *, image_size=512, noise=1.0):
    """Draw one radiograph.

    Returns
    -------
    pixels : ndarray of uint8, shape (height, width)
    box : tuple (x0, y0, x1, y1) of int or None
        Where the finding is visible, in pixels, `x1` and `y1` exclusive.
    """
    build, limit, unit = ANATOMY[region]
    bones, tissue = build(view.turned)
    camera = Camera(bones, patient, view, limit)
    bars = project(bones, camera, patient)
    metal = np.zeros((camera.height, camera.width), np.float32)
    box = None if finding is None else injure(bars, bones, finding, metal)
    bone = np.zeros_like(metal)
    for bar in bars:
        add_bar(bone, bar, unit * camera.scale)
    soft = soft_tissue(tissue, camera, patient)
    levels = expose(bone, soft, metal, patient, view)
    pixels = np.asarray(
        Image.fromarray(levels).resize(_film_size(camera, image_size), Image.Resampling.BILINEAR)
    )
    factor = image_size / LONG
    pixels = add_noise(pixels, view.noise, noise)
    field = collimate(pixels, [side * factor for side in camera.field], patient.frame)
    add_marker(pixels, field, patient, image_size)
    if box is not None:
        box = _clip([side * factor for side in box], field)
    return pixels, box


def _film_size(camera, image_size):
    sides = [max(1, round(side * image_size / LONG)) for side in (camera.width, camera.height)]
    return tuple(sides)


def _clip(box, field):
    left, top, right, bottom = field
    x0, y0 = max(math.floor(box[0]), left), max(math.floor(box[1]), top)
    x1, y1 = min(math.ceil(box[2]), right), min(math.ceil(box[3]), bottom)
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None
