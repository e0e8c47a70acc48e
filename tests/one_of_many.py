"""Trains the small run of test_training as one of the processes that a launcher started; not a test by itself.

torchrun --nproc_per_node=2 tests/one_of_many.py '{"folder": "...", "objective": "awr", "settings": {...}}'
"""

import json
import sys
from dataclasses import replace
from pathlib import Path


def main() -> None:
    import torch
    from test_training import SETTINGS, run

    from freshstart.training.launch import joined
    from freshstart.training.loop import train

    options = json.loads(sys.argv[1])
    torch.set_default_dtype(getattr(torch, options.get("dtype", "float64")))
    settings = replace(SETTINGS, **options["settings"])
    positions = options["steps"] * settings.batch_size * settings.context
    with joined() as group:
        training = run(Path(options["folder"]), options["objective"], settings, positions)
        train(training, {"asked": options["name"]}, group)


if __name__ == "__main__":
    main()
