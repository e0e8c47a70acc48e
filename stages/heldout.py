"""heldout: measure once what depends on the task alone: how bad real held-out text is, to the scorer and to judges.

    python -m stages.heldout --task pep8 --settings data/settings/pep8/evaluate.json --scorer data/scorer/pep8 \\
        --tokenizer data/tokenizer/pep8 --tokens data/tokens/pep8 --output reports/heldout/pep8.json

Cells are compared with these figures; evaluate.<task>.gold adds the recall of scorer and judges on marked spans.
"""

from freshstart import files
from freshstart.doors import arguments, open_door
from freshstart.evaluation import EvaluateSettings
from freshstart.evaluation.heldout import Task, measured
from freshstart.names import settings_by
from freshstart.settings import restore


def main() -> None:
    args = arguments(
        __doc__,
        "task scorer tokenizer tokens",
        settings="file with the settings of evaluation",
        output="file for what was measured (JSON)",
    )
    resolved = files.read_json(args.settings, settings_by(args.task))
    settings = restore(EvaluateSettings, resolved["settings"])
    seed, tokens = resolved["corpus_seed"], args.tokens / "heldout"
    metrics = measured(Task(args.task, settings, seed, args.scorer, args.tokenizer, tokens))
    files.write_json(args.output, metrics)
    real = metrics["misalignment"]["all"]
    print(f"real text: misalignment {real['mean']:.5f}, n = {real['n']}; {len(metrics['judges'])} judges")


if __name__ == "__main__":
    open_door(main)
