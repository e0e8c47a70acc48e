"""A task of one's own: written by one command, checked before anything runs, warned of where its data is no good."""

import csv
import gzip
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, follow
from dvc.utils.serialize import modify_yaml

from freshstart import benchmarks, files, new_task, outside, params, scorers
from freshstart.check import check
from freshstart.errors import InputError

REWARD = """
from freshstart.scorers import Scorer

class Shouting(Scorer):
    version = "1"

    def score_texts(self, texts):
        return [sum(c.isupper() for c in text) / len(text) for text in texts]

class Broken(Shouting):
    def score_texts(self, texts):
        return [text.shout() for text in texts]
"""


@pytest.fixture
def project(workplace, monkeypatch):
    """A workplace with a corpus and rewards of one's own, and the project's scales as DVC writes YAML."""
    for path in (ROOT / "conf/scale").glob("*.yaml"):
        shutil.copy(path, workplace / "conf/scale")
    shutil.copytree(ROOT / "conf/wheels", workplace / "conf/wheels")
    for path in [workplace / "params.yaml", *(workplace / "conf/scale").glob("*.yaml")]:
        with modify_yaml(path):
            pass
    (workplace / "rewards.py").write_text(REWARD)
    (workplace / "raw/mail").mkdir()
    with gzip.open(workplace / "raw/mail/one.jsonl.gz", "wt") as file:
        for number in range(40):
            file.write(
                json.dumps({"body": f"Hello there. PLEASE READ number {number}!", "sender": f"s{number}"}) + "\n"
            )
    monkeypatch.syspath_prepend(workplace)
    sys.modules.pop("rewards", None)
    params.load.cache_clear()
    yield workplace
    params.load.cache_clear()


def lines_of(folder):
    return {path: path.read_text().splitlines() for path in [folder / "params.yaml", *folder.glob("conf/scale/*.yaml")]}


def test_a_new_task_is_a_few_more_lines_in_each_file_and_no_other(project):
    before = lines_of(project)
    columns = {"text": "body", "source": "sender"}
    new_task.write("shout", "raw/mail", "rewards:Shouting", columns, None)
    assert check() == []
    after = lines_of(project)
    for path, lines in before.items():
        if path.name != "params.yaml":
            kept = iter(after[path])
            assert all(line in kept for line in lines), path  # in their order
            assert len(after[path]) == len(lines) + 7 + 4
    loaded = params.load()
    assert loaded.root.tasks == ("pep8", "pii", "toxicity", "shout")
    assert loaded.root.inputs["shout"] == "raw/mail"
    assert loaded.block("scorer", "shout") == {"kind": "rewards:Shouting", "segments": "sentences", "version": "1"}
    assert loaded.block("corpus", "shout")["train_characters"] == loaded.block("corpus", "pep8")["train_characters"]
    with pytest.raises(InputError, match=r"corpus\.shout is there already"):
        new_task.write("shout", "raw/mail", "rewards:Shouting", columns, None)


def test_a_new_task_keeps_an_input_of_its_name(project):
    new_task.write("prose", "raw/mail", "rewards:Shouting", {"text": "body"}, None)
    held = {"python": "raw/python", "prose": "raw/prose.jsonl"}
    assert params.read().root.inputs == {**held, "prose-raw": "raw/mail"}


@pytest.mark.parametrize(
    ("task", "corpus", "reward", "message"),
    [
        ("a;b", "raw/mail", "rewards:Shouting", "a name is letters, digits, - and _, found 'a;b'"),
        ("shout", "raw/mial", "rewards:Shouting", "raw/mial: no file found"),
        ("shout", "raw/mail", "rewards:Whispering", "has no attribute 'Whispering'"),
        ("shout", "raw/mail", "classifier", "--reward classifier learns from labelled rows: name their file"),
        ("shout", "raw/mail", "pep9", "--reward: unknown kind 'pep9'; did you mean pep8?"),
        ("shout", "raw/prose.jsonl", "pep8", "raw/prose.jsonl:1: no column body; it has text, source"),
    ],
)
def test_what_can_not_be_a_task_writes_nothing(project, task, corpus, reward, message):
    before = lines_of(project)
    with pytest.raises(InputError, match=re.escape(message)):
        new_task.write(task, corpus, reward, {"text": "body"}, None)
    assert lines_of(project) == before


def test_check_lists_all_that_is_missing_or_wrong(project):
    new_task.write("shout", "raw/mail", "rewards:Broken", {"text": "body"}, None)
    (project / "raw/free").mkdir()
    (project / "raw/free/one.jsonl").write_text('{"text": "in no input"}\n')
    with modify_yaml("conf/scale/tests.yaml") as raw:
        raw["corpus"]["pep8"]["path"] = "raw/pyhton"
        raw["corpus"]["pii"]["source"] = "sauce"
        raw["scorer"]["pep8"]["pycodestyle"] = "2.0.0"
        raw["scorer"]["pii"]["textblob"] = "0.0.1"
        raw["scorer"]["toxicity"] |= {"labelled": "raw/labels.csv", "noize": 0.1}
        raw["tokenizer"]["pii"] = {"vocabulary": None, "name": "raw/tokenizer/gpt2"}
        raw["evaluate"]["pii"] = {"gold": "raw/gold.jsonl"}
        raw["evaluate"]["toxicity"] = {"sample": 3}
        raw["corpus"]["toxicity"]["benchmarks"] = ["raw/prose.jsonl", "raw/free/*.jsonl"]
        raw["evaluate"]["pep8"] = {"prompts": "raw/free/one.jsonl"}
    done = subprocess.run(
        [sys.executable, "-m", "freshstart", "check"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": f"{ROOT}:{project}", "HF_HUB_OFFLINE": "1", "PATH": ""},
    )
    assert (done.returncode, done.stdout) == (1, "")
    lines = [line.removeprefix("conf/scale/tests.yaml: ") for line in done.stderr.splitlines()]
    expected = [
        "scorer.toxicity: unknown key 'noize'; did you mean noise?",
        "evaluate.toxicity: unknown key 'sample'; did you mean samples?",
        "scorer.pep8.pycodestyle: pycodestyle 2.15.0 is installed, the scale file pins 2.0.0",
        "corpus.pep8.path: raw/pyhton: no file found",
        "evaluate.pep8: prompts names raw/free/one.jsonl, which no entry of inputs in params.yaml holds",
        "scorer.pii.textblob: textblob",
        "corpus.pii.path: raw/prose.jsonl:1: no column sauce; it has text, source",
        "tokenizer.pii.name: raw/tokenizer/gpt2 is no folder here",
        "evaluate.pii.gold: raw/gold.jsonl: no such file",
        "corpus.toxicity: benchmarks names raw/free/*.jsonl, which no entry of inputs in params.yaml holds",
        "scorer.shout: rewards:Broken gave no score for a text: AttributeError: 'str' object has no attribute 'shout'",
    ]
    assert len(lines) == len(expected), lines
    for line, begin in zip(lines, expected, strict=True):
        assert line.startswith(begin), line


def test_check_lists_what_benchmarks_and_models_from_elsewhere_lack(project, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(project / "hub"))
    shutil.copytree(ROOT / "conf/harness", project / "conf/harness")
    (project / "raw/lambada_test.jsonl").write_text('{"text": "in an input"}\n')
    with modify_yaml("params.yaml") as raw:
        raw["benchmarks"] = ["humaneval", "glue", "red_team", "lambada", "blimp"]
        raw["inputs"] |= {"lambada": "raw/lambada_test.jsonl", "harness": "conf/harness"}
        raw["external"]["hub"] = {"paper": {"task": "pii", "model": "someone/absent", "revision": "0" * 40}}
    monkeypatch.setattr(outside, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "sandlock", None)
    file = str(benchmarks.FILE)
    expected = [
        f"{file}: humaneval.problems: raw/HumanEval.jsonl.gz is missing: fetch the problems",
        f"{file}: humaneval: programs that models write run in sandlock, which is not installed: `pip install",
        f"{file}: glue.data: raw/glue/CoLA/train.tsv is missing",
        f"{file}: red_team.prompts: raw/prompts.jsonl is missing",
        f"{file}: lambada: the package lm-eval is missing: pip install 'freshstart[harness]'",
        f"{file}: blimp: the package lm-eval is missing: pip install 'freshstart[harness]'",
        f"{file}: blimp: raw/blimp/adjunct_island.jsonl and 66 others are missing: what stands in conf/harness says",
        "params.yaml: external.hub.paper.model: someone/absent is no folder here, and the hub does not give it",
    ]
    lines = check()
    assert len(lines) == len(expected), lines
    assert all(map(str.startswith, lines, expected)), lines
    (named,) = (thing for thing in outside.things(params.read()) if thing.what == "the model someone/absent")
    assert str(named).startswith("the model someone/absent (huggingface.co/someone/absent at 000000000000): size: see")


def classifier(workplace, share_bad):
    """Labelled rows, of which a share is bad, and the scorer that learns from them."""
    with open(workplace / "raw/labels.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        for number in range(400):
            bad = number < share_bad * 400
            rows.writerow([f"{'awful nasty' if bad else 'kind fine'} words {number % 7} {number}", int(bad)])
    return {"kind": "classifier", "segments": "sentences", "scikit_learn": "1.9.1", "labelled": "raw/labels.csv"}


def warned(door, task):
    """The warnings of a task, by the stages that a person runs."""
    folders = {name: f"data/{name}/{task}" for name in ("corpus", "scorer", "scored", "tokenizer", "tokens")}
    learned, shards = f"reports/scorer/{task}.json", f"data/shards/{task}/mle"
    follow(Path.cwd(), **{path.stem: str(path) for path in Path("raw").iterdir() if path.stem in ("flat", "labels")})
    door("settings", task=task, inputs="inputs", output=f"data/settings/{task}")
    door("corpus", task=task, output=folders["corpus"], report="reports/corpus.json")
    door("scorer", task=task, output=folders["scorer"], metrics=learned)
    scored = {"corpus": folders["corpus"], "scorer": folders["scorer"], "output": folders["scored"]}
    door("score", task=task, workers=0, report="reports/scores.json", **scored)
    door("tokenizer", task=task, corpus=folders["corpus"], output=folders["tokenizer"])
    read = {name: folders[name] for name in ("scored", "tokenizer", "scorer")}
    door("tokens", task=task, output=folders["tokens"], **read)
    settings = f"data/settings/{task}/mle/shards.json"
    door("shards", task=task, objective="mle", settings=settings, tokens=folders["tokens"], output=shards)
    paths = {"corpus": folders["corpus"], "learned": learned, "tokens": folders["tokens"], "mle": shards}
    door("warnings", task=task, output="reports/warnings.json", **paths)
    return files.read_json("reports/warnings.json", "warnings")["warnings"]


def test_degenerate_data_is_warned_of(project, door, capsys):
    with open(project / "raw/flat.jsonl", "w") as file:
        for number in range(40):
            file.write(json.dumps({"text": f"number {number} says " + "kind words of no end and " * 100}) + "\n")
    with modify_yaml("conf/scale/tests.yaml") as raw:
        raw["corpus"]["pii"] = {"kind": "local", "path": "raw/flat.jsonl", "train_characters": 80_000}
        raw["corpus"]["pii"]["heldout_characters"] = 9_000
        raw["scorer"]["pii"] = classifier(project, 0.83)
        raw["shards"]["pii"] = {"good": {"score": 1.0}, "positions": 1_000_000}
        raw["tokenizer"]["pii"] = {"vocabulary": 260}
    signs = warned(door, "pii")
    expected = ["one each", "100.00% of the segments are good", "no line break", "1 pieces beside the bytes"]
    expected += ["Models read the text 1", "83% are bad"]
    assert len(signs) == len(expected)
    assert all(part in sign for part, sign in zip(expected, signs, strict=True)), signs
    assert all(f"warning: pii: {sign}\n" in capsys.readouterr().out for sign in signs[:1])


def test_sound_data_is_not_warned_of(project, door):
    with modify_yaml("conf/scale/tests.yaml") as raw:
        raw["scorer"]["pii"] = classifier(project, 0.5)
        raw["shards"]["pii"] = {"good": {"quantile": 0.5}}
    assert [warned(door, task) for task in ("pep8", "pii", "toxicity")] == [[], [], []]


def test_labels_that_mean_bad_may_be_numbers():
    block = {"kind": "encoder", "segments": "sentences", "transformers": "1", "labelled": "rows.csv"}
    assert scorers.settings(block | {"bad": [0, 1.5, True, "x"]}, "here").bad == ("0", "1.5", "True", "x")
