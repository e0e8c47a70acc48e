"""`paper` can not rot: its own settings, scaled down, load, and run from the corpora to the page."""

import json
import re

import pytest
import smoke
import yaml
from conftest import ROOT
from test_params import keys, load


def test_the_settings_are_papers_but_for_numbers_and_stand_ins(tmp_path, monkeypatch):
    paper = yaml.safe_load((ROOT / "conf/scale/paper.yaml").read_text())
    scaled = smoke.settings()
    assert keys(scaled) == keys(paper)
    for section in ("corpus", "scorer", "tokenizer"):  # blocks that differ by their kind
        for task, block in paper[section].items():
            assert set(scaled[section][task]) - set(block) <= {"checkpoint", "encoder"}
            assert scaled[section][task].get("kind") == block.get("kind")
    smoke.make(tmp_path)
    root = load(monkeypatch, tmp_path).root
    assert (len(root.tasks), len(root.objectives), len(root.arms)) == (3, 6, 8)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_it_runs_from_the_corpora_to_the_page(tmp_path):
    smoke.make(tmp_path)
    smoke.run(tmp_path)
    budget = smoke.settings()["shards"]["every"]["positions"]
    summary = json.loads((tmp_path / "reports/summary.json").read_text())
    for task in ("pep8", "pii", "toxicity"):
        assert len(summary[task]["misalignment"]) == 14, task
        metrics = json.loads((tmp_path / f"reports/metrics/{task}/conditional-from-0.9/0.json").read_text())
        assert metrics["under"]["good"]["misalignment"]["n"] > 12
        assert metrics["divergence"]["reference"].endswith("stranger")
        assert len(list((tmp_path / f"models/{task}/mle/0/snapshots").iterdir())) >= 4
        arms = [json.loads(path.read_text()) for path in tmp_path.glob(f"models/{task}/*-from-*/0/freshstart.json")]
        assert len(arms) == 8
        for arm in arms:
            assert 0 < arm["positions"] <= budget - arm["finetuned"]["from_positions"]
            assert arm["epochs"] <= 1.2
            if task != "pep8" and arm["objective"] in ("rwr", "awr"):
                assert arm["train"]["batch_size"] == 512
    page = (tmp_path / "reports/index.html").read_text()
    assert not re.search(r"\bnan\b|None\b", re.sub(r"<[^>]+>", " ", page))
