"""The files of all cells, read into records: exactly the cells that ``params.yaml`` names, none left out.

A cell is one task, objective and seed. Figures and tables take their numbers from ``Task.estimate``, so that one seed
and several are told apart in one place: with one seed a number carries its bootstrap interval over samples; with
several it is the mean over seeds, with their range.

A finetuned arm, ``<objective>-from-<share>``, has cells too: mle's model after that share of its budget went on with
the objective.
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

NORMAL_95 = 1.96
CENTRES = ("mean", "tau")  # what an estimate with ci_low and ci_high may be called
FROM = "-from-"  # between the objective and the share in the name of a finetuned arm
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

    objective: str
    seed: int
    metrics: dict[str, Any]
    curve: list[dict[str, str]]
    samples: Path

    @property
    def controls(self) -> tuple[str, ...]:
        """The control tokens it was asked under, its own first; ``none`` for a model without them."""
        return ("good", "bad") if "misalignment_under_bad" in self.metrics else ("none",)

    @property
    def began(self) -> float:
        """Positions that mle's model was trained on before this one went on with it; 0 for one trained from scratch."""
        return self.number("finetuned", "from_positions") or 0.0

    def number(self, *keys: str) -> float | None:
        """A number of the metrics file; None where a key is absent, null or not a number."""
        return _number(self.metrics, keys)


@dataclass(frozen=True)
class Series:
    """One row of a figure or table: an objective asked under a control token."""

    objective: str
    control: str

    @property
    def label(self) -> str:
        return "under <|bad|>" if self.control == "bad" else self.objective

    @property
    def misalignment(self) -> str:
        """The key of its misalignment in the metrics file."""
        return "misalignment_under_bad" if self.control == "bad" else "misalignment"


@dataclass(frozen=True)
class Task:
    """All cells of a task, by objective, with what is known of its corpus, its scorer and its scores.

    ``arms`` are the cells of its finetuned arms, by name. Figures show the objectives, tables the arms below them.
    """

    name: str
    corpus: dict[str, Any]
    scorer: dict[str, Any]
    scores: dict[str, Any]
    cells: dict[str, tuple[Cell, ...]]
    arms: dict[str, tuple[Cell, ...]] = field(default_factory=dict)

    @property
    def every(self) -> dict[str, tuple[Cell, ...]]:
        """The cells of the objectives, then those of the arms."""
        return {**self.cells, **self.arms}

    @property
    def rows(self) -> list[Series]:
        """``series``, then every arm under every control token."""
        return [Series(name, control) for name, cells in self.every.items() for control in cells[0].controls]

    @property
    def series(self) -> list[Series]:
        """Every objective under every control token, in the order of ``params.yaml``."""
        return [series for series in self.rows if series.objective in self.cells]

    @property
    def own(self) -> list[Series]:
        """Every objective as it is meant to be used: a conditional model under ``<|good|>``."""
        return [series for series in self.series if series.control != "bad"]

    def estimate(self, objective: str, *keys: str) -> Estimate | None:
        """The number under ``keys`` of an objective or arm, over seeds; None where no seed has it.

        ``keys`` may lead to a mapping with ``mean`` or ``tau``, ``ci_low`` and ``ci_high``, or to a number with a
        standard error beside it under its name and ``_se``.
        """
        return over_seeds([cell.metrics for cell in self.every[objective]], *keys)

    def heldout(self, part: str) -> Estimate | None:
        """How bad real held-out text is (``all``, ``good_half``): the same for all cells, with its own interval."""
        return self.shared("heldout", "misalignment", part)

    def shared(self, *keys: str) -> Estimate | None:
        """A number that is the same for all cells of the task, with its own interval."""
        return over_seeds([next(iter(self.cells.values()))[0].metrics], *keys)


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


def objective_of(arm: str) -> str:
    return arm.rpartition(FROM)[0]


def trained_by(task: str, name: str, seed: int) -> str:
    """The stage that trains a cell, as `dvc repro` names it."""
    return f"{'finetune' if FROM in name else 'train'}@{task}-{name.replace(FROM, '-')}-{seed}"


def evaluated_by(task: str, name: str, seed: int) -> str:
    """The stage that evaluates a cell, as `dvc repro` names it."""
    return f"{'evaluate_finetuned' if FROM in name else 'evaluate'}@{task}-{name.replace(FROM, '-')}-{seed}"


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


def _cell(folders: Folders, task: str, objective: str, seed: int) -> Cell:
    place, made_by = Path(task, objective), evaluated_by(task, objective, seed)
    metrics = files.read_json(folders.metrics / place / f"{seed}.json", made_by)
    samples = folders.samples / place / f"{seed}.parquet"
    if not samples.is_file():
        raise InputError(f"{samples} is missing: run `dvc repro {made_by}`")
    curve = folders.curves / place / f"{seed}.csv"
    try:
        with open(curve, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise InputError(f"{curve} is missing: run `dvc repro {trained_by(task, objective, seed)}`") from None
    return Cell(objective, seed, metrics, rows, samples)


def _bounds(metrics: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[float, float, float] | None:
    value = next((found for name in CENTRES if (found := _number(metrics, (*keys, name))) is not None), None)
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
