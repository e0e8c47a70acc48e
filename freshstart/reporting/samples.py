"""Which samples the page shows, and how: what was found is marked, masked or folded away.

Choosing is deterministic: the lowest and the highest scores; ties go to the longer text and then to the earlier sample.
With ``display: mask`` the text that was found never reaches the page, in no attribute either.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from freshstart import files
from freshstart.reporting.cells import Cell, Task

SHOWN = 3
COLUMNS = ("control", "text", "score", "segment_ends", "scores", "reasons", "unreadable")

Finding = tuple[int, int, str]  # begin, end, kind


@dataclass(frozen=True)
class Piece:
    """A run of a sample's text; ``kinds`` says what was found in it, empty for what is fine."""

    text: str
    kinds: str = ""


@dataclass(frozen=True)
class Shown:
    """A sample as the page shows it; ``kinds`` says what was found and how often, the most frequent first."""

    score: float
    pieces: tuple[Piece, ...]
    kinds: str
    folded: bool
    unreadable: bool


def choose(task: Task, cell: Cell) -> dict[str, tuple[list[Shown], list[Shown]]]:
    """The lowest and the highest scoring samples of a cell, for each control."""
    table = files.read_table(cell.samples, cell.made_by, COLUMNS)
    controls, scores = table["control"].to_pylist(), table["score"].to_pylist()
    lengths = [len(text) for text in table["text"].to_pylist()]

    def shown(rows: list[int]) -> list[Shown]:
        return [show(table.slice(row, 1).to_pylist()[0], task.scorer) for row in rows]

    choices = {}
    for control in cell.asked:
        scored = [row for row, name in enumerate(controls) if name == control and scores[row] is not None]
        low = sorted(scored, key=lambda row: (scores[row], -lengths[row], row))[:SHOWN]
        rest = [row for row in scored if row not in low]
        high = sorted(rest, key=lambda row: (-scores[row], -lengths[row], row))[:SHOWN]
        choices[control] = (shown(low), shown(high))
    return choices


def show(sample: dict[str, Any], scorer: dict[str, Any]) -> Shown:
    """A sample with its findings marked, or masked, and folded where the scorer asks for it."""
    text, bad, display = sample["text"], sample["score"] > scorer["over"], scorer["display"]
    findings = _findings(sample, scorer["over"])
    if display != "mask":
        pieces = _marked(text, findings)
    elif findings or not bad:
        pieces = _masked(text, _everywhere(text, findings))
    else:
        pieces = iter([Piece("not shown: it scores as bad, and the scorer does not say where")])
    first, *others = [piece for piece in pieces if piece.text] or [Piece("")]
    first = replace(first, text=first.text.lstrip("\r\n"))  # control tokens taken out leave a line break in front
    counts = Counter(reason["kind"] for reason in sample["reasons"] or ())
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kinds = ", ".join(f"{kind} \N{MULTIPLICATION SIGN} {count}" for kind, count in ordered)
    unreadable = sample.get("unreadable") is not None
    return Shown(sample["score"], (first, *others), kinds, display == "fold" and bad, unreadable)


def _findings(sample: dict[str, Any], over: float) -> list[Finding]:
    """What the scorer found; bad segments where it gives no reasons. Clipped to the text."""
    findings = [(reason["begin"], reason["end"], reason["kind"]) for reason in sample["reasons"] or ()]
    if not findings and sample["scores"] is not None:
        begins = [0, *sample["segment_ends"][:-1]]
        segments = zip(begins, sample["segment_ends"], sample["scores"], strict=True)
        findings = [(begin, end, f"score {score:.2g}") for begin, end, score in segments if score > over]
    size = len(sample["text"])
    return sorted((max(a, 0), min(max(b, a + 1), size), kind) for a, b, kind in findings if a < size)


def _everywhere(text: str, findings: Sequence[Finding]) -> list[Finding]:
    """The findings, and every other place of the text that repeats one of them word for word."""
    kinds = {text[begin:end]: kind for begin, end, kind in findings if text[begin:end].strip()}
    again = [
        (place.start(), place.end(), kind)
        for words, kind in kinds.items()
        for place in re.finditer(re.escape(words), text)
    ]
    return sorted({*findings, *again})


def _marked(text: str, findings: Sequence[Finding]) -> Iterator[Piece]:
    """The text cut wherever a finding begins or ends, each piece with the kinds that cover it."""
    cuts = sorted({0, len(text), *(cut for begin, end, _ in findings for cut in (begin, end))})
    for begin, end in pairwise(cuts):
        kinds = sorted({kind for first, last, kind in findings if first <= begin and end <= last})
        yield Piece(text[begin:end], ", ".join(kinds))


def _masked(text: str, findings: Sequence[Finding]) -> Iterator[Piece]:
    """The text with each finding replaced by its kind in brackets; findings that overlap become one."""
    merged: list[tuple[int, int, set[str]]] = []
    for begin, end, kind in findings:
        if merged and begin < merged[-1][1]:
            first, last, kinds = merged.pop()
            merged.append((first, max(last, end), kinds | {kind}))
        else:
            merged.append((begin, end, {kind}))
    at = 0
    for begin, end, kinds in merged:
        names = ", ".join(sorted(kinds))
        yield Piece(text[at:begin])
        yield Piece(f"[{names}]", names)
        at = end
    yield Piece(text[at:])
