"""Finetuning with feedback: a cell's run from the mle model at a share of its budget (Korbak et al. 2023)."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from freshstart import files
from freshstart.errors import InputError
from freshstart.tokens.shards import leave
from freshstart.tokens.store import FORMAT, MANIFEST, Stream, read_manifest
from freshstart.training import FinetuneSettings
from freshstart.training.launch import Group
from freshstart.training.loop import Run
from freshstart.training.model import RECORD
from freshstart.training.rows import Rows


def finetuning(
    run: Run,
    identity: dict[str, Any],
    settings: FinetuneSettings,
    share: float,
    pretrained: Path,
    tokens: Path,
    rest: Path,
    corpus_seed: int,
    group: Group,
) -> tuple[Run, dict[str, Any]]:
    """The run that takes the mle model at ``share`` of its budget further, on what mle had left (Korbak et al. 2023).

    A plain stream goes on with exactly the rows that mle would have read next. Of a stream of its own come only the
    documents with no token in a row that mle has read; they are written to ``rest``. The optimizer begins anew.
    Raises InputError where mle has no snapshot there, or has left nothing.
    """
    task, made_by = identity["task"], f"train@{identity['task']}-mle-{run.seed}"
    whole = files.read_json(pretrained / RECORD, made_by)
    step = max(round(share * whole["steps"]), 1)
    mle_batch, context = whole["train"]["batch_size"], whole["train"]["context"]
    start = pretrained / "snapshots" / str(step * mle_batch * context)
    if not (start / RECORD).is_file():
        kept = sorted(int(path.name) / whole["positions"] for path in pretrained.glob("snapshots/*"))
        raise InputError(
            f"{pretrained} has no snapshot at {share:g} of its budget (it has "
            f"{', '.join(f'{one:.3g}' for one in kept) or 'none'}): add {share:g} to train.every.snapshots"
        )
    drawn = step * mle_batch
    own = {key: value for key, value in asdict(settings).items() if value is not None}
    chosen = replace(run.settings, **own, start=None, snapshots=())
    manifest = {"skipped_rows": drawn, "share": share, "stream": run.objective.stream}
    is_plain = run.objective.stream == "plain"
    if is_plain and group.leads:
        files.write_json(files.fresh_folder(rest) / MANIFEST, {"format": FORMAT, **manifest})
    if not is_plain:
        plain = Stream.open(tokens / "train", task)
        digest = read_manifest(tokens / "train", f"tokens@{task}")["sha256"]["tokens.npy"]
        free = ~Rows(plain, context, digest, run.seed, legs=run.settings.legs).documents(drawn, inputs=True)
        if not free.any():
            raise InputError(
                f"mle has read a token of each of the {len(free):,} documents at {share:g} of its budget: set "
                f"train.every.legs to 2 or more, enlarge corpus.{task}.train_characters, or finetune with an objective "
                "on the plain stream"
            )
        if group.leads:
            leave(run.objective, run.numbers, free, tokens / "train", rest, task, corpus_seed, manifest)
    group.wait()
    rows = replace(run.rows, skipped=drawn)
    if not is_plain:
        made = read_manifest(rest, f"finetune@{task}-{run.objective.name}-{share:g}-{run.seed}")
        rows = Rows(Stream.open(rest, task), context, made["sha256"]["tokens.npy"], run.seed)
    arm = {"objective": run.objective.name, "share": share, "from_positions": drawn * context}
    identity = identity | {
        "train": asdict(chosen),
        "finetuned": arm,
        "start": files.sha256(start / "model.safetensors"),
        "rest": files.sha256(rest / MANIFEST),
    }
    title = f"finetuning {task}/{run.objective.name}-from-{share:g}/{run.seed}"
    return replace(
        run, title=title, settings=chosen, rows=rows, positions=run.positions - drawn * context, start=start
    ), identity
