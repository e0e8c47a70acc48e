"""Ray actors over the parts of a corpus: one part in, one part out, nothing but paths and counts between processes.

Results go to the score cache, so that a stage that was interrupted, or killed, scores only the documents of the parts
that were in flight again. Parts come out equal, byte for byte, whatever the number of workers; ``workers=0`` runs the
same function without Ray.

A worker that dies (or whose machine does) is replaced, and its part is read again one document at a time, with a note
of the row at hand in the state folder. So it goes with a scorer that ends its process and with one that hangs: an alarm
ends its worker, with the place in the worker's log. A row that kills its worker twice is left out; its part is not
written, all its other rows are in the cache, and the run ends with an error that names part, row and document after
every other part is finished. A part that raises is not tried again.

On a laptop Ray is started here, without dashboard and telemetry, and leaves with the run, also where that is killed
(``freshstart.scoring.reaper``). On a cluster (RAY_ADDRESS)
all machines must see the project folder and the state folder under the same path.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from freshstart import files
from freshstart.errors import InputError
from freshstart.progress import Progress
from freshstart.scorers import RECORD, Scorer, ScoreSettings, failure, fingerprint, load, scorer_class
from freshstart.scoring import segments
from freshstart.scoring.table import PartDone, score_part

DEATHS_OF_A_ROW = 2
ROWS_LEFT_OUT = 5  # a part with more rows that kill its worker is given up
DEATHS_WITHOUT_A_ROW = 3
WORKERS_NEVER_THERE = 5
PATIENCE_SECONDS = 60.0
OBJECT_STORE_BYTES = 80 * 1024 * 1024  # paths and counts alone pass through it; Ray's least is 75 MB
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Job:
    """A corpus part, where its scored part goes, and the file that names the row at hand once a worker has died."""

    source: Path
    target: Path
    at: Path
    seconds: float  # that one document may take
    careful: bool = False
    killers: tuple[int, ...] = ()  # rows that a worker died on, once a death
    deaths_without_row: int = 0  # of its workers before any row was begun

    @property
    def left_out(self) -> set[int]:
        return {row for row in self.killers if self.killers.count(row) >= DEATHS_OF_A_ROW}


class Hung(BaseException):
    """Scoring took too long; no Exception, so that no scorer takes it for one of its own."""


class Worker:
    """One scorer, loaded with the first document that is not in the cache, and the parts it is given."""

    def __init__(self, scorer_folder: str, task: str, record: dict[str, Any]):
        self._from, self._record = (scorer_folder, task), record
        self._scorer: Scorer | None = None

    def ready(self) -> None:
        """Answers once the worker is there."""
        faulthandler.register(signal.SIGALRM, chain=True)

    def score(self, job: Job) -> PartDone:
        before = (lambda row: _noted(job, row)) if job.careful else None
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


def worker_count() -> int | None:
    """FRESHSTART_WORKERS, or None where it is not set."""
    text = os.environ.get("FRESHSTART_WORKERS")
    if text is not None and not text.isdigit():
        raise InputError(f"FRESHSTART_WORKERS must be a whole number from 0 on, found {text!r}")
    return None if text is None else int(text)


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
    os.environ.update(ONE_THREAD)
    record = files.read_json(scorer_folder / RECORD, f"scorer@{task}")
    arguments = (str(scorer_folder.resolve()), task, record)
    notes = files.state_folder("scoring").resolve()
    pairs = [(source.resolve(), target.resolve()) for source, target in parts]
    jobs = [Job(source, target, notes / files.digest([str(source), record]), seconds) for source, target in pairs]
    failed: dict[str, str] = {}
    damaged: set[Path] = set()
    anew = 0
    run = _here if workers == 0 else _on_ray
    try:
        with Progress(f"scoring with {record['kind']}", len(jobs), "parts") as progress:
            for job, done, problem in run(jobs, arguments, workers):
                if problem is not None:
                    failed[f"{job.source.parent.name}/{job.source.name}"] = problem
                if done is not None:
                    anew += done.anew
                    damaged.update(done.damaged)
                progress.advance(note=f"{len(failed)} failed" if failed else f"{anew:,} documents scored anew")
    finally:
        for job in jobs:
            job.at.unlink(missing_ok=True)
        for pack in sorted(damaged):
            print(f"warning: {pack} was damaged and is removed: its documents were scored anew", file=sys.stderr)
    if failed:
        listed = "; ".join(f"{name}: {problem}" for name, problem in sorted(failed.items()))
        count = f"{len(failed)} of {len(jobs)} parts"
        raise InputError(f"{count} could not be scored ({listed}). All other documents are scored and kept")
    return anew


Outcome = tuple[Job, PartDone | None, str | None]
Arguments = tuple[str, str, dict[str, Any]]  # those of Worker


def _here(jobs: list[Job], arguments: Arguments, workers: int | None) -> Iterator[Outcome]:
    def too_long(signum: int, frame: Any) -> None:
        raise Hung(f"no score within {jobs[0].seconds:g} s a document")

    handler, timer = signal.signal(signal.SIGALRM, too_long), signal.getitimer(signal.ITIMER_REAL)
    worker, waiting = Worker(*arguments), deque(jobs)
    try:
        while waiting:
            job = waiting.popleft()
            try:
                part = worker.score(job)
                yield job, part, _named(job, part.left_out)
            except (InputError, OSError):
                raise
            except Exception as error:  # reported with the part's name, after the other parts are done
                yield job, None, failure(error)
            except (Hung, SystemExit) as error:
                worker = Worker(*arguments)
                yield from _after_death(job, failure(error), waiting)
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def _on_ray(jobs: list[Job], arguments: Arguments, workers: int | None) -> Iterator[Outcome]:
    import ray
    from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

    logs, reaper = _start(ray, workers)
    try:
        demand, most = _demand(ray, arguments[2], workers)
        actor = ray.remote(max_restarts=0, max_task_retries=0, **demand)(Worker)
        waiting, idle = deque(jobs), deque[Any]()
        coming: dict[Any, Any] = {}  # the answer that says that a worker is there: the worker
        running: dict[Any, tuple[Any, Job]] = {}
        never_there = 0
        while waiting or running:
            while waiting and idle:
                worker, job = idle.popleft(), waiting.popleft()
                running[worker.score.remote(job)] = (worker, job)
            while len(coming) + len(running) < min(most, len(waiting) + len(running)):
                worker = actor.remote(*arguments)
                coming[worker.ready.remote()] = worker
            done, _ = ray.wait([*running, *coming], num_returns=1, timeout=PATIENCE_SECONDS)
            if not done:
                if not running:
                    print(f"waiting for a worker: Ray has no free {demand}; logs: {logs}", file=sys.stderr, flush=True)
            elif done[0] in coming:
                worker = coming.pop(done[0])
                try:
                    ray.get(done[0])
                    idle.append(worker)
                except RayError as error:
                    never_there += 1
                    if never_there == WORKERS_NEVER_THERE:
                        raise InputError(f"Ray's workers do not start ({failure(error)}); logs: {logs}") from None
            else:
                worker, job = running.pop(done[0])
                try:
                    part = ray.get(done[0])
                    idle.append(worker)
                    yield job, part, _named(job, part.left_out, f"; logs: {logs}")
                except RayTaskError as error:
                    if isinstance(error.cause, InputError | OSError):
                        raise error.cause from None
                    idle.append(worker)
                    yield job, None, failure(error.cause)
                except (RayActorError, OutOfMemoryError) as error:
                    yield from _after_death(job, f"{failure(error)}; logs: {logs}", waiting)
    finally:
        ray.shutdown()
        if reaper is not None:
            reaper.communicate()


def _start(ray: Any, workers: int | None) -> tuple[str, subprocess.Popen[bytes] | None]:
    """Start Ray here, with a reaper, or join the cluster that RAY_ADDRESS names; gives the folder of its logs too."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    path = os.pathsep.join(path or os.getcwd() for path in sys.path)  # workers find what we find
    shared = {**ONE_THREAD, "PYTHONPATH": path, "FRESHSTART_STATE": str(files.state_folder().resolve())}
    os.environ.update(shared)
    if os.environ.get("RAY_ADDRESS"):
        more: dict[str, Any] = {"runtime_env": {"env_vars": shared}}
    else:
        more = {"address": "local", "num_cpus": workers or processors(), "object_store_memory": OBJECT_STORE_BYTES}
    context = ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", **more)
    session = context.address_info["session_dir"]
    reaper = None
    if not os.environ.get("RAY_ADDRESS"):
        command = [sys.executable, "-m", "freshstart.scoring.reaper", session]
        reaper = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    return str(Path(session) / "logs"), reaper


def _demand(ray: Any, record: dict[str, Any], workers: int | None) -> tuple[dict[str, float], int]:
    """What one worker needs, and how many there may be."""
    there = ray.cluster_resources()
    demand, most = {"num_cpus": 1.0}, int(there.get("CPU", 1))
    if scorer_class(record["kind"]).on_gpu and there.get("GPU"):
        demand["num_gpus"] = gpu_share()
        most = int(there["GPU"] / demand["num_gpus"])
    return demand, max(workers or most, 1)


def gpu_share() -> float:
    """FRESHSTART_GPU_SHARE: the share of a GPU that a worker of a neural scorer takes; 1 where it is not set."""
    text = os.environ.get("FRESHSTART_GPU_SHARE", "1")
    with suppress(ValueError):
        if 0 < float(text) <= 1:
            return float(text)
    raise InputError(f"FRESHSTART_GPU_SHARE must be above 0 and at most 1, found {text!r}")


def processors() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _noted(job: Job, row: int) -> bool:
    """Write down the row at hand; false for a row that is left out."""
    if row in job.left_out:
        return False
    job.at.write_text(str(row), encoding="utf-8")
    return True


def _after_death(job: Job, why: str, waiting: deque[Job]) -> Iterator[Outcome]:
    """Let the job, whose worker died, wait for another, or give it up."""
    again = replace(job, careful=True)
    try:
        row = int(job.at.read_text(encoding="utf-8"))
        job.at.unlink()
        again = replace(again, killers=(*job.killers, row) if job.careful else ())
        if len(again.left_out) > ROWS_LEFT_OUT:
            yield job, None, f"{_named(again, again.left_out)}; there may be more ({why})"
            return
    except (FileNotFoundError, ValueError):
        if job.careful:
            again = replace(again, deaths_without_row=job.deaths_without_row + 1)
        if again.deaths_without_row == DEATHS_WITHOUT_A_ROW:
            yield job, None, f"its worker died {DEATHS_WITHOUT_A_ROW + 1} times before the first row ({why})"
            return
    waiting.append(again)


def _named(job: Job, rows: Collection[int], more: str = "") -> str | None:
    """The rows that killed their worker, with their documents."""
    if not rows:
        return None
    ids = files.read_table(job.source, "corpus", ["doc_id"])["doc_id"]
    listed = ", ".join(f"row {row} (document {ids[row].as_py()})" for row in sorted(rows))
    return (
        f"{listed} killed the worker {DEATHS_OF_A_ROW} times{more}: a crash, an exit, or no score within "
        f"score.<task>.document_seconds ({job.seconds:g})"
    )
