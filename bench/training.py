"""Positions per second of each objective at the quick scale, in turns, as a ratio to mle.

python -m bench.training
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from bench import report
from freshstart import objectives, params
from freshstart.objectives import TrainScores
from freshstart.tokens.store import Stream
from freshstart.training import TrainSettings
from freshstart.training.loop import Run, Vocabulary, train
from freshstart.training.rows import Rows

STEPS, TURNS, VOCABULARY = 60, 5, 1024


def stream(tokens: int) -> Stream:
    """Random tokens in segments of ten, a fifth of them bad: what a step costs does not depend on the text."""
    rng = np.random.default_rng(0)
    ends = np.arange(10, tokens + 1, 10)
    scores = np.where(rng.random(len(ends)) < 0.2, rng.random(len(ends)), 0).astype(np.float32)
    return Stream(rng.integers(0, VOCABULARY - 3, tokens).astype(np.uint16), ends, scores, np.array([tokens]))


def main() -> None:
    everything = params.load()
    task = everything.root.tasks[0]
    settings = everything.model(TrainSettings, "train", task)
    positions = STEPS * settings.batch_size * settings.context
    data = stream(positions + 1000)
    vocabulary = Vocabulary(VOCABULARY, VOCABULARY - 3, VOCABULARY - 2, VOCABULARY - 1)
    seconds: dict[str, list[float]] = {name: [] for name in everything.root.objectives}
    for turn in range(TURNS + 1):  # the first turn warms up
        for name, measured in seconds.items():
            chosen = objectives.settings(everything.sections["shards"], task, name, str(everything.file))
            objective = objectives.load(name)
            scores = data.segment_scores
            numbers = objective.resolve(chosen, TrainScores(scores, np.full(len(scores), 10), scores))
            with tempfile.TemporaryDirectory() as folder:
                os.environ["FRESHSTART_STATE"] = folder
                rows = Rows(data, settings.context, "bench", 0)
                place = Path(folder)
                run = Run(name, settings, objective, numbers, rows, vocabulary, positions, 0, place / "m", place / "c")
                begun = time.perf_counter()
                train(run, {"bench": name, "turn": turn})
                if turn:
                    measured.append(time.perf_counter() - begun)
    typical = {name: statistics.median(measured) for name, measured in seconds.items()}
    rows = [
        {"objective": name, "positions_per_second": round(positions / spent), "time_over_mle": spent / typical["mle"]}
        for name, spent in typical.items()
    ]
    sizes = {
        name: getattr(settings, name) for name in ("layers", "width", "context", "batch_size", "threads", "precision")
    }
    report("training", {**sizes, "steps": STEPS, "turns": TURNS}, rows, ("torch", "transformers"))


if __name__ == "__main__":
    main()
