"""The training loop: one for all objectives, in one process or in several.

A step: a batch that is a function of (data, seed, step); log p of each target; the objective's loss of (log p, score,
value); its mean over positions; clip; optimizer step. Each process reads its share of the batch, in one piece or in
several whose gradients add up: the batches are the same whatever the number of processes. Nothing random is left to
global state, so that a run resumed from a checkpoint ends with the same bits as one that was never stopped (on one CPU
type, with one lock file, one number of threads and of processes).

A loss or gradient that is not finite never reaches the model. On a GPU with AdamW the step is left out on the device
and the run stops at the next row of the curve, so that no step waits for the processor; elsewhere it stops at once.
"""

from __future__ import annotations

import gc
import shutil
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from freshstart.allocator import keep_memory
from freshstart.errors import InputError
from freshstart.objectives import Numbers, Objective
from freshstart.progress import Progress
from freshstart.training import TrainSettings, Vocabulary, curve, schedule
from freshstart.training.checkpoint import Checkpoints
from freshstart.training.launch import Group
from freshstart.training.model import build, go_on, save
from freshstart.training.optimizers import optimizers, set_rate
from freshstart.training.rows import Rows
from freshstart.training.stops import Guard, StopFlag, no_collection
from freshstart.training.trainee import Trainee


@dataclass(frozen=True)
class Run:
    """One cell: an objective with its numbers, the rows it sees, the budget, the seed, and where things go.

    ``start`` is a folder of a model to go on from, in place of a new one.
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
    start: Path | None = None

    @property
    def step_positions(self) -> int:
        return self.settings.batch_size * self.settings.context

    @property
    def steps(self) -> int:
        return max(self.positions // self.step_positions, 1)

    def begun(self) -> Any:
        """The model before its first step."""
        start = self.start or self.settings.start
        if start is None:
            return build(self.settings, self.vocabulary.size, self.vocabulary.end_of_text, self.seed)
        return go_on(start, self.settings, self.vocabulary, self.seed, self.objective.stream == "control")


def train(run: Run, identity: dict[str, Any], group: Group | None = None) -> dict[str, Any]:
    """Train a model, or go on with one, and write it; gives its record.

    ``identity`` is all that shapes the weights, in JSON; a checkpoint of another identity is refused. ``group`` is
    this process among those that train together (default: alone, on a GPU where there is one).
    """
    settings = run.settings
    if run.rows.count < settings.batch_size:
        raise InputError(
            f"the stream has {run.rows.count} rows of {settings.context} positions, fewer than one batch of "
            f"{settings.batch_size}: enlarge the corpus, or lower train.batch_size or train.context"
        )
    torch.set_num_threads(settings.threads)
    keep_memory()
    group = group or Group(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    mine, micro = group.share(settings.batch_size)
    model = run.begun().to(group.device).train()
    trainee = Trainee(model, run.objective, run.numbers, settings.precision == "bf16", settings.loss_chunk, group)
    made = optimizers(model, trainee.value_head, settings)
    parts = {"model": model, **{f"optimizer-{i}": optimizer for i, optimizer in enumerate(made)}}
    if trainee.value_head is not None:
        parts["value-head"] = trainee.value_head
    checkpoints = Checkpoints.of(identity)
    state = checkpoints.restore(parts)
    window = curve.Window(state.window if group.leads else {})
    forward = _prepared(trainee, settings, group)
    guard = Guard(made, group)
    check = partial(guard.check, run.rows, settings.batch_size, run.steps)
    snapshots = {max(round(share * run.steps), 1) for share in settings.snapshots}

    def batch(step: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """This process's pieces of a batch, on the device."""
        rows = run.rows.chosen(step, settings.batch_size)[mine]
        state.text_tokens += (found := _on(group, *run.rows.batch(rows)))[2]
        run.rows.stream.release()
        return list(zip(found[0].split(micro), found[1].split(micro), strict=True))

    def seeded(step: int, piece: int) -> None:
        if settings.dropout:
            torch.manual_seed((run.seed * 1_000_003 + step) * 65_536 + mine.start + piece * micro)

    def text_tokens() -> int:
        return int(group.add(torch.tensor(state.text_tokens, device=group.device)))

    def keep(step: int, folder: Path) -> dict[str, Any]:
        unwanted = _unwanted(run, model.config.vocab_size)
        record = _record(run, identity, text_tokens(), step, group, micro) | {"unwanted": unwanted}
        if group.leads:
            save(folder, model, trainee.value_head, unwanted, record)
        return record

    def checkpoint() -> None:
        whole = replace(state, text_tokens=text_tokens(), window=window.merged(group))
        if group.leads:
            checkpoints.save(whole, parts)
        group.wait()

    if not group.leads:
        state.text_tokens = 0
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(run.title, run.steps * run.step_positions, "positions", group.leads))
        stop = stack.enter_context(StopFlag(group))
        live = curve.Live(run.title, group.leads)
        stack.enter_context(no_collection())
        progress.advance(state.step * run.step_positions, note="resumed" if state.step else "")
        while state.step < run.steps:
            step = state.step
            pieces = batch(step)
            mean_weight = trainee.mean_weight(pieces, partial(seeded, step)) if len(pieces) > 1 else None
            for piece, (tokens, scores) in enumerate(pieces):
                seeded(step, piece)
                with forward.no_sync() if group.count > 1 and piece + 1 < len(pieces) else nullcontext():
                    loss, terms = forward(tokens, scores, mean_weight)
                    (loss / len(pieces)).backward()
                window.add(terms)
            norm = torch.nn.utils.clip_grad_norm_(trainee.parameters(), settings.gradient_clip)
            window.add({"gradient_norm": norm})
            guard.watch(step, norm)
            if not guard.deferred:
                check()
            rate = schedule.factor(step, run.steps, settings.warmup, settings.schedule, settings.decay)
            set_rate(made, rate)
            for optimizer in made:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            state.step += 1
            last = state.step == run.steps
            logs = state.step % settings.log_every == 0 or last
            if logs:
                check()
                row = {"positions": float(state.step * run.step_positions), **curve.means(window.merged(group))}
                state.rows.append(row | {"learning_rate": settings.learning_rate * rate})
                window = curve.Window({})
                live.row(state.rows[-1])
            stopping = stop.agreed() if logs or group.count == 1 else False
            if (state.step in snapshots or stopping or state.step % settings.checkpoint_every == 0) and not last:
                check()
                if state.step in snapshots:
                    keep(state.step, checkpoints.snapshots / str(state.step * run.step_positions))
                checkpoint()
                gc.collect()
            if stopping and not last:
                raise KeyboardInterrupt
            progress.advance(run.step_positions, note=f"loss {state.rows[-1]['loss']:.3f}" if state.rows else "")
    if group.leads and checkpoints.snapshots.is_dir():
        shutil.copytree(checkpoints.snapshots, run.output / "snapshots", dirs_exist_ok=True)
    record = keep(run.steps, run.output)
    if group.leads:
        curve.write(run.curve, state.rows)
        checkpoints.clear()
    group.wait()
    return record


def _prepared(trainee: Trainee, settings: TrainSettings, group: Group) -> Any:
    """The trainee as the loop calls it: compiled where that pays, and in DDP where there are several processes."""
    forward: Any = trainee
    if settings.compile == "on" or (settings.compile == "auto" and group.device.type == "cuda"):
        forward = torch.compile(trainee, fullgraph=True)
    if group.count > 1:
        from torch.nn.parallel import DistributedDataParallel

        forward = DistributedDataParallel(forward, device_ids=[group.device] if group.device.type == "cuda" else None)
    return forward


def _on(group: Group, tokens: np.ndarray, scores: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, int]:
    """A batch on the device, and how many of its targets are text."""
    pair = torch.from_numpy(tokens), torch.from_numpy(scores)
    if group.device.type == "cuda":  # pinned, so that the copy waits for nothing
        pair = tuple(one.pin_memory().to(group.device, non_blocking=True) for one in pair)
    return *pair, int((~np.isnan(scores)).sum())


def _record(
    run: Run, identity: dict[str, Any], text_tokens: int, step: int, group: Group, micro: int
) -> dict[str, Any]:
    drawn = step * run.settings.batch_size
    return {
        "objective": run.objective.name,
        "stream": run.objective.stream,
        "seed": run.seed,
        "steps": step,
        "positions": drawn * run.settings.context,
        "text_tokens": text_tokens,
        "documents": int(run.rows.documents(drawn).sum()),
        "epochs": drawn / run.rows.count,
        "skipped_rows": run.rows.skipped,
        "launch": {"processes": group.count, "micro_batch": micro, "device": group.device.type},
        **identity,
    }


def _unwanted(run: Run, rows: int) -> list[int]:
    """Ids that no sample may hold, of a model with so many ``rows`` of embeddings.

    They are the bad control token, the padding, and the good control token where it is never trained.
    """
    special = [run.vocabulary.bad] if run.objective.stream == "control" else [run.vocabulary.good, run.vocabulary.bad]
    return sorted(special) + list(range(run.vocabulary.size, rows))
