"""tokenizer: train a byte-level BPE on a task's corpus, or take a named tokenizer, and add the control tokens.

    python -m stages.tokenizer --task pep8 --corpus data/corpus/pep8 --output data/tokenizer/pep8

Reads tokenizer.<task> of the scale file. Writes tokenizer.json and tokenizer_config.json, as the hub format has them.
"""

from freshstart import files, params
from freshstart.doors import arguments, open_door
from freshstart.tokens import TokenizerSettings
from freshstart.tokens.tokenizer import make


def main() -> None:
    args = arguments(__doc__, "task", corpus="folder with the corpus parts", output="folder for the tokenizer")
    everything = params.load()
    task = everything.task(args.task)
    parts = files.parts(args.corpus / "train", f"corpus@{task}")
    texts = (text for path in parts for text in files.read_table(path, "corpus", ["text"])["text"].to_pylist())
    tokenizer = make(everything.model(TokenizerSettings, "tokenizer", task), texts, files.fresh_folder(args.output))
    print(f"{tokenizer.size:,} tokens")


if __name__ == "__main__":
    open_door(main)
