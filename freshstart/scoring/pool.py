"""Ray actors over the parts of a corpus: one part in, one part out, nothing but paths and counts between processes.

A finished part is kept in the state folder under a key of its content: the digest of the input part and the scorer's
fingerprint. A stage that was interrupted, or killed, finds the finished parts there and scores the others alone. Parts
come out equal, byte for byte, whatever the number of workers; ``workers=0`` runs the same function without Ray.

A part whose worker dies is tried again on a restarted worker, ``ATTEMPTS`` times in all; a part that raises is not.
Either way the other parts are finished first and the error names those that are missing.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freshstart import files
from freshstart.errors import InputError
from freshstart.progress import Progress
from freshstart.scorers import RECORD, Scorer, failure, fingerprint, load
from freshstart.scoring.table import score_part

ATTEMPTS = 3
OBJECT_STORE_BYTES = 80 * 1024 * 1024  # paths and counts alone pass through it; Ray's least is 75 MB
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Job:
    """A corpus part, where its finished part is kept, and its fingerprint."""

    source: str
    kept: str
    fingerprint: dict[str, Any]


class Worker:
    """One scorer, loaded with the first part, and the parts it is given."""

    def __init__(self, scorer_folder: str, task: str):
        self._from = (scorer_folder, task)
        self._loaded: tuple[Scorer, dict[str, Any]] | None = None

    def score(self, job: Job) -> int:
        self._loaded = self._loaded or load(*self._from)
        return score_part(Path(job.source), Path(job.kept), *self._loaded, job.fingerprint)


def worker_count() -> int:
    """FRESHSTART_WORKERS, else the processors that this process may use."""
    named = os.environ.get("FRESHSTART_WORKERS")
    if named is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not named.isdigit():
        raise InputError(f"FRESHSTART_WORKERS must be a whole number from 0 on, found {named!r}")
    return int(named)


def score_parts(corpus: list[Path], scorer_folder: Path, task: str, workers: int) -> list[Path]:
    """Score every corpus part; gives the kept scored parts in the same order.

    Raises InputError naming the parts that could not be scored, after all others are finished.
    """
    os.environ.update(ONE_THREAD)
    record = files.read_json(scorer_folder / RECORD, f"scorer@{task}")
    jobs = [_job(path, record) for path in corpus]
    todo = [job for job in jobs if not _whole(Path(job.kept))]
    title = f"scoring with {record['kind']}"
    failed: dict[str, str] = {}
    with Progress(title, len(jobs), "parts") as progress:
        progress.advance(len(jobs) - len(todo), note=f"{len(jobs) - len(todo)} kept from before")
        run = _here if workers == 0 or not todo else _on_ray
        for job, errors, problem in run(todo, str(scorer_folder), task, min(workers, len(todo))):
            if problem is not None:
                failed[Path(job.source).name] = problem
            progress.advance(note=f"{len(failed)} failed" if failed else f"{errors} without a score in the last")
    if failed:
        named = "; ".join(f"{name}: {problem}" for name, problem in sorted(failed.items()))
        raise InputError(f"{len(failed)} of {len(jobs)} parts could not be scored ({named}). The others are kept")
    return [Path(job.kept) for job in jobs]


def _job(source: Path, record: dict[str, Any]) -> Job:
    full = {**fingerprint(record), "input_sha256": files.sha256(source)}
    key = files.digest(full)
    return Job(str(source.resolve()), str(files.state_folder("scored", key[:2]).resolve() / f"{key}.parquet"), full)


def _whole(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.read_metadata(path)
    except (FileNotFoundError, pa.ArrowInvalid):
        return False
    return True


Outcome = tuple[Job, int, str | None]


def _here(jobs: list[Job], scorer_folder: str, task: str, workers: int) -> Iterator[Outcome]:
    worker = Worker(scorer_folder, task) if jobs else None
    for job in jobs:
        try:
            yield job, worker.score(job), None
        except (InputError, OSError):
            raise
        except Exception as error:  # reported with the part's name, after the other parts are done
            yield job, 0, failure(error)


def _on_ray(jobs: list[Job], scorer_folder: str, task: str, workers: int) -> Iterator[Outcome]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)  # workers find what we find
    import ray
    from ray.exceptions import RayActorError, RayError, RayTaskError

    cluster = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "object_store_memory": OBJECT_STORE_BYTES}
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", **cluster)
    try:
        actor = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=0)(Worker)
        idle = deque(actor.remote(str(Path(scorer_folder).resolve()), task) for _ in range(workers))
        waiting = deque(jobs)
        attempts = dict.fromkeys((job.kept for job in jobs), 0)
        running: dict[Any, tuple[Any, Job]] = {}
        while waiting or running:
            while waiting and idle:
                worker, job = idle.popleft(), waiting.popleft()
                attempts[job.kept] += 1
                running[worker.score.remote(job)] = (worker, job)
            done, _ = ray.wait(list(running), num_returns=1)
            worker, job = running.pop(done[0])
            idle.append(worker)
            try:
                yield job, ray.get(done[0]), None
            except RayTaskError as error:
                if isinstance(error.cause, InputError | OSError):
                    raise error.cause from None
                yield job, 0, failure(error.cause)
            except RayActorError as error:
                if attempts[job.kept] < ATTEMPTS:
                    waiting.append(job)
                else:
                    yield job, 0, f"its worker died {ATTEMPTS} times ({failure(error)})"
            except RayError as error:
                yield job, 0, failure(error)
    finally:
        ray.shutdown()
