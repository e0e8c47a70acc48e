"""The files for a cluster, as far as one machine can read them: Slurm's script runs, Ray's file is what Ray takes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

STAGES = """
stages:
  train:
    matrix: {task: [pep8, pii], seed: [0, 1]}
    cmd: echo ${item.task} ${item.seed} > ${item.task}-${item.seed}
    outs: ["${item.task}-${item.seed}"]
  evaluate: {cmd: "false"}
"""


@pytest.mark.timeout(600)
def test_an_array_of_cells_runs_each_of_them_once(tmp_path, monkeypatch):
    """Four tasks at a time in one folder, as on nodes that share a disk, and a fifth for which there is no cell."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

    def dvc(*words):
        return subprocess.run(["dvc", *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    dvc("init", "--no-scm", "--quiet")
    dvc("config", "--local", "core.hardlink_lock", "true")
    (tmp_path / "dvc.yaml").write_text(STAGES)
    script = ["bash", str(ROOT / "conf/cluster/cells.sbatch"), "train"]
    environments = [os.environ | {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_ARRAY_TASK_ID": str(i)} for i in range(5)]
    tasks = [subprocess.Popen(script, env=environment, stderr=subprocess.PIPE) for environment in environments]
    errors = [task.communicate()[1].decode() for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0, 0, 0, 1], errors
    assert "there are 4 cells of train: sbatch --array=0-3" in errors[4]
    cells = [f"{task}-{seed}" for task in ("pep8", "pii") for seed in (0, 1)]
    assert set(yaml.safe_load((tmp_path / "dvc.lock").read_text())["stages"]) == {f"train@{cell}" for cell in cells}
    assert [(tmp_path / cell).read_text().split() for cell in cells] == [cell.split("-") for cell in cells]


def test_the_ray_cluster_file_is_one():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "conf/cluster/ray.yaml").read_text())
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["max_workers"] == len(config["provider"]["worker_ips"])
