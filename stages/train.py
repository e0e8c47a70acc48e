"""train: train one cell, or go on with one that was stopped.

    python -m stages.train --task pep8 --objective awr --seed 0 --settings data/settings/pep8/awr/train.json \\
        --tokens data/tokens/pep8 --shards data/shards/pep8/awr --tokenizer data/tokenizer/pep8 \\
        --output models/pep8/awr/0 --curve reports/curves/pep8/awr/0.csv

The budget and the objective's numbers come with the shards. Writes a model folder of the hub format and the curve of
its losses. Checkpoints lie in .state/checkpoints. Needs torch, transformers, numpy, safetensors and pyarrow alone.
FRESHSTART_LAUNCH starts several processes (torchrun, srun, Ray Train), FRESHSTART_MICRO_BATCH splits batches:
freshstart/training/launch.py says how.
"""

import sys

from freshstart.doors import arguments, open_door
from freshstart.names import settings_by
from freshstart.settings import read
from freshstart.training import TrainSettings
from freshstart.training.launch import joined, launched


def main() -> None:
    args = arguments(
        __doc__,
        "task objective seed tokens shards tokenizer",
        settings="file with the cell's settings",
        output="folder for the model",
        curve="file for the curve (CSV)",
    )
    settings = read(args.settings, TrainSettings, settings_by(args.task))
    if launched("stages.train", sys.argv[1:]):
        return

    from freshstart.training.loop import train
    from freshstart.training.run import Inputs, pretraining

    inputs = Inputs(**{name: getattr(args, name) for name in Inputs.__dataclass_fields__})
    with joined() as group:
        record = train(*pretraining(inputs, settings), group)
    if group.leads:
        print(f"{record['positions']:,} positions, {record['epochs']:.2f} epochs, {record['documents']:,} documents")


if __name__ == "__main__":
    open_door(main)
