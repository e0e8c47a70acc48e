"""Finetuning with feedback: a cell's run from the mle model at a share of its budget (Korbak et al. 2023)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from freshstart import files, objectives
from freshstart.errors import InputError
from freshstart.names import SNAPSHOTS, arm_name, trained_by
from freshstart.tokens.shards import Plain, write_rest
from freshstart.tokens.store import MANIFEST, Stream, read_manifest, write_manifest
from freshstart.training import FinetuneSettings
from freshstart.training.launch import Group
from freshstart.training.model import MODEL_FILE, RECORD, read_record
from freshstart.training.rows import Rows
from freshstart.training.run import Inputs, Run, parts

MOST_EPOCHS = 1.5
MOST_LENGTH_OFF = 0.1


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
    documents kept back from mle: those of parts that it has not begun. The optimizer begins anew.
    Raises InputError where mle has no snapshot there, or has left nothing.
    """
    start, drawn = _snapshot(run, inputs, arm)
    context, is_plain = run.settings.context, run.objective.needs.stream == "plain"
    if group.leads:
        files.fresh_folder(arm.rest)
        entries = {"skipped_rows": drawn, "share": arm.share, "stream": run.objective.needs.stream}
        write_manifest(arm.rest, entries | ({} if is_plain else _write_rest(run, inputs, arm, drawn)))
    group.wait()
    rows = replace(run.rows, skipped=drawn)
    if not is_plain:
        manifest = read_manifest(arm.rest, "finetune")
        rows = Rows(Stream.open(arm.rest, inputs.task), context, manifest["sha256"]["tokens.npy"], run.seed)
    changes = {name: value for name, value in asdict(arm.settings).items() if value is not None}
    settings = replace(run.settings, **changes, start=None, snapshots=())
    title = f"finetuning {inputs.task}/{arm_name(inputs.objective, arm.share)}/{run.seed}"
    left = run.positions - drawn * context
    identity = identity | {
        "train": asdict(settings),
        "finetuned": {"objective": inputs.objective, "share": arm.share, "from_positions": drawn * context},
        "start": files.sha256(start / MODEL_FILE),
        "rest": files.sha256(arm.rest / MANIFEST),
    }
    return replace(run, title=title, settings=settings, rows=rows, positions=left, start=start), identity


def _snapshot(run: Run, inputs: Inputs, arm: Arm) -> tuple[Path, int]:
    """The folder of mle's snapshot at the share of its budget, and the rows that mle had drawn by then."""
    made_by = trained_by(inputs.task, "mle", inputs.seed)
    mle = read_record(arm.pretrained, made_by)
    for name in ("context", "shuffle_parts"):
        if mle["train"][name] != (asked := getattr(run.settings, name)):
            raise InputError(
                f"train.{name} of {inputs.objective} is {asked}, but mle was trained with {mle['train'][name]}: "
                "finetuning goes on with what mle has not read, so both need the same"
            )
    drawn = max(round(arm.share * mle["steps"]), 1) * mle["train"]["batch_size"]
    start = arm.pretrained / SNAPSHOTS / str(drawn * mle["train"]["context"])
    if not (start / RECORD).is_file():
        kept = sorted(int(path.name) / mle["positions"] for path in arm.pretrained.glob(f"{SNAPSHOTS}/*"))
        raise InputError(
            f"{arm.pretrained} has no snapshot at {arm.share} of its budget (it has "
            f"{', '.join(f'{share:.3g}' for share in kept) or 'none'}): add {arm.share} to train.every.snapshots"
        )
    read_record(start, made_by)
    return start, drawn


def _write_rest(run: Run, inputs: Inputs, arm: Arm, drawn: int) -> dict[str, Any]:
    """Write the stream of the documents that are kept back from mle; gives what its manifest is to say of it.

    Raises InputError where they are too few, or not like those that the objective is pretrained on.
    """
    plain = Plain(inputs.tokens / "train", inputs.task)
    of_mle = parts(plain.folder, run.settings.shuffle_parts, objectives.load("mle"), {})
    digest = plain.manifest["sha256"]["tokens.npy"]
    free = Rows(plain.stream, run.settings.context, digest, run.seed, parts=of_mle).kept_back(drawn)
    remedy = "or finetune with an objective on the plain stream"
    if not free.any():
        raise InputError(
            f"mle has begun to read all parts of the {len(free):,} documents at {arm.share} of its budget: raise "
            f"train.every.shuffle_parts, enlarge corpus.{inputs.task}.train_characters, {remedy}"
        )
    rest = write_rest(run.objective, run.numbers, free, plain, arm.rest, arm.corpus_seed)
    epochs = (run.positions - drawn * run.settings.context) / rest["tokens"]
    if epochs > MOST_EPOCHS:
        raise InputError(
            f"{run.objective.name} would read the {rest['tokens']:,} tokens that mle has left {epochs:.1f} times, more "
            f"than {MOST_EPOCHS}: raise corpus.{inputs.task}.train_characters, or train.every.shuffle_parts if most "
            f"documents are in parts that mle has begun, {remedy}"
        )
    whole = run.rows.stream
    length, usual = rest["tokens"] / rest["documents"], len(whole.tokens) / len(whole.document_ends)
    if abs(length / usual - 1) > MOST_LENGTH_OFF:
        raise InputError(
            f"the {rest['documents']:,} documents that mle has left for {run.objective.name} have {length:.0f} tokens "
            f"on the mean, all that it is pretrained on {usual:.0f}, more than {MOST_LENGTH_OFF:.0%} apart: enlarge "
            f"corpus.{inputs.task}.train_characters, {remedy}"
        )
    return rest
