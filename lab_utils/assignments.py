"""Assignments: one YAML file says what a class does, what counts, and how values vary from student to student.

What a file may say of parameters comes from the notebooks' parameters cells and from the recipes, so it cannot drift from them.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab_utils import check, config, course, fields
from lab_utils.assignment_checks import as_a_parameter, check_exercises, check_parameters
from lab_utils.assignment_file import Problems, Sheet, find, with_what_it_extends
from lab_utils.course import Notebook


@dataclass(frozen=True)
class Assignment:
    """A file that was read and fits the notebooks, the recipes and the exercises."""

    name: str
    sheet: Sheet

    def __getattr__(self, name: str) -> Any:
        """What the file says under that name."""
        if name in Sheet.model_fields:
            return getattr(self.sheet, name)
        raise AttributeError(name)

    @property
    def notebooks(self) -> list[Notebook]:
        """Those that are handed out, in the course's order."""
        return course.offered(course.choose(self.sheet.hand_out), config.load_recipe(self.sheet.recipe))

    @property
    def exercises(self) -> dict[str, float]:
        """Points of each exercise that counts."""
        if self.sheet.exercises is not None:
            return dict(self.sheet.exercises)
        names = {notebook.name for notebook in self.notebooks}
        return {name: 1.0 for name, exercise in check.EXERCISES.items() if exercise.notebook in names}

    @property
    def varies(self) -> bool:
        """Whether values depend on the student."""
        return self.sheet.vary is not None

    def choice(self, student: str) -> dict[str, Any]:
        """What the variation chooses for a student, by name of parameter."""
        vary, found = self.sheet.vary, {}
        if vary is None:
            return found
        if vary.recipes:
            found["recipe"] = vary.recipes[_draw(vary.salt, student, "recipe", len(vary.recipes))]
        for name in ("seed", "data_seed"):
            if getattr(vary, name):
                found[name] = _draw(vary.salt, student, name, getattr(vary, name))
        return found

    def layers(self, notebook: Notebook, student: str | None = None) -> list[dict[str, Any]]:
        """What replaces a notebook's defaults, the last word last: for everybody, for this notebook, for this student."""
        return [
            {"recipe": self.sheet.recipe, "assignment": self.name, "student": student, "run_dir": f"runs/{self.name}"},
            self.sheet.common,
            next((own for word, own in self.sheet.notebooks.items() if course.named(word) == notebook), {}),
            self.choice(student) if student else {},
        ]

    def values(self, student: str | None = None) -> dict[str, dict[str, Any]]:
        """Every parameter of every notebook that is handed out, by notebook; without a student, as they are before they vary."""
        return {notebook.name: course.filled(notebook, self.layers(notebook, student)) for notebook in self.notebooks}

    def settings(self, student: str | None = None) -> dict[str, config.Settings]:
        """What each method's run should be, by method."""
        values = self.values(student)
        return {n.method: course.settings(n, values[n.name]) for n in self.notebooks if n.method}


def id_key(student: str) -> str:
    """An id as it counts: without spaces around it and in lower case, so that `Ann` and `ann ` are one student."""
    return student.strip().casefold()


def _draw(salt: str, student: str, what: str, below: int) -> int:
    """A number from 0 to `below` less one, the same wherever it is drawn (HMAC, RFC 2104, with SHA-256)."""
    words = f"{what}:{id_key(student)}".encode("utf-8", "surrogatepass")  # an id may come from a command line in another encoding
    digest = hmac.new(salt.encode("utf-8", "surrogatepass"), words, hashlib.sha256).digest()
    return int.from_bytes(digest, "big") % below


def load(name: str | Path) -> Assignment:
    """The assignment of that name, or in that YAML file.

    Raises:
        LabError: there is none, or everything in it that does not fit, each with its line.
    """
    path = find(str(name))
    values, places = with_what_it_extends(path)
    problems = Problems(path.name, places)
    sheet = None
    try:
        sheet = fields.build(Sheet, values, "assignment")
    except fields.Mistakes as mistakes:
        for where, words in mistakes.problems:
            problems.add(where, words + as_a_parameter(where))
    check_parameters(values, problems)
    check_exercises(values, problems)
    problems.raise_if_any()
    return Assignment(path.stem, sheet)
