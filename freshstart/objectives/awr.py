"""Advantage-weighted regression: L = -alpha w log p + (1 - alpha) (r - V)^2, w = exp((r - V) / beta).

(Peng et al. 2019; Korbak et al. 2023, eq. 8.) V is read from the position before the token, and is detached in the
weight. Weights are clipped at ``most`` and, with ``normalize``, brought to mean 1 over the scored tokens of the batch.
The value head is linear; with ``rewards: raw``, whose rewards lie in [-1, 0] for the paper's scorers, it is the
paper's -sigmoid. ``detach`` keeps the value loss from reaching the trunk of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from freshstart.objectives import Batch, Losses, Needs, Numbers, TrainScores, rewards

if TYPE_CHECKING:
    from torch import Tensor

NEEDS = Needs(magnitudes=True, value_head=True)


@dataclass(frozen=True, kw_only=True)
class Settings(rewards.WeightSettings):
    alpha: float = 0.5
    detach: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be from 0 to 1, found {self.alpha}")


def resolve(settings: Settings, scores: TrainScores) -> Numbers:
    numbers = {name: getattr(settings, name) for name in ("alpha", "beta", "most", "normalize", "detach")}
    threshold = settings.good.threshold(scores.segments)
    return {**rewards.resolve(settings.rewards, scores), **numbers, "threshold": threshold}


def weigh(batch: Batch, numbers: Numbers) -> tuple[Tensor, Tensor]:
    weight, _ = _weights(batch, numbers)
    return weight.sum(), (~batch.score.isnan()).to(weight.dtype).sum()


def loss(batch: Batch, numbers: Numbers) -> Losses:
    import torch

    scored = ~batch.score.isnan()
    weight, difference = _weights(batch, numbers)
    if numbers["normalize"]:
        weight = weight / (weight.sum() / scored.sum() if batch.mean_weight is None else batch.mean_weight)
    weight = torch.where(scored, weight, 1.0)
    value_loss = difference**2
    terms = {"value_loss": value_loss.mean(), **rewards.spread(weight, batch.score, numbers["threshold"])}
    return -numbers["alpha"] * weight * batch.logp + (1 - numbers["alpha"]) * value_loss, terms


def _weights(batch: Batch, numbers: Numbers) -> tuple[Tensor, Tensor]:
    """Weight, and reward - V, of each position; both 0 where there is no score."""
    import torch

    assert batch.value is not None
    value = -torch.sigmoid(batch.value) if numbers["rewards"] == "raw" else batch.value
    difference = torch.where(batch.score.isnan(), 0.0, rewards.reward(batch.score, numbers) - value)
    weight = rewards.weight(difference.detach(), numbers["beta"], numbers["most"])
    return torch.where(batch.score.isnan(), 0.0, weight), difference
