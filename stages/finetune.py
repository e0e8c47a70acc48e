"""finetune: take a task's mle model, at a share of its budget, further with another objective.

    python -m stages.finetune --task pep8 --objective conditional --share 0.5 --seed 0 --tokens data/tokens/pep8 \\
        --shards data/shards/pep8/conditional --tokenizer data/tokenizer/pep8 --pretrained models/pep8/mle/0 \\
        --rest data/shards/pep8/conditional-from-0.5/0 --output models/pep8/conditional-from-0.5/0 \\
        --curve reports/curves/pep8/conditional-from-0.5/0.csv

Reads train and finetune of the scale file. It trains for what is left of the budget on what mle has not read: the rows
left of the plain stream, or the documents without a token in a row that mle has read. Starts from the snapshot of mle
at that share (train.every.snapshots), with a new optimizer. Stops, resumes and is launched like the stage train.
"""

import sys

from freshstart import params
from freshstart.doors import arguments, open_door
from freshstart.training import FinetuneSettings, TrainSettings
from freshstart.training.launch import hand_over, joined


def main() -> None:
    given = arguments(
        __doc__,
        "task",
        "objective",
        "share",
        "seed",
        tokens="folder with the token streams",
        shards="folder of the objective's shards",
        tokenizer="folder of the tokenizer",
        pretrained="folder of the task's mle model",
        rest="folder for the shards of what mle has left",
        output="folder for the model",
        curve="file for the curve (CSV)",
    )
    everything = params.load()
    task, name = everything.task(given.task), everything.objective(given.objective)
    settings = everything.model(TrainSettings, "train", task)
    own = everything.model(FinetuneSettings, "finetune", task)
    if hand_over("stages.finetune", sys.argv[1:]):
        return

    from freshstart.training.cell import carried_out, pretraining
    from freshstart.training.finetuning import finetuning

    with joined() as group:
        run, identity = pretraining(
            task, name, given.seed, settings, given.tokens, given.shards, given.output, given.curve
        )
        corpus_seed = everything.root.corpus_seed
        run, identity = finetuning(
            run, identity, own, given.share, given.pretrained, given.tokens, given.rest, corpus_seed, group
        )
        record = carried_out(run, identity, group, given.tokenizer)
        if group.leads:
            print(
                f"{record['positions']:,} positions after {identity['finetuned']['from_positions']:,} of mle, "
                f"{record['epochs']:.2f} epochs, {record['documents']:,} documents"
            )


if __name__ == "__main__":
    open_door(main, warm=True)
