"""The `lab` command. Heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from lab_utils import __version__, config, course, output, processes, scrubbing, sheets
from lab_utils.errors import DONE, FAILED, INTERRUPTED, STOPPED, UNREAD, WRONG_USE, LabError  # noqa: F401 - all exit codes


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code: 0 done, 1 failed, 2 wrong use, 130 stopped by Ctrl-C, 141 nobody reads what it says."""
    try:
        with output.watched():
            _run(argv)
    except LabError as error:
        print(f"error: {_said(scrubbing.without_secrets(str(error)))}", file=sys.stderr)
        return FAILED
    except output.Left:
        return UNREAD
    except KeyboardInterrupt:
        if processes.is_main():
            print(f"\n{STOPPED}", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if error.filename is None and error.strerror is None:
            raise
        what = _said(str(error.filename or "a file"))
        print(f"error: {what}: {error.strerror}; free some space or choose another folder.", file=sys.stderr)
        return FAILED
    return DONE


def _run(argv: Sequence[str] | None) -> None:
    arguments = parser().parse_args(argv)
    scrubbing.refuse(vars(arguments))
    with processes.joined():
        if processes.count() > 1 and arguments.run is not train:
            raise LabError("Only `train` runs in more than one process: start this command without a launcher.")
        arguments.run(arguments)


def _said(message: str) -> str:
    """A message on one line, but for the problems that it lists: a name that was given may hold line ends, and what steers a terminal."""
    return re.sub(r"\n(?!  )", " ", sheets.printable(message))


class _Parser(argparse.ArgumentParser):
    """A parser that does not repeat a token that was given in a wrong place."""

    def error(self, message: str):
        super().error(scrubbing.without_secrets(message))

    def parse_args(self, args=None, namespace=None):
        """As argparse reads them, but `--out=--`, of which Python 3.11 makes an empty list, is refused."""
        found = super().parse_args(args, namespace)
        for name, value in vars(found).items():
            if (value == [] and name != "parameters") or (isinstance(value, list) and [] in value):
                self.error(f"argument {name}: '--' is no value")
        return found


def parser() -> argparse.ArgumentParser:
    lab = _Parser(prog="lab", description="Summarization fine-tuning, compared fairly.", allow_abbrev=False)
    lab.add_argument("--version", action="version", version=__version__)
    commands = lab.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name, run, help):
        made = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        made.set_defaults(run=run)
        return made

    command("recipes", recipes, "list the recipes")
    made = command("doctor", doctor, "say what this machine is and what works on it")
    made.add_argument("--json", action="store_true", help="print facts, findings and advice instead")

    made = command("run", run, "run the notebooks and write the report")
    made.add_argument("--recipe", metavar="R", help="a recipe's name or YAML file")
    made.add_argument("--assignment", metavar="A", help="an assignment's name or YAML file")
    made.add_argument("--only", metavar="01,03", default="", help="notebooks by number")
    made.add_argument("-p", dest="parameters", metavar="NAME=VALUE", action="append", default=[], help="replace one parameter")
    made.add_argument("--out", metavar="DIR", help="the run directory (runs/<recipe>)")
    made.add_argument("--student", metavar="ID", help="with --assignment: the values that it gives this student")
    made.add_argument("--fresh", action="store_true", help="run again what is already finished")

    made = command("assignment", assignment, "write what a class gets: notebooks with an assignment's values, a brief, and your key")
    made.add_argument("assignment", metavar="A", nargs="?", help="an assignment's name or YAML file (default: the default parameters)")
    made.add_argument("--out", metavar="DIR", help="where they go: student, solution and instructor")
    made.add_argument("--students", metavar="FILE", help="ids, one a line or the first column of a CSV: a folder for each")
    made.add_argument("--github", metavar="OWNER/REPO/BRANCH/FOLDER", help="where DIR will stand, for links that open the notebooks")
    made.add_argument("--for", dest="grader", metavar="GRADER", help="write them for a department's grader instead: nbgrader or otter")
    made.add_argument("--force", action="store_true", help="replace files that were changed, too")
    made.add_argument("--schema", action="store_true", help="print the JSON Schema of assignment files instead")

    made = command("pack", pack, "make the zip that a student hands in")
    made.add_argument("dir", metavar="DIR", help="a run directory such as runs/first-week")
    made.add_argument("--student", metavar="ID", help="whose it is (default: as the records say)")
    made.add_argument("--assignment", metavar="A", help="its name (default: as the records say)")
    made.add_argument("--notebooks", metavar="DIR", help="where the executed notebooks lie (default: there, here, or in notebooks/)")
    made.add_argument("--out", metavar="PATH", help="the zip, or a folder for it (default: beside DIR)")

    made = command("check", check_submissions, "verify what students handed in, and write the class's table and pages")
    made.add_argument("paths", metavar="PATH", nargs="+", help="zips, folders, or a folder of them")
    made.add_argument("--assignment", metavar="A", required=True, help="an assignment's name or YAML file")
    made.add_argument("--students", metavar="FILE", help="ids of the class, to name who is missing")
    made.add_argument("--out", metavar="DIR", default="marks", help="where table and pages go (marks)")

    made = command("sweep", sweep, "train every point of a grid, and choose among them on validation data")
    made.add_argument("grid", metavar="GRID.yaml")
    made.add_argument("--out", metavar="DIR", required=True, help="where the points' records and the table go")
    made.add_argument("--list", action="store_true", help="print number, label and `lab train` command of each point instead")
    made.add_argument("--only", metavar="N,N-M", default="", help="these points only, such as a job's own; no table is written then")
    made.add_argument("--report", action="store_true", help="only write the table, of the records that are there")

    made = command("train", train, "train and score one method without a notebook")
    made.add_argument("--recipe", metavar="R", required=True)
    made.add_argument("--method", metavar="M", required=True, help=", ".join(config.METHODS))
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("-p", dest="parameters", metavar="NAME=VALUE", action="append", default=[], help="replace one of the recipe's values")
    made.add_argument("--out", metavar="DIR", help="the run directory (runs/<recipe>)")

    made = command("search", search, "choose a learning rate on validation data")
    made.add_argument("--recipe", metavar="R", required=True)
    made.add_argument("--method", metavar="M", required=True, help="full, lora, qlora")
    made.add_argument("--rates", metavar="1e-4,2e-4", required=True, help="the learning rates to try")
    made.add_argument("-p", dest="parameters", metavar="NAME=VALUE", action="append", default=[], help="replace one of the recipe's values")
    made.add_argument("--out", metavar="FILE", default="runs/searches.json", help="the record (runs/searches.json)")

    made = command("plan", plan, "say what a method will need, before anything is downloaded")
    made.add_argument("--recipe", metavar="R", help="a recipe's name or YAML file")
    made.add_argument("--assignment", metavar="A", help="all notebooks of an assignment instead: minutes, memory and disk")
    made.add_argument("--method", metavar="M", help="one method (default: all that the recipe offers)")
    made.add_argument("-p", dest="parameters", metavar="NAME=VALUE", action="append", default=[], help="replace one of the recipe's values")
    made.add_argument("--time", action="store_true", help="measure this machine for a few seconds, and say what a step will take")
    made.add_argument("--json", action="store_true", help="print the numbers instead")

    made = command("report", report, "compare finished runs and write report.html")
    made.add_argument("dir", metavar="DIR")
    made.add_argument("--data-dir", metavar="DIR", help="your own data, for its documents (the record keeps no path)")
    made.add_argument("--bertscore", metavar="ENCODER", help="add BERTScore by this text encoder, a folder or hub id")
    made.add_argument("--json", action="store_true", help="print the numbers instead")

    made = command("rate", rate, "rate summaries blind, one after the other; what is answered is kept")
    made.add_argument("dir", metavar="DIR")
    made.add_argument("--rater", metavar="NAME", help="your name or a pseudonym (asked for if not given)")
    made.add_argument("--items", type=int, default=20, metavar="N", help="documents to rate, with all their summaries (20)")
    made.add_argument("--seed", type=int, default=0, help="draws the documents: the same for all who rate together")
    made.add_argument("--data-dir", metavar="DIR", help="your own data, for its documents (the record keeps no path)")
    made.add_argument("--judge", metavar="R", help="let the base model of this recipe choose between pairs instead; kept apart from people")

    made = command("summarize", summarize, "summarize your own text with a trained model")
    made.add_argument("--run", dest="run_dir", metavar="DIR", required=True, help="a method's folder, e.g. runs/smollm2-everyday/lora")
    made.add_argument("--model-dir", metavar="DIR", help="the base model's folder, where it was a local one")
    made.add_argument("file", metavar="FILE", nargs="?", help="a text file (default: what you type, ended by Ctrl-D)")

    made = command("publish", publish, "upload a trained adapter or model to the hub, with a model card")
    made.add_argument("--run", dest="run_dir", metavar="DIR", required=True, help="a method's folder, e.g. runs/smollm2-everyday/lora")
    made.add_argument("--to", metavar="OWNER/NAME", required=True)
    made.add_argument("--merged", action="store_true", help="the merged model instead of the adapter")
    made.add_argument("--model-dir", metavar="DIR", help="the base model's folder, where it was a local one")
    return lab


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
    from lab_utils import assignments, graders, handout

    if arguments.schema:
        print(json.dumps(assignments.schema(), indent=2))
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
        from lab_utils import report as page

        facts = page.build(arguments.dir, test_examples(arguments.dir, arguments.data_dir), arguments.bertscore)
        print(json.dumps(facts, indent=2, allow_nan=False))
    else:
        print_report(Path(arguments.dir), arguments.data_dir, arguments.bertscore)


def print_report(folder: Path, data_dir: str | None = None, encoder: str | None = None) -> None:
    import pandas as pd

    from lab_utils import metrics
    from lab_utils import report as page

    path, facts = page.make(folder, test_examples(folder, data_dir), encoder)
    rows = [{k: v for k, v in row.items() if k not in ("ROUGE-2", "ROUGE-L", "ROUGE-1, best reference")} for row in facts["table"]]
    print("\n" + pd.DataFrame(rows).fillna("").to_string(index=False))
    print(metrics.PROTOCOL)
    print("\n" + "\n".join(f"- {sentence}" for sentence in facts["findings"]))
    print(f"\nReport: {path}")


def test_examples(run_dir, data_dir: str | None = None):
    """The test set that the runs were scored on, where it can still be read and is the same."""
    from lab_utils import data, runs

    finished = runs.read_all(run_dir)
    if not finished:
        return None
    try:
        recorded = config.recorded(finished[0].record["config"]).recipe.data
        corpus = data.load(recorded if data_dir is None else config.changed(recorded, source=str(data_dir)))
    except LabError:
        return None
    return corpus.test if corpus.fingerprint == finished[0].record["data"]["fingerprint"] else None


def rate(arguments) -> None:
    from lab_utils import judge, rating_form

    if not Path(arguments.dir).is_dir():
        raise LabError(f"No folder '{arguments.dir}': give a run directory such as runs/smollm2-everyday.")
    documents = {example.id: example.document for example in test_examples(arguments.dir, arguments.data_dir) or []}
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
