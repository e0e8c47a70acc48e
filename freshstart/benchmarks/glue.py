"""GLUE (Wang et al. 2019): what a model learns from labelled sentences, as a start of finetuning.

For each data set and restart a linear head and all weights of a copy of the model are finetuned
(``freshstart.benchmarks.classifier``). A row is read as the model reads documents: the end of text, its own control
token where it has any, the text; then the same with the second text of a pair; then the end of text, whose hidden state
the head reads. Rows above ``length`` tokens lose the ends of their longer text. Early stopping looks at a tenth of
train (``freshstart.benchmarks.glue_sets``): the epoch with the best score there counts, of equal ones that with the
lower loss, and finetuning ends ``PATIENCE`` epochs after it. Dev is for reporting alone.

The score of a set is the mean of its metrics: Matthews' correlation for CoLA, F1 and accuracy for MRPC and QQP,
Pearson's and Spearman's correlation for STS-B (predictions clipped to its range), accuracy for the others, MNLI's over
both of its dev files. Beside it stands that of the majority class of train; a constant correlates by 0 with anything.
Intervals are Student's t over restarts, which differ in the head's first weights and in the order of the rows: they say
how firmly finetuning ends there, and nothing of another dev set or another pretraining run.

Each finished restart of a set is kept in ``state``, so that a run that was stopped goes on from there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from freshstart import files
from freshstart.benchmarks import BenchmarkSettings, ByItem, interval
from freshstart.benchmarks.glue_sets import HIGHEST, SETS, Data, Form, Row, read
from freshstart.benchmarks.reading import tokens_of
from freshstart.evaluation.kept import keep, kept
from freshstart.evaluation.metrics import Metric
from freshstart.settings import listed

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from freshstart.evaluation.context import Context
    from freshstart.evaluation.subject import Subject

PATIENCE = 2  # epochs without a better score
OF = "sets.*"
METRICS = (
    Metric("score", "mean of the sets' scores", "", "higher", title="average", column="score", digits=3, interval=True),
    Metric("score.n", "restarts", "restarts"),
    Metric("majority", "the same of the majority class", title="average of the majority class", digits=3),
    Metric(f"{OF}.score", "mean of a set's metrics", "", "higher", title="*", column="*", digits=3, interval=True),
    Metric(f"{OF}.majority", "the same of the majority class of train", title="* majority class", digits=3),
    Metric(f"{OF}.metrics.*", "a metric of a set on dev", "", "higher", interval=True),
    Metric(f"{OF}.majority_metrics.*", "the same of the majority class of train"),
    Metric(f"{OF}.n", "rows of dev", "rows"),
    Metric(f"{OF}.learned", "rows of train that were learned from", "rows"),
    Metric(f"{OF}.stopping", "rows of train that early stopping looked at", "rows"),
    Metric(f"{OF}.left_out", "rows of train and dev with a wrong number of fields", "rows"),
    Metric(f"{OF}.cut", "rows of train and dev that were cut to length", "rows"),
    Metric(f"{OF}.epoch", "epoch that counts, mean over restarts", "epochs"),
)


@dataclass(frozen=True, kw_only=True)
class Settings(BenchmarkSettings):
    """``data`` is a folder with a folder for each of ``sets``; of each at most ``rows`` rows of train are used.

    ``length`` is the most tokens of a row, and never above what the model reads at a time.
    """

    data: str
    sets: tuple[str, ...] = ("CoLA", "SST-2", "MRPC", "RTE", "STS-B", "QNLI", "WNLI")
    rows: int | None = None
    length: int = 128
    restarts: int = 3
    epochs: int = 6
    batch_size: int = 32
    learning_rate: float = 5e-5

    def __post_init__(self) -> None:
        if not self.sets or len(set(self.sets)) < len(self.sets) or not set(self.sets) <= set(SETS):
            raise ValueError(f"sets must name some of {listed(SETS)}, each once, found {listed(self.sets)}")
        for name, least in (("length", 16), ("restarts", 1), ("epochs", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, found {getattr(self, name)}")
        if (self.rows is not None and self.rows < 100) or not 0 < self.learning_rate < math.inf:
            raise ValueError("rows must be at least 100, and learning_rate above 0 and finite")


@dataclass(frozen=True)
class Encoded:
    """A data set as a model reads it: the tokens of each row of each side, and how many rows were cut."""

    form: Form
    data: Data
    learned: list[list[int]]
    stopping: list[list[int]]
    dev: list[list[int]]
    cut: int


@dataclass(frozen=True)
class Restart:
    """A restart that is done: the epoch that counts, and what it predicts of each row of dev."""

    epoch: int
    predictions: list[float]


def run(subject: Subject, settings: Settings, context: Context, state: Path) -> tuple[dict[str, Any], pa.Table]:
    import pyarrow as pa

    every = {name: read(name, Path(settings.data), settings.rows) for name in settings.sets}  # refused before any work
    sets: dict[str, Any] = {}
    scores, items = [], []
    for name, data in every.items():
        encoded = encode(subject, SETS[name], data, min(settings.length, subject.context))
        restarts = []
        for number in range(settings.restarts):
            path = state / f"{name}-{number}-{data.sha256[:16]}.json"
            done = kept(path)
            if done is None:
                seed = int(files.digest([context.seed, name, number])[:12], 16)
                title = f"finetuning on {name}, restart {number + 1} of {settings.restarts}"
                done = asdict(_finetuned(subject, encoded, settings, seed, title))
                keep(path, done)
            restarts.append(Restart(**done))
        sets[name], of_restarts = _report(encoded, restarts)
        scores.append(of_restarts)
        items += [
            {
                "set": name,
                "item": f"{row.file}:{row.number}",
                "restart": number,
                "prediction": value,
                "label": row.label,
            }
            for number, restart in enumerate(restarts)
            for row, value in zip(data.dev, restart.predictions, strict=True)
        ]
    found = {
        "score": interval([_mean(of_restart) for of_restart in zip(*scores, strict=True)]) | {"n": settings.restarts},
        "majority": _mean(entry["majority"] for entry in sets.values()),
        "sets": sets,
    }
    return found, pa.Table.from_pylist(items)


def by_item(items: pa.Table, control: str) -> dict[str, ByItem]:
    """Of sets that are scored by accuracy on one file: the share of restarts that have a row of dev right."""
    right: dict[str, dict[Hashable, list[bool]]] = {}
    for row in items.to_pylist():
        form = SETS[row["set"]]
        if form.metrics == ("accuracy",) and len(form.dev) == 1:
            of = right.setdefault(f"sets.{row['set']}.score", {})
            of.setdefault(row["item"], []).append(row["prediction"] == row["label"])
    return {path: {item: (fmean(of), 1.0) for item, of in of_set.items()} for path, of_set in right.items()}


def encode(subject: Subject, form: Form, data: Data, length: int) -> Encoded:
    """A data set in rows of at most ``length`` tokens."""
    control, cut = subject.control(subject.asked[0]), 0

    def tokens(row: Row) -> list[int]:
        nonlocal cut
        parts = [[subject.end_of_text, *tokens_of(subject, text, control)] for text in row.texts]
        cut += sum(map(len, parts)) >= length
        while sum(map(len, parts)) >= length:
            del max(parts, key=len)[-1]
        return [*(token for part in parts for token in part), subject.end_of_text]

    sides = [[tokens(row) for row in rows] for rows in (data.learned, data.stopping, data.dev)]
    return Encoded(form, data, *sides, cut)


def dev_metrics(form: Form, rows: Sequence[Row], predictions: Sequence[float]) -> dict[str, float]:
    """Each metric of a set, apart for each file of dev: ``accuracy_matched`` and ``accuracy_mismatched`` of MNLI."""
    found = {}
    for file in form.dev:
        pairs = [(row.label, value) for row, value in zip(rows, predictions, strict=True) if row.file == file]
        labels, values = zip(*pairs, strict=True)
        found |= {f"{name}{file.removeprefix('dev')}": metric(name, labels, values) for name in form.metrics}
    return found


def metric(name: str, labels: Sequence[float], predictions: Sequence[float]) -> float:
    """A metric by scikit-learn or scipy; a correlation of what does not vary is 0."""
    from scipy import stats
    from sklearn import metrics

    if name in ("pearson", "spearman"):
        if np.ptp(labels) == 0 or np.ptp(predictions) == 0:
            return 0.0
        return float({"pearson": stats.pearsonr, "spearman": stats.spearmanr}[name](labels, predictions).statistic)
    scores = {"accuracy": metrics.accuracy_score, "f1": metrics.f1_score, "matthews": metrics.matthews_corrcoef}
    return float(scores[name](labels, predictions))


def _finetuned(subject: Subject, encoded: Encoded, settings: Settings, seed: int, title: str) -> Restart:
    """One restart of a set."""
    import torch

    from freshstart.benchmarks.classifier import Classifier, epochs, loss_of

    form, data = encoded.form, encoded.data
    learned, stopping = _targets(form, data.learned), _targets(form, data.stopping)
    labels = [row.label for row in data.stopping]
    best, done = (-math.inf, -math.inf), Restart(0, [])
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # what dropout draws
        classifier = Classifier(subject.model, len(form.classes) or 1, seed)
        for epoch in epochs(classifier, encoded.learned, learned, settings, seed, title):
            outputs = classifier.predict(encoded.stopping, settings.batch_size)
            values = _predictions(form, outputs)
            score = _mean(metric(name, labels, values) for name in form.metrics)
            reached = (score, -float(loss_of(outputs, stopping)))
            if reached > best:
                dev = classifier.predict(encoded.dev, settings.batch_size)
                best, done = reached, Restart(epoch, _predictions(form, dev))
            elif epoch - done.epoch >= PATIENCE:
                break
    return done


def _report(encoded: Encoded, restarts: Sequence[Restart]) -> tuple[dict[str, Any], list[float]]:
    """What is reported of a set, and its score in each restart."""
    form, data = encoded.form, encoded.data
    metrics = [dev_metrics(form, data.dev, restart.predictions) for restart in restarts]
    majority = dev_metrics(form, data.dev, [_majority(form, data.learned)] * len(data.dev))
    scores = [_mean(values.values()) for values in metrics]
    return {
        "score": interval(scores),
        "majority": _mean(majority.values()),
        "metrics": {name: interval([values[name] for values in metrics]) for name in majority},
        "majority_metrics": majority,
        "n": len(data.dev),
        "learned": len(data.learned),
        "stopping": len(data.stopping),
        "left_out": data.left_out,
        "cut": encoded.cut,
        "epoch": _mean(restart.epoch for restart in restarts),
    }, scores


def _targets(form: Form, rows: Sequence[Row]) -> Tensor:
    """Numbers of classes; labels that are numbers are brought to -1 to 1."""
    import torch

    labels = torch.tensor([row.label for row in rows])
    return labels.long() if form.classes else 2 * labels / HIGHEST - 1


def _predictions(form: Form, outputs: Tensor) -> list[float]:
    """The likeliest class of each row, or its number."""
    return (outputs.argmax(1).float() if form.classes else (outputs[:, 0].clamp(-1, 1) + 1) * HIGHEST / 2).tolist()


def _majority(form: Form, rows: Sequence[Row]) -> float:
    """The label that most rows have, or their mean where labels are numbers."""
    labels = [row.label for row in rows]
    return Counter(labels).most_common(1)[0][0] if form.classes else _mean(labels)


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)
