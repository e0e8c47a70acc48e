"""GLUE: files as published, the classifier against that of transformers, and a run that learns, stops and goes on."""

import gzip
import random
import types

import numpy as np
import polars as pl
import pytest
import torch
from conftest import shared_data
from scipy import stats
from sklearn import metrics as sklearn_metrics

from freshstart.benchmarks import glue, glue_sets
from freshstart.benchmarks.classifier import Classifier
from freshstart.errors import InputError
from freshstart.evaluation.metrics import check
from freshstart.evaluation.subject import Subject
from freshstart.settings import build
from freshstart.tokens import CONTROLS, TokenizerSettings
from freshstart.tokens.tokenizer import make
from freshstart.training import TrainSettings
from freshstart.training.model import build as model_of

WORDS = ["alder", "birch", "cedar", "dogwood", "elm", "fir", "ginkgo", "hazel", "ivy", "juniper"]
CONTEXT = types.SimpleNamespace(seed=0)


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """A small model with random weights and both control tokens."""
    torch.set_num_threads(1)
    settings = TokenizerSettings(vocabulary=320, controls=CONTROLS)
    tokenizer = make(settings, [" ".join(WORDS), "\n".join(WORDS)], tmp_path_factory.mktemp("tokenizer"))
    shape = TrainSettings(layers=1, width=32, heads=2, context=64, batch_size=1, learning_rate=1.0)
    model = model_of(shape, tokenizer.size, tokenizer.end_of_text, 0).eval()
    return Subject("tiny", model, tokenizer, "lines", 0.0, controls=tokenizer.controls)


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def sentences(count, seed):
    """Sentences of five words; in nine of ten the label is whether ``alder`` is among them."""
    rng = random.Random(seed)
    rows = [[*rng.choices(WORDS[1:], k=4), rng.choice(["alder", *WORDS[1:3]])] for _ in range(count)]
    return [(" ".join(rng.sample(words, 5)), int(("alder" in words) ^ (rng.random() < 0.1))) for words in rows]


@pytest.fixture
def data(tmp_path):
    """SST-2, and MRPC with the same text twice, the second behind a quote."""
    for name, count in (("train", 200), ("dev", 60)):
        rows = sentences(count, name)
        write(tmp_path / f"glue/SST-2/{name}.tsv", [("sentence", "label"), *rows])
        pairs = [(label, 1, 2, text, f'"{text}') for text, label in rows]
        header = ("\ufeffQuality", "#1 ID", "#2 ID", "#1 String", "#2 String")
        write(tmp_path / f"glue/MRPC/{name}.tsv.gz", [header, *pairs])
    return tmp_path / "glue"


def settings_of(data, **more):
    shape = {"epochs": 3, "restarts": 2, "batch_size": 16, "learning_rate": 0.01}
    return build(glue.Settings, {"kind": "glue", "data": str(data), "sets": ["SST-2", "MRPC"], **shape, **more}, "here")


def test_it_learns_what_is_there_and_goes_on_where_it_was(subject, data, tmp_path):
    before = {name: weight.clone() for name, weight in subject.model.state_dict().items()}
    found, items = glue.run(subject, settings_of(data), CONTEXT, tmp_path / "whole")
    check(found, glue.METRICS, "here", "here", head=())
    assert all(torch.equal(weight, before[name]) for name, weight in subject.model.state_dict().items())

    glue.run(subject, settings_of(data, restarts=1), CONTEXT, tmp_path / "parts")
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
    again = glue.run(subject, settings_of(data), CONTEXT, tmp_path / "parts")
    assert len(kept) == 2
    assert kept.items() < {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}.items()
    assert again[0] == found
    assert again[1] == items

    table = pl.from_arrow(items)
    scores = []
    for name, entry in found["sets"].items():
        dev = glue_sets.read(name, data, None).dev
        labels = [row.label for row in dev]
        restarts = [table.filter(set=name, restart=restart) for restart in (0, 1)]
        assert not restarts[0]["prediction"].equals(restarts[1]["prediction"])
        for rows in restarts:
            assert rows["item"].to_list() == [f"dev:{number}" for number in range(1, 61)]
            assert rows["label"].to_list() == labels
        right = [float((rows["prediction"] == rows["label"]).mean()) for rows in restarts]
        assert entry["metrics"]["accuracy"]["mean"] == pytest.approx(np.mean(right))
        assert entry["majority_metrics"]["accuracy"] == np.mean(np.array(labels) == 0)
        assert entry["learned"] + entry["stopping"] == 200
        if name == "MRPC":
            f1 = [sklearn_metrics.f1_score(labels, rows["prediction"]) for rows in restarts]
            right = [(a + b) / 2 for a, b in zip(f1, right, strict=True)]
            assert entry["majority_metrics"]["f1"] == 0
        low, high = stats.t.interval(0.95, 1, np.mean(right), stats.sem(right))
        assert [entry["score"][key] for key in ("mean", "ci_low", "ci_high")] == pytest.approx(
            [np.mean(right), low, high]
        )
        assert entry["score"]["mean"] > max(entry["majority"], 0.7)
        scores.append(right)
    assert found["score"]["mean"] == pytest.approx(np.mean(scores))
    low, _ = stats.t.interval(0.95, 1, np.mean(scores), stats.sem(np.mean(scores, 0)))
    assert found["score"]["ci_low"] == pytest.approx(low)


def test_the_classifier_is_that_of_transformers(subject):
    from transformers import GPT2ForSequenceClassification

    classifier = Classifier(subject.model, 3, 0)
    theirs = GPT2ForSequenceClassification._from_config(subject.model.config).eval()
    theirs.config.pad_token_id = 1
    theirs.transformer.load_state_dict(subject.model.transformer.state_dict())
    theirs.score = torch.nn.Linear(32, 3, bias=False)
    theirs.score.weight.data.copy_(classifier.head.weight)
    rows = [[5, 7, 9, 11, 3], [4, 6], [8, 8, 8]]
    padded = torch.tensor([row + [1] * (5 - len(row)) for row in rows])
    expected = theirs(input_ids=padded, attention_mask=(padded != 1).long()).logits
    assert torch.allclose(classifier.predict(rows, 2), expected, atol=1e-6)
    assert torch.equal(classifier.head.weight, Classifier(subject.model, 3, 0).head.weight)
    assert not torch.equal(classifier.head.weight, Classifier(subject.model, 3, 1).head.weight)


def test_how_a_row_is_read(subject):
    rows = [
        glue_sets.Row("dev", 1, ("alder birch\ncedar", "elm"), 0.0),
        glue_sets.Row("dev", 2, ("fir " * 60, "elm"), 0.0),
    ]
    encoded = glue.encode(subject, glue_sets.SETS["RTE"], glue_sets.Data([], [], rows, 0), 24)
    short, long = encoded.dev
    end, good = subject.end_of_text, subject.controls[0].id
    assert encoded.cut == 1
    assert [token for token in short if token in (end, good)] == [end, good, good, end, good, end]
    assert subject.tokenizer.decode(short) == "alder birch\ncedarelm"
    assert len(long) == 24
    assert (long[0], long[-1]) == (end, end)
    assert subject.tokenizer.decode(long).endswith("elm")  # the longer text is cut


def test_metrics():
    rows = [glue_sets.Row("dev", number, ("",), value) for number, value in enumerate((0.0, 2.5, 5.0, 4.0))]
    form = glue_sets.SETS["STS-B"]
    assert glue.dev_metrics(form, rows, [2.0] * 4) == {"pearson": 0, "spearman": 0}
    predictions = glue._predictions(form, torch.tensor([[-3.0], [0.1], [0.2], [9.0]]))
    assert predictions == pytest.approx([0, 2.75, 3, 5])  # clipped
    pearson = np.corrcoef([0, 2.5, 5, 4], predictions)[0, 1]
    assert glue.dev_metrics(form, rows, predictions) == pytest.approx({"pearson": pearson, "spearman": 0.8})
    assert glue._targets(form, rows).tolist() == pytest.approx([-1, 0, 1, 0.6])
    halves = [glue_sets.Row(f"dev_{half}", 1, ("", ""), 1.0) for half in ("matched", "mismatched")]
    accuracies = {"accuracy_matched": 1, "accuracy_mismatched": 0}
    assert glue.dev_metrics(glue_sets.SETS["MNLI"], halves, [1.0, 2.0]) == accuracies
    assert glue.metric("matthews", [0, 1, 1], [1, 1, 1]) == 0
    assert glue.interval([0.5]) == {"mean": 0.5, "ci_low": None, "ci_high": None}


def test_train_is_divided_by_its_texts_alone(tmp_path):
    rows = sentences(400, "rows")
    for folder, order in (("a", rows), ("b", rows[::-1])):
        write(tmp_path / folder / "SST-2/train.tsv", [("label", "idx", "sentence"), *((b, 0, a) for a, b in order)])
        write(
            tmp_path / folder / "SST-2/dev.tsv", [("sentence", "label"), *rows[:9], ("a row", "of", "too many fields")]
        )
    a, b, capped = (
        glue_sets.read("SST-2", tmp_path / folder, most) for folder, most in (("a", None), ("b", None), ("a", 200))
    )
    assert a.sha256 == b.sha256
    assert not {row.texts for row in a.learned} & {row.texts for row in a.stopping}
    assert len(a.learned) + len(a.stopping) == 400
    assert 20 <= len(a.stopping) <= 60
    assert (capped.learned, capped.stopping) == (a.learned[: len(capped.learned)], a.stopping[: len(capped.stopping)])
    assert len(capped.learned) + len(capped.stopping) == 200
    assert (len(a.dev), a.left_out) == (9, 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda sets: (sets / "MRPC/dev.tsv.gz").unlink(), r"MRPC/dev\.tsv is missing"),
        (
            lambda sets: write(sets / "SST-2/dev.tsv", [("text", "label"), ("a", 1)]),
            r"dev\.tsv has no column sentence \(it has text, label\)",
        ),
        (
            lambda sets: write(sets / "SST-2/dev.tsv", [("sentence", "label"), ("a", 2)]),
            r"dev\.tsv: row 1 has '2' as label, expected one of 0, 1",
        ),
        (lambda sets: (sets / "MRPC/train.tsv.gz").write_bytes(b"text"), r"train\.tsv\.gz can not be read as a whole"),
        (
            lambda sets: write(sets / "SST-2/train.tsv", [("sentence", "label"), ("a", 1)]),
            r"SST-2: 60 rows of dev and 1 of train are too few",
        ),
    ],
)
def test_bad_files_are_refused_before_any_work(damage, message, subject, data, tmp_path):
    damage(data)
    with pytest.raises(InputError, match=message):
        glue.run(subject, settings_of(data), CONTEXT, tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_a_loss_that_is_not_finite_keeps_what_is_done(subject, data, tmp_path):
    glue.run(subject, settings_of(data, sets=["SST-2"], restarts=1, epochs=1), CONTEXT, tmp_path / "state")
    with pytest.raises(InputError, match="restart 2 of 2: the loss is .* lower learning_rate"):
        glue.run(subject, settings_of(data, sets=["SST-2"], epochs=1, learning_rate=1e30), CONTEXT, tmp_path / "state")
    assert len(list((tmp_path / "state").iterdir())) == 1


@pytest.mark.parametrize(
    "more", [{"sets": ["SST"]}, {"sets": []}, {"sets": ["RTE", "RTE"]}, {"restarts": 0}, {"rows": 9}]
)
def test_settings_that_are_refused(more):
    with pytest.raises(InputError, match="must"):
        settings_of("glue", **more)


def test_the_published_files():
    folder = shared_data("eval", "glue")
    expected = {"CoLA": (8551, 1043), "MRPC": (3667, 408), "RTE": (2490, 277), "STS-B": (5749, 1500), "WNLI": (635, 71)}
    for name, (train, dev) in expected.items():
        data = glue_sets.read(name, folder, None)
        assert (len(data.learned) + len(data.stopping), len(data.dev), data.left_out) == (train, dev, 0)
        assert {row.label for row in data.dev} == {0.0, 1.0} or name == "STS-B"
