"""An assignment's YAML file: what may stand in it, the files that it extends, and where each thing in it stands."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Strict

from lab_utils import check, config, course, fields, yamls
from lab_utils.errors import LabError
from lab_utils.fields import Count, Number, Positive, Section
from lab_utils.yamls import shown

FOLDER = "notebooks/assignments"
SCHEMA_FILE = "schema.json"
SET_BY_THE_LAB = {
    "recipe": "write 'recipe' at the top of the file",
    "assignment": "the lab fills it in with the file's name",
    "student": "it is filled in for each student",
}
DEEPEST = 10  # files that extend one another


def _a_number_or_name(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _with_a_point_each(value: Any) -> Any:
    return dict.fromkeys(value, 1.0) if isinstance(value, list) and all(isinstance(name, str) for name in value) else value


Text = Annotated[str, Strict()]
Artefact = Literal["records", "predictions", "notebooks", "answers", "ratings"]


class Limits(Section):
    """What a run may take at most; beyond it a submission is looked at."""

    minutes: Positive | None = Field(None, description="of training and summaries together")
    memory_gb: Positive | None = Field(None, description="the highest peak of any method")
    disk_gb: Positive | None = Field(None, description="of checkpoints; planned, not measured")
    upload_mb: Positive | None = Field(None, description="of the zip that is handed in")


class Variation(Section):
    """What differs between students. A keyed hash of the student's id chooses, so that anybody with the file can do it again."""

    salt: Text = Field(min_length=4, description="any text that students do not know; another one deals out other values")
    seed: Count | None = Field(None, description="each student gets a seed from 0 to this number less one")
    data_seed: Count | None = Field(None, description="the same for the training documents that are drawn; needs train_examples")
    recipes: list[Text] = Field([], description="each student gets one of these")


class Criterion(Section):
    """One line of the marking guide, for what no program can mark."""

    criterion: Text
    points: Positive
    look_for: Text = Field("", description="what a good answer shows")


class Sheet(Section):
    """An assignment file."""

    title: Text
    extends: Text | None = Field(
        None, description="another assignment (name, or file beside this one); what is said here replaces what it says"
    )
    about: Text = Field("", description="Markdown: what to do and what to find out")
    deadline: Text = Field("", description="as students should read it")
    submit: Text = Field("Upload the zip that the last cell of the last notebook writes.", description="how to hand in")
    recipe: Text = course.DEFAULT_RECIPE
    hand_out: list[Annotated[Text, BeforeValidator(_a_number_or_name)]] = Field(
        [], description="notebooks by number; all that the recipe offers"
    )
    common: dict[str, Any] = Field({}, description="parameters of every notebook that has them")
    notebooks: dict[str, dict[str, Any]] = Field({}, description="parameters of single notebooks, by number or name")
    exercises: Annotated[dict[str, Number] | None, BeforeValidator(_with_a_point_each)] = Field(
        None, description="those that count, as a list (a point each) or with points; all of the notebooks handed out"
    )
    required: list[Artefact] = ["records", "predictions", "notebooks", "answers"]
    limits: Limits = Limits()
    vary: Variation | None = None
    marking: list[Criterion] = []


def known() -> list[str]:
    """Names of the assignments that come with the lab."""
    return sorted(path.stem for path in (course.root() / FOLDER).glob("*.yaml"))


def find(name: str) -> Path:
    """The file of that name, or of that assignment of the lab's.

    Raises:
        LabError: there is none.
    """
    is_file = name.endswith((".yaml", ".yml"))
    path = Path(name) if is_file else course.root() / FOLDER / f"{name}.yaml"
    if not (os.path.isfile(path) if is_file else name in known()):
        what = f"assignment file {shown(name)}" if is_file else f"assignment {shown(name)}{fields.did_you_mean(name, known())}"
        raise LabError(f"No {what}; give a YAML file or one of: {', '.join(known())}.")
    return path


Places = dict[tuple, tuple[str, int | None]]  # path of names -> file and line


def with_what_it_extends(path: Path, inner: tuple[Path, ...] = ()) -> tuple[dict[str, Any], Places]:
    """What a file says, laid over what the one says that it extends, and where each thing stands."""
    document = yamls.read(path)
    places = {place: (document.name, line) for place, line in document.lines.items()}
    parent = document.values.get("extends")
    if not isinstance(parent, str):
        return document.values, places
    here = f"{document.name}, line {document.line('extends')}"
    beside = path.parent / parent if parent.endswith((".yaml", ".yml")) else path.parent / f"{parent}.yaml"
    try:
        other = beside if os.path.isfile(beside) else find(parent)
    except LabError as error:
        raise LabError(f"{here}: {error}") from error
    chain = (*inner, path.resolve())
    if other.resolve() in chain or len(chain) > DEEPEST:
        raise LabError(f"{here}: it extends {shown(parent)}, which extends it in turn: one of them must stand alone.")
    under, places_under = with_what_it_extends(other, chain)
    return _laid_over(document.values, under), places_under | places


def _laid_over(over: Any, under: Any) -> Any:
    if not (isinstance(over, dict) and isinstance(under, dict)):
        return over
    return {name: _laid_over(over[name], under.get(name)) if name in over else under[name] for name in {**under, **over}}


class Problems:
    """Problems with their places, said all at once."""

    def __init__(self, name: str, places: Places):
        self.name, self.places, self.found = name, places, {}

    def add(self, where: tuple, words: str) -> None:
        while where and where not in self.places:
            where = where[:-1]
        file, line = self.places[where]
        self.found.setdefault((file != self.name, file, line or 0, words))

    def raise_if_any(self) -> None:
        if not self.found:
            return
        said = [f"{'' if not elsewhere else file + ', '}line {line}: {words}" for elsewhere, file, line, words in sorted(self.found)]
        if len(said) == 1:
            raise LabError(f"Assignment {self.name}, {said[0]}.")
        raise LabError(f"Assignment {self.name} has {len(said)} problems:\n" + "\n".join(f"  {words}" for words in said))


def schema() -> dict[str, Any]:
    """A JSON Schema (2020-12) of assignment files, for editors that complete and check them."""
    found = Sheet.model_json_schema()
    described = found["properties"]
    parameters = {notebook: _for_editors(course.schema_of(notebook)) for notebook in course.NOTEBOOKS}
    every = {name: one for own in parameters.values() for name, one in own.items()}
    described["common"] |= {"properties": every, "additionalProperties": False}
    described["notebooks"] |= {
        "patternProperties": {
            f"^({notebook.number}|{int(notebook.number)}|{notebook.name})$": {
                "type": "object",
                "properties": own,
                "additionalProperties": False,
            }
            for notebook, own in parameters.items()
        },
        "additionalProperties": False,
    }
    names, points = {"enum": list(check.EXERCISES)}, {"type": "number", "minimum": 0}
    described["exercises"] = {"description": described["exercises"]["description"]} | {
        "anyOf": [
            {"type": "array", "items": names},
            {"type": "object", "propertyNames": names, "additionalProperties": points},
            {"type": "null"},
        ]
    }
    a_recipe = {"anyOf": [{"enum": config.recipe_names()}, {"type": "string", "pattern": r"\.ya?ml$"}]}
    described["recipe"] |= a_recipe
    described["hand_out"]["items"] = {"type": ["string", "integer"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def _for_editors(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a file may name; each may be null, which is the notebook's own value."""
    return {name: {"anyOf": [one, {"type": "null"}]} for name, one in parameters.items() if name not in SET_BY_THE_LAB}
