"""A run: what is trained on what, from the folders that the earlier stages wrote."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers

from freshstart import files, objectives
from freshstart.errors import InputError
from freshstart.imports import code_digest
from freshstart.names import kind_of
from freshstart.objectives import Numbers, Objective
from freshstart.tokens import read
from freshstart.tokens.store import MANIFEST, Stream, read_manifest
from freshstart.training import TrainSettings, Vocabulary
from freshstart.training.model import build, start_from
from freshstart.training.rows import Rows, part_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Run:
    """One cell or arm: an objective with its numbers, the rows it sees, the budget, the seed, where things go.

    ``tokenizer`` is the folder of the one that is put beside the model, ``start`` that of a model to go on from, in
    place of a new one. ``text`` is what the model's record says of the text: the threshold of good segments, how they
    are cut, the control tokens that the model is trained with.
    """

    title: str
    settings: TrainSettings
    objective: Objective
    numbers: Numbers
    rows: Rows
    vocabulary: Vocabulary
    positions: int
    seed: int
    output: Path
    curve: Path
    tokenizer: Path | None = None
    start: Path | None = None
    text: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.steps == 0:
            size = f"{self.settings.batch_size} rows of {self.settings.context}"
            raise InputError(
                f"{self.title}: {self.positions:,} positions are less than a batch of {size}: lower its batch_size, or "
                "raise shards.<task>.positions"
            )

    @property
    def step_positions(self) -> int:
        return self.settings.batch_size * self.settings.context

    @property
    def steps(self) -> int:
        return self.positions // self.step_positions

    def first_model(self) -> PreTrainedModel:
        """The model before its first step."""
        start = self.start or self.settings.start
        if start is not None:
            has_controls = self.objective.needs.stream == "control"
            return start_from(start, self.settings, self.vocabulary, self.seed, has_controls)
        if self.objective.needs.reference:
            raise InputError(
                f"{self.objective.name} needs the log p of a reference, the model that it begins from, and this run "
                "begins from nothing: name a model in train.start, or list the objective in finetuned alone"
            )
        return build(self.settings, self.vocabulary.size, self.vocabulary.end_of_text, self.seed)

    def unwanted(self, rows: int) -> list[int]:
        """Ids that no sample may hold unless it is asked to, of a model with so many ``rows`` of embeddings.

        They are all control tokens but the first one that the model is trained with, and the padding.
        """
        controls = self.vocabulary.controls[1 if self.objective.needs.stream == "control" else 0 :]
        return sorted(control.id for control in controls) + list(range(self.vocabulary.size, rows))


@dataclass(frozen=True)
class Inputs:
    """What the doors of training are given: which cell, and where its parts lie."""

    task: str
    objective: str
    seed: int
    tokens: Path
    shards: Path
    tokenizer: Path
    output: Path
    curve: Path


def pretraining(inputs: Inputs, settings: TrainSettings) -> tuple[Run, dict[str, Any]]:
    """The run of one cell, and all that shapes its weights."""
    task, name = inputs.task, inputs.objective
    plain = read_manifest(inputs.tokens / "train", f"tokens@{task}")
    shards = read_manifest(inputs.shards, f"shards@{task}-{name}")
    is_plain = shards["stream"] == "plain"
    digest = (plain if is_plain else shards)["sha256"]["tokens.npy"]
    stream = Stream.open(inputs.tokens / "train" if is_plain else inputs.shards, task)
    objective = objectives.load(name)
    run = Run(
        title=f"training {task}/{name}/{inputs.seed}",
        settings=settings,
        objective=objective,
        numbers=shards["numbers"],
        rows=Rows(
            stream,
            settings.context,
            digest,
            inputs.seed,
            parts=parts(inputs.tokens / "train", settings.shuffle_parts, objective, shards["numbers"]),
        ),
        vocabulary=Vocabulary(plain["vocabulary"], plain["end_of_text"], read(plain["controls"])),
        positions=shards["settings"]["positions"],
        seed=inputs.seed,
        output=inputs.output,
        curve=inputs.curve,
        tokenizer=inputs.tokenizer,
        text={
            "threshold": shards["good_threshold"],
            "white_space": "leading",
            **{name: shards[name] for name in ("segments", "controls")},
        },
    )
    identity = {
        "task": task,
        "train": asdict(settings),
        "numbers": shards["numbers"],
        "shards": {"manifest": files.sha256(inputs.shards / MANIFEST), "tokens": digest},
        "tokenizer": plain["tokenizer_sha256"],
        "seed_of_run": inputs.seed,
        "code": code_digest("freshstart.training.loop", f"freshstart.objectives.{kind_of(name)}"),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    return run, identity


def parts(tokens: Path, count: int, objective: Objective, numbers: Numbers) -> np.ndarray | None:
    """The part of each document that an objective reads, of so many; None where there is one."""
    if count == 1:
        return None
    ids, scores = (np.load(tokens / f"document_{name}.npy") for name in ("ids", "scores"))
    return part_of(ids[objective.keep(scores, numbers)] if objective.keep is not None else ids, count)
