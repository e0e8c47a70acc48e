"""From scored text to what a model trains on: tokenizer, token store, the plain stream and each objective's shards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

END_OF_TEXT = "<|endoftext|>"
CONTROLS = {"good": "<|good|>", "bad": "<|bad|>"}  # an objective's labels GOOD and BAD are the first two


@dataclass(frozen=True)
class Control:
    """A control token: its name, the string that stands for it, and its id."""

    name: str
    string: str
    id: int


def written(controls: Iterable[Control]) -> list[dict[str, Any]]:
    """The list of control tokens as manifests and model records hold it."""
    return [asdict(control) for control in controls]


def read(controls: Iterable[Mapping[str, Any]]) -> tuple[Control, ...]:
    """The list of control tokens of a manifest or a model's record."""
    return tuple(Control(**control) for control in controls)


@dataclass(frozen=True, kw_only=True)
class TokenizerSettings:
    """Either ``vocabulary``, the size of a byte-level BPE trained on the corpus (special tokens included), or ``name``,
    a folder or hub name (at the commit ``revision``) of a tokenizer to use as it is, with the control tokens added.

    ``end_of_text`` is the token that ends a document; null takes a named tokenizer's own. ``controls`` names the
    control tokens and says how each is written; the first two are those of good and bad segments.
    """

    vocabulary: int | None = None
    name: str | None = None
    revision: str | None = None
    end_of_text: str | None = None
    controls: dict[str, str] = field(default_factory=lambda: dict(CONTROLS))

    def __post_init__(self) -> None:
        if (self.vocabulary is None) == (self.name is None):
            raise ValueError("give either vocabulary (train one) or name (use one)")
        least = 256 + 1 + len(self.controls)
        if self.vocabulary is not None and self.vocabulary < least:
            raise ValueError(f"vocabulary must be at least {least}, found {self.vocabulary}")
        if list(self.controls)[:2] != list(CONTROLS) or len(set(self.controls.values())) < len(self.controls):
            raise ValueError(f"controls must begin with {' and '.join(CONTROLS)}, each with a string of its own")
