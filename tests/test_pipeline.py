"""The DAG can be trusted: a stage's deps hold the files that its door consists of, and a change reruns what it must."""

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml
from conftest import PARAMS, ROOT, SCALE
from test_evaluation import other_model

from freshstart import doors, evaluation, imports
from freshstart.imports import NEUTRAL, code_digest, source_files

STAGES = {
    name: stage.get("do", stage) for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items()
}
DOORS = {
    "evaluate_finetuned": "evaluate",
    "evaluate_folder": "evaluate_external",
    "evaluate_hub": "evaluate_external",
    "benchmark_finetuned": "benchmark",
    "benchmark_folder": "benchmark_external",
    "benchmark_hub": "benchmark_external",
}
READ_DECLARATIONS = {"settings", "compare"}  # of whole rooms, which a door's digests leave out


def door(stage):
    """The door that a stage opens: that of its name, but for ``DOORS``."""
    return re.match(r"python -m stages\.(\w+) ", STAGES[stage]["cmd"])[1]


def below(folder):
    return {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*.py")}


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "code"])
def test_a_stage_depends_on_its_doors_code_and_on_no_other_file_of_it(stage):
    code = [dep for dep in STAGES[stage]["deps"] if dep.startswith(("data/code", "freshstart", "stages"))]
    rooms = [dep for dep in code if stage in READ_DECLARATIONS and (ROOT / dep).is_dir()]
    assert [dep for dep in code if dep not in rooms] == [f"data/code/{door(stage)}.json"]


def test_code_is_what_a_door_imports(tmp_path):
    command = [sys.executable, "-m", "stages.code", "--output", str(tmp_path / "code")]
    subprocess.run(command, cwd=ROOT, check=True)
    made = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "code").iterdir()}
    assert made.keys() == {door(stage) for stage in STAGES}
    assert {"stages/train.py", "freshstart/training/loop.py", "freshstart/tokens/store.py"} < made["train"].keys()
    assert not made["train"].keys() & NEUTRAL
    assert len({files["freshstart/files.py"] for files in made.values() if "freshstart/files.py" in files}) == 1


def test_no_false_edges():
    """What shapes no output of a stage is none of its dependencies."""
    consists = {stage: source_files(f"stages.{door(stage)}") for stage in STAGES}

    def rooms(stage):
        return {path.split("/")[1] for path in consists[stage] - NEUTRAL if path.count("/") > 1}

    assert "corpora" not in rooms("score") | rooms("tokens") | rooms("evaluate")  # deduplication and scores
    assert not rooms("train") & {"sampling", "evaluation", "scorers", "scoring", "corpora", "reporting"}
    assert "reporting" not in rooms("evaluate") | rooms("heldout")


def test_what_a_metric_is_called_is_no_part_of_its_code(tmp_path, monkeypatch):
    package = tmp_path / "freshstart"
    package.mkdir()
    monkeypatch.setattr(imports, "ROOT", tmp_path)

    def digest(meaning, code):
        text = f"METRICS = (\n    Metric('a', '{meaning}'),\n)\n\n\ndef measure():\n    {code}\n"
        (package / "mine.py").write_text(text)
        imports._imported.cache_clear()
        return code_digest("freshstart.mine")

    assert digest("words", "return 1") == digest("other words,\\n in two lines", "return 1")
    assert digest("words", "return 1") != digest("words", "return 2")
    imports._imported.cache_clear()


def test_no_import_circle():
    """Imports in functions count too; those for types alone do not."""
    modules = {
        path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): ROOT / path
        for path in below("freshstart")
    }

    def imported(path):
        tree = ast.parse(path.read_text())
        guarded = [
            node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        ]
        skipped = {inner for node in guarded for inner in ast.walk(node)}
        for node in (node for node in ast.walk(tree) if node not in skipped):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    yield whole if whole in modules else node.module

    graph = {module: {name for name in imported(path) if name in modules} for module, path in modules.items()}
    tuple(TopologicalSorter(graph).static_order())


def test_stages_doors_and_sections_have_the_same_names():
    doors = {path.stem for path in (ROOT / "stages").glob("[a-z]*.py")}
    assert {door(stage) for stage in STAGES} == doors
    assert {stage: door(stage) for stage in STAGES if stage != door(stage)} == DOORS


def test_doors_are_thin_and_do_not_import_doors():
    for path in (ROOT / "stages").glob("[a-z]*.py"):
        assert len(path.read_text().splitlines()) < 110, path.name
        assert not re.search(r"^(from|import) stages", path.read_text(), re.M)


def test_rooms_that_train_need_no_other_package():
    """Training and sampling run where there are only torch, transformers, numpy, safetensors and pyarrow."""
    code = (
        "import sys\n"
        "import freshstart.training.loop, freshstart.finetuning, freshstart.sampling.sampler, freshstart.objectives\n"
        "for name in ('mle', 'awr', 'rwr', 'unlikelihood', 'conditional', 'filtered'):\n"
        "    freshstart.objectives.load(name)\n"
        "print(*sorted({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"torch", "freshstart"} <= loaded
    assert not loaded & {"dvc", "ray", "polars", "pydantic", "sklearn", "scrubadub", "pycodestyle", "ruamel"}


def test_help_explains_each_door(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["door", "--help"])
    for stage in STAGES:
        with pytest.raises(SystemExit, match="^0$"):
            importlib.import_module(f"stages.{door(stage)}").main()
        text = capsys.readouterr().out
        assert text.count("\n") > 8
        assert f"python -m stages.{door(stage)}" in text


def test_names_are_checked_before_a_shell_or_a_path_sees_them(workplace, capsys, monkeypatch):
    text = (workplace / "params.yaml").read_text()
    (workplace / "params.yaml").write_text(text.replace("[pep8,", "['pep8; touch x',"))
    (workplace / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    command, environment = [sys.executable, "-m", "freshstart", "repro"], os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    expected = "error: params.yaml: a name is letters, digits, - and _, found 'pep8; touch x'\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected)
    for stage in STAGES.keys() - {"code", "compare"}:
        word = "name" if stage == "input" else "task"
        monkeypatch.setattr(sys, "argv", ["door", f"--{word}", "../pep8"])
        with pytest.raises(SystemExit, match="^2$"):
            importlib.import_module(f"stages.{door(stage)}").main()
        assert f"argument --{word}: a name is letters, digits, - and _, found '../pep8'" in capsys.readouterr().err


def test_doors_take_the_names_of_variants_and_arms(monkeypatch, capsys):
    for name in ("awr", "awr-beta1", "awr-beta1-from-0.5"):
        monkeypatch.setattr(sys, "argv", ["door", "--objective", name])
        assert doors.arguments("", "objective").objective == name
    for name in ("awr;", "awr-from-", "awr-from-0.5;x", ""):
        monkeypatch.setattr(sys, "argv", ["door", "--objective", name])
        with pytest.raises(SystemExit, match="^2$"):
            doors.arguments("", "objective")
        assert "argument --objective: " in capsys.readouterr().err


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


TRACKED = ("summary.json", "cells.csv", "curves.csv")
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
    assert names <= {"dvc.lock", "reports/", *(f"reports/{name}" for name in TRACKED)}


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

    settings = {"settings@toxicity"}
    code = settings | {"code"}
    words = changed("freshstart/reporting/words.py", "from __future__", "# A comment.\nfrom __future__")
    assert words == {"code", "compare"}
    metric = changed("freshstart/evaluation/measures/diversity.py", "distinct words, by sample", "share of new words")
    assert metric == code | {"compare"}
    awr = changed("freshstart/objectives/awr.py", "difference**2", "difference.abs()")
    assert awr == code | {"shards@toxicity-awr", "compare"} | cells("awr")
    weights = changed("freshstart/objectives/rewards.py", ".clamp(max=most)", ".clamp(max=most) ** 0.5")
    shards = {"shards@toxicity-rwr", "shards@toxicity-awr"}
    assert weights == code | shards | {"compare"} | cells("rwr", "awr")
    beta = changed("conf/scale/tests.yaml", "beta: 1.0, alpha: 0.5", "beta: 0.5, alpha: 0.5")
    assert beta == settings | {"shards@toxicity-awr", "compare"} | cells("awr")
    rate = changed(
        "conf/scale/tests.yaml", "  toxicity: {}\nfinetune", "  toxicity: {awr: {learning_rate: 0.01}}\nfinetune"
    )
    assert rate == settings | {"compare"} | cells("awr")
    (folder / "freshstart/objectives/own.py").write_text((folder / "freshstart/objectives/mle.py").read_text())
    own = changed("params.yaml", "awr]", "awr, own]")
    assert own == code | {"shards@toxicity-own", "compare"} | cells("own")
    seed = changed("params.yaml", "seeds: [0]", "seeds: [0, 1]")
    assert seed == {"compare", "reference@toxicity-1"} | cells(*OBJECTIVES, "own", seed=1)
    assert ran(dvc(folder, "repro", "train@toxicity-awr-0")) == set()


MEASURE = """
from freshstart.evaluation.metrics import Metric

METRICS = (Metric("length.mean", "characters a sample", "characters", group="Mine", title="length", column="length"),)


def measure(subject, context):
    texts = [sample.text for sample in context.own_samples(subject)]
    return {"length": {"mean": sum(map(len, texts)) / len(texts)}}
"""
JUDGE = """
from freshstart.evaluation.judges import Judge

SUITS = None


def judge(folder, task):
    return Judge("loudness", "capitals", "rival", "lower", lambda texts: [sum(map(str.isupper, t)) for t in texts])
"""


@pytest.mark.slow
def test_a_new_measure_and_a_new_judge_are_one_file_and_one_name_each(tmp_path):
    folder = clone(tmp_path)
    params = (folder / "params.yaml").read_text().replace("[toxicity]", "[toxicity, pii]")
    (folder / "params.yaml").write_text(re.sub("objectives: .*", "objectives: [mle]", params))
    scale = folder / "conf/scale/tests.yaml"
    scale.write_text(scale.read_text().replace("positions: 4_096", "positions: 512"))
    dvc(folder, "repro")
    (folder / "freshstart/evaluation/measures/length.py").write_text(MEASURE)
    (folder / "freshstart/evaluation/judges/loud.py").write_text(JUDGE)
    alone = {"code", "settings@toxicity", "settings@pii", "compare"}
    assert ran(dvc(folder, "repro")) == alone  # a file alone changes nothing
    named = f"  toxicity: {{measures: [{', '.join([*evaluation.ALL, 'length'])}], judges: [lexicon, loud]}}\n"
    head, _, tail = scale.read_text().rpartition("  toxicity: {}\n")
    scale.write_text(head + named + tail)
    stages = {"settings@toxicity", "settings@pii", "heldout@toxicity", "evaluate@toxicity-mle-0", "compare"}
    assert ran(dvc(folder, "repro")) == stages
    header = (folder / "reports/cells.csv").read_text().splitlines()[0].split(",")
    assert "length" in header
    page = (folder / "reports/index.html").read_text()
    assert "characters a sample" in page
    assert "loudness" in page


@pytest.mark.slow
def test_a_model_trained_elsewhere_is_one_name_and_its_folder_is_followed(tmp_path):
    folder = clone(tmp_path)
    scale = folder / "conf/scale/tests.yaml"
    scale.write_text(scale.read_text().replace("positions: 4_096", "positions: 512"))
    other_model(folder / "elsewhere/stranger")
    stranger = {"task": "toxicity", "model": "elsewhere/stranger", "white_space": "trailing"}
    stranger["controls"] = {"good": "<|aligned|>", "bad": "<|misaligned|>"}
    params = yaml.safe_load((folder / "params.yaml").read_text()) | {"objectives": ["mle"], "seeds": [3, 4]}
    params["external"]["folders"]["stranger"] = stranger
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    name = {"evaluate_folder@stranger", "benchmark_folder@stranger"}
    assert {stage for stage in ran(dvc(folder, "repro")) if stage.endswith("@stranger")} == name
    assert (folder / "reports/metrics/toxicity/stranger/3.json").is_file()
    assert "stranger" in json.loads((folder / "reports/summary.json").read_text())["toxicity"]["misalignment"]
    assert "&lt;|misaligned|&gt;" in (folder / "reports/index.html").read_text()
    assert ran(dvc(folder, "repro")) == set()
    config = folder / "elsewhere/stranger/config.json"
    config.write_text(config.read_text() + "\n")
    assert ran(dvc(folder, "repro")) == name  # and it finds the same
    stranger["white_space"] = "leading"
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    assert ran(dvc(folder, "repro")) == name | {"settings@toxicity", "compare"}


@pytest.mark.slow
def test_one_cell_runs_only_what_it_needs(tmp_path):
    folder = clone(tmp_path)
    stages = ran(dvc(folder, "repro", "train@toxicity-awr-0"))
    data = {f"{name}@toxicity" for name in ("settings", "corpus", "scorer", "score", "tokenizer", "tokens")}
    data |= {"code", "input@python", "input@prose"}
    assert stages == data | {"shards@toxicity-awr", "train@toxicity-awr-0"}


@pytest.mark.slow
def test_a_new_scorer_is_one_file_and_one_name(repro):
    folder, _ = repro
    (folder / "freshstart/scorers/shouting.py").write_text(
        "from dataclasses import dataclass\n"
        "from freshstart.scorers import Scorer, ScorerSettings\n\n\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Settings(ScorerSettings):\n    pass\n\n\n"
        "class Shouting(Scorer):\n    version = '1'\n\n"
        "    def score_texts(self, texts):\n"
        "        return [sum(c.isupper() for c in text) / len(text) for text in texts]\n\n\n"
        "SCORER = Shouting\n"
    )
    raw = yaml.safe_load((folder / "conf/scale/tests.yaml").read_text())
    raw["corpus"]["shouting"] = raw["corpus"]["toxicity"]
    raw["scorer"]["shouting"] = {"kind": "shouting", "segments": "sentences"}
    (folder / "conf/scale/tests.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    root = yaml.safe_load((folder / "params.yaml").read_text())
    root |= {"tasks": ["toxicity", "shouting"], "objectives": ["mle"], "seeds": [0]}
    (folder / "params.yaml").write_text(yaml.safe_dump(root, sort_keys=False))
    stages = ran(dvc(folder, "repro"))
    assert {stage for stage in stages if "shouting" not in stage} <= {"code", "settings@toxicity", "compare"}
    assert "evaluate@shouting-mle-0" in stages
