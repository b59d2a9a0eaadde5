"""Submissions that are more alike than separate work usually is. A likeness is worth a talk; it proves nothing, nor who was first.

What honest work shares is left out: the same seed and settings give the same summaries on one machine, a short exercise has one obvious
answer, and what a good part of the class has says nothing about two of them.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, Any

from lab_utils import course, editions, sheets
from lab_utils.assignments import id_key
from lab_utils.submissions import answers, executed
from lab_utils.submissions.records import at, decisive, named, number

if TYPE_CHECKING:
    from lab_utils.submissions.reading import Submission

SHARE, FEW = 0.1, 3  # of the class, but so many students in a small one: what more have is common
SUMMARY_WORDS = 5  # shorter summaries are alike by chance
SUMMARY_SHARE = 0.8  # of a method's summaries that must be the same
ANSWER_NODES = 45  # of an answer's syntax tree: with fewer there are few ways to write it
RATED = 8  # answers on a rating sheet; two raters agree on fewer by chance
COPIED, SUMMARIES, RATINGS, VERBATIM, RENAMED = 4.0, 3.0, 3.0, 2.0, 1.0  # how much each likeness weighs
ENOUGH = 3.0


@dataclass(frozen=True)
class Pair:
    """Two students whose submissions are alike.

    Attributes:
        says: what is alike, in sentences without blame.
        score: from 0 to 1, half of what is left to 1 for each unit of weight.
    """

    first: str
    second: str
    says: str
    score: float


@dataclass(frozen=True)
class _Trace:
    """Something that two students would hardly both have by themselves."""

    weight: float
    what: str


def alike(submissions: Sequence[Submission]) -> list[Pair]:
    """Pairs of different students whose submissions are worth a talk, the most alike first.

    Time grows with the number of submissions and not with that of pairs: only what lands in the same bucket is compared.
    """
    found: dict[tuple[int, int], list[_Trace]] = defaultdict(list)
    for traces in (_copied_records, _same_summaries, _same_answers, _same_ratings):
        for pair, trace in traces(submissions):
            found[pair].append(trace)
    pairs = []
    for (first, second), traces in found.items():
        weight = sum(trace.weight for trace in traces)
        if weight >= ENOUGH:
            says = "; ".join(dict.fromkeys(trace.what for trace in traces))
            says = f"{says[0].upper()}{says[1:]}."
            pairs.append(Pair(submissions[first].student, submissions[second].student, says, round(1 - 0.5**weight, 4)))
    return sorted(pairs, key=lambda pair: (-pair.score, pair.first, pair.second))


def _copied_records(submissions: Sequence[Submission]) -> Iterator[tuple[tuple[int, int], _Trace]]:
    """Two runs do not start in the same second and take the same time to a tenth of a second."""
    buckets = _Buckets(submissions)
    for i, submission in enumerate(submissions):
        for method, record in submission.records.items():
            seconds = [number(at(record, f"{part}.seconds")) for part in ("training", "generation")]
            if isinstance(started := at(record, "started"), str) and any(seconds):
                buckets.add((method, started, *seconds), i)
    for (method, *_), pair in buckets.pairs(rare=False):
        yield pair, _Trace(COPIED, f"the run of {named(method)} has the same start, to the second, and the same duration in both")


def _same_summaries(submissions: Sequence[Submission]) -> Iterator[tuple[tuple[int, int], _Trace]]:
    """The same summaries after trainings with different settings. With the same settings they are what must come out."""
    buckets, counts = _Buckets(submissions), {}
    for i, submission in enumerate(submissions):
        untrained = {row["id"]: row["prediction"] for row in submission.predictions.get("zero_shot", [])}
        for method, rows in submission.predictions.items():
            if method == "zero_shot":
                continue
            own = [r for r in rows if r["prediction"] != untrained.get(r["id"]) and len(r["prediction"].split()) >= SUMMARY_WORDS]
            counts[i, method] = len(own)
            for row in own:
                buckets.add((method, row["id"], row["prediction"]), i)
    shared = Counter((method, pair) for (method, *_), pair in buckets.pairs())
    for (method, (first, second)), count in shared.items():
        of = max(counts[first, method], counts[second, method])
        configs = [decisive(at(submissions[i].records.get(method), "config"), method) for i in (first, second)]
        if count >= SUMMARY_SHARE * of and configs[0] != configs[1]:
            yield (
                (first, second),
                _Trace(SUMMARIES, f"{count} of {of} summaries of {named(method)} are the same though the settings differ"),
            )


def _same_answers(submissions: Sequence[Submission]) -> Iterator[tuple[tuple[int, int], _Trace]]:
    """Longer answers that differ at most in comments, spacing and the names of variables."""
    buckets, texts = _Buckets(submissions), {}
    for i, submission in enumerate(submissions):
        for exercise, code in submission.answers.items():
            if (form := normalised(code)) is not None and form != solutions().get(exercise):
                buckets.add((exercise, form), i)
                texts[i, exercise] = code.split()
    for (exercise, _), (first, second) in buckets.pairs():
        verbatim = texts[first, exercise] == texts[second, exercise]
        how = "word for word" if verbatim else "but for names and comments"
        yield (first, second), _Trace(VERBATIM if verbatim else RENAMED, f"the answer to {exercise} is the same {how}")


@cache
def solutions() -> dict[str, str]:
    """Exercise -> the lab's own solution as `normalised` gives it. Anybody can read them, so they say nothing about two students."""
    found = {}
    for notebook in course.NOTEBOOKS:
        solved = answers.of(notebook.name, editions.make(course.source(notebook), "solution"))
        found |= {exercise: form for exercise, answer in solved.items() if (form := normalised(answer["code"]))}
    return found


def _same_ratings(submissions: Sequence[Submission]) -> Iterator[tuple[tuple[int, int], _Trace]]:
    """Sheets with the same mark everywhere, whoever is named as the rater."""
    buckets = _Buckets(submissions)
    for i, submission in enumerate(submissions):
        for sheet in submission.ratings.values():
            if len(marks := _marks(sheet)) >= RATED:
                buckets.add(marks, i)
    for marks, pair in buckets.pairs():
        yield pair, _Trace(RATINGS, f"all {len(marks)} answers on a rating sheet are the same")


def _marks(sheet: str) -> frozenset[tuple]:
    """The answered lines of a rating sheet without the rater's name."""
    columns = [column for column in sheets.COLUMNS if column != "rater"]
    try:
        rows = [tuple(row.get(column) or "" for column in columns) for row in csv.DictReader(io.StringIO(sheet))]
    except csv.Error:  # no sheet: there is nothing to compare
        return frozenset()
    answers = slice(columns.index("other") + 1, None)
    return frozenset(row for row in rows if any(row[answers]))


def normalised(code: str) -> str | None:
    """A hash of code that does not change with comments, spacing, docstrings or the names of variables.

    None for what says nothing: a gap that is still `...`, an answer too short to differ, or text that is no Python.
    """
    tree = executed.parsed(code)
    if tree is None:
        return None
    try:
        nodes = [node for node in ast.walk(tree) if not isinstance(node, ast.expr_context | ast.operator | ast.unaryop | ast.cmpop)]
        unfinished = any(isinstance(node, ast.Constant) and node.value is ... for node in nodes)
        if unfinished or len(nodes) < ANSWER_NODES:
            return None
        return hashlib.sha256(ast.dump(_Renamed(tree).visit(tree)).encode("utf-8", "surrogatepass")).hexdigest()
    except RecursionError:  # nested beyond reason
        return None


class _Renamed(ast.NodeTransformer):
    """Takes out docstrings, and gives every variable the number of its first appearance. Functions and attributes keep their names."""

    def __init__(self, tree: ast.AST):
        stored = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
        given = [node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)]
        self.own, self.numbers = {*stored, *given}, {}

    def _number(self, name: str) -> str:
        return f"v{self.numbers.setdefault(name, len(self.numbers))}" if name in self.own else name

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self._number(node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(self._number(node.arg))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        return self.generic_visit(node)


class _Buckets:
    """Which submissions have the same thing."""

    def __init__(self, submissions: Sequence[Submission]):
        self.students = [id_key(submission.student) for submission in submissions]
        self.rare = max(FEW, int(SHARE * len(set(self.students))))
        self.holders: dict[Hashable, list[int]] = defaultdict(list)

    def add(self, key: Hashable, submission: int) -> None:
        self.holders[key].append(submission)

    def pairs(self, rare: bool = True) -> Iterator[tuple[Any, tuple[int, int]]]:
        """Each thing with each two submissions of different students that have it.

        Args:
            rare: leave out what more than a tenth of the class has. Otherwise a large group is paired with its first member only.
        """
        for key, holders in self.holders.items():
            held = list(dict.fromkeys(holders))
            if rare and len({self.students[i] for i in held}) > self.rare:
                continue
            together: Iterable = combinations(held, 2) if len(held) <= self.rare else ((held[0], other) for other in held[1:])
            yield from ((key, pair) for pair in together if self.students[pair[0]] != self.students[pair[1]])
