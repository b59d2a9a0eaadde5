"""What an exercise is, and what it says about an answer: passed, almost with a hint, or not attempted. It never raises.

What was said can be kept beside the records of a run, for those who hand in their work.
"""

from __future__ import annotations

import copy
import functools
import html
import json
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lab_utils import files
from lab_utils.errors import LabError

PASSED, ALMOST, NOT_ATTEMPTED = "passed", "almost", "not attempted"
DEPTHS = ("recall", "build", "explore")
SIGNS = {PASSED: "✓", ALMOST: "…", NOT_ATTEMPTED: "○"}  # a state is never told by colour alone
COLOURS = {PASSED: "#009E73", ALMOST: "#E69F00", NOT_ATTEMPTED: "#767676"}


class Almost(Exception):
    """A wrong answer, with the sentence that helps to find out why."""


class NotAttempted(Exception):
    """The answer is still `...`."""


@dataclass(frozen=True)
class Verdict:
    """What a check found. As the last line of a cell it shows itself.

    Attributes:
        best: the reader's own answer if it passed, the lab's otherwise: what a notebook goes on with.
    """

    exercise: str
    state: str
    says: str
    best: Any = field(default=None, repr=False)

    @property
    def passed(self) -> bool:
        return self.state == PASSED

    def __repr__(self) -> str:
        return f"{SIGNS[self.state]} {self.exercise}: {self.state}. {self.says}".rstrip()

    def _repr_html_(self) -> str:
        return (
            f'<div style="border-left: 4px solid {COLOURS[self.state]}; padding: 0.2em 0.8em">'
            f"{SIGNS[self.state]} <b>{html.escape(self.exercise)}: {self.state}.</b> {html.escape(self.says)}</div>"
        )


@dataclass
class Exercise:
    """A question with a judge, called with the reader's answer.

    Attributes:
        notebook: the notebook it stands in, such as "03_lora".
        depth: "recall" (seconds), "build" (write a function) or "explore" (try things out).
        title: what to do, in a few words.
        hints: added after the first wrong answer to what the judge says, one more each time; the last one nearly gives it away.
        judge: takes the answer; returns a remark on a right one, raises `Almost` for a wrong one.
        solution: makes the lab's own answer, for notebooks that go on with it; None where nothing goes on.
    """

    name: str
    notebook: str
    depth: str
    title: str
    hints: Sequence[str]
    judge: Callable[..., str | None]
    solution: Callable[[], Any] | None = None
    wrong_answers: int = 0

    def __call__(self, answer: Any, **facts: Any) -> Verdict:
        """Judges an answer, and notes what was found where `note_in` said so.

        Args:
            facts: what the judge must know of this notebook's model or data.
        """
        return _noted(self, self._judged(answer, facts))

    def _judged(self, answer: Any, facts: dict[str, Any]) -> Verdict:
        try:
            remark = NOTHING_YET if answer is ... else self.judge(answer, **facts)
        except NotAttempted:
            remark = NOTHING_YET
        except Almost as almost:
            return self._verdict(ALMOST, self._with_hints(str(almost)))
        except Exception as error:  # whatever a reader's code raises is an answer that needs a hint
            return self._verdict(ALMOST, self._with_hints(in_words(error)))
        if remark is NOTHING_YET:
            return self._verdict(NOT_ATTEMPTED, f"{self.title}: replace the `...`, then run it and this check again.")
        return self._verdict(PASSED, remark or "", answer)

    def _with_hints(self, found: str) -> str:
        given = self.hints[: self.wrong_answers]
        self.wrong_answers += 1
        return " ".join([found, *(f"Hint {number}: {hint}" for number, hint in enumerate(given, 1))])

    def _verdict(self, state: str, says: str, answer: Any = None) -> Verdict:
        best = answer if state == PASSED or self.solution is None else self.solution()
        return Verdict(self.name, state, says, best)


NOTHING_YET = object()
EXERCISES: dict[str, Exercise] = {}


# --- what was found, for a submission ---------------------------------------------------------------------------------------

NOTES = "exercises"  # the folder of a run directory, with a file for each notebook
_run_dir: Path | None = None


def note_in(run_dir: str | Path | None) -> None:
    """From now on the state of every exercise is kept in this run directory; None ends that."""
    global _run_dir
    _run_dir = None if run_dir is None else Path(run_dir)


def _noted(exercise: Exercise, verdict: Verdict) -> Verdict:
    """The verdict, once it stands in the notebook's file with the number of tries; or with the reason why it does not."""
    if _run_dir is None:
        return verdict
    path = _run_dir / NOTES / f"{exercise.notebook}.json"
    try:
        notes = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        tries = notes.get(exercise.name, {}).get("tries", 0) + (verdict.state != NOT_ATTEMPTED)
    except (OSError, ValueError, AttributeError, TypeError):  # not as this function wrote it: begin anew
        notes, tries = {}, int(verdict.state != NOT_ATTEMPTED)
    try:
        files.make_folder(path.parent)
        files.write_json(path, notes | {exercise.name: {"state": verdict.state, "tries": tries}})
    except LabError as error:
        return replace(verdict, says=f"{verdict.says} (This was not noted for your submission. {error})")
    return verdict


def exercise(
    notebook: str, depth: str, title: str, hints: Sequence[str], solution: Callable[[], Any] | None = None
) -> Callable[[Callable[..., str | None]], Exercise]:
    """Makes an exercise of a judge, under the judge's name."""
    if depth not in DEPTHS:
        raise ValueError(f"depth is one of {', '.join(DEPTHS)}; got '{depth}'")

    def made(judge: Callable[..., str | None]) -> Exercise:
        found = Exercise(judge.__name__, notebook, depth, title, tuple(hints), judge, solution)
        EXERCISES[found.name] = functools.update_wrapper(found, judge)
        return found

    return made


# --- for judges ---------------------------------------------------------------------------------------------------------------


def ask(function: Any, *arguments: Any) -> Any:
    """What the reader's function returns for copies of these arguments, so that an answer that changes its input harms nobody.

    Raises:
        NotAttempted: it returns `...` or raises NotImplementedError, as a stub does.
        Almost: it is no function, takes other arguments, returns nothing, or stops with an error.
    """
    if not callable(function):
        raise Almost(f"A function was expected, and this is {_kind(function)}: hand over its name, without brackets behind it.")
    try:
        found = function(*copy.deepcopy(arguments))
    except (NotImplementedError, NotAttempted) as stub:
        raise NotAttempted from stub
    except Exception as error:
        raise Almost(in_words(error)) from error
    if found is ...:
        raise NotAttempted
    if found is None:
        raise Almost("The function returns None: does it end with `return`?")
    return found


def number(answer: Any, name: str = "answer") -> float:
    """A single number out of what a reader may give for one: int, float, or anything with `item()`.

    Raises:
        NotAttempted, Almost
    """
    if answer is ...:
        raise NotAttempted
    if isinstance(answer, bool | str):
        raise Almost(f"The {name} should be a number, and this is {_kind(answer)}.")
    try:
        return float(answer.item() if hasattr(answer, "item") else answer)
    except (TypeError, ValueError, RuntimeError) as error:
        raise Almost(f"The {name} should be one number, and this is {_kind(answer)}.") from error


def close(found: Any, expected: float, tolerance: float = 1e-6) -> bool:
    """Whether a number is the expected one, up to a share of it (or, at zero, that absolute difference)."""
    return abs(number(found) - expected) <= tolerance * max(1.0, abs(expected))


def tensor(found: Any, like: Any):
    """What a reader's function returned, as a tensor with the shape of `like`.

    Raises:
        Almost: it is no tensor, or has another shape.
    """
    import torch

    if not isinstance(found, torch.Tensor):
        raise Almost(f"A tensor was expected, and this is {_kind(found)}.")
    if found.shape != like.shape:
        raise Almost(f"The shape is {tuple(found.shape)}, and {tuple(like.shape)} was expected.")
    return found.detach()


def choice(answer: Any, options: Sequence[str]) -> set[str]:
    """A reader's choice of letters or words, given as one string, a list or a set, as a set.

    Raises:
        Almost: something in it is no option.
    """
    chosen = {answer} if isinstance(answer, str) else set(answer)
    if ... in chosen:
        raise NotAttempted
    if unknown := chosen - set(options):
        raise Almost(f"Choose among {', '.join(map(repr, options))}; {', '.join(map(repr, sorted(map(str, unknown))))} is none of them.")
    return chosen


def in_words(error: BaseException) -> str:
    """An error of the reader's code in one sentence, with the line of the cell where it happened."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "lab_utils" not in frame.filename]
    line = f" at `{frames[-1].line.strip()}`" if frames and frames[-1].line else ""
    message = (str(error).strip().splitlines() or [""])[0]
    return f"The code stopped{line} with {type(error).__name__}{': ' + message if message else ''}."


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}" if value is not None else "None"
