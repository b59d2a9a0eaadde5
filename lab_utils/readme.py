"""Writes the README's tables and figures from the recorded runs under lab_utils/recorded: no figure there is typed by hand."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path

from lab_utils import comparison, config, devices, files, metrics, plan, report, runs
from lab_utils.bench import cases as bench_cases
from lab_utils.bench import report as bench_report
from lab_utils.bench import results as bench_results
from lab_utils.progress import duration

ROOT = Path(__file__).resolve().parents[1]
RECORDED = Path(__file__).parent / "recorded"
RECIPES = ("smollm2-everyday", "smollm2-dialogsum")


def keep(run_dir: str | Path, recipe: str, data_dir: str | None = None) -> None:
    """Copies what a run directory's results rest on into lab_utils/recorded: records, logs, and scores by document.

    No text of the data goes along: it may not be ours to pass on.
    """
    target = RECORDED / recipe
    finished = runs.read_all(run_dir)
    for run in finished:
        (target / run.method).mkdir(parents=True, exist_ok=True)
        for name in ("run.json", "log.csv"):
            if (run.folder / name).is_file():
                shutil.copy(run.folder / name, target / run.method / name)
    lines = comparison.lines(finished, {e.id: e.document for e in comparison.test_examples(run_dir, data_dir) or []} or None)
    scores = {
        line.name: [{"id": row["id"], **{key: round(row[key], 4) for key in metrics.MEASURES}} for row in line.rows] for line in lines
    }
    kept = {"references": max(len(p.references) for p in finished[0].predictions), "lines": scores}
    files.write_text(target / "scores.json", json.dumps(kept) + "\n")


def systems(recipe: str) -> tuple[list[comparison.Line], int]:
    """The recorded lines of a recipe, and how many references its documents have."""
    kept = json.loads((RECORDED / recipe / "scores.json").read_text(encoding="utf-8"))
    runs_by_name = {}
    for method in config.METHODS:
        path = RECORDED / recipe / method / "run.json"
        if path.is_file():
            record = json.loads(path.read_text(encoding="utf-8"))
            runs_by_name[comparison.METHOD_NAMES[method]] = runs.Finished(method, record, [], path.parent)
    return [comparison.Line(name, rows, runs_by_name.get(name)) for name, rows in kept["lines"].items()], kept["references"]


def blocks() -> dict[str, str]:
    """The text of each generated block by its name."""
    results = {f"results {recipe}": _results(recipe) for recipe in RECIPES}
    return results | {"bench": _bench(), "search": _search(), "recipes": _recipes(), "systems": _systems()}


def _table(rows: list[dict]) -> str:
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([("" if row[k] is None else str(row[k])) for k in head] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _results(recipe: str) -> str:
    lines, references = systems(recipe)
    rows = comparison.table(lines)
    if references == 1:
        for row in rows:
            del row["ROUGE-1, best reference"]
    return "\n\n".join([_table(rows), _conditions(recipe, lines, references), "\n".join(f"- {s}" for s in comparison.findings(lines))])


def _conditions(recipe: str, lines: list[comparison.Line], references: int) -> str:
    record = next(line.run.record for line in lines if line.run)
    trained = next(line.run.record for line in lines if line.run and "training" in line.run.record)["training"]
    protocol, data = record["metrics"]["protocol"], record["config"]["recipe"]["data"]
    held_out = (
        "dialogues of the validation split (the test split was not used)" if data.get("test_from") == "validation" else "test dialogues"
    )
    several = f"the first three columns are means over {references} references; " if references > 1 else "one reference a dialogue; "
    minutes = config.load_recipe(recipe).minutes
    return (
        f"{record['model']['name']}, {record['data']['test']} {held_out}, {trained['examples']:,} training dialogues seen once in "
        f"{trained['steps']} steps, seed {record['seed']}. ROUGE by {protocol['package']} with stemmer, {protocol['measure']}; "
        f"{several}brackets are 95% bootstrap intervals over dialogues; p from paired permutation tests. "
        f"Machine: {record['environment']['device']}, "
        f"{record['environment']['precision']} products." + (f" All five notebooks: {duration(minutes * 60)}." if minutes else "")
    )


def _bench() -> str:
    """What each recorded bench found, and where its tables lie."""
    parts = []
    for path in sorted((RECORDED / "bench").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        for device, found in record["sections"].items():
            section = bench_results.Section(found, bench_cases.cases())
            title = f"**{section.machine['hardware']}**, up to {record['rounds']} rounds, {record['date']}"
            tables = f"[all tables](lab_utils/recorded/bench/{path.with_suffix('.md').name})"
            parts.append("\n".join([f"{title} ({tables}):", "", *(f"- {sentence}" for sentence in bench_report.findings(section))]))
            for figure in (path.with_name(f"{path.stem}-{device}-{name}.png") for name in ("speed", "ablation")):
                if figure.exists():
                    parts.append(
                        f"![{figure.with_suffix('.txt').read_text(encoding='utf-8').strip()}](lab_utils/recorded/bench/{figure.name})"
                    )
        if record["course"]:
            parts.append(bench_report.course_table(record["course"]))
    return "\n\n".join(parts) or "No bench is recorded yet."


def _search() -> str:
    rows = []
    for search in json.loads((RECORDED / "searches.json").read_text(encoding="utf-8")):
        losses = ", ".join(f"{row['learning_rate']:g}: {row['validation_loss']:.3f}" for row in search["tried"])
        rows.append({"recipe": search["recipe"], "method": search["method"], "learning rate: validation loss, best first": losses})
    return _table(rows)


def _recipes() -> str:
    rows = []
    for name in config.recipe_names():
        recipe = config.load_recipe(name)
        plans = {method: plan.make(config.resolve(name, method), devices.T4) for method in recipe.methods}
        smallest = plans[recipe.methods[-1]]
        row = {
            "recipe": f"`{name}`",
            "what it is": recipe.title,
            "methods": ", ".join(recipe.methods),
            "parameters": f"{smallest.parameters:,}",
            "on a T4, planned GB": ", ".join(f"{method} {made.peak_gb:.1f}" for method, made in plans.items()),
            "minutes": f"{recipe.minutes:g}" if recipe.minutes else "not measured here",
        }
        rows.append(row)
    return _table(rows)


def _systems() -> str:
    parts = []
    for name in config.recipe_names():
        recipe = config.load_recipe(name)
        if recipe.all_notes:
            parts.append("\n".join([f"**`{name}`** {recipe.title}", "", *(f"- {note}" for note in recipe.all_notes)]))
    return "\n\n".join(parts)


def filled(text: str) -> str:
    """The text with every `<!-- name -->` ... `<!-- /name -->` block filled in."""
    for name, block in blocks().items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        if not pattern.search(text):
            raise ValueError(f"the README has no block '{name}'")
        text = pattern.sub(lambda match, block=block: f"{match[1]}{block}\n{match[2]}", text)
    return text


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m lab_utils.readme", description="write the README's tables from the recorded runs")
    arguments.add_argument("--keep", metavar="RUN_DIR", help="first record this run directory's results")
    arguments.add_argument("--recipe", help="under this recipe's name")
    arguments.add_argument("--data-dir", help="the run's own data, where it was a folder")
    given = arguments.parse_args()
    if given.keep:
        keep(given.keep, given.recipe, given.data_dir)
    path = ROOT / "README.md"
    files.write_text(path, filled(path.read_text(encoding="utf-8")))
    for recipe in RECIPES:
        report.figures(systems(recipe)[0])["scores"].save(RECORDED / recipe / "scores.png")


if __name__ == "__main__":
    main()
