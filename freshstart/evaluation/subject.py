"""A subject: a model that can be asked, and all that asking needs.

It generates after prompts, and says how likely it finds text. What it may not write (padding, control tokens that it
is not asked under) is masked and the rest renormalised. A subject with control tokens is asked under one of them and
charged for text *and* control tokens: log p of the text with that token at each of its segments. That is the
probability of one way to write the text, hence a lower bound on that of the text alone. Left uncharged, a control token
would give away where a segment ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from freshstart.errors import InputError
from freshstart.names import NO_CONTROL, SNAPSHOTS
from freshstart.sampling.sampler import Decoding, Drawn, sample
from freshstart.scoring.segments import SEGMENTERS, is_space
from freshstart.tokens import CONTROLS, Control, read
from freshstart.tokens.stream import byte_lengths, segment_of
from freshstart.tokens.tokenizer import Tokenizer
from freshstart.training.model import load

ROWS_AT_ONCE = 64
MOST_CONTEXT = 4096  # rows of held-out text are no longer, whatever a model could read
GIB = 1 << 30
WhiteSpace = Literal["leading", "trailing"]


@dataclass(frozen=True)
class Sampling:
    """How texts are drawn: ``least`` to ``most`` text tokens each, ``batch_size`` texts at a time.

    A text ends, even before ``least``, as soon as it holds one of the strings ``stop``; the prompt does not count.
    """

    most: int
    least: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    batch_size: int = 256
    stop: tuple[str, ...] = ()

    def before_stop(self, text: str) -> str:
        """The text up to the first of the stop strings in it."""
        return text[: min((place for string in self.stop if (place := text.find(string)) >= 0), default=None)]


@dataclass(frozen=True)
class Marked:
    """A text as a subject reads it: its tokens with the control tokens among them, how many of them belong to each of
    its segments, and the bytes of text in each."""

    tokens: np.ndarray  # int64
    lengths: np.ndarray  # (segments,)
    bytes: np.ndarray  # (segments,)


@dataclass(frozen=True)
class Subject:
    """A model with what asking it needs.

    ``controls`` are the control tokens that it was trained with, its own first; empty for most models. ``unwanted`` ids
    are never written unless asked for. ``segments`` names the segmenter; their white space is ``leading``, so that a
    control token stands before it, or ``trailing``. A segment is good where it scores at most ``threshold``. ``record``
    is what the model's folder says of its training. ``logit_gib`` bounds the logits that exist at a time.
    """

    name: str
    model: Any
    tokenizer: Tokenizer
    segments: str
    threshold: float
    controls: tuple[Control, ...] = ()
    unwanted: tuple[int, ...] = ()
    white_space: WhiteSpace = "leading"
    record: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    logit_gib: float = 1.0

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of the controls that it can be asked under, its own first; ``none`` where there are none."""
        return tuple(token.name for token in self.controls) or (NO_CONTROL,)

    @property
    def context(self) -> int:
        """Positions that it reads at a time."""
        return min(getattr(self.model.config, "max_position_embeddings", MOST_CONTEXT), MOST_CONTEXT)

    @property
    def end_of_text(self) -> int:
        return self.tokenizer.end_of_text

    def control(self, name: str) -> Control | None:
        return next((token for token in self.controls if token.name == name), None)

    def forbidden(self, control: str) -> tuple[int, ...]:
        """Ids that it may not write when it is asked under a control."""
        wanted = self.control(control)
        special = {*self.unwanted, *(token.id for token in self.controls)}
        return tuple(sorted(special - ({wanted.id} if wanted else set())))

    def generate(
        self, prompts: Sequence[str], control: str, sampling: Sampling, seed: int, first: int = 0
    ) -> list[Drawn]:
        """A text after each prompt, which may be empty, under a control; ``first`` is the number of the first prompt
        where they are part of a longer list. Texts that a stop string ended hold it: see ``Sampling.before_stop``."""
        wanted = self.control(control)
        decoding = Decoding(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            least=sampling.least,
            most=sampling.most,
            end=self.end_of_text,
            forbidden=self.forbidden(control),
            control=(wanted.id,) if wanted else (),
            stop=self._holds_any(sampling.stop) if sampling.stop else None,
        )
        begins = {prompt: self._prompt(prompt, wanted) for prompt in set(prompts)}
        return sample(self.model, [begins[prompt] for prompt in prompts], sampling.batch_size, decoding, seed, first)

    def _holds_any(self, strings: Sequence[str]) -> Callable[[list[list[int]]], list[bool]]:
        """Which texts hold one of the strings that they did not hold a token earlier."""
        tail = max(len(string.encode()) for string in strings)  # tokens: none is shorter than a byte

        def holds(rows: list[list[int]]) -> list[bool]:
            texts = self.tokenizer.decode_many(row[-tail:] for row in rows)
            return [any(string in text for string in strings) for text in texts]

        return holds

    def marked(self, text: str, ends: Sequence[int], controls: Sequence[Control] | None) -> Marked:
        """A text, with the end of each segment (characters), as the model reads it; ``controls`` has one a segment."""
        bounds = np.asarray(ends, dtype=np.int64)
        if self.white_space == "trailing":
            bounds = np.array([_behind_space(text, end) for end in ends], dtype=np.int64)
            pieces = [ids for ids, _ in self.tokenizer.encode([text[a:b] for a, b in pairwise([0, *bounds])])]
            tokens = np.concatenate([*pieces, np.zeros(0, dtype=np.int64)])
            lengths = np.array([len(ids) for ids in pieces], dtype=np.int64)
        else:
            tokens, offsets = next(self.tokenizer.encode([text]))
            lengths = np.bincount(segment_of(offsets, bounds), minlength=len(bounds))
        if controls is not None:
            marked = np.flatnonzero(lengths)
            ids = np.array([token.id for token in controls], dtype=np.int64)
            tokens = np.insert(tokens, (np.cumsum(lengths) - lengths)[marked], ids[marked])
            lengths[marked] += 1
        return Marked(tokens, lengths, byte_lengths(text, bounds))

    @torch.inference_mode()
    def log_probabilities(self, tokens: Tensor, forbidden: Sequence[int]) -> Tensor:
        """log q(. | what came before) at each position but the last, fp32: (rows, n) to (rows, n - 1, vocabulary)."""
        logits = self.model(input_ids=tokens[:, :-1], use_cache=False).logits.float()
        logits[..., list(forbidden)] = -torch.inf
        return torch.log_softmax(logits, dim=-1)

    def log_p(self, tokens: Tensor, forbidden: Sequence[int]) -> Tensor:
        """log q of each token but the first, in float64: (rows, n) to (rows, n - 1)."""
        tokens = tokens.to(self.model.device)
        logq = self.log_probabilities(tokens, forbidden)
        return logq.gather(-1, tokens[:, 1:, None]).squeeze(-1).double()

    def nats(self, stream: np.ndarray, forbidden: Sequence[int]) -> np.ndarray:
        """-log q of each token of a stream, read in rows of the context; 0 for the first, which nothing predicts."""
        nats = [np.zeros(1)]
        at_once = self.rows_at_once(self.context, 2)
        for begin in range(0, len(stream) - 1, self.context * at_once):
            piece = stream[begin : begin + self.context * at_once + 1]
            whole = (len(piece) - 1) // self.context * self.context
            rows = [piece[i : i + self.context + 1] for i in range(0, whole, self.context)]
            for batch in ([np.stack(rows)] if rows else []) + ([piece[None, whole:]] if len(piece) - whole > 1 else []):
                log_p = self.log_p(torch.from_numpy(np.ascontiguousarray(batch)), forbidden)
                nats.append(-log_p.flatten().cpu().numpy())
        return np.concatenate(nats)

    def rows_at_once(self, length: int, copies: int) -> int:
        """How many rows of a length may be read together, where so many copies of their logits exist at a time."""
        return int(
            min(max(self.logit_gib * GIB // (length * self.model.config.vocab_size * 4 * copies), 1), ROWS_AT_ONCE)
        )

    def snapshots(self) -> list[Subject]:
        """The model as it was earlier in its training, in the order of training."""
        folders = (self.folder / SNAPSHOTS).glob("[0-9]*") if self.folder is not None else ()
        return [
            replace(_of(folder, self.name, self.name, self.tokenizer, self.model.device), logit_gib=self.logit_gib)
            for folder in sorted(folders, key=lambda folder: float(folder.name))
        ]

    def _prompt(self, prompt: str, control: Control | None) -> list[int]:
        ends = SEGMENTERS[self.segments](prompt)
        if not ends:
            return [self.end_of_text, *([control.id] if control else [])]
        marked = self.marked(prompt, ends, [control] * len(ends) if control else None)
        return [self.end_of_text, *marked.tokens.tolist()]


def of_folder(folder: Path, made_by: str, device: torch.device) -> Subject:
    """The model of a cell or a finetuned arm; ``made_by`` is the stage that trains it."""
    return _of(folder, str(folder), made_by, None, device)


def external(
    name: str,
    device: torch.device,
    *,
    segments: str,
    threshold: float,
    revision: str | None = None,
    controls: Mapping[str, str] | None = None,
    white_space: WhiteSpace = "leading",
) -> Subject:
    """Any causal language model by folder or hub id, at a commit; ``controls`` are the strings of its control tokens.

    Raises InputError where it, its tokenizer or one of its control tokens can not be had.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not Path(name).is_dir() and revision is None:
        raise InputError(
            f"{name} is no folder here: give one, or a hub id and the full hash of a commit as its revision"
        )
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(name, revision=revision, output_loading_info=True)
        fast = AutoTokenizer.from_pretrained(name, revision=revision)
        loaded, end = fast.backend_tokenizer, fast.eos_token_id
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{name}: {str(error).splitlines()[0]:.300}; name a folder or a hub id of a causal language model, with a "
            "tokenizer.json beside it"
        ) from None
    if absent := sorted(loading["missing_keys"]):  # transformers draws them at random
        raise InputError(
            f"{name} lacks weights of its architecture, such as {absent[0]}: no whole causal language model"
        )
    if end is None:
        raise InputError(f"{name}: its tokenizer names no end of text: set eos_token in tokenizer_config.json")
    ids = {string: loaded.token_to_id(string) for string in (controls or {}).values()}
    if missing := [string for string, number in ids.items() if number is None]:
        raise InputError(f"{name}: its tokenizer has no token {', '.join(missing)}")
    tokens = tuple(Control(label, string, ids[string]) for label, string in (controls or {}).items())
    tokenizer = Tokenizer(loaded, end, tokens)
    ours = [number for string in CONTROLS.values() if (number := loaded.token_to_id(string)) is not None]
    padding = range(tokenizer.size, model.config.vocab_size)
    unwanted = {*ours, *(token.id for token in tokens), *padding} - {token.id for token in tokens[:1]}
    model = model.eval().to(device)
    return Subject(name, model, tokenizer, segments, threshold, tokens, tuple(sorted(unwanted)), white_space)


def _of(folder: Path, name: str, made_by: str, tokenizer: Tokenizer | None, device: torch.device) -> Subject:
    model, record = load(folder, made_by)
    return Subject(
        name=name,
        model=model.to(device),
        tokenizer=tokenizer or Tokenizer.open(folder),  # behind ``load``, which looks whether it is whole
        segments=record["segments"],
        threshold=record["threshold"],
        controls=read(record["controls"]),
        unwanted=tuple(record["unwanted"]),
        white_space=record["white_space"],
        record=record,
        folder=folder,
    )


def _behind_space(text: str, end: int) -> int:
    """Where the white space that opens at a segment's end is over."""
    while end < len(text) and is_space(text[end]):
        end += 1
    return end
