"""From a stream of documents to the corpus parts: exact duplicates dropped, subsampled, split, shuffled by content.

Three passes, none of which holds a corpus in memory. (1) Documents are spooled to one Parquet file on disk, while
their hashes, lengths and sources stay in memory (about 150 bytes a document). (2) With all lengths known, sources are
held out, and both splits are cut to their number of characters in the order of ``blake2b(seed, document id)``: a
subsample that depends on neither file names nor order. (3) The chosen documents are dealt to parts by that same order
and each part is sorted by it. Peak memory is a few parts' worth of text.

Scores that were published with the documents travel along in three more columns, and whose they are in the schema's
metadata under ``published``.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from freshstart import files
from freshstart.corpora import CorpusSettings, Document, Refusal, document_id, meta_json
from freshstart.errors import InputError
from freshstart.names import SPLITS
from freshstart.progress import track
from freshstart.schema import CORPUS, PUBLISHED, PUBLISHED_KEY

SPOOL_CHARACTERS = 8_000_000
SHOWN_REFUSALS = 20


@dataclass
class Catalogue:
    """What pass 1 remembers of each distinct document, in the order of the spool."""

    keys: list[int] = field(default_factory=list)  # place in the order by content
    lengths: list[int] = field(default_factory=list)  # characters
    sources: list[int] = field(default_factory=list)  # index into names
    names: dict[str, int] = field(default_factory=dict)


def build(
    stream: Iterable[Document | Refusal],
    settings: CorpusSettings,
    seed: int,
    output: Path,
    published: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write ``output/{train,heldout}/part-*.parquet``; give what they hold and what was left out.

    ``published`` says whose scores the documents bring along; without it they bring none. Raises InputError where a
    document is refused (unless ``skip_bad``) and where a split would be empty.
    """
    output = files.fresh_folder(output)
    schema = _schema(published)
    refused: Counter[str] = Counter()
    examples: list[dict[str, str]] = []

    def accepted() -> Iterator[tuple[str, Document]]:
        seen: set[bytes] = set()
        for item in track(stream, "reading documents", None, "documents"):
            checked = check(item, settings.max_document_characters) if isinstance(item, Document) else item
            if isinstance(checked, Refusal):
                if not settings.skip_bad:
                    detail = f" ({checked.detail})" if checked.detail else ""
                    raise InputError(
                        f"{checked.where}: {checked.reason}{detail}. Mend it, or set skip_bad: true to leave such "
                        "documents out and count them"
                    )
                refused[checked.reason] += 1
                if len(examples) < SHOWN_REFUSALS:
                    examples.append({"where": checked.where, "reason": checked.reason, "detail": checked.detail})
            elif (key := bytes.fromhex(checked)) in seen:
                refused["exact duplicate"] += 1
            else:
                seen.add(key)
                yield checked, item

    with tempfile.TemporaryDirectory(dir=output, prefix=".spool-") as folder:
        spool = Path(folder) / "documents.parquet"
        catalogue = _spool(accepted(), seed, spool, schema)
        if not catalogue.keys:
            reasons = ", ".join(f"{count} {reason}" for reason, count in refused.most_common()) or "no documents found"
            raise InputError(f"the corpus is empty ({reasons}): check what corpus.<task> points at")
        split, part = _plan(catalogue, settings, seed)
        for name in SPLITS:
            if not (split == SPLITS.index(name)).any():
                raise InputError(
                    f"the corpus has {len(catalogue.keys)} documents from {len(catalogue.names)} sources, and none is "
                    f"left for {name}: add documents or sources, or change heldout and heldout_characters"
                )
        for index, name in enumerate(SPLITS):
            _deal(spool, catalogue, np.where(split == index, part, -1), output / name, schema)
    return _report(catalogue, split, part, refused, examples)


def check(document: Document, longest: int) -> str | Refusal:
    """The document's id, or why it can not be one."""
    where = str(document.meta.get("path", document.source))
    if not document.text.strip():
        return Refusal(where, "empty document")
    if len(document.text) > longest:
        return Refusal(where, "document too long", f"{len(document.text):,} characters, at most {longest:,}")
    if "\0" in document.text:
        return Refusal(where, "NUL byte", f"at character {document.text.index(chr(0)):,}")
    try:
        return document_id(document.text)
    except UnicodeEncodeError as error:
        return Refusal(where, "lone surrogate", f"at character {error.start:,}")


def order_key(seed: int, doc_id: str) -> int:
    """Where a document stands in the order of its content: 63 bits of blake2b(seed, id)."""
    raw = hashlib.blake2b(f"{seed}:{doc_id}".encode(), digest_size=8).digest()
    return int.from_bytes(raw, "big") >> 1


def _schema(published: Mapping[str, Any] | None) -> pa.Schema:
    if published is None:
        return CORPUS
    record = json.dumps(published, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return pa.schema([*CORPUS, *PUBLISHED], metadata={PUBLISHED_KEY: record.encode()})


def _spool(documents: Iterator[tuple[str, Document]], seed: int, path: Path, schema: pa.Schema) -> Catalogue:
    catalogue = Catalogue()
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        rows: list[tuple[Any, ...]] = []
        held = 0
        for doc_id, document in documents:
            catalogue.keys.append(order_key(seed, doc_id))
            catalogue.lengths.append(len(document.text))
            catalogue.sources.append(catalogue.names.setdefault(document.source, len(catalogue.names)))
            row: tuple[Any, ...] = (doc_id, document.text, document.source, meta_json(document.meta))
            if len(schema) > len(CORPUS):
                row += (document.segment_ends, document.scores, document.check_again)
            rows.append(row)
            held += len(document.text)
            if held >= SPOOL_CHARACTERS:
                writer.write_table(_table(rows, schema))
                rows, held = [], 0
        if rows:
            writer.write_table(_table(rows, schema))
    return catalogue


def _plan(catalogue: Catalogue, settings: CorpusSettings, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """For each document its split (0 train, 1 heldout, -1 neither) and its part within the split."""
    keys = np.array(catalogue.keys, dtype=np.int64)
    lengths = np.array(catalogue.lengths, dtype=np.int64)
    heldout = _heldout(catalogue, keys, lengths, settings, seed)
    order = np.argsort(keys, kind="stable")
    split = np.full(len(keys), -1, dtype=np.int8)
    part = np.full(len(keys), -1, dtype=np.int64)
    budgets = (settings.train_characters, settings.heldout_characters)
    for index, (mine, budget) in enumerate(zip((~heldout, heldout), budgets, strict=True)):
        chosen = order[mine[order]]
        before = np.cumsum(lengths[chosen]) - lengths[chosen]
        within = before < budget
        chosen, before = chosen[within], before[within]
        split[chosen] = index
        part[chosen] = before // settings.part_characters
        part[chosen] = np.unique(part[chosen], return_inverse=True)[1]  # a long document may skip a number
    return split, part


def _heldout(
    catalogue: Catalogue, keys: np.ndarray, lengths: np.ndarray, settings: CorpusSettings, seed: int
) -> np.ndarray:
    """Which documents may be held out: whole sources, or a tenth of the only source."""
    if len(catalogue.names) == 1:
        return keys % 10 == 0 if len(keys) >= 10 else keys == keys.min()
    sources = np.array(catalogue.sources)
    if settings.heldout:
        unknown = sorted(set(settings.heldout) - set(catalogue.names))
        if unknown:
            names = sorted(catalogue.names)
            raise InputError(
                f"heldout names {', '.join(unknown)}, but the corpus has no such source; it has {len(names)}: "
                f"{', '.join(names[:20])}{', …' if len(names) > 20 else ''}"
            )
        return np.isin(sources, [catalogue.names[name] for name in settings.heldout])
    sizes = np.bincount(sources, weights=lengths)
    drawn: list[int] = []
    for name in sorted(catalogue.names, key=lambda name: order_key(seed, f"source:{name}")):
        index = catalogue.names[name]
        if sizes[drawn].sum() >= settings.heldout_characters or len(drawn) == len(sizes) - 1:
            break
        if sizes[[*drawn, index]].sum() <= sizes.sum() / 2 or not drawn:
            drawn.append(index)
    return np.isin(sources, drawn)


def _deal(spool: Path, catalogue: Catalogue, part: np.ndarray, folder: Path, schema: pa.Schema) -> None:
    """Write the documents with ``part >= 0`` to their parts, each part in the order of its documents' keys."""
    with tempfile.TemporaryDirectory(dir=spool.parent) as heap:
        writers = [
            pq.ParquetWriter(Path(heap) / str(index), schema, compression="zstd") for index in range(part.max() + 1)
        ]
        row = 0
        with pq.ParquetFile(spool) as file:
            for batch in file.iter_batches(batch_size=4096):
                mine = part[row : row + len(batch)]
                row += len(batch)
                for index in np.unique(mine[mine >= 0]):
                    writers[index].write_batch(batch.filter(pa.array(mine == index)))
        for writer in writers:
            writer.close()
        keys = np.array(catalogue.keys, dtype=np.int64)
        for index in range(len(writers)):
            table = pq.read_table(Path(heap) / str(index))
            order = np.argsort(keys[np.flatnonzero(part == index)], kind="stable")
            files.write_table(folder / files.part_name(index), table.take(pa.array(order)))


def _table(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(values, type=column.type) for values, column in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _report(
    catalogue: Catalogue, split: np.ndarray, part: np.ndarray, refused: Counter[str], examples: list[dict[str, str]]
) -> dict[str, Any]:
    lengths, sources = np.array(catalogue.lengths), np.array(catalogue.sources)
    names = list(catalogue.names)
    report: dict[str, Any] = {
        "documents": len(lengths),
        "characters": int(lengths.sum()),
        "sources": len(names),
        "left_out": dict(sorted(refused.items())),
        "left_out_examples": examples,
    }
    for index, name in enumerate(SPLITS):
        mine = split == index
        by_source = np.bincount(sources[mine], weights=lengths[mine], minlength=len(names)).astype(int)
        shown = itertools.islice(sorted(zip(-by_source, names, strict=True)), 50)
        report[name] = {
            "documents": int(mine.sum()),
            "characters": int(lengths[mine].sum()),
            "parts": int(part[mine].max()) + 1,
            "characters_by_source": {source: int(-size) for size, source in shown if size},
        }
    return report
