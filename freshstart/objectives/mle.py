"""Maximum likelihood: L = -log p. The reference for every other objective (Korbak et al. 2023, eq. 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from freshstart.objectives import Batch, Needs, Numbers, ObjectiveSettings, Terms, TrainScores

if TYPE_CHECKING:
    from torch import Tensor

NEEDS = Needs()


@dataclass(frozen=True, kw_only=True)
class Settings(ObjectiveSettings):
    pass


def resolve(settings: Settings, scores: TrainScores) -> Numbers:
    return {}


def loss(batch: Batch, numbers: Numbers) -> tuple[Tensor, Terms]:
    return -batch.logp, {}
