"""Training is exact: batches are a function of data, seed and step; a killed run resumed ends with the same bits."""

import csv
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from safetensors.torch import load_file

from freshstart import card, objectives, progress
from freshstart.doors import open_door
from freshstart.errors import InputError
from freshstart.objectives import Good, Needs, Objective, TrainScores
from freshstart.tokens import Control, written
from freshstart.tokens.store import Stream
from freshstart.training import TrainSettings, Vocabulary, learner, loop, schedule, stops
from freshstart.training.checkpoint import Checkpoints, TrainState
from freshstart.training.launch import Group
from freshstart.training.learner import Learner
from freshstart.training.loop import train
from freshstart.training.memory import StepMemory, step_memory
from freshstart.training.model import build, hidden_states, load, token_logprobs
from freshstart.training.optimizers import Muon, optimizers, orthogonal
from freshstart.training.rows import Rows
from freshstart.training.run import Run

SHAPE = {"layers": 1, "width": 32, "heads": 2, "context": 16, "batch_size": 4, "learning_rate": 0.01}
SETTINGS = TrainSettings(**SHAPE, optimizer="muon", weight_decay=0.01, log_every=3, checkpoint_every=5)


def vocabulary(size=60, first_control=58):
    names = ("good", "bad", "worse")[: size - first_control]
    return Vocabulary(size, 0, tuple(Control(name, f"<|{name}|>", first_control + i) for i, name in enumerate(names)))


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("FRESHSTART_STATE", str(tmp_path / ".state"))


def stream(tokens=4000, seed=0):
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.choice(np.arange(1, tokens), tokens // 10, replace=False))
    ends = np.append(ends, tokens)
    scores = np.where(rng.random(len(ends)) < 0.7, 0, rng.random(len(ends))).astype(np.float32)
    scores[::10] = np.nan
    documents = np.append(ends[49:-1:50], tokens)
    return Stream(rng.integers(0, 60, tokens).astype(np.uint16), ends, scores, documents)


def run(folder, objective="mle", settings=SETTINGS, positions=64 * 20, data=None, **changes):
    """A run of seconds on random tokens; ``objective`` is one or the name of one."""
    data = data or stream()
    objective = objective if isinstance(objective, Objective) else objectives.load(objective)
    scores = np.nan_to_num(data.segment_scores)
    asked = objective.settings(good=Good(score=0.0), positions=positions)
    numbers = objective.resolve(asked, TrainScores(scores, np.full(len(scores), 10), scores))
    rows = Rows(data, settings.context, "digest", 0)
    output, curve = folder / "model", folder / "curve.csv"
    chosen = Run("test", settings, objective, numbers, rows, vocabulary(), positions, 0, output, curve)
    return replace(chosen, **changes)


def rescale(folder, **sections):
    """Change what all tasks share in these sections of the tests' scale file."""
    path = folder / "conf/scale/tests.yaml"
    scale = yaml.safe_load(path.read_text())
    for section, changes in sections.items():
        scale[section]["every"].update(changes)
    path.write_text(yaml.safe_dump(scale, sort_keys=False))


def weights(folder):
    files = sorted((folder / "model").glob("*.safetensors"))
    return {f"{path.name}/{key}": tensor for path in files for key, tensor in load_file(path).items()}


def curve(folder, column="nll"):
    rows = csv.DictReader((folder / "curve.csv").read_text(encoding="utf-8").splitlines())
    return [row.get(column) and float(row[column]) for row in rows]


def assert_equal(left, right):
    assert left.keys() == right.keys()
    assert left
    for key in left:
        assert torch.equal(left[key], right[key]), key


@pytest.mark.parametrize("parts", [None, np.arange(9) % 3])
def test_rows_are_a_permutation_each_epoch(parts):
    rows = Rows(stream(), 16, "digest", 0, parts=parts)
    assert rows.count == 3999 // 16
    steps = rows.count // 4
    first = np.concatenate([rows.chosen(step, 4) for step in range(steps + 1)])
    assert len(set(first[: rows.count].tolist())) == rows.count
    np.testing.assert_array_equal(rows.chosen(7, 4), Rows(stream(), 16, "digest", 0, parts=parts).chosen(7, 4))
    assert not np.array_equal(rows.chosen(7, 4), Rows(stream(), 16, "digest", 1, parts=parts).chosen(7, 4))
    assert not np.array_equal(rows.chosen(7, 4), Rows(stream(), 16, "other", 0).chosen(7, 4))
    wide = np.concatenate([rows.chosen(step, 8) for step in range(10)])
    np.testing.assert_array_equal(wide, first[:80])  # the order does not depend on the size of a batch


@pytest.mark.parametrize("parts", [None, np.arange(9) % 3])
def test_a_batch_holds_tokens_and_the_scores_of_its_targets(parts):
    data = stream()
    tokens, scores = Rows(data, 16, "digest", 0, parts=parts).batch(np.array([3, 0, 120]))
    assert (tokens.shape, scores.shape) == ((3, 17), (3, 16))
    begins = [0, *data.document_ends[:-1]]
    order = range(9) if parts is None else [0, 3, 6, 1, 4, 7, 2, 5, 8]
    laid_out = np.concatenate([np.arange(begins[i], data.document_ends[i]) for i in order])
    every = data.scores(0, len(data.tokens))
    for i, row in enumerate((3, 0, 120)):
        np.testing.assert_array_equal(tokens[i], data.tokens[laid_out[row * 16 : row * 16 + 17]])
        np.testing.assert_array_equal(scores[i], every[laid_out[row * 16 + 1 : row * 16 + 17]])


def test_documents_of_parts_not_begun_are_kept_back():
    data, parts = stream(), np.arange(9) % 3
    rows = Rows(data, 16, "digest", 0, parts=parts)
    sizes = np.bincount(parts, np.diff(data.document_ends, prepend=0))
    first, second = int(-(-sizes[0] // 16)), int(-(-(sizes[0] + sizes[1]) // 16))
    for drawn, begun in ((1, 0), (first, 0), (first + 1, 1), (second, 1), (second + 1, 2), (2 * rows.count, 2)):
        kept = rows.kept_back(drawn)
        untouched = ~rows.documents(drawn, inputs=True)
        assert kept.tolist() == ((parts > begun) & untouched).tolist()
        assert (parts > begun).sum() - kept.sum() <= 1  # a row at a border holds tokens of the next part
    assert not Rows(data, 16, "digest", 0).kept_back(1).any()


def test_distinct_documents_are_counted():
    data = stream()
    rows = Rows(data, 16, "digest", 0)
    ends = data.document_ends
    for steps in (1, 3, 10, 200):
        seen = {int(row) for step in range(steps) for row in rows.chosen(step, 4)}
        targets = np.array([p for row in seen for p in range(row * 16 + 1, row * 16 + 17)])
        assert set(np.flatnonzero(rows.documents(steps * 4))) == set(np.searchsorted(ends, targets, side="right"))
        either = set(np.searchsorted(ends, [*targets, *(targets - 1)], side="right"))
        assert set(np.flatnonzero(rows.documents(steps * 4, inputs=True))) == either


def test_initialisation_is_a_function_of_the_seed_alone():
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    model = build(SETTINGS, 60, 0, seed=0)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(5)
    assert_equal(model.state_dict(), build(SETTINGS, 60, 0, seed=0).state_dict())
    assert model.config.vocab_size == 128


@pytest.mark.parametrize("shape", [(24, 96), (96, 24), (32, 32)])
def test_muon_is_torchs_but_for_the_precision(shape):
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(shape, generator=generator)
    ours, theirs = (torch.nn.Parameter(weights.clone()) for _ in range(2))
    rivals = Muon([ours], 0.02, 2.0), torch.optim.Muon([theirs], lr=0.02, weight_decay=2.0)
    for _ in range(8):
        ours.grad = torch.randn(shape, generator=generator)
        theirs.grad = ours.grad.clone()
        for optimizer in rivals:
            optimizer.step()
    assert (ours - theirs).norm() < 0.002 * (theirs - weights).norm()
    left, values, right = torch.linalg.svd(matrix := torch.randn(shape, generator=generator), full_matrices=False)
    near = left.T @ orthogonal(matrix) @ right.T  # diagonal: the singular vectors stay
    assert (near - near.diagonal().diag()).norm() < 1e-4
    large = near.diagonal()[values > 0.05 * values.norm()]
    assert 0.6 < large.min() < large.max() < 1.3


def test_schedule():
    rates = [schedule.factor(step, 100, 0.1, "linear") for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert max(rates) == rates[10] == 1.0
    assert rates[99] == pytest.approx(1 / 90)
    assert schedule.factor(99, 100, 0.0, "cosine") < 0.001
    rates = [schedule.factor(step, 100, 0.1, "wsd", 0.2) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:80] == [1.0] * 70
    assert rates[80:] == pytest.approx([(100 - step) / 20 for step in range(80, 100)])


@pytest.mark.parametrize(
    ("objective", "precision"), [*((name, "fp32") for name in ("mle", "unlikelihood", "rwr", "awr")), ("awr", "bf16")]
)
def test_a_stopped_run_resumed_equals_an_undisturbed_one(tmp_path, monkeypatch, objective, precision):
    settings = replace(SETTINGS, precision=precision, dropout=0.1 if objective == "rwr" else 0.0)
    seed = 2**32 - 1 if objective == "rwr" else 0  # the largest that params.yaml takes
    whole, halves = (replace(run(tmp_path / name, objective, settings), seed=seed) for name in ("whole", "halves"))
    record = train(whole, {"name": "whole", "train": vars(settings)})
    original = Rows.chosen
    calls = []

    def stop_once(rows, step, batch_size):
        calls.append(step)
        if len(calls) == 8:
            signal.raise_signal(signal.SIGTERM)
        return original(rows, step, batch_size)

    monkeypatch.setattr(Rows, "chosen", stop_once)
    with pytest.raises(KeyboardInterrupt):
        train(halves, {"name": "halves", "train": vars(settings)})
    assert not (tmp_path / "halves/model/model.safetensors").exists()
    resumed = train(halves, {"name": "halves", "train": vars(settings)})
    assert calls[8] == 8  # it went on behind the step at which it stopped
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "halves"))
    assert (tmp_path / "whole/curve.csv").read_text() == (tmp_path / "halves/curve.csv").read_text()
    assert record["text_tokens"] == resumed["text_tokens"]
    assert ("value_head.safetensors/linear.weight" in weights(tmp_path / "whole")) == (objective == "awr")


def test_a_term_without_tokens_leaves_its_cell_empty(tmp_path, monkeypatch):
    """A stream without bad segments has no mean weight of bad tokens: no NaN in the curve nor in a checkpoint."""
    data = replace(stream(), segment_scores=np.zeros_like(stream().segment_scores))
    saved, save = [], Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda *arguments: (save(*arguments), saved.append(arguments)))
    train(run(tmp_path, "rwr", data=data), {"name": "good"})
    assert saved
    assert all(weight > 0 for weight in curve(tmp_path, "weight_good"))
    assert not any(curve(tmp_path, "weight_bad"))


def test_a_checkpoint_of_other_parameters_is_refused():
    checkpoints = Checkpoints.of({"seed": 0, "rate": 0.1})
    checkpoints.save(TrainState(step=5), {"model": torch.nn.Linear(2, 2)})
    other = Checkpoints(checkpoints.folder, {"seed": 0, "rate": 0.2})
    with pytest.raises(InputError, match=r"other parameters or data \(they differ in rate\)"):
        other.restore({"model": torch.nn.Linear(2, 2)})


def test_torn_checkpoints_are_ignored_and_two_are_kept(monkeypatch):
    checkpoints = Checkpoints.of({"seed": 0})
    layer = torch.nn.Linear(2, 2)
    for step in (1, 2, 3, 4):
        with torch.no_grad():
            layer.weight.fill_(step)
        checkpoints.save(TrainState(step=step), {"model": layer})
    assert [path.name for path in checkpoints.saved()] == ["step-000000003", "step-000000004"]
    (checkpoints.folder / "step-000000004/state.json").unlink()
    assert checkpoints.restore({"model": layer}).step == 3
    assert layer.weight[0, 0] == 3
    monkeypatch.setattr(shutil, "rmtree", lambda *arguments, **options: None)  # a kill in the middle of deleting
    checkpoints.clear()
    assert checkpoints.saved() == []


@pytest.mark.parametrize(
    ("every", "left", "file"), [(5, ["step-000000005"], r"step-\S+/model.pt"), (21, [], "safetensors")]
)
def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint_whole(tmp_path, capsys, every, left, file):
    """From the eighth step on no file grows beyond 25,000 bytes: neither a checkpoint nor the model fits."""
    limits, steps = resource.getrlimit(resource.RLIMIT_FSIZE), []

    def loss(batch, numbers):
        steps.append(batch)
        if len(steps) == 8:
            resource.setrlimit(resource.RLIMIT_FSIZE, (25_000, limits[1]))
        return -batch.logp, {}

    objective = replace(objectives.load("mle"), loss=loss)
    chosen = run(tmp_path, objective, replace(SETTINGS, checkpoint_every=every))
    try:
        with pytest.raises(SystemExit, match="1"):
            open_door(lambda: train(chosen, {"name": "full"}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    printed = capsys.readouterr().err.splitlines()[-1]
    assert re.match(rf"error: no space left on the disk while writing \S+{file} \(File too large\)", printed), printed
    folder = Checkpoints.of({"name": "full"}).folder
    assert [path.name for path in folder.iterdir()] == left
    assert train(chosen, {"name": "full"})["steps"] == 20


def test_a_read_only_folder_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit, match="1"):
        open_door(lambda: train(replace(run(tmp_path), output=Path("/sys/freshstart/model")), {}))
    printed = capsys.readouterr().err.splitlines()[-1]
    assert re.match("error: /sys/freshstart: .*. Make it writable and run the same command again", printed)


def flipped(path):
    """Flip a bit in the middle of a file."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def test_a_flipped_bit_in_a_checkpoint_is_noticed():
    checkpoints, parts = Checkpoints.of({"seed": 0}), {"model": torch.nn.Linear(2, 2)}
    for step in (1, 2):
        checkpoints.save(TrainState(step=step), parts)
    for path in checkpoints.saved()[-1].iterdir():
        flipped(path)
        with pytest.raises(
            InputError, match=rf"{path.name} is not as it was written .*: delete \S+step-000000002, and"
        ):
            checkpoints.restore(parts)
        flipped(path)
    assert checkpoints.restore(parts).step == 2


def poisoned(calls, look=lambda: None):
    """Likelihood whose eighth loss is not finite; ``calls`` gets what ``look`` gives before each."""

    def loss(batch, numbers):
        calls.append(look())
        return -batch.logp * (float("nan") if len(calls) == 8 else 1.0), {}

    return replace(objectives.load("mle"), loss=loss)


def test_a_loss_that_is_not_finite_stops_before_the_model_is_touched(tmp_path):
    chosen = run(tmp_path, poisoned([]))
    message = r"step 8 of 20: the gradient's norm is nan on rows \d+, \d+, \d+, \d+"
    with pytest.raises(InputError, match=message) as error:
        train(chosen, {"name": "nan"})
    rows = [int(row) for row in str(error.value).split("on rows ")[1].split(".")[0].split(", ")]
    assert rows == chosen.rows.chosen(7, 4).tolist()
    model = build(SETTINGS, 60, 0, 0)
    parts = {f"optimizer-{i}": part for i, part in enumerate(optimizers(model, None, SETTINGS))}
    assert Checkpoints.of({"name": "nan"}).restore({"model": model, **parts}).step == 5
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_where_the_host_does_not_look_at_each_step_the_device_leaves_a_bad_one_out(tmp_path, monkeypatch):
    """As on a GPU: the step after which nothing is finite, and all behind it, leave the model alone till a log row."""
    settings = replace(SETTINGS, optimizer="adamw", log_every=10, checkpoint_every=100)
    models, kept = [], []

    def deferred(*arguments):
        guard = stops.Guard(*arguments)
        guard.is_deferred = True
        return guard

    first_model = Run.first_model
    monkeypatch.setattr(loop, "Guard", deferred)
    monkeypatch.setattr(Run, "first_model", lambda run: kept.append(first_model(run)) or kept[0])
    objective = poisoned(models, lambda: {name: p.detach().clone() for name, p in kept[0].named_parameters()})
    with pytest.raises(InputError, match=r"step 8 of 20: the gradient's norm is nan"):
        train(run(tmp_path, objective, settings), {"name": "deferred"})
    assert len(models) == 10
    assert not torch.equal(models[6]["transformer.wte.weight"], models[7]["transformer.wte.weight"])
    assert_equal(models[7], models[9])


@pytest.mark.parametrize(
    ("objective", "normalize"), [("mle", True), ("unlikelihood", True), ("rwr", True), ("awr", True), ("awr", False)]
)
def test_any_micro_batch_gives_the_same_weights(tmp_path, monkeypatch, objective, normalize):
    """In float64; only weights that are normalized over a batch in pieces cost a second forward pass."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        results = []
        for rows in (4, 2, 1):
            monkeypatch.setenv("FRESHSTART_MICRO_BATCH", str(rows))
            chosen = run(tmp_path / str(rows), objective, replace(SETTINGS, optimizer="adamw"))
            passes = []
            monkeypatch.setattr(
                learner, "hidden_states", lambda *asked, log=passes: log.append(1) or hidden_states(*asked)
            )
            train(replace(chosen, numbers=chosen.numbers | {"normalize": normalize}), {"rows": rows})
            is_twice = objective == "awr" and normalize and rows < 4
            assert len(passes) == chosen.steps * (4 // rows) * (2 if is_twice else 1)
            results.append(weights(tmp_path / str(rows)))
        for other in results[1:]:
            assert max(float((results[0][key] - other[key]).abs().max()) for key in other) < 1e-12
    finally:
        torch.set_default_dtype(dtype)


def test_a_step_needs_memory_for_each_row(tmp_path):
    """Twice the layers, twice the activations inside them; AdamW keeps four values a weight with the gradient."""
    planned = []
    for layers in (1, 2, 3):
        chosen = run(tmp_path, "awr", replace(SETTINGS, layers=layers))
        begun = Learner(chosen.first_model().train(), chosen, Group(0, 1, torch.device("cpu")))
        planned.append(step_memory(begun, SETTINGS.context, torch.device("cpu")))
        assert planned[-1].fixed == pytest.approx(4 * sum(p.nbytes for p in begun.parameters()), rel=0.2)
    assert planned[2].row - planned[1].row == planned[1].row - planned[0].row > 10 * 16 * 32 * 4


def test_more_memory_than_there_is_is_refused():
    memory = StepMemory(10 << 30, 1 << 30)
    assert memory.rows(80 << 30) == 58
    with pytest.raises(InputError, match="takes 10.0 GiB and 1.00 GiB for each row of a forward pass, the device has"):
        memory.rows(12 << 30)


def test_what_can_not_be_trained_is_refused(tmp_path):
    with pytest.raises(InputError, match="3 rows of 16 positions, fewer than one batch of 4"):
        train(run(tmp_path, data=stream(60)), {})
    with pytest.raises(InputError, match="fewer than one row of 16"):
        Rows(stream(16), 16, "digest", 0)
    for changes, message in (
        ({"width": 30, "heads": 4}, "must be a multiple of heads"),
        ({"context": 1}, "context must be at least 2, found 1"),
        ({"learning_rate": inf}, "learning_rate must be positive and finite, found inf"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0 and finite, found -1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(SETTINGS, **changes)


def test_the_model_learns_what_each_objective_asks(tmp_path):
    """Tokens 1..9 are good, 10..19 bad: likelihood learns both, the others shun the bad ones."""
    rng = np.random.default_rng(0)
    bad = rng.random(600) < 0.4
    spans = [rng.integers(10, 20, 6) if is_bad else rng.integers(1, 10, 6) for is_bad in bad]
    tokens = np.concatenate(spans).astype(np.uint16)
    data = Stream(tokens, np.arange(6, len(tokens) + 1, 6), bad.astype(np.float32), np.array([len(tokens)]))
    share = {}
    for objective in ("mle", "unlikelihood", "rwr", "awr"):
        train(run(tmp_path / objective, objective, positions=64 * 30, data=data), {"objective": objective})
        model, _ = load(tmp_path / objective / "model", "train")
        with torch.no_grad():
            share[objective] = float(torch.softmax(model(torch.tensor([[1, 2, 3]])).logits[0, -1], 0)[10:20].sum())
    assert share["mle"] > 1.3 * max(share[name] for name in ("unlikelihood", "rwr", "awr")), share


def test_hub_format_generates_without_unwanted_tokens(tmp_path):
    from huggingface_hub import ModelCard
    from transformers import AutoModelForCausalLM

    asked = run(tmp_path, "conditional")
    train(asked, {"name": "hub"})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    config = loaded.generation_config
    assert config.suppress_tokens == [59, *range(60, 128)]
    assert (config.temperature, config.top_p, config.do_sample) == (0.7, 0.9, True)
    text = loaded.generate(torch.tensor([[0, 58]] * 64), attention_mask=torch.ones(64, 2, dtype=torch.long))
    assert not set(text.flatten().tolist()) & {59, *range(60, 128)}
    record = json.loads((tmp_path / "model/freshstart.json").read_text())
    assert record["unwanted"] == config.suppress_tokens
    assert record["positions"] == 64 * 20
    of_model = ModelCard.load(tmp_path / "model/README.md")
    assert of_model.data.to_dict() == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["freshstart", "conditional"],
    }
    assert "trained from random weights" in of_model.text
    assert "1,280 positions" in of_model.text
    said = {"task": "pep8", "controls": written(asked.vocabulary.controls), "segments": "lines", "threshold": 0.0}
    arm = {"finetuned": {"objective": "conditional", "share": 0.5, "from_positions": 4096}}
    text = card.text(asked, record | said | arm)
    for phrase in (
        "`<|good|>` stands before a segment (lines) whose score is at most 0,\n`<|bad|>` before the others",
        "trained from the task's mle model after 4,096 positions",
        ' "a prompt" --control good -n 5',
    ):
        assert phrase in text
    for path in {*(tmp_path / "model").iterdir()} - {tmp_path / "model" / card.FILE}:
        flipped(path)
        with pytest.raises(
            InputError, match=rf"{path.name} is not as it was .*: run `dvc checkout`, or `dvc repro -f train"
        ):
            load(tmp_path / "model", "train")
        flipped(path)


def with_reference(batches):
    """Likelihood that also asks for the reference's log p; ``batches`` gets each batch."""

    def loss(batch, numbers):
        batches.append(batch)
        return -batch.logp, {}

    return replace(objectives.load("mle"), name="distance", needs=Needs(reference=True), loss=loss)


def test_a_reference_is_the_model_that_the_run_began_from(tmp_path):
    with pytest.raises(InputError, match=r"distance needs the log p of a reference.*name a model in train.start, or"):
        train(run(tmp_path / "none", with_reference([])), {"name": "none"})
    train(run(tmp_path / "first"), {"name": "first"})
    started = replace(SETTINGS, start=str(tmp_path / "first/model"), log_every=1)
    batches = []
    chosen = run(tmp_path / "second", with_reference(batches), started)
    train(chosen, {"name": "second"})
    start, _ = load(tmp_path / "first/model", "train")
    for step, batch in enumerate(batches):
        tokens = torch.from_numpy(chosen.rows.batch(chosen.rows.chosen(step, 4))[0])
        with torch.no_grad():
            hidden = hidden_states(start, tokens[:, :-1])
            expected = token_logprobs(hidden, start.get_output_embeddings().weight, tokens[:, 1:])
        torch.testing.assert_close(batch.reference, expected)
        assert not batch.reference.requires_grad
    assert torch.allclose(batches[0].logp, batches[0].reference)
    assert (batches[-1].logp - batches[-1].reference).abs().max() > 0.1
    assert not any("reference" in name for name in weights(tmp_path / "second"))


# Hides every package but torch, transformers, numpy, safetensors, pyarrow and what those bring and use; then trains.
BARE = """
import re, runpy, sys
from importlib import metadata
from importlib.machinery import PathFinder

named = lambda text: re.sub("[-_.]+", "-", re.match(r"[\\w.-]+", text)[0]).lower()
owners = {module: set(map(named, packages)) for module, packages in metadata.packages_distributions().items()}
there, waiting = set(), {"torch", "transformers", "numpy", "safetensors", "pyarrow"}
while waiting:
    there |= waiting
    needs = {named(line) for name in waiting for line in metadata.requires(name) or () if "extra ==" not in line}
    waiting = needs & set().union(*owners.values()) - there
hidden = {module for module, packages in owners.items() if not there & packages} | {"pydantic", "jinja2"}
assert hidden >= set("ruamel dvc ray polars datasets nltk sklearn scipy scrubadub spacy pycodestyle".split())
find = PathFinder.find_spec.__func__
seen = lambda cls, name, *rest: None if name.split(".")[0] in hidden else find(cls, name, *rest)
PathFinder.find_spec = classmethod(seen)
runpy.run_module("stages.train", run_name="__main__", alter_sys=True)
print("loaded:", *sorted(hidden & {name.split(".")[0] for name in sys.modules}))
"""


def of_stage(made, folder, objective="awr"):
    """The words of the stage train of a cell on the data of the tests."""
    data = {name: str(path) for name, path in made.paths("pep8").items()}
    inputs = {name: data[name] for name in ("tokens", "tokenizer")}
    inputs |= {"shards": str(made.folder / f"data/shards/pep8/{objective}"), "output": str(folder / "model")}
    inputs |= {"settings": f"{data['settings']}/{objective}/train.json", "curve": str(folder / "curve.csv")}
    words = {"task": "pep8", "objective": objective, "seed": "0", **inputs}
    return [word for name, value in words.items() for word in (f"--{name}", value)]


def test_training_needs_torch_transformers_and_little_else(made, tmp_path, monkeypatch, capsys):
    env = os.environ | {"PYTHONPATH": str(ROOT), "FRESHSTART_STATE": str(tmp_path / ".state")}
    command = [sys.executable, "-c", BARE, *of_stage(made, tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded:"
    assert (tmp_path / "model/value_head.safetensors").is_file()
    monkeypatch.setitem(sys.modules, "tqdm", None)  # transformers brings it, but it may go
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "LOG_EVERY_SECONDS", 0.0)
    assert list(progress.track([1, 2], "training", 2, "steps")) == [1, 2]
    assert re.fullmatch(r"training: 1/2 steps, [\d.,]+/s\ntraining: 2/2 steps in 0 s\n", capsys.readouterr().err)


@pytest.mark.slow
def test_kill_minus_nine_and_resume_through_the_door(made, tmp_path):
    """The door itself, killed half way and started again, writes the same model as one that was left alone."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "FRESHSTART_STATE": str(tmp_path / "state")}
    door = [sys.executable, "-m", "stages.train"]
    subprocess.run([*door, *of_stage(made, tmp_path / "whole")], cwd=tmp_path, env=env, check=True)
    killed = [*door, *of_stage(made, tmp_path / "killed")]
    kill_after_a_checkpoint(subprocess.Popen(killed, cwd=tmp_path, env=env), tmp_path / "state")
    subprocess.run(killed, cwd=tmp_path, env=env, check=True)
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


def kill_after_a_checkpoint(running, state, kill=None):
    while not list(Path(state).glob("checkpoints/*/step-*/state.json")):
        assert running.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    (kill or running.kill)()
    running.wait()


@pytest.mark.slow
def test_killed_at_twenty_random_moments(tmp_path, monkeypatch):
    """kill -9 to a run that writes a checkpoint every other step, at 20 moments: each goes on to the same weights."""
    import multiprocessing
    import random

    settings = replace(SETTINGS, checkpoint_every=2, snapshots=(0.5,))
    chosen = run(tmp_path / "whole", "awr", settings, positions=64 * 60)
    fork = multiprocessing.get_context("fork")
    build(SETTINGS, 60, 0, 0)  # its imports are made here, so that the moments fall into the runs

    def in_child(folder, after=None):
        monkeypatch.setenv("FRESHSTART_STATE", str(folder / ".state"))
        asked = replace(chosen, output=folder / "model", curve=folder / "curve.csv")
        child = fork.Process(target=train, args=(asked, {"name": "killed"}))
        begun = time.monotonic()
        child.start()
        child.join(after)
        killed = child.is_alive()
        if killed:
            child.kill()
        child.join()
        assert child.exitcode in ((-signal.SIGKILL, 0) if killed else (0,))  # it may end while it is being killed
        return time.monotonic() - begun

    in_child(tmp_path / "warm")
    whole = in_child(tmp_path / "whole")
    moments = random.Random(0)
    steps = []
    for number in range(20):
        folder = tmp_path / str(number)
        in_child(folder, moments.uniform(0.05, 0.95) * whole)
        saved = sorted(folder.glob(".state/checkpoints/*/step-*/state.json"))
        steps.append(int(saved[-1].parent.name.split("-")[1]) if saved else 0)
        in_child(folder)
        assert_equal(weights(tmp_path / "whole"), weights(folder))
        assert (tmp_path / "whole/curve.csv").read_text() == (folder / "curve.csv").read_text()
        snapshot = f"model/snapshots/{64 * 30}/model.safetensors"
        assert_equal(load_file(tmp_path / "whole" / snapshot), load_file(folder / snapshot))
    assert len(set(steps)) > 5, steps  # the moments were spread over the run
