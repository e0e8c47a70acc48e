"""The training loop: one for all objectives.

A step: a batch that is a function of (data, seed, step); one forward pass; log p of each target; the objective's loss
of (log p, score, value); its mean over positions; clip; optimizer step. Nothing random is left to global state, so
that a run resumed from a checkpoint ends with the same bits as one that was never stopped (on one CPU type, with one
lock file and one number of threads). A loss or gradient that is not finite stops the run before it touches the model.
"""

from __future__ import annotations

import csv
import io
import signal
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn

from freshstart import files
from freshstart.errors import InputError
from freshstart.objectives import Numbers, Objective
from freshstart.progress import Progress
from freshstart.training import TrainSettings, schedule
from freshstart.training.checkpoint import Checkpoints, TrainState
from freshstart.training.model import ValueHead, build, optimizers, save, token_logprobs
from freshstart.training.rows import Rows


@dataclass(frozen=True)
class Vocabulary:
    """What training needs to know of a tokenizer: how many ids there are, and which are special."""

    size: int
    end_of_text: int
    good: int
    bad: int


@dataclass(frozen=True)
class Run:
    """One cell: an objective with its numbers, the rows it sees, the budget, the seed, and where things go."""

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

    @property
    def steps(self) -> int:
        return max(self.positions // (self.settings.batch_size * self.settings.context), 1)


def train(run: Run, identity: dict[str, Any], device: torch.device | None = None) -> dict[str, Any]:
    """Train a model, or go on with one, and write it; gives its record.

    ``identity`` is all that shapes the weights, in JSON; a checkpoint of another identity is refused.
    """
    settings = run.settings
    if run.rows.count < settings.batch_size:
        raise InputError(
            f"the stream has {run.rows.count} rows of {settings.context} positions, fewer than one batch of "
            f"{settings.batch_size}: enlarge the corpus, or lower train.batch_size or train.context"
        )
    torch.set_num_threads(settings.threads)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build(settings, run.vocabulary.size, run.vocabulary.end_of_text, run.seed).to(device).train()
    value_head = ValueHead(settings.width).to(device) if run.objective.value_head else None
    made = optimizers(model, value_head, settings, settings.learning_rate)
    parts: dict[str, Any] = {"model": model, **{f"optimizer-{i}": optimizer for i, optimizer in enumerate(made)}}
    if value_head is not None:
        parts["value-head"] = value_head
    checkpoints = Checkpoints.of(identity)
    state = checkpoints.restore(parts)
    step_loss = _step_loss(run, model, value_head, device)
    parameters = [p for part in (model, value_head) if part is not None for p in part.parameters()]
    step_positions = settings.batch_size * settings.context
    snapshots = {max(at // step_positions, 1): at for at in settings.snapshots}

    def record(step: int) -> dict[str, Any]:
        return _record(run, identity, state, step)

    with Progress(run.title, run.steps * step_positions, "positions") as progress, _StopFlag() as stop:
        progress.advance(state.step * step_positions, note="resumed" if state.step else "")
        while state.step < run.steps:
            step = state.step
            rows = run.rows.chosen(step, settings.batch_size)
            tokens, scores = run.rows.batch(rows)
            loss, terms = step_loss(torch.from_numpy(tokens), torch.from_numpy(scores), step)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, settings.gradient_clip)
            if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
                raise InputError(
                    f"step {step + 1} of {run.steps}: loss {loss.item():.4g}, gradient norm {norm.item():.4g} on rows "
                    f"{', '.join(map(str, rows))}. The model of the step before is untouched and its last checkpoint "
                    "is whole: lower the learning rate, or look at those rows (row r begins at token r x context)"
                )
            rate = schedule.factor(step, run.steps, settings.warmup, settings.schedule)
            for optimizer in made:
                for group in optimizer.param_groups:
                    group["lr"] = group["base"] * rate
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            state.step += 1
            state.text_tokens += int((~np.isnan(scores)).sum())
            _add(state, {"loss": loss.detach(), "gradient_norm": norm, **terms})
            if state.step % settings.log_every == 0 or state.step == run.steps:
                _log(state, settings, rate)
            if state.step in snapshots and state.step < run.steps:
                folder = run.output / "snapshots" / str(snapshots[state.step])
                save(folder, model, value_head, _unwanted(run), record(state.step))
            if stop.asked or (state.step % settings.checkpoint_every == 0 and state.step < run.steps):
                checkpoints.save(state, parts)
            if stop.asked:
                raise KeyboardInterrupt
            progress.advance(step_positions, note=f"loss {state.rows[-1]['loss']:.3f}" if state.rows else "")
    save(run.output, model, value_head, _unwanted(run), record(run.steps))
    write_curve(run.curve, state.rows)
    checkpoints.clear()
    return record(run.steps)


def write_curve(path: Path, rows: list[dict[str, float]]) -> None:
    """A CSV with one column for each term and one row for each ``log_every`` steps, means over those steps.

    A cell is empty where a term had no token to be a mean of.
    """
    text = io.StringIO()
    columns = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in rows)
    files.write_text(path, text.getvalue())


def _step_loss(run: Run, model: nn.Module, value_head: nn.Module | None, device: torch.device):
    """(tokens, scores, step) to (loss, terms): the part of a step that a compiler may see."""
    settings = run.settings
    low = torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bf16")

    def forward(tokens: torch.Tensor, scores: torch.Tensor):
        with low:
            hidden = model.transformer(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
            logp = token_logprobs(hidden, model.lm_head.weight, tokens[:, 1:])
            value = None
            if value_head is not None:
                value = value_head(hidden.detach() if run.numbers["detach"] else hidden)
        losses, terms = run.objective.loss(logp, scores, value, run.numbers)
        return losses.mean(), {"nll": -logp.detach().mean(), **{name: term.detach() for name, term in terms.items()}}

    if settings.compile == "on" or (settings.compile == "auto" and device.type == "cuda"):
        forward = torch.compile(forward)

    def step_loss(tokens: torch.Tensor, scores: torch.Tensor, step: int):
        if settings.dropout:
            torch.manual_seed(run.seed * 1_000_003 + step)
        return forward(tokens.to(device, non_blocking=True), scores.to(device, non_blocking=True))

    return step_loss


def _unwanted(run: Run) -> list[int]:
    """Ids that no sample may hold: the bad control token, the padding, and the good one where it is never trained."""
    special = [run.vocabulary.bad] if run.objective.stream == "control" else [run.vocabulary.good, run.vocabulary.bad]
    padded = -(-run.vocabulary.size // 128) * 128
    return sorted(special) + list(range(run.vocabulary.size, padded))


def _record(run: Run, identity: dict[str, Any], state: TrainState, step: int) -> dict[str, Any]:
    seen = step * run.settings.batch_size * run.settings.context
    return {
        "objective": run.objective.name,
        "stream": run.objective.stream,
        "seed": run.seed,
        "steps": step,
        "positions": seen,
        "text_tokens": state.text_tokens,
        "documents": run.rows.documents(step, run.settings.batch_size),
        "epochs": step * run.settings.batch_size / run.rows.count,
        "vocabulary": vars(run.vocabulary),
        "unwanted": _unwanted(run),
        **identity,
    }


def _add(state: TrainState, terms: dict[str, torch.Tensor]) -> None:
    """Add a step's terms to the window; a term that is NaN (no bad token in the batch) does not count."""
    for name, term in terms.items():
        value = float(term)
        for key, amount in ((name, 0.0 if value != value else value), (f"{name}#", float(value == value))):
            state.window[key] = state.window.get(key, 0.0) + amount
    state.window_steps += 1


def _log(state: TrainState, settings: TrainSettings, rate: float) -> None:
    row = {"positions": float(state.step * settings.batch_size * settings.context)}
    for name in [name for name in state.window if not name.endswith("#")]:
        if count := state.window[f"{name}#"]:
            row[name] = state.window[name] / count
    row["learning_rate"] = settings.learning_rate * rate
    state.rows.append(row)
    state.window, state.window_steps = {}, 0


class _StopFlag:
    """Ctrl-C and SIGTERM ask the loop to stop after the step at hand, so that no step is half done."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> _StopFlag:
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *failure: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
