"""benchmark: run a benchmark on the model of a cell.

    python -m stages.benchmark --task pep8 --objective awr --seed 0 --name best_of_n \\
        --settings data/settings/pep8/benchmarks/best_of_n.json --model models/pep8/awr/0 --mle models/pep8/mle/0 \\
        --heldout data/scored/pep8/heldout --tokens data/tokens/pep8 --scorer data/scorer/pep8 \\
        --items reports/samples/pep8/awr/best_of_n/0.parquet --metrics reports/metrics/pep8/awr/best_of_n/0.json

A run that was stopped goes on from what it kept below .state. For a task that the benchmark is not for, neither file
holds anything.
"""

import shutil

from freshstart import benchmarks, files
from freshstart.doors import arguments, open_door
from freshstart.evaluation import EvaluateSettings
from freshstart.names import benchmarked_by, settings_by, trained_by
from freshstart.settings import restore


def main() -> None:
    args = arguments(
        __doc__,
        "task",
        "objective",
        "seed",
        "name",
        settings="file with the settings of the benchmark and of evaluation",
        model="folder of the model",
        mle="folder of the task's mle model",
        heldout="folder with the scored held-out parts",
        tokens="folder with the token streams",
        scorer="folder of the scorer",
        items="file for what each item gave (Parquet)",
        metrics="file for the metrics (JSON)",
    )
    resolved = files.read_json(args.settings, settings_by(args.task))
    kind = benchmarks.load(resolved["settings"]["kind"])
    settings = restore(kind.Settings, resolved["settings"])

    import pyarrow as pa
    import torch

    if settings.tasks and args.task not in settings.tasks:
        files.write_table(args.items, pa.table({}))
        files.write_json(args.metrics, {"kind": settings.kind, "found": {}})
        print(f"{args.name} is not for {args.task}")
        return

    from dataclasses import replace

    from freshstart.allocator import keep_memory
    from freshstart.evaluation.context import Context
    from freshstart.evaluation.metrics import check
    from freshstart.evaluation.subject import of_folder

    how = restore(EvaluateSettings, resolved["evaluate"])
    torch.set_num_threads(how.threads)
    keep_memory()
    cell = (args.task, args.objective, args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    subject = replace(of_folder(args.model, trained_by(*cell), device), logit_gib=how.logit_gib)
    context = Context(
        task=args.task,
        seed=args.seed,
        settings=how,
        device=device,
        scorer_folder=args.scorer,
        heldout=args.heldout,
        tokens=args.tokens,
        mle=args.mle,
        reference_folder=args.mle,  # no benchmark asks for a reference
    )
    identity = {"model": subject.record, "weights": files.sha256(args.model / "model.safetensors"), **resolved}
    state = files.state_folder("benchmarks", files.digest(identity | {"name": args.name, "cell": cell})[:32])
    metrics, items = kind.run(subject, settings, context, state)
    check(metrics, kind.METRICS, str(args.metrics), benchmarked_by(*cell, args.name), head=())
    files.write_table(args.items, items)
    files.write_json(args.metrics, {"kind": settings.kind, "found": metrics})
    shutil.rmtree(state, ignore_errors=True)
    print(f"{args.name}: {items.num_rows:,} items")


if __name__ == "__main__":
    open_door(main)
