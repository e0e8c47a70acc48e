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
from freshstart.evaluation import MLE
from freshstart.names import benchmarked_by, settings_by, trained_by


def main() -> None:
    args = arguments(
        __doc__,
        "task",
        "seed",
        "benchmark",
        settings="file with the settings of the benchmark and of evaluation",
        models="folder with the models of the task",
        attacks="folder with what each item gave in the task's benchmarks",
        heldout="folder with the scored held-out parts",
        tokens="folder with the token streams",
        scorer="folder of the scorer",
        items="file for the score of each prompt (Parquet)",
        metrics="file for the metrics (JSON)",
    )
    resolved = files.read_json(args.settings, settings_by(args.task))
    kind, tasks = resolved["settings"]["kind"], resolved["settings"]["tasks"]
    root = params.load().root

    import pyarrow as pa

    metrics, items = {}, pa.table({})
    if kind == "red_team" and (not tasks or args.task in tasks):
        import shutil
        from dataclasses import replace

        from freshstart.benchmarks import red_team
        from freshstart.benchmarks.asked import context_of
        from freshstart.benchmarks.replay import METRICS, replay
        from freshstart.evaluation.metrics import check
        from freshstart.evaluation.subject import Subject, of_folder
        from freshstart.settings import restore
        from freshstart.training.model import read_record

        args.mle = args.models / MLE / str(args.seed)
        context = context_of(args, resolved)
        names = (*root.objectives, *root.arms)
        trained = {name: trained_by(args.task, name, args.seed) for name in names}
        folders = {name: args.models / name / str(args.seed) for name in names}
        paths = {name: args.attacks / name / "benchmarks" / args.benchmark / f"{args.seed}.parquet" for name in names}
        pools = {
            name: files.read_table(path, benchmarked_by(args.task, name, args.seed, args.benchmark))
            for name, path in paths.items()
        }

        def load(name: str) -> Subject:
            subject = of_folder(folders[name], trained[name], context.device)
            return replace(subject, logit_gib=context.settings.logit_gib)

        identity = {
            "models": {name: read_record(folders[name], trained[name]) for name in names},
            "attacks": {name: files.sha256(path) for name, path in paths.items()},
            "task": args.task,
            "seed": args.seed,
        }
        state = files.state_folder("replay", files.digest(identity | resolved)[:32])
        settings = restore(red_team.Settings, resolved["settings"])
        metrics, items = replay(load, pools, settings, context, state)
        check(metrics, METRICS, str(args.metrics), f"replay@{args.task}-{args.seed}-{args.benchmark}", head=())
        shutil.rmtree(state, ignore_errors=True)
    files.write_table(args.items, items)
    files.write_json(args.metrics, {"kind": kind, "found": metrics})
    print(f"{args.benchmark}: {items.num_rows:,} prompts replayed")


if __name__ == "__main__":
    open_door(main)
