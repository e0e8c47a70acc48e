"""The figures of a task: trade-offs, misalignment, training curves, segment scores. Each returns one SVG.

One colour an objective, everywhere: mle is neutral, neighbours stay apart under the three kinds of colour blindness
(at least 22 in CIE Lab, Machado et al. 2009), and marks are labelled where they stand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from freshstart.evaluation.statistics import share as share_of_texts
from freshstart.reporting.cells import MISALIGNMENT, Cell, Estimate, Task
from freshstart.reporting.placing import Box, place_beside, spread
from freshstart.reporting.svg import LINE, Drawing, Scale, extent, tick_label, width_of

KNOWN = {
    "mle": "#3d434b",
    "filtered": "#e0a100",
    "conditional": "#1263b8",
    "unlikelihood": "#c77fc4",
    "rwr": "#00a07a",
    "awr": "#b8321a",
}
FURTHER = ("#5b3fb5", "#7a5c2e", "#56b4e9", "#7d1f3a", "#6f8f00", "#d4658a")

INK = KNOWN["mle"]

WIDTH, HEIGHT = 400.0, 300.0
LEFT, TOP, BOTTOM = 50.0, 26.0, 42.0
DOT = 5.0
ROW = 31.0
CURVE_POINTS = 160
STYLE = "misalignment_style"
LABELS = 98.0  # width left for the names of rows and lines

Format = Callable[[float], str]


def colours(objectives: Sequence[str]) -> dict[str, str]:
    """A colour for each objective; those that this file does not know take further ones in order."""
    strangers = [name for name in objectives if name not in KNOWN]
    further = {name: FURTHER[index % len(FURTHER)] for index, name in enumerate(strangers)}
    return {name: KNOWN.get(name) or further[name] for name in objectives}


@dataclass(frozen=True)
class Point:
    """An objective in a plane, with its bounds in both directions."""

    objective: str
    x: Estimate
    y: Estimate


def trade_off(
    points: Sequence[Point],
    palette: dict[str, str],
    show: Format,
    *,
    title: str,
    x_title: str,
    y_title: str,
    zero: bool = False,
) -> str:
    """A scatter of objectives, labelled beside their points; x from 0 on where ``zero``, y always."""
    drawing = Drawing(WIDTH, HEIGHT, title)
    x = Scale(*extent((v for p in points for v in (p.x.low, p.x.high)), 0.09, zero), LEFT, WIDTH - 14)
    y = Scale(*extent((v for p in points for v in (p.y.low, p.y.high)), 0.06, True), HEIGHT - BOTTOM, TOP)
    y = Scale(min(y.low, -0.05 * y.high), y.high, y.begin, y.end)  # room for a label beside a point at 0
    if zero:
        x = Scale(min(x.low, -0.03 * x.high), x.high, x.begin, x.end)
    axes(drawing, x, y, x_title, y_title)
    taken = []
    for point in points:
        colour, (at_x, at_y) = palette[point.objective], (x(point.x.value), y(point.y.value))
        drawing.line(at_x, y(point.y.low), at_x, y(point.y.high), "whisker", colour)
        drawing.line(x(point.x.low), at_y, x(point.x.high), at_y, "whisker", colour)
        taken += [
            Box(at_x - DOT - 1, at_y - DOT - 1, at_x + DOT + 1, at_y + DOT + 1),
            Box(at_x - 3, y(point.y.high), at_x + 3, y(point.y.low)),
            Box(x(point.x.low), at_y - 3, x(point.x.high), at_y + 3),
        ]
        for run_x, run_y in zip(point.x.runs, point.y.runs, strict=False):
            drawing.dot(x(run_x), y(run_y), 2.4, "run", colour)
            taken.append(Box(x(run_x) - 2, y(run_y) - 2, x(run_x) + 2, y(run_y) + 2))
    spots = [(x(point.x.value), y(point.y.value), point.objective) for point in points]
    boxes = place_beside(spots, taken, Box(LEFT + 2, TOP - 8, WIDTH, HEIGHT - BOTTOM + 2))
    for point, (at_x, at_y, _), box in zip(points, spots, boxes, strict=True):
        near_x, near_y = min(max(at_x, box.left), box.right), min(max(at_y, box.top + 2), box.bottom - 2)
        if math.hypot(near_x - at_x, near_y - at_y) > 2 * DOT + 2:
            drawing.line(at_x, at_y, near_x, near_y, "leader")
        note = f"{point.objective}: {show(point.y.value)} at {point.x.value:.3f}"
        drawing.dot(at_x, at_y, DOT, "dot", palette[point.objective], note)
    for (at_x, _, name), box in zip(spots, boxes, strict=True):
        anchor = "start" if box.left > at_x else "end" if box.right < at_x else "middle"
        side = {"start": box.left, "end": box.right, "middle": (box.left + box.right) / 2}[anchor]
        drawing.text(side, box.bottom - 3, name, "name", anchor)
    return str(drawing)


def bars(task: Task, palette: dict[str, str], show: Format, *, title: str, unit: str, style: bool = False) -> str:
    """Misalignment of each objective, under controls that are not its own as lighter bars, and held-out text."""
    shown = task.own if style else task.series
    rows = [(series, task.under(series, STYLE if style else MISALIGNMENT)) for series in shown]
    real = {} if style else {"real held-out text": "all", "its good half": "good_half"}
    known = {name: task.heldout(MISALIGNMENT, part) for name, part in real.items()}
    rules = sorted(((name, one.value) for name, one in known.items() if one is not None), key=lambda rule: rule[1])
    top = 8.0 + LINE * len(rules)
    bottom = top + ROW * len(rows) + 4
    drawing = Drawing(WIDTH, bottom + 40, title)
    most = max([one.high for _, one in rows if one is not None] + [value for _, value in rules], default=0.0) or 1.0
    x = Scale(0.0, most, LABELS, WIDTH - 14 - width_of(show(most)))
    for tick in (ticks := x.ticks(4)):
        drawing.line(x(tick), top, x(tick), bottom, "grid")
        drawing.text(x(tick), bottom + 15, tick_label(tick, ticks), "tick", "middle")
    for index, (name, value) in enumerate(rules):
        height = 8.0 + LINE * index
        drawing.line(x(value), height - 3, x(value), bottom, "rule")
        label = f"{name} {show(value)}"
        left = x(value) + 5 + width_of(label) > WIDTH
        drawing.text(x(value) + (-5 if left else 5), height + 6, label, "aside", "end" if left else "start")
    for index, (series, one) in enumerate(rows):
        middle, colour = top + ROW * (index + 0.5) + 2, palette[series.name]
        drawing.text(LABELS - 8, middle + 4, series.label, "name" if series.own else "aside", "end")
        if one is None:
            drawing.text(LABELS + 4, middle + 4, "no samples", "aside")
            continue
        kind = "bar" if series.own else "bar light"
        note = f"{series.label}: {show(one.value)} [{show(one.low)}, {show(one.high)}]"
        drawing.bar(LABELS, middle - 8, x(one.value) - LABELS, 16, kind, colour, note)
        drawing.line(x(one.low), middle, x(one.high), middle, "whisker over")
        for end in (one.low, one.high) if one.high > one.low else ():
            drawing.line(x(end), middle - 3, x(end), middle + 3, "whisker over")
        for run in one.runs:
            drawing.dot(x(run), middle, 2.4, "run over", colour)
        drawing.text(max(x(one.high), x(one.value)) + 5, middle + 4, show(one.value), "value")
    drawing.line(LABELS, top, LABELS, bottom, "axis")
    drawing.text(WIDTH - 14, bottom + 33, unit, "title", "end")
    return str(drawing)


def curves(task: Task, palette: dict[str, str], *, title: str) -> str:
    """Negative log-likelihood against positions, a thin line a run, labelled at the end; log x.

    A finetuned arm's line is dashed and begins where mle's training was left.
    """
    runs = [(name, points) for name, cells in task.every.items() for cell in cells if (points := _run(cell))]
    drawing = Drawing(WIDTH, HEIGHT, title)
    everything = [point for _, points in runs for point in points] or [(1.0, 0.0), (10.0, 1.0)]
    x = Scale(min(p[0] for p in everything), max(p[0] for p in everything), LEFT - 14, WIDTH - LABELS, True)
    y = Scale(*extent((p[1] for p in everything), 0.04), HEIGHT - BOTTOM, TOP)
    axes(drawing, x, y, "positions trained on, log scale", "nats per token")
    ends: dict[str, list[float]] = {}
    kind = "curve" if len(runs) == len(task.every) else "curve faint"
    for name, points in runs:
        arm = name in task.arms
        drawing.path([(x(a), y(b)) for a, b in points], f"{kind} dashed" if arm else kind, palette[name], name)
        if not arm:
            ends.setdefault(name, []).append(y(points[-1][1]))
    name_ends(drawing, x.end, [(name, sum(found) / len(found), palette[name], False) for name, found in ends.items()])
    return str(drawing)


def name_ends(drawing: Drawing, right: float, ends: Sequence[tuple[str, float, str, bool]]) -> None:
    """Names of lines to the right of where they end; ``ends`` holds name, height, colour and whether to draw a ring."""
    heights = spread([at for _, at, _, _ in ends], TOP, HEIGHT - BOTTOM)
    for (name, at, colour, ring), height in zip(ends, heights, strict=True):
        drawing.path([(right + 2, at), (right + 9, height), (right + 12, height)], "curve thin", colour)
        if ring:
            drawing.ring(right + 19, height, 3.2, colour)
        drawing.text(right + (26 if ring else 15), height + 4, name, "name")


def histogram(edges: Sequence[float], counts: Sequence[int], *, title: str, x_title: str) -> str:
    """Counts of segment scores on a log axis; an empty bin shows nothing."""
    drawing = Drawing(WIDTH, HEIGHT, title)
    top = max(counts, default=1)
    x = Scale(0.0, edges[-1] if edges else 1.0, LEFT, WIDTH - 14)
    y = Scale(0.7, max(top, 10) * 1.6, HEIGHT - BOTTOM, TOP, True)
    axes(drawing, x, y, x_title, "segments, log scale")
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        if count:
            note = f"{low:.4g} to {high:.4g}: {count:,} segments"
            left, height = x(low) + 0.7, y(count)
            drawing.bar(left, height, x(high) - left - 0.7, y.begin - height, "bin", "", note)
    return str(drawing)


def reliability(bins: Sequence[tuple[float, float, int]], *, title: str) -> str:
    """Observed share of bad texts against the probability that a classifier gave them, a point a bin.

    ``bins`` are (mean predicted, share observed, count). A point's area grows with its count; whiskers are Wilson's
    95% intervals of the share. A well calibrated classifier stays on the dashed diagonal.
    """
    drawing = Drawing(WIDTH, HEIGHT, title)
    x, y = Scale(0.0, 1.0, LEFT, WIDTH - 14), Scale(0.0, 1.0, HEIGHT - BOTTOM, TOP)
    axes(drawing, x, y, "probability given", "share that is bad")
    drawing.line(x(0), y(0), x(1), y(1), "rule")
    filled = sorted(one for one in bins if one[2] > 0)
    drawing.path([(x(given), y(share)) for given, share, _ in filled], "curve faint", INK)
    most = max((count for _, _, count in filled), default=1)
    for given, share, count in filled:
        bounds = share_of_texts(round(share * count), count)
        drawing.line(x(given), y(bounds["ci_low"]), x(given), y(bounds["ci_high"]), "whisker", INK)
        note = f"given {given:.2f}, bad {share:.1%} of {count:,}"
        drawing.dot(x(given), y(share), max(7.5 * math.sqrt(count / most), 2.6), "dot", INK, note)
    total = sum(count for _, _, count in filled)
    drawing.text(x.begin + 8, y.end + 12, f"{total:,} held-out texts", "aside")
    return str(drawing)


def axes(drawing: Drawing, x: Scale, y: Scale, x_title: str, y_title: str, bottom: float | None = None) -> None:
    """Grid, ticks and titles; the axis of x stands at ``bottom``, or else where y begins."""
    bottom = y.begin if bottom is None else bottom
    for tick in (ticks := y.ticks(5)):
        drawing.line(x.begin, y(tick), x.end, y(tick), "grid")
        drawing.text(x.begin - 6, y(tick) + 4, _label(tick, ticks, y), "tick", "end")
    drawing.line(x.begin, bottom, x.end, bottom, "axis")
    for tick in (ticks := x.ticks(7)):
        drawing.line(x(tick), bottom, x(tick), bottom + 4, "axis")
        drawing.text(x(tick), bottom + 17, _label(tick, ticks, x), "tick", "middle")
    drawing.text(x.end, bottom + 35, x_title, "title", "end")
    drawing.text(2, 12, y_title, "title")


def _run(cell: Cell) -> list[tuple[float, float]]:
    """(positions, nats per token) of a cell's training, an arm's counted from the first position of mle's."""
    return _thinned([(cell.began + float(row["positions"]), float(row["nll"])) for row in cell.curve if row.get("nll")])


def _label(tick: float, ticks: Sequence[float], scale: Scale) -> str:
    return tick_label(tick, [tick] if scale.logarithmic else ticks)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most about ``CURVE_POINTS`` of the points, evenly chosen, the last among them."""
    stride = max(math.ceil(len(points) / CURVE_POINTS), 1)
    return list(points[::-1][::stride])[::-1]
