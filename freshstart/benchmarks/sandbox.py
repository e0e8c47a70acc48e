"""Programs that a model wrote, each run in a sandbox of its own: what became of them.

A program is a text that a fresh Python runs in an empty folder, with the standard library alone, without input and with
its output thrown away. ``sandlock`` (Landlock and seccomp; needs no root) lets it read Python and the libraries of the
system and nothing else, and write into its folder, whose content is thrown away; it opens no socket, starts no process
and signals nobody. Limits hold for time, memory, open files, the size of a file and of all files together.

Where the kernel is too old for that nothing is run, unless the caller asks for a ``degraded`` sandbox: limits of the
process (under root as the user nobody), with namespaces of its own for network, users and processes where the kernel
gives them. It reads what others may read and writes where others may write.

How a program ends is told by its exit code. An early ``exit(0)`` is no pass, but a program that sets out to deceive can
leave with the code of one. Source of the protocol: Chen et al. 2021, section 2.2 and the code published with it.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

from freshstart.errors import InputError

PROCESSES = 1
OPEN_FILES = 64
FILE_MIB = 16  # of one file
DISK_MIB = 64  # of all files, counted whenever one is opened
MIB = 1 << 20
NOBODY = 65534
PYTHON = os.path.realpath(sys.executable)
PROGRAM = "program.py"
OUTSIDE = "open('/etc/passwd').read()"
NO_STREAMS = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
NAMESPACES = ("unshare", "--user", "--net", "--pid", "--fork", "--kill-child", "--")

PASSED, SYNTAX, EXITED, ERROR, TIMEOUT, KILLED = "passed", "syntax", "exited", "error", "timeout", "killed"
ENDS = {PASSED: 100, "failed": 101, SYNTAX: 102, "memory": 103, EXITED: 104, ERROR: 105}  # exit codes
RAISED = {"AssertionError": "failed", "SyntaxError": SYNTAX, "MemoryError": "memory", "SystemExit": EXITED}
DRIVER = """
import os, resource
null = os.open(os.devnull, os.O_RDWR)
for stream in range(3):
    os.dup2(null, stream)
os.closerange(3, 64)
for limit, most in limits:
    hard = resource.getrlimit(limit)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(limit, (most, most))
try:
    with open(program, encoding="utf-8") as file:
        code = file.read()
    exec(compile(code, program, "exec"), {})
except BaseException as raised:
    os._exit(ends.get(type(raised).__name__, error))
os._exit(passed)
"""


@dataclass(frozen=True)
class Limits:
    """Of one program: seconds by the clock, and memory of all its processes."""

    seconds: float
    memory_mib: int


def _end_with_parent() -> None:
    """Let this process, and with it the program that it runs, end when its parent was killed."""

    def wait() -> None:
        parent_process().join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


@contextmanager
def runner(limits: Limits, degraded: bool) -> Iterator[Callable[[Sequence[str]], list[str]]]:
    """A function that runs programs and gives how each ended: ``passed``; ``failed`` (an assertion), ``syntax``,
    ``memory``, ``exited`` (before its end) or ``error`` (any other exception); ``timeout`` or ``killed`` (by a limit).

    They run in as many processes as there are processors, apart from this one, whose memory a fork would copy.
    """
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), _end_with_parent) as pool:
        end = partial(end_of, limits=limits, degraded=degraded)
        yield lambda programs: list(pool.map(end, programs))


def tried(limits: Limits, degraded: bool) -> str:
    """What programs are held by, in words. Raises InputError where they can not be run, or would not be held."""
    if degraded:
        held_by = "limits, in namespaces of their own" if _namespaces() else "limits alone"
    else:
        try:
            import sandlock
        except ImportError:
            raise InputError(
                "programs that models write run in sandlock, which is not installed: `pip install sandlock==0.9.0`"
            ) from None
        found, least = sandlock.landlock_abi_version(), sandlock.min_landlock_abi()
        if found < least:
            raise InputError(
                f"programs run in sandlock, which needs Landlock {least} (Linux 6.12), and this kernel has "
                f"{max(found, 0) or 'none'}: run it where the kernel is newer, or set degraded: true ({__name__} says "
                "what holds programs then)"
            )
        held_by = f"sandlock {version('sandlock')}"
    if (end := end_of("pass", limits, degraded)) != PASSED:
        whom = " as nobody, who may not read a Python below root's home" if degraded and _is_root() else ""
        raise InputError(f"an empty program does not run in the sandbox ({held_by}){whom}: it ended as {end!r}")
    if not degraded and end_of(OUTSIDE, limits, degraded) == PASSED:
        raise InputError(f"the sandbox ({held_by}) lets programs read /etc/passwd: nothing is run in it")
    return held_by


def end_of(program: str, limits: Limits, degraded: bool) -> str:
    """Run one program; it leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="freshstart-") as folder:
        work = Path(folder, "work")
        work.mkdir()
        (work / PROGRAM).write_text(program, encoding="utf-8", errors="replace")
        end = (_limited if degraded else _locked)(work, limits)
    return end if isinstance(end, str) else {code: name for name, code in ENDS.items()}.get(end, EXITED)


def _locked(work: Path, limits: Limits) -> int | str:
    """Exit code of the program in the folder, or what ended it, held by sandlock."""
    import sandlock

    store = work.parent / "store"
    store.mkdir()
    user = {"uid": NOBODY, "gid": NOBODY} if _is_root() else {}  # takes root's right to raise its limits
    sandbox = sandlock.Sandbox(
        fs_readable=_read_by_python(),
        fs_writable=[str(work), os.devnull],
        cwd=str(work),
        workdir=str(work),
        fs_storage=str(store),
        max_disk=DISK_MIB * MIB,
        on_exit=sandlock.BranchAction.ABORT,
        max_memory=limits.memory_mib * MIB,
        max_processes=PROCESSES,
        max_open_files=OPEN_FILES,
        clean_env=True,
        no_coredump=True,
        **user,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Policy field 'gid'")  # it is set
        result = sandbox.run(_command(limits), timeout=limits.seconds)
    if result.error is not None:
        raise InputError(f"sandlock could not run a program ({result.error}): try it elsewhere, or set degraded: true")
    if result.reason == sandlock.ExitReason.EXITED:
        return result.exit_code
    return TIMEOUT if result.reason == sandlock.ExitReason.TIMEOUT else KILLED


def _limited(work: Path, limits: Limits) -> int | str:
    """The same, held by limits of the process and what namespaces the kernel gives."""
    if user := _nobody():
        for path in (work.parent, work):
            os.chown(path, NOBODY, NOBODY)
    try:
        process = subprocess.Popen(
            [*_namespaces(), *_command(limits)], cwd=work, env={}, start_new_session=True, **NO_STREAMS, **user
        )
    except PermissionError:  # nobody may not run this Python
        return KILLED
    try:
        code = process.wait(limits.seconds)
    except subprocess.TimeoutExpired:
        return TIMEOUT
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return code if 0 <= code < 128 else KILLED  # unshare gives 128 and the signal


def _command(limits: Limits) -> list[str]:
    most = [
        (resource.RLIMIT_AS, limits.memory_mib * MIB),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, int(limits.seconds) + 1),
        (resource.RLIMIT_FSIZE, FILE_MIB * MIB),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_NPROC, PROCESSES),
    ]
    ends = {raised: ENDS[end] for raised, end in RAISED.items()}
    values = {"program": PROGRAM, "limits": most, "ends": ends, "error": ENDS[ERROR], "passed": ENDS[PASSED]}
    lines = [f"{name} = {value!r}" for name, value in values.items()]
    return [PYTHON, "-I", "-S", "-c", "\n".join(lines) + DRIVER]


@cache
def _namespaces() -> tuple[str, ...]:
    """The command that runs another one in namespaces of its own; empty where the kernel or the system gives none."""
    if shutil.which(NAMESPACES[0]) is None:
        return ()
    trial = subprocess.run([*NAMESPACES, "true"], **NO_STREAMS, **_nobody(), check=False)
    return NAMESPACES if trial.returncode == 0 else ()


def _nobody() -> dict[str, Any]:
    """As whom a program is started: under root as nobody, since no limit on processes holds for root."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if _is_root() else {}


def _read_by_python() -> list[str]:
    """Files and folders that Python reads to start and to import its standard library."""
    library = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), sysconfig.get_config_var("LIBDIR")]
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/dev/urandom"]
    return [path for path in dict.fromkeys([PYTHON, *library, *system]) if path and os.path.exists(path)]


def _is_root() -> bool:
    return os.geteuid() == 0
