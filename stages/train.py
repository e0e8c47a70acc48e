"""train: train one cell, or go on with one that was stopped.

    python -m stages.train --task pep8 --objective awr --seed 0 --tokens data/tokens/pep8 \\
        --shards data/shards/pep8/awr --tokenizer data/tokenizer/pep8 --output models/pep8/awr/0 \\
        --curve reports/curves/pep8/awr/0.csv

Reads train.every and train.<task> of the scale file; the budget and the objective's numbers come with the shards.
Writes a model folder of the hub format and the curve of its losses. Checkpoints lie in .state/checkpoints.
FRESHSTART_LAUNCH starts several processes (torchrun, srun, Ray Train), FRESHSTART_MICRO_BATCH splits batches:
freshstart/training/launch.py says how.
"""

import sys

from freshstart import params
from freshstart.doors import arguments, open_door
from freshstart.training import TrainSettings
from freshstart.training.launch import hand_over, joined


def main() -> None:
    given = arguments(
        __doc__,
        "task",
        "objective",
        "seed",
        tokens="folder with the token streams",
        shards="folder of the objective's shards",
        tokenizer="folder of the tokenizer",
        output="folder for the model",
        curve="file for the curve (CSV)",
    )
    everything = params.load()
    task, name = everything.task(given.task), everything.objective(given.objective)
    settings = everything.model(TrainSettings, "train", task)
    if hand_over("stages.train", sys.argv[1:]):
        return

    from freshstart.training.cell import carried_out, pretraining

    with joined() as group:
        run, identity = pretraining(
            task, name, given.seed, settings, given.tokens, given.shards, given.output, given.curve
        )
        record = carried_out(run, identity, group, given.tokenizer)
        if group.leads:
            print(
                f"{record['positions']:,} positions, {record['epochs']:.2f} epochs, {record['documents']:,} documents"
            )


if __name__ == "__main__":
    open_door(main, warm=True)
