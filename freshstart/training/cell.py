"""A cell's run from the folders that the earlier stages wrote."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from freshstart import files, objectives
from freshstart.imports import code_digest
from freshstart.tokens import tokenizer
from freshstart.tokens.store import MANIFEST, Stream, read_manifest
from freshstart.training import TrainSettings, Vocabulary
from freshstart.training.launch import Group
from freshstart.training.loop import Run, train
from freshstart.training.rows import Rows


def pretraining(
    task: str, name: str, seed: int, settings: TrainSettings, tokens: Path, shards: Path, output: Path, curve: Path
) -> tuple[Run, dict[str, Any]]:
    """The run of one cell, and all that shapes its weights."""
    plain = read_manifest(tokens / "train", f"tokens@{task}")
    made = read_manifest(shards, f"shards@{task}-{name}")
    own = {key: made["settings"][key] for key in ("learning_rate", "batch_size")}
    settings = replace(settings, **{key: value for key, value in own.items() if value is not None})
    is_plain = made["stream"] == "plain"
    digest = (plain if is_plain else made)["sha256"]["tokens.npy"]
    stream = Stream.open(tokens / "train" if is_plain else shards, task)
    run = Run(
        title=f"training {task}/{name}/{seed}",
        settings=settings,
        objective=objectives.load(name),
        numbers=made["numbers"],
        rows=Rows(stream, settings.context, digest, seed, legs=settings.legs),
        vocabulary=Vocabulary(plain["vocabulary"], plain["end_of_text"], plain["good"], plain["bad"]),
        positions=made["settings"]["positions"],
        seed=seed,
        output=output,
        curve=curve,
    )
    identity = {
        "task": task,
        "train": asdict(settings),
        "numbers": made["numbers"],
        "shards": {"manifest": files.sha256(shards / MANIFEST), "tokens": digest},
        "tokenizer": plain["tokenizer_sha256"],
        "seed_of_run": seed,
        "code": code_digest("freshstart.training.loop"),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    return run, identity


def carried_out(run: Run, identity: dict[str, Any], group: Group, tokenizer_folder: Path) -> dict[str, Any]:
    """Train into an empty folder and put the tokenizer beside the model, for the hub's tools; gives the record."""
    if group.leads:
        files.fresh_folder(run.output)
    record = train(run, identity, group)
    if group.leads:
        tokenizer.copy(tokenizer_folder, run.output)
    return record
