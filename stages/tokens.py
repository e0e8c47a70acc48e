"""tokens: tokenise a scored corpus once, for all objectives.

    python -m stages.tokens --task pep8 --scored data/scored/pep8 --tokenizer data/tokenizer/pep8 \\
        --scorer data/scorer/pep8 --output data/tokens/pep8

Writes {train,heldout}/ with the token stream, its segments with their raw scores, and a manifest.
"""

from freshstart import files, params
from freshstart.doors import arguments, open_door
from freshstart.names import SPLITS
from freshstart.scorers import RECORD
from freshstart.tokens.stream import build
from freshstart.tokens.tokenizer import Tokenizer


def main() -> None:
    args = arguments(
        __doc__,
        "task",
        scored="folder with the scored parts",
        tokenizer="folder of the tokenizer",
        scorer="folder of the scorer",
        output="folder for the token streams",
    )
    task = params.load().task(args.task)
    tokenizer = Tokenizer.open(args.tokenizer)
    scorer = files.read_json(args.scorer / RECORD, f"scorer@{task}")
    output = files.fresh_folder(args.output)
    for split in SPLITS:
        parts = files.parts(args.scored / split, f"score@{task}")
        manifest = build(parts, tokenizer, output / split, scorer)
        print(
            f"{split}: {manifest['tokens']:,} tokens, {manifest['documents']:,} documents, "
            f"{sum(manifest['documents_left_out'].values())} left out"
        )


if __name__ == "__main__":
    open_door(main)
