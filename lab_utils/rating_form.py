"""The forms in which a rater answers: in a terminal, and as widgets in a notebook. Both only show tasks and hand answers on."""

from __future__ import annotations

import html
import shutil
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

from lab_utils import blind, runs, sheets
from lab_utils.errors import LabError
from lab_utils.sheets import ERRORS, SCALES, printable

GUIDE = {**SCALES, "error": "; ".join(f"{kind}: {meaning}" for kind, meaning in ERRORS.items()), "preferred": "the better one, A or B"}
KEYS = "? explains the questions, d shows the document again, s skips this item, q stops"


class _Stop(Exception):
    """The rater has had enough."""


class _Skip(Exception):
    """The rater leaves this item out."""


def terminal(run_dir: str | Path, documents: Mapping[str, str] | None, rater: str | None, count: int = 20, seed: int = 0) -> None:
    """Asks for one item after the other until all are answered or the rater stops; every answered item is kept.

    Raises:
        LabError: what cannot be rated, or a file that cannot be read or written.
    """
    finished = runs.read_all(run_dir)
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")
    try:
        session = blind.start(run_dir, finished, documents, rater or _ask_name(), count, seed)
        _rate(session)
    except _Stop:
        _say("\nStopped. What was answered is kept; the same command goes on from there.")
    except EOFError:
        _say("\nThe input has ended; what was answered is kept. To go on, run `lab rate` in a terminal, or use the form in notebook 05.")


def _ask_name() -> str:
    while True:
        try:
            return sheets.rater_name(_input("Your name (letters, digits, - and _): "))
        except LabError as error:
            _say(str(error))


def _rate(session: blind.Session) -> None:
    done, total = session.progress
    for note in session.notes:
        _say(note)
    if session.task is not None:
        _say(f"{session.rater}: {done} of {total} items are answered. {KEYS}.")
    before = None
    while (task := session.task) is not None:
        if task.document_id != before:
            _say(f"\n{_ruled('document')}\n{_wrapped(task.document)}")
        before = task.document_id
        _say(f"\n{_ruled(f'item {session.progress[0] + 1} of {total}')}")
        _say(f"A: {_wrapped(task.summary)}\n\nB: {_wrapped(task.other_summary)}" if task.other else _wrapped(task.summary))
        answers = {}
        try:
            for question, choices in task.questions.items():
                answers[question] = _answer(question, choices, task)
        except _Skip:
            answers = {}
        session.save(**answers)
    _say(f"\nAll {total} items are answered. Thank you.")


def _answer(question: str, choices: tuple[str, ...], task: blind.Task) -> str:
    """One accepted answer; errors may be given by the first letters that tell them apart."""
    listed = " ".join(choices) if len(choices) < 5 or question == "error" else f"{choices[0]}-{choices[-1]}"
    while True:
        given = _input(f"{question} ({listed}): ").strip().lower()
        if given == "q":
            raise _Stop
        if given == "s":
            raise _Skip
        if given == "?":
            _say("\n".join(f"  {name}: {meaning}" for name, meaning in GUIDE.items() if name in task.questions) + f"\n  {KEYS}")
            continue
        if given == "d":
            _say(_wrapped(task.document))
            continue
        meant = [choice for choice in choices if given and choice.lower().startswith(given)]
        if len(meant) == 1:
            return meant[0]
        _say(f"'{sheets.shown(given)}' is none of {', '.join(choices)}; ? explains them.")


def _input(prompt: str) -> str:
    print(prompt, end="", flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _say(text: str) -> None:
    """Prints what this terminal's encoding has; the rest becomes question marks."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), flush=True)


def _width() -> int:
    return max(20, min(100, shutil.get_terminal_size().columns))


def _ruled(title: str) -> str:
    return f"-- {title} ".ljust(_width(), "-")


def _wrapped(text: str) -> str:
    lines = printable(text).expandtabs(4).split("\n")
    folded = [textwrap.fill(line, _width(), break_on_hyphens=False) if len(line) > _width() else line for line in lines]
    return "\n".join(folded).strip() or "(empty)"


def form(run_dir: str | Path, rater: str | None, documents: Mapping[str, str] | None, count: int = 20, seed: int = 0):
    """A widget that asks for one item after the other and keeps each answer; without a rater's name nothing but a sentence.

    Uses only widgets that ipywidgets 7 and 8 have in common. Texts are escaped, and never taken for HTML or formulas.

    Raises:
        LabError: what cannot be rated, or a file that cannot be read.
    """
    if not (rater or "").strip():
        print(
            f"To rate summaries, set rater to your name in the parameters cell, run that cell and this one, "
            f"or run `lab rate {Path(run_dir).name}`."
        )
        return None
    from ipywidgets import HTML, Button, HBox, Layout, ToggleButtons, VBox

    session = blind.start(run_dir, runs.read_all(run_dir), documents, rater, count, seed)
    status, texts, questions = HTML(), HTML(), VBox()
    keep, skip = Button(description="Save and go on", button_style="primary"), Button(description="Skip")
    message = HTML(_block(" ".join(session.notes)))

    def show() -> None:
        task, (done, total) = session.task, session.progress
        status.value = f"<b>{done} of {total} answered</b>" + ("" if task else ". Thank you.")
        keep.disabled = skip.disabled = task is None
        if task is None:
            texts.value, questions.children = "", ()
            return
        texts.value = _block(task.document, "document") + (
            _block(task.summary, "A") + _block(task.other_summary, "B") if task.other else _block(task.summary, "summary")
        )
        questions.children = tuple(
            VBox([HTML(f"<b>{question}</b>: {html.escape(GUIDE[question])}"),
                  ToggleButtons(options=choices, value=None, layout=Layout(width="auto"), style={"button_width": "5.5em"})])
            for question, choices in task.questions.items()
        )  # fmt: skip

    def save(answers: dict[str, str]) -> None:
        try:
            session.save(**answers)
        except LabError as error:
            message.value = _block(str(error))
            return
        message.value = ""
        show()

    def on_keep(_) -> None:
        asked = session.task.questions if session.task else ()
        values = {question: box.children[1].value for question, box in zip(asked, questions.children, strict=True)}
        if unanswered := [question for question, value in values.items() if value is None]:
            message.value = _block(f"Still open: {', '.join(unanswered)}. Skip leaves the whole item out.")
            return
        save(values)

    keep.on_click(on_keep)
    skip.on_click(lambda _: save({}))
    show()
    return VBox([status, texts, questions, HBox([keep, skip]), message])


def _block(text: str, title: str = "") -> str:
    """Escaped text in which line breaks stay, in its own direction of writing."""
    head = f"<b>{title}</b>" if title else ""
    words = html.escape(printable(text)) if text.strip() else "(empty)" if title else ""
    return f'{head}<div dir="auto" style="white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.4">{words}</div>'
