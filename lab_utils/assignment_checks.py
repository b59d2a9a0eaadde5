"""What an assignment's file says, held against the notebooks, the recipes and the exercises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lab_utils import check, config, course, fields
from lab_utils.assignment_file import SET_BY_THE_LAB, Problems, Sheet
from lab_utils.course import Notebook
from lab_utils.errors import LabError
from lab_utils.yamls import shown


def _everywhere() -> dict[str, list[Notebook]]:
    """Every parameter's name, with the notebooks that have it."""
    found: dict[str, list[Notebook]] = {}
    for notebook in course.NOTEBOOKS:
        for name in course.parameters_of(notebook):
            found.setdefault(name, []).append(notebook)
    return found


def as_a_parameter(where: tuple) -> str:
    """A hint where a parameter stands at the top of the file instead of under `common`."""
    if len(where) == 1 and where[0] not in Sheet.model_fields and where[0] in _everywhere():
        return f"; '{where[0]}' is a parameter of notebooks: write it under 'common'"
    return ""


def check_parameters(values: Mapping[str, Any], problems: Problems) -> None:
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


def _check_what_is_drawn(drawn: Mapping[str, Any], settings: config.Settings, problems: Problems) -> None:
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


def _recipes(values: Mapping[str, Any], problems: Problems) -> list[_Named]:
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


def _handed_out(values: Mapping[str, Any], recipes: list[_Named], problems: Problems) -> list[Notebook]:
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


def _given(values: Mapping[str, Any], chosen: list[Notebook], problems: Problems) -> Iterator[tuple[Any, dict[str, Any]]]:
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


def _fitting(given: Mapping[str, Any], place: tuple, chosen: list[Notebook], where: str, problems: Problems) -> Iterator[tuple[str, Any]]:
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


def check_exercises(values: Mapping[str, Any], problems: Problems) -> None:
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
