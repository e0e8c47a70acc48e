"""What a scorer finds of the personal data that people, or a generator, marked: recall by type, and precision.

A gold file has the format of presidio-research's synthetic sets: JSON (also .gz), a list of objects with ``full_text``
and ``spans``, each with ``entity_type``, ``start_position`` and ``end_position`` (characters). A gold span counts as
found where any span that the scorer found overlaps it; a found span counts as right where any gold span, of any type,
overlaps it. Intervals are Wilson's (1927), 95%, which take spans for independent; several in one text are not quite.

Precision is a lower bound: a gold file marks what it set out to mark, and a link or handle in its text that it did not
counts as wrong.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freshstart import files
from freshstart.errors import InputError
from freshstart.evaluation.statistics import share
from freshstart.scorers import Finding, Scorer, of_texts

FindAll = Callable[[Sequence[str]], Sequence[Sequence[Finding]]]


@dataclass(frozen=True, slots=True)
class Marked:
    """A text and the spans in it that are known to be personal data."""

    text: str
    spans: tuple[Finding, ...]


def read(path: Path | str) -> list[Marked]:
    """The marked texts of a gold file; InputError where it is not in the format."""
    path = Path(path)
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        rows = json.loads(raw)
        texts, keys = [row["full_text"] for row in rows], ("start_position", "end_position", "entity_type")
        spans = [tuple(Finding(*(span[key] for key in keys)) for span in row["spans"]) for row in rows]
        return [Marked(text, marked) for text, marked in zip(texts, spans, strict=True)]
    except FileNotFoundError:
        raise InputError(f"{path} is missing: evaluate.<task>.gold must name a file of gold spans, or null") from None
    except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path} is no file of gold spans ({type(error).__name__}: {error}): expected a JSON list of objects with "
            "full_text and spans, each span with entity_type, start_position and end_position"
        ) from None


def by_scorer(scorer: Scorer) -> FindAll:
    """What a scorer finds in texts, each read as one document."""
    return lambda texts: [result.findings for result in of_texts(scorer, texts)]


def by_text(find: Callable[[str], Sequence[Finding]]) -> FindAll:
    """What a finder of one text at a time finds."""
    return lambda texts: [find(text) for text in texts]


def recall(path: Path | str, finders: Mapping[str, FindAll]) -> dict[str, Any]:
    """For each finder ``recall`` by type and of all, ``precision``, and ``found`` by kind, over one gold file."""
    marked = read(path)
    texts = [example.text for example in marked]
    compared = {name: _compared(marked, finder(texts)) for name, finder in finders.items()}
    return {"file": Path(path).name, "sha256": files.sha256(path), "texts": len(texts), "finders": compared}


def _compared(marked: Sequence[Marked], findings: Sequence[Sequence[Finding]]) -> dict[str, Any]:
    there, hit = Counter(), Counter()
    right = total = 0
    kinds: Counter[str] = Counter()
    for example, spans in zip(marked, findings, strict=True):
        for gold in example.spans:
            there[gold.kind] += 1
            hit[gold.kind] += any(_overlap(gold, span) for span in spans)
        total += len(spans)
        right += sum(any(_overlap(gold, span) for gold in example.spans) for span in spans)
        kinds.update(span.kind for span in spans)
    return {
        "recall": {
            "all": share(hit.total(), there.total()),
            **{kind: share(hit[kind], n) for kind, n in sorted(there.items(), key=lambda item: (-item[1], item[0]))},
        },
        "precision": share(right, total),
        "found": dict(sorted(kinds.items())),
    }


def _overlap(a: Finding, b: Finding) -> bool:
    return a.begin < b.end and b.begin < a.end
