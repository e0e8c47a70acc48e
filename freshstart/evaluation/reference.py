"""The reference of a task: who models are compared with, and texts of its own with their log-probabilities.

The texts are drawn once, at temperature 1 from their beginning, by the stage ``reference``, and pinned: every cell of
the task and seed reads the same. A text ends with its end of text or at the limit of tokens; there is no padding.

A reader with control tokens is charged for text *and* control tokens, but for the first one, which it is always given.
A text that the limit cut in white space may or may not have had a control token there: both are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from freshstart import files
from freshstart.errors import InputError
from freshstart.evaluation import MLE, ReferenceSettings
from freshstart.evaluation.endpoint import Endpoint
from freshstart.evaluation.samples import cut
from freshstart.evaluation.subject import Sampling, Subject, external, of_folder, segment_starts
from freshstart.names import trained_by
from freshstart.scorers import load, of_texts
from freshstart.scoring.segments import SEGMENTERS, is_space
from freshstart.tokens.tokenizer import Tokenizer

RECORD = "reference.json"
TEXTS = "texts.parquet"
SCHEMA = pa.schema(
    [
        ("text", pa.large_string()),
        ("tokens", pa.list_(pa.int32())),
        ("ended", pa.bool_()),
        ("log_p", pa.float64()),
        ("length", pa.int32()),
        ("score", pa.float32()),
    ]
)


@dataclass(frozen=True)
class Text:
    """A text as its writer wrote it: its tokens (None from an endpoint), and whether its end of text is charged."""

    text: str
    tokens: list[int] | None
    ended: bool


@dataclass(frozen=True)
class Task:
    """Whose reference it is: the task, the seed, the folders of its mle model and its scorer, and where it is read."""

    name: str
    seed: int
    mle: Path
    scorer: Path
    device: torch.device
    logit_gib: float

    @property
    def made_by(self) -> str:
        return f"reference@{self.name}-{self.seed}"


@dataclass
class Reference:
    """The reference's texts: log-probability, number of its own tokens (the end of text among them) and score of each;
    NaN where a text is blank or could not be scored. ``most`` is the limit of tokens."""

    task: Task
    settings: ReferenceSettings
    most: int
    texts: list[Text]
    log_p: np.ndarray
    lengths: np.ndarray
    scores: np.ndarray

    @classmethod
    def open(cls, folder: Path, task: Task, settings: ReferenceSettings) -> Reference:
        """Raises InputError where the folder is not whole, or a local model has changed since."""
        record = files.read_json(folder / RECORD, task.made_by)
        if record["weights"] != _weights(settings.model):
            raise InputError(
                f"{settings.model} has changed since texts of it were drawn: run `dvc repro -f {task.made_by}`"
            )
        columns = files.read_table(folder / TEXTS, task.made_by, SCHEMA.names).to_pydict()
        texts = [Text(*row) for row in zip(columns["text"], columns["tokens"], columns["ended"], strict=True)]
        scores = np.array([np.nan if score is None else score for score in columns["score"]])
        numbers = np.array(columns["log_p"]), np.array(columns["length"])
        return cls(task, settings, record["most"], texts, *numbers, scores)

    @cached_property
    def reader(self) -> Subject | Endpoint:
        """The reference itself."""
        return _reader(self.settings, self.task)

    def charged(self, texts: Sequence[Text], writer: Tokenizer) -> np.ndarray:
        """log p of texts of another writer."""
        if isinstance(self.reader, Endpoint):
            return self.reader.read([text.text for text in texts])
        return charged(self.reader, texts, writer)


def draw(settings: ReferenceSettings, task: Task, least: int, batch_size: int, to: Path) -> int:
    """Draw, read and score the reference's texts into the folder ``to``; gives their number.

    ``least`` is the number of characters below which a text that the limit cut is scored as it is.
    """
    reader, (scorer, record) = _reader(settings, task), load(task.scorer, task.name)
    if isinstance(reader, Endpoint):
        most = settings.tokens
        written, log_p, lengths = reader.write(settings.samples, most, task.seed)
        texts = [Text(text, None, False) for text in written]
    else:
        most = min(settings.tokens, (reader.context - 2) // 2)  # no control token of a model like it is cut off
        texts = drawn(reader, settings.samples, most, batch_size, task.seed)
        log_p = charged(reader, texts, reader.tokenizer)
        lengths = np.array([length(text) for text in texts])
    whole = [cut(text.text, text.ended, record["segments"], least) for text in texts]
    solid = [place for place, text in enumerate(whole) if text.strip()]
    scores: list[float | None] = [None] * len(texts)
    for place, scored in zip(solid, of_texts(scorer, [whole[place] for place in solid]), strict=True):
        scores[place] = scored.scores[0] if scored.scores else None
    columns = {
        "text": [text.text for text in texts],
        "tokens": [text.tokens for text in texts],
        "ended": [text.ended for text in texts],
        "log_p": log_p,
        "length": lengths,
        "score": scores,
    }
    files.write_table(files.fresh_folder(to) / TEXTS, pa.table(columns, schema=SCHEMA))
    about = {"model": settings.model, "revision": settings.revision, "weights": _weights(settings.model)}
    files.write_json(to / RECORD, about | {"most": most, "seed": task.seed})
    return len(texts)


def drawn(writer: Subject, count: int, most: int, batch_size: int, seed: int) -> list[Text]:
    """Texts of a model under its own control, at temperature 1."""
    sampling = Sampling(most, batch_size=batch_size)
    samples = writer.generate([""] * count, writer.asked[0], sampling, seed)
    return [Text(writer.tokenizer.decode(sample.tokens), sample.tokens, sample.ended) for sample in samples]


def length(text: Text) -> int:
    """Tokens that a writer is charged for."""
    return len(text.tokens or ()) + text.ended


def charged(reader: Subject, texts: Sequence[Text], writer: Tokenizer | None) -> np.ndarray:
    """log q of each text by a reader under its own control, as ``writer`` tokenised it where both write alike."""
    same = writer is not None and reader.tokenizer.same_text(writer)
    readings = [_readings(reader, text, same) for text in texts]
    rows = [row for alternatives in readings for row in alternatives]
    given = 2 if reader.controls else 1
    log_q = iter(_log_q(reader, rows, given))
    return np.array([np.logaddexp.reduce([next(log_q) for _ in alternatives]) for alternatives in readings])


def by_length(rows: Sequence[Sequence[int]], at_once: Any) -> list[list[int]]:
    """The places of rows that are read together: of equal length, at most ``at_once(length)``; no padding."""
    batches = []
    for size in sorted({len(row) for row in rows}):
        same = [place for place, row in enumerate(rows) if len(row) == size]
        most = at_once(size)
        batches += [same[begin : begin + most] for begin in range(0, len(same), most)]
    return batches


def _log_q(reader: Subject, rows: list[list[int]], given: int) -> np.ndarray:
    """For each row log q of what stands behind the first ``given`` tokens; one longer than the context is cut."""
    sums = np.zeros(len(rows))
    forbidden = reader.forbidden(reader.asked[0])
    for places in by_length(rows, lambda size: reader.rows_at_once(size, 2)):
        if len(rows[places[0]]) > reader.context + 1:
            sums[places] = [-reader.nats(np.array(rows[place]), forbidden)[given:].sum() for place in places]
        elif len(rows[places[0]]) > given:
            log_q = reader.log_p(torch.tensor([rows[place] for place in places]), forbidden)
            sums[places] = log_q[:, given - 1 :].sum(1).cpu().numpy()
    return sums


def _readings(reader: Subject, text: Text, same: bool) -> list[list[int]]:
    """The ways in which a reader under its own control may have written a text: one, or two where it was cut in white
    space that may open a segment."""
    own = reader.controls[0] if reader.controls else None
    tokens = text.tokens if same and text.tokens is not None else next(reader.tokenizer.encode([text.text]))[0].tolist()
    end = [reader.end_of_text] if text.ended else []
    if own is None:
        return [[reader.end_of_text, *tokens, *end]]
    begin = [reader.end_of_text, own.id]
    if reader.white_space == "trailing":
        bounds = SEGMENTERS[reader.segments](text.text)
        marked = reader.marked(text.text, bounds, [own] * len(bounds)).tokens.tolist()[1:] if bounds else []
        return [[*begin, *marked, *end]]
    starts = {*segment_starts(tokens, reader.tokenizer, reader.segments)} - {0}
    tail = None if text.ended else _tail(tokens, reader.tokenizer)
    ways = [starts] if tail is None or tail in starts else [starts, starts | {tail}]
    return [
        [
            *begin,
            *(n for place, token in enumerate(tokens) for n in ([own.id, token] if place in way else [token])),
            *end,
        ]
        for way in ways
    ]


def _tail(tokens: Sequence[int], tokenizer: Tokenizer) -> int | None:
    """The place of the first token of the white space at the end, behind something solid; None where there is none."""
    place = len(tokens)
    while place and all(map(is_space, tokenizer.decode(tokens[place - 1 :]))):
        place -= 1
    return place if 0 < place < len(tokens) else None


def _reader(settings: ReferenceSettings, task: Task) -> Subject | Endpoint:
    if settings.is_endpoint:
        return Endpoint(settings.model)
    if settings.model == MLE:
        model = of_folder(task.mle, trained_by(task.name, MLE, task.seed), task.device)
    else:
        layout = {"segments": load(task.scorer, task.name)[1]["segments"], "threshold": 0.0}
        model = external(settings.model, task.device, revision=settings.revision, **layout)
    return replace(model, logit_gib=task.logit_gib)


def _weights(model: str) -> str | None:
    """Digest of the weights of a local model; None for one that the pipeline makes or a revision pins."""
    found = sorted(Path(model).glob("*.safetensors")) if model != MLE else []
    return files.digest({path.name: files.sha256(path) for path in found}) if found else None
