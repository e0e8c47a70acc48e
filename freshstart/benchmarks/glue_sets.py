"""The data sets of GLUE (Wang et al. 2019) as published: a folder each, with train.tsv and dev.tsv, plain or .gz.

Fields stand between tabs, a quote is a character like any other, and a byte-order mark is skipped. CoLA has no header.
The published test sets carry no labels: a tenth of train is kept for early stopping, by the hash of its texts, so that
equal texts are never on both sides, and dev is for reporting alone. Rows of train are put in the order of their hashes,
whatever that of the file is; a cap keeps the first. Rows with another number of fields than the header (QQP has some:
nyu-mll/GLUE-baselines, issue 5) are left out and counted.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from freshstart import files
from freshstart.errors import InputError
from freshstart.settings import listed

STOPPING = 0.1  # share of train that early stopping looks at
ENTAILMENT = ("entailment", "not_entailment")
HIGHEST = 5.0  # of the scores of STS-B, from 0


@dataclass(frozen=True)
class Form:
    """How a data set is laid out: the columns of its texts and labels, its metrics and its classes.

    Without ``classes`` labels are numbers from 0 to ``HIGHEST``. ``dev`` are the files to report on; ``header`` stands
    in for the one that a file lacks.
    """

    texts: tuple[str, ...]
    label: str
    metrics: tuple[str, ...] = ("accuracy",)
    classes: tuple[str, ...] = ("0", "1")
    dev: tuple[str, ...] = ("dev",)
    header: tuple[str, ...] = ()

    def number(self, label: str) -> float | None:
        """The number of a class, or the label itself; None where it can be neither."""
        if self.classes:
            return float(self.classes.index(label)) if label in self.classes else None
        try:
            value = float(label)
        except ValueError:
            return None
        return value if 0 <= value <= HIGHEST else None


PAIR = ("sentence1", "sentence2")
SETS: Mapping[str, Form] = {
    "CoLA": Form(("sentence",), "label", ("matthews",), header=("source", "label", "mark", "sentence")),
    "SST-2": Form(("sentence",), "label"),
    "MRPC": Form(("#1 String", "#2 String"), "Quality", ("f1", "accuracy")),
    "STS-B": Form(PAIR, "score", ("pearson", "spearman"), ()),
    "QQP": Form(("question1", "question2"), "is_duplicate", ("f1", "accuracy")),
    "MNLI": Form(
        PAIR, "gold_label", classes=("contradiction", "entailment", "neutral"), dev=("dev_matched", "dev_mismatched")
    ),
    "QNLI": Form(("question", "sentence"), "label", classes=ENTAILMENT),
    "RTE": Form(PAIR, "label", classes=ENTAILMENT),
    "WNLI": Form(PAIR, "label"),
}


@dataclass(frozen=True, order=True)
class Row:
    """One or two texts with their label, from a row (the first is 1) of a file."""

    file: str
    number: int
    texts: tuple[str, ...]
    label: float

    @property
    def place(self) -> str:
        return f"{self.file}:{self.number}"


@dataclass(frozen=True)
class Data:
    """A data set: rows to learn from, those that early stopping looks at, those of dev, and how many were left out."""

    learned: list[Row]
    stopping: list[Row]
    dev: list[Row]
    left_out: int

    @property
    def sha256(self) -> str:
        return files.digest([[row.texts, row.label] for row in (*self.learned, *self.stopping, *self.dev)])


def read(name: str, folder: Path, most: int | None) -> Data:
    """A data set below ``folder``, with at most so many rows of train.

    Raises InputError where a file is missing or damaged, lacks a column, or holds a label that the set does not have.
    """
    form = SETS[name]
    (train, left_out), *dev = (_rows(folder / name, file, form) for file in ("train", *form.dev))
    hashed = sorted((files.digest(row.texts), row.label, row) for row in train)[:most]
    sides: tuple[list[Row], list[Row]] = ([], [])
    for digest, _, row in hashed:
        sides[int(digest[-8:], 16) < STOPPING * 16**8].append(row)
    if min(map(len, (*sides, *(rows for rows, _ in dev)))) < 2:
        raise InputError(
            f"{folder / name}: {listed(len(rows) for rows, _ in dev)} rows of {listed(form.dev)} and {len(hashed)} of "
            "train are too few to learn from, to stop by and to report on"
        )
    return Data(*sides, [row for rows, _ in dev for row in rows], left_out + sum(broken for _, broken in dev))


def _rows(folder: Path, file: str, form: Form) -> tuple[list[Row], int]:
    """The rows of a file, and how many have another number of fields than its header."""
    path = next((path for end in (".tsv", ".tsv.gz") if (path := folder / f"{file}{end}").is_file()), None)
    if path is None:
        raise InputError(
            f"{folder / file}.tsv is missing (nor is there a .tsv.gz): put GLUE's published files there, or take "
            f"{folder.name} out of sets"
        )
    lines = _lines(path)
    header = form.header or next(lines, ())
    if absent := [column for column in (*form.texts, form.label) if column not in header]:
        raise InputError(f"{path} has no column {listed(absent)} (it has {listed(header)}): expected GLUE's own layout")
    texts, label = [header.index(column) for column in form.texts], header.index(form.label)
    rows, broken = [], 0
    for number, fields in enumerate(lines, 1):
        if len(fields) != len(header):
            broken += 1
            continue
        value = form.number(fields[label])
        if value is None:
            expected = f"one of {listed(form.classes)}" if form.classes else f"a number from 0 to {HIGHEST:g}"
            raise InputError(f"{path}: row {number} has {fields[label]!r:.100} as {form.label}, expected {expected}")
        rows.append(Row(file, number, tuple(fields[place] for place in texts), value))
    return rows, broken


def _lines(path: Path) -> Iterator[tuple[str, ...]]:
    """The fields of each line."""
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="\n") as file:
            for line in file:
                yield tuple(line.rstrip("\r\n").split("\t"))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path} can not be read as a whole ({error}): get it anew") from None
