"""The last stage: numbers in summary and tables, and a page that shows what it should and nothing else."""

import csv
import json
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise, product

import conftest
import numpy as np
import pyarrow as pa
import pytest
from conftest import PARAMS, ROOT, SCALE

from freshstart import benchmarks, files
from freshstart.errors import InputError
from freshstart.evaluation import MEASURES, measures
from freshstart.evaluation.samples import SCHEMA
from freshstart.imports import source_files
from freshstart.reporting.inference import difference, holm, interval
from freshstart.reporting.placing import Box, place_beside, spread
from freshstart.reporting.samples import show
from freshstart.reporting.svg import Scale, tick_label
from freshstart.settings import kinds

TASKS = ("pep8", "pii", "toxicity")
OBJECTIVES = ("mle", "conditional", "awr")
INPUTS = {name: f"reports/{name}" for name in ("metrics", "samples", "curves", "scores", "heldout", "warnings")}
INPUTS |= {"corpora": "reports/corpus", "scorers": "reports/scorer"}
OUTPUTS = {"cells": "reports/cells.csv", "curve_table": "reports/curves.csv", "histograms": "reports/histograms.csv"}
OUTPUTS |= {"summary": "reports/summary.json", "page": "reports/index.html"}
ASKED = ["misalignment", "over_training", "judges", "diversity", "memory", "bits_per_byte", "divergence", "tokens_seen"]
MEANS = {"mle": 0.3, "conditional": 0.1, "awr": 0.29}
LEXICON = ("lexicon of known abuse", "rival", "lower", {"mle": 0.5, "conditional": 0.125, "awr": 0.5}, 0.3)
FOUND = {"pep8": {"E231": 0.01, "E501": 0.002}, "pii": {"email": 0.001}, "toxicity": {"toxic": 0.02}}
SCORERS = {  # kind of corpus, kind of scorer, segments, display, over
    "pep8": ("wheels", "pep8", "lines", "plain", 0.0),
    "pii": ("wheels", "pii", "lines", "mask", 0.0),
    "toxicity": ("synthetic", "classifier", "sentences", "fold", 0.5),
}
SECRET = "ada.lovelace@example.org"
NASTY = "You utter picklebrain, nobody wants you here."
SCRIPT = "<script>alert('x')</script>"
CALIBRATION = [
    {"predicted": predicted, "observed": observed, "count": count}
    for predicted, observed, count in ((0.05, 0.02, 400), (None, None, 0), (0.93, 1.0, 100))
]
SEEDS = (0, 1, 2, 3, 4)
VOID = {"meta", "link", "br", "hr", "img", "input"}


def estimate(mean):
    low, high = (None, None) if mean is None else (0.9 * mean, 1.1 * mean)
    return {"mean": mean, "ci_low": low, "ci_high": high, "n": 0 if mean is None else 24}


def misalignment(mean, kinds=None):
    most = None if mean is None else 2 * mean
    plain = {"scored": mean, "pooled": mean, "expected_max_25": most, "share_over": 0.5}
    return {**estimate(mean), **plain, "by_kind": kinds or {}}


def controls(objective):
    return ["good", "bad"] if objective == "conditional" else []


def mean_of(objective, seed):
    return MEANS[objective] * (1 + 0.2 * seed) + (0.05 if objective == "awr" and seed % 2 else 0.0)


def metrics(task, objective, seed):
    """A metrics file; a conditional model does twice as badly under the control that is not its own."""
    mean = mean_of(objective, seed)
    under = {}
    for factor, control in enumerate(controls(objective) or ["none"], 1):
        drawn = {"n": 24, "drawn": 24, "tokens": 900, "characters": 3000, "share_ended": 0.5}
        under[control] = {"misalignment": misalignment(factor * mean, FOUND[task]), "errors": 0, "samples": drawn}
        if task == "pep8":
            under[control] |= {"misalignment_style": misalignment(0.5 * mean), "share_unparsable": 0.25}
    bits = {"all": 2.5, "good": 2.0 + mean, "bad": None} | ({"true_labels": 1.95} if controls(objective) else {})
    divergence = {"per_token": mean, "per_token_se": 0.01, "per_sequence": 9.0, "per_sequence_se": 0.5, "n": 12}
    matching = {f"share_matching_{length}": 0.25 for length in (8, 16, 32, 64)}
    return {
        "measures": ASKED,
        "controls": controls(objective),
        "under": under,
        "diversity": dict.fromkeys(("distinct_1", "distinct_2", "unigram_entropy", "self_bleu_5", "repetition"), 0.5),
        "memory": {"longest_match": 12, "train_tokens_searched": 5000, **matching},
        "heldout": {"bits_per_byte": bits},
        "divergence": {
            "reference": "mle",
            "estimator": "rao-blackwell",
            **divergence,
            "good": divergence,
            "reverse": divergence,
        },
        "tokens_seen": {"positions": 4096, "text_tokens": 4000, "documents": 30, "epochs": 1.5},
    }


def sample(control, text, score, reasons=(), ends=None):
    found = [{"begin": begin, "end": end, "kind": kind} for begin, end, kind in reasons]
    segments = {"segment_ends": ends or [len(text)], "scores": [score] * len(ends or [text])}
    return {"control": control, "text": text, "ended": True, "tokens": 20, "score": score, **segments, "reasons": found}


def samples(task, asked):
    rows = []
    for control in asked or ["none"]:
        rows += [sample(control, f"a plain text, number {index} of {task}", 0.0) for index in range(8)]
        if task == "pep8":
            rows.append(sample(control, f"print({SCRIPT},1)\n", 0.05, [(len(SCRIPT) + 6, len(SCRIPT) + 7, "E231")]))
        if task == "pii":
            text = f"write to {SECRET} or again {SECRET}"
            rows.append(sample(control, text, 0.02, [(9, 9 + len(SECRET), "email")]))
        if task == "toxicity":
            rows.append(sample(control, NASTY, 0.95, [(10, 21, "toxic")]))
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def write_reports(folder, seeds=(0,)):
    """A finished run's reports, with every schema as the stages write it, and the parameters that name its cells."""
    (folder / "conf/scale").mkdir(parents=True, exist_ok=True)
    (folder / "conf/scale/tests.yaml").write_text(SCALE)
    params = PARAMS.replace("[mle, filtered, conditional, unlikelihood, rwr, awr]", f"[{', '.join(OBJECTIVES)}]")
    (folder / "params.yaml").write_text(params.replace("seeds: [0]", f"seeds: {list(seeds)}"))
    reports = folder / "reports"
    for task, (corpus, scorer, segments, display, over) in SCORERS.items():
        half = {"documents": 30, "characters": 9000, "parts": 1, "characters_by_source": {"flask": 9000}}
        record = {"kind": corpus, "documents": 60, "characters": 18000, "sources": 7, "train": half, "heldout": half}
        record |= {
            "left_out": {"exact duplicate": 3},
            "near_duplicates": {"train": 2, "heldout": 0, "train_of_heldout": 1},
        }
        found = {"train": {"documents": 1, "items": 1}, "heldout": {"documents": 0, "items": 0}}
        compared = {"HumanEval": {"items": 164, "items_too_short": 0} | found}
        files.write_json(reports / f"corpus/{task}.json", record | ({"benchmarks": compared} if task == "pep8" else {}))
        learned = {"heldout_roc_auc": 0.9468, "calibration": CALIBRATION} if task == "toxicity" else {}
        record = {"kind": scorer, "version": "1", "segments": segments, "over": over, "display": display}
        files.write_json(reports / f"scorer/{task}.json", {**record, "learned": learned})
        histogram = {"share_zero": 0.9, "histogram": {"edges": [0.0, 0.5, 1.0], "counts": [90, 10]}}
        score = {"documents": 30, "characters": 9000, "segments": 100, "share_segments_above_0": 0.1}
        score |= {"segment_score": histogram, "without_score": {"share": 0.0, "by_reason": {}}, "found": {"E231": 9}}
        files.write_json(reports / f"scores/{task}.json", {"train": score, "heldout": score})
        real = {"all": estimate(0.2), "good_half": estimate(0.05)}
        files.write_json(reports / f"heldout/{task}.json", {"misalignment": real, "judges": {}})
        files.write_json(reports / f"warnings/{task}.json", {"warnings": []})
        for cell, objective, seed in cells_of(task, seeds):
            files.write_json(reports / f"metrics/{cell}.json", metrics(task, objective, seed))
            files.write_table(reports / f"samples/{cell}.parquet", samples(task, controls(objective)))
            steps = [f"{at},{5 - step},{5 - step}" for step, at in enumerate((512, 2048, 4096))]
            curve = ["positions,loss,nll", *steps]
            if objective == "awr":
                curve = [line + more for line, more in zip(curve, (",value_loss", ",0.5", ",0.5", ",0.5"), strict=True)]
            files.write_text(reports / f"curves/{cell}.csv", "\n".join([*curve, ""]))
    with_judges(folder, "toxicity", {"lexicon": LEXICON}, seeds)


def cells_of(task, seeds=(0,)):
    return [(f"{task}/{objective}/{seed}", objective, seed) for objective in OBJECTIVES for seed in seeds]


def with_judges(folder, task, judges, seeds=(0,)):
    """Judges of a task: {name: (title, role, better, {objective: mean}, mean of real text or None)}."""
    with changed(folder, f"heldout/{task}") as heldout:
        heldout["judges"] = {
            name: {"title": title, "unit": "share of samples", "role": role, "better": better, **estimate(real)}
            for name, (title, role, better, _, real) in judges.items()
        }
    for path, objective, seed in cells_of(task, seeds):
        spread = 0.03 * (seed % 2) if objective == "conditional" else 0.0
        with changed(folder, f"metrics/{path}") as cell:
            for part in cell["under"].values():
                part["judges"] = {name: estimate(judge[3][objective] + spread) for name, judge in judges.items()}
            for judged in next(iter(cell["under"].values()))["judges"].values():
                judged["agreement"] = {"mean": 0.2, "ci_low": 0.1, "ci_high": 0.3, "n": 24}


@contextmanager
def changed(folder, file):
    """The content of a report, to change in place."""
    path = folder / f"reports/{file}.json"
    content = json.loads(path.read_text())
    yield content
    files.write_json(path, content)


def add(folder, file, **more):
    """Add keys to a report."""
    with changed(folder, file) as content:
        content |= more


def compare(folder, patch):
    """Run the door in ``folder``; gives the page."""
    patch.chdir(folder)
    conftest.door.__wrapped__(patch)("compare", **INPUTS, **OUTPUTS)
    return (folder / OUTPUTS["page"]).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    write_reports(folder)
    with pytest.MonkeyPatch.context() as patch:
        compare(folder, patch)
    return folder


@pytest.fixture(scope="module")
def page(compared):
    return (compared / OUTPUTS["page"]).read_text(encoding="utf-8")


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Walk(HTMLParser):
    """Checks that tags balance, and keeps the text with the tags it stands in."""

    def __init__(self):
        super().__init__()
        self.open, self.found, self.texts, self.ids = [], [], [], set()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.ids.add(dict(attrs).get("id"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((data, tuple(self.open)))


def walk(html):
    walked = Walk()
    walked.feed(html)
    walked.close()
    assert walked.open == []
    return walked


def flat(html):
    return " ".join(unescape(html).split())


def missing(text, *parts):
    return [part for part in parts if part not in text]


def summary_of(folder):
    return json.loads((folder / OUTPUTS["summary"]).read_text())


def table_of(html, task, heading):
    """The texts of the cells below a heading of a task, by row."""
    table = html.split(f'<section class="task" id="{task}">')[1].split(f"<h3>{heading}</h3>")[1].split("</table>")[0]
    cells = [re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL) for row in re.split("<tr[^>]*>", table)[1:]]
    return [[flat(re.sub("<[^>]+>", " ", cell)) for cell in row] for row in cells]


def metrics_of(html, task):
    """The table of all metrics: {series: {title: number}}."""
    _, titles, *series = table_of(html, task, "All metrics")
    return {row[0]: dict(zip(titles, row, strict=True)) for row in series}


def test_summary_holds_means_to_four_digits(compared):
    summary = summary_of(compared)
    assert list(summary) == list(TASKS)
    assert summary["pii"] == {
        "misalignment": {"mle": 0.3, "conditional": 0.1, "awr": 0.29},
        "bits_per_byte": {"mle": 2.3, "conditional": 2.1, "awr": 2.29},
        "warnings": 0,
    }


def test_warnings_of_the_data_stand_on_the_page_in_the_metrics_and_in_the_console(page, tmp_path, monkeypatch, capsys):
    write_reports(tmp_path)
    add(tmp_path, "warnings/pii", warnings=["0.10% of the segments are <good>."])
    html = compare(tmp_path, monkeypatch)
    assert html.count("0.10% of the segments are &lt;good&gt;.") == html.count("Mind the data") == 1
    assert "warning: pii: 0.10% of the segments are <good>.\n" in capsys.readouterr().out
    assert [summary_of(tmp_path)[task]["warnings"] for task in TASKS] == [task == "pii" for task in TASKS]
    assert "Mind the data" not in page


def test_cells_have_a_row_for_each_control(compared):
    cells = rows(compared / OUTPUTS["cells"])
    by_name = {(row["task"], row["objective"], row["control"]): row for row in cells}
    asked = {("mle", "none"): "1", ("conditional", "good"): "1", ("conditional", "bad"): "0", ("awr", "none"): "1"}
    assert {key: row["own"] for key, row in by_name.items()} == {
        (task, *key): own for task in TASKS for key, own in asked.items()
    }
    assert len(cells) == len(by_name)
    good, bad = by_name["toxicity", "conditional", "good"], by_name["toxicity", "conditional", "bad"]
    assert (float(good["misalignment"]), float(bad["misalignment"])) == (0.1, 0.2)
    assert (good["bits_per_byte_true_labels"], good["bits_per_byte_bad"], good["style"]) == ("1.95", "", "")
    assert (bad["bits_per_byte_all"], bad["n"]) == ("", "24")
    assert by_name["pep8", "mle", "none"]["style"] == "0.15"


def test_curves_and_histograms_are_tidy(compared):
    curves = rows(compared / OUTPUTS["curve_table"])
    assert list(curves[0]) == ["task", "objective", "seed", "positions", "loss", "nll", "value_loss"]
    assert len(curves) == len(TASKS) * len(OBJECTIVES) * 3
    assert {row["value_loss"] for row in curves if row["objective"] == "mle"} == {""}
    bins = rows(compared / OUTPUTS["histograms"])
    assert [(row["low"], row["high"], row["count"]) for row in bins[:2]] == [("0.0", "0.5", "90"), ("0.5", "1.0", "10")]
    assert len(bins) == len(TASKS) * 2 * 2


def test_page_is_whole_and_loads_nothing(page):
    walked = walk(page)
    assert {*TASKS} <= walked.ids
    text = " ".join(data for data, _ in walked.texts)
    for objective in OBJECTIVES:
        assert text.count(objective) > len(TASKS) * 5
    assert not missing(text, "Python sources from 7 packages, pycodestyle", "prose from 7 packages, scrubadub")
    assert "synthetic text, offline classifier" in text
    assert text.count("Near-duplicates to train on: 2 of other documents to train on, 1 of held-out ones.") == len(
        TASKS
    )
    assert text.count("Documents to train on that overlap with HumanEval: 1, with 1 of its 164 items.") == 1
    assert not {tag for tag, _ in walked.found} & {"script", "link", "img", "iframe", "object", "embed", "base"}
    for tag, attributes in walked.found:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert attributes.get(name, "#").startswith("#"), (tag, attributes)
    assert not re.search(r"url\(|@import|https?:", page.split("</style>")[0])
    assert len(page) < 1_500_000
    assert sum(tag == "svg" for tag, _ in walked.found) == 5 * len(TASKS) + 2  # pep8's style, toxicity's reliability


def test_findings_say_what_the_numbers_carry(page):
    for sentence in (
        "Differences from mle, of fewer than 3 seeds, which say nothing about the objectives: conditional −0.200; "
        "awr −0.010.",
        "conditional, asked under <|good|>: 0.100 [0.090, 0.110]; under <|bad|>: 0.200 [0.180, 0.220]; +0.100.",
        "mle: 0.300 [0.270, 0.330]. Real held-out text: 0.200 [0.180, 0.220]; its good half: 0.050 [0.045, 0.055].",
    ):
        assert unescape(page).count(sentence) == len(TASKS)


def test_all_metrics_are_written_as_their_measures_declare(page):
    table = metrics_of(page, "pep8")
    assert list(table) == ["mle", "conditional <|good|>", "conditional <|bad|>", "awr"]
    good, bad = table["conditional <|good|>"], table["conditional <|bad|>"]
    assert (good["misalignment"], bad["misalignment"]) == ("0.100 0.090–0.110", "0.200 0.180–0.220")
    assert (good["style"], good["nats per token"]) == ("0.050 0.045–0.055", "0.100 0.080–0.120")
    assert (good["over 0"], good["unparsable"], good["n"], good["epochs"]) == ("50.0%", "25.0%", "24", "1.50")
    assert (good["good"], bad["good"], good["true labels"], good["text tokens"]) == ("2.100", "", "1.950", "4,000")
    assert "{over}" not in page


def doubts(html):
    text = unescape(html).split('<div class="note doubt">')
    return [re.findall(r"<li>(.*?)</li>", part.split("</div>")[0]) for part in text[1:]]


def test_the_lexicon_is_a_judge_beside_the_scorer_and_real_text(page):
    assert {f"{task}-judges" for task in TASKS} & walk(page).ids == {"toxicity-judges"}
    assert {row[0]: row[2] for row in table_of(page, "toxicity", "Held-out judges")} == {
        "": "lexicon of known abuse share of samples lower is better",
        "mle": "50.0% 45.0%–55.0% τ 0.20 [0.10, 0.30]",
        "conditional <|good|>": "12.5% 11.2%–13.8% τ 0.20 [0.10, 0.30]",
        "conditional <|bad|>": "12.5% 11.2%–13.8%",
        "awr": "50.0% 45.0%–55.0% τ 0.20 [0.10, 0.30]",
        "real held-out text": "30.0% 27.0%–33.0%",
    }
    assert doubts(page) == []


def test_a_gamed_reward_shows(tmp_path, monkeypatch):
    """conditional is below mle in misalignment; awr shows no clear difference, so there is nothing to doubt of it."""
    write_reports(tmp_path, SEEDS)
    same = {"mle": 0.5, "conditional": 0.49, "awr": 0.1}
    worse = {"mle": 0.5, "conditional": 0.2, "awr": 0.1}
    better = {"mle": 0.5, "conditional": 0.1, "awr": 0.9}
    judges = {
        "same": ("a rival that sees no difference", "rival", "lower", same, 0.4),
        "worse": ("a guard that got worse", "guard", "higher", worse, 0.45),
        "real": ("a guard that real text is like", "guard", "higher", worse, 0.21),
        "level": ("a guard that sees no difference", "guard", "lower", same, None),
        "better": ("a rival that agrees", "rival", "lower", better, None),
    }
    with_judges(tmp_path, "pep8", judges, SEEDS)
    with_judges(tmp_path, "pii", {"better": ("a rival that agrees", "rival", "lower", better, 0.3)}, SEEDS)
    html = compare(tmp_path, monkeypatch)
    walked = walk(html)
    (doubted,) = doubts(html)
    assert doubted == [
        "conditional is not shown to be better in a rival that sees no difference (share of samples): 50.2% [48.2%, "
        "52.2%], mle 50.0% [50.0%, 50.0%]; worse in a guard that got worse (share of samples): 21.2% [19.2%, 23.2%], "
        "mle 50.0% [50.0%, 50.0%]."
    ]
    assert sum(attributes.get("class") == "doubted" for _, attributes in walked.found) == 2
    assert html.count('▼<a href="#pep8-judges">?</a>') == 1
    assert {f"{task}-judges" for task in TASKS} <= walked.ids
    assert flat(html).count("τ 0.20<") == 7 * 3  # of each judge and objective, under its own control token
    assert not missing(flat(html), "No judge doubts an objective that is below mle", "real held-out text")


def test_what_holds_over_seeds(tmp_path, monkeypatch):
    write_reports(tmp_path, SEEDS)
    html = flat(compare(tmp_path, monkeypatch))
    for sentence in (
        "mle: 0.420 [0.302, 0.538].",
        "Below mle: conditional −0.280 [−0.359, −0.201].",
        "No clear difference from mle: awr +0.006 [−0.028, +0.040].",
        "under <|bad|>: 0.280 [0.201, 0.359]; +0.140 [+0.101, +0.179], a clear difference.",
        "adjusted together over its 11 comparisons (Holm).",  # of 3 tasks 2 objectives and <|bad|>; of a judge 2
    ):
        assert html.count(sentence) == (1 if "adjusted" in sentence else len(TASKS)), sentence
    write_reports(tmp_path, (0, 1))
    html = flat(compare(tmp_path, monkeypatch))
    assert not missing(html, "2 seeds per cell", "training runs with their range. Nothing is compared")
    assert "▼" not in html


def test_a_page_under_the_null_prints_nothing_in_nineteen_of_twenty():
    """Runs of all objectives alike, their standard deviation 40% of the mean: 15 comparisons over five seeds."""
    pages, rng = 300, np.random.default_rng(0)
    false, covered, means = 0, 0, 0
    for _ in range(pages):
        runs = 1 + 0.4 * rng.standard_normal((3, 6, 5))
        compared = [difference(other, task[0]) for task in runs for other in task[1:]]
        false += any(one.verdict != "level" for one in holm(compared))
        covered += sum(one.low <= 0 <= one.high for one in compared)
        means += sum(low <= 1 <= high for low, high in map(interval, runs.reshape(-1, 5)))
    assert false / pages <= 0.05 + 2 * 0.0126  # two standard errors
    assert 0.93 <= covered / (15 * pages) <= 0.97
    assert 0.93 <= means / (18 * pages) <= 0.97


def test_the_seeds_of_a_run_that_misled():
    """pep8's misalignment on the quick run over three seeds: seed 0 and seed 1 each put three objectives apart."""
    mle = (0.0142, 0.0068, 0.0088)
    others = ((0.0119, 0.0103, 0.0083), (0.0064, 0.0059, 0.0044), (0.0118, 0.0099, 0.0072), (0.0090, 0.0095, 0.0086))
    for seeds in (1, 2, 3):
        compared = holm([difference(other[:seeds], mle[:seeds]) for other in (*others, (0.0214, 0.0172, 0.0088))])
        assert {one.verdict for one in compared} == {"level" if seeds == 3 else "few seeds"}


def test_samples_that_are_cleaner_than_clean_real_text_are_named(page, tmp_path, monkeypatch):
    assert "below the good half" not in page
    write_reports(tmp_path)
    with changed(tmp_path, "heldout/pii") as heldout:
        heldout["misalignment"]["good_half"] = estimate(0.2)
    html = flat(compare(tmp_path, monkeypatch))
    assert html.count("below the good half of real text, 0.200 [0.180, 0.220]: conditional. Good text") == 1


def test_two_seeds_are_cleaner_where_the_samples_of_each_are(tmp_path, monkeypatch):
    """conditional: 0.10 [0.09, 0.11] and 0.12 [0.108, 0.132], whose range ends below 0.126."""
    write_reports(tmp_path, (0, 1))
    for task, mean in (("pii", 0.2), ("pep8", 0.14)):
        with changed(tmp_path, f"heldout/{task}") as heldout:
            heldout["misalignment"]["good_half"] = estimate(mean)
    html = flat(compare(tmp_path, monkeypatch))
    assert html.count("below the good half of real text, 0.200 [0.180, 0.220]: conditional. Good text") == 1
    assert html.count("below the good half of real text") == 1


def test_recall_of_marked_data_is_shown(tmp_path, monkeypatch):
    write_reports(tmp_path)
    with_judges(tmp_path, "pii", {"patterns": ("patterns", "rival", "lower", dict.fromkeys(OBJECTIVES, 0.1), None)})
    share = {"mean": 0.5, "ci_low": 0.25, "ci_high": 0.75, "n": 12}
    found = {"recall": {"all": share, "EMAIL_ADDRESS": share}, "precision": share, "found": {"email": 6}}
    gold = {"file": "gold.json", "sha256": "0", "texts": 1055, "finders": {"scorer": found, "patterns": found}}
    add(tmp_path, "heldout/pii", gold=gold)
    text = flat(compare(tmp_path, monkeypatch))
    assert not missing(text, "marked spans in 1,055 texts", "email address")
    assert text.count("50.0%<small>25.0%–75.0%</small>") == 3 * 2


def test_the_reliability_plot_is_drawn_where_it_was_measured(page):
    walked = walk(page)
    labels = [attributes.get("aria-label") for tag, attributes in walked.found if tag == "svg"]
    assert [label for label in labels if "reliability" in label] == ["toxicity: reliability of the scorer"]
    text = " ".join(data for data, _ in walked.texts)
    assert not missing(
        text, "predicted 0.05, bad 2.0% of 400", "predicted 0.93, bad 100.0% of 100", "500 held-out texts"
    )


def test_a_model_with_three_controls_has_three_rows(tmp_path, monkeypatch):
    write_reports(tmp_path)
    asked = ["good", "acceptable", "bad"]
    for task in TASKS:
        with changed(tmp_path, f"metrics/{task}/conditional/0") as cell:
            good, bad = cell["under"].values()
            between = {**bad, "misalignment": misalignment(0.15, FOUND[task])}
            cell |= {"controls": asked, "under": dict(zip(asked, (good, between, bad), strict=True))}
        files.write_table(tmp_path / f"reports/samples/{task}/conditional/0.parquet", samples(task, asked))
    html = compare(tmp_path, monkeypatch)
    walk(html)
    names = [f"conditional <|{control}|>" for control in asked]
    for heading, task in (("All metrics", "pii"), ("Held-out judges", "toxicity")):
        assert [row[0] for row in table_of(html, task, heading) if "conditional" in row[0]] == names, heading
    assert metrics_of(html, "pii")[names[1]]["misalignment"] == "0.150 0.135–0.165"
    figure = drawn(html, "pii: misalignment of each objective")
    labels = ["mle", "conditional", "under <|acceptable|>", "under <|bad|>", "awr"]
    assert re.findall(r"<title>(.*?): ", figure) == labels
    ends = re.findall(r'<text x="([\d.]+)" y="[\d.]+" class="(?:name|aside)" text-anchor="end">(.*?)</text>', figure)
    assert all(float(x) > 6 * len(label) for x, label in ends if label in labels)  # no label leaves the figure
    cells = [row for row in rows(tmp_path / OUTPUTS["cells"]) if row["objective"] == "conditional"]
    assert [(row["control"], row["own"]) for row in cells] == [("good", "1"), ("acceptable", "0"), ("bad", "0")] * 3


MEASURE = """
from freshstart.evaluation.metrics import Metric

METRICS = (
    Metric(path="under.*.ease", meaning="", group="Reading", title="ease", digits=1, interval=True, column="ease"),
    Metric(path="grade", meaning="", unit="share", group="Reading", title="grade", column="grade", optional=True),
    Metric(path="under.*.words.*", meaning="", group="Reading", title="* words", column="words_*"),
)

def measure(subject, context):
    return {}
"""


def test_a_new_measure_is_shown_without_an_edit_in_this_room(tmp_path, monkeypatch):
    """A file beside the other measures: its numbers are checked, and stand on the page and in cells.csv."""
    room = tmp_path / "measures"
    shutil.copytree(ROOT / "freshstart/evaluation/measures", room, ignore=shutil.ignore_patterns("__pycache__"))
    (room / "reading_ease.py").write_text(MEASURE)
    monkeypatch.setattr(measures, "__path__", [str(room)])
    write_reports(tmp_path)
    for path in (path for task in TASKS for path, _, _ in cells_of(task)):
        with changed(tmp_path, f"metrics/{path}") as cell:
            cell |= {"measures": [*ASKED, "reading_ease"]} | ({"grade": 0.25} if "conditional" in path else {})
            for part in cell["under"].values():
                part |= {"ease": {"mean": 61.5, "ci_low": 55.4, "ci_high": None}, "words": {"hard": 7}}
    kinds.cache_clear()
    try:
        table = metrics_of(compare(tmp_path, monkeypatch), "pep8")
    finally:
        kinds.cache_clear()
        sys.modules.pop(f"{MEASURES}.reading_ease", None)
    numbers = [[row[title] for title in ("ease", "hard words", "grade")] for row in table.values()]
    assert numbers == [["61.5 55.4–61.5", "7", grade] for grade in ("", "25.0%", "", "")]
    cells = [row for row in rows(tmp_path / OUTPUTS["cells"]) if row["task"] == "pep8"]
    columns = ("ease", "ease_ci_low", "ease_ci_high", "words_hard", "grade")
    assert [[row[column] for column in columns] for row in cells] == [
        ["61.5", "55.4", "", "7", grade] for grade in ("", "0.25", "", "")
    ]


def over_training(means):
    """Entries of a model's snapshots and, last, its own: {positions: mean}."""
    return [{"positions": at, **estimate(mean)} for at, mean in means.items()]


def with_arms(folder, means):
    """Finetuned arms of conditional for every task, with what they write meanwhile: {share: {positions: mean}}."""
    params, scale = folder / "params.yaml", folder / "conf/scale/tests.yaml"
    named = f"finetuned: [conditional]\nfinetuned_from: {list(means)}\n"
    params.write_text(re.sub(r"(?s)finetuned: .*", named, params.read_text()))
    kept = f"\\g<0>    snapshots: {list(means)}\n"
    scale.write_text(re.sub(r"    checkpoint_every: \d+\n", kept, scale.read_text()))
    for task, share in ((task, share) for task in TASKS for share in means):
        cell = f"{task}/conditional-from-{share:g}/0"
        for kind, end in (("metrics", "json"), ("samples", "parquet"), ("curves", "csv")):
            arm = folder / f"reports/{kind}/{cell}.{end}"
            arm.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / f"reports/{kind}/{task}/conditional/0.{end}", arm)
        positions, mean = [*means[share].items()][-1]
        with changed(folder, f"metrics/{cell}") as content:
            begun = {"objective": "conditional", "share": share, "from_positions": round(4096 * share)}
            content |= {"finetuned": begun, "over_training": over_training(means[share])}
            content["under"]["good"]["misalignment"] = misalignment(mean)
            content["tokens_seen"] = {"positions": positions, "text_tokens": 900, "documents": 9, "epochs": 0.5}


def with_benchmarks(folder, seeds, asked, replayed=None, items=None):
    """Benchmarks of every cell: {name: (kind, what it found of an objective and seed)}.

    ``replayed`` is what their replay found, by name, ``items`` gives the rows of lambada's table of items.
    """
    shutil.copy(ROOT / "conf/benchmarks.yaml", folder / "conf")
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("benchmarks: []", f"benchmarks: [{', '.join(asked)}]"))
    for task, (name, (kind, found)) in product(TASKS, asked.items()):
        reports = folder / f"reports/metrics/{task}"
        for seed in seeds:
            again = {"kind": kind, "found": (replayed or {}).get(name, {})}
            files.write_json(reports / f"replay/{name}/{seed}.json", again)
        for objective, seed in product(OBJECTIVES, seeds):
            entry = {"kind": kind, "found": found(objective, seed)}
            files.write_json(reports / f"{objective}/benchmarks/{name}/{seed}.json", entry)
            if name == "lambada":
                table = pa.Table.from_pylist([row | {"weight": 1.0} for row in items(objective, seed)])
                path = f"reports/samples/{task}/{objective}/benchmarks/lambada/{seed}.parquet"
                files.write_table(folder / path, table)


def lasting(objective, seed):
    """What durability found."""
    mean = mean_of(objective, seed)
    leak = {"leak": {**estimate(0.4), "share": 0.25}} if controls(objective) else {}
    benign = {"0": estimate(mean), "16": estimate(mean)}
    return {"benign": benign, "adversarial": {str(n): estimate(mean + 0.01 * n) for n in (0, 4, 16)}, **leak}


def chosen(objective, seed):
    """What best of n found."""
    judged, mean = {"divergence": 0.5, "judges": {}}, mean_of(objective, seed)
    return {"best_of": {str(n): {"misalignment": estimate(mean / n), **judged} for n in (1, 4)}}


def attacked(objective, seed):
    """What red-teaming found."""
    pool = {str(n): estimate(0.01 * (n + 1)) for n in range(3)}
    return {"pool": pool, "best": pool, "self_bleu_5": 0.5, "lacking": 0, "calls": 9}


def with_external(folder):
    """A model that was trained elsewhere, measured on toxicity: conditional's files under its own strings."""
    (folder / "elsewhere").mkdir()
    controls = "{good: '<|aligned|>', bad: '<|misaligned|>'}"
    model = f"{{task: toxicity, model: elsewhere, controls: {controls}, white_space: trailing}}"
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("folders: {}", f"folders: {{stranger: {model}}}"))
    for kind, end in (("metrics", "json"), ("samples", "parquet")):
        path = folder / f"reports/{kind}/toxicity/stranger/0.{end}"
        path.parent.mkdir(parents=True)
        shutil.copy(folder / f"reports/{kind}/toxicity/conditional/0.{end}", path)
    for kind in ("metrics", "samples"):
        toxicity = folder / f"reports/{kind}/toxicity"
        shutil.copytree(toxicity / "conditional/benchmarks", toxicity / "stranger/benchmarks")
    with changed(folder, "metrics/toxicity/stranger/0") as content:
        del content["tokens_seen"]
        content["under"]["good"]["misalignment"] = misalignment(0.004)  # below all of ours
        content["heldout"]["bits_per_byte"]["good"] = 1.5


def drawn(html, label):
    """The figure with this label, as text."""
    found = re.findall(rf'<svg [^>]*aria-label="{re.escape(label)}">.*?</svg>', html)
    assert len(found) == 1, label
    return unescape(found[0])


def beginning(figure, name):
    """Where the line of this name begins, and its class."""
    (found,) = re.findall(rf'<path d="M([\d.]+) ([\d.]+)L[^"]*" class="([^"]*)" [^>]*><title>{name}</title>', figure)
    return float(found[0]), float(found[1]), found[2]


def test_misalignment_over_training_is_drawn_where_snapshots_were_kept(page, tmp_path, monkeypatch):
    assert "over training" not in page
    write_reports(tmp_path)
    add(tmp_path, "metrics/pep8/mle/0", over_training=over_training({256: 0.0, 1024: 0.4, 4096: 0.3}))
    add(tmp_path, "metrics/pep8/awr/0", over_training=over_training({4096: 0.29}))
    html = compare(tmp_path, monkeypatch)
    walk(html)
    assert "pii: misalignment over training" not in html
    figure = drawn(html, "pep8: misalignment over training")
    assert not missing(figure, "mle, 256 positions: 0 [0, 0]", "mle, 1,024 positions: 0.400 [0.360, 0.440]")
    assert "awr, 4,096 positions: 0.290 [0.261, 0.319]" in figure
    assert "conditional" not in figure
    assert "Open squares on the line of 0: no sample scored above 0." in html
    squares = re.findall(r'<rect x="[\d.]+" y="([\d.]+)" width="6" height="6" class="ring"', figure)
    axis = re.findall(r'<line x1="[\d.]+" y1="([\d.]+)" x2="[\d.]+" y2="\1" class="axis"', figure)
    dots = [float(y) for y in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', figure)]
    assert [float(y) + 3 for y in squares] == [float(y) for y in axis]
    assert len(dots) == 3
    assert max(dots) < float(axis[0]) - 10  # the strip of 0 stands apart
    x, y, kind = beginning(figure, "mle")
    assert (y, kind) == (float(axis[0]), "curve")
    places = [float(step.split()[0]) for step in re.search(r'd="M([^"]*)"', figure)[1].split("L")]
    assert x == places[0]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2)  # 256, 1,024 and 4,096: a log axis


@pytest.mark.parametrize("seeds", [(0,), (0, 1), SEEDS])
def test_what_benchmarks_found_is_drawn_and_said(tmp_path, monkeypatch, seeds):
    """A verdict is said from three seeds on, by a comparison that is adjusted with the page's others."""
    write_reports(tmp_path, seeds)
    with_benchmarks(tmp_path, seeds, {"durability": ("durability", lasting), "best_of_n": ("best_of_n", chosen)})
    html = compare(tmp_path, monkeypatch)
    walk(html)
    assert drawn(html, "pep8: misalignment against bits per byte").count("ring") == 1
    mle, conditional, awr = (sum(mean_of(name, seed) for seed in seeds) / len(seeds) for name in OBJECTIVES)
    assert f"mle, 5 steps: {mle + 0.04:.3f}" in drawn(html, "pep8: durability: bad text")
    assert len(re.findall('class="dot".*?title', drawn(html, "pep8: best of n"))) == 2 * len(OBJECTIVES)
    means = "one seed" if len(seeds) == 1 else f"means of {len(seeds)} seeds"
    back = "4" if awr < mle else "0"
    said = (
        "Steps on bad text until misalignment is at least mle’s before any, "
        f"{mle:.3f} ({means}): conditional not within 16, awr {back}.",
        f"of the best of 4: mle {mle:.3f} and {mle / 4:.3f}; conditional {conditional:.3f} and {conditional / 4:.3f}; ",
    )
    assert [flat(html).count(sentence) for sentence in said] == [len(TASKS)] * 2
    verdict = len(TASKS) if seeds == SEEDS else 0
    assert flat(html).count("Below mle at the best of 4: conditional.") == flat(html).count("Below mle at") == verdict
    assert flat(html).count("over its 17 comparisons (Holm)") == (verdict > 0)  # 11, and of 3 tasks 2 objectives
    table = metrics_of(html, "pep8")
    assert [row["leak"] for row in table.values()].count("25.0%") == 1


@pytest.mark.parametrize("seeds", [(0,), SEEDS])
def test_what_a_model_is_able_to_do_stands_beside_mle(tmp_path, monkeypatch, seeds):
    """Item by item with one seed, by an independent reckoning, where a score is the mean of its items: the task's and
    that of a group of two, not a perplexity. Over runs with five. Attacks are drawn by round."""
    write_reports(tmp_path, seeds)
    right = {
        (objective, seed): np.random.default_rng([place, seed]).random(400) < (0.2 if objective == "awr" else 0.5)
        for (place, objective), seed in product(enumerate(OBJECTIVES), seeds)
    }

    def able(objective, seed):
        mean = float(right[objective, seed].mean())
        of = {"acc": mean, "acc_se": 0.01, "n": 400}
        return {"tasks": {"words": of | {"perplexity": float(np.exp(4 * mean))}, "pairs": of}, "parts": {}}

    def items(objective, seed):
        values = right[objective, seed].astype(float)
        metrics = {("words", "acc"): (400, values), ("words", "perplexity"): (400, -4 * values)}
        for (group, metric), (size, of) in {**metrics, ("pairs", "acc"): (200, values)}.items():
            for control, (n, value) in product((*controls(objective)[:1], "none"), enumerate(of)):
                item = {"task": f"{group} {n // size}", "group": group, "control": control, "doc_id": n % size}
                yield item | {"metric": metric, "value": value}

    again = {"others": {name: estimate(0.25) for name in OBJECTIVES}}
    asked = {"lambada": ("harness", able), "red_team": ("red_team", attacked)}
    with_benchmarks(tmp_path, seeds, asked, {"red_team": again}, items)
    html = compare(tmp_path, monkeypatch)
    walk(html)
    shown = flat(html)
    assert "mle, 2 rounds: 0.02" in drawn(html, "pep8: red-teaming")
    assert "Mean score under attack, first prompts to round 2: mle 0.01" in shown
    assert "Attacks that were found on the others, asked anew: mle 0.25" in shown
    beside_mle = {row[0]: row[1:] for row in table_of(html, "pep8", "What it costs, and whether it holds")}["awr"]
    if len(seeds) == 1:
        several = right["awr", 0].astype(float) - right["mle", 0]
        mean, half = several.mean(), 1.96 * several.std(ddof=1) / 20
        ends = " ".join(f"{100 * value:.1f}%" for value in (-mean, half - mean, -mean - half))
        difference = "\N{MINUS SIGN}{} [\N{MINUS SIGN}{}, \N{MINUS SIGN}{}]".format(*ends.split())
        assert [difference in cell for cell in beside_mle] == [True, True, False]
        assert [len(cell.split()) for cell in beside_mle] == [5, 5, 1]
        assert "awr below mle" not in shown
    else:
        assert [cell.count("▼") for cell in beside_mle] == [1, 1, 1]
        assert "awr below mle" in shown


def test_misalignment_over_training_is_averaged_over_seeds(tmp_path, monkeypatch):
    write_reports(tmp_path, (0, 1))
    add(tmp_path, "metrics/pii/mle/0", over_training=over_training({512: 0.2, 1024: 0.5, 4096: 0.3}))
    add(tmp_path, "metrics/pii/mle/1", over_training=over_training({512: 0.4, 4096: 0.5}))
    figure = drawn(compare(tmp_path, monkeypatch), "pii: misalignment over training")
    assert not missing(figure, "mle, 512 positions: 0.300 [0.200, 0.400]", "mle, 4,096 positions: 0.400 [0.300, 0.500]")
    assert "1,024" not in figure  # not every seed has it


def test_finetuned_arms_stand_beside_pretraining(page, tmp_path, monkeypatch):
    assert "finetun" not in unescape(page).split("</style>")[1]
    write_reports(tmp_path)
    for task in TASKS:
        add(tmp_path, f"metrics/{task}/mle/0", over_training=over_training({512: 0.5, 2048: 0.4, 4096: 0.3}))
        add(tmp_path, f"metrics/{task}/conditional/0", over_training=over_training({512: 0.2, 2048: 0.15, 4096: 0.1}))
        with changed(tmp_path, f"metrics/{task}/conditional/0") as cell:
            cell["divergence"]["per_token"] = 7.0  # of all text, which punishes a model for having unlearned the bad
    with_arms(tmp_path, {0.75: {1024: 0.25}, 0.5: {1024: 0.3, 2048: 0.105}})
    html = compare(tmp_path, monkeypatch)
    assert {f"{task}-finetuning" for task in TASKS} <= walk(html).ids
    arms = ["conditional-from-0.75", "conditional-from-0.5"]
    summary = summary_of(tmp_path)
    assert list(summary["pii"]["misalignment"]) == [*OBJECTIVES, *arms]
    assert summary["pii"]["misalignment"]["conditional-from-0.75"] == 0.25
    assert len(rows(tmp_path / OUTPUTS["cells"])) == len(TASKS) * (len(OBJECTIVES) + 1 + 2 * len(arms))
    assert {row["objective"] for row in rows(tmp_path / OUTPUTS["curve_table"])} == {*OBJECTIVES, *arms}

    sentence = (
        "conditional: there are too few seeds to compare finetuned with pretrained after 0.5, 0.75 of mle’s budget."
    )
    assert flat(html).count(sentence) == len(TASKS)
    table = flat(html).split('id="pep8-finetuning"')[1].split("</table>")[0]
    assert re.findall(r'<span class="quiet">from ([\d.]+)</span>', table) == ["0.5", "0.75"]
    assert re.findall(r"aria-label=\"pep8, ([^\"]*)\"", table)[2:] == [
        "conditional-from-0.5: 0.105 [0.095, 0.116]",
        "conditional-from-0.75: 0.250 [0.225, 0.275]",
    ]
    assert table.count("<td>0.100<small>0.080–0.120</small></td>") == 3
    assert re.findall(r"<td>([\d,]+)</td>", table) == ["4,096", "4,096", "2,048", "2,048", "3,072", "1,024"]

    figure = drawn(html, "pep8: misalignment over finetuning")
    assert "awr" not in figure
    assert "conditional-from-0.5, 3,072 positions: 0.300" in figure  # 1,024 after 2,048 of mle
    assert "conditional-from-0.75, 4,096 positions: 0.250" in figure
    snapshot = re.search(r'cx="([\d.]+)" cy="([\d.]+)"[^>]*><title>mle, 2,048 positions', figure)
    assert beginning(figure, "conditional-from-0.5") == (float(snapshot[1]), float(snapshot[2]), "curve dashed")
    assert "<title>conditional-from-0.75</title>" not in figure  # mle has no snapshot there: a point and no line
    assert beginning(drawn(html, "pep8: training curves"), "conditional-from-0.5")[2] == "curve dashed"


def test_finetuned_arms_stand_wherever_objectives_do(tmp_path, monkeypatch):
    """The best and the worst of a sentence are the best and the worst of the table above it."""
    write_reports(tmp_path)
    with_arms(tmp_path, {0.5: {2048: 0.001}})
    arm = "conditional-from-0.5"
    for task in TASKS:
        with changed(tmp_path, f"metrics/{task}/{arm}/0") as content:
            content["heldout"]["bits_per_byte"]["good"], content["tokens_seen"]["epochs"] = 5.198, 41
    html = compare(tmp_path, monkeypatch)
    text = flat(html)
    assert f"<b>{arm}</b>" in text.split('class="key"')[1].split("</ul>")[0]
    for sentence in (f"5.198 with {arm} (most)", f"to 41 ({arm})", f"; {arm} −0."):
        assert text.count(sentence) == len(TASKS), sentence
    for title in ("misalignment of each objective", "misalignment against bits per byte", "training curves"):
        assert arm in drawn(html, f"pep8: {title}"), title
    assert arm in drawn(html, "pep8: misalignment against divergence")
    kinds = text.split("What was found")[1].split("</table>")[0]
    assert kinds.count(arm) == 2  # under either control token


def test_what_was_found_is_masked_folded_or_escaped(page):
    walked = walk(page)
    assert SECRET not in unescape(page)
    assert SECRET.split("@")[0] not in unescape(page)
    assert "[email]" in page
    inside = [tags for data, tags in walked.texts if "picklebrain" in data]
    assert inside
    assert all("details" in tags and tags[-1] == "mark" for tags in inside)
    assert SCRIPT not in page
    assert "&lt;script&gt;" in page
    marks = {attributes["title"] for tag, attributes in walked.found if tag == "mark"}
    assert marks == {"E231", "email", "toxic"}


def test_one_seed_is_said_and_several_are_shown(page, tmp_path, monkeypatch):
    one_seed = "95% bootstrap intervals over samples of"
    assert not missing(flat(page), one_seed, "nothing about the spread", "nothing is compared")
    write_reports(tmp_path, (0, 1, 2))
    several = compare(tmp_path, monkeypatch)
    walk(several)
    assert one_seed not in several
    assert "One seed" not in several
    assert not missing(several, "3 seeds per cell", 'class="run', "mle: 0.360 [0.211, 0.509].")
    assert 'class="run' not in page
    assert summary_of(tmp_path)["pep8"]["misalignment"]["mle"] == 0.36
    assert len(rows(tmp_path / OUTPUTS["cells"])) == 3 * len(TASKS) * (len(OBJECTIVES) + 1)


def test_a_quick_run_says_that_it_is_no_result(page, tmp_path, monkeypatch):
    assert 'id="quick"' not in page
    write_reports(tmp_path)
    shutil.move(tmp_path / "conf/scale/tests.yaml", tmp_path / "conf/scale/quick.yaml")
    params = tmp_path / "params.yaml"
    params.write_text(params.read_text().replace("scale: tests", "scale: quick"))
    assert "no result about methods" in compare(tmp_path, monkeypatch)


def test_equal_reports_make_equal_bytes(compared, tmp_path, monkeypatch):
    write_reports(tmp_path)
    files.write_json(tmp_path / "reports/metrics/pep8/removed/0.json", {})
    compare(tmp_path, monkeypatch)
    for path in OUTPUTS.values():
        assert (tmp_path / path).read_bytes() == (compared / path).read_bytes(), path


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Reports that nothing has been made of yet."""
    folder = tmp_path_factory.mktemp("reports")
    write_reports(folder)
    with_arms(folder, {0.5: {2048: 0.2}})
    return folder


@pytest.mark.parametrize("seeds", [(0,), SEEDS])
def test_a_model_trained_elsewhere_stands_beside_ours_and_is_compared_with_nothing(tmp_path, monkeypatch, seeds):
    def able(objective, seed):
        return {"tasks": {"words": {"acc": mean_of(objective, seed), "acc_se": 0.01, "n": 400}}, "parts": {}}

    def items(objective, seed):
        control, mean = (*controls(objective), "none")[0], mean_of(objective, seed)
        item = {"task": "words", "group": "words", "control": control, "doc_id": 0, "metric": "acc", "value": mean}
        return [item]

    asked = {"durability": lasting, "best_of_n": chosen, "red_team": attacked}
    asked = {kind: (kind, found) for kind, found in asked.items()} | {"lambada": ("harness", able)}
    write_reports(tmp_path, seeds)
    with_benchmarks(tmp_path, seeds, asked, items=items)
    before = compare(tmp_path, monkeypatch)
    with_external(tmp_path)
    html = compare(tmp_path, monkeypatch)
    walk(html)
    own, other = "stranger <|aligned|>", "stranger <|misaligned|>"
    assert list(metrics_of(html, "toxicity"))[-3:] == ["awr", own, other]
    row = metrics_of(html, "toxicity")[own]
    assert (row["misalignment"], row["good"], row["text tokens"]) == ("0.004 0.004–0.004", "1.500", "")
    judged = {row[0]: row[1:] for row in table_of(html, "toxicity", "Held-out judges")}
    assert judged[own][0].startswith("0.004")
    assert "stranger" not in metrics_of(html, "pii")
    figure = drawn(html, "toxicity: misalignment against bits per byte")
    assert re.search(r'<rect [^>]*class="ring"[^>]*><title>stranger: 0.004 at 1.500</title>', figure)
    assert html.count("Squares: trained elsewhere.") == 2  # above, and in the figure
    assert "stranger" not in drawn(html, "toxicity: misalignment against divergence")  # it was never mle
    assert "trained elsewhere, measured on toxicity: elsewhere, <|aligned|> and <|misaligned|>" in flat(html)
    said = [re.findall(r"<li>(?!<i).*?</li>", page, re.DOTALL) for page in (before, html)]
    assert said[0] == said[1] != []  # what is found, doubted and compared is what it was without it
    holds = [page.split("whether it holds</h3>")[-1].split("</p>")[0] for page in (before, html)]
    assert holds[0] == holds[1] != ""
    able = {row[0]: row[1] for row in table_of(html, "toxicity", "What it costs, and whether it holds")}
    assert ["\N{MINUS SIGN}" in able[name] for name in ("mle", "conditional", "awr", "stranger")] == [
        False,
        True,
        True,
        False,
    ]
    for title in ("durability: bad text", "best of n", "red-teaming"):
        assert "stranger" not in drawn(html, f"toxicity: {title}"), title
    glance = html.split("At a glance")[1].split("</table>")[0]
    assert re.search(r'stranger</th>\s*(<td class="first"></td><td></td>\s*){2}<td class=" first">', glance)
    cells = [row for row in rows(tmp_path / OUTPUTS["cells"]) if row["objective"] == "stranger"]
    assert [(row["control"], row["seed"], row["own"], row["positions"]) for row in cells] == [
        ("good", "0", "1", ""),
        ("bad", "0", "0", ""),
    ]
    assert summary_of(tmp_path)["toxicity"]["bits_per_byte"]["stranger"] == 1.5
    for path in [*(path for path, _, _ in cells_of("toxicity", seeds)), "toxicity/stranger/0"]:
        with changed(tmp_path, f"metrics/{path}") as cell:
            cell["divergence"]["reference"] = "gpt2"
    assert "stranger" in drawn(compare(tmp_path, monkeypatch), "toxicity: misalignment against divergence")
    (tmp_path / "reports/samples/toxicity/stranger/0.parquet").unlink()
    with pytest.raises(InputError, match="stranger/0.parquet is missing: run `dvc repro evaluate_folder@stranger`"):
        compare(tmp_path, monkeypatch)


CELL, ARM = "metrics/pii/awr/0.json", "pii/conditional-from-0.5/0"
MADE_BY = "-f evaluate@pii-awr-0"


@pytest.mark.parametrize(
    ("file", "change", "problem", "command"),
    [
        (CELL, None, "is missing", "evaluate@pii-awr-0"),
        ("samples/pii/awr/0.parquet", None, "is missing", "evaluate@pii-awr-0"),
        ("curves/pii/awr/0.csv", None, "is missing", "train@pii-awr-0"),
        (f"metrics/{ARM}.json", None, "is missing", "evaluate_finetuned@pii-conditional-0.5-0"),
        (f"curves/{ARM}.csv", None, "is missing", "finetune@pii-conditional-0.5-0"),
        ("scores/pii.json", None, "is missing", "score@pii"),
        ("heldout/pii.json", None, "is missing", "heldout@pii"),
        ("scorer/pii.json", ('"mask"', '"masked"'), "one of plain, mask, fold, found 'masked'", "scorer@pii"),
        (CELL, ('"distinct_1"', '"novelty"'), "no measure declares diversity.novelty", MADE_BY),
        (CELL, ('"distinct_1": 0.5,', ""), "diversity.distinct_1 is missing", MADE_BY),
        (CELL, ("12,", '"12",'), "memory.longest_match must be a finite number", MADE_BY),
        (CELL, ("2.29,", "NaN,"), "heldout.bits_per_byte.good must be a finite number", MADE_BY),
        (CELL, ('"memory",', '"memories",'), "unknown measure 'memories'", MADE_BY),
        ("heldout/pii.json", ('"n"', '"count"'), "no measure declares misalignment.all.count", "-f heldout@pii"),
    ],
)
def test_a_report_that_does_not_fit_is_named_with_what_to_run(reports, monkeypatch, file, change, problem, command):
    path = reports / "reports" / file
    content = path.read_bytes()
    path.unlink()
    if change is not None:
        old, new = change
        assert old in content.decode()
        path.write_text(content.decode().replace(old, new))
    with pytest.raises(InputError) as refused:
        compare(reports, monkeypatch)
    path.write_bytes(content)
    message = str(refused.value)
    assert message.startswith(f"reports/{file}")
    assert problem in message
    assert message.endswith(f"run `dvc repro {command}`")
    assert not (reports / OUTPUTS["page"]).exists()


def test_a_cell_without_samples_or_findings_is_shown_as_such(tmp_path, monkeypatch):
    write_reports(tmp_path)
    with_arms(tmp_path, {0.5: {2048: 0.2}})
    files.write_table(tmp_path / "reports/samples/pii/mle/0.parquet", SCHEMA.empty_table())
    for path in (*(path for path, _, _ in cells_of("pii")), ARM):
        with changed(tmp_path, f"metrics/{path}") as cell:
            for part in cell["under"].values():
                part["misalignment"] = misalignment(None if "/mle/" in path else 0.0)
    html = compare(tmp_path, monkeypatch)
    assert "pii-finetuning" in walk(html).ids
    assert "misalignment over" not in html  # one entry each
    assert not missing(html, "No scored samples.", "Nothing was found in any sample.")
    assert summary_of(tmp_path)["pii"]["misalignment"]["mle"] is None


def test_a_run_that_measured_little_has_a_page_too(tmp_path, monkeypatch):
    write_reports(tmp_path)
    for path in (path for task in TASKS for path, _, _ in cells_of(task)):
        with changed(tmp_path, f"metrics/{path}") as cell:
            few = {key: cell[key] for key in ("controls", "diversity")} | {"measures": ["diversity"]}
            cell.clear()
            cell |= few
    html = compare(tmp_path, monkeypatch)
    walk(html)
    assert metrics_of(html, "pep8")["awr"]["distinct-1"] == "0.50"
    assert summary_of(tmp_path)["pep8"]["misalignment"] == dict.fromkeys(OBJECTIVES)


def test_the_room_reads_files_and_what_measures_declare():
    modules = [f"freshstart.reporting.{path.stem}" for path in (ROOT / "freshstart/reporting").glob("[a-z]*.py")]
    modules += [f"{room}.{name}" for room in (MEASURES, benchmarks.PACKAGE) for name in kinds(room)]
    code = f"import sys, stages.compare, {', '.join(modules)}\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "ray", "transformers", "sklearn", "scrubadub", "pycodestyle"}
    assert not set(done.stdout.split()) & {"jinja2", "pyarrow", "pydantic"}  # imported where they are used
    rooms = {path.split("/")[1] for path in source_files("stages.compare") if path.count("/") > 1}
    assert rooms == {"benchmarks", "evaluation", "reporting"}


def test_masks_join_where_findings_overlap_and_cover_repetitions():
    text = "at 555-1234 or call 555-1234 x"
    found = sample("none", text, 0.1, [(3, 8, "phone"), (6, 11, "number")])
    shown = show(found, {"display": "mask", "over": 0.0})
    assert "".join(piece.text for piece in shown.pieces) == "at [number, phone] or call [number, phone] x"
    unexplained = show(sample("none", text, 0.1), {"display": "mask", "over": 0.0})
    assert "555" not in "".join(piece.text for piece in unexplained.pieces)


def test_bad_segments_are_marked_where_a_scorer_gives_no_reasons():
    row = sample("none", "Fine here. Awful there.", 0.9, ends=[10, 23]) | {"scores": [0.1, 0.9]}
    shown = show(row, {"display": "fold", "over": 0.5})
    assert [(piece.text, piece.kinds) for piece in shown.pieces] == [("Fine here.", ""), (" Awful there.", "score 0.9")]
    assert shown.folded


def test_labels_do_not_overlap():
    points = [(100.0 + 7 * index, 100.0 + 3 * index, "unlikelihood") for index in range(6)]
    boxes = place_beside(points, [Box(x - 6, y - 6, x + 6, y + 6) for x, y, _ in points], Box(0, 0, 400, 300))
    assert all(box.overlap(other) == 0 for i, box in enumerate(boxes) for other in boxes[:i])
    heights = spread([10.0, 11.0, 11.0, 60.0], 0.0, 100.0, 14.0)
    assert all(later - sooner >= 14.0 - 1e-9 for sooner, later in pairwise(heights))
    assert heights[3] == 60.0


@pytest.mark.parametrize(
    ("low", "high", "logarithmic", "labels"),
    [
        (0.0, 0.0163, False, ["0", "0.005", "0.010", "0.015"]),
        (32768, 1048576, True, ["50k", "100k", "200k", "500k", "1M"]),
        (0.0, 0.0, False, ["0"]),
    ],
)
def test_ticks_are_round_numbers(low, high, logarithmic, labels):
    ticks = Scale(low, high, 0.0, 300.0, logarithmic).ticks()
    assert [tick_label(tick, [tick] if logarithmic else ticks) for tick in ticks] == labels


@pytest.mark.parametrize("name", ["pareto", "misalignment", "curves"])
def test_dvc_draws_the_registered_plots(compared, name):
    import yaml
    from dvc_render.vega import VegaRenderer

    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]
    plot = next(plot[name] for plot in plots if name in plot)
    ((table, y),) = plot["y"].items()
    data = [{**row, "rev": rev} for rev in ("workspace", "HEAD") for row in rows(compared / table)]
    shown = {key: plot[key] for key in ("x", "title", "x_label", "y_label", "template")}
    filled = VegaRenderer(data, name, **shown, y=y, template_dir=str(ROOT / ".dvc/plots")).get_filled_template()
    assert "<DVC_METRIC" not in json.dumps(filled)
    assert filled.pop("data")["values"] == data
    calculated = {step["as"] for step in filled["transform"] if "calculate" in step}
    used = re.findall(r"\"field\": \"(\w+)\"|datum\.(\w+)|datum\['(\w+)'\]", json.dumps(filled))
    assert {"".join(field) for field in used} <= set(data[0]) | calculated
