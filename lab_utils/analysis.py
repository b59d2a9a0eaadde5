"""What goes wrong, and where: suspicious summaries, telling examples, groups of documents, and the source sentences a summary rests on."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from lab_utils.baselines import lead
from lab_utils.errors import LabError
from lab_utils.significance import bootstrap, unpaired_difference
from lab_utils.texts import WORD, capitalized, ngrams, numbers, speakers, split_sentences, stemmer, units, unknown_names, words

if TYPE_CHECKING:
    from lab_utils.comparison import Line
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
_EVERYWHERE = 50  # a word or pair in more units than this says nothing about where a summary looks
_FEWEST = 5  # values; the percentile interval of fewer is far too narrow to be shown
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


def best(line: Line, count: int = 3) -> list[int]:
    """Indices of the rows with the highest ROUGE-1, the highest first."""
    return sorted(range(len(line.rows)), key=lambda i: (-line.rows[i]["rouge1"], line.rows[i]["id"]))[:count]


def worst(line: Line, count: int = 3) -> list[int]:
    """Indices of the rows with the lowest ROUGE-1, the lowest first."""
    return sorted(range(len(line.rows)), key=lambda i: (line.rows[i]["rouge1"], line.rows[i]["id"]))[:count]


def disagreements(systems: Sequence[Line], count: int = 3) -> list[int]:
    """Indices, into the rows of the first run, of the documents where the runs' ROUGE-1 lies furthest apart, the widest first.

    One run alone agrees with itself everywhere: its documents come by their ids.
    """
    runs = [line for line in systems if line.run]
    ids = [row["id"] for row in runs[0].rows]
    scores = [_rouge1(line, ids) for line in runs]
    spread = [max(column) - min(column) for column in zip(*scores, strict=True)]
    return sorted(range(len(ids)), key=lambda i: (-spread[i], ids[i]))[:count]


def slices(systems: Sequence[Line], test: Sequence[Example], by: str) -> list[dict]:
    """Every run's ROUGE-1 on groups of documents: `system`, `group`, `n`, `mean` and `interval` (None for fewer than 5 documents).

    Args:
        by: `length` (thirds, by words) or `speakers` (2, 3, 4 and more).

    Raises:
        LabError: another `by`, or rows for other documents.
    """
    ways = {"length": _by_length, "speakers": _by_speakers}
    if by not in ways:
        raise LabError(f"Cannot group documents by '{by}': choose one of {', '.join(ways)}.")
    groups, ran = ways[by](test), [line for line in systems if line.run]
    return [{"system": line.name, "group": group, **_with_interval(_rouge1(line, ids))} for line in ran for group, ids in groups.items()]


def _rouge1(line: Line, ids: Sequence[str]) -> list[float]:
    """The scores of these documents, in this order."""
    scores = {row["id"]: row["rouge1"] for row in line.rows}
    missing = [name for name in ids if name not in scores]
    if missing:
        raise LabError(f"{line.name} has no score for document '{missing[0][:80]}': give the test set that the runs were scored on.")
    return [scores[name] for name in ids]


def _with_interval(values: Sequence[float]) -> dict:
    return {"n": len(values), "mean": float(np.mean(values)), "interval": bootstrap(values) if len(values) >= _FEWEST else None}


def _by_length(test: Sequence[Example]) -> dict[str, list[str]]:
    order = sorted((len(words(example.document)), example.id) for example in test)
    thirds = zip(("short", "middle", "long"), np.array_split(np.arange(len(order)), 3), strict=True)
    return {f"{name}: {order[part[0]][0]} to {order[part[-1]][0]} words": [order[i][1] for i in part] for name, part in thirds if len(part)}


def _by_speakers(test: Sequence[Example]) -> dict[str, list[str]]:
    names = {1: "fewer than 2 speakers", 2: "2 speakers", 3: "3 speakers", 4: "4 or more speakers"}
    groups = {name: [] for name in names.values()}
    for example in sorted(test, key=lambda e: e.id):
        groups[names[min(max(len(speakers(example.document)), 1), 4)]].append(example.id)
    return {name: ids for name, ids in groups.items() if ids}


def _by_position(test: Sequence[Example]) -> dict[str, list[str]]:
    places = {example.id: where_it_matters(example) for example in sorted(test, key=lambda e: e.id)}
    places = {name: place for name, place in places.items() if not math.isnan(place)}
    if not places:
        return {}
    median = float(np.median(list(places.values())))
    groups = {
        f"early: up to {median:.2f}": [name for name, place in places.items() if place <= median],
        f"late: after {median:.2f}": [name for name, place in places.items() if place > median],
    }
    return {name: ids for name, ids in groups.items() if ids}


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


def late(systems: Sequence[Line], test: Sequence[Example]) -> list[dict]:
    """Does a system find the important part when it comes late? ROUGE-1 of every run and of lead-3 on two halves of the documents.

    The documents are split at the median of `where_it_matters`. Each row holds `system`, `early` and `late` (with `n`, `mean` and
    `interval`), and `difference`: late minus early, with its interval, or None where a half has fewer than 5 documents. The halves are
    different documents, so this is no paired difference; what else sets them apart, such as their length, is in it too.

    Raises:
        LabError: rows for other documents.
    """
    groups = list(_by_position(test).values())
    if len(groups) < 2:
        return []
    found = []
    for line in systems:
        if line.run or line.name == "lead-3":
            early, behind = (_rouge1(line, ids) for ids in groups)
            enough = min(len(early), len(behind)) >= _FEWEST
            gap = unpaired_difference(behind, early) if enough else None
            found.append({"system": line.name, "early": _with_interval(early), "late": _with_interval(behind), "difference": gap})
    return found


def late_sentences(systems: Sequence[Line], test: Sequence[Example]) -> list[str]:
    """What `late` allows one to say about ROUGE-1: a sentence for each system that differs, and one for all the others."""
    rows = late(systems, test)
    if not rows:
        return ["These documents cannot be split by where their important part stands."]
    n = f"n = {rows[0]['early']['n']} and {rows[0]['late']['n']}"
    said, open_systems = [], []
    for row in rows:
        gap, name = row["difference"], row["system"]
        if gap is None:
            return [f"There are too few documents to say whether it matters that the important part comes late ({n})."]
        figures = gap.signed()
        if gap.excludes_zero():
            change = "scores higher" if gap.mean > 0 else "scores lower"
            said.append(f"{capitalized(name)} {change} where the important part comes late: {figures} points of ROUGE-1 ({n}).")
        else:
            open_systems.append(f"{name} {figures}")
    if open_systems:
        figures = ", ".join(open_systems)
        said.append(f"No detectable difference between documents whose important part comes late and early ({n}): {figures}.")
    return said


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


def profile(systems: Sequence[Line], test: Sequence[Example], bins: int = 3) -> dict[str, list[float]]:
    """`leaning_profile` of the references, lead-3 and every run, matched by document id.

    Raises:
        LabError: a run without a prediction for one of the documents.
    """
    given: dict[str, list] = {
        "references": [example.references for example in test],
        "lead-3": [lead(example.document) for example in test],
    }
    for line in systems:
        if line.run:
            predictions = {item.id: item.prediction for item in line.run.predictions}
            if missing := [example.id for example in test if example.id not in predictions]:
                raise LabError(f"{line.name} has no prediction for document '{missing[0][:80]}': give the test set that it was run on.")
            given[line.name] = [predictions[example.id] for example in test]
    return leaning_profile(given, [example.document for example in test], bins)
