"""The files of all cells, read into records: exactly the cells that ``params.yaml`` names, none left out.

A cell is one task, objective and seed; a finetuned arm has cells too. Figures and tables take their numbers from
``Task``, so that one seed and several are told apart in one place: with one seed a number carries its bootstrap
interval over samples; with several it is the mean over seeds, with their range.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from freshstart import files
from freshstart.errors import InputError
from freshstart.evaluation import heldout, measure
from freshstart.evaluation.metrics import UNDER, Metric, asked, check
from freshstart.names import evaluated_by, trained_by

NORMAL_95 = 1.96
MISALIGNMENT = "misalignment"
BITS = ("heldout", "bits_per_byte", "all")
DISPLAYS = ("plain", "mask", "fold")  # how the page shows what the scorer found; nothing is shown on a guess


@dataclass(frozen=True)
class Estimate:
    """A number with its bounds; ``runs`` holds the number of each seed where there are several."""

    value: float
    low: float
    high: float
    runs: tuple[float, ...] = ()

    def below(self, other: Estimate) -> bool:
        """Whether it lies wholly below the other: their bounds do not meet."""
        return self.high < other.low


@dataclass(frozen=True)
class Cell:
    """What the stages train and evaluate left of one cell."""

    name: str
    seed: int
    metrics: dict[str, Any]
    curve: list[dict[str, str]]
    samples: Path

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
    """One row of a figure or table: an objective or arm asked under a control, its ``own`` or another."""

    name: str
    control: str
    own: bool

    @property
    def label(self) -> str:
        return self.name if self.own else f"under <|{self.control}|>"


@dataclass(frozen=True)
class Task:
    """All cells of a task, by objective, with what is known of its corpus, scorer, scores and held-out text.

    ``arms`` are the cells of its finetuned arms, by name. Figures show the objectives, tables the arms below them.
    """

    name: str
    corpus: dict[str, Any]
    scorer: dict[str, Any]
    scores: dict[str, Any]
    real: dict[str, Any]
    cells: dict[str, tuple[Cell, ...]]
    arms: dict[str, tuple[Cell, ...]] = field(default_factory=dict)

    @property
    def every(self) -> dict[str, tuple[Cell, ...]]:
        """The cells of the objectives, then those of the arms."""
        return {**self.cells, **self.arms}

    @property
    def rows(self) -> list[Series]:
        """``series``, then every arm under every control."""
        return [
            Series(name, control, control == cells[0].asked[0])
            for name, cells in self.every.items()
            for control in cells[0].asked
        ]

    @property
    def series(self) -> list[Series]:
        """Every objective under every control, in the order of ``params.yaml``."""
        return [series for series in self.rows if series.name in self.cells]

    @property
    def own(self) -> list[Series]:
        """Every objective as it is meant to be used: a conditional model under ``<|good|>``."""
        return [series for series in self.series if series.own]

    @property
    def metrics(self) -> list[Metric]:
        """What was measured, as the measures declare it."""
        first = next(iter(self.cells.values()))[0]
        return [metric for name in first.metrics["measures"] for metric in measure(name).METRICS]

    def estimate(self, name: str, *keys: str) -> Estimate | None:
        """The number under ``keys`` of an objective or arm, over seeds; None where no seed has it.

        ``keys`` may lead to a mapping with ``mean``, ``ci_low`` and ``ci_high``, or to a number with a standard error
        beside it under its name and ``_se``.
        """
        return over_seeds([cell.metrics for cell in self.every[name]], *keys)

    def under(self, series: Series, *keys: str) -> Estimate | None:
        """A number that is measured under each control."""
        return self.estimate(series.name, UNDER, series.control, *keys)

    def misalignment(self, name: str) -> Estimate | None:
        """That of an objective or arm under its own control."""
        return self.estimate(name, UNDER, self.every[name][0].asked[0], MISALIGNMENT)

    def of(self, metric: Metric, series: Series) -> Estimate | None:
        """A metric of a series; what is of the model stands in the row of its own control alone."""
        if not (metric.is_under_control or series.own):
            return None
        return self.estimate(series.name, *metric.under(series.control))

    def heldout(self, *keys: str) -> Estimate | None:
        """What depends on the task alone, with its own interval: how bad real held-out text is."""
        return over_seeds([self.real], *keys)


@dataclass(frozen=True)
class Results:
    """All that the page and the tables are made of."""

    scale: str
    objectives: tuple[str, ...]
    seeds: tuple[int, ...]
    tasks: tuple[Task, ...]
    arms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Folders:
    """Where the reports of the other stages lie."""

    metrics: Path
    samples: Path
    curves: Path
    scores: Path
    corpora: Path
    scorers: Path
    heldout: Path


def read(
    folders: Folders,
    scale: str,
    tasks: Sequence[str],
    objectives: Sequence[str],
    seeds: Sequence[int],
    arms: Sequence[str] = (),
) -> Results:
    """Read the named cells; a missing file is an ``InputError`` that names the stage to run."""
    return Results(
        scale,
        tuple(objectives),
        tuple(seeds),
        tuple(
            Task(
                task,
                files.read_json(folders.corpora / f"{task}.json", f"corpus@{task}"),
                _scorer(folders.scorers / f"{task}.json", task),
                files.read_json(folders.scores / f"{task}.json", f"score@{task}"),
                _real(folders.heldout / f"{task}.json", task),
                {name: tuple(_cell(folders, task, name, seed) for seed in seeds) for name in objectives},
                {name: tuple(_cell(folders, task, name, seed) for seed in seeds) for name in arms},
            )
            for task in tasks
        ),
        tuple(arms),
    )


def over_seeds(metrics: Sequence[Mapping[str, Any]], *keys: str) -> Estimate | None:
    """The number under ``keys`` in the metrics of each seed; None where none has it."""
    found = [bounds for one in metrics if (bounds := _bounds(one, keys)) is not None]
    if not found:
        return None
    values = tuple(value for value, _, _ in found)
    if len(metrics) == 1:
        return Estimate(*found[0])
    return Estimate(math.fsum(values) / len(values), min(values), max(values), values)


def _scorer(path: Path, task: str) -> dict[str, Any]:
    scorer = files.read_json(path, f"scorer@{task}")
    if scorer.get("display") not in DISPLAYS:
        raise InputError(
            f"{path}: display must be one of {', '.join(DISPLAYS)}, found {scorer.get('display')!r}: set it in the "
            f"scorer's file and run `dvc repro scorer@{task}`"
        )
    return scorer


def _real(path: Path, task: str) -> dict[str, Any]:
    real = files.read_json(path, f"heldout@{task}")
    check(real, heldout.METRICS, str(path), f"heldout@{task}", head=())
    return real


def _cell(folders: Folders, task: str, name: str, seed: int) -> Cell:
    place, made_by = Path(task, name), evaluated_by(task, name, seed)
    path = folders.metrics / place / f"{seed}.json"
    metrics = files.read_json(path, made_by)
    measures = metrics.get("measures", []) if isinstance(metrics, dict) else []
    check(metrics, [metric for one in measures for metric in measure(one).METRICS], str(path), made_by)
    samples = folders.samples / place / f"{seed}.parquet"
    if not samples.is_file():
        raise InputError(f"{samples} is missing: run `dvc repro {made_by}`")
    curve = folders.curves / place / f"{seed}.csv"
    try:
        with open(curve, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise InputError(f"{curve} is missing: run `dvc repro {trained_by(task, name, seed)}`") from None
    return Cell(name, seed, metrics, rows, samples)


def _bounds(metrics: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[float, float, float] | None:
    value = _number(metrics, (*keys, "mean"))
    if value is not None:
        low, high = _number(metrics, (*keys, "ci_low")), _number(metrics, (*keys, "ci_high"))
        return (value, value if low is None else low, value if high is None else high)
    value = _number(metrics, keys)
    if value is None:
        return None
    error = NORMAL_95 * (_number(metrics, (*keys[:-1], f"{keys[-1]}_se")) or 0.0)
    return (value, value - error, value + error)


def _number(metrics: Mapping[str, Any], keys: Sequence[str]) -> float | None:
    value: Any = metrics
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, int | float) and math.isfinite(value) else None
