"""A finetuned arm starts from mle's snapshot and reads what mle has left, and nothing else."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from freshstart.errors import InputError
from freshstart.tokens.store import Stream
from freshstart.training.rows import Rows

SHARE = 0.5


@pytest.fixture
def arms(made, tmp_path, monkeypatch, door):
    """Train mle with snapshots, and give what takes it further: the rows of each step are recorded."""
    for name in ("conf", "params.yaml"):
        (shutil.copytree if (made.folder / name).is_dir() else shutil.copy)(made.folder / name, tmp_path / name)
    (tmp_path / "data").symlink_to(made.folder / "data")
    scale = tmp_path / "conf/scale/tests.yaml"
    scale.write_text(
        scale.read_text().replace("log_every: 2", f"log_every: 2\n    snapshots: [0.25, {SHARE}]\n    legs: 4")
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRESHSTART_STATE", str(tmp_path / ".state"))
    drawn: list[np.ndarray] = []
    chosen = Rows.chosen

    def recorded(rows, step, batch_size):
        drawn.append(chosen(rows, step, batch_size))
        return drawn[-1]

    monkeypatch.setattr(Rows, "chosen", recorded)

    def common(objective):
        data = {name: f"data/{name}/pep8" for name in ("tokens", "tokenizer")}
        return {"task": "pep8", "objective": objective, "seed": 0, "shards": f"data/shards/pep8/{objective}", **data}

    def further(objective, share=SHARE):
        drawn.clear()
        door(
            "finetune",
            **common(objective),
            share=share,
            pretrained="models/mle",
            rest=f"rest/{objective}",
            output=f"models/{objective}-arm",
            curve=f"{objective}.csv",
        )
        return np.concatenate(drawn)

    door("train", **common("mle"), output="models/mle", curve="mle.csv")
    return tmp_path, np.concatenate(drawn), further


@pytest.mark.parametrize("objective", ["mle", "awr"])
def test_an_arm_on_the_plain_stream_reads_exactly_the_rows_left(arms, objective):
    folder, by_mle, further = arms
    by_arm = further(objective)
    assert by_arm.tolist() == by_mle[len(by_mle) // 2 :].tolist()
    record = json.loads((folder / f"models/{objective}-arm/freshstart.json").read_text())
    assert record["finetuned"] == {"objective": objective, "share": SHARE, "from_positions": len(by_arm) * 64}
    assert record["positions"] == len(by_arm) * 64
    assert not (folder / f"models/{objective}-arm/snapshots").exists()


@pytest.mark.parametrize("objective", ["conditional", "filtered"])
def test_an_arm_with_a_stream_of_its_own_shares_no_token_with_what_mle_read(arms, objective):
    folder, by_mle, further = arms
    further(objective)
    plain = Stream.open(folder / "data/tokens/pep8/train", "pep8")
    read = np.zeros(len(plain.tokens), dtype=bool)
    for row in by_mle[: len(by_mle) // 2]:
        read[row * 64 : row * 64 + 65] = True
    manifest = json.loads((folder / f"rest/{objective}/manifest.json").read_text())
    ends = np.asarray(plain.document_ends)
    begins = np.concatenate([[0], ends[:-1]])
    taken = np.concatenate([np.arange(begins[i], ends[i]) for i in manifest["document_places"]])
    assert len(taken)
    assert not read[taken].any()
    own = Stream.open(folder / f"rest/{objective}", "pep8")
    tokens = np.asarray(own.tokens)
    special = json.loads((folder / "data/tokens/pep8/train/manifest.json").read_text())
    text = tokens[~np.isin(tokens, [special["good"], special["bad"]])]
    np.testing.assert_array_equal(text, plain.tokens[taken])
    assert (len(text) < len(tokens)) == (objective == "conditional")
    if objective == "conditional":  # every document that mle has not touched is there
        free = [i for i in range(len(ends)) if not read[begins[i] : ends[i]].any()]
        assert manifest["document_places"] == free


def test_new_control_tokens_begin_at_the_mean_of_the_others(arms):
    from test_training import SETTINGS

    from freshstart.training import Vocabulary
    from freshstart.training.model import go_on

    folder, _, _ = arms
    from dataclasses import replace

    special = json.loads((folder / "data/tokens/pep8/train/manifest.json").read_text())
    vocabulary = Vocabulary(special["vocabulary"], special["end_of_text"], special["good"], special["bad"])
    snapshot = next((folder / "models/mle/snapshots").iterdir())
    before = load_file(snapshot / "model.safetensors")["transformer.wte.weight"]
    model = go_on(snapshot, replace(SETTINGS, context=64), vocabulary, 0, control=True)
    after = model.get_input_embeddings().weight.detach()
    rows = [vocabulary.good, vocabulary.bad]
    mean = before[: vocabulary.good].mean(0)
    assert float((after[rows] - mean).abs().max()) < 0.06
    assert not torch.equal(after[rows[0]], after[rows[1]])
    assert torch.equal(after[: vocabulary.good], before[: vocabulary.good])


def test_a_share_without_a_snapshot(arms):
    _, _, further = arms
    with pytest.raises(InputError, match=r"no snapshot at 0.75 of its budget \(it has 0.25, 0.5\): add 0.75"):
        further("awr", share=0.75)
