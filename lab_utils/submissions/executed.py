"""What an executed notebook shows: the states of its exercises, the order of its cells, and the parameters that it ran with.

Notebooks are students' files: whatever does not look like one is passed over.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from typing import Any

from lab_utils.check.exercise import SIGNS
from lab_utils.scrubbing import dicts, joined

_VERDICT = re.compile(rf"^[{''.join(SIGNS.values())}] (\w+): ({'|'.join(SIGNS)})\.", re.MULTILINE)
_TAGS = ("parameters", "injected-parameters")  # papermill's cell comes after the notebook's own, and its values replace those


def states(notebook: Any) -> dict[str, str]:
    """Exercise -> the state that its check showed last."""
    found: dict[str, str] = {}
    for cell in _code_cells(notebook):
        for output in dicts(cell.get("outputs")):
            data = output.get("data")
            shown = joined(output.get("text")) + "\n" + joined(data.get("text/plain") if isinstance(data, dict) else None)
            found.update(_VERDICT.findall(shown))
    return found


def out_of_order(notebook: Any) -> str | None:
    """What is odd about the order in which cells were run, as the end of a sentence; None where nothing is."""
    cells = [cell for cell in _code_cells(notebook) if joined(cell.get("source")).strip()]
    counts = [cell.get("execution_count") for cell in cells]
    ran = [count for count in counts if isinstance(count, int) and not isinstance(count, bool)]
    if not ran:
        return "none of its cells was run"
    if len(ran) < len(counts):
        return f"{len(counts) - len(ran)} of its {len(counts)} code cells were not run"
    if ran[0] != 1 or any(later <= earlier for earlier, later in zip(ran, ran[1:], strict=False)):
        return "its cells were run out of order, or some of them again later"
    return None


def parameters(notebook: Any) -> dict[str, Any] | None:
    """Name -> value as the notebook ran with it; None where no parameters cell can be read."""
    found: dict[str, Any] = {}
    cells = [(tag, cell) for cell in _code_cells(notebook) for tag in _TAGS if tag in _tags(cell)]
    for _, cell in sorted(cells, key=lambda one: _TAGS.index(one[0])):
        tree = parsed(joined(cell.get("source")))
        if tree is None:
            return None
        try:
            found |= {s.targets[0].id: ast.literal_eval(s.value) for s in tree.body if _gives_a_name(s)}
        except (ValueError, TypeError, RecursionError, MemoryError):  # no literal, or nested beyond reason
            return None
    return found or None


def parsed(code: str) -> ast.Module | None:
    """The syntax tree of a student's code; None for what is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in a text
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # magics, null bytes, or nested beyond reason
        return None


def _gives_a_name(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)


def _code_cells(notebook: Any) -> Iterator[dict]:
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    return (cell for cell in dicts(cells) if cell.get("cell_type") == "code")


def _tags(cell: dict) -> list:
    metadata = cell.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    return tags if isinstance(tags, list) else []
