"""What the benchmarks of capability say: scores of each objective, beside mle's.

With several seeds a difference from mle is one of training runs, adjusted with all others of the page. With one seed
it is one of two models, item by item: its interval says how well these two are told apart on items like these, and
nothing of other training runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from freshstart import benchmarks
from freshstart.benchmarks import ByItem
from freshstart.evaluation.metrics import Metric
from freshstart.reporting.cells import BENCHMARKS, NORMAL_95, Estimate, Task, value_at
from freshstart.reporting.comparisons import Differences
from freshstart.reporting.formats import Format, ends, fixed, share
from freshstart.reporting.inference import Difference


@dataclass(frozen=True)
class Entry:
    """What a model reached, with its difference from mle where there is one to be had."""

    estimate: Estimate
    difference: Difference | None


@dataclass(frozen=True)
class Column:
    """A score by model; ``n`` is of how many items, ``written`` how the page writes it."""

    metric: Metric
    n: int | None
    entries: dict[str, Entry]

    @property
    def benchmark(self) -> str:
        return self.metric.group

    @property
    def written(self) -> Format:
        return share if self.metric.unit == "share" else fixed(self.metric.digits)


def columns(task: Task, differences: Differences) -> list[Column]:
    """The scores that any model has; none where no benchmark of capability was run."""
    by_item = {name: _by_item(task, name) for name in {metric.group for metric in task.capability}}
    found = []
    for metric in task.capability:
        entries = {
            name: Entry(estimate, _difference(task, name, metric, differences, by_item[metric.group]))
            for name in task.every
            if (estimate := task.estimate(name, *metric.keys)) is not None
        }
        if entries:
            found.append(Column(metric, _items(task, metric), entries))
    return found


def paired(first: ByItem, second: ByItem) -> Difference:
    """The first model's score less the second's on the same items, with a 95% interval by their spread.

    Where the models give the same of every item there is no spread to tell an interval from.
    """
    pairs = [(value - second[item][0], weight) for item, (value, weight) in first.items()]
    total, n = math.fsum(weight for _, weight in pairs), len(pairs)
    mean = math.fsum(value for value, _ in pairs) / total
    squares = math.fsum((value - mean * weight) ** 2 for value, weight in pairs)
    if n < 2 or not squares:
        return Difference(mean, 1)
    half = NORMAL_95 * math.sqrt(squares * n / (n - 1)) / total
    return Difference(mean, 1, mean - half, mean + half)


def sentence(task: Task, found: Sequence[Column]) -> str:
    """What alignment cost: of each score the least and the most, beside mle's."""
    parts = []
    for column in found:
        values = {name: entry.estimate.value for name, entry in column.entries.items() if name in task.trained}
        if len(values) < 2 or "mle" not in values:
            continue
        span = ends(values, column.written)
        mle = "" if "(mle)" in span or "(" not in span else f", mle {column.written(values['mle'])}"
        parts.append(f"{column.benchmark}, {column.metric.title}: {span}{mle}{_held(column)}")
    many = "" if len(task.cells["mle"]) > 1 else " Of one model each: what differs may be the training run."
    return f"What the models are able to do: {'; '.join(parts)}.{many}" if parts else ""


def _held(column: Column) -> str:
    """Which differences hold over seeds."""
    said: dict[str, list[str]] = {"below": [], "above": []}
    for name, entry in column.entries.items():
        if entry.difference is not None and entry.difference.verdict in said:
            said[entry.difference.verdict].append(name)
    return "".join(f", {' and '.join(names)} {verdict} mle" for verdict, names in said.items() if names)


def _difference(
    task: Task, name: str, metric: Metric, differences: Differences, by_item: dict[str, dict[str, ByItem]]
) -> Difference | None:
    if name == "mle" or name not in task.trained:
        return None
    if len(task.cells["mle"]) > 1:
        return differences(task, task.own(name), task.own("mle"), *metric.keys)
    path = ".".join(metric.keys[2:])  # below the benchmark's name
    first, second = (by_item.get(side, {}).get(path) for side in (name, "mle"))
    return paired(first, second) if first and second and first.keys() == second.keys() else None


def _by_item(task: Task, benchmark: str) -> dict[str, dict[str, ByItem]]:
    """What each item gave each model trained here, of scores that are the mean of their items (perplexities are none).

    Nothing where differences are those of runs.
    """
    import pyarrow.parquet as pq

    found = {}
    for name, cells in task.trained.items():
        cell = cells[0]
        if benchmark in cell.benchmarks and len(task.cells["mle"]) == 1:
            items = pq.read_table(cell.items(benchmark))
            by_path = benchmarks.load(cell.benchmarks[benchmark]).by_item(items, cell.asked[0])
            scores = {path: task.estimate(name, BENCHMARKS, benchmark, *path.split(".")) for path in by_path}
            found[name] = {path: of for path, of in by_path.items() if _is_mean(of, scores[path])}
    return found


def _is_mean(by_item: ByItem, score: Estimate | None) -> bool:
    mean = math.fsum(value for value, _ in by_item.values()) / math.fsum(weight for _, weight in by_item.values())
    return score is not None and math.isclose(mean, score.value, abs_tol=1e-6)


def _items(task: Task, metric: Metric) -> int | None:
    """Of how many items a score is: the count below its own keys, or beside it."""
    metrics = task.cells["mle"][0].metrics
    own = value_at(metrics, (*metric.keys, "n"))
    return own if own is not None else value_at(metrics, (BENCHMARKS, *metric.keys[1:-1], "n"))
