"""Writes notebooks: the committed notebooks/*.ipynb, which are the student edition, and the editions of an assignment."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from lab_utils import editions, runner, runs
from lab_utils.errors import LabError


def generate(source: Path) -> str:
    """The text of the .ipynb that belongs to a percent-format .py: the student edition with the default parameters."""
    import nbformat

    return nbformat.writes(editions.make(source, "student")) + "\n"


def hand_out(assignment: str | None, out: str | Path, edition: str = "student", force: bool = False) -> list[Path]:
    """Writes an assignment's notebooks with its values baked in; returns their paths.

    Args:
        assignment: its name or YAML file; None: the default parameters.
        edition: "student", "solution", "instructor", or "all", each in a folder of its own under `out`.
        force: replace notebooks that were changed, too.

    Raises:
        LabError: the assignment does not fit the notebooks, or `out` holds notebooks that somebody changed; then nothing is written.
    """
    import nbformat

    folders = {each: Path(out) / each for each in editions.EDITIONS} if edition == "all" else {edition: Path(out)}
    made = {
        folder / f"{notebook.name}.ipynb": editions.make(runner.source(notebook), each, values)
        for notebook, values in runner.planned(assignment=assignment)
        for each, folder in folders.items()
    }
    if not force and (changed := [str(path) for path in made if path.exists() and not _is_as_written(path)]):
        raise LabError(
            f"{', '.join(changed)}: changed since the lab wrote it, or written by somebody else. Nothing was written; "
            "move such files away, choose another folder with --out, or replace them with --force."
        )
    for path, notebook in made.items():
        notebook.metadata["lab"] = {"cells": _digest(notebook)}
        runs.make_folder(path.parent)
        runs.write_text(path, nbformat.writes(notebook) + "\n")
    return list(made)


def _is_as_written(path: Path) -> bool:
    """Whether a notebook still holds the cells that the lab wrote into it, and no outputs. Opening and saving changes neither."""
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception:  # nbformat raises many kinds for a broken file; what cannot be read is not ours to replace
        return False
    return notebook.metadata.get("lab", {}).get("cells") == _digest(notebook)


def _digest(notebook) -> str:
    cells = [(cell.cell_type, cell.source, cell.get("outputs", [])) for cell in notebook.cells]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:16]


def main() -> None:
    for notebook in runner.NOTEBOOKS:
        source = runner.source(notebook)
        source.with_suffix(".ipynb").write_text(generate(source), encoding="utf-8")
        print(f"{source.stem}.ipynb")


if __name__ == "__main__":
    main()
