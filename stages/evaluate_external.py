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
        "task",
        "name",
        "seed",
        settings="file with the settings of evaluation",
        external="file with what params.yaml says of the model",
        mle="folder of the task's mle model",
        reference="folder of the reference's texts",
        heldout="folder with the scored held-out parts",
        tokens="folder with the token streams",
        scorer="folder of the scorer",
        samples="file for the samples (Parquet)",
        metrics="file for the metrics (JSON)",
    )
    settings = read(args.settings, EvaluateSettings, settings_by(args.task))
    chosen = read(args.external, ExternalModel, settings_by(args.task))

    import torch

    from freshstart.evaluation.context import Context
    from freshstart.evaluation.evaluate import evaluate
    from freshstart.evaluation.external import of
    from freshstart.training.model import read_record

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    mle = read_record(args.mle, trained_by(args.task, MLE, args.seed))
    subject = of(chosen, mle, device)
    context = Context(
        task=args.task,
        seed=args.seed,
        settings=settings,
        device=device,
        scorer_folder=args.scorer,
        heldout=args.heldout,
        tokens=args.tokens,
        mle=args.mle,
        reference_folder=args.reference,
    )
    metrics = evaluate(subject, context, args.samples, external_by(args.name, chosen.revision is not None))
    files.write_json(args.metrics, metrics)
    print(f"{args.name}: {len(settings.measures)} measures, {args.metrics}")


if __name__ == "__main__":
    open_door(main)
