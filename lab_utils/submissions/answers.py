"""What a student's notebook answers: which cell belongs to which exercise. What is odd in a notebook is passed over."""

from __future__ import annotations

import ast
import re
import warnings

from lab_utils import check
from lab_utils.scrubbing import dicts, joined


def was_executed(notebook: dict) -> bool:
    """Whether a code cell has outputs or a number."""
    return any(
        cell.get("outputs") or cell.get("execution_count") for cell in dicts(notebook.get("cells")) if cell.get("cell_type") == "code"
    )


def of(name: str, notebook: dict) -> dict[str, dict[str, str]]:
    """Exercise -> `notebook`, its name; `code`, the cell that calls the check; `answer`, the Markdown that the student wrote below."""
    found = {}
    below: list[str] = []  # exercises of the last code cell
    for cell in dicts(notebook.get("cells")):
        source = joined(cell.get("source"))
        if cell.get("cell_type") == "code":
            below = [exercise for exercise in _checked(source) if exercise in check.EXERCISES]
            found |= {exercise: {"notebook": name, "code": source, "answer": ""} for exercise in below}
        elif cell.get("cell_type") == "markdown" and not _is_the_labs(cell):
            for exercise in below:
                found[exercise]["answer"] = f"{found[exercise]['answer']}\n\n{source}".strip()
        else:
            below = []
    return found


def _is_the_labs(cell: dict) -> bool:
    """Whether a cell came with the notebook: `editions` numbers those, and others have ids at random. Without ids nobody can tell."""
    metadata = cell.get("metadata")
    name = cell.get("id") or (metadata.get("id") if isinstance(metadata, dict) else None)
    return not isinstance(name, str) or re.fullmatch(r"cell-\d+", name) is not None


def _checked(source: str) -> list[str]:
    """The names that a cell calls checks by. In a cell that is no Python, such as one with a slip, they are looked for as words."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in a student's text
            tree = ast.parse(re.sub(r"^[ \t]*[%!?].*", "", source, flags=re.MULTILINE))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return re.findall(r"^[^#\n]*\bcheck\.(\w+)\(", source, re.MULTILINE)
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return [call.attr for call in calls if getattr(call.value, "id", getattr(call.value, "attr", None)) == "check"]
