"""ROUGE (Lin 2004) by the rouge-score package, its companions, and the protocol that every number needs beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from typing import Literal, Protocol

from lab_utils import companions
from lab_utils.significance import RESAMPLES, bootstrap
from lab_utils.texts import split_sentences, stemmer

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
MEASURES = (*ROUGE, *(f"best_{name}" for name in ROUGE))  # by the protocol, and with the best reference


class Scored(companions.Scored, Protocol):
    """Anything with an id, a prediction and its references."""

    id: str


@dataclass(frozen=True)
class RougeProtocol:
    """How a ROUGE number came about. Two numbers with different protocols cannot be compared."""

    stemmer: bool = True
    sentences: Literal["rule", "none"] = "rule"  # only rougeLsum looks at sentences
    references: Literal["mean", "best", "first"] = "mean"  # the best is chosen for each measure by itself

    def __str__(self) -> str:
        said = {
            "mean": "mean over a document's references",
            "best": "the best of a document's references",
            "first": "a document's first reference",
        }
        stemmer = "with stemmer" if self.stemmer else "without stemmer"
        sentences = "sentences split by rule for Lsum" if self.sentences == "rule" else "text as one sentence"
        return f"rouge-score, F1 x 100, {stemmer}, {sentences}, {said[self.references]}; 95% bootstrap interval over documents"

    def describe(self) -> dict:
        """The protocol as a record keeps it."""
        return {
            "package": "rouge-score",
            "measure": "F1 x 100, mean over documents",
            **asdict(self),
            "interval": f"95%, percentile bootstrap over documents, {RESAMPLES:,} resamples, seed 0",
        }


PROTOCOL = RougeProtocol()


@cache
def _scorer(stemmed: bool):
    from rouge_score import tokenize
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import Tokenizer

    class Remembering(Tokenizer):
        """rouge-score's own tokens, with a stemmer that remembers; so does the tokenizer, since references are read for every system."""

        stem = staticmethod(stemmer())

        @lru_cache(maxsize=20_000)  # noqa: B019 - there are two of them, for good
        def tokenize(self, text):
            return tokenize.tokenize(text, self if stemmed else None)

    return RougeScorer(list(ROUGE), tokenizer=Remembering())


def rouge(prediction: str, reference: str, protocol: RougeProtocol = PROTOCOL) -> dict[str, float]:
    """ROUGE-1, 2, L and Lsum of one pair, F1 from 0 to 100."""
    if protocol.sentences == "rule":
        prediction, reference = ("\n".join(split_sentences(text)) for text in (prediction, reference))
    else:
        prediction, reference = (" ".join(text.split()) for text in (prediction, reference))
    scores = _scorer(protocol.stemmer).score(reference, prediction)
    return {name: 100 * scores[name].fmeasure for name in ROUGE}


def score(predictions: Sequence[Scored], documents: Mapping[str, str] | None = None, protocol: RougeProtocol = PROTOCOL) -> list[dict]:
    """One row per document: `id`, each ROUGE by the protocol and, as `best_...`, with the best reference, and the companions.

    Args:
        documents: id -> text; without it, the companions that compare a summary with its document are None.
    """
    rows = []
    for item in predictions:
        references = item.references[:1] if protocol.references == "first" else item.references
        pairs = [rouge(item.prediction, reference, protocol) for reference in references]
        row = {"id": item.id}
        for name in ROUGE:
            values = [pair[name] for pair in pairs]
            row[f"best_{name}"] = max(values)
            row[name] = row[f"best_{name}"] if protocol.references == "best" else sum(values) / len(values)
        document = None if documents is None else documents.get(item.id)
        rows.append(row | companions.describe(item.prediction, item.references, document, getattr(item, "stopped", None)))
    return rows


def summarize(rows: Sequence[dict], protocol: RougeProtocol = PROTOCOL) -> dict:
    """Means with intervals over documents, n and the protocol: the `metrics` of a run's record.

    `companions` holds those that apply to at least one document, each with the number of documents it applies to.
    """
    result = {"protocol": protocol.describe(), "n": len(rows)}
    for name in MEASURES:
        result[name] = asdict(bootstrap([row[name] for row in rows]))
    result["companions"] = {}
    for name in [key for key in rows[0] if key != "id" and key not in result]:
        values = [row[name] for row in rows if row[name] is not None]
        if values:
            result["companions"][name] = asdict(bootstrap(values)) | {"n": len(values)}
    return result
