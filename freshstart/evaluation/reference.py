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
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from freshstart import files
from freshstart.errors import InputError
from freshstart.evaluation import MLE, ReferenceSettings
from freshstart.evaluation.endpoint import Endpoint
from freshstart.evaluation.samples import cut, scored
from freshstart.evaluation.subject import Sampling, Subject, external, of_folder
from freshstart.names import trained_by
from freshstart.scorers import Scorer, load, record_of
from freshstart.scoring.segments import SEGMENTERS, is_space
from freshstart.tokens.tokenizer import Tokenizer

RECORD = "reference.json"
TEXTS = "texts.parquet"
SCHEMA = pa.schema(
    [
        ("text", pa.large_string()),
        ("tokens", pa.list_(pa.int32())),
        ("ended", pa.bool_()),
        ("segment_ends", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float32())),
        ("log_p", pa.list_(pa.float64())),
        ("lengths", pa.list_(pa.int32())),
    ]
)


@dataclass(frozen=True)
class Text:
    """A text as its writer wrote it: its tokens (None from an endpoint), whether its end of text is charged, and the
    end of each segment (characters)."""

    text: str
    tokens: list[int] | None
    ended: bool
    segment_ends: list[int]


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
    """The reference's texts. Of each the scores of its segments (NaN for what the limit cut and what could not be
    scored), and the log-probability and number of its own tokens by segment, the end of text last. ``most`` is the
    limit of tokens."""

    task: Task
    settings: ReferenceSettings
    most: int
    texts: list[Text]
    scores: list[np.ndarray]
    log_p: list[np.ndarray]
    lengths: list[np.ndarray]

    @classmethod
    def open(cls, folder: Path, task: Task, settings: ReferenceSettings) -> Reference:
        """Raises InputError where the folder is not whole, or a local model has changed since."""
        record = files.read_json(folder / RECORD, task.made_by)
        if record["weights"] != _weights(settings.model):
            raise InputError(
                f"{settings.model} has changed since texts of it were drawn: run `dvc repro -f {task.made_by}`"
            )
        rows = files.read_table(folder / TEXTS, task.made_by, SCHEMA.names).to_pylist()
        texts = [Text(row["text"], row["tokens"], row["ended"], row["segment_ends"]) for row in rows]
        numbers = ([np.array(row[name], dtype=np.float64) for row in rows] for name in ("scores", "log_p", "lengths"))
        return cls(task, settings, record["most"], texts, *numbers)

    @cached_property
    def reader(self) -> Subject | Endpoint:
        """The reference itself."""
        return _reader(self.settings, self.task)

    def charged(self, texts: Sequence[Text], writer: Tokenizer) -> list[np.ndarray]:
        """log p of texts of another writer, by segment."""
        if isinstance(self.reader, Endpoint):
            found = self.reader.read([text.text for text in texts])
            return [by_piece(text, *pieces)[0] for text, pieces in zip(texts, found, strict=True)]
        return charged(self.reader, texts, writer)


def draw(settings: ReferenceSettings, task: Task, least: int, batch_size: int, to: Path) -> int:
    """Draw, read and score the reference's texts into the folder ``to``; gives their number.

    ``least`` is the number of characters below which a text that the limit cut is scored as it is.
    """
    reader, (scorer, record) = _reader(settings, task), load(task.scorer, task.name)
    segments, most = record["segments"], settings.tokens
    if isinstance(reader, Endpoint):
        written = reader.write(settings.samples, most, task.seed)
        texts = [Text(text, None, False, SEGMENTERS[segments](text)) for text in map("".join, (w[0] for w in written))]
        numbers = [by_piece(text, *pieces) for text, pieces in zip(texts, written, strict=True)]
        log_p, counts = [list(column) for column in zip(*numbers, strict=True)]
    else:
        most = min(most, (reader.context - 2) // 2)  # no control token of a model like it is cut off
        texts = drawn(reader, settings.samples, most, batch_size, task.seed)
        log_p = charged(reader, texts, reader.tokenizer)
        counts = [lengths(text, reader.tokenizer) for text in texts]
    columns = {
        "text": [text.text for text in texts],
        "tokens": [text.tokens for text in texts],
        "ended": [text.ended for text in texts],
        "segment_ends": [text.segment_ends for text in texts],
        "scores": _scores(texts, scorer, segments, least),
        "log_p": log_p,
        "lengths": counts,
    }
    files.write_table(files.fresh_folder(to) / TEXTS, pa.table(columns, schema=SCHEMA))
    about = {"model": settings.model, "revision": settings.revision, "weights": _weights(settings.model)}
    files.write_json(to / RECORD, about | {"most": most, "seed": task.seed})
    return len(texts)


def drawn(writer: Subject, count: int, most: int, batch_size: int, seed: int) -> list[Text]:
    """Texts of a model under its own control, at temperature 1."""
    sampling = Sampling(most, batch_size=batch_size)
    samples = writer.generate([""] * count, writer.asked[0], sampling, seed)
    decoded = [writer.tokenizer.decode(sample.tokens) for sample in samples]
    ends = map(SEGMENTERS[writer.segments], decoded)
    return [Text(text, s.tokens, s.ended, cuts) for text, s, cuts in zip(decoded, samples, ends, strict=True)]


def lengths(text: Text, writer: Tokenizer) -> np.ndarray:
    """Tokens that the writer is charged for in each segment of its text, the end of text last."""
    return summed(text, np.ones(len(text.tokens or ()) + text.ended), owners(text, text.tokens or [], writer))


def owners(text: Text, tokens: Sequence[int], tokenizer: Tokenizer) -> np.ndarray:
    """The segment that each token belongs to, that of its first character; behind the last one stands the end of text.

    A token begins where the text of those before it ends, as in any byte-level tokenizer.
    """
    begins = [len(part) for part in tokenizer.decode_many([tokens[:place] for place in range(len(tokens))])]
    return _owners(text, begins)


def by_piece(text: Text, pieces: Sequence[str], log_p: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities and numbers of an endpoint's tokens, of which it gives the text, by segment."""
    begins = [0, *accumulate(map(len, pieces))][: len(pieces)]
    places = _owners(text, begins)
    return summed(text, np.array(log_p), places), summed(text, np.ones(len(pieces)), places)


def charged(reader: Subject, texts: Sequence[Text], writer: Tokenizer | None) -> list[np.ndarray]:
    """log q of each text by a reader under its own control, by segment, the end of text last.

    It is read as ``writer`` tokenised it where both write alike; the last segment has the sum of two ways to read it.
    """
    same = writer is not None and reader.tokenizer.same_text(writer)
    readings = [_readings(reader, text, same) for text in texts]
    rows = [row for ways in readings for row, _ in ways]
    log_q = iter(_log_q(reader, rows, 2 if reader.controls else 1))
    found = []
    for text, ways in zip(texts, readings, strict=True):
        by_segment = [summed(text, next(log_q), places) for _, places in ways]
        last = np.logaddexp.reduce([sums[-2:-1] for sums in by_segment])
        found.append(np.concatenate([by_segment[0][:-2], last, by_segment[0][-1:]]))
    return found


def by_length(rows: Sequence[Sequence[int]], at_once: Any) -> list[list[int]]:
    """The places of rows that are read together: of equal length, at most ``at_once(length)``; no padding."""
    batches = []
    for size in sorted({len(row) for row in rows}):
        same = [place for place, row in enumerate(rows) if len(row) == size]
        most = at_once(size)
        batches += [same[begin : begin + most] for begin in range(0, len(same), most)]
    return batches


def _log_q(reader: Subject, rows: list[list[int]], given: int) -> list[np.ndarray]:
    """For each row log q of each token behind the first ``given``; a row longer than the context is read in pieces."""
    found = [np.zeros(0)] * len(rows)
    forbidden = reader.forbidden(reader.asked[0])
    for places in by_length(rows, lambda size: reader.rows_at_once(size, 2)):
        if len(rows[places[0]]) > reader.context + 1:
            values = [-reader.nats(np.array(rows[place]), forbidden)[1:] for place in places]
        elif len(rows[places[0]]) > given:
            values = reader.log_p(torch.tensor([rows[place] for place in places]), forbidden).cpu().numpy()
        else:
            continue
        for place, value in zip(places, values, strict=True):
            found[place] = value[given - 1 :]
    return found


def _readings(reader: Subject, text: Text, same: bool) -> list[tuple[list[int], np.ndarray]]:
    """The ways in which a reader under its own control may have written a text, with the segment of each token that it
    is charged for: one, or two where the text was cut in white space that may open a segment."""
    own = reader.controls[0] if reader.controls else None
    end, count = [reader.end_of_text] if text.ended else [], len(text.segment_ends)
    if own is not None and reader.white_space == "trailing":
        marked = reader.marked(text.text, text.segment_ends, [own] * count)
        places = np.repeat(np.arange(count), marked.lengths)
        return [([reader.end_of_text, own.id, *marked.tokens.tolist()[1:], *end], np.append(places[1:], count))]
    if same and text.tokens is not None:
        tokens, places = text.tokens, owners(text, text.tokens, reader.tokenizer)
    else:
        ids, offsets = next(reader.tokenizer.encode([text.text]))
        tokens, places = ids.tolist(), _owners(text, offsets[:, 0])
    if own is None:
        return [([reader.end_of_text, *tokens, *end], places)]
    starts = {*(np.flatnonzero(np.diff(places[:-1], prepend=0))).tolist()} - {0}
    tail = None if text.ended else _tail(tokens, reader.tokenizer)
    ways = []
    for marks in [starts] if tail is None or tail in starts else [starts, starts | {tail}]:
        body = [number for place, token in enumerate(tokens) for number in ([own.id] * (place in marks) + [token])]
        twice = np.repeat(places, [1 + (place in marks) for place in range(len(places))])
        ways.append(([reader.end_of_text, own.id, *body, *end], twice))
    return ways


def _tail(tokens: Sequence[int], tokenizer: Tokenizer) -> int | None:
    """The place of the first token of the white space at the end, behind something solid; None where there is none."""
    place = len(tokens)
    while place and all(map(is_space, tokenizer.decode(tokens[place - 1 :]))):
        place -= 1
    return place if 0 < place < len(tokens) else None


def _owners(text: Text, begins: Sequence[int] | np.ndarray) -> np.ndarray:
    """The segment in which each token begins (the last one for what has no character of its own), and one more for the
    end of text."""
    count = len(text.segment_ends)
    places = np.searchsorted(text.segment_ends, begins, side="right")
    return np.append(np.minimum(places, max(count - 1, 0)), count).astype(np.int64)


def summed(text: Text, values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Values of tokens summed by segment, that of the end of text last: (segments + 1,)."""
    return np.bincount(places[: len(values)], weights=values, minlength=len(text.segment_ends) + 1)


def _scores(texts: Sequence[Text], scorer: Scorer, segments: str, least: int) -> list[np.ndarray]:
    """The scores of each text's segments; NaN for what the limit cut and for what could not be scored."""
    scores = [np.full(len(text.segment_ends), np.nan) for text in texts]
    whole = [cut(text.text, text.ended, segments, least) for text in texts]
    solid = [place for place, part in enumerate(whole) if part.strip()]
    for place, (_, _, parts) in zip(solid, scored([whole[place] for place in solid], scorer, segments), strict=True):
        if parts.error is None:
            scores[place][: len(parts.scores)] = parts.scores
    return scores


def _reader(settings: ReferenceSettings, task: Task) -> Subject | Endpoint:
    if settings.is_endpoint:
        return Endpoint(settings.model)
    if settings.model == MLE:
        model = of_folder(task.mle, trained_by(task.name, MLE, task.seed), task.device)
    else:
        layout = {"segments": record_of(task.scorer, task.name)["segments"], "threshold": 0.0}
        model = external(settings.model, task.device, revision=settings.revision, **layout)
    return replace(model, logit_gib=task.logit_gib)


def _weights(model: str) -> str | None:
    """Digest of the weights of a local model; None for one that the pipeline makes or a revision pins."""
    found = sorted(Path(model).glob("*.safetensors")) if model != MLE else []
    return files.digest({path.name: files.sha256(path) for path in found}) if found else None
