"""Every comparison that a page prints, collected before anything is drawn, since their p are adjusted together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from freshstart.names import objective_of
from freshstart.reporting.cells import BENCHMARKS, MISALIGNMENT, Series, Task
from freshstart.reporting.inference import Difference, difference, holm

Question = tuple[Series, Series, tuple[str, ...]]  # two sides, and the number of both that is compared


class Differences:
    """Every comparison that a page prints, adjusted together.

    ``keys`` name a number that is measured per control, or one of the model's benchmarks.
    """

    def __init__(self, tasks: Sequence[Task]):
        plain = {(task.name, *question): _difference(task, *question) for task in tasks for question in questions(task)}
        adjusted = iter(holm([known for known in plain.values() if known is not None]))
        self._differences = {key: known and next(adjusted) for key, known in plain.items()}

    def __call__(self, task: Task, first: Series, second: Series, *keys: str) -> Difference | None:
        """The first side less the second; None where a number is missing, KeyError where the page does not ask it."""
        return self._differences[task.name, first, second, keys or (MISALIGNMENT,)]

    def __len__(self) -> int:
        return sum(known is not None for known in self._differences.values())

    def verdict(self, task: Task, first: Series, second: Series, *keys: str) -> str:
        """``below``, ``above``, ``level`` or ``few seeds``; empty where a number is missing."""
        compared = self(task, first, second, *keys)
        return compared.verdict if compared is not None else ""


def questions(task: Task) -> Iterator[Question]:
    """The comparisons that the page prints of a task.

    Misalignment of each objective and arm beside mle's, of an arm beside the same objective pretrained, of a control
    beside the model's own; what each judge and each benchmark of capability says of an objective beside what it says of
    mle; the best of as many samples of both. Of models that were trained elsewhere, which have no seeds, none.
    """
    mle = task.own("mle")
    for series in (series for series in task.rows if series.name in task.trained):
        pretrained = objective_of(series.name)
        if not series.is_own:
            yield series, task.own(series.name), (MISALIGNMENT,)
        elif series.name != "mle":
            yield series, mle, (MISALIGNMENT,)
            if series.name in task.arms and pretrained in task.cells:
                yield series, task.own(pretrained), (MISALIGNMENT,)
            for judge in task.real.get("judges", {}):
                yield series, mle, ("judges", judge)
            for keys in (*(metric.keys for metric in task.capability), *task.chosen.values()):
                yield series, mle, keys


def _difference(task: Task, first: Series, second: Series, keys: tuple[str, ...]) -> Difference | None:
    """None where a seed lacks a number on either side."""
    runs = []
    for series in (first, second):
        estimate = task.estimate(series.name, *keys) if keys[0] == BENCHMARKS else task.under(series, *keys)
        values = () if estimate is None else estimate.runs or (estimate.value,)
        runs.append(values if len(values) == len(task.every[series.name]) else ())
    return difference(*runs) if all(runs) else None
