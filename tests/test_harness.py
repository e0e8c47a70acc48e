"""lm-eval's tasks: our answers against those of its own model class, and against plain forward passes."""

import json
import shutil
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from conftest import ROOT, prose, shared_data

from freshstart import benchmarks
from freshstart.benchmarks import harness
from freshstart.errors import InputError
from freshstart.evaluation import EvaluateSettings
from freshstart.evaluation.context import Context
from freshstart.evaluation.kept import kept
from freshstart.evaluation.metrics import check
from freshstart.evaluation.subject import external
from freshstart.names import NO_CONTROL
from freshstart.settings import build

lm_eval = pytest.importorskip("lm_eval", reason="needs the extra harness")

DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
CPU = torch.device("cpu")
CONTROLS = {"good": "<|good|>", "bad": "<|bad|>"}
PARADIGMS = ("anaphor_gender_agreement", "causative")
WORDS = """
group: words
task:
  - task: first_words
    dataset_path: json
    dataset_kwargs: {data_files: {test: raw/lambada_test.jsonl}}
    output_type: generate_until
    test_split: test
    doc_to_text: "{{text[:60]}}"
    doc_to_target: "{{text[60:]}}"
    generation_kwargs: {until: [" "], max_gen_toks: 8}
    metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


@lru_cache
def passages():
    """Twenty of one word, which is easy to learn, and runs of 60 plain words from the prose of installed packages."""
    repeated = [" ".join([word] * 60) for word in ("the", "and", "of", "to")] * 5
    words = [[word for word in text.split() if word.isalpha() and len(word) < 12][:300] for _, text in prose()[:60]]
    return repeated + [" ".join(of_text[at : at + 60]) for of_text in words for at in range(0, len(of_text) - 59, 60)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small model that has learned the passages a little, so that it gets some last words right."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("model")
    bpe = ByteLevelBPETokenizer()
    special = ["<|endoftext|>", *CONTROLS.values()]
    bpe.train_from_iterator(passages(), vocab_size=600, special_tokens=special, show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"vocab_size": 640, "n_positions": 64, "n_embd": 48, "n_layer": 1, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0, **dict.fromkeys(DROPOUTS, 0.0)))
    stream = torch.tensor([token for text in passages() for token in (0, *bpe.encode(text).ids)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(60):
        rows = torch.stack([stream[at : at + 64] for at in torch.randint(len(stream) - 64, (8,))])
        optimizer.zero_grad()
        model(input_ids=rows, labels=rows).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    return folder


def subject_of(folder, controls=None):
    return external(str(folder), CPU, segments="sentences", threshold=0.0, controls=controls)


@pytest.fixture(scope="module", params=["prose", "real"])
def place(request, tmp_path_factory):
    """A project folder with the tasks of conf/harness, BLiMP's cut to two paradigms, and their data below raw."""
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copytree(ROOT / "conf/harness", folder / "conf/harness")
    blimp = yaml.safe_load((folder / "conf/harness/blimp.yaml").read_text())
    blimp["task"] = [task for task in blimp["task"] if task["task"].removeprefix("blimp_") in PARADIGMS]
    (folder / "conf/harness/blimp.yaml").write_text(yaml.safe_dump(blimp))
    (folder / "conf/harness/words.yaml").write_text(WORDS)
    (folder / "raw/blimp").mkdir(parents=True)
    if request.param == "real":
        import gzip
        import tarfile

        packed = gzip.decompress(shared_data("eval", "lambada_test.jsonl.gz").read_bytes())
        (folder / "raw/lambada_test.jsonl").write_bytes(packed)
        with tarfile.open(shared_data("eval", "blimp.tar.gz")) as tar:
            tar.extractall(folder / "raw/blimp", filter="data")
    else:
        write(folder / "raw/lambada_test.jsonl", [{"text": text} for text in passages()])
        for begin, name in enumerate(PARADIGMS, 20):
            pairs = [(text.split()[:9], text.split()[8::-1]) for text in passages()[begin:]]
            rows = [{"sentence_good": " ".join(good), "sentence_bad": " ".join(bad)} for good, bad in pairs]
            write(folder / f"raw/blimp/{name}.jsonl", rows)
    write(folder / "raw/wikitext_test.jsonl", [{"page": text[:900]} for _, text in prose()[:5]])
    return folder


def write(path: Path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def settings_of(*suites, **more):
    block = {"kind": "harness", "suites": list(suites), "include_path": "conf/harness"}
    return build(harness.Settings, block | more, "here")


def run(subject, settings, state):
    nowhere = [Path("nowhere")] * 5
    how = EvaluateSettings(samples=1, max_new_tokens=16)
    found, items = harness.run(subject, settings, Context("t", 0, how, CPU, *nowhere), state)
    check(found, harness.METRICS, "here", "here", head=())
    return found, pl.from_arrow(items)


def test_answers_without_a_control_are_those_of_hflm_item_for_item(model, place, tmp_path, monkeypatch):
    """Contexts longer than the model's 64 positions, empty ones, and whole documents."""
    from lm_eval.evaluator import evaluate

    pytest.importorskip("accelerate", reason="HFLM needs accelerate (the extra bench)")
    from lm_eval.models.huggingface import HFLM

    monkeypatch.chdir(place)
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")  # its pool forks a process with threads, and may wait for ever
    settings = settings_of("lambada_local", "blimp_local", "wikitext_local", limit=60)
    theirs = evaluate(
        HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=8),
        harness._loaded(settings),
        limit=60,
        bootstrap_iters=harness.DRAWS,
    )
    found, items = run(subject_of(model), settings, tmp_path)
    assert set(found["tasks"]) == {"lambada_openai", "wikitext", "blimp_local"}
    assert set(found["parts"]) == {f"blimp_{name}" for name in PARADIGMS}
    for task, samples in theirs["samples"].items():
        numbers = (found["tasks"] | found["parts"])[task]
        for metric in samples[0]["metrics"]:
            values = items.filter(task=task, metric=metric).sort("doc_id")["value"].to_list()
            expected = [v[0] if isinstance(v := sample[metric], tuple) else v for sample in samples]
            assert values == (expected if metric == "acc" else pytest.approx(expected, abs=1e-3))
            assert numbers[metric] == pytest.approx(theirs["results"][task][f"{metric},none"], rel=1e-4)
        assert numbers["n"] == len(samples)
    assert 0 < found["tasks"]["lambada_openai"]["acc"] < 1 or "real" in place.name
    error = theirs["groups"]["blimp_local"]["acc_stderr,none"]
    assert found["tasks"]["blimp_local"]["acc_se"] == pytest.approx(error)

    marked, more = run(subject_of(model, CONTROLS), settings, tmp_path / "marked")
    assert marked["without"] == {name: pytest.approx(numbers) for name, numbers in found["tasks"].items()}
    assert more.filter(control=NO_CONTROL).equals(items)
    assert set(more["control"]) == {"good", NO_CONTROL}


def test_answers_under_a_control_are_those_of_a_plain_forward_pass(model, tmp_path):
    from lm_eval.api.instance import Instance

    from freshstart.benchmarks.harness_model import HarnessModel

    subject = subject_of(model, CONTROLS)
    end, good, bad = 0, 1, 2
    pieces = [(" It ran.", " It sat there"), ("", "One day. Two days."), (" and so on" * 30, " and"), ("A. B. ", "C")]
    expected = []
    for context, continuation in pieces:
        text, start = context + continuation, len(context.rstrip())
        row, asked = [end], []
        for segment, begin in segments(text):
            for token, at in [(good, begin), *((i, begin + b) for i, b in tokens_of(subject, segment))]:
                asked += [len(row)] if at >= start else []
                row.append(token)
        asked = [place for place in asked if place > 1]  # the first control token is given
        if len(row) > 65:  # what is in front stays
            asked = [place - (len(row) - 65) for place in asked]
            row = row[:2] + row[len(row) - 63 :]
        logits = subject.model(input_ids=torch.tensor([row[:-1]])).logits[0].double()
        logits[:, [bad, *range(subject.tokenizer.size, 640)]] = -torch.inf
        log_p = torch.log_softmax(logits, -1)
        expected.append(sum(log_p[place - 1, row[place]].item() for place in asked))
    requests = [Instance("loglikelihood", {}, pair, 0, ("task", 0, 1)) for pair in pieces]
    answers = HarnessModel(subject, "good", 0, tmp_path).loglikelihood(requests)
    assert [log_p for log_p, _ in answers] == pytest.approx(expected, abs=1e-4)


def segments(text):
    from freshstart.scoring.segments import sentences

    ends = sentences(text)
    return [(text[begin:end], begin) for begin, end in zip([0, *ends], ends, strict=False)]


def tokens_of(subject, text):
    ids, characters = next(subject.tokenizer.encode([text]))
    return [(int(token), int(begin)) for token, (begin, _) in zip(ids, characters, strict=True)]


def test_what_was_answered_is_kept_and_generated_text_is_greedy(model, place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    subject, settings = subject_of(model), settings_of("words", "blimp_local", limit=8)
    found, items = run(subject, settings, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3  # one a task
    pooled = harness.by_item(items.to_arrow(), NO_CONTROL)["tasks.blimp_local.acc"]
    assert len(pooled) == 8 * len(PARADIGMS)
    assert sum(value for value, _ in pooled.values()) / len(pooled) == found["tasks"]["blimp_local"]["acc"]
    again, same = run(replace(subject, model=None), settings, tmp_path)
    assert again == found
    assert same.equals(items)

    [generated] = [answers for path in tmp_path.iterdir() if isinstance((answers := kept(path))[0], str)]
    texts = [json.loads(line)["text"] for line in Path("raw/lambada_test.jsonl").read_text().splitlines()[:8]]
    forbidden = list(subject.forbidden(NO_CONTROL))
    for text, answer in zip(texts, generated, strict=True):
        row = [0, *next(subject.tokenizer.encode([text[:60]]))[0].tolist()]
        begin = len(row)
        for _ in range(8):
            logits = subject.model(input_ids=torch.tensor([row])).logits[0, -1]
            logits[forbidden] = -torch.inf
            row.append(int(logits.argmax()))
            if row[-1] == 0 or " " in subject.tokenizer.decode(row[begin:]):
                break
        assert answer == subject.tokenizer.decode(row[begin:]).split(" ")[0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"suites": ["lambada_locl"]}, "know no task lambada_locl; the nearest: lambada_local"),
        (
            {"suites": ["lambada_local"]},
            "a data set of lambada_local can not be had: .*raw/lambada_test.jsonl'. Put the",
        ),
        ({"suites": ["hellaswag"]}, "a data set of hellaswag can not be had: .*Rowan/hellaswag.* set HF_HUB_OFFLINE=1"),
        ({"include_path": "elsewhere"}, "include_path elsewhere is no folder"),
    ],
)
def test_what_can_not_be_had_is_named(more, message, tmp_path, monkeypatch):
    import datasets

    shutil.copytree(ROOT / "conf/harness", tmp_path / "conf/harness")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=message):
        harness._loaded(settings_of("lambada_local", **more))


def test_described_tasks_are_those_of_lm_eval():
    """BLiMP's local files are the paradigms of lm-eval's group."""
    own = yaml.safe_load((Path(lm_eval.__file__).parent / "tasks/blimp/_blimp.yaml").read_text())["task"]
    local = yaml.safe_load((ROOT / "conf/harness/blimp.yaml").read_text())["task"]
    assert [task["task"] for task in local] == own
    for task in local:
        name = task["task"].removeprefix("blimp_")
        assert task["dataset_kwargs"]["data_files"] == f"raw/blimp/{name}.jsonl"
    described = yaml.safe_load((ROOT / benchmarks.FILE).read_text())
    groups = {yaml.safe_load(path.read_text())["group"] for path in (ROOT / "conf/harness").iterdir()}
    named = {name for block in described.values() if block["kind"] == "harness" for name in block["suites"]}
    assert groups == named
