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
    given = arguments(__doc__, "task", output="folder for the corpus parts", report="file for what it holds")
    everything = params.load()
    task = everything.task(given.task)
    where = everything.where("corpus", task)
    chosen = corpora.settings(everything.block("corpus", task), where)
    kind = corpora.load(chosen.kind, where)
    seed = everything.root.corpus_seed
    published = corpora.published(kind, chosen)
    report = {"kind": chosen.kind, **build(kind.documents(chosen, seed), chosen, seed, given.output, published)}
    if published is not None:
        report["published"] = published
    files.write_json(given.report, report)
    for split in SPLITS:
        print(f"{split}: {report[split]['documents']:,} documents, {report[split]['characters']:,} characters")


if __name__ == "__main__":
    open_door(main)
