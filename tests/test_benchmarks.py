"""Benchmarks: what each finds, against a plain way to find it, and the door that runs them."""

import json
import math

import numpy as np
import polars as pl
import pytest
from conftest import ROOT
from test_evaluation import context_of, subjects, trained  # noqa: F401

from freshstart import benchmarks, files, imports
from freshstart.benchmarks import best_of_n
from freshstart.evaluation.metrics import check
from freshstart.settings import build, kinds


def test_every_described_benchmark_has_settings():
    from freshstart.params import read_file

    described = read_file(ROOT / benchmarks.FILE)
    for name, block in described.items():
        chosen = benchmarks.settings(block, name)
        assert chosen.kind in kinds(benchmarks.PACKAGE)


def test_the_best_of_n_by_hand(subjects, made, tmp_path):  # noqa: F811
    context = context_of(made, tmp_path, judges=("parses",))
    settings = build(best_of_n.Settings, {"kind": "best_of_n", "samples": 40, "most": 4}, "here")
    found, items = best_of_n.run(subjects[0], settings, context, tmp_path / "state")
    check(found, best_of_n.METRICS, "here", "here", head=())
    scores = np.array(items["score"])
    texts = items["text"].to_pylist()
    for n in (1, 2, 4):
        best = [begin + int(scores[begin : begin + n].argmin()) for begin in range(0, len(scores) - n + 1, n)]
        entry = found["best_of"][str(n)]
        assert entry["misalignment"]["n"] == len(best)
        parsed = context.judges["parses"].score([texts[place] for place in best])
        assert entry["judges"]["parses"]["mean"] == pytest.approx(np.mean(parsed))
        assert entry["divergence"] == pytest.approx(math.log(n) - (n - 1) / n)
    assert found["best_of"]["1"]["misalignment"]["mean"] >= found["best_of"]["4"]["misalignment"]["mean"]


@pytest.mark.parametrize("more", [{"most": 3}, {"samples": 16, "most": 16}])
def test_settings_that_are_refused(more):
    with pytest.raises(ValueError, match="most must be a power of two and samples at least twice as many"):
        best_of_n.Settings(kind="best_of_n", **more)


def test_the_door_runs_a_benchmark_and_leaves_out_what_it_is_not_for(trained, made, tmp_path, door, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    paths = made.paths("pep8")
    evaluate = json.loads((paths["settings"] / "evaluate.json").read_text())["settings"]
    for tasks, has_found in ((["pep8"], True), (["pii"], False)):
        asked = {"kind": "best_of_n", "tasks": tasks, "samples": 8, "most": 2}
        files.write_json(tmp_path / "settings.json", {"settings": asked, "evaluate": evaluate | {"judges": ["parses"]}})
        cell = {"task": "pep8", "objective": "conditional", "seed": 0, "name": "best", "settings": "settings.json"}
        data = {"heldout": paths["scored"] / "heldout", "tokens": paths["tokens"], "scorer": paths["scorer"]}
        models = {"model": trained / "conditional", "mle": trained / "mle"}
        door("benchmark", **cell, **data, **models, items="items.parquet", metrics="metrics.json")
        metrics = json.loads((tmp_path / "metrics.json").read_text())
        assert metrics["kind"] == "best_of_n"
        assert set(metrics["found"].get("best_of", {})) == ({"1", "2"} if has_found else set())
        assert len(pl.read_parquet(tmp_path / "items.parquet")) == (8 if has_found else 0)


def test_the_code_of_a_benchmark_reaches_its_stage_through_its_settings():
    """Its stage depends on no code but its door: the digest in data/settings covers all that the door consists of."""
    door = imports.source_files("stages.benchmark") - imports.NEUTRAL
    for name in kinds(benchmarks.PACKAGE):
        digested = imports.source_files(f"{benchmarks.PACKAGE}.{name}") | imports.source_files(
            "freshstart.evaluation.context"
        )
        assert door - digested <= {"stages/benchmark.py", "freshstart/files.py"}, name
