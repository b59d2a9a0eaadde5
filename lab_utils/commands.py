"""What each command does with its arguments. Heavy imports wait until a command needs them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lab_utils import config, course, processes
from lab_utils.errors import LabError


def recipes(arguments) -> None:
    from lab_utils import plan as planning

    rows = [("recipe", "model", "data", "methods", "GB*", "minutes**")]
    for name in config.recipe_names():
        r = config.load_recipe(name)
        memory = max(planning.make(config.resolve(name, method)).peak_gb for method in r.methods)
        minutes = f"{r.minutes:g}" if r.minutes else "not measured here"
        rows.append((name, r.model.label.split(" (")[0], r.data.source, ", ".join(r.methods), f"{memory:.1f}", minutes))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print("*  planned peak of the most demanding method on this machine; `lab plan --recipe R` says more")
    print("** all its notebooks, measured on 2 cores without GPU")


def plan(arguments) -> None:
    from lab_utils import plan as planning
    from lab_utils import runner

    parameters = runner.parse_assignments(arguments.parameters)
    if arguments.assignment:
        plan_assignment(arguments, parameters)
        return
    if not arguments.recipe:
        raise LabError("Say what to plan: --recipe R, or --assignment A.")
    if arguments.method:
        settings = [config.resolve(arguments.recipe, arguments.method, **parameters)]
    else:
        offered = config.load_recipe(arguments.recipe).methods
        settings = [config.resolve(arguments.recipe, method, **config.applicable(parameters, method)) for method in offered]
    rates = _rates(settings[0].recipe.model) if arguments.time else None  # methods of a recipe share the precision
    plans = [planning.make(one, rates=rates) for one in settings]
    if arguments.json:
        print(json.dumps({one.method: planning.as_json(made) for one, made in zip(settings, plans, strict=True)}, indent=2))
    else:
        print("\n\n".join(planning.describe(made) for made in plans))


def plan_assignment(arguments, parameters) -> None:
    from lab_utils import budget, runner

    if arguments.method:
        raise LabError("--assignment plans all its notebooks: leave --method out.")
    planned = runner.planned(arguments.recipe, arguments.assignment, parameters=parameters)
    rates = _rates(course.settings(*planned[0]).recipe.model) if arguments.time else None
    needed = budget.estimate(planned, rates)
    print(json.dumps(budget.as_json(needed), indent=2) if arguments.json else budget.describe(needed, course.root() / "runs"))


def _rates(spec):
    """What this machine does at most in the precision that it would train this model in; the only part of a plan that needs torch."""
    from lab_utils import environment, pace

    return pace.measure(environment.precision(spec.family, spec.precision).name, environment.machine().device)


def doctor(arguments) -> None:
    from lab_utils import doctor as examination

    if not examination.report(as_json=arguments.json):
        raise LabError("Something above needs mending before the lab can run.")


def run(arguments) -> None:
    from lab_utils import runner

    only = [word for word in arguments.only.replace(" ", "").split(",") if word]
    parameters = runner.parse_assignments(arguments.parameters)
    folder = runner.run(arguments.recipe, arguments.assignment, only, parameters, arguments.out, arguments.fresh, arguments.student)
    if course.choose(only)[-1].method is None:
        print_report(folder, parameters.get("data_dir"))


def assignment(arguments) -> None:
    from lab_utils import assignment_file, assignments, graders, handout

    if arguments.schema:
        print(json.dumps(assignment_file.schema(), indent=2))
        return
    if not arguments.out:
        raise LabError("Say where the folders go with --out DIR.")
    if arguments.grader:
        if not arguments.assignment or arguments.students or arguments.github:
            raise LabError("--for takes an assignment's name or file, and no --students or --github: a grader hands one notebook to all.")
        for path in graders.write(arguments.grader, assignments.load(arguments.assignment), arguments.out, arguments.force):
            print(path)
        return
    students = handout.roster(arguments.students) if arguments.students else []
    for path in handout.write(arguments.assignment, arguments.out, students, arguments.github, arguments.force):
        print(path)


def pack(arguments) -> None:
    from lab_utils.submissions import packing

    print(packing.pack(arguments.dir, arguments.student, arguments.assignment, arguments.notebooks, arguments.out))


def check_submissions(arguments) -> None:
    from lab_utils import assignments, handout
    from lab_utils.submissions import gradebook, reading

    given = assignments.load(arguments.assignment)
    students = handout.roster(arguments.students) if arguments.students else None
    print(gradebook.mark(reading.read_all(arguments.paths), given, arguments.out, students))


def sweep(arguments) -> None:
    from lab_utils import sweep as sweeping

    points = sweeping.points(arguments.grid)
    if arguments.list:
        print(sweeping.listing(points, arguments.out))
    elif arguments.report:
        sweeping.keep_plan(points, Path(arguments.out))
        print(sweeping.report(arguments.out))
    else:
        sweeping.run(points, arguments.out, sweeping.numbers(arguments.only))


def train(arguments) -> None:
    from lab_utils import methods, metrics, runner
    from lab_utils.significance import Interval

    parameters = runner.parse_assignments(arguments.parameters)
    if taken := parameters.keys() & {"recipe", "method", "seed"}:
        raise LabError(f"Give {', '.join(sorted(taken))} as an option of its own, for example --seed 1.")
    settings = config.resolve(arguments.recipe, arguments.method, arguments.seed, **parameters)
    folder = arguments.out or f"runs/{settings.recipe.name}"
    record = methods.run(settings, folder).record
    if not processes.is_main():
        return
    scores = record["metrics"]
    print(f"ROUGE-1 {Interval(**scores['rouge1'])} on {scores['n']} documents ({metrics.PROTOCOL})")
    print(f"record: {folder}/{settings.method}/run.json")


def search(arguments) -> None:
    from lab_utils import files, runner
    from lab_utils import search as searching

    try:
        rates = [float(rate) for rate in arguments.rates.split(",")]
    except ValueError as error:
        raise LabError(f"--rates takes numbers with commas between them, for example 1e-4,2e-4; got '{arguments.rates}'.") from error
    if arguments.method == "zero_shot":
        raise LabError("zero_shot has no learning rate: search for full, lora or qlora.")
    files.make_folder(Path(arguments.out).parent)
    record = searching.learning_rates(arguments.recipe, arguments.method, rates, **runner.parse_assignments(arguments.parameters))
    searching.add(record, Path(arguments.out))
    for row in record["tried"]:
        print(f"learning rate {row['learning_rate']:g}: validation loss {row['validation_loss']:.4f} after {row['steps']} steps")


def report(arguments) -> None:
    if not Path(arguments.dir).is_dir():
        raise LabError(f"No folder '{arguments.dir}': give a run directory such as runs/smollm2-everyday.")
    if arguments.json:
        from lab_utils import comparison
        from lab_utils import report as page

        facts = page.build(arguments.dir, comparison.test_examples(arguments.dir, arguments.data_dir), arguments.bertscore)
        print(json.dumps(facts, indent=2, allow_nan=False))
    else:
        print_report(Path(arguments.dir), arguments.data_dir, arguments.bertscore)


def print_report(folder: Path, data_dir: str | None = None, encoder: str | None = None) -> None:
    import pandas as pd

    from lab_utils import comparison, metrics
    from lab_utils import report as page

    path, facts = page.make(folder, comparison.test_examples(folder, data_dir), encoder)
    rows = [{k: v for k, v in row.items() if k not in ("ROUGE-2", "ROUGE-L", "ROUGE-1, best reference")} for row in facts["table"]]
    print("\n" + pd.DataFrame(rows).fillna("").to_string(index=False))
    print(metrics.PROTOCOL)
    print("\n" + "\n".join(f"- {sentence}" for sentence in facts["findings"]))
    print(f"\nReport: {path}")


def rate(arguments) -> None:
    from lab_utils import comparison, judge, rating_form

    if not Path(arguments.dir).is_dir():
        raise LabError(f"No folder '{arguments.dir}': give a run directory such as runs/smollm2-everyday.")
    documents = {example.id: example.document for example in comparison.test_examples(arguments.dir, arguments.data_dir) or []}
    if arguments.judge is None:
        rating_form.terminal(arguments.dir, documents, arguments.rater, arguments.items, arguments.seed)
    elif arguments.rater:
        raise LabError("A model rates under its own name: give --judge or --rater, not both.")
    else:
        judge.run(arguments.dir, documents, arguments.judge, arguments.items, arguments.seed)


def method_folder(given: str) -> Path:
    folder = Path(given)
    if folder.name not in config.METHODS:
        raise LabError(f"'{given}' is not a method's folder: give one such as runs/smollm2-everyday/lora.")
    return folder


def publish(arguments) -> None:
    from lab_utils import publish as publishing
    from lab_utils import runs

    folder = method_folder(arguments.run_dir)
    print(publishing.publish(runs.read(folder.parent, folder.name), arguments.to, arguments.merged, arguments.model_dir))


def summarize(arguments) -> None:
    from lab_utils import generation, methods
    from lab_utils.data import Example

    folder = method_folder(arguments.run_dir)
    try:
        text = Path(arguments.file).read_text(encoding="utf-8") if arguments.file else sys.stdin.read()
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"Cannot read '{arguments.file}' as UTF-8 text ({getattr(error, 'strerror', None) or error.reason}).") from error
    if not text.strip():
        raise LabError("There is no text to summarize: give a file, or type a conversation and end it with Ctrl-D.")
    model, base = methods.restore(folder.parent, folder.name, arguments.model_dir)
    example = Example("yours", text.strip(), ("",))
    print(generation.summarize(model, base, [example], say=lambda line: None).predictions[0].prediction)
