"""Scoring on a cluster of two Ray nodes, one of which is lost on the way."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from freshstart import files

OWN = """
import time
from freshstart.scorers import Scorer

class Slow(Scorer):
    version = "1"
    def score_texts(self, texts):
        time.sleep(0.05)
        return [len(text) / 1000 for text in texts]
"""
RUN = """
import sys
from pathlib import Path
from freshstart import files
from freshstart.scoring.pool import score_parts
parts = [(path, Path(sys.argv[3], path.name)) for path in files.parts(Path(sys.argv[1]), 'corpus')]
print(score_parts(parts, Path(sys.argv[2]), 'own', None if sys.argv[4] == 'all' else int(sys.argv[4])))
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_node_killed_on_the_way_changes_no_byte(made, workplace, monkeypatch):
    from ray.cluster_utils import Cluster

    from freshstart import scorers

    (workplace / "rewards.py").write_text(OWN)
    monkeypatch.syspath_prepend(workplace)
    raw = {"kind": "rewards:Slow", "segments": "lines", "version": "1"}
    files.write_json(workplace / "scorer/scorer.json", scorers.describe(scorers.settings(raw, "scorer.own")))
    corpus = made.paths("pep8")["corpus"] / "train"

    def command(output, workers):
        return [sys.executable, "-c", RUN, str(corpus), str(workplace / "scorer"), output, workers]

    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{workplace}",
        "FRESHSTART_STATE": str(workplace / "state-alone"),
        "RAY_raylet_start_wait_time_s": "120",
    }
    environment.pop("FRESHSTART_WORKERS", None)
    subprocess.run(command("alone", "0"), cwd=workplace, env=environment, check=True)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        lost = cluster.add_node(num_cpus=1)
        environment |= {"FRESHSTART_STATE": str(workplace / "state-cluster"), "RAY_ADDRESS": cluster.address}
        running = subprocess.Popen(
            command("cluster", "all"), cwd=workplace, env=environment, stdout=subprocess.PIPE, text=True
        )
        while len(list((workplace / "state-cluster").rglob("*.parquet"))) < 2:
            assert running.poll() is None
            time.sleep(0.05)
        cluster.remove_node(lost, allow_graceful=False)
        assert running.wait(timeout=300) == 0
    finally:
        cluster.shutdown()
    for path in sorted(Path("alone").glob("*.parquet")):
        assert files.sha256(path) == files.sha256(Path("cluster", path.name))
    assert len(list(Path("cluster").glob("*.parquet"))) == len(files.parts(corpus, "corpus"))
