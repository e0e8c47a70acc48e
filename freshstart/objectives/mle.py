"""Maximum likelihood: L = -log p. The reference for every other objective (Korbak et al. 2023, eq. 2)."""

from __future__ import annotations

from freshstart.objectives import Batch, Losses, Needs, Numbers, ObjectiveSettings, TrainScores

NEEDS = Needs()
Settings = ObjectiveSettings


def resolve(settings: Settings, scores: TrainScores) -> Numbers:
    return {}


def loss(batch: Batch, numbers: Numbers) -> Losses:
    return -batch.logp, {}
