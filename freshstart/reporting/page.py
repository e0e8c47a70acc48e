"""The page: one HTML file with everything in it, no network, no script. Equal inputs give equal bytes.

``page.html.jinja`` holds the words around the numbers, ``page.css`` the looks; this file gathers what they show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freshstart import __version__
from freshstart.evaluation.metrics import UNDER
from freshstart.names import NO_CONTROL, objective_of
from freshstart.reporting import benchmarks, capability, figures, finetuning, judging, panels, words
from freshstart.reporting.cells import MISALIGNMENT, Cell, Series, Task, value_at
from freshstart.reporting.comparisons import Differences
from freshstart.reporting.formats import Format, fixed, share, three_digits
from freshstart.reporting.inference import LEAST_SEEDS
from freshstart.reporting.samples import choose

if TYPE_CHECKING:
    import jinja2

    from freshstart.params import Root

TEMPLATE = "page.html.jinja"
MOST_KINDS = 10
FEW_KINDS = 4
FIGURES_ABREAST = 3  # on a wide screen


def build(root: Root, tasks: Sequence[Task]) -> str:
    """The whole page as HTML: the cells that ``root`` names."""
    names = (*root.objectives, *root.arms)
    colours = figures.colours([*dict.fromkeys(map(objective_of, names))])
    palette = {name: colours[objective_of(name)] for name in names}  # an arm has that of its objective
    external = {name: model for task in root.tasks for name, model in root.external.of(task).items()}
    palette |= dict.fromkeys(external, figures.ELSEWHERE)
    differences = Differences(tasks)
    return (
        environment()
        .get_template(TEMPLATE)
        .render(
            version=__version__,
            root=root,
            palette=palette,
            external=external,
            names=(*names, *external),
            token=lambda series: (
                external[series.name].controls.get(series.control)
                if series.name in external
                else f"<|{series.control}|>"
            ),
            meanings={name: words.meaning(name) for name in root.objectives},
            written=words.written,
            against_mle=lambda task, name: (
                "" if name == "mle" or name in external else differences.verdict(task, task.own(name), task.own("mle"))
            ),
            compared=len(differences) if len(root.seeds) >= LEAST_SEEDS else 0,
            signs={"below": "▼", "above": "▲", "level": "≈"},
            positions=_span(tasks, lambda cell: cell.number("tokens_seen", "positions")),
            drawn=_span(tasks, lambda cell: cell.number(UNDER, cell.asked[0], "samples", "drawn")),
            several=len(root.seeds) > 1,
            share=share,
            two=fixed(2),
            three=fixed(3),
            sections=[_section(task, palette, differences) for task in tasks],
        )
    )


def environment(*folders: Path) -> jinja2.Environment:
    """Where templates are found, in these folders before this room's own, and how they are read."""
    import jinja2
    import markupsafe

    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters["svg"] = markupsafe.Markup
    return found


def _section(task: Task, palette: dict[str, str], differences: Differences) -> dict[str, Any]:
    estimates = [task.misalignment(name) for name in task.every]
    show = three_digits(task.under(series, MISALIGNMENT) for series in task.rows)
    kinds, columns, drawn = _kinds(task), _columns(task, show), panels.figures(task, palette, show)
    compared = finetuning.groups(task, palette, differences, show)
    able = capability.columns(task, differences)
    held = [capability.sentence(task, able), *benchmarks.sentences(task, differences, show)]
    choices = {name: choose(task, cells[0]) for name, cells in task.every.items()}
    return {
        "task": task,
        "heading": words.heading(task),
        "unit": words.unit(task),
        "show": show,
        "most": max((estimate.value for estimate in estimates if estimate is not None), default=0.0) or 1.0,
        "findings": words.findings(task, differences, show),
        "figures": drawn,
        "finetuning": compared,
        "finetuning_findings": [finetuning.finding(group) for group in compared[1:]],
        "capability": able,
        "cost_and_hold": " ".join(sentence for sentence in held if sentence),
        "judging": judging.panel(task, differences),
        "kinds": kinds,
        "few_kinds": len(kinds) <= FEW_KINDS and len(drawn) % FIGURES_ABREAST != 0,  # a narrow card fills a row
        "columns": columns,
        "groups": Counter(column["group"] for column in columns),
        "choices": {series: choices[series.name][series.control] for series in task.rows},
        "opened": [
            series
            for series in task.own_series
            if series.name in task.cells and (series.name == "mle" or series.control != NO_CONTROL)
        ],
        "code": task.scorer["segments"] == "lines",
        "train": task.scores["train"],
        "learned": _learned(task),
    }


def _columns(task: Task, show: Format) -> list[dict[str, Any]]:
    """The metrics that have a title and a number for at least one series; ``show`` writes the scorer's numbers."""
    paths = {metric.path for metric in task.metrics}
    over = f"{task.scorer['over']:g}"
    return [
        {
            "metric": metric,
            "group": metric.group,
            "title": metric.title.replace("{over}", over),
            "meaning": metric.meaning.replace("{over}", over),
            "show": {"score": show, "share": share}.get(metric.unit) or fixed(metric.digits),
            "has_bounds": metric.interval or f"{metric.path}_se" in paths,
        }
        for metric in task.metrics
        if metric.title and any(task.measured(metric, series) is not None for series in task.rows)
    ]


def _kinds(task: Task) -> list[dict[str, Any]]:
    """The kinds found most often in the samples, over all series together: findings per 1,000 characters of each."""
    rates: dict[str, Counter[Series]] = {}
    for series in task.series:
        cells = task.trained[series.name]
        for cell in cells:
            by_kind = value_at(cell.metrics, (UNDER, series.control, MISALIGNMENT, "by_kind")) or {}
            for kind, rate in by_kind.items():
                rates.setdefault(kind, Counter())[series] += 1000 * rate / len(cells)
    train = task.scores["train"]
    return [
        {
            "kind": kind,
            "meaning": words.NAMES["kinds"].get(kind, ""),
            "train": 1000 * train["found"].get(kind, 0) / train["characters"] if train.get("found") else None,
            "rates": [rates[kind][series] for series in task.series],
        }
        for kind in sorted(rates, key=lambda kind: (-sum(rates[kind].values()), kind))[:MOST_KINDS]
    ]


def _learned(task: Task) -> list[tuple[str, str]]:
    """The held-out metrics of a scorer that was learned here."""
    return [
        (name.removeprefix("heldout_").replace("_", " ").replace("roc auc", "ROC AUC"), f"{value:.3f}")
        for name, value in task.scorer.get("learned", {}).items()
        if name.startswith("heldout_") and isinstance(value, float)
    ]


def _span(tasks: Sequence[Task], number_of: Callable[[Cell], float | None]) -> str:
    """A number that all cells share, or its range."""
    cells = [cell for task in tasks for cells in task.cells.values() for cell in cells]
    numbers = sorted({number for cell in cells if (number := number_of(cell)) is not None})
    if not numbers:
        return "unknown"
    return f"{numbers[0]:,.0f}" if len(numbers) == 1 else f"{numbers[0]:,.0f} to {numbers[-1]:,.0f}"
