"""score: give every segment of a corpus its score and reasons, in parallel on Ray, one part in, one part out.

    python -m stages.score --task pep8 --corpus data/corpus/pep8 --scorer data/scorer/pep8 \\
        --output data/scored/pep8 --report reports/scores/pep8.json --workers 0

Reads score.<task> of the scale file (how long a document may take, and the share without a score at which the stage
stops). Writes {train,heldout}/part-*.parquet and a report of what the table holds. Scores are cached in .state.
"""

import shutil

from freshstart import files, params, scorers
from freshstart.doors import arguments, open_door
from freshstart.errors import InputError
from freshstart.names import SPLITS
from freshstart.scoring import cache
from freshstart.scoring.pool import score_parts
from freshstart.scoring.report import report


def main() -> None:
    options = arguments(
        __doc__,
        "task workers corpus scorer",
        output="folder for the scored parts",
        report="file for what the table holds",
    )
    everything = params.load()
    task = everything.task(options.task)
    settings = everything.model(scorers.ScoreSettings, "score", task)
    sources = {split: files.parts(options.corpus / split, f"corpus@{task}") for split in SPLITS}
    output = files.fresh_folder(options.output)
    parts = [(path, output / split / path.name) for split in SPLITS for path in sources[split]]
    anew = score_parts(parts, options.scorer, task, options.workers, settings.document_seconds)
    reports = {split: report([target for source, target in parts if source in sources[split]]) for split in SPLITS}
    for split, table in reports.items():
        share, reasons = table["without_score"]["share"], table["without_score"]["by_reason"]
        if share > settings.max_error_share:
            shutil.rmtree(output)
            raise InputError(
                f"{share:.1%} of the {split} documents have no score ({reasons}; for example "
                f"{table['without_score_examples']}); score.{task}.max_error_share allows "
                f"{settings.max_error_share:.1%}. Fix the corpus or raise that limit; the scores are kept"
            )
    files.write_json(options.report, reports)
    cache.prune()
    bad = reports["train"]["share_segments_above_0"]
    documents = sum(table["documents"] for table in reports.values())
    segments = f"{reports['train']['segments']:,} segments"
    print(f"train: {segments}, {bad:.1%} score above 0; {anew:,} of {documents:,} documents scored anew")


if __name__ == "__main__":
    open_door(main)
