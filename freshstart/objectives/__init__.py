"""Objectives: one small file each (``Kind``), found by its name; pure functions of what a batch says of each token.

A variant, ``awr-beta1``, is the objective before the hyphen with numbers of its own: a cell of its own everywhere.

The training loss is the plain mean of an objective's losses over positions, whatever they are. End-of-text and control
tokens have no score: they are always learned by likelihood with weight 1 and stay outside every value loss.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from freshstart import files
from freshstart.names import kind_of
from freshstart.settings import kind

if TYPE_CHECKING:
    from torch import Tensor

KIND = "def loss("  # what the file of an objective defines
NONE, GOOD, BAD = -1, 0, 1  # labels of a segment: no control token, or the index of one in the tokenizer's list
Numbers = dict[str, Any]
Terms = dict[str, "Tensor"]
Losses = tuple["Tensor", Terms]  # the loss of each position, and terms to log


class Batch(NamedTuple):
    """What a loss sees of each target: (rows, positions) each, fp32 (or fp64)."""

    logp: Tensor  # of the target, by the model that learns
    score: Tensor  # of the segment that holds the target; NaN at end-of-text and control tokens
    value: Tensor | None = None  # by the value head at the position before; where the objective needs it
    reference: Tensor | None = None  # log p of the target by the model that the run begins from; where it needs it
    mean_weight: Tensor | None = None  # of the whole batch, where only a part of it is at hand; see ``Kind.weigh``


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What an objective needs of its training.

    ``stream``: ``plain``, ``filtered`` (documents left out by ``keep``) or ``control`` (tokens put in by ``label``).
    ``magnitudes``: it matters by how much one text is worse than another, not only which is bad. ``value_head``: a
    linear head that reads the hidden state. ``reference``: log p by the model that the run begins from, kept frozen.
    """

    stream: Literal["plain", "filtered", "control"] = "plain"
    magnitudes: bool = False
    value_head: bool = False
    reference: bool = False


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
        if self.score is not None:
            return self.score
        with tempfile.TemporaryFile(dir=files.state_folder()) as file:  # sorted in part, on disk
            scores = np.memmap(file, segment_scores.dtype, "w+", shape=segment_scores.shape)
            scores[:] = segment_scores
            return float(np.quantile(scores, self.quantile, overwrite_input=True))


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """What every objective is asked. ``positions`` is the budget: positions trained on, control tokens included."""

    good: Good
    positions: int

    def __post_init__(self) -> None:
        if self.positions < 1:
            raise ValueError(f"positions must be at least 1, found {self.positions}")


@dataclass(frozen=True)
class TrainScores:
    """The scores of the training split: of each segment, with its number of tokens, and of each document.

    Those of the segments may be mapped from disk and larger than memory.
    """

    segments: np.ndarray  # float32
    tokens: np.ndarray  # int64
    documents: np.ndarray  # float32


class Kind(Protocol):
    """The module of an objective: what it needs, what it is asked, and these functions.

    ``resolve(settings, scores)`` gives the numbers that its loss needs of the training set, fixed once and for all in
    the manifest of its shards; ``loss(batch, numbers)`` a loss for each position, and terms to log.
    """

    NEEDS: Needs
    Settings: type[ObjectiveSettings]
    resolve: Callable[[Any, TrainScores], Numbers]
    loss: Callable[[Batch, Numbers], Losses]


@dataclass(frozen=True)
class Objective:
    """An objective's module, with None for what it leaves out.

    ``keep(document scores, numbers)`` says which documents stay (float32 to bool), where the stream is ``filtered``;
    ``label(segment scores, draws, numbers)`` gives each segment NONE or the index of a control token, where it is
    ``control``; ``draws`` are uniform in [0, 1). ``weigh(batch, numbers)`` gives the sum of the weights and their
    count, where weights are brought to mean 1 over a batch: where a batch is read in several pieces, the mean over all
    of them comes with each as ``mean_weight``.
    """

    name: str
    needs: Needs
    settings: type[ObjectiveSettings]
    resolve: Callable[[Any, TrainScores], Numbers]
    loss: Callable[[Batch, Numbers], Losses]
    weigh: Callable[[Batch, Numbers], tuple[Tensor, Tensor]] | None
    keep: Callable[[np.ndarray, Numbers], np.ndarray] | None
    label: Callable[[np.ndarray, np.ndarray, Numbers], np.ndarray] | None


def load(name: str, where: str = "objectives") -> Objective:
    """The objective of that name, or of the variant; InputError where there is none."""
    module: Kind = kind("freshstart.objectives", kind_of(name), "objective", where)
    optional = {part: getattr(module, part, None) for part in ("weigh", "keep", "label")}
    return Objective(name, module.NEEDS, module.Settings, module.resolve, module.loss, **optional)
