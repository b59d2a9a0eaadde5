"""The lab's ROUGE as an `evaluate.Metric`, for tools that expect one; it needs no download, unlike `evaluate.load("rouge")`."""

from __future__ import annotations

from types import SimpleNamespace

import datasets
import evaluate

from lab_utils import metrics


class Rouge(evaluate.Metric):
    """`Rouge().compute(predictions=[...], references=[...])` gives the exact means over documents, 0 to 100.

    A document's references are one text or a list of texts; `rouge1` ... are by the protocol, `best_rouge1` ... with the best reference.
    `compute(..., stemmer=False)` and the like change the protocol (`metrics.RougeProtocol`). Where evaluate's own metric gives the median
    of random resamples, these are means: the same input gives the same number.
    """

    def __init__(self, **options):
        super().__init__(**{"keep_in_memory": True} | options)

    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description="ROUGE-1, 2, L and Lsum by rouge-score, with stemmer, sentences split by rule, several references.",
            citation="Lin, C.-Y. (2004). ROUGE: A package for automatic evaluation of summaries.",
            inputs_description="predictions: texts. references: for each prediction one text, or a list of texts.",
            features=[
                datasets.Features({"predictions": text, "references": datasets.Sequence(text)}),
                datasets.Features({"predictions": text, "references": text}),
            ],
        )

    def _compute(self, predictions, references, **protocol):
        items = [
            SimpleNamespace(id=str(number), prediction=prediction, references=[given] if isinstance(given, str) else given)
            for number, (prediction, given) in enumerate(zip(predictions, references, strict=True))
        ]
        rows = metrics.score(items, protocol=metrics.RougeProtocol(**protocol))
        return {name: sum(row[name] for row in rows) / len(rows) for name in metrics.MEASURES}
