"""The page: one HTML file with everything in it, no network, no script. Equal inputs give equal bytes.

``page.html.jinja`` holds the words around the numbers, ``page.css`` the looks; this file gathers what they show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freshstart import __version__
from freshstart.evaluation.metrics import UNDER
from freshstart.names import NO_CONTROL, objective_of
from freshstart.reporting import columns, figures, finetuning, judging, panels, words
from freshstart.reporting.cells import BITS, MISALIGNMENT, Cell, Estimate, Results, Series, Task
from freshstart.reporting.samples import Choice, choose

TEMPLATE = "page.html.jinja"
MOST_KINDS = 10
FEW_KINDS = 4
FIGURES_ABREAST = 3  # on a wide screen
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class KindRow:
    """How often a kind was found, in 1,000 characters: in the training text and in each series' samples."""

    kind: str
    meaning: str
    train: float | None
    rates: tuple[float, ...]


@dataclass(frozen=True)
class Examples:
    series: Series
    choice: Choice
    open: bool


def build(results: Results) -> str:
    """The whole page as HTML."""
    import jinja2
    import markupsafe

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["svg"] = markupsafe.Markup
    palette = _palette(results)
    return environment.get_template(TEMPLATE).render(
        version=__version__,
        results=results,
        palette=palette,
        meanings=words.OBJECTIVES,
        positions=_span(results, lambda cell: cell.number("tokens_seen", "positions")),
        drawn=_drawn(results),
        several=len(results.seeds) > 1,
        share=columns.share,
        three=columns.three,
        two=lambda value: columns.two(value if round(value, 2) else 0.0).replace("-", MINUS),
        sections=[_section(task, palette) for task in results.tasks],
    )


def _section(task: Task, palette: dict[str, str]) -> dict[str, Any]:
    show = words.formatter(task)
    kinds, shown, drawn = _kinds(task), columns.shown(task, show), panels.figures(task, palette, show)
    own = {name: task.misalignment(name) for name in task.every}
    return {
        "task": task,
        "heading": words.heading(task),
        "unit": words.unit(task),
        "show": show,
        "findings": words.findings(task, show),
        "glance": {name: _glance(task, name, own) for name in task.every},
        "figures": drawn,
        "finetuning": finetuning.comparison(task, palette, show),
        "judging": judging.panel(task),
        "kinds": kinds,
        "few_kinds": len(kinds) <= FEW_KINDS and len(drawn) % FIGURES_ABREAST != 0,  # a narrow card fills a row
        "columns": shown,
        "groups": Counter(column.metric.group for column in shown),
        "examples": _examples(task),
        "code": task.scorer["segments"] == "lines",
        "train": task.scores["train"],
        "learned": _learned(task),
    }


def _palette(results: Results) -> dict[str, str]:
    """A colour for each objective; an arm has that of the objective it was finetuned with."""
    objective = {arm: objective_of(arm) for arm in results.arms}
    palette = figures.colours([*dict.fromkeys([*results.objectives, *objective.values()])])
    return palette | {arm: palette[name] for arm, name in objective.items()}


def _glance(task: Task, name: str, own: dict[str, Estimate | None]) -> dict[str, Any]:
    most = max((one.value for one in own.values() if one is not None), default=0.0) or 1.0
    one = own[name]
    return {
        "objective": name,
        "misalignment": one,
        "share": 0.0 if one is None else one.value / most,
        "verdict": words.verdict(one, own["mle"]) if name != "mle" else "",
        "bits": task.estimate(name, *BITS),
    }


def _kinds(task: Task) -> list[KindRow]:
    """The kinds found most often in the samples, over all series together."""
    rates: dict[str, dict[Series, float]] = {}
    for series in task.series:
        cells = task.cells[series.name]
        for cell in cells:
            for kind, rate in cell.metrics[UNDER][series.control][MISALIGNMENT]["by_kind"].items():
                row = rates.setdefault(kind, {})
                row[series] = row.get(series, 0.0) + 1000 * rate / len(cells)
    train = task.scores["train"]
    most = sorted(rates, key=lambda kind: (-sum(rates[kind].values()), kind))[:MOST_KINDS]
    return [
        KindRow(
            kind,
            words.KINDS.get(kind, ""),
            1000 * train["found"].get(kind, 0) / train["characters"] if train.get("found") else None,
            tuple(rates[kind].get(series, 0.0) for series in task.series),
        )
        for kind in most
    ]


def _learned(task: Task) -> list[tuple[str, str]]:
    """The held-out metrics of a scorer that was learned here."""
    found = task.scorer.get("learned", {})
    return [
        (name.removeprefix("heldout_").replace("_", " ").replace("roc auc", "ROC AUC"), f"{value:.3f}")
        for name, value in found.items()
        if name.startswith("heldout_") and isinstance(value, float)
    ]


def _examples(task: Task) -> list[Examples]:
    """Samples of the first seed; mle's and those of objectives asked under ``<|good|>`` stand open."""
    chosen = {name: choose(task, cells[0]) for name, cells in task.every.items()}
    opened = [series for series in task.own if series.name == "mle" or series.control != NO_CONTROL]
    all_of_them = [Examples(s, chosen[s.name][s.control], s in opened) for s in task.rows]
    return sorted(all_of_them, key=lambda one: not one.open)


def _drawn(results: Results) -> str:
    """How many samples were drawn under a control."""
    return _span(results, lambda cell: cell.number(UNDER, cell.asked[0], "samples", "drawn"))


def _span(results: Results, number_of: Callable[[Cell], float | None]) -> str:
    """A number that all cells share, or its range."""
    cells = [cell for task in results.tasks for cells in task.cells.values() for cell in cells]
    found = sorted({number for cell in cells if (number := number_of(cell)) is not None})
    if not found:
        return "unknown"
    return f"{found[0]:,.0f}" if len(found) == 1 else f"{found[0]:,.0f} to {found[-1]:,.0f}"
