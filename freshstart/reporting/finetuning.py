"""Pretraining with feedback against finetuning with feedback (Korbak et al. 2023, section 5).

For each objective that has finetuned arms: what its model writes that learned from the feedback from the first token
on, beside models that mle trained first and that went on with the objective; and what each lost in held-out text.
"""

from __future__ import annotations

from typing import Any

from freshstart.names import objective_of, share_of
from freshstart.reporting.cells import BITS, Estimate, Task
from freshstart.reporting.comparisons import Differences
from freshstart.reporting.figures import RUN
from freshstart.reporting.formats import Format, bounds
from freshstart.reporting.svg import Drawing, Scale

WIDTH, HEIGHT, DOT = 220.0, 18.0, 4.0

Row = dict[str, Any]


def groups(task: Task, palette: dict[str, str], differences: Differences, show: Format) -> list[list[Row]]:
    """mle's row, then each objective's, pretrained first and its arms by share; nothing where the task has no arms."""
    names = [["mle"]] if task.arms else []
    for objective in dict.fromkeys(map(objective_of, task.arms)):
        arms = sorted((arm for arm in task.arms if objective_of(arm) == objective), key=share_of)
        names.append([name for name in (objective, *arms) if name in task.every])
    estimates = [task.misalignment(name) for group in names for name in group]
    most = max((estimate.high for estimate in estimates if estimate is not None), default=0.0) or 1.0
    return [[_row(task, name, palette[name], differences, show, most) for name in group] for group in names]


def finding(group: list[Row]) -> str:
    """What one objective's arms come to beside the same objective, pretrained."""
    shares: dict[str, list[str]] = {}
    for row in group:
        if row["share"] is not None:
            shares.setdefault(row["verdict"], []).append(str(row["share"]))
    parts = [
        f"{words} pretrained after {', '.join(shares[key])} of mle’s budget"
        for key, words in (
            ("above", "finetuned is above"),
            ("level", "there is no clear difference between finetuned and"),
            ("below", "finetuned is below"),
            ("few seeds", "there are too few seeds to compare finetuned with"),
            ("", "finetuned can’t be compared with"),
        )
        if key in shares
    ]
    return f"{objective_of(group[0]['name'])}: {'; '.join(parts)}."


def _row(task: Task, name: str, colour: str, differences: Differences, show: Format, most: float) -> Row:
    """A model; ``share`` of mle's budget came first. An arm's verdict is against the same objective, pretrained."""
    is_arm, objective, cell = name in task.arms, objective_of(name), task.every[name][0]
    positions, misalignment = cell.number("tokens_seen", "positions"), task.misalignment(name)
    pretrained = task.misalignment(objective) if is_arm and objective in task.cells else None
    against = differences.verdict(task, task.own(name), task.own(objective)) if pretrained is not None else ""
    interval = "no samples" if misalignment is None else bounds(misalignment, show)
    drawing = Drawing(WIDTH, HEIGHT, f"{task.name}, {name}: {interval}")
    _draw(drawing, misalignment, pretrained, Scale(0.0, most, DOT + 2, WIDTH - DOT - 2), colour, is_arm)
    return {
        "name": name,
        "share": share_of(name) if is_arm else None,
        "as_mle": positions if name == "mle" else cell.began if is_arm else None,
        "with_feedback": None if name == "mle" else positions,
        "misalignment": misalignment,
        "verdict": against,
        "bits": task.estimate(name, *BITS),
        "divergence": task.estimate(name, "divergence", "good", "per_token"),
        "svg": str(drawing),
    }


def _draw(
    drawing: Drawing, estimate: Estimate | None, pretrained: Estimate | None, x: Scale, colour: str, is_arm: bool
) -> None:
    """A point with its bounds on a line from 0; a ring for an arm, and a dashed rule where pretraining stands."""
    middle = HEIGHT / 2
    drawing.line(x(0), 0, x(0), HEIGHT, "axis")
    drawing.line(x(0), middle, x.end, middle, "grid")
    if pretrained is not None:
        drawing.line(x(pretrained.value), 0, x(pretrained.value), HEIGHT, "rule")
    if estimate is None:
        return
    drawing.line(x(estimate.low), middle, x(estimate.high), middle, "whisker", colour)
    for run in estimate.runs:
        drawing.dot(x(run), middle, RUN, "run", colour)
    if is_arm:
        drawing.ring(x(estimate.value), middle, DOT, colour)
    else:
        drawing.dot(x(estimate.value), middle, DOT, "dot", colour)
