"""tokens: tokenise a scored corpus once, for all objectives, in parallel on Ray where it is large.

    python -m stages.tokens --task pep8 --scored data/scored/pep8 --tokenizer data/tokenizer/pep8 \\
        --scorer data/scorer/pep8 --output data/tokens/pep8

Writes {train,heldout}/ with the token stream, its segments with their raw scores, and a manifest.
"""

from freshstart import files, params
from freshstart.doors import arguments, open_door
from freshstart.names import SPLITS
from freshstart.scorers import record_of
from freshstart.tokens.stream import build


def main() -> None:
    args = arguments(
        __doc__,
        "task workers tokenizer scorer",
        scored="folder with the scored parts",
        output="folder for the token streams",
    )
    task = params.load().task(args.task)
    scorer = record_of(args.scorer, task)
    parts = {split: files.parts(args.scored / split, f"score@{task}") for split in SPLITS}
    manifests = build(parts, args.tokenizer, files.fresh_folder(args.output), scorer, args.workers)
    for split, manifest in manifests.items():
        print(
            f"{split}: {manifest['tokens']:,} tokens, {manifest['documents']:,} documents, "
            f"{sum(manifest['documents_left_out'].values())} left out"
        )


if __name__ == "__main__":
    open_door(main)
