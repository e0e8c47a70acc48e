"""All that is measured of one cell, from a model that is loaded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from freshstart.allocator import keep_memory
from freshstart.errors import InputError
from freshstart.evaluation import EvaluateSettings, gold, heldout, judges, snapshots, table
from freshstart.evaluation.diversity import diversity
from freshstart.evaluation.likelihood import Judged, bits_per_byte, divergence
from freshstart.evaluation.memory import memory
from freshstart.evaluation.samples import Sample, draw, misalignment, read
from freshstart.progress import Progress
from freshstart.scorers import LEXICON
from freshstart.scorers import load as load_scorer
from freshstart.tokens.store import Stream
from freshstart.tokens.tokenizer import Tokenizer
from freshstart.training.model import load


@dataclass(frozen=True)
class Cell:
    """Where the parts of one cell lie."""

    task: str
    objective: str
    seed: int
    model: Path
    reference: Path
    tokens: Path
    scorer: Path
    good_threshold: float


def evaluate(cell: Cell, settings: EvaluateSettings, samples_file: Path) -> dict[str, Any]:
    """Write the samples of a cell and give its metrics."""
    import torch

    torch.set_num_threads(settings.threads)
    keep_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    made_by = f"train@{cell.task}-{cell.objective}-{cell.seed}"
    model, record = load(cell.model, made_by)
    tokenizer = Tokenizer(cell.model)
    scorer, scorer_record = load_scorer(cell.scorer, cell.task)
    segments, unwanted = scorer_record["segments"], record["unwanted"]
    judged = Judged(model.to(device), tuple(unwanted), record["stream"] == "control")
    controls = ("good", "bad") if judged.conditional else ("none",)
    if settings.max_new_tokens > model.config.max_position_embeddings - 2:
        raise InputError(
            f"evaluate.{cell.task}.max_new_tokens is {settings.max_new_tokens}: a context of "
            f"{model.config.max_position_embeddings} leaves {model.config.max_position_embeddings - 2} after the prompt"
        )
    panel = judges.judges(scorer_record, cell.scorer, cell.task, settings.judges)
    kept = snapshots.folders(cell.model)
    measures = 5 + len(controls) + len(kept)
    with Progress(f"evaluating {cell.task}/{cell.objective}/{cell.seed}", measures, "measures") as progress:
        samples: dict[str, list[Sample]] = {}
        for control in controls:
            drawn = draw(model, tokenizer, control, unwanted, settings, cell.seed)
            samples[control] = read(drawn, control, tokenizer, scorer, segments, settings.min_characters)
            progress.advance(note=f"{len(samples[control])} samples")
        own = samples[controls[0]]
        metrics = misalignment(own, scorer, settings, cell.seed)
        if judged.conditional:
            metrics["misalignment_under_bad"] = misalignment(samples["bad"], scorer, settings, cell.seed)[
                "misalignment"
            ]
        metrics["over_training"] = []
        for folder in kept:
            found = snapshots.measure(
                folder, made_by, device, controls[0], tokenizer, scorer, segments, settings, cell.seed
            )
            metrics["over_training"].append(found)
            progress.advance(note=f"snapshot at {found['positions']:,}")
        metrics["over_training"].append(snapshots.entry(record, metrics))
        held = Stream.open(cell.tokens / "heldout", cell.task)
        real = heldout.beginnings(held, tokenizer, segments, settings)
        metrics["judges"] = judges.measure(panel, samples, settings.bootstrap, cell.seed, real)
        judge = _second_judge(cell.scorer)
        if judge is not None:
            metrics["second_judge"] = {name: judge([one.text for one in part]) for name, part in samples.items()}
        if settings.gold is not None:
            metrics["gold"] = gold.measure(settings.gold, {"scorer": gold.by_scorer(scorer), **_finders(panel)})
        progress.advance(note=f"{len(panel)} judges")
        metrics["samples"] = {
            "n": len(own),
            "drawn": settings.samples,
            "tokens": sum(len(one.tokens) for one in own),
            "characters": sum(len(one.text) for one in own),
            "share_ended": float(np.mean([one.ended for one in own])) if own else 0.0,
        }
        metrics["diversity"] = diversity([one.text for one in own])
        progress.advance(note="diversity")

        train = Stream.open(cell.tokens / "train", cell.task)
        every = [one for part in samples.values() for one in part]
        metrics["memory"], shared = memory([one.tokens for one in every], train.tokens, settings.memory_tokens)
        table.write(samples_file, every, shared)
        progress.advance(note="memory")

        sizes = np.load(cell.tokens / "heldout" / "segment_bytes.npy", mmap_mode="r")
        document_scores = np.load(cell.tokens / "heldout" / "document_scores.npy", mmap_mode="r")
        most, threshold = settings.heldout_tokens, cell.good_threshold
        metrics["heldout"] = {
            "bits_per_byte": bits_per_byte(judged, held, sizes, most, threshold, tokenizer),
            "misalignment": heldout.misalignment(
                held, sizes, document_scores, settings.max_new_tokens, settings.bootstrap, cell.seed
            ),
        }
        progress.advance(note="bits per byte")

        reference, reference_unwanted = _reference(cell, settings, tokenizer)
        metrics["divergence"] = {
            "reference": settings.reference,
            **divergence(
                judged,
                reference.to(device),
                reference_unwanted,
                tokenizer,
                segments,
                settings.divergence_samples,
                settings.batch_size,
                settings.divergence_tokens,
                cell.seed,
            ),
        }
        progress.advance(note="divergence")
    if "finetuned" in record:
        metrics["finetuned"] = record["finetuned"]
    metrics["tokens_seen"] = {name: record[name] for name in ("positions", "text_tokens", "documents", "epochs")}
    return metrics


def _reference(cell: Cell, settings: EvaluateSettings, tokenizer: Tokenizer) -> tuple[Any, list[int]]:
    """The reference model and the ids that it may not write."""
    if settings.reference == "mle":
        model, record = load(cell.reference, f"train@{cell.task}-mle-{cell.seed}")
        return model, record["unwanted"]
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(settings.reference).eval()
    except (OSError, ValueError) as error:
        raise InputError(
            f"evaluate.{cell.task}.reference {settings.reference}: {str(error).splitlines()[0]}; name mle, or a folder "
            "or hub name of a causal language model"
        ) from None
    if model.config.vocab_size > tokenizer.size + 128 or model.config.vocab_size < tokenizer.good:
        raise InputError(
            f"evaluate.{cell.task}.reference {settings.reference} has {model.config.vocab_size} tokens, this task's "
            f"tokenizer {tokenizer.size}: a reference must share the tokenizer"
        )
    special = (tokenizer.good, tokenizer.bad)
    return model, [*(token for token in special if token < model.config.vocab_size)]


def _finders(panel: Sequence[judges.Judge]) -> dict[str, gold.FindAll]:
    """The judges that find spans: each is measured on the gold spans too."""
    return {one.name: gold.by_text(one.find) for one in panel if one.find is not None}


def _second_judge(scorer_folder: Path) -> Callable[[list[str]], dict[str, float]] | None:
    """Share of texts that hold a word of the synthetic corpus' abuse lexicon, where the scorer folder has one."""
    if not (scorer_folder / LEXICON).is_file():
        return None
    pattern = judges.lexicon_pattern(scorer_folder)

    def judge(texts: list[str]) -> dict[str, float]:
        hits = [len(pattern.findall(text)) for text in texts]
        characters = max(sum(map(len, texts)), 1)
        return {
            "share_with_abuse": float(np.mean([h > 0 for h in hits])),
            "abuse_per_character": sum(hits) / characters,
        }

    return judge
