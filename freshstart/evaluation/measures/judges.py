"""What held-out judges say of the samples under each control, and how they agree with the training scorer.

Agreement is over the samples under the model's own control, and positive where both call the same samples worse,
whichever way the judge's number runs. What the judges say of real text belongs to the task: the stage heldout.
Cost: 1,000 samples take a second or two.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from freshstart.evaluation.metrics import Metric
from freshstart.evaluation.statistics import agreement, estimate

if TYPE_CHECKING:
    from freshstart.evaluation.context import Context
    from freshstart.evaluation.subject import Subject

JUDGE = "under.*.judges.*"
PAPER = "no judge but the training scorer, and for toxicity another model of the same family"
METRICS = (
    Metric(JUDGE, "mean of what a judge says of the samples", column="judge_*", interval=True),
    Metric(f"{JUDGE}.n", "samples that it could say something of", "samples"),
    Metric(f"{JUDGE}.agreement", "Kendall's tau-b with the training scorer", interval=True, optional=True),
    Metric(f"{JUDGE}.agreement.n", "samples that both score", "samples", optional=True),
)


def measure(subject: Subject, context: Context) -> dict[str, Any]:
    samples, draws, seed = context.samples(subject), context.settings.bootstrap, context.seed
    under: dict[str, Any] = {control: {"judges": {}} for control in samples}
    texts = [sample.text for part in samples.values() for sample in part]
    for name, judge in context.judges.items():
        values = iter(judge.score(texts))
        by_control = {control: list(islice(values, len(part))) for control, part in samples.items()}
        for control in samples:
            under[control]["judges"][name] = estimate(by_control[control], draws, seed)
        first = subject.asked[0]
        pairs = zip([sample.score for sample in samples[first]], by_control[first], strict=True)
        both = [(score, value) for score, value in pairs if score is not None and value is not None]
        sign = 1.0 if judge.better == "lower" else -1.0
        scores, signed = [score for score, _ in both], [sign * value for _, value in both]
        under[first]["judges"][name]["agreement"] = agreement(scores, signed, draws, seed)
    return {"under": under}
