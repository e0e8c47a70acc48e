"""From a stream of documents to the corpus parts: duplicates dropped, subsampled, split, shuffled by content.

Four passes, none of which holds a corpus in memory. (1) Documents are spooled to pieces on disk, while their hashes,
lengths and sources stay in memory (about 150 bytes a document). (2) Pieces are looked at on the pool (``screening``):
those that break a rule are left out (``quality``), those that share text with a benchmark counted or left out
(``overlap``), signatures are made of the others (``near_duplicates``). (3) With all lengths known, sources are held
out, and both splits are cut to their number of characters in the order of ``blake2b(seed, document id)``: a subsample
that depends on neither file names nor order. (4) The chosen documents are dealt to parts by that same order and each
part is sorted by it. Peak memory is a few parts' worth of text.

Scores that were published with the documents travel along in three more columns, and whose they are in the schema's
metadata under ``published``.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from freshstart import files
from freshstart.corpora import (
    CorpusSettings,
    Document,
    QualityRules,
    Refusal,
    document_id,
    near_duplicates,
    overlap,
    screening,
)
from freshstart.errors import InputError
from freshstart.names import SPLITS
from freshstart.progress import track
from freshstart.schema import CORPUS, PUBLISHED, PUBLISHED_KEY
from freshstart.settings import listed

SPOOL_CHARACTERS, SPOOL_ROWS = 8_000_000, 8192
SHOWN_REFUSALS = 20
SHOWN_SOURCES = 50


@dataclass
class Catalogue:
    """What is remembered: of each document, in the order of the spool, and of what was left out."""

    keys: array[int] = field(default_factory=lambda: array("q"))  # place in the order by content
    lengths: array[int] = field(default_factory=lambda: array("q"))  # characters
    sources: array[int] = field(default_factory=lambda: array("q"))  # index into names
    names: dict[str, int] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)  # number by reason
    examples: list[Refusal] = field(default_factory=list)

    def leave_out(self, reasons: Mapping[int, str], stay: np.ndarray) -> None:
        """Count the documents that do not stay by their reason, and forget them, and sources that have no other."""
        self.left_out.update(reasons.values())
        used, sources = np.unique(np.array(self.sources)[stay], return_inverse=True)
        names = list(self.names)
        self.names = {names[index]: number for number, index in enumerate(used)}
        columns = (np.array(self.keys)[stay], np.array(self.lengths)[stay], sources)
        self.keys, self.lengths, self.sources = (array("q", column.astype(np.int64).tobytes()) for column in columns)


def build(
    stream: Iterable[Document | Refusal],
    settings: CorpusSettings,
    seed: int,
    output: Path,
    published: Mapping[str, Any] | None = None,
    workers: int | None = 0,
) -> dict[str, Any]:
    """Write ``output/{train,heldout}/part-*.parquet``; give what they hold and what was left out.

    ``published`` says whose scores the documents bring along; without it they bring none. ``workers`` as in
    ``pool.run``; what is written does not depend on it. Raises InputError where a document is refused (unless
    ``skip_bad``), where a benchmark can not be read and where a split would be empty.
    """
    benchmarks = overlap.load(settings.benchmarks)
    output = files.fresh_folder(output)
    with tempfile.TemporaryDirectory(dir=output, prefix=".spool-") as folder:
        signatures = Path(folder) / "signatures"
        catalogue = Catalogue()
        documents = _accepted(stream, settings, catalogue)
        pieces = _spool(documents, seed, Path(folder), _schema(published), catalogue)
        findings = screening.Findings()
        if settings.benchmarks or settings.near_duplicates != "none" or settings.quality != QualityRules():
            findings = screening.screen(pieces, settings, benchmarks, signatures, workers)
        keys = np.array(catalogue.keys)  # of all rows, as in the spool
        stay = ~np.isin(np.arange(len(keys)), list(findings.left_out))
        catalogue.leave_out(findings.left_out, stay)
        if not catalogue.keys:
            reasons = listed(f"{count} {reason}" for reason, count in catalogue.left_out.most_common())
            raise InputError(
                f"the corpus is empty ({reasons or 'no documents found'}): check what corpus.<task> points at"
            )
        group = np.arange(len(catalogue.keys))
        if settings.near_duplicates != "none":
            group = near_duplicates.groups(signatures, np.array(catalogue.keys))
        kept = group == np.arange(len(group)) if settings.near_duplicates == "drop" else np.ones(len(group), bool)
        split, part = _plan(catalogue, kept, settings, seed)
        for index, name in enumerate(SPLITS):
            if index not in split:
                raise InputError(
                    f"the corpus has {len(catalogue.keys)} documents from {len(catalogue.names)} sources, and none is "
                    f"left for {name}: add documents or sources, or change heldout and heldout_characters"
                )
        for index, name in enumerate(SPLITS):
            dealt = np.full(len(keys), -1)
            dealt[stay] = np.where(split == index, part, -1)
            _deal(pieces, keys, dealt, output / name)
    report = _report(catalogue, kept, split, part)
    if settings.near_duplicates != "none":
        train, heldout = (group[split == index] for index in range(len(SPLITS)))
        report["near_duplicates"] = {
            "train": len(train) - len(np.unique(train)),
            "heldout": len(heldout) - len(np.unique(heldout)),
            "train_of_heldout": int(np.isin(train, heldout).sum()),
        }
    if settings.benchmarks:
        number = np.cumsum(stay) - 1  # of a row among those that stay
        overlaps = {int(number[row]): items for row, items in findings.overlaps.items()}
        report["benchmarks"] = benchmarks.report(overlaps, split)
        report["overlap_examples"] = [asdict(example) for example in findings.examples]
    return report


def check(document: Document, longest: int) -> str | Refusal:
    """The document's id, or why it cannot be one."""
    where = str(document.meta.get("path", document.source))
    if not document.text.strip():
        return Refusal(where, "empty document")
    if len(document.text) > longest:
        return Refusal(where, "document too long", f"{len(document.text):,} characters, at most {longest:,}")
    if "\0" in document.text:
        return Refusal(where, "NUL byte", f"at character {document.text.index(chr(0)):,}")
    try:
        (document.source + where).encode()
        return document_id(document.text)
    except UnicodeEncodeError as error:
        of = "the text" if error.object is document.text else "its source or path"
        return Refusal(where, "lone surrogate", f"at character {error.start:,} of {of}")


def order_key(seed: int, doc_id: str) -> int:
    """Where a document stands in the order of its content: 63 bits of blake2b(seed, id)."""
    raw = hashlib.blake2b(f"{seed}:{doc_id}".encode(), digest_size=8).digest()
    return int.from_bytes(raw, "big") >> 1


def _accepted(
    stream: Iterable[Document | Refusal], settings: CorpusSettings, catalogue: Catalogue
) -> Iterator[tuple[str, Document]]:
    """The distinct documents with their ids; what is left out is counted in the catalogue."""
    seen: set[bytes] = set()
    for item in track(stream, "reading documents", None, "documents"):
        checked = check(item, settings.max_document_characters) if isinstance(item, Document) else item
        if isinstance(checked, Refusal):
            if not settings.skip_bad:
                detail = f" ({checked.detail})" if checked.detail else ""
                raise InputError(
                    f"{checked.where}: {checked.reason}{detail}. Correct it, or set skip_bad: true to leave such "
                    "documents out and count them"
                )
            catalogue.left_out[checked.reason] += 1
            if len(catalogue.examples) < SHOWN_REFUSALS:
                printable = (part.encode(errors="backslashreplace").decode() for part in astuple(checked))
                catalogue.examples.append(Refusal(*printable))
        elif (key := bytes.fromhex(checked)) in seen:
            catalogue.left_out["exact duplicate"] += 1
        else:
            seen.add(key)
            yield checked, item


def _schema(published: Mapping[str, Any] | None) -> pa.Schema:
    if published is None:
        return CORPUS
    record = json.dumps(published, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return pa.schema([*CORPUS, *PUBLISHED], metadata={PUBLISHED_KEY: record.encode()})


def _spool(
    documents: Iterator[tuple[str, Document]], seed: int, folder: Path, schema: pa.Schema, catalogue: Catalogue
) -> list[Path]:
    """Write the documents to pieces of at most SPOOL_ROWS rows, and about SPOOL_CHARACTERS; gives those in order."""
    pieces: list[Path] = []
    rows: list[dict[str, Any]] = []
    held = 0

    def write() -> None:
        pieces.append(folder / f"piece-{len(pieces)}")
        with _writer(pieces[-1], schema) as writer:
            writer.write_table(pa.Table.from_pylist(rows, schema))
        rows.clear()

    for doc_id, document in documents:
        catalogue.keys.append(order_key(seed, doc_id))
        catalogue.lengths.append(len(document.text))
        catalogue.sources.append(catalogue.names.setdefault(document.source, len(catalogue.names)))
        values = {name: getattr(document, name, None) for name in schema.names}
        meta = json.dumps(document.meta, ensure_ascii=False, sort_keys=True)
        rows.append(values | {"doc_id": doc_id, "meta": meta})
        held += len(document.text)
        if held >= SPOOL_CHARACTERS or len(rows) == SPOOL_ROWS:
            write()
            held = 0
    if rows:
        write()
    return pieces


def _writer(path: Path, schema: pa.Schema) -> pa.RecordBatchStreamWriter:
    """Of Arrow's stream, which unlike a Parquet file has no list of its pieces to be held until the end."""
    return pa.ipc.new_stream(path, schema, options=pa.ipc.IpcWriteOptions(compression="zstd"))


def _plan(catalogue: Catalogue, kept: np.ndarray, settings: CorpusSettings, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """For each document its split (0 train, 1 heldout, -1 neither) and its part within the split."""
    keys, lengths = np.array(catalogue.keys), np.array(catalogue.lengths)
    heldout = _heldout(catalogue, keys, lengths * kept, settings, seed)
    order = np.argsort(keys, kind="stable")
    split = np.full(len(keys), -1, dtype=np.int8)
    part = np.full(len(keys), -1, dtype=np.int64)
    budgets = (settings.train_characters, settings.heldout_characters)
    for index, (eligible, budget) in enumerate(zip((kept & ~heldout, kept & heldout), budgets, strict=True)):
        chosen = order[eligible[order]]
        before = np.cumsum(lengths[chosen]) - lengths[chosen]
        chosen, before = chosen[before < budget], before[before < budget]
        split[chosen] = index
        # Numbered without gaps, which a document longer than a part would leave.
        part[chosen] = np.unique(before // settings.part_characters, return_inverse=True)[1]
    return split, part


def _heldout(
    catalogue: Catalogue, keys: np.ndarray, lengths: np.ndarray, settings: CorpusSettings, seed: int
) -> np.ndarray:
    """Which documents may be held out: whole sources, or a tenth of the only source."""
    names = catalogue.names
    if len(names) == 1:
        return keys % 10 == 0 if len(keys) >= 10 else keys == keys.min()
    sources = np.array(catalogue.sources)
    if settings.heldout:
        unknown = sorted(set(settings.heldout) - set(names))
        if unknown:
            raise InputError(
                f"heldout names {listed(unknown)}, but the corpus has no such source; it has {len(names)}: "
                f"{listed(sorted(names)[:20])}{', …' if len(names) > 20 else ''}"
            )
        return np.isin(sources, [names[name] for name in settings.heldout])
    sizes = np.bincount(sources, weights=lengths)
    drawn: list[int] = []
    total, half = 0.0, sizes.sum() / 2
    for name in sorted(names, key=lambda name: order_key(seed, f"source:{name}")):
        if total >= settings.heldout_characters or len(drawn) == len(sizes) - 1:
            break
        if total + sizes[names[name]] <= half or not drawn:
            drawn.append(names[name])
            total += sizes[names[name]]
    return np.isin(sources, drawn)


def _deal(pieces: Sequence[Path], keys: np.ndarray, part: np.ndarray, folder: Path) -> None:
    """Write the rows with ``part >= 0`` to their parts, each part in the order of its documents' keys."""
    with tempfile.TemporaryDirectory(dir=pieces[0].parent) as heap:
        heaps = [Path(heap) / str(index) for index in range(part.max() + 1)]
        writers: list[pa.RecordBatchStreamWriter] = []
        row = 0
        for piece in pieces:
            with pa.ipc.open_stream(pa.OSFile(str(piece))) as batches:
                writers = writers or [_writer(path, batches.schema) for path in heaps]
                for batch in batches:
                    parts = part[row : row + len(batch)]
                    row += len(batch)
                    for index in np.unique(parts[parts >= 0]):
                        writers[index].write_batch(batch.filter(pa.array(parts == index)))
        for writer in writers:
            writer.close()
        for index, path in enumerate(heaps):
            order = np.argsort(keys[part == index], kind="stable")
            with pa.ipc.open_stream(pa.OSFile(str(path))) as reader:
                files.write_table(folder / files.part_name(index), reader.read_all().take(pa.array(order)))


def _report(catalogue: Catalogue, kept: np.ndarray, split: np.ndarray, part: np.ndarray) -> dict[str, Any]:
    lengths, sources, names = np.array(catalogue.lengths), np.array(catalogue.sources), list(catalogue.names)
    left_out = catalogue.left_out + Counter({"near-duplicate": int((~kept).sum())})
    report: dict[str, Any] = {
        "documents": int(kept.sum()),
        "characters": int(lengths[kept].sum()),
        "sources": len(names),
        "left_out": dict(sorted(left_out.items())),
        "left_out_examples": [asdict(refusal) for refusal in catalogue.examples],
    }
    for index, name in enumerate(SPLITS):
        chosen = split == index
        by_source = np.bincount(sources[chosen], weights=lengths[chosen], minlength=len(names)).astype(int)
        largest = itertools.islice(sorted(zip(-by_source, names, strict=True)), SHOWN_SOURCES)
        report[name] = {
            "documents": int(chosen.sum()),
            "characters": int(lengths[chosen].sum()),
            "parts": int(part[chosen].max()) + 1,
            "characters_by_source": {source: int(-size) for size, source in largest if size},
        }
    return report
