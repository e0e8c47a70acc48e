"""`python -m freshstart sweep`: trials that are trainings like any other, apart from what is reported; the choice."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from freshstart import params
from freshstart.errors import InputError
from freshstart.evaluation import EvaluateSettings
from freshstart.evaluation.context import Context
from freshstart.sweeping import sweep
from freshstart.sweeping.choice import choice
from freshstart.sweeping.trials import data, lists, read, unreported

SWEEP = {
    "seed": 1000,
    "effective_sample_share": [0.5, 0.98],
    "trials": {
        "mle": [{"train": {"muon_learning_rate": 0.02}}, {"train": {"muon_learning_rate": 0.04}}],
        "awr": [{"shards": {"beta": 1.0}}, {"shards": {"beta": 100.0}}],
        "conditional-threshold": [{"shards": {"good": {"score": 0.0}}}, {"shards": {"good": {"quantile": 0.9}}}],
    },
}


@pytest.fixture
def place(made, workplace, monkeypatch):
    """A workplace with the data of the tests' scale, and a way to write conf/sweep.yaml."""
    (workplace / "data").symlink_to(made.folder / "data")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def write(**changes):
        params.load.cache_clear()
        Path("conf/sweep.yaml").write_text(yaml.safe_dump(SWEEP | changes, sort_keys=False))
        return workplace

    write()
    return write


def files_below(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_trials_are_trainings_like_any_other(place, door, capsys):
    folder = place()
    before = files_below(folder)
    sweep("pep8", ["awr", "conditional"])
    printed = capsys.readouterr().out
    own = {path for path in files_below(folder) if ".state" not in path.parts} - before.keys()
    assert own == {folder / "reports/sweep/pep8.csv", folder / "reports/sweep/pep8.html"}
    with open("reports/sweep/pep8.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["objective"], row["changes"]) for row in rows] == [
        *(("awr", "beta 1.0"), ("awr", "beta 100.0")),
        *(("conditional-threshold", "good.score 0.0"), ("conditional-threshold", "good.quantile 0.9")),
    ]
    assert [row["default"] for row in rows] == ["default", "", "default", ""]
    assert float(rows[0]["effective_sample_share"]) < 0.98 < float(rows[1]["effective_sample_share"])
    assert [row["chosen"] for row in rows] == ["chosen", "", "", ""]  # the weights of awr's second do nothing
    assert all(re.search(rf"{row['changes']} .*{row['bits_good']}", printed) for row in rows)
    page = Path("reports/sweep/pep8.html").read_text()
    assert page.count("<svg") == 4
    assert "mle</h2>" not in page  # its trials have not been run

    everything = params.load()
    tried = lists(read(everything), everything, "pep8")
    door("settings", task="pep8", inputs="inputs", output="settings")
    inputs = {name: f"data/{name}/pep8" for name in ("tokens", "tokenizer")} | {"shards": "data/shards/pep8/awr"}
    outputs = {"settings": "settings/awr/train.json", "output": "model", "curve": "curve.csv"}
    door("train", task="pep8", objective="awr", seed=1000, **inputs, **outputs)
    assert tried["awr"][0].curve_file.read_bytes() == Path("curve.csv").read_bytes()
    assert not (tried["awr"][0].folder / "model").exists()

    finished = files_below(folder / ".state/sweep")
    sweep("pep8", ["awr"])
    assert files_below(folder / ".state/sweep") == finished
    place(trials={**SWEEP["trials"], "awr": [{"shards": {"beta": 2.0}}, {"shards": {"beta": 100.0}}]})
    everything = params.load()
    again = lists(read(everything), everything, "pep8")
    assert [trial.metrics_file.exists() for trial in again["awr"]] == [False, True]
    assert not again["mle"][0].metrics_file.exists()


def test_good_text_is_the_same_for_every_threshold(place):
    """Good is what the task calls good, else the bits of another threshold would be those of other text."""
    same = [{"shards": {"good": {"score": 0.0}}}, {"shards": {"good": {"score": 0.01}}}]
    place(trials={"mle": same})
    sweep("pep8", [])
    everything = params.load()
    metrics = [json.loads(t.metrics_file.read_text()) for t in lists(read(everything), everything, "pep8")["mle"]]
    assert metrics[0]["heldout"] == metrics[1]["heldout"]  # mle does not train with the threshold


def test_nothing_reported_is_tuned_on(place):
    place()
    everything = params.load()
    asked = everything.model(EvaluateSettings, "evaluate", "pep8")
    tokens, scored, scorer = (data(kind, "pep8") for kind in ("tokens", "scored", "scorer"))
    context = Context("pep8", 0, asked, None, scorer, scored / "heldout", tokens, Path("model"), Path("reference"))
    rest = unreported(context)
    every = replace(context, settings=replace(asked, heldout_tokens=10**9)).documents
    assert [*context.documents, *rest] == every
    assert rest
    with pytest.raises(
        InputError, match=r"takes all \d+ held-out documents, and none is left to tune on: raise corpus"
    ):
        unreported(replace(context, settings=replace(asked, heldout_tokens=10**9)))


WRONG = [
    ({"seed": 0}, "seed 0 is one of seeds in params.yaml, whose models are reported"),
    ({"trials": {"mle": [{}], "awr": [{}, {}]}}, "equally many for each objective, found {'mle': 1, 'awr': 2}"),
    ({"trials": {"awr": [{"shards": {"betta": 1.0}}]}}, "sweep.yaml: shards.pep8.awr: unknown key 'betta'; did you"),
    (
        {"trials": {"awr": [{"evaluate": {}}]}},
        "sweep.yaml: trials.awr: unknown section 'evaluate'; known: shards, train",
    ),
    ({"trials": {"awrr": [{}]}}, "sweep.yaml: trials: unknown objective 'awrr'; did you mean awr?"),
    ({"effective_sample_share": [0.9, 0.5]}, "effective_sample_share must be two shares"),
    ({"sed": 1}, "sweep.yaml: unknown key 'sed'; did you mean seed?"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_wrong_words(place, changes, message):
    place(**changes)
    with pytest.raises(InputError, match=re.escape(message)):
        sweep("pep8", [])


def test_missing_data(workplace):
    (workplace / "conf/sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    params.load.cache_clear()
    with pytest.raises(InputError, match="data/tokens/pep8 is missing: run `dvc repro tokens@pep8`"):
        sweep("pep8", [])


def test_the_trials_of_every_scale_are_ones(tmp_path, monkeypatch, made):
    """conf/sweep.yaml as it comes can be run, and each list holds the scale's own numbers as one of its trials."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(made.folder / "data")
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    for scale in ("quick", "study", "small"):
        (tmp_path / "params.yaml").write_text(
            (ROOT / "params.yaml").read_text().replace("scale: quick", f"scale: {scale}")
        )
        params.load.cache_clear()
        everything = params.load()
        for task in everything.root.tasks:
            tried = lists(read(everything), everything, task)
            defaults = {name: sum(trial.is_default for trial in every) for name, every in tried.items()}
            assert defaults == {name: 0 if name == "conditional-threshold" else 1 for name in tried}
    params.load.cache_clear()


SHARES = st.sampled_from([None, 0.1, 0.3, 0.5, 0.7, 0.98, 1.0])
BITS = st.sampled_from([2.0, 2.004, 2.008, 2.02, 2.5])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(BITS, SHARES, st.sampled_from(["shards", "train"])), min_size=1, max_size=6),
    st.sampled_from([(0.5, 0.98), (0.0, 1.0), (0.3, 0.7)]),
)
def test_the_choice_is_of_what_is_eligible_costs_least_and_does_most(trials, bounds):
    results = [
        SimpleNamespace(bits=bits, effective_sample_share=share, trial=SimpleNamespace(changes={section: {}}))
        for bits, share, section in trials
    ]
    low, high = bounds
    allowed = [
        (bits, 1.0 if share is None else share)
        for bits, share, section in trials
        if (share is None and section == "train") or (share is not None and low <= share <= high)
    ]
    best = choice(results, bounds)
    if best is None:
        assert not allowed
        return
    own = 1.0 if best.effective_sample_share is None else best.effective_sample_share
    assert (best.bits, own) in allowed
    for bits, share in allowed:  # none is cheaper by more than a tie, none within the tie does more
        assert bits > best.bits - 0.01
        within = bits <= min(other for other, _ in allowed) + 0.01
        assert not within or share > own or (share == own and bits >= best.bits)
