"""The warm process: a door that is forked from it does, says and ends as it would by itself, and nothing is left."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

from freshstart import running, warm

OF_PYTEST = "PYTEST_CURRENT_TEST"  # it changes between a fixture and its test, and a door of it would not fit
DOOR = """
import importlib, json, os, signal, sys, time
from pathlib import Path

from freshstart.doors import open_door
from freshstart.errors import InputError

def main():
    what, *rest = sys.argv[1:]
    Path(f"{what}.pids").write_text(f"{os.getpid()} {os.getppid()}")
    if what == "tell":
        os.umask(umask := os.umask(0))
        told = {"arguments": sys.argv, "folder": os.getcwd(), "path": sys.path, "umask": umask, "name": __name__}
        told |= {"read": sys.stdin.read(), "module": __spec__.name, "environment": dict(os.environ)}
        told |= {"int": str(signal.getsignal(signal.SIGINT)), "tty": sys.stdout.isatty()}
        print(json.dumps(told))
        print("beside it", file=sys.stderr)
    elif what == "exit":
        sys.exit(int(rest[0]))
    elif what == "refuse":
        raise InputError("not so")
    elif what == "fail":
        raise RuntimeError("a defect")
    elif what == "die":
        os.kill(os.getpid(), int(rest[0]))
    elif what == "threads":
        from freshstart import files, warm

        for name in warm.PACKAGES:
            importlib.import_module(name)
        import torch
        from threadpoolctl import threadpool_info

        print(torch.get_num_threads(), torch.get_num_interop_threads(), torch.__config__.parallel_info())
        print(json.dumps(sorted(threadpool_info(), key=str)))
        torch.set_num_threads(2)
        one = torch.randn(500, 500, generator=torch.Generator().manual_seed(0))
        print(files.digest([(one @ one).tolist(), (one.numpy() @ one.numpy()).tolist()]))
    elif what.startswith("meet"):
        end = time.monotonic() + 30
        while not Path(f"{rest[0]}.pids").exists():
            assert time.monotonic() < end
            time.sleep(0.02)
    else:
        try:
            time.sleep(float(rest[0]))
        except KeyboardInterrupt:
            Path(f"{what}.saved").touch()
            raise
    Path(f"{what}.done").touch()

if __name__ == "__main__":
    open_door(main, warm=True)
"""
PIPELINE = """
stages:
  train:
    matrix:
      cell: ${cells}
    cmd: python -m door ${item.cell} ${seconds}
    outs: ["${item.cell}.done"]
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "door.py").write_text(DOOR)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    for name in ("FRESHSTART_LAUNCH", "FRESHSTART_JOBS", warm.WARM):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@contextmanager
def kept(*packages):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(OF_PYTEST)
        with warm.kept(packages) as pid:
            wait_for(Path(os.environ[warm.WARM]).exists)
            yield pid


@pytest.fixture
def server(place):
    """The id of a warm process that has imported nothing."""
    with kept() as pid:
        yield pid
    assert not psutil.pid_exists(pid)


def door(*words, **given):
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | given
    return run("door", *words, **given)


def run(module, *words, **given):
    environment = {name: value for name, value in os.environ.items() if name != OF_PYTEST}
    return subprocess.Popen([sys.executable, "-m", module, *map(str, words)], env=environment, **given)


@contextmanager
def cold():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(warm.WARM, raising=False)
        yield


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def pids(what):
    """The process that does the work of a door, and its parent."""
    path = Path(f"{what}.pids")
    wait_for(lambda: path.exists() and path.read_text())
    return tuple(map(int, path.read_text().split()))


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_door_does_and_says_the_same(server, place, monkeypatch):
    def told():
        (place / "in").write_text("a line\n")
        with open(place / "in") as file:
            said, beside = (process := door("tell", "two words", stdin=file, umask=0o27)).communicate()
        assert (process.returncode, beside) == (0, "beside it\n")
        return json.loads(said), pids("tell")

    monkeypatch.setenv("FRESHSTART_OTHER", "ä \udcff")
    here, (_, parent) = told()
    assert parent == server
    with cold():
        alone, (_, parent) = told()
    assert parent == os.getpid()
    assert here == alone
    assert here["read"] == "a line\n"
    assert (here["umask"], here["environment"]["FRESHSTART_OTHER"]) == (0o27, "ä \udcff")


@pytest.mark.parametrize(
    "words", [("exit", 0), ("exit", 3), ("refuse",), ("fail",), *(("die", n) for n in (signal.SIGKILL, signal.SIGTERM))]
)
def test_a_door_ends_the_same(server, words):
    one = door(*words)
    said, beside = one.communicate()
    assert pids(words[0])[1] == server
    with cold():
        other = door(*words)
        expected = other.communicate()
    assert pids(words[0])[1] != server
    assert (one.returncode, said, beside.splitlines()[-1:]) == (
        other.returncode,
        expected[0],
        expected[1].splitlines()[-1:],
    )
    assert door("exit", 5).wait() == 5
    assert pids("exit")[1] == server  # it outlives its children


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_child(server, number):
    one = door("sleep", 30)
    child, _ = pids("sleep")
    time.sleep(0.1)
    one.send_signal(number)
    _, beside = one.communicate(timeout=20)
    assert one.returncode == 130
    assert "interrupted: what was finished is kept" in beside
    assert Path("sleep.saved").exists()
    assert gone(child)


def test_a_killed_door_takes_its_child_along_and_no_other(server):
    one, other = door("one", 30), door("other", 2)
    child, _ = pids("one")
    pids("other")
    one.kill()
    wait_for(lambda: gone(child), 10)
    assert not Path("one.saved").exists()
    assert other.wait(20) == 0


def test_doors_run_side_by_side(server):
    doors = [door("meet-a", "meet-b"), door("meet-b", "meet-a")]
    assert [one.wait(30) for one in doors] == [0, 0]


def test_what_does_not_fit_runs_by_itself(server, monkeypatch):
    for name, value in (("OMP_NUM_THREADS", "17"), ("FRESHSTART_LAUNCH", "torchrun"), ("PYTHONPATH", f"{ROOT}:/none")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(name, value)
            assert door("exit", 4).wait() == 4
        assert pids("exit")[1] == os.getpid()
    assert door("exit", 4).wait() == 4
    assert pids("exit")[1] == server


def test_a_dead_warm_process_stops_its_doors_and_hinders_no_others(place):
    with kept() as server:
        one = door("sleep", 30)
        child, _ = pids("sleep")
        os.kill(server, signal.SIGKILL)
        _, beside = one.communicate(timeout=20)
        assert one.returncode == 1
        assert beside.startswith("error: the warm process that this stage was forked from has died")
        wait_for(lambda: gone(child))
        assert door("exit", 4).wait() == 4
        assert pids("exit")[1] == os.getpid()
    with kept("no_such_package"):
        assert door("exit", 4).wait() == 4
        assert pids("exit")[1] == os.getpid()


def test_a_door_waits_until_all_is_imported(place):
    (place / "slow.py").write_text("import time\ntime.sleep(2)\n")
    with kept("slow") as server:
        assert door("exit", 4).wait() == 4
        assert pids("exit")[1] == server


def pipeline(place, monkeypatch, seconds):
    (place / "dvc.yaml").write_text(PIPELINE)
    (place / "params.yaml").write_text(f"cells: [a, b, c]\nseconds: {seconds}\n")
    (place / ".dvc").mkdir()
    (place / ".dvc/config").write_text("[core]\nno_scm = true\nanalytics = false\n")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(place / "site"))
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_the_runner_keeps_one_while_it_runs(place, monkeypatch):
    pipeline(place, monkeypatch, 0)
    monkeypatch.setattr(running.warm, "kept", partial(warm.kept, ()))
    running.rebuild([], 2)
    parents = {pids(name)[1] for name in "abc"}
    assert len(parents) == 1
    assert not psutil.pid_exists(parents.pop())
    assert not list(place.glob("freshstart-warm-*"))
    assert warm.WARM not in os.environ


def test_when_the_runner_keeps_one(monkeypatch):
    monkeypatch.setattr(running.warm, "kept", lambda: nullcontext(1))
    monkeypatch.delenv("FRESHSTART_LAUNCH", raising=False)

    def begun(*stale, seats=(None, None)):
        with running._warm(running.Plan(None, {}, set(stale), {}), list(seats)) as pid:
            return pid == 1

    assert begun("train@a", "finetune@b", "evaluate_finetuned@c")
    assert not begun("train@a", "train@b", "tokens@c", "compare")
    assert not begun("train@a", "train@b", "train@c", seats=("0", "1"))
    monkeypatch.setenv("FRESHSTART_LAUNCH", "torchrun")
    assert not begun("train@a", "train@b", "train@c")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_runner_leaves_nothing(place, monkeypatch, number):
    pipeline(place, monkeypatch, 3 if number == signal.SIGKILL else 60)
    code = "from functools import partial; from freshstart import doors, running, warm; "
    code += "running.warm.kept = partial(warm.kept, ()); doors.open_door(lambda: running.rebuild([], 2))"
    runner = subprocess.Popen([sys.executable, "-c", code])
    wait_for(lambda: len(list(place.glob("?.pids"))) == 2)
    server = pids(next(place.glob("?.pids")).stem)[1]
    processes = [psutil.Process(server), *psutil.Process(runner.pid).children(recursive=True)]
    assert len([one for one in processes if one.ppid() == server]) == 2
    time.sleep(1)
    runner.send_signal(number)
    runner.wait(30)
    wait_for(lambda: not any(one.is_running() for one in processes), 30)
    assert not list(place.glob("freshstart-warm-*"))
    if number == signal.SIGKILL:  # as without a warm process: the stages that ran end, no other begins
        assert len(list(place.glob("?.done"))) == 2
    else:
        assert runner.returncode == 130
        assert len(list(place.glob("?.saved"))) == 2


@pytest.mark.slow
def test_a_cell_is_the_same_bit_for_bit(made, place, monkeypatch):
    (place / "conf").symlink_to(made.folder / "conf")
    (place / "params.yaml").symlink_to(made.folder / "params.yaml")
    (place / "data").symlink_to(made.folder / "data")

    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):  # scoring has set them
        monkeypatch.delenv(name, raising=False)

    def cell(name, task="pii"):
        monkeypatch.setenv("FRESHSTART_STATE", str(place / name))
        shared = f"--task {task} --objective mle --seed 0 --tokens data/tokens/{task} --shards data/shards/{task}/mle"
        for words in (
            f"stages.train {shared} --tokenizer data/tokenizer/{task} --output {name}/model --curve {name}/curve.csv",
            f"stages.evaluate {shared} --model {name}/model --reference {name}/model --scorer data/scorer/{task} "
            f"--samples {name}/samples.parquet --metrics {name}/metrics.json",
        ):
            assert run(*words.split()).wait() == 0
        found = [path for path in (place / name).rglob("*") if path.is_file() and "checkpoints" not in path.parts]
        said, _ = door("threads").communicate()
        return {str(path.relative_to(place / name)): path.read_bytes() for path in found}, said, pids("threads")[1]

    with kept(*warm.PACKAGES) as server:
        here, threads, parent = cell("warm")
    assert parent == server
    alone, expected, parent = cell("cold")
    assert parent == os.getpid()
    assert here.keys() >= {"model/model.safetensors", "curve.csv", "samples.parquet", "metrics.json"}
    assert here == alone
    assert threads == expected
