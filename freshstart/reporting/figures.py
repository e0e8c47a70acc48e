"""The figures of a task: trade-offs, misalignment, training curves, segment scores. Each returns one SVG.

One colour an objective, everywhere: mle is neutral, neighbours stay apart under the three kinds of colour blindness
(at least 22 in CIE Lab, Machado et al. 2009), and marks are labelled where they stand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle

from freshstart.evaluation.statistics import share as share_of_texts
from freshstart.names import is_arm, objective_of
from freshstart.reporting.cells import MISALIGNMENT, Cell, Estimate, Task
from freshstart.reporting.formats import Format, bounds
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
ELSEWHERE = "#767d87"  # models that were not trained here, which have a mark of their own: a square
WIDTH, HEIGHT = 400.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 14.0, 26.0, 42.0
DOT = 5.0
RUN = 2.4  # a single seed's mark
ROW = 31.0
CURVE_POINTS = 160
LABELS = 98.0  # width left for the names of rows and lines

Point = tuple[str, Estimate, Estimate]  # an objective in a plane: name, x, y


def colours(objectives: Sequence[str]) -> dict[str, str]:
    """A colour for each objective; those that this file does not know take further ones in order."""
    further = cycle(FURTHER)
    return {name: KNOWN.get(name) or next(further) for name in objectives}


def trade_off(
    points: Sequence[Point],
    palette: dict[str, str],
    show: Format,
    title: str,
    x_title: str,
    y_title: str,
    zero: bool,
    below: Sequence[tuple[str, Estimate]] = (),
) -> str:
    """A scatter of objectives, labelled beside their points; x from 0 on where ``zero``, y always.

    A finetuned arm is a ring; what has the colour ``ELSEWHERE`` is a square. ``below`` are further heights of an
    objective, which get a small ring each.
    """
    drawing = Drawing(WIDTH, HEIGHT, title)
    x = Scale(*extent((v for _, p, _ in points for v in (p.low, p.high)), 0.09, zero), LEFT, WIDTH - RIGHT)
    y = Scale(*extent((v for _, _, p in points for v in (p.low, p.high)), 0.06, True), HEIGHT - BOTTOM, TOP)
    y = Scale(min(y.low, -0.05 * y.high), y.high, y.begin, y.end)  # room for a label beside a point at 0
    if zero:
        x = Scale(min(x.low, -0.03 * x.high), x.high, x.begin, x.end)
    axes(drawing, x, y, x_title, y_title)
    taken = []
    for name, across, up in points:
        colour, at_x, at_y = palette[name], x(across.value), y(up.value)
        drawing.line(at_x, y(up.low), at_x, y(up.high), "whisker", colour)
        drawing.line(x(across.low), at_y, x(across.high), at_y, "whisker", colour)
        taken += [
            Box(at_x - DOT - 1, at_y - DOT - 1, at_x + DOT + 1, at_y + DOT + 1),
            Box(at_x - 3, y(up.high), at_x + 3, y(up.low)),
            Box(x(across.low), at_y - 3, x(across.high), at_y + 3),
        ]
        for run_x, run_y in zip(across.runs, up.runs, strict=False):
            drawing.dot(x(run_x), y(run_y), RUN, "run", colour)
            taken.append(Box(x(run_x) - 2, y(run_y) - 2, x(run_x) + 2, y(run_y) + 2))
    places = {name: x(across.value) for name, across, _ in points}
    for name, up in below:
        drawing.ring(places[name], y(up.value), RUN, palette[name], f"{name}: {show(up.value)}")
        taken.append(Box(places[name] - 3, y(up.value) - 3, places[name] + 3, y(up.value) + 3))
    spots = [(x(across.value), y(up.value), name) for name, across, up in points]
    boxes = place_beside(spots, taken, Box(LEFT + 2, TOP - 8, WIDTH, HEIGHT - BOTTOM + 2))
    for (name, across, up), (at_x, at_y, _), box in zip(points, spots, boxes, strict=True):
        near_x, near_y = min(max(at_x, box.left), box.right), min(max(at_y, box.top + 2), box.bottom - 2)
        if math.hypot(near_x - at_x, near_y - at_y) > 2 * DOT + 2:
            drawing.line(at_x, at_y, near_x, near_y, "leader")
        note = f"{name}: {show(up.value)} at {across.value:.3f}"
        if palette[name] == ELSEWHERE:
            drawing.bar(at_x - DOT + 1, at_y - DOT + 1, 2 * DOT - 2, 2 * DOT - 2, "ring", ELSEWHERE, note)
        elif is_arm(name):
            drawing.ring(at_x, at_y, DOT - 1, palette[name], note)
        else:
            drawing.dot(at_x, at_y, DOT, "dot", palette[name], note)
    for (at_x, _, name), box in zip(spots, boxes, strict=True):
        anchor = "start" if box.left > at_x else "end" if box.right < at_x else "middle"
        side = {"start": box.left, "end": box.right, "middle": (box.left + box.right) / 2}[anchor]
        drawing.text(side, box.bottom - 3, name, "name", anchor)
    return str(drawing)


def bars(task: Task, palette: dict[str, str], show: Format, title: str, unit: str, part: str = MISALIGNMENT) -> str:
    """Misalignment of each objective and arm, lighter under controls that are not its own, and of held-out text."""
    rows = [(series, task.under(series, part)) for series in task.series]
    real = {"real held-out text": task.heldout(part, "all"), "its good half": task.heldout(part, "good_half")}
    rules = sorted((estimate.value, name) for name, estimate in real.items() if estimate is not None)
    left = max([LABELS, *(width_of(series.label) + 8 for series, _ in rows)])
    top = 8.0 + LINE * len(rules)
    bottom = top + ROW * len(rows) + 4
    drawing = Drawing(WIDTH, bottom + 40, title)
    most = max([row.high for _, row in rows if row is not None] + [value for value, _ in rules], default=0.0) or 1.0
    x = Scale(0.0, most, left, WIDTH - RIGHT - width_of(show(most)))
    for tick in (ticks := x.ticks(4)):
        drawing.line(x(tick), top, x(tick), bottom, "grid")
        drawing.text(x(tick), bottom + 15, tick_label(tick, ticks), "tick", "middle")
    for index, (value, name) in enumerate(rules):
        height = 8.0 + LINE * index
        drawing.line(x(value), height - 3, x(value), bottom, "rule")
        label = f"{name} {show(value)}"
        before = x(value) + 5 + width_of(label) > WIDTH
        drawing.text(x(value) + (-5 if before else 5), height + 6, label, "aside", "end" if before else "start")
    for index, (series, row) in enumerate(rows):
        middle, colour = top + ROW * (index + 0.5) + 2, palette[series.name]
        drawing.text(left - 8, middle + 4, series.label, "name" if series.is_own else "aside", "end")
        if row is None:
            drawing.text(left + 4, middle + 4, "no samples", "aside")
            continue
        note = f"{series.label}: {bounds(row, show)}"
        drawing.bar(left, middle - 8, x(row.value) - left, 16, "bar" if series.is_own else "bar light", colour, note)
        drawing.line(x(row.low), middle, x(row.high), middle, "whisker over")
        for end in (row.low, row.high) if row.high > row.low else ():
            drawing.line(x(end), middle - 3, x(end), middle + 3, "whisker over")
        for run in row.runs:
            drawing.dot(x(run), middle, RUN, "run over", colour)
        drawing.text(max(x(row.high), x(row.value)) + 5, middle + 4, show(row.value), "value")
    drawing.line(left, top, left, bottom, "axis")
    drawing.text(WIDTH - RIGHT, bottom + 33, unit, "title", "end")
    return str(drawing)


def curves(task: Task, palette: dict[str, str], title: str) -> str:
    """Negative log-likelihood against positions, a thin line a run, labelled at the end; log x.

    A finetuned arm's line is dashed and begins where mle's training was left.
    """
    runs = [(name, points) for name, cells in task.trained.items() for cell in cells if (points := _run(cell))]
    drawing = Drawing(WIDTH, HEIGHT, title)
    every = [point for _, points in runs for point in points] or [(1.0, 0.0), (10.0, 1.0)]
    x = Scale(min(every)[0], max(every)[0], LEFT - RIGHT, WIDTH - LABELS, True)
    y = Scale(*extent((nats for _, nats in every), 0.04), HEIGHT - BOTTOM, TOP)
    axes(drawing, x, y, "positions trained on, log scale", "nats per token")
    ends: dict[str, list[float]] = {}
    kind = "curve" if len(runs) == len(task.trained) else "curve faint"
    for name, points in runs:
        path = [(x(positions), y(nats)) for positions, nats in points]
        drawing.path(path, f"{kind} dashed" if name in task.arms else kind, palette[name], name)
        ends.setdefault(name, []).append(path[-1][1])
    named = [(end_label(name), sum(at) / len(at), palette[name], name in task.arms) for name, at in ends.items()]
    name_ends(drawing, x.end, named)
    return str(drawing)


def end_label(name: str) -> str:
    """What stands where a line ends: an objective's name; of an arm, whose colour says its objective, the share."""
    return name.removeprefix(f"{objective_of(name)}-").replace("-", " ")


def name_ends(drawing: Drawing, right: float, ends: Sequence[tuple[str, float, str, bool]]) -> None:
    """Names of lines to the right of where they end; ``ends`` holds name, height, colour and whether to draw a ring."""
    heights = spread([at for _, at, _, _ in ends], TOP, HEIGHT - BOTTOM)
    for (name, at, colour, ring), height in zip(ends, heights, strict=True):
        drawing.path([(right + 2, at), (right + 9, height), (right + 12, height)], "curve thin", colour)
        if ring:
            drawing.ring(right + 19, height, 3.2, colour)
        drawing.text(right + (26 if ring else 15), height + 4, name, "name")


def histogram(edges: Sequence[float], counts: Sequence[int], title: str, x_title: str) -> str:
    """Counts of segment scores on a log axis; an empty bin shows nothing."""
    drawing = Drawing(WIDTH, HEIGHT, title)
    x = Scale(0.0, edges[-1] if edges else 1.0, LEFT, WIDTH - RIGHT)
    y = Scale(0.7, max([*counts, 10]) * 1.6, HEIGHT - BOTTOM, TOP, True)
    axes(drawing, x, y, x_title, "segments, log scale")
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        if count:
            note = f"{low:.4g} to {high:.4g}: {count:,} segments"
            left, height = x(low) + 0.7, y(count)
            drawing.bar(left, height, x(high) - left - 0.7, y.begin - height, "bin", "", note)
    return str(drawing)


def reliability(bins: Sequence[tuple[float, float, int]], title: str) -> str:
    """Observed share of bad texts against the probability that a classifier gave them, a point a bin.

    ``bins`` are (mean predicted, share observed, count), none of them empty. A point's area grows with its count;
    whiskers are Wilson's 95% intervals of the share. A well calibrated classifier stays on the dashed diagonal.
    """
    drawing = Drawing(WIDTH, HEIGHT, title)
    x, y = Scale(0.0, 1.0, LEFT, WIDTH - RIGHT), Scale(0.0, 1.0, HEIGHT - BOTTOM, TOP)
    axes(drawing, x, y, "predicted probability", "share that is bad")
    drawing.line(x(0), y(0), x(1), y(1), "rule")
    drawing.path([(x(predicted), y(share)) for predicted, share, _ in sorted(bins)], "curve faint", INK)
    most = max(count for _, _, count in bins)
    for predicted, share, count in sorted(bins):
        wilson = share_of_texts(round(share * count), count)
        drawing.line(x(predicted), y(wilson["ci_low"]), x(predicted), y(wilson["ci_high"]), "whisker", INK)
        note = f"predicted {predicted:.2f}, bad {share:.1%} of {count:,}"
        drawing.dot(x(predicted), y(share), max(7.5 * math.sqrt(count / most), 2.6), "dot", INK, note)
    drawing.text(x.begin + 8, y.end + 12, f"{sum(count for _, _, count in bins):,} held-out texts", "aside")
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


def _label(tick: float, ticks: Sequence[float], scale: Scale) -> str:
    return tick_label(tick, [tick] if scale.logarithmic else ticks)


def _run(cell: Cell) -> list[tuple[float, float]]:
    """(positions, nats per token) of a cell's training, an arm's counted from the first position of mle's.

    At most about ``CURVE_POINTS``, evenly chosen, the last among them.
    """
    points = [(cell.began + float(row["positions"]), float(row["nll"])) for row in cell.curve if row.get("nll")]
    stride = max(math.ceil(len(points) / CURVE_POINTS), 1)
    return points[::-1][::stride][::-1]
