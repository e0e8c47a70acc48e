"""The DAG can be trusted: a stage's deps hold the files that its door is made of, and a change reruns what it must."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import PARAMS, ROOT, SCALE

from freshstart.imports import NEUTRAL, made_of
from freshstart.params import module_names

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# Found by name at run time; what they are is recorded by the scorer stage and by the shards stage.
BY_NAME = {f"freshstart/scorers/{name}.py" for name in module_names("freshstart.scorers")}
BY_NAME |= {f"freshstart/objectives/{name}.py" for name in module_names("freshstart.objectives")}
BY_NAME |= {"freshstart/objectives/${item.objective}.py"}


def door(stage):
    """The door that a stage opens: that of its name, but for finetuned models, which are evaluated like any other."""
    return re.match(r"python -m stages\.(\w+) ", STAGES[stage]["cmd"])[1]


def code(paths):
    return {path for path in paths if path.endswith(".py")}


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_what_the_door_is_made_of(stage):
    wanted = made_of(f"stages.{door(stage)}") - NEUTRAL
    if stage == "corpus":
        for kind in module_names("freshstart.corpora"):
            wanted |= made_of(f"freshstart.corpora.{kind}") - NEUTRAL
    if stage == "scorer":
        for kind in module_names("freshstart.scorers"):
            wanted |= made_of(f"freshstart.scorers.{kind}") - NEUTRAL
    if stage == "shards":
        for name in module_names("freshstart.objectives"):
            wanted |= made_of(f"freshstart.objectives.{name}") - NEUTRAL
    listed = code(STAGES[stage]["deps"])
    if stage in ("scorer",):
        assert listed == wanted
    else:
        assert listed - BY_NAME == wanted - BY_NAME


def test_stages_doors_and_sections_have_the_same_names():
    doors = {path.stem for path in (ROOT / "stages").glob("[a-z]*.py")}
    assert {door(stage) for stage in STAGES} == doors
    assert {stage: door(stage) for stage in STAGES if stage != door(stage)} == {"evaluate_finetuned": "evaluate"}


def test_doors_are_thin_and_do_not_import_doors():
    for path in (ROOT / "stages").glob("[a-z]*.py"):
        assert len(path.read_text().splitlines()) < 110, path.name
        assert not re.search(r"^(from|import) stages", path.read_text(), re.M)


def test_rooms_that_train_need_no_other_package():
    """Training and sampling run where there are only torch, transformers, numpy and safetensors."""
    allowed = {"torch", "transformers", "numpy", "safetensors", "freshstart", "tqdm"}
    code = (
        "import sys\n"
        "import freshstart.training.loop, freshstart.sampling.sampler, freshstart.objectives\n"
        "for name in ('mle', 'awr', 'rwr', 'unlikelihood', 'conditional', 'filtered'):\n"
        "    freshstart.objectives.load(name)\n"
        "print(*sorted({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"dvc", "ray", "polars", "pyarrow", "pydantic", "sklearn", "scrubadub", "pycodestyle", "ruamel"}
    paths = set().union(*(made_of(f"freshstart.{room}") for room in ("training.loop", "sampling.sampler")))
    assert allowed
    assert not {path for path in paths if path.startswith(("freshstart/corpora", "freshstart/scor", "freshstart/rep"))}


def test_help_explains_each_door():
    for stage in STAGES:
        opened = [sys.executable, "-m", f"stages.{door(stage)}", "--help"]
        done = subprocess.run(opened, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.count("\n") > 8
        assert f"python -m stages.{door(stage)}" in done.stdout


def clone(folder):
    """The working tree as a fresh clone would have it, with the tests' own parameters, committed."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith(("tests/", "dvc.lock", "reports/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    from conftest import make_workplace

    make_workplace(folder)
    (folder / "params.yaml").write_text(PARAMS.replace("[pep8, pii, toxicity]", "[toxicity]"))
    (folder / "conf/scale/tests.yaml").write_text(SCALE)
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", *words]
        subprocess.run(git, cwd=folder, check=True)
    return folder


def dvc(folder, *words, check=True):
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FRESHSTART_STATE": str(folder / ".state"),
        "FRESHSTART_WORKERS": "0",
        "DVC_NO_ANALYTICS": "1",
    }
    command = [sys.executable, "-m", "dvc", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=check)


def ran(done):
    return set(re.findall(r"Running stage '([^']+)'", done.stdout))


@pytest.fixture(scope="module")
def repro(tmp_path_factory):
    folder = clone(tmp_path_factory.mktemp("clone"))
    return folder, ran(dvc(folder, "repro"))


OBJECTIVES = ("mle", "filtered", "conditional", "unlikelihood", "rwr", "awr")
CELLS = {f"{stage}@toxicity-{objective}-0" for stage in ("train", "evaluate") for objective in OBJECTIVES}


@pytest.mark.slow
def test_a_fresh_clone_makes_everything(repro):
    folder, stages = repro
    assert stages > CELLS
    summary = json.loads((folder / "reports/summary.json").read_text())
    assert set(summary["toxicity"]["misalignment"]) == set(OBJECTIVES)
    assert (folder / "reports/index.html").stat().st_size > 10_000
    assert ran(dvc(folder, "repro")) == set()
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True, check=True)
    names = {line[3:] for line in changed.stdout.splitlines()}
    assert names <= {"dvc.lock", "reports/summary.json", "reports/"}


@pytest.mark.slow
def test_a_change_reruns_what_it_must(repro):
    folder, _ = repro

    def changed(path, old, new):
        text = (folder / path).read_text()
        assert old in text
        (folder / path).write_text(text.replace(old, new, 1))
        return ran(dvc(folder, "repro"))

    def cells(*names, seed=0):
        return {f"{stage}@toxicity-{name}-{seed}" for stage in ("train", "evaluate") for name in names}

    assert changed("freshstart/reporting/words.py", "from __future__", "# A comment.\nfrom __future__") == {"compare"}
    awr = changed("freshstart/objectives/awr.py", "difference**2", "difference.abs()")
    assert awr == {"shards@toxicity-awr", "compare"} | cells("awr")
    weights = changed("freshstart/objectives/rewards.py", ".clamp(max=most)", ".clamp(max=most) ** 0.5")
    assert {stage for stage in weights if not stage.startswith("shards")} == {"compare"} | cells("rwr", "awr")
    beta = changed("conf/scale/tests.yaml", "beta: 1.0, alpha: 0.5", "beta: 0.5, alpha: 0.5")
    assert {stage for stage in beta if not stage.startswith("shards")} == {"compare"} | cells("awr")
    (folder / "freshstart/objectives/own.py").write_text((folder / "freshstart/objectives/mle.py").read_text())
    own = changed("params.yaml", "awr]", "awr, own]")
    assert own == {"shards@toxicity-own", "compare"} | cells("own")
    seed = changed("params.yaml", "seeds: [0]", "seeds: [0, 1]")
    assert seed == {"compare"} | cells(*OBJECTIVES, "own", seed=1)
    assert ran(dvc(folder, "repro", "train@toxicity-awr-0")) == set()


@pytest.mark.slow
def test_one_cell_runs_only_what_it_needs(tmp_path):
    folder = clone(tmp_path)
    stages = ran(dvc(folder, "repro", "train@toxicity-awr-0"))
    data = {f"{name}@toxicity" for name in ("corpus", "scorer", "score", "tokenizer", "tokens")}
    assert stages == data | {"shards@toxicity-awr", "train@toxicity-awr-0"}


@pytest.mark.slow
def test_a_new_scorer_is_one_file_and_one_name(repro):
    folder, _ = repro
    (folder / "freshstart/scorers/shouting.py").write_text(
        "from dataclasses import dataclass\n"
        "from freshstart.scorers import Scorer, ScorerSettings\n\n\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Settings(ScorerSettings):\n    pass\n\n\n"
        "class Shouting(Scorer):\n    version = '1'\n\n    def __init__(self, folder=None):\n        pass\n\n"
        "    def score_texts(self, texts):\n"
        "        return [sum(c.isupper() for c in text) / len(text) for text in texts]\n\n\n"
        "SCORER = Shouting\n"
    )
    raw = yaml.safe_load((folder / "conf/scale/tests.yaml").read_text())
    raw["corpus"]["shouting"] = raw["corpus"]["toxicity"]
    raw["scorer"]["shouting"] = {"kind": "shouting", "segments": "sentences"}
    raw["shards"]["shouting"] = {"good": {"quantile": 0.5}}
    for section in ("score", "tokenizer", "train", "finetune", "evaluate"):
        raw[section]["shouting"] = {}
    (folder / "conf/scale/tests.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    root = yaml.safe_load((folder / "params.yaml").read_text())
    root |= {"tasks": ["toxicity", "shouting"], "objectives": ["mle"], "seeds": [0]}
    (folder / "params.yaml").write_text(yaml.safe_dump(root, sort_keys=False))
    stages = ran(dvc(folder, "repro"))
    assert {stage for stage in stages if "shouting" not in stage} <= {"compare"}
    assert "evaluate@shouting-mle-0" in stages
