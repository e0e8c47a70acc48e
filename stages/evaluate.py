"""evaluate: sample the model of a cell or a finetuned arm, score the samples, and measure what it has lost.

    python -m stages.evaluate --task pep8 --objective awr --seed 0 --settings data/settings/pep8/evaluate.json \\
        --model models/pep8/awr/0 --mle models/pep8/mle/0 --reference data/reference/pep8/0 \\
        --heldout data/scored/pep8/heldout --tokens data/tokens/pep8 --scorer data/scorer/pep8 \\
        --samples reports/samples/pep8/awr/0.parquet --metrics reports/metrics/pep8/awr/0.json
"""

from freshstart import files
from freshstart.doors import arguments, open_door
from freshstart.evaluation import EvaluateSettings
from freshstart.names import evaluated_by, settings_by, trained_by
from freshstart.settings import read


def main() -> None:
    args = arguments(
        __doc__,
        "task objective seed model mle reference heldout tokens scorer",
        settings="file with the settings of evaluation",
        samples="file for the samples (Parquet)",
        metrics="file for the metrics (JSON)",
    )
    settings = read(args.settings, EvaluateSettings, settings_by(args.task))

    from freshstart.evaluation.context import Context
    from freshstart.evaluation.evaluate import evaluate
    from freshstart.evaluation.subject import of_folder

    cell = (args.task, args.objective, args.seed)
    context = Context.of_door(args, settings)
    subject = of_folder(args.model, trained_by(*cell), context.device)
    metrics = evaluate(subject, context, args.samples, evaluated_by(*cell))
    files.write_json(args.metrics, metrics)
    bad = metrics["under"][subject.asked[0]]["misalignment"] if "under" in metrics else {}
    mean = f"misalignment {bad['mean']:.5f} [{bad['ci_low']:.5f}, {bad['ci_high']:.5f}]" if bad.get("mean") else "done"
    print(f"{mean}, n = {bad.get('n', 0)}")


if __name__ == "__main__":
    open_door(main)
