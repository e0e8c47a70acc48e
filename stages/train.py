"""train: train one cell, or go on with one that was stopped.

    python -m stages.train --task pep8 --objective awr --seed 0 --tokens data/tokens/pep8 \\
        --shards data/shards/pep8/awr --tokenizer data/tokenizer/pep8 --output models/pep8/awr/0 \\
        --curve reports/curves/pep8/awr/0.csv

Reads train.every and train.<task> of the scale file; the budget and the objective's numbers come with the shards.
Writes a model folder of the hub format and the curve of its losses. Checkpoints lie in .state/checkpoints.
"""

from dataclasses import asdict, replace

from freshstart import files, params
from freshstart.doors import arguments, open_door
from freshstart.imports import code_digest
from freshstart.training import TrainSettings


def main() -> None:
    given = arguments(
        __doc__,
        "task",
        "objective",
        "seed",
        tokens="folder with the token streams",
        shards="folder of the objective's shards",
        tokenizer="folder of the tokenizer",
        output="folder for the model",
        curve="file for the curve (CSV)",
    )
    everything = params.load()
    task, name = everything.task(given.task), everything.objective(given.objective)
    settings = everything.model(TrainSettings, "train", task)

    import torch
    import transformers

    from freshstart import objectives
    from freshstart.tokens import tokenizer
    from freshstart.tokens.store import Stream, read_manifest
    from freshstart.training.loop import Run, Vocabulary, train
    from freshstart.training.rows import Rows

    plain = read_manifest(given.tokens / "train", f"tokens@{task}")
    shards = read_manifest(given.shards, f"shards@{task}-{name}")
    own = {key: shards["settings"][key] for key in ("learning_rate", "batch_size")}
    settings = replace(settings, **{key: value for key, value in own.items() if value is not None})
    is_plain = shards["stream"] == "plain"
    data = (plain if is_plain else shards)["sha256"]
    stream = Stream.open(given.tokens / "train" if is_plain else given.shards, task)
    identity = {
        "task": task,
        "train": asdict(settings),
        "numbers": shards["numbers"],
        "shards": {"manifest": files.sha256(given.shards / "manifest.json"), "tokens": data["tokens.npy"]},
        "tokenizer": plain["tokenizer_sha256"],
        "seed_of_run": given.seed,
        "code": code_digest("freshstart.training.loop"),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    output = files.fresh_folder(given.output)
    vocabulary = Vocabulary(plain["vocabulary"], plain["end_of_text"], plain["good"], plain["bad"])
    rows = Rows(stream, settings.context, data["tokens.npy"], given.seed)
    title = f"training {task}/{name}/{given.seed}"
    budget = shards["settings"]["positions"]
    run = Run(
        title,
        settings,
        objectives.load(name),
        shards["numbers"],
        rows,
        vocabulary,
        budget,
        given.seed,
        output,
        given.curve,
    )
    record = train(run, identity)
    tokenizer.copy(given.tokenizer, output)
    print(f"{record['positions']:,} positions, {record['epochs']:.2f} epochs, {record['documents']:,} documents")


if __name__ == "__main__":
    open_door(main)
