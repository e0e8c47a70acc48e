"""shards: what one objective trains on: its own token stream or the plain one, and the numbers of its loss.

    python -m stages.shards --task pep8 --objective awr --settings data/settings/pep8/awr/shards.json \\
        --tokens data/tokens/pep8 --output data/shards/pep8/awr
"""

from freshstart import files, objectives
from freshstart.doors import arguments, open_door
from freshstart.names import settings_by
from freshstart.settings import restore
from freshstart.tokens.shards import Plain, build


def main() -> None:
    args = arguments(
        __doc__, "task objective tokens", settings="file with the objective's settings", output="folder for the shards"
    )
    resolved = files.read_json(args.settings, settings_by(args.task))
    objective = objectives.load(args.objective)
    settings = restore(objective.settings, resolved["settings"])
    output = files.fresh_folder(args.output)
    manifest = build(objective, settings, Plain(args.tokens / "train", args.task), output, resolved["corpus_seed"])
    print(
        f"{manifest['tokens']:,} tokens for {settings.positions:,} positions ({manifest['repetition']:.2f} epochs), "
        f"{manifest['share_segments_good']:.1%} of the segments good"
    )


if __name__ == "__main__":
    open_door(main)
