"""One process, several, and several pieces of a batch: the same weights."""

import json
import os
import signal
import subprocess
import sys
import time
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


@pytest.mark.slow
def test_first_gradients_in_fp32(tmp_path):
    """After one step of plain descent the weights differ by the gradients alone."""
    found = {}
    for name, processes, micro in (("alone", 1, None), ("pieces", 1, 2), ("processes", 2, None)):
        folder = tmp_path / name
        found[name] = trained(folder, "mle", processes, micro, steps=1, dtype="float32", optimizer="adamw", beta1=0.0)
        curve = (folder / "curve.csv").read_text().splitlines()
        row = dict(zip(curve[0].split(","), map(float, curve[1].split(",")), strict=True))
        found[name + "-norm"] = row["gradient_norm"]
    for name in ("pieces", "processes"):
        assert found[name + "-norm"] == pytest.approx(found["alone-norm"], rel=1e-5)


def group_of(session: int) -> list[int]:
    """The processes of a session: torchrun gives its workers sessions of their own, so children are followed too."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(fields[1])
    found = [session]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_and_resumed(tmp_path, processes):
    """kill -9 to all processes at a random moment, then the same command: the same weights."""
    whole = trained(tmp_path / "whole", "awr", processes, steps=400, optimizer="muon")
    line, env = command(tmp_path / "cut", "awr", processes, 400, optimizer="muon"), environment(tmp_path / "cut")
    (tmp_path / "cut").mkdir()
    running = subprocess.Popen(line, env=env, start_new_session=True)
    while not list((tmp_path / "cut/.state").glob("checkpoints/*/step-*/state.json")):
        assert running.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    for pid in group_of(running.pid):
        os.kill(pid, signal.SIGKILL)
    running.wait()
    assert distance(whole, trained(tmp_path / "cut", "awr", processes, steps=400, optimizer="muon")) == 0


def door(made, folder: Path, **env: str) -> dict[str, torch.Tensor]:
    """The stage train of a cell on the data of the tests, launched as the environment says."""
    data = made.paths("pep8")
    line = [
        *(sys.executable, "-m", "stages.train", "--task", "pep8", "--objective", "awr", "--seed", "0"),
        *("--tokens", str(data["tokens"]), "--shards", str(made.folder / "data/shards/pep8/awr")),
        *("--tokenizer", str(data["tokenizer"]), "--output", str(folder / "model")),
        *("--curve", str(folder / "curve.csv")),
    ]
    more = {"PYTHONPATH": str(ROOT), "FRESHSTART_STATE": str(folder / ".state")} | env
    subprocess.run(line, cwd=made.folder, env=os.environ | more, check=True)
    assert json.loads((folder / "model/freshstart.json").read_text())["launch"]["processes"] == (2 if env else 1)
    return {f"{p.name}/{k}": t for p in (folder / "model").glob("*.safetensors") for k, t in load_file(p).items()}


@pytest.mark.slow
def test_ray_and_torchrun_give_the_same_weights(made, tmp_path):
    alone = door(made, tmp_path / "alone")
    torchrun = door(made, tmp_path / "torchrun", FRESHSTART_LAUNCH="torchrun --standalone --nproc_per_node=2")
    ray = door(made, tmp_path / "ray", FRESHSTART_LAUNCH="ray --workers=2")
    assert distance(torchrun, ray) == 0
    last = [
        float((tmp_path / name / "curve.csv").read_text().splitlines()[-1].split(",")[1]) for name in ("alone", "ray")
    ]
    assert last[0] == pytest.approx(last[1], rel=1e-3)  # in fp32 an update of AdamW turns on the last bit of a gradient
    assert alone.keys() == ray.keys()


def test_launch_words_are_checked(monkeypatch):
    from freshstart.errors import InputError
    from freshstart.training.launch import Group, hand_over

    monkeypatch.setenv("FRESHSTART_LAUNCH", "mpirun -n 2")
    with pytest.raises(InputError, match="begin it with torchrun, srun or ray"):
        hand_over("stages.train", [])
    group = Group(1, 2, torch.device("cpu"))
    assert group.share(8) == (slice(4, 8), 4)
    monkeypatch.setenv("FRESHSTART_MICRO_BATCH", "2")
    assert group.share(8) == (slice(4, 8), 2)
    with pytest.raises(InputError, match=r"batch_size \(9\) can not be shared out evenly by 2 processes"):
        group.share(9)
    monkeypatch.setenv("FRESHSTART_MICRO_BATCH", "3")
    with pytest.raises(InputError, match="the 4 rows of each process are no multiple of it"):
        group.share(8)
    monkeypatch.setenv("FRESHSTART_MICRO_BATCH", "none")
    with pytest.raises(InputError, match="must be a number of rows"):
        group.share(8)


def test_slurm_hosts():
    from freshstart.training.launch import _first_host

    assert _first_host("node[03-05,9]") == "node03"
    assert _first_host("node[7,9]") == "node7"
    assert _first_host("login1,login2") == "login1"
    assert _first_host("gpu4") == "gpu4"
