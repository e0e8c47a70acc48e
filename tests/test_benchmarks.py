"""Benchmarks: what each finds, against a plain way to find it, and the door that runs them."""

import copy
import json
import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from conftest import ROOT
from test_evaluation import CPU, context_of, subjects, trained  # noqa: F401

from freshstart import benchmarks, files, imports
from freshstart.benchmarks import best_of_n, durability, memorisation, red_team
from freshstart.errors import InputError
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


def test_what_finetuning_leaves(trained, made, tmp_path):  # noqa: F811
    """Finetuned on the worst documents a model is worse on them no longer: its loss there falls; the model stays."""
    context = context_of(made, tmp_path)
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


def test_a_sentence_seen_often_is_found_as_memorised(subjects, made, tmp_path):  # noqa: F811
    """A model that was trained on one sentence fifty times completes it, and neither another nor the corpus."""
    context = context_of(made, tmp_path)
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


def red_team_settings(tmp_path, **more):
    (tmp_path / "first.txt").write_text("import os\nx = 1\ndef f(a):\nclass A:\n")
    asked = {"kind": "red_team", "prompts": str(tmp_path / "first.txt"), "first": 4, "separator": "\n", "exemplars": 2}
    sizes = {"rounds": 2, "trials": 2, "attempts": 3, "prompt_tokens": 6, "continuations": 4, "tokens": 8}
    return build(red_team.Settings, asked | sizes | more, "here")


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
    ask, asked = red_team._scored, []

    def stopped(*args):
        asked.append(args)
        if len(asked) == 5:
            raise KeyboardInterrupt
        return ask(*args)

    monkeypatch.setattr(red_team, "_scored", stopped)
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


def test_an_attacker_behind_an_endpoint(subjects, trained, made, tmp_path):  # noqa: F811
    from completions_server import served

    context = context_of(made, tmp_path)
    with served(trained / "mle") as address:
        settings = red_team_settings(tmp_path, attacker=address)
        assert red_team.run(subjects[0], settings, context, tmp_path / "state")[1].num_rows > 8
    with pytest.raises(InputError, match="is it an OpenAI-compatible server"):
        red_team.run(subjects[0], settings, context, tmp_path / "other")
