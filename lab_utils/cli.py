"""The `lab` command: its words, and how it ends."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from lab_utils import __version__, commands, config, output, processes, scrubbing, sheets
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
        if processes.count() > 1 and arguments.run is not commands.train:
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
    subcommands = lab.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name, run, help):
        made = subcommands.add_parser(name, help=help, description=help, allow_abbrev=False)
        made.set_defaults(run=run)
        return made

    command("recipes", commands.recipes, "list the recipes")
    made = command("doctor", commands.doctor, "say what this machine is and what works on it")
    made.add_argument("--json", action="store_true", help="print facts, findings and advice instead")

    made = command("run", commands.run, "run the notebooks and write the report")
    made.add_argument("--recipe", metavar="R", help="a recipe's name or YAML file")
    made.add_argument("--assignment", metavar="A", help="an assignment's name or YAML file")
    made.add_argument("--only", metavar="01,03", default="", help="notebooks by number")
    made.add_argument("-p", dest="parameters", metavar="NAME=VALUE", action="append", default=[], help="replace one parameter")
    made.add_argument("--out", metavar="DIR", help="the run directory (runs/<recipe>)")
    made.add_argument("--student", metavar="ID", help="with --assignment: the values that it gives this student")
    made.add_argument("--fresh", action="store_true", help="run again what is already finished")

    made = command(
        "assignment", commands.assignment, "write what a class gets: notebooks with an assignment's values, a brief, and your key"
    )
    made.add_argument("assignment", metavar="A", nargs="?", help="an assignment's name or YAML file (default: the default parameters)")
    made.add_argument("--out", metavar="DIR", help="where they go: student, solution and instructor")
    made.add_argument("--students", metavar="FILE", help="ids, one a line or the first column of a CSV: a folder for each")
    made.add_argument("--github", metavar="OWNER/REPO/BRANCH/FOLDER", help="where DIR will stand, for links that open the notebooks")
    made.add_argument("--for", dest="grader", metavar="GRADER", help="write them for a department's grader instead: nbgrader or otter")
    made.add_argument("--force", action="store_true", help="replace files that were changed, too")
    made.add_argument("--schema", action="store_true", help="print the JSON Schema of assignment files instead")

    made = command("pack", commands.pack, "make the zip that a student hands in")
    made.add_argument("dir", metavar="DIR", help="a run directory such as runs/first-week")
    made.add_argument("--student", metavar="ID", help="whose it is (default: as the records say)")
    made.add_argument("--assignment", metavar="A", help="its name (default: as the records say)")
    made.add_argument("--notebooks", metavar="DIR", help="where the executed notebooks lie (default: there, here, or in notebooks/)")
    made.add_argument("--out", metavar="PATH", help="the zip, or a folder for it (default: beside DIR)")

    made = command("check", commands.check_submissions, "verify what students handed in, and write the class's table and pages")
    made.add_argument("paths", metavar="PATH", nargs="+", help="zips, folders, or a folder of them")
    made.add_argument("--assignment", metavar="A", required=True, help="an assignment's name or YAML file")
    made.add_argument("--students", metavar="FILE", help="ids of the class, to name who is missing")
    made.add_argument("--out", metavar="DIR", default="marks", help="where table and pages go (marks)")

    made = command("sweep", commands.sweep, "train every point of a grid, and choose among them on validation data")
    made.add_argument("grid", metavar="GRID.yaml")
    made.add_argument("--out", metavar="DIR", required=True, help="where the points' records and the table go")
    made.add_argument("--list", action="store_true", help="print number, label and `lab train` command of each point instead")
    made.add_argument("--only", metavar="N,N-M", default="", help="these points only, such as a job's own; no table is written then")
    made.add_argument("--report", action="store_true", help="only write the table, of the records that are there")

    made = command("train", commands.train, "train and score one method without a notebook")
    made.add_argument("--recipe", metavar="R", required=True)
    made.add_argument("--method", metavar="M", required=True, help=", ".join(config.METHODS))
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("-p", dest="parameters", metavar="NAME=VALUE", action="append", default=[], help="replace one of the recipe's values")
    made.add_argument("--out", metavar="DIR", help="the run directory (runs/<recipe>)")

    made = command("search", commands.search, "choose a learning rate on validation data")
    made.add_argument("--recipe", metavar="R", required=True)
    made.add_argument("--method", metavar="M", required=True, help="full, lora, qlora")
    made.add_argument("--rates", metavar="1e-4,2e-4", required=True, help="the learning rates to try")
    made.add_argument("-p", dest="parameters", metavar="NAME=VALUE", action="append", default=[], help="replace one of the recipe's values")
    made.add_argument("--out", metavar="FILE", default="runs/searches.json", help="the record (runs/searches.json)")

    made = command("plan", commands.plan, "say what a method will need, before anything is downloaded")
    made.add_argument("--recipe", metavar="R", help="a recipe's name or YAML file")
    made.add_argument("--assignment", metavar="A", help="all notebooks of an assignment instead: minutes, memory and disk")
    made.add_argument("--method", metavar="M", help="one method (default: all that the recipe offers)")
    made.add_argument("-p", dest="parameters", metavar="NAME=VALUE", action="append", default=[], help="replace one of the recipe's values")
    made.add_argument("--time", action="store_true", help="measure this machine for a few seconds, and say what a step will take")
    made.add_argument("--json", action="store_true", help="print the numbers instead")

    made = command("report", commands.report, "compare finished runs and write report.html")
    made.add_argument("dir", metavar="DIR")
    made.add_argument("--data-dir", metavar="DIR", help="your own data, for its documents (the record keeps no path)")
    made.add_argument("--bertscore", metavar="ENCODER", help="add BERTScore by this text encoder, a folder or hub id")
    made.add_argument("--json", action="store_true", help="print the numbers instead")

    made = command("rate", commands.rate, "rate summaries blind, one after the other; what is answered is kept")
    made.add_argument("dir", metavar="DIR")
    made.add_argument("--rater", metavar="NAME", help="your name or a pseudonym (asked for if not given)")
    made.add_argument("--items", type=int, default=20, metavar="N", help="documents to rate, with all their summaries (20)")
    made.add_argument("--seed", type=int, default=0, help="draws the documents: the same for all who rate together")
    made.add_argument("--data-dir", metavar="DIR", help="your own data, for its documents (the record keeps no path)")
    made.add_argument("--judge", metavar="R", help="let the base model of this recipe choose between pairs instead; kept apart from people")

    made = command("summarize", commands.summarize, "summarize your own text with a trained model")
    made.add_argument("--run", dest="run_dir", metavar="DIR", required=True, help="a method's folder, e.g. runs/smollm2-everyday/lora")
    made.add_argument("--model-dir", metavar="DIR", help="the base model's folder, where it was a local one")
    made.add_argument("file", metavar="FILE", nargs="?", help="a text file (default: what you type, ended by Ctrl-D)")

    made = command("publish", commands.publish, "upload a trained adapter or model to the hub, with a model card")
    made.add_argument("--run", dest="run_dir", metavar="DIR", required=True, help="a method's folder, e.g. runs/smollm2-everyday/lora")
    made.add_argument("--to", metavar="OWNER/NAME", required=True)
    made.add_argument("--merged", action="store_true", help="the merged model instead of the adapter")
    made.add_argument("--model-dir", metavar="DIR", help="the base model's folder, where it was a local one")
    return lab
