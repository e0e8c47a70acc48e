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
from freshstart.reporting.figures import BOTTOM, HEIGHT, LABELS, LEFT, TOP, WIDTH, axes, end_label, name_ends
from freshstart.reporting.formats import Format, bounds
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


def lines(task: Task) -> list[Line]:
    """Of every objective and arm; none where no training left more than its final model.

    An arm's positions are counted from the first of mle's.
    """
    points = {name: _points(cells) for name, cells in task.every.items()}
    if max(map(len, points.values())) < 2:
        return []
    return [
        Line(name, points[name], name in task.arms, cells[0].began, _start(cells[0].began, points["mle"]))
        for name, cells in task.every.items()
        if points[name]
    ]


def finetuned(shown: Sequence[Line]) -> list[Line]:
    """The arms, mle and the objectives that have arms, from shortly before the first arm began; none without arms."""
    arms = [line for line in shown if line.arm]
    names = {"mle", *(objective_of(line.name) for line in arms)} if arms else set()
    begin = min((line.began for line in arms), default=0.0) / EARLIER
    return [
        replace(line, points=late)
        for line in shown
        if objective_of(line.name) in names
        if (late := tuple(point for point in line.points if point[0] >= begin))
    ]


def figure(
    shown: Sequence[Line],
    palette: dict[str, str],
    show: Format,
    title: str,
    y_title: str,
    x_title: str = "positions trained on",
) -> str:
    """The SVG of the lines, with whiskers; neighbours stand a little aside, so that whiskers can be told apart."""
    drawing = Drawing(WIDTH, HEIGHT, title)
    positions = [at for line in shown for at, _ in line.points]
    floor, zeros = HEIGHT - BOTTOM, _has_zeros(shown)
    x = Scale(0.92 * min(positions), max(positions), LEFT, WIDTH - LABELS - 6, True)
    y = Scale(*_range(shown), floor - FLOOR if zeros else floor, TOP, True)
    axes(drawing, x, y, f"{x_title}, log scale", y_title, floor)
    if zeros:
        drawing.text(x.begin - 6, floor + 4, "0", "tick", "end")
    aside = {line.name: ASIDE * ((rank + 1) // 2) * (1 if rank % 2 else -1) for rank, line in enumerate(shown)}

    def height(value: float) -> float:
        return min(y(value), y.begin) if value > 0 else floor

    def place(name: str, point: Point) -> tuple[float, float]:
        return x(point[0]) + aside[name], height(point[1].value)

    for line in shown:
        path = [place("mle", line.start)] if line.start else []
        path += [place(line.name, point) for point in line.points]
        if len(path) > 1:
            drawing.path(path, "curve dashed" if line.arm else "curve", palette[line.name], line.name)
    for line in shown:
        for at, estimate in line.points:
            (left, top), colour = place(line.name, (at, estimate)), palette[line.name]
            note = f"{line.name}, {at:,.0f} {x_title.partition(' ')[0]}: {bounds(estimate, show)}"
            drawing.line(left, height(estimate.low), left, height(estimate.high), "whisker faint", colour)
            if estimate.value <= 0:
                drawing.bar(left - 3, top - 3, 6, 6, "ring", colour, note)
            elif line.arm:
                drawing.ring(left, top, 2.8, colour, note)
            else:
                drawing.dot(left, top, 3.2, "dot", colour, note)
    ends = [
        (end_label(line.name), place(line.name, line.points[-1])[1], palette[line.name], line.arm) for line in shown
    ]
    name_ends(drawing, x.end + 6, ends)
    return str(drawing)


def notes(shown: Sequence[Line]) -> list[str]:
    """What has to be said of what a logarithmic axis can't show."""
    zeros, lowest = _has_zeros(shown), _range(shown)[0]
    sentences = ["Open squares on the line of 0: no sample scored above 0."] if zeros else []
    lows = [estimate.low for line in shown for _, estimate in line.points]
    if any(low < lowest and not (zeros and low <= 0) for low in lows):
        sentences.append("Whiskers cut off at the lower end of the scale continue below it.")
    return sentences


def _has_zeros(shown: Sequence[Line]) -> bool:
    """Whether a mean is 0, so that it stands on the line below the axis."""
    return any(estimate.value <= 0 for line in shown for _, estimate in line.points)


def _points(cells: Sequence[Cell]) -> tuple[Point, ...]:
    """By positions; those that every seed has, averaged over them."""
    seeds = [{entry["positions"]: entry for entry in cell.metrics.get(KEY, [])} for cell in cells]
    shared = sorted(set(seeds[0]).intersection(*seeds[1:]))
    points = [(cells[0].began + at, over_seeds([entries[at] for entries in seeds])) for at in shared]
    return tuple((at, estimate) for at, estimate in points if at > 0 and estimate is not None)


def _start(began: float, mle: Sequence[Point]) -> Point | None:
    near = [point for point in mle if began / NEAR <= point[0] <= began * NEAR]
    return min(near, key=lambda point: abs(point[0] - began), default=None)


def _range(shown: Sequence[Line]) -> tuple[float, float]:
    """Around all means and the better part of their bounds, with at least two of 1, 2 and 5 times a power of ten."""
    estimates = [estimate for line in shown for _, estimate in line.points]
    least = min((estimate.value for estimate in estimates if estimate.value > 0), default=0.1)
    low = min((estimate.low for estimate in estimates if estimate.low > 0), default=least)
    low, high = max(min(low, least), least / BELOW), max(least, *(estimate.high for estimate in estimates))
    powers = range(math.floor(math.log10(low)) - 1, math.floor(math.log10(high)) + 2)
    steps = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    if sum(low <= step <= high for step in steps) < 2:
        return max(step for step in steps if step <= low), min(step for step in steps if step > high)
    return AIR * low, high / AIR
