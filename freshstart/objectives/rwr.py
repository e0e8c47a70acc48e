"""Reward-weighted regression: L = -w log p, w = exp(r / beta) (Peters and Schaal 2007; Korbak et al. 2023, eq. 7).

Weights are clipped at ``most`` and, with ``normalize``, divided by their mean over training tokens, so that the step
size does not depend on beta. The paper's own is ``rewards: raw``, ``beta: 10``, ``most: 1000``, ``normalize: false``:
with scores of a few hundredths that is maximum likelihood in all but name.
"""

from __future__ import annotations

from freshstart.objectives import Batch, Losses, Needs, Numbers, TrainScores, rewards

NEEDS = Needs(magnitudes=True)
Settings = rewards.WeightSettings


def resolve(settings: Settings, scores: TrainScores) -> Numbers:
    transform = rewards.resolve(settings.rewards, scores)
    mean = rewards.mean_weight(transform, settings.beta, settings.most, scores) if settings.normalize else 1.0
    threshold = settings.good.threshold(scores.segments)
    return {**transform, "beta": settings.beta, "most": settings.most, "mean_weight": mean, "threshold": threshold}


def loss(batch: Batch, numbers: Numbers) -> Losses:
    import torch

    reward = rewards.reward(batch.score, numbers)
    weight = rewards.weight(reward, numbers["beta"], numbers["most"]) / numbers["mean_weight"]
    weight = torch.where(batch.score.isnan(), 1.0, weight)
    return -weight * batch.logp, rewards.spread(weight, batch.score, numbers["threshold"])
