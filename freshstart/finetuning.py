"""Finetuning with feedback: a cell's run from the mle model at a share of its budget (Korbak et al. 2023)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from freshstart import files
from freshstart.errors import InputError
from freshstart.names import SNAPSHOTS, arm_name, trained_by
from freshstart.tokens.shards import Plain, untouched
from freshstart.tokens.store import FORMAT, MANIFEST, Stream, read_manifest
from freshstart.training import FinetuneSettings
from freshstart.training.launch import Group
from freshstart.training.model import MODEL_FILE, RECORD
from freshstart.training.rows import Rows
from freshstart.training.run import Inputs, Run


@dataclass(frozen=True)
class Arm:
    """Where a finetuned arm begins: the mle model at ``share`` of its budget. What is left for it goes to ``rest``."""

    share: float
    settings: FinetuneSettings
    pretrained: Path
    rest: Path
    corpus_seed: int


def finetuning(
    run: Run, identity: dict[str, Any], inputs: Inputs, arm: Arm, group: Group
) -> tuple[Run, dict[str, Any]]:
    """The run that takes the mle model further with the objective of ``run``, on what mle had left.

    A plain stream goes on with exactly the rows that mle would have read next. Of a stream of its own come only the
    documents with no token in a row that mle has read. The optimizer begins anew.
    Raises InputError where mle has no snapshot there, or has left nothing.
    """
    start, drawn = _snapshot(arm, inputs)
    manifest = {"skipped_rows": drawn, "share": arm.share, "stream": run.objective.needs.stream}
    is_plain = run.objective.needs.stream == "plain"
    if group.leads and is_plain:
        files.write_json(files.fresh_folder(arm.rest) / MANIFEST, {"format": FORMAT, **manifest})
    elif group.leads:
        _leave(run, inputs, arm, drawn, manifest)
    group.wait()
    name = arm_name(inputs.objective, arm.share)
    rows = replace(run.rows, skipped=drawn)
    if not is_plain:
        shards = read_manifest(arm.rest, trained_by(inputs.task, name, run.seed))
        stream = Stream.open(arm.rest, inputs.task)
        rows = Rows(stream, run.settings.context, shards["sha256"]["tokens.npy"], run.seed)
    own = {key: value for key, value in asdict(arm.settings).items() if value is not None}
    settings = replace(run.settings, **own, start=None, snapshots=())
    begun = drawn * run.settings.context
    identity = identity | {
        "train": asdict(settings),
        "finetuned": {"objective": inputs.objective, "share": arm.share, "from_positions": begun},
        "start": files.sha256(start / MODEL_FILE),
        "rest": files.sha256(arm.rest / MANIFEST),
    }
    title = f"finetuning {inputs.task}/{name}/{run.seed}"
    return replace(
        run, title=title, settings=settings, rows=rows, positions=run.positions - begun, start=start
    ), identity


def _snapshot(arm: Arm, inputs: Inputs) -> tuple[Path, int]:
    """The folder of mle's snapshot at the share of its budget, and the rows that mle had drawn by then."""
    whole = files.read_json(arm.pretrained / RECORD, trained_by(inputs.task, "mle", inputs.seed))
    drawn = max(round(arm.share * whole["steps"]), 1) * whole["train"]["batch_size"]
    start = arm.pretrained / SNAPSHOTS / str(drawn * whole["train"]["context"])
    if not (start / RECORD).is_file():
        kept = sorted(int(path.name) / whole["positions"] for path in arm.pretrained.glob(f"{SNAPSHOTS}/*"))
        raise InputError(
            f"{arm.pretrained} has no snapshot at {arm.share} of its budget (it has "
            f"{', '.join(f'{one:.3g}' for one in kept) or 'none'}): add {arm.share} to train.every.snapshots"
        )
    return start, drawn


def _leave(run: Run, inputs: Inputs, arm: Arm, drawn: int, manifest: dict[str, Any]) -> None:
    """Write the stream of the documents of which mle has read no token."""
    plain = Plain(inputs.tokens / "train", inputs.task)
    digest, context = plain.manifest["sha256"]["tokens.npy"], run.settings.context
    rows = Rows(plain.stream, context, digest, run.seed, parts=run.settings.shuffle_parts)
    free = ~rows.documents(drawn, inputs=True)
    if not free.any():
        raise InputError(
            f"mle has read a token of each of the {len(free):,} documents at {arm.share} of its budget: set "
            f"train.every.shuffle_parts to 2 or more, enlarge corpus.{inputs.task}.train_characters, or finetune with "
            "an objective on the plain stream"
        )
    untouched(run.objective, run.numbers, free, plain, arm.rest, arm.corpus_seed, manifest)
