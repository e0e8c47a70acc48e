"""Documents with their published scores from a dataset on the hub: the paper's scored sets, read into our segments.

A row holds ``texts`` (segments; joined they are the document) and ``scores`` (one a segment, higher is worse). The set
is fetched as by the kind ``hub``; ``published_segments`` says how the segments become ours and how it is detected
whether counts were divided by the length once or twice. Documents of score 0 throughout are marked to be scored again
where ``check_zero`` is set: in the published Python set a file that does not tokenise has that score too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from freshstart.corpora import Document, Refusal
from freshstart.corpora.hub import HubSettings, rows
from freshstart.corpora.local import source_of
from freshstart.corpora.published_segments import ONCE, Unit, divided_by_length, resegmented


@dataclass(frozen=True, kw_only=True)
class Settings(HubSettings):
    """``texts`` and ``scores`` name columns of lists; ``unit`` is what a score is."""

    unit: Unit
    texts: str = "texts"
    scores: str = "scores"
    check_zero: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.check_zero and self.unit == "probability":
            raise ValueError("check_zero is for counts: a probability is never 0 throughout")


def documents(settings: Settings, seed: int) -> Iterator[Document | Refusal]:
    """Every document of the split with its segments and scores, in the order of its files."""
    verdict, _ = _divided(settings)
    for place, row in _rows(settings):
        if isinstance(row, Refusal):
            yield row
            continue
        texts, scores = row[settings.texts], row[settings.scores]
        text, ends, ours = resegmented(texts, scores, settings.unit, verdict or ONCE)
        source = source_of(row, settings.source_steps, settings.name)
        again = settings.check_zero and not any(scores)
        yield Document(text, source, {"path": place}, ends, ours, again)


def published(settings: Settings) -> dict[str, Any]:
    """Whose scores the documents bring along; stands in every part's metadata and in the report."""
    names = ("name", "configuration", "revision", "split", "unit")
    verdict, shares = _divided(settings)
    described = {name: getattr(settings, name) for name in names}
    return described | {"divided_by_length": verdict, "share_supporting": shares}


@lru_cache(maxsize=4)
def _divided(settings: Settings) -> tuple[str | None, dict[str, float] | None]:
    """How often the set's counts were divided by the length, and the evidence; None for probabilities."""
    if settings.unit == "probability":
        return None, None
    rows = (row for _, row in _rows(settings) if not isinstance(row, Refusal))
    pairs = (pair for row in rows for pair in zip(row[settings.texts], row[settings.scores], strict=True))
    return divided_by_length((score, len(text)) for text, score in pairs)


def _rows(settings: Settings) -> Iterator[tuple[str, dict[str, Any] | Refusal]]:
    """The rows of the split, each a scored document or a refusal."""
    for place, row in rows(settings, [settings.texts, settings.scores]):
        if not isinstance(row, Refusal):
            reason = _refusal(row[settings.texts], row[settings.scores], settings.unit)
            row = Refusal(place, *reason) if reason else row
        yield place, row


def _refusal(texts: Any, scores: Any, unit: Unit) -> tuple[str, str] | None:
    """Why a row cannot be a scored document: reason and detail."""
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return "no texts", f"expected a list of texts, found {str(texts)[:100]!r}"
    if not isinstance(scores, list) or len(scores) != len(texts):
        held = f"{len(scores)} scores" if isinstance(scores, list) else str(scores)[:100]
        return "not one score a segment", f"{len(texts)} texts, {held}"
    most = 1.0 if unit == "probability" else 1e9
    for place, score in enumerate(scores):
        if not isinstance(score, (int, float)) or not 0 <= score <= most:
            return "score out of range", f"segment {place} has {score!r}, which is no {unit.replace('_', ' ')}"
    return None
