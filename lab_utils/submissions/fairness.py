"""Whether a submission's runs are those that were assigned, and may be compared: settings, test set, base model, baseline.

Each check takes a case and yields what it found, as (method, state, sentence).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lab_utils import runs
from lab_utils.config import Settings
from lab_utils.submissions.expectations import Case, recorded
from lab_utils.submissions.records import at, decisive, moment, named, shown
from lab_utils.texts import capitalized

FINE, LOOK, WRONG = "fine", "look", "wrong"
Said = tuple[str | None, str, str]


def settings(case: Case) -> Iterator[Said]:
    """Field by field, as far as a field decides a score."""
    for method, record in case.finished.items():
        differing = list(_differing(at(record, "config"), case.settings[method]))
        name = capitalized(named(method))
        if differing:
            state = WRONG if any(known for known, _ in differing) else LOOK
            yield method, state, f"{name} ran with other settings than assigned: {'; '.join(words for _, words in differing)}."
        else:
            yield method, FINE, f"{name} ran with the assigned settings."


def _differing(config: Any, assigned: Settings) -> Iterator[tuple[bool, str]]:
    """Settings that are not as assigned: whether the record has them at all, and a part of a sentence."""
    own = decisive(config, assigned.method)
    for name, right in decisive(assigned.model_dump(mode="json"), assigned.method).items():
        if name not in own:
            yield False, f"{name} is not recorded (should be {shown(right)})"
        elif own[name] != right and not (name in ("model", "data") and _last_part(own[name]) == _last_part(right)):
            yield True, f"{name} was {shown(own[name])} (should be {shown(right)})"


def _last_part(path: Any) -> str:
    """Of a folder, which a record keeps without the way to it."""
    return re.split(r"[\\/]", str(path).rstrip("\\/"))[-1]


def test_set(case: Case) -> Iterator[Said]:
    """Fingerprint, ids and references against the assigned data, or against the class where that cannot be read."""
    for method, record in case.finished.items():
        corpus, given, rows = case.corpus(method), at(record, "data.fingerprint"), case.rows(method)
        if corpus:
            right, whose, state = corpus.fingerprint, "of the assigned data", WRONG
        else:
            right, whose, state = case.expectations.usual("data", case.settings[method]), "that most of the class has", LOOK
        name, count = named(method), shown(at(record, "data.test"))
        if right is None:
            yield (
                method,
                LOOK,
                f"The test set of {name} could not be checked: the assigned data cannot be read here, nor is there a majority.",
            )
        elif given != right:
            yield method, state, f"The record of {name} has another test set ({shown(given)}) than the one {whose} ({right})."
        elif corpus and rows and (wrong := _unlike_items(rows, [(e.id, list(e.references)) for e in corpus.test])):
            yield method, WRONG, f"The summaries of {name} are not for the assigned test set: {wrong}."
        elif rows and len(rows) != at(record, "data.test"):
            yield method, WRONG, f"The record of {name} speaks of {count} test documents, and there are summaries of {len(rows)}."
        else:
            yield method, FINE, f"{capitalized(name)} was tested on the documents {whose}, {count} in number."


def _unlike_items(rows: Sequence[dict], items: Sequence[tuple[str, list[str]]]) -> str | None:
    if len(rows) != len(items):
        return f"{len(rows)} summaries for {len(items)} documents"
    for row, (name, references) in zip(rows, items, strict=True):
        if row["id"] != name:
            return f"one is for the document {shown(row['id'])} where {name} should stand"
        if list(row["references"]) != references:
            return f"the references of {name} were changed"
    return None


def base(case: Case) -> Iterator[Said]:
    """One base for all methods, and the one that the lab recorded or most of the class has."""
    given = {method: at(record, "model.fingerprint") for method, record in case.finished.items()}
    if len(set(map(shown, given.values()))) > 1:
        which = ", ".join(f"{named(method)} {shown(value)}" for method, value in given.items())
        yield None, WRONG, f"The methods did not start from the same base model ({which})."
    for method, value in given.items():
        lab, usual, name = _recorded_base(case.settings[method]), case.expectations.usual("model", case.settings[method]), named(method)
        if lab and value == lab:
            yield method, FINE, f"{capitalized(name)} started from the base model that the lab recorded ({lab})."
        elif usual and value == usual and lab:
            told = f"The base model of {name} ({usual}) is that of most of the class, and the lab recorded another one ({lab})"
            yield method, LOOK, f"{told}: the published weights may have changed."
        elif usual and value == usual:
            yield method, FINE, f"{capitalized(name)} started from the base model that most of the class has ({usual})."
        elif lab or usual:
            yield method, WRONG, f"{capitalized(name)} started from another base model ({shown(value)}) than expected ({lab or usual})."
        elif isinstance(value, str):
            yield method, FINE, f"{capitalized(name)} names its base model ({shown(value)}); there is no other record to hold it against."
        else:
            yield method, WRONG, f"The record of {name} has no fingerprint of its base model."


def _recorded_base(assigned: Settings) -> str | None:
    record = recorded(assigned.recipe.name, assigned.method)
    same = at(record, "config.recipe.model.source") == assigned.recipe.model.source
    return at(record, "model.fingerprint") if same else None


def baseline(case: Case) -> Iterator[Said]:
    """Zero-shot beside the trained methods, like them in all but training, and started first."""
    if "zero_shot" not in case.finished:
        assigned = "zero_shot" in case.settings and "records" in case.assignment.required
        yield "zero_shot", WRONG if assigned else LOOK, "There is no finished zero-shot run, so nothing shows what training changed."
        return
    reasons = runs.unlike([runs.Finished(method, record, [], Path()) for method, record in case.finished.items()])
    for reason in reasons:
        yield None, WRONG, f"The methods cannot be compared: {reason}."
    if not reasons:
        yield None, FINE, "Baseline and trained models share base model, test set, prompt and decoding."
    started = {method: moment(at(record, "started")) for method, record in case.finished.items()}
    if unknown := [named(method) for method, when in started.items() if when is None]:
        yield None, LOOK, f"These records do not say when they were started, so their order is not known: {', '.join(unknown)}."
    first = started["zero_shot"]
    if earlier := [named(method) for method, when in started.items() if first and when and when < first]:
        yield "zero_shot", LOOK, f"The baseline was started after {', '.join(earlier)}: it may have been run again, so ask why."
    elif first and case.trained:
        yield "zero_shot", FINE, f"The baseline was started before any training ({first:%Y-%m-%d %H:%M} UTC)."
