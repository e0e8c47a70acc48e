"""Tokenizers: a byte-level BPE trained on the corpus or a named one; whole documents in, tokens and offsets out.

Special tokens are never read out of text: a document that holds the characters ``<|good|>`` gets ordinary tokens for
them. A token's place is its first character; offsets are not trimmed, so that a leading space belongs to its token.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from freshstart import files
from freshstart.errors import InputError
from freshstart.tokens import BAD, END_OF_TEXT, GOOD, SPECIAL, TokenizerSettings

FILE = "tokenizer.json"
CONFIG = "tokenizer_config.json"


class Tokenizer:
    """A tokenizer folder, read. ``size`` counts every id, the special tokens included."""

    def __init__(self, folder: Path | str):
        from tokenizers import Tokenizer as Loaded
        from tokenizers.processors import ByteLevel

        self.folder = Path(folder)
        path = self.folder / FILE
        if not path.is_file():
            raise InputError(f"{path} is missing: run `dvc repro tokenizer`")
        self._loaded = Loaded.from_file(str(path))
        self._loaded.encode_special_tokens = True
        self._loaded.post_processor = ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
        self._loaded.no_padding()
        self._loaded.no_truncation()
        self.size = self._loaded.get_vocab_size(with_added_tokens=True)
        self.end_of_text, self.good, self.bad = (self._id(token) for token in SPECIAL)

    def encode(self, texts: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each text its token ids (int64) and the (begin, end) characters of each token (int64, n x 2)."""
        for encoding in self._loaded.encode_batch(list(texts), add_special_tokens=False):
            offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
            yield np.array(encoding.ids, dtype=np.int64), offsets

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids without special tokens; bytes that are not UTF-8 become U+FFFD."""
        return self._loaded.decode([int(i) for i in ids], skip_special_tokens=True)

    def decode_many(self, rows: Iterable[Sequence[int]]) -> list[str]:
        return self._loaded.decode_batch([list(row) for row in rows], skip_special_tokens=True)

    def _id(self, token: str) -> int:
        found = self._loaded.token_to_id(token)
        if found is None:
            raise InputError(f"{self.folder / FILE} has no token {token}: run `dvc repro -f tokenizer`")
        return found


def train(texts: Iterable[str], vocabulary: int, folder: Path) -> None:
    """Train a byte-level BPE with GPT-2's pre-tokenizer; the same texts give the same file."""
    from tokenizers import Tokenizer as Loaded
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    tokenizer = Loaded(BPE())
    tokenizer.encode_special_tokens = True  # a literal <|endoftext|> in the corpus is text here too
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocabulary - len(SPECIAL),
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(list(SPECIAL))
    _save(tokenizer, folder)


def named(name: str, folder: Path) -> None:
    """Take a tokenizer from a local folder or the hub and add the special tokens that it lacks."""
    from tokenizers import Tokenizer as Loaded

    source = Path(name)
    try:
        if (source / FILE).is_file():
            tokenizer = Loaded.from_file(str(source / FILE))
        elif (source / "vocab.json").is_file() and (source / "merges.txt").is_file():
            from tokenizers import ByteLevelBPETokenizer

            tokenizer = ByteLevelBPETokenizer(str(source / "vocab.json"), str(source / "merges.txt"))._tokenizer
        elif source.exists():
            raise InputError(f"{name} holds neither {FILE} nor vocab.json and merges.txt")
        else:
            tokenizer = Loaded.from_pretrained(name)
    except InputError:
        raise
    except Exception as error:  # the hub client raises many kinds; all mean that there is no tokenizer to be had
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"tokenizer {name} could not be loaded ({reason}): name a local folder with {FILE}, or check the connection"
        ) from None
    tokenizer.add_special_tokens([token for token in SPECIAL if tokenizer.token_to_id(token) is None])
    _save(tokenizer, folder)


def make(settings: TokenizerSettings, texts: Iterable[str], folder: Path) -> Tokenizer:
    """Make the tokenizer that the settings ask for; ``texts`` is read where one is trained."""
    if settings.name is not None:
        named(settings.name, folder)
    else:
        assert settings.vocabulary is not None
        train(texts, settings.vocabulary, folder)
    return Tokenizer(folder)


def copy(source: Path, target: Path) -> None:
    """Put a tokenizer beside a model, so that the folder is complete for any loader of the hub format."""
    for name in (FILE, CONFIG):
        shutil.copyfile(source / name, target / name)


def _save(tokenizer, folder: Path) -> None:
    with files.written(folder / FILE) as temporary:
        tokenizer.save(str(temporary), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "additional_special_tokens": [GOOD, BAD],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,
    }
    files.write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
