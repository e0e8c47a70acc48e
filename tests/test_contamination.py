"""Corpora against benchmarks and against themselves: what is found, by brute force, in real text and when planted."""

import hashlib
import itertools
import json
import random
import re
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from conftest import prose, python_files, read, shared_data
from hypothesis import given
from hypothesis import strategies as st

from freshstart import corpora, files
from freshstart.corpora import Document, QualityRules, local, near_duplicates, overlap
from freshstart.corpora.build import build
from freshstart.corpora.ngrams import hashes, ngrams, words
from freshstart.corpora.quality import repeated_words
from freshstart.errors import InputError

SIZES = {"train_characters": 10**6, "heldout_characters": 10**5, "part_characters": 10**5}


def settings(**changes):
    return local.Settings(kind="local", path="x", **(SIZES | changes))


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def shared(benchmarks, text):
    return set(benchmarks.shared(hashes(words(text))))


@given(st.text())
def test_words_are_runs_of_letters_and_digits(text):
    assert words(text) == re.findall(r"[^\W_]+", text.lower())


@given(st.lists(st.sampled_from(["a", "b", "aa", "ab", "ba"]), max_size=40), st.integers(1, 14))
def test_ngrams_are_equal_where_their_words_are(text, n):
    hashed = ngrams(hashes(text), n)
    n = min(n, len(text)) or 1
    plain = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
    assert len(hashed) == len(plain)
    assert len(set(hashed.tolist())) == len(set(plain)) == len(set(zip(hashed.tolist(), plain, strict=True)))


def grams(text, n):
    return {tuple(text[i : i + n]) for i in range(len(text) - n + 1)}


def test_overlaps_are_those_of_brute_force(tmp_path):
    draw = random.Random(0)
    items = [draw.choices(["a", "1", "be"], [5, 5, 1], k=draw.randint(6, 18)) for _ in range(150)]
    path = write(tmp_path / "items.jsonl", *({"text": " ".join(item)} for item in items))
    benchmarks = overlap.load([path])
    cut = [
        {gram for gram in grams(item, min(13, len(item))) if "be" in gram} if len(item) > 7 else () for item in items
    ]
    at = {f"{path}:{number}": number - 1 for number in range(1, 151)}
    numbers = [at[place] for place in benchmarks.places]  # of the items that are compared
    assert numbers == [number for number in range(150) if cut[number]]
    assert benchmarks.too_short == {"items": 150 - len(numbers)}
    total = 0
    for _ in range(200):
        pieces = [item[draw.randrange(4) : draw.randrange(7, 19)] for item in draw.sample(items, 4)]
        text = [word for piece in pieces for word in piece]
        every = set().union(*(grams(text, n) for n in range(8, 14)))
        wanted = {number for number in numbers if cut[number] & every}
        assert {numbers[item] for item in shared(benchmarks, " ".join(text))} == wanted
        total += len(wanted)
    assert total > 100


def disguised(text, draw):
    """The same words in another case, with other white space and punctuation around them."""
    found = [word.upper() if draw.random() < 0.5 else word.title() for word in re.findall(r"[^\W_]+", text)]
    return "".join(word + draw.choice([" ", "\n\t", ", ", " -- ", "_", "’ “"]) for word in found)


def cut_out(text, draw):
    """13 words in a row of a text, not all of them numbers, or more: half of it."""
    places = [match.span() for match in re.finditer(r"[^\W_]+", text)]
    length = min(len(places), max(13, len(places) // 2))
    starts = draw.sample(range(len(places) - length + 1), len(places) - length + 1)
    cuts = (text[places[begin][0] : places[begin + length - 1][1]] for begin in starts)
    return next(cut for cut in cuts if re.search("[a-z]{2}", cut))


def test_planted_items_are_all_found_and_clean_text_has_none():
    folder = shared_data("eval")
    names = ("HumanEval.jsonl.gz", "lambada_test.jsonl.gz")
    benchmarks = overlap.load([str(folder / name) for name in names])
    around = [read(path) for path in python_files(60, largest=20_000)] + [text for _, text in prose()[:60]]
    assert not [text for text in around if shared(benchmarks, text)]
    draw = random.Random(0)
    texts = [
        [row["prompt"], row["canonical_solution"]] if "prompt" in row else [row["text"]]
        for name in names
        for _, row in local.rows(folder / name, ())
    ]
    assert len(texts) == len(benchmarks.places) == 164 + 5153
    for item, parts in enumerate(texts):
        whole = "".join(parts)
        window = cut_out(parts[0], draw)
        before, after = draw.choice(around)[:500], draw.choice(around)[:500]
        for copy in (whole, window, disguised(whole, draw), disguised(window, draw)):
            assert item in shared(benchmarks, f"{before}\n{copy}\n{after}"), (item, copy)


def test_overlaps_are_counted_or_left_out(tmp_path):
    rows = [{"question": f"{name} asks what the answer to the question of them all may be", "id": 3} for name in "abc"]
    quiz = write(tmp_path / "quiz.jsonl", {"question": "too short"}, *rows)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/one.py").write_text("def task(x):\n    return [y for y in x if y and y > x or not (y < z)]\n")
    with tarfile.open(tmp_path / "tasks.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "tasks", "tasks")
    benchmarks = (quiz, str(tmp_path / "tasks.tar.gz"))
    clean = [Document(f"document {i} says " * 40, f"source-{i % 9}", {"path": f"{i}.txt"}) for i in range(60)]
    dirty = [
        Document(f"{row['question'].upper()}!\n{i}", f"source-{i}", {"path": f"dirty-{i}"})
        for i, row in enumerate(rows[:2])
    ]
    dirty.append(Document((tmp_path / "tasks/one.py").read_text() + "# by me", "source-3", {"path": "dirty-2"}))
    some = {"benchmarks": benchmarks, "heldout": ("source-3",)}
    report = build([*dirty, *clean], settings(**some), 0, tmp_path / "counted")
    assert report["benchmarks"] == {
        "quiz": {
            "items": 3,
            "items_too_short": 1,
            "train": {"documents": 2, "items": 2},
            "heldout": {"documents": 0, "items": 0},
        },
        "tasks": {
            "items": 1,
            "items_too_short": 0,
            "train": {"documents": 0, "items": 0},
            "heldout": {"documents": 1, "items": 1},
        },
    }
    assert report["overlap_examples"][0] == {
        "where": "dirty-0",
        "reason": "overlap with quiz",
        "detail": f"{quiz}:2: a asks what the answer to the question of them all may be",
    }
    report = build([*dirty, *clean], settings(**some, overlap="drop"), 0, tmp_path / "dropped")
    assert report["left_out"] == {"overlap with quiz": 2, "overlap with tasks": 1}
    assert report["benchmarks"]["quiz"]["train"] == {"documents": 0, "items": 0}
    build(clean, settings(heldout=("source-3",)), 0, tmp_path / "clean")
    assert digests(tmp_path / "dropped") == digests(tmp_path / "clean")


@pytest.mark.parametrize("what", ["count", "drop"])
def test_a_corpus_is_the_same_for_any_number_of_workers_and_pieces(tmp_path, monkeypatch, what):
    texts = [text for _, text in prose()[:80]]
    quiz = write(
        tmp_path / "quiz.jsonl", *({"text": " ".join(words(text)[9:29])} for text in texts[::9]), {"text": "-"}
    )
    documents = [
        Document(f"{text} {i}", f"source-{i % 9}", {}) for i, text in enumerate([*texts, *texts[::3], "", "?"])
    ]
    asked = settings(benchmarks=(quiz,), overlap=what, near_duplicates=what, part_characters=20_000, skip_bad=True)
    made = []
    for name, workers, rows in (("whole", 0, 8192), ("pieces", 0, 7), ("workers", 2, 7)):
        monkeypatch.setattr("freshstart.corpora.build.SPOOL_ROWS", rows)
        made.append((build(documents, asked, 0, tmp_path / name, workers=workers), digests(tmp_path / name)))
    assert made[0] == made[1] == made[2]
    report = made[0][0]
    found = report["left_out"] if what == "drop" else report["near_duplicates"] | report["benchmarks"]["quiz"]["train"]
    assert sum(found.values()) > 20


RULES = {"words": (8, 60), "word_length": (2, 9), "repeated_lines": 0.3, "repeated_words": 0.3, "languages": ("en",)}
ENGLISH = "All happy families are alike, but every unhappy family is unhappy in its own way, as the book says"
BROKEN = {
    "too few words": "All happy families are alike",
    "too many words": " ".join(f"{ENGLISH} {i}" for i in range(5)),
    "length of words": ENGLISH.replace(" ", "y" * 9 + " "),
    "repeated lines": f"{ENGLISH}\n \n{ENGLISH}\n",
    "repeated words": f"{ENGLISH}; {ENGLISH}",
    "language de": "Alle glücklichen Familien gleichen einander, jede andere ist auf ihre Weise unglücklich",
}


def test_documents_that_break_a_rule_are_left_out_and_counted(tmp_path):
    stay = [Document(f"{ENGLISH} on page {i}", f"source-{i % 9}", {}) for i in range(30)]
    bad = [Document(f"{text} {i}", f"bad-{i}", {}) for text in BROKEN.values() for i in range(2)]
    quality = QualityRules(**RULES)
    report = build([*bad[:6], *stay, *bad[6:]], settings(quality=quality), 0, tmp_path / "ruled")
    assert report["left_out"] == dict.fromkeys(sorted(BROKEN), 2)
    assert report["sources"] == 9
    assert report == build(stay, settings(), 0, tmp_path / "stay") | {"left_out": report["left_out"]}
    assert digests(tmp_path / "ruled") == digests(tmp_path / "stay")
    for name, text in zip(RULES, list(BROKEN.values())[1:], strict=True):  # a rule alone
        report = build(
            [*stay, Document(text, "a", {})], settings(quality=QualityRules(**{name: RULES[name]})), 0, tmp_path / name
        )
        assert sum(report["left_out"].values()) == 1, name
    with pytest.raises(InputError, match=r"repeated_lines must be between 0 and 1"):
        corpora.settings({"kind": "local", "path": "x", **SIZES, "quality": {"repeated_lines": 20}}, "corpus.x")


@given(st.lists(st.sampled_from("ab"), max_size=30))
def test_repeated_words_are_those_of_brute_force(text):
    again, seen = set(), set()
    for i in range(len(text) - 4):
        gram = tuple(text[i : i + 5])
        again |= set(range(i, i + 5)) if gram in seen else set()
        seen.add(gram)
    assert repeated_words(hashes(text)) == pytest.approx(len(again) / max(len(text), 1))


def digests(folder):
    return {str(path.relative_to(folder)): files.sha256(path) for path in sorted(folder.rglob("*.parquet"))}


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("a.jsonl", None, r"a.jsonl: no file found"),
        ("a.tar.gz", None, r"a.tar.gz: no file found"),
        ("a.tar.gz", b"no archive", r"a.tar.gz is not a whole tar archive"),
        ("a.jsonl.gz", b"no gzip", r"a.jsonl.gz is not a whole .gz file"),
        ("a.parquet", b"PAR1", r"a.parquet is not a whole Parquet file"),
        ("a.bin", b"what", r"a.bin: expected one of .jsonl"),
        (
            "a.jsonl",
            b'{"text": "fine"}\n{"text"\n',
            r"a.jsonl:2: not JSON .* Every item .* must be readable",
        ),
        ("a.jsonl", b"", r"a.jsonl: none of its 0 items has a text of 8 words"),
        ("a.txt", b"one two three four five six seven\n" * 3, r"none of its 3 items has a text of 8 words"),
    ],
)
def test_benchmarks_that_can_not_be_compared(tmp_path, name, raw, message):
    if raw is not None:
        (tmp_path / name).write_bytes(raw)
    with pytest.raises(InputError, match=message):
        build([], settings(benchmarks=(str(tmp_path / name),)), 0, tmp_path / "out")


def test_benchmarks_have_names_of_their_own(tmp_path):
    row = {"text": "one two three four five six seven eight"}
    with pytest.raises(InputError, match="two are named quiz"):
        overlap.load([write(tmp_path / f"quiz.{ending}", row) for ending in ("jsonl", "json")])


# Near-duplicates: real files, and copies of them with some words changed


def changed(text, share, draw):
    return " ".join(f"x{draw.random()}" if draw.random() < share else word for word in text.split())


def jaccard(one, other):
    one, other = (grams(words(text), 5) for text in (one, other))
    return len(one & other) / len(one | other)


def grouped(texts, path):
    path.write_bytes(near_duplicates.signatures([hashes(words(text)) for text in texts]))
    keys = np.array([int(hashlib.sha256(text.encode()).hexdigest()[:15], 16) for text in texts])
    group = near_duplicates.groups(path, keys)
    assert all(keys[first] <= keys[i] for i, first in enumerate(group))
    return {text: texts[first] for text, first in zip(texts, group, strict=True)}


def test_near_duplicates_against_brute_force(tmp_path):
    draw = random.Random(0)
    originals = [read(path)[:6000] for path in python_files(40, largest=20_000)]
    copies = [(text, changed(text, draw.choice([0, 0.002, 0.005, 0.01, 0.05]), draw)) for text in originals]
    texts = list(dict.fromkeys(itertools.chain(*copies, ["", "-", "+", "one two", "One, two!", "one"])))
    group = grouped(texts, tmp_path / "signatures")
    near, far = 0, 0
    for one, other in itertools.combinations(texts[:-6], 2):
        similarity = jaccard(one, other)
        if similarity > 0.9:
            assert group[one] == group[other], similarity
            near += 1
        elif similarity < 0.68:  # three standard errors of the estimate
            assert group[one] != group[other], similarity
            far += 1
    assert near > 15
    assert far > 1000
    assert group["one two"] == group["One, two!"]
    assert len({group[text] for text in ("", "-", "+", "one", "one two")}) == 5
    draw.shuffle(texts)
    assert grouped(texts, tmp_path / "signatures") == group


def test_signatures_are_the_same_in_every_process():
    text = "one two three four five six seven"
    code = (
        "from freshstart.corpora.ngrams import *; from freshstart.corpora.near_duplicates import *;"
        f"print(signatures([hashes(words({text!r}))]).hex())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == near_duplicates.signatures([hashes(words(text))]).hex()


def test_near_duplicates_are_counted_or_left_out(tmp_path):
    draw = random.Random(1)
    texts = [" ".join(f"{draw.choice('abcdef')}{draw.randrange(99)}" for _ in range(400)) for _ in range(50)]
    documents = [Document(text, f"source-{i % 10}", {}) for i, text in enumerate(texts)]
    leaked = [Document(f"{texts[i]} again", "source-1", {}) for i in (0, 10)]  # of source-0, which is held out
    double = [Document(f"well, {texts[i]}", "source-2", {}) for i in (3, 4, 5)]
    heldout = {"heldout": ("source-0",)}
    report = build([*documents, *leaked, *double], settings(**heldout), 0, tmp_path / "counted")
    assert report["near_duplicates"] == {"train": 3, "heldout": 0, "train_of_heldout": 2}
    assert report["documents"] == 55
    dropping = settings(**heldout, near_duplicates="drop")
    report = build([*documents, *leaked, *double], dropping, 0, tmp_path / "a")
    assert report["left_out"] == {"near-duplicate": 5}
    assert report["near_duplicates"] == {"train": 0, "heldout": 0, "train_of_heldout": 0}
    assert report["documents"] == report["train"]["documents"] + report["heldout"]["documents"] == 50
    build([*double, *leaked, *reversed(documents)], dropping, 0, tmp_path / "b")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert "near_duplicates" not in build(documents, settings(near_duplicates="none"), 0, tmp_path / "none")
