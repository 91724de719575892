"""Project bones, metal and soft tissue from space onto the layers of a canvas."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ._anatomy import turn
from ._textures import STEPS, ripples

# Only arithmetic that is exact on every platform; `_phantom` says why.

LONG = 256  # longer side of the canvas; the film is scaled from it to the size asked for

ALONG = ((np.arange(STEPS) + 0.5) / STEPS).astype(np.float32)

_ARCH = 4 * ALONG * (1 - ALONG)

_NEAR = np.maximum(1 - ALONG / np.float32(0.38), 0)

_NEAR = _NEAR * _NEAR * (3 - 2 * _NEAR)  # 1 at the start of a bone, 0 from the shaft on

_FAR = _NEAR[::-1].copy()


@dataclass(frozen=True, slots=True)
class Bar:
    """A bone on the canvas, in pixels, with its profile along the axis and what a finding did to it."""

    x: float
    y: float
    dx: float  # unit vector along the axis
    dy: float
    length: float
    outer: np.ndarray
    inner: np.ndarray
    bend: np.ndarray
    fill: np.ndarray  # marrow: share of the inner thickness that is not bone
    density: float
    line: tuple[float, float, float, float, np.ndarray] | None = None  # a fracture: at, slope, gap, step, jag


class Camera:
    """Projects points of space onto the canvas, framed such that what a region has to show is on it."""

    def __init__(self, bones, patient, view, limit):
        self.flip = -1.0 if patient.side == "L" else 1.0
        self.cos, self.sin = turn(limit * view.turned)
        self.c, self.s = turn(patient.rotation + view.rotation + (90 if patient.lying else 0))
        self.aside = self.sin * self.sin
        self.length = patient.length
        self.origin, self.scale = (0.0, 0.0), 1.0
        self._frame(bones, patient, view)

    def __call__(self, point):
        x = self.flip * (point[0] * self.cos + point[2] * self.sin)
        y = point[1] * self.length
        return (
            self.origin[0] + self.scale * (self.c * x - self.s * y),
            self.origin[1] + self.scale * (self.s * x + self.c * y),
        )

    def _frame(self, bones, patient, view):
        corners = []
        for bone in bones:
            if bone.show is not None:
                reach = 1.15 * max(bone.widths[0], bone.widths[2])
                for share in bone.show:
                    x, y = self([p + (q - p) * share for p, q in zip(bone.a, bone.b, strict=True)])
                    corners += [(x - reach, y - reach), (x + reach, y + reach)]
        low = [min(corner[axis] for corner in corners) for axis in (0, 1)]
        extent = [max(corner[axis] for corner in corners) - low[axis] for axis in (0, 1)]
        margins = [0.0 if patient.frame == "full" else LONG * share for share in patient.margins]
        lost = (margins[0] + margins[2], margins[1] + margins[3])
        fit = min(0.95 * (LONG - lost[axis]) / extent[axis] for axis in (0, 1))
        size = [
            min(LONG, max(0.36 * LONG, extent[axis] * fit * patient.slack / 0.95 + lost[axis]))
            for axis in (0, 1)
        ]
        size[0 if extent[0] > extent[1] else 1] = LONG
        self.width, self.height = (int(side) for side in size)
        self.scale = fit * view.zoom
        self.field = (margins[0], margins[1], self.width - margins[2], self.height - margins[3])
        place = []
        for axis in (0, 1):
            free = self.field[axis + 2] - self.field[axis] - extent[axis] * self.scale
            middle = (self.field[axis] + self.field[axis + 2]) / 2 + 0.35 * free * view.shift[axis]
            place.append(middle - self.scale * (low[axis] + extent[axis] / 2))
        self.origin = tuple(place)


def project(bones, camera, patient):
    """Return the bones as they appear on the canvas; all profiles at once, since each is short."""
    widths = [[w * (1 + (bone.flat - 1) * camera.aside) for w in bone.widths] for bone in bones]
    widths = np.array(widths) * (camera.scale * patient.width)
    ends = [(*camera(bone.a), *camera(bone.b)) for bone in bones]
    lengths = [max(math.sqrt((x2 - x) * (x2 - x) + (y2 - y) * (y2 - y)), 2.0) for x, y, x2, y2 in ends]
    shaft = _column(widths[:, 1])
    first = patient.texture[0]
    ripple, sway = ripples([first + 37 * number for number in range(len(bones))])
    outer = _outline(widths, lengths, [bone.tip for bone in bones]) * (1 + 0.11 * ripple)
    flare = np.maximum(outer - shaft, 0) / np.maximum(shaft, 1)
    wall = _column([bone.cortex * patient.cortex for bone in bones]) * shaft / (1 + 4 * flare)
    inner = np.maximum(outer - np.maximum(wall, 0.35), 0)
    lean = camera.flip * camera.scale * (1 - camera.aside)
    bend = _column([bone.bend * lean for bone in bones]) * _ARCH + 0.10 * shaft * sway
    fill = 0.86 - 0.18 * np.minimum(flare, 1)
    return [
        Bar(x, y, (x2 - x) / length, (y2 - y) / length, length, *profile, bone.density)
        for bone, length, (x, y, x2, y2), *profile in zip(
            bones, lengths, ends, outer, inner, bend, fill, strict=True
        )
    ]


def _column(values):
    return np.array(values, dtype=np.float32)[:, None]


def _outline(widths, lengths, tips):
    """Half-widths along the axes of bones: a waist between two flared, rounded ends."""
    start, middle, end = (_column(of_bones) for of_bones in zip(*widths, strict=True))
    outline = middle + (start - middle) * _NEAR + (end - middle) * _FAR
    lengths, tips = _column(lengths), _column(tips)
    near = np.minimum(ALONG * (lengths / np.maximum(tips * start, 1)), 1)
    far = np.minimum(ALONG[::-1] * (lengths / np.maximum(tips * end, 1)), 1)
    outline *= np.sqrt(near * (2 - near) * far * (2 - far))
    outline[:, 0] = outline[:, -1] = 0
    return outline


def lump(x, y, dx, dy, length, widths, density):
    """Return a solid piece without marrow."""
    outline = _outline([widths], [length], [1.0])[0]
    nothing = outline * 0
    return Bar(x, y, dx, dy, length, outline, nothing, nothing, nothing, density)


def _window(x, y, x2, y2, reach, shape):
    """Slices of the canvas about a segment."""
    top, bottom = max(int(min(y, y2) - reach), 0), min(int(max(y, y2) + reach) + 2, shape[0])
    left, right = max(int(min(x, x2) - reach), 0), min(int(max(x, x2) + reach) + 2, shape[1])
    return slice(top, max(bottom, top)), slice(left, max(right, left))


def add_bar(layer, bar, unit):
    """Add the thickness of bone that the beam crosses, in multiples of `unit` pixels."""
    step = 0.0 if bar.line is None else abs(bar.line[3])
    reach = float(bar.outer.max()) + float(np.abs(bar.bend).max()) + step + 1
    end = (bar.x + bar.dx * bar.length, bar.y + bar.dy * bar.length)
    rows, columns = _window(bar.x, bar.y, *end, reach, layer.shape)
    xs = np.arange(columns.start, columns.stop, dtype=np.float32) + np.float32(0.5 - bar.x)
    ys = (np.arange(rows.start, rows.stop, dtype=np.float32) + np.float32(0.5 - bar.y))[:, None]
    if xs.size == 0 or ys.size == 0:
        return
    share = STEPS / bar.length
    along = xs * np.float32(bar.dx * share) + ys * np.float32(bar.dy * share)
    across = ys * np.float32(bar.dx) - xs * np.float32(bar.dy)
    index = along.astype(np.intp)
    across -= bar.bend.take(index, mode="clip")
    gap = None if bar.line is None else _break(bar, along, across)
    across *= across
    thickness = np.sqrt(np.maximum((bar.outer * bar.outer).take(index, mode="clip") - across, 0))
    marrow = np.sqrt(np.maximum((bar.inner * bar.inner).take(index, mode="clip") - across, 0))
    marrow *= bar.fill.take(index, mode="clip")
    thickness -= marrow
    if gap is not None:
        thickness *= gap
    thickness *= np.float32(bar.density / unit)
    layer[rows, columns] += thickness


def _break(bar, along, across):
    """Shift what lies beyond a fracture line; return the share of bone left about the line."""
    at, slope, gap, step, jag = bar.line
    share = np.float32(bar.length / STEPS)
    beyond = (along - np.float32(at * STEPS)) * share + across * np.float32(slope)
    beyond += jag.take(np.minimum(np.maximum(across * 3 + STEPS / 2, 0), STEPS - 1).astype(np.intp))
    rest = max((1 - at) * bar.length, 1.0)
    # The fragment's far end stays in its joint.
    across -= np.where(beyond > 0, np.float32(step) * np.maximum(1 - beyond * np.float32(1 / rest), 0), 0)
    away = np.abs(beyond) * np.float32(1 / gap)
    # The edges are dense: impacted bone, or callus.
    edge = np.maximum(1 - np.abs(away - np.float32(1.5)), 0)
    return np.minimum(0.06 + np.maximum(away - np.float32(0.5), 0), 1) + np.float32(0.7) * edge


def add_metal(layer, x, y, x2, y2, width):
    """Draw a metal rod between two points."""
    rows, columns = _window(x, y, x2, y2, width + 1, layer.shape)
    xs = np.arange(columns.start, columns.stop, dtype=np.float32) + np.float32(0.5 - x)
    ys = (np.arange(rows.start, rows.stop, dtype=np.float32) + np.float32(0.5 - y))[:, None]
    square = _distance(xs, ys, x2 - x, y2 - y)[0]
    np.maximum(
        layer[rows, columns],
        np.minimum(np.maximum(width + 0.5 - np.sqrt(square), 0), 1),
        out=layer[rows, columns],
    )


def _distance(xs, ys, dx, dy):
    """Squared distance from a segment that starts at the origin, and its nearest point (0..1)."""
    share = 1 / max(dx * dx + dy * dy, 1e-6)
    place = np.minimum(np.maximum(xs * np.float32(dx * share) + ys * np.float32(dy * share), 0), 1)
    across, down = xs - place * np.float32(dx), ys - place * np.float32(dy)
    return across * across + down * down, place


def soft_tissue(segments, camera, patient):
    """Thickness of the soft tissue, about 0..1; drawn on half the canvas, since it has no sharp edges."""
    shape = (-(-camera.height // 2), -(-camera.width // 2))
    widest = max(max(segment[6:]) for segment in segments) * camera.scale / 2
    square = np.full(shape, np.float32(-0.05 * widest * widest))
    for segment in segments:
        (x, y), (x2, y2) = ([side / 2 for side in camera(segment[at : at + 3])] for at in (0, 3))
        first, last = (0.93 * w * camera.scale / 2 * (0.6 + 0.4 * patient.tissue) for w in segment[6:])
        rows, columns = _window(x, y, x2, y2, max(first, last) + 2, shape)
        xs = np.arange(columns.start, columns.stop, dtype=np.float32) + np.float32(0.5 - x)
        ys = (np.arange(rows.start, rows.stop, dtype=np.float32) + np.float32(0.5 - y))[:, None]
        away, place = _distance(xs, ys, x2 - x, y2 - y)
        place *= np.float32(last - first)
        place += np.float32(first)
        place *= place
        place -= away
        np.maximum(square[rows, columns], place, out=square[rows, columns])
    # Signed until it has its full size: clipped before, the skin would show the steps of the half canvas.
    square *= np.float32(1 / (widest * widest))
    signed = square / np.sqrt(np.abs(square) + np.float32(0.02))
    coded = Image.fromarray(((signed + np.float32(0.3)) * np.float32(190)).astype(np.uint8))
    full = coded.resize((2 * shape[1], 2 * shape[0]), Image.Resampling.BICUBIC)
    thickness = np.maximum((np.arange(256, dtype=np.float32) * np.float32(1 / 190) - np.float32(0.3)), 0)
    thickness = thickness / (thickness + np.float32(0.4)) * np.float32(1.4)
    return thickness.take(np.asarray(full)[: camera.height, : camera.width])
