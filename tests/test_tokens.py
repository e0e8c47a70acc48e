"""The token store: tokens of segments are tokens of documents, spans tile, control tokens come out without a trace."""

import itertools
import json

import numpy as np
import pytest
from conftest import prose, python_files, read
from hypothesis import HealthCheck, given, settings
from test_segments import FUZZ

from freshstart import files
from freshstart.errors import InputError
from freshstart.scoring.segments import SEGMENTERS
from freshstart.tokens import BAD, END_OF_TEXT, GOOD, shards, tokenizer
from freshstart.tokens.store import NpyWriter, Stream


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bpe")
    tokenizer.train([read(path) for path in python_files(60)] + [text for _, text in prose()[:40]], 1024, folder)
    return tokenizer.Tokenizer(folder)


def same_tokens(bpe, text, ends):
    parts = [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    whole = next(bpe.encode([text]))[0].tolist() if text else []
    joined = [token for ids, _ in bpe.encode(parts) for token in ids.tolist()]
    return joined == whole


@pytest.mark.parametrize("cut", SEGMENTERS.values())
def test_tokens_of_segments_are_tokens_of_the_document(bpe, cut):
    """1,000 real documents, Python and prose."""
    texts = [read(path) for path in python_files(900, largest=15_000)] + [text for _, text in prose()]
    assert len(texts) >= 1000
    for text in texts[:1100]:
        assert same_tokens(bpe, text, cut(text))


@pytest.mark.parametrize("cut", SEGMENTERS.values())
@given(text=FUZZ)
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tokens_of_fuzzed_segments(bpe, cut, text):
    assert same_tokens(bpe, text, cut(text))


@given(text=FUZZ)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tokens_give_the_text_back_and_know_their_places(bpe, text):
    ids, offsets = next(bpe.encode([text])) if text else (np.zeros(0), np.zeros((0, 2)))
    assert bpe.decode(ids) == text
    assert (np.diff(offsets[:, 0]) >= 0).all()
    if text:
        assert offsets[0, 0] == 0
        assert offsets[-1, 1] == len(text)


def test_literal_special_tokens_are_text(bpe):
    text = f"a {GOOD} b{BAD}{END_OF_TEXT}"
    ids = next(bpe.encode([text]))[0]
    assert not {bpe.good, bpe.bad, bpe.end_of_text} & set(ids.tolist())
    assert bpe.decode(ids) == text


def test_training_a_tokenizer_is_deterministic(tmp_path):
    texts = [read(path) for path in python_files(30)]
    for name in ("a", "b"):
        tokenizer.train(texts, 700, tmp_path / name)
    assert files.sha256(tmp_path / "a/tokenizer.json") == files.sha256(tmp_path / "b/tokenizer.json")


def test_named_tokenizer_keeps_its_ids(bpe, tmp_path):
    from conftest import shared_data

    folder = shared_data("gpt2_tokenizer")
    tokenizer.named(str(folder), tmp_path)
    named = tokenizer.Tokenizer(tmp_path)
    vocabulary = json.loads((folder / "vocab.json").read_text())
    assert (named.end_of_text, named.good, named.bad, named.size) == (50256, 50257, 50258, 50259)
    assert next(named.encode(["Hello world"]))[0].tolist() == [vocabulary["Hello"], vocabulary["Ġworld"]]
    text = "def f():\n    return 1\n\n\nx = f()  # ok\n"
    assert same_tokens(named, text, SEGMENTERS["lines"](text))


def test_missing_tokenizer_has_one_message(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds neither tokenizer.json nor vocab.json"):
        tokenizer.named(str(tmp_path / "empty"), tmp_path)


def test_hub_format_loads(bpe):
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(bpe.folder)
    ids = next(bpe.encode(["x = 1\n"]))[0].tolist()
    assert loaded("x = 1\n")["input_ids"] == ids
    assert loaded.decode([bpe.end_of_text, bpe.good, *ids], skip_special_tokens=True) == "x = 1\n"
    assert loaded.eos_token_id == bpe.end_of_text


def test_npy_writer_is_read_by_numpy(tmp_path):
    with NpyWriter(tmp_path / "a.npy", np.uint16) as flat, NpyWriter(tmp_path / "b.npy", np.uint8, width=16) as wide:
        for i in range(5):
            flat.append(np.arange(i))
            wide.append(np.full((i, 16), i))
    read_back = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert read_back.dtype == np.uint16
    assert read_back.tolist() == [x for i in range(5) for x in range(i)]
    assert np.load(tmp_path / "b.npy").shape == (10, 16)
    with NpyWriter(tmp_path / "c.npy", np.int64):
        pass
    assert len(np.load(tmp_path / "c.npy")) == 0


@pytest.mark.parametrize("task", ["pep8", "pii", "toxicity"])
def test_spans_tile_the_stream(made, task):
    for split in ("train", "heldout"):
        folder = made.paths(task)["tokens"] / split
        stream = Stream.open(folder, task)
        assert (np.diff(stream.segment_ends) >= 0).all()
        assert stream.segment_ends[-1] == stream.document_ends[-1] == len(stream.tokens)
        scores = stream.scores(0, len(stream.tokens))
        manifest = json.loads((folder / "manifest.json").read_text())
        assert (np.isnan(scores) == (stream.tokens == manifest["end_of_text"])).all()
        rng = np.random.default_rng(0)
        for _ in range(50):
            begin, end = sorted(rng.integers(0, len(scores) + 1, 2))
            if begin < end:
                np.testing.assert_array_equal(stream.scores(begin, end), scores[begin:end])


@pytest.mark.parametrize("task", ["pep8", "pii", "toxicity"])
def test_stream_is_the_scored_table(made, task):
    """Every scored document, in order: its tokens, and for each segment its score and bytes."""
    paths = made.paths(task)
    loaded = tokenizer.Tokenizer(paths["tokenizer"])
    folder = paths["tokens"] / "train"
    stream, sizes = Stream.open(folder, task), np.load(folder / "segment_bytes.npy")
    manifest = json.loads((folder / "manifest.json").read_text())
    begin = span = documents = 0
    for part in files.parts(paths["scored"] / "train", "score"):
        for row in files.read_table(part, "score").to_pylist():
            if row["scores"] is None:
                continue
            ids = next(loaded.encode([row["text"]]))[0]
            end = begin + 1 + len(ids)
            assert stream.tokens[begin:end].tolist() == [loaded.end_of_text, *ids]
            count = len(row["segment_ends"])
            np.testing.assert_array_equal(stream.segment_scores[span + 1 : span + 1 + count], row["scores"])
            ends = [0, *row["segment_ends"]]
            expected = [len(row["text"][a:b].encode()) for a, b in itertools.pairwise(ends)]
            assert sizes[span + 1 : span + 1 + count].tolist() == expected
            begin, span, documents = end, span + 1 + count, documents + 1
    assert begin == len(stream.tokens)
    assert manifest["documents"] == documents
    assert manifest["share_straddling"] == 0
    if task == "pep8":
        assert sum(manifest["documents_left_out"].values()) >= 0


@pytest.mark.parametrize("task", ["pep8", "pii", "toxicity"])
def test_taking_control_tokens_out_gives_the_plain_stream(made, task):
    plain = Stream.open(made.paths(task)["tokens"] / "train", task)
    control = Stream.open(made.folder / "data/shards" / task / "conditional", task)
    manifest = json.loads((made.folder / "data/shards" / task / "conditional/manifest.json").read_text())
    special = json.loads((made.paths(task)["tokens"] / "train/manifest.json").read_text())
    is_control = np.isin(control.tokens, [special["good"], special["bad"]])
    np.testing.assert_array_equal(control.tokens[~is_control], plain.tokens)
    scores = control.scores(0, len(control.tokens))
    assert np.isnan(scores[is_control]).all()
    np.testing.assert_array_equal(scores[~is_control], plain.scores(0, len(plain.tokens)))
    np.testing.assert_array_equal(control.tokens[control.document_ends - 1], plain.tokens[plain.document_ends - 1])
    # every control token stands right before a segment, and says what its score says
    places = np.flatnonzero(is_control)
    starts = np.concatenate([[0], control.segment_ends[:-1]])
    assert np.isin(places + 1, starts).all()
    good = scores[places + 1] <= np.float32(manifest["numbers"]["threshold"])
    np.testing.assert_array_equal(control.tokens[places] == special["good"], good)
    scored = int((~np.isnan(plain.segment_scores)).sum())
    assert 0.02 < 1 - len(places) / scored < 0.09  # drop: 0.05


def test_dropped_control_tokens_depend_on_content_alone(made):
    ids = np.load(made.paths("pep8")["tokens"] / "train/document_ids.npy")
    counts = np.full(len(ids), 5)
    draws = shards.uniform(0, ids, counts)
    backwards = shards.uniform(0, ids[::-1], counts)
    np.testing.assert_array_equal(draws.reshape(-1, 5), backwards.reshape(-1, 5)[::-1])
    assert not np.array_equal(draws, shards.uniform(1, ids, counts))
    assert 0.4 < draws.mean() < 0.6
    assert len(np.unique(draws)) == len(draws)


@pytest.mark.parametrize("task", ["pep8", "pii", "toxicity"])
def test_filtered_shards_hold_whole_good_documents(made, task):
    folder = made.paths(task)["tokens"] / "train"
    plain = Stream.open(folder, task)
    filtered = Stream.open(made.folder / "data/shards" / task / "filtered", task)
    manifest = json.loads((made.folder / "data/shards" / task / "filtered/manifest.json").read_text())
    kept = np.load(folder / "document_scores.npy") <= np.float32(manifest["numbers"]["document_threshold"])
    begins = np.concatenate([[0], plain.document_ends[:-1]])
    expected = [plain.tokens[a:b] for a, b, keep in zip(begins, plain.document_ends, kept, strict=True) if keep]
    np.testing.assert_array_equal(filtered.tokens, np.concatenate(expected))
    expected = [plain.scores(a, b) for a, b, keep in zip(begins, plain.document_ends, kept, strict=True) if keep]
    np.testing.assert_array_equal(filtered.scores(0, len(filtered.tokens)), np.concatenate(expected))
    assert manifest["documents"] == kept.sum()


def test_a_fresh_filtered_budget_refuses_too_small_a_corpus(made, workplace, door):
    import yaml

    scale = yaml.safe_load((workplace / "conf/scale/tests.yaml").read_text())
    scale["shards"]["every"] |= {"filtered": {"budget": "fresh"}, "positions": 10_000_000}
    (workplace / "conf/scale/tests.yaml").write_text(yaml.safe_dump(scale))
    with pytest.raises(InputError, match="raise corpus.pep8.train_characters about"):
        door("shards", task="pep8", objective="filtered", tokens=made.paths("pep8")["tokens"], output="out")


def test_straddling_tokens_belong_to_the_segment_of_their_first_character(tmp_path):
    """A tokenizer that joins `):` and the line break, as GPT-4's pattern does: control tokens go behind the token."""
    import pyarrow as pa
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    from freshstart.schema import SCORED
    from freshstart.tokens import stream

    alphabet = sorted(ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, "):", "):Ċ"])}
    model = Tokenizer(BPE(vocab=vocabulary, merges=[(")", ":"), ("):", "Ċ")]))
    model.pre_tokenizer = Sequence(
        [Split(Regex(r"\w+| ?[^\s\w]+\n*|\s+"), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    (tmp_path / "gpt4").mkdir()
    model.save(str(tmp_path / "gpt4/tokenizer.json"))
    tokenizer.named(str(tmp_path / "gpt4"), tmp_path / "own")
    loaded = tokenizer.Tokenizer(tmp_path / "own")
    text = "f(a):\n b\nc"
    row = {"doc_id": "00" * 16, "text": text, "source": "s", "meta": "{}", "segment_ends": SEGMENTERS["lines"](text)}
    row |= {"scores": [0.0, 1.0, 0.0], "avg_score": 1 / 3, "reasons": [], "error": None}
    files.write_table(tmp_path / "part-00000.parquet", pa.Table.from_pylist([row], schema=SCORED))
    manifest = stream.build([tmp_path / "part-00000.parquet"], loaded, tmp_path / "train", {})
    made = Stream.open(tmp_path / "train", "t")
    assert manifest["share_straddling"] == pytest.approx(1 / 8)  # f ( a "):\n" " " b "\n" c
    assert np.diff(made.segment_ends).tolist() == [4, 2, 2]
