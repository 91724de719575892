"""Bones and soft tissue of the seven regions, in space: fingers up, the arm down."""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

# x points to the right, y down, z towards the tube.


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


def turn(degrees):
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
    c, s = turn(degrees)
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
    c, s = turn(80 * side_on)

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
