"""Summaries without a model, made by copying: what every summarizer must beat."""

from __future__ import annotations

from lab_utils.texts import units


def lead(document: str, count: int = 3) -> str:
    """The first turns of a dialogue, or sentences of a text in one line."""
    return _joined(document, range(count))


def longest(document: str, count: int = 3) -> str:
    """The longest turns of a dialogue, or sentences of a text in one line, in their order."""
    lengths = [len(unit.split()) for unit in units(document)]
    return _joined(document, sorted(sorted(range(len(lengths)), key=lambda i: -lengths[i])[:count]))


def whole(document: str) -> str:
    """The document itself."""
    return document


def _joined(document: str, chosen) -> str:
    found = units(document)
    return ("\n" if "\n" in document.strip() else " ").join(found[i] for i in chosen if i < len(found))


LINES = {"lead-3": lead, "longest-3": longest, "whole document": whole}
