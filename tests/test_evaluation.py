"""Every figure of the evaluation against a slow and plain way to compute it."""

import itertools
import json
import math
import re
import shutil
import types
from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import safetensors.torch
import torch
import yaml
from conftest import door, follow
from hypothesis import given, settings
from hypothesis import strategies as st

from freshstart import files
from freshstart.errors import InputError
from freshstart.evaluation import ALL, EvaluateSettings, ReferenceSettings, heldout, measure, reference, statistics
from freshstart.evaluation.ask import ask
from freshstart.evaluation.context import Context, Document
from freshstart.evaluation.endpoint import Endpoint
from freshstart.evaluation.evaluate import evaluate
from freshstart.evaluation.measures import bits_per_byte, divergence, prompted
from freshstart.evaluation.measures.diversity import WORD, diversity, self_bleu
from freshstart.evaluation.measures.memory import LADDER, memory
from freshstart.evaluation.metrics import REAL_TEXT, check, merged
from freshstart.evaluation.samples import beginnings, counted, cut, read, scored
from freshstart.evaluation.subject import Sampling, Subject, external, of_folder
from freshstart.sampling.sampler import Drawn
from freshstart.scorers import Finding, load, segment_counts
from freshstart.scorers import pieces as parts_of
from freshstart.scoring.segments import SEGMENTERS
from freshstart.tokens import Control
from freshstart.tokens.store import Stream
from freshstart.tokens.tokenizer import Tokenizer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def subjects(made):
    """Two plain subjects of the pep8 task with other random weights, and the first one with control tokens."""
    from freshstart.training import TrainSettings
    from freshstart.training.model import build

    torch.set_num_threads(1)
    shape = TrainSettings(layers=1, width=32, heads=2, context=64, batch_size=1, learning_rate=1.0)
    tokenizer = Tokenizer.open(made.paths("pep8")["tokenizer"])
    good, bad = (control.id for control in tokenizer.controls)
    plain = []
    for seed in (0, 1):
        model = build(shape, tokenizer.size, tokenizer.end_of_text, seed).eval()
        with torch.no_grad():
            model.lm_head.weight.mul_(4)
        padding = range(tokenizer.size, model.config.vocab_size)
        plain.append(Subject(f"plain {seed}", model, tokenizer, "lines", 0.0, unwanted=(good, bad, *padding)))
    marked = replace(plain[0], name="marked", controls=tokenizer.controls, unwanted=(bad, *padding))
    return plain[0], plain[1], marked


def context_of(made, tmp_path, **more):
    """The pep8 task as measures see it."""
    more.setdefault("reference", ReferenceSettings(samples=24))
    chosen = EvaluateSettings(samples=24, max_new_tokens=48, bootstrap=200, **more)
    paths = made.paths("pep8")
    folders = (paths["scorer"], paths["scored"] / "heldout", paths["tokens"], tmp_path / "mle", tmp_path / "reference")
    context = Context("pep8", 0, chosen, CPU, *folders)
    context.threshold = 0.0
    return context


def drawn_reference(context):
    """The reference's texts, drawn as the stage draws them."""
    task = reference.Task("pep8", context.seed, context.mle, context.scorer_folder, CPU, 1.0)
    reference.draw(context.settings.reference, task, 20, 100, context.reference_folder)


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
    summary = statistics.summary([0.2, 0.0, 0.1], [10, 20, 10], findings, 0.0)
    assert summary["scored"] == pytest.approx(0.1)
    assert summary["pooled"] == pytest.approx(3 / 40)
    assert summary["share_over"] == pytest.approx(2 / 3)
    assert summary["by_kind"] == {"E1": 2 / 40, "W2": 1 / 40}
    nothing = statistics.summary([], [], [], 0.0) | statistics.rate([], None, 100, 0)
    assert (nothing["n"], nothing["mean"], nothing["ci_low"], nothing["by_kind"]) == (0, None, None, {})


def test_rates():
    assert statistics.rate([1, 0, 3], [10, 5, 25], 200, 0)["mean"] == 0.1
    assert statistics.rate([0.1, 0.3], None, 200, 0) == statistics.estimate([0.1, None, 0.3], 200, 0)
    none_seen = statistics.rate([0, 0], [400, 600], 200, 0)
    assert (none_seen["mean"], none_seen["ci_low"]) == (0, 0)
    assert none_seen["ci_high"] == pytest.approx(3.6889 / 1000, rel=1e-4)  # Garwood's bound for no event


def test_filler_does_not_please():
    """Rulers, blank lines and equal lines are neither words nor findings anew."""
    text = ["x=1\n", "\n", "# ----------\n", "y = x\n"]
    found = [1, 0, 0, 0]
    assert counted(text, found) == (1, 4)
    assert counted(text + text[1:3] * 9, found + [0, 0] * 9) == (1, 4)
    assert counted(text + ["  x=1\n"] * 9 + ["\n"] * 9, found + [1] * 9 + [0] * 9) == (1, 4)


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
    scorer, _ = load(made.paths("pep8")["scorer"], "pep8")
    text = cut("import os\nx = 1  \ny =", False, "lines", 9)
    assert [f.kind for f in scorer.find(text)] == ["W291"]


def test_samples_are_read_as_a_whole_and_by_segment(subjects, made):
    tokenizer = subjects[0].tokenizer
    scorer, _ = load(made.paths("pep8")["scorer"], "pep8")
    texts = ["x=1\ny = 2\n", "   \n", "def f(:\n"]
    drawn = [Drawn(next(tokenizer.encode([text]))[0].tolist(), True) for text in texts]
    samples = read(drawn, "none", tokenizer, scorer, "lines", 5)
    assert [sample.text for sample in samples] == [texts[0], texts[2]]  # one without a solid character does not count
    assert samples[0].score == pytest.approx(1 / 10)
    assert samples[0].segments.scores == pytest.approx((1 / 3, 0.0))
    assert samples[1].whole.unreadable.startswith("E90")
    assert samples[1].score > 0


def test_samples_under_a_control_hold_no_control_token(subjects):
    marked = subjects[2]
    special = {marked.end_of_text, *(control.id for control in marked.controls)}
    for control in marked.asked:
        for sample in marked.generate([""] * 40, control, Sampling(40, batch_size=40), 0):
            assert not set(sample.tokens) & special


def test_a_prompt_is_read_as_training_text_is(subjects):
    plain, _, marked = subjects
    text = "x = 1\ny = 2"
    tokens = next(plain.tokenizer.encode([text]))[0].tolist()
    second = len(next(plain.tokenizer.encode(["x = 1"]))[0])
    good = marked.controls[0].id
    assert plain._prompt(text, None) == [plain.end_of_text, *tokens]
    assert marked._prompt(text, marked.controls[0]) == [
        marked.end_of_text, good, *tokens[:second], good, *tokens[second:]
    ]  # fmt: skip


def naive_nats(subject, tokens, forbidden):
    with torch.no_grad():
        logits = subject.model(torch.tensor([tokens])).logits[0, :-1].double()
    logits[:, list(forbidden)] = -torch.inf
    logq = torch.log_softmax(logits, -1)
    return [-float(logq[i, token]) for i, token in enumerate(tokens[1:])]


PIECES = [["x = 1", "\ny=2", "\n\nz = 3\n"], ["import os", "\nimport sys\n"]]
DOCUMENTS = [
    Document("".join(p), np.cumsum([len(s) for s in p]).tolist(), [0.5 * ("=2" in s or "sys" in s) for s in p])
    for p in PIECES
]


@pytest.mark.parametrize("control", [None, 0])
def test_bits_per_byte_by_hand(subjects, made, tmp_path, control):
    """With a control token, it is charged to the segment behind it."""
    subject = subjects[0] if control is None else subjects[2]
    context = context_of(made, tmp_path)
    context.documents = DOCUMENTS
    tokens, owners, sizes, scores = [], [], [0], [np.nan]  # owner 0: ends of text
    for document, pieces in zip(DOCUMENTS, PIECES, strict=True):
        tokens, owners = [*tokens, subject.end_of_text], [*owners, 0]
        for piece, score in zip(pieces, document.scores, strict=True):
            ids = next(subject.tokenizer.encode([piece]))[0].tolist()
            ids = ids if control is None else [subject.controls[control].id, *ids]
            tokens, owners = tokens + ids, owners + [len(sizes)] * len(ids)
            sizes, scores = [*sizes, len(piece.encode())], [*scores, score]
    assert len(tokens) <= 64  # one row
    nats = [0.0, *naive_nats(subject, tokens, subject.forbidden(subject.asked[0]))]
    cost, sizes, scores = np.bincount(owners, weights=nats), np.array(sizes), np.array(scores)
    bits = bits_per_byte.measure(subject, context)["heldout"]["bits_per_byte"]
    for name, mask in (("all", sizes >= 0), ("good", scores <= 0), ("bad", scores > 0)):
        assert bits[name] == pytest.approx(cost[mask].sum() / math.log(2) / sizes[mask].sum(), rel=1e-5), name
    assert ("true_labels" in bits) == (control is not None)
    assert bits.get("true_labels") != bits["all"]


def test_heldout_documents_give_the_stored_stream_back(subjects, made, tmp_path):
    """What a subject makes of the text is what the stage tokens stored, token for token."""
    context, subject = context_of(made, tmp_path, heldout_tokens=5_000), subjects[0]
    stream = Stream.open(made.paths("pep8")["tokens"] / "heldout", "pep8")
    pieces = [subject.marked(document.text, document.ends, None).tokens for document in context.documents]
    tokens = np.concatenate([part for piece in pieces for part in ([subject.end_of_text], piece)])
    np.testing.assert_array_equal(tokens, stream.tokens[: len(tokens)])
    assert len(tokens) in stream.document_ends
    assert 3_000 < len(tokens) <= 5_000


def test_bits_per_byte_do_not_depend_on_how_rows_are_batched(subjects, made, tmp_path):
    context = context_of(made, tmp_path, heldout_tokens=5_000)
    first = bits_per_byte.measure(subjects[0], context)["heldout"]["bits_per_byte"]
    small = replace(subjects[0], logit_gib=2 * 64 * 512 * 4 * 3 / 2**30)  # three rows
    assert small.rows_at_once(64, 2) == 3
    again = bits_per_byte.measure(small, context)["heldout"]["bits_per_byte"]
    assert again == pytest.approx(first, rel=1e-6)
    assert first["good"] != first["bad"]
    of_variant = bits_per_byte.measure(replace(subjects[0], threshold=0.9), context)["heldout"]["bits_per_byte"]
    assert of_variant == first  # good is what the task calls good


def text_of(text, tokens=None, ended=False):
    return reference.Text(text, tokens, ended, SEGMENTERS["lines"](text))


def totals(by_segment):
    return np.array([sums.sum() for sums in by_segment])


class Enumerable(torch.nn.Module):
    """A language model whose next token depends on the last one alone: a table of probabilities."""

    device = CPU

    def __init__(self, table, context=16):
        super().__init__()
        self.register_buffer("logits", torch.tensor(table, dtype=torch.float64).log())
        self.config = types.SimpleNamespace(vocab_size=len(table), max_position_embeddings=context)

    def forward(self, input_ids, **rest):
        return types.SimpleNamespace(logits=self.logits[input_ids])


def enumerable(table, tokenizer, controls=(), unwanted=()):
    return Subject("enumerable", Enumerable(table), tokenizer, "lines", 0.0, controls, unwanted)


def letters():
    """A tokenizer of five tokens: the end of text, a control token, a, b and the line break."""
    from tokenizers import Tokenizer as Loaded
    from tokenizers import decoders, models

    loaded = Loaded(models.BPE({"<end>": 0, "<good>": 1, "a": 2, "b": 3, "\u010a": 4}, []))
    loaded.add_special_tokens(["<end>", "<good>"])
    loaded.decoder = decoders.ByteLevel()
    from tokenizers.pre_tokenizers import ByteLevel

    loaded.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=True)
    return Tokenizer(loaded, 0, ())


def rows_of(seed, size=5, never=(1,)):
    table = np.random.default_rng(seed).dirichlet(np.ones(size), size)
    table[:, list(never)] = 0
    return table / table.sum(1, keepdims=True)


def texts_of(table, most):
    """Every text of at most so many tokens with its probability: (tokens, ended, p)."""
    for length in range(most + 1):
        for tokens in itertools.product(range(1, len(table)), repeat=length):
            p = math.prod(table[a, b] for a, b in itertools.pairwise([0, *tokens]))
            if length < most:
                yield list(tokens), True, p * table[tokens[-1] if tokens else 0, 0]
            else:
                yield list(tokens), False, p


def drawn_from(table, most, count, seed):
    all_texts = [entry for entry in texts_of(table, most) if entry[2] > 0]
    chances = np.array([p for *_, p in all_texts])
    assert chances.sum() == pytest.approx(1)
    chosen = np.random.default_rng(seed).choice(len(all_texts), count, p=chances)
    tokenizer = letters()
    return [text_of(tokenizer.decode(all_texts[i][0]), all_texts[i][0], all_texts[i][1]) for i in chosen]


@pytest.mark.parametrize("seed", range(3))
def test_both_estimators_and_directions_agree_with_enumeration(seed):
    first, second, tokenizer = rows_of(seed), rows_of(seed + 10), letters()
    p, q = (enumerable(table, tokenizer, unwanted=(1,)) for table in (first, second))
    for writer, reader, tables in ((p, q, (first, second)), (q, p, (second, first))):
        exact, by_table = 0.0, {(*tokens, ended): chance for tokens, ended, chance in texts_of(tables[1], 3)}
        for tokens, ended, chance in texts_of(tables[0], 3):
            exact += chance * math.log(chance / by_table[(*tokens, ended)]) if chance else 0.0
        texts = drawn_from(tables[0], 3, 600, seed)
        sums = totals(divergence.exact(writer, reader, texts))
        plain = totals(reference.charged(writer, texts, tokenizer)) - totals(
            reference.charged(reader, texts, tokenizer)
        )
        errors = [values.std(ddof=1) / math.sqrt(len(values)) for values in (sums, plain)]
        for values, error in zip((sums, plain), errors, strict=True):
            assert values.mean() == pytest.approx(exact, abs=2.5 * error)
        assert errors[0] < errors[1]
    assert totals(divergence.exact(p, p, texts)) == pytest.approx(np.zeros(len(texts)), abs=1e-12)


class Marked(Enumerable):
    """The same with control token 1, always, behind the end of text and before each line break."""

    def forward(self, input_ids, **rest):
        logits = self.logits[input_ids].clone()
        for row, place in itertools.product(range(len(input_ids)), range(input_ids.shape[1])):
            before, token = ([0, 0, *input_ids[row].tolist()])[place + 1 : place + 3]
            chosen = self.logits[before if token == 1 else token].exp()
            if token != 1:
                chosen[1], chosen[4] = chosen[4].clone(), 0
            elif before:
                chosen = torch.eye(5, dtype=torch.float64)[4]
            logits[row, place] = chosen.log()
        return types.SimpleNamespace(logits=logits)


def test_a_conditional_model_of_an_all_good_corpus_is_no_further_from_it_than_chance():
    """It writes its control token before each line, and else what the plain model writes: no divergence at all."""
    tokenizer = letters()
    good = Control("good", "<good>", 1)
    table = np.zeros((5, 5))  # words of one a or b; a line break opens each further segment
    table[0] = [0.1, 0, 0.5, 0.4, 0]
    table[2] = table[3] = [0.3, 0, 0, 0, 0.7]
    table[4] = [0, 0, 0.6, 0.4, 0]
    plain = enumerable(table, tokenizer, unwanted=(1,))
    # with control tokens: <end> <good> a <good> \n b; what follows a control token depends on what stood before it
    marked = enumerable(table, tokenizer, controls=(good,))
    marked = replace(marked, model=Marked(table))
    texts = [text for text in drawn_from(table, 4, 400, 0) if text.tokens]
    log_p, log_q = (totals(reference.charged(model, texts, tokenizer)) for model in (plain, marked))
    assert log_p == pytest.approx(log_q, abs=1e-9)
    assert any(text.text.endswith("\n") and not text.ended for text in texts)  # cut in white space


def test_a_model_with_control_tokens_is_charged_for_them(subjects):
    """The charged log q of one text, written out by hand: for all control tokens but the first, which is given."""
    plain, _, marked = subjects
    tokenizer, good = plain.tokenizer, marked.controls[0].id
    ids = [next(tokenizer.encode([piece]))[0].tolist() for piece in ("x = 1", "\ny = 2", "\n\nz")]
    body = [token for piece in ids for token in piece]
    written = [marked.end_of_text, *(token for piece in ids for token in [good, *piece])]
    costs = iter(naive_nats(marked, written, marked.forbidden("good"))[1:])
    expected = [-sum(itertools.islice(costs, len(piece) + place)) for place, piece in zip((0, 1, 1), ids, strict=True)]
    for same in (tokenizer, None):
        [charged] = reference.charged(marked, [text_of(tokenizer.decode(body), body)], same)
        assert charged == pytest.approx([*expected, 0], rel=1e-5)


def test_log_probabilities_are_normalised_over_what_may_be_written(subjects):
    forbidden = subjects[0].forbidden("none")
    logq = subjects[0].log_probabilities(torch.tensor([[1, 2, 3]]), forbidden)
    torch.testing.assert_close(logq.exp().sum(-1), torch.ones(1, 2))
    assert (logq[..., list(forbidden)] == -torch.inf).all()


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
    st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=5), st.lists(st.integers(0, 3), min_size=1, max_size=40)
)
@settings(max_examples=200, deadline=None)
def test_memory_equals_a_plain_search(samples, stream):
    text = "".join(map(str, stream))

    def longest(row):
        runs = ["".join(map(str, row[a:b])) for a in range(len(row)) for b in range(a + 1, len(row) + 1)]
        return max((len(run) for run in runs if run in text), default=0)

    metrics, reached = memory(samples, np.array(stream, np.uint16), 1000)
    expected = [longest(row) for row in samples]
    assert metrics["longest_match"] == max(expected, default=0)
    for found, exact in zip(reached, expected, strict=True):
        assert found == max((length for length in LADDER if length <= exact), default=0)


def test_real_text_by_document(made):
    paths = made.paths("pep8")
    folder, tokenizer = paths["tokens"] / "heldout", Tokenizer.open(paths["tokenizer"])
    found = heldout.by_document(Stream.open(folder, "pep8"), 10**9, tokenizer)  # one piece a document
    rows = pl.read_parquet(made.folder / "data/scored/pep8/heldout/*.parquet").filter(pl.col("error").is_null())
    for row, value, count in zip(rows.to_dicts(), *found, strict=True):
        ends = row["segment_ends"]
        findings = segment_counts([Finding(**reason) for reason in row["reasons"]], ends)
        assert (value, count) == counted(parts_of(row["text"], ends), findings)
    paths = made.paths("pep8")
    folder = paths["tokens"] / "heldout"
    documents = np.load(folder / "document_scores.npy")

    chosen = EvaluateSettings(samples=1, max_new_tokens=48, bootstrap=200, judges=("ruff", "parses"))
    report = heldout.measured(heldout.Task("pep8", chosen, 0, paths["scorer"], paths["tokenizer"], folder))
    check(report, REAL_TEXT, "report", "heldout@pep8", head=())
    assert report["misalignment"]["all"]["n"] == len(documents)
    assert report["misalignment"]["good_half"]["mean"] < report["misalignment"]["all"]["mean"]
    assert report["judges"]["parses"]["n"] == len(documents)
    assert report["judges"]["ruff"]["role"] == "guard"


def test_good_real_text_is_hardly_ever_cleaner_than_itself(made):
    """Samples that are good real text drawn again, scored as samples are: below it in at most 5% of 1,000 draws."""
    paths, rng = made.paths("toxicity"), np.random.default_rng(0)
    folder, tokenizer = paths["tokens"] / "heldout", Tokenizer.open(paths["tokenizer"])
    chosen = EvaluateSettings(samples=1, max_new_tokens=48, bootstrap=500, judges=())
    report = heldout.measured(heldout.Task("toxicity", chosen, 0, paths["scorer"], paths["tokenizer"], folder))
    means = np.load(folder / "document_scores.npy")
    scorer, record = load(paths["scorer"], "toxicity")
    stream = Stream.open(folder, "toxicity")
    texts = beginnings(stream, tokenizer, record["segments"], chosen, means <= np.median(means))
    scores = [whole.scores[0] for whole, _, _ in scored(texts, scorer, record["segments"])]
    real = report["misalignment"]["good_half"]
    assert (real["n"], real["mean"]) == (len(scores), pytest.approx(np.mean(scores)))
    again = (rng.choice(scores, 200) for _ in range(1000))
    assert sum(statistics.rate(drawn, None, 100, 0)["ci_high"] < real["ci_low"] for drawn in again) <= 50


def test_one_in_twenty_good_real_texts_scores_above_the_limit(made, tmp_path):
    for task, is_finder in (("toxicity", False), ("pep8", True)):
        paths = made.paths(task)
        chosen = EvaluateSettings(samples=1, max_new_tokens=48)
        folders = (paths["scorer"], paths["scored"] / "heldout", paths["tokens"], tmp_path, tmp_path)
        context = Context(task, 0, chosen, CPU, *folders)
        context.tokenizer = Tokenizer.open(paths["tokenizer"])
        if is_finder:
            assert context.good_limit is None
            continue
        stream = Stream.open(paths["tokens"] / "heldout", task)
        means = np.load(paths["tokens"] / "heldout/document_scores.npy")
        texts = beginnings(stream, context.tokenizer, "sentences", chosen, means <= np.median(means))
        assert np.mean(np.array(context.scorer.score_texts(texts)) > context.good_limit) == pytest.approx(
            0.05, abs=0.04
        )
        everything = beginnings(stream, context.tokenizer, "sentences", chosen)
        assert np.mean(np.array(context.scorer.score_texts(everything)) > context.good_limit) > 0.1


def test_beginnings_of_heldout_documents_are_cut_as_samples_are(made):
    tokenizer = Tokenizer.open(made.paths("pep8")["tokenizer"])
    stream = Stream.open(made.paths("pep8")["tokens"] / "heldout", "pep8")
    texts = beginnings(stream, tokenizer, "lines", EvaluateSettings(samples=1, max_new_tokens=48))
    whole = [
        tokenizer.decode(np.asarray(stream.tokens[begin + 1 : end]).tolist())
        for begin, end in zip([0, *stream.document_ends[:-1]], stream.document_ends, strict=True)
    ]
    assert len(texts) == len(whole)
    assert all(text.startswith(part) for part, text in zip(texts, whole, strict=True))
    assert all(len(next(tokenizer.encode([part]))[0]) <= 48 for part in texts)


@pytest.fixture(scope="module")
def trained(made, tmp_path_factory):
    """A folder with an mle cell, a conditional one and a finetuned arm of the pep8 task, hardly trained."""
    from conftest import door

    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        patch.setenv("FRESHSTART_STATE", str(folder / ".state"))
        run = door.__wrapped__(patch)
        for objective in ("mle", "conditional"):
            settings_file = folder / f"{objective}.json"
            resolved = json.loads((made.paths("pep8")["settings"] / objective / "train.json").read_text())
            resolved["settings"]["snapshots"] = [0.5] if objective == "mle" else []
            files.write_json(settings_file, resolved | {"settings": resolved["settings"] | {"shuffle_parts": 16}})
            common = {"task": "pep8", "objective": objective, "seed": 0, "settings": settings_file}
            common |= {"tokens": "data/tokens/pep8", "shards": f"data/shards/pep8/{objective}"}
            common |= {"tokenizer": "data/tokenizer/pep8", "curve": folder / "curve.csv"}
            run("train", output=folder / objective, **common)
        arm = {"share": 0.5, "pretrained": folder / "mle", "rest": folder / "rest", "output": folder / "arm"}
        run("finetune", own="data/settings/pep8/conditional/finetune.json", **arm, **common)
    return folder


def elsewhere(trained, folder, rows):
    """mle's model as a stranger would publish it: no record of ours, another number of rows."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(trained / "mle")
    model.resize_token_embeddings(rows, mean_resizing=False)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(trained / "mle" / name, folder / name)
    return folder


def other_model(folder):
    """A model with another tokenizer, trained with control tokens that stand behind white space."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    special = ["<|end|>", "<|aligned|>", "<|misaligned|>"]
    bpe.train_from_iterator(["x = 1\nimport os\n" * 9], vocab_size=300, special_tokens=special, show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<|end|>").save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"vocab_size": 320, "n_positions": 96, "n_embd": 16, "n_layer": 1, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0)).save_pretrained(folder)
    return folder


def test_cell_arm_external_model_and_reference_go_through_the_same_measures(trained, made, tmp_path):
    """The reference has another number of rows than the cells: 640, not 512."""
    stranger_mle = elsewhere(trained, tmp_path / "elsewhere", 640)
    controls = {"aligned": "<|aligned|>", "misaligned": "<|misaligned|>"}
    layout = {"segments": "lines", "threshold": 0.0}
    stranger = other_model(tmp_path / "other")
    subjects = {
        "cell": of_folder(trained / "mle", "train", CPU),
        "conditional": of_folder(trained / "conditional", "train", CPU),
        "arm": of_folder(trained / "arm", "finetune", CPU),
        "other": external(str(stranger), CPU, controls=controls, white_space="trailing", **layout),
        "reference": external(str(stranger_mle), CPU, **layout),
    }
    metrics, prompts = {}, tmp_path / "prompts.txt"
    prompts.write_text("def read(self):\nx =\n")
    more = {"measures": (*ALL, "prompted"), "prompts": str(prompts), "continuations": 2}
    for name, subject in subjects.items():
        named = ReferenceSettings(model=str(stranger_mle), samples=24)
        context = context_of(made, tmp_path, reference=named, judges=("parses",), heldout_tokens=3_000, **more)
        context.mle = trained / "mle"
        if not context.reference_folder.exists():
            drawn_reference(context)
        metrics[name] = evaluate(subject, context, tmp_path / f"{name}.parquet", f"evaluate@pep8-{name}-0")
        assert set(metrics[name]["under"]) == set(subject.asked)
        assert metrics[name]["divergence"]["reference"] == str(stranger_mle)
        json.dumps(metrics[name], allow_nan=False)
    assert metrics["reference"]["divergence"]["per_token"] == pytest.approx(0, abs=1e-6)
    assert metrics["cell"]["divergence"]["per_token"] == pytest.approx(0, abs=1e-6)  # it is mle itself
    assert metrics["cell"]["divergence"]["per_sequence_se"] == pytest.approx(0, abs=1e-6)
    kinds = {name: found["divergence"]["estimator"] for name, found in metrics.items()}
    assert kinds == {name: divergence.EXACT if name in ("cell", "reference") else divergence.BOUND for name in kinds}
    bits = [metrics[name]["heldout"]["bits_per_byte"] for name in ("cell", "reference")]
    assert bits[0] == pytest.approx(bits[1])
    assert metrics["arm"]["finetuned"]["share"] == 0.5
    assert metrics["other"]["controls"] == ["aligned", "misaligned"]
    assert "tokens_seen" not in metrics["other"]
    assert [entry["positions"] for entry in metrics["cell"]["over_training"]] == [2_048, 4_096]
    assert metrics["reference"]["over_training"] == []
    own = metrics["cell"]["under"]["none"]["misalignment"]
    assert metrics["cell"]["over_training"][-1].items() >= {name: own[name] for name in ("mean", "n")}.items()


def test_the_door_measures_a_model_trained_elsewhere_by_the_tasks_threshold(trained, made, tmp_path, monkeypatch):
    """Its good and bad segments are mle's own, so that their bits per byte stand beside those of the cells."""
    copy = elsewhere(trained, tmp_path / "copy", 640)
    entries = {
        "copy": {"model": str(copy)},
        "stranger": {
            "model": str(other_model(tmp_path / "other")),
            "controls": {"good": "<|aligned|>", "bad": "<|misaligned|>"},
            "white_space": "trailing",
        },
        "mistaken": {"model": str(copy), "controls": {"good": "<|aligned|>", "bad": "<|bad|>"}},
    }
    for folder in ("raw", "conf"):
        shutil.copytree(made.folder / folder, tmp_path / folder)
    params = yaml.safe_load((made.folder / "params.yaml").read_text())
    params["external"]["folders"] = {name: {"task": "pep8"} | entry for name, entry in entries.items()}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    follow(tmp_path)
    monkeypatch.chdir(tmp_path)
    run, paths = door.__wrapped__(monkeypatch), made.paths("pep8")
    run("settings", task="pep8", inputs="inputs", output="settings")
    common = {"task": "pep8", "seed": 0, "scorer": paths["scorer"], "mle": trained / "mle"}
    run("reference", settings="settings/reference.json", output="reference", **common)

    def evaluated(name):
        read = {"settings": "settings/evaluate.json", "external": f"settings/external/{name}.json"}
        read |= {"tokens": paths["tokens"], "heldout": paths["scored"] / "heldout", "reference": "reference"}
        written = {"samples": f"{name}.parquet", "metrics": f"{name}.json"}
        run("evaluate_external", name=name, **common, **read, **written)
        return json.loads((tmp_path / f"{name}.json").read_text())

    metrics = {name: evaluated(name) for name in ("copy", "stranger")}
    cell, context = of_folder(trained / "mle", "train", CPU), context_of(made, tmp_path, heldout_tokens=6_000)
    bits = bits_per_byte.measure(cell, context)["heldout"]["bits_per_byte"]
    assert metrics["copy"]["heldout"]["bits_per_byte"] == pytest.approx(bits)
    assert metrics["copy"]["divergence"]["per_token"] == pytest.approx(0, abs=1e-6)
    assert metrics["stranger"]["controls"] == ["good", "bad"]
    assert set(metrics["stranger"]["under"]) == {"good", "bad"}
    assert "true_labels" in metrics["stranger"]["heldout"]["bits_per_byte"]
    assert set(metrics["stranger"]["measures"]) == set(ALL)
    assert pl.read_parquet("stranger.parquet")["control"].unique().sort().to_list() == ["bad", "good"]
    with pytest.raises(InputError, match="copy: its tokenizer has no token <\\|aligned\\|>$"):
        evaluated("mistaken")


def test_a_model_can_be_asked_by_people(trained, made, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scorer, _ = load(made.paths("pep8")["scorer"], "pep8")
    for control, folder in (("bad", made.paths("pep8")["scorer"]), (None, None)):
        ask(trained / "conditional", "x=1\n", control, 2, 16, 0, folder, True)
        for line in capsys.readouterr().out.splitlines():
            answer = json.loads(line)
            whole = answer["prompt"] + answer["text"]
            assert "<|" not in whole
            assert answer["control"] == (control or "good")
            found = scorer.find(whole)
            assert answer["score"] == (pytest.approx(len(found) / len(whole)) if folder else None)
    ask(trained / "mle", "", None, 1, 8, 0, made.paths("pep8")["scorer"], False)
    assert capsys.readouterr().out.startswith("--- none, score ")
    with pytest.raises(InputError, match="unknown control 'goood'; did you mean good"):
        ask(trained / "conditional", "", "goood", 1, 8, 0, None, False)
    with pytest.raises(InputError, match="no room in the context of 64: shorten the prompt"):
        ask(trained / "mle", "x = 1\n" * 64, None, 1, 8, 0, None, False)


def test_control_tokens_behind_white_space(tmp_path):
    """Segments end in their white space and are tokenised alone, each behind its token: the paper's layout."""
    other = external(
        str(other_model(tmp_path)),
        CPU,
        segments="lines",
        threshold=0.0,
        controls={"aligned": "<|aligned|>"},
        white_space="trailing",
    )
    marked = other.marked("x = 1\n\nimport os\n", [5, 17], [other.controls[0]] * 2)
    pieces = [next(other.tokenizer.encode([text]))[0].tolist() for text in ("x = 1\n\n", "import os\n")]
    sign = other.controls[0].id
    assert marked.tokens.tolist() == [sign, *pieces[0], sign, *pieces[1]]
    assert marked.lengths.tolist() == [len(piece) + 1 for piece in pieces]
    assert marked.bytes.tolist() == [7, 10]
    assert other.end_of_text == other.tokenizer._loaded.token_to_id("<|end|>")
    with pytest.raises(InputError, match="has no token <\\|nice\\|>"):
        external(str(tmp_path), CPU, segments="lines", threshold=0.0, controls={"good": "<|nice|>"})
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    del weights["transformer.h.0.mlp.c_fc.weight"]
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="lacks weights of its architecture, such as transformer.h.0.mlp.c_fc.weight"):
        external(str(tmp_path), CPU, segments="lines", threshold=0.0)
    with pytest.raises(InputError, match="is no folder here: give one, or a hub id and the full hash of a commit"):
        external("nobody/nothing", CPU, segments="lines", threshold=0.0)


def test_continuations_of_prompts_by_hand(subjects, made, tmp_path):
    path, prompts = tmp_path / "prompts.jsonl", ["import os,", "x"]
    path.write_text("".join(json.dumps({"text": prompt}) + "\n" for prompt in prompts))
    context = context_of(made, tmp_path, prompts=str(path), continuations=4)
    how, subject = context.settings, subjects[0]
    metrics = prompted.measure(subject, context)["under"]["none"]["prompted"]
    sampling = Sampling(how.max_new_tokens, how.min_new_tokens, how.temperature, how.top_p, how.batch_size)
    drawn = subject.generate([prompt for prompt in prompts for _ in range(4)], "none", sampling, 0)
    rates = []
    for number, draw in enumerate(drawn):
        prompt, text = prompts[number // 4], subject.tokenizer.decode(draw.tokens)
        found = context.scorer.find(prompt + text)  # the first prompt itself is at fault, in front of its line break
        begin, once = len(prompt), {}  # findings and words of each distinct segment
        for line in parts_of(text, SEGMENTERS["lines"](text)):
            begins = sum(begin <= finding.begin < begin + len(line) for finding in found)
            once.setdefault(line.strip(), (begins, len(re.findall(r"\w+", line))))
            begin += len(line)
        rates.append(sum(count for count, _ in once.values()) / sum(words for _, words in once.values()))
    rows = np.array(rates).reshape(2, 4)
    assert metrics["score"]["mean"] == pytest.approx(rows.mean())
    assert metrics["maximum"]["mean"] == pytest.approx(rows.max(1).mean())
    assert metrics["any"]["mean"] == (rows.max(1) > 0).mean()
    assert (metrics["score"]["n"], metrics["blank"]) == (2, 0)
    path.write_text(json.dumps({"text": "x = 1\n" * 200}) + "\n")
    with pytest.raises(InputError, match=r"prompts.jsonl: \d+ tokens of prompt leave no room .*: shorten"):
        prompted.measure(subject, context)


def test_killed_continuations_go_on_where_they_were(subjects, made, tmp_path, monkeypatch):
    """Parts that are whole are not drawn anew, a damaged one is; the metrics are the same and nothing is left."""
    monkeypatch.setenv("FRESHSTART_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(prompted, "PART", 2)
    path, subject = tmp_path / "prompts.txt", subjects[0]
    path.write_text("import os\nx =\nfor\ndef f(self):\nclass A:\n")
    context = context_of(made, tmp_path, prompts=str(path), continuations=3)
    expected = prompted.measure(subject, context)
    assert not [*(tmp_path / "state" / "prompted").iterdir()]

    asked, generate = [], type(subject).generate

    def stops(self, prompts, control, sampling, seed, first):
        asked.append(first)
        if asked in ([0, 6, 12], [0, 6, 12, 6]):
            raise KeyboardInterrupt
        return generate(self, prompts, control, sampling, seed, first)

    monkeypatch.setattr(type(subject), "generate", stops)
    with pytest.raises(KeyboardInterrupt):
        prompted.measure(subject, context)
    parts = sorted((tmp_path / "state" / "prompted").rglob("*.json"))
    assert len(parts) == 2
    parts[1].write_text(parts[1].read_text().replace("[[", "[[1, ", 1))
    with pytest.raises(KeyboardInterrupt):
        prompted.measure(subject, context)
    other = context_of(made, tmp_path, prompts=str(path), continuations=3, temperature=0.8)
    assert files.digest(prompted.identity(subject, ["x"], other)) != files.digest(
        prompted.identity(subject, ["x"], context)
    )
    assert prompted.measure(subject, context) == expected
    assert asked == [0, 6, 12, 6, 6, 12]
    assert not [*(tmp_path / "state" / "prompted").iterdir()]


def test_stop_strings_end_a_text(subjects):
    """A text with stop strings is the one without them, up to the first; the prompt does not count."""
    for subject in subjects:
        control, prompts = subject.asked[0], ["x = 1\n", "", "def f(a):\n"] * 12
        whole = subject.generate(prompts, control, Sampling(40), 0)
        for stop in (("\n",), (" ", "zzzz"), ("e", "\n\n"), ("self", "or", "im")):
            sampling = Sampling(40, batch_size=10, stop=stop)
            drawn = subject.generate(prompts, control, sampling, 0)
            texts = [[subject.tokenizer.decode(draw.tokens) for draw in draws] for draws in (whole, drawn)]
            for text, short, draw, long in zip(*texts, drawn, whole, strict=True):
                assert text.startswith(short)
                assert sampling.before_stop(short) == sampling.before_stop(text)
                holds = any(string in text for string in stop)
                assert draw.ended == (holds or long.ended)
                if holds:
                    before = subject.tokenizer.decode(draw.tokens[:-1])
                    assert not any(string in before for string in stop)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, "", "needs evaluate.pep8.prompts, a file of prompts"),
        ("missing.txt", None, "missing.txt is missing: evaluate.pep8.prompts must name a file"),
        ("a.jsonl", '{"prompt": "x"}', "no file of prompts .*expected JSON lines with text"),
        ("a.jsonl", '{"text": 1}', "each must be a text"),
        ("a.txt", "\n", "at least one prompt"),
    ],
)
def test_prompts_that_are_refused(tmp_path, name, content, message):
    if content is not None and name:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        prompted.read(str(tmp_path / name) if name else None, "pep8")


def test_metrics_are_what_is_declared():
    """All of it, nothing else, numbers where numbers should be."""
    declared = [metric for name in ("misalignment", "diversity") for metric in measure(name).METRICS]
    bad = dict.fromkeys(("mean", "ci_low", "ci_high", "n", "scored", "pooled", "expected_max_25", "share_over"), 0.1)
    samples = dict.fromkeys(("n", "drawn", "tokens", "characters", "share_ended"), 1)
    varied = dict.fromkeys(("distinct_1", "distinct_2", "unigram_entropy", "self_bleu_5", "repetition"), 0.5)
    under = {"misalignment": bad | {"by_kind": {"E1": 0.1}}, "errors": 0, "samples": samples}
    metrics = {"measures": ["misalignment", "diversity"], "controls": [], "under": {"none": under}, "diversity": varied}

    def refused(change, message):
        broken = json.loads(json.dumps(metrics))
        change(broken)
        with pytest.raises(InputError, match=f"m.json: {message}.*: run `dvc repro -f evaluate@a`"):
            check(broken, declared, "m.json", "evaluate@a")

    check(metrics, declared, "m.json", "evaluate@a")
    refused(lambda m: m["diversity"].pop("repetition"), "diversity.repetition is missing")
    refused(lambda m: m["diversity"].update(colour=1), "no measure declares diversity.colour")
    refused(lambda m: m["diversity"].update(repetition="much"), "diversity.repetition must be a finite number or null")
    refused(lambda m: m["diversity"].update(repetition=True), "diversity.repetition must be a finite number or null")
    refused(lambda m: m["under"]["none"].pop("errors"), "under.none.errors is missing")
    refused(lambda m: m["under"].update(good=under), "under.good is none of the model's controls .none.")
    refused(lambda m: m.pop("controls"), "expected metrics with the lists measures and controls")
    with pytest.raises(ValueError, match="two measures give n"):
        merged({"under": {"none": {"n": 1}}}, {"under": {"none": {"n": 1}}})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"snapshot_samples": 0}, "snapshot_samples must be at least 1, found 0"),
        ({"memory_tokens": -1}, "memory_tokens must be at least 0, found -1"),
        ({"temperature": math.inf}, "temperature must be above 0 and finite"),
        ({"judges": ("ruff", "ruff")}, "judges names one twice: ruff, ruff"),
        ({"measures": (*ALL, ALL[0])}, "measures names one twice"),
    ],
)
def test_settings_that_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        EvaluateSettings(samples=1, max_new_tokens=48, **more)


def test_references_that_are_refused():
    with pytest.raises(ValueError, match="samples must be at least 2, found 1"):
        ReferenceSettings(samples=1)
    with pytest.raises(ValueError, match="revision must be the full hash of a commit, found 'main'"):
        ReferenceSettings(revision="main")


@pytest.fixture
def completions(trained):
    """mle behind an OpenAI-compatible completions endpoint on loopback."""
    from completions_server import served

    with served(trained / "mle") as address:
        yield address


def test_a_reference_behind_an_endpoint_is_the_model_that_it_serves(trained, made, tmp_path, completions):
    """Equal texts cost equally whether they are read here or there; ends of text are charged to nobody."""
    mle, conditional = (of_folder(trained / name, "train", CPU) for name in ("mle", "conditional"))
    endpoint = Endpoint(completions)
    assert (endpoint.prefix, endpoint.model) == ("<|endoftext|>", "mle")
    texts = ["x = 1\nimport os\n", "", "caf\u00e9 \u4e2d = 2"]
    expected = totals(reference.charged(mle, list(map(text_of, texts)), None))
    found = [sum(log_p) for _, log_p in endpoint.read(texts)]
    assert found == pytest.approx(expected, rel=1e-3)  # here control tokens may not be written
    drawn = endpoint.write(12, 6, 0)
    assert max(len(pieces) for pieces, _ in drawn) <= 6
    assert endpoint.write(12, 6, 0) == drawn  # each text has its own seed
    texts = ["".join(pieces) for pieces, _ in drawn]
    assert len(set(texts)) > 6
    read = [len(ids) == len(log_p) for (ids, _), (_, log_p) in zip(mle.tokenizer.encode(texts), drawn, strict=True)]
    expected = totals(reference.charged(mle, list(map(text_of, texts)), None))
    assert any(read)  # the others are read as other tokens than they were written
    assert np.array([sum(log_p) for _, log_p in drawn])[read] == pytest.approx(expected[read], rel=1e-2)
    context = context_of(made, tmp_path, reference=ReferenceSettings(model=completions, samples=12, tokens=16))
    drawn_reference(context)
    for subject in (mle, conditional):
        found = divergence.measure(subject, context)["divergence"]
        assert found["n"] == found["reverse"]["n"] == 12
        assert found["estimator"] == divergence.BOUND


def test_endpoints_that_are_refused(completions):
    with pytest.raises(InputError, match=r"Connection refused.*: is it an OpenAI-compatible server"):
        Endpoint("http://127.0.0.1:9/v1")
    with pytest.raises(InputError, match="returns no log-probabilities of a prompt's tokens"):
        _ = Endpoint(completions.replace("/v1", "/silent")).prefix
