"""What a rater is shown: blind summaries in random order, and the session that keeps each answer."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from lab_utils import sheets
from lab_utils.errors import LabError
from lab_utils.runs import Finished, unlike
from lab_utils.sheets import ERRORS, MARKS, MODEL, SCALES, key

REFERENCE = "reference"


@dataclass(frozen=True)
class Task:
    """One item of a rater: a summary to rate or, where `other` is set, two of which to choose one (A is `item`, B is `other`)."""

    document_id: str
    document: str
    item: str
    summary: str
    other: str = ""
    other_summary: str = ""

    @property
    def kind(self) -> str:
        return "choose" if self.other else "rate"

    @property
    def questions(self) -> dict[str, tuple[str, ...]]:
        """The columns to fill, with the answers that each accepts."""
        return {"preferred": ("A", "B")} if self.other else {**dict.fromkeys(SCALES, MARKS), "error": tuple(ERRORS)}

    @property
    def identity(self) -> tuple:
        """The same for a pair shown the other way round."""
        return self.kind, frozenset({self.item, self.other})


def tasks(finished: Sequence[Finished], documents: Mapping[str, str], rater: str, count: int = 20, seed: int = 0) -> list[Task]:
    """What one rater is shown, in order: for each document its summaries, the first reference among them, then two of them to choose from.

    The seed alone draws the documents and the pair of each, so that all raters see the same ones and their agreement can be computed;
    a larger count adds documents to those of a smaller one. The order of documents and summaries, and which summary of a pair is A,
    are drawn for each rater. Pairs are of two methods, each about equally often; where both wrote the same words, another is taken.

    Args:
        documents: id -> text.

    Raises:
        LabError: nothing to rate, runs that must not be compared, or a document that is missing.
    """
    if not finished:
        raise LabError("No finished run to rate: run at least notebook 01 first (`lab run --only 01`).")
    if count < 1:
        raise LabError(f"At least one document is needed; got {count}.")
    if reasons := unlike(finished):
        raise LabError(f"These runs cannot be rated side by side: {'; '.join(reasons)}. Run them again with one recipe.")
    texts = texts_of({run.method: run for run in finished})
    ids = [p.id for p in finished[0].predictions]
    missing = [i for i in ids if i not in documents or any(i not in texts[run.method] for run in finished)]
    if missing:
        raise LabError(f"{len(missing)} of {len(ids)} documents lack their text or a summary: give the data the runs were made with.")
    chosen = random.Random(f"documents {seed}").sample(ids, len(ids))[:count]
    pairs = _pairs(chosen, texts, random.Random(f"pairs {seed}"))
    own = random.Random(f"order {seed} {rater}")
    found = []
    for i in own.sample(chosen, len(chosen)):
        summaries = {key(i, written[i]): written[i] for written in texts.values()}
        found += [Task(i, documents[i], item, summaries[item]) for item in own.sample(sorted(summaries), len(summaries))]
        if i in pairs:
            a, b = own.sample(pairs[i], 2)
            found.append(Task(i, documents[i], a, summaries[a], b, summaries[b]))
    return found


def texts_of(runs: Mapping[str, Finished]) -> dict[str, dict[str, str]]:
    """System -> document id -> summary, the hidden reference last."""
    found = {name: {p.id: p.prediction for p in run.predictions} for name, run in runs.items()}
    return found | {REFERENCE: {p.id: p.references[0] for run in runs.values() for p in run.predictions}}


def _pairs(ids: Sequence[str], texts: Mapping[str, Mapping[str, str]], rng: random.Random) -> dict[str, list[str]]:
    """For each document the items of two methods: of the pair that had the fewest turns, among those whose words differ."""
    methods = [name for name in texts if name != REFERENCE]
    turns: Counter = Counter()
    found = {}
    for i in ids:
        items = {name: key(i, texts[name][i]) for name in methods}
        open_pairs = [pair for pair in combinations(methods, 2) if items[pair[0]] != items[pair[1]]]
        if open_pairs:
            pair = min(rng.sample(open_pairs, len(open_pairs)), key=lambda pair: turns[pair])
            found[i] = [items[name] for name in pair]
            turns.update(p for p in open_pairs if {items[name] for name in p} == set(found[i]))
    return found


@dataclass
class Session:
    """One rater at work: the tasks, which of them are answered, and the file that grows by a line with each answer."""

    path: Path
    rater: str
    tasks: list[Task] = field(repr=False)
    answered: set = field(default_factory=set, repr=False)
    notes: list[str] = field(default_factory=list)

    @property
    def task(self) -> Task | None:
        """The first one without an answer; None when all is done."""
        return next((task for task in self.tasks if task.identity not in self.answered), None)

    @property
    def progress(self) -> tuple[int, int]:
        return sum(task.identity in self.answered for task in self.tasks), len(self.tasks)

    def save(self, **answers: str) -> None:
        """Writes the answer to the present task, and nothing less than the whole line; no answers skip it.

        Args:
            answers: a value from `questions` for any of the task's columns.

        Raises:
            LabError: an answer that is not offered, no task left, or a file that cannot be written.
        """
        task = self.task
        if task is None:
            raise LabError("There is nothing left to answer: ask for more documents, or for other ones with another seed.")
        for column, answer in answers.items():
            tie = answer == sheets.TIE and column == "preferred" and self.rater.startswith(MODEL)
            if answer not in task.questions.get(column, ()) and not tie:
                raise LabError(f"'{sheets.shown(str(answer))}' is no answer to {column}: {', '.join(task.questions.get(column, ()))}.")
        chosen = {"A": task.item, "B": task.other, sheets.TIE: sheets.TIE}.get(answers.get("preferred", ""), "")
        place = {"rater": self.rater, "task": task.kind, "document": task.document_id, "item": task.item, "other": task.other}
        sheets.append(self.path, place | answers | {"preferred": chosen})
        self.answered.add(task.identity)


def start(
    run_dir: str | Path,
    finished: Sequence[Finished],
    documents: Mapping[str, str] | None,
    rater: str,
    count: int = 20,
    seed: int = 0,
    judge: bool = False,
) -> Session:
    """A rater's session, new or continued after the last answer in the file. Nothing is written before the first answer.

    Args:
        judge: the rater is a model, which chooses and does not rate.

    Raises:
        LabError: no documents, a name or a file that cannot be used, runs that cannot be rated side by side.
    """
    if finished and not documents:
        raise LabError("Summaries are rated against their documents, and those of these runs cannot be read: name them with --data-dir.")
    name = sheets.rater_name(rater, judge)
    path = sheets.file_of(run_dir, name)
    asked = [task for task in tasks(finished, documents, name, count, seed) if task.other or not judge]
    session = Session(path, name, asked)
    if path.exists():
        sheet = sheets.parse(path)
        session.answered = {row.identity for row in sheet.rows if row.rater == name}
        if sheet.torn_at is not None:
            session.notes.append(sheets.torn(path))
    return session
