"""scorer: describe a task's scorer, and learn it first where it is one that learns.

    python -m stages.scorer --task toxicity --output data/scorer/toxicity --metrics reports/scorer/toxicity.json

Reads scorer.<task> of the scale file. Writes scorer.json (kind, version, options, digest of the source), the model and
the vocabulary of a learned scorer, and its held-out metrics.
"""

from freshstart import files, params, scorers
from freshstart.doors import arguments, open_door


def main() -> None:
    given = arguments(
        __doc__, "task", output="folder for the scorer", metrics="file for what it is and its held-out metrics"
    )
    everything = params.load()
    task = everything.task(given.task)
    chosen = scorers.settings(everything.block("scorer", task), f"{everything.file}: scorer.{task}")
    record = scorers.describe(chosen)
    folder = files.fresh_folder(given.output)
    learner = scorers.learner(chosen)
    metrics = learner(chosen, labelled(chosen), folder) if learner is not None else {}
    record["files"] = {path.name: files.sha256(path) for path in sorted(folder.iterdir())}
    if getattr(chosen, "labelled", None) == "synthetic":
        from freshstart.corpora import synthetic

        files.write_json(folder / scorers.LEXICON, list(synthetic.lexicon()))
    files.write_json(folder / scorers.RECORD, record)
    shown = {key: record[key] for key in ("kind", "version", "segments", "over", "display", "options")}
    files.write_json(given.metrics, {**shown, "learned": metrics})
    print(", ".join(f"{name} {value}" for name, value in metrics.items()) or f"{chosen.kind}: nothing to learn")


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
