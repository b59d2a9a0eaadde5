"""What a summary rests on: the units of the document that its words come from, and where in the document these stand."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lab_utils.errors import LabError
from lab_utils.texts import WORD, ngrams, split_sentences, stemmer, units, words

if TYPE_CHECKING:
    from lab_utils.data import Example

_EVERYWHERE = 50  # a word or pair in more units than this says nothing about where a summary looks
_FUNCTION_WORDS = frozenset(
    words(
        "a about after all also am an and any are aren as at be because been before being both but by can cannot could couldn d did "
        "didn do does doesn doing don down during each either else even ever every for from get gets got had hadn has hasn have haven "
        "having he her here hers herself him himself his how however i if in instead into is isn it its itself just let ll m may me "
        "might mine more most must my myself neither no nor not now of off oh ok okay on once only or other our ours out over own "
        "please rather re s same shall she should shouldn since so some such t than that the their theirs them themselves then there "
        "these they this those though through to too under until up upon us ve very was wasn we well were weren what when where "
        "whether which while who whom whose why will with without won would wouldn yes yet you your yours yourself"
    )
)


def leaning(summary: str, document: str) -> list[float]:
    """How much of the summary rests on each unit (turn or sentence) of the document: shares of 0 to 1 that sum to at most 1.

    What is shared out are the summary's content words, by their stems, and the pairs of them that follow each other. Each goes to one unit:
    of those that hold it, to the one that matches its sentence best. It counts 1/k if k units hold it, so that names, which stand
    everywhere, weigh little, and 1 if none does: that part of the summary rests on nothing here. It shows where words come from. A
    paraphrase leaves no trace.
    """
    found = units(document)
    shares, total = [0.0] * len(found), 0.0
    for _, unit, weight in _resting(summary, found):
        total += weight
        if unit is not None:
            shares[unit] += weight
    return [share / total for share in shares] if total else shares


def _resting(summary: str, found: Sequence[str]) -> Iterator[tuple[str | tuple[str, ...], int | None, float]]:
    """What `leaning` shares out among the units: each content word or pair with its unit, or None, and its weight."""
    holders = defaultdict(list)
    for number, unit in enumerate(found):
        for item in _items(unit):
            holders[item].append(number)
    for sentence in split_sentences(summary):
        items = {item: holders.get(item, []) for item in _items(sentence)}
        items = {item: where for item, where in items.items() if len(where) <= _EVERYWHERE}
        match = defaultdict(float)
        for where in items.values():
            for number in where:
                match[number] += 1 / len(where)
        for item, where in items.items():
            yield item, max(where, key=match.__getitem__) if where else None, 1 / len(where) if where else 1.0


Pieces = list[tuple[str, bool]]  # a text cut up, each piece with whether it is marked


def traced(summary: str, document: str) -> tuple[list[Pieces], Pieces]:
    """The document's units with the words marked that the summary rests on, and the summary with the words that stand nowhere in it.

    Marked in the document is what `leaning` counts there, words of their own and in pairs; in the summary, content words whose stem no
    unit has (a tag is known without its marks). The pieces of a text, joined, are the text.
    """
    found = units(document)
    stems: list[set[str]] = [set() for _ in found]
    for item, unit, _ in _resting(summary, found):
        if unit is not None:
            stems[unit].update([item] if isinstance(item, str) else item)
    known = {item.strip("#") for unit in found for item in _items(unit) if isinstance(item, str)}
    strange = {item for item in _items(summary) if isinstance(item, str) and item.strip("#") not in known}
    return [_pieces(unit, marked) for unit, marked in zip(found, stems, strict=True)], _pieces(summary, strange)


def _pieces(text: str, stems: Collection[str]) -> Pieces:
    pieces, end = [], 0
    for match in re.finditer(WORD, text):
        if _content_stem(match[0].lower()) in stems:
            pieces += [(text[end : match.start()], False), (match[0], True)]
            end = match.end()
    return [(piece, marked) for piece, marked in [*pieces, (text[end:], False)] if piece]


def _items(text: str) -> dict[str | tuple[str, ...], None]:
    """Content words and neighbouring pairs of them, each once, in their order."""
    stems = [stem for word in words(text) if (stem := _content_stem(word))]
    return dict.fromkeys([*stems, *ngrams(stems, 2)])


def _content_stem(word: str) -> str | None:
    """The stem of a word in small letters without 's or the like; None for a function word."""
    bare = re.split("['’]", word)[0]
    return None if bare in _FUNCTION_WORDS else _stem(bare)


def _stem(word: str) -> str:
    return stemmer()(word) if 3 < len(word) <= 30 else word


def _middles(document: str) -> list[float]:
    """Where each unit's middle stands, from 0 (start) to 1 (end), measured in words."""
    lengths = np.array([max(1, len(unit.split())) for unit in units(document)], dtype=float)
    return list((np.cumsum(lengths) - lengths / 2) / lengths.sum())


def where_it_matters(example: Example) -> float:
    """Where in the document the important part stands, 0 (start) to 1 (end): the mean place of what the references lean on.

    Summaries draw on many places, so that most values lie near the middle; what is late is late compared with other documents. Not a number
    where no reference shares a word with the document.
    """
    middles = _middles(example.document)
    places = []
    for reference in example.references:
        shares = leaning(reference, example.document)
        if total := sum(shares):
            places.append(sum(share * middle for share, middle in zip(shares, middles, strict=True)) / total)
    return float(np.mean(places)) if places else math.nan


def leaning_profile(
    texts_by_name: Mapping[str, Sequence[str | Sequence[str]]], documents: Sequence[str], bins: int = 3
) -> dict[str, list[float]]:
    """Which share of their leaning falls on the first, middle and last third of the document (by words), for each name: shares sum to 1.

    Args:
        texts_by_name: for each name one summary per document, or several (references) whose shares are averaged. Those that lean on
            nothing are left out; where all do, the shares are 0.
        documents: in the same order.
        bins: how many parts of equal length.

    Raises:
        LabError: not one text (or list of texts) per document.
    """
    middles = [_middles(document) for document in documents]
    found = {}
    for name, given in texts_by_name.items():
        if len(given) != len(documents):
            raise LabError(f"{name} has {len(given)} summaries for {len(documents)} documents: give one for each.")
        rows = []
        for summaries, document, places in zip(given, documents, middles, strict=True):
            several = [_binned(summary, document, places, bins) for summary in ([summaries] if isinstance(summaries, str) else summaries)]
            if several := [shares for shares in several if shares.any()]:
                rows.append(np.mean(several, axis=0))
        found[name] = [float(share) for share in np.mean(rows, axis=0)] if rows else [0.0] * bins
    return found


def _binned(summary: str, document: str, places: Sequence[float], bins: int) -> np.ndarray:
    shares = np.zeros(bins)
    for share, place in zip(leaning(summary, document), places, strict=True):
        shares[int(place * bins)] += share
    return shares / shares.sum() if shares.any() else shares
