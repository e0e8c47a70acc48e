"""Text to test on, and a pipeline of seconds to test with."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # doors are run from other folders too

SCALE = """
corpus:
  every: {part_characters: 40_000, skip_bad: true}
  pep8: {kind: local, path: raw/python, train_characters: 260_000, heldout_characters: 40_000}
  pii: {kind: local, path: raw/prose.jsonl, train_characters: 120_000, heldout_characters: 20_000, source: source}
  toxicity: {kind: synthetic, documents: 700, train_characters: 150_000, heldout_characters: 30_000}
scorer:
  pep8: {kind: pep8, segments: lines, pycodestyle: 2.15.0}
  pii:
    kind: pii
    segments: sentences
    scrubadub: 2.0.1
    phonenumbers: 9.0.43
    detectors: [credential, credit_card, email, phone, social_security_number, url]
  toxicity:
    {kind: classifier, segments: sentences, scikit_learn: 1.9.1, labelled: synthetic, rows: 1_500, noise: 0.05}
score:
  every: {max_error_share: 0.1}
  pep8: {}
  pii: {}
  toxicity: {}
tokenizer:
  every: {vocabulary: 512}
  pep8: {}
  pii: {}
  toxicity: {}
shards:
  every:
    positions: 4_096
    good: {quantile: 0.5}
    filtered: {quantile: 0.5, budget: repeat}
    conditional: {drop: 0.05}
    unlikelihood: {alpha: 1.0}
    rwr: {rewards: standardized, beta: 1.0}
    awr: {rewards: standardized, beta: 1.0, alpha: 0.5}
  pep8: {good: {score: 0.0}}
  pii: {good: {score: 0.0}}
  toxicity: {good: {quantile: 0.75}}
train:
  every:
    layers: 1
    width: 32
    heads: 2
    context: 64
    batch_size: 4
    learning_rate: 0.005
    optimizer: muon
    weight_decay: 0.0
    threads: 1
    log_every: 2
    checkpoint_every: 4
  pep8: {}
  pii: {}
  toxicity: {}
finetune:
  every: {}
  pep8: {}
  pii: {}
  toxicity: {}
evaluate:
  every:
    samples: 24
    max_new_tokens: 48
    min_new_tokens: 8
    batch_size: 16
    reference: {samples: 12}
    heldout_tokens: 6_000
    bootstrap: 200
  pep8: {}
  pii: {}
  toxicity: {}
"""
PARAMS = """
scale: tests
tasks: [pep8, pii, toxicity]
objectives: [mle, filtered, conditional, unlikelihood, rwr, awr]
seeds: [0]
corpus_seed: 0
inputs: {python: raw/python, prose: raw/prose.jsonl}
benchmarks: []
external: {folders: {}, hub: {}}
finetuned: []
finetuned_from: [0.5]
"""


@lru_cache
def python_files(count: int, largest: int = 60_000) -> list[Path]:
    """Real Python sources that any machine has: the standard library's, in the order of their names."""
    library = Path(sysconfig.get_paths()["stdlib"])
    found = sorted(path for path in library.glob("*.py")) + sorted(library.glob("*/*.py"))
    sized = (path for path in found if 200 < path.stat().st_size < largest and is_utf8(path))
    return list(itertools.islice(sized, count))


def is_utf8(path: Path) -> bool:
    try:
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


@lru_cache
def prose() -> list[tuple[str, str]]:
    """(package, text): descriptions, licences and readmes of the installed packages."""
    site = Path(sysconfig.get_paths()["purelib"])
    texts = []
    for path in sorted(site.glob("*.dist-info/**/*")):
        if path.is_file() and path.name.startswith(("METADATA", "LICENSE", "AUTHORS", "README", "COPYING")):
            try:
                with open(path, encoding="utf-8", newline="") as file:
                    texts.append((path.parts[-2].split("-")[0], file.read()))
            except UnicodeDecodeError:
                continue
    return texts


def read(path: Path) -> str:
    with open(path, encoding="utf-8", newline="") as file:
        return file.read()


def shared_data(*below: str) -> Path:
    """Real corpora that are not part of the repository; where they are absent the test is skipped."""
    folder = Path(os.environ.get("FRESHSTART_TEST_DATA", ROOT.parent / "shared" / "data"), *below)
    if not folder.exists():
        pytest.skip(f"{folder} is absent: set FRESHSTART_TEST_DATA to a folder that holds {'/'.join(below)}")
    return folder


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty project folder with the tests' own parameters, as the current folder."""
    make_workplace(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRESHSTART_STATE", str(tmp_path / ".state"))
    monkeypatch.setenv("FRESHSTART_WORKERS", "0")
    return tmp_path


def make_workplace(folder: Path) -> None:
    (folder / "conf/scale").mkdir(parents=True, exist_ok=True)
    (folder / "conf/scale/tests.yaml").write_text(SCALE)
    shutil.copy(ROOT / "conf/benchmarks.yaml", folder / "conf")
    (folder / "params.yaml").write_text(PARAMS)
    raw = folder / "raw/python"
    raw.mkdir(parents=True, exist_ok=True)
    for path in python_files(60, largest=20_000):
        shutil.copy(path, raw / path.name)
    with open(folder / "raw/prose.jsonl", "w", encoding="utf-8") as file:
        for package, text in prose():
            if 200 < len(text) < 20_000:
                file.write(json.dumps({"text": text, "source": package}) + "\n")
    follow(folder)


def follow(folder: Path, **more: str) -> None:
    """Name more inputs, and do for all of them what the stage input does."""
    from freshstart import files, inputs

    root = yaml.safe_load((folder / "params.yaml").read_text())
    if more:
        root["inputs"] |= more
        (folder / "params.yaml").write_text(yaml.safe_dump(root, sort_keys=False))
    for name, path in root["inputs"].items():
        files.write_json(folder / "inputs" / f"{name}.json", inputs.listing(name, str(folder / path)))


@pytest.fixture
def door(monkeypatch):
    """Run a door as DVC does, but in this process: ``door("corpus", task="pep8", output="out")``."""

    def run(name: str, /, **arguments: object) -> None:
        import importlib

        from freshstart import params

        given = [word for key, value in arguments.items() for word in (f"--{key.replace('_', '-')}", str(value))]
        monkeypatch.setattr(sys, "argv", [name, *given])
        params.load.cache_clear()
        importlib.import_module(f"stages.{name}").main()

    return run


class Made:
    """A folder in which the data stages have run for all tasks."""

    def __init__(self, folder: Path):
        self.folder = folder

    def paths(self, task: str) -> dict[str, Path]:
        return {
            name: self.folder / "data" / name / task
            for name in ("settings", "corpus", "scorer", "scored", "tokenizer", "tokens")
        }


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Made:
    """The data stages of the tests' scale, run once for the whole session."""
    folder = tmp_path_factory.mktemp("made")
    make_workplace(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FRESHSTART_STATE", str(folder / ".state"))
        run = door.__wrapped__(patch)
        for task in ("pep8", "pii", "toxicity"):
            data = {name: f"data/{name}/{task}" for name in ("corpus", "scorer", "scored", "tokenizer", "tokens")}
            settings = f"data/settings/{task}"
            run("settings", task=task, inputs="inputs", output=settings)
            run("corpus", task=task, output=data["corpus"], report=f"reports/corpus/{task}.json")
            run("scorer", task=task, output=data["scorer"], metrics=f"reports/scorer/{task}.json")
            run(
                "score",
                task=task,
                workers=0,
                corpus=data["corpus"],
                scorer=data["scorer"],
                output=data["scored"],
                report=f"reports/scores/{task}.json",
            )
            run("tokenizer", task=task, corpus=data["corpus"], output=data["tokenizer"])
            run(
                "tokens",
                task=task,
                scored=data["scored"],
                tokenizer=data["tokenizer"],
                scorer=data["scorer"],
                output=data["tokens"],
            )
            for objective in ("mle", "filtered", "conditional", "unlikelihood", "rwr", "awr"):
                shards = f"data/shards/{task}/{objective}"
                own = f"{settings}/{objective}/shards.json"
                run("shards", task=task, objective=objective, settings=own, tokens=data["tokens"], output=shards)
    return Made(folder)
