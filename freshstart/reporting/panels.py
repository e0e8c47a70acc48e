"""Which figures a task has, with the words above them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from freshstart.reporting import benchmarks, over_training, words
from freshstart.reporting.benchmarks import Curves
from freshstart.reporting.cells import BITS, Task
from freshstart.reporting.figures import Point, bars, curves, histogram, reliability, trade_off
from freshstart.reporting.formats import Format

STYLE = "misalignment_style"
RINGS = " Rings: finetuned from mle."
DASHED = " Dashed: finetuned from mle."
SQUARES = " Squares: trained elsewhere."


@dataclass(frozen=True)
class Figure:
    """A figure on the page: its heading, how to read it, and the SVG."""

    title: str
    caption: str
    svg: str


def figures(task: Task, palette: dict[str, str], show: Format) -> list[Figure]:
    unit = words.unit(task)
    lighter = ", ".join(f"{series.name} {series.label}" for series in task.series if not series.is_own)
    caption = f"What the models write, beside real text.{f' Lighter: {lighter}.' if lighter else ''}"
    svg = bars(task, palette, show, f"{task.name}: misalignment of each objective", unit)
    shown = [_compression(task, palette, show), Figure("Misalignment of the samples", caption, svg)]
    if any(task.under(series, STYLE) is not None for series in task.series):
        svg = bars(task, palette, show, f"{task.name}: style of each objective", unit, STYLE)
        shown.append(Figure("Style alone", "The same without E1 and E9, the broken grammar of a small model.", svg))
    shown += [_tax(task, palette, show), *_over_training(task, palette, show), _training(task, palette)]
    shown += [_lines(task, palette, show, found) for found in benchmarks.curves(task)]
    return [*shown, _scores(task), *_reliability(task)]


def _compression(task: Task, palette: dict[str, str], show: Format) -> Figure:
    caption = "Lower left is better: samples that score lower, and good held-out text that costs fewer bits."
    caption += f"{RINGS if task.arms else ''}{SQUARES if task.external else ''}"
    title, x_title = f"{task.name}: misalignment against bits per byte", "bits per byte, good held-out text"
    points = _points(task, task.every, *BITS)
    chosen = benchmarks.best_of(task)
    caption += f" Small circles below mle: the best of 2 to {2 ** len(chosen)} of its samples." if chosen else ""
    below = [("mle", estimate) for estimate in chosen]
    svg = trade_off(points, palette, show, title, x_title, _y_title(task), zero=False, below=below)
    return Figure("Misalignment against compression", caption, svg)


def _tax(task: Task, palette: dict[str, str], show: Format) -> Figure:
    reference = str(task.cells["mle"][0].metrics.get("divergence", {}).get("reference", "mle"))
    external = {} if reference == "mle" else task.external  # one that was never mle has not moved from it
    shown = {**task.trained, **external}
    divergence = {name: cells[0].metrics.get("divergence", {}) for name, cells in shown.items()}
    bounded = ", ".join(name for name, metrics in divergence.items() if "upper bound" in metrics.get("estimator", ""))
    origin = ", which stands at 0 by construction" if reference == "mle" else ""
    caption = f"How far a model has moved from {reference}{origin}. Lower left is better."
    caption += f" An upper bound for {bounded}." if bounded else ""
    caption += f"{RINGS if task.arms else ''}{SQUARES if external else ''}"
    title = f"{task.name}: misalignment against divergence"
    x_title = f"divergence from {reference} on good text, nats per token"
    points = _points(task, shown, "divergence", "good", "per_token")
    svg = trade_off(points, palette, show, title, x_title, _y_title(task), zero=True)
    return Figure("Alignment tax", caption, svg)


def _over_training(task: Task, palette: dict[str, str], show: Format) -> list[Figure]:
    every = over_training.lines(task)
    wanted = (
        (
            "Misalignment over training",
            "What snapshots of the training write. Points at equal positions are set a little apart."
            f"{DASHED if task.arms else ''}",
            every,
        ),
        (
            "Misalignment over finetuning",
            "The same from shortly before finetuning began, for mle and the objectives that it was finetuned with.",
            over_training.finetuned(every),
        ),
    )
    return [
        _lines(task, palette, show, Curves(title, caption, "positions trained on", lines))
        for title, caption, lines in wanted
        if any(len(line.points) > 1 for line in lines)
    ]


def _lines(task: Task, palette: dict[str, str], show: Format, curves: Curves) -> Figure:
    label, y_title = f"{task.name}: {curves.title.lower()}", f"{curves.y_title or _y_title(task)}, log scale"
    svg = over_training.figure(curves.lines, palette, show, label, y_title, curves.x_title)
    return Figure(curves.title, " ".join([curves.caption, *over_training.notes(curves.lines)]), svg)


def _training(task: Task, palette: dict[str, str]) -> Figure:
    others = ["filtered sees other documents"] if "filtered" in task.cells else []
    others += [f"{name} control tokens too" for name, cells in task.cells.items() if cells[0].metrics["controls"]]
    return Figure(
        "Training",
        f"Each model on its own training text{': ' if others else ''}{', '.join(others)}.{DASHED if task.arms else ''}",
        curves(task, palette, f"{task.name}: training curves"),
    )


def _scores(task: Task) -> Figure:
    scores = task.scores["train"]["segment_score"]
    edges, counts = scores["histogram"]["edges"], scores["histogram"]["counts"]
    zero = scores.get("share_zero", 0.0)
    return Figure(
        "Scores of the training text",
        f"Segments of the corpus by score{f'; {zero:.1%} of them score exactly 0' if zero else ''}.",
        histogram(
            edges, counts, f"{task.name}: scores of the corpus' segments", "score of a segment, as the scorer gives it"
        ),
    )


def _reliability(task: Task) -> list[Figure]:
    """One plot a classifier that was learned here and measured by bins: the scorer, and a judge learned beside it."""
    caption = (
        "Labelled text held out from it, in ten bins of the probability it gave. On the diagonal, "
        "0.7 means that seven in ten are bad. Larger: more texts."
    )
    shown = []
    for name, record in (("the scorer", task.scorer), ("the learned judge", task.scorer.get("judge") or {})):
        calibration = (record.get("learned") or {}).get("calibration") or []
        bins = [tuple(entry[key] for key in ("predicted", "observed", "count")) for entry in calibration]
        if bins := [entry for entry in bins if None not in entry and entry[2] > 0]:
            svg = reliability(bins, f"{task.name}: reliability of {name}")
            shown.append(Figure(f"Reliability of {name}", caption, svg))
    return shown


def _y_title(task: Task) -> str:
    return f"misalignment, {words.unit(task)}"


def _points(task: Task, names: Iterable[str], *keys: str) -> list[Point]:
    """Those whose misalignment and other number, under ``keys``, are both known."""
    both = [(name, task.estimate(name, *keys), task.misalignment(name)) for name in names]
    return [(name, x, y) for name, x, y in both if x is not None and y is not None]
