"""Parameters: what is not known is refused, with where it stands and the nearest known word."""

import importlib
import re
import tomllib
from inspect import get_annotations
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from test_training import rescale

from freshstart import manual, objectives, params
from freshstart.errors import InputError
from freshstart.settings import build, read
from freshstart.training import TrainSettings

OBJECTIVES = ("mle", "filtered", "conditional", "unlikelihood", "rwr", "awr")
SCALES = sorted(path.stem for path in (ROOT / "conf/scale").glob("*.yaml"))


def load(monkeypatch, folder):
    monkeypatch.chdir(folder)
    params.load.cache_clear()
    try:
        return params.load()
    finally:
        params.load.cache_clear()


@pytest.fixture
def project(workplace, monkeypatch):
    """Change the text of params.yaml or what the scale file says and load both."""

    def changed(root=lambda text: text, scale=lambda raw: None):
        (workplace / "params.yaml").write_text(root((workplace / "params.yaml").read_text()))
        path = workplace / "conf/scale/tests.yaml"
        raw = yaml.safe_load(path.read_text())
        scale(raw)
        path.write_text(yaml.safe_dump(raw))
        return load(monkeypatch, workplace)

    return changed


def test_the_tests_own_scale_loads(project):
    loaded = project()
    assert loaded.root.tasks == ("pep8", "pii", "toxicity")
    assert loaded.block("corpus", "pep8")["part_characters"] == 40_000


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_loads(scale, tmp_path, monkeypatch):
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(re.sub(r"(?m)^scale: \w+", f"scale: {scale}", text))
    assert load(monkeypatch, tmp_path).root.scale == scale


def keys(node, where=""):
    """Paths of keys. Blocks that may differ by their kind count by their name alone."""
    paths = set()
    for key, value in node.items():
        path = f"{where}.{key}"
        paths.add(path)
        if isinstance(value, dict) and path.split(".")[1] not in ("corpus", "scorer", "tokenizer"):
            paths |= keys(value, path)
    return paths


def test_scale_files_have_equal_keys():
    assert {"quick", "study", "small", "paper"} <= set(SCALES)
    scales = {scale: yaml.safe_load((ROOT / f"conf/scale/{scale}.yaml").read_text()) for scale in SCALES}
    for scale, raw in scales.items():
        assert list(raw) == list(params.SECTIONS), scale
        for section in params.NEEDED:
            assert set(raw[section]) - {"every"} == set(scales["quick"][section]) - {"every"}, (scale, section)
    every = {scale: keys({s: {"every": raw[s].get("every") or {}} for s in raw}) for scale, raw in scales.items()}
    assert every["small"] == every["paper"] == every["quick"]


CASES = [
    ("scale: tests", "scale: test", "conf/scale: unknown scale 'test'; did you mean tests?"),
    ("[pep8, pii", "[pep9, pii", "conf/scale/tests.yaml: corpus.pep9 is missing"),
    ("[mle, filtered", "[mle, filterd", "unknown objective 'filterd'; did you mean filtered?"),
    ("seeds: [0]", "seeds: [0, 0]", "params.yaml: seeds names one twice: 0, 0"),
    ("seeds: [0]", "seeds: []", "params.yaml: seeds must name at least one"),
    ("seeds: [0]", "seeds: ['0']", "params.yaml.seeds.0: Input should be a valid integer, found '0'"),
    ("seeds: [0]", "seeds: [1e23]", "params.yaml.seeds.0: Input should be a valid integer"),
    ("seeds: [0]", f"seeds: [{10**23}]", "seeds and corpus_seed must be from 0 to 4,294,967,295"),
    ("[pep8, pii", "['pep8; touch x', pii", "a name is letters, digits, - and _, found 'pep8; touch x'"),
    ("[mle, filtered", "[mle, ../filtered", "a name is letters, digits, - and _, found '../filtered'"),
    ("[mle, filtered", "[mle, mle-from-0.5", "a name is letters, digits, - and _, found 'mle-from-0.5'"),
    ("[mle, filtered", "[mle, mle-from-mle", "'-from-' is reserved for the names of finetuned arms"),
    ("seeds: [0]", "seeds: 0", "params.yaml.seeds: must be a list: write [0]"),
    ("seeds: [0]", "sedes: [0]", "params.yaml: unknown key 'sedes'; did you mean seeds?"),
    ("[mle, filtered", "[filtered", "objectives must hold mle"),
    ("corpus_seed: 0", "x: [", "params.yaml is not valid YAML"),
    ("corpus_seed: 0", "", "params.yaml.corpus_seed is missing: it has no default"),
    ("benchmarks: []", "benchmarks: [best]", "unknown benchmark 'best'; did you mean best_of_n?"),
    ("finetuned: []", "finetuned: [awr]", "finetuned_from has 0.5, but conf/scale/tests.yaml: train.pep8"),
]


NOWHERE, COMMIT = "external: {folders: {}, hub: {}}", "0123456789abcdef" * 2 + "01234567"


def elsewhere(group, name, **more):
    return yaml.safe_dump({"external": {"folders": {}, "hub": {}, group: {name: {"task": "pep8", **more}}}})


CASES += [
    (NOWHERE, elsewhere(group, name, **more), message)
    for group, name, more, message in (
        (
            "folders",
            "theirs",
            {"task": "pep9", "model": "raw"},
            "folders.theirs.task: unknown task 'pep9'; did you mean",
        ),
        ("folders", "theirs", {"model": "gone"}, "theirs.model: gone is not a folder here: list a model of"),
        ("folders", "theirs", {"model": "raw", "revision": COMMIT}, "a model in folders has no revision"),
        ("folders", "awr", {"model": "raw"}, "folders.awr: an objective or another model has that name"),
        ("folders", "a;b", {"model": "raw"}, "a name is letters, digits, - and _, found 'a;b'"),
        ("folders", "mle-from-0", {"model": "raw"}, "'-from-' is reserved for the names of finetuned arms"),
        (
            "folders",
            "theirs",
            {"model": "raw", "controls": {"aligned": "<|a|>"}},
            "controls must be good and bad, each",
        ),
        ("folders", "theirs", {"model": "raw", "controls": {"good": "x", "bad": "x"}}, "each with a string of its own"),
        ("folders", "theirs", {"model": "raw", "white_space": "behind"}, "white_space: Input should be 'leading' or"),
        ("folders", "theirs", {"modle": "raw"}, "params.yaml.external.folders.theirs"),
        ("hub", "theirs", {"model": "them/theirs"}, "a model in hub needs a revision, the full hash of a commit"),
        ("hub", "theirs", {"model": "them/theirs", "revision": "main"}, "revision must be the full hash of a commit"),
        ("hub", "theirs", {"model": "raw", "revision": COMMIT}, "raw is a folder here: list it under external.folders"),
    )
]


@pytest.mark.parametrize(("old", "new", "message"), CASES)
def test_wrong_words_in_params(project, old, new, message):
    with pytest.raises(InputError, match=re.escape(message)):
        project(root=lambda text: text.replace(old, new))


def test_the_papers_checkpoints_need_a_commit_each_and_nothing_else():
    listed = yaml.safe_load((ROOT / "conf/paper-checkpoints.yaml").read_text())
    assert {entry["revision"] for entry in listed.values()} == {None}
    models = {name: build(params.ExternalModel, entry | {"revision": COMMIT}, name) for name, entry in listed.items()}
    assert len({model.model for model in models.values()}) == 18
    kinds = {f"paper-{task}-{name}" for task in ("toxicity", "pii", "pep8") for name in OBJECTIVES}
    assert set(models) == kinds
    assert all(model.task == name.split("-")[1] for name, model in models.items())
    assert {name for name, model in models.items() if model.controls} == {n for n in kinds if "conditional" in n}


SCALE_CASES = [
    ("shards.every.positions", 255, "train.pep8: a batch has 256 positions, and 255 are what it trains on: lower"),
    ("trian", {}, "tests.yaml: unknown section 'trian'; did you mean train?"),
    ("train.every.layer", 3, "tests.yaml: train.every: unknown key 'layer'; did you mean layers?"),
    ("train.every.layers", "2", "train.every.layers: Input should be a valid integer, found '2'"),
    ("train.every.layers", True, "train.every.layers: Input should be a valid integer, found True"),
    ("train.every.learning_rate", float("nan"), "train.every.learning_rate: Input should be a finite"),
    ("shards.every.rwr.beta", float("inf"), "shards.every.rwr.beta: Input should be a finite number, found inf"),
    ("train.every.awr", {"layers": 0}, "train.pep8.awr: layers must be at least 1, found 0"),
    ("train.every.heads", 5, "width (32) must be a multiple of heads (5)"),
    ("train.every.optimizer", "sgd", "train.every.optimizer: Input should be 'adamw' or 'muon'"),
    ("train.pii", [], "train.pii must be a mapping"),
    ("evaluate.pii", {"measures": ["prompted"]}, "tests.yaml: evaluate.pii.prompts is missing: the measure prompted"),
    ("corpus.pep8.kind", "locl", "corpus.pep8: unknown kind 'locl'; did you mean local?"),
    ("corpus.pep8.train_characters", 0, "train_characters must be at least 1, found 0"),
    ("scorer.pep8.kind", "pep9", "scorer.pep8: unknown kind 'pep9'; did you mean pep8?"),
    ("scorer.pii.detectors", ["names"], "detectors must be some of"),
    ("tokenizer.every", {}, "tokenizer.pep8: give either vocabulary (train one) or name (use one)"),
    ("tokenizer.every.vocabulary", 100, "vocabulary must be at least 259, found 100"),
    ("tokenizer.every.controls", {"good": "x", "bad": "x"}, "begin with good and bad, each with a string of its own"),
    ("shards.every.awr.betta", 1, "shards.every.awr: unknown key 'betta'; did you mean beta?"),
    ("shards.every.conditionl", {}, "unknown key 'conditionl'"),
    ("shards.every.rwr.beta", 0, "beta and most must be above 0"),
    ("shards.pep8.good", {}, "good needs either score or quantile"),
    ("evaluate.every.top_p", 0, "top_p above 0 and at most 1"),
    ("score.every.max_error_share", 2, "max_error_share must be from 0 to 1, found 2"),
]


@pytest.mark.parametrize(("place", "value", "message"), SCALE_CASES)
def test_wrong_words_in_the_scale_file(project, place, value, message):
    def change(raw):
        *path, last = place.split(".")
        for key in path:
            raw = raw[key]
        raw[last] = value

    with pytest.raises(InputError, match=re.escape(message)):
        project(scale=change)


def test_all_that_is_wrong_is_said_at_once_and_where_it_stands(project):
    def change(raw):
        raw["train"]["every"] |= {"layer": 3, "heads": "2"}
        raw["train"]["pii"] = {"awr": {"batch": 8}}
        del raw["shards"]["pep8"], raw["shards"]["every"]["good"]
        raw["scorer"]["toxicity"] |= {"rows": "many", "noize": 0.1}
        del raw["corpus"]["pii"]

    with pytest.raises(InputError) as refused:
        project(scale=change)
    lines = str(refused.value).replace("conf/scale/tests.yaml: ", "").split("\n")
    assert sorted(line.split(";")[0] for line in lines) == [
        "corpus.pii is missing: write it, or let `python -m freshstart new-task pii` do so",
        "scorer.toxicity.rows: Input should be a valid integer, found 'many'",
        "scorer.toxicity: unknown key 'noize'",
        "shards.pep8.good is missing: it has no default",
        "train.every.heads: Input should be a valid integer, found '2'",
        "train.every: unknown key 'layer'",
        "train.pii.awr: unknown key 'batch'",
    ]


def test_a_task_needs_no_more_than_a_corpus_and_a_scorer(project):
    def change(raw):
        for section in set(params.SECTIONS) - set(params.NEEDED):
            raw[section] = {"every": raw[section]["every"]}

    loaded = project(scale=change)
    awr = loaded.model(objectives.load("awr").settings, "shards", "pii", "awr")
    assert (awr.good.quantile, awr.beta) == (0.5, 1)


def test_missing_section_and_missing_file(project, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="the section evaluate is missing"):
        project(scale=lambda raw: raw.pop("evaluate"))
    (tmp_path / "params.yaml").unlink()
    with pytest.raises(InputError, match="params.yaml is missing: run this from the root of the repository"):
        load(monkeypatch, tmp_path)


def test_unknown_task_and_objective_on_the_command_line(workplace, door):
    with pytest.raises(InputError, match="unknown task 'pepe8'; did you mean pep8?"):
        door("corpus", task="pepe8", output="out", report="r.json")
    door("settings", task="pep8", inputs="inputs", output="settings")
    with pytest.raises(InputError, match="unknown objective 'awrr'; did you mean awr?"):
        door("shards", task="pep8", objective="awrr", settings="settings/awr/shards.json", tokens="x", output="out")


def test_a_tasks_own_numbers_win(project):
    def change(raw):
        raw["train"]["pii"] = {"layers": 3, "awr": {"learning_rate": 0.002}}
        raw["train"]["every"]["awr"] = {"learning_rate": 0.001, "batch_size": 2}
        raw["shards"]["pii"]["awr"] = {"beta": 0.1}

    loaded = project(scale=change)
    pii, pep8, mle = (
        loaded.model(TrainSettings, "train", *cell) for cell in (("pii", "awr"), ("pep8", "awr"), ("pii", "mle"))
    )
    assert (pii.layers, pii.learning_rate, pii.batch_size) == (3, 0.002, 2)
    assert (pep8.layers, pep8.learning_rate, mle.learning_rate) == (1, 0.001, 0.005)
    awr = objectives.load("awr").settings
    assert [loaded.model(awr, "shards", task, "awr").beta for task in ("pii", "pep8")] == [0.1, 1]


def test_a_learning_rate_of_an_objective_concerns_its_training_alone(workplace, door):
    """What the stages depend on: train.json of that objective changes, and nothing else does."""
    door("settings", task="pep8", inputs="inputs", output="settings")
    before = {path: path.read_bytes() for path in (workplace / "settings").rglob("*.json")}
    rescale(workplace, train={"awr": {"learning_rate": 0.001}})
    door("settings", task="pep8", inputs="inputs", output="settings")
    changed = [path for path, written in before.items() if path.read_bytes() != written]
    assert changed == [workplace / "settings/awr/train.json"]
    assert read(changed[0], TrainSettings, "settings@pep8").learning_rate == 0.001
    assert len(before) > 3 * 6


def test_a_variant_is_its_objective_with_numbers_of_its_own(workplace, door):
    """What stands in its block concerns its cells alone; what stands in the objective's concerns both."""
    (workplace / "params.yaml").write_text((workplace / "params.yaml").read_text().replace("awr]", "awr, awr-beta1]"))
    path = workplace / "conf/scale/tests.yaml"

    def settings(shards):
        raw = yaml.safe_load(path.read_text())
        raw["shards"]["every"] |= shards
        path.write_text(yaml.safe_dump(raw))
        door("settings", task="pep8", inputs="inputs", output="settings")
        return {file.relative_to(workplace): file.read_bytes() for file in (workplace / "settings").rglob("*.json")}

    before = settings({"awr": {"rewards": "rank", "beta": 2.0}, "awr-beta1": {"beta": 1.0}})
    awr = objectives.load("awr-beta1").settings
    variant = read(Path("settings/awr-beta1/shards.json"), awr, "settings@pep8")
    assert (variant.beta, variant.rewards) == (1.0, "rank")
    after = settings({"awr-beta1": {"beta": 0.5}})
    assert [str(name) for name in before if before[name] != after[name]] == ["settings/awr-beta1/shards.json"]
    with pytest.raises(InputError, match="unknown objective 'awrr'; did you mean awr"):
        objectives.load("awrr-beta1")


def test_the_docs_list_every_setting_and_its_meaning(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert manual.documented() == (ROOT / "docs/settings.md").read_text(), (
        "run `python -m freshstart settings > docs/settings.md`"
    )
    meant = {(place, name) for place, names in tomllib.loads(manual.MEANINGS.read_text()).items() for name in names}
    for place, name in meant:
        room, _, model = place.rpartition(".")
        assert name in get_annotations(getattr(importlib.import_module(f"freshstart.{room}"), model)), (place, name)
    monkeypatch.setattr(manual, "_meanings", lambda: {})
    with pytest.raises(InputError, match=r'does not say what layers means: .* \["training.TrainSettings"\]'):
        manual.meaning(TrainSettings, "layers")


def test_the_docs_say_what_measures_and_benchmarks_declare():
    printed = manual.metrics()
    assert (ROOT / "docs/evaluation.md").read_text().endswith(printed), "put what `python -m freshstart metrics` prints"
    described = yaml.safe_load((ROOT / "conf/benchmarks.yaml").read_text())
    for name in {"replay", *(block["kind"] for block in described.values())}:
        assert f"\n### Benchmark `{name}`: " in printed
    assert "\n| `tasks.<name>.acc` | accuracy | share | higher |\n" in printed


def test_numbers_are_read_as_dvc_reads_them(tmp_path):
    from dvc.utils.serialize import load_yaml

    path = tmp_path / "numbers.yaml"
    path.write_text("a: 1e-3\nb: 5_000\nc: 0o17\nd: yes\n")
    assert params.read_file(path) == load_yaml(str(path))


@pytest.mark.parametrize(
    "path", ["params.yaml", "conf/scale/quick.yaml", "conf/scale/small.yaml", "conf/scale/paper.yaml"]
)
def test_a_number_that_dvc_sets_changes_its_line_alone(path, tmp_path):
    """`dvc exp run -S` writes the whole file anew: in Git it stands as DVC writes it (docs/dvc.md)."""
    from dvc.utils.hydra import apply_overrides

    key = "corpus_seed" if path == "params.yaml" else "train.every.heads"
    before = (ROOT / path).read_text()
    copy = tmp_path / Path(path).name
    copy.write_text(before)
    apply_overrides(str(copy), [f"{key}=7"])
    after = copy.read_text()
    lines = [pair for pair in zip(before.splitlines(), after.splitlines(), strict=True) if pair[0] != pair[1]]
    assert [line.split(":")[0].strip() for pair in lines for line in pair] == 2 * [key.split(".")[-1]]
