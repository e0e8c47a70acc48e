"""Rewards: minus the score, raw, standardized or by rank; and the weights that rwr and awr make of them.

``raw``: r = -s. ``standardized``: r = (mean - s) / std, moments over training tokens, so that one ``beta`` means the
same for every scorer. ``rank``: r = 1 - 2 q(s), q the mid-rank quantile among training tokens, in [-1, 1]; kept as at
most ``KNOTS`` points and interpolated between them, exact where the scores take no more values than that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from freshstart.objectives import Numbers, ObjectiveSettings, TrainScores

if TYPE_CHECKING:
    from torch import Tensor

Transform = Literal["raw", "standardized", "rank"]
KNOTS = 1024


@dataclass(frozen=True, kw_only=True)
class WeightSettings(ObjectiveSettings):
    """What an objective that weighs by rewards is asked. Weights are at most ``most``, before they are normalized."""

    rewards: Transform = "standardized"
    beta: float = 1.0
    most: float = 20.0
    normalize: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta <= 0 or self.most <= 0:
            raise ValueError(f"beta and most must be above 0, found {self.beta} and {self.most}")


def resolve(transform: Transform, scores: TrainScores) -> Numbers:
    """The numbers of a transform, from the scores of the training tokens."""
    numbers: Numbers = {"rewards": transform}
    weights = scores.tokens.astype(np.float64)
    values = scores.segments.astype(np.float64)
    if transform == "standardized":
        mean = np.average(values, weights=weights)
        deviation = np.sqrt(np.average((values - mean) ** 2, weights=weights))
        numbers |= {"mean": float(mean), "deviation": float(deviation) or 1.0}
    elif transform == "rank":
        distinct, inverse = np.unique(values, return_inverse=True)
        mass = np.bincount(inverse, weights=weights)
        middle = (np.cumsum(mass) - mass / 2) / mass.sum()
        if len(distinct) > KNOTS:
            chosen = np.unique(np.searchsorted(middle, np.linspace(middle[0], middle[-1], KNOTS)))
            distinct, middle = distinct[chosen], middle[chosen]
        numbers |= {"knots": distinct.tolist(), "knot_rewards": (1 - 2 * middle).tolist()}
    return numbers


def reward(score: Tensor, numbers: Numbers) -> Tensor:
    """The reward of each position; NaN where the score is."""
    import torch

    if numbers["rewards"] == "raw":
        return -score
    if numbers["rewards"] == "standardized":
        return (numbers["mean"] - score) / numbers["deviation"]
    knots = torch.as_tensor(numbers["knots"], dtype=score.dtype, device=score.device)
    rewards = torch.as_tensor(numbers["knot_rewards"], dtype=score.dtype, device=score.device)
    if len(knots) == 1:
        return torch.where(score.isnan(), score, rewards[0])
    right = torch.searchsorted(knots, score.nan_to_num().contiguous()).clamp(1, len(knots) - 1)
    share = ((score - knots[right - 1]) / (knots[right] - knots[right - 1])).clamp(0, 1)
    return rewards[right - 1] + share * (rewards[right] - rewards[right - 1])


def weight(advantage: Tensor, beta: float, most: float) -> Tensor:
    """exp(advantage / beta), at most ``most``."""
    return (advantage / beta).exp().clamp(max=most)


def mean_weight(transform: Numbers, beta: float, most: float, scores: TrainScores) -> float:
    """The mean of ``weight(reward)`` over training tokens."""
    import torch

    rewards = reward(torch.from_numpy(scores.segments.astype(np.float64)), transform)
    return float(np.average(weight(rewards, beta, most).numpy(), weights=scores.tokens))


def spread(weights: Tensor, score: Tensor, threshold: float) -> dict[str, Tensor]:
    """What shows that weights do something: their ratio bad over good, and the effective sample size as a share."""
    import torch

    bad, good = score > threshold, score <= threshold
    known = torch.where(bad | good, weights, 0)
    return {
        "weight_bad": torch.where(bad, weights, 0).sum() / bad.sum(),
        "weight_good": torch.where(good, weights, 0).sum() / good.sum(),
        "effective_sample_share": known.sum() ** 2 / ((known**2).sum() * (bad | good).sum()),
    }
