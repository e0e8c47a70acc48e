"""Neural scorers: Detoxify's format through the real package, any classifier in the hub's format, a learned encoder.

Everything runs offline, on networks of two small layers that are made here.
"""

import csv
import functools
import gzip
import hashlib
import http.server
import json
import math
import random
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from conftest import prose, shared_data
from transformers import BertConfig, BertForSequenceClassification, RobertaConfig, RobertaForSequenceClassification

from freshstart import files, scorers
from freshstart.errors import InputError
from freshstart.scorers import classifier, encoder, learning, neural
from freshstart.scoring.segments import sentences

PINS = {"detoxify": "0.5.4", "transformers": "5.23.0"}
CLASSES = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
POSITIONS = 64


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # read when the package is imported, so that both are needed
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("FRESHSTART_STATE", str(tmp_path / ".state"))


@functools.lru_cache
def real_sentences(count=400):
    texts = []
    for _, text in prose():
        texts += scorers.pieces(text, sentences(text[:4000]))
        if len(texts) >= count:
            break
    return tuple(texts[:count])


def network(kind="bert", labels=6, seed=0):
    torch.manual_seed(seed)
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "initializer_range": 0.5,  # wide, so that scores spread
        "num_labels": labels,
        "vocab_size": len(tokenizer()),
        "pad_token_id": 0,
    }
    if kind == "roberta":  # its positions begin behind the padding token's
        return RobertaForSequenceClassification(RobertaConfig(max_position_embeddings=POSITIONS + 1, **shape)).eval()
    return BertForSequenceClassification(BertConfig(max_position_embeddings=POSITIONS, **shape)).eval()


@functools.lru_cache
def tokenizer():
    return encoder.byte_pairs(real_sentences(), 600, POSITIONS)


def hub_folder(folder, model, weights=True):
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    if not weights:
        (folder / "model.safetensors").unlink()
    tokenizer().save_pretrained(folder)
    return folder


def checkpoint(path, model, classes=CLASSES, state=None, **described):
    args = {
        "num_classes": len(classes),
        "model_type": "bert-base-uncased",
        "model_name": type(model).__name__,
        "tokenizer_name": "PreTrainedTokenizerFast",
        **described,
    }
    config = {"arch": {"args": args}, "dataset": {"args": {"classes": list(classes)}}}
    torch.save({"state_dict": state or model.state_dict(), "config": config}, path)
    return path


@pytest.fixture
def made(tmp_path):
    """A tiny network, its checkpoint in Detoxify's format, and its encoder's folder."""
    model = network()
    where = hub_folder(tmp_path / "encoder", model, weights=False)
    return model, checkpoint(tmp_path / "tiny.ckpt", model), where


def described(kind, folder, **options):
    """The scorer stage's own steps, through its settings; gives the scorer as a later stage loads it."""
    settings = scorers.settings({"kind": kind, "segments": "sentences", **options}, "scorer.toxicity")
    scorers.make(settings, files.fresh_folder(folder))
    return scorers.load(folder, "toxicity")


def toxic(folder, path, where, **options):
    return described("detoxify", folder, checkpoint=str(path), encoder=str(where), **PINS, **options)


def old_files(folder, kind):
    """A network with the files that an encoder of 2020 has on the hub: a vocabulary, and no tokenizer.json."""
    from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer

    special = {"bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], "roberta": ["<s>", "<pad>", "</s>", "<unk>"]}
    trainer = BertWordPieceTokenizer() if kind == "bert" else ByteLevelBPETokenizer()
    trainer.train_from_iterator(
        real_sentences(), vocab_size=500, special_tokens=[*special[kind], "<mask>"], show_progress=False
    )
    model = network(kind)
    model.config.save_pretrained(folder)
    trainer.save_model(str(folder))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "model_max_length": POSITIONS}))
    return model


def test_tiny_checkpoints_score_as_the_real_package_does(made, tmp_path):
    """Offline, in a process of its own, Detoxify's own predict; equal but for the rounding of a shape."""
    model, _, where = made
    encoders = {"PreTrainedTokenizerFast": (model, where)}
    for kind, name in (("bert", "BertTokenizer"), ("roberta", "RobertaTokenizer")):
        folder = tmp_path / kind
        encoders[name] = (old_files(folder, kind), folder)
    paths = {
        name: checkpoint(tmp_path / f"{name}.ckpt", model, tokenizer_name=name, model_type=str(folder))
        for name, (model, folder) in encoders.items()
    }
    short = [text for text in real_sentences() if len(text.encode()) < POSITIONS - 2]
    code = (
        "import json, sys\n"
        "from detoxify import Detoxify\n"
        "texts = json.load(sys.stdin)\n"
        "print(json.dumps([Detoxify(checkpoint=path).predict(texts)['toxicity'] for path in sys.argv[1:]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths.values())],
        input=json.dumps(short),
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(short) > 100
    for (name, path), own in zip(paths.items(), json.loads(done.stdout), strict=True):
        scorer, record = toxic(tmp_path / "scorer", path, encoders[name][1])
        ours = scorer.score_texts(short)
        assert np.abs(np.array(own) - np.array(ours)).max() < 1e-5
        assert np.std(ours) > 0.01
        assert record["model"] == {
            "weights_sha256": files.sha256(path),
            "limit": POSITIONS,
            "classes": ["toxicity", "severe_toxicity", "obscene", "threat", "insult", "identity_attack"],
        }
        assert record["files"].keys() >= {"config.json", "model.safetensors", "tokenizer.json"}


def test_each_class_is_read_by_its_name(made, tmp_path):
    model, path, where = made
    scorer, _ = toxic(tmp_path / "scorer", path, where, label="identity_attack")
    ids = tokenizer()(["fine words"], return_tensors="pt")
    with torch.no_grad():
        wanted = torch.sigmoid(model(**ids).logits)[0, 5].item()
    assert scorer.score_texts(["fine words"]) == pytest.approx([wanted], abs=1e-6)
    with pytest.raises(InputError, match="has no label 'rude'; it has 0 toxicity, 1 severe_toxicity"):
        toxic(tmp_path / "other", path, where, label="rude")


def without(model, *names):
    return {name: tensor for name, tensor in model.state_dict().items() if name not in names}


def spoiled(model, value):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state["bert.encoder.layer.1.output.dense.weight"][3, 4] = value
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: {"state": without(m, "classifier.weight")}, "lacks classifier.weight: it is no whole classifier"),
        (lambda m: {"state": {**m.state_dict(), "head.bias": torch.zeros(2)}}, "does not have: head.bias"),
        (lambda m: {"state": {f"model.{k}": v for k, v in m.state_dict().items()}}, "take the prefix 'model.' off"),
        (lambda m: {"state": spoiled(m, math.nan)}, "not finite in bert.encoder.layer.1.output.dense.weight"),
        (lambda m: {"state": spoiled(m, math.inf)}, "not finite in bert.encoder.layer.1.output.dense.weight"),
        (lambda m: {"state": {**m.state_dict(), "classifier.bias": torch.zeros(5)}}, "could not be loaded.*mismatch"),
        (lambda m: {"classes": CLASSES[:4], "num_classes": 6}, "expected names for its 6 outputs .* found toxic, sev"),
        (lambda m: {"model_name": "NoSuchNetwork"}, "could not be loaded"),
        (lambda m: {"extra": 1}, "config.arch.args must hold model_name, model_type"),
    ],
    ids=["missing", "unexpected", "prefix", "nan", "infinite", "shape", "classes", "architecture", "arguments"],
)
def test_a_checkpoint_that_is_not_whole_is_refused(made, tmp_path, change, message):
    model, path, where = made
    checkpoint(path, model, **change(model))
    with pytest.raises(InputError, match=message):
        toxic(tmp_path / "scorer", path, where)


def test_buffers_of_old_versions_are_no_unexpected_weights(made, tmp_path):
    model, path, where = made
    positions = {"bert.embeddings.position_ids": torch.arange(POSITIONS)[None]}
    wanted = toxic(tmp_path / "scorer", path, where)[0].score_texts(real_sentences()[:20])
    checkpoint(path, model, state={**positions, **model.state_dict()})
    assert toxic(tmp_path / "scorer", path, where)[0].score_texts(real_sentences()[:20]) == wanted


def test_identities_behind_the_classes_are_outputs_with_names(tmp_path):
    model = network(labels=9)
    where = hub_folder(tmp_path / "encoder", model, weights=False)
    path = checkpoint(tmp_path / "tiny.ckpt", model, num_classes=9)
    loaded = torch.load(path, weights_only=True)
    loaded["config"]["dataset"]["args"]["identity_classes"] = ["male", "female", "black"]
    torch.save(loaded, path)
    _, record = toxic(tmp_path / "scorer", path, where)
    assert record["model"]["classes"][-3:] == ["male", "female", "black"]


def test_a_wrong_hash_is_refused(made, tmp_path):
    _, path, where = made
    toxic(tmp_path / "scorer", path, where, sha256=files.sha256(path))
    with pytest.raises(InputError, match=f"has SHA-256 {files.sha256(path)}, expected {'0' * 64}"):
        toxic(tmp_path / "scorer", path, where, sha256="0" * 64)
    with pytest.raises(InputError, match="64 hexadecimal digits"):
        toxic(tmp_path / "scorer", path, where, sha256="abc")


def test_a_file_that_changed_after_it_was_described_is_refused(made, tmp_path):
    _, path, where = made
    folder = tmp_path / "scorer"
    toxic(folder, path, where)
    network(seed=1).save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other/model.safetensors", folder)
    with pytest.raises(InputError, match="model.safetensors is not the file that scorer.json names"):
        scorers.load(folder, "toxicity")


def test_a_checkpoint_that_is_a_program_is_not_run(made, tmp_path):
    model, path, where = made
    trace = tmp_path / "was_run"

    class Program:
        def __reduce__(self):
            return exec, (f"open({str(trace)!r}, 'w')",)

    torch.save({"state_dict": model.state_dict(), "config": Program()}, path)
    with pytest.raises(InputError, match="holds more than tensors and plain values, which loading would run"):
        toxic(tmp_path / "scorer", path, where)
    assert not trace.exists()


def test_a_cut_checkpoint_is_refused(made, tmp_path):
    _, path, where = made
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="is not a whole checkpoint"):
        toxic(tmp_path / "scorer", path, where)
    with pytest.raises(InputError, match="absent.ckpt is missing: set scorer.<task>.checkpoint to its path"):
        toxic(tmp_path / "scorer", tmp_path / "absent.ckpt", where)


def test_without_the_encoders_files_one_message_says_what_to_get(made, tmp_path):
    _, path, _ = made
    with pytest.raises(InputError) as raised:
        described("detoxify", tmp_path / "scorer", checkpoint=str(path), **PINS)
    message = str(raised.value)
    assert "https://huggingface.co/bert-base-uncased/tree/main" in message
    assert "scorer.<task>.encoder" in message
    assert "kind: classifier" in message


def test_a_tokenizer_without_a_limit_gets_the_encoders(tmp_path):
    """Detoxify itself raises on these texts: truncation knows no limit. RoBERTa has one position less than rows."""
    for kind in ("bert", "roberta"):
        model = network(kind)
        where = hub_folder(tmp_path / kind, model, weights=False)
        raw = json.loads((where / "tokenizer_config.json").read_text())
        raw.pop("model_max_length")
        (where / "tokenizer_config.json").write_text(json.dumps(raw))
        path = checkpoint(tmp_path / f"{kind}.ckpt", model)
        scorer, _ = toxic(tmp_path / "scorer", path, where)
        assert scorer.network.tokenizer.model_max_length > 1e6
        assert scorer.network.limit == POSITIONS
        assert all(0 <= score <= 1 for score in scorer.score_texts([" ".join(real_sentences()[:50])]))


def test_long_texts_are_read_in_overlapping_windows(made, tmp_path):
    """A planted word counts wherever it stands, and the score is the worst window's."""
    _, path, where = made
    scorer, _ = toxic(tmp_path / "scorer", path, where)
    text = " ".join(real_sentences()[:40])
    ids = tokenizer()(text, add_special_tokens=False)["input_ids"]
    windows = neural.read(scorer.network, [text])[0]
    inner = [window[1:-1] for window in windows]
    most, overlap = POSITIONS - 1 - 2, (POSITIONS - 1) // 4
    assert len(windows) > 10
    assert all(len(window) <= most for window in inner)
    joined = inner[0]
    for window in inner[1:]:
        assert joined[-overlap:] == window[:overlap]
        joined = joined + window[overlap:]
    assert joined == ids
    parts = [tokenizer().decode(window) for window in inner]
    exact = [part for part, window in zip(parts, inner, strict=True) if tokenizer()(part)["input_ids"][1:-1] == window]
    assert len(exact) > 5
    whole = scorer.score_texts([text])[0]
    assert whole >= max(scorer.score_texts(exact))
    assert whole in {scorer.badness(row) for row in neural.outputs(scorer.network, [text])[0]}


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_score_depends_on_its_text_alone(kind, tmp_path):
    """Bit for bit: alone, in any company, in any order, repeated, as documents, with more threads."""
    model = network(kind)
    path = checkpoint(tmp_path / "tiny.ckpt", model)
    scorer, _ = toxic(tmp_path / "scorer", path, hub_folder(tmp_path / "encoder", model, weights=False))
    pieces = [" ".join(real_sentences()[n : n + 6]) for n in range(0, 60, 6)]
    texts = list(dict.fromkeys([*real_sentences(), *pieces, "", " ", "\n\nx"]))
    together = dict(zip(texts, scorer.score_texts(texts), strict=True))
    rng = random.Random(0)
    for size in (1, 2, 7, 50):
        shuffled = rng.sample(texts, len(texts))
        for begin in range(0, len(shuffled) if size > 1 else 60, size):
            some = shuffled[begin : begin + size]
            assert scorer.score_texts(some) == [together[text] for text in some]
    assert scorer.score_texts([texts[3]] * 5) == [together[texts[3]]] * 5
    documents = [(text, sentences(text)) for text in pieces]
    alone = [scorer.score([document])[0] for document in documents]
    assert scorer.score(documents) == alone
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert scorer.score_texts(texts) == list(together.values())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_rows_always_end_in_padding():
    """A batch without padding would go another way through attention than one with."""
    for limit in (16, 100, 128, 512, 4096):
        steps = neural.lengths(limit)
        assert steps[-1] == limit
        assert steps == sorted(set(steps))
        for tokens in range(1, limit):
            length = next(step for step in steps if tokens < step)
            assert tokens < length <= max(tokens + 8, tokens * 9 // 8 + 8)


def test_a_text_without_a_finite_score_makes_its_document_an_error(made, tmp_path):
    _, path, where = made
    scorer, _ = toxic(tmp_path / "scorer", path, where)
    fine = "Plain words."
    word = "\u4e16"  # a character of bytes that no other text here has
    bad = tokenizer()(word)["input_ids"][2]
    with torch.no_grad():
        scorer.network.model.bert.embeddings.word_embeddings.weight[bad] = math.nan
    clean, other = scorer.score([(fine, [len(fine)]), (f"A {word} b.", [6])])
    assert clean.error is None
    assert other.error == "ValueError: the network gave a number that is not finite"
    assert other.scores == ()
    with pytest.raises(ValueError, match="not finite"):
        scorer.score_texts([word])


def test_a_text_that_can_not_be_tokenised_is_an_error_of_its_own(made, tmp_path):
    _, path, where = made
    scorer, _ = toxic(tmp_path / "scorer", path, where)
    fine, broken = scorer.score([("fine", [4]), ("a \ud800 b", [5])])
    assert fine.scores
    assert broken.error


class Files(http.server.BaseHTTPRequestHandler):
    """Serves one file with byte ranges; breaks off where it is told to, and is then out of order."""

    body = b""
    break_after = None
    asked: list = []  # noqa: RUF012

    def do_GET(self):
        begin = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
        type(self).asked.append(begin)
        if begin and type(self).break_after is not None:
            self.send_error(503)
            return
        if begin >= len(self.body):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(self.body) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(self.body) - 1}/{len(self.body)}")
        self.end_headers()
        self.wfile.write(self.body[begin : type(self).break_after])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def released(made, monkeypatch, tmp_path):
    """Released weights of the variant unbiased, under their name, on a server of this machine."""
    from detoxify import detoxify as package

    _, path, where = made
    body = path.read_bytes()
    handler = type("Handler", (Files,), {"body": body, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    name = f"toxic_tiny-{hashlib.sha256(body).hexdigest()[:8]}.ckpt"
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setitem(package.MODEL_URLS, "unbiased", f"{address}/{name}")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # this machine's server is asked alone
    yield handler, where, name, files.sha256(path)
    server.shutdown()


def test_named_weights_are_downloaded_once_and_checked(released, tmp_path):
    handler, where, name, digest = released
    options = {"variant": "unbiased", "encoder": str(where), **PINS}
    first, record = described("detoxify", tmp_path / "scorer", **options)
    kept = tmp_path / ".state/weights" / name
    assert handler.asked == [0]
    assert files.sha256(kept) == digest == record["model"]["weights_sha256"]
    described("detoxify", tmp_path / "again", **options)
    assert handler.asked == [0]
    kept.write_bytes(b"damaged")
    with pytest.raises(InputError, match=f"expected {digest[:8]}: it is damaged or another file"):
        described("detoxify", tmp_path / "again", **options)
    kept.unlink()  # deleting it costs time, and only where the scorer is made anew
    loaded, _ = scorers.load(tmp_path / "scorer", "toxicity")
    assert loaded.score_texts(["some words"]) == first.score_texts(["some words"])
    assert handler.asked == [0]
    described("detoxify", tmp_path / "again", **options)
    assert handler.asked == [0, 0]


def test_a_download_that_broke_off_goes_on_where_it_stopped(released, tmp_path, monkeypatch):
    handler, where, name, digest = released
    options = {"variant": "unbiased", "encoder": str(where), **PINS}
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 5_000)  # what came is kept in steps of it
    handler.break_after = 10_000
    with pytest.raises(InputError) as raised:
        described("detoxify", tmp_path / "scorer", **options)
    message = str(raised.value)
    for part in ("503", f"/{name}", ".state/weights", "scorer.<task>.checkpoint", "kind: classifier"):
        assert part in message
    assert not (tmp_path / ".state/weights" / name).exists()
    assert (tmp_path / ".state/weights" / f"{name}.part").stat().st_size == 10_000
    handler.break_after = None
    handler.asked.clear()
    _, record = described("detoxify", tmp_path / "scorer", **options)
    assert handler.asked == [10_000]
    assert record["model"]["weights_sha256"] == digest


def test_a_download_that_was_stopped_at_its_end_is_taken(released, tmp_path):
    handler, where, name, digest = released
    weights = files.state_folder("weights")
    (weights / f"{name}.part").write_bytes(handler.body)
    _, record = described("detoxify", tmp_path / "scorer", variant="unbiased", encoder=str(where), **PINS)
    assert record["model"]["weights_sha256"] == digest
    assert [path.name for path in weights.iterdir()] == [name]


def test_downloaded_weights_of_another_hash_are_not_kept(released, tmp_path):
    handler, where, _, _ = released
    handler.body = handler.body[:-1] + b"\x01"
    with pytest.raises(InputError, match="has SHA-256 .* expected"):
        described("detoxify", tmp_path / "scorer", variant="unbiased", encoder=str(where), **PINS)
    assert list((tmp_path / ".state/weights").iterdir()) == []


def test_bf16_needs_a_gpu(made, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    _, path, where = made
    with pytest.raises(InputError, match="precision: bf16 needs a GPU"):
        toxic(tmp_path / "scorer", path, where, precision="bf16")


def hub(folder, model, **options):
    return described("hf_classifier", folder, model=str(model), transformers="5.23.0", **options)


def test_any_classifier_is_a_scorer(tmp_path):
    """Label by name and number, both activations, either direction: against transformers' own pipeline."""
    from transformers import pipeline

    model = network(labels=3, seed=4)
    model.config.id2label = {0: "fine", 1: "rude", 2: "odd"}
    where = hub_folder(tmp_path / "own", model)
    text = "A few plain words."
    for activation in ("softmax", "sigmoid"):
        classify = pipeline(
            "text-classification", model=str(where), device="cpu", top_k=None, function_to_apply=activation
        )
        own = {answer["label"]: answer["score"] for answer in classify([text])[0]}
        for label in ("rude", "1"):
            scorer, record = hub(tmp_path / "scorer", where, label=label, activation=activation)
            assert scorer.score_texts([text]) == pytest.approx([own["rude"]], abs=1e-6)
        scorer, _ = hub(tmp_path / "scorer", where, label="fine", activation=activation, direction="inverted")
        assert scorer.score_texts([text]) == pytest.approx([1 - own["fine"]], abs=1e-6)
    assert record["model"] == {"limit": POSITIONS, "labels": ["fine", "rude", "odd"]}
    assert "model.safetensors" in record["files"]
    with pytest.raises(InputError, match="has no label 'bad'; it has 0 fine, 1 rude, 2 odd"):
        hub(tmp_path / "scorer", where, label="bad")


def test_a_model_without_its_head_is_refused(tmp_path):
    from transformers import BertModel

    where = hub_folder(tmp_path / "own", network(labels=2))
    BertModel(network().config).save_pretrained(where)
    with pytest.raises(InputError, match="lacks classifier.bias, classifier.weight"):
        hub(tmp_path / "scorer", where, label="1")


def test_a_hub_model_needs_its_commit(tmp_path):
    with pytest.raises(InputError, match="is no folder here: give one, or a hub id and in revision"):
        hub(tmp_path / "scorer", "someone/toxic", label="1")
    with pytest.raises(InputError, match="40 hexadecimal digits"):
        hub(tmp_path / "scorer", "someone/toxic", label="1", revision="main")
    with pytest.raises(InputError, match=f"someone/toxic/tree/{'a' * 40} into a folder and set scorer.<task>.model"):
        hub(tmp_path / "scorer", "someone/toxic", label="1", revision="a" * 40)


def test_a_hub_model_comes_from_the_cache_and_scores_without_it(tmp_path, monkeypatch):
    revision = "b" * 40
    cache = tmp_path / "cache"
    snapshot = cache / "models--someone--toxic/snapshots" / revision
    hub_folder(snapshot, network(labels=2, seed=2))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    scorer, record = hub(tmp_path / "scorer", "someone/toxic", label="1", revision=revision)
    assert 0 < scorer.score_texts(["plain words"])[0] < 1
    assert record["files"]["model.safetensors"] == files.sha256(snapshot / "model.safetensors")
    shutil.rmtree(cache)
    again, _ = scorers.load(tmp_path / "scorer", "toxicity")
    assert again.score_texts(["plain words"]) == scorer.score_texts(["plain words"])


def test_a_model_whose_weights_are_pickled_is_a_scorer(tmp_path):
    model = network(labels=2)
    where = hub_folder(tmp_path / "own", model, weights=False)
    torch.save(model.state_dict(), where / "pytorch_model.bin")
    scorer, record = hub(tmp_path / "scorer", where, label="1")
    assert "pytorch_model.bin" in record["files"]
    hub_folder(tmp_path / "own", model)
    other, record = hub(tmp_path / "other", where, label="1")
    assert "pytorch_model.bin" not in record["files"]
    assert other.score_texts(real_sentences()[:5]) == scorer.score_texts(real_sentences()[:5])


WORDS = ("you", "are", "a", "fine", "friend", "of", "the", "house", "and", "we", "like", "this", "day", "very", "much")


def labelled_rows(count, seed=0):
    """A row is bad where one of three words stands in it."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        words = [rng.choice(WORDS) for _ in range(rng.randrange(4, 14))]
        bad = rng.random() < 0.5
        if bad:
            words[rng.randrange(len(words))] = rng.choice(("rotten", "vile", "awful"))
        rows.append((" ".join(words), int(bad)))
    return rows


def encoder_settings(**options):
    raw = {
        "kind": "encoder",
        "segments": "sentences",
        "transformers": "5.23.0",
        "labelled": "rows",
        "width": 32,
        "vocabulary": 300,
        "length": 32,
        "epochs": 4,
        "learning_rate": 0.005,
        **options,
    }
    return scorers.settings(raw, "scorer.toxicity")


def learned(folder, settings, rows):
    metrics = scorers.make(settings, files.fresh_folder(folder), rows)["learned"]
    return scorers.load(folder, "toxicity"), metrics


def test_an_encoder_learns_and_is_read_elsewhere(tmp_path):
    """From scratch, on a task that it can learn: then by its own kind, as a hub classifier, and by transformers."""
    settings = encoder_settings()
    (scorer, record), metrics = learned(tmp_path / "learned", settings, labelled_rows(1200))
    assert metrics["heldout_roc_auc"] > 0.99
    assert metrics["heldout_average_precision"] > 0.99
    assert sum(cell["count"] for cell in metrics["calibration"]) == metrics["rows"]["heldout"] > 150
    texts = [text for text, _ in labelled_rows(60, seed=1)] + [" ".join(text for text, _ in labelled_rows(20, seed=2))]
    scores = scorer.score_texts(texts)
    assert record["files"].keys() >= {"config.json", "model.safetensors", "tokenizer.json"}
    folder = tmp_path / "learned"
    as_classifier, _ = hub(tmp_path / "other", folder, label="toxicity", activation="sigmoid")
    assert as_classifier.score_texts(texts) == scores

    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = AutoTokenizer.from_pretrained(folder)(texts[:60], padding=True, return_tensors="pt")
    with torch.no_grad():
        assert np.abs(torch.sigmoid(model(**ids).logits)[:, 0].numpy() - scores[:60]).max() < 1e-6
    assert model.config.id2label == {0: "toxicity"}


def test_an_encoder_is_a_function_of_its_rows_and_seed(tmp_path):
    rows = labelled_rows(300)
    shuffled = random.Random(0).sample(rows, len(rows))
    few = {"epochs": 1, "layers": 1}
    state = torch.get_rng_state()
    digests = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        folder = tmp_path / name / "learned"
        (_, record), _ = learned(folder, encoder_settings(seed=seed, **few), shuffled if name == "two" else rows)
        digests.append({key: record["files"][key] for key in ("model.safetensors", "tokenizer.json")})
    assert digests[0] == digests[1]
    assert digests[0]["tokenizer.json"] == digests[2]["tokenizer.json"]
    assert digests[0]["model.safetensors"] != digests[2]["model.safetensors"]
    assert torch.equal(torch.get_rng_state(), state)


def test_an_encoder_starts_from_a_model_at_hand(tmp_path):
    """Two rounds: the second begins where the first ended, and after one short epoch is as good."""
    learned(tmp_path / "first", encoder_settings(), labelled_rows(1200))
    again = encoder_settings(start=str(tmp_path / "first"), epochs=1, learning_rate=1e-4)
    (scorer, _), metrics = learned(tmp_path / "second", again, labelled_rows(300, seed=5))
    assert metrics["heldout_roc_auc"] > 0.99
    assert scorer.network.limit == 32
    with pytest.raises(InputError, match="a hub id and in revision the full hash"):
        learned(tmp_path / "third", encoder_settings(start="no/where"), labelled_rows(300))
    with pytest.raises(InputError, match="no/where could not be fetched .* set scorer.<task>.start to it"):
        learned(tmp_path / "third", encoder_settings(start="no/where", revision="c" * 40), labelled_rows(300))


def test_a_loss_that_is_not_finite_stops_learning(tmp_path):
    with pytest.raises(InputError, match=r"lower scorer\.<task>\.learning_rate"):
        learned(tmp_path / "learned", encoder_settings(learning_rate=1e30), labelled_rows(300))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 30, "heads": 4}, "width must be a multiple of heads"),
        ({"length": 4}, "length must be at least 16, found 4"),
        ({"warmup": 1.0}, "warmup and dropout from 0 to below 1"),
        ({"share_heldout": 0.0}, "share_heldout must be between 0 and 1"),
    ],
)
def test_settings_of_an_encoder_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        encoder_settings(**options)


def test_metrics_are_those_of_their_definitions():
    """Against pairs counted one by one, ranks walked one by one, and bins filled by hand."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    scores = np.clip(labels * 0.3 + rng.random(300) * 0.7, 0, 1).round(2)
    scores[:2] = (1.0, 0.0)
    rows = learning.Rows(["x"] * 300, labels)
    measured = learning.metrics(rows, rows, list(scores))
    bad, fine = scores[labels == 1], scores[labels == 0]
    pairs = (bad[:, None] > fine).mean() + 0.5 * (bad[:, None] == fine).mean()
    assert measured["heldout_roc_auc"] == pytest.approx(pairs)
    precision, recall, total = 0.0, 0.0, labels.sum()
    for threshold in sorted(set(scores), reverse=True):
        above = scores >= threshold
        now = labels[above].sum() / total
        precision += (now - recall) * labels[above].mean()
        recall = now
    assert measured["heldout_average_precision"] == pytest.approx(precision)
    assert [cell["count"] for cell in measured["calibration"]] == np.histogram(scores, np.arange(11) / 10)[0].tolist()
    for cell in measured["calibration"]:
        inside = (scores >= cell["begin"]) & ((scores < cell["end"]) | (cell["end"] == 1))
        assert cell["predicted"] == pytest.approx(np.average(scores[inside], weights=rows.weights[inside]))
        assert cell["observed"] == pytest.approx(np.average(labels[inside], weights=rows.weights[inside]))
    assert learning.calibration(labels[:0], scores[:0], scores[:0])[4]["predicted"] is None
    assert rows.weights[labels == 0].sum() == pytest.approx(rows.weights[labels == 1].sum()) == pytest.approx(150)
    error = sum(cell["weight"] * abs(cell["predicted"] - cell["observed"]) for cell in measured["calibration"]) / 300
    assert measured["heldout_calibration_error"] == pytest.approx(error)


def test_too_few_rows_are_refused(tmp_path):
    with pytest.raises(InputError, match="rows: 60 labelled rows, .* for learning: expected at least 100 rows"):
        learned(tmp_path / "learned", encoder_settings(), labelled_rows(60))
    one_label = [(text, 0) for text, _ in labelled_rows(200)]
    with pytest.raises(InputError, match="both labels on either side"):
        learned(tmp_path / "learned", encoder_settings(), one_label)


def real_rows():
    """(text, 1 where bad): Davidson's tweets (hate or offensive) and Jigsaw's comments (toxic)."""
    folder = shared_data("toxicity")
    with gzip.open(folder / "davidson_tweets.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = [(row["tweet"], int(row["class"] in ("0", "1"))) for row in csv.DictReader(file)]
    with gzip.open(folder / "jigsaw_wikipedia_binary.csv.gz", "rt", encoding="utf-8", newline="") as file:
        return rows + [(text, int(label)) for text, label in csv.reader(file)]


def test_classifier_and_encoder_learn_from_real_labels(tmp_path):
    rows = random.Random(0).sample(real_rows(), 1500)
    raw = {"kind": "classifier", "segments": "sentences", "scikit_learn": "1.9.1", "labelled": "real", "features": 5000}
    by_words = classifier.learn(scorers.settings(raw, "scorer.toxicity"), rows, files.fresh_folder(tmp_path / "words"))
    settings = encoder_settings(width=32, vocabulary=2000, length=64, epochs=4, learning_rate=0.003)
    (scorer, _), by_encoder = learned(tmp_path / "encoder", settings, rows)
    assert by_words["heldout_roc_auc"] > 0.9
    assert by_encoder["heldout_roc_auc"] > 0.8
    assert by_words.keys() == by_encoder.keys()
    assert by_words["rows"] == by_encoder["rows"]
    texts = [text for text, _ in rows[:50]]
    assert all(0 <= score <= 1 for score in scorer.score_texts(texts))
