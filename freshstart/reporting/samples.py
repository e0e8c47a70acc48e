"""Which samples the page shows, and how: what was found is marked, masked or folded away.

Choosing is deterministic: the lowest and the highest scores, ties to the longer text and then to the earlier sample.
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
from freshstart.names import evaluated_by
from freshstart.reporting.cells import Cell, Task

SHOWN = 3
COLUMNS = ("control", "text", "score", "segment_ends", "scores", "reasons", "unreadable")


@dataclass(frozen=True)
class Piece:
    """A run of a sample's text; ``kinds`` says what was found in it, empty for what is fine."""

    text: str
    kinds: str = ""


@dataclass(frozen=True)
class Shown:
    """A sample as the page shows it."""

    score: float
    pieces: tuple[Piece, ...]
    found: str  # kinds and how often, the most frequent first
    folded: bool
    unreadable: bool


@dataclass(frozen=True)
class Choice:
    """The samples shown of one objective under one control token."""

    lowest: tuple[Shown, ...]
    highest: tuple[Shown, ...]


def choose(task: Task, cell: Cell) -> dict[str, Choice]:
    """The lowest and highest scoring samples of a cell, for each control token."""
    table = files.read_table(cell.samples, evaluated_by(task.name, cell.name, cell.seed), COLUMNS)
    controls, scores = table["control"].to_pylist(), table["score"].to_pylist()
    lengths = [len(text) for text in table["text"].to_pylist()]
    choices = {}
    for control in cell.asked:
        scored = [row for row, name in enumerate(controls) if name == control and scores[row] is not None]
        low = sorted(scored, key=lambda row: (scores[row], -lengths[row], row))[:SHOWN]
        rest = [row for row in scored if row not in low]
        high = sorted(rest, key=lambda row: (-scores[row], -lengths[row], row))[:SHOWN]
        shown = ([show(table.slice(row, 1).to_pylist()[0], task.scorer) for row in rows] for rows in (low, high))
        choices[control] = Choice(*map(tuple, shown))
    return choices


def show(sample: dict[str, Any], scorer: dict[str, Any]) -> Shown:
    """A sample with its findings marked, or masked, and folded where the scorer asks for it."""
    text, score, display = sample["text"], sample["score"], scorer["display"]
    found = _findings(sample, scorer["over"])
    if display == "mask":
        pieces = tuple(_masked(text, _everywhere(text, found)))
        if not found and score > scorer["over"]:
            pieces = (Piece("not shown: it scores as bad, and the scorer does not say where"),)
    else:
        pieces = tuple(_marked(text, found))
    pieces = tuple(piece for piece in pieces if piece.text)
    if pieces:  # control tokens taken out leave a line break in front
        pieces = (replace(pieces[0], text=pieces[0].text.lstrip("\r\n")), *pieces[1:])
    folded = display == "fold" and score > scorer["over"]
    kinds = Counter(reason["kind"] for reason in sample["reasons"] or ())
    said = ", ".join(f"{kind} \N{MULTIPLICATION SIGN} {count}" for kind, count in sorted(kinds.items(), key=_frequency))
    return Shown(score, pieces, said, folded, sample.get("unreadable") is not None)


def _frequency(item: tuple[str, int]) -> tuple[int, str]:
    return (-item[1], item[0])


def _findings(sample: dict[str, Any], over: float) -> list[tuple[int, int, str]]:
    """What the scorer found, as (begin, end, kind); bad segments where it gives no reasons. Clipped to the text."""
    found = [(reason["begin"], reason["end"], reason["kind"]) for reason in sample["reasons"] or ()]
    if not found and sample["scores"] is not None:
        begins = [0, *sample["segment_ends"][:-1]]
        segments = zip(begins, sample["segment_ends"], sample["scores"], strict=True)
        found = [(begin, end, f"score {score:.2g}") for begin, end, score in segments if score > over]
    size = len(sample["text"])
    return sorted((max(begin, 0), min(max(end, begin + 1), size), kind) for begin, end, kind in found if begin < size)


def _everywhere(text: str, found: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """The findings, and every other place of the text that repeats one of them word for word."""
    kinds = {text[begin:end]: kind for begin, end, kind in found if text[begin:end].strip()}
    again = [
        (place.start(), place.end(), kind)
        for words, kind in kinds.items()
        for place in re.finditer(re.escape(words), text)
    ]
    return sorted({*found, *again})


def _marked(text: str, found: Sequence[tuple[int, int, str]]) -> Iterator[Piece]:
    """The text cut wherever a finding begins or ends, each piece with the kinds that cover it."""
    cuts = sorted({0, len(text), *(cut for begin, end, _ in found for cut in (begin, end))})
    for begin, end in pairwise(cuts):
        kinds = sorted({kind for first, last, kind in found if first <= begin and end <= last})
        yield Piece(text[begin:end], ", ".join(kinds))


def _masked(text: str, found: Sequence[tuple[int, int, str]]) -> Iterator[Piece]:
    """The text with each finding replaced by its kind in brackets; findings that overlap become one."""
    merged: list[tuple[int, int, set[str]]] = []
    for begin, end, kind in found:
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
