"""The five notebooks: their order, their methods, and the parameters that each takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lab_utils import config, editions, fields, files, scrubbing
from lab_utils.errors import LabError
from lab_utils.yamls import shown

DEFAULT_RECIPE = "smollm2-everyday"


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


def root() -> Path:
    """The checkout that holds the notebooks."""
    here = Path(__file__).resolve().parents[1]
    if not (here / "notebooks").is_dir():
        raise LabError("The notebooks are not beside lab_utils: clone the repository and run this command inside it.")
    return here


def source(notebook: Notebook) -> Path:
    return root() / "notebooks" / f"{notebook.name}.py"


def parameters_of(notebook: Notebook) -> dict[str, Any]:
    """Names and default values of a notebook's parameters cell."""
    return dict(_parameters(source(notebook), files.state(source(notebook))))


@cache
def _parameters(path: Path, state: str | None) -> dict[str, Any]:
    return editions.parameters(path)


def named(word: str) -> Notebook | None:
    """The notebook of that number or name."""
    return next((notebook for notebook in NOTEBOOKS if word.zfill(2) == notebook.number or word == notebook.name), None)


def choose(only: Sequence[str]) -> list[Notebook]:
    """The notebooks named by number or name, in the course's order; all of them by default."""
    if not only:
        return list(NOTEBOOKS)
    for word in only:
        if named(word) is None:
            raise LabError(no_notebook(word) + ".")
    return sorted({named(word) for word in only}, key=NOTEBOOKS.index)


def no_notebook(word: str) -> str:
    names = [notebook.name for notebook in NOTEBOOKS]
    return f"no notebook {shown(word)}{fields.did_you_mean(word, names)}; choose from {', '.join(n.number for n in NOTEBOOKS)}"


def offered(chosen: Sequence[Notebook], recipe: config.Recipe) -> list[Notebook]:
    """Those notebooks whose method the recipe offers."""
    return [notebook for notebook in chosen if notebook.method is None or notebook.method in recipe.methods]


def filled(notebook: Notebook, layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Every parameter of a notebook: its default, or what the last layer says that has it and does not say None.

    Raises:
        LabError: values that do not fit, all in one message; or what the notebook would refuse when it asks for its settings.
    """
    values = parameters_of(notebook)
    for layer in layers:
        values |= {name: value for name, value in layer.items() if name in values and value is not None}
    if not any(layer.get("run_dir") for layer in layers):
        values["run_dir"] = f"runs/{Path(str(values['recipe'])).stem}"
    scrubbing.refuse(values)
    problems = []
    for name, default in parameters_of(notebook).items():
        values[name], problem = fit(name, values[name], default)
        problems += [problem] if problem else []
    if problems:
        raise LabError("; ".join(problems) + ".")
    settings(notebook, values)
    return values


def settings(notebook: Notebook, values: Mapping[str, Any]) -> config.Settings:
    """What a notebook asks `config.resolve` for; notebook 05 asks for the data of the zero-shot run.

    Raises:
        LabError: values that do not fit the recipe.
    """
    wanted = {name: value for name, value in values.items() if name in config.recipe_parameters()}
    return config.resolve(values["recipe"], notebook.method or "zero_shot", values["seed"], **wanted)


def fit(name: str, value: Any, default: Any) -> tuple[Any, str | None]:
    """The value as the default's type, or a problem in words. A default of None says nothing: the recipe's own checks follow."""
    if default is None:
        return value, None
    kind = type(default)
    item = type(default[0]) if kind is list and default else None
    if kind is list and isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    values = value if isinstance(value, list) else [value]
    problem = f"{name}: expected {_kind(default)}, got {shown(value)}"
    if kind is not bool and item is not bool and any(isinstance(v, bool) for v in values):
        return value, problem
    try:
        return TypeAdapter(list[item] if item else kind).validate_python(value, strict=kind is bool), None
    except ValidationError:
        return value, problem + (fields.flag_meant(value) if kind is bool else "")


def _kind(default: Any) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list", dict: "a mapping"}
    return f"{words[type(default)]} like {default!r}"


def schema_of(notebook: Notebook) -> dict[str, dict[str, Any]]:
    """A JSON Schema of each parameter: of the recipe's field that it replaces, or else of its default's type."""
    return {name: _schema(name, default) for name, default in parameters_of(notebook).items()}


def _schema(name: str, default: Any) -> dict[str, Any]:
    section, field = config.recipe_parameters().get(name, ("", ""))
    models = {**config.SECTIONS, "method": config.Adapter, "model": config.Model}
    if section in models:
        found = models[section].model_json_schema()["properties"][field]
        return {key: value for key, value in found.items() if key not in ("title", "default")}
    words = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object", type(None): "string"}
    found = {"type": words[type(default)]}
    return found | ({"items": {"type": words[type(default[0])]}} if isinstance(default, list) and default else {})
