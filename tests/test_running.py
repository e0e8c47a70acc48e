"""`python -m freshstart repro`: several stages at a time, and what a sequential `dvc repro` would leave behind."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml
from conftest import ROOT

from freshstart import running
from freshstart.errors import InputError
from freshstart.running import rebuild

PIPELINE = """
stages:
  data:
    cmd: python work.py data data.txt source.txt
    deps: [source.txt]
    outs: [data.txt]
  tokenizer:
    cmd: python work.py tokenizer tokenizer.txt source.txt
    deps: [source.txt]
    outs: [tokenizer.txt]
  score:
    cmd: python work.py score score.txt data.txt
    deps: [data.txt]
    outs: [score.txt]
  train:
    matrix:
      cell: ${cells}
    cmd: python work.py train-${item.cell} models/${item.cell} score.txt tokenizer.txt
    params: ["${item.cell}"]
    deps: [score.txt, tokenizer.txt]
    outs: ["models/${item.cell}"]
  compare:
    cmd: python work.py compare summary.txt models/a models/b
    deps: [models]
    outs: [summary.txt]
"""
# Its output is the first line of each file that it reads. Files named for a stage make it slow, stop it or fail it.
WORK = """
import os, sys, time
from pathlib import Path

name, out, *read = sys.argv[1:]

def log(word):
    with open("log", "a") as file:
        file.write(f"{word} {name} {os.environ['CUDA_VISIBLE_DEVICES']}\\n")

log("begin")
if Path("together").exists() and name.startswith("train"):  # ends only if two run at once
    end = time.monotonic() + 30
    while Path("log").read_text().count("begin train") < 2:
        assert time.monotonic() < end, "nothing runs beside this"
        time.sleep(0.05)
if Path(f"slow-{name}").exists():
    time.sleep(2)
if Path(f"fail-{name}").exists():
    sys.exit(f"{name} can not go on")
if Path(f"hang-{name}").exists():
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(0.5)
        log("saved")
        sys.exit(130)
Path(out).parent.mkdir(exist_ok=True)
Path(out).write_text("".join(Path(path).read_text().splitlines()[0] + "\\n" for path in read))
log("end")
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "params.yaml").write_text("cells: [a, b]\na: 1\nb: 1\n")
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "source.txt").write_text("first\nsecond\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.delenv("FRESHSTART_JOBS", raising=False)
    monkeypatch.delenv("FRESHSTART_LAUNCH", raising=False)
    monkeypatch.setenv("FRESHSTART_STATE", str(tmp_path / ".state"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\nno_scm = true\nanalytics = false\n")
    return tmp_path


def log(project):
    return [line.split() for line in (project / "log").read_text().splitlines()] if (project / "log").exists() else []


def ran(project):
    """The stages that ran since this was last asked, sorted."""
    names = sorted(words[1] for words in log(project) if words[0] == "begin")
    (project / "log").unlink(missing_ok=True)
    return names


def test_stages_run_side_by_side_and_leave_what_dvc_repro_leaves(project, capfd):
    for name in ("together", "slow-tokenizer", "slow-train-a"):
        (project / name).touch()
    rebuild([], 2)
    lines = [words[:2] for words in log(project)]
    assert lines[lines.index(["begin", "score"]) + 1] == ["end", "score"]  # it runs alone, though data was ready early
    assert lines.index(["end", "train-b"]) < lines.index(["end", "train-a"])
    assert ran(project) == ["compare", "data", "score", "tokenizer", "train-a", "train-b"]
    assert (project / "summary.txt").read_text() == "first\nfirst\n"
    said = capfd.readouterr().out.splitlines()
    assert "train@a | Running stage 'train@a':" in said
    assert "Running stage 'compare':" in said

    rebuild([], 2)
    assert ran(project) == []
    assert capfd.readouterr().out.splitlines() == ["Data and pipelines are up to date."]

    parallel = (project / "dvc.lock").read_bytes()
    (project / "dvc.lock").unlink()
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], check=True)  # from the run cache
    assert (project / "dvc.lock").read_bytes() == parallel


def test_only_what_needs_it_runs_again(project):
    rebuild([], 2)
    ran(project)
    (project / "source.txt").write_text("first\nthird\n")  # data and tokenizer make the same of it
    (project / "params.yaml").write_text("cells: [a, b]\na: 1\nb: 2\n")
    rebuild([], 2)
    assert ran(project) == ["data", "tokenizer", "train-b"]
    (project / "source.txt").write_text("fourth\n")
    rebuild(["train@a"], 2)
    assert ran(project) == ["data", "score", "tokenizer", "train-a"]
    rebuild([], 2)
    assert ran(project) == ["compare", "train-b"]
    assert (project / "summary.txt").read_text() == "fourth\nfourth\n"


def test_a_failure_ends_the_handing_out(project, capfd):
    (project / "params.yaml").write_text("cells: [a, b, c, d]\na: 1\nb: 1\nc: 1\nd: 1\n")
    for name in ("together", "fail-train-a", "slow-train-b"):
        (project / name).touch()
    with pytest.raises(InputError, match=r"^train@a failed; (.|\n)*\ntrain@a \| train-a can not go on\n"):
        rebuild([], 2)
    assert "train@a | train-a can not go on" in capfd.readouterr().out
    assert ["end", "train-b"] in [words[:2] for words in log(project)]
    assert ran(project) == ["data", "score", "tokenizer", "train-a", "train-b"]
    recorded = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    assert list(recorded) == ["data", "tokenizer", "score", "train@b"]


COMMAND = "from freshstart import doors, running; doors.open_door(lambda: running.rebuild([], 2))"


def test_an_interruption_lets_the_stages_save_and_leaves_nothing_running(project):
    for name in ("hang-train-a", "hang-train-b"):
        (project / name).touch()
    for number in (signal.SIGINT, signal.SIGTERM):
        command = subprocess.Popen(
            [sys.executable, "-c", COMMAND],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            end = time.monotonic() + 60
            while sum(words[1].startswith("train") for words in log(project)) < 2:
                assert time.monotonic() < end
                time.sleep(0.05)
            processes = psutil.Process(command.pid).children(recursive=True)
            assert len(processes) >= 4
            command.send_signal(number)
            said, _ = command.communicate(timeout=30)
        finally:
            command.kill()
        assert command.returncode == 130, said
        assert "interrupted: what was finished is kept" in said
        assert not [process for process in processes if process.is_running()]
        assert sorted(words[1] for words in log(project) if words[0] == "saved") == ["train-a", "train-b"]
        assert ran(project)[-2:] == ["train-a", "train-b"]
    assert list(yaml.safe_load((project / "dvc.lock").read_text())["stages"]) == ["data", "tokenizer", "score"]


HOLDER = """
import os, time, zc.lockfile

if os.fork():
    os._exit(0)  # a program that is no child of the run
lock = None
while lock is None:
    try:
        lock = zc.lockfile.LockFile(".dvc/tmp/lock")
    except zc.lockfile.LockError:
        time.sleep(0.01)
print(os.getpid(), flush=True)
time.sleep(60)
"""


def test_a_lock_that_another_program_keeps_ends_the_run(project, monkeypatch):
    """DVC itself would wait for it without end."""
    monkeypatch.setattr(running, "LOCK_SECONDS", 2.0)
    monkeypatch.setattr(running, "WATCH_SECONDS", 0.5)
    (project / "slow-train-a").touch()
    rebuild(["score"], 2)
    ran(project)

    def work_and_hold(words, *rest):
        if words[-1] == "train@a":
            held = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE)
            holder.append(int(held.stdout.readline()))
            held.wait()
        return dvc(words, *rest)

    holder, dvc = [], running._dvc
    monkeypatch.setattr(running, "_dvc", work_and_hold)
    try:
        with pytest.raises(InputError, match="^process [0-9]+ has held DVC's lock in this folder for 2 s, and"):
            rebuild([], 2)
    finally:
        for pid in holder:
            os.kill(pid, signal.SIGKILL)
    assert not running._dvcs()
    monkeypatch.setattr(running, "_dvc", dvc)
    rebuild([], 2)
    assert "compare" in ran(project)


def test_a_second_run_in_one_folder_is_refused(project):
    with (
        running._alone(),
        pytest.raises(InputError, match=f"runs in this folder .process {os.getpid()}.: wait until it"),
    ):
        rebuild([], 2)


def test_what_dvc_can_not_read_it_explains_itself(project, capfd):
    (project / "dvc.yaml").write_text(PIPELINE.replace("outs: [data.txt]", "out: [data.txt]"))
    with pytest.raises(SystemExit):
        rebuild([], 2)
    assert "extra keys not allowed, in stages -> data -> out" in capfd.readouterr().err


def test_each_job_sees_one_gpu(project, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    (project / "together").touch()
    rebuild(["train"])
    seen = {name: gpu for word, name, gpu in log(project)}
    assert {seen["train-a"], seen["train-b"]} == {"3", "5"}
    assert seen["score"] == "3,5"


def test_how_many_at_a_time(monkeypatch):
    monkeypatch.delenv("FRESHSTART_LAUNCH", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setenv("FRESHSTART_JOBS", "3")
    assert running._slots(None) == [None] * 3
    assert running._slots(2) == [None] * 2
    monkeypatch.setenv("FRESHSTART_JOBS", "many")
    with pytest.raises(InputError, match="must be a whole number from 1 on, found 'many'"):
        running._slots(None)
    monkeypatch.delenv("FRESHSTART_JOBS")
    with pytest.raises(InputError, match="found '0'"):
        running._slots(0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert running._slots(None) == ["0", "1"]
    assert running._slots(3) == ["0", "1", "0"]
    monkeypatch.setenv("FRESHSTART_LAUNCH", "torchrun --nproc_per_node=2")
    assert running._slots(None) == [None]
