"""Writes the README's tables and figure from the recorded runs under lab_utils/recorded: no figure there is typed by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lab_utils import comparison, config, data, report, runs
from lab_utils.training import duration

ROOT = Path(__file__).resolve().parents[1]
RECORDED = Path(__file__).parent / "recorded"
RECIPE = "smollm2-everyday"
FIGURE = RECORDED / RECIPE / "scores.png"


def _systems() -> list[comparison.Line]:
    corpus = data.load(config.load_recipe(RECIPE).data)
    return comparison.lines(runs.read_all(RECORDED / RECIPE), {e.id: e.document for e in corpus.test})


def blocks() -> dict[str, str]:
    """The text of each generated block by its name."""
    systems = _systems()
    return {
        "results": "\n\n".join([_results(systems), _conditions(systems), _findings(systems)]),
        "search": _search(),
        "recipes": _recipes(),
    }


def _table(rows: list[dict]) -> str:
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([("" if row[k] is None else str(row[k])) for k in head] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _results(systems) -> str:
    return _table(comparison.table(systems))


def _conditions(systems) -> str:
    record = next(s.run.record for s in systems if s.run)
    trained = next(s.run.record for s in systems if s.run and "training" in s.run.record)["training"]
    minutes = config.load_recipe(RECIPE).minutes
    protocol = record["metrics"]["protocol"]
    return (
        f"{record['model']['name']}, {record['data']['test']} test dialogues, {trained['examples']} training dialogues seen once in "
        f"{trained['steps']} steps, seed {record['seed']}. ROUGE by {protocol['package']} with stemmer, {protocol['measure']}; "
        "the first three columns are means over three references; brackets are 95% bootstrap intervals over dialogues. "
        f"Machine: {record['environment']['device']}, "
        f"{record['environment']['precision']} products. All five notebooks: {duration(minutes * 60)}."
    )


def _findings(systems) -> str:
    return "\n".join(f"- {sentence}" for sentence in comparison.findings(systems))


def _search() -> str:
    rows = []
    for search in json.loads((RECORDED / "searches.json").read_text(encoding="utf-8")):
        losses = ", ".join(f"{row['learning_rate']:g}: {row['validation_loss']:.3f}" for row in search["tried"])
        rows.append({"recipe": search["recipe"], "method": search["method"], "learning rate: validation loss, best first": losses})
    return _table(rows)


def _recipes() -> str:
    rows = []
    for name in config.recipe_names():
        r = config.load_recipe(name)
        minutes = f"{r.minutes:g}" if r.minutes else "not measured"
        rows.append({"recipe": f"`{name}`", "what it is": r.title, "methods": ", ".join(r.methods), "minutes": minutes})
    return _table(rows)


def filled(text: str) -> str:
    """The text with every `<!-- name -->` ... `<!-- /name -->` block filled in."""
    for name, block in blocks().items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        if not pattern.search(text):
            raise ValueError(f"the README has no block '{name}'")
        text = pattern.sub(lambda match, block=block: f"{match[1]}{block}\n{match[2]}", text)
    return text


def main() -> None:
    path = ROOT / "README.md"
    path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
    systems = _systems()
    report.figures(systems)["scores"].save(FIGURE)


if __name__ == "__main__":
    main()
