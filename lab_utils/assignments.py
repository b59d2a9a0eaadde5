"""Assignments: one YAML file says what a class does, what counts, and how values vary from student to student.

What a file may say of parameters comes from the notebooks' parameters cells and from the recipes, so it cannot drift from them.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Strict

from lab_utils import check, config, course, fields, yamls
from lab_utils.course import Notebook
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


@dataclass(frozen=True)
class Assignment:
    """A file that was read and fits the notebooks, the recipes and the exercises."""

    name: str
    sheet: Sheet

    def __getattr__(self, name: str) -> Any:
        """What the file says under that name."""
        if name in Sheet.model_fields:
            return getattr(self.sheet, name)
        raise AttributeError(name)

    @property
    def notebooks(self) -> list[Notebook]:
        """Those that are handed out, in the course's order."""
        return course.offered(course.choose(self.sheet.hand_out), config.load_recipe(self.sheet.recipe))

    @property
    def exercises(self) -> dict[str, float]:
        """Points of each exercise that counts."""
        if self.sheet.exercises is not None:
            return dict(self.sheet.exercises)
        names = {notebook.name for notebook in self.notebooks}
        return {name: 1.0 for name, exercise in check.EXERCISES.items() if exercise.notebook in names}

    @property
    def varies(self) -> bool:
        """Whether values depend on the student."""
        return self.sheet.vary is not None

    def choice(self, student: str) -> dict[str, Any]:
        """What the variation chooses for a student, by name of parameter."""
        vary, found = self.sheet.vary, {}
        if vary is None:
            return found
        if vary.recipes:
            found["recipe"] = vary.recipes[_draw(vary.salt, student, "recipe", len(vary.recipes))]
        for name in ("seed", "data_seed"):
            if getattr(vary, name):
                found[name] = _draw(vary.salt, student, name, getattr(vary, name))
        return found

    def layers(self, notebook: Notebook, student: str | None = None) -> list[dict[str, Any]]:
        """What replaces a notebook's defaults, the last word last: for everybody, for this notebook, for this student."""
        return [
            {"recipe": self.sheet.recipe, "assignment": self.name, "student": student, "run_dir": f"runs/{self.name}"},
            self.sheet.common,
            next((own for word, own in self.sheet.notebooks.items() if course.named(word) == notebook), {}),
            self.choice(student) if student else {},
        ]

    def values(self, student: str | None = None) -> dict[str, dict[str, Any]]:
        """Every parameter of every notebook that is handed out, by notebook; without a student, as they are before they vary."""
        return {notebook.name: course.filled(notebook, self.layers(notebook, student)) for notebook in self.notebooks}

    def settings(self, student: str | None = None) -> dict[str, config.Settings]:
        """What each method's run should be, by method."""
        values = self.values(student)
        return {n.method: course.settings(n, values[n.name]) for n in self.notebooks if n.method}


def id_key(student: str) -> str:
    """An id as it counts: without spaces around it and in lower case, so that `Ann` and `ann ` are one student."""
    return student.strip().casefold()


def _draw(salt: str, student: str, what: str, below: int) -> int:
    """A number from 0 to `below` less one, the same wherever it is drawn (HMAC, RFC 2104, with SHA-256)."""
    words = f"{what}:{id_key(student)}".encode("utf-8", "surrogatepass")  # an id may come from a command line in another encoding
    digest = hmac.new(salt.encode("utf-8", "surrogatepass"), words, hashlib.sha256).digest()
    return int.from_bytes(digest, "big") % below


def known() -> list[str]:
    """Names of the assignments that come with the lab."""
    return sorted(path.stem for path in (course.root() / FOLDER).glob("*.yaml"))


def load(name: str | Path) -> Assignment:
    """The assignment of that name, or in that YAML file.

    Raises:
        LabError: there is none, or everything in it that does not fit, each with its line.
    """
    path = _find(str(name), course.root() / FOLDER)
    values, places = _with_what_it_extends(path)
    problems = _Problems(path.name, places)
    sheet = None
    try:
        sheet = fields.build(Sheet, values, "assignment")
    except fields.Mistakes as mistakes:
        for where, words in mistakes.problems:
            problems.add(where, words + _as_a_parameter(where))
    _check_parameters(values, problems)
    _check_exercises(values, problems)
    problems.raise_if_any()
    return Assignment(path.stem, sheet)


def _find(name: str, folder: Path) -> Path:
    is_file = name.endswith((".yaml", ".yml"))
    path = Path(name) if is_file else folder / f"{name}.yaml"
    if not (os.path.isfile(path) if is_file else name in known()):
        what = f"assignment file {shown(name)}" if is_file else f"assignment {shown(name)}{fields.did_you_mean(name, known())}"
        raise LabError(f"No {what}; give a YAML file or one of: {', '.join(known())}.")
    return path


# --- extends -----------------------------------------------------------------------------------------------------------------

Places = dict[tuple, tuple[str, int | None]]  # path of names -> file and line


def _with_what_it_extends(path: Path, inner: tuple[Path, ...] = ()) -> tuple[dict[str, Any], Places]:
    """What a file says, laid over what the one says that it extends, and where each thing stands."""
    document = yamls.read(path)
    places = {place: (document.name, line) for place, line in document.lines.items()}
    parent = document.values.get("extends")
    if not isinstance(parent, str):
        return document.values, places
    here = f"{document.name}, line {document.line('extends')}"
    beside = path.parent / parent if parent.endswith((".yaml", ".yml")) else path.parent / f"{parent}.yaml"
    try:
        other = beside if os.path.isfile(beside) else _find(parent, course.root() / FOLDER)
    except LabError as error:
        raise LabError(f"{here}: {error}") from error
    chain = (*inner, path.resolve())
    if other.resolve() in chain or len(chain) > DEEPEST:
        raise LabError(f"{here}: it extends {shown(parent)}, which extends it in turn: one of them must stand alone.")
    under, places_under = _with_what_it_extends(other, chain)
    return _laid_over(document.values, under), places_under | places


def _laid_over(over: Any, under: Any) -> Any:
    if not (isinstance(over, dict) and isinstance(under, dict)):
        return over
    return {name: _laid_over(over[name], under.get(name)) if name in over else under[name] for name in {**under, **over}}


class _Problems:
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


# --- what a file may say ------------------------------------------------------------------------------------------------------


def _everywhere() -> dict[str, list[Notebook]]:
    """Every parameter's name, with the notebooks that have it."""
    found: dict[str, list[Notebook]] = {}
    for notebook in course.NOTEBOOKS:
        for name in course.parameters_of(notebook):
            found.setdefault(name, []).append(notebook)
    return found


def _as_a_parameter(where: tuple) -> str:
    """A hint where a parameter stands at the top of the file instead of under `common`."""
    if len(where) == 1 and where[0] not in Sheet.model_fields and where[0] in _everywhere():
        return f"; '{where[0]}' is a parameter of notebooks: write it under 'common'"
    return ""


def _check_parameters(values: Mapping[str, Any], problems: _Problems) -> None:
    """Names, types, and what the notebooks would refuse."""
    recipes = _recipes(values, problems)
    chosen = _handed_out(values, recipes, problems)
    given = dict(_given(values, chosen, problems))
    common = given.pop((), {})
    vary = values.get("vary") if isinstance(values.get("vary"), dict) else {}
    drawn = {name: 0 for name in ("seed", "data_seed") if vary.get(name)}
    for notebook in chosen:
        word = next((word for word in given if course.named(word) == notebook), None)
        own = given.get(word, {})
        for recipe in recipes:
            if notebook.method and notebook.method not in recipe.methods:
                continue
            try:
                found = course.filled(notebook, [{"recipe": recipe.source, "run_dir": "runs/plan"}, common, own, drawn])
                _check_what_is_drawn(drawn, course.settings(notebook, found), problems)
            except fields.Mistakes as mistakes:
                for where, words in mistakes.problems:
                    name = _parameter_at(where, words, {**common, **own})
                    place = ("notebooks", word, name) if name in own else ("common", name) if name else ("recipe",)
                    problems.add(place, words.replace(".".join(map(str, where)), name or notebook.method or notebook.name, 1))
            except LabError as error:
                problems.add(("notebooks", word) if own else ("recipe",), str(error).rstrip("."))


def _check_what_is_drawn(drawn: Mapping[str, Any], settings: config.Settings, problems: _Problems) -> None:
    """Documents that vary must leave the test set as it is, and must be fewer than there are."""
    data, place = settings.recipe.data, ("vary", "data_seed")
    if "data_seed" not in drawn or settings.training is None:
        return
    if data.test_examples:
        problems.add(place, f"each student would have another test set, since it is drawn too (test_examples={data.test_examples})")
    elif not data.train_examples:
        problems.add(place, "it draws training documents only where 'train_examples' says how many of them: set it under 'common'")


@dataclass(frozen=True)
class _Named:
    """A recipe with the name or file that it was asked for by."""

    source: str
    methods: list[str]


def _recipes(values: Mapping[str, Any], problems: _Problems) -> list[_Named]:
    """The recipe and those that it varies among, as far as they can be read; the default where none can, so that the rest is checked."""
    vary = values.get("vary")
    among = vary.get("recipes") if isinstance(vary, dict) and isinstance(vary.get("recipes"), list) else []
    places = [("recipe",), *(("vary", "recipes", number) for number in range(len(among)))]
    found = []
    for place, name in zip(places, [values.get("recipe", course.DEFAULT_RECIPE), *among], strict=True):
        if not isinstance(name, str):
            continue
        try:
            found.append(_Named(name, config.load_recipe(name).methods))
        except LabError as error:
            problems.add(place, str(error).rstrip("."))
    return found or [_Named(course.DEFAULT_RECIPE, config.load_recipe(course.DEFAULT_RECIPE).methods)]


def _handed_out(values: Mapping[str, Any], recipes: list[_Named], problems: _Problems) -> list[Notebook]:
    words = values.get("hand_out")
    words = words if isinstance(words, list) else []
    chosen = []
    for number, word in enumerate(words):
        notebook = course.named(str(word))
        if notebook is None:
            problems.add(("hand_out", number), course.no_notebook(str(word)))
        elif missing := [recipe.source for recipe in recipes if notebook.method and notebook.method not in recipe.methods]:
            problems.add(("hand_out", number), f"recipe '{missing[0]}' offers no {notebook.method}, which {notebook.name} is about")
        else:
            chosen.append(notebook)
    everything = [n for n in course.NOTEBOOKS if n.method is None or all(n.method in recipe.methods for recipe in recipes)]
    first = recipes[0].methods if recipes else []
    if not words and any(set(recipe.methods) != set(first) for recipe in recipes):
        problems.add(("vary", "recipes"), "these recipes offer different methods: say under 'hand_out' which notebooks all students get")
    return chosen if words else everything


def _given(values: Mapping[str, Any], chosen: list[Notebook], problems: _Problems) -> Iterator[tuple[Any, dict[str, Any]]]:
    """What is left of `common` (under an empty name) and of each notebook's part when unknown names and wrong types are taken out."""
    common, parts = values.get("common"), values.get("notebooks")
    if isinstance(common, dict):
        yield (), dict(_fitting(common, ("common",), chosen, "any notebook that is handed out", problems))
    for word, own in parts.items() if isinstance(parts, dict) else ():
        notebook = course.named(word)
        if notebook is None:
            problems.add(("notebooks", word), course.no_notebook(word))
        elif notebook not in chosen:
            problems.add(("notebooks", word), f"{notebook.name} is not handed out: name it under 'hand_out', or leave this part out")
        elif isinstance(own, dict):
            yield word, dict(_fitting(own, ("notebooks", word), [notebook], notebook.name, problems))


def _fitting(given: Mapping[str, Any], place: tuple, chosen: list[Notebook], where: str, problems: _Problems) -> Iterator[tuple[str, Any]]:
    """Those names and values that these notebooks have and take."""
    for name, value in given.items():
        having = [notebook for notebook in _everywhere().get(name, []) if notebook in chosen]
        if name in SET_BY_THE_LAB:
            problems.add((*place, name), f"{shown(name)} does not stand here: {SET_BY_THE_LAB[name]}")
        elif not having:
            others = ", ".join(notebook.name for notebook in _everywhere().get(name, []))
            known = {name for notebook in chosen for name in course.parameters_of(notebook)} - set(SET_BY_THE_LAB)
            problems.add(
                (*place, name),
                f"{shown(name)} is no parameter of {where}; {others} has it" if others else fields.unknown_parameter(name, known, where),
            )
        else:
            wrong = [words for notebook in having if (words := course.fit(name, value, course.parameters_of(notebook)[name])[1])]
            if wrong:
                problems.add((*place, name), wrong[0])
            else:
                yield name, value


def _parameter_at(where: tuple, words: str, given: Mapping[str, Any]) -> str | None:
    """Which of the given parameters a problem of the resolved settings is about."""
    section, field = (str(part) for part in where[1:3]) if len(where) >= 3 else ("", "")
    for name, place in config.recipe_parameters().items():
        if name in given and place in ((section, field), ("method", field)):
            return name
    return next((name for name in given if name in words), None)


def _check_exercises(values: Mapping[str, Any], problems: _Problems) -> None:
    named = values.get("exercises")
    for number, name in enumerate(named) if isinstance(named, list | dict) else ():
        place = ("exercises", name if isinstance(named, dict) else number)
        if not isinstance(name, str) or name not in check.EXERCISES:
            near = fields.did_you_mean(name, check.EXERCISES)
            problems.add(place, f"no exercise {shown(name)}{near or '; known: ' + ', '.join(check.EXERCISES)}")
            continue
        words = values.get("hand_out")
        home = check.EXERCISES[name].notebook
        if isinstance(words, list) and words and home not in {found.name for word in words if (found := course.named(str(word)))}:
            problems.add(place, f"exercise '{name}' stands in {home}, which is not handed out")


# --- for editors ---------------------------------------------------------------------------------------------------------------


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
