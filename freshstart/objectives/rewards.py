"""Rewards: minus the score, raw, standardized or by rank; and the weights that rwr and awr make of them.

``raw``: r = -s. ``standardized``: r = (mean - s) / std, moments over training tokens, so that one ``beta`` means the
same for every scorer. ``rank``: r = 1 - 2 q(s), q the mid-rank quantile among training tokens, in [-1, 1]; kept as at
most ``KNOTS`` points and interpolated between them, exact where the scores take no more values than that.

Sums over training segments are taken in pieces of at most ``CHUNK``, in the order in which numpy adds up a whole array,
and ranks by a sort on disk, so that memory does not grow with the corpus.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from freshstart import files
from freshstart.objectives import Numbers, ObjectiveSettings, TrainScores
from freshstart.tokens.store import NpyWriter

if TYPE_CHECKING:
    from torch import Tensor

Transform = Literal["raw", "standardized", "rank"]
KNOTS = 1024
CHUNK = 1 << 20  # segments


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
    if transform == "standardized":
        mean = _mean(lambda values: values, scores)
        deviation = np.sqrt(_mean(lambda values: (values - mean) ** 2, scores))
        numbers |= {"mean": float(mean), "deviation": float(deviation) or 1.0}
    elif transform == "rank":
        with tempfile.TemporaryDirectory(dir=files.state_folder()) as folder:
            distinct, middle = _mid_ranks(scores, Path(folder))
            if len(distinct) > KNOTS:
                chosen = np.unique(np.searchsorted(middle, np.linspace(middle[0], middle[-1], KNOTS)))
                distinct, middle = distinct[chosen], middle[chosen]
            numbers |= {"knots": distinct.tolist(), "knot_rewards": (1 - 2 * middle).tolist()}
    return numbers


def _mean(function: Callable[[np.ndarray], np.ndarray], scores: TrainScores) -> float:
    """The mean over training tokens of a function of the score."""

    def total(begin: int, end: int) -> float:
        if end - begin <= CHUNK:
            values = function(scores.segments[begin:end].astype(np.float64))
            return (values * scores.tokens[begin:end].astype(np.float64)).sum()
        half = (end - begin) // 2
        middle = begin + half - half % 8  # where numpy's pairwise summation divides
        return total(begin, middle) + total(middle, end)

    return total(0, len(scores.segments)) / scores.tokens.sum()


def _mid_ranks(scores: TrainScores, folder: Path) -> np.ndarray:
    """The distinct scores and the mid-rank quantile of each, (2, scores), as a file in ``folder``."""
    with NpyWriter(folder / "pairs.npy", np.dtype("c8")) as writer:  # complex numbers, which sort by their real parts
        for begin in range(0, len(scores.segments), CHUNK):
            chunk = slice(begin, begin + CHUNK)
            writer.append(scores.segments[chunk] + 1j * scores.tokens[chunk])
    pairs = np.load(folder / "pairs.npy", mmap_mode="r+")
    pairs.sort()
    every, below = scores.tokens.sum(), 0.0
    with NpyWriter(folder / "ranks.npy", np.dtype(("f8", 2))) as writer:
        for values, mass in _distinct(pairs):
            writer.append(np.stack([values, (below + np.cumsum(mass) - mass / 2) / every], axis=1))
            below += mass.sum()
    return np.load(folder / "ranks.npy", mmap_mode="r").T


def _distinct(pairs: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Distinct scores and the tokens of each, of sorted pairs; the last of a chunk waits, since it may go on."""
    last, tokens = pairs[0].real, 0.0
    for begin in range(0, len(pairs), CHUNK):
        chunk = pairs[begin : begin + CHUNK]
        values, inverse = np.unique(np.append(last, chunk.real), return_inverse=True)
        mass = np.bincount(inverse, weights=np.append(tokens, chunk.imag))
        yield values[:-1], mass[:-1]
        last, tokens = values[-1], mass[-1]
    yield np.array([last]), np.array([tokens])


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

    return float(_mean(lambda values: weight(reward(torch.from_numpy(values), transform), beta, most).numpy(), scores))


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
