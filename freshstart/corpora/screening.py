"""Documents held against rules and benchmarks, and prepared to be held against each other, on the pool: a piece of the
spool in, its signatures out, and by number of the row what was found.

What is found of a document depends on it alone, so that a corpus comes out the same whatever the number of workers.
Signatures of a piece are made in one call, six times as fast as one by one.
"""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from freshstart import pool
from freshstart.corpora import CorpusSettings, Refusal, near_duplicates, ngrams, overlap, quality
from freshstart.settings import listed

SHOWN = 20


@dataclass
class Findings:
    """Of the rows of one piece, or of all in their order."""

    rows: int = 0
    left_out: dict[int, str] = field(default_factory=dict)  # the reason
    overlaps: dict[int, list[int]] = field(default_factory=dict)  # items of benchmarks, of rows that stay
    examples: list[Refusal] = field(default_factory=list)  # of overlaps

    def append(self, piece: Findings) -> None:
        self.left_out |= {self.rows + row: sys.intern(reason) for row, reason in piece.left_out.items()}
        self.overlaps |= {self.rows + row: items for row, items in piece.overlaps.items()}
        self.examples = [*self.examples, *piece.examples][:SHOWN]
        self.rows += piece.rows


class Worker(pool.Worker):
    """The benchmarks, and the pieces that it is given."""

    def __init__(self, settings: CorpusSettings, benchmarks: str):
        self._settings, self._file = settings, benchmarks

    @cached_property
    def _benchmarks(self) -> overlap.Benchmarks:
        return pickle.loads(Path(self._file).read_bytes())

    def work(self, job: pool.Job) -> Findings:
        with pa.ipc.open_stream(pa.OSFile(str(job.source))) as piece:
            table = piece.read_all().select(["text", "source", "meta"])
        findings, stay = Findings(len(table)), []
        for number, row in enumerate(table.to_pylist()):
            words = ngrams.words(row["text"])
            hashed = ngrams.hashes(words)
            if rule := quality.broken(self._settings.quality, row["text"], words, hashed):
                findings.left_out[number] = rule
                continue
            if self._settings.benchmarks and (shared := self._benchmarks.shared(hashed)):
                reason = f"overlap with {listed(self._benchmarks.names_of(shared))}"
                if len(findings.examples) < SHOWN:
                    item, place = next(iter(shared.items()))
                    detail = f"{self._benchmarks.places[item]}: {' '.join(words[place])}"
                    where = str(json.loads(row["meta"]).get("path", row["source"]))
                    findings.examples.append(Refusal(where, reason, detail))
                if self._settings.overlap == "drop":
                    findings.left_out[number] = reason
                    continue
                findings.overlaps[number] = list(shared)
            stay.append(hashed)
        made = near_duplicates.signatures(stay) if self._settings.near_duplicates != "none" else b""
        job.target.write_bytes(made)
        return findings


def screen(
    pieces: Sequence[Path],
    settings: CorpusSettings,
    benchmarks: overlap.Benchmarks,
    signatures: Path,
    workers: int | None,
) -> Findings:
    """What is found of the rows of all pieces; the signatures of those that stay go to one file, in their order.

    ``workers`` as in ``pool.run``.
    """
    state = signatures.with_name("benchmarks")
    if settings.benchmarks:
        state.write_bytes(pickle.dumps(benchmarks))
    jobs = [pool.Job(piece.resolve(), piece.with_suffix(".made").resolve(), state.with_name("row")) for piece in pieces]
    arguments: tuple[Any, ...] = (settings, str(state.resolve()))
    done = pool.run("comparing documents", jobs, Worker, arguments, workers, is_light=True)
    by_piece = {job.target: answer for job, answer in done}
    findings = Findings()
    with open(signatures, "wb") as file:
        for job in jobs:
            findings.append(by_piece[job.target])
            with open(job.target, "rb") as made:
                shutil.copyfileobj(made, file)
            job.target.unlink()
    return findings
