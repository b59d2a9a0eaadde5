"""Every check of a submission: what was handed in, whether its runs may be compared, whether its numbers hold, its exercises.

Nothing is trained and no model is loaded, so a check can show that files disagree, never who wrote them. `wrong` is a plain
contradiction, `look` is for a person to judge, `fine` says what was found to hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab_utils import expected
from lab_utils.assignments import id_key
from lab_utils.check.exercise import ALMOST, NOT_ATTEMPTED, PASSED
from lab_utils.submissions import accounts, executed, fairness
from lab_utils.submissions.expectations import Case, Expectations, expect
from lab_utils.submissions.fairness import FINE, LOOK, WRONG, Said
from lab_utils.submissions.likeness import normalised, solutions
from lab_utils.submissions.records import at, named, shown
from lab_utils.texts import capitalized

if TYPE_CHECKING:
    from lab_utils.assignments import Assignment
    from lab_utils.submissions.reading import Submission

# Parameters of a notebook that say where things lie or what becomes of the result, and those that decide no score.
ELSEWHERE = {"run_dir", "assignment", "student", "model_dir", "data_dir", "publish_to", "publish_merged", "generation_batch"}
ELSEWHERE |= expected.NO_MATTER


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        method: whose record it is about; None: the submission as a whole.
        state: "fine", "look" or "wrong".
        says: a sentence that an instructor may forward to the student.
    """

    check: str
    method: str | None
    state: str
    says: str


def verify(submission: Submission, assignment: Assignment, expectations: Expectations | None = None) -> list[Finding]:
    """What every check found, in the order of `CHECKS`; each has at least one finding. It never raises for what a student handed in.

    Args:
        expectations: what the class shares, from `expect`, so that it is worked out once for all.
    """
    case = Case(submission, assignment, expectations or expect([submission], assignment))
    found = []
    for check, (judge, otherwise) in CHECKS.items():
        try:
            said = list(judge(case))
        except Exception as error:  # a record may hold anything, and one of them must not stop the marking of a class
            said = [(None, LOOK, f"This could not be checked ({type(error).__name__}): its files hold something unusual, so read them.")]
        found += [Finding(check, *one) for one in said or [_otherwise(case, otherwise)]]
    return found


def _otherwise(case: Case, fine: str | None) -> Said:
    """What to say where a check found nothing to speak of."""
    return (None, FINE, fine) if fine else (None, LOOK, "There is no finished run to check.")


def _readable(case: Case) -> Iterator[Said]:
    for problem in case.submission.problems:
        yield None, LOOK, problem


def _complete(case: Case) -> Iterator[Said]:
    yield from _runs(case)
    submission, required = case.submission, case.assignment.required
    absent = [name for name in case.expectations.notebooks if name not in submission.notebooks]
    if "notebooks" in required and absent:
        yield None, WRONG, f"These notebooks are missing: {', '.join(absent)}."
    unanswered = [name for name in case.expectations.exercises if not submission.answers.get(name, "").strip()]
    if "answers" in required and unanswered:
        yield None, WRONG, f"The answers to these exercises are missing: {', '.join(unanswered)}."
    if "ratings" in required and not submission.ratings:
        yield None, WRONG, "The ratings are missing."


def _runs(case: Case) -> Iterator[Said]:
    records, required = case.submission.records, case.assignment.required
    for method in case.settings:
        record = records.get(method)
        if record is None and "records" in required:
            yield method, WRONG, f"The record of {named(method)} is missing."
        elif record is not None and method not in case.finished:
            status, reason = shown(at(record, "status") or "no status"), at(record, "error")
            because = f": {shown(reason).rstrip('.')}" if reason else ""
            yield method, WRONG, f"The run of {named(method)} did not finish ({status}){because}."
        elif record is not None and "predictions" in required and not case.rows(method):
            yield method, WRONG, f"The summaries of {named(method)} are missing (predictions.jsonl)."
    for method in records.keys() - case.settings.keys():
        yield method, LOOK, f"There is a record of {named(method)}, which was not assigned."


def _names(case: Case) -> Iterator[Said]:
    right = {"assignment": case.assignment.name, "student": case.submission.student}
    given = [(None, "The submission", {"assignment": case.submission.assignment})]
    given += [(m, f"The record of {named(m)}", {what: at(record, what) for what in right}) for m, record in case.finished.items()]
    unlike = [
        (method, LOOK, f"{where} names no {what}.")
        if name is None
        else (method, WRONG, f"{where} names another {what}: {shown(name)} instead of {shown(right[what])}.")
        for method, where, names in given
        for what, name in names.items()
        if name is None or id_key(str(name)) != id_key(right[what])
    ]
    yield from unlike
    if case.finished and not unlike:
        yield None, FINE, "Every record names this assignment and this student."


def states(submission: Submission, exercises: Iterable[str]) -> dict[str, str]:
    """Exercise that counts -> what its check said last; "not attempted" where it never ran."""
    return {name: at(submission.exercises, f"{name}.state") or NOT_ATTEMPTED for name in exercises}


def points(submission: Submission, exercises: Mapping[str, float]) -> float:
    """Points for the exercises that passed, of those that each is worth."""
    return sum(exercises[name] for name, state in states(submission, exercises).items() if state == PASSED)


def _exercises(case: Case) -> Iterator[Said]:
    worth = case.expectations.exercises
    found = states(case.submission, worth)
    left = {state: [name for name in found if found[name] == state] for state in (ALMOST, NOT_ATTEMPTED) if state in found.values()}
    said = f"{list(found.values()).count(PASSED)} of the {len(found)} exercises that count passed"
    said += f", {points(case.submission, worth):g} of {sum(worth.values()):g} points"
    said = ". ".join([said, *(f"{capitalized(state)}: {', '.join(names)}" for state, names in left.items())])
    yield None, LOOK if left else FINE, f"{said}."
    public = [name for name in found if normalised(case.submission.answers.get(name, "")) == solutions().get(name, "")]
    if public:
        yield None, LOOK, f"These answers are the lab's own solutions, at most with other names: {', '.join(public)}."
    seen = {name: state for notebook in case.submission.notebooks.values() for name, state in executed.states(notebook).items()}
    unlike = [f"{name} ({state}; its notebook shows {seen.get(name, 'nothing')})" for name, state in found.items()
              if seen.get(name, NOT_ATTEMPTED) != state]  # fmt: skip
    if case.submission.notebooks and unlike:
        yield None, LOOK, f"The notebooks show other states of these exercises than were recorded: {', '.join(unlike)}."
    elif case.submission.notebooks:
        yield None, FINE, "The notebooks show the states of the exercises that were recorded."


def _notebooks(case: Case) -> Iterator[Said]:
    assigned = case.expectations.values(case.submission.student)
    for name, notebook in case.submission.notebooks.items():
        own = executed.parameters(notebook)
        odd = [reason] if (reason := executed.out_of_order(notebook)) else []
        if own is None:
            odd.append("its parameters cannot be read")
        odd += [
            f"its parameter {key} is {shown(own[key])} (should be {shown(right)})"
            for key, right in assigned.get(name, {}).items()
            if own and key not in ELSEWHERE and own.get(key, right) != right
        ]
        if odd:
            yield None, LOOK, f"Notebook {shown(name)}: {'; '.join(odd)}."
        else:
            yield None, FINE, f"Notebook {shown(name)} was run from top to bottom with the assigned parameters."


# Check -> what judges it, and what to say where that has nothing to say; None: that there is no finished run.
CHECKS: dict[str, tuple[Callable[[Case], Iterator[Said]], str | None]] = {
    "files": (_readable, "Every file could be read."),
    "completeness": (_complete, "Everything that is required was handed in."),
    "names": (_names, None),
    "settings": (fairness.settings, None),
    "test set": (fairness.test_set, None),
    "base model": (fairness.base, None),
    "baseline": (fairness.baseline, None),
    "scores": (accounts.scores, None),
    "budget": (accounts.budget, None),
    "length": (accounts.length, None),
    "training": (accounts.losses, "No method was trained, so there is no loss to check."),
    "limits": (accounts.limits, "Every limit that the assignment sets was kept."),
    "expected scores": (accounts.bands, "No method was trained, so there is no score to compare."),
    "exercises": (_exercises, None),
    "notebooks": (_notebooks, "No notebook was handed in, so there is none to check."),
}
