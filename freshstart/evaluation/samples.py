"""Samples of a model: drawn, cut, scored, kept.

What the limit of new tokens cut is dropped at the last segment boundary, trailing blank lines with it; for code the
line break that ends the last whole line stays. Where that would leave fewer than ``min_characters`` (a run-on line),
nothing is cut, so that no objective's samples are selected by their shape. Only a sample without a solid character
does not count. A sample is scored as a whole; its segments are scored too, for the eye.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from freshstart import files
from freshstart.evaluation import EvaluateSettings
from freshstart.evaluation.statistics import rate, summary
from freshstart.schema import REASON
from freshstart.scorers import (
    Finding,
    FindingScorer,
    Scored,
    Scorer,
    answers,
    of_texts,
    per_character,
    pieces,
    segment_counts,
)
from freshstart.scoring.segments import SEGMENTERS
from freshstart.tokens.store import Stream
from freshstart.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from freshstart.sampling.sampler import Drawn

MOST_BEGINNINGS = 512
WORD = re.compile(r"\w+")
WRITTEN_LINE = re.compile(r"[^\r\n]*\S")
LINE_BREAK = re.compile(r"\r\n|\n|\r")
SCHEMA = pa.schema(
    [
        ("control", pa.string()),
        ("text", pa.large_string()),
        ("ended", pa.bool_()),
        ("tokens", pa.int32()),
        ("score", pa.float32()),
        ("segment_ends", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float32())),
        ("reasons", pa.list_(REASON)),
        ("unreadable", pa.string()),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True)
class Sample:
    """One sample: the control it was asked under, its text tokens, its text, and what the scorer says."""

    control: str
    tokens: list[int]
    text: str
    ended: bool
    whole: Scored
    segment_ends: list[int]
    segments: Scored

    @property
    def score(self) -> float | None:
        return self.whole.scores[0] if self.whole.scores else None


def read(
    drawn: Sequence[Drawn], control: str, tokenizer: Tokenizer, scorer: Scorer, segments: str, least: int
) -> list[Sample]:
    """Decode, cut and score samples; those without a solid character are left out."""
    texts = [cut(tokenizer.decode(draw.tokens), draw.ended, segments, least) for draw in drawn]
    kept = [(draw, text) for draw, text in zip(drawn, texts, strict=True) if text.strip()]
    results = scored([text for _, text in kept], scorer, segments)
    return [
        Sample(control, draw.tokens, text, draw.ended, *result)
        for (draw, text), result in zip(kept, results, strict=True)
    ]


def scored(texts: Sequence[str], scorer: Scorer, segments: str) -> list[tuple[Scored, list[int], Scored]]:
    """What the scorer says of each text as a whole, the ends of its segments (characters), and what it says of them."""
    ends = [SEGMENTERS[segments](text) for text in texts]
    whole = of_texts(scorer, texts)
    if isinstance(scorer, FindingScorer):  # what was found in the whole is what its segments hold
        parts = [replace(w, scores=per_character(w.findings, cuts)) for w, cuts in zip(whole, ends, strict=True)]
    else:
        parts = answers(scorer, list(zip(texts, ends, strict=True)))
    return list(zip(whole, ends, parts, strict=True))


def cut(text: str, ended: bool, segments: str, least: int) -> str:
    """The text without what the token limit cut off."""
    if ended:
        return text
    if segments == "lines":
        ends = SEGMENTERS[segments](text + "x")[:-1]  # a last line with its line break is whole
        short = text[: LINE_BREAK.search(text, ends[-1]).end()] if ends else ""
    else:
        ends = SEGMENTERS[segments](text)[:-1]
        short = text[: ends[-1]] if ends else ""
    return short if len(short) >= least else text


def beginnings(
    heldout: Stream, tokenizer: Tokenizer, segments: str, settings: EvaluateSettings, chosen: np.ndarray | None = None
) -> list[str]:
    """The first ``max_new_tokens`` tokens of held-out documents, cut as a sample is; those of the first documents, of
    which ``chosen`` may leave some out."""
    ends = np.asarray(heldout.document_ends[:MOST_BEGINNINGS])
    texts = []
    for place, (begin, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        if chosen is None or chosen[place]:
            last = min(begin + 1 + settings.max_new_tokens, end)  # one for the end of text in front
            text = tokenizer.decode(np.asarray(heldout.tokens[begin + 1 : last]).tolist())
            texts.append(cut(text, last == end, segments, settings.min_characters))
    return [text for text in texts if text.strip()]


def misalignment(samples: Sequence[Sample], scorer: Scorer, draws: int, seed: int) -> dict[str, Any]:
    """``misalignment`` of samples, and for scorers with grammar kinds ``misalignment_style`` without them.

    The mean score; for scorers that count findings, all findings over all words, which filler does not please
    (``counted``). A sample that the scorer could not read counts with what was found in it; one whose scoring raised
    has no score and is counted in ``errors``.
    """
    known = [(sample, sample.score) for sample in samples if sample.score is not None]
    lengths = [len(sample.text) for sample, _ in known]
    ends = [sample.segment_ends for sample, _ in known]
    parts = [pieces(sample.text, cuts) for (sample, _), cuts in zip(known, ends, strict=True)]

    def metrics_of(scores: Sequence[float], findings: Sequence[Sequence[Finding]]) -> dict[str, Any]:
        values, sizes = scores, None
        if isinstance(scorer, FindingScorer):
            pairs = [
                counted(part, counts) for part, counts in zip(parts, map(segment_counts, findings, ends), strict=True)
            ]
            values, sizes = [found for found, _ in pairs], [words for _, words in pairs]
        return rate(values, sizes, draws, seed) | summary(scores, lengths, findings, scorer.over)

    findings = [sample.whole.findings for sample, _ in known]
    if isinstance(scorer, FindingScorer):
        count = sum(map(len, findings))
        lines = sum(len(WRITTEN_LINE.findall(sample.text)) for sample, _ in known)
        tokens = sum(len(sample.tokens) for sample, _ in known)
        rates = {"per_line": count / lines if lines else None, "per_token": count / tokens if tokens else None}
    else:
        rates = {}
    metrics: dict[str, Any] = {"misalignment": metrics_of([score for _, score in known], findings) | rates}
    metrics["errors"] = len(samples) - len(known)
    if scorer.grammar:
        style = [tuple(f for f in group if not f.kind.startswith(scorer.grammar)) for group in findings]
        rates = [len(group) / length for group, length in zip(style, lengths, strict=True)]
        metrics["misalignment_style"] = metrics_of(rates, style)
        unparsable = sum(sample.whole.unreadable is not None for sample, _ in known)
        metrics["share_unparsable"] = unparsable / max(len(known), 1)
    return metrics


def counted(segments: Sequence[str], findings: Sequence[int]) -> tuple[int, int]:
    """Findings and words of a text, each segment once however often it is repeated.

    A word is a run of letters, digits and underscores. So rulers, blank lines, white space and the hundredth equal line
    are nothing to divide by: on the quick run they were 43% of mle's characters and 57% of filtered's.
    """
    kept = {segment.strip(): (segment, count) for segment, count in reversed([*zip(segments, findings, strict=True)])}
    return sum(count for _, count in kept.values()), sum(len(WORD.findall(segment)) for segment, _ in kept.values())


def write(path: Path, samples: Sequence[Sample], columns: Mapping[str, np.ndarray]) -> None:
    """One row a sample, in the order drawn; ``columns`` are whole numbers that a measure found of each sample."""
    rows: list[dict[str, Any]] = [
        {
            "control": sample.control,
            "text": sample.text,
            "ended": sample.ended,
            "tokens": len(sample.tokens),
            "score": sample.score,
            "segment_ends": sample.segment_ends,
            "scores": list(sample.segments.scores) if sample.segments.error is None else None,
            "reasons": [{"begin": f.begin, "end": f.end, "kind": f.kind} for f in sample.whole.findings],
            "unreadable": sample.whole.unreadable,
            "error": sample.whole.error,
        }
        for sample in samples
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    for name, values in sorted(columns.items()):
        table = table.append_column(name, pa.array(values, pa.int32()))
    files.write_table(path, table)
