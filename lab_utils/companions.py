"""Measures beside ROUGE: how long, how much copied, who and which numbers; BLEU, chrF and METEOR of a whole test set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from lab_utils import texts
from lab_utils.significance import RESAMPLES, bootstrap

LABELS = {
    "words": "words",
    "length_ratio": "length ratio",
    "compression": "compression",
    "coverage": "coverage",
    "density": "density",
    "novel_bigrams": "novel bigrams",
    "repetition": "repetition",
    "empty": "empty",
    "unstopped": "unstopped",
    "speaker_precision": "speaker precision",
    "speaker_recall": "speaker recall",
    "name_precision": "name precision",
    "name_recall": "name recall",
    "number_precision": "number precision",
    "number_recall": "number recall",
    "bleu": "BLEU",
    "chrf": "chrF",
    "meteor": "METEOR",
    "bertscore": "BERTScore",
}
MEANINGS = {
    "words": "Number of words: tells whether summaries are short or long, not whether the words are the right ones.",
    "length_ratio": (
        "Words of the summary for each word of a reference (mean length): 1 is as long as the references, and says nothing about "
        "content; a ratio far from 1 moves ROUGE by itself."
    ),
    "compression": "Words of the document for each word of the summary: how much was left out, not whether it was the unimportant part.",
    "coverage": (
        "Share of the summary's words that stand in the document (Grusky et al. 2018): 1 invents no word, and can still join the words "
        "to a wrong statement."
    ),
    "density": (
        "Mean length of the copied passage that a word of the summary belongs to (Grusky et al. 2018): tells copying from retelling; "
        "neither is better by itself."
    ),
    "novel_bigrams": (
        "Share of the summary's word pairs that do not stand in the document: high in a retelling and in an invention alike."
    ),
    "repetition": (
        "Share of the summary's word triples that stood in it before: finds a model caught in a loop, not one that says the same in "
        "other words."
    ),
    "empty": "1 for a summary without a word: such summaries have no value in most other columns and drop out of their means.",
    "unstopped": "1 where the length limit ended the summary and not the model: its end is cut off, but what stands there may be right.",
    "speaker_precision": (
        "Of the speakers that the summary names, those that a reference names (mean over references): finds a wrong person picked, not "
        "two persons exchanged."
    ),
    "speaker_recall": (
        "Of the speakers that a reference names, those that the summary names (mean over references): finds people left out, not what "
        "is said about them."
    ),
    "name_precision": (
        "Of the capitalised words (people, places, days) of the summary, those that the document has: finds invented people, not a "
        "name in the wrong place, and takes an unusual first word of a sentence for a name."
    ),
    "name_recall": (
        "Of the names of a reference, those that the summary has (mean over references): finds names left out, and cannot tell an "
        "unneeded name from a needed one."
    ),
    "number_precision": (
        "Of the numbers of the summary, those that the document or a reference has, in figures or words: finds invented amounts and "
        "times, not a right number said of the wrong thing; a correctly added sum counts as invented."
    ),
    "number_recall": (
        "Of the numbers of a reference, those that the summary has (mean over references): finds amounts and times left out, not "
        "whether they were important."
    ),
    "bleu": (
        "Precision of word sequences of 1 to 4 over the whole test set, with a penalty for shortness (Papineni et al. 2002): made for "
        "translation, it cannot see what a summary left out."
    ),
    "chrf": "F-score of character sequences of 1 to 6, recall counted twice (Popović 2015): sees shared word stems, not shared meaning.",
    "meteor": (
        "Matches words, stems and WordNet synonyms and asks for their order (Lavie and Agarwal 2007): sees synonyms, but no paraphrase "
        "and no wrong fact."
    ),
    "bertscore": (
        "Matches each token with the most similar one by an encoder's vectors (Zhang et al. 2020): sees paraphrase, but a changed "
        "name, number or 'not' moves it little, and its level depends on the encoder."
    ),
}


class Scored(Protocol):
    """Anything with a prediction and its references."""

    prediction: str
    references: Sequence[str]


def describe(
    prediction: str, references: Sequence[str], document: str | None = None, stopped: bool | None = None
) -> dict[str, float | None]:
    """The measures of one summary that `MEANINGS` explains; None where one does not apply.

    Shares lie between 0 and 1. What is compared with the document is None where there is no document; precision is None where the
    summary has nothing of that kind, recall where the references have not.

    Args:
        stopped: whether the model ended the summary by itself, where that is known.
    """
    summary = texts.words(prediction)
    lengths = [len(texts.words(reference)) for reference in references]
    found: dict[str, float | None] = dict.fromkeys(list(LABELS)[: list(LABELS).index("bleu")])
    found["words"] = float(len(summary))
    found["length_ratio"] = len(summary) * len(lengths) / sum(lengths) if sum(lengths) else None
    found["repetition"] = repetition(summary)
    found["empty"] = float(not summary)
    found["unstopped"] = None if stopped is None else float(not stopped)
    numbers, asked = texts.numbers(prediction), [texts.numbers(reference) for reference in references]
    found["number_recall"] = mean(_share(of, numbers) for of in asked)
    found["name_recall"] = _name_recall(prediction, references, document or "")
    if document is not None:
        found |= _against_document(summary, texts.words(document))
        found |= _speakers(prediction, references, document)
        names = texts.names(prediction, texts.small_words(prediction, document))
        found["name_precision"] = _share(names, names - texts.unknown_names(prediction, document))
        found["number_precision"] = _share(numbers, texts.numbers(document).union(*asked))
    return found


def fragments(summary: Sequence[str], document: Sequence[str]) -> list[int]:
    """Lengths of the extractive fragments of Grusky et al. (2018): from its first word on, the summary is cut into the longest passages
    that stand somewhere in the document; words that do not stand there are skipped.

    A passage is followed where it was found as far as it goes there, and sought further on only then: a text compared with itself, as the
    baseline that copies the document is, takes time in proportion to its length.
    """
    # One sign stands for each word, since passages are found quickly in strings.
    signs = {word: chr(0xE000 + number) for number, word in enumerate(dict.fromkeys([*document, *summary]))}
    ours, theirs = ("".join(signs[word] for word in words) for words in (summary, document))
    lengths, start = [], 0
    while start < len(ours):
        end, place = start, 0
        while end < len(ours):
            if ours[end] != theirs[place + end - start : place + end - start + 1]:
                place = theirs.find(ours[start : end + 1], place + 1)
                if place < 0:
                    break
            end += 1
        if end > start:
            lengths.append(end - start)
        start = max(end, start + 1)
    return lengths


def repetition(words: Sequence[str], size: int = 3) -> float | None:
    """Share of the sequences of `size` words that stood before; None for fewer words."""
    sequences = texts.ngrams(words, size)
    return 1 - len(set(sequences)) / len(sequences) if sequences else None


def _against_document(summary: list[str], document: list[str]) -> dict[str, float | None]:
    if not summary:
        return {}
    lengths = fragments(summary, document)
    pairs, there = texts.ngrams(summary, 2), set(texts.ngrams(document, 2))
    return {
        "compression": len(document) / len(summary),
        "coverage": sum(lengths) / len(summary),
        "density": sum(length**2 for length in lengths) / len(summary),
        "novel_bigrams": sum(pair not in there for pair in pairs) / len(pairs) if pairs else None,
    }


def _speakers(prediction: str, references: Sequence[str], document: str) -> dict[str, float | None]:
    labels = texts.speakers(document)
    ours = texts.named_speakers(prediction, labels)
    theirs = [texts.named_speakers(reference, labels) for reference in references]
    return {
        "speaker_precision": mean(_share(ours, named) for named in theirs),
        "speaker_recall": mean(_share(named, ours) for named in theirs),
    }


def _name_recall(prediction: str, references: Sequence[str], document: str) -> float | None:
    ordinary = texts.small_words(document, prediction, *references)
    there = [texts.names(reference, ordinary) for reference in references]
    return mean(
        _share(names, names - texts.unknown_names(reference, prediction)) for names, reference in zip(there, references, strict=True)
    )


def _share(of: set, there: set) -> float | None:
    return len(of & there) / len(of) if of else None


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None; None where there is none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def corpus(predictions: Sequence[Scored]) -> dict[str, dict]:
    """BLEU and chrF (sacrebleu), and METEOR (nltk) where WordNet is on this machine: `{score, low, high, signature}` each, from 0 to 100.

    BLEU and chrF are of the test set as a whole and no means over documents: they add up the counts of its documents, each with all its
    references, of which there may be different numbers. METEOR is a mean over documents, each with the reference that suits it best.
    `meteor_missing` says why it is left out. Intervals are 95% percentile intervals over resampled documents, as those of ROUGE are;
    sacrebleu's own resampling fails where a sample shares nothing with its references.

    Raises:
        ValueError: no predictions.
    """
    if not predictions:
        raise ValueError("no predictions to score")
    from sacrebleu.metrics import BLEU, CHRF

    answers = [item.prediction for item in predictions]
    most = max(len(item.references) for item in predictions)
    references = [[item.references[i] if i < len(item.references) else None for item in predictions] for i in range(most)]
    metrics = {"bleu": _keeping_counts(BLEU)(force=True), "chrf": _keeping_counts(CHRF)()}
    found = {name: _by_sacrebleu(metric, answers, references) for name, metric in metrics.items()}
    if meteor_missing() is None:
        interval = bootstrap([100 * meteor(item.prediction, item.references) for item in predictions])
        signature = f"nltk:{_version('nltk')}|refs:best|words:lower-case"
        found["meteor"] = {"score": interval.mean, "low": interval.low, "high": interval.high, "signature": signature}
    return found


def _by_sacrebleu(metric, answers: list[str], references: list[list[str | None]]) -> dict:
    score = metric.corpus_score(answers, references)
    counts = np.array(metric.counts, dtype=float)
    rng = np.random.default_rng(0)
    scores = []
    while len(scores) < RESAMPLES:
        drawn = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=100)  # how often each document is drawn
        scores += [metric._compute_score_from_stats(total).score for total in (drawn @ counts).tolist()]
    low, high = np.percentile(scores, [2.5, 97.5])
    return {"score": score.score, "low": float(low), "high": float(high), "signature": str(metric.get_signature())}


def _keeping_counts(kind: type) -> type:
    """A metric of sacrebleu that keeps the counts of each document, by the hook that its base class has for derived metrics."""

    class Keeping(kind):
        def _aggregate_and_compute(self, stats):
            self.counts = stats
            return super()._aggregate_and_compute(stats)

    return Keeping


def meteor(prediction: str, references: Sequence[str]) -> float:
    """METEOR of one summary, from 0 to 1, with its best reference.

    Raises:
        LookupError: no WordNet on this machine.
    """
    from nltk import corpus as data
    from nltk.translate.meteor_score import meteor_score

    return meteor_score([texts.words(reference) for reference in references], texts.words(prediction), wordnet=data.wordnet)


def meteor_missing() -> str | None:
    """Why METEOR cannot be computed here, in a sentence; None where it can. Nothing is ever downloaded."""
    try:
        from nltk import corpus as data

        data.wordnet.ensure_loaded()
    except ImportError:
        return "METEOR is left out: the package nltk is not installed (`pip install nltk`)."
    except (LookupError, OSError):
        return "METEOR is left out: nltk's WordNet data is not on this machine (`python -m nltk.downloader wordnet` gets it)."
    return None


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)
