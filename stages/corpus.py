"""corpus: fetch a task's documents, drop exact duplicates, subsample and split them by content.

    python -m stages.corpus --task pep8 --output data/corpus/pep8 --report reports/corpus/pep8.json

Reads corpus.<task> of the scale file and corpus_seed of params.yaml. Writes {train,heldout}/part-*.parquet (columns
doc_id, text, source, meta) and a report: how many documents, from where, and what was left out and why. A kind whose
documents come with published scores adds segment_ends, scores and check_again, and whose they are to the report.
"""

from freshstart import corpora, files, params
from freshstart.corpora.build import build
from freshstart.doors import arguments, open_door
from freshstart.names import SPLITS


def main() -> None:
    options = arguments(__doc__, "task workers", output="folder for the corpus parts", report="file for what it holds")
    parameters = params.load()
    task = parameters.task(options.task)
    where = parameters.where("corpus", task)
    settings = corpora.settings(parameters.block("corpus", task), where)
    kind = corpora.load(settings.kind, where)
    seed = parameters.root.corpus_seed
    published = corpora.published(kind, settings)
    documents = kind.documents(settings, seed)
    report = build(documents, settings, seed, options.output, published, options.workers)
    report = {"kind": settings.kind, **report}
    if published is not None:
        report["published"] = published
    files.write_json(options.report, report)
    for split in SPLITS:
        print(f"{split}: {report[split]['documents']:,} documents, {report[split]['characters']:,} characters")


if __name__ == "__main__":
    open_door(main)
