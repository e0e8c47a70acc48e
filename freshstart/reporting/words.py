"""What the page says in words: headings, units and the findings that the numbers carry. Names are in words.toml.

Two numbers are told apart by ``inference`` alone, from three seeds on; below that differences stand as numbers.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from freshstart.evaluation.metrics import UNDER
from freshstart.names import kind_of
from freshstart.reporting.cells import BITS, MISALIGNMENT, Estimate, Series, Task, over_seeds
from freshstart.reporting.comparisons import Differences
from freshstart.reporting.formats import Format, bounds, ends
from freshstart.reporting.inference import LEAST_SEEDS, Difference

NAMES: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))


def heading(task: Task) -> str:
    """What the text and the scorer of a task are."""
    corpus, scorer = task.corpus["kind"], task.scorer["kind"]
    text = NAMES["corpora"].get(f"{corpus}-{scorer}") or NAMES["corpora"].get(corpus, corpus)
    return f"{text.format(sources=task.corpus.get('sources', 'many'))}, {NAMES['scorers'].get(scorer, scorer)}"


def meaning(objective: str) -> str:
    """What an objective is; a variant is told by the objective that it is one of."""
    kind = kind_of(objective)
    return NAMES["objectives"].get(kind, "") if kind == objective else f"{kind} with numbers of its own"


def unit(task: Task) -> str:
    return NAMES["units"].get(task.scorer["kind"], "score")


def findings(task: Task, differences: Differences, show: Format) -> list[str]:
    """Plain sentences, computed: how objectives and arms differ from mle, how clearly, and what control tokens do."""
    mle = task.misalignment("mle")
    sentences = [f"mle: {bounds(mle, show)}. {_real(task, show)}".strip()] if mle is not None else []
    beside_mle = [series for series in task.own_series if series.name != "mle"]
    sentences += _compared(task, beside_mle, differences, show)
    missing = [series.name for series in beside_mle if task.misalignment(series.name) is None]
    sentences += [f"Without a scored sample: {', '.join(missing)}."] if missing else []
    sentences += [_asked(task, series, differences, show) for series in task.series if not series.is_own]
    return [
        sentence
        for sentence in (*sentences, _cleaner(task, show), _compression(task), _unparsable(task), _confounds(task))
        if sentence
    ]


def written(difference: Difference, show: Format) -> str:
    """A difference with its sign and, where there is one, its interval."""

    def signed(value: float) -> str:
        return ("\N{MINUS SIGN}" if value < 0 else "+") + show(abs(value))

    if difference.low is None or difference.high is None:
        return signed(difference.value)
    return f"{signed(difference.value)} [{signed(difference.low)}, {signed(difference.high)}]"


def _compared(task: Task, beside_mle: Sequence[Series], differences: Differences, show: Format) -> list[str]:
    """The differences from mle, by what may be said of them."""
    groups: dict[str, list[str]] = {}
    for series in beside_mle:
        difference = differences(task, series, task.own("mle"))
        if difference is not None:
            needed = difference.needed if difference.verdict == "level" else None
            takes = f", would take {needed} seeds" if needed is not None else ""
            groups.setdefault(difference.verdict, []).append(f"{series.name} {written(difference, show)}{takes}")
    openings = {
        "below": "Below mle",
        "above": "Above mle",
        "level": "No clear difference from mle",
        "few seeds": f"Differences from mle, of fewer than {LEAST_SEEDS} seeds, which say nothing about the objectives",
    }
    return [f"{opening}: {'; '.join(groups[key])}." for key, opening in openings.items() if key in groups]


def _real(task: Task, show: Format) -> str:
    whole, half = task.heldout(MISALIGNMENT, "all"), task.heldout(MISALIGNMENT, "good_half")
    if whole is None or half is None:
        return ""
    return f"Real held-out text: {bounds(whole, show)}; its good half: {bounds(half, show)}."


def _asked(task: Task, series: Series, differences: Differences, show: Format) -> str:
    """An objective under its own control and under another one."""
    meant = task.own(series.name)
    difference = differences(task, series, meant)
    good, bad = task.under(meant, MISALIGNMENT), task.under(series, MISALIGNMENT)
    if difference is None or good is None or bad is None:
        return ""
    clear = {
        "above": ", a clear difference",
        "below": ", clearly the wrong way round",
        "level": ", no clear difference",
    }
    numbers = f"{bounds(good, show)}; {series.label}: {bounds(bad, show)}"
    more = f"{written(difference, show)}{clear.get(difference.verdict, '')}"
    return f"{series.name}, asked under <|{meant.control}|>: {numbers}; {more}."


def _cleaner(task: Task, show: Format) -> str:
    """Which models write text that scores below good real text: no good writing does that."""
    real = task.heldout(MISALIGNMENT, "good_half")
    below = [name for name in task.trained if real is not None and _is_below(task, name, real)]
    if not below:
        return ""
    return (
        f"Whole interval below the good half of real text, {bounds(real, show)}: {', '.join(below)}. Good text that "
        "people wrote does not score so low: read the samples for tricks that please the scorer."
    )


def _is_below(task: Task, name: str, real: Estimate) -> bool:
    """Whether its interval over seeds lies wholly below; with fewer than three seeds that over samples of each."""
    whole = task.misalignment(name)
    if whole is not None and len(whole.runs) >= LEAST_SEEDS:
        return whole.below(real)
    keys = (UNDER, task.own(name).control, MISALIGNMENT)
    each = [over_seeds([cell.metrics], *keys) for cell in task.trained[name]]
    return all(estimate is not None and estimate.below(real) for estimate in each)


def _compression(task: Task) -> str:
    bits = {name: estimate.value for name in task.trained if (estimate := task.estimate(name, *BITS)) is not None}
    if "mle" not in bits:
        return ""
    if len(bits) == 1:
        return f"Good held-out text costs {bits['mle']:.3f} bits per byte."
    least, *_, most = sorted(bits, key=lambda name: (bits[name], name))
    mle = "" if "mle" in (least, most) else f"; {bits['mle']:.3f} with mle"
    ends = f"{bits[least]:.3f} bits per byte with {least} (least), {bits[most]:.3f} with {most} (most)"
    return f"Good held-out text costs {ends}{mle}."


def _unparsable(task: Task) -> str:
    shares = {
        series.name: estimate.value
        for series in task.own_series
        if (estimate := task.under(series, "share_unparsable")) is not None
    }
    return f"Samples that do not tokenise as Python: {ends(shares, '{:.0%}'.format)}." if shares else ""


def _confounds(task: Task) -> str:
    """What else than an objective may move its misalignment: text taken over from training, repetition, epochs."""
    about = (
        ("samples that share 32 tokens with the training text", ("memory", "share_matching_32"), "{:.0%}"),
        ("4-grams that a sample repeats", ("diversity", "repetition"), "{:.0%}"),
        ("passes over the documents", ("tokens_seen", "epochs"), "{:.2g}"),
    )
    spans = []
    for title, keys, show in about:
        found = {name: e.value for name in task.trained if (e := task.estimate(name, *keys)) is not None}
        if found:
            spans.append(f"{title}, {ends(found, show.format)}")
    return f"What else may move a number: {'; '.join(spans)}." if spans else ""
