"""benchmark_external: run every benchmark on a model that was trained elsewhere.

    python -m stages.benchmark_external --task toxicity --name paper-awr --seed 0 \\
        --settings data/settings/toxicity/benchmarks.json --external data/settings/toxicity/external/paper-awr.json \\
        --mle models/toxicity/mle/0 --heldout data/scored/toxicity/heldout --tokens data/tokens/toxicity \\
        --scorer data/scorer/toxicity --items reports/samples/toxicity/paper-awr/benchmarks \\
        --metrics reports/metrics/toxicity/paper-awr/benchmarks

Writes <benchmark>/0.parquet and <benchmark>/0.json below the last two. One process runs all of them, since dvc.yaml can
not cross such models with benchmarks; a run that was stopped goes on from what they kept below .state.
"""

from freshstart import files
from freshstart.doors import arguments, open_door
from freshstart.evaluation import MLE
from freshstart.names import external_by, settings_by, trained_by
from freshstart.params import ExternalModel
from freshstart.settings import read


def main() -> None:
    args = arguments(
        __doc__,
        "task name seed mle heldout tokens scorer",
        settings="file with the settings of all benchmarks",
        external="file with what params.yaml says of the model",
        items="folder for what each item gave (Parquet)",
        metrics="folder for the metrics (JSON)",
    )
    chosen = read(args.external, ExternalModel, settings_by(args.task))
    asked = files.read_json(args.settings, settings_by(args.task))

    from dataclasses import asdict
    from functools import partial
    from pathlib import Path

    from freshstart.benchmarks.asked import ask
    from freshstart.evaluation.external import of
    from freshstart.training.model import read_record

    mle = read_record(args.mle, trained_by(args.task, MLE, args.seed))
    for folder in (args.items, args.metrics):  # there even where no benchmark is asked
        files.fresh_folder(folder)
    weights = {path.name: files.sha256(path) for path in sorted(Path(chosen.model).glob("*")) if path.is_file()}
    identity = {"model": asdict(chosen), "files": weights, "mle": mle}
    made_by = external_by(args.name, chosen.revision is not None, "benchmark")
    ask(args, asked, partial(of, chosen, mle), identity, made_by)


if __name__ == "__main__":
    open_door(main)
