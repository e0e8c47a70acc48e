"""settings: resolve what the scale file says of each objective of a task, and of its evaluation.

    python -m stages.settings --task pep8 --inputs data/inputs --output data/settings/pep8

Writes corpus.json, scorer.json, score.json, tokenizer.json, reference.json, evaluate.json, external/<name>.json, for
each objective shards.json, train.json and finetune.json, and benchmarks/<name>.json, all together in benchmarks.json.
What DVC can not know (the code of kinds of corpora, scorers, objectives, measures, judges and benchmarks, found
by name; which of a section's blocks concern which objective or task; the content of files from outside) stands in these
files, so that a change reruns the stages that it concerns and no other.
"""

from dataclasses import asdict
from typing import Any

from freshstart import benchmarks, corpora, evaluation, files, inputs, objectives, params, scorers
from freshstart.doors import arguments, open_door
from freshstart.imports import code_digest
from freshstart.names import kind_of
from freshstart.tokens import TokenizerSettings
from freshstart.training import FinetuneSettings, TrainSettings


def main() -> None:
    args = arguments(__doc__, "task", inputs="folder that the stage input made", output="folder for the settings")
    everything = params.load()
    task = everything.task(args.task)
    output = files.fresh_folder(args.output)
    seed = {"corpus_seed": everything.root.corpus_seed}
    both = scorers.settings_and_judge(everything.block("scorer", task), everything.where("scorer", task))

    def read(section: str, *settings: Any) -> dict[str, Any]:
        """Digests of the files from outside that a section's settings name."""
        return inputs.digests(settings, everything.root.inputs, args.inputs, everything.where(section, task))

    corpus = corpora.settings(everything.block("corpus", task), everything.where("corpus", task))
    named = {"corpus": [asdict(corpus)], "scorer": [asdict(scorer) for scorer in both if scorer]}
    kinds = {"corpus": [corpus.kind], "scorer": [scorer.kind for scorer in both if scorer]}
    for room, package in (("corpus", "corpora"), ("scorer", "scorers")):
        modules = [f"freshstart.{package}.{kind}" for kind in kinds[room] if ":" not in kind]
        code = code_digest(*modules, below=f"freshstart/{package}/")
        files.write_json(
            output / f"{room}.json", {"kinds": kinds[room], "code_sha256": code, **read(room, *named[room])}
        )
    for section, model in (("score", scorers.ScoreSettings), ("tokenizer", TokenizerSettings)):
        settings = asdict(everything.model(model, section, task))
        files.write_json(output / f"{section}.json", {"settings": settings, **read(section, settings)})
    for name in everything.root.objectives:
        code = {"code_sha256": code_digest(f"freshstart.objectives.{kind_of(name)}", below="freshstart/objectives/")}
        shards = everything.model(objectives.load(name).settings, "shards", task, name)
        train = everything.model(TrainSettings, "train", task, name)
        finetune = everything.model(FinetuneSettings, "finetune", task, name)
        files.write_json(output / name / "shards.json", {"settings": asdict(shards), **seed, **code})
        files.write_json(
            output / name / "train.json", {"settings": asdict(train), **code, **read("train", asdict(train))}
        )
        files.write_json(output / name / "finetune.json", {"settings": asdict(finetune), **seed})
    chosen = everything.model(evaluation.EvaluateSettings, "evaluate", task)
    chosen, digests = evaluation.resolved(chosen, *both)
    files.write_json(
        output / "evaluate.json",
        {"settings": asdict(chosen), **seed, "code_sha256": digests, **read("evaluate", asdict(chosen))},
    )
    shared = {name: getattr(chosen, name) for name in ("batch_size", "min_characters", "logit_gib", "threads")}
    asked = asdict(chosen.reference)
    files.write_json(output / "reference.json", {"settings": asked, **shared, **read("evaluate", asked)})
    described = {}
    for name in everything.root.benchmarks:
        asked = everything.benchmark(name)
        code = code_digest(f"{benchmarks.PACKAGE}.{asked.kind}", f"{benchmarks.PACKAGE}.asked")
        where = f"{benchmarks.FILE}: {name}"
        outside = inputs.digests(benchmarks.named(asked), everything.root.inputs, args.inputs, where)
        described[name] = {"settings": asdict(asked), "evaluate": asdict(chosen), "code_sha256": code, **outside}
        files.write_json(output / "benchmarks" / f"{name}.json", described[name])
    files.write_json(output / "benchmarks.json", described)
    for name, model in everything.root.external.of(task).items():
        files.write_json(output / "external" / f"{name}.json", {"settings": asdict(model)})
    print(f"{task}: {len(everything.root.objectives)} objectives, {len(chosen.measures)} measures")


if __name__ == "__main__":
    open_door(main)
