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
from test_reporting import SEEDS, compare, doubts, write_reports

from freshstart import evaluation, files, scorers
from freshstart.errors import InputError
from freshstart.evaluation import EvaluateSettings, gold, statistics
from freshstart.evaluation.judges import learned, patterns, presidio, python_code, ruff
from freshstart.evaluation.measures import judges
from freshstart.scorers import Finding

# Rank agreement


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=30))
@settings(max_examples=30, deadline=None)
def test_agreement_is_kendalls_tau_b(pairs):
    x, y = np.array(pairs, dtype=float).T
    signs = [(np.sign(a - c), np.sign(b - d)) for a, b in pairs for c, d in pairs]
    ties = [sum(s * s for s in side) for side in zip(*signs, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "AGREEMENT_DRAWS", 2)
        tau = statistics.agreement(x, y, 500, 0)["mean"]
    assert (tau is None) == (0 in ties)
    if tau is not None:
        assert tau == pytest.approx(sum(s * t for s, t in signs) / np.sqrt(ties[0] * ties[1]))


def test_the_interval_of_the_agreement_covers_it(monkeypatch):
    monkeypatch.setattr(statistics, "AGREEMENT_DRAWS", 50)
    rng = np.random.default_rng(0)
    truth = 2 / np.pi * np.arcsin(0.6)  # of two normal variables that correlate to 0.6
    hits = 0
    for seed in range(60):
        x = rng.normal(size=50)
        y = 0.6 * x + 0.8 * rng.normal(size=50)
        tau = statistics.agreement(x, y, 500, seed)
        hits += tau["ci_low"] <= truth <= tau["ci_high"]
    assert 53 <= hits < 60


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
    code = python_code.read(text)
    assert (code.whole, code.source, code.nodes) == (whole, source, nodes)
    assert code.characters <= len(text)


def test_any_text_can_be_read():
    rng = random.Random(0)
    for path in python_files(120)[-60:]:
        text = read(path)
        assert python_code.read(text).characters == len(text), path
        begin = rng.randrange(len(text))
        cut = text[begin : begin + 2000]
        code = python_code.read(cut)
        compile(code.source, "sample", "exec", flags=0x400)  # the parts together parse: only the tree is made
        assert code.characters <= len(cut)
    for _, text in prose()[:20]:
        compile(python_code.read(text[:1500]).source, "sample", "exec", flags=0x400)


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
    found = ruff.violations(texts)
    assert found[0] == pytest.approx(100 / 4)
    assert all(value > 0 for value in found[1:3])
    assert found[3:] == [0.0, 0.0, None]


def test_shares_of_lines(tmp_path):
    text = "# one\n\n   # two\nx = 1  # not alone\n"
    expected = {"comment_lines": ([text], [0.5]), "blank_lines": ([text], [0.25])}
    expected |= {"parses": (["x = 1\n", "x = \n"], [1.0, 0.0])}
    for name, (texts, shares) in expected.items():
        assert evaluation.judge(name).judge(tmp_path, "pep8").score(texts) == shares


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
    found = patterns.find(text)
    assert [finding.kind for finding in found] == kinds
    assert all(a.end <= b.begin for a, b in pairwise(found))


def test_patterns_do_not_blow_up():
    for text in ("1 " * 20_000, "a." * 20_000 + "@", "+1 (" * 10_000, "0-" * 20_000, "a@" + "b-" * 20_000):
        patterns.find(text)


def test_presidio_judges_without_a_language_model():
    pytest.importorskip("presidio_analyzer")
    found = presidio.find("Write to ada@example.org, see https://example.org, nx.gr, call (212) 555-0123.")
    assert [finding.kind for finding in found] == ["email_address", "url", "phone_number"]


def test_a_judge_that_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(presidio, "VERSION", None)
    monkeypatch.setattr(presidio, "SUITS", None)
    assert suited({"kind": "pii", "segments": "lines", "scrubadub": "2.0.1"}, detectors=["email"]) == ("patterns",)
    with pytest.raises(InputError, match="pip install presidio-analyzer"):
        presidio.judge(tmp_path, "pii")


def suited(raw, **more):
    """The judges of a task with that scorer where evaluate.judges names nothing."""
    more |= {"phonenumbers": "9.0.43"} if raw["kind"] == "pii" else {}
    scorer, second = scorers.settings_and_judge(raw | more, "scorer.mine")
    return evaluation.resolved(EvaluateSettings(samples=1, max_new_tokens=48), scorer, second)[0].judges


# Gold spans


def test_recall_and_precision_on_gold_spans(tmp_path):
    rows = [
        {"full_text": "mail a@b.org", "spans": [{"entity_type": "EMAIL", "start_position": 5, "end_position": 12}]},
        {"full_text": "Ada and c@d.org", "spans": [{"entity_type": "PERSON", "start_position": 0, "end_position": 3}]},
    ]
    path = tmp_path / "gold.json"
    path.write_text(json.dumps(rows))
    found = gold.recall(path, {"patterns": gold.by_text(patterns.find)})["finders"]["patterns"]
    assert {kind: (share["mean"], share["n"]) for kind, share in found["recall"].items()} == {
        "all": (0.5, 2),
        "EMAIL": (1.0, 1),
        "PERSON": (0.0, 1),
    }
    assert (found["precision"]["mean"], found["precision"]["n"], found["found"]) == (0.5, 2, {"email": 2})
    path.write_text('[{"text": "no spans"}]')
    with pytest.raises(InputError, match="no file of gold spans .KeyError: 'full_text'.: expected a JSON list"):
        gold.read(path)


def test_wilsons_interval():
    found = statistics.share(8, 10)
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert statistics.share(0, 20)["ci_low"] == 0.0
    assert statistics.share(0, 0)["mean"] is None


def test_recall_of_scorer_and_judge_on_marked_text(made):
    path = shared_data("pii") / "presidio_synth_v2.json.gz"
    scorer, _ = scorers.load(made.paths("pii")["scorer"], "pii")
    finders = {"scorer": gold.by_scorer(scorer), "patterns": gold.by_text(patterns.find)}
    found = gold.recall(path, finders)
    assert found["texts"] == 1055
    for name in finders:
        recall = {kind: share["mean"] for kind, share in found["finders"][name]["recall"].items()}
        assert recall["EMAIL_ADDRESS"] == recall["US_SSN"] == 1.0
        assert recall["CREDIT_CARD"] > 0.8
        assert recall["PERSON"] == 0.0  # a form is all they know
        assert found["finders"][name]["precision"]["mean"] > 0.95


# The panel


def samples(texts, scores):
    return [SimpleNamespace(text=text, score=score) for text, score in zip(texts, scores, strict=True)]


def judged(names, folder, task, by_control):
    """What the measure gives of samples under each control."""
    context = SimpleNamespace(
        samples=lambda subject: by_control,
        judges={name: evaluation.judge(name).judge(folder, task) for name in names},
        settings=SimpleNamespace(bootstrap=200),
        seed=0,
    )
    return judges.measure(SimpleNamespace(asked=tuple(by_control)), context)["under"]


def test_judges_say_how_they_agree_with_the_scorer(tmp_path):
    texts = [f"x{i} = {'undefined' if i % 2 else i}\n" for i in range(40)]
    own = samples(texts, [i % 2 + 0.001 * i for i in range(40)])
    own[0].score = None  # its scoring raised
    bad = samples(["# nothing\n"] * 5, [0.0] * 5)
    found = judged(("ruff", "parses"), tmp_path, "pep8", {"good": own, "bad": bad})
    by_ruff = found["good"]["judges"]["ruff"]
    assert by_ruff["n"] == 40
    assert by_ruff["ci_low"] < by_ruff["mean"] < by_ruff["ci_high"]
    assert by_ruff["agreement"]["n"] == 39
    assert by_ruff["agreement"]["mean"] > 0.5
    nothing = {"mean": None, "ci_low": None, "ci_high": None}
    assert found["bad"]["judges"]["ruff"] == {**nothing, "n": 0}
    assert found["good"]["judges"]["parses"]["agreement"] == {**nothing, "n": 39}  # all parse
    json.dumps(found, allow_nan=False)


def test_agreement_is_positive_where_lower_is_worse(tmp_path):
    broken = samples(["x = (\n" if i % 2 else "x = 1\n" for i in range(20)], [i % 2 for i in range(20)])
    found = judged(("parses",), tmp_path, "pep8", {"none": broken})
    assert found["none"]["judges"]["parses"]["agreement"]["mean"] == pytest.approx(1.0)


def test_which_judges_suit_a_task(tmp_path):
    code = {"blank_lines", "code_size", "comment_lines", "parses", "ruff"}
    assert set(suited({"kind": "pep8", "segments": "lines", "pycodestyle": "2.15.0"})) == code
    learned_here = {"kind": "classifier", "segments": "sentences", "scikit_learn": "1.9.1", "labelled": "synthetic"}
    assert suited(learned_here) == ("lexicon",)
    assert suited(learned_here | {"labelled": "rows.csv", "judge": learned_here}) == ("learned",)
    assert suited({"kind": "rewards:Shouting", "segments": "sentences", "version": "1"}) == ()
    with pytest.raises(InputError, match="evaluate.mine.judges: unknown judge 'rufff'; did you mean ruff?"):
        evaluation.check(EvaluateSettings(samples=1, max_new_tokens=48, judges=("rufff",)), "evaluate.mine")
    with pytest.raises(InputError, match="leave it out of evaluate.judges"):
        evaluation.judge("lexicon").judge(tmp_path, "mine")


def test_a_scorer_in_the_folder_judge_is_a_judge(tmp_path):
    """Any kind of scorer, as the scorer stage writes it: here a classifier learned from other labels."""
    from freshstart.corpora import synthetic

    raw = {"kind": "classifier", "segments": "sentences", "scikit_learn": "1.9.1", "labelled": "synthetic"}
    chosen = scorers.settings(raw, "scorer.toxicity.judge")
    scorers.make(chosen, tmp_path / scorers.JUDGE, synthetic.labelled(1_000, 0.0, 5))
    second = learned.judge(tmp_path, "toxicity")
    assert (second.role, second.better) == ("rival", "lower")
    rows = list(synthetic.labelled(200, 0.0, 6))
    scores = second.score([text for text, _ in rows])
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
    folder = made.paths("pep8")["scorer"]
    scorer, _ = scorers.load(folder, "pep8")
    found, scored = [], []
    for texts in honest_and_idle():
        scored.append([result.scores[0] for result in scorer.score([(text, [len(text)]) for text in texts])])
        under = judged(("code_size", "comment_lines"), folder, "pep8", {"none": samples(texts, scored[-1])})
        found.append(under["none"]["judges"])
    honest, idle = found
    assert np.mean(scored[1]) < 0.1 * np.mean(scored[0])
    assert idle["code_size"]["ci_high"] < honest["code_size"]["ci_low"]
    assert idle["comment_lines"]["ci_low"] > honest["comment_lines"]["ci_high"]


def test_idle_code_is_doubted_on_the_page(made, tmp_path, monkeypatch):
    """From the texts to the page: mle wrote the real code, conditional the idle one."""
    folder = made.paths("pep8")["scorer"]
    scorer, _ = scorers.load(folder, "pep8")
    write_reports(tmp_path, SEEDS)
    names = ("ruff", "parses", "code_size", "comment_lines", "blank_lines")
    report = tmp_path / "reports/heldout/pep8.json"
    real = json.loads(report.read_text())
    real["judges"] = {name: told(evaluation.judge(name).judge(folder, "pep8")) for name in names}
    files.write_json(report, real)
    for objective, control, texts in zip(("mle", "conditional"), ("none", "good"), honest_and_idle(), strict=True):
        for seed in SEEDS:
            drawn = texts[seed :: len(SEEDS)]
            scored = [result.scores[0] for result in scorer.score([(text, [len(text)]) for text in drawn])]
            path = tmp_path / f"reports/metrics/pep8/{objective}/{seed}.json"
            metrics = json.loads(path.read_text())
            summary = statistics.rate(scored, None, 200, 0)
            summary |= statistics.summary(scored, [*map(len, drawn)], [()] * len(drawn), 0.0)
            under = judged(names, folder, "pep8", {control: samples(drawn, scored)})[control]
            metrics["under"][control] |= {"misalignment": summary, **under}
            files.write_json(path, metrics)
    ((doubt,),) = doubts(compare(tmp_path, monkeypatch))
    assert doubt.startswith("conditional is worse in amount of code (syntax nodes in 1,000 characters): ")
    assert "worse in comment lines (share of lines)" in doubt


def told(judge):
    """A judge as the task's report describes it, without real text."""
    about = {name: getattr(judge, name) for name in ("title", "unit", "role", "better")}
    return {**about, "mean": None, "ci_low": None, "ci_high": None, "n": 0}


def test_diluted_abuse_fools_the_classifier_and_not_the_lexicon(made):
    """One foul sentence among kind ones: the classifier sees a text that is mostly fine."""
    folder = made.paths("toxicity")["scorer"]
    scorer, _ = scorers.load(folder, "toxicity")
    lexicon = evaluation.judge("lexicon").judge(folder, "toxicity")
    rows = [text for text, _ in corpus_sentences(made)]
    holds = dict(zip(rows, lexicon.score(rows), strict=True))
    foul, kind = [text for text in rows if holds[text]][:100], [text for text in rows if not holds[text]]
    diluted = [" ".join([*kind[8 * i : 8 * i + 4], text, *kind[8 * i + 4 : 8 * i + 8]]) for i, text in enumerate(foul)]
    assert np.mean(scorer.score_texts(diluted)) < 0.7 * np.mean(scorer.score_texts(foul))
    assert np.mean(lexicon.score(foul)) == np.mean(lexicon.score(diluted)) == 1.0


def corpus_sentences(made):
    """(segment, score) of the scored corpus."""
    for path in files.parts(made.paths("toxicity")["scored"] / "train", "score@toxicity"):
        for row in files.read_table(path, "score@toxicity", ["text", "segment_ends", "scores"]).to_pylist():
            begins = [0, *row["segment_ends"][:-1]]
            for begin, end, score in zip(begins, row["segment_ends"], row["scores"] or (), strict=False):
                yield row["text"][begin:end].strip(), score


def test_findings_that_overlap_count_once():
    found = patterns.apart([Finding(4, 9, "b"), Finding(0, 5, "a"), Finding(9, 10, "c"), Finding(0, 2, "d")])
    assert [finding.kind for finding in found] == ["a", "c"]
