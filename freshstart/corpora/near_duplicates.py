"""Which documents are nearly equal: MinHash with locality-sensitive hashing (Broder 1997; Lee et al. 2022, appendix A).

Documents are sets of word 5-grams (``ngrams``); a shorter text is one n-gram. A signature is HASHES minima under random
hash functions, and the share of minima that two signatures have in common estimates the Jaccard similarity of the
sets, with a standard error of 0.037 at 0.8. Documents that agree in all ROWS of one of the BANDS are candidates: 0.998
of the pairs of similarity 0.8, 0.27 of those of 0.5. Candidates with an estimate of at least THRESHOLD are
near-duplicates, and documents linked by such pairs are a group, even where its ends are less alike.

Groups depend on neither names nor order of documents, nor on the process. Signatures wait on disk, 480 bytes a
document; comparing them takes 10 seconds and 160 MB of memory a million documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from freshstart.corpora.ngrams import BASE, ngrams

WORDS, THRESHOLD = 5, 0.8
BANDS, ROWS = 20, 6
HASHES = BANDS * ROWS
CHUNK = 100_000  # candidates that are compared at a time


def signatures(hashed: Sequence[np.ndarray]) -> bytes:
    """HASHES minima (uint32) over the n-grams of each text with these word hashes; zeros where it has no word."""
    from rensa import RMinHash

    made = np.zeros((len(hashed), HASHES), np.uint32)
    worded = [number for number, text in enumerate(hashed) if len(text)]
    if worded:
        grams = [ngrams(hashed[number], WORDS) for number in worded]
        made[worded] = RMinHash.digest_matrix_from_token_hash_sets(grams, num_perm=HASHES, seed=0).to_rows()
    return made.tobytes()


def groups(path: Path, keys: np.ndarray) -> np.ndarray:
    """Of each document, the one of its group that comes first by ``keys``, itself where it has no near-duplicate.

    ``path`` holds the signatures, in the order of ``keys`` (int64).
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    signatures = np.memmap(path, np.uint32, "r").reshape(-1, HASHES)
    first, second = [], []
    for band in range(0, HASHES, ROWS):
        mixed = np.zeros(len(keys), np.uint64)
        for row in range(band, band + ROWS):
            mixed = mixed * BASE + signatures[:, row]
        order = np.lexsort((keys, mixed))
        follows = np.flatnonzero(mixed[order[1:]] == mixed[order[:-1]])
        for at in np.split(follows, range(CHUNK, len(follows), CHUNK)):
            one, other = order[at], order[at + 1]
            alike = (signatures[one] == signatures[other]).mean(1) >= THRESHOLD
            alike &= signatures[one].any(1)  # no words
            first.append(one[alike])
            second.append(other[alike])
    links = np.concatenate(first), np.concatenate(second)
    graph = coo_matrix((np.ones(len(links[0]), bool), links), (len(keys), len(keys)))
    label = connected_components(graph, directed=False)[1]
    by_key = np.argsort(keys, kind="stable")
    _, where = np.unique(label[by_key], return_index=True)
    return by_key[where][label]
