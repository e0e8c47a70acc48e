"""Training is exact: batches are a function of data, seed and step; a killed run resumed ends with the same bits."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

from freshstart import objectives
from freshstart.errors import InputError
from freshstart.tokens.store import Stream
from freshstart.training import TrainSettings, Vocabulary, loop, schedule, stops
from freshstart.training.checkpoint import Checkpoints, TrainState
from freshstart.training.loop import Run, train
from freshstart.training.model import build, token_logprobs
from freshstart.training.optimizers import optimizers
from freshstart.training.rows import Rows

SETTINGS = TrainSettings(
    layers=1,
    width=32,
    heads=2,
    context=16,
    batch_size=4,
    learning_rate=0.01,
    optimizer="muon",
    weight_decay=0.01,
    log_every=3,
    checkpoint_every=5,
)


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


def run(folder, objective="mle", settings=SETTINGS, positions=64 * 20, data=None, numbers=None):
    loaded = objectives.load(objective)
    if numbers is None:
        module = __import__(f"freshstart.objectives.{objective}", fromlist=["x"])
        chosen = module.Settings(good=objectives.Good(score=0.0), positions=positions)
        scores = np.nan_to_num((data or stream()).segment_scores)
        numbers = loaded.resolve(chosen, objectives.TrainScores(scores, np.full(len(scores), 10), scores))
    rows = Rows(data or stream(), settings.context, "digest", 0)
    vocabulary = Vocabulary(60, 0, 58, 59)
    return Run(
        "test", settings, loaded, numbers, rows, vocabulary, positions, 0, folder / "model", folder / "curve.csv"
    )


def weights(folder):
    found = {path.name: load_file(path) for path in (folder / "model").glob("*.safetensors")}
    return {f"{name}/{key}": tensor for name, tensors in found.items() for key, tensor in tensors.items()}


def assert_equal(left, right):
    assert left.keys() == right.keys()
    assert left
    for key in left:
        assert torch.equal(left[key], right[key]), key


@pytest.mark.parametrize("legs", [1, 4])
def test_rows_are_a_permutation_each_epoch(legs):
    rows = Rows(stream(), 16, "digest", 0, legs=legs)
    assert rows.count == 3999 // 16
    steps = rows.count // 4
    first = np.concatenate([rows.chosen(step, 4) for step in range(steps + 1)])
    assert len(set(first[: rows.count].tolist())) == rows.count
    np.testing.assert_array_equal(rows.chosen(7, 4), Rows(stream(), 16, "digest", 0, legs=legs).chosen(7, 4))
    assert not np.array_equal(rows.chosen(7, 4), Rows(stream(), 16, "digest", 1, legs=legs).chosen(7, 4))
    assert not np.array_equal(rows.chosen(7, 4), Rows(stream(), 16, "other", 0).chosen(7, 4))
    wide = np.concatenate([rows.chosen(step, 8) for step in range(10)])
    np.testing.assert_array_equal(wide, first[:80])  # the order does not depend on the size of a batch


def test_a_batch_holds_tokens_and_the_scores_of_its_targets():
    data = stream()
    rows = Rows(data, 16, "digest", 0)
    tokens, scores = rows.batch(np.array([3, 0]))
    assert tokens.shape == (2, 17)
    assert scores.shape == (2, 16)
    np.testing.assert_array_equal(tokens[0], data.tokens[48:65])
    np.testing.assert_array_equal(scores[0], data.scores(49, 65))


def test_distinct_documents_are_counted():
    data = stream()
    rows = Rows(data, 16, "digest", 0)
    ends = data.document_ends
    for steps in (1, 3, 10, 200):
        seen = {int(row) for step in range(steps) for row in rows.chosen(step, 4)}
        targets = np.array([p for row in seen for p in range(row * 16 + 1, row * 16 + 17)])
        assert set(np.flatnonzero(rows.documents(steps * 4))) == set(np.searchsorted(ends, targets, side="right"))
        inputs = targets - 1
        either = set(np.searchsorted(ends, [*targets, *inputs], side="right"))
        assert set(np.flatnonzero(rows.documents(steps * 4, inputs=True))) == either


def test_token_logprobs():
    torch.manual_seed(0)
    hidden, head, targets = torch.randn(2, 5, 8), torch.randn(11, 8), torch.randint(0, 11, (2, 5))
    expected = torch.log_softmax(hidden @ head.T, -1).gather(-1, targets[..., None]).squeeze(-1)
    torch.testing.assert_close(token_logprobs(hidden, head, targets), expected)


def test_initialisation_is_a_function_of_the_seed_alone():
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    one = build(SETTINGS, 60, 0, seed=0)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(5)
    assert_equal(one.state_dict(), build(SETTINGS, 60, 0, seed=0).state_dict())
    assert one.config.vocab_size == 128


def test_schedule():
    rates = [schedule.factor(step, 100, 0.1, "linear") for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert max(rates) == rates[10] == 1.0
    assert rates[99] == pytest.approx(1 / 90)
    assert schedule.factor(99, 100, 0.0, "cosine") < 0.001


@pytest.mark.parametrize("objective", ["mle", "unlikelihood", "rwr", "awr"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stopped_run_resumed_equals_an_undisturbed_one(tmp_path, monkeypatch, objective, precision):

    settings = replace(SETTINGS, precision=precision, dropout=0.1 if objective == "rwr" else 0.0)
    whole = run(tmp_path / "whole", objective, settings)
    record = train(whole, {"name": "whole", "train": vars(settings)})
    halves = run(tmp_path / "halves", objective, settings)
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
    data = stream()
    data = Stream(data.tokens, data.segment_ends, np.zeros_like(data.segment_scores), data.document_ends)
    saved = []
    original = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda *arguments: (original(*arguments), saved.append(arguments)))
    train(run(tmp_path, "rwr", data=data), {"name": "good"})
    assert saved
    rows = list(csv.DictReader((tmp_path / "curve.csv").read_text(encoding="utf-8").splitlines()))
    assert all(float(row["weight_good"]) > 0 for row in rows)
    assert not any(row.get("weight_bad") for row in rows)


def test_a_checkpoint_of_other_parameters_is_refused(tmp_path):
    checkpoints = Checkpoints.of({"seed": 0, "rate": 0.1})
    checkpoints.save(TrainState(step=5), {"model": torch.nn.Linear(2, 2)})
    other = Checkpoints(checkpoints.folder, {"seed": 0, "rate": 0.2})
    with pytest.raises(InputError, match=r"other parameters or data \(they differ in rate\)"):
        other.restore({"model": torch.nn.Linear(2, 2)})


def test_torn_checkpoints_are_ignored_and_two_are_kept():
    checkpoints = Checkpoints.of({"seed": 0})
    layer = torch.nn.Linear(2, 2)
    for step in (1, 2, 3, 4):
        with torch.no_grad():
            layer.weight.fill_(step)
        checkpoints.save(TrainState(step=step), {"model": layer})
    assert [path.name for path in checkpoints._found()] == ["step-000000003", "step-000000004"]
    (checkpoints.folder / "step-000000004/state.json").unlink()
    state = checkpoints.restore({"model": layer})
    assert state.step == 3
    assert layer.weight[0, 0] == 3


def test_a_full_disk_leaves_the_last_checkpoint_whole(monkeypatch):
    checkpoints = Checkpoints.of({"seed": 0})
    layer = torch.nn.Linear(2, 2)
    checkpoints.save(TrainState(step=1), {"model": layer})

    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(TrainState(step=2), {"model": layer})
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-000000001"]
    assert checkpoints.restore({"model": layer}).step == 1


def test_a_loss_that_is_not_finite_stops_before_the_model_is_touched(tmp_path, monkeypatch):
    chosen = run(tmp_path)
    poisoned = objectives.load("mle")
    calls = []

    def loss(logp, score, value, numbers):
        calls.append(1)
        return -logp * (float("nan") if len(calls) == 8 else 1.0), {}

    chosen = replace(chosen, objective=replace(poisoned, loss=loss))
    with pytest.raises(
        InputError, match=r"step 8 of 20: the gradient's norm is nan on rows \d+, \d+, \d+, \d+"
    ) as error:
        train(chosen, {"name": "nan"})
    named = [int(row) for row in str(error.value).split("on rows ")[1].split(".")[0].split(", ")]
    assert named == chosen.rows.chosen(7, 4).tolist()
    parts = {"model": build(SETTINGS, 60, 0, 0)}
    made = optimizers(parts["model"], None, SETTINGS)
    parts |= {f"optimizer-{i}": optimizer for i, optimizer in enumerate(made)}
    assert Checkpoints.of({"name": "nan"}).restore(parts).step == 5
    assert all(torch.isfinite(tensor).all() for tensor in parts["model"].state_dict().values())


def test_where_the_host_does_not_look_at_each_step_the_device_leaves_a_bad_one_out(tmp_path, monkeypatch):
    """As on a GPU: the step after which nothing is finite, and all behind it, leave the model alone till a log row."""
    settings = replace(SETTINGS, optimizer="adamw", log_every=10, checkpoint_every=100)
    models = []

    def deferred(made, group):
        guard = stops.Guard(made, group)
        guard.deferred = True
        return guard

    def poisoned(logp, score, value, numbers):
        models.append({name: p.detach().clone() for name, p in kept[0].named_parameters()})
        return -logp * (float("nan") if len(models) == 8 else 1.0), {}

    kept: list = []
    monkeypatch.setattr(loop, "Guard", deferred)
    monkeypatch.setattr(loop, "build", lambda *arguments: kept.append(build(*arguments)) or kept[0])
    chosen = run(tmp_path, settings=settings)
    with pytest.raises(InputError, match=r"step 8 of 20: the gradient's norm is nan"):
        train(replace(chosen, objective=replace(chosen.objective, loss=poisoned)), {"name": "deferred"})
    assert len(models) == 10
    assert not torch.equal(models[6]["transformer.wte.weight"], models[7]["transformer.wte.weight"])
    assert_equal(models[7], models[9])


def test_fewer_tokens_than_one_batch(tmp_path):
    with pytest.raises(InputError, match="3 rows of 16 positions, fewer than one batch of 4"):
        train(run(tmp_path, data=stream(60)), {})
    with pytest.raises(InputError, match="fewer than one row of 16"):
        Rows(stream(16), 16, "digest", 0)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="must be a multiple of heads"):
        TrainSettings(layers=1, width=30, heads=4, context=8, batch_size=1, learning_rate=0.1)


def test_the_model_learns_what_each_objective_asks(tmp_path):
    """Tokens 1..9 are good, 10..19 bad: likelihood learns both, the others shun the bad ones."""
    rng = np.random.default_rng(0)
    bad = rng.random(600) < 0.4
    spans = [rng.integers(10, 20, 6) if is_bad else rng.integers(1, 10, 6) for is_bad in bad]
    tokens = np.concatenate(spans).astype(np.uint16)
    ends = np.arange(6, len(tokens) + 1, 6)
    data = Stream(tokens, ends, bad.astype(np.float32), np.array([len(tokens)]))
    share = {}
    for objective in ("mle", "unlikelihood", "rwr", "awr"):
        chosen = run(tmp_path / objective, objective, positions=64 * 60, data=data)
        train(chosen, {"objective": objective})
        from freshstart.training.model import load

        model, _ = load(tmp_path / objective / "model", "train")
        with torch.no_grad():
            share[objective] = float(torch.softmax(model(torch.tensor([[1, 2, 3]])).logits[0, -1], 0)[10:20].sum())
    assert share["mle"] > 1.3 * max(share[name] for name in ("unlikelihood", "rwr", "awr")), share


def test_hub_format_generates_without_unwanted_tokens(tmp_path):
    from transformers import AutoModelForCausalLM

    train(run(tmp_path, "conditional"), {"name": "hub"})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    config = loaded.generation_config
    assert config.suppress_tokens == [59, *range(60, 128)]
    assert (config.temperature, config.top_p, config.do_sample) == (0.7, 0.9, True)
    text = loaded.generate(torch.tensor([[0, 58]] * 64), attention_mask=torch.ones(64, 2, dtype=torch.long))
    assert not set(text.flatten().tolist()) & {59, *range(60, 128)}
    record = json.loads((tmp_path / "model/freshstart.json").read_text())
    assert record["unwanted"] == config.suppress_tokens
    assert record["positions"] == 64 * 20


@pytest.mark.slow
def test_kill_minus_nine_and_resume_through_the_door(made, tmp_path):
    """The door itself, killed half way and started again, writes the same model as one that was left alone."""
    for folder in ("conf", "params.yaml"):
        source = made.folder / folder
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / folder)
    data = made.paths("pep8")

    def command(name):
        return [
            *(sys.executable, "-m", "stages.train", "--task", "pep8", "--objective", "awr", "--seed", "0"),
            *("--tokens", str(data["tokens"]), "--shards", str(made.folder / "data/shards/pep8/awr")),
            *("--tokenizer", str(data["tokenizer"]), "--output", str(tmp_path / name / "model")),
            *("--curve", str(tmp_path / name / "curve.csv")),
        ]

    env = os.environ | {"PYTHONPATH": str(ROOT), "FRESHSTART_STATE": str(tmp_path / "state-whole")}
    subprocess.run(command("whole"), cwd=tmp_path, env=env, check=True)
    env["FRESHSTART_STATE"] = str(tmp_path / "state-killed")
    running = subprocess.Popen(command("killed"), cwd=tmp_path, env=env)
    while not list((tmp_path / "state-killed").glob("checkpoints/*/step-*/state.json")):
        assert running.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    running.kill()
    running.wait()
    subprocess.run(command("killed"), cwd=tmp_path, env=env, check=True)
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


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
        own = replace(chosen, output=folder / "model", curve=folder / "curve.csv")
        child = fork.Process(target=train, args=(own, {"name": "killed"}))
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
