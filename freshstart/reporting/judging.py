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

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from freshstart.reporting import columns
from freshstart.reporting.cells import MISALIGNMENT, Estimate, Series, Task

Format = Callable[[float], str]


@dataclass(frozen=True)
class Voice:
    """A judge as the task's report describes it; ``show`` writes its numbers."""

    name: str
    title: str
    unit: str
    guard: bool
    lower_is_better: bool
    show: Format

    def estimate(self, task: Task, series: Series) -> Estimate | None:
        return task.under(series, "judges", self.name)

    def agreement(self, task: Task, series: Series) -> Estimate | None:
        """Rank agreement with the training scorer; said of a model under its own control."""
        return task.under(series, "judges", self.name, "agreement")

    def real(self, task: Task) -> Estimate | None:
        """The same of real held-out text, cut as samples are."""
        return task.heldout("judges", self.name)

    def better(self, one: Estimate, other: Estimate) -> bool:
        """Whether ``one`` lies wholly on the better side of the other."""
        return one.below(other) if self.lower_is_better else other.below(one)


@dataclass(frozen=True)
class Opinion:
    """What one judge says of one series."""

    judge: Voice
    value: Estimate | None
    agreement: Estimate | None
    doubts: bool


@dataclass(frozen=True)
class Row:
    series: Series
    misalignment: Estimate | None
    opinions: tuple[Opinion, ...]


@dataclass(frozen=True)
class Recall:
    """How much of one type of marked personal data each finder found; ``shares`` in the order of the finders."""

    kind: str
    n: int
    shares: tuple[Estimate | None, ...]


@dataclass(frozen=True)
class Panel:
    """The judges of a task, what they say of every series, and of marked text where there is some."""

    judges: tuple[Voice, ...]
    rows: tuple[Row, ...]
    doubts: tuple[str, ...]
    checked: bool  # whether an objective lies wholly below mle, so that there was something to doubt
    finders: tuple[str, ...]
    recalls: tuple[Recall, ...]
    precisions: tuple[Estimate | None, ...]
    texts: int

    @property
    def verdict(self) -> str:
        """How the sentence about the rule begins."""
        if self.doubts:
            return "Marked: an objective wholly below mle in misalignment that"
        if self.checked:
            return "No judge doubts an objective that lies wholly below mle in misalignment. One would be marked that"
        return "No objective lies wholly below mle in misalignment. One would be marked that"


def panel(task: Task) -> Panel:
    """Everything the page says of a task's judges; without a judge in the metrics its fields are empty."""
    judges = _judges(task)
    rows = tuple(_row(task, judges, series) for series in task.rows)
    mle = next(row for row in rows if row.series.name == "mle" and row.series.own)
    below = [row for row in rows if _below(row, mle)]
    finders, recalls, precisions, texts = _gold(task)
    doubts = tuple(sentence for row in below if (sentence := _sentence(row, mle)))
    return Panel(judges, rows, doubts, bool(below and judges), finders, recalls, precisions, texts)


def _judges(task: Task) -> tuple[Voice, ...]:
    judges = []
    for name, one in task.real["judges"].items():
        found = [task.under(series, "judges", name) for series in task.rows]
        values = [bounds.value for bounds in found if bounds is not None]
        show = columns.share if one["unit"].startswith("share") else _format(values)
        judges.append(Voice(name, one["title"], one["unit"], one["role"] == "guard", one["better"] == "lower", show))
    return tuple(judges)


def _row(task: Task, judges: tuple[Voice, ...], series: Series) -> Row:
    mle = next(one for one in task.own if one.name == "mle")
    misalignment, reference = task.under(series, MISALIGNMENT), task.under(mle, MISALIGNMENT)
    suspect = series.own and misalignment is not None and reference is not None and misalignment.below(reference)
    opinions = []
    for judge in judges:
        value = judge.estimate(task, series)
        doubts = suspect and _doubts(judge, value, judge.estimate(task, mle), judge.real(task))
        opinions.append(Opinion(judge, value, judge.agreement(task, series), doubts))
    return Row(series, misalignment, tuple(opinions))


def _doubts(judge: Voice, value: Estimate | None, mle: Estimate | None, real: Estimate | None) -> bool:
    if value is None or mle is None:
        return False
    if judge.guard:
        return judge.better(mle, value) and (real is None or judge.better(real, value))
    return not judge.better(value, mle)


def _below(row: Row, mle: Row) -> bool:
    if not row.series.own or row.misalignment is None or mle.misalignment is None:
        return False
    return row.misalignment.below(mle.misalignment)


def _sentence(row: Row, mle: Row) -> str:
    """What the judges that doubt an objective say of it and of mle; empty where none does."""
    said = []
    for opinion, reference in zip(row.opinions, mle.opinions, strict=True):
        if opinion.doubts and opinion.value is not None and reference.value is not None:
            show = opinion.judge.show
            how = "worse" if opinion.judge.better(reference.value, opinion.value) else "no better"
            numbers = f"{_bounds(opinion.value, show)}, mle {_bounds(reference.value, show)}"
            said.append(f"{how} in {opinion.judge.title} ({opinion.judge.unit}): {numbers}")
    return f"{row.series.name} is {'; '.join(said)}." if said else ""


def _gold(task: Task) -> tuple[tuple[str, ...], tuple[Recall, ...], tuple[Estimate | None, ...], int]:
    """Recall of the scorer and of judges that find spans, over types of marked data."""
    gold = task.real.get("gold")
    if gold is None:
        return (), (), (), 0
    names = tuple(gold["finders"])
    recalls = tuple(
        Recall(kind, one["n"], tuple(task.heldout("gold", "finders", name, "recall", kind) for name in names))
        for kind, one in gold["finders"][names[0]]["recall"].items()
    )
    precisions = tuple(task.heldout("gold", "finders", name, "precision") for name in names)
    return names, recalls, precisions, gold["texts"]


def _format(values: list[float]) -> Format:
    """Three digits of the largest value."""
    most = max(map(abs, values), default=0.0)
    return partial(_shown, places=min(max(2 - math.floor(math.log10(most)), 0), 6) if most > 0 else 2)


def _shown(value: float, places: int) -> str:
    if value == 0:
        return "0"
    rounded = f"{value:.{places}f}"
    return rounded if float(rounded) else f"<{10**-places:.{places}f}"


def _bounds(one: Estimate, show: Format) -> str:
    return f"{show(one.value)} [{show(one.low)}, {show(one.high)}]"
