"""tokenizer: train a byte-level BPE on a task's corpus, or take a named tokenizer, and add the control tokens.

    python -m stages.tokenizer --task pep8 --corpus data/corpus/pep8 --output data/tokenizer/pep8

Reads tokenizer.<task> of the scale file. Writes tokenizer.json and tokenizer_config.json, as the hub format has them.
A BPE learns from the first MOST_CHARACTERS of the corpus: a sample, since parts are in the order of their documents'
hashes. Its trainer counts words on all processors by itself, and can't be given counts.
"""

from collections.abc import Iterator
from pathlib import Path

from freshstart import files, params
from freshstart.doors import arguments, open_door
from freshstart.tokens import TokenizerSettings
from freshstart.tokens.tokenizer import make

MOST_CHARACTERS = 1_000_000_000


def main() -> None:
    args = arguments(__doc__, "task corpus", output="folder for the tokenizer")
    everything = params.load()
    task = everything.task(args.task)
    parts = files.parts(args.corpus / "train", f"corpus@{task}")
    tokenizer = make(
        everything.model(TokenizerSettings, "tokenizer", task), sample(parts), files.fresh_folder(args.output)
    )
    print(f"{tokenizer.size:,} tokens")


def sample(parts: list[Path]) -> Iterator[str]:
    """The texts of the first parts, up to the one that reaches MOST_CHARACTERS."""
    left = MOST_CHARACTERS
    for path in parts:
        for text in files.read_table(path, "corpus", ["text"])["text"].to_pylist():
            if left <= 0:
                return
            left -= len(text)
            yield text


if __name__ == "__main__":
    open_door(main)
