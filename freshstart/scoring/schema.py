"""The columns of the scored table."""

from __future__ import annotations

import pyarrow as pa

from freshstart.corpora.build import SCHEMA as CORPUS

RESULTS = ("segment_ends", "scores", "avg_score", "reasons", "error")
REASON = pa.struct([("begin", pa.int32()), ("end", pa.int32()), ("kind", pa.string())])
SCHEMA = pa.schema(
    [
        *CORPUS,
        ("segment_ends", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float32())),
        ("avg_score", pa.float32()),
        ("reasons", pa.list_(REASON)),
        ("error", pa.string()),
    ]
)
RESULT = pa.schema([CORPUS.field("doc_id"), *(SCHEMA.field(name) for name in RESULTS)])
FINGERPRINT = b"freshstart"
