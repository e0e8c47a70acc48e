"""What is of use around the pipeline: begin a task, check what is there, plan and rebuild in parallel, score any text,
ask a model, look after the score cache.

Installed (`pip install .`), the same is the command `freshstart`. Away from a clone, `score` needs a --scorer folder.

python -m freshstart new-task shout --corpus raw/mail --reward rewards:Shouting  # a task of one's own
python -m freshstart check                          # all that is missing or wrong, before anything runs
python -m freshstart repro --jobs 4 train           # like `dvc repro train`, four stages at a time
python -m freshstart plan --scale paper             # what a scale takes: hours, memory, disk, what comes from outside
python -m freshstart score --task pep8 some/file.py some/folder -      # - reads standard input; --json for programs
python -m freshstart sample models/toxicity/conditional/0 "You are" --control good -n 5     # samples, with scores
python -m freshstart sweep pep8 awr mle             # equal trials of objectives' own numbers, and their ablations
python -m freshstart metrics                        # what each metric means, as a table in Markdown
python -m freshstart settings                       # what can be set: keys, types, defaults, meanings, in Markdown
python -m freshstart cache                          # what the cache of scores holds
python -m freshstart cache --prune 10               # at most 10 GiB, the least recently used go first
python -m freshstart cache --seed data/scored/pep8  # take over a scored table, such as one that was pulled
"""

import argparse
import sys
from pathlib import Path

from freshstart import files
from freshstart.doors import open_door
from freshstart.errors import InputError
from freshstart.settings import listed

COMMAND = "freshstart"
GIB = 2**30


def main() -> None:
    installed = Path(sys.argv[0]).name == COMMAND
    parser = argparse.ArgumentParser(
        prog=COMMAND if installed else f"python -m {COMMAND}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    task = commands.add_parser("new-task", help="write a task of one's own into params.yaml and the scale files")
    task.add_argument("name", help="letters, digits, - and _")
    task.add_argument("--corpus", required=True, help="file, folder or pattern of files with its text")
    task.add_argument("--reward", required=True, help="module:Class, or a kind of scorer (docs/scoring.md)")
    task.add_argument("--text", help="column with the text (default: text)")
    task.add_argument("--source", help="column that says where a text is from (default: the file)")
    task.add_argument("--labelled", help="rows for a reward that learns: columns text and label, 1 where bad")
    commands.add_parser("check", help="list all that is missing or wrong, before anything runs")
    planned = commands.add_parser("plan", help="what a scale takes, measured in a minute before anything runs")
    planned.add_argument("--scale", help="a file of conf/scale (default: that of params.yaml)")
    score = commands.add_parser("score", help="segments of texts with their scores and reasons")
    scorer = score.add_mutually_exclusive_group(required=True)
    scorer.add_argument("--task", help="one of tasks in params.yaml: its scorer")
    scorer.add_argument("--scorer", type=_present, help="folder of a scorer, such as data/scorer/pep8")
    score.add_argument("--json", action="store_true", help="one JSON document a text, for programs")
    score.add_argument("paths", nargs="+", type=_present, help="files, folders, or - for standard input")
    sample = commands.add_parser("sample", help="what a trained model writes, with scores")
    sample.add_argument("model", type=_present, help="folder of a trained model")
    sample.add_argument("prompt", nargs="?", default="", help="text to go on from (default: none)")
    sample.add_argument("--control", help="name of one of the model's control tokens (default: its first)")
    sample.add_argument("-n", type=int, default=3, help="how many samples (default: 3)")
    sample.add_argument("--tokens", type=int, default=64, help="most text tokens of a sample (default: 64)")
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument("--scorer", type=_present, help="folder of the scorer (default: data/scorer/<task>)")
    sample.add_argument("--json", action="store_true", help="one JSON document a sample, for programs")
    sweep = commands.add_parser(
        "sweep", help="equal trials of objectives' own numbers (conf/sweep.yaml), a choice, ablations"
    )
    sweep.add_argument("task", help="one of tasks in params.yaml")
    sweep.add_argument("objectives", nargs="*", help="whose trials to run (default: all)")
    commands.add_parser("metrics", help="what each metric means")
    commands.add_parser("settings", help="what each setting means, with its type, default and value at each scale")
    cache = commands.add_parser("cache", help="the cache of scores: show, prune or seed it")
    cache.add_argument("--prune", type=float, metavar="GIB", help="keep at most so many GiB")
    cache.add_argument("--seed", type=Path, metavar="FOLDER", help="keep the results of a folder of scored parts")
    repro = commands.add_parser("repro", help="like `dvc repro`, several stages at a time")
    repro.add_argument(
        "--jobs", type=int, help="default: FRESHSTART_JOBS, else one a GPU, else one a processor and one more"
    )
    repro.add_argument("targets", nargs="*", help="stages, as for `dvc repro` (default: all)")
    arguments = parser.parse_args()
    if arguments.command == "new-task":
        from freshstart import new_task

        columns = {name: value for name in ("text", "source") if (value := getattr(arguments, name)) is not None}
        written = new_task.write(arguments.name, arguments.corpus, arguments.reward, columns, arguments.labelled)
        print(f"{arguments.name} stands in {listed(written)}")
        _check()
    elif arguments.command == "check":
        _check()
    elif arguments.command == "repro":
        from freshstart import outside, params
        from freshstart.running import rebuild

        if fetched := outside.announced(params.load()):  # a wrong word is refused before DVC puts it into commands
            print(fetched, flush=True)
        rebuild(arguments.targets, arguments.jobs)
    elif arguments.command == "plan":
        from freshstart.plan import plan

        plan(arguments.scale)
    elif arguments.command == "score":
        from freshstart.scoring.show import show

        show(arguments.paths, arguments.task, arguments.scorer, arguments.json)
    elif arguments.command == "sample":
        from freshstart.evaluation.ask import ask

        how = (arguments.control, arguments.n, arguments.tokens, arguments.seed, arguments.scorer, arguments.json)
        ask(arguments.model, arguments.prompt, *how)
    elif arguments.command == "sweep":
        from freshstart.sweeping import sweep as run_sweep

        run_sweep(arguments.task, arguments.objectives)
    elif arguments.command == "metrics":
        from freshstart import manual

        print(manual.metrics(), end="")
    elif arguments.command == "settings":
        from freshstart import manual

        print(manual.documented(), end="")
    else:
        _cache(arguments.prune, arguments.seed)


def _check() -> None:
    from freshstart.check import check

    if problems := check():
        print(*problems, sep="\n", file=sys.stderr)
        sys.exit(1)
    print("check: nothing is missing or wrong")


def _present(name: str) -> Path:
    """A path that is there: a missing one is refused before anything is loaded or scored."""
    if name != "-" and not Path(name).exists():
        raise InputError(
            f"{name} is missing: give a file or folder that is there; what the pipeline makes comes with `dvc repro` "
            "or `dvc pull`"
        )
    return Path(name)


def _cache(most_gib: float | None, seed: Path | None) -> None:
    from freshstart.names import SPLITS
    from freshstart.scoring import cache

    if seed is not None:
        splits = [seed / split for split in SPLITS if (seed / split).is_dir()] or [seed]
        count = cache.seed(path for folder in splits for path in files.parts(folder, "score"))
        print(f"{count:,} scored documents taken over")
    if most_gib is not None:
        print(f"{cache.prune(most_gib * GIB) / GIB:.3f} GiB freed")
    entries = cache.held()
    for entry in entries:
        print(f"{entry.bytes / GIB:9.3f} GiB  {entry.packs:6,} packs  {entry.kind:<24} {entry.folder}")
    print(f"{sum(entry.bytes for entry in entries) / GIB:9.3f} GiB of at most {cache.bound() / GIB:g}")


def command() -> None:
    """The installed command: as `python -m freshstart` does, it finds a person's own scorer in the folder at hand."""
    sys.path.insert(0, "")
    open_door(main)


if __name__ == "__main__":
    open_door(main)
