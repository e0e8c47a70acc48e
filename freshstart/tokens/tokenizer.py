"""Tokenizers: a byte-level BPE trained on the corpus or a named one; whole documents in, tokens and offsets out.

Special tokens are never read out of text: a document that holds the characters ``<|good|>`` gets ordinary tokens for
them. A token's place is its first character; offsets are not trimmed, so that a leading space belongs to its token.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
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
        config, controls = (files.read_json(folder / name, "tokenizer") for name in (CONFIG, CONTROLS_FILE))
        try:
            loaded, controls = Loaded.from_file(str(folder / FILE)), read(controls)
            end_of_text = loaded.token_to_id(config["eos_token"])
        except Exception as error:  # the library raises no kind of its own
            raise InputError(f"{folder} holds no whole tokenizer ({error}): run `dvc repro -f tokenizer`") from None
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
        """Whether equal ids mean equal text in both, the control tokens of either aside."""
        control = {token.string for token in (*self.controls, *other.controls)}
        vocabularies = [tokenizer._loaded.get_vocab(with_added_tokens=True) for tokenizer in (self, other)]
        mine, theirs = ({token: i for token, i in ids.items() if token not in control} for ids in vocabularies)
        return self.end_of_text == other.end_of_text and mine == theirs


def make(settings: TokenizerSettings, texts: Iterable[str], folder: Path) -> Tokenizer:
    """Write the tokenizer that the settings ask for, control tokens added; ``texts`` is read where one is trained."""
    loaded, end_of_text = _trained(settings, texts) if settings.name is None else _named(settings.name, settings)
    loaded.add_special_tokens([end_of_text, *settings.controls.values()])
    with files.written(folder / FILE) as temporary:
        loaded.save(str(temporary), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **dict.fromkeys(("bos_token", "eos_token", "pad_token"), end_of_text),
        "additional_special_tokens": list(settings.controls.values()),
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,
    }
    files.write_json(folder / CONFIG, config)
    controls = [Control(name, string, loaded.token_to_id(string)) for name, string in settings.controls.items()]
    files.write_json(folder / CONTROLS_FILE, written(controls))
    return Tokenizer.open(folder)


def copy(source: Path, target: Path) -> None:
    """Put a tokenizer beside a model, so that the folder is complete for any loader of the hub format."""
    for name in (FILE, CONFIG, CONTROLS_FILE):
        shutil.copyfile(source / name, target / name)


def _trained(settings: TokenizerSettings, texts: Iterable[str]) -> tuple[Loaded, str]:
    """A byte-level BPE with GPT-2's pre-tokenizer, and its end of text; the same texts give the same file."""
    from tokenizers import Tokenizer as Loaded
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    assert settings.vocabulary is not None
    loaded = Loaded(BPE())
    loaded.encode_special_tokens = True  # a literal <|endoftext|> in the corpus is text here too
    loaded.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=True)
    loaded.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=settings.vocabulary - 1 - len(settings.controls),
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    loaded.train_from_iterator(texts, trainer)
    return loaded, settings.end_of_text or END_OF_TEXT


def _named(name: str, settings: TokenizerSettings) -> tuple[Loaded, str]:
    """A tokenizer from a local folder or the hub as it is, and its end of text."""
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers import Tokenizer as Loaded

    folder = Path(name)
    pair = [str(folder / part) for part in ("vocab.json", "merges.txt")]
    try:
        if (folder / FILE).is_file():
            loaded = Loaded.from_file(str(folder / FILE))
        elif all(Path(part).is_file() for part in pair):
            loaded = ByteLevelBPETokenizer(*pair)._tokenizer
        elif folder.exists():
            raise InputError(f"{name} holds neither {FILE} nor vocab.json and merges.txt")
        else:
            loaded = Loaded.from_pretrained(name, revision=settings.revision or "main")
        end_of_text = settings.end_of_text or _stated_end(name, settings.revision) or END_OF_TEXT
    except InputError:
        raise
    except Exception as error:  # the hub client raises many kinds; all mean that there is no tokenizer to be had
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"tokenizer {name} could not be loaded ({reason}): name a local folder with {FILE}, or check the connection"
        ) from None
    if loaded.token_to_id(end_of_text) is None:
        raise InputError(
            f"tokenizer {name} has no token {end_of_text}: write the one that ends a document for it into "
            "tokenizer.<task>.end_of_text"
        )
    return loaded, end_of_text


def _stated_end(name: str, revision: str | None) -> str | None:
    """The end of text that the configuration of a named tokenizer states, if it has one."""
    path = Path(name, CONFIG)
    if not Path(name).exists():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import RemoteEntryNotFoundError

        try:
            path = Path(hf_hub_download(name, CONFIG, revision=revision))
        except RemoteEntryNotFoundError:  # a tokenizer without a configuration
            return None
    stated: Any = json.loads(path.read_text(encoding="utf-8")).get("eos_token") if path.is_file() else None
    return stated.get("content") if isinstance(stated, dict) else stated
