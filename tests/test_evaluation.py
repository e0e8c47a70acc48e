"""Every figure of the evaluation against a slow and plain way to compute it."""

import itertools
import json
import math
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from freshstart import files
from freshstart.evaluation import EvaluateSettings, likelihood, memory, snapshots, statistics
from freshstart.evaluation.diversity import WORD, diversity, self_bleu
from freshstart.evaluation.likelihood import Judged, bits_per_byte, divergence, log_probabilities
from freshstart.evaluation.samples import cut, draw, read
from freshstart.sampling.sampler import Drawn
from freshstart.scorers import Finding
from freshstart.scorers import load as load_scorer
from freshstart.tokens.store import Stream
from freshstart.tokens.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def cell(made):
    """A conditional and a plain model of the pep8 task, hardly trained, and their tokenizer."""
    from freshstart.training import TrainSettings
    from freshstart.training.model import build

    shape = TrainSettings(layers=1, width=32, heads=2, context=64, batch_size=1, learning_rate=1.0)
    tokenizer = Tokenizer(made.paths("pep8")["tokenizer"])
    models = []
    for seed in (0, 1):
        model = build(shape, tokenizer.size, tokenizer.end_of_text, seed).eval()
        with torch.no_grad():
            model.lm_head.weight.mul_(4)
        models.append(model)
    padding = range(tokenizer.size, models[0].config.vocab_size)
    return models, tokenizer, [tokenizer.bad, *padding], [tokenizer.good, tokenizer.bad, *padding]


def test_expected_maximum_equals_all_draws():
    values = np.array([0.3, 0.1, 0.9, 0.4, 0.9, 0.0, 0.5])
    for k in (1, 2, 3, 6, 7):
        draws = [max(chosen) for chosen in itertools.combinations(values, k)]
        assert statistics.expected_maximum(values, k) == pytest.approx(np.mean(draws))
    assert statistics.expected_maximum(values, 25) == 0.9


def test_the_interval_covers_the_mean():
    """Of 300 samples of 80, the 95% interval holds the true mean about 95 times in a hundred."""
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(300):
        low, high = statistics.interval(rng.exponential(1.0, 80), 400, seed)
        hits += low <= 1.0 <= high
    assert 0.89 <= hits / 300 <= 0.98


def test_summary():
    findings = [(Finding(0, 1, "E1"), Finding(2, 3, "W2")), (), (Finding(0, 1, "E1"),)]
    summary = statistics.summarize([0.2, 0.0, 0.1], [10, 20, 10], findings, 0.0, 100, 0)
    assert summary["mean"] == pytest.approx(0.1)
    assert summary["pooled"] == pytest.approx(3 / 40)
    assert summary["share_over"] == pytest.approx(2 / 3)
    assert summary["by_kind"] == {"E1": 2 / 40, "W2": 1 / 40}
    assert summary["ci_low"] <= 0.1 <= summary["ci_high"]
    assert statistics.summarize([], [], [], 0.0, 100, 0) == {"n": 0}


@pytest.mark.parametrize(
    ("text", "ended", "segments", "expected"),
    [
        ("import os\nx = 1\ny =", False, "lines", "import os\nx = 1\n"),
        ("import os\nx = 1\n\n\n  ", False, "lines", "import os\nx = 1\n"),
        ("import os\r\nx = 12345\r\n\r\n", False, "lines", "import os\r\nx = 12345\r\n"),
        ("import os\nx = 1  \ny =", False, "lines", "import os\nx = 1  \n"),
        ("import os\nx = 1\ny =", True, "lines", "import os\nx = 1\ny ="),
        ("one run-on line without an end", False, "lines", "one run-on line without an end"),
        ("a\nthen a very long line that", False, "lines", "a\nthen a very long line that"),
        ("It is so. That is all there", False, "sentences", "It is so."),
        ("It is so. That is all.", True, "sentences", "It is so. That is all."),
    ],
)
def test_what_the_limit_cut_is_dropped(text, ended, segments, expected):
    assert cut(text, ended, segments, 9) == expected


def test_trailing_white_space_of_a_whole_line_is_kept_and_counted(made):
    from freshstart.scorers import load

    scorer, _ = load(made.paths("pep8")["scorer"], "pep8")
    text = cut("import os\nx = 1  \ny =", False, "lines", 9)
    assert [f.kind for f in scorer.find(text)] == ["W291"]


def test_samples_are_read_as_a_whole_and_by_segment(cell, made):
    from freshstart.scorers import load

    _, tokenizer, _, _ = cell
    scorer, _ = load(made.paths("pep8")["scorer"], "pep8")
    texts = ["x=1\ny = 2\n", "   \n", "def f(:\n"]
    drawn = [Drawn(next(tokenizer.encode([text]))[0].tolist(), True) for text in texts]
    samples = read(drawn, "none", tokenizer, scorer, "lines", 5)
    assert [one.text for one in samples] == [texts[0], texts[2]]  # one without a solid character does not count
    assert samples[0].score == pytest.approx(1 / 10)
    assert samples[0].segments.scores == pytest.approx((1 / 3, 0.0))
    assert samples[1].whole.unreadable.startswith("E90")
    assert samples[1].score > 0


def test_conditional_samples_hold_no_control_token(cell):
    models, tokenizer, unwanted, _ = cell
    asked = EvaluateSettings(samples=40, max_new_tokens=40, batch_size=40, temperature=1.0, top_p=1.0)
    for control in ("good", "bad"):
        for one in draw(models[0], tokenizer, control, unwanted, asked, 0):
            assert not set(one.tokens) & {tokenizer.good, tokenizer.bad, tokenizer.end_of_text}


def naive_nats(model, tokens, unwanted):
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0, :-1].double()
    logits[:, unwanted] = -torch.inf
    logq = torch.log_softmax(logits, -1)
    return [-float(logq[i, token]) for i, token in enumerate(tokens[1:])]


def small_stream(tokenizer):
    texts = [["x = 1", "\ny=2", "\n\nz = 3\n"], ["import os", "\nimport sys\n"]]
    tokens, ends, scores, sizes, documents = [], [], [], [], []
    for segments in texts:
        tokens.append(tokenizer.end_of_text)
        ends.append(len(tokens))
        scores.append(np.nan)
        sizes.append(0)
        for segment in segments:
            tokens += next(tokenizer.encode([segment]))[0].tolist()
            ends.append(len(tokens))
            scores.append(0.5 if "=2" in segment or "sys" in segment else 0.0)
            sizes.append(len(segment.encode()))
        documents.append(len(tokens))
    return Stream(*map(np.array, (tokens, ends, np.array(scores, np.float32), documents))), np.array(sizes)


def test_bits_per_byte_of_a_plain_model(cell):
    models, tokenizer, _, unwanted = cell
    heldout, sizes = small_stream(tokenizer)
    tokens = heldout.tokens.tolist()
    assert len(tokens) <= 64  # one row
    found = bits_per_byte(Judged(models[0], tuple(unwanted), False), heldout, sizes, 10_000, 0.0, tokenizer)
    nats = [0.0, *naive_nats(models[0], tokens, unwanted)]
    spans = list(zip([0, *heldout.segment_ends], heldout.segment_ends, strict=False))
    cost = np.array([sum(nats[a:b]) for a, b in spans])
    scores = heldout.segment_scores
    for name, mask in (("all", sizes >= 0), ("good", scores <= 0), ("bad", scores > 0)):
        assert found[name] == pytest.approx(cost[mask].sum() / math.log(2) / sizes[mask].sum(), rel=1e-5), name


def test_bits_per_byte_charges_control_tokens(cell):
    models, tokenizer, unwanted, _ = cell
    heldout, sizes = small_stream(tokenizer)
    judged = Judged(models[0], tuple(unwanted), True)
    found = bits_per_byte(judged, heldout, sizes, 10_000, 0.0, tokenizer)
    marked, owners = [], []
    spans = list(zip([0, *heldout.segment_ends], heldout.segment_ends, heldout.segment_scores, strict=False))
    for index, (a, b, score) in enumerate(spans):
        inserted = [] if np.isnan(score) else [tokenizer.good]
        marked += inserted + heldout.tokens[a:b].tolist()
        owners += [index] * (len(inserted) + b - a)
    nats = np.array([0.0, *naive_nats(models[0], marked, unwanted)])
    cost = np.bincount(owners, weights=nats)
    scores = heldout.segment_scores
    for name, mask in (("all", sizes >= 0), ("good", scores <= 0), ("bad", scores > 0)):
        assert found[name] == pytest.approx(cost[mask].sum() / math.log(2) / sizes[mask].sum(), rel=1e-5), name
    assert found["true_labels"] != found["all"]


def test_bits_per_byte_does_not_depend_on_how_rows_are_batched(cell, monkeypatch, made):
    models, tokenizer, _, unwanted = cell
    folder = made.paths("pep8")["tokens"] / "heldout"
    heldout, sizes = Stream.open(folder, "pep8"), np.load(folder / "segment_bytes.npy")
    judged = Judged(models[0], tuple(unwanted), False)
    first = bits_per_byte(judged, heldout, sizes, 5_000, 0.0, tokenizer)
    monkeypatch.setattr(likelihood, "ROWS_AT_ONCE", 3)
    assert bits_per_byte(judged, heldout, sizes, 5_000, 0.0, tokenizer) == pytest.approx(first, rel=1e-6)
    assert first["good"] != first["bad"]


def asked(judged, reference, unwanted, tokenizer, count=200, seed=0):
    return divergence(judged, reference, unwanted, tokenizer, "lines", count, 100, 24, seed)


def test_divergence_from_itself_is_zero(cell):
    models, tokenizer, _, unwanted = cell
    found = asked(Judged(models[0], tuple(unwanted), False), models[0], unwanted, tokenizer)
    assert found["per_token"] == pytest.approx(0, abs=1e-6)
    assert found["per_sequence_se"] == pytest.approx(0, abs=1e-6)


def test_rao_blackwell_agrees_with_monte_carlo_and_is_surer(cell):
    models, tokenizer, _, unwanted = cell
    from freshstart.sampling.sampler import Decoding, sample

    exact = asked(Judged(models[1], tuple(unwanted), False), models[0], unwanted, tokenizer)
    end = tokenizer.end_of_text
    drawn = sample(models[0], [end], 200, 100, Decoding(1.0, 1.0, 0, 24, end, tuple(unwanted)), 0)
    ratios = []
    for one in drawn:
        row = [end, *one.tokens, *([end] if one.ended else [])]
        p, q = (sum(naive_nats(model, row, unwanted)) for model in models)
        ratios.append(q - p)
    error = np.std(ratios, ddof=1) / np.sqrt(len(ratios))
    assert exact["per_sequence"] == pytest.approx(np.mean(ratios), abs=4 * error)
    assert exact["per_sequence_se"] < error
    assert exact["per_token"] > 0


def test_a_conditional_model_is_charged_for_its_control_tokens(cell):
    """The charged log q of one text, written out by hand."""
    models, tokenizer, unwanted, plain_unwanted = cell
    text = "x = 1\ny = 2\n\nz"
    body = next(tokenizer.encode([text]))[0].tolist()
    starts = likelihood.segment_starts(body, tokenizer, "lines")
    pieces = ["x = 1", "\ny = 2", "\n\nz"]
    lengths = np.cumsum([0] + [len(next(tokenizer.encode([piece]))[0]) for piece in pieces])
    assert starts == lengths[:-1].tolist()
    marked = [tokenizer.end_of_text]
    for piece in pieces:
        marked += [tokenizer.good, *next(tokenizer.encode([piece]))[0].tolist()]
    expected = -sum(naive_nats(models[0], marked, unwanted))
    judged = Judged(models[0], tuple(unwanted), True)
    found = likelihood._charged(judged, tokenizer, "lines", [tokenizer.end_of_text, *body])
    assert found == pytest.approx(expected, rel=1e-5)
    bound = asked(judged, models[0], plain_unwanted, tokenizer)
    assert bound["per_token"] > 0
    assert bound["estimator"] == "monte-carlo upper bound"


def test_log_probabilities_are_normalised_over_what_may_be_written(cell):
    models, _, _, unwanted = cell
    logq = log_probabilities(models[0], torch.tensor([[1, 2, 3]]), unwanted)
    torch.testing.assert_close(logq.exp().sum(-1), torch.ones(1, 2))
    assert (logq[..., unwanted] == -torch.inf).all()


WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "if", "x1", "."]), min_size=1, max_size=12)


@given(st.lists(WORDS, min_size=2, max_size=6))
@settings(max_examples=60, deadline=None)
def test_self_bleu_equals_nltk(samples):
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    smoothing = SmoothingFunction(epsilon=0.1).method1
    expected = [
        sentence_bleu(samples[:i] + samples[i + 1 :], sample, weights=(0.2,) * 5, smoothing_function=smoothing)
        for i, sample in enumerate(samples)
    ]
    assert self_bleu(samples, 5) == pytest.approx(np.mean(expected), abs=1e-9)


def test_diversity():
    texts = ["the cat the cat the cat", "one two three four"]
    found = diversity(texts)
    assert found["distinct_1"] == pytest.approx((2 / 6 + 1) / 2)
    assert found["distinct_2"] == pytest.approx((2 / 5 + 1) / 2)
    assert found["repetition"] == pytest.approx((1 / 3 + 0) / 2)
    counts = Counter(word for text in texts for word in WORD.findall(text))
    shares = np.array(list(counts.values())) / 10
    assert found["unigram_entropy"] == pytest.approx(-(shares * np.log2(shares)).sum())


@given(
    st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=5),
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
)
@settings(max_examples=200, deadline=None)
def test_memory_equals_a_plain_search(samples, stream):
    text = "".join(map(str, stream))

    def longest(row):
        runs = ["".join(map(str, row[a:b])) for a in range(len(row)) for b in range(a + 1, len(row) + 1)]
        return max((len(run) for run in runs if run in text), default=0)

    metrics, reached = memory.memory(samples, np.array(stream, np.uint16), 1000)
    expected = [longest(row) for row in samples]
    assert metrics["longest_match"] == max(expected, default=0)
    for found, exact in zip(reached, expected, strict=True):
        assert found == max((length for length in memory.LADDER if length <= exact), default=0)


def test_heldout_pieces(made):
    from freshstart.evaluation import heldout

    folder = made.paths("pep8")["tokens"] / "heldout"
    stream = Stream.open(folder, "pep8")
    sizes, documents = np.load(folder / "segment_bytes.npy"), np.load(folder / "document_scores.npy")
    found = heldout.misalignment(stream, sizes, documents, 48, 200, 0)
    pieces, owners = heldout._pieces(stream, sizes, 48)
    assert len(np.unique(owners)) == len(documents)
    assert found["all"]["n"] == len(pieces) > 10 * len(documents) / 10
    whole = heldout._pieces(stream, sizes, 10**9)[0]  # one piece a document: its findings a byte
    scored = ~np.isnan(stream.segment_scores)
    owner = np.searchsorted(stream.document_ends, stream.segment_ends - 1, side="right")
    expected = [
        np.average(stream.segment_scores[scored & (owner == i)], weights=sizes[scored & (owner == i)])
        for i in range(len(documents))
    ]
    np.testing.assert_allclose(whole, expected, rtol=1e-5)
    assert found["good_half"]["mean"] < found["all"]["mean"]


def keep_as_snapshot(model, positions):
    """What training keeps of a model on its way: no tokenizer."""
    folder = model / "snapshots" / str(positions)
    folder.mkdir(parents=True)
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copy(model / name, folder / name)
    record = json.loads((model / "freshstart.json").read_text())
    files.write_json(folder / "freshstart.json", record | {"positions": positions})


def test_a_cell_is_evaluated_by_scorer_and_judges(made, door, tmp_path, monkeypatch):
    """Through the doors, with a model hardly trained: every judge speaks of samples under both control tokens.

    Its snapshots are itself, so that what they write is what it writes.
    """
    monkeypatch.chdir(made.folder)
    monkeypatch.setenv("FRESHSTART_STATE", str(tmp_path / ".state"))
    for objective in ("mle", "conditional"):
        door(
            "train",
            task="pep8",
            objective=objective,
            seed=0,
            tokens="data/tokens/pep8",
            shards=f"data/shards/pep8/{objective}",
            tokenizer="data/tokenizer/pep8",
            output=tmp_path / objective,
            curve=tmp_path / f"{objective}.csv",
        )
    for positions in (512, 1024):
        keep_as_snapshot(tmp_path / "conditional", positions)
    door(
        "evaluate",
        task="pep8",
        objective="conditional",
        seed=0,
        model=tmp_path / "conditional",
        reference=tmp_path / "mle",
        tokens="data/tokens/pep8",
        shards="data/shards/pep8/conditional",
        scorer="data/scorer/pep8",
        samples=tmp_path / "samples.parquet",
        metrics=tmp_path / "metrics.json",
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert set(metrics["judges"]) == {"ruff", "parses", "code_size", "comment_lines", "blank_lines"}
    for judge in metrics["judges"].values():
        assert {"good", "bad", "heldout", "agreement"} <= set(judge)
        assert judge["good"]["n"] <= metrics["samples"]["n"]
    assert metrics["judges"]["parses"]["good"]["n"] == metrics["samples"]["n"]
    assert metrics["judges"]["parses"]["heldout"]["n"] > 0
    assert "gold" not in metrics
    last = {key: metrics["misalignment"][key] for key in ("mean", "ci_low", "ci_high", "n")}
    last |= {f"style_{key}": metrics["misalignment_style"][key] for key in ("mean", "ci_low", "ci_high")}
    budget = metrics["tokens_seen"]["positions"]
    assert budget > 1024
    assert metrics["over_training"] == [{"positions": at, **last} for at in (512, 1024, budget)]

    model, cpu = tmp_path / "conditional", torch.device("cpu")
    tokenizer, (scorer, _) = Tokenizer(model), load_scorer(made.paths("pep8")["scorer"], "pep8")
    asked = EvaluateSettings(samples=24, snapshot_samples=6, max_new_tokens=48, bootstrap=200)
    few = snapshots.measure(model / "snapshots/512", "train", cpu, "good", tokenizer, scorer, "lines", asked, 0)
    assert few["positions"] == 512
    assert 0 < few["n"] <= 6


def test_a_model_without_snapshots_has_one_entry(tmp_path):
    assert snapshots.folders(tmp_path) == []
    style = {"mean": 0.1, "ci_low": 0.0, "ci_high": 0.2, "n": 8}
    assert snapshots.entry({"positions": 64}, {"misalignment": style}) == {"positions": 64, **style}
    assert snapshots.entry({"positions": 64}, {"misalignment": {"n": 0}}) == {"positions": 64, "n": 0}


def test_snapshots_write_at_least_one_sample():
    with pytest.raises(ValueError, match="snapshot_samples must be at least 1, found 0"):
        EvaluateSettings(samples=1, max_new_tokens=48, snapshot_samples=0)


def test_beginnings_of_heldout_documents_are_cut_as_samples_are(made):
    from freshstart.evaluation import heldout

    tokenizer = Tokenizer(made.paths("pep8")["tokenizer"])
    stream = Stream.open(made.paths("pep8")["tokens"] / "heldout", "pep8")
    asked = EvaluateSettings(samples=1, max_new_tokens=48)
    found = heldout.beginnings(stream, tokenizer, "lines", asked)
    whole = [
        tokenizer.decode(np.asarray(stream.tokens[begin + 1 : end]).tolist())
        for begin, end in zip([0, *stream.document_ends[:-1]], stream.document_ends, strict=True)
    ]
    assert len(found) == len(whole)
    assert all(text.startswith(part) for part, text in zip(found, whole, strict=True))
    assert all(len(next(tokenizer.encode([part]))[0]) <= 48 for part in found)


def test_judges_named_twice_are_refused():
    with pytest.raises(ValueError, match="judges names one twice: ruff, ruff"):
        EvaluateSettings(samples=1, max_new_tokens=48, judges=("ruff", "ruff"))
