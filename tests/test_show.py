"""Scoring outside the pipeline: `python -m freshstart score` and `python -m freshstart cache`."""

import importlib
import io
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

from freshstart import params
from freshstart.__main__ import main
from freshstart.errors import InputError

CODE = "import os,sys\nx = 1\n\n\ndef f( a ):\n    return a  \n"


@pytest.fixture
def run(workplace, monkeypatch, capsys):
    def command(*words):
        monkeypatch.setattr(sys, "argv", ["freshstart", *map(str, words)])
        params.load.cache_clear()
        main()
        return capsys.readouterr()

    return command


def test_a_file_is_read_by_people(run, workplace):
    (workplace / "a.py").write_text(CODE)
    lines = run("score", "--task", "pep8", "a.py").out.splitlines()
    assert lines[0].startswith("a.py: score 0.")
    assert lines[0].endswith("3 of 4 segments above 0")
    assert [line.split()[0] for line in lines[1:]] == ["1", "5", "6"]
    assert "E231, E401" in lines[1]
    assert "W291" in lines[3]


def test_a_folder_and_json(run, workplace, monkeypatch):
    (workplace / "texts").mkdir()
    (workplace / "texts/a.txt").write_text("Write to jane@example.com.\n\nOr do not.")
    (workplace / "texts/b.bin").write_bytes(b"\xff\xfe\x00")
    monkeypatch.setattr(sys, "stdin", io.StringIO("Nothing here."))
    done = run("score", "--task", "pii", "--json", "texts", "-")
    first, second = map(json.loads, done.out.splitlines())
    assert first["path"] == "texts/a.txt"
    assert [segment["found"] for segment in first["segments"]] == [{"email": 1}, {}]
    assert [segment["line"] for segment in first["segments"]] == [1, 3]
    assert "".join(segment["text"] for segment in first["segments"]) == "Write to jane@example.com.\n\nOr do not."
    assert second["score"] == 0
    assert "left out: texts/b.bin is not UTF-8" in done.err


def test_a_scorer_of_the_pipeline_is_used(run, made, workplace):
    (workplace / "a.txt").write_text("You are a nice person. Go away.")
    folder = made.paths("toxicity")["scorer"]
    result = json.loads(run("score", "--scorer", folder, "--json", "a.txt").out)
    assert len(result["segments"]) == 2
    with pytest.raises(InputError, match="must learn first: run `dvc repro scorer@toxicity`"):
        run("score", "--task", "toxicity", "a.txt")


def test_a_text_that_does_not_tokenise_says_so(run, workplace):
    (workplace / "a.py").write_text("x = (1,\n")
    assert "does not tokenise" in run("score", "--task", "pep8", "a.py").out


@pytest.mark.parametrize(
    "words", [("score", "--task", "pep8", "a.py", "gone"), ("score", "--scorer", "gone", "a.py"), ("sample", "gone")]
)
def test_a_missing_path_is_refused_before_anything_is_done(run, workplace, capsys, words):
    (workplace / "a.py").write_text(CODE)
    with pytest.raises(InputError, match=r"gone is missing: give a file or folder that is there"):
        run(*words)
    assert capsys.readouterr().out == ""


def test_away_from_a_clone_a_scorers_folder_is_enough(run, made, tmp_path, monkeypatch):
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    Path("a.py").write_text(CODE)
    assert "3 of 4 segments above 0" in run("score", "--scorer", made.paths("pep8")["scorer"], "a.py").out
    with pytest.raises(InputError, match=r"params\.yaml is missing: run this from the root"):
        run("score", "--task", "pep8", "a.py")
    assert [path.name for path in Path().iterdir()] == ["a.py"]


def test_a_wheel_holds_the_command_and_what_stands_beside_the_code():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    module, _, name = project["project"]["scripts"]["freshstart"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    kept = project["tool"]["setuptools"]["package-data"].items()
    packed = {
        path for package, globs in kept for glob in globs for path in (ROOT / package.replace(".", "/")).glob(glob)
    }
    listed = subprocess.run(["git", "ls-files", "freshstart"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert packed == {ROOT / line for line in listed.stdout.splitlines() if not line.endswith(".py")}


def test_the_cache_is_shown_seeded_and_pruned(run, made):
    assert "scored documents taken over" in run("cache", "--seed", made.paths("pep8")["scored"]).out
    assert "packs  pep8 1" in run("cache").out
    assert run("cache", "--prune", "0").out.splitlines()[-1].strip().startswith("0.000 GiB of at most 50")
