"""Suspicious summaries: hints for a reader, by rules that say what they cannot tell."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from lab_utils.texts import ngrams, numbers, speakers, split_sentences, unknown_names, words

if TYPE_CHECKING:
    from lab_utils.data import Example
    from lab_utils.generation import Prediction

KINDS = {
    "empty": "No word at all. It cannot tell why: the model may have ended at once, or written only signs.",
    "unstopped": "The length limit ended the summary, not the model. What stands there may still be right; the last word may be cut.",
    "repeats": "Four words three times, six words twice or a sentence twice, and more often than in the document. "
    "It does not see a thought repeated in other words.",
    "wrong number": "A number that stands neither in the document nor in a reference. It may still follow from the document, like a sum or "
    "the last day of March; a number of the document in the wrong place is not seen.",
    "unknown name": "A capitalised word that stands neither in the document nor in a reference. It may be a word well chosen; "
    "a known name in the wrong place is not seen.",
    "swapped speakers": "With the names of two speakers exchanged, the summary fits a reference clearly better. That may be chance; "
    "most confusions of who did what are not seen.",
}
SWAP_MARGIN = 5.0  # points of ROUGE-2
SWAP_PAIRS = 2  # pairs of words; both were chosen by reading what they flag (see `flags`)
_TRIED_SPEAKERS, _TRIED_LENGTH = 12, 10_000  # of the first speakers, in texts of so many characters: what keeps the search for a swap short
_LINKS = frozenset(words("and but or so that while because"))


@dataclass(frozen=True)
class Flag:
    """A hint that something may be wrong with a summary, for a reader to check. `kind` is one of `KINDS`."""

    kind: str
    detail: str


def flags(prediction: Prediction, example: Example) -> list[Flag]:
    """What looks wrong with a summary, by rules: at most one flag of a kind, in the order of `KINDS`.

    These are hints. A flag says where to look and does not prove an error; most errors raise none. `KINDS` says what each cannot tell.

    Two speakers count as swapped if exchanging their names raises ROUGE-2 with the best reference by `SWAP_MARGIN` points and by
    `SWAP_PAIRS` pairs of words. At that margin none of 180 references of the packaged dialogues was flagged, and 30 of 159 into which
    a swap was put; of the 14 flagged answers of the fine-tuned SmolLM2 on these dialogues and DialogSum, 12 had somebody in the wrong
    role. With a single pair it would have been 26 of 38.
    """
    summary = prediction.prediction
    found = {} if words(summary) else {"empty": "There is no word in it."}
    if not prediction.stopped:
        found["unstopped"] = f"Ended by the length limit, after {prediction.tokens} tokens."
        summary = "".join(summary.rsplit(None, 1)[:-1])  # the last word may be cut
    known = [example.document, *example.references]
    found |= {
        "repeats": _repeats(summary, example.document),
        "wrong number": _nowhere(numbers(summary) - _numbers(known)),
        "unknown name": _nowhere(unknown_names(summary, *known)),
        "swapped speakers": _swapped(summary, example),
    }
    return [Flag(kind, found[kind]) for kind in KINDS if found.get(kind)]


def _nowhere(items: set[str]) -> str:
    shown = [item if len(item) <= 40 else f"{item[:40]}..." for item in sorted(items)]
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return f"{', '.join(shown[:5])}{more}: neither in the document nor in a reference." if shown else ""


def _numbers(known: Sequence[str]) -> set[str]:
    """Numbers of the known texts; "100, 000" may be one or two."""
    return set().union(*(numbers(text) | numbers(re.sub(r"(?<=\d), (?=\d{3}\b)", ",", text)) for text in known))


def _repeats(summary: str, document: str) -> str:
    parts = {
        "sentence": (2, lambda text: [tuple(tokens) for tokens in map(words, split_sentences(text)) if len(tokens) > 2]),
        "six words": (2, lambda text: ngrams(words(text), 6)),
        "four words": (3, lambda text: ngrams(words(text), 4)),
    }
    document = re.sub(r"(?m)^[^:\n]{1,40}:\s", "", document)  # speaker labels
    for name, (least, split) in parts.items():
        there = Counter(split(document))
        often = [(part, count) for part, count in Counter(split(summary)).items() if count >= least and count > there[part]]
        if often:
            part, count = max(often, key=lambda item: item[1])
            text = " ".join(part)
            return f"The same {name} {count} times: '{text if len(text) <= 80 else text[:80] + '...'}'."
    return ""


def _swapped(summary: str, example: Example) -> str:
    """Which exchange of two speakers brings the summary closer to a reference, and by how much; '' if none does.

    ROUGE-2 is taken of whole words without stemmer, but of no pair with a conjunction, which stands before any name; and "Vera and
    Gideon" is the same as "Gideon and Vera".
    """
    summary, *references = (text.replace("#", "") for text in (summary, *example.references))
    if max(map(len, (summary, *references))) > _TRIED_LENGTH:
        return ""
    labels = [label.replace("#", "") for label in speakers(example.document)[:_TRIED_SPEAKERS]]
    labels = [label for label in labels if words(label)]
    present = {label for label in labels if re.search(_whole(label), summary)}
    best = (0.0, "")
    for first, second in combinations(labels, 2):
        if present.isdisjoint((first, second)):
            continue
        found = [_pairs(_in_order(reference, first, second)) for reference in references]
        (before, shared), (after, more) = (
            max(_overlap(_pairs(_in_order(text, first, second)), pairs) for pairs in found)
            for text in (summary, _exchanged(summary, first, second))
        )
        if after - before >= SWAP_MARGIN and more - shared >= SWAP_PAIRS:
            best = max(best, (after - before, f"With {first} and {second} exchanged, ROUGE-2 rises from {before:.0f} to {after:.0f}."))
    return best[1]


def _whole(*labels: str) -> str:
    return rf"(?<!\w)({'|'.join(map(re.escape, labels))})(?!\w)"


def _exchanged(text: str, first: str, second: str) -> str:
    return re.sub(_whole(first, second), lambda match: second if match[0] == first else first, text)


def _in_order(text: str, first: str, second: str) -> str:
    return re.sub(f"{_whole(second)} and {_whole(first)}", lambda _: f"{first} and {second}", text)


def _pairs(text: str) -> Counter:
    return Counter(pair for pair in ngrams(words(text), 2) if _LINKS.isdisjoint(pair))


def _overlap(ours: Counter, theirs: Counter) -> tuple[float, int]:
    """F1 from 0 to 100, and how many are shared."""
    total, shared = ours.total() + theirs.total(), (ours & theirs).total()
    return (200 * shared / total if total else 0.0), shared
