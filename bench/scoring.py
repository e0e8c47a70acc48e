"""Scorers against the original's way, on one core; and workers against one another.

    python -m bench.scoring

The first rows are CPU seconds on the same documents in one process (see ``bench/_pep8.py``, ``_pii.py``,
``_detoxify.py``). The others score one corpus with pep8 by one worker, by two, and by two processes of a plain
``multiprocessing`` pool that do the same work, cache and table included. Start-up is left out by taking the time that
more parts take more: of ``PARTS`` against ``FEW`` parts. The last rows score a corpus, then the same with a tenth more
and cut to other parts: with the cache of the first, and without.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import _corpus, _detoxify, _pep8, _pii, report
from freshstart import files, params, scorers
from freshstart.corpora import synthetic
from freshstart.pool import ONE_THREAD
from freshstart.scoring.pool import made_here, score_parts
from freshstart.scoring.table import score_part
from stages.scorer import made

FEW, PARTS, PART_CHARACTERS = 4, 168, 3_000_000  # two workers need two minutes and a little more for PARTS
PACKAGES = ("pycodestyle", "scrubadub", "phonenumbers", "detoxify", "transformers", "torch", "ray")


def main() -> None:
    os.environ.update(ONE_THREAD)
    rows = [*_pep8.measure(), *_pii.measure(), *_detoxify.measure(), *learned(), *workers(), *growth()]
    report("scoring", {"parts": PARTS, "part_characters": PART_CHARACTERS}, rows, PACKAGES)


def learned() -> Iterator[dict[str, Any]]:
    """CPU seconds of the scorers that learn, on one core, on sentences of the synthetic corpus.

    The classifier as at quick, the encoder from scratch at its defaults (but for one epoch: what it has learned does
    not change its cost), and the encoder's folder read as any text-classification model of the hub's format.
    """
    everything = params.load()
    at_quick = everything.block("scorer", "toxicity")
    rows = {key: at_quick[key] for key in ("segments", "labelled", "rows", "noise")}
    installed = {"transformers": version("transformers")}
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "encoder"
        blocks: dict[str, dict[str, Any]] = {
            "classifier": at_quick,
            "encoder": {"kind": "encoder", **rows, **installed, "epochs": 1},
            "hf_classifier": {
                "kind": "hf_classifier",
                "segments": at_quick["segments"],
                **installed,
                "model": str(model),
                "label": "0",
                "activation": "sigmoid",
            },
        }
        for kind, block in blocks.items():
            folder = Path(name) / kind
            settings, _ = scorers.settings_and_judge(block, f"bench: scorer {kind}")
            made(settings, folder)
            scorer, _ = scorers.load(folder, "toxicity")
            texts = [text for text, _ in synthetic.labelled(20_000, 0.0, 1)]
            begun = time.process_time()
            scorer.score_texts(texts)
            spent = time.process_time() - begun
            characters = sum(map(len, texts))
            yield {"scorer": kind, "way": "freshstart", "characters": characters, "cpu_seconds": round(spent, 3)}


def workers(parts: int = PARTS, few: int = FEW) -> list[dict[str, Any]]:
    """Seconds for one, and for two workers of Ray, and for a pool of two, for the same parts."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record = _pep8_scorer(folder / "scorer")
        characters = _corpus.write(folder / "corpus", parts, PART_CHARACTERS)
        sources = files.parts(folder / "corpus", "bench")
        ways = {
            "ray, one worker": (partial(_on_ray, workers=1), parts // 2),
            "ray, two workers": (partial(_on_ray, workers=2), parts),
            "multiprocessing, two workers": (_in_pool, parts),
        }
        for way, (score, most) in ways.items():
            seconds = {}
            for count in (few, most):
                os.environ["FRESHSTART_STATE"] = str(folder / "state")
                begun = time.perf_counter()
                score([(path, folder / "scored" / path.name) for path in sources[:count]], folder / "scorer", record)
                seconds[count] = time.perf_counter() - begun
                for below in ("state", "scored"):
                    shutil.rmtree(folder / below)
            spent = seconds[most] - seconds[few]
            rate = (most - few) / parts * characters / spent
            rows.append(
                {
                    "scorer": "pep8",
                    "way": way,
                    "parts": most,
                    "seconds": round(seconds[most], 1),
                    "start_up_seconds": round(seconds[few] - few * spent / (most - few), 1),
                    "characters_per_second": round(rate),
                }
            )
            print(rows[-1], file=sys.stderr, flush=True)
    for row in rows:
        row["speed_over_one_worker"] = round(row["characters_per_second"] / rows[0]["characters_per_second"], 2)
    return rows


def growth(parts: int = 20) -> list[dict[str, Any]]:
    """Documents scored anew, and seconds, for a corpus that grew by a tenth; the tables must be equal byte for byte."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _pep8_scorer(folder / "scorer")
        _corpus.write(folder / "corpus", parts, PART_CHARACTERS)
        _corpus.write(folder / "grown", parts, int(PART_CHARACTERS * 1.1))
        documents = {
            corpus: sum(
                len(files.read_table(path, "bench", ["doc_id"])) for path in files.parts(folder / corpus, "bench")
            )
            for corpus in ("corpus", "grown")
        }
        digests = {}
        for way, corpus, state in (
            ("from nothing", "corpus", "warm"),
            ("grown by a tenth", "grown", "warm"),
            ("grown, from nothing", "grown", "cold"),
            ("shrunk again", "corpus", "warm"),
        ):
            os.environ["FRESHSTART_STATE"] = str(folder / state)
            sources = files.parts(folder / corpus, "bench")
            begun = time.perf_counter()
            anew = score_parts([(path, folder / way / path.name) for path in sources], folder / "scorer", "pep8", 2)
            spent = time.perf_counter() - begun
            digests[way] = [files.sha256(path) for path in files.parts(folder / way, "bench")]
            share = round(anew / documents[corpus], 4)
            rows.append({"scorer": "pep8", "way": way, "share_scored_anew": share, "seconds": round(spent, 1)})
            print(rows[-1], file=sys.stderr, flush=True)
        assert digests["grown by a tenth"] == digests["grown, from nothing"]
        assert digests["shrunk again"] == digests["from nothing"]
    return rows


def _pep8_scorer(folder: Path) -> dict[str, Any]:
    """Make the scorer of the task pep8; gives its record."""
    everything = params.load()
    scorers.make(scorers.settings(everything.block("scorer", "pep8"), everything.where("scorer", "pep8")), folder)
    return files.read_json(folder / scorers.RECORD, "scorer@pep8")


def _on_ray(pairs: list[tuple[Path, Path]], scorer: Path, record: dict[str, Any], workers: int) -> None:
    score_parts(pairs, scorer, "pep8", workers)


def _in_pool(pairs: list[tuple[Path, Path]], scorer: Path, record: dict[str, Any]) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(_one, [(source, target, scorer, record) for source, target in pairs], chunksize=1)


_LOADED: dict[Path, scorers.Scorer] = {}


def _one(source: Path, target: Path, folder: Path, record: dict[str, Any]) -> None:
    if folder not in _LOADED:
        _LOADED[folder], _ = scorers.load(folder, "pep8")
    score_part(source, target, lambda: _LOADED[folder], record["segments"], made_here(record))


if __name__ == "__main__":
    main()
