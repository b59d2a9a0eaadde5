"""Parameters in, papermill, executed notebooks out."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab_utils import assignments, budget, config, course, editions, fields, files, kernel, runs, yamls
from lab_utils.course import Notebook
from lab_utils.errors import LabError
from lab_utils.progress import duration

# A kernel logs that it uses TCP, and that it was interrupted when it is shut down: neither is news to a reader.
QUIET_KERNEL = ["--log-level=CRITICAL"]
SENTENCES = ("LabError", "Busy", "Mistakes", "TooLong", "TrainingDiverged")  # errors of the lab, whose text says all


def run(
    recipe: str | None = None,
    assignment: str | None = None,
    only: Sequence[str] = (),
    parameters: dict[str, Any] | None = None,
    out: str | None = None,
    fresh: bool = False,
    student: str | None = None,
) -> Path:
    """Executes the notebooks in order and writes the report; returns the run directory.

    A notebook is left out when it was executed before with the same parameters and its record is finished, unless `fresh`.
    What an assignment will take is said before it begins.

    Raises:
        LabError: a wrong name or value (before anything runs), or the cell at which a notebook failed.
    """
    plan = planned(recipe, assignment, only, parameters, out, student)
    run_dir = Path(plan[0][1]["run_dir"])
    files.make_folder(course.root() / run_dir)
    if assignment:
        needed = budget.estimate(plan)
        print(budget.describe(needed, course.root() / run_dir) + "\n", flush=True)
        budget.check_disk(needed, course.root() / run_dir)
    started = time.perf_counter()
    for position, (notebook, values) in enumerate(plan, 1):
        print(f"[{position}/{len(plan)}] {notebook.name}", flush=True)
        output = course.root() / run_dir / f"{notebook.name}.ipynb"
        if not fresh and is_done(notebook, output, values, course.root() / run_dir):
            print("      already done with these parameters (--fresh runs it again)", flush=True)
            continue
        execute(notebook, output, values)
    print(f"Done in {duration(time.perf_counter() - started)}.", flush=True)
    return course.root() / run_dir


def planned(
    recipe: str | None = None,
    assignment: str | None = None,
    only: Sequence[str] = (),
    parameters: dict[str, Any] | None = None,
    out: str | None = None,
    student: str | None = None,
) -> list[tuple[Notebook, dict[str, Any]]]:
    """The notebooks that a recipe offers, of those chosen, each with every parameter: defaults < assignment < what is given.

    Raises:
        LabError: a wrong name or value; or a student, where there is no assignment.
    """
    given = parameters or {}
    if student and not assignment:
        raise LabError("A student's own values come from an assignment: give --assignment too.")
    assigned = assignments.load(assignment) if assignment else None
    own = assigned.values(student) if assigned else {}
    named = recipe or given.get("recipe") or (next(iter(own.values()))["recipe"] if own else course.DEFAULT_RECIPE)
    chosen = course.choose(only)
    if assigned:
        chosen = [notebook for notebook in chosen if notebook in assigned.notebooks] or chosen
    chosen = _offered(chosen, config.load_recipe(named), asked=bool(only))
    known = {name for notebook in chosen for name in course.parameters_of(notebook)}
    if unknown := [fields.unknown_parameter(name, known, "the chosen notebooks") for name in given if name not in known]:
        raise LabError("; ".join(unknown) + ".")
    last = {"recipe": recipe, "run_dir": out}
    return [(notebook, course.filled(notebook, [own.get(notebook.name, {}), given, last])) for notebook in chosen]


def _offered(chosen: Sequence[Notebook], recipe: config.Recipe, asked: bool) -> list[Notebook]:
    """The notebooks whose method the recipe offers; why the others are left out is printed.

    Raises:
        LabError: a notebook that was asked for by name is not among them.
    """
    kept = course.offered(chosen, recipe)
    for notebook in set(chosen) - set(kept):
        reason = config.why_not(recipe, notebook.method)
        if asked:
            raise LabError(reason)
        print(f"{notebook.name} is left out. {reason}", flush=True)
    return kept


def parse_assignments(words: Sequence[str]) -> dict[str, Any]:
    """`name=value` words as a dictionary; values are read as YAML, so `true`, `8`, `[2, 8]` mean what they say.

    Raises:
        LabError: a word without `=`.
    """
    values = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise LabError(f"-p {yamls.shown(word)} is not of the form name=value; write for example -p seed=1.")
        values[name.strip()] = yamls.value(text, f"-p {yamls.shown(word)}")
    return values


def is_done(notebook: Notebook, output: Path, values: dict[str, Any], run_dir: Path) -> bool:
    """Executed to the end before, as it stands now and with these parameters, and its record is finished."""
    import nbformat

    if notebook.method is None or runs.status_of(run_dir, notebook.method) != "finished" or not output.is_file():
        return False
    try:
        executed = nbformat.read(output, as_version=4)
    except Exception:  # nbformat raises many kinds for a broken file; a notebook that cannot be read is not done
        return False
    papermill = executed.metadata.get("papermill", {})
    cells = [cell.source for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    unchanged = cells == [cell.source for cell in editions.make(course.source(notebook), "solution").cells]
    ended = papermill.get("end_time") is not None and papermill.get("exception") is None
    return unchanged and ended and papermill.get("parameters") == values


def execute(notebook: Notebook, output: Path, values: dict[str, Any], edition: str = "solution") -> None:
    """Runs one notebook with papermill, keeping what it wrote even when it fails. The solution edition shows every exercise passed.

    Raises:
        LabError: the notebook, the cell and the reason in one sentence.
    """
    import logging

    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import DeadKernelError

    for library in ("papermill", "traitlets", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # their errors arrive as exceptions too
    os.environ.setdefault("MPLBACKEND", "Agg")
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # else the debugger in older kernels, Colab's too, warns of Python itself
    made, progress, kept, watch = editions.make(course.source(notebook), edition), Progress(), kernel.Kept(output), kernel.Watch()
    papermill.iorw.papermill_io.register(str(output), kept)
    papermill.engines.papermill_engines.register("lab", kernel.engine())
    started, trouble, cause = time.perf_counter(), "not ended", None
    try:
        papermill.execute_notebook(
            made, str(output).replace("{", "{{").replace("}", "}}"), values, engine_name="lab", kernel_name="python3", language="python",
            cwd=str(course.root()), progress_bar=False, stdout_file=progress, extra_arguments=QUIET_KERNEL,
            start_timeout=kernel.START_SECONDS, **watch.options(),
        )  # fmt: skip
        trouble = None
    except papermill.PapermillExecutionError as error:
        reason = error.evalue if error.ename in SENTENCES else f"{error.ename}: {error.evalue}"
        where = f"cell {error.cell_index + 1} ({kernel.first_line(error.source)})"
        trouble, cause = f"{notebook.name} stopped at {where}: {reason.rstrip('.')}.", error
    except DeadKernelError as error:
        trouble, cause = watch.death(notebook.name, kept.cell()), error
    except (RuntimeError, OSError, NoSuchKernel) as error:
        trouble, cause = watch.no_start(notebook.name, error), error
    finally:
        watch.end()
        seconds = time.perf_counter() - started
        try:
            kept.settle(seconds, ended=trouble is None)
        except LabError as error:
            kept.failure = error
    if kept.failure:
        said = trouble or f"{notebook.name} ran to its end, and its records are written."
        raise LabError(f"{said} The notebook itself is not kept whole: {kept.failure}") from (cause or kept.failure)
    if trouble:
        raise LabError(f"{trouble} What it did so far is in {_shown(output)}.") from cause
    print(f"      done in {duration(seconds)}", flush=True)


class Progress:
    """A file that shows a kernel's progress lines (those that begin with a dot) and drops the rest."""

    def write(self, text: str) -> None:
        for line in text.splitlines():
            if line.startswith("· "):
                sys.stdout.write(f"      {line[2:]}\n")

    def flush(self) -> None:
        sys.stdout.flush()


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(course.root()))
    except ValueError:
        return path.name
