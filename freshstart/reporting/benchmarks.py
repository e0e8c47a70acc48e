"""Whether alignment holds, as curves and in words: durability over steps of finetuning, attacks over rounds, and best
of n over n, which needs no training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from freshstart.reporting.cells import BENCHMARKS, MISALIGNMENT, Estimate, Task, over_seeds, value_at
from freshstart.reporting.comparisons import Differences
from freshstart.reporting.formats import Format, bounds, three_digits
from freshstart.reporting.over_training import Line, Point

DURABILITY, ATTACKS = "durability", "red_team"
Points = dict[str, tuple[Point, ...]]  # of each model
TEXTS = {"benign": "neutral", "adversarial": "bad"}


@dataclass(frozen=True)
class Curves:
    """A line an objective over the number that ``x_title`` names; without a ``y_title`` misalignment stands up."""

    title: str
    caption: str
    x_title: str
    lines: list[Line]
    y_title: str = ""


def curves(task: Task) -> Iterator[Curves]:
    for benchmark in task.benchmarks_of(DURABILITY):
        for text, meaning in TEXTS.items():
            found = _over(task, benchmark, text, shift=1)  # the model as it was has a place on a logarithmic axis
            caption = (
                f"Misalignment after finetuning on {meaning} text. The first point is the model as it was trained."
            )
            yield Curves(f"Durability: {meaning} text", caption, "steps of finetuning and one", _lines(task, found))
    for benchmark in task.chosen:
        caption = "The samples that the training scorer likes best of n: what choosing gains without training."
        yield Curves("Best of n", caption, "samples to choose from", _lines(task, _best(task, benchmark)))
    for benchmark in task.benchmarks_of(ATTACKS):
        found = _attacked(task, benchmark, shift=1)
        caption = "Mean score of what a model writes behind an attacker’s prompts; round 0, at 1, are those of a file."
        yield Curves(
            "Red-teaming", caption, "rounds of attack and one", _lines(task, found), "mean score behind a prompt"
        )


def sentences(task: Task, differences: Differences, show: Format) -> list[str]:
    """How long alignment lasts, whether it stands attacks, and what choosing gains beside training."""
    return [
        *(_lasting(task, benchmark, text, show) for benchmark in task.benchmarks_of(DURABILITY) for text in TEXTS),
        *(_standing(task, benchmark) for benchmark in task.benchmarks_of(ATTACKS)),
        *(_replayed(task, benchmark) for benchmark in task.benchmarks_of(ATTACKS)),
        *(_chosen(task, keys, differences, show) for keys in task.chosen.values()),
    ]


def best_of(task: Task) -> list[Estimate]:
    """Misalignment of the best of 2, 4 and so on of mle's samples; empty where it was not asked."""
    return [estimate for name in task.chosen for _, estimate in _best(task, name)["mle"][1:]]


def _lasting(task: Task, benchmark: str, text: str, show: Format) -> str:
    """After how many steps each objective is where mle was before any: numbers without a verdict."""
    found = _over(task, benchmark, text)
    limit, last = found["mle"][0][1].value, found["mle"][-1][0]
    steps = [
        f"{name} {next((f'{at:.0f}' for at, estimate in points if estimate.value >= limit), f'not within {last:.0f}')}"
        for name, points in found.items()
        if name != "mle" and points
    ]
    seeds = len(task.cells["mle"])
    means = "one seed" if seeds == 1 else f"means of {seeds} seeds"
    until = f"Steps on {TEXTS[text]} text until misalignment is at least mle’s before any, {show(limit)} ({means})"
    return f"{until}: {', '.join(steps)}." if steps else ""


def _standing(task: Task, benchmark: str) -> str:
    """What the attacks made of each objective, from the first prompts to the last round."""
    found = _attacked(task, benchmark)
    values = [(name, points[0][1], points[-1][1]) for name, points in found.items() if points]
    show = three_digits(estimate for _, *both in values for estimate in both)
    parts = [f"{name} {show(first.value)} to {bounds(last, show)}" for name, first, last in values]
    return f"Mean score under attack, first prompts to round {found['mle'][-1][0]:.0f}: {'; '.join(parts)}."


def _replayed(task: Task, benchmark: str) -> str:
    """What each model says to the attacks that were found on the others."""
    estimates = {name: over_seeds(task.replayed[benchmark], "others", name) for name in task.trained}
    show = three_digits(estimates.values())
    parts = [f"{name} {bounds(estimate, show)}" for name, estimate in estimates.items() if estimate is not None]
    return f"Attacks that were found on the others, asked anew: {'; '.join(parts)}." if parts else ""


def _chosen(task: Task, keys: tuple[str, ...], differences: Differences, show: Format) -> str:
    """Misalignment of one sample and of the best of the most; whose best is below mle's, where seeds allow."""
    *head, most, _ = keys
    both = {name: [task.estimate(name, *head, n, MISALIGNMENT) for n in ("1", most)] for name in task.trained}
    parts = [
        f"{name} {show(one.value)} and {show(best.value)}"
        for name, (one, best) in both.items()
        if one is not None and best is not None
    ]
    beside_mle = [name for name in task.trained if name != "mle"]
    verdicts = {name: differences.verdict(task, task.own(name), task.own("mle"), *keys) for name in beside_mle}
    below = ", ".join(name for name, verdict in verdicts.items() if verdict == "below") or "none"
    held = "" if "few seeds" in verdicts.values() else f" Below mle at the best of {most}: {below}."
    return f"Misalignment of one sample and of the best of {most}: {'; '.join(parts)}.{held}"


def _best(task: Task, benchmark: str) -> Points:
    return _over(task, benchmark, "best_of", MISALIGNMENT)


def _attacked(task: Task, benchmark: str, shift: int = 0) -> Points:
    return _over(task, benchmark, "pool", shift=shift)


def _lines(task: Task, found: Points) -> list[Line]:
    return [Line(name, points, name in task.arms, 0.0, None) for name, points in found.items() if points]


def _over(task: Task, benchmark: str, key: str, *below: str, shift: int = 0) -> Points:
    """By model the numbers under ``key`` by the number that names them, in its order."""
    points = {}
    for name, cells in task.trained.items():
        numbers = sorted(map(int, value_at(cells[0].metrics, (BENCHMARKS, benchmark, key)) or {}))
        estimates = ((n, task.estimate(name, BENCHMARKS, benchmark, key, str(n), *below)) for n in numbers)
        points[name] = tuple((float(n + shift), estimate) for n, estimate in estimates if estimate is not None)
    return points
