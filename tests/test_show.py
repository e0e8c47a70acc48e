"""Scoring outside the pipeline: `python -m freshstart score` and `python -m freshstart cache`."""

import io
import json
import sys

import pytest

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
    result = json.loads(run("score", "--task", "toxicity", "--scorer", folder, "--json", "a.txt").out)
    assert len(result["segments"]) == 2
    with pytest.raises(InputError, match="must learn first: run `dvc repro scorer@toxicity`"):
        run("score", "--task", "toxicity", "a.txt")


def test_a_text_that_does_not_tokenise_says_so(run, workplace):
    (workplace / "a.py").write_text("x = (1,\n")
    assert "does not tokenise" in run("score", "--task", "pep8", "a.py").out
    with pytest.raises(InputError, match=r"none\.py is missing"):
        run("score", "--task", "pep8", "none.py")


def test_the_cache_is_shown_seeded_and_pruned(run, made):
    assert "scored documents taken over" in run("cache", "--seed", made.paths("pep8")["scored"]).out
    assert "packs  pep8 1" in run("cache").out
    assert run("cache", "--prune", "0").out.splitlines()[-1].strip().startswith("0.000 GiB of at most 50")
