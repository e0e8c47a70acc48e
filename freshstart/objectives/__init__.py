"""Objectives: one small file each, found by its name; pure functions of per-token log p, score and value.

An objective's module holds

- ``Settings``, a dataclass that extends ``ObjectiveSettings``;
- ``STREAM``: ``plain``, ``filtered`` (documents left out by ``keep``) or ``control`` (tokens put in by ``label``);
- ``MAGNITUDES``, true where it matters by how much one text is worse than another, not only which is bad;
- ``resolve(settings, scores) -> numbers``: what its loss needs of the training set, fixed once and for all in the
  manifest of its shards;
- ``loss(logp, score, value, numbers) -> (losses, terms)``: a loss for each position, and what to log;
- ``weigh(score, value, numbers) -> (sum, count)``, where weights are brought to mean 1 over a batch: those of the rows
  at hand. Where a batch is read in several pieces, the mean over all of them is put into ``numbers["mean_weight"]``.

Shapes: ``logp``, ``score`` and ``value`` are (rows, positions), fp32 (or fp64). ``score`` is NaN at end-of-text and
control tokens: they are always learned by likelihood with weight 1 and stay outside every value loss. ``value`` is None
unless ``VALUE_HEAD`` is true. The training loss is the plain mean over positions, whatever they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Numbers = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Good:
    """Which segments are good: those that score at most ``score``, or at most this ``quantile`` of all segments."""

    score: float | None = None
    quantile: float | None = None

    def __post_init__(self) -> None:
        if (self.score is None) == (self.quantile is None):
            raise ValueError("good needs either score or quantile")
        if self.quantile is not None and not 0 <= self.quantile <= 1:
            raise ValueError(f"good.quantile must be from 0 to 1, found {self.quantile}")

    def threshold(self, segment_scores: np.ndarray) -> float:
        return self.score if self.score is not None else float(np.quantile(segment_scores, self.quantile))


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """What every objective is asked.

    ``positions`` is the budget: positions trained on, control tokens included. ``learning_rate`` and ``batch_size``
    take the place of the train section's for this objective.
    """

    good: Good
    positions: int
    learning_rate: float | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.positions < 1:
            raise ValueError(f"positions must be at least 1, found {self.positions}")
        if self.learning_rate is not None and self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be above 0, found {self.learning_rate}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, found {self.batch_size}")


@dataclass(frozen=True)
class TrainScores:
    """The scores of the training split: of each segment, with its number of tokens, and of each document."""

    segments: np.ndarray  # float32
    tokens: np.ndarray  # int64
    documents: np.ndarray  # float32


@dataclass(frozen=True)
class Objective:
    """An objective's module, with what it leaves out filled in."""

    name: str
    stream: str
    value_head: bool
    magnitudes: bool
    resolve: Callable[[Any, TrainScores], Numbers]
    loss: Callable[..., tuple[Any, dict[str, Any]]]
    weigh: Callable[..., tuple[Any, Any]] | None
    keep: Callable[[np.ndarray, Numbers], np.ndarray] | None
    label: Callable[[np.ndarray, np.ndarray, Numbers], np.ndarray] | None


def load(name: str) -> Objective:
    """The objective of a name that ``params`` has checked."""
    import importlib

    module = importlib.import_module(f"freshstart.objectives.{name}")
    return Objective(
        name=name,
        stream=module.STREAM,
        value_head=getattr(module, "VALUE_HEAD", False),
        magnitudes=getattr(module, "MAGNITUDES", False),
        resolve=module.resolve,
        loss=module.loss,
        weigh=getattr(module, "weigh", None),
        keep=getattr(module, "keep", None),
        label=getattr(module, "label", None),
    )


def settings(shards: Mapping[str, Any], task: str, objective: str, where: str) -> ObjectiveSettings:
    """The settings of one objective for one task, from the shards section of the scale file.

    ``every`` holds what all objectives share and, under an objective's name, its own; a task's block may change both.
    """
    from freshstart.errors import InputError
    from freshstart.params import SHARED, build, found_module, mapping, module_names

    model = found_module("freshstart.objectives", objective, "objective", where).Settings
    if task not in shards:
        raise InputError(f"{where}.{task} is missing; the section has {', '.join(shards)}")
    blocks = [mapping(shards.get(name), f"{where}.{name}") for name in (SHARED, task)]
    names = module_names("freshstart.objectives")
    common = [{key: value for key, value in block.items() if key not in names} for block in blocks]
    own = [mapping(block.get(objective), f"{where}.{task}.{objective}") for block in blocks]
    merged = {key: value for block in (*common, *own) for key, value in block.items()}
    return build(model, merged, f"{where}.{task}.{objective}")
