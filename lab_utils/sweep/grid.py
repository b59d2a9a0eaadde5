"""A grid's file, and the points that it comes to."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from lab_utils import config, fields, scrubbing, yamls
from lab_utils.errors import LabError

MOST = 999  # points of a grid: their folders are numbered with three digits
ELSEWHERE = {  # what is no parameter, and where it is given
    "recipe": "give 'recipe:' at the left margin",
    "method": "give 'methods:' at the left margin",
    "seed": "give 'seeds:' at the left margin",
    "publish_to": "a sweep publishes nothing; train the chosen point with `lab train`",
    "publish_merged": "a sweep publishes nothing; train the chosen point with `lab train`",
}


class Grid(fields.Section):
    """What a grid's file says."""

    title: str = ""
    recipe: str
    method: str | None = None  # one, or
    methods: list[str] = []  # several
    seeds: Annotated[list[fields.Seed], Field(min_length=1)] = [0]
    common: dict[str, Any] = {}  # parameter -> value at all points
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}  # parameter -> values; every combination is a point
    also: list[dict[str, Any]] = []  # single points beside the grid
    measure: Literal["validation", "test"] = "validation"  # the loss on validation documents, or the whole run with its summaries

    @property
    def chosen(self) -> list[str]:
        """The methods, in the file's order, each once."""
        return list(dict.fromkeys([self.method] if self.method is not None else self.methods))

    @property
    def varying(self) -> list[str]:
        """The parameters that tell points apart: the grid's, then those of single points."""
        return list(dict.fromkeys([*self.grid, *(name for point in self.also for name in point)]))


@dataclass(frozen=True)
class Point:
    """One training of a sweep."""

    number: int  # from 1, in the file's order
    label: str  # such as "lora rank 4 learning_rate 0.001 seed 0"
    settings: config.Settings = field(repr=False)
    measure: str
    varied: dict[str, Any]  # the values in its settings of the parameters that tell points apart
    parameters: dict[str, Any]  # that replace the recipe's values
    recipe: str  # as the grid names it: a name, or a file
    title: str  # of the grid
    combinations: int = 1  # of the grid that come to these settings

    @property
    def key(self) -> str:
        """A hash over all that decides the result, by which a point is found again when its number has changed."""
        method, parts = self.settings.method, {"model", "data", "prompt", "lengths", "generation", self.settings.method}
        decisive = [method, self.settings.seed, self.measure, self.settings.recipe.model_dump(include=parts)]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        return f"{self.number:03d} {self.label}"

    @property
    def folder(self) -> str:
        slug = re.sub(r"[^A-Za-z0-9_.]+", "-", self.label)[:60].strip("-.")
        return f"{self.number:03d}-{slug}-{self.key}"


def points(path: str | Path) -> list[Point]:
    """The points of a grid's file, numbered from 1; combinations that come to the same settings are one point.

    A parameter that only some of the methods have is left out for the others, so that `rank` beside `full` gives one full fine-tuning.
    Zero-shot, which trains nothing, has one seed.

    Raises:
        LabError: the file cannot be read; or `fields.Mistakes`: all that does not fit in it, by lines.
    """
    document = yamls.read(Path(path))
    problems: list[tuple[tuple, str]] = []
    try:
        json.dumps(document.values, ensure_ascii=False).encode()
        grid = fields.build(Grid, document.values, f"grid {document.name}")
    except UnicodeEncodeError as error:
        raise LabError(f"{document.name} holds half a character, which no file can keep: write the whole one.") from error
    except fields.Mistakes as mistakes:
        problems += mistakes.problems
        wrong = {place[0] for place, _ in problems if place}
        grid = Grid.model_construct(**{"recipe": None} | {name: value for name, value in document.values.items() if name not in wrong})
    recipe = _checked_names(grid, problems)
    found = _resolved(grid, recipe, problems) if recipe else []
    if problems:
        in_order = sorted(dict.fromkeys(problems), key=lambda problem: document.line(*problem[0]) or 0)
        raise fields.Mistakes(f"grid {document.name}", in_order, document.line)
    merged: dict[str, Point] = {}
    for point in found:
        same = merged.get(point.key, replace(point, number=len(merged) + 1, combinations=0))
        merged[point.key] = replace(same, combinations=same.combinations + 1)
    return list(merged.values())


def _checked_names(grid: Grid, problems: list) -> config.Recipe | None:
    """Adds what is wrong with the names of recipe, methods and parameters. Returns the recipe where its points can be made."""
    recipe, sound = None, not any(place[:1] in (("method",), ("methods",)) for place, _ in problems)
    try:
        recipe = config.load_recipe(grid.recipe) if grid.recipe is not None else None
    except LabError as error:
        problems.append((("recipe",), _inside(error)))
    if sound and (grid.method is None) == (not grid.methods):
        problems.append((("method",), "give 'method: lora' or 'methods: [full, lora]', one of the two"))
        sound = False
    for place, method in enumerate(grid.chosen):
        where = ("methods", place) if grid.method is None else ("method",)
        if method not in config.METHODS:
            near = fields.did_you_mean(method, config.METHODS)
            problems.append((where, f"unknown method '{method}'{near} (known: {', '.join(config.METHODS)})"))
        elif recipe and method not in recipe.methods:
            problems.append((where, config.why_not(recipe, method).rstrip(".")))
    if recipe and recipe.publishing.publish_to:
        problems.append((("recipe",), f"recipe '{recipe.name}' publishes what it trains, and a sweep must not: use one without publish_to"))
    usable = [method for method in grid.chosen if recipe and method in recipe.methods]
    layers = [(("common",), grid.common), (("grid",), grid.grid), *((("also", place), point) for place, point in enumerate(grid.also))]
    for place, names in layers:
        for name in names:
            if problem := _wrong_name(name, usable):
                problems.append(((*place, name), problem))
            elif place == ("grid",) and name in grid.common:
                problems.append(((*place, name), f"'{name}' stands under common, too: leave one of the two out"))
    return recipe if sound and usable == grid.chosen else None


def _wrong_name(name: str, methods: Sequence[str]) -> str | None:
    places = config.recipe_parameters()
    if name in ELSEWHERE:
        return f"'{name}' is no parameter of a sweep: {ELSEWHERE[name]}"
    if name not in places:
        near = fields.did_you_mean(name, places)
        return f"unknown parameter '{name}'" + (near or f" (known: {', '.join(sorted(places))})")
    if methods and not any(config.applicable({name: None}, method) for method in methods):
        return f"parameter '{name}' does not apply to {' or '.join(methods)}"
    return None


def _resolved(grid: Grid, recipe: config.Recipe, problems: list) -> list[Point]:
    """All points, not yet numbered or merged. Adds what is wrong with their values; parameters with a wrong name are left out."""
    wrong = {place for place, _ in problems}
    common = [(("common", name), name, value) for name, value in grid.common.items()]
    axes = [[(("grid", name, place), name, value) for place, value in enumerate(values)] for name, values in grid.grid.items()]
    singles = [[(("also", place, name), name, value) for name, value in point.items()] for place, point in enumerate(grid.also)]
    product = axes or not singles  # without axes it is one point: what recipe and `common` say
    count = (math.prod(map(len, axes)) * bool(product) + len(singles)) * len(grid.chosen) * len(grid.seeds)
    if count > MOST:
        problems.append((("grid",), f"{count:,} points are too many: a sweep takes at most {MOST}, so give fewer values"))
        return []
    combinations = [*(map(list, itertools.product(*axes)) if product else ()), *singles]
    found = []
    for method in grid.chosen:
        seeds = grid.seeds if method != "zero_shot" else grid.seeds[:1]
        for own in combinations:
            given = [part for part in common + own if not {part[0], part[0][:2]} & wrong]
            parameters = config.applicable({name: value for _, name, value in given}, method)
            try:
                settings = config.resolve(grid.recipe, method, seeds[0], **parameters)
            except fields.Mistakes as mistakes:
                problems += [_in_the_file(given, own, *problem) for problem in mistakes.problems]
                continue
            varied = {name: _value(settings, name) for name in grid.varying if name in config.recipe_parameters()}
            varied = config.applicable(varied, method)
            for seed in seeds:
                label = " ".join([method, *(f"{name} {shown(value)}" for name, value in varied.items()), f"seed {seed}"])
                one = settings.model_copy(update={"seed": seed})
                found.append(Point(0, label, one, grid.measure, varied, parameters, grid.recipe, grid.title or recipe.title))
    return found


def _in_the_file(given: list, own: list, place: tuple, words: str) -> tuple[tuple, str]:
    """Where a value that did not fit into the settings stands in the grid's file, and what to say of it."""
    places = config.recipe_parameters()
    said = words.partition(": ")[2] or words
    for where, name, _ in reversed(given):
        section, field_name = places[name]
        if field_name in place and (section == "method" or section in place):
            return where, f"{name}: {said}"
    around = own[0][0] if own else ("common",)
    return (around[:2] if around[0] == "also" else around[:1]), said


def _value(settings: config.Settings, name: str) -> Any:
    """A parameter's value in the settings, a folder by its last name only; None where the method has no such parameter."""
    section, field_name = config.recipe_parameters()[name]
    value = getattr(settings.training if section == "method" else getattr(settings.recipe, section), field_name, None)
    return scrubbing.text(value) if isinstance(value, str) else value


def shown(value: Any) -> str:
    """A value as labels and tables have it, in one line."""
    if isinstance(value, float):
        return f"{value:.12g}"
    return " ".join((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).split())


def _inside(error: LabError) -> str:
    """An error's text as a part of another one's."""
    return str(error)[:1].lower() + str(error)[1:].rstrip(".")


def merging(points: Sequence[Point]) -> str:
    """How many points there are, and which of them several combinations of the grid come to."""
    several = [f"{point.combinations} combinations come to {point.name}" for point in points if point.combinations > 1]
    return f"{len(points)} points" + (f" ({'; '.join(several)})" if several else "")


def listing(points: Sequence[Point], out: str | Path) -> str:
    """A line for each point: number, label and the command that trains it alone, with tabs between them."""
    lines = []
    for point in points:
        same = f" ({point.combinations} combinations of the grid)" if point.combinations > 1 else ""
        lines.append(f"{point.number}\t{point.label}{same}\t{command(point, out)}")
    return "\n".join(lines)


def command(point: Point, out: str | Path) -> str:
    """The `lab train` command that leaves a point's whole run where `run` and `report` look for it. It writes test summaries, too."""
    words = ["lab", "train", "--recipe", point.recipe, "--method", point.settings.method, "--seed", str(point.settings.seed)]
    for name, value in point.parameters.items():
        words += ["-p", f"{name}={json.dumps(value, ensure_ascii=False)}"]
    return shlex.join([*words, "--out", str(Path(out) / point.folder)])


def numbers(text: str) -> set[int] | None:
    """The points that `--only 1,4-6` names; None, for all, where nothing is given.

    Raises:
        LabError: anything but numbers and ranges of them.
    """
    found: set[int] = set()
    for word in text.replace(" ", "").split(",") if text.strip() else ():
        match = re.fullmatch(r"([0-9]{1,3})(?:-([0-9]{1,3}))?", word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise LabError(f"--only takes the numbers of points, such as 3 or 1,4-6; got '{text}'. `--list` shows them.")
        found |= set(range(first, last + 1))
    return found or None
