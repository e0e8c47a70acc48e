"""Simple rules for documents that are not worth training on: length and repetition as in Gopher (Rae et al. 2021, table
A1 and section A.1), and language by py3langid.

Words are those of ``ngrams``. A word counts as repeated where it is in an n-gram of REPEATED words that stood in the
document before, once however many of those it is in; a character of a line where the line did, white space around it
aside. Gopher's own limits are 50 to 100,000 words, words of 3 to 10 characters, 0.2 for lines, 0.15 for words (it
counts these in characters, and more lengths of n-grams).

A language is told from the first LANGUAGE_CHARACTERS, at 3 MB of text a second and core; texts of a few words or in two
languages are often mistaken, and code passes for English.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from freshstart.corpora import QualityRules
from freshstart.corpora.ngrams import ngrams

REPEATED = 5  # words
LANGUAGE_CHARACTERS = 4_000


def broken(rules: QualityRules, text: str, words: Sequence[str], hashed: np.ndarray) -> str | None:
    """The first rule that a text with these words breaks; None where it keeps all."""
    if rules.words is not None and not rules.words[0] <= len(words) <= rules.words[1]:
        return "too few words" if len(words) < rules.words[0] else "too many words"
    if rules.word_length is not None:
        least, most = rules.word_length
        if not least <= sum(map(len, words)) / max(len(words), 1) <= most:
            return "length of words"
    if rules.repeated_lines is not None and repeated_lines(text) > rules.repeated_lines:
        return "repeated lines"
    if rules.repeated_words is not None and repeated_words(hashed) > rules.repeated_words:
        return "repeated words"
    if rules.languages:
        from py3langid import classify

        language = classify(text[:LANGUAGE_CHARACTERS])[0]
        return None if language in rules.languages else f"language {language}"
    return None


def repeated_lines(text: str) -> float:
    """The share of characters that stand in a line that stood in the text before."""
    lines = [line.strip() for line in text.splitlines()]
    total = sum(map(len, lines))
    return 1 - sum(map(len, set(lines))) / total if total else 0.0


def repeated_words(hashed: np.ndarray) -> float:
    """The share of words with these hashes that are in an n-gram of REPEATED words that stood in the text before."""
    if len(hashed) <= REPEATED:
        return 0.0
    grams = ngrams(hashed, REPEATED)
    again = np.ones(len(grams), bool)
    again[np.unique(grams, return_index=True)[1]] = False
    return float((np.convolve(again, np.ones(REPEATED)) > 0.5).mean())
