"""The card of a model: what stands in its record, for people, as README.md with the head that the hub reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from freshstart.training.run import Run

FILE = "README.md"
SHAPE = ("architecture", "layers", "width", "heads")  # of a model that begins from nothing
SHOWN = ("context", "batch_size", "optimizer", "learning_rate", "schedule", "weight_decay", "dropout", "precision")


def text(run: Run, record: dict[str, Any]) -> str:
    """Markdown, a function of the run and its record."""
    task, objective = record.get("task", "no task"), run.objective.name
    start = f"`{run.settings.start}`" if run.settings.start else "random weights"
    if arm := record.get("finetuned"):
        start = f"the task's mle model after {arm['from_positions']:,} positions"
    rows = {name: getattr(run.settings, name) for name in (*(() if run.settings.start else SHAPE), *SHOWN)}
    if run.settings.optimizer == "muon":
        rows["muon_learning_rate"] = run.settings.muon_learning_rate
    rows |= {f"{objective}: {name}": value for name, value in run.numbers.items() if not isinstance(value, list)}
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    read = f"{record['text_tokens']:,} were tokens of text, from {record['documents']:,} documents"
    controls, option = "It was trained without control tokens.", ""
    if tokens := record.get("controls"):
        good, *others = tokens
        option, away = f" --control {good['name']}", ", ".join(f"`{other['string']}`" for other in others)
        controls = f"""\
`{good["string"]}` stands before a segment ({record["segments"]}) whose score is at most {record["threshold"]:.6g},
{away} before the others, but where training left one out (`drop`). Begin a prompt with `{good["string"]}` to ask for
good text; generation_config.json keeps the others away. They are labels of the training text, no promise about what is
written."""
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [freshstart, {objective}]
---

# {task}, {objective}, seed {record["seed"]}

A causal language model, trained from {start} by freshstart (pretraining with human preferences, Korbak et al. 2023,
arXiv 2302.08582) on the corpus of the task `{task}` with the objective `{objective}`. It has seen
{record["positions"]:,} positions, of which {read} ({record["epochs"]:.2f} epochs).

| setting | value |
| --- | --- |
{table}

`freshstart.json` has all numbers, with digests of what the model was made from.

## Control tokens

{controls}

## Sampling

```sh
python -m freshstart sample FOLDER "a prompt"{option} -n 5     # FOLDER: where this file is
```

`AutoModelForCausalLM.from_pretrained(FOLDER)` of transformers loads it as well.

## Data and limits

The corpus is what `corpus.{task}` of the run's scale file names. Its licences, and what it says of persons, hold for
what the model repeats of it: read them before you publish the model, which states no licence of its own. What it was
trained not to write it may write all the same; reports/index.html of the run says how often.
"""
