"""From scored text to what a model trains on: tokenizer, token store, the plain stream and each objective's shards."""

from __future__ import annotations

from dataclasses import dataclass

END_OF_TEXT = "<|endoftext|>"
GOOD = "<|good|>"
BAD = "<|bad|>"
SPECIAL = (END_OF_TEXT, GOOD, BAD)
LEAST_VOCABULARY = 256 + len(SPECIAL)


@dataclass(frozen=True, kw_only=True)
class TokenizerSettings:
    """Either ``vocabulary``, the size of a byte-level BPE trained on the corpus (the three special tokens included),
    or ``name``, a folder or hub name of a tokenizer to use as it is, with the control tokens added."""

    vocabulary: int | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if (self.vocabulary is None) == (self.name is None):
            raise ValueError("give either vocabulary (train one) or name (use one)")
        if self.vocabulary is not None and self.vocabulary < LEAST_VOCABULARY:
            raise ValueError(f"vocabulary must be at least {LEAST_VOCABULARY}, found {self.vocabulary}")
