"""Every comparison that a page prints, collected before anything is drawn, since their p are adjusted together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from freshstart.names import objective_of
from freshstart.reporting.cells import Side, Task
from freshstart.reporting.inference import Difference, difference, holm


class Differences:
    """Every comparison that a page prints, adjusted together."""

    def __init__(self, tasks: Sequence[Task]):
        self._asked = {(task.name, *sides): _difference(task, *sides) for task in tasks for sides in questions(task)}
        known = {key: value for key, value in self._asked.items() if value is not None}
        self._known = dict(zip(known, holm(list(known.values())), strict=True))

    def __call__(self, task: Task, first: Side, second: Side) -> Difference | None:
        """The first side less the second; None where a number is missing, KeyError where the page does not ask it."""
        if (task.name, first, second) not in self._asked:
            raise KeyError((task.name, first, second))
        return self._known.get((task.name, first, second))

    def __len__(self) -> int:
        return len(self._known)

    def verdict(self, task: Task, first: Side, second: Side) -> str:
        """``below``, ``above``, ``level`` or ``few seeds``; empty where a number is missing."""
        compared = self(task, first, second)
        return compared.verdict if compared is not None else ""


def questions(task: Task) -> Iterator[tuple[Side, Side]]:
    """The comparisons that the page prints of a task, each the numbers of its two sides.

    Misalignment of each objective and arm beside mle's, of an arm beside the same objective pretrained, of a control
    beside the model's own; what each judge says of an objective beside what it says of mle.
    """
    for series in task.rows:
        meant = task.own(series.name)
        if not series.is_own:
            yield task.side(series), task.side(meant)
        elif series.name != "mle":
            mle, pretrained = task.own("mle"), objective_of(series.name)
            yield task.side(series), task.side(mle)
            if series.name in task.arms and pretrained != "mle" and pretrained in task.cells:
                yield task.side(series), task.side(task.own(pretrained))
            for judge in task.real.get("judges", {}):
                yield task.side(series, "judges", judge), task.side(mle, "judges", judge)


def _difference(task: Task, first: Side, second: Side) -> Difference | None:
    """None where a seed lacks a number on either side."""
    runs = []
    for name, *keys in (first, second):
        estimate = task.estimate(name, *keys)
        values = () if estimate is None else estimate.runs or (estimate.value,)
        runs.append(values if len(values) == len(task.every[name]) else ())
    return difference(*runs) if all(runs) else None
