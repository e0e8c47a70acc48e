"""scorer: describe a task's scorer, and learn it first where it is one that learns; the same for its judge.

    python -m stages.scorer --task toxicity --output data/scorer/toxicity --metrics reports/scorer/toxicity.json

Reads scorer.<task> of the scale file; its block ``judge`` is a second scorer, made into the folder ``judge``, which
evaluate asks about samples beside the first. Writes scorer.json (kind, version, options, digests of source, model and
files), the model of a learned scorer, and its held-out metrics.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from freshstart import files, params, scorers
from freshstart.corpora import local, synthetic
from freshstart.doors import arguments, open_door
from freshstart.errors import InputError

SYNTHETIC = "synthetic"


def main() -> None:
    paths = arguments(
        __doc__, "task", output="folder for the scorer", metrics="file for what it is and its held-out metrics"
    )
    everything = params.load()
    task = everything.task(paths.task)
    folder = files.fresh_folder(paths.output)
    chosen, judge = scorers.settings_and_judge(everything.block("scorer", task), everything.where("scorer", task))
    metrics = made(chosen, folder)
    if judge is not None:
        metrics[scorers.JUDGE] = made(judge, folder / scorers.JUDGE)
    files.write_json(paths.metrics, metrics)
    numbers = {name: value for name, value in metrics["learned"].items() if isinstance(value, float)}
    print(", ".join(f"{name} {value:.4f}" for name, value in numbers.items()) or f"{metrics['kind']}: nothing to learn")


def made(chosen: scorers.ScorerSettings, folder: Path) -> dict[str, Any]:
    """Make one scorer; one that learns from synthetic text comes with the words that its corpus knows to be abuse."""
    source = getattr(chosen, "labelled", None)
    metrics = scorers.make(chosen, folder, labelled(chosen) if source else ())
    if source == SYNTHETIC:
        files.write_json(folder / scorers.LEXICON, list(synthetic.lexicon()))
    return metrics


def labelled(chosen: Any) -> Iterator[tuple[str, int]]:
    """(text, 1 where bad) from the synthetic corpus' own labelled sentences, or from a person's files."""
    if chosen.labelled == SYNTHETIC:
        yield from synthetic.labelled(chosen.rows, chosen.noise, chosen.seed)
        return
    for path, _ in local.matching(chosen.labelled):
        for place, row in local.rows(path, [chosen.text, chosen.label]):
            if not isinstance(row, dict) or not isinstance(row[chosen.text], str):
                raise InputError(f"{place}: expected a text in column {chosen.text}, found {row!r:.200}")
            yield row[chosen.text], int(str(row[chosen.label]) in chosen.bad)


if __name__ == "__main__":
    open_door(main)
