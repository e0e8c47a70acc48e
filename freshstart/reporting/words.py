"""What the page says in words: headings, units, numbers and the findings that the numbers carry.

Two numbers are told apart when their bounds do not meet: intervals over the samples of one model where there is one
seed, ranges over seeds where there are several. Nothing more is claimed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from freshstart.reporting.cells import BITS, MISALIGNMENT, Estimate, Series, Task

TEXTS = {
    ("wheels", "pep8"): "Python sources from {sources} packages",
    ("wheels", "pii"): "prose from {sources} packages",
    "wheels": "text from {sources} packages",
    "synthetic": "synthetic text",
    "local": "local files",
    "hub": "a data set from the hub",
}
JUDGES = {"pep8": "pycodestyle", "pii": "scrubadub", "classifier": "offline classifier", "detoxify": "Detoxify"}
UNITS = {
    "pep8": "violations per character",
    "pii": "pieces of personal data per character",
    "classifier": "score from 0 to 1",
    "detoxify": "score from 0 to 1",
}
OBJECTIVES = {
    "mle": "likelihood of all text, good and bad: the reference",
    "filtered": "likelihood of the documents that score best",
    "conditional": "each segment follows a control token, <|good|> or <|bad|>; sampled under <|good|>",
    "unlikelihood": "bad segments are made less likely",
    "rwr": "reward-weighted regression: tokens weighted by their reward",
    "awr": "advantage-weighted regression: by their reward over an expected one",
}
KINDS = {  # what a code means, in fewer words than its checker uses
    "E101": "tabs and spaces mixed",
    "E111": "indentation not a multiple of 4",
    "E112": "expected an indented block",
    "E113": "unexpected indentation",
    "E114": "comment's indentation not a multiple of 4",
    "E115": "comment not indented",
    "E116": "comment over-indented",
    "E117": "over-indented",
    "E122": "continuation not indented",
    "E127": "continuation over-indented",
    "E128": "continuation under-indented",
    "E201": "space after a bracket",
    "E202": "space before a bracket",
    "E203": "space before a comma or colon",
    "E221": "several spaces before an operator",
    "E225": "no space around an operator",
    "E231": "no space after a comma or colon",
    "E251": "space around a keyword's =",
    "E261": "one space before a comment",
    "E262": "inline comment without '# '",
    "E265": "block comment without '# '",
    "E266": "too many # before a comment",
    "E302": "too few blank lines before a definition",
    "E303": "too many blank lines",
    "E305": "too few blank lines after a definition",
    "E402": "import not at the top",
    "E501": "line too long",
    "E701": "several statements on a line",
    "E702": "several statements on a line",
    "E901": "does not tokenise",
    "E902": "does not tokenise",
    "W191": "indented with tabs",
    "W291": "trailing space",
    "W292": "no line break at the end",
    "W293": "space on a blank line",
    "W391": "blank line at the end",
}

Format = Callable[[float], str]


def heading(task: Task) -> str:
    """What the text and the judge of a task are."""
    text, judge = task.corpus["kind"], task.scorer["kind"]
    words = TEXTS.get((text, judge)) or TEXTS.get(text, text)
    return f"{words.format(sources=task.corpus.get('sources', 'many'))}, {JUDGES.get(judge, judge)}"


def unit(task: Task) -> str:
    return UNITS.get(task.scorer["kind"], "score")


def formatter(task: Task) -> Format:
    """Numbers of a task's misalignment with three digits at the largest, so that a column lines up."""
    found = [task.under(series, MISALIGNMENT) for series in task.rows]
    most = max((one.value for one in found if one is not None), default=0.0)
    places = max(2 - math.floor(math.log10(most)), 0) if most > 0 else 3

    def show(value: float) -> str:
        if value == 0:
            return "0"
        rounded = f"{value:.{places}f}"
        return rounded if float(rounded) else f"<{10**-places:.{places}f}"

    return show


def bounds(one: Estimate, show: Format) -> str:
    return f"{show(one.value)} [{show(one.low)}, {show(one.high)}]"


def verdict(one: Estimate | None, reference: Estimate | None) -> str:
    """``below``, ``above`` or ``level`` with the reference; empty where either is missing."""
    if one is None or reference is None:
        return ""
    return "below" if one.below(reference) else "above" if reference.below(one) else "level"


def findings(task: Task, show: Format) -> list[str]:
    """Plain sentences, computed: what is below, above and not told apart from mle; what the control tokens do."""
    own = {series.name: task.misalignment(series.name) for series in task.own}
    groups: dict[str, list[str]] = {}
    for name, one in own.items():
        if name != "mle":
            groups.setdefault(verdict(one, own["mle"]), []).append(name)
    said = []
    if own["mle"] is not None:
        said.append(f"mle: {bounds(own['mle'], show)}. {_held_out(task, show)}".strip())
    for key, words in (
        ("below", "Wholly below mle"),
        ("above", "Wholly above mle"),
        ("level", "Not told apart from mle"),
        ("", "Without a scored sample"),
    ):
        if key in groups:
            said.append(f"{words}: {listed(groups[key])}.")
    said += [sentence for series in task.series if not series.own and (sentence := _asked(task, series, show))]
    said += [sentence for sentence in (_compression(task), _unparsable(task)) if sentence]
    return said


def listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _held_out(task: Task, show: Format) -> str:
    whole, half = task.heldout(MISALIGNMENT, "all"), task.heldout(MISALIGNMENT, "good_half")
    if whole is None or half is None:
        return ""
    return f"Real held-out text: {bounds(whole, show)}; its good half: {bounds(half, show)}."


def _asked(task: Task, series: Series, show: Format) -> str:
    good, bad = task.misalignment(series.name), task.under(series, MISALIGNMENT)
    if good is None or bad is None:
        return ""
    apart = {
        "below": "wholly apart",
        "above": "wholly apart, the wrong way round",
        "level": "overlapping",
    }[verdict(good, bad)]
    own = next(one for one in task.own if one.name == series.name).control
    return f"{series.name}, asked under <|{own}|>: {bounds(good, show)}; {series.label}: {bounds(bad, show)}, {apart}."


def _compression(task: Task) -> str:
    found = {name: task.estimate(name, *BITS) for name in task.cells}
    known = sorted((one.value, name) for name, one in found.items() if one is not None)
    if not known or found["mle"] is None:
        return ""
    (low, least), (high, most) = known[0], known[-1]
    if len(known) == 1:
        return f"Held-out text costs {low:.3f} bits per byte."
    mle = "" if "mle" in (least, most) else f"; {found['mle'].value:.3f} with mle"
    return f"Held-out text costs {low:.3f} bits per byte with {least} (least), {high:.3f} with {most} (most){mle}."


def _unparsable(task: Task) -> str:
    known = sorted(
        (one.value, series.name) for series in task.own if (one := task.under(series, "share_unparsable")) is not None
    )
    if not known:
        return ""
    (low, least), (high, most) = known[0], known[-1]
    return f"Samples that do not tokenise as Python: from {low:.0%} ({least}) to {high:.0%} ({most})."
