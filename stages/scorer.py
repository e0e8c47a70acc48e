"""scorer: describe a task's scorer, and learn it first where it is one that learns; the same for its judge.

    python -m stages.scorer --task toxicity --output data/scorer/toxicity --metrics reports/scorer/toxicity.json

Reads scorer.<task> of the scale file; its block ``judge`` is a second scorer, made into the folder ``judge``, which
evaluate asks about samples beside the first. Writes scorer.json (kind, version, options, digests of source, model and
files), the model of a learned scorer, and its held-out metrics.
"""

from pathlib import Path

from freshstart import files, params, scorers
from freshstart.doors import arguments, open_door

JUDGE = "judge"


def main() -> None:
    given = arguments(
        __doc__, "task", output="folder for the scorer", metrics="file for what it is and its held-out metrics"
    )
    everything = params.load()
    task = everything.task(given.task)
    block, where = everything.block("scorer", task), f"{everything.file}: scorer.{task}"
    judge = block.pop(JUDGE, None)
    folder = files.fresh_folder(given.output)
    metrics = made(block, where, folder)
    if judge is not None:
        metrics[JUDGE] = made(params.mapping(judge, f"{where}.{JUDGE}"), f"{where}.{JUDGE}", folder / JUDGE)
    files.write_json(given.metrics, metrics)
    found = {name: value for name, value in metrics["learned"].items() if isinstance(value, float)}
    print(", ".join(f"{name} {value:.4f}" for name, value in found.items()) or f"{metrics['kind']}: nothing to learn")


def made(block, where: str, folder: Path):
    """Make the scorer of one block in ``folder``; gives what it is and its metrics."""
    chosen = scorers.settings(block, where)
    record = scorers.describe(chosen)
    folder.mkdir(parents=True, exist_ok=True)
    if (prepare := scorers.hook(chosen, "prepare")) is not None:
        record["model"] = prepare(chosen, folder)
    learn = scorers.hook(chosen, "learn")
    metrics = learn(chosen, labelled(chosen), folder) if learn is not None else {}
    record["files"] = {path.name: files.sha256(path) for path in sorted(folder.iterdir())}
    if getattr(chosen, "labelled", None) == "synthetic":
        from freshstart.corpora import synthetic

        files.write_json(folder / scorers.LEXICON, list(synthetic.lexicon()))
    files.write_json(folder / scorers.RECORD, record)
    return {key: record[key] for key in ("kind", "version", "segments", "over", "display", "options")} | {
        "learned": metrics
    }


def labelled(chosen):
    """(text, 1 where bad) from the synthetic corpus' own labelled sentences, or from a person's files."""
    from freshstart.corpora import local, synthetic
    from freshstart.errors import InputError

    if chosen.labelled == "synthetic":
        yield from synthetic.labelled(chosen.rows, chosen.noise, chosen.seed)
        return
    for path, _ in local.found(chosen.labelled):
        for place, row in local.rows(path, [chosen.text, chosen.label]):
            if not isinstance(row, dict) or not isinstance(row[chosen.text], str):
                raise InputError(f"{place}: expected a text in column {chosen.text}, found {row!r:.200}")
            yield row[chosen.text], int(str(row[chosen.label]) in chosen.bad)


if __name__ == "__main__":
    open_door(main)
