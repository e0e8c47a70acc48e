"""corpus: fetch a task's documents, drop exact duplicates, subsample and split them by content.

    python -m stages.corpus --task pep8 --output data/corpus/pep8 --report reports/corpus/pep8.json

Reads corpus.<task> of the scale file and corpus_seed of params.yaml. Writes {train,heldout}/part-*.parquet (columns
doc_id, text, source, meta) and a report: how many documents, from where, and what was left out and why. A kind whose
documents come with published scores adds segment_ends, scores and check_again, and whose they are to the report.
"""

from freshstart import files, params
from freshstart.corpora import settings
from freshstart.corpora.build import build
from freshstart.doors import arguments, open_door


def main() -> None:
    given = arguments(__doc__, "task", output="folder for the corpus parts", report="file for what it holds")
    everything = params.load()
    task = everything.task(given.task)
    chosen = settings(everything.block("corpus", task), f"{everything.file}: corpus.{task}")
    kind = params.found_module("freshstart.corpora", chosen.kind, "kind", str(everything.file))
    seed = everything.root.corpus_seed
    published = kind.published(chosen) if hasattr(kind, "published") else None
    report = {"kind": chosen.kind, **build(kind.documents(chosen, seed), chosen, seed, given.output, published)}
    if published is not None:
        report["published"] = published
    files.write_json(given.report, report)
    for split in ("train", "heldout"):
        print(f"{split}: {report[split]['documents']:,} documents, {report[split]['characters']:,} characters")


if __name__ == "__main__":
    open_door(main)
