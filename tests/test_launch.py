"""One process, several, and several pieces of a batch: the same weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
WORKER = str(ROOT / "tests/one_of_many.py")
BASE = {"batch_size": 8, "weight_decay": 0.1, "checkpoint_every": 10}


def command(folder: Path, objective: str, processes: int, steps=50, dtype="float64", name="x", **settings):
    asked = {
        "folder": str(folder),
        "objective": objective,
        "settings": BASE | settings,
        "steps": steps,
        "dtype": dtype,
        "name": name,
    }
    begin = TORCHRUN if processes == 2 else [sys.executable]
    return [*begin, WORKER, json.dumps(asked)]


def environment(folder: Path, micro: int | None = None) -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = os.environ | {"PYTHONPATH": paths, "FRESHSTART_STATE": str(folder / ".state"), "OMP_NUM_THREADS": "1"}
    return env | ({"FRESHSTART_MICRO_BATCH": str(micro)} if micro else {})


def trained(folder: Path, objective: str, processes: int, micro: int | None = None, **more) -> dict[str, torch.Tensor]:
    subprocess.run(command(folder, objective, processes, **more), env=environment(folder, micro), check=True)
    return {f"{p.name}/{k}": t for p in (folder / "model").glob("*.safetensors") for k, t in load_file(p).items()}


def distance(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    assert left.keys() == right.keys()
    return max(float((left[key] - right[key]).abs().max()) for key in left)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("objective", ["mle", "awr"])
def test_processes_and_pieces_give_the_same_weights(tmp_path, objective, optimizer):
    alone = trained(tmp_path / "alone", objective, 1, optimizer=optimizer)
    for name, processes, micro in (("pieces", 1, 2), ("processes", 2, None), ("both", 2, 2)):
        found = trained(tmp_path / name, objective, processes, micro, optimizer=optimizer)
        assert distance(alone, found) < 1e-10, name
