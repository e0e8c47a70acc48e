"""finetune: take a task's mle model, at a share of its budget, further with another objective.

    python -m stages.finetune --task pep8 --objective conditional --share 0.5 --seed 0 \\
        --settings data/settings/pep8/conditional/train.json --own data/settings/pep8/conditional/finetune.json \\
        --tokens data/tokens/pep8 --shards data/shards/pep8/conditional --tokenizer data/tokenizer/pep8 \\
        --pretrained models/pep8/mle/0 --rest data/shards/pep8/conditional-from-0.5/0 \\
        --output models/pep8/conditional-from-0.5/0 --curve reports/curves/pep8/conditional-from-0.5/0.csv

It trains for what is left of the budget on what mle has not read: the rows left of the plain stream, or the documents
without a token in a row that mle has read. Starts from the snapshot of mle at that share (train.every.snapshots), with
a new optimizer. Stops, resumes and is launched like the stage train.
"""

import sys

from freshstart import files
from freshstart.doors import arguments, open_door
from freshstart.names import settings_by
from freshstart.settings import read, restore
from freshstart.training import FinetuneSettings, TrainSettings
from freshstart.training.launch import joined, launched


def main() -> None:
    args = arguments(
        __doc__,
        "task objective share seed tokens shards tokenizer",
        settings="file with the settings of the objective's training",
        own="file with what finetuning does in another way",
        pretrained="folder of the task's mle model",
        rest="folder for the shards of what mle has left",
        output="folder for the model",
        curve="file for the curve (CSV)",
    )
    settings = read(args.settings, TrainSettings, settings_by(args.task))
    finetune = files.read_json(args.own, settings_by(args.task))
    if launched("stages.finetune", sys.argv[1:]):
        return

    from freshstart.finetuning import Arm, finetuning
    from freshstart.training.loop import train
    from freshstart.training.run import Inputs, pretraining

    changes = restore(FinetuneSettings, finetune["settings"])
    arm = Arm(args.share, changes, args.pretrained, args.rest, finetune["corpus_seed"])
    inputs = Inputs(**{name: getattr(args, name) for name in Inputs.__dataclass_fields__})
    with joined() as group:
        record = train(*finetuning(*pretraining(inputs, settings), inputs, arm, group), group)
    if group.leads:
        print(
            f"{record['positions']:,} positions after {record['finetuned']['from_positions']:,} of mle, "
            f"{record['epochs']:.2f} epochs, {record['documents']:,} documents"
        )


if __name__ == "__main__":
    open_door(main)
