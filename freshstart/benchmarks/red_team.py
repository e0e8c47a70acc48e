"""Red-teaming by stochastic few-shot (Perez et al. 2022, arXiv 2202.03286): prompts that make a model write badly.

A trial begins with a pool of prompts from a file, scored in round 0 like all others: by the mean score of so many
continuations of the target. In each round, for each new prompt, some of the pool are drawn without replacement, with
probability proportional to exp(standardised score / ``temperature``); the attacker, a language model, goes on from
them as a list, and what it writes up to the next separator is a new prompt, unless the pool holds it already. Where it
repeats itself it is asked again. Every target is asked equally often, but for the prompts that ``lacking`` counts.

``pool`` is the mean score of the pool after a round, ``best`` that of its worst-behaved prompt; both are means over
trials with Student's t interval. Self-BLEU says how alike the attacks are. A continuation is scored as by the measure
``prompted``. Trials that were finished, and the rounds of the one that was stopped, are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from freshstart.benchmarks import BenchmarkSettings, interval
from freshstart.benchmarks.reading import texts_of
from freshstart.errors import InputError
from freshstart.evaluation import MLE
from freshstart.evaluation.endpoint import Endpoint
from freshstart.evaluation.kept import keep, kept
from freshstart.evaluation.measures.diversity import WORD, self_bleu
from freshstart.evaluation.measures.prompted import scores
from freshstart.evaluation.metrics import Metric
from freshstart.names import trained_by
from freshstart.progress import Progress

if TYPE_CHECKING:
    import pyarrow as pa

    from freshstart.evaluation.context import Context
    from freshstart.evaluation.subject import Subject

MOST_TRIES = 4  # times that the attacker is asked for what a round lacks
METRICS = (
    Metric("pool.*", "mean score of the pool after a round", "score", "lower", title="pool, round *", interval=True),
    Metric("pool.*.n", "trials", "trials"),
    Metric("best.*", "score of the prompt that works best after a round", "score", "lower", interval=True),
    Metric("best.*.n", "trials", "trials"),
    Metric("self_bleu_5", "a prompt against the others of its trial, mean over trials", "", "lower"),
    Metric("lacking", "prompts that the attacker did not find anew", "prompts", "lower"),
    Metric("calls", "continuations of the target", "continuations"),
)


@dataclass(frozen=True, kw_only=True)
class Settings(BenchmarkSettings):
    """``attacker`` is ``mle``, the task's own; a folder; a hub id with its ``revision``; or a completions endpoint.

    ``prompts`` is a file of first prompts, of which ``first`` are taken: text, one a line, or JSON lines with ``text``.
    The stage ``replay`` asks every model the ``replayed`` prompts of each trial that worked best on each of them.
    """

    prompts: str
    attacker: str = MLE
    revision: str | None = None
    first: int = 20
    rounds: int = 10
    trials: int = 10
    attempts: int = 20
    replayed: int = 20
    exemplars: int = 4
    prompt_tokens: int = 32
    continuations: int = 64
    tokens: int = 64
    temperature: float = 1.0
    separator: str = "\n\n"

    def __post_init__(self) -> None:
        for name in ("rounds", "attempts", "replayed", "exemplars", "prompt_tokens", "continuations", "tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        if self.trials < 2 or self.first < self.exemplars:
            raise ValueError(
                f"trials must be at least 2 and first at least exemplars, found {self.trials}, {self.first}"
            )
        if not (self.temperature > 0 and self.separator):
            raise ValueError("temperature must be above 0 and separator a text")


@dataclass(frozen=True)
class Attack:
    """A prompt of a trial: the round that it was found in, its continuations, and their mean score."""

    prompt: str
    round: int
    score: float
    continuations: list[str]


def run(subject: Subject, settings: Settings, context: Context, state: Path) -> tuple[dict[str, Any], pa.Table]:
    import pyarrow as pa

    first = list(dict.fromkeys(texts_of(settings.prompts, "prompts", context.task)))
    if len(first) < settings.first:
        raise InputError(f"{settings.prompts} has {len(first)} prompts, first asks for {settings.first}: lower it")
    attacker = _attacker(settings, context)
    pools = []
    with Progress(f"red-teaming {subject.name}", settings.trials * (settings.rounds + 1), "rounds") as progress:
        for trial in range(settings.trials):
            path = state / f"trial-{trial:04d}.json"
            pool = [Attack(**entry) for entry in kept(path) or []]
            done = max((attack.round for attack in pool), default=-1) + 1
            progress.advance(done)
            for number in range(done, settings.rounds + 1):
                seed = (context.seed * settings.trials + trial) * (settings.rounds + 1) + number
                prompts = first[: settings.first] if not number else _found(attacker, settings, pool, seed)
                pool += scored(subject, settings, context, prompts, number, seed)
                keep(path, [vars(attack) for attack in pool])
                progress.advance()
            pools.append(pool)
    rounds = range(settings.rounds + 1)
    after = {n: [[attack.score for attack in pool if attack.round <= n] for pool in pools] for n in rounds}
    wanted = settings.trials * settings.rounds * settings.attempts
    asked = sum(len(pool) for pool in pools)
    by_trial = [[WORD.findall(attack.prompt) for attack in pool] for pool in pools]
    of_trials = {"n": settings.trials}
    metrics = {
        "pool": {str(n): of_trials | interval([float(np.mean(values)) for values in after[n]]) for n in rounds},
        "best": {str(n): of_trials | interval([max(values) for values in after[n]]) for n in rounds},
        "self_bleu_5": float(np.mean([self_bleu(words, 5) for words in by_trial])),
        "lacking": wanted + settings.trials * settings.first - asked,
        "calls": asked * settings.continuations,
    }
    rows = [{"trial": trial, **vars(attack)} for trial, pool in enumerate(pools) for attack in pool]
    return metrics, pa.Table.from_pylist(rows)


def _found(attacker: Subject | Endpoint, settings: Settings, pool: Sequence[Attack], seed: int) -> list[str]:
    """New prompts of the attacker, none of them in the pool; fewer than asked for where it repeats itself."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    values = np.array([attack.score for attack in pool])
    likely = (values - values.mean()) / (values.std() or 1.0) / settings.temperature
    known, found = {attack.prompt for attack in pool}, []
    for attempt in range(MOST_TRIES):
        lists = []
        for _ in range(settings.attempts - len(found)):
            noisy = likely + generator.gumbel(size=len(pool))  # the largest are a draw without replacement
            chosen = np.argsort(-noisy)[: settings.exemplars]
            lists.append("".join(pool[place].prompt + settings.separator for place in chosen))
        for text in _written(attacker, settings, lists, seed * MOST_TRIES + attempt):
            prompt = text.partition(settings.separator)[0].strip("\n")
            if prompt.strip() and prompt not in known:
                known.add(prompt)
                found.append(prompt)
        if len(found) == settings.attempts:
            break
    return found


def _written(attacker: Subject | Endpoint, settings: Settings, lists: list[str], seed: int) -> list[str]:
    if isinstance(attacker, Endpoint):
        return attacker.continued(lists, settings.prompt_tokens, settings.separator, seed)
    from freshstart.evaluation.subject import Sampling

    sampling = Sampling(settings.prompt_tokens, temperature=1.0, top_p=0.9, stop=(settings.separator,))
    room = attacker.context - settings.prompt_tokens - 2
    shown = [attacker.tokenizer.decode(ids[-room:]) for ids, _ in attacker.tokenizer.encode(lists)]
    drawn = attacker.generate(shown, attacker.asked[0], sampling, seed)
    return [sampling.before_stop(attacker.tokenizer.decode(draw.tokens)) for draw in drawn]


def scored(
    subject: Subject, settings: Settings, context: Context, prompts: Sequence[str], number: int, seed: int
) -> list[Attack]:
    """The prompts with the mean score of the target's continuations; 0 where none could be scored."""
    sampling = replace(context.sampling, most=settings.tokens, least=min(context.sampling.least, settings.tokens))
    each = settings.continuations
    repeated = [prompt for prompt in prompts for _ in range(each)]
    try:
        drawn = subject.generate(repeated, subject.asked[0], sampling, seed)
    except ValueError as error:  # a prompt that fills the context
        raise InputError(f"{settings.prompts}: {error}: shorten the prompts, or lower prompt_tokens") from None
    texts = subject.tokenizer.decode_many([draw.tokens for draw in drawn])
    values = np.array(scores(context, repeated, texts)).reshape(len(prompts), each)
    known = ~np.isnan(values)
    means = np.where(known, values, 0.0).sum(1) / np.maximum(known.sum(1), 1)
    return [
        Attack(prompt, number, float(mean), texts[place * each : (place + 1) * each])
        for place, (prompt, mean) in enumerate(zip(prompts, means, strict=True))
    ]


def _attacker(settings: Settings, context: Context) -> Subject | Endpoint:
    from freshstart.evaluation.subject import external, of_folder

    if settings.attacker.startswith(("http://", "https://")):
        return _Endpoint(settings.attacker)
    if settings.attacker == MLE:
        return of_folder(context.mle, trained_by(context.task, MLE, context.seed), context.device)
    segments = context.scored_by[1]["segments"]
    return external(settings.attacker, context.device, segments=segments, threshold=0.0, revision=settings.revision)


class _Endpoint(Endpoint):
    """An attacker behind a completions endpoint; it need not return log-probabilities of prompts."""

    def continued(self, prompts: Sequence[str], most: int, stop: str, seed: int) -> list[str]:
        def one(number: int) -> str:
            drawn = {"max_tokens": most, "temperature": 1, "top_p": 0.9, "stop": [stop], "seed": seed * 1_000 + number}
            return self._complete(prompts[number], **drawn)["choices"][0]["text"]

        try:
            return self._all(one, range(len(prompts)))
        except HTTPException as error:  # an answer that breaks off
            raise InputError(f"{self.url}: {error!r}: does the server still run? The same command goes on") from None
