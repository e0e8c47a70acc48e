"""Which trial of a list is chosen, and the table of all.

The rule: of the trials of a list, the one with the fewest bits per byte of good held-out text. Of those that weigh
tokens (rwr, awr), only where the effective sample size, as a share, lies within the bounds of conf/sweep.yaml: below
them a few tokens carry the training, above them the weights do next to nothing; and of trials within ``TIE`` bits of
the fewest, the one whose weights do most. Misalignment is shown and never used.

The rule asks what an objective costs, not what it gains. Where nothing bounds how weak an objective may be (alpha of
unlikelihood, the quantile of filtered, drop and the threshold of conditional), the fewest bits are as a rule those of
the weakest setting: such trials are drawn, and none is chosen. There is one seed, hence the ties.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from freshstart.sweeping.trials import Result, Sweep

TIE = 0.01  # bits per byte that another seed may change
COLUMNS = ("bits_good", "effective_sample_share", "weight_bad_over_good", "misalignment", "ci_low", "ci_high")


def rule(sweep: Sweep) -> str:
    low, high = sweep.effective_sample_share
    return (
        "Chosen: the fewest bits per byte of good held-out text, among trials of a training's own numbers (learning "
        f"rates), and of objectives that weigh tokens where the effective sample size is from {low:g} to {high:g} of "
        f"the tokens; within {TIE:g} bits of the fewest, the smallest effective sample size. Misalignment is not used."
    )


def choice(results: Sequence[Result], bounds: tuple[float, float]) -> Result | None:
    """What the rule chooses of the trials of a list; None where none is eligible."""
    eligible = [result for result in results if is_eligible(result, bounds)]
    fewest = min((result.bits for result in eligible), default=0.0)
    near = [result for result in eligible if result.bits <= fewest + TIE]
    return min(near, key=lambda result: (result.effective_sample_share or 1.0, result.bits), default=None)


def is_eligible(result: Result, bounds: tuple[float, float]) -> bool:
    """Whether the effective sample size is within the bounds; without weights, whether only the training is changed."""
    share = result.effective_sample_share
    return "shards" not in result.trial.changes if share is None else bounds[0] <= share <= bounds[1]


def table(results: Mapping[str, Sequence[Result]], chosen: Mapping[str, Result | None]) -> Iterator[dict[str, Any]]:
    """A row a trial; what a trial does not have is None."""
    for name, tried in results.items():
        for result in tried:
            bad = result.misalignment
            values = (result.bits, result.effective_sample_share, result.weight_ratio)
            values += (bad.value, bad.low, bad.high) if bad else (None, None, None)
            yield {
                "objective": name,
                "trial": result.trial.number,
                "changes": changes(result),
                **{column: value and round(value, 5) for column, value in zip(COLUMNS, values, strict=True)},
                "default": "default" if result.trial.is_default else "",
                "chosen": "chosen" if result is chosen[name] else "",
            }


def changes(result: Result) -> str:
    return ", ".join(f"{name} {value}" for name, value in result.trial.values.items())
