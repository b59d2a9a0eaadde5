"""Generates notebooks/*.ipynb from notebooks/*.py: no outputs, ids that depend on position alone."""

from __future__ import annotations

from pathlib import Path

from lab_utils import runner


def generate(source: Path) -> str:
    """The text of the .ipynb that belongs to a percent-format .py."""
    import jupytext
    import nbformat

    notebook = jupytext.read(source)
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return nbformat.writes(notebook) + "\n"


def main() -> None:
    for notebook in runner.NOTEBOOKS:
        source = runner.source(notebook)
        source.with_suffix(".ipynb").write_text(generate(source), encoding="utf-8")
        print(f"{source.stem}.ipynb")


if __name__ == "__main__":
    main()
