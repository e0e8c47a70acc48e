"""evaluate_external: measure a model that was trained elsewhere as the cells of a task are measured.

    python -m stages.evaluate_external --task toxicity --name paper-awr --seed 0 \\
        --settings data/settings/toxicity/evaluate.json --external data/settings/toxicity/external/paper-awr.json \\
        --mle models/toxicity/mle/0 --reference data/reference/toxicity/0 \\
        --heldout data/scored/toxicity/heldout --tokens data/tokens/toxicity --scorer data/scorer/toxicity \\
        --samples reports/samples/toxicity/paper-awr/0.parquet --metrics reports/metrics/toxicity/paper-awr/0.json

Its segments, and the threshold of good ones, are those of the task's mle model.
"""

from freshstart import files
from freshstart.doors import arguments, open_door
from freshstart.evaluation import MLE, EvaluateSettings
from freshstart.names import external_by, settings_by, trained_by
from freshstart.params import ExternalModel
from freshstart.settings import read


def main() -> None:
    args = arguments(
        __doc__,
        "task name seed mle reference heldout tokens scorer",
        settings="file with the settings of evaluation",
        external="file with what params.yaml says of the model",
        samples="file for the samples (Parquet)",
        metrics="file for the metrics (JSON)",
    )
    settings = read(args.settings, EvaluateSettings, settings_by(args.task))
    chosen = read(args.external, ExternalModel, settings_by(args.task))

    from freshstart.evaluation.context import Context
    from freshstart.evaluation.evaluate import evaluate
    from freshstart.evaluation.external import of
    from freshstart.training.model import read_record

    context = Context.of_door(args, settings)
    subject = of(chosen, read_record(args.mle, trained_by(args.task, MLE, args.seed)), context.device)
    metrics = evaluate(subject, context, args.samples, external_by(args.name, chosen.revision is not None))
    files.write_json(args.metrics, metrics)
    print(f"{args.name}: {len(settings.measures)} measures, {args.metrics}")


if __name__ == "__main__":
    open_door(main)
