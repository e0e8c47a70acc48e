"""What benchmarks found of a task, as curves and in words: durability over steps of finetuning, best of n over n."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from freshstart.reporting.cells import BENCHMARKS, MISALIGNMENT, Estimate, Task, value_at
from freshstart.reporting.formats import Format
from freshstart.reporting.over_training import Line

DURABILITY, BEST = "durability", "best_of_n"
TEXTS = {"benign": "neutral", "adversarial": "bad"}


@dataclass(frozen=True)
class Curves:
    """A line an objective over the number that ``x_title`` names."""

    title: str
    caption: str
    x_title: str
    lines: list[Line]


def curves(task: Task) -> Iterator[Curves]:
    for benchmark in _of(task, DURABILITY):
        for text, meaning in TEXTS.items():
            found = _over(task, benchmark, text, shift=1)  # the model as it was has a place on a logarithmic axis
            lines = [Line(name, points, False, 0.0, None) for name, points in found.items()]
            caption = (
                f"Misalignment after finetuning on {meaning} text. The first point is the model as it was trained."
            )
            yield Curves(f"Durability: {meaning} text", caption, "steps of finetuning and one", lines)
    for benchmark in _of(task, BEST):
        found = _over(task, benchmark, "best_of", MISALIGNMENT)
        lines = [Line(name, points, False, 0.0, None) for name, points in found.items()]
        caption = "The samples that the training scorer likes best of n: what choosing gains without training."
        yield Curves("Best of n", caption, "samples to choose from", lines)


def sentences(task: Task, show: Format) -> list[str]:
    """How long alignment lasts, and whether training gains more than choosing."""
    return [
        *(_lasting(task, benchmark, text, show) for benchmark in _of(task, DURABILITY) for text in TEXTS),
        *(_beyond_choosing(task, benchmark, show) for benchmark in _of(task, BEST)),
    ]


def _lasting(task: Task, benchmark: str, text: str, show: Format) -> str:
    """After how many steps each objective is where mle was before any."""
    found = _over(task, benchmark, text)
    limit = found["mle"][0][1].value
    reached, never = [], []
    for name, points in found.items():
        if name != "mle" and points[0][1].value < limit:
            steps = next((at for at, estimate in points if estimate.value >= limit), None)
            (never if steps is None else reached).append(name if steps is None else f"{name} after {steps:.0f}")
    last = f"{found['mle'][-1][0]:.0f}"
    parts = [", ".join(reached)] if reached else []
    parts += [f"not within {last}: {', '.join(never)}"] if never else []
    if not parts:
        return f"No objective is below mle before finetuning on {TEXTS[text]} text."
    return f"Steps on {TEXTS[text]} text until mle’s misalignment, {show(limit)}, is reached: {'; '.join(parts)}."


def _beyond_choosing(task: Task, benchmark: str, show: Format) -> str:
    found = _over(task, benchmark, "best_of", MISALIGNMENT)
    most, best = found["mle"][-1]
    singles = {name: points[0][1] for name, points in found.items() if name != "mle"}
    below = [f"{name} {show(single.value)}" for name, single in singles.items() if single.value < best.value]
    return f"Best of {most:.0f} from mle: {show(best.value)}. Below it with one sample: {', '.join(below) or 'none'}."


def _of(task: Task, kind: str) -> list[str]:
    """The names of the benchmarks of a kind that the task was asked."""
    return [name for name, its in task.cells["mle"][0].benchmarks.items() if its == kind]


def _over(
    task: Task, benchmark: str, key: str, *below: str, shift: int = 0
) -> dict[str, tuple[tuple[float, Estimate], ...]]:
    """By objective the numbers under ``key`` by the number that names them, in its order."""
    points = {}
    for name, cells in task.cells.items():
        numbers = sorted(map(int, value_at(cells[0].metrics, (BENCHMARKS, benchmark, key)) or {}))
        estimates = ((n, task.estimate(name, BENCHMARKS, benchmark, key, str(n), *below)) for n in numbers)
        points[name] = tuple((float(n + shift), estimate) for n, estimate in estimates if estimate is not None)
    return points
