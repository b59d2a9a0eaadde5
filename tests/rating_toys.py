"""Small finished runs to rate, and raters who answer by a rule."""

import json
from dataclasses import asdict

from lab_utils import blind, runs
from lab_utils.comparison import Line
from lab_utils.generation import Prediction
from lab_utils.plots import METHOD_NAMES

GOOD = {"fluency": "4", "faithfulness": "4", "coverage": "4", "conciseness": "4", "error": "none"}


def write_runs(folder, count=8, methods=("zero_shot", "lora"), text=lambda method, i: f"{method} on {i}.", ids=lambda i: f"doc-{i}"):
    """Finished runs on disk; the reference of document i is `Reference i.`"""
    for method in methods:
        (folder / method).mkdir(parents=True, exist_ok=True)
        record = {
            "status": "finished",
            "method": method,
            "model": {"fingerprint": "m"},
            "data": {"fingerprint": "d", "test": count},
            "config": {"recipe": {"prompt": {}, "lengths": {"document_tokens": 9}, "generation": {"max_new_tokens": 8}}},
        }
        (folder / method / "run.json").write_text(json.dumps(record))
        rows = [asdict(Prediction(ids(i), text(method, i), (f"Reference {i}.", "Another."), 3, True)) for i in range(count)]
        (folder / method / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return runs.read_all(folder)


def documents(finished):
    return {p.id: f"Ann: This is {p.id}.\nBen: Is it?" for p in finished[0].predictions}


def lines(finished, rouge=lambda method, i: 10.0 + i):
    return [
        Line(METHOD_NAMES[run.method], [{"id": p.id, "rouge1": rouge(run.method, i)} for i, p in enumerate(run.predictions)], run)
        for run in finished
    ]


def answer_all(folder, finished, rater, answers=lambda task: GOOD, **options):
    """A rater goes through all tasks; `answers` gives the values of one, `{}` skips it."""
    session = blind.start(folder, finished, documents(finished), rater, **options)
    while session.task is not None:
        session.save(**answers(session.task))
    return session
