"""Any causal language model of transformers is trained, written, read back and sampled; others are refused."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import follow
from test_training import SETTINGS, curve, rescale, run, state, vocabulary  # noqa: F401

from freshstart.errors import InputError
from freshstart.sampling.sampler import Decoding, sample
from freshstart.training.launch import Group
from freshstart.training.learner import Learner
from freshstart.training.loop import train
from freshstart.training.model import attend_causally, build, hidden_states, load, start_from, token_logprobs

GROUPED = {"intermediate_size": 64, "num_key_value_heads": 1}
SHAPES = {
    "gpt2": {},
    "llama": GROUPED,
    "qwen2": GROUPED | {"tie_word_embeddings": True},
    "qwen3": GROUPED | {"head_dim": 16},
    "gpt_neox": {"intermediate_size": 64},
}


@pytest.mark.parametrize(("architecture", "optimizer"), [*((name, "muon") for name in SHAPES), ("llama", "adamw")])
def test_architectures(tmp_path, architecture, optimizer):
    settings = replace(SETTINGS, architecture=architecture, shape=SHAPES[architecture], optimizer=optimizer)
    train(run(tmp_path, "awr", replace(settings, precision="bf16", schedule="wsd")), {"name": architecture})
    losses = curve(tmp_path)
    assert losses[-1] < losses[0] - 0.2
    model, _ = load(tmp_path / "model", "train")
    assert model.config.model_type == architecture
    drawn = sample(model, [[0]] * 4, 4, Decoding(0.7, 0.9, 0, 8, 0, (59,)), 0)
    assert model(torch.tensor([[0, *drawn[0].tokens]])).logits.isfinite().all()


@pytest.mark.parametrize(
    ("architecture", "shape", "message"),
    [
        ("granite", GROUPED | {"logits_scaling": 8.0}, "a way of its own"),
        ("gemma2", GROUPED | {"head_dim": 16}, "a way of its own"),
        ("gpt5", {}, "train.architecture gpt5: Unrecognized model identifier"),
        ("bert", {"intermediate_size": 64}, "a way of its own|train.architecture bert"),
    ],
)
def test_architectures_that_are_refused(architecture, shape, message):
    with pytest.raises(InputError, match=message):
        build(replace(SETTINGS, architecture=architecture, shape=shape), 60, 0, 0)


def test_a_pretrained_model_goes_on(tmp_path, monkeypatch):
    """The first loss of the second run is near the last of the first; a model of another shape is refused."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    train(run(tmp_path / "first", positions=64 * 60), {"name": "first"})
    start = str(tmp_path / "first/model")
    train(run(tmp_path / "second", settings=replace(SETTINGS, start=start)), {"name": "second"})
    first, second = curve(tmp_path / "first"), curve(tmp_path / "second")
    assert abs(second[0] - first[-1]) < 0.25 < first[0] - first[-1]
    for changes, message in (
        ({"start": start, "layers": 3}, r"train.layers is 3, but .* has 1"),
        ({"start": start, "context": 32}, r"train.context is 32, .* reads 16"),
        ({"start": "nowhere/at-all"}, r"train.start nowhere"),
    ):
        with pytest.raises(InputError, match=message):
            train(run(tmp_path / "third", settings=replace(SETTINGS, **changes)), {"name": "third"})


def test_a_pretrained_model_with_fewer_tokens_grows(tmp_path):
    model = build(SETTINGS, 60, 0, 0)
    model.save_pretrained(tmp_path / "small")
    grown = start_from(tmp_path / "small", SETTINGS, vocabulary(140, 128), 0, control=True)
    table = grown.get_input_embeddings().weight
    assert table.shape[0] == 256
    assert torch.equal(table[:128], model.get_input_embeddings().weight)
    with pytest.raises(InputError, match="has 128 tokens, the task's tokenizer 130 before its control tokens"):
        start_from(tmp_path / "small", SETTINGS, vocabulary(140, 130), 0, control=True)


@pytest.mark.parametrize(("objective", "unwanted"), [("mle", [57, 58, 59]), ("conditional", [58, 59])])
def test_a_pretrained_model_with_spare_rows(tmp_path, objective, unwanted):
    """Ids from the tokenizer's size on are never sampled; the old model's end of text, padding and dropout are gone."""
    settings = replace(SETTINGS, architecture="llama", shape=SHAPES["llama"])
    model = build(settings, 300, 299, 0)
    model.config.pad_token_id = 5
    model.config.attention_dropout = 0.3
    model.save_pretrained(tmp_path / "spare")
    started = run(tmp_path, objective, replace(settings, start=str(tmp_path / "spare")))
    record = train(replace(started, vocabulary=vocabulary(60, 57)), {"name": "spare"})
    rows = load(tmp_path / "model", "train")[0].get_input_embeddings().weight
    assert rows.shape[0] == 384
    assert not torch.equal(rows[5], model.get_input_embeddings().weight[5])
    assert record["unwanted"] == [*unwanted, *range(60, 384)]
    config, generation = (
        json.loads((tmp_path / f"model/{name}.json").read_text()) for name in ("config", "generation_config")
    )
    assert generation["suppress_tokens"] == record["unwanted"]
    assert generation["eos_token_id"] == generation["bos_token_id"] == generation["pad_token_id"] == 0
    assert (config["eos_token_id"], config["bos_token_id"], config["attention_dropout"]) == (0, 0, 0.0)
    assert config.get("pad_token_id") is None


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_a_chunked_loss_is_the_whole_one_and_that_of_the_softmax(chunk):
    torch.manual_seed(0)
    hidden = torch.randn(2, 9, 8, dtype=torch.float64, requires_grad=True)
    head = torch.randn(11, 8, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 11, (2, 9))
    weights = torch.randn(2, 9, dtype=torch.float64)
    results = []
    for pieces in (0, chunk):
        logp = token_logprobs(hidden, head, targets, pieces)
        results.append((logp, *torch.autograd.grad((weights * logp).sum(), (hidden, head))))
    for whole, chunked in zip(*results, strict=True):
        torch.testing.assert_close(whole, chunked, rtol=1e-12, atol=1e-12)
    expected = torch.log_softmax(hidden @ head.T, -1).gather(-1, targets[..., None]).squeeze(-1)
    torch.testing.assert_close(results[0][0], expected)


@pytest.mark.parametrize(
    ("objective", "backend"), [("mle", "eager"), ("unlikelihood", "eager"), ("rwr", "eager"), ("awr", "aot_eager")]
)
def test_a_step_is_one_graph(tmp_path, objective, backend):
    """What a GPU compiles has no break: every objective is traced whole, and the one with most parts backward too."""
    chosen = run(tmp_path, objective, replace(SETTINGS, precision="bf16"))
    learner = Learner(chosen.first_model().train(), chosen, Group(0, 1, torch.device("cpu")), chosen.first_model())
    batch = [torch.from_numpy(array) for array in chosen.rows.batch(chosen.rows.chosen(0, 4))]
    torch._dynamo.reset()
    loss, terms = torch.compile(learner, fullgraph=True, backend=backend)(*batch)
    loss.backward()
    plain, _ = learner(*batch)
    assert float(loss.detach()) == pytest.approx(float(plain.detach()), rel=1e-3)
    assert "nll" in terms


@pytest.mark.parametrize(
    ("architecture", "shape", "is_causal"),
    [("gpt2", {}, True), ("llama", GROUPED, True), ("mistral", GROUPED | {"sliding_window": 4}, False)],
)
def test_what_is_compiled_attends_without_a_mask(architecture, shape, is_causal):
    """The traced graph calls the fused kernel with ``is_causal`` and no mask; log p is that of plain attention."""
    settings = replace(SETTINGS, architecture=architecture, shape=shape)
    models = [build(settings, 60, 0, 0).train() for _ in range(2)]
    attend_causally(models[0], settings.context)
    calls = []

    def backend(module, _):
        calls.extend(node for node in module.graph.nodes if "scaled_dot_product" in str(node.target))
        return module.forward

    torch._dynamo.reset()
    traced = torch.compile(hidden_states, fullgraph=True, backend=backend)
    tokens = torch.randint(0, 60, (3, 17), generator=torch.Generator().manual_seed(0))
    logp = [
        token_logprobs(hidden(model, tokens[:, :-1]), model.get_output_embeddings().weight, tokens[:, 1:])
        for model, hidden in zip(models, (traced, hidden_states), strict=True)
    ]
    torch.testing.assert_close(*logp, rtol=0, atol=1e-5)
    assert [(node.kwargs["attn_mask"], node.kwargs["is_causal"]) for node in calls] == [(None, True)] * is_causal


def test_live_curves(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="pip install tensorboard (the extra `tensorboard`)")
    monkeypatch.setenv("FRESHSTART_TENSORBOARD", str(tmp_path / "live"))
    train(run(tmp_path), {"name": "live"})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next((tmp_path / "live").rglob("events*")).parent)).Reload()
    assert [round(event.value, 3) for event in events.Scalars("nll")] == [round(nll, 3) for nll in curve(tmp_path)]


def llama_tokenizer(folder, texts, end="<|end_of_text|>", stated=True):
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
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=[end], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast"} | ({"eos_token": {"content": end}} if stated else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture
def remade(made, workplace, door):
    """Make the tokenizer, the tokens and the shards of an objective of pep8 anew, under a changed scale."""

    def remake(objective, name, end=None, **train):
        rescale(workplace, tokenizer={"vocabulary": None, "name": name, "end_of_text": end}, train=train)
        follow(workplace, **{path: path for path in (name, train.get("start")) if path})
        data = {name: str(path) for name, path in made.paths("pep8").items()}
        cell = {"task": "pep8", "objective": objective}
        door("settings", task="pep8", inputs="inputs", output="settings")
        door("tokenizer", task="pep8", corpus=data["corpus"], output="tokenizer")
        scored = {name: data[name] for name in ("scored", "scorer")}
        door("tokens", task="pep8", **scored, tokenizer="tokenizer", output="tokens")
        door("shards", **cell, settings=f"settings/{objective}/shards.json", tokens="tokens", output="shards")
        inputs = {"settings": f"settings/{objective}/train.json", "shards": "shards", "tokenizer": "tokenizer"}
        return {**cell, "seed": 0, "tokens": "tokens"}, inputs, data

    return remake


def corpus_texts(made):
    import pyarrow.parquet as pq

    return pq.read_table(sorted((made.folder / "data/corpus/pep8/train").glob("*.parquet"))[0])["text"].to_pylist()


def test_a_tokenizer_whose_tokens_straddle_segments(made, tmp_path, remade, door):
    """Llama's shape, tokenizer and end of text, from the tokenizer stage to the metrics."""
    llama_tokenizer(tmp_path / "llama", corpus_texts(made))
    cell, inputs, data = remade("conditional", "llama", architecture="llama", shape=GROUPED, schedule="wsd")
    assert json.loads((tmp_path / "tokens/train/manifest.json").read_text())["share_straddling"] > 0.01
    door("train", **cell, **inputs, output="model", curve="curve.csv")
    common = {"scorer": data["scorer"], "mle": "model"}
    settings = {name: f"settings/{name}.json" for name in ("reference", "evaluate")}
    drawn = {"task": cell["task"], "seed": cell["seed"], "output": "reference"}
    door("reference", **drawn, **common, settings=settings["reference"])
    evaluated = {"heldout": f"{data['scored']}/heldout", "reference": "reference", "settings": settings["evaluate"]}
    outputs = {"samples": "samples.parquet", "metrics": "metrics.json"}
    door("evaluate", **cell, **common, **evaluated, model="model", **outputs)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["heldout"]["bits_per_byte"]["all"] > 0
    assert metrics["under"]["good"]["misalignment"]["n"] > 0


def test_a_tokenizer_with_an_end_of_text_of_its_own(made, tmp_path, remade, door):
    """Nothing is added but the control tokens, so that a model of its size goes on with it."""
    llama_tokenizer(tmp_path / "llama", corpus_texts(made))
    llama_tokenizer(tmp_path / "silent", corpus_texts(made)[:5], stated=False)
    pretrained = build(replace(SETTINGS, context=64), 1, 0, 0)
    pretrained.resize_token_embeddings(700)
    pretrained.save_pretrained(tmp_path / "pretrained")
    cell, inputs, _ = remade("conditional", "llama", start="pretrained")
    before = json.loads((tmp_path / "llama/tokenizer.json").read_text())
    after = json.loads((tmp_path / "tokenizer/tokenizer.json").read_text())
    assert before["model"] == after["model"]
    strings = [token["content"] for token in after["added_tokens"]]
    assert strings == ["<|end_of_text|>", "<|good|>", "<|bad|>"]
    manifest = json.loads((tmp_path / "tokens/train/manifest.json").read_text())
    assert (manifest["vocabulary"], manifest["end_of_text"]) == (702, 0)
    assert manifest["controls"][1] == {"name": "bad", "string": "<|bad|>", "id": 701}
    door("train", **cell, **inputs, output="model", curve="curve.csv")
    assert json.loads((tmp_path / "model/generation_config.json").read_text())["eos_token_id"] == 0
    assert json.loads((tmp_path / "model/tokenizer_config.json").read_text())["eos_token"] == "<|end_of_text|>"
    with pytest.raises(InputError, match=r"no token <\|endoftext\|>: write .* into tokenizer.<task>.end_of_text"):
        remade("mle", "silent")
    remade("mle", "silent", end="<|end_of_text|>")
