"""`make bench`: the lab against a student script, TRL and the arithmetic floor, on this machine, in one run.

Every case runs in a fresh process, the cases one after the other and then all of them again, so that a machine that slows down slows all
of them. The record is written after every case.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lab_utils import files, runs, scrubbing
from lab_utils.bench import measure, report
from lab_utils.bench.cases import BATCH, MICRO_BATCH, Case, Size, cases
from lab_utils.bench.results import in_words
from lab_utils.bench.rivals import WITHOUT_TRL
from lab_utils.environment import say
from lab_utils.errors import LabError

SCHEMA = 1
RECORDED = Path(__file__).parents[1] / "recorded" / "bench"
QUICK_OUT = Path("runs/bench")
QUICK = Size("small", examples=16, answers=8)
FULL = Size("small")
ON_GPU = Size("small", examples=240, answers=60)
ROUNDS = 3
GROWTH_EXAMPLES = 16
LIMIT_SECONDS = 1800  # for one case
NOT_ON_A_CPU = "products-float16"  # no CPU is good at it


# --- running ----------------------------------------------------------------------------------------------------------------

Execute = Callable[[Case, Size], dict[str, Any]]


def run(
    chosen: Sequence[Case],
    size: Size,
    rounds: int,
    execute: Execute,
    save: Callable[[dict[str, list[dict]]], None],
    once: Collection[str] = (),
    measured: Mapping[str, list[dict]] = MappingProxyType({}),
) -> dict[str, list[dict]]:
    """The results of each case by its name, one for each round. A case that failed is recorded with its reason and not tried again.
    The result of a case that is compared with another one holds that one's, measured right after it, as `beside`.

    Args:
        save: takes all results so far, after every case.
        once: names of cases that run in the first round only.
        measured: results of a bench that was stopped: they are kept and need no second run.
    """
    results: dict[str, list[dict]] = {name: list(found) for name, found in measured.items()}
    named = {case.name: case for case in cases()}
    for number in range(1, rounds + 1):
        for position, case in enumerate(chosen, 1):
            earlier = results.setdefault(case.name, [])
            if len(earlier) >= number or (earlier and ("failed" in earlier[-1] or case.name in once)):
                continue
            smaller = replace(size, examples=min(size.examples, GROWTH_EXAMPLES)) if case.section in ("growth", "plan") else size
            result = execute(case, smaller)
            if case.against and "failed" not in result:  # a machine's speed drifts: what is compared runs side by side
                result["beside"] = execute(named[case.against], smaller)
            earlier.append(result)
            save(results)
            say(f"round {number}/{rounds}, {position}/{len(chosen)} {case.name}: {in_words(result)}")
    return results


def in_a_process(device: str, limit: float = LIMIT_SECONDS) -> Execute:
    """Runs a case with `python -m lab_utils.bench --case`, on the CPU even where there is a GPU, or on the GPU."""

    def execute(case: Case, size: Size) -> dict[str, Any]:
        words = ["--case", case.name, "--models", size.models, "--examples", str(size.examples), "--answers", str(size.answers)]
        return _in_a_process(words, device, limit)

    return execute


def _in_a_process(words: Sequence[str], device: str, limit: float) -> dict[str, Any]:
    variables = os.environ | {"HF_HUB_OFFLINE": "1"} | ({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})
    command = [sys.executable, "-m", "lab_utils.bench", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"failed": f"It took more than {limit / 60:.0f} minutes."}
    with_braces = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if with_braces:
        return json.loads(with_braces[-1])
    if done.returncode < 0:
        return {"failed": f"The system ended it with signal {-done.returncode}: too little memory, most likely."}
    return {"failed": scrubbing.text((done.stderr.strip().splitlines() or ["It said nothing."])[-1])}


def one(case: Case, size: Size) -> dict[str, Any]:
    """A case's result, or why it failed, in this process."""
    try:
        return measure.measure(case, size)
    except Exception as error:  # whatever a contender raises belongs into the record, and the others go on
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return {"failed": scrubbing.text(reason if isinstance(error, LabError) else f"{type(error).__name__}: {reason}")}


def course(run_dir: Path) -> dict[str, Any]:
    """Seconds that a run directory's executed notebooks took, by papermill's own clock, and what its records say of training and summaries.

    Raises:
        LabError: it holds no executed notebook.
    """
    notebooks = {}
    for path in sorted(run_dir.glob("[0-9][0-9]_*.ipynb")):
        seconds = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("papermill", {}).get("duration")
        if seconds is not None:
            notebooks[path.stem] = round(seconds, 1)
    if not notebooks:
        raise LabError(
            f"'{run_dir}' holds no executed notebook: give the folder of a finished `make run-all`, such as runs/smollm2-everyday."
        )
    methods = {}
    for finished in runs.read_all(run_dir):
        parts = {part: finished.record[part]["seconds"] for part in ("training", "generation") if part in finished.record}
        methods[finished.method] = parts
    return {"notebooks": notebooks, "methods": methods, "seconds": round(sum(notebooks.values()), 1)}


def file_name(hardware: str) -> str:
    """`CPU (x86_64), 2 cores, 23 GB` as `cpu-x86-64-2-cores-23-gb`: one record for each kind of machine."""
    return re.sub(r"[^a-z0-9]+", "-", hardware.lower()).strip("-")


def bench(
    quick: bool,
    out: Path | None = None,
    course_dir: Path | None = None,
    rounds: int | None = None,
    only: str = "",
    examples: int | None = None,
    answers: int | None = None,
    once: str = "",
    fresh: bool = False,
) -> Path:
    """Runs the bench and writes its record, tables and figures; returns the record's path. One that was stopped goes on where it stood;
    hours of measurement are replaced only where `fresh` says so.

    Args:
        out: by default lab_utils/recorded/bench, and runs/bench for the quick bench, which is no evidence.
        course_dir: a finished run of the notebooks, for the seconds of the course.
        rounds, examples, answers: how often each case runs, and on how much, in place of what quick or full means.
        only: a regular expression that the names of cases must match.
        once: a regular expression; cases whose name it matches run in the first round only.
        fresh: starts anew, whatever was measured before.
    """
    taken = course(course_dir) if course_dir else None
    wanted = [case for case in cases() if case.quick or not quick]
    chosen = [case for case in wanted if re.search(only, case.name)]
    if not chosen:
        raise LabError(f"No case matches '{only}': known are {', '.join(case.name for case in cases())}.")
    rounds = rounds or (2 if quick else ROUNDS)
    skipped = []
    if importlib.util.find_spec("trl") is None:
        wanted, chosen = ([case for case in some if not case.system.startswith("trl")] for some in (wanted, chosen))
        skipped.append(f"{WITHOUT_TRL}.")
    here = {device: _in_a_process(["--machine"], device, LIMIT_SECONDS) for device in ("cpu", "cuda")}
    for found in here.values():
        if "failed" in found:
            raise LabError(f"The bench could not look at this machine ({found['failed']}): run `lab doctor`.")
    devices = ["cpu", "cuda"] if here["cuda"]["device"] == "cuda" else ["cpu"]
    if devices == ["cpu"]:
        skipped.append("No GPU that CUDA can use was found: the GPU section is left out.")
    for sentence in skipped:
        say(sentence)
    path = files.make_folder(out or (QUICK_OUT if quick else RECORDED)) / f"{file_name(here[devices[-1]]['hardware'])}.json"
    record: dict[str, Any] = {
        "schema": SCHEMA, "status": "partial", "date": datetime.now(UTC).date().isoformat(), "commit": runs._commit(), "quick": quick,
        "rounds": rounds, "skipped": skipped, "course": None, "sections": {},
    }  # fmt: skip
    stopped = {} if fresh or not path.exists() else _read(path)
    if stopped.get("status") == "finished":
        raise LabError(f"'{path.name}' is finished. To measure everything anew give --fresh (make bench FRESH=1); nothing was changed.")
    record["course"] = taken or stopped.get("course")
    if stopped:
        commits = [*(stopped["commit"] or "").split(", "), record["commit"]]  # none is known outside a checkout
        record["commit"] = ", ".join(dict.fromkeys(filter(None, commits))) or None

    one_round = {case.name for case in chosen if once and re.search(once, case.name)}

    def write() -> None:
        files.write_text(path, json.dumps(record, indent=1) + "\n")

    for device in devices:
        size = QUICK if quick else ON_GPU if device == "cuda" else FULL
        size = replace(size, examples=examples or size.examples, answers=answers or size.answers)
        section = {
            "machine": here[device],
            "size": vars(size) | {"growth": GROWTH_EXAMPLES, "batch": BATCH, "micro_batch": MICRO_BATCH[device]},
            "results": {},
        }
        record["sections"][device] = section
        before = stopped.get("sections", {}).get(device, {})
        if before and (before["machine"], before["size"]) != (section["machine"], section["size"]):
            raise LabError(
                f"'{path.name}' is of a bench that was stopped, of another size or with other packages: finish it as it was begun, "
                "or start anew with --fresh."
            )

        def save(results: dict[str, list[dict]], section: dict[str, Any] = section) -> None:
            section["results"] = {name: found for name, found in results.items() if found}
            write()

        here_too = [case for case in chosen if device == "cuda" or case.name != NOT_ON_A_CPU]
        run(here_too, size, rounds, in_a_process(device), save, one_round, before.get("results", {}))
    measured = {name for section in record["sections"].values() for name in section["results"]} | {NOT_ON_A_CPU}
    record["status"] = "finished" if measured >= {case.name for case in wanted} else "partial"
    write()
    report.write(record, cases(), path.with_suffix(".md"))
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabError(f"'{path}' is no record of a bench ({error}): give a JSON file that `make bench` wrote.") from error


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lab_utils.bench", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="LoRA only, few examples, two rounds: minutes instead of hours")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the record goes (lab_utils/recorded/bench; with --quick runs/bench)")
    parser.add_argument("--fresh", action="store_true", help="start anew instead of going on with a bench that was stopped")
    parser.add_argument("--course", type=Path, metavar="RUN_DIR", help="a finished run of the notebooks, for the seconds of the course")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"how often each case runs ({ROUNDS}; with --quick 2)")
    parser.add_argument("--only", metavar="REGEX", default="", help="cases whose name matches")
    parser.add_argument("--once", metavar="REGEX", default="", help="cases whose name matches run in the first round only")
    parser.add_argument("--tables", type=Path, metavar="RECORD", help="write tables and figures of a record again, and run nothing")
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--case", metavar="NAME", help="run one case in this process and print its result as one line of JSON")
    parser.add_argument("--machine", action="store_true", help="print what the figures of this machine depend on")
    parser.add_argument("--models", choices=("small", "tiny"), default="small", help="of --case: SmolLM2 and a T5 as large, or toys")
    parser.add_argument("--examples", type=int, metavar="N", help=f"training dialogues ({FULL.examples}; with --quick {QUICK.examples})")
    parser.add_argument("--answers", type=int, metavar="N", help=f"dialogues to summarize ({FULL.answers}; with --quick {QUICK.answers})")
    given = parser.parse_args(argv)
    known = {case.name: case for case in cases()}
    try:
        if given.list:
            print("\n".join(known))
        elif given.machine:
            print(json.dumps(measure.machine()))
        elif given.case:
            if given.case not in known:
                raise LabError(f"Unknown case '{given.case}'; known: {', '.join(known)}.")
            result = one(known[given.case], Size(given.models, given.examples or FULL.examples, given.answers or FULL.answers))
            print(json.dumps(result), flush=True)
            return int("failed" in result)
        elif given.tables:
            report.write(_read(given.tables), cases(), given.tables.with_suffix(".md"))
        else:
            print(
                bench(
                    given.quick, given.out, given.course, given.rounds, given.only, given.examples, given.answers, given.once, given.fresh
                )
            )
    except LabError as error:
        print(f"error: {scrubbing.without_secrets(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. What was measured is in the record.", file=sys.stderr)
        return 130
    return 0
