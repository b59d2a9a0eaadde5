"""Parameters in, papermill, executed notebooks out."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from lab_utils import config, editions, runs
from lab_utils.errors import LabError
from lab_utils.training import duration


@dataclass(frozen=True)
class Notebook:
    name: str
    method: str | None  # whose record it writes; None: it only reads records

    @property
    def number(self) -> str:
        return self.name[:2]


NOTEBOOKS = (
    Notebook("01_zero_shot_baseline", "zero_shot"),
    Notebook("02_full_fine_tuning", "full"),
    Notebook("03_lora", "lora"),
    Notebook("04_qlora", "qlora"),
    Notebook("05_evaluation", None),
)

DEFAULT_RECIPE = "smollm2-everyday"

# A kernel logs that it uses TCP, and that it was interrupted when it is shut down: neither is news to a reader.
QUIET_KERNEL = ["--log-level=CRITICAL"]


def root() -> Path:
    """The checkout that holds the notebooks."""
    here = Path(__file__).resolve().parents[1]
    if not (here / "notebooks").is_dir():
        raise LabError("The notebooks are not beside lab_utils: clone the repository and run this command inside it.")
    return here


def run(
    recipe: str | None = None,
    assignment: str | None = None,
    only: Sequence[str] = (),
    parameters: dict[str, Any] | None = None,
    out: str | None = None,
    fresh: bool = False,
) -> Path:
    """Executes the notebooks in order and writes the report; returns the run directory.

    A notebook is left out when it was executed before with the same parameters and its record is finished, unless `fresh`.

    Raises:
        LabError: a wrong name or value (before anything runs), or the cell at which a notebook failed.
    """
    plan = planned(recipe, assignment, only, parameters, out)
    run_dir = Path(plan[0][1]["run_dir"])
    runs.make_folder(root() / run_dir)
    if assignment:
        os.environ["LAB_ASSIGNMENT"] = Path(assignment).stem
    started = time.perf_counter()
    for position, (notebook, values) in enumerate(plan, 1):
        print(f"[{position}/{len(plan)}] {notebook.name}", flush=True)
        output = root() / run_dir / f"{notebook.name}.ipynb"
        if not fresh and is_done(notebook, output, values, root() / run_dir):
            print("      already done with these parameters (--fresh runs it again)", flush=True)
            continue
        execute(notebook, output, values)
    print(f"Done in {duration(time.perf_counter() - started)}.", flush=True)
    return root() / run_dir


def planned(
    recipe: str | None = None,
    assignment: str | None = None,
    only: Sequence[str] = (),
    parameters: dict[str, Any] | None = None,
    out: str | None = None,
) -> list[tuple[Notebook, dict[str, Any]]]:
    """The notebooks that a recipe offers, of those chosen, each with its parameters.

    Raises:
        LabError: a wrong name or value.
    """
    assigned = config.load_assignment(assignment) if assignment else config.Assignment(title="")
    named = recipe or (parameters or {}).get("recipe") or assigned.common.get("recipe") or DEFAULT_RECIPE
    chosen = offered(choose(only), config.load_recipe(named), asked=bool(only))
    if assignment and "run_dir" not in assigned.common:
        out = out or f"runs/{Path(assignment).stem}"
    return merge(chosen, assigned, parameters or {}, recipe, out)


def choose(only: Sequence[str]) -> list[Notebook]:
    """The notebooks named by number or name; all of them by default."""
    if not only:
        return list(NOTEBOOKS)
    found = []
    for word in only:
        matches = [n for n in NOTEBOOKS if word in (n.number, n.name)]
        if not matches:
            known = ", ".join(n.number for n in NOTEBOOKS)
            raise LabError(f"No notebook '{word}'{config.did_you_mean(word, [n.name for n in NOTEBOOKS])}; choose from {known}.")
        found += matches
    return sorted(set(found), key=NOTEBOOKS.index)


def offered(chosen: Sequence[Notebook], recipe: config.Recipe, asked: bool) -> list[Notebook]:
    """The notebooks whose method the recipe offers; why the others are left out is printed.

    Raises:
        LabError: a notebook that was asked for by name is not among them.
    """
    kept = [notebook for notebook in chosen if notebook.method is None or notebook.method in recipe.methods]
    for notebook in set(chosen) - set(kept):
        reason = config.why_not(recipe, notebook.method)
        if asked:
            raise LabError(reason)
        print(f"{notebook.name} is left out. {reason}", flush=True)
    return kept


def source(notebook: Notebook) -> Path:
    return root() / "notebooks" / f"{notebook.name}.py"


def parameters_of(notebook: Notebook) -> dict[str, Any]:
    """Names and default values of a notebook's parameters cell."""
    return editions.parameters(source(notebook))


def merge(
    chosen: Sequence[Notebook], assigned: config.Assignment, given: dict[str, Any], recipe: str | None = None, out: str | None = None
) -> list[tuple[Notebook, dict[str, Any]]]:
    """The parameters of each notebook: defaults < assignment's common < assignment's for this notebook < given.

    A name in `common` or `given` goes to every chosen notebook that has it.

    Raises:
        LabError: names that no chosen notebook has and values that do not fit, all in one message.
    """
    defaults = {notebook: parameters_of(notebook) for notebook in chosen}
    known = sorted({name for values in defaults.values() for name in values})
    everywhere = {name for notebook in NOTEBOOKS for name in parameters_of(notebook)}
    problems = [
        config.unknown_parameter(name, everywhere, "the assignment's common part") for name in assigned.common if name not in everywhere
    ]
    problems += [config.unknown_parameter(name, known, "the chosen notebooks") for name in given if name not in known]
    names = {n.name: n for n in NOTEBOOKS} | {n.number: n for n in NOTEBOOKS}
    sections = {}
    for name, values in assigned.notebooks.items():
        if name not in names:
            problems.append(f"unknown notebook '{name}' in the assignment{config.did_you_mean(name, names)}")
            continue
        notebook = names[name]
        sections[notebook] = values
        own = defaults.get(notebook) or parameters_of(notebook)
        problems += [config.unknown_parameter(key, own, notebook.name) for key in values if key not in own]
    plan = []
    for notebook in chosen:
        layers = [assigned.common, sections.get(notebook, {}), given, {"recipe": recipe, "run_dir": out}]
        values = dict(defaults[notebook])
        for layer in layers:
            values |= {name: value for name, value in layer.items() if name in values and value is not None}
        if not any("run_dir" in layer and layer["run_dir"] for layer in layers):
            values["run_dir"] = f"runs/{Path(str(values['recipe'])).stem}"
        for name, default in defaults[notebook].items():
            if default is not None and name in values:
                values[name], problem = _fit(name, values[name], default)
                problems += [problem] if problem else []
        plan.append((notebook, values))
    if problems:
        raise LabError("; ".join(dict.fromkeys(problems)) + ".")
    for notebook, values in plan:  # what the notebook will ask for, asked for now
        wanted = {name: value for name, value in values.items() if name in config.recipe_parameters()}
        config.resolve(values["recipe"], notebook.method or "zero_shot", values.get("seed", 0), **wanted)
    return plan


def _fit(name: str, value: Any, default: Any) -> tuple[Any, str | None]:
    """The value as the default's type (`2e-4` is a number though YAML reads it as text), or a problem in words."""
    kind = type(default)
    item = type(default[0]) if kind is list and default else None
    if kind is list and isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    values = value if isinstance(value, list) else [value]
    if kind is not bool and item is not bool and any(isinstance(v, bool) for v in values):
        return value, f"{name}: expected {_kind(default)}, got {value!r}"
    try:
        return TypeAdapter(list[item] if item else kind).validate_python(value), None
    except ValidationError:
        return value, f"{name}: expected {_kind(default)}, got {value!r}"


def _kind(default: Any) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list", dict: "a mapping"}
    return f"{words[type(default)]} like {default!r}"


def parse_assignments(words: Sequence[str]) -> dict[str, Any]:
    """`name=value` words as a dictionary; values are read as YAML, so `true`, `8`, `[2, 8]` mean what they say.

    Raises:
        LabError: a word without `=`.
    """
    values = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise LabError(f"'-p {word}' is not of the form name=value; write for example -p seed=1.")
        try:
            values[name.strip()] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise LabError(f"'-p {word}': the value cannot be read; put it in quotes, for example -p '{name}=\"...\"'.") from error
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
    unchanged = cells == [cell.source for cell in editions.make(source(notebook), "solution").cells]
    ended = papermill.get("end_time") is not None and papermill.get("exception") is None
    return unchanged and ended and papermill.get("parameters") == values


def execute(notebook: Notebook, output: Path, values: dict[str, Any], edition: str = "solution") -> None:
    """Runs one notebook with papermill, keeping what it wrote even when it fails. The solution edition shows every exercise passed.

    Raises:
        LabError: the notebook, the cell and the reason in one sentence.
    """
    import logging

    import papermill
    from nbclient.exceptions import DeadKernelError

    for library in ("papermill", "traitlets", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # their errors arrive as exceptions too
    os.environ.setdefault("MPLBACKEND", "Agg")
    made, progress = editions.make(source(notebook), edition), Progress()
    started = time.perf_counter()
    try:
        papermill.execute_notebook(
            made, str(output).replace("{", "{{").replace("}", "}}"), values, kernel_name="python3", language="python",
            cwd=str(root()), progress_bar=False, stdout_file=progress, extra_arguments=QUIET_KERNEL,
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        reason = error.evalue if error.ename in ("LabError", "TrainingDiverged") else f"{error.ename}: {error.evalue}"
        first = next((line for line in error.source.splitlines() if line.strip()), "")
        raise LabError(
            f"{notebook.name} stopped at cell {error.cell_index + 1} ({first.strip()[:60]}): {reason.rstrip('.')}. "
            f"What it did so far is in {_shown(output)}."
        ) from error
    except DeadKernelError as error:
        raise LabError(
            f"The kernel of {notebook.name} was killed, most often for lack of memory: close other programs or give -p micro_batch=1. "
            f"What it did so far is in {_shown(output)}."
        ) from error
    except OSError as error:
        raise LabError(
            f"{notebook.name} could not be written to {_shown(output)} ({error.strerror or error}): free some space or use --out."
        ) from error
    print(f"      done in {duration(time.perf_counter() - started)}", flush=True)


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
        return str(path.relative_to(root()))
    except ValueError:
        return path.name
