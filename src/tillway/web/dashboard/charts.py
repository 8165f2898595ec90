"""Charts as the paths of SVG, on a field of 100 by 100: the scale stands beside it as HTML."""

from collections.abc import Sequence

import msgspec

STEPS = 3


class Scale(msgspec.Struct, frozen=True):
    """A scale from 0 to `top` with STEPS lines."""

    top: int

    def labels(self) -> list[int]:
        """The numbers at its lines, from above."""
        return [self.top * step // STEPS for step in range(STEPS, -1, -1)]

    def y(self, value: float) -> float:
        return round(100 - 100 * value / self.top, 2)


def scale_of(values: Sequence[int], unit: int = 1) -> Scale:
    """A scale of round numbers above all of `values`; `unit` is the least step that has no fraction."""
    most, step = max(values, default=0), unit
    while step * STEPS < most:
        digits = str(step // unit)
        step = step * 5 // 2 if digits[0] == "2" else step * 2
    return Scale(step * STEPS)


def line(values: Sequence[int], places: int, scale: Scale) -> str:
    """The path through `values`, of which `places` fill the width."""
    width = 100 / max(places - 1, 1)
    return "M" + "L".join(f"{round(place * width, 2)} {scale.y(value)}" for place, value in enumerate(values))


def through(points: Sequence[tuple[int, float]], places: int) -> str:
    """The path through points at some of `places`, by their distance from above; empty without points."""
    width = 100 / max(places - 1, 1)
    path = "L".join(f"{round(place * width, 2)} {round(y, 2)}" for place, y in points)
    if len(points) == 1:
        path += "h-1"  # A path of one point draws nothing.
    return f"M{path}" if path else ""


def area(values: Sequence[int], places: int, scale: Scale) -> str:
    """The path around the area below `values`."""
    last = round((len(values) - 1) * 100 / max(places - 1, 1), 2)
    return f"{line(values, places, scale)}L{last} 100L0 100Z"


class Column(msgspec.Struct, frozen=True):
    x: float
    y: float
    height: float
    hit: float


def columns(values: Sequence[int], scale: Scale) -> list[Column]:
    """The columns of `values` on a field that is ten times their number wide."""
    return [
        Column(x=place * 10 + 1.5, y=scale.y(value), height=round(100 * value / scale.top, 2), hit=place * 10)
        for place, value in enumerate(values)
    ]
