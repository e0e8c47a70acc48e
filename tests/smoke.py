"""`paper` at a size for a processor: its settings, with shapes, tokens and corpora scaled down here and nowhere else.

    python tests/smoke.py .state/smoke      # make smoke; ends with .state/smoke/reports/index.html

All three tasks, six objectives, finetuned arms from two shares, a named reference with another vocabulary size,
snapshots and judges. What comes from outside is a stand-in made here: text of this machine, a Detoxify checkpoint and
a reference of random weights, a spaCy pipeline of patterns. No figure of such a run means anything.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from conftest import PARAMS, ROOT, prose, python_files, read

SMALLER = """
corpus:
  every: {part_characters: 100_000}
  pep8: {train_characters: 450_000, heldout_characters: 30_000}
  pii: {train_characters: 450_000, heldout_characters: 30_000}
  toxicity: {train_characters: 450_000, heldout_characters: 30_000}
shards:
  every: {positions: 122_880} # a tenth is a batch of 512 rows, the largest that paper finetunes with
train:
  every:
    {layers: 1, width: 32, heads: 2, context: 24, batch_size: 16, log_every: 16, checkpoint_every: 100, threads: 1}
  pep8: {awr: {batch_size: 32}}
  toxicity: {rwr: {batch_size: 64}, awr: {batch_size: 64}}
evaluate:
  every:
    samples: 24
    max_new_tokens: 22
    batch_size: 16
    reference: {samples: 12, tokens: 16}
    heldout_tokens: 4_000
    memory_tokens: 50_000
    bootstrap: 100
    snapshot_samples: 8
    threads: 1
  pep8: {max_new_tokens: 22, reference: {samples: 12}}
"""
STAND_INS = """
scorer:
  pii: {names: {model: raw/spacy}}
  toxicity: {checkpoint: raw/detoxify/tiny.ckpt, encoder: raw/detoxify/encoder}
tokenizer:
  every: {name: raw/tokenizer}
  pep8: {name: raw/tokenizer}
evaluate:
  every: {reference: {model: raw/models/stranger, revision: null}}
  pep8: {reference: {model: raw/models/stranger}}
"""


def settings() -> dict:
    """`paper` with other numbers and stand-ins; raises KeyError or TypeError where a number is none of paper's."""
    scale = yaml.safe_load((ROOT / "conf/scale/paper.yaml").read_text())
    put(scale, yaml.safe_load(SMALLER), only_numbers=True)
    put(scale, yaml.safe_load(STAND_INS), only_numbers=False)
    return scale


def put(block: dict, changes: dict, only_numbers: bool) -> None:
    for key, value in changes.items():
        if isinstance(value, dict):
            put(block[key], value, only_numbers)
        elif only_numbers and not (type(block[key]) is type(value) is int and value < block[key]):
            raise TypeError(f"{key}: {value} is no smaller number than paper's {block[key]}")
        else:
            block[key] = value


def make(folder: Path) -> None:
    """The working tree in a folder of its own, with these settings and the stand-ins below raw/."""
    from test_pipeline import clone

    clone(folder)
    (folder / "conf/scale/smoke.yaml").write_text(yaml.safe_dump(settings(), sort_keys=False))
    chosen = "finetuned: [conditional, filtered, rwr, awr]\nfinetuned_from: [0.5, 0.9]\ninputs: {raw: raw}\n"
    kept = [line for line in PARAMS.splitlines() if not line.startswith(("finetuned", "inputs", "scale"))]
    (folder / "params.yaml").write_text("\n".join(["scale: smoke", *kept, chosen]))
    raw = folder / "raw"
    write_code(raw / "codeparrot")
    write_prose(raw / "pile")
    write_tweets(raw / "davidson/labeled_data.csv")
    write_models(raw)


def write_code(folder: Path) -> None:
    folder.mkdir(parents=True)
    texts = [read(path) for path in python_files(200, largest=8_000)]
    names = [f"repository-{number % 12}" for number in range(len(texts))]
    pq.write_table(pa.table({"content": texts, "repo_name": names}), folder / "part.parquet")


def write_prose(folder: Path, files: int = 12, characters: int = 600) -> None:
    """Short documents, so that some of each task are unread at nine tenths of mle's budget."""
    folder.mkdir(parents=True)
    texts = [text[i : i + characters] for _, text in prose() for i in range(0, min(len(text), 20_000), characters)]
    for number in range(files):
        with pa.output_stream(str(folder / f"{number:02d}.jsonl.zst"), compression="zstd") as file:
            for text in texts[number : 140 * files : files]:
                file.write(json.dumps({"text": text}).encode() + b"\n")


def write_tweets(path: Path) -> None:
    from freshstart.corpora import synthetic

    path.parent.mkdir(parents=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["tweet", "class"])
        rows.writerows((text, 0 if bad else 2) for text, bad in synthetic.labelled(400, 0.05, 0))


def write_models(raw: Path) -> None:
    import spacy
    from test_evaluation import other_model
    from test_neural_scorers import checkpoint, hub_folder, network

    from freshstart.tokens import END_OF_TEXT, TokenizerSettings
    from freshstart.tokens.tokenizer import make as make_tokenizer

    nlp = spacy.blank("en")
    patterns = [{"label": label, "pattern": name} for label, name in (("PERSON", "Guido"), ("ORG", "Python"))]
    nlp.add_pipe("entity_ruler").add_patterns(patterns)
    nlp.to_disk(raw / "spacy")
    model = network()
    hub_folder(raw / "detoxify/encoder", model, weights=False)
    checkpoint(raw / "detoxify/tiny.ckpt", model)
    plain = TokenizerSettings(vocabulary=600, end_of_text=END_OF_TEXT)
    make_tokenizer(plain, (text for _, text in prose()[:40]), raw / "tokenizer")
    other_model(raw / "models/stranger")


def run(folder: Path) -> None:
    state = {"FRESHSTART_STATE": str(folder / ".state"), "FRESHSTART_WORKERS": "0", "DVC_NO_ANALYTICS": "1"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "freshstart", "repro"]
    subprocess.run(command, cwd=folder, env=os.environ | state | {"PATH": path}, check=True)


if __name__ == "__main__":
    from freshstart.files import fresh_folder

    folder = fresh_folder(sys.argv[1]).resolve()
    make(folder)
    run(folder)
    print(folder / "reports/index.html")
