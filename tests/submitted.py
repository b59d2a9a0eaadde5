"""What a student has on the disk before it is handed in: a run directory with records as the lab writes them, and executed notebooks."""

import json
from pathlib import Path

RECORDED = Path(__file__).parents[1] / "lab_utils" / "recorded" / "smollm2-everyday"
ROWS = [
    {"id": "a", "prediction": "Ben is late.", "references": ["Ben comes late.", "Ben is late."], "tokens": 4, "stopped": True},
    {"id": "b", "prediction": 'She: "no"\n\\ and\tleft 🎈', "references": ["No."], "tokens": 80, "stopped": False},
]


def record(method="lora", **changes):
    """A finished record: the lab's own."""
    return json.loads((RECORDED / method / "run.json").read_text(encoding="utf-8")) | {"student": "anna", "assignment": "week-1"} | changes


def write_method(run_dir, method="lora", rows=ROWS, **changes):
    folder = Path(run_dir) / method
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(record(method, **changes), indent=2), encoding="utf-8")
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return folder


def run_directory(run_dir, methods=("zero_shot", "lora"), **changes):
    """A run directory with records, notes of exercises and ratings; its log holds a loss."""
    for method in methods:
        write_method(run_dir, method, **changes)
    (run_dir / "lora" / "log.csv").write_text("step,loss\n1,3.25\n", encoding="utf-8")
    for folder in ("exercises", "ratings"):
        (run_dir / folder).mkdir()
    notes = {"lora_forward": {"state": "passed", "tries": 2}, "merge": {"state": "almost", "tries": 1}}
    (run_dir / "exercises" / "03_lora.json").write_text(json.dumps(notes), encoding="utf-8")
    (run_dir / "ratings" / "anna.csv").write_text("rater,task\nanna,rate\n", encoding="utf-8")
    return run_dir


def code(source, *outputs, count=1, **more):
    return {"cell_type": "code", "source": source, "metadata": {}, "outputs": list(outputs), "execution_count": count, **more}


def markdown(source, **more):
    return {"cell_type": "markdown", "source": source, "metadata": {}, **more}


def printed(text):
    return {"output_type": "stream", "name": "stdout", "text": text}


def notebook(*cells, **metadata):
    return {"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def write_notebook(folder, name="03_lora", *cells):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    cells = cells or (code("check.lora_forward(mine)", printed("✓ lora_forward: passed.")),)
    path.write_text(json.dumps(notebook(*cells)), encoding="utf-8")
    return path
