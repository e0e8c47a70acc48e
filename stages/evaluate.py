"""evaluate: sample one cell's model, score the samples, and measure what it has lost.

    python -m stages.evaluate --task pep8 --objective awr --seed 0 --model models/pep8/awr/0 \\
        --reference models/pep8/mle/0 --tokens data/tokens/pep8 --shards data/shards/pep8/awr \\
        --scorer data/scorer/pep8 --samples reports/samples/pep8/awr/0.parquet --metrics reports/metrics/pep8/awr/0.json

Reads evaluate.every and evaluate.<task> of the scale file.
"""

from freshstart import files, params
from freshstart.doors import arguments, open_door
from freshstart.evaluation import EvaluateSettings


def main() -> None:
    given = arguments(
        __doc__,
        "task",
        "objective",
        "seed",
        model="folder of the model",
        reference="folder of the task's mle model",
        tokens="folder with the token streams",
        shards="folder of the objective's shards",
        scorer="folder of the scorer",
        samples="file for the samples (Parquet)",
        metrics="file for the metrics (JSON)",
    )
    everything = params.load()
    task, name = everything.task(given.task), everything.objective(given.objective)
    settings = everything.model(EvaluateSettings, "evaluate", task)

    from freshstart.evaluation.report import Cell, evaluate
    from freshstart.tokens.store import read_manifest

    threshold = read_manifest(given.shards, f"shards@{task}-{name}")["good_threshold"]
    cell = Cell(task, name, given.seed, given.model, given.reference, given.tokens, given.scorer, threshold)
    metrics = evaluate(cell, settings, given.samples)
    files.write_json(given.metrics, metrics)
    bad = metrics["misalignment"]
    print(
        f"misalignment {bad['mean']:.5f} [{bad['ci_low']:.5f}, {bad['ci_high']:.5f}], "
        f"{metrics['heldout']['bits_per_byte']['all']:.3f} bits per byte, n = {bad['n']}"
    )


if __name__ == "__main__":
    open_door(main, warm=True)
