"""The pool of workers: equal bytes whatever their number, nothing lost when they die, nothing silent when they fail."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from freshstart import files, scorers
from freshstart.errors import InputError
from freshstart.scoring import pool
from freshstart.scoring.report import report

RAY = pytest.mark.timeout(240)


def digests(folder):
    return {str(path.relative_to(folder)): files.sha256(path) for path in sorted(folder.rglob("*.parquet"))}


def score(door, made, output, task="pep8", workers=0, corpus=None):
    data = made.paths(task)
    door(
        "score",
        task=task,
        workers=workers,
        corpus=corpus or data["corpus"],
        scorer=data["scorer"],
        output=output,
        report=f"{output}.json",
    )


@RAY
def test_equal_bytes_for_any_number_of_workers(made, workplace, door):
    expected = digests(made.paths("pep8")["scored"])
    assert len(expected) >= 5
    for workers in (1, 2):
        shutil.rmtree(workplace / ".state", ignore_errors=True)
        score(door, made, f"out-{workers}", workers=workers)
        assert digests(workplace / f"out-{workers}") == expected


def test_the_scored_table(made):
    for task in ("pep8", "pii", "toxicity"):
        data = made.paths(task)
        for split in ("train", "heldout"):
            for path in files.parts(data["corpus"] / split, "corpus"):
                before = files.read_table(path, "corpus").to_pylist()
                table = files.read_table(data["scored"] / split / path.name, "score")
                assert b"freshstart" in table.schema.metadata
                for old, new in zip(before, table.to_pylist(), strict=True):
                    assert {key: new[key] for key in old} == old
                    assert new["segment_ends"][-1] == len(new["text"])
                    if new["error"] is None:
                        assert len(new["scores"]) == len(new["segment_ends"])
                        assert new["avg_score"] == pytest.approx(np.mean(new["scores"]), rel=1e-6)
                    else:
                        assert new["scores"] is None
                        assert new["avg_score"] is None


def test_finished_parts_are_kept(made, workplace, door, monkeypatch):
    scored = []
    original = pool.score_part
    monkeypatch.setattr(pool, "score_part", lambda *given: scored.append(given[0].name) or original(*given))
    score(door, made, "a")
    parts = len(scored)
    score(door, made, "b")
    assert len(scored) == parts
    kept = sorted((workplace / ".state/scored").rglob("*.parquet"))
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    score(door, made, "c")
    assert len(scored) == parts + 1
    assert digests(workplace / "a") == digests(workplace / "b") == digests(workplace / "c")


def test_another_version_of_the_scorer_scores_anew(made, monkeypatch):
    record = {"kind": "pep8", "version": "1"}
    before = scorers.fingerprint(record)
    assert before != scorers.fingerprint(record | {"version": "2"})
    assert "python" in before


OWN = """
import os, time
from freshstart.scorers import Scorer

class Picky(Scorer):
    version = "1"
    def score_texts(self, texts):
        text = "".join(texts)
        if "import argparse" in text:
            raise RuntimeError("I do not like argparse")
        return [0.0] * len(texts)

class Hopeless(Scorer):
    version = "1"
    def score_texts(self, texts):
        raise RuntimeError("never")

class Deadly(Scorer):
    version = "1"
    def score_texts(self, texts):
        if "import argparse" in "".join(texts):
            os._exit(3)
        return [0.0] * len(texts)

class Slow(Scorer):
    version = "1"
    def score_texts(self, texts):
        time.sleep(0.2)
        return [float(len(text)) for text in texts]

class Unloadable(Scorer):
    version = "1"
    def __init__(self):
        raise RuntimeError("no weights")
"""


@pytest.fixture
def own(workplace, made, monkeypatch):
    """Make a scorer folder for a person's own scorer and give a function that scores with it."""
    (workplace / "rewards.py").write_text(OWN)
    monkeypatch.syspath_prepend(workplace)

    def run(name, workers=0):
        raw = {"kind": f"rewards:{name}", "segments": "lines", "version": "1"}
        record = scorers.describe(scorers.settings(raw, "scorer.own"))
        files.write_json(workplace / "scorer/scorer.json", record)
        parts = files.parts(made.paths("pep8")["corpus"] / "train", "corpus")
        return pool.score_parts(parts, workplace / "scorer", "own", workers), parts

    yield run
    sys.modules.pop("rewards", None)


def test_rows_that_raise_are_counted_by_reason(own):
    kept, _ = own("Picky")
    found = report(kept)
    assert 0 < found["without_score"]["share"] < 0.5
    assert list(found["without_score"]["by_reason"]) == ["RuntimeError"]
    assert found["without_score_examples"]["RuntimeError"]


def test_too_many_errors_stop_the_stage(own, made, workplace, door):
    own("Hopeless")
    with pytest.raises(
        InputError, match=r"100\.0% of the train documents have no score .*RuntimeError.*max_error_share"
    ):
        door(
            "score",
            task="pep8",
            workers=0,
            corpus=made.paths("pep8")["corpus"],
            scorer=workplace / "scorer",
            output="out",
            report="out.json",
        )
    assert not (workplace / "out").exists()


@RAY
def test_a_part_that_kills_its_worker_is_named_and_the_others_are_scored(own, made):
    with pytest.raises(InputError, match=r"parts could not be scored \(part-0.*its worker died 3 times") as error:
        own("Deadly", workers=2)
    named = str(error.value).count("its worker died")
    _, parts = None, files.parts(made.paths("pep8")["corpus"] / "train", "corpus")
    kept = list(files.state_folder("scored").rglob("*.parquet"))
    assert len(kept) == len(parts) - named
    assert named < len(parts)


@RAY
@pytest.mark.parametrize("workers", [0, 2])
def test_a_scorer_that_can_not_be_loaded(own, workers):
    with pytest.raises((InputError, RuntimeError), match="no weights"):
        own("Unloadable", workers=workers)


@RAY
def test_kill_minus_nine_loses_at_most_the_parts_in_flight(own, made, workplace):
    own("Slow")
    expected = {path.name: files.sha256(path) for path in files.state_folder("scored").rglob("*.parquet")}
    shutil.rmtree(workplace / ".state/scored")
    code = (
        "import sys; sys.path.insert(0, sys.argv[3])\n"
        "from pathlib import Path\n"
        "from freshstart import files\n"
        "from freshstart.scoring.pool import score_parts\n"
        "score_parts(files.parts(Path(sys.argv[1]), 'corpus'), Path(sys.argv[2]), 'own', 2)\n"
    )
    command = [sys.executable, "-c", code, str(made.paths("pep8")["corpus"] / "train"), str(workplace / "scorer")]
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{workplace}"}
    running = subprocess.Popen([*command, str(workplace)], env=env, cwd=workplace)
    while len(list(files.state_folder("scored").rglob("*.parquet"))) < 2:
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    deadline = time.monotonic() + 60
    while left_behind(workplace) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left_behind(workplace)  # they end with the one that started them; Ray's own agents take a minute more
    before = {path.name for path in files.state_folder("scored").rglob("*.parquet")}
    assert 2 <= len(before) < len(expected)
    own("Slow")
    assert {path.name: files.sha256(path) for path in files.state_folder("scored").rglob("*.parquet")} == expected


def left_behind(workplace):
    """Workers that still have the project folder of the test as their working folder."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                here = os.readlink(process / "cwd") == str(workplace)
                if here and b"ray::Worker" in (process / "cmdline").read_bytes():
                    found.append(process.name)
            except OSError:
                continue
    return found


def test_workers_are_counted(monkeypatch):
    monkeypatch.setenv("FRESHSTART_WORKERS", "3")
    assert pool.worker_count() == 3
    monkeypatch.setenv("FRESHSTART_WORKERS", "many")
    with pytest.raises(InputError, match="FRESHSTART_WORKERS must be a whole number"):
        pool.worker_count()
    monkeypatch.delenv("FRESHSTART_WORKERS")
    assert pool.worker_count() >= 1


def test_a_missing_corpus(workplace, made, door):
    with pytest.raises(InputError, match=r"nowhere/train is missing: run `dvc repro corpus@pep8`"):
        score(door, made, "out", corpus="nowhere")


def test_a_full_disk_loses_nothing(workplace, made):
    """The disk is full as far as this process can see: no file may grow beyond a few bytes."""
    code = (
        "import resource, runpy, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_module('stages.score', run_name='__main__')\n"
    )
    data = made.paths("pep8")
    given = ["--task", "pep8", "--workers", "0", "--corpus", data["corpus"], "--scorer", data["scorer"]]
    given += ["--output", "out", "--report", "out.json"]
    done = subprocess.run(
        [sys.executable, "-c", code, "score", *map(str, given)],
        cwd=workplace,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "error: no space left on the disk while writing" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in (workplace / ".state").rglob("*") if path.suffix == ".tmp"]
