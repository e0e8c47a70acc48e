"""Parameters: what is not known is refused, with where it stands and the nearest known word."""

import re

import pytest
import yaml
from conftest import ROOT

from freshstart import params
from freshstart.errors import InputError

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
    """Change a word of params.yaml or of the scale file and load both."""

    def changed(root=None, scale=None):
        if root is not None:
            text = (workplace / "params.yaml").read_text()
            (workplace / "params.yaml").write_text(root(text))
        if scale is not None:
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
    loaded = load(monkeypatch, tmp_path)
    assert loaded.root.scale == scale


def keys(node, where=""):
    """Paths of keys. Blocks that may differ by their kind count by their name alone."""
    found = set()
    for key, value in node.items():
        path = f"{where}.{key}"
        found.add(path)
        if isinstance(value, dict) and path.split(".")[1] not in ("corpus", "scorer", "tokenizer"):
            found |= keys(value, path)
    return found


def test_scale_files_have_equal_keys():
    assert {"quick", "small", "paper"} <= set(SCALES)
    found = {scale: yaml.safe_load((ROOT / f"conf/scale/{scale}.yaml").read_text()) for scale in SCALES}
    for scale, raw in found.items():
        assert list(raw) == list(params.SECTIONS), scale
        for section in params.SECTIONS:
            assert set(raw[section]) == set(found["quick"][section]), (scale, section)
    every = {scale: keys({s: {"every": raw[s].get("every") or {}} for s in raw}) for scale, raw in found.items()}
    assert every["small"] == every["quick"]
    assert every["paper"] == every["quick"]


CASES = [
    (lambda t: t.replace("scale: tests", "scale: test"), "conf/scale: unknown scale 'test'; did you mean tests?"),
    (lambda t: t.replace("[pep8, pii", "[pep9, pii"), "conf/scale/tests.yaml: corpus.pep9 is missing"),
    (lambda t: t.replace("[mle, filtered", "[mle, filterd"), "unknown objective 'filterd'; did you mean filtered?"),
    (lambda t: t.replace("seeds: [0]", "seeds: [0, 0]"), "params.yaml: seeds names one twice: 0, 0"),
    (lambda t: t.replace("seeds: [0]", "seeds: []"), "params.yaml: seeds must name at least one"),
    (
        lambda t: t.replace("seeds: [0]", "seeds: ['0']"),
        "params.yaml.seeds.0: Input should be a valid integer, found '0'",
    ),
    (lambda t: t.replace("seeds: [0]", "sedes: [0]"), "params.yaml: unknown key 'sedes'; did you mean seeds?"),
    (lambda t: t.replace("[mle, filtered", "[filtered"), "objectives must hold mle"),
    (lambda t: t + "\nx: [", "params.yaml is not valid YAML"),
    (lambda t: t.replace("corpus_seed: 0", ""), "params.yaml.corpus_seed is missing: it has no default"),
    (lambda t: t.replace("benchmarks: []", "benchmarks: [glue]"), "no stage reads it yet"),
]


@pytest.mark.parametrize(("change", "message"), CASES)
def test_wrong_words_in_params(project, change, message):
    with pytest.raises(InputError, match=re.escape(message)):
        project(root=change)


def put(*path, value):
    def change(raw):
        for key in path[:-1]:
            raw = raw[key]
        raw[path[-1]] = value

    return change


SCALE_CASES = [
    (put("trian", value={}), "tests.yaml: unknown section 'trian'; did you mean train?"),
    (put("train", "every", "layer", value=3), "train.pep8: unknown key 'layer'; did you mean layers?"),
    (put("train", "every", "layers", value="2"), "train.pep8.layers: Input should be a valid integer, found '2'"),
    (put("train", "every", "layers", value=True), "train.pep8.layers: Input should be a valid integer, found True"),
    (put("train", "every", "heads", value=5), "width (32) must be a multiple of heads (5)"),
    (put("train", "every", "optimizer", value="sgd"), "train.pep8.optimizer: Input should be 'adamw' or 'muon'"),
    (put("train", "pii", value=[]), "train.pii must be a mapping"),
    (put("corpus", "pep8", "kind", value="locl"), "corpus.pep8: unknown kind 'locl'; did you mean local?"),
    (put("corpus", "pep8", "train_characters", value=0), "train_characters must be at least 1, found 0"),
    (put("scorer", "pep8", "kind", value="pep9"), "scorer.pep8: unknown kind 'pep9'; did you mean pep8?"),
    (put("scorer", "pii", "detectors", value=["names"]), "detectors must be some of"),
    (put("tokenizer", "every", value={}), "tokenizer.pep8: give either vocabulary (train one) or name (use one)"),
    (put("tokenizer", "every", "vocabulary", value=100), "vocabulary must be at least 259, found 100"),
    (put("shards", "every", "awr", "betta", value=1), "shards.pep8.awr: unknown key 'betta'; did you mean beta?"),
    (put("shards", "every", "conditionl", value={}), "unknown key 'conditionl'"),
    (put("shards", "every", "rwr", "beta", value=0), "beta and most must be above 0"),
    (put("shards", "pep8", "good", value={}), "good needs either score or quantile"),
    (put("evaluate", "every", "top_p", value=0), "top_p above 0 and at most 1"),
    (put("score", "every", "max_error_share", value=2), "max_error_share must be from 0 to 1, found 2"),
]


@pytest.mark.parametrize(("change", "message"), SCALE_CASES)
def test_wrong_words_in_the_scale_file(project, change, message):
    with pytest.raises(InputError, match=re.escape(message)):
        project(scale=change)


def test_missing_section(project):
    with pytest.raises(InputError, match="the section evaluate is missing"):
        project(scale=lambda raw: raw.pop("evaluate"))


def test_no_params_file(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="params.yaml is missing: run this from the root of the repository"):
        load(monkeypatch, tmp_path)


def test_unknown_task_and_objective_on_the_command_line(workplace, door):
    with pytest.raises(InputError, match="unknown task 'pepe8'; did you mean pep8?"):
        door("corpus", task="pepe8", output="out", report="r.json")
    with pytest.raises(InputError, match="unknown objective 'awrr'; did you mean awr?"):
        door("shards", task="pep8", objective="awrr", tokens="x", output="out")


def test_a_tasks_own_numbers_win(project):
    def change(raw):
        raw["train"]["pii"] = {"layers": 3}
        raw["shards"]["pii"]["awr"] = {"beta": 0.1, "learning_rate": 0.002}

    loaded = project(scale=change)
    from freshstart import objectives
    from freshstart.training import TrainSettings

    assert loaded.model(TrainSettings, "train", "pii").layers == 3
    assert loaded.model(TrainSettings, "train", "pep8").layers == 1
    pii = objectives.settings(loaded.sections["shards"], "pii", "awr", "shards")
    pep8 = objectives.settings(loaded.sections["shards"], "pep8", "awr", "shards")
    assert (pii.beta, pii.alpha, pii.learning_rate) == (0.1, 0.5, 0.002)
    assert (pep8.beta, pep8.learning_rate) == (1.0, None)


def test_numbers_are_read_as_dvc_reads_them(tmp_path, monkeypatch):
    from dvc.utils.serialize import load_yaml

    path = tmp_path / "numbers.yaml"
    path.write_text("a: 1e-3\nb: 5_000\nc: 0o17\nd: yes\n")
    assert params._read(path) == load_yaml(str(path))
