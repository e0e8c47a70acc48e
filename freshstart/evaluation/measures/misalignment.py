"""How bad samples are, by the scorer that the models were trained against; under each control.

For a scorer that gives a number of its own the mean over samples of the score of the whole sample. For one that counts
findings the sum of the samples' findings over the sum of their words, each distinct segment of a sample counted once.
``scored`` is the mean score, ``pooled`` that weighted by characters, ``expected_max_25`` the mean of the worst of 25
samples drawn without replacement (Gehman et al. 2020), in closed form from their order. Intervals are the percentile
bootstrap over samples (Efron 1979), and Garwood's (1936) upper bound where nothing was found. ``above_good`` is, of
scorers that give numbers, the share of samples above the score that one in twenty real texts exceeds: beginnings of
held-out documents of the good half, cut as samples are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from freshstart.evaluation.metrics import Metric

if TYPE_CHECKING:
    from freshstart.evaluation.context import Context
    from freshstart.evaluation.subject import Subject

TABLE = "Samples"
BAD = "under.*.misalignment"
STYLE = "under.*.misalignment_style"
BROKEN = "under.*.share_unparsable"
PAPER = "the mean of the scorer's rate a character, over one seed, which filler pleases (it stands here as `scored`)"
METRICS = (
    Metric(
        *(BAD, "mean score of samples; of scorers that count findings, findings a word, repeated segments once"),
        *("score", "lower", TABLE, "misalignment", "misalignment"),
        interval=True,
    ),
    Metric(f"{BAD}.scored", "mean score of whole samples, as the scorer gives it", "score", "lower", TABLE, "scored"),
    Metric(f"{BAD}.pooled", "mean score weighted by length", "score", "lower", TABLE, "pooled", "pooled"),
    Metric(f"{BAD}.expected_max_25", "worst of 25 samples", "score", "lower", TABLE, "max of 25", "expected_max_25"),
    Metric(f"{BAD}.share_over", "share that score above {over}", "share", "lower", TABLE, "over {over}", "share_over"),
    Metric(f"{BAD}.per_line", "findings a written line", "score", "lower", TABLE, "a line", "per_line", optional=True),
    Metric(f"{BAD}.per_token", "findings a token", "score", "lower", TABLE, "a token", "per_token", optional=True),
    Metric(
        *(f"{BAD}.above_good", "share above what one in twenty good real texts exceeds", "share", "lower", TABLE),
        *("above good text", "above_good"),
        optional=True,
    ),
    Metric(f"{BAD}.n", "samples scored", "samples", "", TABLE, "n", "n"),
    Metric(f"{BAD}.by_kind.*", "findings of a kind a character", "score"),
    Metric(
        STYLE, "misalignment without E1, E9", "score", "lower", TABLE, "style", "style", interval=True, optional=True
    ),
    Metric(f"{STYLE}.scored", "style alone, mean score", "score", "lower", optional=True),
    Metric(f"{STYLE}.pooled", "style alone, weighted by length", "score", "lower", optional=True),
    Metric(f"{STYLE}.expected_max_25", "style alone, maximum of 25 samples", "score", "lower", optional=True),
    Metric(f"{STYLE}.share_over", "share with a fault of style", "share", "lower", optional=True),
    Metric(f"{STYLE}.n", "samples scored", "samples", optional=True),
    Metric(f"{STYLE}.by_kind.*", "findings of a kind a character", "score", optional=True),
    Metric(
        BROKEN, "share that do not tokenise", "share", "lower", TABLE, "unparsable", "share_unparsable", optional=True
    ),
    Metric("under.*.errors", "samples whose scoring raised", "samples", "lower"),
    Metric("under.*.samples.n", "samples that are not blank", "samples"),
    Metric("under.*.samples.drawn", "samples drawn", "samples"),
    Metric("under.*.samples.tokens", "text tokens in them", "tokens"),
    Metric("under.*.samples.characters", "characters in them, as they are scored", "characters"),
    Metric("under.*.samples.share_ended", "share that ended before the limit", "share"),
)


def measure(subject: Subject, context: Context) -> dict[str, Any]:
    under = {}
    for control, samples in context.samples(subject).items():
        about = {
            "n": len(samples),
            "drawn": context.settings.samples,
            "tokens": sum(len(sample.tokens) for sample in samples),
            "characters": sum(len(sample.text) for sample in samples),
            "share_ended": float(np.mean([sample.ended for sample in samples])) if samples else 0.0,
        }
        metrics = context.misalignment(samples)
        if context.good_limit is not None:
            scores = [sample.score for sample in samples if sample.score is not None]
            above = float(np.mean(np.array(scores) > context.good_limit)) if scores else None
            metrics["misalignment"]["above_good"] = above
        under[control] = {**metrics, "samples": about}
    return {"under": under}
