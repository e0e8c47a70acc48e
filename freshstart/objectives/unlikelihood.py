"""Unlikelihood: likelihood of good segments' tokens, and unlikelihood of bad segments' tokens.

L = -log p where s <= t, and -alpha log(1 - p) where s > t (Welleck et al. 2020; Korbak et al. 2023, eq. 6). log(1 - p)
is computed as log(-expm1(log p)), exact near p = 1, where 1 - exp(log p) rounds to 0 and the most certain bad tokens
would get no push. From log p = -1e-7 on, as near to 1 as fp32 gets, the loss goes on as a straight line, since its
gradient by log p, p / (1 - p), would grow without bound; that by the logits is p in front of it, as everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from freshstart.objectives import Batch, Losses, Needs, Numbers, ObjectiveSettings, TrainScores

NEEDS = Needs()
MOST_LOGP = -1e-7
STEEPEST = 1 / math.expm1(-MOST_LOGP)  # p / (1 - p) at MOST_LOGP


@dataclass(frozen=True, kw_only=True)
class Settings(ObjectiveSettings):
    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha < 0:
            raise ValueError(f"alpha must be at least 0, found {self.alpha}")


def resolve(settings: Settings, scores: TrainScores) -> Numbers:
    return {"threshold": settings.good.threshold(scores.segments), "alpha": settings.alpha}


def loss(batch: Batch, numbers: Numbers) -> Losses:
    import torch

    bad = batch.score > numbers["threshold"]  # false where the score is NaN
    curve = -torch.log(-torch.expm1(batch.logp.clamp(max=MOST_LOGP)))
    line = STEEPEST * (batch.logp - MOST_LOGP) + math.log(1 / -math.expm1(MOST_LOGP))
    unlikelihood = torch.where(batch.logp > MOST_LOGP, line, curve)
    losses = torch.where(bad, numbers["alpha"] * unlikelihood, -batch.logp)
    return losses, {"share_bad": bad.to(batch.logp.dtype).mean()}
