"""The table of all metrics: its columns are the metrics that have a title, in the groups that they declare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from freshstart.evaluation.metrics import Metric
from freshstart.reporting.cells import Estimate, Series, Task


@dataclass(frozen=True)
class Column:
    """A metric in the table, how its numbers are written, and whether their bounds are shown too."""

    metric: Metric
    title: str
    show: Callable[[float], str]
    bounds: bool

    def estimate(self, task: Task, series: Series) -> Estimate | None:
        return task.of(self.metric, series)


def share(value: float) -> str:
    return f"{value:.1%}" if value else "0%"


def number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def two(value: float) -> str:
    return number(value, 2)


def three(value: float) -> str:
    return number(value, 3)


def shown(task: Task, show: Callable[[float], str]) -> list[Column]:
    """The columns that hold a number for at least one series of the task; ``show`` writes its scorer's numbers."""
    beside = {metric.path for metric in task.metrics}
    columns = [
        Column(
            metric,
            metric.title.format(over=f"{task.scorer['over']:g}"),
            {"score": show, "share": share}.get(metric.unit) or partial(number, digits=metric.digits),
            metric.interval or f"{metric.path}_se" in beside,
        )
        for metric in task.metrics
        if metric.title
    ]
    return [column for column in columns if any(column.estimate(task, series) is not None for series in task.rows)]
