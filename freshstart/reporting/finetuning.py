"""Pretraining with feedback against finetuning with feedback (Korbak et al. 2023, section 5).

For each objective that has finetuned arms: what its model writes that learned from the feedback from the first token
on, beside models that mle trained first and that went on with the objective; and what each lost in held-out text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from freshstart.names import objective_of, share_of
from freshstart.reporting import words
from freshstart.reporting.cells import BITS, Estimate, Task
from freshstart.reporting.svg import Drawing, Scale

Format = Callable[[float], str]
WIDTH, HEIGHT, DOT = 220.0, 18.0, 4.0


@dataclass(frozen=True)
class Row:
    """A model of the comparison; ``share`` of mle's budget came first, None where it trained under one objective."""

    name: str
    objective: str
    share: float | None
    as_mle: float | None  # positions trained on
    with_feedback: float | None
    misalignment: Estimate | None
    verdict: str  # against the same objective, pretrained
    bits: Estimate | None
    divergence: Estimate | None
    svg: str


@dataclass(frozen=True)
class Comparison:
    """mle's row, then each objective's, pretrained first and its arms by share; and what they come to in words."""

    groups: tuple[tuple[Row, ...], ...]
    findings: tuple[str, ...]


def comparison(task: Task, palette: dict[str, str], show: Format) -> Comparison | None:
    """None where the task has no arms."""
    if not task.arms:
        return None
    groups = [["mle"]]
    for objective in dict.fromkeys(map(objective_of, task.arms)):
        arms = sorted((arm for arm in task.arms if objective_of(arm) == objective), key=share_of)
        groups.append([name for name in (objective, *arms) if name in task.every])
    found = [task.misalignment(name) for group in groups for name in group]
    most = max((one.high for one in found if one is not None), default=0.0) or 1.0
    rows = tuple(tuple(_row(task, name, palette, show, most) for name in group) for group in groups)
    return Comparison(rows, tuple(_sentence(group) for group in rows[1:]))


def _row(task: Task, name: str, palette: dict[str, str], show: Format, most: float) -> Row:
    arm = name in task.arms
    objective = objective_of(name)
    pretrained = task.misalignment(objective) if objective in task.cells else None
    one, cell = task.misalignment(name), task.every[name][0]
    positions = cell.number("tokens_seen", "positions")
    return Row(
        name,
        objective,
        share_of(name) if arm else None,
        positions if name == "mle" else cell.began if arm else None,
        None if name == "mle" else positions,
        one,
        words.verdict(one, pretrained) if arm else "",
        task.estimate(name, *BITS),
        task.estimate(name, "divergence", "per_token"),
        _interval(one, pretrained if arm else None, most, palette[name], arm, f"{task.name}, {name}", show),
    )


def _interval(
    one: Estimate | None, beside: Estimate | None, most: float, colour: str, arm: bool, name: str, show: Format
) -> str:
    """A point with its bounds on a line from 0; a ring for an arm, and a dashed rule where pretraining stands."""
    drawing = Drawing(WIDTH, HEIGHT, f"{name}: {words.bounds(one, show)}" if one else f"{name}: no samples")
    x, middle = Scale(0.0, most, DOT + 2, WIDTH - DOT - 2), HEIGHT / 2
    drawing.line(x(0), 0, x(0), HEIGHT, "axis")
    drawing.line(x(0), middle, x(most), middle, "grid")
    if beside is not None:
        drawing.line(x(beside.value), 0, x(beside.value), HEIGHT, "rule")
    if one is None:
        return str(drawing)
    drawing.line(x(one.low), middle, x(one.high), middle, "whisker", colour)
    for run in one.runs:
        drawing.dot(x(run), middle, 2.4, "run", colour)
    if arm:
        drawing.ring(x(one.value), middle, DOT, colour)
    else:
        drawing.dot(x(one.value), middle, DOT, "dot", colour)
    return str(drawing)


def _sentence(rows: tuple[Row, ...]) -> str:
    """What one objective's arms come to beside the same objective, pretrained."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        if row.share is not None:
            groups.setdefault(row.verdict, []).append(str(row.share))
    said = [
        f"{how} {words.listed(groups[key])} of mle’s budget"
        for key, how in (
            ("above", "finetuned lies wholly above pretrained after"),
            ("level", "finetuned is not told apart from pretrained after"),
            ("below", "finetuned lies wholly below pretrained after"),
            ("", "finetuned can’t be compared with pretrained after"),
        )
        if key in groups
    ]
    return f"{rows[0].objective}: {'; '.join(said)}."
