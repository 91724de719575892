"""What chance decides: a patient's habits, a study's finding and how a view is taken."""

from dataclasses import dataclass

from ._textures import TILE

FINDINGS = ("fracture", "displaced", "hardware", "erosion")


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
class View:
    """How one radiograph was taken."""

    turned: float  # of the limb about its axis, 0 = AP, 1 = as far to the side as the region allows
    rotation: float  # degrees
    zoom: float
    shift: tuple[float, float]  # of the limb on the film, -1..1 of the free space
    gain: float
    noise: tuple[int, int]  # place in the noise tile


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
        texture=(int(picks[5] % TILE), int(picks[6] % TILE)) if varied else (0, 0),
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
        row=int(picks[2]) % TILE,
        nail=int(picks[3]) % 3 == 0,
        callus=0.0 if int(picks[3]) % 8 == 0 else 0.5 + 0.2 * rng.random(),
    )


def draw_view(rng, number):
    """Draw how image `number` (from 0) of a study is taken: AP, lateral, oblique, and so on."""
    low, high = ((0.0, 0.15), (0.8, 1.0), (0.4, 0.6))[number % 3]
    crop = rng.integers(0, TILE, size=2)
    return View(
        turned=low + (high - low) * rng.random(),
        rotation=6 * rng.random() - 3,
        zoom=0.92 + 0.08 * rng.random(),
        shift=(2 * rng.random() - 1, 2 * rng.random() - 1),
        gain=0.95 + 0.1 * rng.random(),
        noise=(int(crop[0]), int(crop[1])),
    )
