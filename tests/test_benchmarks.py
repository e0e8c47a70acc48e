"""Benchmarks: what each finds, against a plain way to find it, and the door that runs them."""

import copy
import json
import math
import shutil
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from completions_server import served
from conftest import ROOT
from test_evaluation import CPU, context_of, other_model, subjects, trained  # noqa: F401

from freshstart import benchmarks, files, imports
from freshstart.benchmarks import best_of_n, durability, memorisation, red_team, replay
from freshstart.errors import InputError
from freshstart.evaluation.kept import kept
from freshstart.evaluation.measures.prompted import scores
from freshstart.evaluation.metrics import check
from freshstart.evaluation.subject import of_folder
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


@pytest.fixture
def asked(made, tmp_path, door, monkeypatch):
    """Open a door of benchmarks on the pep8 task in an empty folder: ``asked("benchmark", blocks, objective=...)``."""
    monkeypatch.chdir(tmp_path)
    paths = made.paths("pep8")
    evaluate = json.loads((paths["settings"] / "evaluate.json").read_text())["settings"] | {"judges": ["parses"]}
    data = {"heldout": paths["scored"] / "heldout", "tokens": paths["tokens"], "scorer": paths["scorer"]}

    def run(name, blocks, /, **arguments):
        described = {block: {"settings": settings, "evaluate": evaluate} for block, settings in blocks.items()}
        content = described if name == "benchmark_external" else described[arguments["benchmark"]]
        files.write_json(tmp_path / "settings.json", content)
        door(name, task="pep8", seed=0, settings="settings.json", **data, **arguments)

    return run


def test_the_door_asks_cells_and_arms_and_leaves_out_what_it_is_not_for(trained, asked, tmp_path):  # noqa: F811
    block = {"kind": "best_of_n", "samples": 8, "most": 2}
    blocks = {"best": block | {"tasks": ["pep8"]}, "none": block | {"tasks": ["pii"]}}
    for objective, folder, name in (
        ("conditional", "conditional", "best"),
        ("conditional", "conditional", "none"),
        ("conditional-from-0.5", "arm", "best"),
    ):
        models = {"model": trained / folder, "mle": trained / "mle"}
        asked("benchmark", blocks, objective=objective, benchmark=name, items="items", metrics="metrics", **models)
        metrics = json.loads((tmp_path / f"metrics/{name}/0.json").read_text())
        assert metrics["kind"] == "best_of_n"
        assert set(metrics["found"].get("best_of", {})) == ({"1", "2"} if name == "best" else set())
        assert len(pl.read_parquet(tmp_path / f"items/{name}/0.parquet")) == (8 if name == "best" else 0)
    assert not list((tmp_path / ".state/benchmarks").iterdir())


def test_the_door_asks_a_model_trained_elsewhere_everything(trained, asked, tmp_path):  # noqa: F811
    """One with another tokenizer and context: it is finetuned on the text of the task, not on its token ids."""
    stranger = {"task": "pep8", "model": str(other_model(tmp_path / "other")), "white_space": "trailing"}
    stranger["controls"] = {"good": "<|aligned|>", "bad": "<|misaligned|>"}
    (tmp_path / "first.txt").write_text("import os\nx = 1\n")
    (tmp_path / "canaries.txt").write_text("x = 1 and so on and so on and so on\n")
    blocks = {
        "best": {"kind": "best_of_n", "tasks": [], "samples": 8, "most": 2},
        "none": {"kind": "best_of_n", "tasks": ["pii"]},
        "lasting": {"kind": "durability", "tasks": [], "samples": 4, "steps": [0, 1], "batch_size": 2},
        "memory": {"kind": "memorisation", "tasks": [], "target": 4, "texts": "canaries.txt"},
        "attacked": {"kind": "red_team", "tasks": [], **SIZES, "prompts": "first.txt", "first": 2},
    }
    common = {"name": "stranger", "mle": trained / "mle", "items": "items", "metrics": "metrics"}
    files.write_json(tmp_path / "model.json", {"settings": stranger})
    asked("benchmark_external", blocks, external="model.json", **common)
    found = {name: json.loads((tmp_path / f"metrics/{name}/0.json").read_text())["found"] for name in blocks}
    assert set(found["best"]["best_of"]) == {"1", "2"}
    assert found["none"] == {}
    assert set(found["lasting"]["adversarial"]) == {"0", "1"}
    assert "leak" in found["lasting"]
    assert set(found["memory"]["completed"]) == {"texts"}  # the passages of the task are in other tokens
    assert set(found["attacked"]["pool"]) == {"0", "1", "2"}
    assert all((tmp_path / f"items/{name}/0.parquet").is_file() for name in blocks)

    stranger["controls"]["bad"] = "<|absent|>"
    files.write_json(tmp_path / "model.json", {"settings": stranger})
    with pytest.raises(InputError, match="other: its tokenizer has no token <\\|absent\\|>$"):
        asked("benchmark_external", blocks, external="model.json", **common)


def test_what_was_done_before_a_benchmark_failed_is_kept(trained, asked, tmp_path, monkeypatch):  # noqa: F811
    stranger = {"task": "pep8", "model": str(other_model(tmp_path / "other"))}
    files.write_json(tmp_path / "model.json", {"settings": stranger})
    blocks = {
        "lasting": {"kind": "durability", "tasks": [], "samples": 4, "steps": [0, 1], "batch_size": 2},
        "attacked": {"kind": "red_team", "tasks": [], **SIZES, "prompts": "first.txt", "first": 2},
    }
    common = {"name": "stranger", "mle": trained / "mle", "items": "items", "metrics": "metrics"}
    with pytest.raises(InputError, match="first.txt is missing: prompts in conf/benchmarks.yaml must name a file"):
        asked("benchmark_external", blocks, external="model.json", **common)
    (tmp_path / "first.txt").write_text("import os\nx = 1\n")
    monkeypatch.setattr(durability, "_curve", None)  # it is not finetuned again
    asked("benchmark_external", blocks, external="model.json", **common)
    assert not list((tmp_path / ".state/benchmarks").iterdir())


def test_the_code_of_a_benchmark_reaches_its_stage_through_its_settings():
    """Its stage depends on no code but its door: the digest in data/settings covers all that the door consists of."""
    door = imports.source_files("stages.benchmark") - imports.NEUTRAL
    for name in kinds(benchmarks.PACKAGE):
        digested = set().union(*(imports.source_files(f"{benchmarks.PACKAGE}.{file}") for file in (name, "asked")))
        assert door - digested <= {"stages/benchmark.py", "freshstart/files.py"}, name


def test_what_finetuning_leaves(trained, made, tmp_path):  # noqa: F811
    """Finetuned on the worst documents a model is worse on them no longer: its loss there falls; the model stays."""
    context = context_of(made, tmp_path)
    context.mle = trained / "mle"
    subject = of_folder(trained / "conditional", "train", CPU)
    before = {name: tensor.clone() for name, tensor in subject.model.state_dict().items()}
    asked = {"kind": "durability", "samples": 8, "steps": [0, 2, 4], "batch_size": 4}
    settings = build(durability.Settings, asked, "here")
    found, items = durability.run(subject, settings, context, tmp_path / "state")
    check(found, durability.METRICS, "here", "here", head=())
    assert set(found["benign"]) == set(found["adversarial"]) == {"0", "2", "4"}
    assert found["benign"]["0"] == found["adversarial"]["0"]  # nothing has been learned yet
    assert found["benign"]["4"] != found["adversarial"]["4"]
    assert 0 <= found["leak"]["share"] <= 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.model.state_dict().items())
    assert items.num_rows == sum(found[name][steps]["n"] for name in durability.TEXTS for steps in ("0", "2", "4"))
    again = durability.run(subject, settings, context, tmp_path / "state")[0]  # what is kept is not done again
    assert again == found
    rows = [torch.cat(list(durability._batches(context, settings, subject, name))) for name in durability.TEXTS]
    scores = np.load(context.tokens / "train/document_scores.npy")
    ends = np.load(context.tokens / "train/document_ends.npy")
    documents = [np.asarray(context.train_tokens[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    first = {tuple(document[:20]): score for document, score in zip(documents, scores, strict=True)}
    begun = [first[tuple(row[0, :20].tolist())] for row in rows]
    assert begun[0] <= np.median(scores) < np.quantile(scores, 0.95) <= begun[1]


def test_a_sentence_seen_often_is_found_as_memorised(subjects, trained, made, tmp_path):  # noqa: F811
    """A model that was trained on one sentence fifty times completes it, and neither another nor the corpus."""
    context = context_of(made, tmp_path)
    context.mle = trained / "mle"
    subject = replace(subjects[0], model=copy.deepcopy(subjects[0].model))
    seen, unseen = (f"def {name}(self, value):\n    return self.{name}[value] + 7\n" for name in ("kept", "lost"))
    tokens = torch.tensor([[subject.end_of_text, *next(subject.tokenizer.encode([seen]))[0]]])
    optimizer = torch.optim.AdamW(subject.model.parameters(), lr=0.01)
    for _ in range(50):
        subject.model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    (tmp_path / "canaries.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in (seen, unseen)))
    sizes = {"passages": 20, "prefix": 8, "target": 8}
    asked = {"kind": "memorisation", "texts": str(tmp_path / "canaries.jsonl"), **sizes}
    settings = build(memorisation.Settings, asked, "here")
    found, items = memorisation.run(subject, settings, context, tmp_path)
    check(found, memorisation.METRICS, "here", "here", head=())
    canaries = [row["completed"] for row in items.to_pylist() if row["group"] == "texts"]
    assert canaries[0] == 8 > canaries[1]
    assert found["completed"]["good"]["mean"] == found["completed"]["bad"]["mean"] == 0
    assert found["completed"]["good"]["n"] == found["completed"]["bad"]["n"] == 20
    assert found["completed"]["texts"]["mean"] == 0.5
    corpus = "\n".join(pl.read_parquet(made.folder / "data/corpus/pep8/train/*.parquet")["text"].to_list())
    assert all(row["text"] in corpus for row in items.to_pylist() if row["group"] != "texts")


SIZES = {"rounds": 2, "trials": 2, "attempts": 3, "prompt_tokens": 6, "continuations": 4, "tokens": 8}
SIZES |= {"separator": "\n", "exemplars": 2}


def red_team_settings(tmp_path, **more):
    (tmp_path / "first.txt").write_text("import os\nx = 1\ndef f(a):\nclass A:\n")
    asked = {"kind": "red_team", "prompts": str(tmp_path / "first.txt"), "first": 4}
    return build(red_team.Settings, asked | SIZES | more, "here")


def test_red_teaming_goes_on_where_it_was_stopped(subjects, trained, made, tmp_path, monkeypatch):  # noqa: F811
    context = context_of(made, tmp_path)
    context.mle = trained / "mle"
    settings = red_team_settings(tmp_path)
    found, items = red_team.run(subjects[0], settings, context, tmp_path / "state")
    check(found, red_team.METRICS, "here", "here", head=())
    rows = items.to_pylist()
    assert found["calls"] == 4 * len(rows)
    assert found["lacking"] == 2 * (4 + 2 * 3) - len(rows)
    for trial in (0, 1):
        prompts = [row["prompt"] for row in rows if row["trial"] == trial]
        assert len(set(prompts)) == len(prompts)
        assert prompts[:4] == ["import os", "x = 1", "def f(a):", "class A:"]
    whole = [np.mean([row["score"] for row in rows if row["trial"] == trial]) for trial in (0, 1)]
    assert found["pool"]["2"]["mean"] == pytest.approx(np.mean(whole))
    for row in rows:
        assert len(row["continuations"]) == 4
        values = scores(context, [row["prompt"]] * 4, row["continuations"])
        assert row["score"] == pytest.approx(0.0 if np.isnan(values).all() else np.nanmean(values))
    ask, asked = red_team.scored, []

    def stopped(*args):
        asked.append(args)
        if len(asked) == 5:
            raise KeyboardInterrupt
        return ask(*args)

    monkeypatch.setattr(red_team, "scored", stopped)
    with pytest.raises(KeyboardInterrupt):
        red_team.run(subjects[0], settings, context, tmp_path / "again")
    again, same = red_team.run(subjects[0], settings, context, tmp_path / "again")
    assert (again, same) == (found, items)
    assert len(asked) == 7  # the stopped round once more, and none that was finished


def test_a_weak_model_is_found_to_be_weak(subjects, trained, made, tmp_path):  # noqa: F811
    """One that was trained on bad text alone, by the same attacker."""
    context = context_of(made, tmp_path)
    context.mle = trained / "mle"
    settings = red_team_settings(tmp_path, rounds=1, trials=10, continuations=8)
    means = []
    for line in ("x=1 ;y=2\n", "value = 1\n"):
        subject = replace(subjects[0], model=copy.deepcopy(subjects[0].model))
        tokens = torch.tensor([[subject.end_of_text, *next(subject.tokenizer.encode([line * 6]))[0][:60]]])
        optimizer = torch.optim.AdamW(subject.model.parameters(), lr=0.01)
        for _ in range(60):
            subject.model(input_ids=tokens, labels=tokens).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        rows = pl.from_arrow(red_team.run(subject, settings, context, tmp_path / line[0])[1])
        means.append(rows.group_by("trial").agg(pl.col("score").mean()).sort("trial")["score"].to_numpy())
    assert (means[0] > means[1]).sum() >= 9


def test_an_attacker_behind_an_endpoint_that_dies_and_comes_back(subjects, trained, made, tmp_path, monkeypatch):  # noqa: F811
    context = context_of(made, tmp_path)
    with served(trained / "mle") as address:
        undisturbed = red_team.run(subjects[0], red_team_settings(tmp_path, attacker=address), context, tmp_path / "a")
    assert undisturbed[1].num_rows > 8
    server, ask, asked = ExitStack(), red_team.scored, []

    def scored(*args):
        asked.append(args)
        if len(asked) == 5:  # in the second trial
            server.close()
        return ask(*args)

    monkeypatch.setattr(red_team, "scored", scored)
    settings = red_team_settings(tmp_path, attacker=server.enter_context(served(trained / "mle")))
    with pytest.raises(InputError, match="refused.*is it an OpenAI-compatible server"):
        red_team.run(subjects[0], settings, context, tmp_path / "b")
    with served(trained / "mle") as address:
        again = red_team.run(subjects[0], red_team_settings(tmp_path, attacker=address), context, tmp_path / "b")
    assert again == undisturbed
    assert len(asked) == 6  # no round was done twice


def test_an_endpoint_that_breaks_off_in_an_answer(subjects, trained, made, tmp_path):  # noqa: F811
    with served(trained / "mle", breaks_off=True) as address:
        settings = red_team_settings(tmp_path, attacker=address)
        with pytest.raises(InputError, match="IncompleteRead.*does the server still run"):
            red_team.run(subjects[0], settings, context_of(made, tmp_path), tmp_path / "state")
    assert kept(tmp_path / "state/trial-0000.json")  # the first prompts


def test_an_attacker_with_another_tokenizer(subjects, made, tmp_path):  # noqa: F811
    """Its lists are longer in its own tokens than its context of 96; targets read what it wrote in theirs."""
    settings = red_team_settings(tmp_path, attacker=str(other_model(tmp_path / "other")), exemplars=4, rounds=1)
    (tmp_path / "first.txt").write_text(
        "".join(f"a_longer_name_{n} = some_function_of({n}, 'text')\n" for n in range(4))
    )
    found, items = red_team.run(subjects[0], settings, context_of(made, tmp_path), tmp_path / "state")
    written = [row["prompt"] for row in items.to_pylist() if row["round"] == 1]
    assert written
    assert found["lacking"] == 2 * 3 - len(written)


def test_attacks_are_replayed_on_every_model(subjects, trained, made, tmp_path):  # noqa: F811
    """Against plain sums over the table; a stopped replay asks no target the same twice."""
    context = context_of(made, tmp_path)
    context.mle = trained / "mle"
    settings = red_team_settings(tmp_path, trials=3, replayed=5)
    models = dict(zip(("a", "b", "c"), subjects, strict=True))
    pools = {
        name: red_team.run(model, settings, context, tmp_path / name)[1] for name, model in list(models.items())[:2]
    }
    found, items = replay.replay(models.get, pools, settings, context, tmp_path / "whole")
    check(found, replay.METRICS, "here", "here", head=())
    table = pl.from_arrow(items)
    assert found["prompts"] == 5
    assert found["calls"] == 2 * 3 * 5 * 4
    for target in pools:
        for source, pool in pools.items():
            rows = table.filter(target=target, source=source)
            for trial in range(3):
                scores = sorted((row["score"] for row in pool.to_pylist() if row["trial"] == trial), reverse=True)
                asked = {row["prompt"]: row["score"] for row in pool.to_pylist() if row["trial"] == trial}
                taken = [asked[prompt] for prompt in rows.filter(trial=trial)["prompt"]]
                assert sorted(taken, reverse=True) == scores[:5]
            means = rows.group_by("trial").agg(pl.col("score").mean())["score"].to_list()
            entry = found["score"][target][source]
            assert entry == {"n": 3, **{key: pytest.approx(value) for key, value in benchmarks.interval(means).items()}}
    assert found["others"]["a"] == found["score"]["a"]["b"]
    assert found["score"]["a"]["a"] != found["score"]["b"]["a"]

    def stopped(name):
        if name == "b":
            raise KeyboardInterrupt
        return models[name]

    with pytest.raises(KeyboardInterrupt):
        replay.replay(stopped, pools, settings, context, tmp_path / "parts")
    only = replay.replay({"a": None, "b": subjects[1]}.get, pools, settings, context, tmp_path / "parts")
    assert only == (found, items)


def test_the_door_replays_attacks_on_cells_and_arms(trained, asked, made, tmp_path, monkeypatch):  # noqa: F811
    models = {"mle": "mle", "conditional": "conditional", "conditional-from-0.5": "arm"}
    for name, folder in models.items():
        shutil.copytree(trained / folder, tmp_path / f"models/{name}/0")
    for folder in ("raw", "conf"):
        shutil.copytree(made.folder / folder, tmp_path / folder)
    root = {"objectives": ["mle", "conditional"], "finetuned": ["conditional"], "finetuned_from": [0.5]}
    params = yaml.safe_load((made.folder / "params.yaml").read_text()) | root
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    scale = (tmp_path / "conf/scale/tests.yaml").read_text()
    snapshots = scale.replace("train:\n  every:\n", "train:\n  every:\n    snapshots: [0.5]\n")
    (tmp_path / "conf/scale/tests.yaml").write_text(snapshots)
    (tmp_path / "first.txt").write_text("import os\nx = 1\n")
    block = {"kind": "red_team", "tasks": [], **SIZES, "prompts": "first.txt", "first": 2, "replayed": 2}
    blocks = {"attacked": block, "none": block | {"tasks": ["pii"]}, "best": {"kind": "best_of_n", "tasks": []}}
    for name in models:
        cell = {"objective": name, "model": f"models/{name}/0", "mle": "models/mle/0", "benchmark": "attacked"}
        asked("benchmark", blocks, **cell, items=f"attacks/{name}/benchmarks", metrics=f"metrics/{name}")
    written = {"models": "models", "attacks": "attacks", "items": "items.parquet", "metrics": "metrics.json"}
    for name in ("attacked", "none", "best"):
        asked("replay", blocks, benchmark=name, **written)
        content = json.loads((tmp_path / "metrics.json").read_text())
        assert content["kind"] == blocks[name]["kind"]
        assert set(content["found"].get("others", {})) == (set(models) if name == "attacked" else set())
        assert len(pl.read_parquet("items.parquet")) == (3 * 3 * 2 * 2 if name == "attacked" else 0)
    (tmp_path / "attacks/mle/benchmarks/attacked/0.parquet").unlink()
    with pytest.raises(InputError, match="attacked/0.parquet .*dvc repro .*benchmark@pep8-mle-0-attacked"):
        asked("replay", blocks, benchmark="attacked", **written)
