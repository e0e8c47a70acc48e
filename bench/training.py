"""Training: our loop against others on the same work, objectives against mle, memory against the size of the shards.

    python -m bench.training
    python -m bench.training --rows gpu

Every row is printed as one line of JSON when it is known. Without ``--rows`` the document is
``reports/bench/training.json``; one group of rows alone is kept beside it, as ``training-<rows>.json``.

``cpu``: a GPT-2 of 1.3 million parameters by our loop, by ``transformers.Trainer`` and by a loop written out by hand
in the manner of nanoGPT; same tokens, batch, optimizer (AdamW), clipping, precision, threads and number of steps.
``quick``: the objectives at the shape, the optimizer (Muon) and the numbers of conf/scale/quick.yaml.
``memory``: the peak of a process that trains on 20 MB, and on 2 GB of shards, by kind of page. File-mapped pages are
the kernel's to drop; anonymous ones may grow by the order of the rows alone, some times 8 bytes a row.
``gpu``: GPT-2 of 124 million parameters in bf16, compiled, against the rate of a large matrix product on that card.

Tokens are random, in segments of ten of which a fifth is bad: what a step costs does not depend on the text. How
seconds are taken stands in ``bench/_clock.py``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench import _clock, _gpu, _nano, _resident, _steps, _trainer, report
from bench._steps import QUICK, QUICK_VOCABULARY, SMALL, SMALL_VOCABULARY

TURNS, CPU_TURNS, WARM, STEPS, QUICK_STEPS = 5, 3, 16, 48, 160
CPU = torch.device("cpu")


def main() -> None:
    groups = {"cpu": cpu, "quick": quick, "memory": _resident.rows, "gpu": _gpu.rows}
    parser = argparse.ArgumentParser(prog="python -m bench.training", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", choices=groups, help="one group of rows alone")
    only = parser.parse_args().rows
    chosen = [only] if only else [name for name in groups if name != "gpu" or torch.cuda.is_available()]
    if only == "gpu" and not torch.cuda.is_available():
        sys.exit("--rows gpu needs a GPU that torch can use, and torch.cuda.is_available() says that there is none")
    rows = []
    for name in chosen:
        for row in groups[name]():
            rows.append({"rows": name, **row})
            print(json.dumps(rows[-1]), flush=True)
    packages = ("torch", "transformers", "numpy", *(() if _trainer.MISSING else ("accelerate",)))
    report(f"training-{only}" if only else "training", sizes(chosen), rows, packages)


def sizes(chosen: list[str]) -> dict[str, Any]:
    described = {
        "cpu": _steps.shape(SMALL, SMALL_VOCABULARY, turns=CPU_TURNS, warm=WARM, steps=STEPS),
        "quick": _steps.shape(QUICK, QUICK_VOCABULARY, turns=TURNS, warm=WARM, steps=QUICK_STEPS),
        "memory": _steps.shape(QUICK, QUICK_VOCABULARY, steps=_resident.STEPS),
        "gpu": _gpu.sizes(),
    }
    return {name: described[name] for name in chosen}


def cpu() -> Iterator[dict[str, Any]]:
    """One row a way: tokens per second, and how many times ours that is in the same turn."""
    steps = WARM + STEPS
    with tempfile.TemporaryDirectory() as name:
        stream = _steps.write(Path(name), steps * SMALL.batch_size * SMALL.context + 1000, SMALL_VOCABULARY)
        file = Path(name, "tokens.npy")
        for precision in ("fp32", "bf16"):
            for threads in (2, 1):
                settings = replace(SMALL, precision=precision, threads=threads)
                same = {"settings": settings, "vocabulary": SMALL_VOCABULARY, "steps": steps}
                loops = {
                    "ours": partial(_steps.ours, "mle", stream, **same, device=CPU),
                    "transformers.Trainer": partial(_trainer.train, file, **same),
                    "hand-written, nanoGPT's manner": partial(_nano.train, file, **same, device=CPU),
                }
                if _trainer.MISSING:
                    del loops["transformers.Trainer"]
                seconds = _clock.in_turns(loops, CPU_TURNS, WARM, STEPS)
                for way, spent in seconds.items():
                    yield {
                        "way": way,
                        "precision": precision,
                        "threads": threads,
                        **_clock.speed(STEPS * settings.batch_size * settings.context, spent),
                        "speed_over_ours": _clock.ratio(seconds["ours"], spent),
                    }
    if _trainer.MISSING:
        yield {"way": "transformers.Trainer", "skipped": _trainer.MISSING}


def quick() -> Iterator[dict[str, Any]]:
    """One row an objective: tokens per second, and its time over that of mle in the same turn."""
    steps = WARM + QUICK_STEPS
    with tempfile.TemporaryDirectory() as name:
        stream = _steps.write(Path(name), steps * QUICK.batch_size * QUICK.context + 1000, QUICK_VOCABULARY)
        same = {"settings": QUICK, "vocabulary": QUICK_VOCABULARY, "steps": steps, "device": CPU}
        seconds = _clock.in_turns(
            {objective: partial(_steps.ours, objective, stream, **same) for objective in _steps.OBJECTIVES},
            TURNS,
            WARM,
            QUICK_STEPS,
        )
    for objective, spent in seconds.items():
        yield {
            "objective": objective,
            "precision": QUICK.precision,
            "threads": QUICK.threads,
            **_clock.speed(QUICK_STEPS * QUICK.batch_size * QUICK.context, spent),
            "time_over_mle": _clock.ratio(spent, seconds["mle"]),
        }


if __name__ == "__main__":
    main()
