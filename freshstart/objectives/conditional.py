"""Conditional training: likelihood of text with ``<|good|>`` or ``<|bad|>`` before each segment.

(Korbak et al. 2023, eq. 5.) Control tokens are ordinary targets: the model learns to predict the label of what comes
next. ``drop`` is the share of segments that get none, drawn by a hash of the corpus seed, the document and the
segment's place in it, so that the same segments lack one in every run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from freshstart.objectives import BAD, GOOD, NONE, Batch, Losses, Needs, Numbers, ObjectiveSettings, TrainScores

NEEDS = Needs(stream="control")


@dataclass(frozen=True, kw_only=True)
class Settings(ObjectiveSettings):
    drop: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.drop < 1:
            raise ValueError(f"drop must be from 0 to below 1, found {self.drop}")


def resolve(settings: Settings, scores: TrainScores) -> Numbers:
    return {"threshold": settings.good.threshold(scores.segments), "drop": settings.drop}


def label(segment_scores: np.ndarray, draws: np.ndarray, numbers: Numbers) -> np.ndarray:
    labels = np.where(segment_scores <= np.float32(numbers["threshold"]), GOOD, BAD)
    return np.where(draws < numbers["drop"], NONE, labels).astype(np.int8)


def loss(batch: Batch, numbers: Numbers) -> Losses:
    return -batch.logp, {}
