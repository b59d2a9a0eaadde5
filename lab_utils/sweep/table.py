"""The table of a sweep, made from records alone, with a best that is chosen on validation data."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from lab_utils import files, plots
from lab_utils.sweep.figure import Group, figure, is_numeric
from lab_utils.sweep.grid import shown
from lab_utils.sweep.records import Plan, Planned, read_plan, record_of

TABLE = "sweep.md"


def report(out: str | Path) -> Path:
    """Writes sweep.csv (a line for each point), sweep.md (seeds together, with figure) and sweep.png from the records; returns sweep.md.

    It only reads, so records of other machines may be copied into `out` first. The best is chosen on the validation loss alone, and only
    where all were measured on the same documents with the same base.

    Raises:
        LabError: `out` holds no sweep.
    """
    out = Path(out)
    plan = read_plan(out)
    rows = [_row(out, point) for point in plan.points]
    groups: dict[str, Group] = {}
    for point, row in zip(plan.points, rows, strict=True):
        group = Group(point.method, point.varied, [])
        groups.setdefault(group.label, group).rows.append(row)
    most_first = sorted(plan.points, key=lambda point: -len(point.varied))  # a method that has them all has them in the grid's order
    names = list(dict.fromkeys(name for point in most_first for name in point.varied))
    _write_csv(out / "sweep.csv", rows, names)
    picture = figure(list(groups.values()), names)
    if picture:
        picture.save(out / "sweep.png")
    else:
        for stale in ("sweep.png", "sweep.txt"):
            (out / stale).unlink(missing_ok=True)
    files.write_text(out / TABLE, _page(plan.title, list(groups.values()), names, _strangers(out, plan), picture))
    return out / TABLE


def _row(out: Path, point: Planned) -> dict:
    """What is known of a point, in the units of the record: nats, ROUGE x 100, seconds, GB. None: not known."""
    record = record_of(out, point.key, point.method)
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
    files.write_text(path, text.getvalue())


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
        cells = [group.method, *(shown(group.varied[name]) if name in group.varied else "-" for name in names)]
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
        tried = sorted({g.varied[name] for g in groups if g.method == best.method and is_numeric(g.varied.get(name))})
        if len(tried) > 1 and best.varied.get(name) in (tried[0], tried[-1]):
            end = "lowest" if best.varied[name] == tried[0] else "highest"
            said.append(f"{name} {shown(best.varied[name])} is the {end} that was tried: a lower loss may lie beyond it.")
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
