"""warnings: say before training what of a task's data leaves models little to learn.

    python -m stages.warnings --task pep8 --corpus data/corpus/pep8 --learned reports/scorer/pep8.json \\
        --tokens data/tokens/pep8 --mle data/shards/pep8/mle --output reports/warnings/pep8.json

Prints each warning and writes them all, for the page and the metrics; an empty list where there is none.
"""

from freshstart import files
from freshstart.degenerate import unbroken, warnings
from freshstart.doors import arguments, open_door
from freshstart.tokens.store import MANIFEST


def main() -> None:
    args = arguments(
        __doc__,
        "task corpus tokens",
        learned="file with what the scorer is and its held-out metrics",
        mle="folder with the shards of mle",
        output="file for the warnings (JSON)",
    )
    tokens = files.read_json(args.tokens / "train" / MANIFEST, f"tokens@{args.task}")
    mle = files.read_json(args.mle / MANIFEST, f"shards@{args.task}-mle")
    learned = files.read_json(args.learned, f"scorer@{args.task}")["learned"]
    breaks = unbroken(files.parts(args.corpus / "train", f"corpus@{args.task}"))
    found = warnings(tokens, mle, learned, *breaks)
    files.write_json(args.output, {"warnings": found})
    for warning in found:
        print(f"warning: {args.task}: {warning}")


if __name__ == "__main__":
    open_door(main)
