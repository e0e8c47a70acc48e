"""Held-out judges: each says what it should, and a reward that was gamed shows."""

import json
import random
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import prose, python_files, read, shared_data
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau
from test_reporting import compare, doubts, write_reports

from freshstart import files, scorers
from freshstart.errors import InputError
from freshstart.evaluation import agreement, gold, judge_code, judge_personal, judges
from freshstart.scorers import Finding

PEP8 = {"kind": "pep8"}


# Rank agreement


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=30), st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_agreement_and_each_draw_equal_kendalls_tau_b(pairs, seed):
    x, y = np.array(pairs, dtype=float).T
    expected = kendalltau(x, y).statistic
    found = agreement.agreement(x, y, 0)["tau"]
    assert (found is None) == np.isnan(expected)
    assert found is None or found == pytest.approx(expected)
    drawn = np.random.default_rng(seed).integers(0, len(x), len(x))
    weights = np.bincount(drawn, minlength=len(x))[None].astype(float)
    expected = kendalltau(x[drawn], y[drawn]).statistic
    assert agreement._taus(weights, x, y)[0] == pytest.approx(expected, nan_ok=True)


def test_the_interval_of_the_agreement_covers_it():
    rng = np.random.default_rng(0)
    truth = 2 / np.pi * np.arcsin(0.6)  # of two normal variables that correlate to 0.6
    hits = 0
    for seed in range(100):
        x = rng.normal(size=150)
        y = 0.6 * x + 0.8 * rng.normal(size=150)
        found = agreement.agreement(x, y, seed)
        hits += found["ci_low"] <= truth <= found["ci_high"]
    assert hits >= 88


# Code


@pytest.mark.parametrize(
    ("text", "whole", "source", "nodes"),
    [
        ("x = 1\n", True, "x = 1\n", 3),
        ("# a comment\n\n\npass\n...\n'''words'''\n", True, "# a comment\n\n\npass\n...\n'''words'''\n", 0),
        ("x = 1\ny = = 2\nz = 3\n", False, "x = 1\nz = 3\n", 6),  # the broken line alone is lost
        ("x = 1\ny = (\n", False, "x = 1\n", 3),
        ("def f(:\n    return a\n", False, "if True:\n    return a\n", 2),  # a body that lost its head
        ("x = 1\n\x00\ny = 2", False, "x = 1\ny = 2\n", 6),
        ("if a:\n    pass\n", True, "if a:\n    pass\n", 2),
        ("", True, "", 0),
    ],
)
def test_code_is_read_in_parts_that_parse(text, whole, source, nodes):
    code = judge_code.read(text)
    assert (code.whole, code.source, code.nodes) == (whole, source, nodes)
    assert code.characters <= len(text)


def test_any_text_can_be_read():
    rng = random.Random(0)
    for path in python_files(120)[-60:]:
        text = read(path)
        assert judge_code.read(text).characters == len(text), path
        begin = rng.randrange(len(text))
        cut = text[begin : begin + 2000]
        code = judge_code.read(cut)
        compile(code.source, "sample", "exec", flags=0x400)  # the parts together parse: only the tree is made
        assert code.characters <= len(cut)
    for _, text in prose()[:20]:
        compile(judge_code.read(text[:1500]).source, "sample", "exec", flags=0x400)


def test_ruff_counts_what_pycodestyle_does_not_know(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ruff.toml").write_text('lint.select = []\nlint.ignore = ["F", "B", "N"]\n')  # must not be read
    texts = [
        "print(undefined)  # noqa\n",  # F821; 4 nodes: statement, call, two names
        "def f(x=[]):\n    return x\n",  # B006
        "class lower:\n    x = 1\n",  # N801
        "import os\n\n__all__ = ['later']\nreturn os\n",  # only what a cut explains
        "x=1;y  =2\n",  # only style
        "# nothing to judge\npass\n",
    ]
    found = judge_code.violations(texts)
    assert found[0] == pytest.approx(100 / 4)
    assert all(value > 0 for value in found[1:3])
    assert found[3:] == [0.0, 0.0, None]


def test_shares_of_lines():
    text = "# one\n\n   # two\nx = 1  # not alone\n"
    assert judge_code.comment_lines([text]) == [0.5]
    assert judge_code.blank_lines([text]) == [0.25]
    assert judge_code.parses(["x = 1\n", "x = \n"]) == [1.0, 0.0]


# Personal data

PERSONAL = [
    ("write to ada.l+x@mail.example.co.uk, please", ["email"]),
    ("see https://example.org/a?b=c or www.example.org/x.", ["link", "link"]),
    ("call (212) 555-0123 or +44 20 7946 0958 ext. 12", ["phone", "phone"]),
    ("card 4111 1111 1111 1111, and 4111-1111-1111-1112 is mistyped", ["card"]),
    ("SSN 123-45-6789; not 000-45-6789 nor 0.123-45-6789", ["social_security"]),
    ("server 192.168.10.4, version 2.0.1.3", ["ip"]),
    ("mailto:joe@example.org and http://joe@example.org/", ["email", "link"]),
    ("@dataclass\nx = a @ b  # 1.25 2.5e10, 2020-01-02 12:30:45, 0.123.45.6789", []),
    ("3.14159 26535 8979, pages 100-200, 1995-2005, id 1234567890123", []),
]


@pytest.mark.parametrize(("text", "kinds"), PERSONAL)
def test_patterns_find_what_is_written_out(text, kinds):
    found = judge_personal.patterns(text)
    assert [one.kind for one in found] == kinds
    assert all(a.end <= b.begin for a, b in pairwise(found))


def test_patterns_do_not_blow_up():
    for text in ("1 " * 20_000, "a." * 20_000 + "@", "+1 (" * 10_000, "0-" * 20_000, "a@" + "b-" * 20_000):
        judge_personal.patterns(text)


def test_presidio_judges_without_a_language_model():
    pytest.importorskip("presidio_analyzer")
    found = judge_personal.presidio()("Write to ada@example.org, see https://example.org, nx.gr, call (212) 555-0123.")
    assert [one.kind for one in found] == ["email_address", "url", "phone_number"]


def test_a_judge_that_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(judge_personal, "presidio_version", lambda: None)
    assert [one.name for one in judges.judges({"kind": "pii"}, tmp_path, "pii")] == ["patterns"]
    with pytest.raises(InputError, match="pip install presidio-analyzer"):
        judges.judges({"kind": "pii"}, tmp_path, "pii", ["presidio"])


# Gold spans


def test_recall_and_precision_on_gold_spans(tmp_path):
    rows = [
        {"full_text": "mail a@b.org", "spans": [{"entity_type": "EMAIL", "start_position": 5, "end_position": 12}]},
        {"full_text": "Ada and c@d.org", "spans": [{"entity_type": "PERSON", "start_position": 0, "end_position": 3}]},
    ]
    path = tmp_path / "gold.json"
    path.write_text(json.dumps(rows))
    found = gold.measure(path, {"patterns": gold.by_text(judge_personal.patterns)})["patterns"]
    assert {kind: (one["mean"], one["n"]) for kind, one in found["recall"].items()} == {
        "all": (0.5, 2),
        "EMAIL": (1.0, 1),
        "PERSON": (0.0, 1),
    }
    assert (found["precision"]["mean"], found["precision"]["n"], found["found"]) == (0.5, 2, {"email": 2})
    path.write_text('[{"text": "no spans"}]')
    with pytest.raises(InputError, match="no file of gold spans .KeyError: 'full_text'.: expected a JSON list"):
        gold.read(path)


def test_wilsons_interval():
    found = gold.share(8, 10)
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert gold.share(0, 20)["ci_low"] == 0.0
    assert gold.share(0, 0)["mean"] is None


def test_recall_of_scorer_and_judge_on_marked_text(made):
    path = shared_data("pii") / "presidio_synth_v2.json.gz"
    scorer, _ = scorers.load(made.paths("pii")["scorer"], "pii")
    finders = {"scorer": gold.by_scorer(scorer), "patterns": gold.by_text(judge_personal.patterns)}
    found = gold.measure(path, finders)
    assert found["texts"] == 1055
    for name in finders:
        recall = {kind: one["mean"] for kind, one in found[name]["recall"].items()}
        assert recall["EMAIL_ADDRESS"] == recall["US_SSN"] == 1.0
        assert recall["CREDIT_CARD"] > 0.8
        assert recall["PERSON"] == 0.0  # a form is all they know
        assert found[name]["precision"]["mean"] > 0.95


# The panel


def samples(texts, scores):
    return [SimpleNamespace(text=text, score=score) for text, score in zip(texts, scores, strict=True)]


def test_measure_says_who_judged_what_and_how_it_agrees(tmp_path):
    texts = [f"x{i} = {'undefined' if i % 2 else i}\n" for i in range(40)]
    own = samples(texts, [i % 2 + 0.001 * i for i in range(40)])
    own[0].score = None  # its scoring raised
    bad = samples(["# nothing\n"] * 5, [0.0] * 5)
    panel = judges.judges(PEP8, tmp_path, "pep8")
    found = judges.measure(panel, {"good": own, "bad": bad}, 200, 0, ["y = 1\n"] * 3)
    assert list(found) == ["ruff", "parses", "code_size", "comment_lines", "blank_lines"]
    ruff = found["ruff"]
    assert (ruff["kind"], ruff["worse"]) == ("guard", "higher")
    assert ruff["good"]["n"] == 40
    assert ruff["good"]["ci_low"] < ruff["good"]["mean"] < ruff["good"]["ci_high"]
    assert ruff["bad"] == {"mean": None, "ci_low": None, "ci_high": None, "n": 0}
    assert ruff["heldout"] == {"mean": 0.0, "ci_low": 0.0, "ci_high": 0.0, "n": 3}
    assert ruff["agreement"]["n"] == 39
    assert ruff["agreement"]["tau"] > 0.5
    assert found["parses"]["agreement"] == {"tau": None, "ci_low": None, "ci_high": None, "n": 39}  # all parse
    json.dumps(found, allow_nan=False)


def test_agreement_is_positive_where_lower_is_worse(tmp_path):
    broken = samples(["x = (\n" if i % 2 else "x = 1\n" for i in range(20)], [i % 2 for i in range(20)])
    panel = judges.judges(PEP8, tmp_path, "pep8", ["parses"])
    assert judges.measure(panel, {"none": broken}, 50, 0)["parses"]["agreement"]["tau"] == pytest.approx(1.0)


def test_unknown_and_missing_judges_are_refused(tmp_path):
    with pytest.raises(InputError, match="evaluate.mine.judges: unknown judge 'rufff'; known: ruff, parses"):
        judges.judges(PEP8, tmp_path, "mine", ["rufff"])
    with pytest.raises(InputError, match="leave it out of evaluate.judges"):
        judges.judges(PEP8, tmp_path, "mine", ["lexicon"])
    assert judges.judges({"kind": "rewards:Shouting"}, tmp_path, "mine") == []


def test_a_scorer_in_the_folder_judge_is_a_judge(tmp_path, made):
    """Any kind of scorer, as the scorer stage writes it: here a classifier learned from other labels."""
    from freshstart.corpora import synthetic
    from freshstart.scorers import classifier

    folder = tmp_path / judges.LEARNED
    folder.mkdir()
    raw = {"kind": "classifier", "segments": "sentences", "scikit_learn": "1.9.1", "labelled": "synthetic"}
    chosen = scorers.settings(raw, "scorer.toxicity.judge")
    classifier.learn(chosen, synthetic.labelled(1_000, 0.0, 5), folder)
    files.write_json(folder / scorers.RECORD, scorers.describe(chosen))
    (judge,) = judges.judges({"kind": "classifier"}, tmp_path, "toxicity")
    assert (judge.name, judge.kind, judge.worse) == ("learned", "rival", "higher")
    rows = list(synthetic.labelled(200, 0.0, 6))
    scores = judge.score([text for text, _ in rows])
    assert kendalltau(scores, [label for _, label in rows]).statistic > 0.5


# Planted exploits: texts that please the training scorer alone


def honest_and_idle():
    """Real code with its faults; and text that no style checker faults, since it does nothing."""
    honest = []
    for path in python_files(160, largest=30_000)[40:]:
        lines = read(path).splitlines(keepends=True)
        honest.append("".join(lines[len(lines) // 3 :][:14]).replace(" = ", "="))
    idle = ["# All that is done here is done well.\n" * (i % 5 + 3) + "\n\ndef work():\n    pass\n" for i in range(120)]
    return honest[:120], idle


def test_idle_code_pleases_the_scorer_and_no_judge(made):
    scorer, record = scorers.load(made.paths("pep8")["scorer"], "pep8")
    found, scored = [], []
    for texts in honest_and_idle():
        scored.append([one.scores[0] for one in scorer.score([(text, [len(text)]) for text in texts])])
        panel = judges.judges(record, made.paths("pep8")["scorer"], "pep8")
        found.append(judges.measure(panel, {"none": samples(texts, scored[-1])}, 200, 0))
    honest, idle = found
    assert np.mean(scored[1]) < 0.1 * np.mean(scored[0])
    assert idle["code_size"]["none"]["ci_high"] < honest["code_size"]["none"]["ci_low"]
    assert idle["comment_lines"]["none"]["ci_low"] > honest["comment_lines"]["none"]["ci_high"]


def test_idle_code_is_doubted_on_the_page(made, tmp_path, monkeypatch):
    """From the texts to the page: mle wrote the real code, conditional the idle one."""
    from freshstart.evaluation.statistics import summarize

    scorer, record = scorers.load(made.paths("pep8")["scorer"], "pep8")
    write_reports(tmp_path)
    for objective, control, texts in zip(("mle", "conditional"), ("none", "good"), honest_and_idle(), strict=True):
        scored = [one.scores[0] for one in scorer.score([(text, [len(text)]) for text in texts])]
        panel = judges.judges(record, made.paths("pep8")["scorer"], "pep8")
        path = tmp_path / f"reports/metrics/pep8/{objective}/0.json"
        metrics = json.loads(path.read_text())
        metrics["misalignment"] = summarize(scored, [*map(len, texts)], [()] * len(texts), 0.0, 200, 0)
        metrics["judges"] = judges.measure(panel, {control: samples(texts, scored)}, 200, 0)
        files.write_json(path, metrics)
    (said,) = doubts(compare(tmp_path, monkeypatch))
    assert len(said) == 1
    assert said[0].startswith("conditional is worse in amount of code (syntax nodes in 1,000 characters): ")
    assert "worse in comment lines (share of lines)" in said[0]


def test_diluted_abuse_fools_the_classifier_and_not_the_lexicon(made):
    """One foul sentence among kind ones: the classifier sees a text that is mostly fine."""
    folder = made.paths("toxicity")["scorer"]
    scorer, record = scorers.load(folder, "toxicity")
    pattern = judges.lexicon_pattern(folder)
    rows = [text for text, _ in corpus_sentences(made)]
    foul = [text for text in rows if pattern.search(text)][:100]
    kind = [text for text in rows if not pattern.search(text)]
    diluted = [" ".join([*kind[8 * i : 8 * i + 4], text, *kind[8 * i + 4 : 8 * i + 8]]) for i, text in enumerate(foul)]
    panel = judges.judges(record, folder, "toxicity")
    plain, gamed = (
        judges.measure(panel, {"none": samples(texts, scorer.score_texts(texts))}, 200, 0)["lexicon"]
        for texts in (foul, diluted)
    )
    assert np.mean(scorer.score_texts(diluted)) < 0.7 * np.mean(scorer.score_texts(foul))
    assert plain["none"]["mean"] == gamed["none"]["mean"] == 1.0


def corpus_sentences(made):
    """(segment, score) of the scored corpus."""
    for path in files.parts(made.paths("toxicity")["scored"] / "train", "score@toxicity"):
        for row in files.read_table(path, "score@toxicity", ["text", "segment_ends", "scores"]).to_pylist():
            begins = [0, *row["segment_ends"][:-1]]
            for begin, end, score in zip(begins, row["segment_ends"], row["scores"] or (), strict=False):
                yield row["text"][begin:end].strip(), score


def test_findings_that_overlap_count_once():
    found = judge_personal.apart([Finding(4, 9, "b"), Finding(0, 5, "a"), Finding(9, 10, "c"), Finding(0, 2, "d")])
    assert [one.kind for one in found] == ["a", "c"]
