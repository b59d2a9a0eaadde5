"""Exercises: those that stand in a notebook, what their checks said when it was executed, and what a check says about a wrong answer."""

import ast
import re

import nbformat

from lab_utils import editions
from lab_utils.check.exercise import ALMOST, SIGNS


def exercises_of(source):
    """Each exercise of a notebook in order: the name that its check is called by, and the heading above."""
    found, heading = [], None
    for cell in editions.make(source, "solution").cells:
        if cell.cell_type == "markdown":
            heading = next((line for line in cell.source.splitlines() if line.startswith("### Exercise")), heading)
        else:
            calls = [node.func for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
            found += [
                (f.attr, heading) for f in calls if isinstance(f, ast.Attribute) and ast.unparse(f.value) == "check" and f.attr != "note_in"
            ]
    return found


def verdicts(path):
    """What the checks of an executed notebook said, in order, as (exercise, state)."""
    outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
    shown = "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)
    return re.findall(rf"^[{''.join(SIGNS.values())}] (\w+): ({'|'.join(SIGNS)})\.", shown, re.M)


def almost(verdict):
    """What a check says about a wrong answer.

    Raises:
        ValueError: the answer passed, or was not attempted.
    """
    if verdict.state != ALMOST:
        raise ValueError(f"a wrong answer was expected: {verdict}")
    return verdict.says
