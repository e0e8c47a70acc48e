"""The page of a sweep: for each list of trials a table, bits of good text and misalignment over what is varied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from freshstart.names import kind_of
from freshstart.reporting import figures
from freshstart.reporting.cells import Estimate
from freshstart.reporting.figures import BOTTOM, DOT, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from freshstart.reporting.formats import Format, bounds, fixed, three_digits
from freshstart.reporting.page import environment
from freshstart.reporting.placing import Box, place_beside
from freshstart.reporting.svg import Drawing, Scale, extent
from freshstart.sweeping.choice import changes, is_eligible, rule
from freshstart.sweeping.trials import Result, Sweep

LOGARITHMIC = 8.0  # from this factor between the largest and the smallest number on
Axis = tuple[str, list[float]]


def build(
    scale: str, task: str, sweep: Sweep, results: Mapping[str, Sequence[Result]], chosen: Mapping[str, Result | None]
) -> str:
    """The page as HTML; equal results give equal bytes."""
    palette = figures.colours([kind_of(name) for name in results])
    sections = []
    for name, tried in results.items():
        show = three_digits(result.misalignment for result in tried)
        colour = palette[kind_of(name)]
        drawn = {
            "Bits of good text": _bits(name, tried, chosen[name], sweep, colour),
            "Misalignment, not used for the choice": _misalignment(name, tried, chosen[name], sweep, colour, show),
        }
        rows = [_row(result, chosen[name], show) for result in tried]
        weighs = any(result.effective_sample_share is not None for result in tried)
        sections.append({"name": name, "colour": colour, "figures": drawn, "rows": rows, "weighs": weighs})
    return (
        environment(Path(__file__).parent)
        .get_template("page.html.jinja")
        .render(scale=scale, task=task, sweep=sweep, rule=rule(sweep), sections=sections)
    )


def _row(result: Result, chosen: Result | None, show: Format) -> dict[str, Any]:
    known = (result.effective_sample_share, result.weight_ratio)
    share, ratio = ("" if value is None else fixed(3)(value) for value in known)
    return {
        "changes": changes(result),
        "bits": fixed(3)(result.bits),
        "share": share,
        "ratio": ratio,
        "misalignment": bounds(result.misalignment, show) if result.misalignment else "none",
        "notes": [
            word for word, holds in (("chosen", result is chosen), ("default", result.trial.is_default)) if holds
        ],
    }


def _bits(name: str, tried: Sequence[Result], chosen: Result | None, sweep: Sweep, colour: str) -> str:
    points = [Estimate(result.bits, result.bits, result.bits) for result in tried]
    shares = [result.effective_sample_share for result in tried]
    labels = ["" if share is None else f"{share:.3f}" for share in shares]
    y_title = "bits per byte of good text" + (", beside it the effective sample size" if any(labels) else "")
    return _drawn(f"{name}: bits of good text", tried, points, labels, (chosen, sweep, colour), y_title, False)


def _misalignment(
    name: str, tried: Sequence[Result], chosen: Result | None, sweep: Sweep, colour: str, show: Format
) -> str:
    shown = [result for result in tried if result.misalignment]
    points = [result.misalignment for result in shown if result.misalignment]
    labels = [show(point.value) for point in points]
    title = "misalignment of the tuning samples"
    return _drawn(f"{name}: misalignment", shown, points, labels, (chosen, sweep, colour), title, True)


def _drawn(
    title: str,
    tried: Sequence[Result],
    points: Sequence[Estimate],
    labels: Sequence[str],
    marks: tuple[Result | None, Sweep, str],
    y_title: str,
    zero: bool,
) -> str:
    """Points over what is varied, with their intervals; a ring around the chosen one, hollow where not eligible."""
    chosen, sweep, colour = marks
    drawing = Drawing(WIDTH, HEIGHT, title)
    x_title, at = varied(tried)
    is_log = min(at) > 0 and max(at) >= LOGARITHMIC * min(at)
    ends = (min(at) / 1.3, max(at) * 1.3) if is_log else extent(at, 0.1)
    x = Scale(*ends, LEFT, WIDTH - RIGHT, is_log)
    y = Scale(*extent((v for p in points for v in (p.low, p.high)), 0.12, zero), HEIGHT - BOTTOM, TOP)
    figures.axes(drawing, x, y, f"{x_title}, log scale" if is_log else x_title, y_title)
    order = sorted(range(len(at)), key=at.__getitem__)
    drawing.path([(x(at[i]), y(points[i].value)) for i in order], "curve faint", colour)
    spots = [(x(value), y(point.value), label) for value, point, label in zip(at, points, labels, strict=True)]
    taken = [Box(left - 9, top - 9, left + 9, top + 9) for left, top, _ in spots]
    taken += [Box(x(value) - 3, y(p.high), x(value) + 3, y(p.low)) for value, p in zip(at, points, strict=True)]
    frame = Box(LEFT + 2, TOP, WIDTH, HEIGHT - BOTTOM)
    for result, point, (left, top, label), box in zip(
        tried, points, spots, place_beside(spots, taken, frame), strict=True
    ):
        drawing.line(left, y(point.low), left, y(point.high), "whisker", colour)
        if result is chosen:
            drawing.ring(left, top, DOT + 4, colour)
        note = f"{changes(result)}: {point.value:.4g}"
        if is_eligible(result, sweep.effective_sample_share):
            drawing.dot(left, top, DOT, "dot", colour, note)
        else:
            drawing.ring(left, top, DOT - 1, colour, note)
        drawing.text((box.left + box.right) / 2, box.bottom - 3, label, "aside", "middle")
    return str(drawing)


def varied(tried: Sequence[Result]) -> Axis:
    """The number that differs between trials, with its values; the number of the trial where none does or several."""
    values = [result.trial.values for result in tried]
    names = [name for name in values[0] if len({str(value.get(name)) for value in values}) > 1]
    if len(names) == 1 and all(isinstance(value.get(names[0]), int | float) for value in values):
        return names[0].replace("_", " "), [float(value[names[0]]) for value in values]
    return "trial", [float(result.trial.number) for result in tried]
