"""Benchmarks: what a model is still able to do and whether what it learned holds, where asking takes long.

One file a kind (``Kind``), found by its name. conf/benchmarks.yaml names benchmarks, each with its kind and that kind's
settings; the stage ``benchmark`` runs those that ``benchmarks`` in params.yaml lists, for every cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from freshstart.evaluation.metrics import Metric
from freshstart.settings import build, kind

if TYPE_CHECKING:
    import pyarrow as pa

    from freshstart.evaluation.context import Context
    from freshstart.evaluation.subject import Subject

PACKAGE = "freshstart.benchmarks"
KIND = "def run("  # what the file of a kind defines
FILE = Path("conf/benchmarks.yaml")
ByItem = Mapping[Hashable, tuple[float, float]]  # value and weight of each item


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """What the settings of every kind hold. ``tasks`` are those that it is run on; none stands for all."""

    kind: str
    tasks: tuple[str, ...] = ()


class Kind(Protocol):
    """The module of a kind.

    ``run(subject, settings, context, state)`` gives the metrics that ``METRICS`` declares (their columns in
    reports/cells.csv bear the benchmark's name in front), and a table with a row an item, so that models can be
    compared item by item. ``state`` is a folder of the run's own that outlives a stop: what a run keeps there it need
    not do again. It is removed when the run is done.

    A kind that measures what a model is able to do has ``by_item(items, control)`` too: from its table, by the path of
    a metric, what each item gave under a control, and its weight; it may be empty. Where the metric is the sum of the
    values over the sum of the weights, the page compares two models item by item. A kind whose files name further ones
    has ``beside(settings)``, which lists those, so that a change of their content is seen.
    """

    Settings: type[BenchmarkSettings]
    METRICS: tuple[Metric, ...]
    run: Callable[[Subject, Any, Context, Path], tuple[dict[str, Any], pa.Table]]
    by_item: Callable[[pa.Table, str], dict[str, ByItem]]


def load(name: str, where: str = str(FILE)) -> Kind:
    return kind(PACKAGE, name, "kind", where)


def settings(block: Mapping[str, Any], where: str) -> BenchmarkSettings:
    """The settings of one benchmark, read by the module of its kind."""
    return build(load(str(block.get("kind")), where).Settings, block, where)


def named(settings: BenchmarkSettings) -> list[Any]:
    """All that may name files: the settings, and what ``beside`` of the kind lists."""
    return [asdict(settings), getattr(load(settings.kind), "beside", lambda _: [])(settings)]


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """The mean over runs with Student's 95% interval; of one value alone there is none."""
    from scipy.stats import sem, t

    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return {"mean": mean, "ci_low": None, "ci_high": None}
    half = float(t.ppf(0.975, len(values) - 1) * sem(values))
    return {"mean": mean, "ci_low": mean - half, "ci_high": mean + half}
