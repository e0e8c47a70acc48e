"""The probability that a text is bad, from a small classifier learned in the scorer stage from labelled text.

TF-IDF over words (1 and 2 in a row) and over characters within words (2 to 5), then logistic regression. It learns in
seconds, needs no download, and stands in for a neural reward model on a laptop; it knows words and word parts, not
meaning. It is saved as JSON and safetensors, never as a pickle. A segment that scores at least a half gives as reasons
the words that added most to it. Cost: about 1 MB/s on one core.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from freshstart import files
from freshstart.scorers import Finding, Scored, Scorer, ScorerSettings, learning, pinned

WORD = re.compile(r"(?u)\b\w\w+\b")
REASONS_ABOVE = 0.5
WORDS_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Settings(ScorerSettings):
    """``labelled`` is ``synthetic`` (the labelled sentences of the synthetic corpus) or a file, folder or pattern of
    jsonl, csv or parquet; a row is bad where its ``label`` column holds one of ``bad``. ``share_heldout`` of the rows
    measure the classifier and are not learned from."""

    scikit_learn: str
    labelled: str
    text: str = "text"
    label: str = "label"
    bad: tuple[str, ...] = ("1",)
    rows: int = 8_000
    noise: float = 0.0
    seed: int = 0
    share_heldout: float = 0.2
    features: int = 40_000
    inverse_regularization: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share_heldout < 1 or not 0 <= self.noise < 0.5:
            raise ValueError("share_heldout must be between 0 and 1, and noise from 0 to below 0.5")
        if self.rows < learning.LEAST_ROWS:
            raise ValueError(f"rows must be at least {learning.LEAST_ROWS}, found {self.rows}")


class Classifier(Scorer):
    version = "1"
    over = 0.5
    display = "fold"

    def __init__(self, folder: Path, settings: Settings):
        pinned(scikit_learn=settings.scikit_learn)
        from safetensors.numpy import load_file

        terms = files.read_json(folder / "vocabulary.json", "scorer")
        arrays = load_file(folder / "model.safetensors")
        self._vectorizers = vectorizers(terms)
        for name, vectorizer in self._vectorizers.items():
            vectorizer.idf_ = arrays[f"{name}.idf"]
        self._weights = np.split(arrays["weights"], [len(terms["word"])])
        self._intercept = float(arrays["intercept"][0])

    def score(self, documents: Sequence[tuple[str, Sequence[int]]]) -> list[Scored]:
        bounds = [list(zip([0, *ends], ends, strict=False)) for _, ends in documents]
        segments = [text[a:b] for (text, _), spans in zip(documents, bounds, strict=True) for a, b in spans]
        scores = iter(self.score_texts(segments))
        results = []
        for (text, _), spans in zip(documents, bounds, strict=True):
            own = tuple(next(scores) for _ in spans)
            bad = [span for span, score in zip(spans, own, strict=True) if score >= REASONS_ABOVE]
            results.append(Scored(own, tuple(reason for a, b in bad for reason in self.reasons(text, a, b))))
        return results

    def score_texts(self, texts: Sequence[str]) -> list[float]:
        if not texts:
            return []
        logits = self._intercept + self._sums(texts)
        return [float(score) for score in 1.0 / (1.0 + np.exp(-logits))]

    def reasons(self, text: str, begin: int, end: int) -> list[Finding]:
        """The words of a segment that speak most for bad, each read on its own."""
        words = [(match.start(), match.end()) for match in WORD.finditer(text, begin, end)]
        if not words:
            return []
        sums = self._sums([text[a:b] for a, b in words])
        most = [index for index in np.argsort(-sums, kind="stable")[:WORDS_SHOWN] if sums[index] > 0]
        return [Finding(*words[index], "toxic") for index in sorted(most)]

    def _sums(self, texts: Sequence[str]) -> np.ndarray:
        parts = zip(self._vectorizers.values(), self._weights, strict=True)
        return sum(vectorizer.transform(texts) @ weights for vectorizer, weights in parts)


def vectorizers(terms: dict[str, list[str]] | None = None, features: int | None = None) -> dict[str, Any]:
    """The two TF-IDF vectorizers, to be fitted or with a known vocabulary."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    terms = terms or {}
    shared = {"sublinear_tf": True, "dtype": np.float64}
    own = {
        "word": {"ngram_range": (1, 2), "token_pattern": WORD.pattern},
        "char": {"ngram_range": (2, 5), "analyzer": "char_wb"},
    }
    limits = {"min_df": 2, "max_features": features} if not terms else {}
    return {name: TfidfVectorizer(vocabulary=terms.get(name), **limits, **shared, **mine) for name, mine in own.items()}


def learn(settings: Settings, labelled: Iterable[tuple[str, int]], folder: Path) -> dict[str, Any]:
    """Learn from (text, 1 where bad), write the model to ``folder`` and give its held-out metrics."""
    from safetensors.numpy import save_file
    from scipy.sparse import hstack
    from sklearn.linear_model import LogisticRegression

    pinned(scikit_learn=settings.scikit_learn)
    rows = learning.divide(labelled, settings)
    texts, labels = rows.learned
    fitted = vectorizers(features=settings.features)
    inputs = hstack([vectorizer.fit_transform(texts) for vectorizer in fitted.values()], format="csr")
    model = LogisticRegression(C=settings.inverse_regularization, max_iter=1000).fit(inputs, labels)
    arrays = {f"{name}.idf": vectorizer.idf_ for name, vectorizer in fitted.items()}
    arrays |= {"weights": model.coef_[0], "intercept": model.intercept_}
    terms = {name: vectorizer.get_feature_names_out().tolist() for name, vectorizer in fitted.items()}
    files.write_json(folder / "vocabulary.json", terms)
    with files.written(folder / "model.safetensors") as temporary:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary)
    return learning.metrics(rows, Classifier(folder, settings).score_texts(rows.measured[0]))


SCORER = Classifier
