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
    everything = load(monkeypatch, workplace)
    machine = plan.Machine(processors=2, memory=64.0, disk=64.0, gpus=0, gpu_memory=0.0)
    with plan.measuring() as folder:
        rows = plan.Planner(everything, folder, machine).rows()
    stages = {row.stage: row for row in rows}
    assert stages["train"].runs == stages["evaluate"].runs == 18
    assert stages["train"].work["positions"] == 18 * 4096
    assert stages["corpus"].work["characters"] == 620_000
    assert all(row.seconds > 0 for row in rows if row.stage != "scorer")
    assert plan.table(rows).count("\n") == len(rows) + 1
    assert plan.too_large(rows, machine) == []
    refused = " ".join(plan.too_large(rows, replace(machine, memory=0.1)))
    assert re.search(
        r"train needs [\d.]+ GiB of memory, there are 0.1: set FRESHSTART_MICRO_BATCH to \d+, now 4 rows", refused
    )
    assert "lower corpus.<task>.train_characters" in plan.too_large(rows, replace(machine, disk=0.0))[-1]
    (workplace / "raw/prose.jsonl").unlink()
    monkeypatch.setattr(plan.Planner, "rows", lambda self: rows)
    with pytest.raises(InputError, match=r"can not run here; raw/prose.jsonl .*MISSING.*corpus.pii.path"):
        plan.plan()
    assert "18 models of pep8, pii, toxicity" in capsys.readouterr().out


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
    chosen, device = run(tmp_path, "awr", replace(SETTINGS, **shape)), torch.device("cpu")
    learner = Learner(chosen.first_model().train(), chosen, Group(0, 1, device))
    planned = plan.training_gib(step_memory(learner, chosen.settings.context, device), rows, False)
    peak = int(done.stdout.split()[-1]) / 2**20
    print(f"{shape}, {rows} rows: planned {planned:.3f} GiB, peak {peak:.3f}")
    assert planned == pytest.approx(peak, rel=0.2)
