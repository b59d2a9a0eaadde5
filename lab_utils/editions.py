"""The editions of a notebook, made from its .py: what students fill in, what is executed, and what an instructor reads."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lab_utils import fields
from lab_utils.bootstrap import OF_THE_SOURCE
from lab_utils.errors import LabError

EDITIONS = ("student", "solution", "instructor")
LEFT_OUT = {"student": {"solution", "instructor"}, "solution": {"instructor"}, "instructor": set()}  # cells with these tags
TAGS = ("parameters", "solution", "instructor")

BEGIN, END = "# BEGIN SOLUTION", "# END SOLUTION"  # nbgrader looks for the same words, anywhere in a line
ENSURE = 'bootstrap.ensure(notebook="{}")'  # where a notebook says which version it is
MARKER_WORDS = re.compile(r"\b(BEGIN|END)[ _-]*SOLUTION", re.IGNORECASE)


class Region(NamedTuple):
    """A marked part of a cell, from the line of its first marker to that of its last."""

    first: int  # counted from 1
    last: int
    stub: list[str]  # the lines that students see in its place


def make(source: Path, edition: str, values: dict[str, Any] | None = None):
    """One edition of a notebook, as a NotebookNode without outputs. A cell's id depends on its place in the source alone.

    Args:
        source: the percent-format .py, which holds the solutions between markers.
        edition: "student", "solution" or "instructor".
        values: parameters that stand in place of the defaults in the cell tagged "parameters".

    Raises:
        LabError: a marker or a tag that would not do what its author meant, with its place; or an unknown parameter.
    """
    notebook = _read(source)
    version = _version(notebook, source.stem)
    if values:
        cell = _parameters_cell(notebook, source.stem)
        cell.source = _baked(cell.source, values, source.stem)
    kept = []
    for number, cell in enumerate(notebook.cells):
        place = f"{source.stem}, cell {number + 1}"
        tags = cell.metadata.get("tags", [])
        for tag in tags:
            if tag not in TAGS and (meant := fields.did_you_mean(tag, TAGS)):
                raise LabError(f"{place}: unknown tag '{tag}'{meant}")
        cell["id"] = f"cell-{number:02d}"
        cell.source = _text(cell, edition, place)
        if cell.cell_type == "code":
            cell.source = cell.source.replace(ENSURE.format(OF_THE_SOURCE), ENSURE.format(version))
            cell.outputs, cell.execution_count = [], None
        if not LEFT_OUT[edition] & set(tags):
            kept.append(cell)
    notebook.cells = kept
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def parameters(source: Path) -> dict[str, Any]:
    """Names and default values of a notebook's parameters cell, which holds plain literals only."""
    cell = _parameters_cell(_read(source), source.stem)
    return {name: ast.literal_eval(value) for name, value in _assigned_values(cell.source).items()}


def _version(notebook, name: str) -> str:
    """A hash of what students see, with the default parameters: the same for all editions, assignments and students."""
    seen = [
        (cell.cell_type, _text(cell, "student", f"{name}, cell {number}"))
        for number, cell in enumerate(notebook.cells, 1)
        if not LEFT_OUT["student"] & set(cell.metadata.get("tags", []))
    ]
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:10]


def _read(source: Path):
    import jupytext

    return jupytext.read(source)


def _parameters_cell(notebook, name: str):
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise LabError(f"{name} needs exactly one cell tagged 'parameters'; it has {len(tagged)}.")
    return tagged[0]


def _assigned_values(text: str) -> dict[str, ast.expr]:
    return {statement.targets[0].id: statement.value for statement in ast.parse(text).body if isinstance(statement, ast.Assign)}


def _baked(text: str, values: dict[str, Any], name: str) -> str:
    """A parameters cell with other values, written as papermill writes them. What stands around a value stays, so does an equal value."""
    from papermill.translators import PythonTranslator

    defaults = _assigned_values(text)
    if unknown := [fields.unknown_parameter(word, defaults, name) for word in values if word not in defaults]:
        raise LabError("; ".join(unknown) + ".")
    literals = {word: PythonTranslator.translate(value) for word, value in values.items()}
    lines = text.split("\n")
    for word, old in sorted(defaults.items(), key=lambda item: (item[1].lineno, item[1].col_offset), reverse=True):
        if word in literals and literals[word] != PythonTranslator.translate(ast.literal_eval(old)):
            before = lines[old.lineno - 1].encode()[: old.col_offset].decode()  # ast counts bytes
            after = lines[old.end_lineno - 1].encode()[old.end_col_offset :].decode()
            lines[old.lineno - 1 : old.end_lineno] = [before + literals[word] + after]
    return "\n".join(lines)


def _text(cell, edition: str, place: str) -> str:
    """A cell's text without markers, and for students with stubs in place of what was between them."""
    lines = cell.source.split("\n")
    for region in reversed(regions(lines, cell.cell_type, place)):
        inside = lines[region.first : region.last - 1]
        lines[region.first - 1 : region.last] = region.stub if edition == "student" else inside
    return "\n".join(lines)


def regions(lines: Sequence[str], kind: str, place: str) -> list[Region]:
    """The marked parts of a cell, from top to bottom.

    Raises:
        LabError: a marker that would not do what its author meant, with its place.
    """
    spans, opened = [], None
    for number, line in enumerate(lines, 1):
        if not MARKER_WORDS.search(line):
            continue
        mark = line.strip()
        if mark not in (BEGIN, END) or kind != "code":
            raise _mistake(place, number, f"a marker is '{BEGIN}' or '{END}', alone on its line of a code cell; found '{mark}'")
        if mark == BEGIN and opened:
            raise _mistake(place, number, f"this region begins inside the one of line {opened}; end that one first")
        if mark == END and not opened:
            raise _mistake(place, number, f"this region ends and never began; write '{BEGIN}' above the solution")
        if mark == BEGIN:
            opened = number
        else:
            spans.append((opened, number))
            opened = None
    if opened:
        raise _mistake(place, opened, f"this region never ends; write '{END}' below the solution")
    if not spans:
        return []
    try:
        tree = ast.parse("\n".join(lines))
    except SyntaxError as error:
        raise _mistake(place, error.lineno or 1, f"a cell with markers must be Python, and this is not ({error.msg})") from error
    return [Region(first, last, _stub(tree, lines, first, last, place)) for first, last in spans]


def _mistake(place: str, line: int, what: str) -> LabError:
    return LabError(f"{place}, line {line}: {what}.")


def _stub(tree: ast.Module, lines: Sequence[str], first: int, last: int, place: str) -> list[str]:
    indents = [line[: len(line) - len(line.lstrip())] for line in (lines[first - 1], lines[last - 1])]
    if indents[0] != indents[1]:
        raise _mistake(place, last, f"this marker must stand as far in as that of line {first}")
    if not indents[0]:
        return [f"{name} = ...  # your answer" for name in _names(tree, first, last, place)]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            end = _between(node.body, first, last)
            if end and end[-1] is node.body[-1] and end[0].col_offset == len(indents[0]):
                return [f"{indents[0]}return ...  # your code"]
    raise _mistake(place, first, "an indented region must be the end of a function's body, its markers as far in as that body")


def _between(block: Sequence[ast.stmt], first: int, last: int) -> list[ast.stmt]:
    """The statements of a block that stand between two lines; none where one of the lines cuts a statement in two."""
    starts = {s: min([s.lineno, *(decorator.lineno for decorator in getattr(s, "decorator_list", []))]) for s in block}
    touched = [s for s in block if starts[s] < last and s.end_lineno > first]
    return touched if all(first < starts[s] and s.end_lineno < last for s in touched) else []


def _names(tree: ast.Module, first: int, last: int, place: str) -> list[str]:
    """The names that a region at the left margin gives values to, in order, each once."""
    found = []
    for statement in _between(tree.body, first, last):
        names = _assigned_names(statement)
        if names is None:
            raise _mistake(
                place, statement.lineno, "a region at the left margin only gives values to names; of a function, mark the end of its body"
            )
        found += names
    if not found:
        raise _mistake(place, first, "a region at the left margin must give a value to at least one name, in whole statements")
    return list(dict.fromkeys(found))


def _assigned_names(statement: ast.stmt) -> list[str] | None:
    """The names that a plain assignment gives values to; None for any other statement."""
    if isinstance(statement, ast.AnnAssign) and statement.value:
        targets = [statement.target]
    elif isinstance(statement, ast.Assign):
        targets = statement.targets
    else:
        return None
    names = []
    while targets:
        target, *targets = targets
        if isinstance(target, ast.Tuple | ast.List):
            targets = [*target.elts, *targets]
        elif isinstance(target, ast.Starred):
            targets = [target.value, *targets]
        elif isinstance(target, ast.Name):
            names.append(target.id)
        else:
            return None
    return names
