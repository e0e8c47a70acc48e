"""Tuning an objective's own numbers: equal trials of each, the choice among them, and the ablations that they draw.

The rule: of the trials of a list, the one with the fewest bits per byte of good held-out text. Of those that weigh
tokens (rwr, awr), only where the effective sample size, as a share, lies within the bounds of conf/sweep.yaml: below
them a few tokens carry the training, above them the weights do next to nothing. Misalignment is shown and never used.

The rule asks what an objective costs, not what it gains. Where nothing bounds how weak an objective may be (alpha of
unlikelihood, the quantile of filtered, drop and the threshold of conditional), the fewest bits are as a rule those of
the weakest setting: such trials are drawn, and none is chosen. And there is one seed: differences of a hundredth of a
bit are within what another seed changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freshstart import files, params
from freshstart.names import kind_of
from freshstart.progress import Progress
from freshstart.settings import known

if TYPE_CHECKING:
    from freshstart.sweeping.trials import Result

REPORTS = Path("reports/sweep")
COLUMNS = ("bits_good", "effective_sample_share", "weight_bad_over_good", "misalignment", "ci_low", "ci_high")


def sweep(task: str, names: Sequence[str]) -> None:
    """Run the trials of these objectives (default: all) that have not been run, then write and print what all gave.

    Writes reports/sweep/<task>.csv and .html, with every list of trials that is whole.
    """
    from freshstart.sweeping import page, trials

    everything = params.load()
    task = everything.task(task)
    asked = trials.read(everything)
    lists = trials.trials(asked, everything, task)
    for name in names:
        known(name, (*lists, *map(kind_of, lists)), "objective", f"trials in {trials.FILE}")
    wanted = [
        trial for name, tried in lists.items() if not names or {name, kind_of(name)} & {*names} for trial in tried
    ]
    threshold = trials.good_threshold(everything, task)
    with Progress(f"sweep of {task}", len(wanted), "trials") as progress:
        for trial in wanted:
            trials.run(trial, threshold)
            progress.advance(note=f"{trial.name} {trial.values}")
    results = {name: [trials.result(trial) for trial in tried] for name, tried in lists.items()}
    whole = {name: [r for r in tried if r is not None] for name, tried in results.items() if None not in tried}
    chosen = {name: choice(tried, asked.effective_sample_share) for name, tried in whole.items()}
    rows = [*table(whole, chosen)]
    print(_aligned(rows))
    print(page.rule(asked))
    from freshstart.reporting.tables import write_csv

    write_csv(REPORTS / f"{task}.csv", rows)
    files.write_text(REPORTS / f"{task}.html", page.build(everything.root.scale, task, asked, whole, chosen))
    print(f"{REPORTS / task}.html")


def choice(results: Sequence[Result], bounds: tuple[float, float]) -> Result | None:
    """The trial with the fewest bits of those that may be chosen, the first of equal ones; None where none may."""
    eligible = [result for result in results if is_eligible(result, bounds)]
    return min(eligible, key=lambda result: result.bits, default=None)


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


def _aligned(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [[*rows[0]], *([str("" if value is None else value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (map(str.ljust, line, widths) for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in padded)
