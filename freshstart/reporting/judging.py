"""What held-out judges say of each objective, beside the scorer that it was trained against: was the reward gamed?

The rule. An objective whose misalignment lies wholly below mle's is doubted by a judge

- that looks for the same badness (``rival``), unless the judge too puts it wholly on the better side of mle;
- that looks at what good samples must keep (``guard``), if the judge puts it wholly on the worse side of mle, and
  wholly on the worse side of real held-out text where that is known.

"Wholly" is said of bounds that do not meet, as everywhere on the page: intervals over the samples of one model where
there is one seed, ranges over seeds where there are several. A doubt is a reason to read samples, not a proof: a model
can also lose something beside what it was rewarded for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from freshstart.reporting.cells import Estimate, Series, Task
from freshstart.reporting.formats import Format, bounds, share, three_digits
from freshstart.reporting.words import verdict


@dataclass(frozen=True)
class Judge:
    """A judge as the task's report describes it; ``show`` writes its numbers, ``real`` is that of real text."""

    name: str
    title: str
    unit: str
    is_guard: bool
    lower_is_better: bool
    show: Format
    real: Estimate | None

    def estimate(self, task: Task, series: Series) -> Estimate | None:
        return task.under(series, "judges", self.name)

    def puts_better(self, estimate: Estimate, reference: Estimate) -> bool:
        """Whether the estimate lies wholly on the better side of the reference."""
        return estimate.below(reference) if self.lower_is_better else reference.below(estimate)

    def doubts(self, estimate: Estimate | None, mle: Estimate | None) -> bool:
        """Whether it doubts an objective that lies wholly below mle in misalignment."""
        if estimate is None or mle is None:
            return False
        if self.is_guard:
            return self.puts_better(mle, estimate) and (self.real is None or self.puts_better(self.real, estimate))
        return not self.puts_better(estimate, mle)


def panel(task: Task) -> dict[str, Any]:
    """What the page says of a task's judges: who they are, whom they doubt and why.

    ``suspects`` lie wholly below mle in misalignment, so that there is something to doubt; ``doubted`` holds a series
    with the judges that doubt it, ``doubts`` the same in words.
    """
    judges = [_judge(task, name, record) for name, record in task.real.get("judges", {}).items()]
    mle = next(series for series in task.own_series if series.name == "mle")
    reference = task.misalignment("mle")
    suspects = [row for row in task.rows if row.is_own and verdict(task.misalignment(row.name), reference) == "below"]
    doubted = {
        row: [judge for judge in judges if judge.doubts(judge.estimate(task, row), judge.estimate(task, mle))]
        for row in suspects
    }
    doubts = [_sentence(task, row, mle, doubting) for row, doubting in doubted.items() if doubting]
    return {"judges": judges, "suspects": suspects, "doubted": doubted, "doubts": doubts}


def _judge(task: Task, name: str, record: dict[str, str]) -> Judge:
    show = share
    if not record["unit"].startswith("share"):
        show = three_digits(task.under(series, "judges", name) for series in task.rows)
    is_guard, lower_is_better = record["role"] == "guard", record["better"] == "lower"
    real = task.heldout("judges", name)
    return Judge(name, record["title"], record["unit"], is_guard, lower_is_better, show, real)


def _sentence(task: Task, series: Series, mle: Series, doubting: list[Judge]) -> str:
    """What the judges that doubt an objective say of it and of mle."""
    parts = []
    for judge in doubting:
        estimate, reference = judge.estimate(task, series), judge.estimate(task, mle)
        if estimate is not None and reference is not None:
            how = "worse" if judge.puts_better(reference, estimate) else "no better"
            numbers = f"{bounds(estimate, judge.show)}, mle {bounds(reference, judge.show)}"
            parts.append(f"{how} in {judge.title} ({judge.unit}): {numbers}")
    return f"{series.name} is {'; '.join(parts)}."
