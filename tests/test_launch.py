"""One process, several, and several pieces of a batch: the same weights."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import psutil
import pytest
import torch
from conftest import ROOT
from test_training import curve, kill_after_a_checkpoint, of_stage, stream, weights

from freshstart.errors import InputError
from freshstart.evaluation.subject import Subject
from freshstart.training.launch import Group, _first_host, launched
from freshstart.training.model import load

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
WORKER = str(ROOT / "tests/one_of_many.py")
BASE = {"batch_size": 8, "weight_decay": 0.1, "checkpoint_every": 10}


def command(folder, objective, processes, steps=50, dtype="float64", **settings):
    asked = {"folder": str(folder), "objective": objective, "settings": BASE | settings, "name": "x"}
    asked |= {"steps": steps, "dtype": dtype}
    return [*(TORCHRUN if processes == 2 else [sys.executable]), WORKER, json.dumps(asked)]


def environment(folder, micro=None):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = os.environ | {"PYTHONPATH": paths, "FRESHSTART_STATE": str(folder / ".state"), "OMP_NUM_THREADS": "1"}
    return env | ({"FRESHSTART_MICRO_BATCH": str(micro)} if micro else {})


def trained(folder, objective, processes, micro=None, **more):
    subprocess.run(command(folder, objective, processes, **more), env=environment(folder, micro), check=True)
    return weights(folder)


def distance(left, right):
    assert left.keys() == right.keys()
    return max(float((left[key] - right[key]).abs().max()) for key in left)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("objective", ["mle", "awr"])
def test_processes_and_pieces_give_the_same_weights(tmp_path, objective, optimizer):
    alone = trained(tmp_path / "alone", objective, 1, optimizer=optimizer)
    for name, processes, micro in (("pieces", 1, 2), ("processes", 2, None), ("both", 2, 2)):
        others = trained(tmp_path / name, objective, processes, micro, optimizer=optimizer)
        assert distance(alone, others) < 1e-10, name


@pytest.mark.slow
def test_first_gradients_in_fp32(tmp_path):
    """The norm of the gradient of one step."""
    norms = []
    for name, processes, micro in (("alone", 1, None), ("pieces", 1, 2), ("processes", 2, None)):
        trained(tmp_path / name, "mle", processes, micro, steps=1, dtype="float32", optimizer="adamw")
        norms += curve(tmp_path / name, "gradient_norm")
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-5)


def killed(folder, objective, processes, **asked):
    """The weights after kill -9 to all processes behind their first checkpoint, then the same command."""
    folder.mkdir()
    running = subprocess.Popen(command(folder, objective, processes, **asked), env=environment(folder))

    def kill():  # torchrun gives its workers sessions of their own
        for process in [*psutil.Process(running.pid).children(recursive=True), running]:
            process.kill()

    kill_after_a_checkpoint(running, folder / ".state", kill)
    return trained(folder, objective, processes, **asked)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_and_resumed(tmp_path, processes):
    asked = {"steps": 400, "optimizer": "muon"}
    whole = trained(tmp_path / "whole", "awr", processes, **asked)
    assert distance(whole, killed(tmp_path / "cut", "awr", processes, **asked)) == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="Inductor needs a C++ compiler")
def test_a_step_compiled_by_inductor(tmp_path, monkeypatch):
    """The weights of the eager step, in one process and in two; killed and resumed to the bit; evaluated uncompiled."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    asked = {"steps": 200, "optimizer": "adamw"}
    eager = trained(tmp_path / "eager", "awr", 1, **asked)
    compiled = trained(tmp_path / "compiled", "awr", 1, compile="on", **asked)
    assert 0 < distance(eager, compiled) < 1e-10
    assert distance(compiled, killed(tmp_path / "cut", "awr", 1, compile="on", **asked)) == 0
    assert distance(compiled, trained(tmp_path / "two", "awr", 2, compile="on", **asked)) < 1e-10
    heldout = stream(seed=1).tokens.astype(np.int64)
    models = [load(tmp_path / name / "model", "train")[0] for name in ("eager", "compiled")]
    nats = [Subject("", model, None, "lines", 0.0).nats(heldout, ()) for model in models]
    assert 0 < nats[0].mean() < 6
    np.testing.assert_allclose(*nats, rtol=1e-5)


def by_door(made, folder, **env):
    """The stage train of a cell on the data of the tests, launched as the environment says."""
    more = {"PYTHONPATH": str(ROOT), "FRESHSTART_STATE": str(folder / ".state")} | env
    line = [sys.executable, "-m", "stages.train", *of_stage(made, folder)]
    subprocess.run(line, cwd=made.folder, env=os.environ | more, check=True)
    assert json.loads((folder / "model/freshstart.json").read_text())["launch"]["processes"] == (2 if env else 1)
    return weights(folder)


@pytest.mark.slow
def test_ray_and_torchrun_give_the_same_weights(made, tmp_path):
    alone = by_door(made, tmp_path / "alone")
    torchrun = by_door(made, tmp_path / "torchrun", FRESHSTART_LAUNCH="torchrun --standalone --nproc_per_node=2")
    ray = by_door(made, tmp_path / "ray", FRESHSTART_LAUNCH="ray --workers=2")
    assert distance(torchrun, ray) == 0
    last = [curve(tmp_path / name, "loss")[-1] for name in ("alone", "ray")]
    assert last[0] == pytest.approx(last[1], rel=1e-3)  # in fp32 an update of AdamW turns on the last bit of a gradient
    assert alone.keys() == ray.keys()


def test_launch_words_are_checked(monkeypatch):
    monkeypatch.setenv("FRESHSTART_LAUNCH", "mpirun -n 2")
    with pytest.raises(InputError, match="begin it with torchrun, srun or ray"):
        launched("stages.train", [])
    group = Group(1, 2, torch.device("cpu"))
    assert [group.share(24, lambda rows=rows: rows)[1] for rows in (100, 12, 11, 5, 1)] == [12, 12, 6, 4, 1]
    assert group.share(8, lambda: 100) == (slice(4, 8), 4)
    monkeypatch.setenv("FRESHSTART_MICRO_BATCH", "2")
    assert group.share(8, lambda: 100) == (slice(4, 8), 2)
    for micro, batch_size, message in (
        ("2", 9, r"batch_size \(9\) can not be shared out evenly by 2 processes"),
        ("3", 8, "the 4 rows of each process are no multiple of it"),
        ("none", 8, "must be a number of rows"),
    ):
        monkeypatch.setenv("FRESHSTART_MICRO_BATCH", micro)
        with pytest.raises(InputError, match=message):
            group.share(batch_size, lambda: 100)


def test_slurm_hosts():
    hosts = {"node[03-05,9]": "node03", "node[7,9]": "node7", "login1,login2": "login1", "gpu4": "gpu4"}
    assert {nodes: _first_host(nodes) for nodes in hosts} == hosts
