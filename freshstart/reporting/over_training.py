"""Misalignment over training: what the samples of a model's snapshots score, a line an objective.

Both axes are logarithmic. A mean of 0, which has no place on such an axis, is an open square on a line of its own below
it. A finetuned arm's line is dashed, with rings; it begins where mle's training was left, at mle's own snapshot where
there is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from freshstart.names import objective_of
from freshstart.reporting.cells import Cell, Estimate, Task, over_seeds
from freshstart.reporting.figures import BOTTOM, HEIGHT, LABELS, LEFT, TOP, WIDTH, Format, axes, name_ends
from freshstart.reporting.svg import Drawing, Scale

KEY = "over_training"
NEAR = 1.05  # an entry of mle within this factor of where an arm began stands for where it began
BELOW = 4.0  # the axis goes down to the least mean over this at most; longer whiskers leave the figure
AIR = 0.94
FLOOR = 20.0  # height of the strip that holds the line of 0
EARLIER = 4.0  # the figure of the arms begins this factor before the first of them
ASIDE = 2.0  # between the whiskers of neighbours at the same positions

Point = tuple[float, Estimate]  # positions trained on, misalignment


@dataclass(frozen=True)
class Line:
    """An objective or arm over training; an arm ``began`` at a position of mle, which stood at ``start``, if known."""

    name: str
    points: tuple[Point, ...]
    arm: bool
    began: float
    start: Point | None

    @property
    def objective(self) -> str:
        return objective_of(self.name)

    @property
    def label(self) -> str:
        return self.name.removeprefix(f"{self.objective}-").replace("-", " ") if self.arm else self.name


def lines(task: Task) -> list[Line]:
    """Of every objective and arm; none where no training left more than its final model.

    An arm's positions are counted from the first of mle's.
    """
    found = {name: _points(cells) for name, cells in task.every.items()}
    if max(map(len, found.values())) < 2:
        return []
    return [
        Line(name, points, name in task.arms, began := task.every[name][0].began, _start(began, found["mle"]))
        for name, points in found.items()
        if points
    ]


def finetuned(found: Sequence[Line]) -> list[Line]:
    """The arms, mle and the objectives that have arms, from shortly before the first arm began; none without arms."""
    arms = [line for line in found if line.arm]
    names = {"mle", *(line.objective for line in arms)}
    begin = min((line.began for line in arms), default=0.0) / EARLIER
    return [
        replace(line, points=late)
        for line in found
        if arms and (line.arm or line.name in names)
        if (late := tuple(point for point in line.points if point[0] >= begin))
    ]


def figure(found: Sequence[Line], palette: dict[str, str], show: Format, *, title: str, y_title: str) -> str:
    """The SVG of the lines, with whiskers; neighbours stand a little aside, so that whiskers can be told apart."""
    drawing = Drawing(WIDTH, HEIGHT, title)
    at = [positions for line in found for positions, _ in line.points]
    floor = HEIGHT - BOTTOM
    x = Scale(0.92 * min(at), max(at), LEFT, WIDTH - LABELS - 6, True)
    low, high = _range(found)
    zeros = _has_zeros(found)
    y = Scale(low, high, floor - FLOOR if zeros else floor, TOP, True)
    axes(drawing, x, y, "positions trained on, log scale", y_title, floor)
    if zeros:
        drawing.text(x.begin - 6, floor + 4, "0", "tick", "end")

    def height(value: float) -> float:
        return min(y(value), y.begin) if value > 0 else floor

    aside = {line.name: ASIDE * ((rank + 1) // 2) * (1 if rank % 2 else -1) for rank, line in enumerate(found)}

    def place(name: str, point: Point) -> tuple[float, float]:
        return x(point[0]) + aside[name], height(point[1].value)

    for line in found:
        start = [place("mle", line.start)] if line.start else []
        path = start + [place(line.name, point) for point in line.points]
        if len(path) > 1:
            drawing.path(path, "curve dashed" if line.arm else "curve", palette[line.name], line.name)
    for line in found:
        for point in line.points:
            (left, top), one, colour = place(line.name, point), point[1], palette[line.name]
            note = f"{line.name}, {point[0]:,.0f} positions: {show(one.value)} [{show(one.low)}, {show(one.high)}]"
            drawing.line(left, height(one.low), left, height(one.high), "whisker", colour)
            if one.value <= 0:
                drawing.bar(left - 3, top - 3, 6, 6, "ring", colour, note)
            elif line.arm:
                drawing.ring(left, top, 2.8, colour, note)
            else:
                drawing.dot(left, top, 3.2, "dot", colour, note)
    ends = [(line.label, place(line.name, line.points[-1])[1], palette[line.name], line.arm) for line in found]
    name_ends(drawing, x.end + 6, ends)
    return str(drawing)


def notes(found: Sequence[Line]) -> list[str]:
    """What has to be said of what a logarithmic axis can't show."""
    zeros, lowest = _has_zeros(found), _range(found)[0]
    said = ["Open squares on the line of 0: no sample scored above 0."] if zeros else []
    lows = [one.low for line in found for _, one in line.points]
    if any(low < lowest and not (zeros and low <= 0) for low in lows):
        said.append("Whiskers cut off at the lower end of the scale go on below it.")
    return said


def _has_zeros(found: Sequence[Line]) -> bool:
    """Whether a mean is 0, so that it stands on the line below the axis."""
    return any(one.value <= 0 for line in found for _, one in line.points)


def _points(cells: Sequence[Cell]) -> tuple[Point, ...]:
    """By positions; those that every seed has, averaged over them."""
    seeds = [{entry["positions"]: entry for entry in cell.metrics.get(KEY, [])} for cell in cells]
    shared = sorted(set(seeds[0]).intersection(*seeds[1:]))
    points = [(cells[0].began + positions, over_seeds([one[positions] for one in seeds])) for positions in shared]
    return tuple((positions, one) for positions, one in points if positions > 0 and one is not None)


def _start(began: float, mle: Sequence[Point]) -> Point | None:
    near = [point for point in mle if began / NEAR <= point[0] <= began * NEAR]
    return min(near, key=lambda point: abs(point[0] - began), default=None)


def _range(found: Sequence[Line]) -> tuple[float, float]:
    """Around all means and the better part of their bounds, with at least two of 1, 2 and 5 times a power of ten."""
    every = [one for line in found for _, one in line.points]
    least = min((one.value for one in every if one.value > 0), default=0.1)
    low = min((one.low for one in every if one.low > 0), default=least)
    low, high = max(min(low, least), least / BELOW), max(least, *(one.high for one in every))
    steps = [factor * 10.0**power for power in range(_power(low) - 1, _power(high) + 2) for factor in (1, 2, 5)]
    if sum(low <= step <= high for step in steps) < 2:
        return max(step for step in steps if step <= low), min(step for step in steps if step > high)
    return AIR * low, high / AIR


def _power(value: float) -> int:
    return math.floor(math.log10(value))
