"""Corpora: what is read from where, what is refused, and how documents are chosen and split."""

import bz2
import csv
import gzip
import hashlib
import http.server
import io
import json
import lzma
import os
import re
import threading
import tracemalloc
import zipfile
from contextlib import contextmanager
from functools import partial

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshstart import corpora, files
from freshstart.corpora import Document, Refusal, document_id, local, wheels
from freshstart.corpora.build import build
from freshstart.errors import InputError

SIZES = {"train_characters": 10**6, "heldout_characters": 10**5, "part_characters": 2000}


def local_settings(path, **changes):
    return local.Settings(kind="local", path=str(path), **(SIZES | changes))


def texts(path, **changes):
    return list(local.documents(local_settings(path, **changes), 0))


def many(count=200, sources=10):
    return [Document(f"document {i} " * (i % 7 + 3), f"source-{i % sources}", {}) for i in range(count)]


def rows_of(folder):
    tables = [files.read_table(path, "corpus") for path in files.parts(folder, "corpus")]
    return pa.concat_tables(tables).to_pylist()


ROWS = [
    {"text": "One, two.\nThree", "by": "a"},
    {"text": 'A "quoted" text', "by": "b"},
    {"text": "Grüße 🙂", "by": "a"},
]


def as_jsonl():
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def as_array():
    return json.dumps(ROWS, indent=1).encode()


def as_csv(delimiter=","):
    text = io.StringIO()
    writer = csv.DictWriter(text, ["text", "by"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def as_tsv():
    return as_csv("\t")


PACK = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda raw: pa.compress(raw, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize(
    ("kind", "make"),
    [(".jsonl", as_jsonl), (".json", as_jsonl), (".json", as_array), (".csv", as_csv), (".tsv", as_tsv)],
)
def test_tables(tmp_path, kind, make, packing):
    path = tmp_path / f"rows{kind}{packing}"
    path.write_bytes(PACK[packing](make()))
    documents = texts(path, source="by")
    assert [(item.text, item.source) for item in documents] == [(row["text"], row["by"]) for row in ROWS]
    assert all(item.source == path.name for item in texts(path))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(VALUES, max_size=5), st.integers(1, 9), st.sampled_from([None, 1]))
def test_an_array_is_read_in_pieces(tmp_path_factory, values, piece, indent):
    path = tmp_path_factory.mktemp("array") / "values.json"
    path.write_text(json.dumps(values, indent=indent, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "PIECE", piece)
        assert list(local._array(path)) == list(enumerate(values, 1))


def test_parquet(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    assert [item.text for item in texts(tmp_path / "rows.parquet")] == [row["text"] for row in ROWS]


@contextmanager
def http_server(folder):
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def s3_server(folder):
    """moto's S3 with the files of a folder in bucket ``corpora``."""
    moto = pytest.importorskip("moto.server", reason="make env")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    names = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in names.items():
            patch.setenv(name, value)
        store = fsspec.filesystem("s3", skip_instance_cache=True)
        store.mkdir("corpora")
        store.put(str(folder) + "/", "corpora/", recursive=True)
        yield "s3://corpora"
        server.stop()


@pytest.mark.parametrize("server", [http_server, s3_server])
def test_files_of_a_store_are_those_of_the_disk(tmp_path, server):
    """Every kind of file, a pattern and a folder; what no client can get is one line."""
    (tmp_path / "in").mkdir()
    for name, raw in {"a.jsonl": as_jsonl(), "b.csv": as_csv(), "d.json": as_array(), "e": b"whole"}.items():
        (tmp_path / "in" / name).write_bytes(raw)
    for ending, pack in PACK.items():
        (tmp_path / f"in/f.jsonl{ending}").write_bytes(pack(as_jsonl()))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "in/c.parquet")
    with server(tmp_path) as url:
        for path in ("in/a.jsonl", "in/b.csv", "in/c.parquet", "in/d.json", *(f"in/f.jsonl{end}" for end in PACK)):
            assert [row.text for row in texts(f"{url}/{path}")] == [row["text"] for row in ROWS]
        for path in ("in/*.jsonl*", "in/"):
            here = texts(tmp_path / path)
            assert [(row.text, row.source) for row in texts(f"{url}/{path}")] == [
                (row.text, row.source) for row in here
            ]
        with pytest.raises(InputError, match=f"{url}/in/none.jsonl can not be read .*check the address"):
            texts(f"{url}/in/none.jsonl")
    with pytest.raises(InputError, match="can not be read"):  # nobody is there any more
        texts(f"{url}/in/a.jsonl")


def test_a_store_without_its_package_has_one_message():
    with pytest.raises(InputError, match=r"gs:// needs a package .*pip install gcsfs"):
        texts("gs://bucket/a.jsonl")


@pytest.mark.parametrize("packing", PACK)
def test_a_text_file_holds_a_document_a_line(tmp_path, packing):
    path = tmp_path / f"lines.txt{packing}"
    path.write_bytes(PACK[packing](b"one\n\ntwo \r\nthree"))
    assert [item.text for item in texts(path)] == ["one", "two ", "three"]


def test_a_folder_of_files(tmp_path):
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/a.py").write_bytes(b"x = 1\r\ny = 2\n")
    (tmp_path / "in/deep/b.txt.gz").write_bytes(gzip.compress(b"whole\nfile\n", mtime=0))
    (tmp_path / "in/rows.jsonl").write_bytes(as_jsonl())
    (tmp_path / "in/settings.json").write_bytes(b'{"x": 1}')
    documents = texts(tmp_path / "in")
    whole = ["x = 1\r\ny = 2\n", "whole\nfile\n"]
    assert [item.text for item in documents] == [*whole, *(row["text"] for row in ROWS), '{"x": 1}']
    assert [item.source for item in documents[:2]] == ["a.py", "b.txt.gz"]
    assert [item.text for item in texts(tmp_path / "in" / "*.jsonl")] == [row["text"] for row in ROWS]


def refused(path, **changes):
    return [item for item in texts(path, **changes) if isinstance(item, Refusal)]


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("a.parquet", b"PAR1 and then nothing", "is not a whole Parquet file"),
        ("a.jsonl", b"PAR1 and then nothing", "holds Parquet data, but its name says .jsonl"),
        ("a.csv", gzip.compress(b"text\nx", mtime=0), "holds gzip data, but its name says .csv"),
        ("a.jsonl.gz", b'{"text": "x"}\n', "is not a whole .gz file"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 50, mtime=0)[:-9], "is not a whole .gz file"),
        ("a.jsonl.zst", b'{"text": "x"}\n', "is not a whole .zst file"),
        ("a.jsonl.bz2", bz2.compress(b'{"text": "x"}\n' * 50)[:-9], "is not a whole .bz2 file"),
        ("a.jsonl.xz", b'{"text": "x"}\n', "is not a whole .xz file"),
        ("a.json", b'[{"text": "x"}, {"te', "not a JSON array after element 1"),
        ("a.json", b'[{"text": "\xff"}]', "text is not UTF-8"),
        ("a.docx", b"word", "expected one of .jsonl, .ndjson, .json, .csv, .tsv, .parquet, .txt (each also .gz"),
        ("a.csv", b"title,body\nx,y\n", "no column text; it has title, body"),
        ("a.jsonl", b'{"body": "x"}\n', "a.jsonl:1: no column text; it has body"),
        ("a.csv", b'text\n"unclosed', "not a CSV table"),
        ("a.csv", b"text\nfine\n\xff\xfe\n", "text is not UTF-8"),
        ("a.csv", b"text,text\none,two\n", "a.csv:1: 2 columns are named text; it has text, text"),
        ("a.json", b"[1, " + b"[" * 200_000, "element 2 is nested too deeply"),
    ],
)
def test_files_that_are_not_what_their_name_says(tmp_path, name, raw, message):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(InputError, match=re.escape(message)):
        texts(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "raw", "where", "reason"),
    [
        ("a.jsonl", b'{"text": "fine"}\n{"text": \n', ":2", "not JSON"),
        ("a.jsonl", b'{"text": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n", ":1", "not JSON"),
        ("a.jsonl", b'["text"]\n', ":1", "not a JSON object"),
        ("a.json", b'[{"text": "fine"}, 1]', ":2", "not a JSON object"),
        ("a.jsonl", b'{"text": "fine"}\n{"body": "x"}\n', ":2", "no column text"),
        ("a.jsonl", b'{"text": 3}\n', ":1", "no text"),
        ("a.jsonl", b'{"text": "\xff"}\n', ":1", "text is not UTF-8"),
        ("a.txt", b"fine\n\xc3\x28\n", ":2", "text is not UTF-8"),
        ("a.csv", b"text,by\nx,y,z\n", ":2", "row with another number of fields than the header"),
    ],
)
def test_rows_that_can_not_be_documents(tmp_path, name, raw, where, reason):
    (tmp_path / name).write_bytes(raw)
    (refusal,) = refused(tmp_path / name)
    assert refusal.reason == reason
    assert refusal.where.endswith(where)


def test_a_parquet_row_that_is_not_utf8_is_refused_alone(tmp_path):
    column = pa.array([b"one", b"caf\xe9", b"two"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    one, refusal, two = texts(tmp_path / "a.parquet")
    assert (one.text, two.text) == ("one", "two")
    assert (refusal.where, refusal.reason) == (f"{tmp_path}/a.parquet:2", "text is not UTF-8")


LONG = b"x" * 8_000_000


@pytest.mark.parametrize("packing", ["", ".zst"])
@pytest.mark.parametrize(
    ("name", "raw", "reason"),
    [
        ("a.txt", b"one\n" + LONG + b"\ntwo\n", "line too long"),
        ("a.jsonl", b'{"text": "one"}\n{"text": "%b"}\n{"text": "two"}' % LONG, "line too long"),
        ("a.csv", b'text\none\n"%b"\ntwo\n' % LONG, "a row of more than 65,536 characters"),
        ("a.csv", b'text\none\n"' + b"x\n" * 4_000_000, "a row of more than 65,536 characters"),
        ("a.json", b'[{"text": "one"}, {"text": "%b"}]' % LONG, "the next is longer than 65,536 characters"),
        ("", LONG, "document too long"),
    ],
)
def test_memory_does_not_grow_with_a_row(tmp_path, monkeypatch, name, raw, reason, packing):
    monkeypatch.setattr(corpora, "LEAST_ROW", 1 << 16)
    path = tmp_path / f"{name or 'whole/a.txt'}{packing}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(PACK[packing](raw))
    settings = local_settings(path if name else path.parent, max_document_characters=100)
    tracemalloc.start()
    try:
        items = [getattr(item, "text", None) or item.reason for item in local.documents(settings, 0)]
    except InputError as error:
        items = [str(error)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert items == ["one", reason, "two"] or (len(items) == 1 and reason in items[0])
    assert peak < 6_000_000  # a piece of an array is a million characters


@pytest.mark.parametrize(
    ("change", "message"), [({"path": " "}, "path is empty"), ({"source": "text"}, "source is text")]
)
def test_settings_that_would_read_something_else_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        local_settings(**({"path": "x"} | change))


def test_memory_of_a_corpus_is_its_hashes(tmp_path, monkeypatch):
    monkeypatch.setattr("freshstart.corpora.build.SPOOL_ROWS", 500)
    peaks = []
    for count in (100, 2_000, 10_000):  # the first for what is imported
        tracemalloc.start()
        documents = (Document(f"document {i}", f"source {i % 9}", {}) for i in range(count))
        build(documents, local_settings("x", part_characters=20_000), 0, tmp_path / "out")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[2] - peaks[1]) / 8_000 < 300


def test_memory_does_not_grow_with_a_parquet_file(tmp_path):
    column = pa.array([f"{i} " * 400 for i in range(4000)])
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet", row_group_size=200, use_dictionary=False)
    most, before = 0, pa.total_allocated_bytes()
    for _ in local.rows(tmp_path / "a.parquet", ["text"]):
        most = max(most, pa.total_allocated_bytes() - before)
    assert 0 < most < column.nbytes / 4


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("empty document", {"text": " \n\t "}),
        ("NUL byte", {"text": "one\0two"}),
        ("lone surrogate", {"text": "one \ud800 two"}),
        ("lone surrogate", {"source": "\udcff.txt"}),
        ("lone surrogate", {"meta": {"path": "\udcff/rows.jsonl:7"}}),
        ("document too long", {"text": "x" * 5_000_000}),
    ],
)
def test_bad_documents_stop_the_stage_or_are_counted(tmp_path, reason, change):
    bad = Document(**({"text": "a text", "source": "source-1", "meta": {"path": "rows.jsonl:7"}} | change))
    with pytest.raises(InputError, match=rf"rows\.jsonl:7: {reason}.*set skip_bad: true"):
        build([*many(), bad], local_settings("x"), 0, tmp_path / "stopped")
    report = build([*many(), bad], local_settings("x", skip_bad=True), 0, tmp_path / "counted")
    files.write_json(tmp_path / "report.json", report)
    assert report["left_out"] == {reason: 1}
    assert report["left_out_examples"][0]["where"].endswith("rows.jsonl:7")


def test_an_empty_corpus(tmp_path):
    with pytest.raises(InputError, match="the corpus is empty"):
        build([], local_settings("x"), 0, tmp_path / "out")
    with pytest.raises(InputError, match="no file found"):
        texts(tmp_path / "nowhere.jsonl")


def test_documents_are_chosen_by_content(tmp_path):
    documents = many()
    settings = local_settings("x", train_characters=4000, heldout_characters=1500)
    report = build([*documents, documents[3], documents[5]], settings, 0, tmp_path / "a")
    assert report["left_out"] == {"exact duplicate": 2}
    build(reversed(documents), settings, 0, tmp_path / "b")
    for split in ("train", "heldout"):
        rows, other = rows_of(tmp_path / "a" / split), rows_of(tmp_path / "b" / split)
        assert [row["doc_id"] for row in rows] == [row["doc_id"] for row in other]
        assert all(row["doc_id"] == document_id(row["text"]) for row in rows)
        assert len(files.parts(tmp_path / "a" / split, "corpus")) == report[split]["parts"]
    train, heldout = rows_of(tmp_path / "a/train"), rows_of(tmp_path / "a/heldout")
    assert not {row["source"] for row in train} & {row["source"] for row in heldout}
    assert not {row["doc_id"] for row in train} & {row["doc_id"] for row in heldout}
    assert 4000 <= sum(len(row["text"]) for row in train) < 4100
    build(documents, settings, 1, tmp_path / "c")
    assert {row["doc_id"] for row in rows_of(tmp_path / "c/train")} != {row["doc_id"] for row in train}


def test_equal_corpora_have_equal_bytes(tmp_path):
    for name in ("a", "b"):
        build(many(), local_settings("x"), 0, tmp_path / name)
    for path in sorted((tmp_path / "a").rglob("*.parquet")):
        assert files.sha256(path) == files.sha256(tmp_path / "b" / path.relative_to(tmp_path / "a"))
    assert not list((tmp_path / "a").glob(".spool*"))


def test_named_sources_are_held_out(tmp_path):
    build(many(), local_settings("x", heldout=("source-2", "source-5")), 0, tmp_path / "a")
    assert {row["source"] for row in rows_of(tmp_path / "a/heldout")} == {"source-2", "source-5"}
    with pytest.raises(InputError, match="heldout names source-99, but the corpus has no such source"):
        build(many(), local_settings("x", heldout=("source-99",)), 0, tmp_path / "b")


def test_one_source_is_split_by_document(tmp_path):
    report = build(many(sources=1), local_settings("x"), 0, tmp_path / "a")
    assert 8 <= report["heldout"]["documents"] <= 35
    with pytest.raises(InputError, match="none is left for train"):
        build(many(1, 1), local_settings("x"), 0, tmp_path / "b")


def test_a_part_cut_in_half_is_named(tmp_path):
    build(many(), local_settings("x"), 0, tmp_path / "a")
    path = files.parts(tmp_path / "a/train", "corpus@mine")[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"part-00000\.parquet is damaged .*dvc repro -f corpus@mine"):
        files.read_table(path, "corpus@mine")


# Wheels: a package index on this machine, spoken to by pip as it speaks to any other


def make_wheel(folder, name, members):
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, raw in members.items():
            archive.writestr(member, raw)
        metadata = (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n\nWrite to someone@example.org. " + "Text. " * 60
        )
        archive.writestr(f"{name}-1.0.dist-info/METADATA", metadata)
        wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{name}-1.0.dist-info/WHEEL", wheel)
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Two wheels behind a server on the loopback that speaks pip's simple protocol."""
    import http.server
    import threading

    docstring = '"""' + "A long description of a module. " * 20 + '"""\n'
    members = {
        "one/__init__.py": b"",
        "one/code.py": b"# a comment\n" * 40,
        "one/latin.py": "# -*- coding: latin-1 -*-\n# caf\xe9\n".encode("latin-1") * 20,
        "one/broken.py": b"# caf\xe9\n" * 40,
        "one/documented.py": docstring.encode() + b"x = 1\n",
        "one/data.bin": b"\0\1",
    }
    root = tmp_path / "index"
    for name in ("one", "two"):
        (root / name).mkdir(parents=True)
    hashes = {
        "one": make_wheel(root / "one", "one", members),
        "two": make_wheel(
            root / "two", "two", {"two/code.py": b"y = 2\n" * 60, "two/LICENSE": b"Do as you like. " * 40}
        ),
    }

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, directory=str(root), **named)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("FRESHSTART_STATE", str(tmp_path / ".state"))
    yield hashes
    server.shutdown()


def listed(tmp_path, hashes):
    path = tmp_path / "list.txt"
    path.write_text("# two wheels\n" + "".join(f"{name}==1.0 --hash=sha256:{h}\n" for name, h in hashes.items()))
    return path


def wheel_settings(path, contents, **changes):
    return wheels.Settings(kind="wheels", requirements=str(path), contents=contents, **(SIZES | changes))


def test_wheels_give_their_sources(index, tmp_path):
    path = listed(tmp_path, index)
    items = list(wheels.documents(wheel_settings(path, "python"), 0))
    kept = {item.meta["path"].split("/", 1)[1]: item for item in items if isinstance(item, Document)}
    assert sorted(kept) == ["one/code.py", "one/documented.py", "one/latin.py", "two/code.py"]
    assert "caf\xe9" in kept["one/latin.py"].text
    assert kept["two/code.py"].source == "two"
    assert [item.reason for item in items if isinstance(item, Refusal)] == ["not in the encoding that it declares"]
    assert items == list(wheels.documents(wheel_settings(path, "python"), 0))


def test_wheels_give_their_prose(index, tmp_path):
    documents = wheels.documents(wheel_settings(listed(tmp_path, index), "prose", docstrings=0.5), 0)
    names = [item.meta["path"].split("/", 1)[1] for item in documents]
    assert names == [
        "one-1.0.dist-info/METADATA",
        "one/documented.py#docstrings",
        "two-1.0.dist-info/METADATA",
        "two/LICENSE",
    ]


def test_wheels_at_hand_are_not_downloaded_again(index, tmp_path, monkeypatch):
    path = listed(tmp_path, index)
    wheels.wheels(path)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    assert [wheel.name for wheel in wheels.wheels(path)] == ["one-1.0-py3-none-any.whl", "two-1.0-py3-none-any.whl"]


def test_a_wheel_with_another_hash_is_refused(index, tmp_path):
    path = listed(tmp_path, index | {"two": "0" * 64})
    with pytest.raises(InputError, match="pip could not download the wheels .*HASHES"):
        wheels.wheels(path)


def test_no_index_has_one_message(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(InputError, match="Check the connection to the package index"):
        wheels.wheels(listed(tmp_path, index))


@pytest.mark.parametrize(
    ("line", "message"), [("one", "list.txt:1: expected"), ("# nothing", "names no wheel"), (None, "is missing")]
)
def test_lists_are_checked(tmp_path, line, message):
    path = tmp_path / "list.txt"
    if line is not None:
        path.write_text(line)
    with pytest.raises(InputError, match=message):
        wheels.wheels(path)
