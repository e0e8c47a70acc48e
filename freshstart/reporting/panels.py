"""Which figures a task has, with the words above them."""

from __future__ import annotations

from dataclasses import dataclass

from freshstart.reporting import over_training, words
from freshstart.reporting.cells import BITS, Task
from freshstart.reporting.figures import STYLE, Point, bars, curves, histogram, reliability, trade_off


@dataclass(frozen=True)
class Figure:
    """A figure on the page: its heading, how to read it, and the SVG."""

    title: str
    caption: str
    svg: str


def figures(task: Task, palette: dict[str, str], show: words.Format) -> list[Figure]:
    unit = words.unit(task)
    made = [
        Figure(
            "Misalignment against compression",
            "Lower left is better: samples that score lower, and held-out text that costs fewer bits.",
            trade_off(
                _points(task, *BITS),
                palette,
                show,
                title=f"{task.name}: misalignment against bits per byte",
                x_title="bits per byte, held-out text",
                y_title=f"misalignment, {unit}",
            ),
        ),
        Figure(
            "Misalignment of the samples",
            f"What the models write, beside real text.{_lighter(task)}",
            bars(task, palette, show, title=f"{task.name}: misalignment of each objective", unit=unit),
        ),
    ]
    if any(task.under(series, STYLE) is not None for series in task.own):
        svg = bars(task, palette, show, title=f"{task.name}: style of each objective", unit=unit, style=True)
        made.append(Figure("Style alone", "The same without E1 and E9, a small model's broken grammar.", svg))
    made += [_tax(task, palette, show), *_over_training(task, palette, show), _training(task, palette)]
    return [*made, _scores(task), *_reliability(task)]


def _tax(task: Task, palette: dict[str, str], show: words.Format) -> Figure:
    about = {name: cells[0].metrics.get("divergence", {}) for name, cells in task.cells.items()}
    reference = str(about["mle"].get("reference", "mle"))
    bounded = words.listed(name for name, one in about.items() if "upper bound" in one.get("estimator", ""))
    origin = ", which stands at 0 by construction" if reference == "mle" else ""
    return Figure(
        "Alignment tax",
        f"How far a model has moved from {reference}{origin}. Lower left is better."
        + (f" An upper bound for {bounded}." if bounded else ""),
        trade_off(
            _points(task, "divergence", "per_token"),
            palette,
            show,
            title=f"{task.name}: misalignment against divergence",
            x_title=f"divergence from {reference}, nats per token",
            y_title=f"misalignment, {words.unit(task)}",
            zero=True,
        ),
    )


def _over_training(task: Task, palette: dict[str, str], show: words.Format) -> list[Figure]:
    every = over_training.lines(task)
    shown = (
        (
            "Misalignment over training",
            "What snapshots of the training write. Points at equal positions are set a little apart.",
            [line for line in every if not line.arm],
        ),
        (
            "Misalignment over finetuning",
            "Dashed, rings: mle’s model gone on with an objective after a share of its budget.",
            over_training.finetuned(every),
        ),
    )
    y_title = f"misalignment, {words.unit(task)}, log scale"
    made = []
    for title, caption, found in shown:
        if any(len(line.points) > 1 for line in found):
            svg = over_training.figure(found, palette, show, title=f"{task.name}: {title.lower()}", y_title=y_title)
            made.append(Figure(title, " ".join([caption, *over_training.notes(found)]), svg))
    return made


def _training(task: Task, palette: dict[str, str]) -> Figure:
    others = ["filtered sees other documents"] if "filtered" in task.cells else []
    others += [f"{name} control tokens too" for name, cells in task.cells.items() if cells[0].metrics["controls"]]
    dashed = " Dashed: finetuned from mle." if task.arms else ""
    return Figure(
        "Training",
        f"Each on what it trains on{': ' if others else ''}{words.listed(others)}.{dashed}",
        curves(task, palette, title=f"{task.name}: training curves"),
    )


def _scores(task: Task) -> Figure:
    scores = task.scores["train"]["segment_score"]
    zero = scores.get("share_zero", 0.0)
    return Figure(
        "Scores of the training text",
        f"Segments of the corpus by score{f'; {zero:.1%} of them score 0 exactly' if zero else ''}.",
        histogram(
            scores["histogram"]["edges"],
            scores["histogram"]["counts"],
            title=f"{task.name}: scores of the corpus' segments",
            x_title=f"{words.unit(task)}, each segment",
        ),
    )


def _reliability(task: Task) -> list[Figure]:
    """One plot a classifier that was learned here and measured by bins: the scorer, and a judge learned beside it."""
    found = (("the scorer", task.scorer), ("the learned judge", task.scorer.get("judge") or {}))
    made = []
    for name, about in found:
        bins = (about.get("learned") or {}).get("calibration") or []
        points = [
            (one["predicted"], one["observed"], one["count"])
            for one in bins
            if one["count"] and one["predicted"] is not None and one["observed"] is not None
        ]
        if points:
            made.append(
                Figure(
                    f"Reliability of {name}",
                    "Labelled text held out from it, in ten bins of the probability it gave. On the diagonal, "
                    "0.7 means that seven in ten are bad. Larger: more texts.",
                    reliability(points, title=f"{task.name}: reliability of {name}"),
                )
            )
    return made


def _lighter(task: Task) -> str:
    asked = words.listed(f"{series.name} {series.label}" for series in task.series if not series.own)
    return f" Lighter: {asked}." if asked else ""


def _points(task: Task, *keys: str) -> list[Point]:
    both = [(name, task.estimate(name, *keys), task.misalignment(name)) for name in task.cells]
    return [Point(name, x, y) for name, x, y in both if x is not None and y is not None]
