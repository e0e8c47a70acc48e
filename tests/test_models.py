"""Any causal language model of transformers is trained, written, read back and sampled; others are refused."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_training import SETTINGS, run

from freshstart.errors import InputError
from freshstart.sampling.sampler import Decoding, sample
from freshstart.training import Vocabulary, schedule
from freshstart.training.launch import Group
from freshstart.training.loop import train
from freshstart.training.model import build, load, token_logprobs
from freshstart.training.trainee import Trainee

SHAPES = {
    "gpt2": {},
    "llama": {"intermediate_size": 64, "num_key_value_heads": 1},
    "qwen2": {"intermediate_size": 64, "num_key_value_heads": 1, "tie_word_embeddings": True},
    "qwen3": {"intermediate_size": 64, "num_key_value_heads": 1, "head_dim": 16},
    "gpt_neox": {"intermediate_size": 64},
}


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("FRESHSTART_STATE", str(tmp_path / ".state"))


def curve(folder: Path) -> list[float]:
    return [float(row["nll"]) for row in csv.DictReader((folder / "curve.csv").read_text().splitlines())]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("architecture", SHAPES)
def test_architectures(tmp_path, architecture, optimizer):
    settings = replace(SETTINGS, architecture=architecture, shape=SHAPES[architecture], optimizer=optimizer)
    train(run(tmp_path, "awr", replace(settings, precision="bf16", schedule="wsd")), {"name": architecture})
    losses = curve(tmp_path)
    assert losses[-1] < losses[0] - 0.2
    model, _ = load(tmp_path / "model", "train")
    assert model.config.model_type == architecture
    drawn = sample(model, [0], 4, 4, Decoding(0.7, 0.9, 0, 8, 0, (59,)), 0)
    again = torch.tensor([[0, *drawn[0].tokens]])
    assert model(again).logits.isfinite().all()


@pytest.mark.parametrize(
    ("architecture", "shape", "message"),
    [
        ("granite", {"intermediate_size": 64, "num_key_value_heads": 1, "logits_scaling": 8.0}, "a way of its own"),
        ("gemma2", {"intermediate_size": 64, "num_key_value_heads": 1, "head_dim": 16}, "a way of its own"),
        ("gpt5", {}, "train.architecture gpt5: Unrecognized model identifier"),
        ("bert", {"intermediate_size": 64}, "a way of its own|train.architecture bert"),
    ],
)
def test_architectures_that_are_refused(architecture, shape, message):
    with pytest.raises(InputError, match=message):
        build(replace(SETTINGS, architecture=architecture, shape=shape), 60, 0, 0)


def test_a_pretrained_model_goes_on(tmp_path):
    """The first loss of the second run is near the last of the first; a model of another shape is refused."""
    train(run(tmp_path / "first", positions=64 * 60), {"name": "first"})
    start = str(tmp_path / "first/model")
    train(run(tmp_path / "second", settings=replace(SETTINGS, start=start)), {"name": "second"})
    first, second = curve(tmp_path / "first"), curve(tmp_path / "second")
    assert abs(second[0] - first[-1]) < 0.25 < first[0] - first[-1]
    with pytest.raises(InputError, match=r"train.layers is 3, but .* has 1"):
        train(run(tmp_path / "third", settings=replace(SETTINGS, start=start, layers=3)), {"name": "third"})
    with pytest.raises(InputError, match=r"train.start nowhere"):
        train(run(tmp_path / "third", settings=replace(SETTINGS, start="nowhere/at-all")), {"name": "third"})


def test_a_pretrained_model_with_fewer_tokens_grows(tmp_path):
    from freshstart.training.model import go_on

    model = build(SETTINGS, 60, 0, 0)
    model.save_pretrained(tmp_path / "small")
    grown = go_on(tmp_path / "small", SETTINGS, Vocabulary(140, 0, 128, 129), 0, control=True)
    table = grown.get_input_embeddings().weight
    assert table.shape[0] == 256
    assert torch.equal(table[:128], model.get_input_embeddings().weight)
    with pytest.raises(InputError, match="has 128 tokens, the task's tokenizer 130 before its control tokens"):
        go_on(tmp_path / "small", SETTINGS, Vocabulary(140, 0, 130, 131), 0, control=True)


def test_warmup_stable_decay():
    rates = [schedule.factor(step, 100, 0.1, "wsd", 0.2) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:80] == [1.0] * 70
    assert rates[80:] == pytest.approx([(100 - step) / 20 for step in range(80, 100)])


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_a_chunked_loss_is_the_whole_one(chunk):
    torch.manual_seed(0)
    hidden = torch.randn(2, 9, 8, dtype=torch.float64, requires_grad=True)
    head = torch.randn(11, 8, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 11, (2, 9))
    weights = torch.randn(2, 9, dtype=torch.float64)
    found = []
    for pieces in (0, chunk):
        logp = token_logprobs(hidden, head, targets, pieces)
        found.append((logp, *torch.autograd.grad((weights * logp).sum(), (hidden, head))))
    for whole, chunked in zip(*found, strict=True):
        torch.testing.assert_close(whole, chunked, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("objective", ["mle", "unlikelihood", "rwr", "awr"])
def test_a_step_is_one_graph(tmp_path, objective):
    """What a GPU compiles has no break: every objective is traced whole, forward and backward."""
    chosen = run(tmp_path, objective)
    model = chosen.begun().train()
    trainee = Trainee(model, chosen.objective, chosen.numbers, True, 0, Group(0, 1, torch.device("cpu")))
    tokens, scores = chosen.rows.batch(chosen.rows.chosen(0, 4))
    torch._dynamo.reset()
    loss, terms = torch.compile(trainee, fullgraph=True, backend="aot_eager")(
        torch.from_numpy(tokens), torch.from_numpy(scores)
    )
    loss.backward()
    plain, _ = trainee(torch.from_numpy(tokens), torch.from_numpy(scores))
    assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-3)
    assert "nll" in terms


def test_live_curves(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="pip install tensorboard (the extra `tensorboard`)")
    monkeypatch.setenv("FRESHSTART_TENSORBOARD", str(tmp_path / "live"))
    train(run(tmp_path), {"name": "live"})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next((tmp_path / "live").rglob("events*")).parent)).Reload()
    assert [round(event.value, 3) for event in events.Scalars("nll")] == [round(one, 3) for one in curve(tmp_path)]


def gpt4_tokenizer(folder: Path, texts: list[str]) -> None:
    """A byte-level BPE with the pattern of GPT-4 and Llama 3, which joins `):` and the line break behind it."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_a_tokenizer_whose_tokens_straddle_segments(made, tmp_path, monkeypatch, door):
    """Llama's shape with a tokenizer of GPT-4's kind, from the tokenizer stage to the metrics."""
    import pyarrow.parquet as pq

    for name in ("conf", "params.yaml"):
        (shutil.copytree if (made.folder / name).is_dir() else shutil.copy)(made.folder / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    data = {name: str(path) for name, path in made.paths("pep8").items()}
    parts = sorted((made.folder / "data/corpus/pep8/train").glob("*.parquet"))
    gpt4_tokenizer(tmp_path / "gpt4", pq.read_table(parts[0])["text"].to_pylist())
    scale = tmp_path / "conf/scale/tests.yaml"
    text = scale.read_text().replace("tokenizer:\n  every: {vocabulary: 512}", "tokenizer:\n  every: {name: gpt4}")
    shape = "architecture: llama\n    shape: {intermediate_size: 64, num_key_value_heads: 1}\n    schedule: wsd"
    scale.write_text(text.replace("layers: 1", f"layers: 1\n    {shape}"))
    own = {"corpus": data["corpus"], "scorer": data["scorer"], "scored": data["scored"]}
    door("tokenizer", task="pep8", corpus=own["corpus"], output="tokenizer")
    door("tokens", task="pep8", scored=own["scored"], tokenizer="tokenizer", scorer=own["scorer"], output="tokens")
    assert json.loads((tmp_path / "tokens/train/manifest.json").read_text())["share_straddling"] > 0.01
    door("shards", task="pep8", objective="conditional", tokens="tokens", output="shards")
    common = {"task": "pep8", "objective": "conditional", "seed": 0, "tokens": "tokens", "shards": "shards"}
    door("train", **common, tokenizer="tokenizer", output="model", curve="curve.csv")
    rest = {"scorer": own["scorer"], "samples": "samples.parquet", "metrics": "metrics.json"}
    door("evaluate", **common, model="model", reference="model", **rest)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["heldout"]["bits_per_byte"]["all"] > 0
    assert metrics["misalignment"]["n"] > 0
