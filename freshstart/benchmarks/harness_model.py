"""A subject as lm-eval asks models: log-likelihoods of continuations and whole texts, and generated text.

Without a control it reads as lm-eval's ``hf`` does (HFLM): nothing stands before a context, an end of text stands
before a continuation without one, what does not fit is cut from the left, and nothing is masked.

Under a control the text is read as the model was trained: behind an end of text, with the control token at each
segment. Other control tokens and padding are masked and the rest renormalised. The end of text and the first control
token are given, and stay in front where a context is cut; a continuation is charged for the control tokens in it, a
whole text for all, as in ``bits_per_byte``. Generated text is the sampler's, with a control or without: behind an end
of text, with all other control tokens masked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import env, get_rolling_token_windows, make_disjoint_window

from freshstart import files
from freshstart.benchmarks.reading import tokens_of
from freshstart.errors import InputError
from freshstart.evaluation.kept import keep, kept
from freshstart.evaluation.subject import ROWS_AT_ONCE, Sampling, Subject
from freshstart.settings import listed

# lm-eval compiles a task's templates anew for every document, which would take two thirds of the time.
env.from_string = lru_cache(env.from_string)  # type: ignore[method-assign]

GREEDY = 1e-6  # a temperature at which the most likely token is drawn

Row = tuple[list[int], int]  # tokens, and how many of the last are asked for


class HarnessModel(LM):
    """Asked under the control of that name. The answers to a task are kept in ``state`` and not asked for again."""

    def __init__(self, subject: Subject, control: str, seed: int, state: Path):
        super().__init__()
        self.subject, self.control, self.seed, self.state = subject, subject.control(control), seed, state
        self.name = control
        self.forbidden = subject.forbidden(control) if self.control else ()
        self.front = 2 if self.control else 0  # tokens that stay where a row is cut

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return self._by_task(
            "loglikelihood", requests, lambda asked: self._log_p([self._pair(*pair) for pair in asked])
        )

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        def answer(asked: Sequence[tuple[str]]) -> list[float]:
            windows = [self._windows(text) for (text,) in asked]
            log_p = iter(self._log_p([row for rows in windows for row in rows]))
            return [sum(next(log_p)[0] for _ in rows) for rows in windows]

        return self._by_task("rolling", requests, answer)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        return self._by_task("generate", requests, self._generate)

    def _by_task(self, kind: str, requests: list[Instance], answer: Callable[[list[Any]], list[Any]]) -> list[Any]:
        places = defaultdict(list)
        for place, request in enumerate(requests):
            places[request.task_name].append(place)
        answers: dict[int, Any] = {}
        for of_task in places.values():
            asked = [requests[place].args for place in of_task]
            path = self.state / f"{files.digest([self.name, kind, asked])[:32]}.json"
            found = kept(path)
            if found is None:
                found = answer(asked)
                keep(path, found)
            answers |= zip(of_task, found, strict=True)
        return [answers[place] for place in range(len(requests))]

    def _tokens(self, text: str) -> list[int]:
        return tokens_of(self.subject, text, self.control)

    def _pair(self, context: str, continuation: str) -> Row:
        """White space at the end of the context belongs to the continuation, as in HFLM."""
        solid = context.rstrip()
        begin = [self.subject.end_of_text] if self.control or not solid else []
        tokens = begin + self._tokens(context + continuation)
        given = max(len(begin + self._tokens(solid)), self.front)
        count, most = len(tokens) - given, self.subject.context + 1
        if not 0 < count <= most - max(self.front, 1):
            raise InputError(
                f"{continuation[:40]!r} is {count} tokens: the model reads {self.subject.context} at a time"
            )
        if len(tokens) > most:
            tokens = tokens[: self.front] + tokens[self.front - most :]
        return tokens, count

    def _windows(self, text: str) -> list[Row]:
        """Rows of the context, each token in one; the first behind an end of text, others behind one token or more."""
        windows = get_rolling_token_windows(self._tokens(text), self.subject.end_of_text, self.subject.context, 1)
        return [(before + tokens, len(tokens)) for before, tokens in map(make_disjoint_window, windows)]

    @torch.inference_mode()
    def _log_p(self, rows: Sequence[Row]) -> list[tuple[float, bool]]:
        """log p of the last tokens of each row, and whether each of them is the most likely one; longest rows first."""
        answers = [(0.0, True)] * len(rows)
        waiting = sorted(range(len(rows)), key=lambda place: -len(rows[place][0]))
        while waiting:
            length = len(rows[waiting[0]][0])
            batch = waiting[: self.subject.rows_at_once(length, 2)]
            del waiting[: len(batch)]
            padded = [row + [self.subject.end_of_text] * (length - len(row)) for row, _ in (rows[n] for n in batch)]
            tokens = torch.tensor(padded, device=self.subject.model.device)
            logq, targets = self.subject.log_probabilities(tokens, self.forbidden), tokens[:, 1:]
            log_p = logq.gather(-1, targets[..., None]).squeeze(-1).double().cpu()
            greedy = (logq.argmax(-1) == targets).cpu()
            for number, place in enumerate(batch):
                row, count = rows[place]
                asked = slice(len(row) - 1 - count, len(row) - 1)
                answers[place] = (float(log_p[number, asked].sum()), bool(greedy[number, asked].all()))
        return answers

    def _generate(self, asked: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
        how = dict(normalize_gen_kwargs(asked[0][1]))  # those of a task are alike
        most = min(how.pop("max_gen_toks"), self.subject.context // 2)
        sampling = Sampling(
            most,
            temperature=how.pop("temperature", 0.0) or GREEDY,
            top_p=how.pop("top_p", 1.0),
            batch_size=ROWS_AT_ONCE,
            stop=tuple(filter(None, how.pop("until"))),
        )
        how.pop("do_sample")
        if how:
            raise InputError(f"a task asks to generate with {listed(how)}, which this project's sampler does not know")
        prompts = [self._ending(prompt, self.subject.context - most - 1) for prompt, _ in asked]
        drawn = self.subject.generate(prompts, self.name, sampling, self.seed)
        return [sampling.before_stop(self.subject.tokenizer.decode(text.tokens)) for text in drawn]

    def _ending(self, text: str, most: int) -> str:
        """The end of a text that is at most so many tokens."""
        while (over := len(self._tokens(text)) - most) > 0:
            _, characters = next(self.subject.tokenizer.encode([text]))
            text = text[characters[min(over, len(characters)) - 1, 1] :]
        return text
