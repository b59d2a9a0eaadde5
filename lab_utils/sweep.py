"""Many trainings from one grid: its points, one record for each, and a table whose best is chosen on validation data."""

from __future__ import annotations

import contextlib
import csv
import gc
import hashlib
import html
import io
import itertools
import json
import math
import re
import shlex
import socket
import time
import traceback
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any, Literal

from pydantic import Field

from lab_utils import config, data, environment, methods, models, plots, runs, training, yamls
from lab_utils.environment import say
from lab_utils.errors import LabError, TrainingDiverged, without_folders

PLAN, TABLE, CLAIMS = "sweep.json", "sweep.md", ".claims"
MOST = 999  # points of a grid: their folders are numbered with three digits
ELSEWHERE = {  # what is no parameter, and where it is given
    "recipe": "give 'recipe:' at the left margin",
    "method": "give 'methods:' at the left margin",
    "seed": "give 'seeds:' at the left margin",
    "publish_to": "a sweep publishes nothing; train the chosen point with `lab train`",
    "publish_merged": "a sweep publishes nothing; train the chosen point with `lab train`",
}
SPREAD = 8  # the largest value over the smallest from which on an axis is logarithmic
LINE_COLORS = (plots.ACCENT, "#D55E00", "#009E73", plots.SECOND, "#CC79A7", "#56B4E9", "#000000")
LINE_MARKERS, LINE_STYLES = "osD^vP*X", ("-", "--", ":", "-.")


class Grid(config.Section):
    """What a grid's file says."""

    title: str = ""
    recipe: str
    method: str | None = None  # one, or
    methods: list[str] = []  # several
    seeds: Annotated[list[config.Seed], Field(min_length=1)] = [0]
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


class Planned(config.Section):
    """What a report must know of a point that may not have been run."""

    number: int
    label: str
    key: str
    method: str
    seed: int
    varied: dict[str, Any]


class Plan(config.Section):
    """Which points belong to a sweep: sweep.json."""

    title: str
    points: Annotated[list[Planned], Field(min_length=1)]


def points(path: str | Path) -> list[Point]:
    """The points of a grid's file, numbered from 1; combinations that come to the same settings are one point.

    A parameter that only some of the methods have is left out for the others, so that `rank` beside `full` gives one full fine-tuning.
    Zero-shot, which trains nothing, has one seed.

    Raises:
        LabError: the file cannot be read; or `config.Mistakes`: all that does not fit in it, by lines.
    """
    document = yamls.read(Path(path))
    problems: list[tuple[tuple, str]] = []
    try:
        json.dumps(document.values, ensure_ascii=False).encode()
        grid = config.build(Grid, document.values, f"grid {document.name}")
    except UnicodeEncodeError as error:
        raise LabError(f"{document.name} holds half a character, which no file can keep: write the whole one.") from error
    except config.Mistakes as mistakes:
        problems += mistakes.problems
        wrong = {place[0] for place, _ in problems if place}
        grid = Grid.model_construct(**{"recipe": None} | {name: value for name, value in document.values.items() if name not in wrong})
    recipe = _checked_names(grid, problems)
    found = _resolved(grid, recipe, problems) if recipe else []
    if problems:
        in_order = sorted(dict.fromkeys(problems), key=lambda problem: document.line(*problem[0]) or 0)
        raise config.Mistakes(f"grid {document.name}", in_order, document.line)
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
            near = config.did_you_mean(method, config.METHODS)
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
        near = config.did_you_mean(name, places)
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
            except config.Mistakes as mistakes:
                problems += [_in_the_file(given, own, *problem) for problem in mistakes.problems]
                continue
            varied = {name: _value(settings, name) for name in grid.varying if name in config.recipe_parameters()}
            varied = config.applicable(varied, method)
            for seed in seeds:
                label = " ".join([method, *(f"{name} {_shown(value)}" for name, value in varied.items()), f"seed {seed}"])
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
    return without_folders(value) if isinstance(value, str) else value


def _shown(value: Any) -> str:
    """A value as labels and tables have it, in one line."""
    if isinstance(value, float):
        return f"{value:.12g}"
    return " ".join((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).split())


def _inside(error: LabError) -> str:
    """An error's text as a part of another one's."""
    return str(error)[:1].lower() + str(error)[1:].rstrip(".")


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


def run(points: Sequence[Point], out: str | Path, only: Collection[int] | None = None) -> None:
    """Trains and measures the points, each into a folder of its own under `out`; where all were asked for, the table is written, too.

    A point that is finished with the same settings is kept, whatever its number was. One that another process is running is left to it.
    One that fails is recorded so, and the others go on.

    Args:
        only: numbers of points; the others are left alone.

    Raises:
        LabError: a number that no point has; or, at the end, which points failed and why.
    """
    if missing := set(only or ()) - {point.number for point in points}:
        raise LabError(f"No point {', '.join(map(str, sorted(missing)))}: this grid has points 1 to {len(points)} (`--list` shows them).")
    out = Path(out)
    keep_plan(points, out)
    chosen = [point for point in points if only is None or point.number in only]
    ahead = [point for point in chosen if not _is_finished(out, point)]
    say(f"{merging(points)}; {len(chosen) - len(ahead)} of {len(chosen)} are finished already, with the same settings.")
    failed, took = [], []
    for place, point in enumerate(ahead, 1):
        say(f"[{place}/{len(ahead)}] {point.name}")
        with _claimed(out, point.key) as holder:
            if holder:
                say(f"being run by {holder}: going on with the next")
                continue
            if _is_finished(out, point):
                say("finished by another process meanwhile")
                continue
            started = time.perf_counter()
            reason = _attempt(point, out / point.folder)
        if reason:
            say(f"{point.name} failed: {reason}")
            failed.append(f"{point.name} ({reason})")
            continue
        took.append(time.perf_counter() - started)
        later = len(ahead) - place
        left = f"; {training.duration(later * median(took))} left for {later} more" if later else ""
        say(f"{point.name}: done in {training.duration(took[-1])}{left}")
    if only is None:
        say(f"table: {report(out)}")
    if failed:
        raise LabError(
            f"{len(failed)} of {len(chosen)} points failed: {'; '.join(failed)}. "
            "Mend them, or take them out of the grid, and give the same command again: finished points are kept."
        )


def merging(points: Sequence[Point]) -> str:
    """How many points there are, and which of them several combinations of the grid come to."""
    several = [f"{point.combinations} combinations come to {point.name}" for point in points if point.combinations > 1]
    return f"{len(points)} points" + (f" ({'; '.join(several)})" if several else "")


def keep_plan(points: Sequence[Point], out: Path) -> None:
    """Writes down which points belong to the sweep, so that a report can name those that are missing."""
    planned = [
        Planned(number=p.number, label=p.label, key=p.key, method=p.settings.method, seed=p.settings.seed, varied=p.varied) for p in points
    ]
    with _claimed(out, "plan") as holder:
        if holder is None:  # else another job of the same sweep is writing the same
            runs.write_text(out / PLAN, Plan(title=points[0].title, points=planned).model_dump_json(indent=2) + "\n")


def _attempt(point: Point, folder: Path) -> str | None:
    """Measures a point; returns why it failed, if it did."""
    try:
        if point.measure == "test":
            methods.run(point.settings, folder)
        else:
            _validate(point.settings, folder)
    except LabError as error:
        return str(error).rstrip(".")
    except Exception as error:  # whatever went wrong here, out of memory or a mistake of ours, must not cost the other points
        traceback.print_exc()
        return without_folders(f"{type(error).__name__}: {error}").rstrip(".")
    finally:
        gc.collect()
        environment.return_memory()
    return None


def _validate(settings: config.Settings, folder: Path) -> None:
    """Trains, if the method does, and leaves a finished record with the loss on the validation documents: no adapter, no summaries."""
    record = runs.start(folder, settings)
    with record.watched():
        corpus, base = data.load(settings.recipe.data), models.load(settings)
        record.add(data=corpus.describe(), model=base.describe())
        model = models.attach_lora(base) if settings.method in ("lora", "qlora") else base.model
        if settings.training is not None:
            history = training.train(model, base, corpus.train, log_file=record.folder / "log.csv")
            trainable = models.trainable_parameters(model)
            record.add(training=history.describe(), model=base.describe() | {"trainable_parameters": trainable})
        loss = training.validation_loss(model, base, corpus.validation)
        if not math.isfinite(loss):
            raise TrainingDiverged(f"The validation loss is {loss}: try a third of the learning rate.")
        record.add(validation={"loss": loss, "examples": len(corpus.validation)})
        record.finish()


def _is_finished(out: Path, point: Point) -> bool:
    return _record(out, point.key, point.settings.method).get("status") == "finished"


def _record(out: Path, key: str, method: str) -> dict:
    """The record of a point under any number, the finished one where there are several; empty where none can be read."""
    found: list[dict] = []
    for path in sorted(out.glob(f"*-{key}/{method}/run.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):  # being copied, cut off, or something else of that name
            found.append(dict(json.loads(path.read_text(encoding="utf-8"))))
    return max(found, key=lambda record: record.get("status") == "finished", default={})


@contextlib.contextmanager
def _claimed(out: Path, key: str) -> Iterator[str | None]:
    """Yields who else is running a point, or None where it belongs to this process until the end of the block.

    A claim is a file that only one process can create, on a shared file system, too. One that a dead process of this machine left behind
    stays, and the next number outdoes it: of two processes that find it at the same time only one can create that.
    """
    folder = runs.make_folder(out / CLAIMS)
    last = max((int(path.suffix[1:]) for path in folder.glob(f"{key}.*") if path.suffix[1:].isdecimal()), default=-1)
    if last >= 0 and (holder := _holder(folder / f"{key}.{last}")):
        yield holder
        return
    own = folder / f"{key}.{last + 1}"
    try:
        with own.open("x", encoding="utf-8") as file:
            json.dump(_this_process(), file)
    except FileExistsError:
        yield _holder(own) or "another process"
        return
    try:
        yield None
    finally:
        own.unlink(missing_ok=True)


def _this_process() -> dict:
    import psutil

    process = psutil.Process()
    return {"host": socket.gethostname(), "pid": process.pid, "started": process.create_time()}


def _holder(claim: Path) -> str | None:
    """Whose claim this is; None where that process was one of this machine and has ended."""
    import psutil

    try:
        said = json.loads(claim.read_text(encoding="utf-8"))
        host, pid, started = str(said["host"]), int(said["pid"]), float(said["started"])
    except (OSError, ValueError, KeyError, TypeError):  # just created, or just given back
        return f"another process (if there is none, delete {claim})"
    if host == socket.gethostname():
        try:
            alive = abs(psutil.Process(pid).create_time() - started) < 2  # seconds; else its number was given to another process
        except (psutil.NoSuchProcess, ValueError, OverflowError):
            alive = False
        except psutil.AccessDenied:
            alive = True
        return f"process {pid}" if alive else None
    return f"process {pid} on {host} (if it has ended, delete {claim})"


@dataclass(frozen=True)
class Group:
    """The points that differ in their seed only: a row of the table."""

    method: str
    varied: dict[str, Any]
    rows: list[dict]

    @property
    def label(self) -> str:
        return " ".join([self.method, *(f"{name} {_shown(value)}" for name, value in self.varied.items())])

    @property
    def is_complete(self) -> bool:
        return all(row["validation_loss"] is not None for row in self.rows)

    @property
    def loss(self) -> float:
        return fmean(self.values("validation_loss"))

    def values(self, name: str) -> list[float]:
        return [row[name] for row in self.rows if row[name] is not None]


def report(out: str | Path) -> Path:
    """Writes sweep.csv (a line for each point), sweep.md (seeds together, with figure) and sweep.png from the records; returns sweep.md.

    It only reads, so records of other machines may be copied into `out` first. The best is chosen on the validation loss alone, and only
    where all were measured on the same documents with the same base.

    Raises:
        LabError: `out` holds no sweep.
    """
    out = Path(out)
    plan = _read_plan(out)
    rows = [_row(out, point) for point in plan.points]
    groups: dict[str, Group] = {}
    for point, row in zip(plan.points, rows, strict=True):
        group = Group(point.method, point.varied, [])
        groups.setdefault(group.label, group).rows.append(row)
    most_first = sorted(plan.points, key=lambda point: -len(point.varied))  # a method that has them all has them in the grid's order
    names = list(dict.fromkeys(name for point in most_first for name in point.varied))
    _write_csv(out / "sweep.csv", rows, names)
    picture = _figure(list(groups.values()), names)
    if picture:
        picture.save(out / "sweep.png")
    else:
        for stale in ("sweep.png", "sweep.txt"):
            (out / stale).unlink(missing_ok=True)
    runs.write_text(out / TABLE, _page(plan.title, list(groups.values()), names, _strangers(out, plan), picture))
    return out / TABLE


def _read_plan(out: Path) -> Plan:
    hint = "write it with `lab sweep GRID.yaml --out DIR`, or copy it from where the sweep was run"
    try:
        return config.build(Plan, json.loads((out / PLAN).read_text(encoding="utf-8")), PLAN)
    except FileNotFoundError as error:
        raise LabError(f"'{out}' holds no sweep ({PLAN} is missing): {hint}.") from error
    except (OSError, ValueError, LabError) as error:
        raise LabError(f"{PLAN} in '{out}' cannot be read ({str(error).rstrip('.')}): {hint}.") from error


def _row(out: Path, point: Planned) -> dict:
    """What is known of a point, in the units of the record: nats, ROUGE x 100, seconds, GB. None: not known."""
    record = _record(out, point.key, point.method)
    done = record if record.get("status") == "finished" else {}
    losses = done.get("training", {}).get("validation_losses") or [None]
    rouge = done.get("metrics", {}).get("rouge1", {})
    recipe = done.get("config", {}).get("recipe", {})
    drawn = {name: value for name, value in recipe.get("data", {}).items() if name not in ("train_examples", "test_examples")}
    basis = [done.get("model", {}).get("fingerprint"), done.get("data", {}).get("validation"), drawn, recipe.get("lengths")]
    return {
        "number": point.number,
        "label": point.label,
        "method": point.method,
        **point.varied,
        "seed": point.seed,
        "status": record.get("status", "not run"),
        "trainable_parameters": _number(done.get("model", {}).get("trainable_parameters")),
        "validation_loss": _number(done.get("validation", {}).get("loss", losses[-1])),
        "validation_documents": _number(done.get("data", {}).get("validation")),
        "rouge1": _number(rouge.get("mean")),
        "rouge1_low": _number(rouge.get("low")),
        "rouge1_high": _number(rouge.get("high")),
        "seconds": _number(done.get("training", {}).get("seconds")),
        "peak_memory_gb": _number(done.get("training", {}).get("peak_memory_gb")),
        "device": done.get("environment", {}).get("device"),
        "reason": record.get("error"),
        "basis": json.dumps(basis, sort_keys=True),
    }


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _write_csv(path: Path, rows: Sequence[dict], names: Sequence[str]) -> None:
    first = ["number", "method", *names, "seed", "status"]
    fields = first + [name for name in rows[0] if name not in (*first, "label", "basis")]
    text = io.StringIO()
    table = csv.DictWriter(text, fields, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    runs.write_text(path, text.getvalue())


def _strangers(out: Path, plan: Plan) -> list[str]:
    """Folders of points of an earlier grid."""
    keys = {point.key for point in plan.points}
    return sorted(path.parents[1].name for path in out.glob("[0-9][0-9][0-9]-*/*/run.json") if path.parents[1].name[-12:] not in keys)


def _page(title: str, groups: list[Group], names: list[str], strangers: list[str], picture: plots.Picture | None) -> str:
    best, why = _best(groups)
    scored = any(group.values("rouge1") for group in groups)
    head = ["method", *names, "seeds", "trainable parameters", "validation loss", *(["ROUGE-1"] if scored else []), "seconds", "peak GB"]
    lines = [f"# {_safe(title)}", "", _cells(head), _cells("---" for _ in head)]
    for group in groups:
        loss = _mean(group.values("validation_loss"), ".3f")
        done = sum(row["status"] == "finished" for row in group.rows)
        cells = [group.method, *(_shown(group.varied[name]) if name in group.varied else "-" for name in names)]
        cells += [str(done) if done == len(group.rows) else f"{done} of {len(group.rows)}"]
        cells += [_mean(group.values("trainable_parameters"), ",.0f"), f"**{loss}** (best)" if group is best else loss]
        cells += [_score(group)] if scored else []
        lines.append(_cells([*cells, _mean(group.values("seconds"), ".0f"), _mean(group.values("peak_memory_gb"), ".2f")]))
    lines += ["", "Validation loss: cross-entropy in nats per answer token. Several seeds: mean (lowest to highest). Seconds: of training."]
    if scored:
        lines += ["ROUGE-1: F1 x 100 on test documents, with its 95% interval over them; over several seeds the widest of their bounds."]
    lines += ["", why, *_remarks(groups, best, names, strangers)]
    if picture:
        alt = re.sub(r"[\[\]]", "", _safe(picture.alt))
        lines += ["", f"![{alt}](sweep.png)"]
    return "\n".join(lines) + "\n"


def _best(groups: Sequence[Group]) -> tuple[Group | None, str]:
    """The row with the lowest mean validation loss of those whose seeds are all finished, and what to say of the choice."""
    complete = [group for group in groups if group.is_complete]
    if not complete:
        return None, "No best is marked: no row has all its seeds finished with a validation loss."
    if len({row["basis"] for group in complete for row in group.rows}) > 1:
        return None, (
            "No best is marked: the losses are of different validation documents, length limits or base models, and so cannot be compared."
        )
    best = min(complete, key=lambda group: group.loss)
    documents = best.values("validation_documents")
    on = f" on {documents[0]:,.0f} documents" if documents else ""
    loss = _mean(best.values("validation_loss"), ".3f")
    return best, (
        f"Best, chosen on validation: {_safe(best.label)}, loss {loss}{on}. Test scores took no part. "
        "The lowest of many losses on the same documents is a little too low: expect a higher one on others."
    )


def _remarks(groups: Sequence[Group], best: Group | None, names: Sequence[str], strangers: Sequence[str]) -> list[str]:
    """What a reader of the table must know, as list items."""
    rows = [row for group in groups for row in group.rows]
    said = []
    if best and len(best.rows) == 1:
        said.append("One seed: how much the losses move with another one was not measured.")
    elif best:
        worst = max(best.values("validation_loss"))
        near = [g.label for g in groups if g is not best and g.is_complete and min(g.values("validation_loss")) <= worst]
        if near:
            said.append(f"The seeds' losses overlap with the best's, so that the order may be chance: {'; '.join(near)}.")
    if best and (partial := [group.label for group in groups if group.values("validation_loss") and not group.is_complete]):
        said.append(f"Not chosen from, since a seed is missing: {'; '.join(partial)}.")
    for name in names if best else ():
        tried = sorted({g.varied[name] for g in groups if g.method == best.method and _is_numeric(g.varied.get(name))})
        if len(tried) > 1 and best.varied.get(name) in (tried[0], tried[-1]):
            end = "lowest" if best.varied[name] == tried[0] else "highest"
            said.append(f"{name} {_shown(best.varied[name])} is the {end} that was tried: a lower loss may lie beyond it.")
    devices = sorted({row["device"] for row in rows if row["device"]})
    if len(devices) > 1:
        said.append(f"Seconds and memory are of different machines: {'; '.join(devices)}.")
    for row in rows:
        if row["status"] == "failed":
            said.append(f"Failed: {row['number']:03d} {row['label']}. {row['reason'] or ''}".rstrip())
    for status, words in (("not run", "Not run"), ("stopped", "Stopped, or still running")):
        if missing := [f"{row['number']:03d} {row['label']}" for row in rows if row["status"] == status]:
            said.append(f"{words}: {'; '.join(missing)}.")
    if strangers:
        said.append(f"Not in this grid, and left out: {', '.join(strangers)}.")
    return ["", *(f"- {_safe(sentence)}" for sentence in said)] if said else []


def _is_numeric(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mean(values: Sequence[float], style: str) -> str:
    if not values:
        return "-"
    low, mean, high = (f"{value:{style}}" for value in (min(values), fmean(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"


def _score(group: Group) -> str:
    low, high = group.values("rouge1_low"), group.values("rouge1_high")
    bounds = f" [{min(low):.1f}, {max(high):.1f}]" if low and high else ""
    return _mean(group.values("rouge1"), ".1f") + bounds


def _cells(texts) -> str:
    return "| " + " | ".join(_safe(text).replace("|", "\\|") for text in texts) + " |"


def _safe(text: str) -> str:
    """The text in one line and without markup of HTML, for Markdown."""
    return html.escape(" ".join(str(text).split()), quote=False)


def _figure(groups: Sequence[Group], names: Sequence[str]) -> plots.Picture | None:
    """Mean validation loss (bars: lowest to highest seed) over the first parameter with several numbers; a level line for who lacks it."""
    measured = [group for group in groups if group.values("validation_loss")]
    along = next((n for n in names if len({g.varied[n] for g in measured if _is_numeric(g.varied.get(n))}) > 1), None)
    if along is None:
        return None
    curves: dict[str, list[Group]] = {}
    for group in measured:
        others = {name: value for name, value in group.varied.items() if name != along}
        curves.setdefault(replace(group, varied=others).label, []).append(group)
    told = []
    with plots.axes(plots.NARROW, 3.2 + 0.24 * len(curves)) as (figure, axis):
        ticks = sorted({group.varied[along] for group in measured if _is_numeric(group.varied.get(along))})
        for number, (name, members) in enumerate(curves.items()):
            look = {"color": LINE_COLORS[number % 7], "linestyle": LINE_STYLES[number % 4], "label": name.replace("$", r"\$")}
            placed = sorted((g for g in members if _is_numeric(g.varied.get(along))), key=lambda group: group.varied[along])
            if not placed:
                axis.axhline(members[0].loss, **look)
                told.append(f"{name}: {members[0].loss:.3f}")
                continue
            x, y = [g.varied[along] for g in placed], [g.loss for g in placed]
            below = [g.loss - min(g.values("validation_loss")) for g in placed]
            above = [max(g.values("validation_loss")) - g.loss for g in placed]
            axis.errorbar(x, y, yerr=[below, above], marker=LINE_MARKERS[number % 8], capsize=3, **look)
            told.append(f"{name}: {', '.join(f'{loss:.3f} at {_shown(value)}' for value, loss in zip(x, y, strict=True))}")
        if ticks[0] > 0 and ticks[-1] / ticks[0] > SPREAD:
            axis.set_xscale("log")
            axis.minorticks_off()
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set(xlabel=along, ylabel="validation loss (nats per answer token)")
        axis.grid(color="#e4e4e4", linewidth=0.8)
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1.0))
        return plots.Picture(figure, f"Validation loss against {along}. {'; '.join(told)}.")
