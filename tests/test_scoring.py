"""The pool of workers: equal bytes whatever their number, nothing lost when they die, nothing silent when they fail."""

import math
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from freshstart import files, scorers
from freshstart.errors import InputError
from freshstart.pool import processors, worker_count
from freshstart.schema import CORPUS, SCORED
from freshstart.scorers import Finding, Scored, Scorer
from freshstart.scoring import cache, pool
from freshstart.scoring.report import report
from freshstart.scoring.table import score_part

RAY = pytest.mark.timeout(240)


def digests(folder):
    return {str(path.relative_to(folder)): files.sha256(path) for path in sorted(folder.rglob("*.parquet"))}


def score(door, made, output, task="pep8", workers=0, corpus=None):
    data = made.paths(task)
    door(
        "score",
        task=task,
        workers=workers,
        corpus=corpus or data["corpus"],
        scorer=data["scorer"],
        output=output,
        report=f"{output}.json",
    )


@RAY
def test_equal_bytes_for_any_number_of_workers(made, workplace, door):
    expected = digests(made.paths("pep8")["scored"])
    assert len(expected) >= 5
    for workers in (1, 2):
        shutil.rmtree(workplace / ".state", ignore_errors=True)
        score(door, made, f"out-{workers}", workers=workers)
        assert digests(workplace / f"out-{workers}") == expected


def test_the_scored_table(made):
    for task in ("pep8", "pii", "toxicity"):
        data = made.paths(task)
        for split in ("train", "heldout"):
            for path in files.parts(data["corpus"] / split, "corpus"):
                before = files.read_table(path, "corpus").to_pylist()
                table = files.read_table(data["scored"] / split / path.name, "score")
                assert b"freshstart" in table.schema.metadata
                for old, new in zip(before, table.to_pylist(), strict=True):
                    assert {key: new[key] for key in old} == old
                    assert new["segment_ends"][-1] == len(new["text"])
                    if new["error"] is None:
                        assert len(new["scores"]) == len(new["segment_ends"])
                        assert new["avg_score"] == pytest.approx(np.mean(new["scores"]), rel=1e-6)
                    else:
                        assert new["scores"] is None
                        assert new["avg_score"] is None


@pytest.fixture
def asked(monkeypatch):
    """The documents that the pep8 scorer was asked about."""
    from freshstart.scorers.pep8 import Pep8

    texts = []
    original = Pep8.score
    monkeypatch.setattr(
        Pep8, "score", lambda self, documents: texts.extend(t for t, _ in documents) or original(self, documents)
    )
    return texts


def test_no_document_is_scored_twice(made, workplace, door, asked, capsys):
    score(door, made, "a")
    documents = len(asked)
    assert documents > 30
    score(door, made, "b")
    unscored = len(asked) - documents  # failures are not kept: they are asked again
    assert unscored == sum(table["error"].length() - table["error"].null_count for table in tables(workplace / "a"))
    pack = min((workplace / ".state/scores").rglob("*.parquet"))
    pack.write_bytes(pack.read_bytes()[:100])
    (workplace / "c/train").mkdir(parents=True)
    (workplace / "c/train" / files.part_name(0)).write_bytes(b"left behind by a run that was killed")
    capsys.readouterr()
    score(door, made, "c")
    assert f"warning: {pack} was damaged and is removed" in capsys.readouterr().err
    assert documents + 2 * unscored < len(asked) < 2 * documents
    shutil.rmtree(workplace / ".state")
    score(door, made, "d")
    for name in "bcd":
        assert digests(workplace / name) == digests(workplace / "a")


class Answering(Scorer):
    """Says of every document what ``answer`` makes of its number of segments, of the first what ``first`` does."""

    def __init__(self, first=None):
        self.first = first or self.answer

    def answer(self, count):
        return Scored(tuple(number / 7 for number in range(count)), (Finding(0, 1, "x"),) * 3)

    def score(self, documents):
        return [(self.answer if number else self.first)(len(ends)) for number, (_, ends) in enumerate(documents)]


@pytest.fixture
def part(made, workplace):
    """Score the first part of the pep8 corpus with a scorer in this process; gives what was done and the table."""

    def run(scorer):
        source = files.parts(made.paths("pep8")["corpus"] / "train", "corpus")[0]
        done = score_part(source, workplace / "part.parquet", lambda: scorer, "lines", {"kind": "own"})
        return done, files.sha256(workplace / "part.parquet")

    return run


def test_a_flipped_bit_in_a_pack_changes_nothing(part, workplace):
    _, clean = part(Answering())
    rng = random.Random(0)
    for _ in range(300):
        (pack,) = (workplace / ".state").rglob("*.parquet")
        content = bytearray(pack.read_bytes())
        bit = rng.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        pack.write_bytes(content)
        done, digest = part(Answering())
        assert (digest, done.damaged, done.anew > 1) == (clean, (pack,), True), bit


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda n: Scored((1.0,)), "ValueError: expected"),
        (lambda n: Scored((-1.0,) * n), "ValueError: a score must be finite and at least 0"),
        (lambda n: Scored((math.inf,) * n), "ValueError: a score must be finite"),
        (lambda n: Scored((math.nan,) * n), "ValueError: a score must be finite"),
        (lambda n: Scored((1e39,) * n), "and fit a float32, got 1e+39"),
        (lambda n: Scored(("0.5",) * n), "TypeError: must be real number, not str"),
        (lambda n: Scored((None,) * n), "TypeError: must be real number, not None"),
        (lambda n: Scored(None), "TypeError: 'NoneType'"),
        (lambda n: Scored((0.0,) * n, (Finding(-1, 3, "x"),)), "ValueError: a finding must be a span from 0 to"),
        (lambda n: Scored((0.0,) * n, (Finding(3, 10**9, "x"),)), "ValueError: a finding must be a span"),
        (lambda n: Scored((0.0,) * n, (Finding(3, 2, "x"),)), "ValueError: a finding must be a span"),
        (lambda n: Scored((0.0,) * n, (Finding(1.5, 2.5, "x"),)), "TypeError: 'float'"),
        (lambda n: Scored((0.0,) * n, (Finding(1, 2, 3),)), "ValueError: a finding must be a span"),
        (lambda n: Scored((0.0,) * n, ("x",)), "AttributeError"),
        (lambda n: Scored((), error=ValueError("x")), "TypeError: expected a Scored, whose error is a text"),
        (lambda n: None, "TypeError: expected a Scored"),
    ],
)
def test_an_answer_that_can_not_be_right_is_an_error_of_its_document(part, workplace, answer, message):
    part(Answering(answer))
    first, *others = files.read_table(workplace / "part.parquet", "score").to_pylist()
    assert first["scores"] is first["avg_score"] is None
    assert message in first["error"]
    assert all(row["error"] is None for row in others)
    (pack,) = (workplace / ".state").rglob("*.parquet")
    assert first["doc_id"] not in files.read_table(pack, "score")["doc_id"].to_pylist()


def test_a_scorer_that_leaves_documents_out_is_refused(part):
    with pytest.raises(InputError, match=r"Few\.score gave 1 results for \d+ documents"):
        part(type("Few", (Answering,), {"score": lambda self, documents: [Scored(())]})())


def tables(folder):
    return [files.read_table(path, "score") for path in sorted(folder.rglob("*.parquet"))]


def split_anew(made, folder, share, size):
    """The pep8 corpus, its first ``share`` dealt anew to parts of ``size`` documents."""
    for split in ("train", "heldout"):
        table = pa.concat_tables(
            [files.read_table(path, "corpus") for path in files.parts(made.paths("pep8")["corpus"] / split, "corpus")]
        )
        table = table.slice(0, max(int(len(table) * share), 1))
        for number, begin in enumerate(range(0, len(table), size)):
            files.write_table(folder / split / files.part_name(number), table.slice(begin, size))
    return folder


def test_a_grown_corpus_scores_what_is_new(made, workplace, door, asked):
    small, grown = split_anew(made, workplace / "small", 0.8, 5), split_anew(made, workplace / "grown", 1.0, 7)
    score(door, made, "first", corpus=small)
    before = len(asked)
    score(door, made, "second", corpus=grown)
    every = sum(len(table) for table in tables(workplace / "grown"))
    failures = sum(len(table) - table["error"].null_count for table in tables(workplace / "first"))
    assert len(asked) - before == every - before + failures
    score(door, made, "third", corpus=small)
    assert digests(workplace / "third") == digests(workplace / "first")
    shutil.rmtree(workplace / ".state")
    score(door, made, "cold", corpus=grown)
    assert digests(workplace / "cold") == digests(workplace / "second")


def test_two_writers_do_not_corrupt_the_cache(made, workplace, door):
    """Two processes score the same corpus at once, on one state folder."""
    data = made.paths("pep8")
    words = ["--task", "pep8", "--workers", "0", "--corpus", data["corpus"], "--scorer", data["scorer"]]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "stages.score", *map(str, words), "--output", name, "--report", f"{name}.json"],
            cwd=workplace,
            env=environment,
        )
        for name in ("one", "two")
    ]
    assert [process.wait() for process in running] == [0, 0]
    assert digests(workplace / "one") == digests(workplace / "two") == digests(data["scored"])
    score(door, made, "three")
    assert digests(workplace / "three") == digests(data["scored"])


def test_the_cache_is_seeded_bounded_and_pruned(made, workplace, door, asked):
    scored = made.paths("pep8")["scored"]
    count = cache.seed(files.parts(scored / "train", "score") + files.parts(scored / "heldout", "score"))
    score(door, made, "out")
    assert digests(workplace / "out") == digests(scored)
    assert len(asked) == sum(len(table) for table in tables(scored)) - count
    held = cache.held()
    assert [entry.kind for entry in held] == ["pep8 1"]
    freed = cache.prune(held[0].bytes / 2)
    assert 0 < held[0].bytes - freed <= held[0].bytes / 2
    cache.prune(0)
    assert cache.held() == []
    with pytest.raises(InputError, match="was not scored by this project"):
        cache.seed(files.parts(made.paths("pep8")["corpus"] / "train", "corpus"))


def test_the_bound_of_the_cache_is_checked(monkeypatch):
    monkeypatch.setenv("FRESHSTART_SCORE_CACHE_GIB", "much")
    with pytest.raises(InputError, match="FRESHSTART_SCORE_CACHE_GIB must be a number of GiB"):
        cache.bound()


def test_published_scores_are_taken_and_some_checked_again(made, workplace, door, asked):
    table = files.read_table(files.parts(made.paths("pep8")["scored"] / "train", "score")[0], "score")
    rows = table.filter(pc.is_valid(table["scores"])).to_pylist()[:4]
    brought = [[0.5] * len(row["segment_ends"]) for row in rows]
    part = pa.table(
        {
            **{name: pa.array([row[name] for row in rows], SCORED.field(name).type) for name in CORPUS.names},
            "segment_ends": pa.array([row["segment_ends"] for row in rows], SCORED.field("segment_ends").type),
            "scores": pa.array(brought, SCORED.field("scores").type),
            "check_again": [False, True, False, False],
        }
    ).replace_schema_metadata({b"published": b'{"name": "someone/scored", "divided_by_length": "once"}'})
    for split in ("train", "heldout"):
        files.write_table(workplace / "corpus" / split / files.part_name(0), part)
    score(door, made, "out", corpus=workplace / "corpus")
    table = files.read_table(workplace / "out/train" / files.part_name(0), "score")
    assert [row["scores"] for row in table.to_pylist()] == [brought[0], rows[1]["scores"], brought[2], brought[3]]
    assert set(asked) == {rows[1]["text"]}
    assert b"someone/scored" in table.schema.metadata[b"freshstart"]
    with pytest.raises(InputError, match="was not scored by this project"):
        cache.seed([workplace / "out/train" / files.part_name(0)])


def test_another_version_of_the_scorer_scores_anew(made, monkeypatch):
    record = {"kind": "pep8", "version": "1"}
    before = scorers.fingerprint(record)
    assert before != scorers.fingerprint(record | {"version": "2"})
    assert "python" in before


def test_another_way_to_cut_segments_scores_anew(monkeypatch, tmp_path):
    record = {"kind": "pep8", "version": "1"}
    before = pool.made_here(record)
    (tmp_path / "segments.py").write_text("# another way")
    monkeypatch.setattr(pool.segments, "__file__", str(tmp_path / "segments.py"))
    assert pool.made_here(record) != before
    assert "device" not in before
    assert pool.made_here({"kind": "detoxify", "version": "1"})["device"] in ("cpu", "cuda")


OWN = """
import os, sys, time
from freshstart.scorers import Scorer

class Picky(Scorer):
    version = "1"
    def score_texts(self, texts):
        text = "".join(texts)
        if "import argparse" in text:
            raise RuntimeError("I do not like argparse")
        return [0.0] * len(texts)

class Hopeless(Scorer):
    version = "1"
    def score_texts(self, texts):
        raise RuntimeError("never")

class Deadly(Scorer):
    version = "1"
    def score_texts(self, texts):
        if "import argparse" in "".join(texts):
            self.end()
        return [0.0] * len(texts)
    def end(self):
        os._exit(3)

class Hanging(Deadly):
    def end(self):
        while True:
            pass

class Exiting(Deadly):
    def score(self, documents):
        return [self.scored(*document) for document in documents]
    def end(self):
        sys.exit(0)

class HangingWithOthers(Exiting):
    def end(self):
        time.sleep(1_000)

class Slow(Scorer):
    version = "1"
    def score_texts(self, texts):
        time.sleep(0.2)
        return [float(len(text)) for text in texts]

class Unloadable(Scorer):
    version = "1"
    def __init__(self):
        raise RuntimeError("no weights")
"""


RUN = """
import sys
from pathlib import Path
from freshstart import files
from freshstart.scoring.pool import score_parts
parts = [(path, Path(sys.argv[3], path.name)) for path in files.parts(Path(sys.argv[1]), 'corpus')]
print(score_parts(parts, Path(sys.argv[2]), 'own', None if sys.argv[4] == 'all' else int(sys.argv[4])))
"""


@pytest.fixture
def own(workplace, made, monkeypatch):
    """Make a scorer folder for a person's own scorer and give a function that scores with it."""
    (workplace / "rewards.py").write_text(OWN)
    monkeypatch.syspath_prepend(workplace)

    def run(name, workers=0, seconds=60.0):
        raw = {"kind": f"rewards:{name}", "segments": "lines", "version": "1"}
        record = scorers.describe(scorers.settings(raw, "scorer.own"))
        files.write_json(workplace / "scorer/scorer.json", record)
        parts = files.parts(made.paths("pep8")["corpus"] / "train", "corpus")
        targets = [workplace / "scored" / path.name for path in parts]
        pool.score_parts(list(zip(parts, targets, strict=True)), workplace / "scorer", "own", workers, seconds)
        return targets

    yield run
    sys.modules.pop("rewards", None)


def test_rows_that_raise_are_counted_by_reason(own):
    result = report(own("Picky"))
    assert 0 < result["without_score"]["share"] < 0.5
    assert list(result["without_score"]["by_reason"]) == ["RuntimeError"]
    assert result["without_score_examples"]["RuntimeError"]


def test_too_many_errors_stop_the_stage(own, made, workplace, door):
    own("Hopeless")
    with pytest.raises(
        InputError, match=r"100\.0% of the train documents have no score .*RuntimeError.*max_error_share"
    ):
        door(
            "score",
            task="pep8",
            workers=0,
            corpus=made.paths("pep8")["corpus"],
            scorer=workplace / "scorer",
            output="out",
            report="out.json",
        )
    assert not (workplace / "out").exists()


@RAY
@pytest.mark.parametrize(
    ("name", "workers", "seconds"),
    [
        ("Deadly", 2, 60.0),
        ("Hanging", 0, 1.0),
        ("Hanging", 2, 2.0),
        ("Exiting", 0, 60.0),
        ("HangingWithOthers", 0, 0.2),
    ],
)
def test_a_row_that_ends_its_worker_is_named_and_all_others_are_scored(own, made, workplace, name, workers, seconds):
    parts = files.parts(made.paths("pep8")["corpus"] / "train", "corpus")
    deadly = {
        f"train/{path.name}": [row for row, text in enumerate(table["text"].to_pylist()) if "import argparse" in text]
        for path in parts
        if (table := files.read_table(path, "corpus")) is not None
    }
    deadly = {name: rows for name, rows in deadly.items() if rows}
    with pytest.raises(InputError, match="killed the worker 2 times") as error:
        own(name, workers, seconds)
    for name, rows in deadly.items():
        assert name in str(error.value)
        for row in rows:
            assert f"row {row} (document " in str(error.value)
    assert len(list((workplace / "scored").glob("*.parquet"))) == len(parts) - len(deadly)
    kept = sum(len(table) for table in tables(workplace / ".state/scores"))
    every = sum(len(files.read_table(path, "corpus")) for path in parts)
    assert kept == every - sum(map(len, deadly.values()))


@RAY
@pytest.mark.parametrize("workers", [0, 2])
def test_a_scorer_that_can_not_be_loaded(own, workers):
    with pytest.raises((InputError, RuntimeError), match="no weights"):
        own("Unloadable", workers=workers)


@RAY
def test_kill_minus_nine_loses_at_most_the_parts_in_flight(own, made, workplace):
    expected = {path.name: files.sha256(path) for path in own("Slow")}
    shutil.rmtree(workplace / ".state/scores")
    shutil.rmtree(workplace / "scored")
    corpus = made.paths("pep8")["corpus"] / "train"
    command = [sys.executable, "-c", RUN, str(corpus), str(workplace / "scorer"), "scored", "2"]
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{workplace}"}
    running = subprocess.Popen(command, env=env, cwd=workplace)
    while len(list((workplace / ".state").rglob("*.parquet"))) < 2:
        assert running.poll() is None
        time.sleep(0.05)
    children = psutil.Process(running.pid).children(recursive=True)
    assert {"raylet", "ray::DashboardAgent"} <= {process.name() for process in children}
    running.kill()
    running.wait()
    _, left = psutil.wait_procs(children, timeout=15)
    assert not left
    before = sum(len(table) for table in tables(workplace / ".state/scores"))
    every = sum(len(files.read_table(path, "corpus")) for path in files.parts(corpus, "corpus"))
    assert 0 < before < every
    done = subprocess.run(command, env=env, cwd=workplace, capture_output=True, text=True, check=True)
    assert int(done.stdout) == every - before
    assert {path.name: files.sha256(path) for path in (workplace / "scored").glob("*.parquet")} == expected


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_node_of_a_cluster_killed_on_the_way_changes_no_byte(own, made, workplace):
    from ray.cluster_utils import Cluster

    expected = {path.name: files.sha256(path) for path in own("Slow")}
    corpus = made.paths("pep8")["corpus"] / "train"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        lost = cluster.add_node(num_cpus=1)
        state = {"FRESHSTART_STATE": str(workplace / "state"), "RAY_ADDRESS": cluster.address}
        environment = os.environ | state | {"PYTHONPATH": f"{ROOT}:{workplace}", "RAY_raylet_start_wait_time_s": "120"}
        command = [sys.executable, "-c", RUN, str(corpus), str(workplace / "scorer"), "cluster", "all"]
        running = subprocess.Popen(command, cwd=workplace, env=environment)
        while len(list((workplace / "state").rglob("*.parquet"))) < 2:
            assert running.poll() is None
            time.sleep(0.05)
        cluster.remove_node(lost, allow_graceful=False)
        assert running.wait(timeout=300) == 0
    finally:
        cluster.shutdown()
    assert {path.name: files.sha256(path) for path in Path("cluster").glob("*.parquet")} == expected


def test_workers_are_counted(monkeypatch):
    monkeypatch.setenv("FRESHSTART_WORKERS", "3")
    assert worker_count() == 3
    monkeypatch.setenv("FRESHSTART_WORKERS", "many")
    with pytest.raises(InputError, match="FRESHSTART_WORKERS must be a whole number"):
        worker_count()
    monkeypatch.delenv("FRESHSTART_WORKERS")
    assert worker_count() is None
    assert processors() >= 1


def test_a_missing_corpus(workplace, made, door):
    with pytest.raises(InputError, match=r"nowhere/train is missing: run `dvc repro corpus@pep8`"):
        score(door, made, "out", corpus="nowhere")


def test_a_full_disk_loses_nothing(workplace, made):
    """The disk is full as far as this process can see: no file may grow beyond a few bytes."""
    code = (
        "import resource, runpy, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_module('stages.score', run_name='__main__')\n"
    )
    data = made.paths("pep8")
    words = ["--task", "pep8", "--workers", "0", "--corpus", data["corpus"], "--scorer", data["scorer"]]
    words += ["--output", "out", "--report", "out.json"]
    done = subprocess.run(
        [sys.executable, "-c", code, "score", *map(str, words)],
        cwd=workplace,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "error: no space left on the disk while writing" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in (workplace / ".state").rglob("*") if path.suffix == ".tmp"]


@pytest.mark.parametrize("damage", ["snappy", "zstd", "utf-8"])
def test_a_damaged_page_is_one_line(made, workplace, damage):
    path = workplace / "part-00000.parquet"
    table = files.read_table(files.parts(made.paths("pep8")["scored"] / "train", "score")[0], "score")
    if damage == "utf-8":
        ids = pa.Array.from_buffers(
            pa.string(), 2, [None, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xffa")]
        )
        spoiled = table.slice(0, 2).set_column(0, "doc_id", ids)
        pq.write_table(spoiled, path)
    else:
        pq.write_table(table, path, compression=damage)
        content = bytearray(path.read_bytes())
        content[100:140] = bytes(40)
        path.write_bytes(content)
    for read in (report, cache.seed):
        with pytest.raises(InputError, match=f"{path} is damaged .*run `dvc repro -f score`"):
            read([path])


def test_the_report_equals_numpy_on_all_scores_at_once(made):
    for task in ("pep8", "toxicity"):
        parts = files.parts(made.paths(task)["scored"] / "train", "score")
        scores = np.concatenate(
            [
                np.concatenate([values for values in table["scores"].to_numpy() if values is not None])
                for table in map(pq.read_table, parts)
            ]
        )
        result = report(parts)
        assert result["segments"] == len(scores)
        spread = result["segment_score"]
        assert spread["mean"] == pytest.approx(scores.mean(dtype=np.float64), rel=1e-12)
        for level, value in spread["quantiles"].items():
            assert value == pytest.approx(np.quantile(scores.astype(np.float64), float(level)), rel=1e-6)
        assert (
            spread["histogram"]["counts"] == np.histogram(scores, bins=24, range=(0, float(scores.max())))[0].tolist()
        )
        assert result["share_segments_above_0"] == pytest.approx((scores > 0).mean())
