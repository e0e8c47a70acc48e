"""Maximum likelihood on the documents that score best: those at or under a quantile of the document scores.

(Korbak et al. 2023, eq. 4.) With ``budget: repeat`` the budget is filled from the same raw corpus, over more epochs;
with ``fresh`` nothing may be seen twice, so that the corpus must be larger, and shards refuses one that is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from freshstart.objectives import Batch, Losses, Needs, Numbers, ObjectiveSettings, TrainScores

NEEDS = Needs(stream="filtered", magnitudes=True)


@dataclass(frozen=True, kw_only=True)
class Settings(ObjectiveSettings):
    quantile: float = 0.5
    budget: Literal["repeat", "fresh"] = "repeat"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.quantile <= 1:
            raise ValueError(f"quantile must be above 0 and at most 1, found {self.quantile}")


def resolve(settings: Settings, scores: TrainScores) -> Numbers:
    return {"document_threshold": float(np.quantile(scores.documents, settings.quantile)), "budget": settings.budget}


def keep(document_scores: np.ndarray, numbers: Numbers) -> np.ndarray:
    return document_scores <= np.float32(numbers["document_threshold"])


def loss(batch: Batch, numbers: Numbers) -> Losses:
    return -batch.logp, {}
