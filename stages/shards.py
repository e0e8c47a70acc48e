"""shards: what one objective trains on: its own token stream or the plain one, and the numbers of its loss.

    python -m stages.shards --task pep8 --objective awr --tokens data/tokens/pep8 --output data/shards/pep8/awr

Reads shards.every and shards.<task> of the scale file and corpus_seed of params.yaml.
"""

from freshstart import files, objectives, params
from freshstart.doors import arguments, open_door
from freshstart.tokens.shards import build


def main() -> None:
    given = arguments(
        __doc__, "task", "objective", tokens="folder with the token streams", output="folder for the shards"
    )
    everything = params.load()
    task, name = everything.task(given.task), everything.objective(given.objective)
    settings = objectives.settings(everything.sections["shards"], task, name, f"{everything.file}: shards")
    output = files.fresh_folder(given.output)
    seed = everything.root.corpus_seed
    manifest = build(objectives.load(name), settings, given.tokens / "train", output, task, seed)
    print(
        f"{manifest['tokens']:,} tokens for {settings.positions:,} positions ({manifest['repetition']:.2f} epochs), "
        f"{manifest['share_segments_good']:.1%} of the segments good"
    )


if __name__ == "__main__":
    open_door(main)
