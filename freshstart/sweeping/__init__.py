"""Tuning an objective's own numbers: equal trials of each, the choice among them, and the ablations that they draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from freshstart import files, params
from freshstart.names import kind_of
from freshstart.progress import Progress
from freshstart.reporting.tables import write_csv
from freshstart.settings import known
from freshstart.sweeping import page, trials
from freshstart.sweeping.choice import choice, rule, table

REPORTS = Path("reports/sweep")


def sweep(task: str, names: Sequence[str]) -> None:
    """Run the trials of these objectives (default: all) that have not been run, then write and print what all gave.

    Writes reports/sweep/<task>.csv and .html, with every list of trials that is whole.
    """
    everything = params.load()
    task = everything.task(task)
    asked = trials.read(everything)
    lists = trials.lists(asked, everything, task)
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
    print(rule(asked))
    write_csv(REPORTS / f"{task}.csv", rows)
    files.write_text(REPORTS / f"{task}.html", page.build(everything.root.scale, task, asked, whole, chosen))
    print(f"{REPORTS / task}.html")


def _aligned(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [[*rows[0]], *([str("" if value is None else value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (map(str.ljust, line, widths) for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in padded)
