"""Writes what is generated beside the notebooks' sources: the .ipynb, which are the student edition, and the schema of assignments."""

from __future__ import annotations

import json
from pathlib import Path

from lab_utils import assignment_file, course, editions, files


def generate(source: Path) -> str:
    """The text of the .ipynb that belongs to a percent-format .py: the student edition with the default parameters."""
    import nbformat

    return nbformat.writes(editions.make(source, "student")) + "\n"


def schema() -> str:
    """The text of the JSON Schema that editors check assignment files against."""
    return json.dumps(assignment_file.schema(), indent=2) + "\n"


def main() -> None:
    made = {course.source(notebook).with_suffix(".ipynb"): generate(course.source(notebook)) for notebook in course.NOTEBOOKS}
    made[course.root() / assignment_file.FOLDER / assignment_file.SCHEMA_FILE] = schema()
    for path, text in made.items():
        files.write_text(path, text)
        print(path.name)


if __name__ == "__main__":
    main()
