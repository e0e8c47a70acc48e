"""Maximum likelihood: L = -log p. The reference for every other objective (Korbak et al. 2023, eq. 2)."""

from __future__ import annotations

from dataclasses import dataclass

from freshstart.objectives import Numbers, ObjectiveSettings, TrainScores

STREAM = "plain"


@dataclass(frozen=True, kw_only=True)
class Settings(ObjectiveSettings):
    pass


def resolve(settings: Settings, scores: TrainScores) -> Numbers:
    return {}


def loss(logp, score, value, numbers):
    return -logp, {}
