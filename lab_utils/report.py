"""report.html: one self-contained page from the records of a run directory."""

from __future__ import annotations

import base64
import csv
from html import escape
from pathlib import Path
from textwrap import shorten

from lab_utils import comparison, plots, runs
from lab_utils.data import Example
from lab_utils.significance import bootstrap

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Summarization lab report</title><style>{style}</style></head>
<body><h1>What each method bought</h1>{body}</body></html>
"""
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b; background: #fff }
h1 { line-height: 1.2 } h2 { margin-top: 2.5rem } figure { margin: 1rem 0 } img { max-width: 100%; height: auto }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #ddd; vertical-align: top }
th { border-bottom: 2px solid #1b1b1b } .scroll td, .scroll th { white-space: nowrap }
.quiet { color: #595959 } dd { margin: 0 0 .6rem } dt { font-weight: 600 }
details { border-bottom: 1px solid #ddd; padding: .5rem 0 } pre { white-space: pre-wrap; font: inherit; color: #595959 }
"""


def build(run_dir: str | Path, test: list[Example] | None = None) -> dict:
    """Everything the report says, as plain data: `findings`, `table`, `differences`, `protocol`, `runs`.

    Args:
        test: the test examples, for lead-3 and the dialogues; without them both are left out.
    """
    finished = runs.read_all(run_dir)
    documents = {e.id: e.document for e in test} if test else None
    if documents is not None and finished and any(p.id not in documents for p in finished[0].predictions):
        documents = None
    systems = comparison.lines(finished, documents)
    return {
        "findings": comparison.findings(systems),
        "table": comparison.table(systems),
        "differences": [
            {
                "pair": d.name,
                "mean": d.interval.mean,
                "low": d.interval.low,
                "high": d.interval.high,
                "win_tie_loss": [d.wins, d.ties, d.losses],
            }
            for d in comparison.differences(systems)
        ],
        "protocol": finished[0].record["metrics"]["protocol"] | {"n": len(finished[0].predictions)},
        "runs": [run.record for run in finished],
        "_systems": systems,
        "_documents": documents or {},
    }


def write(run_dir: str | Path, test: list[Example] | None = None) -> Path:
    """Writes report.html beside the records and returns its path."""
    facts = build(run_dir, test)
    path = Path(run_dir) / "report.html"
    runs.write_text(path, _page(facts))
    return path


def figures(systems) -> dict[str, plots.Picture]:
    """The report's figures: scores, paired differences, cost against quality, loss curves."""
    made = {}
    scores = {s.name: bootstrap(s.values("rouge1")) for s in systems}
    made["scores"] = plots.intervals({name: (i.mean, i.low, i.high) for name, i in scores.items()}, "ROUGE-1 (mean over references)")
    pairs = comparison.differences(systems)
    if pairs:
        rows = {d.name: (d.interval.mean, d.interval.low, d.interval.high) for d in pairs}
        made["differences"] = plots.intervals(rows, "difference in ROUGE-1 points", zero_line=True)
    costs = {}
    for s in systems:
        if s.run and "training" in s.run.record:
            i = scores[s.name]
            costs[s.run.method] = (s.run.record["training"]["peak_memory_gb"], i.mean, i.low, i.high)
    if costs:
        made["cost"] = plots.cost_and_quality(costs, "peak memory in training, GB", "ROUGE-1")
    curves = {s.run.method: read_log(s.run.folder / "log.csv") for s in systems if s.run and (s.run.folder / "log.csv").is_file()}
    if curves:
        made["losses"] = plots.losses(curves)
    return made


def read_log(path: Path) -> list[dict]:
    """Rows of a log.csv as numbers; empty cells are None."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [{key: float(value) if value else None for key, value in row.items()} for row in csv.DictReader(file)]
    return [row | {"step": int(row["step"])} for row in rows]


def _page(facts: dict) -> str:
    systems, record = facts["_systems"], facts["runs"][0]
    data, model, environment = record["data"], record["model"], record["environment"]
    intro = (
        f"{escape(model['name'])}, {model['parameters']:,} parameters, on {data['test']} test documents of '{escape(data['name'])}' "
        f"({data['train']} for training). Recipe {escape(record['recipe'])}, seed {record['seed']}, on {escape(environment['device'])}, "
        f"{escape(environment['precision'])} products."
    )
    parts = [f"<p>{intro}</p>", "<h2>Findings</h2>", "<ul>", *(f"<li>{escape(s)}</li>" for s in facts["findings"]), "</ul>"]
    parts += ["<h2>Scores and costs</h2>", _table(facts["table"])]
    parts += [
        '<p class="quiet">ROUGE in points with 95% intervals; the first three average over a document\'s references. '
        "'ended by itself': answers that ended before the length limit.</p>"
    ]
    titles = {"scores": "Scores", "differences": "Paired differences", "cost": "Cost and quality", "losses": "Training"}
    for name, picture in figures(systems).items():
        image = base64.b64encode(picture.png).decode()
        parts += [f'<h2>{titles[name]}</h2><figure><img alt="{escape(picture.alt)}" src="data:image/png;base64,{image}"></figure>']
    parts += ["<h2>Summaries side by side</h2>", *_examples(systems, facts["_documents"])]
    protocol = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in facts["protocol"].items())
    packages = ", ".join(f"{k} {v}" for k, v in environment["packages"].items())
    parts += ["<h2>Protocol and environment</h2>", f"<dl>{protocol}<dt>packages</dt><dd>{escape(packages)}</dd></dl>"]
    return PAGE.format(style=STYLE, body="".join(parts))


def _table(rows: list[dict]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{'' if v is None else escape(str(v))}</td>" for v in row.values()) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _examples(systems, documents: dict[str, str]) -> list[str]:
    blocks = []
    trained = [s for s in systems if s.run]
    for number, item in enumerate(trained[0].run.predictions):
        answers = "".join(f"<dt>{escape(s.name)}</dt><dd>{escape(s.run.predictions[number].prediction) or '(empty)'}</dd>" for s in trained)
        references = "".join(f"<dd>{escape(r)}</dd>" for r in item.references)
        document = f"<pre>{escape(documents[item.id])}</pre>" if item.id in documents else ""
        title = shorten(f"{item.id}: {item.references[0]}", 100, placeholder=" ...")
        blocks.append(f"<details{' open' if number == 0 else ''}><summary>{escape(title)}</summary>{document}"
                      f"<dl>{answers}<dt>references</dt>{references}</dl></details>")  # fmt: skip
    return blocks
