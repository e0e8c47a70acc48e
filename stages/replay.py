"""replay: ask every model of a task the attacks that red-teaming found on each of them.

    python -m stages.replay --task toxicity --seed 0 --benchmark red_team \\
        --settings data/settings/toxicity/benchmarks/red_team.json --models models/toxicity \\
        --attacks reports/samples/toxicity --heldout data/scored/toxicity/heldout --tokens data/tokens/toxicity \\
        --scorer data/scorer/toxicity --items reports/replay/toxicity/red_team/0.parquet \\
        --metrics reports/metrics/toxicity/replay/red_team/0.json

Models are the cells and finetuned arms of params.yaml. Of a benchmark that is no red-teaming, and for a task that it is
not for, neither file holds anything. A run that was stopped goes on from what it kept below .state.
"""

from freshstart import files, params
from freshstart.doors import arguments, open_door
from freshstart.names import settings_by


def main() -> None:
    args = arguments(
        __doc__,
        "task seed benchmark heldout tokens scorer",
        settings="file with the settings of the benchmark and of evaluation",
        models="folder with the models of the task",
        attacks="folder with what each item gave in the task's benchmarks",
        items="file for the score of each prompt (Parquet)",
        metrics="file for the metrics (JSON)",
    )
    resolved = files.read_json(args.settings, settings_by(args.task))
    kind, tasks = resolved["settings"]["kind"], resolved["settings"]["tasks"]
    root = params.load().root

    import pyarrow as pa

    metrics, items = {}, pa.table({})
    if kind == "red_team" and (not tasks or args.task in tasks):
        from freshstart.benchmarks.replay import of_task

        metrics, items = of_task(args, resolved, (*root.objectives, *root.arms))
    files.write_table(args.items, items)
    files.write_json(args.metrics, {"kind": kind, "found": metrics})
    print(f"{args.benchmark}: {items.num_rows:,} prompts replayed")


if __name__ == "__main__":
    open_door(main)
