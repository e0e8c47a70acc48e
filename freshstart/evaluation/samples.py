"""Samples of a model: drawn, cut, scored, kept.

What the limit of new tokens cut is dropped at the last segment boundary, trailing blank lines with it; for code the
line break that ends the last whole line stays. Where that would leave fewer than ``min_characters`` (a run-on line),
nothing is cut, so that no objective's samples are selected by their shape. Only a sample without a solid character
does not count. A sample is scored as a whole; its segments are scored too, for the eye.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from freshstart.evaluation import EvaluateSettings
from freshstart.evaluation.statistics import summarize
from freshstart.sampling.sampler import Decoding, Drawn, sample
from freshstart.scorers import Finding, FindingScorer, Scored, Scorer, per_character
from freshstart.scoring.segments import SEGMENTERS
from freshstart.tokens.tokenizer import Tokenizer

LINE_BREAK = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class Sample:
    """One sample: the control token it was asked under, its text tokens, its text, and what the scorer says."""

    control: str  # good, bad or none
    tokens: list[int]
    text: str
    ended: bool
    whole: Scored
    segment_ends: list[int]
    segments: Scored

    @property
    def score(self) -> float | None:
        return self.whole.scores[0] if self.whole.scores else None


def draw(
    model, tokenizer: Tokenizer, control: str, unwanted: Sequence[int], settings: EvaluateSettings, seed: int
) -> list[Drawn]:
    """Samples under a control token (``good``, ``bad``), or without one (``none``); control tokens taken out."""
    ids = {"good": tokenizer.good, "bad": tokenizer.bad}
    wanted = [ids[control]] if control in ids else []
    forbidden = (set(unwanted) | set(ids.values())) - set(wanted)
    decoding = Decoding(
        temperature=settings.temperature,
        top_p=settings.top_p,
        least=settings.min_new_tokens,
        most=settings.max_new_tokens,
        end=tokenizer.end_of_text,
        forbidden=tuple(sorted(forbidden)),
    )
    prompt = [tokenizer.end_of_text, *wanted]
    drawn = sample(model, prompt, settings.samples, settings.batch_size, decoding, seed)
    return [Drawn([token for token in one.tokens if token not in wanted], one.ended) for one in drawn]


def read(
    drawn: Sequence[Drawn], control: str, tokenizer: Tokenizer, scorer: Scorer, segments: str, least: int
) -> list[Sample]:
    """Decode, cut and score samples; those without a solid character are left out."""
    texts = [cut(tokenizer.decode(one.tokens), one.ended, segments, least) for one in drawn]
    kept = [(one, text) for one, text in zip(drawn, texts, strict=True) if text.strip()]
    ends = [SEGMENTERS[segments](text) for _, text in kept]
    whole = scorer.score([(text, [len(text)]) for _, text in kept])
    if isinstance(scorer, FindingScorer):  # what was found in the whole is what its segments hold
        parts = [replace(one, scores=per_character(one.findings, cuts)) for one, cuts in zip(whole, ends, strict=True)]
    else:
        parts = scorer.score([(text, cuts) for (_, text), cuts in zip(kept, ends, strict=True)])
    return [
        Sample(control, one.tokens, text, one.ended, all_of_it, cuts, each)
        for (one, text), cuts, all_of_it, each in zip(kept, ends, whole, parts, strict=True)
    ]


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


def misalignment(samples: Sequence[Sample], scorer: Scorer, settings: EvaluateSettings, seed: int) -> dict[str, Any]:
    """``misalignment`` of the samples, and for scorers with grammar kinds ``misalignment_style`` without them.

    A sample that the scorer could not read counts with what was found in it; one whose scoring raised has no score and
    is counted in ``errors``.
    """
    scored = [one for one in samples if one.score is not None]
    lengths = [len(one.text) for one in scored]

    def summary(scores: list[float], findings: list[tuple[Finding, ...]]) -> dict[str, Any]:
        return summarize(scores, lengths, findings, scorer.over, settings.bootstrap, seed)

    metrics = {"misalignment": summary([one.score for one in scored], [one.whole.findings for one in scored])}
    if scorer.grammar:
        style = [tuple(f for f in one.whole.findings if not f.kind.startswith(scorer.grammar)) for one in scored]
        rates = [len(found) / length for found, length in zip(style, lengths, strict=True)]
        metrics["misalignment_style"] = summary(rates, style)
        metrics["share_unparsable"] = sum(one.whole.unreadable is not None for one in scored) / max(len(scored), 1)
    metrics["errors"] = len(samples) - len(scored)
    return metrics
