"""Ask a trained model for samples, for people: what it writes after a prompt, with what the task's scorer says."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from freshstart import scorers
from freshstart.errors import InputError
from freshstart.evaluation.subject import Sampling, of_folder
from freshstart.settings import known


def ask(
    folder: Path,
    prompt: str,
    control: str | None,
    count: int,
    tokens: int,
    seed: int,
    scorer: Path | None,
    as_json: bool,
) -> None:
    """Print ``count`` samples; ``control`` is one of the model's own (default: its first).

    The scorer is that of its task (data/scorer/<task>) or of the folder ``scorer``; samples stand without scores where
    there is none.
    """
    if count < 1 or tokens < 1:
        raise InputError(f"-n and --tokens must be at least 1, found {count} and {tokens}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    subject = of_folder(folder, "train", device)
    chosen = known(control, subject.asked, "control", str(folder)) if control is not None else subject.asked[0]
    try:
        drawn = subject.generate([prompt] * count, chosen, Sampling(tokens, 0, 0.7, 0.9), seed)
    except ValueError as error:  # a prompt that fills the context
        raise InputError(f"{error}: shorten the prompt") from None
    texts = [subject.tokenizer.decode(draw.tokens) for draw in drawn]
    for text, score in zip(texts, _scores(str(subject.record["task"]), scorer, prompt, texts), strict=True):
        if as_json:
            print(json.dumps({"prompt": prompt, "control": chosen, "text": text, "score": score}, ensure_ascii=False))
        else:
            print(f"--- {chosen}, {'no score' if score is None else f'score {score:.4g}'}\n{prompt}{text}")


def _scores(task: str, folder: Path | None, prompt: str, texts: list[str]) -> list[float | None]:
    """What the scorer says of each text behind the prompt."""
    place = folder or Path("data/scorer", task)
    if folder is None and not (place / scorers.RECORD).is_file():
        return [None] * len(texts)
    scorer, _ = scorers.load(place, task)
    whole = [prompt + text for text in texts]
    return [result.scores[0] if result.scores else None for result in scorers.of_texts(scorer, whole)]
