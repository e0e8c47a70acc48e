"""reference: draw once the texts of the model that a task's cells of a seed are compared with.

    python -m stages.reference --task pep8 --seed 0 --settings data/settings/pep8/reference.json \\
        --mle models/pep8/mle/0 --scorer data/scorer/pep8 --output data/reference/pep8/0

Writes texts.parquet (text, tokens, and by segment scores, log p and numbers of tokens) and reference.json.
"""

from freshstart import files
from freshstart.doors import arguments, open_door
from freshstart.evaluation import ReferenceSettings
from freshstart.names import settings_by
from freshstart.settings import restore


def main() -> None:
    args = arguments(
        __doc__,
        "task seed mle scorer",
        settings="file with the settings of the reference",
        output="folder for the reference's texts",
    )
    chosen = files.read_json(args.settings, settings_by(args.task))
    settings = restore(ReferenceSettings, chosen["settings"])

    import torch

    from freshstart.allocator import keep_memory
    from freshstart.evaluation.reference import Task, draw

    torch.set_num_threads(chosen["threads"])
    keep_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task = Task(args.task, args.seed, args.mle, args.scorer, device, chosen["logit_gib"])
    count = draw(settings, task, chosen["min_characters"], chosen["batch_size"], args.output)
    print(f"{count} texts of {settings.model} drawn")


if __name__ == "__main__":
    open_door(main)
