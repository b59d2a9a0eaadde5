"""Test data that a base model is known to have trained on: its zero-shot score is then no zero-shot score."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """A published fact: models whose id matches `model` trained on `dataset`."""

    model: str
    dataset: str
    source: str


FLAN = r"flan[-_]?(t5|ul2|alpaca)"
FLAN_TASKS = "FLAN's list of training tasks (google-research/FLAN, task_splits.py)"
KNOWN = tuple(Known(FLAN, name, FLAN_TASKS) for name in ("SAMSum", "CNN/DailyMail", "XSum", "Newsroom", "Multi-News", "Gigaword"))


def note(model: str, data: str) -> str | None:
    """A sentence where this base is known to have seen this data, else None: what is not published is not known.

    Args:
        model, data: hub ids or folders; local copies are recognised by their names.
    """
    for known in KNOWN:
        if re.search(known.model, model, re.I) and _letters(known.dataset) in _letters(data):
            return (
                f"Contamination: {known.dataset} is in {known.source}, so the untrained model has seen this task and its training split, "
                "and perhaps the test documents. Its 'zero-shot' score is not one, and what training adds looks smaller than it is."
            )
    return None


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())
