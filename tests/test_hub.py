"""Corpora from the hub: fetched over the loopback, killed and resumed, and the paper's scored sets in our segments."""

import gzip
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import PARAMS, ROOT, SCALE
from hub_server import served
from hypothesis import given
from hypothesis import strategies as st

from freshstart import files
from freshstart.corpora import hub as hub_kind
from freshstart.corpora import scored_hub
from freshstart.corpora.published_segments import (
    ONCE,
    TWICE,
    UNDECIDED,
    WHITE_SPACE,
    divided_by_length,
    resegmented,
)
from freshstart.scoring.segments import is_boundary, is_space

SIZES = {"train_characters": 10**7, "heldout_characters": 10**5, "part_characters": 40_000}
FILES, ROWS = 6, 120
# The door without waiting between tries.
HASTY = """
import time
time.sleep = lambda seconds: None
from freshstart.doors import open_door
from stages.corpus import main
open_door(main)
"""


@pytest.fixture(scope="module")
def hub():
    with served() as hub:
        yield hub


@pytest.fixture
def calm(hub):
    """The hub without troubles, and none left behind."""
    yield hub
    hub.pause, hub.cut, hub.unavailable = 0.0, 0, 0


class Place:
    """A project folder with one task, whose corpus comes from the hub."""

    def __init__(self, folder, url, block):
        (folder / "conf/scale").mkdir(parents=True)
        scale = yaml.safe_load(SCALE)
        scale["corpus"]["pii"] = SIZES | block
        (folder / "conf/scale/tests.yaml").write_text(yaml.safe_dump(scale))
        (folder / "params.yaml").write_text(PARAMS.replace("[pep8, pii, toxicity]", "[pii]"))
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | {
            "HF_ENDPOINT": url,
            "HF_HOME": str(folder / "home"),
            "FRESHSTART_STATE": str(folder / ".state"),
            "PYTHONPATH": str(ROOT),
        }

    def start(self, how=("-m", "stages.corpus"), **environment):
        words = ["--task", "pii", "--output", "out", "--report", "report.json"]
        return subprocess.Popen(
            [sys.executable, *how, *words],
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, how=("-m", "stages.corpus"), **environment):
        process = self.start(how, **environment)
        out, errors = process.communicate(timeout=120)
        return process.returncode, out, errors

    def fetched(self):
        """The files of the set that have been fetched."""
        return {path.name for path in self.folder.glob(".state/hub/datasets--*/snapshots/*/data/*")}

    def unfinished(self):
        return list(self.folder.glob(".state/hub/datasets--*/blobs/*.incomplete"))

    def parts(self):
        out = self.folder / "out"
        return {str(path.relative_to(out)): files.sha256(path) for path in sorted(out.rglob("*.parquet"))}

    def table(self):
        return pa.concat_tables([pq.read_table(self.folder / "out" / name) for name in self.parts()])


def place(tmp_path, folder, hub, **block):
    (tmp_path / folder).mkdir()
    return Place(tmp_path / folder, hub.url, block)


def killed_and_resumed(place, hub):
    """Kill the door in the middle of a file and run it again; the files that were kept, and those requested anew."""
    hub.pause = 0.3
    process = place.start()
    deadline = time.monotonic() + 60
    while len(place.fetched()) < 3 or not place.unfinished():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    hub.pause = 0.0
    kept, begin = place.fetched(), len(hub.log)
    (unfinished,) = place.unfinished()
    os.utime(unfinished, (0, 0))
    status, out, errors = place.run(HF_TOKEN="hf_of_the_environment")
    assert status == 0, errors
    assert "train: " in out
    assert place.unfinished() == []
    requests = [request for request in hub.log[begin:] if request.is_content]
    assert {request.token for request in requests} == {"Bearer hf_of_the_environment"}
    return kept, sorted(request.path.split("/")[-1] for request in requests)


def text_of(draw):
    words = ("alpha", "beta", "gamma", "Grüße", "42", "\n\nx = 1", "mail me@example.org")
    return " ".join(draw.choice(words) for _ in range(draw.randrange(5, 60)))


def parquet(rows, group=40):
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, row_group_size=group)
    return buffer.getvalue()


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def split_rows(rows, write, ending):
    pieces = [rows[i * ROWS : (i + 1) * ROWS] for i in range(FILES)]
    return {f"data/train-{i:05d}-of-{FILES:05d}.{ending}": write(piece) for i, piece in enumerate(pieces)}


@pytest.fixture(scope="module")
def plain(hub):
    draw = random.Random(0)
    rows = [{"body": f"{i}: {text_of(draw)}", "by": {"site": f"s{i % 9}"}, "id": i} for i in range(FILES * ROWS)]
    return rows, hub.add("someone/plain", split_rows(rows, parquet, "parquet"))


def test_hub_killed_and_resumed(tmp_path, calm, plain):
    rows, commit = plain
    block = {"kind": "hub", "name": "someone/plain", "revision": commit, "text": "body", "source": "by.site"}
    whole, broken = place(tmp_path, "whole", calm, **block), place(tmp_path, "broken", calm, **block)
    status, _, errors = whole.run()
    assert status == 0, errors
    kept, anew = killed_and_resumed(broken, calm)
    assert 3 <= len(kept) < FILES
    assert broken.parts() == whole.parts()
    assert anew == sorted(whole.fetched() - kept)
    assert broken.fetched() == whole.fetched()
    documents = whole.table().to_pylist()
    assert sorted(row["text"] for row in documents) == sorted(row["body"] for row in rows)
    assert {row["source"] for row in documents} == {f"s{i}" for i in range(9)}
    places = {
        f"someone/plain/data/train-{i // ROWS:05d}-of-{FILES:05d}.parquet:{i % ROWS + 1}" for i in range(len(rows))
    }
    assert {json.loads(row["meta"])["path"] for row in documents} == places
    assert whole.table().schema.names == ["doc_id", "text", "source", "meta"]
    parts, requests = whole.parts(), len(calm.log)  # what was fetched needs no hub
    assert whole.run(HF_ENDPOINT="http://127.0.0.1:9")[0] == 0
    assert whole.parts() == parts
    assert len(calm.log) == requests


def test_no_network_has_one_message(tmp_path, calm, plain):
    _, commit = plain
    block = {"kind": "hub", "name": "someone/plain", "revision": commit, "text": "body"}
    there = place(tmp_path, "there", calm, **block)
    status, _, errors = there.run(("-c", HASTY), HF_ENDPOINT="http://127.0.0.1:9")
    assert status == 1
    assert "Traceback" not in errors
    (message,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    for words in ("someone/plain", "http://127.0.0.1:9", "after 3 tries", "are kept in", "HF_ENDPOINT names a mirror"):
        assert words in message


REFUSED = {
    "revision": ({"revision": "0" * 40}, "Revision '0000.*' doesn't exist for dataset 'someone/plain'"),
    "name": ({"name": "someone/nothing"}, "'someone/nothing' doesn't exist on the Hub or cannot be accessed.*HF_TOKEN"),
    "column": ({"text": "words"}, "someone/plain at .*no column words; it has body, by, id"),
    "split": ({"split": "trains"}, "unknown split 'trains'; did you mean train[?] known: train"),
    "configuration": ({"configuration": "german"}, r"BuilderConfig 'german' not found. Available: \['default'\]"),
    "files": ({"files": ["none-*.parquet"]}, "No .*data files found"),
    "folder": ({"name": "some/folder"}, "expected files below hf://datasets/some/folder@.*, found /.*/train.jsonl"),
}
CARD = "---\nconfigs:\n- config_name: default\n  sep: ;\n  data_files: a.csv\n---\n"
SETS = {  # files of a set | the texts it gives, the place and reason of what is refused, or a message
    "cut": (
        {"data/train-0.parquet": (whole := parquet([{"body": "fine"}] * 30)), "data/train-1.parquet": whole[:-20]},
        "someone/cut at .*data/train-1.parquet is not a whole Parquet file",
    ),
    "lie": ({"train.jsonl": whole}, "train.jsonl holds Parquet data, but its name says .jsonl"),
    "latin": (
        {"train.jsonl": b'{"body": "one"}\n{"body": "caf\xe9"}\n{"body": "two"}\n'},
        ["one", "someone/latin/train.jsonl:2text is not UTF-8", "two"],
    ),
    "ragged": (
        {"train.jsonl": b'{"body": "one"}\n{"text": "two"}\n{"body": "three"}\n'},
        ["one", "someone/ragged/train.jsonl:2no column body", "three"],
    ),
    "array": ({"train.json": b'[{"body": "one"}, {"body": "two"}]'}, ["one", "two"]),
    "lines": ({"train.json": b'{"body": "one"}\n{"body": "two"}\n'}, ["one", "two"]),
    "tabs": ({"train.tsv": b"n\tbody\n1\tone, two\n"}, ["one, two"]),
    "packed": ({"train.csv.gz": gzip.compress(b"body\none\n", mtime=0)}, ["one"]),
    "tar": ({"train.tar": b"anything"}, "someone/tar/train.tar: expected one of .jsonl"),
    "semicolon": (
        {"README.md": CARD.encode(), "a.csv": b"body;n\none;1\n"},
        "reading options .*'sep': ';'.*kind: local",
    ),
}
# One process for all, since the address of the hub is read when the library is imported.
EACH = """
import json, sys, time
time.sleep = lambda seconds: None
from freshstart.corpora import hub, settings
from freshstart.errors import InputError
for name, block in json.load(sys.stdin).items():
    try:
        items = hub.documents(settings(block, "here"), 0)
        print(json.dumps([name, [getattr(item, "text", "") or item.where + item.reason for item in items]]))
    except InputError as error:
        print(json.dumps([name, str(error)]))
"""


def test_what_the_hub_has_and_has_not(tmp_path, calm, plain):
    rows, commit = plain
    block = {"kind": "hub", "name": "someone/plain", "revision": commit, "text": "body", **SIZES}
    few = block | {"name": "someone/few", "revision": calm.add("someone/few", split_rows(rows, parquet, "parquet"))}
    first = {"troubled": block, "some": few | {"source": "id", "most_documents": ROWS}}
    first["more"] = first["some"] | {"most_documents": 3 * ROWS - 5}
    blocks = first | {name: block | change for name, (change, _) in REFUSED.items()}
    for name, (contents, _) in SETS.items():
        blocks[name] = block | {"name": f"someone/{name}", "revision": calm.add(f"someone/{name}", contents)}
    there = place(tmp_path, "there", calm)
    (there.folder / "home").mkdir()
    (there.folder / "home/token").write_text("hf_saved_by_a_login")
    (there.folder / "some/folder").mkdir(parents=True)
    (there.folder / "some/folder/train.jsonl").write_text('{"body": "one"}')
    begin = len(calm.log)
    calm.cut, calm.unavailable = 4, 2
    process = subprocess.run(
        [sys.executable, "-c", EACH],
        cwd=there.folder,
        env=there.environment,
        input=json.dumps(blocks),
        capture_output=True,
        text=True,
        check=True,
    )
    assert calm.cut == calm.unavailable == 0
    requests = calm.log[begin:]
    assert {request.token for request in requests} == {None}  # a token comes from the environment alone
    results = dict(json.loads(line) for line in process.stdout.splitlines())
    texts = [row["body"] for row in rows]
    assert [results.pop(name) for name in first] == [texts, texts[:ROWS], texts[: 3 * ROWS - 5]]
    sent = [request.path.split("/")[-1] for request in requests if request.is_content and "/few/" in request.path]
    assert sent == [f"train-{i:05d}-of-{FILES:05d}.parquet" for i in range(3)]  # each once, and no later one
    expected = {name: message for name, (_, message) in (REFUSED | SETS).items()}
    assert results.keys() == expected.keys()
    for name, result in results.items():
        if isinstance(expected[name], list):
            assert result == expected[name]
        else:
            assert re.search(expected[name], result), result
    assert not any("tar" in request.path and request.is_content for request in requests)
    assert all("trying again" in line or ": fetching " in line for line in process.stderr.splitlines()), process.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"revision": "main"}, "must be a full commit .* found 'main'.*commits/main"),
        ({"name": "plain"}, "must be owner/name"),
        ({"split": "train[:10%]"}, "must be the name of one split"),
        ({"files": ("a",), "configuration": "b"}, "cannot both be set"),
        ({"most_documents": 0}, "most_documents must be at least 2"),
    ],
)
def test_settings_are_checked(change, message):
    block = {"kind": "hub", "name": "someone/plain", "revision": "a" * 40, **SIZES}
    with pytest.raises(ValueError, match=message):
        hub_kind.Settings(**(block | change))


# Scored sets


def original_way(draw, times):
    """A document as the paper's sets hold it: segments with the white space behind them, scores by their length."""
    texts, counts = [], []
    for _ in range(draw.randrange(1, 12)):
        solid = draw.choice(["Call me.", "mail a@b.co or c@d.co", "# x = 1", "Nothing here", "No."])
        texts.append(solid + draw.choice([" ", "  ", "\n", "\n\n", "", " \n"]))
        counts.append(draw.choice([0, 0, 1, 2, 5]))
        if draw.random() < 0.2:
            texts.append(draw.choice(["\n", "  ", "\t"]))
            counts.append(draw.choice([0, 1]))
    return texts, [number / len(text) ** times for text, number in zip(texts, counts, strict=True)]


@pytest.fixture(scope="module")
def scored(hub):
    draw = random.Random(1)
    rows = []
    for i in range(FILES * ROWS):
        texts, scores = original_way(draw, 2)
        texts[0] = f"{i}: {texts[0]}" if scores[0] == 0 else texts[0]
        texts.insert(0, f"Document {i}. ")
        scores.insert(0, 0.0)
        mean = float(np.mean(scores))
        rows.append({"texts": texts, "scores": scores, "avg_score": mean, "meta": {"pile_set_name": f"set {i % 4}"}})
    return rows, hub.add("someone/scored", split_rows(rows, jsonl, "jsonl"))


def test_scored_hub(tmp_path, calm, scored):
    rows, commit = scored
    block = {"kind": "scored_hub", "name": "someone/scored", "revision": commit, "unit": "count_per_character"}
    whole = place(tmp_path, "whole", calm, **block, check_zero=True)
    status, _, errors = whole.run()
    assert status == 0, errors
    table = whole.table()
    record = json.loads(table.schema.metadata[b"published"])
    assert record == json.loads((whole.folder / "report.json").read_text())["published"]
    assert record["divided_by_length"] == "twice"
    assert record["share_supporting"]["twice"] > 0.99
    assert (record["name"], record["revision"], record["unit"]) == ("someone/scored", commit, "count_per_character")
    types = {"segment_ends": pa.list_(pa.int32()), "scores": pa.list_(pa.float32()), "check_again": pa.bool_()}
    assert {name: table.schema.field(name).type for name in types} == types
    by_text = {"".join(row["texts"]): row for row in rows}
    assert {row["text"] for row in table.to_pylist()} == set(by_text)
    for row in table.to_pylist():
        before = by_text[row["text"]]
        ends = row["segment_ends"]
        assert ends[-1] == len(row["text"])
        counts = np.array(row["scores"]) * np.diff(ends, prepend=0)
        lengths = np.array([len(text) for text in before["texts"]])
        np.testing.assert_allclose(counts.sum(), (np.array(before["scores"]) * lengths**2).sum(), atol=1e-4)
        assert row["check_again"] == (max(before["scores"]) == 0)


# text of the published segments | published scores | our segments | our scores, all reckoned by hand
MERGES = [
    (["One. ", "Two.\n"], [1 / 5, 2 / 5], ["One.", " Two.\n"], [1 / 4, 2 / 6]),
    (["x=1\n", "\n", "y = 2\n"], [1 / 4, 1.0, 0.0], ["x=1", "\n\ny = 2\n"], [1 / 3, 1 / 8]),
    (["\n", "x\n"], [1.0, 0.0], ["\nx\n"], [1 / 3]),
    (["x\n", "\n", "\n"], [1 / 2, 0.0, 1.0], ["x\n\n\n"], [2 / 4]),
    (["One.", "Two. ", "Three"], [1 / 4, 1 / 5, 0.0], ["One.Two.", " Three"], [2 / 8, 0.0]),
    (["One.", " Two"], [1 / 4, 0.0], ["One.", " Two"], [1 / 4, 0.0]),
    (["a\x1c", "b c"], [1 / 2, 1 / 3], ["a\x1cb c"], [2 / 5]),
    (["a ", "", "b"], [1 / 2, 0.0, 1.0], ["a", " b"], [1.0, 1 / 2]),
    ([" \n"], [1 / 2], [" \n"], [1 / 2]),
]


@pytest.mark.parametrize(("texts", "scores", "segments", "expected"), MERGES)
def test_counts_are_preserved(texts, scores, segments, expected):
    text, ends, ours = resegmented(texts, scores, "count_per_character")
    assert [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)] == segments
    assert ours == pytest.approx(expected, abs=1e-12)
    again = [score / len(text) if text else 0.0 for text, score in zip(texts, scores, strict=True)]
    assert resegmented(texts, again, "count_per_character", TWICE)[2] == pytest.approx(expected, abs=1e-12)


def test_probabilities_keep_the_greater():
    texts = ["Good.", "Bad. ", "\n\n", "Fine. ", "\n"]
    text, ends, scores = resegmented(texts, [0.1, 0.7, 0.9, 0.2, 0.8], "probability")
    assert [text[: ends[0]], text[ends[0] :]] == ["Good.Bad.", " \n\nFine. \n"]
    assert scores == [0.7, 0.2]  # that of white space alone does not count


PIECES = st.text(st.sampled_from("ab.\n \t\r\x1c\u2003é"), max_size=6)


@given(st.lists(st.tuples(PIECES, st.integers(0, 9)), min_size=1, max_size=12))
def test_segments_end_where_a_segment_may(pairs):
    texts = [text for text, _ in pairs]
    scores = [number / max(len(text), 1) for text, number in pairs]
    text, ends, ours = resegmented(texts, scores, "count_per_character")
    assert text == "".join(texts)
    assert ends[-1] == len(text)
    for end in ends[:-1]:
        assert is_boundary(text, end)
        assert not all(map(is_space, text[end:]))
    lengths = np.diff(ends, prepend=0)
    counted = sum(number for piece, number in pairs if piece)
    assert (np.array(ours) * np.maximum(lengths, 1)).sum() == pytest.approx(counted)
    # Every boundary of theirs that ours allows, once white space has moved, is there.
    offset = 0
    for piece in texts:
        solid = len(piece) - next((i for i, c in enumerate(reversed(piece)) if not is_space(c)), len(piece))
        end, offset = offset + solid, offset + len(piece)
        if solid and is_boundary(text, end) and not all(map(is_space, text[end:])):
            assert end in ends


def test_white_space_is_that_of_the_segments():
    assert {chr(i) for i in range(sys.maxunicode + 1) if is_space(chr(i))} == set(WHITE_SPACE)


def test_once_twice_or_undecided():
    draw = random.Random(2)
    pairs = [(draw.randrange(1, 6), draw.randrange(1, 300)) for _ in range(3000)]
    for times, verdict in ((1, ONCE), (2, TWICE)):
        for kind in (np.float64, np.float32):
            segments = [(float(kind(count / length**times)), length) for count, length in pairs]
            assert divided_by_length(segments)[0] == verdict
    mixed = [(count / length ** (1 + i % 2), length) for i, (count, length) in enumerate(pairs)]
    stripped = [(count / (length - 1) ** 2, length) for count, length in pairs if length > 1]
    words = [(draw.random(), length) for _, length in pairs]
    for undecided in (mixed, stripped, words, [], [(0.0, 50)], [(1.0, 1)]):
        assert divided_by_length(undecided)[0] == UNDECIDED
    _, shares = divided_by_length(mixed)
    assert 0.4 < shares["once"] < 0.6
    assert 0.4 < shares["twice"] < 0.6


@pytest.mark.parametrize(
    ("texts", "scores", "unit", "reason"),
    [
        (["a", None], [0.0, 0.0], "probability", "no texts"),
        (["a"], [0.0, 0.0], "probability", "not one score a segment"),
        (["a"], None, "probability", "not one score a segment"),
        (["a"], [float("nan")], "count_per_character", "score out of range"),
        (["a"], [-0.1], "count_per_character", "score out of range"),
        (["a"], [1.5], "probability", "score out of range"),
    ],
)
def test_rows_that_are_no_scored_documents(monkeypatch, texts, scores, unit, reason):
    rows = [("here:1", {"texts": texts, "scores": scores}), ("here:2", {"texts": ["a b"], "scores": [0.5]})]
    monkeypatch.setattr(scored_hub, "rows", lambda settings, columns: iter(rows))
    scored_hub._divided.cache_clear()
    block = {"kind": "scored_hub", "name": "someone/scored", "revision": "a" * 40, "unit": unit, **SIZES}
    refused, fine = scored_hub.documents(scored_hub.Settings(**block), 0)
    assert (refused.where, refused.reason) == ("here:1", reason)
    assert (fine.text, fine.segment_ends, fine.scores) == ("a b", [3], [0.5])
