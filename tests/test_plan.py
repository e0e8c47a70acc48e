"""What a scale will take is known before anything runs, and what can not fit is refused with the setting to change."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import ROOT
from dvc.utils.serialize import modify_yaml
from test_params import load
from test_training import SETTINGS, run

from freshstart import outside, plan
from freshstart.errors import InputError
from freshstart.training.launch import Group
from freshstart.training.learner import Learner
from freshstart.training.memory import step_memory

TRAINED = """
import json, sys
from dataclasses import replace
from pathlib import Path
from test_training import SETTINGS, run, stream
from freshstart.training.loop import train

settings = replace(SETTINGS, **json.loads(sys.argv[1]))
positions = 4 * settings.batch_size * settings.context
train(run(Path(sys.argv[2]), "awr", settings, positions, stream(100_000)), {})
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def scaled(scale, folder, monkeypatch):
    (folder / "conf").symlink_to(ROOT / "conf")
    (folder / "params.yaml").write_text(
        re.sub(r"(?m)^scale: \w+", f"scale: {scale}", (ROOT / "params.yaml").read_text())
    )
    monkeypatch.setenv("FRESHSTART_STATE", str(folder / ".state"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    return load(monkeypatch, folder)


@pytest.mark.parametrize("scale", ["quick", "small", "paper"])
def test_all_that_comes_from_outside_is_named_with_size_and_licence(scale, tmp_path, monkeypatch):
    needed = outside.things(scaled(scale, tmp_path, monkeypatch))
    assert not any(thing.at_hand for thing in needed if thing.fetched and "weights" not in thing.what)
    assert all(thing.size and thing.licence != "see its page" for thing in needed if thing.fetched)
    by_hand = {thing.what for thing in needed if not thing.fetched}
    papers = {"raw/codeparrot/*.parquet", "raw/pile/*.jsonl.zst", "raw/davidson/labeled_data.csv"}
    papers |= {"the model raw/models/codeparrot", "the spaCy pipeline en_core_web_sm"}
    assert by_hand == (papers if scale == "paper" else set())


def test_a_plan_of_the_tests_scale(workplace, monkeypatch, capsys):
    """Its sums are those of its rows; a raw file that is taken away, or a machine that is too small, is refused."""
    monkeypatch.setattr(plan, "SECONDS", 0.05)
    with modify_yaml("params.yaml") as raw:
        raw["finetuned"] = ["filtered", "awr"]
    with modify_yaml("conf/scale/tests.yaml") as raw:
        raw["train"]["every"]["snapshots"] = [0.5]
        raw["finetune"]["every"] = {"batch_size": 8}
    everything = load(monkeypatch, workplace)
    machine = plan.Machine(processors=2, memory=64.0, disk=64.0, gpus=0, gpu_memory=0.0)
    with plan.measuring() as folder:
        planner = plan.Planner(everything, folder, machine)
        rows = planner.rows()
    stages = {row.stage: row for row in rows}
    assert stages["train"].runs == stages["evaluate"].runs == 18 + 6
    assert stages["train"].work["positions"] == 18 * 4096 + 6 * 2048
    assert stages["evaluate"].work["samples"] == 18 * 24 + 3 * 24 + 18 * 24 + 6 * 24  # conditional twice; snapshots
    left = "filtered-from-0.5: of the 0 tokens that mle leaves, 2,048 positions are more than 1.5 times: raise"
    assert all(map(str.startswith, planner.refused, [f"{name}/{left}" for name in everything.root.tasks]))
    assert len(planner.refused) == 3  # shuffle_parts is 1
    assert planner.notes == {"not reckoned: heldout, warnings, compare"}
    assert stages["corpus"].work["characters"] == 620_000
    assert all(row.seconds > 0 for row in rows if row.stage != "scorer")
    assert plan.table(rows).count("\n") == len(rows) + 1
    assert plan.too_large(rows, machine) == []
    refused = " ".join(plan.too_large(rows, replace(machine, memory=0.1)))
    assert re.search(
        r"train needs [\d.]+ GiB of memory, there are 0.1: set FRESHSTART_MICRO_BATCH to \d+, now 8 rows", refused
    )
    assert "lower corpus.<task>.train_characters" in plan.too_large(rows, replace(machine, disk=0.0))[-1]
    (workplace / "raw/prose.jsonl").unlink()
    monkeypatch.setattr(plan.Planner, "rows", lambda self: rows)
    with pytest.raises(InputError, match=r"can not run here:(?s:.*) corpus.pii.path: raw/prose.jsonl: no file"):
        plan.plan()
    assert "24 models of pep8, pii, toxicity" in capsys.readouterr().out


def test_a_plan_of_paper(tmp_path, monkeypatch, capsys):
    """Its rows, and what it refuses, with no network; a narrow model of a layer is measured in place of GPT-2 small."""
    whole = plan.measured

    def narrow(name, asked, settings, vocabulary, *rest):
        shape = replace(settings, layers=1, width=64, heads=1, context=32, batch_size=2, precision="fp32")
        return replace(whole(name, asked, shape, 512, *rest), parameters=124_000_000, flop=8.6e8)

    def unreachable(*_, **__):
        raise OSError("no network")

    machine = plan.Machine(processors=64, memory=16.0, disk=20_000.0, gpus=0, gpu_memory=0.0)
    monkeypatch.setattr(plan, "SECONDS", 0.01)
    monkeypatch.setattr(plan, "measured", narrow)
    monkeypatch.setattr(plan, "_bf16", lambda: 1.0)
    monkeypatch.setattr(plan, "process_gib", lambda: 0.4)
    monkeypatch.setattr(plan.Planner, "start", dict.fromkeys(("dvc", "door", "torch"), 1.0))
    monkeypatch.setattr(plan.Machine, "here", lambda: machine)
    monkeypatch.setattr(outside, "urlopen", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    everything = scaled("paper", tmp_path, monkeypatch)
    root = replace(everything.root, finetuned=("conditional", "filtered", "rwr"), finetuned_from=(0.5, 0.9))
    monkeypatch.setattr(plan.params, "load", lambda scale: replace(everything, root=root))
    with pytest.raises(InputError) as refused:
        plan.plan("paper")
    printed = capsys.readouterr().out
    rows = {match[1]: (int(match[2]), match[3]) for match in re.finditer(r"(?m)^(\w+) +(\d+)  (.*?)  +\d", printed)}
    assert {name: runs for name, (runs, _) in rows.items()} == {
        **dict.fromkeys(("corpus", "scorer", "score", "tokenizer", "tokens", "reference"), 3),
        **{"shards": 18, "train": 36, "evaluate": 36, "DVC": 1, "fetched": 0, "all": 109},
    }
    assert rows["tokens"][1] == "9.8 billion tokens"
    assert rows["train"][1].startswith("77.2 billion positions")
    assert "not reckoned: heldout, warnings, compare\n" in printed
    lines = str(refused.value).split("\n- ")[1:]
    expected = [
        r"reference needs [\d.]+ GiB of memory, there are 16.0: lower evaluate.pii.batch_size, or a smaller",
        r"evaluate needs [\d.]+ GiB of memory, there are 16.0: evaluate.pep8.batch_size or logit_gib",
        r"pep8/conditional-from-0.9: of the 0 tokens that mle leaves, 330.0 million positions are more than 1.5 times",
        *(rf"pep8/filtered-from-{share}: of the {left}" for share, left in ((0.5, "550.0 million"), (0.9, "0 "))),
        *(
            rf"{task}/filtered-from-{share}: of the {left} million tokens that mle leaves, .* raise corpus.{task}.train"
            for task in ("pii", "toxicity")
            for share, left in ((0.5, "875.0"), (0.9, "175.0"))
        ),
        r"conf/scale/paper.yaml: corpus.pep8.path: raw/codeparrot/\*.parquet: no file found",
        r"conf/scale/paper.yaml: tokenizer.pep8.name: codeparrot/codeparrot-small is no folder here, and the hub does",
    ]
    assert [line for begin, line in zip(expected, lines, strict=False) if not re.match(begin, line)] == []
    weights, cache = 4 * 1_557_611_200, 512 * 65 * 2 * 4 * 48 * 1600  # of GPT-2 XL
    assert float(lines[0].split()[2]) == pytest.approx(0.4 + (weights + cache) / 2**30 + 2, abs=0.1)
    lacking = {line.split(": ")[1] for line in lines[9:]}
    assert {"evaluate.pep8.reference.model", "evaluate.pii.reference.model", "scorer.toxicity.variant"} <= lacking


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
@pytest.mark.parametrize(
    ("shape", "rows"),
    [
        ({"layers": 2, "width": 128, "heads": 4, "context": 128, "batch_size": 16}, 16),
        ({"layers": 4, "width": 256, "heads": 4, "context": 512, "batch_size": 8, "optimizer": "adamw"}, 8),
        ({"layers": 4, "width": 256, "heads": 4, "context": 512, "batch_size": 8, "optimizer": "adamw"}, 2),
    ],
)
def test_a_training_takes_the_memory_of_the_plan(tmp_path, shape, rows):
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "FRESHSTART_STATE": str(tmp_path / ".state")}
    env |= {"FRESHSTART_MICRO_BATCH": str(rows)}
    command = [sys.executable, "-c", TRAINED, json.dumps(shape), str(tmp_path)]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=True)
    settings, device = replace(SETTINGS, **shape), torch.device("cpu")
    chosen = run(tmp_path, "awr", settings, settings.batch_size * settings.context)
    learner = Learner(chosen.first_model().train(), chosen, Group(0, 1, device))
    planned = plan.training_gib(step_memory(learner, chosen.settings.context, device), rows, False)
    peak = int(done.stdout.split()[-1]) / 2**20
    print(f"{shape}, {rows} rows: planned {planned:.3f} GiB, peak {peak:.3f}")
    assert planned == pytest.approx(peak, rel=0.2)
