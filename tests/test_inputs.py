"""What stages read from outside is followed: by its content, and by the stages that read it alone."""

import glob
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from hypothesis import example, given
from hypothesis import strategies as st
from test_pipeline import clone, dvc, ran

from freshstart import inputs
from freshstart.benchmarks import harness
from freshstart.errors import InputError


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mail/a.jsonl", "mail/old/b.jsonl", "mail/.hidden", "rows.csv"):
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).write_text(name)
    return tmp_path / "raw"


def followed(settings, **named):
    for name, path in named.items():
        listed = inputs.listing(name, path)
        Path("digests").mkdir(exist_ok=True)
        Path("digests", f"{name}.json").write_text(json.dumps(listed))
    return inputs.digests(settings, named, Path("digests"), "conf/scale/quick.yaml: corpus.pii")


@pytest.mark.parametrize(
    ("path", "concerned"),
    [
        ("raw/mail", {"mail/a.jsonl", "mail/old/b.jsonl"}),
        ("raw/mail/*.jsonl", {"mail/a.jsonl", "mail/old/b.jsonl"}),  # by folder: more than needed, never less
        ("raw/mail/old/**/*.jsonl", {"mail/old/b.jsonl"}),
        ("raw/rows.csv", {"rows.csv"}),
        ("./raw/../raw/rows.csv", {"rows.csv"}),
        ("raw/absent.csv", set()),
    ],
)
def test_a_digest_is_of_the_content_that_is_named(raw, path, concerned):
    settings = [{"kind": "local", "heldout": ("a",), "nested": {"deeper": [path, None, 3]}}]
    before = followed(settings, raw="raw")
    assert list(before["inputs"]) == [path]
    for file in (file for file in raw.rglob("*") if file.is_file()):
        content = file.read_bytes()
        os.utime(file, (1, 1))
        assert followed(settings, raw="raw") == before
        file.write_bytes(content[:-1] + b"!")
        assert (followed(settings, raw=str(raw)) != before) == (str(file.relative_to(raw)) in concerned)
        file.write_bytes(content)


@pytest.mark.parametrize("path", ["raw/mail", "raw/*.csv", "raw/mail/**/*", "raw/rows.csv"])
def test_what_is_here_and_in_no_input_is_refused(raw, path):
    with pytest.raises(
        InputError, match=r"quick.yaml: corpus.pii: path names .* in params.yaml holds.*: add `\w+: raw"
    ):
        followed({"path": path}, old="raw/mail/old")
    with pytest.raises(InputError, match="inputs.gone: raw/gone is missing"):
        inputs.listing("gone", "raw/gone")


@given(st.text())
@example("\0/*")
def test_other_words_are_no_files(text):
    """Names of models, of columns (also where a folder has that name) and addresses leave the settings as they are."""
    words = [text, "gpt2", "EleutherAI/pythia-70m", "http://localhost:1/v1#m", "s3://bucket/a*", "conf/wheels/pep8.txt"]
    others = [word for word in words if "\0" in word or not glob.glob(word, recursive=True)]
    settings = {"text": "freshstart", "kind": "tests", "name": others}
    assert inputs.digests(settings, {"harness": "conf/harness"}, Path("none"), "") == {}


def test_files_that_task_files_name(monkeypatch):
    monkeypatch.chdir(ROOT)
    asked = harness.Settings(kind="harness", suites=("lambada_local",), include_path="conf/harness")
    assert "raw/lambada_test.jsonl" in harness.beside(asked)
    assert not {path for path in harness.beside(asked) if "blimp/" in path}


@pytest.mark.slow
def test_a_changed_byte_reruns_its_task_and_a_touched_file_nothing(tmp_path):
    """Two tasks up to their tokens; the inputs are a file and a link to a folder elsewhere."""
    folder = clone(tmp_path / "clone")
    elsewhere = tmp_path / "elsewhere"
    shutil.move(folder / "raw/python", elsewhere)
    (folder / "raw/python").symlink_to(elsewhere)
    root = yaml.safe_load((folder / "params.yaml").read_text()) | {"tasks": ["pep8", "pii"]}
    root["inputs"] = {"python": "raw/python", "prose": "raw/prose.jsonl"}
    (folder / "params.yaml").write_text(yaml.safe_dump(root, sort_keys=False))
    targets = ["tokens@pep8", "tokens@pii"]

    def repro():
        return ran(dvc(folder, "repro", *targets))

    def status():
        return dvc(folder, "status", "--with-deps", *targets).stdout

    assert {"input@python", "corpus@pep8", "tokens@pii"} <= repro()
    assert "up to date" in status()
    changed = sorted(elsewhere.glob("*.py"))[0]
    for path in (changed, folder / "raw/prose.jsonl"):
        os.utime(path)
    assert "up to date" in status()
    assert repro() == set()
    text = changed.read_bytes()
    changed.write_bytes(text[:-1] + b"#")  # of the same size
    said = status()
    assert "raw/python" in said
    assert "prose" not in said
    seen = {"input@python", "settings@pep8", "settings@pii"}  # settings of others are looked at, and come out equal
    assert seen < repro() <= seen | {f"{name}@pep8" for name in ("corpus", "score", "tokenizer", "tokens")}
    assert "up to date" in status()
    (elsewhere / "new.py").write_text("x = 1\n" * 99)
    assert {"input@python", "corpus@pep8"} < repro()
    (folder / "raw/python").unlink()
    assert ran(dvc(folder, "repro", "--allow-missing", *targets)) == set()
