"""Draw one synthetic radiograph: bones, soft tissue, findings, film.

Every pixel is the same on every platform: angles are rounded to coarse fixed point before use, and arrays see
only ``+ - * / sqrt``, comparisons and table look-ups, which IEEE 754 defines to the last bit.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image

FINDINGS = ("fracture", "displaced", "hardware", "erosion")

_LONG = 256  # longer side of the canvas; the film is scaled from it to the size asked for
_STEPS = 256  # samples of a bone's profile along its axis
_ALONG = ((np.arange(_STEPS) + 0.5) / _STEPS).astype(np.float32)
_ARCH = 4 * _ALONG * (1 - _ALONG)
_NEAR = np.maximum(1 - _ALONG / np.float32(0.38), 0)
_NEAR = _NEAR * _NEAR * (3 - 2 * _NEAR)  # 1 at the start of a bone, 0 from the shaft on
_FAR = _NEAR[::-1].copy()
_TILE = 1024  # side of the noise and texture tiles
_METAL = 1.7  # what absorbs as much is not bone
_LEVELS = 1024  # entries of the film's characteristic curve


@dataclass(frozen=True, slots=True)
class Habits:
    """What stays the same over all radiographs of a patient: the body, the technician and the machine."""

    side: str  # "L" or "R"
    mode: str  # "L" or "RGB"
    width: float  # of the bones, 1 = average
    length: float
    cortex: float
    density: float
    tissue: float  # thickness of the soft tissue
    gain: float  # exposure
    contrast: float
    fog: float  # grey level of unexposed film
    heel: float  # fall-off of the beam along the film
    rotation: float  # degrees
    lying: bool  # the limb lies across the film
    slack: float  # empty film beside the limb
    frame: str  # "full", "dark" or "white": what lies outside the collimated field
    margins: tuple[float, ...]  # of the collimated field: left, top, right, bottom
    marker_size: float
    marker_corner: int
    marker_style: int
    texture: tuple[int, int]  # place in the texture tile
    grain: float  # strength of the trabecular texture


@dataclass(frozen=True, slots=True)
class Finding:
    """What is abnormal in a study, the same in all its views."""

    kind: str
    site: float  # which of the region's sites, 0..1
    place: float  # where along the site's bone, 0..1
    size: float  # 1 = average
    slope: float  # of a fracture line against the bone's cross-section
    sign: int  # side of a plate, direction of a displacement
    row: int  # of the texture tile, for jagged edges
    nail: bool
    callus: float  # new bone about a fracture: 0 where it is fresh


@dataclass(frozen=True, slots=True)
class Bone:
    """A bone in space: axis from ``a`` to ``b``, half-widths at its start, middle and end."""

    a: tuple[float, float, float]
    b: tuple[float, float, float]
    widths: tuple[float, float, float]
    bend: float = 0.0  # sagitta of the axis, in units of space
    flat: float = 1.0  # half-width seen from the side, relative to that seen from the front
    cortex: float = 0.34  # thickness of the cortical bone, relative to the half-width of the shaft
    density: float = 1.0
    tip: float = 0.6  # length of the rounded ends, relative to their half-width
    site: tuple[float, float] | None = None  # where along the axis findings occur
    show: tuple[float, float] | None = None  # which part of the axis has to be on the film


@dataclass(frozen=True, slots=True)
class _Bar:
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


# ---------------------------------------------------------------------------------------------------------
# Habits and findings
# ---------------------------------------------------------------------------------------------------------


def draw_habits(rng, effect, mode):
    """Draw a patient's habits; `effect` in [0, 1] is how far patients differ."""

    def between(low, high):
        middle = (low + high) / 2
        return middle + effect * (low + (high - low) * rng.random() - middle)

    picks = rng.integers(0, 1 << 20, size=8)
    varied = effect > 0
    return Habits(
        side="LR"[int(picks[0] % 2)],
        mode=mode,
        width=between(0.89, 1.13),
        length=between(0.93, 1.07),
        cortex=between(0.75, 1.3),
        density=between(0.86, 1.17),
        tissue=between(0.8, 1.3),
        gain=between(0.88, 1.14),
        contrast=between(0.38, 0.9),
        fog=between(2, 38),
        heel=between(-0.24, 0.24),
        rotation=between(-7, 7),
        lying=varied and int(picks[1] % 12) == 0,
        slack=between(1.0, 1.45),
        frame=("full", "dark", "dark", "white")[int(picks[2] % 4)] if varied else "dark",
        margins=tuple(between(0.005, 0.09) for _ in range(4)),
        marker_size=between(0.05, 0.11),
        marker_corner=int(picks[3] % 4) if varied else 0,
        marker_style=int(picks[4] % 6) if varied else 0,
        texture=(int(picks[5] % _TILE), int(picks[6] % _TILE)) if varied else (0, 0),
        grain=between(0.07, 0.25),
    )


def draw_finding(rng):
    """Draw what is abnormal in a study."""
    kind = ("fracture",) * 4 + ("displaced",) * 4 + ("hardware",) * 8 + ("erosion",) * 4
    picks = rng.integers(0, 1 << 20, size=4)
    return Finding(
        kind=kind[int(picks[0]) % len(kind)],
        site=rng.random(),
        place=rng.random(),
        size=0.75 + 0.5 * rng.random(),
        slope=1.6 * rng.random() - 0.8,
        sign=int(picks[1]) % 2 * 2 - 1,
        row=int(picks[2]) % _TILE,
        nail=int(picks[3]) % 3 == 0,
        callus=0.0 if int(picks[3]) % 8 == 0 else 0.5 + 0.2 * rng.random(),
    )


# ---------------------------------------------------------------------------------------------------------
# Anatomy: fingers up, the arm down; x to the right, y down, z towards the tube
# ---------------------------------------------------------------------------------------------------------


def _turn(degrees):
    """Cosine and sine, rounded so that no last bit of a platform's libm can matter."""
    angle = math.radians(degrees)
    return round(math.cos(angle) * 4096) / 4096, round(math.sin(angle) * 4096) / 4096


def _knob(x, y, radius, z=0.0, **options):
    """Return a round bone, such as a carpal or a condyle."""
    options = {"cortex": 0.22, "tip": 1.0, "density": 0.8} | options
    half = 0.92 * radius
    return Bone((x, y - half, z), (x, y + half, z), (radius, radius, radius), **options)


def _digit(x, y, degrees, lengths, width, flexion=0.0, gap=0.010, **options):
    """Return a chain of phalanges that starts at (x, y); flexion is how far each of them tips forward."""
    bones, z = [], 0.0
    c, s = _turn(degrees)
    for number, length in enumerate(lengths):
        end = (x + s * length, y - c * length, z + flexion * number * length)
        last = number == len(lengths) - 1
        widths = (width * 1.5, width * (0.8 if last else 1.0), width * (0.95 if last else 1.35))
        bones.append(Bone((x, y, z), end, widths, bend=0.03 * length, flat=0.85, **options))
        x, y, z = end[0] + s * gap, end[1] - c * gap, end[2]
        width *= 0.86
    return bones


_RAYS = (  # base x and y, degrees, lengths, half-width of the shaft; thumb first
    (-0.100, 0.175, -38, (0.130, 0.100, 0.070), 0.0155),
    (-0.064, 0.150, -10, (0.205, 0.125, 0.075, 0.052), 0.0150),
    (-0.022, 0.145, -2, (0.200, 0.140, 0.090, 0.056), 0.0155),
    (0.018, 0.150, 6, (0.180, 0.130, 0.085, 0.056), 0.0140),
    (0.056, 0.162, 15, (0.165, 0.102, 0.060, 0.050), 0.0130),
)
_CARPALS = (  # x, y, radius
    (-0.088, 0.196, 0.026),
    (-0.052, 0.190, 0.023),
    (-0.016, 0.192, 0.031),
    (0.032, 0.195, 0.028),
    (-0.066, 0.240, 0.030),
    (-0.018, 0.250, 0.028),
    (0.028, 0.246, 0.024),
    (0.040, 0.226, 0.017),
)


# One row a bone, so that it reads as a table.
# fmt: off
@lru_cache(maxsize=2)
def _hand_bones(part):
    bones, tissue = [], []
    for number, (x, y, degrees, lengths, width) in enumerate(_RAYS):
        ray = _digit(x, y, degrees, lengths, width, flexion=0.12 * number)
        for order, bone in enumerate(ray):
            in_hand = part == "hand"
            site = (0.2, 0.85) if in_hand and order < 2 else None
            show = (0.0, 1.0) if in_hand else (0.0, 0.3) if order == 0 else None
            bones.append(replace(bone, site=site, show=show))
            tissue.append((*bone.a, *bone.b, 2.1 * width, 1.8 * width))
    for x, y, radius in _CARPALS:
        bones.append(_knob(x, y, radius, z=0.3 * (x + 0.02), show=(0.0, 1.0)))
    arm = (0.05, 0.26) if part == "wrist" else None
    bones.append(Bone((-0.045, 0.288, 0.0), (-0.030, 0.95, 0.0), (0.052, 0.0215, 0.024), 0.008, site=arm,
                      show=(0.0, 0.33) if part == "wrist" else (0.0, 0.1), flat=0.75))
    bones.append(Bone((0.046, 0.290, 0.012), (0.034, 0.95, 0.0), (0.026, 0.017, 0.022), -0.006, site=arm,
                      show=(0.0, 0.30) if part == "wrist" else (0.0, 0.1)))
    tissue += [(-0.045, 0.14, 0, -0.01, 0.02, 0, 0.085, 0.075), (0.03, 0.14, 0, 0.01, 0.0, 0, 0.07, 0.075)]
    tissue += [(-0.01, 0.16, 0.0, 0.0, 0.32, 0.0, 0.11, 0.092), (0.0, 0.30, 0.0, 0.0, 1.1, 0.0, 0.092, 0.13)]
    return bones, tissue


def _hand(side_on):
    return _hand_bones("hand")


def _wrist(side_on):
    return _hand_bones("wrist")


def _finger(side_on):
    flexion = 0.25
    chain = _digit(0.0, 0.62, 0, (0.42, 0.36, 0.23, 0.15), 0.050, flexion=flexion, gap=0.018)
    bones = [replace(chain[0], show=(0.8, 1.0))]
    bones += [replace(bone, site=(0.15, 0.85), show=(0.0, 1.0)) for bone in chain[1:]]
    reach = (0.14, 0.102, 0.09, 0.078)
    tissue = [(*bone.a, *bone.b, w, w * 0.92) for bone, w in zip(bones, reach, strict=True)]
    for x, degrees in ((-0.20, -7), (0.19, 8)):  # the neighbours, folded away in a lateral view
        far = x * (1.0 if side_on < 0.5 else 1.5)
        for bone in _digit(far, 0.66, degrees, (0.42, 0.30), 0.044, gap=0.018):
            bones.append(bone)
            tissue.append((*bone.a, *bone.b, 0.11, 0.09))
    return bones, tissue


def _forearm(side_on):
    bones = [
        Bone((-0.046, -0.345, 0.0), (-0.052, 0.360, 0.01), (0.030, 0.0215, 0.047), -0.022, 0.8,
             site=(0.12, 0.93), show=(0.0, 1.0)),
        Bone((0.032, -0.395, -0.01), (0.044, 0.350, -0.02), (0.044, 0.0205, 0.021), 0.014, site=(0.2, 0.93),
             show=(0.0, 1.0)),
        Bone((0.005, -0.95, 0.0), (-0.005, -0.365, 0.0), (0.05, 0.036, 0.075), flat=0.6),
        _knob(-0.042, -0.375, 0.030),
        _knob(0.022, -0.375, 0.030),
    ]
    bones += [_knob(x * 0.95 + 0.015, 0.635 - y, r, z=0.3 * x) for x, y, r in _CARPALS]
    for x in (-0.07, -0.03, 0.005, 0.04):
        bones.append(Bone((x, 0.47, x), (1.2 * x, 0.68, x), (0.022, 0.015, 0.02)))
    tissue = [(0.0, -1.0, 0, 0.0, -0.28, 0, 0.13, 0.135), (0.0, -0.34, 0, -0.005, 0.34, 0, 0.14, 0.088)]
    tissue += [(-0.01, 0.36, 0.0, -0.01, 0.7, 0.0, 0.095, 0.13)]
    return bones, tissue


def _humerus(side_on):
    bones = [
        Bone((-0.012, -0.455, 0.0), (0.0, 0.400, 0.0), (0.068, 0.0335, 0.074), 0.006, 0.9, tip=0.9,
             site=(0.15, 0.9), show=(0.0, 1.0)),
        Bone((-0.060, -0.375, 0.0), (0.012, -0.440, 0.0), (0.055, 0.060, 0.050), cortex=0.10, density=0.35,
             tip=1.0),
        Bone((-0.145, -0.43, 0.0), (-0.135, -0.30, 0.0), (0.020, 0.022, 0.018), density=0.8),
        Bone((-0.16, -0.36, 0.0), (-0.25, -0.05, 0.0), (0.06, 0.05, 0.02), density=0.35),
        Bone((-0.30, -0.53, 0.0), (-0.02, -0.525, 0.0), (0.028, 0.024, 0.03), -0.02, density=0.7),
        Bone((-0.026, 0.415, 0.0), (-0.03, 0.95, 0.0), (0.034, 0.024, 0.03)),
        Bone((0.030, 0.360, 0.0), (0.03, 0.95, 0.0), (0.042, 0.026, 0.03)),
    ]
    tissue = [(-0.01, -0.42, 0.0, 0.0, 0.42, 0.0, 0.155, 0.115), (0.0, 0.40, 0.0, 0.0, 1.0, 0.0, 0.12, 0.115)]
    tissue += [(-0.14, -0.42, 0.0, -0.55, -0.1, 0.0, 0.17, 0.35)]
    return bones, tissue


def _elbow(side_on):
    c, s = _turn(80 * side_on)

    def flexed(bone):
        a, b = ((c * p[0] - s * p[1], s * p[0] + c * p[1], p[2]) for p in (bone.a, bone.b))
        return replace(bone, a=a, b=b)

    arm = [
        Bone((0.0, -0.80, 0.0), (0.0, -0.005, 0.0), (0.05, 0.046, 0.105), 0.01, 0.62, site=(0.55, 0.93),
             show=(0.5, 1.0)),
        _knob(-0.062, -0.002, 0.042, 0.0),
        _knob(0.030, 0.002, 0.044, 0.02),
        _knob(0.088, -0.045, 0.034, -0.02, density=0.6),
    ]
    forearm = [
        Bone((-0.062, 0.050, 0.0), (-0.072, 0.75, 0.0), (0.045, 0.029, 0.04), 0.01, site=(0.06, 0.5),
             show=(0.0, 0.5)),
        Bone((0.042, 0.012, 0.0), (0.030, 0.75, 0.0), (0.062, 0.034, 0.03), 0.01, site=(0.1, 0.5),
             show=(0.0, 0.5)),
        Bone((0.034, -0.085, 0.0), (0.040, 0.06, 0.0), (0.040, 0.046, 0.05), density=0.7),
    ]
    bones = arm + [flexed(bone) for bone in forearm]
    below = flexed(Bone((0.0, 0.0, 0.0), (-0.02, 0.9, 0.0), (0, 0, 0)))
    tissue = [(0.0, -0.9, 0.0, 0.0, 0.0, 0.0, 0.19, 0.17), (*below.a, *below.b, 0.18, 0.15)]
    return bones, tissue


def _shoulder(side_on):
    bones = [
        Bone((-0.115, -0.215, 0.0), (-0.235, 0.75, 0.0), (0.122, 0.056, 0.06), 0.01, tip=1.1,
             site=(0.16, 0.5), show=(0.0, 0.55)),
        Bone((-0.125, -0.060, 0.0), (-0.075, -0.190, 0.0), (0.080, 0.092, 0.080), cortex=0.08, density=0.4,
             tip=1.0, show=(0.0, 1.0)),
        Bone((0.030, -0.195, 0.0), (0.040, 0.010, 0.05), (0.030, 0.030, 0.028), density=0.8, show=(0.0, 1.0)),
        Bone((0.075, -0.150, 0.0), (0.190, 0.40, 0.0), (0.110, 0.100, 0.025), cortex=0.10, density=0.40),
        Bone((0.045, 0.000, 0.0), (0.170, 0.41, 0.0), (0.022, 0.016, 0.016), density=0.55),
        Bone((0.260, -0.215, 0.0), (-0.100, -0.265, 0.0), (0.028, 0.024, 0.046), 0.02, density=0.6,
             show=(0.3, 1.0)),
        Bone((0.520, -0.330, 0.0), (0.000, -0.300, 0.0), (0.036, 0.027, 0.034), 0.035, site=(0.52, 0.9),
             show=(0.3, 1.0)),
        _knob(0.055, -0.225, 0.040, density=0.5),
    ]
    for number in range(5):
        y = -0.17 + 0.135 * number
        bones.append(Bone((0.285 - 0.01 * number, y + 0.07, 0.0), (0.85, y - 0.02, 0.0), (0.022, 0.02, 0.02),
                          bend=-0.09, density=0.32, tip=1.0))
    # The air of the lung: a bone that takes density away.
    bones.append(Bone((0.56, -0.22, 0), (0.60, 0.9, 0), (0.20, 0.27, 0.3), cortex=0, density=-0.13, tip=1.0))
    tissue = [(-0.14, -0.14, 0, -0.26, 0.9, 0, 0.26, 0.20), (0.50, -0.02, 0, 0.55, 0.9, 0, 0.55, 0.55)]
    tissue += [(0.10, -0.18, 0.0, 0.75, -0.30, 0.0, 0.20, 0.30)]
    return bones, tissue
# fmt: on


ANATOMY = {  # region: bones of a view, how far the limb may be turned (degrees), half-width of a typical bone
    "elbow": (_elbow, 80, 0.060),
    "finger": (_finger, 75, 0.046),
    "forearm": (_forearm, 70, 0.027),
    "hand": (_hand, 50, 0.0185),
    "humerus": (_humerus, 60, 0.052),
    "shoulder": (_shoulder, 22, 0.085),
    "wrist": (_wrist, 65, 0.031),
}


# ---------------------------------------------------------------------------------------------------------
# From space to the film
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class View:
    """How one radiograph was taken."""

    turned: float  # of the limb about its axis, 0 = AP, 1 = as far to the side as the region allows
    rotation: float  # degrees
    zoom: float
    shift: tuple[float, float]  # of the limb on the film, -1..1 of the free space
    gain: float
    noise: tuple[int, int]  # place in the noise tile


def draw_view(rng, number):
    """Draw how image `number` (from 0) of a study is taken: AP, lateral, oblique, and so on."""
    low, high = ((0.0, 0.15), (0.8, 1.0), (0.4, 0.6))[number % 3]
    crop = rng.integers(0, _TILE, size=2)
    return View(
        turned=low + (high - low) * rng.random(),
        rotation=6 * rng.random() - 3,
        zoom=0.92 + 0.08 * rng.random(),
        shift=(2 * rng.random() - 1, 2 * rng.random() - 1),
        gain=0.95 + 0.1 * rng.random(),
        noise=(int(crop[0]), int(crop[1])),
    )


class _Camera:
    """Projects points of space onto the canvas, framed such that what a region has to show is on it."""

    def __init__(self, bones, patient, view, limit):
        self.flip = -1.0 if patient.side == "L" else 1.0
        self.cos, self.sin = _turn(limit * view.turned)
        self.c, self.s = _turn(patient.rotation + view.rotation + (90 if patient.lying else 0))
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
        margins = [0.0 if patient.frame == "full" else _LONG * share for share in patient.margins]
        lost = (margins[0] + margins[2], margins[1] + margins[3])
        fit = min(0.95 * (_LONG - lost[axis]) / extent[axis] for axis in (0, 1))
        size = [
            min(_LONG, max(0.36 * _LONG, extent[axis] * fit * patient.slack / 0.95 + lost[axis]))
            for axis in (0, 1)
        ]
        size[0 if extent[0] > extent[1] else 1] = _LONG
        self.width, self.height = (int(side) for side in size)
        self.scale = fit * view.zoom
        self.field = (margins[0], margins[1], self.width - margins[2], self.height - margins[3])
        place = []
        for axis in (0, 1):
            free = self.field[axis + 2] - self.field[axis] - extent[axis] * self.scale
            middle = (self.field[axis] + self.field[axis + 2]) / 2 + 0.35 * free * view.shift[axis]
            place.append(middle - self.scale * (low[axis] + extent[axis] / 2))
        self.origin = tuple(place)


def _project(bones, camera, patient):
    """Return the bones as they appear on the canvas; all profiles at once, since each is short."""
    widths = [[w * (1 + (bone.flat - 1) * camera.aside) for w in bone.widths] for bone in bones]
    widths = np.array(widths) * (camera.scale * patient.width)
    ends = [(*camera(bone.a), *camera(bone.b)) for bone in bones]
    lengths = [max(math.sqrt((x2 - x) * (x2 - x) + (y2 - y) * (y2 - y)), 2.0) for x, y, x2, y2 in ends]
    shaft = _column(widths[:, 1])
    first = patient.texture[0]
    ripple, sway = _ripples([first + 37 * number for number in range(len(bones))])
    outer = _outline(widths, lengths, [bone.tip for bone in bones]) * (1 + 0.11 * ripple)
    flare = np.maximum(outer - shaft, 0) / np.maximum(shaft, 1)
    wall = _column([bone.cortex * patient.cortex for bone in bones]) * shaft / (1 + 4 * flare)
    inner = np.maximum(outer - np.maximum(wall, 0.35), 0)
    lean = camera.flip * camera.scale * (1 - camera.aside)
    bend = _column([bone.bend * lean for bone in bones]) * _ARCH + 0.10 * shaft * sway
    fill = 0.86 - 0.18 * np.minimum(flare, 1)
    return [
        _Bar(x, y, (x2 - x) / length, (y2 - y) / length, length, *profile, bone.density)
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
    near = np.minimum(_ALONG * (lengths / np.maximum(tips * start, 1)), 1)
    far = np.minimum(_ALONG[::-1] * (lengths / np.maximum(tips * end, 1)), 1)
    outline *= np.sqrt(near * (2 - near) * far * (2 - far))
    outline[:, 0] = outline[:, -1] = 0
    return outline


def _lump(x, y, dx, dy, length, widths, density):
    """Return a solid piece without marrow."""
    outline = _outline([widths], [length], [1.0])[0]
    nothing = outline * 0
    return _Bar(x, y, dx, dy, length, outline, nothing, nothing, nothing, density)


def _window(x, y, x2, y2, reach, shape):
    """Slices of the canvas about a segment."""
    top, bottom = max(int(min(y, y2) - reach), 0), min(int(max(y, y2) + reach) + 2, shape[0])
    left, right = max(int(min(x, x2) - reach), 0), min(int(max(x, x2) + reach) + 2, shape[1])
    return slice(top, max(bottom, top)), slice(left, max(right, left))


def _add_bar(layer, bar, unit):
    """Add the thickness of bone that the beam crosses, in multiples of `unit` pixels."""
    step = 0.0 if bar.line is None else abs(bar.line[3])
    reach = float(bar.outer.max()) + float(np.abs(bar.bend).max()) + step + 1
    end = (bar.x + bar.dx * bar.length, bar.y + bar.dy * bar.length)
    rows, columns = _window(bar.x, bar.y, *end, reach, layer.shape)
    xs = np.arange(columns.start, columns.stop, dtype=np.float32) + np.float32(0.5 - bar.x)
    ys = (np.arange(rows.start, rows.stop, dtype=np.float32) + np.float32(0.5 - bar.y))[:, None]
    if xs.size == 0 or ys.size == 0:
        return
    share = _STEPS / bar.length
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
    share = np.float32(bar.length / _STEPS)
    beyond = (along - np.float32(at * _STEPS)) * share + across * np.float32(slope)
    beyond += jag.take(np.minimum(np.maximum(across * 3 + _STEPS / 2, 0), _STEPS - 1).astype(np.intp))
    rest = max((1 - at) * bar.length, 1.0)
    # The fragment's far end stays in its joint.
    across -= np.where(beyond > 0, np.float32(step) * np.maximum(1 - beyond * np.float32(1 / rest), 0), 0)
    away = np.abs(beyond) * np.float32(1 / gap)
    # The edges are dense: impacted bone, or callus.
    edge = np.maximum(1 - np.abs(away - np.float32(1.5)), 0)
    return np.minimum(0.06 + np.maximum(away - np.float32(0.5), 0), 1) + np.float32(0.7) * edge


def _add_metal(layer, x, y, x2, y2, width):
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


def _soft_tissue(segments, camera, patient):
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


# ---------------------------------------------------------------------------------------------------------
# Findings
# ---------------------------------------------------------------------------------------------------------


def _injure(bars, bones, finding, metal):
    """Put a finding into the bars and the layer of metal; return its bounding box on the canvas."""
    sites = [number for number, bone in enumerate(bones) if bone.site is not None]
    number = sites[int(finding.site * len(sites))]
    low, high = bones[number].site
    at = low + (high - low) * finding.place
    box = _INJURIES[finding.kind](bars, number, at, finding, metal)
    xs, ys = [x for x, _ in box], [y for _, y in box]
    return min(xs) - 2, min(ys) - 2, max(xs) + 2, max(ys) + 2


def _point(bar, at, aside=0.0):
    """A point of the canvas: `at` (0..1) along the bar, `aside` pixels beside its axis."""
    index = min(max(int(at * _STEPS), 0), _STEPS - 1)
    aside += float(bar.bend[index])
    along = at * bar.length
    return bar.x + bar.dx * along - bar.dy * aside, bar.y + bar.dy * along + bar.dx * aside


def _around(bar, low, high, aside):
    return [_point(bar, at, side) for at in (low, high) for side in (-aside, aside)]


def _half_width(bar, at):
    return max(float(bar.outer[min(max(int(at * _STEPS), 0), _STEPS - 1)]), 6.5)


def _fracture(bars, number, at, finding, metal, gap=0.40, step=0.5):
    bar = bars[number]
    width = _half_width(bar, at)
    jag = (_ripples(finding.row)[0] + 0.25 * _texture()[finding.row, :_STEPS]) * np.float32(0.45 * width)
    gap = max(gap * width, 2.0) * finding.size
    step *= width * finding.size * finding.sign
    bars[number] = replace(bar, line=(at, finding.slope, gap, step, jag))
    callus = 0.0 if finding.kind == "hardware" else finding.callus
    if callus:
        # The body's own plaster: a spindle of new bone about the break, which the line still crosses.
        length, thick = 5.0 * width, 1.2 * width
        x, y = _point(bar, at - length / 2 / bar.length, step / 2)
        spindle = _lump(x, y, bar.dx, bar.dy, length, (0.4 * thick, thick, 0.4 * thick), callus)
        bars.append(replace(spindle, line=(0.5, finding.slope, gap, 0.0, jag)))
    reach = (gap + width * (abs(finding.slope) + 0.35)) / bar.length
    reach = max(reach, 2.5 * width / bar.length if callus else 0.0)
    return _around(bar, at - reach, at + reach, 1.25 * width + abs(step))


def _displaced(bars, number, at, finding, metal):
    bar = bars[number]
    width = _half_width(bar, at)
    box = _fracture(bars, number, at, finding, metal, gap=0.6, step=1.3)
    # A loose piece of cortex beside the break.
    widths = (0.3 * width, 0.35 * width, 0.2 * width)
    x, y = _point(bar, at - 0.6 * width / bar.length, -1.35 * width * finding.sign)
    bars.append(_lump(x, y, bar.dx, bar.dy, 1.5 * width, widths, 0.9))
    return box


def _hardware(bars, number, at, finding, metal):
    bar = bars[number]
    width = _half_width(bar, at)
    _fracture(bars, number, at, finding, metal, gap=0.25, step=0.0)
    half = min(max(2.6 * width * finding.size / bar.length, 0.10), 0.30)
    low, high = max(at - half, 0.03), min(at + half, 0.97)
    thick = min(max(0.30 * width, 2.0), 4.5)
    aside = 0.0 if finding.nail else 0.80 * width * finding.sign
    _add_metal(metal, *_point(bar, low, aside), *_point(bar, high, aside), thick)
    count = 2 if finding.nail else 4
    for screw in range(count):
        place = low + (high - low) * (screw + 0.5) / count
        ends = (_point(bar, place, -1.05 * width), _point(bar, place, 1.05 * width))
        _add_metal(metal, *ends[0], *ends[1], max(0.12 * width, 1.0))
        if not finding.nail:
            head = _point(bar, place, aside + 0.15 * width * finding.sign)
            _add_metal(metal, *head, *head, 1.25 * thick)
    return _around(bar, low, high, 1.15 * width + thick)


def _erosion(bars, number, at, finding, metal):
    bar = bars[number]
    end, inward = (0.0, 1.0) if at <= 0.5 else (1.0, -1.0)
    width = _half_width(bar, end + inward * 0.06)
    depth = min(1.7 * width / bar.length, 0.35)
    near = np.maximum(1 - np.abs(_ALONG - end) / np.float32(depth), 0)
    ripple = _ripples(finding.row)
    rough = (ripple[0] + 0.7 * _texture()[finding.row, :_STEPS]) * near
    outer = bar.outer * (1 + 0.5 * finding.size * rough + 0.12 * near)
    bars[number] = replace(
        bar,
        outer=outer,
        inner=np.where(near > 0, np.maximum(np.minimum(bar.inner, outer - 1), 0), bar.inner),
        bend=bar.bend + np.float32(0.35 * finding.size * width) * ripple[1] * near,
        fill=bar.fill * (1 - 0.9 * near),
    )
    # The sclerotic rim that closes the joint, and cysts in the bone behind it.
    middle = end - inward * 0.05 * width / bar.length
    (x, y), (x2, y2) = (_point(bar, middle, side * 0.9 * width) for side in (-1, 1))
    across = 1 / (1.8 * width)
    widths = (0.3 * width, 0.5 * width, 0.3 * width)
    rim = _lump(x, y, (x2 - x) * across, (y2 - y) * across, 1.8 * width, widths, 1.5)
    bars.append(replace(rim, outer=rim.outer * (1 + 0.5 * ripple[1])))
    for cyst in range(3):
        radius = width * (0.26 + 0.06 * cyst) * finding.size
        x, y = _point(
            bar, end + inward * depth * (0.3 + 0.2 * cyst), width * (-0.55, 0.1, 0.6)[cyst] * finding.sign
        )
        bars.append(
            _lump(
                x - bar.dx * radius,
                y - bar.dy * radius,
                bar.dx,
                bar.dy,
                2 * radius,
                (radius, radius, radius),
                -1.0,
            )
        )
    return _around(bar, end - inward * 0.35 * width / bar.length, end + inward * depth, 1.35 * width)


_INJURIES = {"fracture": _fracture, "displaced": _displaced, "hardware": _hardware, "erosion": _erosion}


# ---------------------------------------------------------------------------------------------------------
# The film
# ---------------------------------------------------------------------------------------------------------


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
    camera = _Camera(bones, patient, view, limit)
    bars = _project(bones, camera, patient)
    metal = np.zeros((camera.height, camera.width), np.float32)
    box = None if finding is None else _injure(bars, bones, finding, metal)
    bone = np.zeros_like(metal)
    for bar in bars:
        _add_bar(bone, bar, unit * camera.scale)
    soft = _soft_tissue(tissue, camera, patient)
    levels = _expose(bone, soft, metal, patient, view)
    pixels = np.asarray(
        Image.fromarray(levels).resize(_film_size(camera, image_size), Image.Resampling.BILINEAR)
    )
    factor = image_size / _LONG
    pixels = _add_noise(pixels, view.noise, noise)
    field = _collimate(pixels, [side * factor for side in camera.field], patient.frame)
    _add_marker(pixels, field, patient, image_size)
    if box is not None:
        box = _clip([side * factor for side in box], field)
    return pixels, box


def _film_size(camera, image_size):
    sides = [max(1, round(side * image_size / _LONG)) for side in (camera.width, camera.height)]
    return tuple(sides)


def _expose(bone, soft, metal, patient, view):
    """Turn thickness into grey levels: exposure, heel effect and the film's characteristic curve."""
    height, width = bone.shape
    row, column = patient.texture
    texture = _texture()[row % (_TILE - _LONG) :, column % (_TILE - _LONG) :][:height, :width]
    bone = np.maximum(bone, -0.3) * (1 + np.float32(patient.grain) * texture)
    absorbed = soft * np.float32(0.25 * patient.tissue)
    absorbed *= 1 + np.float32(0.12) * texture
    absorbed += bone * np.float32(0.58 * patient.density)
    heel = 1 + np.float32(patient.heel) * (
        np.arange(height, dtype=np.float32) * np.float32(1 / height) - np.float32(0.5)
    )
    absorbed *= heel[:, None] * np.float32(1.35 * patient.gain * view.gain)
    absorbed = np.minimum(absorbed, 0.93 * _METAL) + 2 * metal
    index = np.minimum(np.maximum(absorbed, 0) * (_LEVELS / 2), _LEVELS - 1).astype(np.intp)
    return _film_curve(patient).take(index)


def _film_curve(patient):
    absorbed = np.arange(_LEVELS) * (2 / _LEVELS)
    density = np.minimum(absorbed / (absorbed + patient.contrast), 1)
    # Bone stays clearly below the white of metal.
    density = np.where(absorbed < _METAL, 0.84 * (1 + 0.55 * patient.contrast) * density, 1)
    return (patient.fog + (252 - patient.fog) * np.minimum(density, 1)).astype(np.uint8)


def _add_noise(pixels, place, noise):
    """Add quantum noise: strongest where little light passes, next to none on the black of the film."""
    height, width = pixels.shape
    tile = _noise_tile(noise)
    if max(height, width) > _TILE // 2:
        repeats = max(height, width) // (_TILE // 2) + 2
        tile = np.tile(tile[: _TILE // 2, : _TILE // 2], (repeats, repeats))
    row, column = (at % (_TILE // 2) for at in place)
    grain = (pixels >> 2).astype(np.int16)
    grain += 6
    grain *= tile[row : row + height, column : column + width]
    grain >>= 7
    grain += pixels
    np.minimum(np.maximum(grain, 0, out=grain), 255, out=grain)
    return grain.astype(np.uint8)


def _collimate(pixels, field, frame):
    """Blacken (or whiten) what lies outside the collimated field; return the field in whole pixels."""
    height, width = pixels.shape
    left, top, right, bottom = (round(side) for side in field)
    right, bottom = min(right, width), min(bottom, height)
    shade = 255 if frame == "white" else 3
    pixels[:top] = pixels[bottom:] = shade
    pixels[:, :left] = pixels[:, right:] = shade
    return left, top, right, bottom


def _clip(box, field):
    left, top, right, bottom = field
    x0, y0 = max(math.floor(box[0]), left), max(math.floor(box[1]), top)
    x1, y1 = min(math.ceil(box[2]), right), min(math.ceil(box[3]), bottom)
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


_LETTERS = {
    "L": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
    "R": ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
}


@lru_cache(maxsize=256)
def _marker(letter, style, size):
    """A lead letter: bare, in a frame, or cut out of a plate; with beads or without."""
    cells = np.zeros((13, 11), np.uint8)
    cells[2:9, 3:8] = [[int(cell) for cell in row] for row in _LETTERS[letter]]
    if style % 3 == 1:
        cells[0, :] = cells[10, :] = 1
        cells[:11, 0] = cells[:11, 10] = 1
    elif style % 3 == 2:
        cells[:11] = 1 - cells[:11]
    if style >= 3:
        cells[12, 1:10:2] = 1
    height = max(size, 5)
    image = Image.fromarray(cells * np.uint8(240))
    return np.asarray(image.resize((max(height * 11 // 13, 4), height), Image.Resampling.BICUBIC))


def _add_marker(pixels, field, patient, image_size):
    marker = _marker(patient.side, patient.marker_style, int(patient.marker_size * image_size))
    left, top, right, bottom = field
    height, width = marker.shape
    inset = image_size // 50
    x = left + inset if patient.marker_corner % 2 == 0 else right - inset - width
    y = top + inset if patient.marker_corner < 2 else bottom - inset - height
    if x >= 0 and y >= 0 and x + width <= pixels.shape[1] and y + height <= pixels.shape[0]:
        spot = pixels[y : y + height, x : x + width]
        np.maximum(spot, marker, out=spot)


# ---------------------------------------------------------------------------------------------------------
# Tiles, made once
# ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _texture():
    """Trabecular texture: smooth noise of several finenesses in -1..1, from which patients get a cutting."""
    rng = np.random.Generator(np.random.PCG64(20171211))
    total = np.zeros((_TILE, _TILE), np.float32)
    for cells, weight in ((64, 0.3), (128, 0.35), (256, 0.35), (512, 0.3)):
        coarse = Image.fromarray(rng.integers(0, 256, size=(cells, cells), dtype=np.uint8))
        fine = coarse.resize((_TILE, _TILE), Image.Resampling.BICUBIC)
        total += (np.asarray(fine).astype(np.float32) - np.float32(127.5)) * np.float32(weight / 100)
    return np.minimum(np.maximum(total, -1), 1)


@lru_cache(maxsize=1)
def _ripple_tile():
    rng = np.random.Generator(np.random.PCG64(18951108))
    coarse = Image.fromarray(rng.integers(0, 256, size=(_TILE, 28), dtype=np.uint8))
    fine = np.asarray(coarse.resize((4 * _STEPS, _TILE), Image.Resampling.BICUBIC))
    return (fine.astype(np.float32) - np.float32(127.5)) * np.float32(1 / 127.5)


def _ripples(rows):
    """Two smooth irregular curves in -1..1 along each bone, the same for the same of `rows`."""
    tile = _ripple_tile()[np.array(rows) % _TILE]
    return tile[..., :_STEPS], tile[..., 2 * _STEPS : 3 * _STEPS]


@lru_cache(maxsize=4)
def _noise_tile(strength):
    """Noise that looks normal, its standard deviation 9 times `strength`; the tile repeats seamlessly."""
    rng = np.random.Generator(np.random.PCG64(1895))
    half = _TILE // 2
    noise = sum(rng.integers(-8, 9, size=(half, half), dtype=np.int16) for _ in range(4))
    # Neighbouring pixels of a scanned film share some of their noise.
    noise = 2 * noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)
    noise = np.minimum(np.maximum(noise * (strength * 0.375), -400), 400).astype(np.int16)
    return np.tile(noise, (2, 2))
