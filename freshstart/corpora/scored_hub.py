"""Documents with their published scores from a dataset on the hub: the paper's scored sets, read into our segments.

A row holds ``texts`` (segments; joined they are the document) and ``scores`` (one a segment, higher is worse). The set
is fetched as by the kind ``hub``; ``published`` says how the segments become ours and how it is found out whether
counts were divided by the length once or twice. Documents of score 0 throughout are marked to be scored again where
``check_zero`` is set: in the published Python set a file that does not tokenise has that score too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from freshstart.corpora import Document, Refusal
from freshstart.corpora.hub import HubSettings, rows, source_of
from freshstart.corpora.published import ONCE, SHORTEST, Divided, Unit, divided_by_length, resegmented

SAMPLE = 20_000  # segments that score above 0 and are long enough to tell, the first of the split


@dataclass(frozen=True, kw_only=True)
class Settings(HubSettings):
    """``texts`` and ``scores`` name columns of lists; ``unit`` is what a score is. ``source`` as in the kind hub."""

    unit: Unit
    texts: str = "texts"
    scores: str = "scores"
    source: str | None = None
    check_zero: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.check_zero and self.unit == "probability":
            raise ValueError("check_zero is for counts: a probability is never 0 throughout")


def documents(settings: Settings, seed: int) -> Iterator[Document | Refusal]:
    """Every document of the split with its segments and scores, in the order of its files."""
    verdict = ONCE if (divided := _divided(settings)) is None else divided.verdict
    source = settings.source.split(".") if settings.source is not None else []
    for place, row in _rows(settings):
        if isinstance(row, Refusal):
            yield row
            continue
        texts, scores = row[settings.texts], row[settings.scores]
        if refusal := _refusal(texts, scores, settings.unit):
            yield Refusal(place, *refusal)
            continue
        text, ends, mended = resegmented(texts, scores, settings.unit, verdict)
        again = settings.check_zero and not any(scores)
        yield Document(text, source_of(row, source) or settings.name, {"path": place}, ends, mended, again)


def published(settings: Settings) -> dict[str, Any]:
    """Whose scores the documents bring along; stands in every part's metadata and in the report."""
    found = _divided(settings)
    none = {"divided_by_length": None, "share_supporting": None}
    return {
        "name": settings.name,
        "configuration": settings.configuration,
        "revision": settings.revision,
        "split": settings.split,
        "unit": settings.unit,
        **(none if found is None else found.record()),
    }


@lru_cache(maxsize=4)
def _divided(settings: Settings) -> Divided | None:
    """How often the set's counts were divided by the length; None for probabilities."""
    if settings.unit == "probability":
        return None
    pairs = (
        (score, len(text))
        for _, row in _rows(settings)
        if not isinstance(row, Refusal) and _refusal(row[settings.texts], row[settings.scores], settings.unit) is None
        for text, score in zip(row[settings.texts], row[settings.scores], strict=True)
        if score > 0 and len(text) >= SHORTEST
    )
    return divided_by_length(itertools.islice(pairs, SAMPLE))


def _rows(settings: Settings) -> Iterator[tuple[str, dict[str, Any] | Refusal]]:
    source = [settings.source.split(".")[0]] if settings.source is not None else []
    return rows(settings, [settings.texts, settings.scores, *source])


def _refusal(texts: Any, scores: Any, unit: Unit) -> tuple[str, str] | None:
    """Why a row can not be a scored document: reason and detail."""
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return "no texts", f"expected a list of texts, found {str(texts)[:100]!r}"
    if not isinstance(scores, list) or len(scores) != len(texts):
        found = f"{len(scores)} scores" if isinstance(scores, list) else str(scores)[:100]
        return "not one score a segment", f"{len(texts)} texts, {found}"
    most = 1.0 if unit == "probability" else math.inf
    for place, score in enumerate(scores):
        if not isinstance(score, (int, float)) or not 0 <= score <= most or math.isinf(score):
            return "score out of range", f"segment {place} has {score!r}, which is no {unit.replace('_', ' ')}"
    return None
