"""The Parquet schemas that pass between rooms: a corpus part, and a scored part, which adds to it."""

from __future__ import annotations

import pyarrow as pa

CORPUS = pa.schema(
    [("doc_id", pa.string()), ("text", pa.large_string()), ("source", pa.string()), ("meta", pa.string())]
)
PUBLISHED = [("segment_ends", pa.list_(pa.int32())), ("scores", pa.list_(pa.float32())), ("check_again", pa.bool_())]
PUBLISHED_KEY = b"published"  # metadata of a corpus part: whose the published scores in it are
REASON = pa.struct([("begin", pa.int32()), ("end", pa.int32()), ("kind", pa.string())])
RESULTS = ("segment_ends", "scores", "avg_score", "reasons", "error")
SCORED = pa.schema(
    [
        *CORPUS,
        ("segment_ends", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float32())),
        ("avg_score", pa.float32()),
        ("reasons", pa.list_(REASON)),
        ("error", pa.string()),
    ]
)
RESULT = pa.schema([CORPUS.field("doc_id"), *(SCORED.field(name) for name in RESULTS)])
FINGERPRINT_KEY = b"freshstart"  # metadata of a scored part: all that its scores depend on
