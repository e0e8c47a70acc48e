"""The token store: tokens of segments are tokens of documents, spans tile, control tokens come out without a trace."""

import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT, prose, python_files, read, shared_data
from hypothesis import HealthCheck, given, settings
from test_models import llama_tokenizer
from test_segments import FUZZ
from test_training import rescale

import stages.tokenizer
from freshstart import files, objectives
from freshstart.corpora import document_id
from freshstart.errors import InputError
from freshstart.objectives import Good
from freshstart.schema import CORPUS, SCORED
from freshstart.scoring.segments import SEGMENTERS
from freshstart.tokens import CONTROLS, END_OF_TEXT, TokenizerSettings, shards, stream
from freshstart.tokens import read as read_controls
from freshstart.tokens.store import NpyWriter, Stream
from freshstart.tokens.stream import OTHERS, build
from freshstart.tokens.tokenizer import Tokenizer, make

TASKS = pytest.mark.parametrize("task", ["pep8", "pii", "toxicity"])
FUZZED = settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bpe")
    texts = [read(path) for path in python_files(60)] + [text for _, text in prose()[:40]]
    make(TokenizerSettings(vocabulary=1024), texts, folder)
    return folder


@pytest.fixture(scope="module")
def bpe(folder):
    return Tokenizer.open(folder)


def same_tokens(bpe, text, ends):
    parts = [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    whole = next(bpe.encode([text]))[0].tolist() if text else []
    return [token for ids, _ in bpe.encode(parts) for token in ids.tolist()] == whole


@pytest.mark.parametrize("cut", SEGMENTERS.values())
def test_tokens_of_segments_are_tokens_of_the_document(bpe, cut):
    """1,000 real documents, Python and prose."""
    texts = [read(path) for path in python_files(900, largest=15_000)] + [text for _, text in prose()]
    assert len(texts) >= 1000
    for text in texts[:1100]:
        assert same_tokens(bpe, text, cut(text))


@pytest.mark.parametrize("cut", SEGMENTERS.values())
@given(text=FUZZ)
@FUZZED
def test_tokens_of_fuzzed_segments(bpe, cut, text):
    assert same_tokens(bpe, text, cut(text))


@given(text=FUZZ)
@FUZZED
def test_tokens_give_the_text_back_and_know_their_places(bpe, text):
    ids, offsets = next(bpe.encode([text])) if text else (np.zeros(0), np.zeros((0, 2)))
    assert bpe.decode(ids) == text
    assert (np.diff(offsets[:, 0]) >= 0).all()
    if text:
        assert (offsets[0, 0], offsets[-1, 1]) == (0, len(text))


def test_literal_special_tokens_are_text(bpe):
    text = f"a {CONTROLS['good']} b{CONTROLS['bad']}{END_OF_TEXT}"
    ids = next(bpe.encode([text]))[0]
    assert not {bpe.end_of_text, *(control.id for control in bpe.controls)} & set(ids.tolist())
    assert bpe.decode(ids) == text


def test_training_a_tokenizer_is_deterministic(tmp_path):
    texts = [read(path) for path in python_files(30)]
    first, second = (make(TokenizerSettings(vocabulary=700), texts, tmp_path / name) for name in "ab")
    assert first.sha256 == second.sha256 == files.sha256(tmp_path / "a/tokenizer.json")
    assert first.size == 700


def test_a_tokenizer_learns_from_a_bounded_sample(tmp_path, monkeypatch):
    texts = ["ab" * 30, "cd" * 20, "ef" * 10]
    rows = [{"doc_id": document_id(text), "text": text, "source": "s", "meta": "{}"} for text in texts]
    for index, row in enumerate(rows):
        files.write_table(tmp_path / files.part_name(index), pa.Table.from_pylist([row], schema=CORPUS))
    parts = files.parts(tmp_path, "corpus")
    assert list(stages.tokenizer.sample(parts)) == texts
    for most, count in ((60, 1), (61, 2), (100, 2), (101, 3)):
        monkeypatch.setattr(stages.tokenizer, "MOST_CHARACTERS", most)
        assert list(stages.tokenizer.sample(parts)) == texts[:count]


def test_named_tokenizer_keeps_its_ids(tmp_path):
    folder = shared_data("gpt2_tokenizer")
    named = make(TokenizerSettings(name=str(folder)), [], tmp_path)
    vocabulary = json.loads((folder / "vocab.json").read_text())
    assert [named.end_of_text, *(control.id for control in named.controls), named.size] == [50256, 50257, 50258, 50259]
    assert next(named.encode(["Hello world"]))[0].tolist() == [vocabulary["Hello"], vocabulary["Ġworld"]]
    text = "def f():\n    return 1\n\n\nx = f()  # ok\n"
    assert same_tokens(named, text, SEGMENTERS["lines"](text))


def test_missing_tokenizer_has_one_message(tmp_path):
    with pytest.raises(InputError, match="holds neither tokenizer.json nor vocab.json"):
        make(TokenizerSettings(name=str(tmp_path)), [], tmp_path)
    with pytest.raises(InputError, match=r"tokenizer.json is missing: run `dvc repro tokenizer`"):
        Tokenizer.open(tmp_path)


def test_hub_format_loads(folder, bpe):
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(folder)
    ids = next(bpe.encode(["x = 1\n"]))[0].tolist()
    assert loaded("x = 1\n")["input_ids"] == ids
    special = [bpe.end_of_text, bpe.controls[0].id]
    assert loaded.decode([*special, *ids], skip_special_tokens=True) == "x = 1\n"
    assert loaded.eos_token_id == bpe.end_of_text


def test_npy_writer_is_read_by_numpy(tmp_path):
    flat, wide = NpyWriter(tmp_path / "a.npy", np.dtype("u2")), NpyWriter(tmp_path / "b.npy", np.dtype(("u1", 16)))
    with flat, wide, NpyWriter(tmp_path / "c.npy", np.dtype("i8")):
        for i in range(5):
            flat.append(np.arange(i))
            wide.append(np.full((i, 16), i))
    read_back = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert read_back.dtype == np.uint16
    assert read_back.tolist() == [x for i in range(5) for x in range(i)]
    assert np.load(tmp_path / "b.npy").shape == (10, 16)
    assert np.load(tmp_path / "c.npy").shape == (0,)


@TASKS
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


@TASKS
def test_stream_is_the_scored_table(made, task):
    """Every scored document, in order: its tokens, and for each segment its score and bytes."""
    paths = made.paths(task)
    loaded, plain = Tokenizer.open(paths["tokenizer"]), shards.Plain(paths["tokens"] / "train", task)
    stream, sizes = plain.stream, np.load(plain.folder / "segment_bytes.npy")
    begin = span = documents = 0
    for part in files.parts(paths["scored"] / "train", "score"):
        for row in files.read_table(part, "score").to_pylist():
            if row["scores"] is None:
                continue
            ids = next(loaded.encode([row["text"]]))[0]
            end = begin + 1 + len(ids)
            assert stream.tokens[begin:end].tolist() == [loaded.end_of_text, *ids]
            spans = slice(span + 1, span + 1 + len(row["segment_ends"]))
            np.testing.assert_array_equal(stream.segment_scores[spans], row["scores"])
            ends = [0, *row["segment_ends"]]
            assert sizes[spans].tolist() == [len(row["text"][a:b].encode()) for a, b in itertools.pairwise(ends)]
            begin, span, documents = end, spans.stop, documents + 1
            assert plain.documents("segments")[documents - 1] == span
            assert plain.documents("ids")[documents - 1].tobytes().hex() == row["doc_id"]
    assert begin == len(stream.tokens)
    assert plain.manifest["documents"] == documents
    assert plain.manifest["share_straddling"] == 0


def opened(made, task, objective):
    """The plain stream, the shards of an objective and their manifest."""
    folder = made.folder / "data/shards" / task / objective
    plain = Stream.open(made.paths(task)["tokens"] / "train", task)
    return plain, Stream.open(folder, task), json.loads((folder / "manifest.json").read_text())


def assert_only_controls_were_added(plain, control, ids):
    """Taking them out gives the plain stream back, and each stands right before a segment; gives their places."""
    is_control = np.isin(control.tokens, ids)
    np.testing.assert_array_equal(control.tokens[~is_control], plain.tokens)
    scores = control.scores(0, len(control.tokens))
    assert np.isnan(scores[is_control]).all()
    np.testing.assert_array_equal(scores[~is_control], plain.scores(0, len(plain.tokens)))
    ends, places = np.cumsum(~is_control)[control.document_ends - 1], np.flatnonzero(is_control)
    np.testing.assert_array_equal(ends, plain.document_ends)
    assert np.isin(places + 1, np.concatenate([[0], control.segment_ends[:-1]])).all()
    return places


@TASKS
def test_taking_control_tokens_out_gives_the_plain_stream(made, task):
    plain, control, manifest = opened(made, task, "conditional")
    good, bad = read_controls(manifest["controls"])
    places = assert_only_controls_were_added(plain, control, [good.id, bad.id])
    scores = control.scores(0, len(control.tokens))
    is_good = scores[places + 1] <= np.float32(manifest["numbers"]["threshold"])
    np.testing.assert_array_equal(control.tokens[places] == good.id, is_good)
    scored = int((~np.isnan(plain.segment_scores)).sum())
    assert 0.02 < 1 - len(places) / scored < 0.09  # drop: 0.05


def test_three_control_tokens(made, workplace, door):
    """Index 2 of an objective's labels is the third control token that the tokenizer names."""
    rescale(workplace, tokenizer={"controls": CONTROLS | {"worse": "<|worse|>"}})
    data = {name: str(folder) for name, folder in made.paths("pep8").items()}
    scored = {name: data[name] for name in ("scored", "scorer")}
    door("tokenizer", task="pep8", corpus=data["corpus"], output="tokenizer")
    door("tokens", task="pep8", **scored, tokenizer="tokenizer", output="tokens")
    thresholds = np.array([0.0, 0.05], np.float32)
    graded = replace(
        objectives.load("conditional"), label=lambda scores, draws, numbers: np.searchsorted(thresholds, scores)
    )
    asked = graded.settings(good=Good(score=0.0), positions=4096)
    plain = shards.Plain(workplace / "tokens/train", "pep8")
    manifest = shards.build(graded, asked, plain, workplace / "shards", 0)
    controls = read_controls(manifest["controls"])
    assert [control.name for control in controls] == ["good", "bad", "worse"]
    stream = Stream.open(workplace / "shards", "pep8")
    places = assert_only_controls_were_added(plain.stream, stream, [control.id for control in controls])
    labels = np.searchsorted(thresholds, stream.scores(0, len(stream.tokens))[places + 1])
    np.testing.assert_array_equal(stream.tokens[places], np.array([control.id for control in controls])[labels])
    assert set(labels) == {0, 1, 2}
    for label in (3, -2):
        wrong = replace(graded, label=lambda scores, draws, numbers, label=label: np.full(len(scores), label))
        message = f"labels a segment {label}, but the tokenizer has 3 control tokens: .* in tokenizer.<task>.controls"
        with pytest.raises(InputError, match=message):
            shards.build(wrong, asked, plain, workplace / "wrong", 0)


def test_dropped_control_tokens_depend_on_content_alone(made):
    ids = np.load(made.paths("pep8")["tokens"] / "train/document_ids.npy")
    counts = np.full(len(ids), 5)
    draws = shards.uniform(0, ids, counts)
    backwards = shards.uniform(0, ids[::-1], counts)
    np.testing.assert_array_equal(draws.reshape(-1, 5), backwards.reshape(-1, 5)[::-1])
    assert not np.array_equal(draws, shards.uniform(1, ids, counts))
    assert 0.4 < draws.mean() < 0.6
    assert len(np.unique(draws)) == len(draws)


@TASKS
def test_filtered_shards_hold_whole_good_documents(made, task):
    plain, filtered, manifest = opened(made, task, "filtered")
    scores = np.load(made.paths(task)["tokens"] / "train/document_scores.npy")
    kept = scores <= np.float32(manifest["numbers"]["document_threshold"])
    spans = [(a, b) for a, b in itertools.pairwise([0, *plain.document_ends]) if kept[plain.document_ends == b][0]]
    np.testing.assert_array_equal(filtered.tokens, np.concatenate([plain.tokens[a:b] for a, b in spans]))
    expected = np.concatenate([plain.scores(a, b) for a, b in spans])
    np.testing.assert_array_equal(filtered.scores(0, len(filtered.tokens)), expected)
    np.testing.assert_array_equal(filtered.document_ends, np.cumsum([b - a for a, b in spans]))
    assert manifest["documents"] == kept.sum() < len(kept) == kept.sum() + manifest["documents_left_out"]["filtered"]


def test_a_fresh_filtered_budget_refuses_too_small_a_corpus(made, tmp_path):
    filtered = objectives.load("filtered")
    asked = filtered.settings(good=Good(score=0.0), positions=10_000_000, budget="fresh")
    plain = shards.Plain(made.paths("pep8")["tokens"] / "train", "pep8")
    with pytest.raises(InputError, match="raise corpus.pep8.train_characters about"):
        shards.build(filtered, asked, plain, tmp_path, 0)


def test_straddling_tokens_belong_to_the_segment_of_their_first_character(tmp_path):
    """A tokenizer that joins `):` and the line break: control tokens go behind the token."""
    text = "f(a):\n b\nc"
    llama_tokenizer(tmp_path / "llama", [text] * 9)
    make(TokenizerSettings(name=str(tmp_path / "llama")), [], tmp_path / "tokenizer")
    row = {"doc_id": document_id(text), "text": text, "source": "s", "meta": "{}"}
    row |= {
        "segment_ends": SEGMENTERS["lines"](text),
        "scores": [0.0, 1.0, 0.0],
        "avg_score": 1 / 3,
        "reasons": [],
        "error": None,
    }
    part = tmp_path / "part-00000.parquet"
    files.write_table(part, pa.Table.from_pylist([row], schema=SCORED))
    manifest = build({"train": [part]}, tmp_path / "tokenizer", tmp_path, {})["train"]
    assert manifest["share_straddling"] == pytest.approx(1 / 6)  # "f" "(a" "):\n" " b" "\n" "c"
    assert np.diff(Stream.open(tmp_path / "train", "t").segment_ends).tolist() == [3, 1, 2]


@pytest.fixture
def scored(tmp_path, monkeypatch):
    """Eight scored parts of real code, with a document in five that has no score, and a tokenizer of it."""
    monkeypatch.setenv("FRESHSTART_STATE", str(tmp_path / ".state"))
    texts = [read(path) for path in python_files(40)]
    rows = []
    for number, text in enumerate(texts):
        ends = SEGMENTERS["lines"](text)
        fine = number % 5 != 2
        row = {"doc_id": document_id(text), "text": text, "source": "s", "meta": "{}", "segment_ends": ends}
        row |= {"scores": [0.5] * len(ends) if fine else None, "avg_score": 0.5 if fine else None}
        rows.append(row | {"reasons": [], "error": None if fine else "Unreadable: no"})
    for index in range(8):
        part = pa.Table.from_pylist(rows[5 * index : 5 * index + 5], schema=SCORED)
        files.write_table(tmp_path / f"scored/{'train' if index < 6 else 'heldout'}" / files.part_name(index), part)
    make(TokenizerSettings(vocabulary=600), texts, tmp_path / "tokenizer")
    return tmp_path


TOKENS = """
import sys
from pathlib import Path
from freshstart import files
from freshstart.tokens.stream import OTHERS, build
here = Path(sys.argv[1])
parts = {split: files.parts(here / "scored" / split, "score") for split in ("train", "heldout")}
build(parts, here / "tokenizer", here / sys.argv[2], {}, int(sys.argv[3]))
"""


def tokenised(folder, output, workers):
    return [sys.executable, "-c", TOKENS, str(folder), output, str(workers)]


def written(folder):
    return {str(path.relative_to(folder)): files.sha256(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.timeout(400)
def test_equal_tokens_for_any_number_of_workers(scored):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_raylet_start_wait_time_s": "120"}
    for workers in (0, 2):
        subprocess.run(tokenised(scored, f"out-{workers}", workers), env=environment, check=True)
    assert len(written(scored / "out-0")) == 2 * (1 + 4 + len(OTHERS))
    assert written(scored / "out-2") == written(scored / "out-0")
    manifest = json.loads((scored / "out-2/train/manifest.json").read_text())
    assert manifest["documents_left_out"] == {"Unreadable": 6}
    assert not list((scored / ".state/tokens").iterdir())  # pieces are gone once they are joined


def test_kill_minus_nine_tokenises_what_was_in_flight_anew(scored):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    running = subprocess.Popen(tokenised(scored, "out", 0), env=environment)
    while len(done := list((scored / ".state/tokens").rglob("manifest.json"))) < 2:
        assert running.poll() is None
        time.sleep(0.001)
    running.kill()
    running.wait()
    assert not (scored / "out").exists()
    torn, kept = done[0].parent / "tokens.npy", done[1]
    torn.write_bytes(torn.read_bytes()[:-2])
    before = {path: path.stat().st_mtime_ns for path in done}
    parts = {split: files.parts(scored / "scored" / split, "score") for split in ("train", "heldout")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "shutil", SimpleNamespace(rmtree=lambda path: None))  # leave the pieces for a look
        build(parts, scored / "tokenizer", scored / "out", {})
    assert kept.stat().st_mtime_ns == before[kept]
    assert done[0].stat().st_mtime_ns != before[done[0]]
    build(parts, scored / "tokenizer", scored / "whole", {})
    assert written(scored / "out") == written(scored / "whole")


def damaged(raw, draw):
    """One of the bits is another."""
    place = draw.randrange(len(raw))
    return raw[:place] + bytes([raw[place] ^ 1 << draw.randrange(8)]) + raw[place + 1 :]


@pytest.mark.parametrize("stage", ["tokenizer", "tokens"])
def test_a_damaged_part_has_one_message_or_no_effect(made, workplace, door, stage):
    paths = made.paths("pep8")
    source = {"tokenizer": "corpus", "tokens": "scored"}[stage]
    shutil.copytree(paths[source], source)
    others = {name: paths[name] for name in ("tokenizer", "scorer")} if stage == "tokens" else {}
    part, draw = Path(source, "train/part-00000.parquet"), random.Random(0)
    raw, written = part.read_bytes(), []
    for tries in range(41):
        part.write_bytes(damaged(raw, draw) if tries else raw)
        with suppress(InputError):
            door(stage, task="pep8", **{source: source}, **others, output="out")
            written.append({path: files.sha256(path) for path in Path("out").rglob("*") if path.is_file()})
    assert all(one == written[0] for one in written)
    assert len(written) < 20


@pytest.mark.parametrize("kind", ["tokens", "shards"])
def test_a_bit_flipped_in_a_stream_is_noticed(made, tmp_path, kind):
    source = {"tokens": made.paths("pep8")["tokens"] / "train", "shards": made.folder / "data/shards/pep8/conditional"}
    shutil.copytree(source[kind], tmp_path / "it")
    assert len(Stream.open(tmp_path / "it", "pep8").tokens)
    for path in (tmp_path / "it").iterdir():
        raw = path.read_bytes()
        path.write_bytes(raw[:-40] + bytes([raw[-40] ^ 1]) + raw[-39:])
        with pytest.raises(
            InputError, match=rf"{path.name} is (missing or )?(damaged|not whole).*dvc repro -f tokens@pep8"
        ):
            Stream.open(tmp_path / "it", "pep8")
        path.write_bytes(raw)
