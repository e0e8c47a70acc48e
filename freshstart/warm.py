"""The warm process: doors are forked from it after torch and transformers were imported once, for all of them.

    python -m freshstart.warm SOCKET torch transformers.models.gpt2.modeling_gpt2 ...

`python -m freshstart repro` keeps one while it runs. It imports the packages named, nothing of this project, and
computes nothing: the only threads that it has are those of OpenBLAS and jemalloc, which know how to be forked. A door
that finds it by FRESHSTART_WARM sends its arguments, folder, environment and standard files; a child forked from the
warm process takes them over and runs the door's module as it lies on the disk. The door passes signals on and ends as
the child ends; a child whose door dies is killed. A door of another Python or another environment than the warm
process' own is not taken, since packages read these when they are imported. Limits and niceness are not taken over.

It ends once its standard input has ended, which it does in whatever way the process that began it ends, and its
children have. Cost: the imports once (4.4 s of a processor, 0.5 GB), then 0.1 s a door in place of 4 to 6 s.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

WARM = "FRESHSTART_WARM"
PACKAGES = (  # what is slow to import of what train, finetune and evaluate need for a GPT-2
    "torch",
    "torch.utils.serialization",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.auto.tokenization_auto",
    "pydantic.dataclasses",
    "ruamel.yaml",
    "safetensors.torch",
    "pyarrow.parquet",
    "sklearn.metrics",
    "nltk.tokenize.punkt",
    "scrubadub.detectors.catalogue",
)
OF_A_DOOR = ("DVC_", "FRESHSTART_")  # read when a door runs; packages read what else there is on their import
OF_A_SHELL = {"_", "COLUMNS", "LINES", "OLDPWD", "PATH", "PWD", "PYTHONUNBUFFERED", "SHLVL"}
PROJECT = {"freshstart", "stages"}
SIGNALS = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)

Request = dict[str, Any]
Doors = dict[int, socket.socket | None]  # by child; None once the door is gone


@contextmanager
def kept(packages: tuple[str, ...] = PACKAGES) -> Iterator[int]:
    """Keep a warm process, whose id is given, for the doors that are opened inside the block."""
    folder = tempfile.mkdtemp(prefix="freshstart-warm-")
    path = os.environ[WARM] = str(Path(folder, "socket"))
    command = [sys.executable, "-u", "-m", "freshstart.warm", path, *packages]
    process = subprocess.Popen(
        command,
        env=dict(os.environ),  # without what C libraries have set, as the doors
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process.pid
    finally:
        os.environ.pop(WARM, None)
        process.terminate()
        process.communicate()
        shutil.rmtree(folder, ignore_errors=True)


def hand_over() -> None:
    """Run this door in the warm process and end as it ends there; returns where there is none that takes it.

    Raises InputError where the warm process dies before the child does, which is killed then.
    """
    path, spec = os.environ.pop(WARM, ""), sys.modules["__main__"].__spec__
    if not path or spec is None or os.environ.get("FRESHSTART_LAUNCH"):
        return
    os.umask(umask := os.umask(0o77))
    request = {"module": spec.name, "arguments": sys.argv, "folder": os.getcwd(), "path": sys.path, "umask": umask}
    line = json.dumps(request | {"environment": dict(os.environ), "like": _likeness()}).encode() + b"\n"
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as answers:
        try:
            connection.connect(path)
            connection.sendall(line[socket.send_fds(connection, [line], [0, 1, 2]) :])
            child = answers.readline()
        except OSError:
            return
        if not child:
            return

        def pass_on(number: int, frame: object) -> None:
            with suppress(OSError):
                connection.send(bytes([number]))

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, pass_on)
        try:
            status = answers.readline()
        except ConnectionError:
            status = b""
    if status:
        _end(int(status))
    from freshstart.errors import InputError

    with suppress(ProcessLookupError):
        os.kill(int(child), signal.SIGKILL)
    raise InputError("the warm process that this stage was forked from has died: run the same command again")


def _end(status: int) -> None:
    """End with an exit status, or by the signal that is its negative."""
    if status < 0:
        with suppress(OSError):  # SIGKILL has no handler to reset
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


def _likeness() -> dict[str, Any]:
    """What a door must share with the warm process for its imports to be what the door's own would be."""
    return {
        "python": [sys.executable, sys.version, list(sys.flags), sys.path[1:]],
        "environment": {name: value for name, value in os.environ.items() if not _of_a_door(name)},
    }


def _of_a_door(name: str) -> bool:
    return name.startswith(OF_A_DOOR) or name in OF_A_SHELL


def main() -> None:
    path, *packages = sys.argv[1:]
    like = _likeness()
    finished: list[bool] = []
    atexit.register(_skip_teardown, finished)  # before the packages register theirs: it runs after them
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)  # doors that come early wait
        for name in packages:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()  # no sweep writes to the pages that the children share
        request = _serve(listener, like)
    if request is not None:
        _run(request)
    else:
        shutil.rmtree(Path(path).parent, ignore_errors=True)
    finished.append(True)


def _skip_teardown(finished: list[bool]) -> None:
    """End here with status 0 if all is done: Python would take 4,000 modules apart first, which takes 1.5 s."""
    if finished:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _serve(listener: socket.socket, like: dict[str, Any]) -> Request | None:
    """Fork a child for each door; gives the request in a child, with signals blocked, and None at the end."""
    wake, alarm = socket.socketpair()
    alarm.setblocking(False)
    before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    signal.set_wakeup_fd(alarm.fileno())
    doors: Doors = {}
    listening = True
    while listening or doors:
        waiting = [wake, *filter(None, doors.values()), *((listener, 0) if listening else ())]
        ready = select.select(waiting, [], [])[0]
        _pass_on(doors, ready)
        if wake in ready:
            listening = listening and {signal.SIGINT, signal.SIGTERM}.isdisjoint(wake.recv(4096))
            _report(doors)
        if 0 in ready and not os.read(0, 4096):
            listening = False
        if not listening:
            listener.close()
        elif listener in ready and (request := _answer(listener.accept()[0], like, doors)):
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            for inherited in (wake, alarm, *filter(None, doors.values())):
                inherited.close()
            return request
    return None


def _answer(door: socket.socket, like: dict[str, Any], doors: Doors) -> Request | None:
    """Answer a door with the id of its child, in which the request is given, or hang up on it."""
    standard: list[int] = []
    child = None
    try:
        line, standard, _, _ = socket.recv_fds(door, 1 << 16, 3)
        while not line.endswith(b"\n") and (more := door.recv(1 << 16)):
            line += more
        request = json.loads(line)
        if request.pop("like") == like:
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a child's are not the warm process' to hear
            child = os.fork()
    except (OSError, ValueError):
        pass  # the door runs by itself
    if child == 0:
        for number, file in enumerate(standard):
            os.dup2(file, number)
    else:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    for file in standard:
        os.close(file)
    if child:
        doors[child] = door
        with suppress(OSError):  # it is gone, and the next look at it says so
            door.sendall(b"%d\n" % child)
    else:
        door.close()
    return request if child == 0 else None


def _pass_on(doors: Doors, ready: list[Any]) -> None:
    """Give the children the signals that their doors were sent; kill those whose door is gone."""
    for child, door in list(doors.items()):
        if door is None or door not in ready:
            continue
        try:
            numbers = door.recv(64)
        except ConnectionError:
            numbers = b""
        for number in numbers or (signal.SIGKILL,):
            os.kill(child, number)
        if not numbers:
            door.close()
            doors[child] = None


def _report(doors: Doors) -> None:
    """Tell the doors of children that have ended how these ended."""
    while doors:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        if door := doors.pop(child):
            with suppress(OSError):
                door.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
            door.close()


def _run(request: Request) -> None:
    """Become the door: its module runs as ``python -m`` runs it."""
    import runpy

    os.setpgid(0, 0)
    os.chdir(request["folder"])
    os.umask(request["umask"])
    for name in filter(_of_a_door, list(os.environ)):
        del os.environ[name]
    os.environ.update(request["environment"])  # what packages have set stays
    sys.path[:], sys.argv[:] = request["path"], request["arguments"]
    for name in [name for name in sys.modules if name.partition(".")[0] in PROJECT]:
        del sys.modules[name]
    importlib.invalidate_caches()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
