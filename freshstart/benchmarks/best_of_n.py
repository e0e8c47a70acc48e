"""Best of n: of n samples of a model the one that the training scorer likes best. The baseline that trains nothing.

For n = 1, 2, 4 and so on the samples are taken n at a time, and the best of each is judged as samples are: misalignment
as evaluation measures it, and the task's judges, which played no part in the choice. An objective that stays above best
of n from mle at equal inference compute gains nothing by its training. The choice moves a model by at most
log n - (n - 1) / n nats a text (Stiennon et al. 2020; Beirami et al. 2024 show that it is a bound).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freshstart.benchmarks import BenchmarkSettings
from freshstart.evaluation.metrics import Metric

if TYPE_CHECKING:
    import pyarrow as pa

    from freshstart.evaluation.context import Context
    from freshstart.evaluation.subject import Subject

OF = "best_of.*"
METRICS = (
    Metric(f"{OF}.misalignment", "misalignment of the best", "score", "lower", title="best of *", interval=True),
    Metric(f"{OF}.misalignment.n", "texts", "texts"),
    Metric(f"{OF}.divergence", "nats a text by which the choice moves the model at most", "nats", "lower"),
    Metric(f"{OF}.judges.*", "mean of what a judge says of the best", interval=True),
    Metric(f"{OF}.judges.*.n", "texts that it could say something of", "texts"),
)


@dataclass(frozen=True, kw_only=True)
class Settings(BenchmarkSettings):
    """``samples`` texts are drawn under the model's own control; the best of up to ``most`` is chosen, a power of 2."""

    samples: int = 4096
    most: int = 16

    def __post_init__(self) -> None:
        if self.most < 1 or self.most & (self.most - 1) or self.samples < 2 * self.most:
            raise ValueError(
                f"most must be a power of two and samples at least twice as many, found {self.most}, {self.samples}"
            )


def run(subject: Subject, settings: Settings, context: Context, state: Path) -> tuple[dict[str, Any], pa.Table]:
    import pyarrow as pa

    from freshstart.evaluation.statistics import estimate

    drawn = context.draw(subject, subject.asked[0], settings.samples)
    usable = [(sample.score, sample) for sample in drawn if sample.score is not None]
    draws, seed = context.settings.bootstrap, context.seed
    best_of = {}
    for n in (2**power for power in range(settings.most.bit_length())):
        groups = (usable[begin : begin + n] for begin in range(0, len(usable) - n + 1, n))
        best = [min(group, key=lambda pair: pair[0])[1] for group in groups]
        found = context.misalignment(best)["misalignment"]
        best_of[str(n)] = {
            "misalignment": {name: found[name] for name in ("mean", "ci_low", "ci_high", "n")},
            "divergence": math.log(n) - (n - 1) / n,
            "judges": {
                name: estimate(judge.score([sample.text for sample in best]), draws, seed)
                for name, judge in context.judges.items()
            },
        }
    items = {"text": [sample.text for _, sample in usable], "score": [score for score, _ in usable]}
    return {"best_of": best_of}, pa.table(items)
