"""Work of students who do not exist: records, summaries, exercises and notebooks that fit together, made without a model.

Summaries are references with some words exchanged. Which ones depends on the settings alone, as on one machine: the same settings give
the same summaries. `honest` makes a student's work, the functions after it spoil it, and `hand_in` packs it.
"""

import copy
import hashlib
import json
import random
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from lab_utils import check, data, metrics, plan
from lab_utils.check.exercise import PASSED, SIGNS
from lab_utils.generation import Prediction
from lab_utils.submissions import answers as answered
from lab_utils.submissions import packing
from lab_utils.submissions.reading import Submission

BASE = "5ca1ab1e5ca1ab1e"
KEPT = {"zero_shot": 0.3, "full": 0.7, "lora": 0.65, "qlora": 0.6}  # share of a reference's words that a summary keeps
LOG = "step,epoch,loss,grad_norm,learning_rate,seconds,validation_loss\n0,0.0,,,,0.0,3.5\n2,1.0,2.9,1.0,0.0,0.8,3.1\n"
PACKED = "2026-03-02T18:00:00+00:00"


@dataclass
class Work:
    """What one student did, as `reading.read` would give it back, free to be spoiled."""

    assignment: str
    student: str
    records: dict[str, dict] = field(default_factory=dict)
    predictions: dict[str, list[dict]] = field(default_factory=dict)
    exercises: dict[str, dict] = field(default_factory=dict)
    notebooks: dict[str, dict] = field(default_factory=dict)
    ratings: dict[str, str] = field(default_factory=dict)
    packed: str | None = PACKED

    def submission(self, name=None, problems=(), megabytes=0.2):
        """Handed in, without the way over a file."""
        answers = {exercise: one["code"] for n, notebook in self.notebooks.items() for exercise, one in answered.of(n, notebook).items()}
        return Submission(
            name=name or f"{self.assignment}-{self.student}.zip", student=self.student, assignment=self.assignment, packed=self.packed,
            records=copy.deepcopy(self.records), predictions=copy.deepcopy(self.predictions), exercises=copy.deepcopy(self.exercises),
            answers=answers, notebooks=copy.deepcopy(self.notebooks), ratings=dict(self.ratings), megabytes=megabytes,
            problems=list(problems),
        )  # fmt: skip

    def write(self, run_dir):
        """The run directory that the notebooks would have left."""
        run_dir = Path(run_dir)
        for method, record in self.records.items():
            folder = run_dir / method
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "run.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
            rows = self.predictions.get(method, [])
            (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            if "training" in record:
                (folder / "log.csv").write_text(LOG, encoding="utf-8")
        for part in ("exercises", "ratings"):
            (run_dir / part).mkdir(parents=True, exist_ok=True)
        for name, notebook in self.notebooks.items():
            (run_dir / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
            own = {n: state for n, state in self.exercises.items() if check.EXERCISES[n].notebook == name}
            (run_dir / "exercises" / f"{name}.json").write_text(json.dumps(own), encoding="utf-8")
        for name, sheet in self.ratings.items():
            (run_dir / "ratings" / name).write_text(sheet, encoding="utf-8")
        return run_dir


# --- honest work ----------------------------------------------------------------------------------------------------------------


def honest(assignment, student="ada", minute=None, states=None, answers=None):
    """A student's work as it was assigned.

    Args:
        minute: when the first run started, by default another one for each student.
        states: exercise -> state, where it did not pass. answers: exercise -> code of its cell.
    """
    minute = int(hashlib.sha256(student.encode()).hexdigest(), 16) % 500 if minute is None else minute
    work = Work(assignment.name, student)
    for number, (method, settings) in enumerate(assignment.settings(student).items()):
        started = f"2026-03-01T{8 + (minute + 3 * number) // 60:02d}:{(minute + 3 * number) % 60:02d}:{number:02d}+00:00"
        work.records[method], work.predictions[method] = finished_run(settings, assignment.name, student, started, 1 + minute / 50)
    work.exercises = {name: {"state": (states or {}).get(name, PASSED), "tries": 1} for name in assignment.exercises}
    for name, values in assignment.values(student).items():
        own = {n: one["state"] for n, one in work.exercises.items() if check.EXERCISES[n].notebook == name}
        work.notebooks[name] = notebook(values, own, answers or {})
    return work


def finished_run(settings, assignment="week", student="ada", started="2026-03-01T10:00:00+00:00", seconds=2.0):
    """A record and its summaries, of a run that took so many seconds."""
    corpus, method = _corpus(settings.recipe.data), settings.method
    chance = f"{settings.seed} {settings.training}" if settings.training else ""
    rows = tuple(_prediction(example, method, chance) for example in corpus.test)
    tokens = sum(row.tokens for row in rows)
    config = settings.model_dump(mode="json")
    config["recipe"]["notes"] = settings.recipe.all_notes
    model = settings.recipe.model
    record = {
        "schema": 1,
        "status": "finished",
        "method": method,
        "recipe": settings.recipe.name,
        "assignment": assignment,
        "student": student,
        "seed": settings.seed,
        "date": started[:10],
        "started": started,
        "config": config,
        "environment": {"python": "3.12.1", "platform": "local, Linux x86_64", "packages": {"torch": "2.13.0"}, "device": "CPU (x86_64)",
                        "precision": "float32", "precision_reason": "a CPU", "commit": None},
        "data": corpus.describe(),
        "model": {"name": model.label, "source": model.source, "fingerprint": BASE, "parameters": 9_000},
        "generation": {"examples": len(rows), "seconds": round(seconds, 1), "tokens_per_second": round(tokens / seconds, 1),
                       "peak_memory_gb": 0.6, "stopped_share": round(sum(row.stopped for row in rows) / len(rows), 4), "cut_documents": 0},
        "metrics": _scores(rows),
    }  # fmt: skip
    if settings.training:
        steps = plan.optimizer_steps(settings, len(corpus.train))
        seen = min(steps * settings.training.batch_size, round(len(corpus.train) * settings.training.epochs))
        record["model"] |= {"trainable_parameters": 900, "checkpoint_mb": 0.04}
        record["training"] = {
            "steps": steps, "examples": seen, "tokens": 120 * seen, "seconds": round(seconds, 1),
            "tokens_per_second": round(120 * seen / seconds, 1), "peak_memory_gb": 0.7,
            "first_loss": 3.4, "last_loss": 2.9, "validation_losses": [3.5, 3.1],
        }  # fmt: skip
    plain = [
        {"id": r.id, "prediction": r.prediction, "references": list(r.references), "tokens": r.tokens, "stopped": r.stopped} for r in rows
    ]
    return json.loads(json.dumps(record)), plain


@cache
def _corpus(spec):
    return data.load(spec)


@cache
def _scores(rows):
    """A record's `metrics` without the companions, whose intervals take most of the time."""
    return metrics.summarize([{name: row[name] for name in ("id", *metrics.MEASURES)} for row in metrics.score(rows)])


def _prediction(example, method, chance):
    draw = random.Random(f"{method} {chance} {example.id}")
    others = example.document.split()
    words = [word if draw.random() < KEPT[method] else draw.choice(others) for word in example.summary.split()]
    return Prediction(example.id, " ".join(words), example.references, len(words) + 2, draw.random() < 0.9)


def notebook(values, states, answers=None):
    """An executed notebook: its parameters, then one cell for each exercise with what its check said."""
    sources = [("# %%", ""), ("\n".join(f"{name} = {value!r}" for name, value in values.items()), "")]
    for exercise, state in states.items():
        code = (answers or {}).get(exercise, f"verdict = check.{exercise}(answer)\nverdict")
        sources.append((code, f"{SIGNS[state]} {exercise}: {state}."))
    cells = []
    for number, (source, shown) in enumerate(sources, 1):
        output = {"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": {"text/plain": shown}}
        metadata = {"tags": ["parameters"]} if number == 2 else {}
        cell = {"cell_type": "code", "id": f"cell-{number:02d}", "execution_count": number, "source": source, "metadata": metadata}
        cells.append(cell | {"outputs": [output] if shown else []})
    return {"cells": cells, "metadata": {"language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}


# --- work that is not as it should be ---------------------------------------------------------------------------------------------


def edited_scores(work, method="lora", by=5.0):
    """The record says more than its summaries give."""
    for name in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
        score = work.records[method]["metrics"][name]
        work.records[method]["metrics"][name] = {key: value + by for key, value in score.items()}
    return work


def other_test_set(work, method="lora"):
    """Tested on easier references: each summary's own words."""
    for row in work.predictions[method]:
        row["references"] = [row["prediction"]]
    rows = tuple(Prediction(**row | {"references": tuple(row["references"])}) for row in work.predictions[method])
    work.records[method]["metrics"] = json.loads(json.dumps(_scores(rows)))
    work.records[method]["data"]["fingerprint"] = "0123456789abcdef"
    return work


def half_finished(work, method="qlora"):
    """Stopped in the middle of a method; the later ones were never begun."""
    record = work.records[method]
    for block in ("training", "generation", "metrics"):
        record.pop(block, None)
    record |= {"status": "failed", "error": "OutOfMemoryError: the GPU is full"}
    del work.predictions[method]
    return work


def try_out(work, method="lora"):
    """One step of training."""
    work.records[method]["training"] |= {"steps": 1, "examples": 1, "tokens": 120, "tokens_per_second": round(120 / 2.0, 1), "seconds": 2.0}
    return work


def copied(work, student):
    """The same work under another name."""
    other = copy.deepcopy(work)
    other.student = student
    for record in other.records.values():
        record["student"] = student
    return other


# --- a class -----------------------------------------------------------------------------------------------------------------------


def hand_in(work, folder):
    """The zip of a student's work."""
    run_dir = work.write(Path(folder) / f"runs-{hashlib.sha256(work.student.encode()).hexdigest()[:8]}")
    return packing.pack(run_dir, student=work.student, assignment=work.assignment, out=Path(folder)).path


def classroom(assignment, count, folder, spoil=None):
    """Zips of so many students, s001 and on.

    Args:
        spoil: number of a student -> what to do with the work, such as `edited_scores`.
    """
    made = [honest(assignment, f"s{number:03d}", minute=number) for number in range(1, count + 1)]
    for number, change in (spoil or {}).items():
        made[number - 1] = change(made[number - 1]) or made[number - 1]
    return [hand_in(work, folder) for work in made]
