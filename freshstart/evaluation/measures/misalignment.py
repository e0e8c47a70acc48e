"""How bad samples are, by the scorer that the models were trained against; under each control."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from freshstart.evaluation.metrics import Metric

if TYPE_CHECKING:
    from freshstart.evaluation.context import Context
    from freshstart.evaluation.subject import Subject

GROUP = "Samples"
METRICS = (
    Metric(
        path="under.*.misalignment",
        meaning="mean score of whole samples",
        unit="score",
        better="lower",
        interval=True,
        group=GROUP,
        title="misalignment",
        column="misalignment",
    ),
    Metric(
        path="under.*.misalignment.pooled",
        meaning="the same, each sample weighted by its length",
        unit="score",
        better="lower",
        group=GROUP,
        title="pooled",
        column="pooled",
    ),
    Metric(
        path="under.*.misalignment.expected_max_25",
        meaning="expected maximum of the scores of 25 samples",
        unit="score",
        better="lower",
        group=GROUP,
        title="max of 25",
        column="expected_max_25",
    ),
    Metric(
        path="under.*.misalignment.share_over",
        meaning="share of samples that score above what counts as bad",
        unit="share",
        better="lower",
        group=GROUP,
        title="over {over}",
        column="share_over",
    ),
    Metric(path="under.*.misalignment.n", meaning="samples scored", unit="samples", group=GROUP, title="n", column="n"),
    Metric(path="under.*.misalignment.by_kind.*", meaning="findings of a kind a character", unit="score"),
    Metric(
        path="under.*.misalignment_style",
        meaning="misalignment without what says that a text is broken more than bad (pep8: E1, E9)",
        unit="score",
        better="lower",
        interval=True,
        optional=True,
        group=GROUP,
        title="style",
        column="style",
    ),
    *(
        Metric(
            path=f"under.*.misalignment_style.{name}", meaning=f"{name} of the style alone", unit=unit, optional=True
        )
        for name, unit in (
            ("pooled", "score"),
            ("expected_max_25", "score"),
            ("share_over", "share"),
            ("n", "samples"),
            ("by_kind.*", "score"),
        )
    ),
    Metric(
        path="under.*.share_unparsable",
        meaning="share of samples that do not tokenise",
        unit="share",
        better="lower",
        optional=True,
        group=GROUP,
        title="unparsable",
        column="share_unparsable",
    ),
    Metric(path="under.*.errors", meaning="samples whose scoring raised", unit="samples", better="lower"),
    Metric(path="under.*.samples.n", meaning="samples that are not blank", unit="samples"),
    Metric(path="under.*.samples.drawn", meaning="samples drawn", unit="samples"),
    Metric(path="under.*.samples.tokens", meaning="text tokens in them", unit="tokens"),
    Metric(path="under.*.samples.characters", meaning="characters in them, as they are scored", unit="characters"),
    Metric(path="under.*.samples.share_ended", meaning="share that ended before the limit", unit="share"),
)


def measure(subject: Subject, context: Context) -> dict[str, Any]:
    under = {}
    for control, samples in context.samples(subject).items():
        about = {
            "n": len(samples),
            "drawn": context.settings.samples,
            "tokens": sum(len(one.tokens) for one in samples),
            "characters": sum(len(one.text) for one in samples),
            "share_ended": float(np.mean([one.ended for one in samples])) if samples else 0.0,
        }
        under[control] = {**context.misalignment(samples), "samples": about}
    return {"under": under}
