"""How bad continuations of prompts are (Gehman et al. 2020): on the mean, at worst, and whether any is bad.

The prompts stand in a file, ``evaluate.<task>.prompts``: text, one a line, or JSON lines with ``text``. Each is
continued ``continuations`` times under each control. A continuation is scored alone; for scorers that count findings it
is read behind its prompt, and what begins in it counts as in a sample: a word of it, repeated segments once. Intervals
are over prompts, since continuations of one are alike.

Continuations are drawn in parts of ``PART`` prompts. Each finished part is kept in ``.state/prompted/<key>/`` until the
measure is done, so that a run that was killed goes on where it was; the key digests all that shapes them. Every row has
random numbers of its own, and parts are the same whether or not some were kept: the result is the same to the byte. A
part that is damaged is drawn anew, and deleting the folder only costs time.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from freshstart import files
from freshstart.errors import InputError
from freshstart.evaluation.kept import keep, kept
from freshstart.evaluation.metrics import Metric
from freshstart.evaluation.statistics import estimate, share
from freshstart.imports import code_digest
from freshstart.progress import Progress
from freshstart.scorers import FindingScorer, of_texts, pieces, segment_counts

if TYPE_CHECKING:
    from freshstart.evaluation.context import Context
    from freshstart.evaluation.subject import Subject

FOLDER = "prompted"
PART = 64  # prompts
TABLE = "After prompts"
PROMPTED = "under.*.prompted"
PAPER = "10 to 100 prompts of its own a task; the mean score alone"
METRICS = (
    Metric(
        f"{PROMPTED}.score", "mean score of continuations", "score", "lower", TABLE, "mean", "prompted", interval=True
    ),
    Metric(f"{PROMPTED}.score.n", "prompts with a scored continuation", "prompts"),
    Metric(
        *(f"{PROMPTED}.maximum", "worst continuation of a prompt, mean over prompts", "score", "lower", TABLE),
        *("worst", "prompted_maximum"),
        interval=True,
    ),
    Metric(f"{PROMPTED}.maximum.n", "prompts with a scored continuation", "prompts"),
    Metric(
        *(f"{PROMPTED}.any", "prompts with a continuation that scores above {over}", "share", "lower", TABLE),
        *("any", "prompted_any"),
        interval=True,
    ),
    Metric(f"{PROMPTED}.any.n", "prompts with a scored continuation", "prompts"),
    Metric(f"{PROMPTED}.blank", "continuations that are blank or could not be scored", "continuations"),
)


def measure(subject: Subject, context: Context) -> dict[str, Any]:
    how, seed = context.settings, context.seed
    prompts = read(how.prompts, context.task)
    repeated = [prompt for prompt in prompts for _ in range(how.continuations)]
    folder = files.state_folder(FOLDER, files.digest(identity(subject, prompts, context))[:32])
    under = {}
    for control in subject.asked:
        texts = subject.tokenizer.decode_many(_continued(subject, prompts, control, context, folder))
        values = np.array(scores(context, repeated, texts)).reshape(len(prompts), how.continuations)
        known = values[~np.isnan(values).all(1)]
        worst = np.nanmax(known, 1) if len(known) else np.array([])
        under[control] = {
            "prompted": {
                "score": estimate(np.nanmean(known, 1) if len(known) else [], how.bootstrap, seed),
                "maximum": estimate(worst, how.bootstrap, seed),
                "any": share(int((worst > context.scorer.over).sum()), len(worst)),
                "blank": int(np.isnan(values).sum()),
            }
        }
    shutil.rmtree(folder)
    return {"under": under}


def identity(subject: Subject, prompts: Sequence[str], context: Context) -> dict[str, Any]:
    """All that shapes the continuations of prompts, for JSON."""
    import torch

    weights = hashlib.sha256()
    for name, tensor in subject.model.state_dict().items():
        weights.update(name.encode() + tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return {
        "weights": weights.hexdigest(),
        "config": subject.model.config.to_json_string(use_diff=False),
        "prompts": prompts,
        "tokens": [tokens.tolist() for tokens, _ in subject.tokenizer.encode(prompts)],
        "subject": [subject.segments, subject.white_space, subject.end_of_text, subject.unwanted],
        "controls": [asdict(token) for token in subject.controls],
        "sampling": asdict(context.sampling),
        "continuations": context.settings.continuations,
        "seed": context.seed,
        "part": PART,
        "device": [context.device.type, context.settings.threads],
        "code": code_digest("freshstart.evaluation.subject"),
        "versions": [version("torch"), version("transformers")],
    }


def _continued(
    subject: Subject, prompts: Sequence[str], control: str, context: Context, folder: Path
) -> list[list[int]]:
    """The tokens of each continuation of each prompt; parts that ``folder`` holds are taken from there."""
    times, place = context.settings.continuations, subject.asked.index(control)
    rows: list[list[int]] = []
    with Progress(f"continuing prompts ({control})", len(prompts), "prompts") as progress:
        for begin in range(0, len(prompts), PART):
            part = [prompt for prompt in prompts[begin : begin + PART] for _ in range(times)]
            path = folder / f"{place}-{begin:07d}.json"
            tokens = kept(path)
            if tokens is None:
                try:
                    drawn = subject.generate(part, control, context.sampling, context.seed, begin * times)
                except ValueError as error:  # a prompt that fills the context
                    raise InputError(
                        f"{context.settings.prompts}: {error}: shorten or leave out such prompts"
                    ) from None
                tokens = [draw.tokens for draw in drawn]
                keep(path, tokens)
            rows += tokens
            progress.advance(len(part) // times)
    return rows


def read(path: str | None, task: str) -> list[str]:
    """The prompts of a file, in its order."""
    where = f"evaluate.{task}.prompts"
    if path is None:
        raise InputError(f"the measure prompted needs {where}, a file of prompts: name one, or leave the measure out")
    try:
        lines = [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
        prompts = [json.loads(line)["text"] for line in lines] if Path(path).suffix == ".jsonl" else lines
    except FileNotFoundError:
        raise InputError(f"{path} is missing: {where} must name a file of prompts") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no file of prompts ({error!r}): expected JSON lines with text, or text") from None
    if not prompts or not all(isinstance(prompt, str) and prompt for prompt in prompts):
        raise InputError(f"{path} must hold at least one prompt, and each must be a text")
    return prompts


def scores(context: Context, prompts: list[str], texts: list[str]) -> list[float]:
    """A score for each continuation; NaN for one that is blank (of findings: has no word) or could not be scored."""
    from freshstart.evaluation.samples import counted
    from freshstart.scoring.segments import SEGMENTERS

    scorer, segmented = context.scorer, SEGMENTERS[context.scored_by[1]["segments"]]
    kept = [number for number, text in enumerate(texts) if text.strip()]
    is_finder = isinstance(scorer, FindingScorer)
    whole = [(prompts[number] if is_finder else "") + texts[number] for number in kept]
    values = [np.nan] * len(texts)
    for number, scored in zip(kept, of_texts(scorer, whole), strict=True):
        if is_finder and scored.error is None:
            behind, ends = len(prompts[number]), segmented(texts[number])
            own = [replace(f, begin=f.begin - behind) for f in scored.findings if f.begin >= behind]
            found, words = counted(pieces(texts[number], ends), segment_counts(own, ends))
            values[number] = found / words if words else np.nan
        elif scored.scores:
            values[number] = scored.scores[0]
    return values
