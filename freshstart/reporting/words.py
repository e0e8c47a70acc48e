"""What the page says in words: headings, units and the findings that the numbers carry. Names are in words.toml.

Two numbers are told apart when their bounds do not meet: intervals over the samples of one model where there is one
seed, ranges over seeds where there are several. Nothing more is claimed.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from freshstart.reporting.cells import BITS, MISALIGNMENT, Estimate, Series, Task
from freshstart.reporting.formats import Format, bounds

NAMES: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))


def heading(task: Task) -> str:
    """What the text and the scorer of a task are."""
    corpus, scorer = task.corpus["kind"], task.scorer["kind"]
    text = NAMES["corpora"].get(f"{corpus}-{scorer}") or NAMES["corpora"].get(corpus, corpus)
    return f"{text.format(sources=task.corpus.get('sources', 'many'))}, {NAMES['scorers'].get(scorer, scorer)}"


def unit(task: Task) -> str:
    return NAMES["units"].get(task.scorer["kind"], "score")


def verdict(estimate: Estimate | None, reference: Estimate | None) -> str:
    """``below``, ``above`` or ``level`` with the reference; empty where either is missing."""
    if estimate is None or reference is None:
        return ""
    return "below" if estimate.below(reference) else "above" if reference.below(estimate) else "level"


def findings(task: Task, show: Format) -> list[str]:
    """Plain sentences, computed: what is below, above and not told apart from mle; what the control tokens do."""
    mle = task.misalignment("mle")
    groups: dict[str, list[str]] = {}
    for name in task.cells:
        if name != "mle":
            groups.setdefault(verdict(task.misalignment(name), mle), []).append(name)
    sentences = [f"mle: {bounds(mle, show)}. {_real(task, show)}".strip()] if mle is not None else []
    sentences += [
        f"{opening}: {', '.join(groups[key])}."
        for key, opening in (
            ("below", "Wholly below mle"),
            ("above", "Wholly above mle"),
            ("level", "Not told apart from mle"),
            ("", "Without a scored sample"),
        )
        if key in groups
    ]
    sentences += [_asked(task, series, show) for series in task.series if not series.is_own]
    return [sentence for sentence in (*sentences, _compression(task), _unparsable(task)) if sentence]


def _real(task: Task, show: Format) -> str:
    whole, half = task.heldout(MISALIGNMENT, "all"), task.heldout(MISALIGNMENT, "good_half")
    if whole is None or half is None:
        return ""
    return f"Real held-out text: {bounds(whole, show)}; its good half: {bounds(half, show)}."


def _asked(task: Task, series: Series, show: Format) -> str:
    """An objective under its own control and under another one."""
    meant = next(row for row in task.own_series if row.name == series.name)
    good, bad = task.under(meant, MISALIGNMENT), task.under(series, MISALIGNMENT)
    if good is None or bad is None:
        return ""
    apart = {"below": "wholly apart", "above": "wholly apart, the wrong way round", "level": "overlapping"}
    numbers = f"{bounds(good, show)}; {series.label}: {bounds(bad, show)}"
    return f"{series.name}, asked under <|{meant.control}|>: {numbers}, {apart[verdict(good, bad)]}."


def _compression(task: Task) -> str:
    bits = {name: estimate.value for name in task.cells if (estimate := task.estimate(name, *BITS)) is not None}
    if "mle" not in bits:
        return ""
    if len(bits) == 1:
        return f"Held-out text costs {bits['mle']:.3f} bits per byte."
    least, *_, most = sorted(bits, key=lambda name: (bits[name], name))
    mle = "" if "mle" in (least, most) else f"; {bits['mle']:.3f} with mle"
    ends = f"{bits[least]:.3f} bits per byte with {least} (least), {bits[most]:.3f} with {most} (most)"
    return f"Held-out text costs {ends}{mle}."


def _unparsable(task: Task) -> str:
    shares = sorted(
        (estimate.value, series.name)
        for series in task.own_series
        if (estimate := task.under(series, "share_unparsable")) is not None
    )
    if not shares:
        return ""
    (low, least), (high, most) = shares[0], shares[-1]
    return f"Samples that do not tokenise as Python: from {low:.0%} ({least}) to {high:.0%} ({most})."
