"""ROUGE (Lin 2004) by the rouge-score package, with the protocol that every number needs beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Protocol

from lab_utils.significance import bootstrap

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
PROTOCOL = {
    "package": "rouge-score",
    "measure": "F1 x 100, mean over documents",
    "stemmer": True,
    "sentences": "split after . ! ? and at line breaks, for rougeLsum",
    "references": "mean over a document's references; 'best' takes the highest",
    "interval": "95%, percentile bootstrap over documents, 10,000 resamples, seed 0",
}


class Scored(Protocol):
    """Anything with an id, a prediction and its references."""

    id: str
    prediction: str
    references: Sequence[str]


def split_sentences(text: str) -> list[str]:
    """Sentences, by punctuation followed by a space: needs no downloaded model, unlike NLTK's splitter."""
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", text) if part.strip()]


@cache
def _scorer():
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE), use_stemmer=True)


def rouge(prediction: str, reference: str) -> dict[str, float]:
    """ROUGE-1, 2, L and Lsum of one pair, F1 from 0 to 100."""
    scores = _scorer().score("\n".join(split_sentences(reference)), "\n".join(split_sentences(prediction)))
    return {name: 100 * scores[name].fmeasure for name in ROUGE}


def score(predictions: Sequence[Scored]) -> list[dict]:
    """One row per document: `id`, each ROUGE as the mean over its references, and `best_...` as the highest."""
    rows = []
    for item in predictions:
        pairs = [rouge(item.prediction, reference) for reference in item.references]
        row = {"id": item.id}
        for name in ROUGE:
            values = [pair[name] for pair in pairs]
            row[name], row[f"best_{name}"] = sum(values) / len(values), max(values)
        rows.append(row)
    return rows


def summarize(rows: Sequence[dict]) -> dict:
    """Means with intervals over documents, n and the protocol: the `metrics` of a run's record."""
    result = {"protocol": PROTOCOL, "n": len(rows)}
    for name in [*ROUGE, *(f"best_{name}" for name in ROUGE)]:
        interval = bootstrap([row[name] for row in rows])
        result[name] = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return result
