"""What a measure needs of the task: scorer, judges, real text, the reference; and the samples that measures share."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from freshstart import files
from freshstart.evaluation import MLE, EvaluateSettings, judge
from freshstart.evaluation.samples import Sample, beginnings, misalignment, read
from freshstart.names import trained_by
from freshstart.scorers import FindingScorer, Scorer, load, of_texts
from freshstart.tokens.store import Stream
from freshstart.tokens.tokenizer import Tokenizer
from freshstart.training.model import read_record

if TYPE_CHECKING:
    import torch

    from freshstart.evaluation.judges import Judge
    from freshstart.evaluation.reference import Reference
    from freshstart.evaluation.subject import Sampling, Subject


@dataclass(frozen=True)
class Document:
    """A held-out document with the end of each segment (characters) and its score."""

    text: str
    ends: list[int]
    scores: list[float]


@dataclass
class Context:
    """The task as measures see it. What is asked for is read once, when it is asked for.

    ``mle`` is the folder of the task's mle model of the same seed, ``reference_folder`` that of the reference's texts,
    ``heldout`` that of the scored held-out parts, ``tokens`` that of the token streams. ``columns`` are whole numbers
    that a measure found of each sample of the subject, under all controls.
    """

    task: str
    seed: int
    settings: EvaluateSettings
    device: torch.device
    scorer_folder: Path
    heldout: Path
    tokens: Path
    mle: Path
    reference_folder: Path
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    drawn: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)  # by the name of the subject

    @classmethod
    def of_door(cls, args: Namespace, settings: EvaluateSettings) -> Context:
        """Of what a door is told; one that asks for no reference is told of none."""
        import torch

        return cls(
            task=args.task,
            seed=args.seed,
            settings=settings,
            device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
            scorer_folder=args.scorer,
            heldout=args.heldout,
            tokens=args.tokens,
            mle=args.mle,
            reference_folder=getattr(args, "reference", args.mle),
        )

    @cached_property
    def scored_by(self) -> tuple[Scorer, dict[str, Any]]:
        """The task's scorer and its record."""
        return load(self.scorer_folder, self.task)

    @property
    def scorer(self) -> Scorer:
        return self.scored_by[0]

    @cached_property
    def judges(self) -> dict[str, Judge]:
        """The held-out judges, by name."""
        return {name: judge(name).judge(self.scorer_folder, self.task) for name in self.settings.judges or ()}

    @property
    def sampling(self) -> Sampling:
        """How the task's samples are drawn."""
        from freshstart.evaluation.subject import Sampling

        how = self.settings
        return Sampling(how.max_new_tokens, how.min_new_tokens, how.temperature, how.top_p, how.batch_size)

    @cached_property
    def documents(self) -> list[Document]:
        """The first held-out documents: those within the first ``heldout_tokens`` of the task's own tokens."""
        ends = np.load(self.tokens / "heldout" / "document_ends.npy", mmap_mode="r")
        count = max(int(np.searchsorted(ends, self.settings.heldout_tokens, side="right")), 1)
        documents: list[Document] = []
        for part in files.parts(self.heldout, f"score@{self.task}"):
            for row in files.read_table(part, "score", ["text", "segment_ends", "scores"]).to_pylist():
                if row["scores"] is not None:
                    documents.append(Document(row["text"], row["segment_ends"], row["scores"]))
            if len(documents) >= count:
                break
        return documents[:count]

    @cached_property
    def threshold(self) -> float:
        """What a good segment scores at most: as for mle, whatever threshold a variant is trained with."""
        return read_record(self.mle, trained_by(self.task, MLE, self.seed))["threshold"]

    @cached_property
    def good_limit(self) -> float | None:
        """The score that one in twenty beginnings of held-out documents of the good half exceeds; None of a scorer that
        counts findings."""
        if isinstance(self.scorer, FindingScorer):
            return None
        stream, segments = Stream.open(self.tokens / "heldout", self.task), self.scored_by[1]["segments"]
        means = np.load(self.tokens / "heldout" / "document_scores.npy")
        texts = beginnings(stream, self.tokenizer, segments, self.settings, means <= np.median(means))
        scores = [scored.scores[0] for scored in of_texts(self.scorer, texts) if scored.scores]
        return float(np.quantile(scores, 0.95)) if scores else None

    @cached_property
    def train_tokens(self) -> np.ndarray:
        """The training stream, mapped."""
        return np.load(self.tokens / "train" / "tokens.npy", mmap_mode="r")

    @cached_property
    def reference(self) -> Reference:
        """The model that others are compared with, and its texts."""
        from freshstart.evaluation.reference import Reference, Task

        how = self.settings
        task = Task(self.task, self.seed, self.mle, self.scorer_folder, self.device, how.logit_gib)
        return Reference.open(self.reference_folder, task, how.reference)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The task's own tokenizer, which the training stream is written in."""
        read_record(self.mle, trained_by(self.task, MLE, self.seed))  # raises where it is damaged
        return Tokenizer.open(self.mle)

    def samples(self, subject: Subject) -> dict[str, list[Sample]]:
        """The subject's samples under each control that it can be asked under; drawn once."""
        if subject.name not in self.drawn:
            count = self.settings.samples
            self.drawn[subject.name] = {control: self.draw(subject, control, count) for control in subject.asked}
        return self.drawn[subject.name]

    def own_samples(self, subject: Subject) -> list[Sample]:
        """Those under its own control."""
        return self.samples(subject)[subject.asked[0]]

    def draw(self, subject: Subject, control: str, count: int) -> list[Sample]:
        """New samples of a subject under a control, scored."""
        drawn = subject.generate([""] * count, control, self.sampling, self.seed)
        least = self.settings.min_characters
        return read(drawn, control, subject.tokenizer, self.scorer, subject.segments, least)

    def misalignment(self, samples: list[Sample]) -> dict[str, Any]:
        """``freshstart.evaluation.samples.misalignment`` by the task's scorer."""
        return misalignment(samples, self.scorer, self.settings.bootstrap, self.seed)
