"""Memorisation: training text that a model completes word for word from what stands before it.

A passage is ``prefix`` tokens of a training document and the ``target`` tokens behind them. It is memorised where the
most likely next token is the true one at each place of the target, which is what greedy decoding would write (Carlini
et al. 2023, arXiv 2202.07646, with 50 tokens of target). Passages whose target touches a bad segment are counted apart
(for personal data: those that hold some), as many as of good ones, drawn at random. A model with control tokens reads
its own one before each segment. ``texts`` names a file of passages of one's own, such as canaries: text, one a line or
JSON lines with ``text``, whose last ``target`` tokens are to be completed. A model with another tokenizer than the
task's is asked these alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from freshstart.benchmarks import BenchmarkSettings
from freshstart.benchmarks.reading import texts_of
from freshstart.errors import InputError
from freshstart.evaluation.metrics import Metric
from freshstart.evaluation.statistics import share
from freshstart.scoring.segments import SEGMENTERS

if TYPE_CHECKING:
    import pyarrow as pa

    from freshstart.evaluation.context import Context
    from freshstart.evaluation.subject import Subject

METRICS = (
    Metric("completed.*", "passages completed word for word", "share", "lower", title="completed, *", interval=True),
    Metric("completed.*.n", "passages", "passages"),
    Metric("tokens.*", "tokens of the target completed before the first other one, mean", "tokens", "lower"),
)


@dataclass(frozen=True, kw_only=True)
class Settings(BenchmarkSettings):
    passages: int = 2048  # of either kind
    prefix: int = 32
    target: int = 32
    texts: str | None = None

    def __post_init__(self) -> None:
        for name in ("passages", "prefix", "target"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")


@dataclass(frozen=True)
class Passage:
    """Tokens of a text from its beginning on, with the places that begin a segment; the last ones are the target."""

    group: str
    tokens: np.ndarray
    starts: np.ndarray


def run(subject: Subject, settings: Settings, context: Context, state: Path) -> tuple[dict[str, Any], pa.Table]:
    import pyarrow as pa

    is_own = subject.tokenizer.same_text(context.tokenizer)
    passages = [*(_drawn(settings, context) if is_own else ()), *_own(subject, settings, context.task)]
    held = _completed(subject, passages, settings.target)
    groups = np.array([passage.group for passage in passages])
    metrics: dict[str, Any] = {"completed": {}, "tokens": {}}
    for name in dict.fromkeys(groups.tolist()):
        of = held[groups == name]
        metrics["completed"][name] = share(int((of == settings.target).sum()), len(of))
        metrics["tokens"][name] = float(of.mean())
    texts = subject.tokenizer.decode_many([passage.tokens for passage in passages])
    return metrics, pa.table({"group": groups.tolist(), "text": texts, "completed": held.tolist()})


def _drawn(settings: Settings, context: Context) -> list[Passage]:
    """Passages of the training stream, as many with bad text in their target as without; none where there are none."""
    folder, length = context.tokens / "train", settings.prefix + settings.target
    ends, scores = (np.load(folder / f"segment_{name}.npy", mmap_mode="r") for name in ("ends", "scores"))
    threshold = context.scorer.over
    documents = np.load(folder / "document_ends.npy")
    begins = np.concatenate([[0], documents[:-1]]) + 1  # behind its end of text
    room = np.maximum(documents - begins - length + 1, 0)
    total, generator = np.cumsum(room), np.random.Generator(np.random.Philox(key=context.seed))
    if not len(total) or not total[-1]:
        raise InputError(f"{folder}: no document of {context.task} has {length} tokens: shorten prefix and target")
    kept: dict[str, list[Passage]] = {"good": [], "bad": []}
    for place in generator.choice(total[-1], min(64 * settings.passages, total[-1]), replace=False):
        document = int(np.searchsorted(total, place, side="right"))
        begin = int(begins[document] + place - (total[document] - room[document]))
        first, last = np.searchsorted(ends, [begin + settings.prefix, begin + length - 1], side="right")
        name = "bad" if (np.nan_to_num(scores[first : last + 1]) > threshold).any() else "good"
        if len(kept[name]) < settings.passages:
            inside = ends[slice(*np.searchsorted(ends, [begin + 1, begin + length]))] - begin
            tokens = np.asarray(context.train_tokens[begin : begin + length]).astype(np.int64)
            kept[name].append(Passage(name, tokens, inside))
        if all(len(found) == settings.passages for found in kept.values()):
            break
    return [passage for found in kept.values() for passage in found]


def _own(subject: Subject, settings: Settings, task: str) -> list[Passage]:
    """The passages of the file ``texts``."""
    if settings.texts is None:
        return []
    passages = []
    for text in texts_of(settings.texts, "texts", task):
        tokens, offsets = next(subject.tokenizer.encode([text]))
        if len(tokens) <= settings.target:
            raise InputError(
                f"{settings.texts}: a passage has {len(tokens)} tokens, of which the last {settings.target} are to be "
                f"completed: make it longer, or the benchmark's target shorter ({text[:40]!r})"
            )
        starts = np.searchsorted(offsets[:, 0], SEGMENTERS[subject.segments](text)[:-1], side="left")
        passages.append(Passage("texts", tokens, starts))
    return passages


def _completed(subject: Subject, passages: Sequence[Passage], target: int) -> np.ndarray:
    """How many tokens of each target are the most likely ones, up to the first that is not."""
    import torch

    own = subject.controls[0] if subject.controls else None
    forbidden = subject.forbidden(subject.asked[0])
    rows, asked = [], []
    for passage in passages:
        body, places = [subject.end_of_text, *([own.id] if own else [])], []
        for place, token in enumerate(passage.tokens.tolist()):
            if own and place in passage.starts:
                body.append(own.id)
            places.append(len(body) - 1)  # where the token is predicted
            body.append(token)
        rows.append(body[-subject.context - 1 :])
        shift = len(body) - len(rows[-1])
        asked.append([place - shift for place in places[-target:]])
    held = np.zeros(len(rows), dtype=np.int64)
    for length in sorted({len(row) for row in rows}):
        same = [number for number, row in enumerate(rows) if len(row) == length]
        at_once = subject.rows_at_once(length, 2)
        for begin in range(0, len(same), at_once):
            chosen = same[begin : begin + at_once]
            tokens = torch.tensor([rows[number] for number in chosen], device=subject.model.device)
            best = subject.log_probabilities(tokens, forbidden).argmax(-1).cpu().numpy()
            for number, row in zip(chosen, best, strict=True):
                right = row[asked[number]] == passages[number].tokens[-target:]
                held[number] = target if right.all() else int(right.argmin())
    return held
