"""Rebuild the pipeline with several stages at a time: `dvc repro` itself runs one after the other.

The graph, and what of it is out of date, come from DVC. A stage is handed out as soon as all that it depends on is
there, to a process of its own, ``dvc --wait-for-lock repro -s <stage>``; DVC lets go of its lock while the stage's
command runs. What depends on a stage is run only if it was out of date already or if the stage made other outputs than
before. Once only a chain is left, or nothing, a plain ``dvc repro`` runs it and sees that nothing else is to be done.
DVC itself waits for its lock without end: where another program holds it for ``LOCK_SECONDS``, the run stops and says
who that is.

Corpora, scores and tokens take every processor through Ray: one runs at a time. With GPUs each job sees one of them.
Cost, with 70 stages and a dvc.lock of 7,500 lines: 1.3 s of DVC a stage in any case, most of it dvc.lock, which one
process at a time writes, and 0.6 s for a process of its own. So stages of a second gain nothing, stages of a minute
nearly all.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freshstart import files
from freshstart.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil
    from dvc.repo import Repo

ALONE = {"corpus", "score", "tokens"}  # use every processor, and every GPU: one at a time, with GPUs nothing beside it
EVALUATIONS = {"evaluate", "evaluate_finetuned", "evaluate_folder", "evaluate_hub"}
FIRST = {"warnings", "train", "finetune", *EVALUATIONS}  # what a person should see early, and what takes long
LOCK_SECONDS = 120.0
WATCH_SECONDS = 5.0
ADVICE = ("To track the changes with git", "Use `dvc push`")  # DVC's last words; once, at the end, is enough
TAIL_LINES = 15
NEWBORN_SECONDS = 0.5  # a process that has not loaded its program yet loses a signal


@dataclass(frozen=True)
class Plan:
    """Each stage that the targets need, in the order of `dvc repro`, with the stages it depends on; what is stale of
    them; and the outputs that dvc.lock names, before anything runs, in its order.
    """

    repo: Repo
    upstream: dict[str, set[str]]
    stale: set[str]
    recorded: dict[str, Any]


class LockedError(InputError):
    """Another program holds DVC's lock."""


@dataclass(frozen=True)
class Job:
    """A stage that runs, on the GPU of its slot, or None where there are none."""

    stage: str
    gpu: str | None


@dataclass(frozen=True)
class Ended:
    status: int
    tail: list[str]


Running = dict[Future[Ended], Job]


def rebuild(targets: list[str], jobs: int | None = None) -> None:
    """Bring the targets (default: everything) up to date, ``jobs`` stages at a time.

    Raises InputError where a stage fails and KeyboardInterrupt on Ctrl-C, both once the stages that run have ended, and
    SystemExit with the status of the closing `dvc repro` where that is not 0.
    """
    slots = _slots(jobs)
    with _alone(), ThreadPoolExecutor(len(slots)) as pool:
        plan = _plan(targets) if len(slots) > 1 else None
        if plan is not None and not plan.stale:
            print("Data and pipelines are up to date.")
            return
        running: Running = {}
        try:
            if plan is not None:
                _hand_out(plan, slots, pool, running)
            closing = pool.submit(_dvc, ["repro", *targets])
            running[closing] = Job("dvc repro", None)
            status = closing.result().status
        except LockedError:
            _stop(running, blocked=True)
            plan = None
            raise
        except KeyboardInterrupt:
            _stop(running)
            raise
        finally:
            if plan is not None:
                _put_in_order(plan)
    if status:
        sys.exit(status)


@contextmanager
def _alone() -> Iterator[None]:
    """Refuse a second run in the same folder."""
    import fcntl

    with open(files.state_folder() / "repro.lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InputError(
                f"another `freshstart repro` runs in this folder (process {file.read().strip() or 'unknown'}): wait "
                "until it ends, or stop it with Ctrl-C"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _plan(targets: list[str]) -> Plan | None:
    """What is to be done; None where DVC can not tell, which `dvc repro` then explains in its own words."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

    try:
        repo = Repo()
        with _locked(repo):
            graph = get_active_graph(repo.index.graph)
            stages = plan_repro(graph, collect_stages(repo, targets or ["dvc.yaml"]))
            upstream = {stage.addressing: {before.addressing for before in graph.successors(stage)} for stage in stages}
            stale = {stage.addressing for stage in stages if stage.status()}
        return Plan(repo, upstream, stale, _recorded(repo))
    except DvcException:
        return None


def _hand_out(plan: Plan, slots: list[str | None], pool: ThreadPoolExecutor, running: Running) -> None:
    """Run stages until what is left is a chain.

    Raises InputError where one fails, once all that run have ended, and LockedError where DVC's lock is not to be had.
    """
    waiting, stale, free = dict(plan.upstream), set(plan.stale), list(slots)
    failed: dict[str, Ended] = {}
    watch = Watch(_lock_file(plan.repo))
    while running or not (failed or _is_chain(waiting, stale)):
        first = sorted(waiting, key=lambda stage: _kind(stage) not in FIRST)
        for stage in [] if failed else first:
            busy = {job.stage for job in running.values()}
            held = not ALONE.isdisjoint(map(_kind, busy))
            if not waiting[stage].isdisjoint(waiting.keys() | busy):
                continue
            if stage in stale:
                if not free:
                    break
                alone = _kind(stage) in ALONE
                if (any(slots) and (running if alone else held)) or (alone and held):
                    continue
                job = Job(stage, free.pop())
                words = ["--wait-for-lock", "repro", "-s", stage]
                running[pool.submit(_dvc, words, stage, None if alone else job.gpu)] = job
            del waiting[stage]
        done = wait(running, WATCH_SECONDS, return_when=FIRST_COMPLETED).done
        watch.look()
        for future in done:
            job = running.pop(future)
            free.append(job.gpu)
            dependants = {stage for stage, before in waiting.items() if job.stage in before} - stale
            if future.result().status:
                failed[job.stage] = future.result()
            elif dependants and _made_others(plan, job.stage):
                stale |= dependants
    if failed:
        said = "\n".join(f"{stage} | {line}" for stage, ended in failed.items() for line in ended.tail)
        raise InputError(f"{', '.join(failed)} failed; what other stages finished is kept. The last lines:\n{said}")


def _kind(stage: str) -> str:
    return stage.partition("@")[0]


def _is_chain(waiting: dict[str, set[str]], stale: set[str]) -> bool:
    """Whether the stages that may still have to run can only run one after the other."""
    might: list[str] = []
    for stage, upstream in waiting.items():
        if stage in stale or not upstream.isdisjoint(might):
            might.append(stage)
    return all(before in waiting[after] for before, after in pairwise(might))


def _dvc(words: list[str], name: str | None = None, gpu: str | None = None) -> Ended:
    """Run DVC with these words; with a name what it says is passed on line by line, the name before each.

    It is in a session of its own, so that Ctrl-C on a terminal reaches it through ``_stop`` alone.
    """
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    command = [sys.executable, "-m", "dvc", *words]
    if name is None:
        return Ended(subprocess.Popen(command, env=environment, start_new_session=True).wait(), [])
    environment["PYTHONUNBUFFERED"] = "1"
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with subprocess.Popen(
        command,
        env=environment,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        advice = False
        for line in filter(str.strip, process.stdout or ()):
            advice = advice or line.startswith(ADVICE)
            if not advice:
                tail.append(line.rstrip())
                sys.stdout.write(f"{name} | {line.rstrip()}\n")  # in one piece: other threads write too
                sys.stdout.flush()
    return Ended(process.returncode, list(tail))


@dataclass
class Watch:
    """How long another program than ours has held DVC's lock."""

    lock: Path
    since: float | None = None

    def look(self) -> None:
        """Raises LockedError once that is too long."""
        holder = self.holder()
        now = time.monotonic()
        self.since = None if holder is None else self.since or now
        if self.since is not None and now - self.since > LOCK_SECONDS:
            raise LockedError(
                f"process {holder} has held DVC's lock in this folder for {LOCK_SECONDS:.0f} s, and the stages wait "
                "for it: end it, and run the same command again; what was finished is kept"
            )

    def holder(self) -> str | None:
        """The process that holds the lock, if it is none of ours."""
        import fcntl

        import psutil

        try:
            with open(self.lock, encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
        except FileNotFoundError:
            return None
        except BlockingIOError:
            pid = self.lock.read_text(encoding="utf-8").strip()
        ours = {str(process.pid) for process in (psutil.Process(), *_dvcs())}
        return None if pid in ours else pid or "unknown"


@contextmanager
def _locked(repo: Repo) -> Iterator[None]:
    """Hold DVC's lock; raises LockedError where another program does for too long."""
    from dvc.lock import LockError

    watch = Watch(_lock_file(repo))
    while True:
        try:
            repo.lock.lock()
            break
        except LockError:
            watch.look()
    try:
        yield
    finally:
        repo.lock.unlock()


def _lock_file(repo: Repo) -> Path:
    return Path(repo.tmp_dir or ".dvc/tmp", "lock")


def _stop(running: Running, blocked: bool = False) -> None:
    """Pass Ctrl-C on to the commands of the stages and wait for all to end.

    DVC itself is left alone: it writes dvc.lock in place, and a signal at that moment would leave half of it. Where it
    is ``blocked``, since another program holds its lock, it writes nothing, and is ended.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # once is enough; not SIG_IGN, which new processes would inherit
        signal.signal(number, lambda *_: None)
    stages = ", ".join(job.stage for future, job in running.items() if not future.done())
    print(f"stopping: {stages} may save what they have", file=sys.stderr, flush=True)
    told: set[int] = set()
    while _dvcs() or not all(future.done() for future in running):
        for pid in _commands() - told:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
            told.add(pid)
        for dvc in _dvcs() if blocked and not _commands() else []:
            dvc.kill()
        time.sleep(0.1)


def _dvcs() -> list[psutil.Process]:
    import psutil

    alive = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if child.status() != psutil.STATUS_ZOMBIE:
                alive.append(child)
    return alive


def _commands() -> set[int]:
    """Processes that this process's DVCs have started, those that keep a session of their own aside."""
    import psutil

    found: set[int] = set()
    for dvc in _dvcs():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            for command in dvc.children(recursive=True):
                old = time.time() - command.create_time() > NEWBORN_SECONDS
                if old and os.getpgid(command.pid) == dvc.pid:
                    found.add(command.pid)
    return found


def _recorded(repo: Repo) -> dict[str, Any]:
    """The outputs of each stage in dvc.lock, which is read under DVC's lock since DVC writes it in place."""
    from dvc.utils.serialize import load_yaml

    path = Path(repo.root_dir, "dvc.lock")
    with _locked(repo):
        stages = load_yaml(path).get("stages", {}) if path.exists() else {}
    return {stage: entry.get("outs") for stage, entry in stages.items()}


def _made_others(plan: Plan, stage: str) -> bool:
    before = plan.recorded.get(stage)
    return before is None or before != _recorded(plan.repo).get(stage)


def _put_in_order(plan: Plan) -> None:
    """Give dvc.lock the order that `dvc repro` gives it: stages new to it at its end, in the order of the graph."""
    from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

    found = _recorded(plan.repo)
    order = [*plan.recorded, *(stage for stage in plan.upstream if stage not in plan.recorded)]
    order = [stage for stage in order if stage in found]
    if list(found) == order:
        return
    path = Path(plan.repo.root_dir, "dvc.lock")
    with _locked(plan.repo):
        lock = parse_yaml_for_update(path.read_text(encoding="utf-8"), path)
        for stage in order:
            lock["stages"].move_to_end(stage)
        files.write_text(path, dumps_yaml(lock))


def _slots(jobs: int | None) -> list[str | None]:
    """One for each job at a time, with the GPU that it is to see, or None.

    ``jobs``, else FRESHSTART_JOBS, else one where FRESHSTART_LAUNCH gives a training several processes, else one a GPU,
    else one a processor and one more, since a stage that DVC begins or ends waits for dvc.lock.
    """
    asked = os.environ.get("FRESHSTART_JOBS") if jobs is None else str(jobs)
    if asked is not None and not (asked.isdigit() and int(asked)):
        raise InputError(f"--jobs or FRESHSTART_JOBS must be a whole number from 1 on, found {asked!r}")
    jobs = None if asked is None else int(asked)
    launched = bool(os.environ.get("FRESHSTART_LAUNCH"))
    gpus = [] if launched else gpu_names()
    if jobs is None and not launched:
        from freshstart.pool import processors

        jobs = len(gpus) or processors() + 1
    return [gpus[index % len(gpus)] if gpus else None for index in range(jobs or 1)]


def gpu_names() -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu.strip() for gpu in named.split(",") if gpu.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return [line[4:].partition(":")[0] for line in listed.splitlines() if line.startswith("GPU ")]
