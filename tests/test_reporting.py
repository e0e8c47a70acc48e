"""The last stage: numbers in summary and tables, and a page that shows what it should and nothing else."""

import csv
import json
import re
import shutil
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import conftest
import pyarrow as pa
import pytest
from conftest import PARAMS, ROOT, SCALE

from freshstart import files
from freshstart.errors import InputError
from freshstart.evaluation.table import SCHEMA
from freshstart.imports import made_of
from freshstart.reporting.placing import Box, place_beside, spread
from freshstart.reporting.samples import show
from freshstart.reporting.svg import Scale, tick_label

TASKS = ("pep8", "pii", "toxicity")
OBJECTIVES = ("mle", "conditional", "awr")
INPUTS = {
    "metrics": "reports/metrics",
    "samples": "reports/samples",
    "curves": "reports/curves",
    "scores": "reports/scores",
    "corpora": "reports/corpus",
    "scorers": "reports/scorer",
}
OUTPUTS = {
    "summary": "reports/summary.json",
    "cells": "reports/cells.csv",
    "curve_table": "reports/curves.csv",
    "histograms": "reports/histograms.csv",
    "page": "reports/index.html",
}
SECRET = "ada.lovelace@example.org"
NASTY = "You utter picklebrain, nobody wants you here."
SCRIPT = "<script>alert('x')</script>"
CALIBRATION = [
    {"predicted": 0.05, "observed": 0.02, "count": 400},
    {"predicted": None, "observed": None, "count": 0},
    {"predicted": 0.93, "observed": 1.0, "count": 100},
]
VOID = {"meta", "link", "br", "hr", "img", "input"}
KINDS = {"pep8": ("wheels", "pep8", "plain", 0.0), "pii": ("wheels", "pii", "mask", 0.0)}
KINDS["toxicity"] = ("synthetic", "classifier", "fold", 0.5)


def misalignment(mean, kinds=None):
    bounds = {"mean": mean, "ci_low": 0.9 * mean, "ci_high": 1.1 * mean, "pooled": mean, "share_over": 0.5, "n": 24}
    return {**bounds, "expected_max_25": 2 * mean, "by_kind": kinds or {}}


def metrics(task, objective, seed):
    mean = {"mle": 0.3, "conditional": 0.1, "awr": 0.29}[objective] * (1 + 0.2 * seed)
    kinds = {"pep8": {"E231": 0.01, "E501": 0.002}, "pii": {"email": 0.001}, "toxicity": {"toxic": 0.02}}[task]
    bits = {"all": 2.0 + mean, "good": 1.9, "bad": None}
    good = "good" if objective == "conditional" else "none"
    whole = {
        "misalignment": misalignment(mean, kinds),
        "errors": 0,
        "samples": {"n": 24, "drawn": 24, "tokens": 900, "characters": 3000, "share_ended": 0.5},
        "diversity": {
            "distinct_1": 0.5,
            "distinct_2": 0.8,
            "unigram_entropy": 6.0,
            "self_bleu_5": 0.4,
            "repetition": 0.1,
        },
        "memory": {"longest_match": 12, "train_tokens_searched": 5000, "share_matching_16": 0.25},
        "heldout": {
            "bits_per_byte": bits,
            "misalignment": {"all": misalignment(0.2), "good_half": misalignment(0.05)},
        },
        "divergence": {
            "reference": "mle",
            "per_token": mean,
            "per_token_se": 0.01,
            "estimator": "rao-blackwell",
            "n": 12,
        },
        "tokens_seen": {"positions": 4096, "text_tokens": 4000, "documents": 30, "epochs": 1.5},
    }
    if task == "pep8":
        whole |= {"misalignment_style": misalignment(0.5 * mean), "share_unparsable": 0.25}
    if objective == "conditional":
        whole["misalignment_under_bad"] = misalignment(2 * mean, kinds)
        whole["heldout"]["bits_per_byte"]["true_labels"] = 1.95
    if task == "toxicity":
        judged = {"share_with_abuse": 0.125, "abuse_per_character": 0.001}
        whole["second_judge"] = {good: judged} | ({"bad": judged} if objective == "conditional" else {})
    return whole


def judged(title, kind, worse, values, real=None, tau=0.2):
    """A judge as the metrics files hold it; ``values`` are its means by control token."""
    found = {"title": title, "unit": "share of samples", "kind": kind, "worse": worse}
    found |= {control: misalignment(mean) for control, mean in values.items()}
    if real is not None:
        found["heldout"] = misalignment(real)
    bounds = {"ci_low": tau - 0.1, "ci_high": tau + 0.1} if tau is not None else {"ci_low": None, "ci_high": None}
    return found | {"agreement": {"tau": tau, **bounds, "n": 24}}


def sample(control, text, score, reasons=(), ends=None):
    ends = ends or [len(text)]
    return {
        "control": control,
        "text": text,
        "ended": True,
        "tokens": 20,
        "score": score,
        "segment_ends": ends,
        "scores": [score] * len(ends),
        "reasons": [{"begin": begin, "end": end, "kind": kind} for begin, end, kind in reasons],
        "unreadable": None,
        "error": None,
        "shared_run": 0,
    }


def samples(task, objective):
    rows = []
    for control in ("good", "bad") if objective == "conditional" else ("none",):
        rows += [sample(control, f"a plain text, number {index} of {task}", 0.0) for index in range(8)]
        if task == "pep8":
            rows.append(sample(control, f"print({SCRIPT},1)\n", 0.05, [(len(SCRIPT) + 6, len(SCRIPT) + 7, "E231")]))
        if task == "pii":
            text = f"write to {SECRET} or again {SECRET}"
            rows.append(sample(control, text, 0.02, [(9, 9 + len(SECRET), "email")]))
        if task == "toxicity":
            rows.append(sample(control, NASTY, 0.95, [(10, 21, "toxic")]))
    return rows


def write_reports(folder, seeds=(0,)):
    """A finished run's reports, with every schema as the stages write it, and the parameters that name its cells."""
    (folder / "conf/scale").mkdir(parents=True, exist_ok=True)
    (folder / "conf/scale/tests.yaml").write_text(SCALE)
    given = PARAMS.replace("[mle, filtered, conditional, unlikelihood, rwr, awr]", f"[{', '.join(OBJECTIVES)}]")
    (folder / "params.yaml").write_text(given.replace("seeds: [0]", f"seeds: {list(seeds)}"))
    for task in TASKS:
        corpus, scorer, display, over = KINDS[task]
        half = {"documents": 30, "characters": 9000, "parts": 1, "characters_by_source": {"flask": 9000}}
        facts = {"documents": 60, "characters": 18000, "sources": 7, "left_out": {"exact duplicate": 3}}
        files.write_json(
            folder / f"reports/corpus/{task}.json",
            {"kind": corpus, **facts, "left_out_examples": [], "train": half, "heldout": half},
        )
        learned = {"heldout_roc_auc": 0.9468, "calibration": CALIBRATION} if task == "toxicity" else {}
        segments = "sentences" if task == "toxicity" else "lines"
        files.write_json(
            folder / f"reports/scorer/{task}.json",
            {
                "kind": scorer,
                "version": "1",
                "segments": segments,
                "over": over,
                "display": display,
                "learned": learned,
            },
        )
        histogram = {"edges": [0.0, 0.5, 1.0], "counts": [90, 10]}
        score = {
            "documents": 30,
            "characters": 9000,
            "segments": 100,
            "without_score": {"share": 0.0, "by_reason": {}},
            "share_segments_above_0": 0.1,
            "segment_score": {"mean": 0.1, "share_zero": 0.9, "quantiles": {}, "histogram": histogram},
            "found": {"E231": 9},
        }
        files.write_json(folder / f"reports/scores/{task}.json", {"train": score, "heldout": score})
        for objective in OBJECTIVES:
            for seed in seeds:
                cell = f"{task}/{objective}/{seed}"
                files.write_json(folder / f"reports/metrics/{cell}.json", metrics(task, objective, seed))
                table = pa.Table.from_pylist(samples(task, objective), schema=SCHEMA)
                files.write_table(folder / f"reports/samples/{cell}.parquet", table)
                extra = (",value_loss", ",0.5") if objective == "awr" else ("", "")
                rows = [
                    f"{positions},{5 - step},{5 - step}{extra[1]}" for step, positions in enumerate((512, 2048, 4096))
                ]
                files.write_text(
                    folder / f"reports/curves/{cell}.csv", "\n".join([f"positions,loss,nll{extra[0]}", *rows]) + "\n"
                )


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

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

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


def test_summary_holds_means_to_four_digits(compared):
    summary = json.loads((compared / OUTPUTS["summary"]).read_text())
    assert list(summary) == list(TASKS)
    assert summary["pii"] == {
        "misalignment": {"mle": 0.3, "conditional": 0.1, "awr": 0.29},
        "bits_per_byte": {"mle": 2.3, "conditional": 2.1, "awr": 2.29},
    }


def test_cells_have_a_row_for_each_control(compared):
    cells = rows(compared / OUTPUTS["cells"])
    assert len(cells) == len(TASKS) * (len(OBJECTIVES) + 1)
    asked = {(row["objective"], row["control"]) for row in cells}
    assert asked == {("mle", "none"), ("awr", "none"), ("conditional", "good"), ("conditional", "bad")}
    by_name = {(row["task"], row["objective"], row["control"]): row for row in cells}
    good, bad = by_name["toxicity", "conditional", "good"], by_name["toxicity", "conditional", "bad"]
    assert (float(good["misalignment"]), float(bad["misalignment"])) == (0.1, 0.2)
    assert (good["bits_per_byte_true_labels"], good["bits_per_byte_bad"], good["style"]) == ("1.95", "", "")
    assert (bad["bits_per_byte_all"], bad["second_judge"]) == ("", "0.125")
    assert by_name["pep8", "mle", "none"]["style"] == "0.15"
    assert by_name["pep8", "mle", "none"]["second_judge"] == ""


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
    for heading in ("Python sources from 7 packages, pycodestyle", "prose from 7 packages, scrubadub"):
        assert heading in text
    assert "synthetic text, offline classifier" in text
    assert not {tag for tag, _ in walked.found} & {"script", "link", "img", "iframe", "object", "embed", "base"}
    for tag, attributes in walked.found:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert attributes.get(name, "#").startswith("#"), (tag, attributes)
    assert not re.search(r"url\(|@import|https?:", page.split("</style>")[0])
    assert len(page) < 1_500_000
    assert sum(tag == "svg" for tag, _ in walked.found) == 5 * len(TASKS) + 2  # pep8's style, toxicity's reliability


def test_findings_say_what_the_numbers_carry(page):
    text = unescape(page)
    assert text.count("Wholly below mle: conditional.") == len(TASKS)
    assert text.count("Not told apart from mle: awr.") == len(TASKS)
    assert (
        "conditional, asked under <|good|>: 0.100 [0.090, 0.110]; under <|bad|>: 0.200 [0.180, 0.220], wholly apart."
        in text
    )


def with_judges(folder, task, judges):
    """Add judges to the metrics of a task's cells: {judge: {objective: mean}} and how they are described."""
    for objective in OBJECTIVES:
        path = folder / f"reports/metrics/{task}/{objective}/0.json"
        given = json.loads(path.read_text())
        controls = ("good", "bad") if objective == "conditional" else ("none",)
        given["judges"] = {
            name: judged(title, kind, worse, dict.fromkeys(controls, values[objective]), real)
            for name, (title, kind, worse, values, real) in judges.items()
        }
        files.write_json(path, given)


def doubts(html):
    text = unescape(html).split('<div class="note doubt">')
    return [re.findall(r"<li>(.*?)</li>", part.split("</div>")[0]) for part in text[1:]]


def test_a_gamed_reward_shows(tmp_path, monkeypatch):
    """conditional lies wholly below mle in misalignment; awr does not, so that there is nothing to doubt of it."""
    write_reports(tmp_path)
    same = {"mle": 0.5, "conditional": 0.49, "awr": 0.1}
    worse = {"mle": 0.5, "conditional": 0.2, "awr": 0.1}
    better = {"mle": 0.5, "conditional": 0.1, "awr": 0.9}
    with_judges(
        tmp_path,
        "pep8",
        {
            "same": ("a rival that sees no difference", "rival", "higher", same, 0.4),
            "worse": ("a guard that got worse", "guard", "lower", worse, 0.45),
            "real": ("a guard that real text is like", "guard", "lower", worse, 0.21),
            "level": ("a guard that sees no difference", "guard", "higher", same, None),
            "better": ("a rival that agrees", "rival", "higher", better, None),
        },
    )
    with_judges(tmp_path, "pii", {"better": ("a rival that agrees", "rival", "higher", better, 0.3)})
    html = compare(tmp_path, monkeypatch)
    walked = walk(html)
    assert doubts(html) == [
        [
            "conditional is no better in a rival that sees no difference (share of samples): 49.0% [44.1%, 53.9%], "
            "mle 50.0% [45.0%, 55.0%]; worse in a guard that got worse (share of samples): 20.0% [18.0%, 22.0%], "
            "mle 50.0% [45.0%, 55.0%]."
        ]
    ]
    marked = [attributes for tag, attributes in walked.found if attributes.get("class") == "doubted"]
    assert len(marked) == 2
    assert {"pep8-judges", "pii-judges"} <= walked.ids
    assert "toxicity-judges" not in walked.ids
    text = " ".join(unescape(html).split())
    assert text.count("τ 0.20 [0.10, 0.30]") == 6 * 3  # of each judge and objective, under its own control token
    assert "No judge doubts an objective that lies wholly below mle" in text
    assert "real held-out text" in text


def test_several_seeds_are_judged_by_their_range(tmp_path, monkeypatch):
    write_reports(tmp_path, (0, 1))
    for objective in OBJECTIVES:
        for seed in (0, 1):
            path = tmp_path / f"reports/metrics/pep8/{objective}/{seed}.json"
            control = "good" if objective == "conditional" else "none"
            mean = {"mle": 0.5, "conditional": 0.1 + 0.45 * seed, "awr": 0.5}[objective]
            rival = judged("a rival", "rival", "higher", {control: mean}, None, None)
            files.write_json(path, json.loads(path.read_text()) | {"judges": {"rival": rival}})
    html = compare(tmp_path, monkeypatch)
    assert doubts(html) == [
        ["conditional is no better in a rival (share of samples): 32.5% [10.0%, 55.0%], mle 50.0% [50.0%, 50.0%]."]
    ]


def test_recall_of_marked_data_is_shown(tmp_path, monkeypatch):
    write_reports(tmp_path)
    share = {"mean": 0.5, "ci_low": 0.25, "ci_high": 0.75, "n": 12}
    one = {"recall": {"all": share, "EMAIL_ADDRESS": share}, "precision": share, "found": {"email": 6}}
    for objective in OBJECTIVES:
        path = tmp_path / f"reports/metrics/pii/{objective}/0.json"
        about = {"file": "gold.json", "sha256": "0", "texts": 1055, "scorer": one, "patterns": one}
        files.write_json(path, json.loads(path.read_text()) | {"gold": about})
    with_judges(tmp_path, "pii", {"patterns": ("patterns", "rival", "higher", dict.fromkeys(OBJECTIVES, 0.1), None)})
    text = " ".join(unescape(compare(tmp_path, monkeypatch)).split())
    assert "marked spans of 1,055 texts" in text
    assert "email address" in text
    assert text.count("50.0%<small>25.0%–75.0%</small>") == 3 * 2


def test_the_reliability_plot_is_drawn_where_it_was_measured(page):
    walked = walk(page)
    labels = [attributes.get("aria-label") for tag, attributes in walked.found if tag == "svg"]
    assert [label for label in labels if "reliability" in label] == ["toxicity: reliability of the scorer"]
    text = " ".join(data for data, _ in walked.texts)
    assert "given 0.05, bad 2.0% of 400" in text
    assert "given 0.93, bad 100.0% of 100" in text
    assert "500 held-out texts" in text


def over_training(means):
    """Entries of a model's snapshots and, last, its own: {positions: mean}."""
    keys = ("mean", "ci_low", "ci_high", "n")
    return [{"positions": at, **{key: misalignment(mean)[key] for key in keys}} for at, mean in means.items()]


def add(folder, cell, **more):
    """Add keys to the metrics of a cell."""
    path = folder / f"reports/metrics/{cell}.json"
    files.write_json(path, json.loads(path.read_text()) | more)


def with_arms(folder, means):
    """Finetuned arms of conditional for every task, with what they write meanwhile: {share: {positions: mean}}."""
    params, scale = folder / "params.yaml", folder / "conf/scale/tests.yaml"
    named = f"finetuned: [conditional]\nfinetuned_from: {list(means)}\n"
    params.write_text(re.sub(r"(?s)finetuned: .*", named, params.read_text()))
    kept = f"\\g<0>    snapshots: {list(means)}\n"
    scale.write_text(re.sub(r"    checkpoint_every: \d+\n", kept, scale.read_text()))
    for task in TASKS:
        for share, found in means.items():
            name = f"conditional-from-{share:g}"
            for kind, end in (("metrics", "json"), ("samples", "parquet"), ("curves", "csv")):
                arm = folder / f"reports/{kind}/{task}/{name}/0.{end}"
                arm.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(folder / f"reports/{kind}/{task}/conditional/0.{end}", arm)
            positions, mean = [*found.items()][-1]
            add(
                folder,
                f"{task}/{name}/0",
                finetuned={"objective": "conditional", "share": share, "from_positions": round(4096 * share)},
                misalignment=misalignment(mean, {}),
                over_training=over_training(found),
                tokens_seen={"positions": positions, "text_tokens": 900, "documents": 9, "epochs": 0.5},
            )


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
    add(tmp_path, "pep8/mle/0", over_training=over_training({256: 0.0, 1024: 0.4, 4096: 0.3}))
    add(tmp_path, "pep8/awr/0", over_training=over_training({4096: 0.29}))
    html = compare(tmp_path, monkeypatch)
    walk(html)
    assert "pii: misalignment over training" not in html
    figure = drawn(html, "pep8: misalignment over training")
    assert "mle, 256 positions: 0 [0, 0]" in figure
    assert "mle, 1,024 positions: 0.400 [0.360, 0.440]" in figure
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


def test_misalignment_over_training_is_averaged_over_seeds(tmp_path, monkeypatch):
    write_reports(tmp_path, (0, 1))
    add(tmp_path, "pii/mle/0", over_training=over_training({512: 0.2, 1024: 0.5, 4096: 0.3}))
    add(tmp_path, "pii/mle/1", over_training=over_training({512: 0.4, 4096: 0.5}))
    figure = drawn(compare(tmp_path, monkeypatch), "pii: misalignment over training")
    assert "mle, 512 positions: 0.300 [0.200, 0.400]" in figure
    assert "mle, 4,096 positions: 0.400 [0.300, 0.500]" in figure
    assert "1,024" not in figure  # not every seed has it


def test_finetuned_arms_stand_beside_pretraining(page, tmp_path, monkeypatch):
    assert "finetun" not in unescape(page).split("</style>")[1]
    write_reports(tmp_path)
    for task in TASKS:
        add(tmp_path, f"{task}/mle/0", over_training=over_training({512: 0.5, 2048: 0.4, 4096: 0.3}))
        add(tmp_path, f"{task}/conditional/0", over_training=over_training({512: 0.2, 2048: 0.15, 4096: 0.1}))
    with_arms(tmp_path, {0.75: {1024: 0.25}, 0.5: {1024: 0.3, 2048: 0.105}})
    html = compare(tmp_path, monkeypatch)
    walked = walk(html)
    assert {f"{task}-finetuning" for task in TASKS} <= walked.ids
    arms = ["conditional-from-0.75", "conditional-from-0.5"]
    summary = json.loads((tmp_path / OUTPUTS["summary"]).read_text())
    assert list(summary["pii"]["misalignment"]) == [*OBJECTIVES, *arms]
    assert summary["pii"]["misalignment"]["conditional-from-0.75"] == 0.25
    cells = rows(tmp_path / OUTPUTS["cells"])
    assert len(cells) == len(TASKS) * (len(OBJECTIVES) + 1 + 2 * len(arms))
    assert {row["objective"] for row in rows(tmp_path / OUTPUTS["curve_table"])} == {*OBJECTIVES, *arms}

    text = " ".join(unescape(html).split())
    said = (
        "conditional: finetuned lies wholly above pretrained after 0.75 of mle’s budget; "
        "finetuned is not told apart from pretrained after 0.5 of mle’s budget."
    )
    assert text.count(said) == len(TASKS)
    table = text.split('id="pep8-finetuning"')[1].split("</table>")[0]
    assert re.findall(r'<span class="quiet">from ([\d.]+)</span>', table) == ["0.5", "0.75"]
    assert re.findall(r"aria-label=\"pep8, ([^\"]*)\"", table)[2:] == [
        "conditional-from-0.5: 0.105 [0.095, 0.116]",
        "conditional-from-0.75: 0.250 [0.225, 0.275]",
    ]
    assert re.findall(r"<td>([\d,]+)</td>", table) == ["4,096", "4,096", "2,048", "2,048", "3,072", "1,024"]

    figure = drawn(html, "pep8: misalignment over finetuning")
    assert "awr" not in figure
    assert "conditional-from-0.5, 3,072 positions: 0.300" in figure  # 1,024 after 2,048 of mle
    assert "conditional-from-0.75, 4,096 positions: 0.250" in figure
    snapshot = re.search(r'cx="([\d.]+)" cy="([\d.]+)"[^>]*><title>mle, 2,048 positions', figure)
    assert beginning(figure, "conditional-from-0.5") == (float(snapshot[1]), float(snapshot[2]), "curve dashed")
    assert "<title>conditional-from-0.75</title>" not in figure  # mle has no snapshot there: a point and no line
    assert "conditional-from" not in drawn(html, "pep8: misalignment over training")
    assert beginning(drawn(html, "pep8: training curves"), "conditional-from-0.5")[2] == "curve dashed"


def test_a_missing_file_of_an_arm_is_named_with_what_to_run(tmp_path, monkeypatch):
    write_reports(tmp_path)
    with_arms(tmp_path, {0.5: {2048: 0.2}})
    html = compare(tmp_path, monkeypatch)
    assert "misalignment over" not in html  # one entry each
    assert 'id="pii-finetuning"' in html
    for kind, end, stage in (("metrics", "json", "evaluate_finetuned"), ("curves", "csv", "finetune")):
        path = f"reports/{kind}/pii/conditional-from-0.5/0.{end}"
        moved = (tmp_path / path).rename(tmp_path / "moved")
        command = re.escape(f"{path} is missing: run `dvc repro {stage}@pii-conditional-0.5-0`")
        with pytest.raises(InputError, match=command):
            compare(tmp_path, monkeypatch)
        moved.rename(tmp_path / path)


def test_what_was_found_is_masked_folded_or_escaped(page):
    walked = walk(page)
    whole = unescape(page)
    assert SECRET not in whole
    assert SECRET.split("@")[0] not in whole
    assert "[email]" in whole
    inside = [tags for data, tags in walked.texts if "picklebrain" in data]
    assert inside
    assert all("details" in tags and tags[-1] == "mark" for tags in inside)
    assert SCRIPT not in page
    assert "&lt;script&gt;" in page
    marks = {attributes["title"] for tag, attributes in walked.found if tag == "mark"}
    assert marks == {"E231", "email", "toxic"}


def test_one_seed_is_said_and_several_are_shown(page, tmp_path, monkeypatch):
    said = "95% bootstrap intervals over samples of"
    assert said in page
    assert "nothing about the spread" in page
    write_reports(tmp_path, (0, 1, 2))
    several = compare(tmp_path, monkeypatch)
    walk(several)
    assert said not in several
    assert "One seed" not in several
    assert "3 seeds per cell" in several
    assert 'class="run' in several
    assert 'class="run' not in page
    summary = json.loads((tmp_path / OUTPUTS["summary"]).read_text())
    assert summary["pep8"]["misalignment"]["mle"] == 0.36
    assert "mle: 0.360 [0.300, 0.420]." in several
    assert len(rows(tmp_path / OUTPUTS["cells"])) == 3 * len(TASKS) * (len(OBJECTIVES) + 1)


def test_a_quick_run_says_that_it_is_no_result(page, tmp_path, monkeypatch):
    assert 'id="quick"' not in page
    write_reports(tmp_path)
    shutil.move(tmp_path / "conf/scale/tests.yaml", tmp_path / "conf/scale/quick.yaml")
    given = tmp_path / "params.yaml"
    given.write_text(given.read_text().replace("scale: tests", "scale: quick"))
    assert "no result about methods" in compare(tmp_path, monkeypatch)


def test_equal_reports_make_equal_bytes(compared, tmp_path, monkeypatch):
    write_reports(tmp_path)
    stale = tmp_path / "reports/metrics/pep8/removed/0.json"
    files.write_json(stale, {})
    compare(tmp_path, monkeypatch)
    for path in OUTPUTS.values():
        assert (tmp_path / path).read_bytes() == (compared / path).read_bytes(), path


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("reports/metrics/pii/awr/0.json", "evaluate@pii-awr-0"),
        ("reports/samples/pii/awr/0.parquet", "evaluate@pii-awr-0"),
        ("reports/curves/pii/awr/0.csv", "train@pii-awr-0"),
        ("reports/scores/pii.json", "score@pii"),
    ],
)
def test_a_missing_file_is_named_with_what_to_run(tmp_path, monkeypatch, file, command):
    write_reports(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(InputError, match=re.escape(f"{file} is missing: run `dvc repro {command}`")):
        compare(tmp_path, monkeypatch)
    assert not (tmp_path / OUTPUTS["page"]).exists()


def test_a_cell_without_samples_or_findings_is_shown_as_such(tmp_path, monkeypatch):
    write_reports(tmp_path)
    path = tmp_path / "reports/metrics/pii/mle/0.json"
    files.write_json(path, json.loads(path.read_text()) | {"misalignment": {"n": 0}})
    table = tmp_path / "reports/samples/pii/mle/0.parquet"
    files.write_table(table, SCHEMA.empty_table())
    for objective in ("conditional", "awr"):
        path = tmp_path / f"reports/metrics/pii/{objective}/0.json"
        given = json.loads(path.read_text())
        files.write_json(path, given | {name: misalignment(0.0) for name in given if name.startswith("misalignment")})
    html = compare(tmp_path, monkeypatch)
    walk(html)
    assert "No scored samples." in html
    assert "Nothing was found in any sample." in html
    assert json.loads((tmp_path / OUTPUTS["summary"]).read_text())["pii"]["misalignment"]["mle"] is None


def test_an_unknown_display_is_refused(tmp_path, monkeypatch):
    write_reports(tmp_path)
    path = tmp_path / "reports/scorer/pii.json"
    path.write_text(path.read_text().replace('"mask"', '"masked"'))
    with pytest.raises(InputError, match="display must be one of plain, mask, fold, found 'masked'"):
        compare(tmp_path, monkeypatch)


def test_the_room_reads_files_only():
    modules = [f"freshstart.reporting.{path.stem}" for path in (ROOT / "freshstart/reporting").glob("[a-z]*.py")]
    code = f"import sys, stages.compare, {', '.join(modules)}\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "ray", "transformers", "sklearn", "scrubadub", "pycodestyle"}
    assert not set(done.stdout.split()) & {"jinja2", "pyarrow", "pydantic"}  # imported where they are used
    rooms = {path.split("/")[1] for path in made_of("stages.compare") if path.count("/") == 2}
    assert rooms == {"reporting"}


def test_masks_join_where_findings_overlap_and_cover_repetitions():
    text = "at 555-1234 or call 555-1234 x"
    found = sample("none", text, 0.1, [(3, 8, "phone"), (6, 11, "number")])
    shown = show(found, {"display": "mask", "over": 0.0})
    assert "".join(piece.text for piece in shown.pieces) == "at [number, phone] or call [number, phone] x"
    unexplained = show(sample("none", text, 0.1), {"display": "mask", "over": 0.0})
    assert "555" not in "".join(piece.text for piece in unexplained.pieces)


def test_bad_segments_are_marked_where_a_scorer_gives_no_reasons():
    text = "Fine here. Awful there."
    row = sample("none", text, 0.9, ends=[10, 23]) | {"scores": [0.1, 0.9]}
    shown = show(row, {"display": "fold", "over": 0.5})
    assert [(piece.text, piece.kinds) for piece in shown.pieces] == [("Fine here.", ""), (" Awful there.", "score 0.9")]
    assert shown.folded


def test_labels_do_not_overlap():
    points = [(100.0 + 7 * index, 100.0 + 3 * index, "unlikelihood") for index in range(6)]
    boxes = place_beside(points, [Box(x - 6, y - 6, x + 6, y + 6) for x, y, _ in points], Box(0, 0, 400, 300))
    assert all(one.overlap(other) == 0 for i, one in enumerate(boxes) for other in boxes[:i])
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

    plots = {
        key: value for plot in yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"] for key, value in plot.items()
    }
    plot = plots[name]
    ((table, y),) = plot["y"].items()
    data = [{**row, "rev": rev} for rev in ("workspace", "HEAD") for row in rows(compared / table)]
    shown = {key: plot[key] for key in ("x", "title", "x_label", "y_label")}
    renderer = VegaRenderer(
        data, name, **shown, y=y, template=plot["template"], template_dir=str(Path(ROOT, ".dvc/plots"))
    )
    filled = renderer.get_filled_template()
    assert "<DVC_METRIC" not in json.dumps(filled)
    assert filled["data"]["values"] == data
    used = set(re.findall(r'"field": "(\w+)"', json.dumps(filled["spec"])))
    made = {step["as"] for step in filled["transform"] if "calculate" in step}
    assert used <= set(data[0]) | made
