"""benchmark: run a benchmark on the model of a cell or a finetuned arm.

    python -m stages.benchmark --task pep8 --objective awr --seed 0 --benchmark best_of_n \\
        --settings data/settings/pep8/benchmarks/best_of_n.json --model models/pep8/awr/0 --mle models/pep8/mle/0 \\
        --heldout data/scored/pep8/heldout --tokens data/tokens/pep8 --scorer data/scorer/pep8 \\
        --items reports/samples/pep8/awr/benchmarks --metrics reports/metrics/pep8/awr/benchmarks

Writes best_of_n/0.parquet and best_of_n/0.json below the last two. A run that was stopped goes on from what it kept
below .state. For a task that the benchmark is not for, neither file holds anything.
"""

from freshstart import files
from freshstart.doors import arguments, open_door
from freshstart.names import benchmarked_by, settings_by, trained_by


def main() -> None:
    args = arguments(
        __doc__,
        "task objective seed benchmark model mle heldout tokens scorer",
        settings="file with the settings of the benchmark and of evaluation",
        items="folder for what each item gave (Parquet)",
        metrics="folder for the metrics (JSON)",
    )
    asked = {args.benchmark: files.read_json(args.settings, settings_by(args.task))}

    from functools import partial

    from freshstart.benchmarks.asked import ask
    from freshstart.evaluation.subject import of_folder
    from freshstart.training.model import read_record

    cell = (args.task, args.objective, args.seed)
    load = partial(of_folder, args.model, trained_by(*cell))
    record = read_record(args.model, trained_by(*cell))
    identity = {"model": record, "weights": files.sha256(args.model / "model.safetensors")}
    ask(args, asked, load, identity | {"objective": args.objective}, benchmarked_by(*cell, args.benchmark))


if __name__ == "__main__":
    open_door(main)
