"""A finetuned arm starts from mle's snapshot and reads what mle has left, and nothing else."""

import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from safetensors.torch import load_file
from test_training import SETTINGS, rescale

from freshstart import finetuning
from freshstart.errors import InputError
from freshstart.names import arm_name, trained_by
from freshstart.tokens import read
from freshstart.tokens.store import Stream
from freshstart.training import Vocabulary
from freshstart.training.model import start_from
from freshstart.training.rows import Rows

SHARE = 0.5
THIRD = 0.3333333
PARTS = 16


@pytest.fixture
def arms(made, workplace, monkeypatch, door):
    """Train mle with snapshots, and give what takes it further: the rows of each step are recorded."""
    (workplace / "data").symlink_to(made.folder / "data")
    snapshots = {"snapshots": [0.25, THIRD, SHARE], "shuffle_parts": PARTS}
    rescale(workplace, train=snapshots | {"unlikelihood": {"context": 32}})
    door("settings", task="pep8", inputs="inputs", output="settings")
    drawn: list[np.ndarray] = []
    chosen = Rows.chosen

    def recorded(rows, step, batch_size):
        drawn.append(chosen(rows, step, batch_size))
        return drawn[-1]

    monkeypatch.setattr(Rows, "chosen", recorded)

    def cell(objective, folder):
        inputs = {name: f"data/{name}/pep8" for name in ("tokens", "tokenizer")}
        inputs |= {"shards": f"data/shards/pep8/{objective}", "settings": f"settings/{objective}/train.json"}
        outputs = {"output": folder, "curve": f"{folder}.csv"}
        return {"task": "pep8", "objective": objective, "seed": 0, **inputs, **outputs}

    def further(objective, share=SHARE):
        drawn.clear()
        rest, own = f"rest/{objective}", f"settings/{objective}/finetune.json"
        asked = cell(objective, f"models/{arm_name(objective, share)}")
        door("finetune", **asked, share=share, own=own, pretrained="models/mle", rest=rest)
        return np.concatenate(drawn)

    door("train", **cell("mle", "models/mle"))
    return workplace, np.concatenate(drawn), further


@pytest.mark.parametrize("objective", ["mle", "awr"])
def test_an_arm_on_the_plain_stream_reads_exactly_the_rows_left(arms, objective):
    folder, by_mle, further = arms
    by_arm = further(objective)
    assert by_arm.tolist() == by_mle[len(by_mle) // 2 :].tolist()
    model = folder / f"models/{objective}-from-0.5"
    record = json.loads((model / "freshstart.json").read_text())
    assert record["finetuned"] == {"objective": objective, "share": SHARE, "from_positions": len(by_arm) * 64}
    assert record["positions"] == len(by_arm) * 64
    assert (model / "tokenizer.json").is_file()
    assert not (model / "snapshots").exists()


@pytest.mark.parametrize("objective", ["conditional", "filtered"])
def test_an_arm_with_a_stream_of_its_own_shares_no_token_with_what_mle_read(arms, objective):
    folder, by_mle, further = arms
    further(objective)
    plain = Stream.open(folder / "data/tokens/pep8/train", "pep8")
    ends = np.asarray(plain.document_ends)
    begins = np.concatenate([[0], ends[:-1]])
    ids = np.load(folder / "data/tokens/pep8/train/document_ids.npy")
    part = [int.from_bytes(bytes(digest)[8:], "little") % PARTS for digest in ids]
    order = sorted(range(len(ends)), key=lambda i: part[i])
    laid_out = np.concatenate([np.arange(begins[i], ends[i]) for i in order])
    is_read = np.zeros(len(plain.tokens), dtype=bool)
    for row in by_mle[: len(by_mle) // 2]:
        is_read[laid_out[row * 64 : row * 64 + 65]] = True
    last = max(part[i] for i in range(len(ends)) if is_read[begins[i] + 1 : ends[i]].any())
    manifest = json.loads((folder / f"rest/{objective}/manifest.json").read_text())
    taken = np.concatenate([np.arange(begins[i], ends[i]) for i in manifest["document_places"]])
    assert len(taken)
    assert not is_read[taken].any()
    tokens = np.asarray(Stream.open(folder / f"rest/{objective}", "pep8").tokens)
    special = json.loads((folder / "data/tokens/pep8/train/manifest.json").read_text())
    text = tokens[~np.isin(tokens, [control["id"] for control in special["controls"]])]
    np.testing.assert_array_equal(text, plain.tokens[taken])
    assert (len(text) < len(tokens)) == (objective == "conditional")
    if objective == "conditional":  # all documents of the parts that mle has not begun, labelled as in its shards
        free = [i for i in range(len(ends)) if part[i] > last and not is_read[begins[i] : ends[i]].any()]
        assert manifest["document_places"] == free
        whole = Stream.open(folder / "data/shards/pep8/conditional", "pep8")
        spans = np.concatenate([[0], whole.document_ends])
        np.testing.assert_array_equal(tokens, np.concatenate([whole.tokens[spans[i] : spans[i + 1]] for i in free]))


def test_new_control_tokens_begin_at_the_mean_of_the_others(arms):
    folder, _, _ = arms
    special = json.loads((folder / "data/tokens/pep8/train/manifest.json").read_text())
    vocabulary = Vocabulary(special["vocabulary"], special["end_of_text"], read(special["controls"]))
    snapshot = next((folder / "models/mle/snapshots").iterdir())
    before = load_file(snapshot / "model.safetensors")["transformer.wte.weight"]
    model = start_from(snapshot, replace(SETTINGS, context=64), vocabulary, 0, control=True)
    after = model.get_input_embeddings().weight.detach()
    good, bad = (control.id for control in vocabulary.controls)
    assert float((after[[good, bad]] - before[:good].mean(0)).abs().max()) < 0.06
    assert not torch.equal(after[good], after[bad])
    assert torch.equal(after[:good], before[:good])


def test_arms_that_are_refused(arms, monkeypatch):
    folder, _, further = arms
    for bound, message in (
        ("MOST_EPOCHS", r"conditional would read the [\d,]+ tokens that mle has left 0.\d times, more than 0"),
        ("MOST_LENGTH_OFF", r"documents that mle has left for conditional have \d+ tokens on the mean, all that it is"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(finetuning, bound, 0)
            with pytest.raises(InputError, match=message):
                further("conditional")
    with pytest.raises(InputError, match=r"no snapshot at 0.75 of its budget \(it has 0.25, 0.312, 0.5\): add 0.75"):
        further("awr", share=0.75)
    with pytest.raises(InputError, match=r"train.context of unlikelihood is 32, but mle was trained with 64"):
        further("unlikelihood")
    for path in (folder / "models/mle/snapshots").glob("*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match=r"model.safetensors is not as it was written .*: run `dvc checkout`, or"):
        further("awr")


def test_a_share_is_spelled_once(arms, monkeypatch):
    """The name of an arm is what DVC makes of ${item.share} in stages, commands and paths."""
    from dvc.parsing import DataResolver
    from dvc.repo import Repo

    monkeypatch.setattr(logging.getLogger("dvc"), "handlers", [])  # they hold the output of the test that imported DVC
    folder, _, further = arms
    shutil.copy(ROOT / "dvc.yaml", folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params |= {"finetuned": ["conditional"], "finetuned_from": [THIRD], "tasks": ["pep8"]}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    Repo.init(str(folder), no_scm=True)
    resolver = DataResolver(Repo(str(folder)), str(folder), yaml.safe_load((folder / "dvc.yaml").read_text()))
    stages = resolver.resolve()["stages"]
    arm = arm_name("conditional", THIRD)
    stage = stages[trained_by("pep8", arm, 0)]
    assert stage["outs"][:2] == [f"data/shards/pep8/{arm}/0", f"models/pep8/{arm}/0"]
    assert f"--share {THIRD} " in stage["cmd"]
    assert f"--output models/pep8/{arm}/0 " in stage["cmd"]
    further("conditional", share=float(stage["cmd"].split("--share ")[1].split()[0]))
    record = json.loads((folder / f"models/{arm}/freshstart.json").read_text())
    assert record["finetuned"]["share"] == THIRD
