"""Tokenizers: a byte-level BPE trained on the corpus or a named one; whole documents in, tokens and offsets out.

Special tokens are never read out of text: a document that holds the characters ``<|good|>`` gets ordinary tokens for
them. A token's place is its first character; offsets are not trimmed, so that a leading space belongs to its token.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from freshstart import files
from freshstart.errors import InputError
from freshstart.tokens import END_OF_TEXT, Control, TokenizerSettings, read, written

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Loaded

FILE = "tokenizer.json"
CONFIG = "tokenizer_config.json"
CONTROLS_FILE = "controls.json"


class Tokenizer:
    """A tokenizer, its end of text and its control tokens. ``size`` counts every id, the special tokens included;
    ``sha256`` is that of its file, where it has one."""

    def __init__(self, loaded: Loaded, end_of_text: int, controls: Sequence[Control] = (), sha256: str | None = None):
        from tokenizers.processors import ByteLevel

        loaded.encode_special_tokens = True
        loaded.post_processor = ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
        loaded.no_padding()
        loaded.no_truncation()
        self._loaded = loaded
        self.size = loaded.get_vocab_size(with_added_tokens=True)
        self.end_of_text, self.controls, self.sha256 = end_of_text, tuple(controls), sha256

    @classmethod
    def open(cls, folder: Path | str) -> Tokenizer:
        """Read a tokenizer's folder, or that of a model with its tokenizer."""
        from tokenizers import Tokenizer as Loaded

        folder = Path(folder)
        if not (folder / FILE).is_file():
            raise InputError(f"{folder / FILE} is missing: run `dvc repro tokenizer`")
        loaded = Loaded.from_file(str(folder / FILE))
        end_of_text = loaded.token_to_id(files.read_json(folder / CONFIG, "tokenizer")["eos_token"])
        controls = read(files.read_json(folder / CONTROLS_FILE, "tokenizer"))
        return cls(loaded, end_of_text, controls, files.sha256(folder / FILE))

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

    def same_text(self, other: Tokenizer) -> bool:
        """Whether equal ids mean equal text in both, control tokens aside."""
        return self.end_of_text == other.end_of_text and self._text() == other._text()

    def _text(self) -> dict[str, int]:
        strings = {one.string for one in self.controls}
        return {token: i for token, i in self._loaded.get_vocab(with_added_tokens=True).items() if token not in strings}


def train(texts: Iterable[str], settings: TokenizerSettings, folder: Path) -> None:
    """Train a byte-level BPE with GPT-2's pre-tokenizer; the same texts give the same file."""
    from tokenizers import Tokenizer as Loaded
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    assert settings.vocabulary is not None
    tokenizer = Loaded(BPE())
    tokenizer.encode_special_tokens = True  # a literal <|endoftext|> in the corpus is text here too
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=settings.vocabulary - 1 - len(settings.controls),
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    _save(tokenizer, settings.end_of_text or END_OF_TEXT, settings.controls, folder)


def named(settings: TokenizerSettings, folder: Path) -> None:
    """Take a tokenizer from a local folder or the hub and add the control tokens that it lacks."""
    from tokenizers import Tokenizer as Loaded

    name = settings.name or ""
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
            tokenizer = Loaded.from_pretrained(name, revision=settings.revision or "main")
        end_of_text = settings.end_of_text or _own_end(name, settings.revision)
    except InputError:
        raise
    except Exception as error:  # the hub client raises many kinds; all mean that there is no tokenizer to be had
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"tokenizer {name} could not be loaded ({reason}): name a local folder with {FILE}, or check the connection"
        ) from None
    if tokenizer.token_to_id(end_of_text) is None:
        raise InputError(
            f"tokenizer {name} has no token {end_of_text}: write the one that ends a document for it into "
            "tokenizer.<task>.end_of_text"
        )
    _save(tokenizer, end_of_text, settings.controls, folder)


def make(settings: TokenizerSettings, texts: Iterable[str], folder: Path) -> Tokenizer:
    """Make the tokenizer that the settings ask for; ``texts`` is read where one is trained."""
    if settings.name is not None:
        named(settings, folder)
    else:
        train(texts, settings, folder)
    return Tokenizer.open(folder)


def copy(source: Path, target: Path) -> None:
    """Put a tokenizer beside a model, so that the folder is complete for any loader of the hub format."""
    for name in (FILE, CONFIG, CONTROLS_FILE):
        shutil.copyfile(source / name, target / name)


def _own_end(name: str, revision: str | None) -> str:
    """The end of text that a named tokenizer's configuration states, else GPT-2's."""
    path = Path(name, CONFIG)
    if not Path(name).exists():
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(name, CONFIG, revision=revision))
    stated: Any = json.loads(path.read_text(encoding="utf-8")).get("eos_token") if path.is_file() else None
    return (stated.get("content") if isinstance(stated, dict) else stated) or END_OF_TEXT


def _save(tokenizer: Loaded, end_of_text: str, controls: Mapping[str, str], folder: Path) -> None:
    special = [end_of_text, *controls.values()]
    tokenizer.add_special_tokens(special)
    with files.written(folder / FILE) as temporary:
        tokenizer.save(str(temporary), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end_of_text,
        "eos_token": end_of_text,
        "pad_token": end_of_text,
        "additional_special_tokens": list(controls.values()),
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,
    }
    files.write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    listed = [Control(name, string, tokenizer.token_to_id(string)) for name, string in controls.items()]
    files.write_json(folder / CONTROLS_FILE, written(listed))
