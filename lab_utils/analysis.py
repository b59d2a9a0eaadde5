"""Where systems differ: telling examples, groups of documents, and what comes late."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lab_utils.baselines import lead
from lab_utils.errors import LabError
from lab_utils.significance import bootstrap, unpaired_difference
from lab_utils.texts import capitalized, speakers, words
from lab_utils.tracing import leaning_profile, where_it_matters

if TYPE_CHECKING:
    from lab_utils.comparison import Line
    from lab_utils.data import Example

_FEWEST = 5  # values; the percentile interval of fewer is far too narrow to be shown


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
