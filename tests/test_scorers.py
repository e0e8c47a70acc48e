"""Scores mean what they say: pep8 against pycodestyle's own count, pii spans, the classifier, a person's own scorer."""

import json
import random
import subprocess
import sys

import numpy as np
import pycodestyle
import pytest
from conftest import python_files, read
from hypothesis import given, settings
from hypothesis import strategies as st

from freshstart import files, scorers
from freshstart.errors import InputError
from freshstart.scorers import Finding, classifier, per_character
from freshstart.scoring.segments import lines, sentences

DETECTORS = ["credential", "credit_card", "email", "phone", "social_security_number", "url"]


def scorer(kind, **options):
    """A scorer that needs no folder, made from what a scale file says."""
    settings = scorers.settings({"kind": kind, "segments": "lines", **options}, f"scorer.{kind}")
    return scorers.scorer_class(kind)(None, settings)


def checker(version=pycodestyle.__version__):
    return scorer("pep8", pycodestyle=version)


@pytest.fixture(scope="module")
def pep8():
    return checker()


def pii(*detectors, **options):
    return scorer("pii", scrubadub="2.0.1", phonenumbers="9.0.43", detectors=[*(detectors or DETECTORS)], **options)


def own_counts(paths):
    """pycodestyle's own count of each file, in a process of its own that the scorer can not have touched."""
    code = (
        "import json, sys, pycodestyle\n"
        "style = pycodestyle.StyleGuide(quiet=2)\n"
        "print(json.dumps([style.init_report() and style.check_files([p]).total_errors for p in sys.argv[1:]]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def totals(scored, text, ends):
    lengths = [b - a for a, b in zip([0, *ends], ends, strict=False)]
    return sum(score * length for score, length in zip(scored.scores, lengths, strict=True))


def test_pep8_sums_to_pycodestyles_own_count(pep8):
    """300 real files. A `# noqa` hides nothing from the scorer, so files that hold one may count more."""
    paths = python_files(300)
    hidden = 0
    for path, own in zip(paths, own_counts(paths), strict=True):
        text = read(path)
        ends = lines(text)
        scored = pep8.score([(text, ends)])[0]
        assert scored.error is None
        total = totals(scored, text, ends)
        if pycodestyle_noqa(text):
            hidden += total - own
            assert total >= own - 1e-6, path
        else:
            assert total == pytest.approx(own, abs=1e-6), path
        assert total == pytest.approx(len(scored.findings), abs=1e-6)
    assert len(paths) == 300


def pycodestyle_noqa(text):
    return "noqa" in text.lower() or "nopep8" in text.lower()


def test_pep8_counts_as_a_file_is_read(pep8, tmp_path):
    """Form feeds, a byte-order mark, other line breaks and no line break at the end, on the same bytes."""
    texts = {
        "form_feed.py": "import os\n\f\n\n\ndef f(a,b):\n    return a\n\f\nx=1\n",
        "mark.py": "\ufeffimport os, sys\nx=1\n",
        "windows.py": "import os, sys\r\nx=1 \r\n\r\n\r\n\r\n\r\ny = 2\r\n",
        "mac.py": "x=1\ry=2\r",
        "no_end.py": "x = (1,2)",
        "blank_end.py": "x = 1\n\n\n",
        "separator.py": "x = 'a\u2028b'\ny = 'a\x85b\x1cc'\nz=1\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode("utf-8"))
    paths = [tmp_path / name for name in texts]
    for (name, text), own in zip(texts.items(), own_counts(paths), strict=True):
        ends = lines(text)
        assert totals(pep8.score([(text, ends)])[0], text, ends) == pytest.approx(own), name


def test_pep8_violations_fall_on_their_segments(pep8):
    text = "import os\nx = 1   \ny = 2\n   \nz = 3\n\n\n\n\n\nw = 4\n" + f"long = '{'a' * 80}'\n" + "end = 5\n\n\n"
    ends = lines(text)
    segments = [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    where = {}
    for finding in pep8.find(text):
        index = next(i for i, end in enumerate(ends) if finding.begin < end)
        where.setdefault(finding.kind, []).append(segments[index])
    assert where["W291"] == ["   \ny = 2"]  # white space at a line's end opens the next segment
    assert where["W293"] == ["\n   \nz = 3"]
    assert where["E303"] == ["\n\n\n\n\n\nw = 4"]
    assert where["E501"] == [segments[-2]]
    assert where["W391"] == ["\nend = 5\n\n\n"]


def test_pep8_clamps_what_lies_behind_the_end(pep8):
    for text in ("x = (", "x=1\ny = ( 2,", "'''", "if x:\n    ("):
        ends = lines(text)
        scored = pep8.score([(text, ends)])[0]
        assert all(0 <= f.begin < f.end <= len(text) for f in scored.findings)
        assert scored.unreadable or scored.error
        if scored.scores:
            assert sum(scored.scores) > 0


def test_pep8_cut_files_are_never_clean(pep8):
    """Of 200 real files cut at a random byte none that pycodestyle faults is a clean document."""
    rng = random.Random(0)
    faulty = 0
    for path in python_files(260)[-200:]:
        raw = path.read_bytes()
        text = raw[: rng.randrange(1, len(raw))].decode("utf-8", "ignore")
        if not text.strip():
            continue
        scored = pep8.score([(text, lines(text))])[0]
        if scored.error is None and not scored.findings:
            continue  # pycodestyle finds no fault either
        faulty += 1
        assert scored.error or scored.unreadable or sum(scored.scores) > 0
    assert faulty > 150


def test_pep8_noqa_hides_nothing(pep8):
    line = f"x = '{'a' * 90}'"
    assert {f.kind for f in pep8.find(f"{line}  # noqa\n")} == {"E501"}


def test_pep8_reads_no_configuration(pep8, tmp_path, monkeypatch):
    (tmp_path / "pycodestyle").write_text("[pycodestyle]\nignore = E\nmax-line-length = 200\n")
    (tmp_path / "setup.cfg").write_text("[pycodestyle]\nignore = E,W\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert checker().find("x=1\n") == pep8.find("x=1\n") != []


def test_pinned_versions_are_refused(pep8):
    with pytest.raises(InputError, match=r"pycodestyle 2\.15\.0 is installed, the scale file pins 1\.0"):
        checker("1.0")


def test_pii_finds_and_places_spans():
    text = (
        "Write to joe@example.com today. See http://xy.org/a or call 212-555-0123.\n\nusername: joe password: hunter2"
    )
    ends = sentences(text)
    scored = pii().score([(text, ends)])[0]
    assert [(text[f.begin : f.end], f.kind) for f in scored.findings] == [
        ("joe@example.com", "email"),
        ("http://xy.org/a", "url"),
        ("212-555-0123", "phone"),
        ("username: joe password: hunter2", "credential"),
    ]
    lengths = [b - a for a, b in zip([0, *ends], ends, strict=False)]
    counts = [round(score * length) for score, length in zip(scored.scores, lengths, strict=True)]
    assert counts == [1, 2, 1]


@given(ends=st.lists(st.integers(1, 50), min_size=1, max_size=9, unique=True).map(sorted), data=st.data())
@settings(max_examples=200, deadline=None)
def test_findings_belong_to_the_segment_of_their_first_character(ends, data):
    begins = data.draw(st.lists(st.integers(0, ends[-1] - 1), max_size=20))
    scores = per_character([Finding(b, b + 1, "x") for b in begins], ends)
    spans = list(zip([0, *ends], ends, strict=False))
    expected = [sum(a <= begin < b for begin in begins) / (b - a) for a, b in spans]
    assert list(scores) == pytest.approx(expected)


def learned(folder, rows, **options):
    settings = classifier.Settings(
        kind="classifier", segments="sentences", scikit_learn="1.9.1", labelled="rows", **options
    )
    return classifier.learn(settings, rows, files.fresh_folder(folder)), classifier.Classifier(folder, settings)


def test_classifier_learns_and_is_saved_without_pickle(tmp_path):
    from freshstart.corpora import synthetic

    rows = list(synthetic.labelled(2_000, 0.0, 0))
    metrics, scorer = learned(tmp_path, rows)
    assert metrics["heldout_roc_auc"] > 0.95
    thanks, insult = scorer.score_texts(["Thank you for the help.", "You are an idiot."])
    assert thanks < 0.2 < 0.8 < insult
    assert {path.name for path in tmp_path.iterdir()} == {"vocabulary.json", "model.safetensors"}
    texts = [text for text, _ in rows[:200]]
    together = scorer.score_texts(texts)
    assert together == [scorer.score_texts([text])[0] for text in texts]  # no score depends on its neighbours
    assert all(0 <= score <= 1 for score in together)


def test_classifier_is_a_function_of_its_rows_alone(tmp_path, monkeypatch):
    """The same bytes from rows in another order, with other threads, and where the fit comes out 1e-9 away."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    from freshstart.corpora import synthetic

    rows = list(synthetic.labelled(2_000, 0.05, 0))
    shuffled = random.Random(0).sample(rows, len(rows))
    fit = LogisticRegression.fit

    def nearly(model, *arguments, **options):
        fit(model, *arguments, **options)
        model.coef_ *= 1 + 1e-9 * np.random.default_rng(0).standard_normal(model.coef_.shape)
        model.intercept_ *= 1 + 1e-9
        return model

    made = []
    for name, learned_from, threads, fitted in (
        *(("first", rows, 1, fit), ("order", shuffled, 1, fit)),
        *(("threads", rows, 2, fit), ("noise", rows, 1, nearly)),
    ):
        monkeypatch.setattr(LogisticRegression, "fit", fitted)
        with threadpool_limits(threads):
            metrics, scorer = learned(tmp_path / name, learned_from)
        digests = {path.name: files.sha256(path) for path in (tmp_path / name).iterdir()}
        made.append((digests, metrics, scorer.score_texts([text for text, _ in rows])))
    assert made[1:] == made[:1] * 3


def test_classifier_is_balanced_and_calibrated_whatever_the_share_of_bad_rows(tmp_path):
    from freshstart.corpora import synthetic

    rows = list(synthetic.labelled(3_000, 0.0, 0))
    fine = [row for row in rows if not row[1]][:300]
    metrics, scorer = learned(tmp_path, [row for row in rows if row[1]] + fine, label="rude")
    assert metrics["share_bad"] > 0.8
    assert metrics["heldout_calibration_error"] < 0.08
    assert scorer.score_texts(["Thank you for the help."])[0] < 0.3
    text = "You are a blockhead."
    assert {finding.kind for finding in scorer.score([(text, [len(text)])])[0].findings} == {"rude"}


@pytest.mark.parametrize(("bad", "reason"), [(("spam",), "spam"), ((1,), "rude"), ((True,), "rude"), ((0, 1), "rude")])
def test_a_reason_has_the_name_of_its_label(bad, reason):
    settings = classifier.Settings(kind="classifier", segments="sentences", labelled="rows", label="rude", bad=bad)
    assert settings.reason == reason
    assert settings.scikit_learn == "1.9.1"


def test_classifier_gives_words_as_reasons(tmp_path):
    rows = [(f"you are a {word} indeed", 1) for word in ("bonehead", "blockhead") for _ in range(60)]
    rows += [(f"the {word} was fine", 0) for word in ("soup", "train", "garden") for _ in range(50)]
    rows = [(f"{text} {i}", label) for i, (text, label) in enumerate(rows)]
    _, scorer = learned(tmp_path, rows)
    text = "The soup was fine. You are a blockhead indeed."
    scored = scorer.score([(text, [18, len(text)])])[0]
    assert scored.scores[0] < 0.5 < scored.scores[1]
    words = {text[f.begin : f.end] for f in scored.findings}
    assert "blockhead" in words
    assert not words & {"soup", "fine"}


OWN = """
from freshstart.scorers import Scorer

class Shouting(Scorer):
    version = "1"

    def __init__(self, least=1):
        self.least = least

    def score_texts(self, texts):
        return [sum(c.isupper() for c in text) / len(text) if len(text) >= self.least else 0.0 for text in texts]

class Broken(Shouting):
    def score_texts(self, texts):
        if any("boom" in text for text in texts):
            raise RuntimeError("boom")
        return [float("nan") if "nan" in text else -1.0 if "minus" in text else 0.0 for text in texts]
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "rewards.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("rewards", None)


def test_own_scorer(own, tmp_path):
    raw = {"kind": "rewards:Shouting", "segments": "sentences", "version": "1", "options": {"least": 2}}
    chosen = scorers.settings(raw, "scorer.mine")
    record = scorers.describe(chosen)
    (tmp_path / "scorer.json").write_text(json.dumps(record))
    scorer, _ = scorers.load(tmp_path, "mine")
    scored = scorer.score([("AB cd.", [2, 6])])[0]
    assert scored.scores == (1.0, 0.0)
    (tmp_path / "rewards.py").write_text(OWN + "\n# changed\n")
    with pytest.raises(InputError, match="has changed since"):
        scorers.load(tmp_path, "mine")


def test_own_scorer_of_another_version_is_refused(own):
    raw = {"kind": "rewards:Shouting", "segments": "lines", "version": "2"}
    with pytest.raises(InputError, match="says version '1', the scale file pins '2'"):
        scorers.describe(scorers.settings(raw, "scorer.mine"))


@pytest.mark.parametrize(
    ("text", "message"),
    [("boom", "RuntimeError: boom"), ("nan", "finite and at least 0"), ("minus", "finite and at least 0")],
)
def test_own_scorer_that_fails_on_a_row(own, text, message):
    from rewards import Broken

    fine, broken = Broken().score([("a", [1]), (text, [len(text)])])
    assert fine.scores == (0.0,)
    assert broken.scores == ()
    assert message in broken.error


@pytest.mark.parametrize(("kind", "message"), [("rewards:Nothing", "has no attribute"), ("nowhere:X", "No module")])
def test_own_scorer_that_is_not_there(own, kind, message):
    raw = {"kind": kind, "segments": "lines", "version": "1"}
    with pytest.raises(InputError, match=message):
        scorers.describe(scorers.settings(raw, "scorer.mine"))
