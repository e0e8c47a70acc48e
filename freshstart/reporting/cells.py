"""The files of all cells, read into records: exactly the cells that ``params.yaml`` names, none left out.

A cell is one task, objective and seed; a finetuned arm has cells too. A model that was trained elsewhere has one, whose
seed is that of its samples. Figures and tables take their numbers from ``Task``, so that one seed and several are told
apart in one place: with one seed a number carries its bootstrap interval over samples; with several it is the mean over
seeds with Student's interval, with two of them their range.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freshstart import benchmarks, files
from freshstart.errors import InputError
from freshstart.evaluation import measure
from freshstart.evaluation.metrics import ANY, REAL_TEXT, UNDER, Metric, asked, check
from freshstart.names import benchmarked_by, evaluated_by, external_by, trained_by
from freshstart.reporting.inference import LEAST_SEEDS, interval

if TYPE_CHECKING:
    from freshstart.params import Root

NORMAL_95 = 1.96
MISALIGNMENT = "misalignment"
BITS = ("heldout", "bits_per_byte", "good")  # of good text: all text punishes a model for having unlearned the bad
BENCHMARKS = "benchmarks"  # where a cell's metrics hold what its benchmarks found, by name
DISPLAYS = ("plain", "mask", "fold")  # how the page shows what the scorer found; nothing is shown on a guess


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval; ``runs`` holds the number of each seed where there are several."""

    value: float
    low: float
    high: float
    runs: tuple[float, ...] = ()

    def below(self, other: Estimate) -> bool:
        """Whether it lies wholly below the other: their intervals do not meet."""
        return self.high < other.low


@dataclass(frozen=True)
class Cell:
    """What the stages train and evaluate left of one cell; ``made_by`` is the stage that evaluates it.

    ``curve`` is empty for a model that was trained elsewhere; ``benchmarks`` are the kinds of its benchmarks, by name,
    each with a table of its items beside ``samples``.
    """

    name: str
    seed: int
    made_by: str
    metrics: dict[str, Any]
    curve: list[dict[str, str]]
    samples: Path
    benchmarks: Mapping[str, str] = field(default_factory=dict)

    def items(self, benchmark: str) -> Path:
        """The table of what each item of a benchmark gave."""
        return self.samples.parent / BENCHMARKS / benchmark / self.samples.name

    @property
    def asked(self) -> tuple[str, ...]:
        """The controls it was asked under, its own first; ``none`` for a model without them."""
        return asked(self.metrics)

    @property
    def began(self) -> float:
        """Positions that mle's model was trained on before this one went on with it; 0 for one trained from scratch."""
        return self.number("finetuned", "from_positions") or 0.0

    def number(self, *keys: str) -> float | None:
        """A number of the metrics file; None where a key is absent, null or not a number."""
        return _number(self.metrics, keys)


@dataclass(frozen=True)
class Series:
    """One row of a figure or table: an objective, arm or external model, under its own control (``is_own``) or not."""

    name: str
    control: str
    is_own: bool

    @property
    def label(self) -> str:
        return self.name if self.is_own else f"under <|{self.control}|>"


@dataclass(frozen=True)
class Task:
    """All cells of a task, by objective, with what is known of its corpus, scorer, scores and held-out text.

    ``warnings`` say what of its data leaves models little to learn. ``arms`` are the cells of its finetuned arms, by
    name, ``external`` those of models that were trained elsewhere. ``replayed`` holds, by benchmark, what each seed's
    replay of attacks found, where attacks there were. Sentences, figures and tables take all that was trained here;
    external models stand in tables and trade-offs.
    """

    name: str
    corpus: dict[str, Any]
    scorer: dict[str, Any]
    scores: dict[str, Any]
    real: dict[str, Any]
    warnings: list[str]
    cells: dict[str, tuple[Cell, ...]]
    arms: dict[str, tuple[Cell, ...]]
    external: dict[str, tuple[Cell, ...]]
    replayed: dict[str, list[dict[str, Any]]]

    @property
    def trained(self) -> dict[str, tuple[Cell, ...]]:
        """What was trained here: the cells of the objectives, then those of the arms."""
        return {**self.cells, **self.arms}

    @property
    def every(self) -> dict[str, tuple[Cell, ...]]:
        """``trained``, then the external models."""
        return {**self.trained, **self.external}

    @property
    def rows(self) -> list[Series]:
        """``series``, then every external model under every control."""
        return [
            Series(name, control, control == cells[0].asked[0])
            for name, cells in self.every.items()
            for control in cells[0].asked
        ]

    @property
    def series(self) -> list[Series]:
        """Every objective and arm under every control, in the order of ``params.yaml``, the arms last."""
        return [series for series in self.rows if series.name in self.trained]

    @property
    def own_series(self) -> list[Series]:
        """Every objective and arm as it is meant to be used: a conditional model under ``<|good|>``."""
        return [series for series in self.series if series.is_own]

    @cached_property
    def metrics(self) -> list[Metric]:
        """What was measured, as the measures declare it; a metric of any name once for each name in the files."""
        cells = [cell for cells in self.every.values() for cell in cells]
        declared = _declared(dict.fromkeys(name for cell in cells for name in cell.metrics["measures"]))
        kinds = {name: kind for cell in cells for name, kind in cell.benchmarks.items()}
        declared += [
            replace(
                metric,
                path=f"{BENCHMARKS}.{name}.{metric.path}",
                group=name,
                column=f"{name}_{metric.column}" if metric.column else "",
            )
            for name, kind in kinds.items()
            for metric in benchmarks.load(kind).METRICS
        ]
        return [named for metric in declared for named in _by_name(metric, cells)]

    @cached_property
    def capability(self) -> list[Metric]:
        """What the benchmarks of capability measured that has a title."""
        kinds = {name: kind for cells in self.every.values() for name, kind in cells[0].benchmarks.items()}
        able = {name for name, kind in kinds.items() if hasattr(benchmarks.load(kind), "by_item")}
        return [metric for metric in self.metrics if metric.title and metric.better and metric.group in able]

    def benchmarks_of(self, kind: str) -> list[str]:
        """The names of the benchmarks of a kind that the task was asked."""
        return [name for name, its in self.cells["mle"][0].benchmarks.items() if its == kind]

    @property
    def chosen(self) -> dict[str, tuple[str, ...]]:
        """By benchmark of best of n, where the misalignment of the best of the most samples stands."""
        found = self.cells["mle"][0].metrics[BENCHMARKS]
        most = {name: max(found[name]["best_of"], key=int) for name in self.benchmarks_of("best_of_n")}
        return {name: (BENCHMARKS, name, "best_of", n, MISALIGNMENT) for name, n in most.items()}

    def estimate(self, name: str, *keys: str) -> Estimate | None:
        """The number under ``keys`` of an objective or arm, over seeds; None where no seed has it.

        ``keys`` may lead to a mapping with ``mean``, ``ci_low`` and ``ci_high``, or to a number with a standard error
        beside it under its name and ``_se``.
        """
        return over_seeds([cell.metrics for cell in self.every[name]], *keys)

    def under(self, series: Series, *keys: str) -> Estimate | None:
        """A number that is measured under each control."""
        return self.estimate(series.name, UNDER, series.control, *keys)

    def own(self, name: str) -> Series:
        """An objective or arm under its own control."""
        return Series(name, self.every[name][0].asked[0], True)

    def misalignment(self, name: str) -> Estimate | None:
        """That of an objective or arm under its own control."""
        return self.under(self.own(name), MISALIGNMENT)

    def measured(self, metric: Metric, series: Series) -> Estimate | None:
        """A metric of a series; what is of the model stands in the row of its own control alone."""
        if not (metric.is_under_control or series.is_own):
            return None
        return self.estimate(series.name, *metric.under(series.control))

    def heldout(self, *keys: str) -> Estimate | None:
        """What depends on the task alone, with its own interval: how bad real held-out text is."""
        return over_seeds([self.real], *keys)


def read(folders: Mapping[str, Path], root: Root) -> list[Task]:
    """Read the cells that ``params.yaml`` names; a missing file is an ``InputError`` that names the stage to run.

    ``folders`` of the reports: ``metrics``, ``samples``, ``curves``, ``scores``, ``corpora``, ``scorers``, ``heldout``,
    ``warnings``.
    """

    def cells(task: str, names: Sequence[str]) -> dict[str, tuple[Cell, ...]]:
        return {
            name: tuple(
                _cell(folders, task, name, seed, evaluated_by(task, name, seed), _curve(folders, task, name, seed))
                for seed in root.seeds
            )
            for name in names
        }

    def external(task: str) -> dict[str, tuple[Cell, ...]]:
        return {
            name: (_cell(folders, task, name, root.seeds[0], external_by(name, model.revision is not None), []),)
            for name, model in root.external.of(task).items()
        }

    def benchmarked(task: str, of: dict[str, tuple[Cell, ...]]) -> dict[str, tuple[Cell, ...]]:
        elsewhere = root.external.of(task)

        def stage(cell: Cell, benchmark: str) -> str:
            if cell.name in elsewhere:
                return external_by(cell.name, elsewhere[cell.name].revision is not None, "benchmark")
            return benchmarked_by(task, cell.name, cell.seed, benchmark)

        return {
            name: tuple(_asked(folders, task, cell, root.benchmarks, stage) for cell in cells)
            for name, cells in of.items()
        }

    return [
        Task(
            task,
            files.read_json(folders["corpora"] / f"{task}.json", f"corpus@{task}"),
            _scorer(folders["scorers"] / f"{task}.json", task),
            files.read_json(folders["scores"] / f"{task}.json", f"score@{task}"),
            _real(folders["heldout"] / f"{task}.json", f"heldout@{task}"),
            files.read_json(folders["warnings"] / f"{task}.json", f"warnings@{task}")["warnings"],
            benchmarked(task, cells(task, root.objectives)),
            benchmarked(task, cells(task, root.arms)),
            benchmarked(task, external(task)),
            {name: _replayed(folders, task, root.seeds, name) for name in root.benchmarks},
        )
        for task in root.tasks
    ]


def over_seeds(metrics: Sequence[Mapping[str, Any]], *keys: str) -> Estimate | None:
    """The number under ``keys`` in the metrics of each seed; None where none has it."""
    estimates = [estimate for of_seed in metrics if (estimate := _estimate(of_seed, keys)) is not None]
    if len(metrics) == 1 or not estimates:
        return estimates[0] if estimates else None
    values = tuple(estimate.value for estimate in estimates)
    low, high = interval(values) if len(values) >= LEAST_SEEDS else (min(values), max(values))
    return Estimate(math.fsum(values) / len(values), low, high, values)


def value_at(value: Any, keys: Sequence[str]) -> Any:
    """What stands under the keys; None where one of them is absent."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _scorer(path: Path, task: str) -> dict[str, Any]:
    scorer = files.read_json(path, f"scorer@{task}")
    if scorer.get("display") not in DISPLAYS:
        raise InputError(
            f"{path}: display must be one of {', '.join(DISPLAYS)}, found {scorer.get('display')!r}: set it in the "
            f"scorer's file and run `dvc repro scorer@{task}`"
        )
    return scorer


def _real(path: Path, made_by: str) -> dict[str, Any]:
    real = files.read_json(path, made_by)
    check(real, REAL_TEXT, str(path), made_by, head=())
    return real


def _cell(
    folders: Mapping[str, Path], task: str, name: str, seed: int, made_by: str, curve: list[dict[str, str]]
) -> Cell:
    place = Path(task, name)
    path = folders["metrics"] / place / f"{seed}.json"
    metrics = files.read_json(path, made_by)
    measures = metrics.get("measures") if isinstance(metrics, dict) else None
    try:
        declared = _declared(measures if isinstance(measures, list) else ())
    except InputError as error:  # a measure that there is no longer
        raise InputError(f"{path}: {error}: run `dvc repro -f {made_by}`") from None
    check(metrics, declared, str(path), made_by)
    samples = folders["samples"] / place / f"{seed}.parquet"
    if not samples.is_file():
        raise InputError(f"{samples} is missing: run `dvc repro {made_by}`")
    return Cell(name, seed, made_by, metrics, curve, samples)


def _asked(
    folders: Mapping[str, Path], task: str, cell: Cell, names: Sequence[str], stage: Callable[[Cell, str], str]
) -> Cell:
    """The cell with what the benchmarks found of it; nothing of those that the task is not for. ``stage`` names the
    one that runs a benchmark on a cell."""
    found, kinds = {}, {}
    for name in names:
        path = folders["metrics"] / task / cell.name / BENCHMARKS / name / f"{cell.seed}.json"
        made_by = stage(cell, name)
        entry = files.read_json(path, made_by)
        if entry["found"]:
            check(entry["found"], benchmarks.load(entry["kind"], str(path)).METRICS, str(path), made_by, head=())
            found[name], kinds[name] = entry["found"], entry["kind"]
    return replace(cell, metrics=cell.metrics | {BENCHMARKS: found}, benchmarks=kinds)


def _replayed(folders: Mapping[str, Path], task: str, seeds: Sequence[int], name: str) -> list[dict[str, Any]]:
    paths = [folders["metrics"] / task / "replay" / name / f"{seed}.json" for seed in seeds]
    found = [files.read_json(path, f"replay@{task}-{path.stem}-{name}")["found"] for path in paths]
    return [of_seed for of_seed in found if of_seed]


def _curve(folders: Mapping[str, Path], task: str, name: str, seed: int) -> list[dict[str, str]]:
    path = folders["curves"] / task / name / f"{seed}.csv"
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run `dvc repro {trained_by(task, name, seed)}`") from None


def _declared(measures: Iterable[str]) -> list[Metric]:
    return [metric for name in measures for metric in measure(name).METRICS]


def _by_name(metric: Metric, cells: Sequence[Cell]) -> list[Metric]:
    """The metric; one whose path leaves a name open (``judges.*``) once for each name, which stands for ``*`` then."""
    begin = 2 if metric.is_under_control else 0
    if ANY not in metric.keys[begin:] or not (metric.title or metric.column):
        return [metric]
    place = metric.keys.index(ANY, begin)
    above = [value_at(cell.metrics, metric.under(control)[:place]) for cell in cells for control in cell.asked]
    names = sorted({name for mapping in above if isinstance(mapping, Mapping) for name in mapping})
    paths = [".".join([*metric.keys[:place], name, *metric.keys[place + 1 :]]) for name in names]
    return [
        replace(metric, path=path, title=metric.title.replace(ANY, name), column=metric.column.replace(ANY, name))
        for name, path in zip(names, paths, strict=True)
    ]


def _estimate(metrics: Mapping[str, Any], keys: tuple[str, ...]) -> Estimate | None:
    value = _number(metrics, (*keys, "mean"))
    if value is not None:
        low, high = _number(metrics, (*keys, "ci_low")), _number(metrics, (*keys, "ci_high"))
        return Estimate(value, value if low is None else low, value if high is None else high)
    value = _number(metrics, keys)
    if value is None:
        return None
    error = NORMAL_95 * (_number(metrics, (*keys[:-1], f"{keys[-1]}_se")) or 0.0)
    return Estimate(value, value - error, value + error)


def _number(metrics: Mapping[str, Any], keys: Sequence[str]) -> float | None:
    value = value_at(metrics, keys)
    return value if isinstance(value, int | float) and math.isfinite(value) else None
