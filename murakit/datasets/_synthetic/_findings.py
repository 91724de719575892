"""Draw a finding into projected bones and the layer of metal."""

from dataclasses import replace

import numpy as np

from ._projection import ALONG, add_metal, lump
from ._textures import STEPS, ripples, texture_tile

# Only arithmetic that is exact on every platform; `_phantom` says why.


def injure(bars, bones, finding, metal):
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
    index = min(max(int(at * STEPS), 0), STEPS - 1)
    aside += float(bar.bend[index])
    along = at * bar.length
    return bar.x + bar.dx * along - bar.dy * aside, bar.y + bar.dy * along + bar.dx * aside


def _around(bar, low, high, aside):
    return [_point(bar, at, side) for at in (low, high) for side in (-aside, aside)]


def _half_width(bar, at):
    return max(float(bar.outer[min(max(int(at * STEPS), 0), STEPS - 1)]), 6.5)


def _fracture(bars, number, at, finding, metal, gap=0.40, step=0.5):
    bar = bars[number]
    width = _half_width(bar, at)
    jag = (ripples(finding.row)[0] + 0.25 * texture_tile()[finding.row, :STEPS]) * np.float32(0.45 * width)
    gap = max(gap * width, 2.0) * finding.size
    step *= width * finding.size * finding.sign
    bars[number] = replace(bar, line=(at, finding.slope, gap, step, jag))
    callus = 0.0 if finding.kind == "hardware" else finding.callus
    if callus:
        # The body's own plaster: a spindle of new bone about the break, which the line still crosses.
        length, thick = 5.0 * width, 1.2 * width
        x, y = _point(bar, at - length / 2 / bar.length, step / 2)
        spindle = lump(x, y, bar.dx, bar.dy, length, (0.4 * thick, thick, 0.4 * thick), callus)
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
    bars.append(lump(x, y, bar.dx, bar.dy, 1.5 * width, widths, 0.9))
    return box


def _hardware(bars, number, at, finding, metal):
    bar = bars[number]
    width = _half_width(bar, at)
    _fracture(bars, number, at, finding, metal, gap=0.25, step=0.0)
    half = min(max(2.6 * width * finding.size / bar.length, 0.10), 0.30)
    low, high = max(at - half, 0.03), min(at + half, 0.97)
    thick = min(max(0.30 * width, 2.0), 4.5)
    aside = 0.0 if finding.nail else 0.80 * width * finding.sign
    add_metal(metal, *_point(bar, low, aside), *_point(bar, high, aside), thick)
    count = 2 if finding.nail else 4
    for screw in range(count):
        place = low + (high - low) * (screw + 0.5) / count
        ends = (_point(bar, place, -1.05 * width), _point(bar, place, 1.05 * width))
        add_metal(metal, *ends[0], *ends[1], max(0.12 * width, 1.0))
        if not finding.nail:
            head = _point(bar, place, aside + 0.15 * width * finding.sign)
            add_metal(metal, *head, *head, 1.25 * thick)
    return _around(bar, low, high, 1.15 * width + thick)


def _erosion(bars, number, at, finding, metal):
    bar = bars[number]
    end, inward = (0.0, 1.0) if at <= 0.5 else (1.0, -1.0)
    width = _half_width(bar, end + inward * 0.06)
    depth = min(1.7 * width / bar.length, 0.35)
    near = np.maximum(1 - np.abs(ALONG - end) / np.float32(depth), 0)
    ripple = ripples(finding.row)
    rough = (ripple[0] + 0.7 * texture_tile()[finding.row, :STEPS]) * near
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
    rim = lump(x, y, (x2 - x) * across, (y2 - y) * across, 1.8 * width, widths, 1.5)
    bars.append(replace(rim, outer=rim.outer * (1 + 0.5 * ripple[1])))
    for cyst in range(3):
        radius = width * (0.26 + 0.06 * cyst) * finding.size
        x, y = _point(
            bar, end + inward * depth * (0.3 + 0.2 * cyst), width * (-0.55, 0.1, 0.6)[cyst] * finding.sign
        )
        bars.append(
            lump(
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
