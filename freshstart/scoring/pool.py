"""Scoring on the pool (``freshstart.pool``): the parts of a corpus in, scored parts out.

Results go to the score cache, so that a stage that was interrupted, or killed, scores only the documents of the parts
that were in flight again. A part whose worker died is read again one document at a time; where a row is left out, all
its other rows are in the cache.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from freshstart import files, pool
from freshstart.scorers import Scorer, ScoreSettings, fingerprint, load, record_of, scorer_class
from freshstart.scoring import segments
from freshstart.scoring.table import PartDone, score_part


class Worker(pool.Worker):
    """One scorer, loaded with the first document that is not in the cache, and the parts it is given."""

    def __init__(self, scorer_folder: str, task: str, record: dict[str, Any]):
        self._from, self._record = (scorer_folder, task), record
        self._scorer: Scorer | None = None

    def work(self, job: pool.Job) -> PartDone:
        before = job.may if job.careful else None
        made = made_here(self._record)
        return score_part(job.source, job.target, self._loaded, self._record["segments"], made, before, job.seconds)

    def _loaded(self) -> Scorer:
        if self._scorer is None:
            self._scorer, _ = load(*self._from)
        return self._scorer


def made_here(record: dict[str, Any]) -> dict[str, Any]:
    """The fingerprint of scores made by this process: of the scorer, of what cuts segments, and of the device."""
    segmenter = {"source_sha256": files.sha256(segments.__file__), "nltk": version("nltk")}
    made = {**fingerprint(record), "segmenter": segmenter}
    if scorer_class(record["kind"]).on_gpu:  # a network rounds differently on a GPU
        import torch

        made["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    return made


def score_parts(
    parts: list[tuple[Path, Path]],
    scorer_folder: Path,
    task: str,
    workers: int | None = None,
    seconds: float = ScoreSettings.document_seconds,
) -> int:
    """Score every corpus part of ``parts`` into its target; gives the number of documents that were scored anew.

    ``workers``: processes; None takes all processors (or GPUs, for a scorer that uses them) of the machine or cluster.
    ``seconds``: see ScoreSettings.document_seconds.
    Raises InputError naming the parts and rows that could not be scored, after all others are finished.
    """
    os.environ.update(pool.ONE_THREAD)
    record = record_of(scorer_folder, task)
    arguments = (str(scorer_folder.resolve()), task, record)
    notes = files.state_folder("scoring").resolve()
    pairs = [(source.resolve(), target.resolve()) for source, target in parts]
    jobs = [pool.Job(source, target, notes / files.digest([str(source), record]), seconds) for source, target in pairs]
    damaged: set[Path] = set()
    anew = 0
    on_gpu, title = scorer_class(record["kind"]).on_gpu, f"scoring with {record['kind']}"
    done = pool.run(title, jobs, Worker, arguments, workers, on_gpu, note=lambda: f"{anew:,} documents scored anew")
    try:
        for _, part in done:
            anew += part.anew
            damaged.update(part.damaged)
    finally:
        for pack in sorted(damaged):
            print(f"warning: {pack} was damaged and is removed: its documents were scored anew", file=sys.stderr)
    return anew
