"""What held-out judges say of each objective, beside the scorer that it was trained against: was the reward gamed?

The rule. An objective whose misalignment is below mle's is doubted by a judge

- that looks for the same badness (``rival``), unless the judge too puts it on the better side of mle;
- that looks at what good samples must keep (``guard``), if the judge puts it on the worse side of mle, and its interval
  clearly worse than real held-out text, where that is known.

"Below" is said of differences that hold over seeds (``inference``), so that below three seeds nothing is doubted here.
A doubt is a reason to read samples, not a proof: a model can also lose something beside what it was rewarded for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from freshstart.reporting.cells import Estimate, Series, Task
from freshstart.reporting.comparisons import Differences
from freshstart.reporting.formats import Format, bounds, share, three_digits


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

    def puts(self, verdict: str) -> str:
        """``better`` or ``worse`` where a difference in this judge's number holds, else nothing."""
        better = "below" if self.lower_is_better else "above"
        return "better" if verdict == better else "worse" if verdict in ("below", "above") else ""

    def doubts(self, verdict: str, estimate: Estimate | None) -> bool:
        """Whether it doubts an objective that is below mle in misalignment; ``verdict``: its own, beside mle."""
        if estimate is None or not verdict:
            return False
        if not self.is_guard:
            return self.puts(verdict) != "better"
        below_real = self.real is None or (
            self.real.below(estimate) if self.lower_is_better else estimate.below(self.real)
        )
        return self.puts(verdict) == "worse" and below_real


def panel(task: Task, differences: Differences) -> dict[str, Any]:
    """What the page says of a task's judges: who they are, whom they doubt and why.

    ``suspects`` are below mle in misalignment, so that there is something to doubt; ``doubted`` holds a series with the
    judges that doubt it, ``doubts`` the same in words.
    """
    judges = [_judge(task, name, record) for name, record in task.real.get("judges", {}).items()]
    mle = task.own("mle")

    def verdict(series: Series, *keys: str) -> str:
        return differences.verdict(task, series, mle, *keys)

    own = [row for row in task.rows if row.is_own and row != mle and row.name in task.trained]
    suspects = [row for row in own if verdict(row) == "below"]
    doubted = {
        row: {
            judge: judge.puts(said)
            for judge in judges
            if judge.doubts(said := verdict(row, "judges", judge.name), judge.estimate(task, row))
        }
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


def _sentence(task: Task, series: Series, mle: Series, doubting: dict[Judge, str]) -> str:
    """What the judges that doubt an objective say of it and of mle."""
    parts = []
    for judge, side in doubting.items():
        estimate, reference = judge.estimate(task, series), judge.estimate(task, mle)
        if estimate is not None and reference is not None:
            how = "worse" if side == "worse" else "not shown to be better"
            numbers = f"{bounds(estimate, judge.show)}, mle {bounds(reference, judge.show)}"
            parts.append(f"{how} in {judge.title} ({judge.unit}): {numbers}")
    return f"{series.name} is {'; '.join(parts)}."
