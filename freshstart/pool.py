"""Ray actors over parts of a corpus: one part in, one part out, nothing but paths and counts between processes.

What a worker makes of a part depends on the part alone, so that outputs are equal, byte for byte, whatever the number
of workers; ``workers=0`` runs the same function in this process, without Ray.

A worker that dies (or whose machine does) is replaced, and its part is done again, by a worker that is told so
(``Job.careful``) and notes the row at hand in the state folder where it works row by row. So it goes with a row that
ends its process and with one that hangs: an alarm ends the worker, with the place in the worker's log. A row that kills
its worker twice is left out; its part is not written, and the run ends with an error that names part, row and document
after every other part is finished. A part that raises is not tried again.

On a laptop Ray is started here, without dashboard and telemetry, and leaves with the run, also where that is killed
(``freshstart.reaper``). On a cluster (RAY_ADDRESS) all machines must see the project folder and the state folder under
the same path.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from freshstart import files
from freshstart.errors import InputError, failure
from freshstart.progress import Progress

DEATHS_OF_A_ROW = 2
ROWS_LEFT_OUT = 5  # a part with more rows that kill its worker is given up
DEATHS_WITHOUT_A_ROW = 3
WORKERS_NEVER_THERE = 5
PATIENCE_SECONDS = 60.0
OBJECT_STORE_BYTES = 80 * 1024 * 1024  # paths and counts alone pass through it; Ray's least is 75 MB
SMALL_BYTES = 1 << 25  # of parts that are read before Ray has started
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Job:
    """A part, where what is made of it goes, and the file that names the row at hand once a worker has died."""

    source: Path
    target: Path
    at: Path
    seconds: float = 0.0  # that one document may take (0: as long as it likes)
    careful: bool = False
    killers: tuple[int, ...] = ()  # rows that a worker died on, once a death
    deaths_without_row: int = 0  # of its workers before any row was begun
    why: str = ""  # its last worker died

    @property
    def left_out(self) -> set[int]:
        return {row for row in self.killers if self.killers.count(row) >= DEATHS_OF_A_ROW}

    def may(self, row: int) -> bool:
        """Write down the row at hand; false for a row that is left out."""
        if row in self.left_out:
            return False
        self.at.write_text(str(row), encoding="utf-8")
        return True


class Hung(BaseException):
    """A document took too long; no Exception, so that no scorer takes it for one of its own."""


class Worker:
    """Lives in a process of its own, made from arguments that can be sent there, and is given parts."""

    def ready(self) -> None:
        """Answers once the worker is there."""
        faulthandler.register(signal.SIGALRM, chain=True)

    def work(self, job: Job) -> Any:
        """Make ``job.target`` of ``job.source``; gives what the driver is to know, a few counts."""
        raise NotImplementedError


def worker_count() -> int | None:
    """FRESHSTART_WORKERS, or None where it is not set."""
    text = os.environ.get("FRESHSTART_WORKERS")
    if text is not None and not text.isdigit():
        raise InputError(f"FRESHSTART_WORKERS must be a whole number from 0 on, found {text!r}")
    return None if text is None else int(text)


def run(
    title: str,
    jobs: Sequence[Job],
    worker: Callable[..., Worker],
    arguments: tuple[Any, ...],
    workers: int | None,
    on_gpu: bool = False,
    is_light: bool = False,
    note: Callable[[], str] = str,
) -> Iterator[tuple[Job, Any]]:
    """Yield each job that is done and what its worker gives, in the order in which they end.

    ``workers``: processes; None takes all processors (or GPUs, for work ``on_gpu``) of the machine or cluster, but for
    light work on parts of less than ``SMALL_BYTES`` none.
    ``note`` is asked for a word beside the progress. Raises InputError naming the parts that were not done, and rows
    that killed their worker, after all others are finished.
    """
    if workers is None and is_light and sum(job.source.stat().st_size for job in jobs) < SMALL_BYTES:
        workers = 0
    if workers == 0:
        outcomes = _here(jobs, lambda: worker(*arguments))
    else:
        outcomes = _on_ray(jobs, worker, arguments, workers, on_gpu)
    failed: dict[str, str] = {}
    try:
        with Progress(title, len(jobs), "parts") as progress:
            for job, answer, problem in outcomes:
                if problem is not None:
                    failed[f"{job.source.parent.name}/{job.source.name}"] = problem
                if answer is not None:
                    yield job, answer
                progress.advance(note=f"{len(failed)} failed" if failed else note())
    finally:
        for job in jobs:
            job.at.unlink(missing_ok=True)
    if failed:
        listed = "; ".join(f"{name}: {problem}" for name, problem in sorted(failed.items()))
        raise InputError(f"{title}: {len(failed)} of {len(jobs)} parts failed ({listed}); everything else is done")


Outcome = tuple[Job, Any, str | None]  # what the worker gives, or None, and what went wrong


def _here(jobs: Sequence[Job], made: Callable[[], Worker]) -> Iterator[Outcome]:
    def too_long(signum: int, frame: Any) -> None:
        raise Hung(f"took more than {jobs[0].seconds:g} s a document")

    handler, timer = signal.signal(signal.SIGALRM, too_long), signal.getitimer(signal.ITIMER_REAL)
    worker, waiting = made(), deque(jobs)
    try:
        while waiting:
            job = waiting.popleft()
            try:
                yield job, worker.work(job), _left_out(job)
            except (InputError, OSError):
                raise
            except Exception as error:  # reported with the part's name, after the other parts are done
                yield job, None, failure(error)
            except (Hung, SystemExit) as error:
                worker = made()
                yield from _after_death(job, failure(error), waiting)
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def _on_ray(
    jobs: Sequence[Job],
    worker_class: Callable[..., Worker],
    arguments: tuple[Any, ...],
    workers: int | None,
    on_gpu: bool,
) -> Iterator[Outcome]:
    import ray
    from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

    logs, reaper = _start(ray, workers)
    try:
        demand, most = _demand(ray, on_gpu, workers)
        actor = ray.remote(max_restarts=0, max_task_retries=0, **demand)(worker_class)
        waiting, idle = deque(jobs), deque[Any]()
        coming: dict[Any, Any] = {}  # the answer that says that a worker is there: the worker
        running: dict[Any, tuple[Any, Job]] = {}
        never_there = 0
        while waiting or running:
            while waiting and idle:
                worker, job = idle.popleft(), waiting.popleft()
                running[worker.work.remote(job)] = (worker, job)
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
                    answer = ray.get(done[0])
                    idle.append(worker)
                    yield job, answer, _left_out(job)
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
        command = [sys.executable, "-m", "freshstart.reaper", session]
        reaper = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    return str(Path(session) / "logs"), reaper


def _demand(ray: Any, on_gpu: bool, workers: int | None) -> tuple[dict[str, float], int]:
    """What one worker needs, and how many there may be."""
    there = ray.cluster_resources()
    demand, most = {"num_cpus": 1.0}, int(there.get("CPU", 1))
    if on_gpu and there.get("GPU"):
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


def _after_death(job: Job, why: str, waiting: deque[Job]) -> Iterator[Outcome]:
    """Let the job, whose worker died, wait for another, or give it up."""
    again = replace(job, careful=True, why=why)
    try:
        row = int(job.at.read_text(encoding="utf-8"))
        job.at.unlink()
        again = replace(again, killers=(*job.killers, row) if job.careful else ())
        if len(again.left_out) > ROWS_LEFT_OUT:
            yield job, None, f"{_left_out(again)}; there may be more"
            return
    except (FileNotFoundError, ValueError):
        if job.careful:
            again = replace(again, deaths_without_row=job.deaths_without_row + 1)
        if again.deaths_without_row == DEATHS_WITHOUT_A_ROW:
            yield job, None, f"its worker died {DEATHS_WITHOUT_A_ROW + 1} times before the first row ({why})"
            return
    waiting.append(again)


def _left_out(job: Job) -> str | None:
    """The rows that killed their worker, with their documents; None where there are none."""
    if not job.left_out:
        return None
    ids = files.read_table(job.source, "corpus", ["doc_id"])["doc_id"]
    listed = ", ".join(f"row {row} (document {ids[row].as_py()})" for row in sorted(job.left_out))
    return (
        f"{listed} killed the worker {DEATHS_OF_A_ROW} times: a crash, an exit, or no end within "
        f"score.<task>.document_seconds, {job.seconds:g} ({job.why})"
    )
