"""report.html: one self-contained page from the records of a run directory, written by a template from plain facts."""

from __future__ import annotations

import base64
import csv
import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from textwrap import shorten

from lab_utils import (
    analysis,
    companions,
    comparison,
    encoder_score,
    files,
    flagging,
    metrics,
    plots,
    rating,
    runs,
    scrubbing,
    texts,
    tracing,
)
from lab_utils.data import Example
from lab_utils.errors import LabError
from lab_utils.significance import bootstrap

TEMPLATE = Path(__file__).with_suffix(".html.jinja")
LEVELS = (0.04, 0.1, 0.2)  # shares of a summary from which on a turn is marked lightly, clearly, strongly
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")  # not allowed in a page, or not writable


@dataclass(frozen=True)
class Material:
    """What a page is made from: the finished runs, their scores, the test examples by id where these are known, and what looks wrong with
    each summary (system -> document -> flags)."""

    finished: list[runs.Finished]
    systems: list[comparison.Line]
    examples: dict[str, Example] | None
    flags: dict[str, list[list[flagging.Flag]]]


def build(run_dir: str | Path, test: Sequence[Example] | None = None, encoder: str | None = None) -> dict:
    """Everything that the page says in numbers and sentences, as plain data: `lab report --json` prints it.

    Texts of data and models are not in it, only ids; numbers that are not finite are None, since JSON has no word for them.

    Args:
        test: the test examples, for copies such as lead-3, flags and slices; without them these are None or left out.
        encoder: folder or hub id of a text encoder, for BERTScore; without it there is none.

    Raises:
        LabError: no finished run, runs that must not be compared, or no such encoder.
    """
    return _facts(Path(run_dir), _material(run_dir, test), encoder)


def write(run_dir: str | Path, test: Sequence[Example] | None = None) -> Path:
    """Writes report.html beside the records and returns its path."""
    return make(run_dir, test)[0]


def make(run_dir: str | Path, test: Sequence[Example] | None = None, encoder: str | None = None) -> tuple[Path, dict]:
    """What `write` and `build` return, computed once."""
    material = _material(run_dir, test)
    facts = _facts(Path(run_dir), material, encoder)
    path = Path(run_dir) / "report.html"
    files.write_text(path, scrubbing.without_secrets(_page(facts, figures(material.systems), _texts(material))))
    return path, facts


def figures(systems: Sequence[comparison.Line]) -> dict[str, plots.Picture]:
    """The report's figures by name, as far as the runs allow: scores, paired differences, cost against quality, loss curves."""
    scores = {s.name: bootstrap(s.values("rouge1")) for s in systems}
    rows = {name: (i.mean, i.low, i.high) for name, i in scores.items()}
    made = {"scores": plots.intervals(rows, "ROUGE-1 (mean over references)", clear=[s.name for s in systems if s.run])}
    if pairs := comparison.differences(systems):
        rows = {d.name: (d.interval.mean, d.interval.low, d.interval.high) for d in pairs}
        clear = [d.name for d in pairs if d.detected]
        made["differences"] = plots.intervals(rows, "difference in ROUGE-1 points", zero_line=True, clear=clear)
    trained = [(s.run, scores[s.name]) for s in systems if s.run and "training" in s.run.record]
    costs = {run.method: (run.record["training"]["peak_memory_gb"], i.mean, i.low, i.high) for run, i in trained}
    if costs:
        made["cost"] = plots.cost_and_quality(costs, "peak memory in training, GB", "ROUGE-1")
    if curves := _curves([s.run for s in systems if s.run]):
        made["losses"] = plots.losses(curves)
    return made


def read_log(path: Path) -> list[dict]:
    """Rows of a log.csv as numbers; empty cells are None.

    Raises:
        LabError: it cannot be read, or holds something else.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{key: float(value) if value else None for key, value in row.items()} for row in csv.DictReader(file, strict=True)]
        return [row | {"step": int(row["step"])} for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise LabError(
            f"{path.name} of {path.parent.name} cannot be read ({scrubbing.reason(error)}): run the method again, or delete the file "
            "and do without its curve."
        ) from error


def _material(run_dir: str | Path, test: Sequence[Example] | None) -> Material:
    finished = runs.read_all(run_dir)
    examples = {e.id: e for e in test} if test else None
    if examples is not None and finished and any(p.id not in examples for p in finished[0].predictions):
        examples = None
    systems = comparison.lines(finished, examples and {i: e.document for i, e in examples.items()})
    flags = {s.name: [flagging.flags(p, examples[p.id]) if examples else [] for p in s.run.predictions] for s in systems if s.run}
    return Material(finished, systems, examples, flags)


def _facts(run_dir: Path, material: Material, encoder: str | None) -> dict:
    finished, systems = material.finished, material.systems
    ran = [s.name for s in systems if s.run]
    records, examples = [run.record for run in finished], _examples(material)
    counts = {kind: {name: sum(kind in e["flags"][name] for e in examples) for name in ran} for kind in flagging.KINDS}
    found = {
        "n": len(finished[0].predictions),
        "findings": comparison.findings(systems),
        "table": comparison.table(systems),
        "systems": [_system(line, encoder) for line in systems],
        "signatures": _signatures(systems, encoder),
        "left_out": companions.meteor_missing(),
        "differences": [_difference(d) for d in comparison.differences(systems)],
        "ledger": comparison.ledger(finished) if all("rouge1" in record["metrics"] for record in records) else None,
        "curves": _curves(finished),
        "flags": counts if material.examples else None,
        **_groups(material),
        "people": rating.results(run_dir, systems),
        "examples": examples,
        "protocol": metrics.PROTOCOL.describe(),
        "notes": _notes(finished, systems),
        "settings": _settings(records),
        "runs": records,
    }
    return _finite(found)


def _difference(d: comparison.Difference) -> dict:
    tested = {"p": d.p, "p_holm": d.p_holm, "detectable": d.detectable, "detected": d.detected}
    return {"pair": d.name, **asdict(d.interval), "wins": d.wins, "ties": d.ties, "losses": d.losses, **tested}


def _groups(material: Material) -> dict:
    """`groups` (length, speakers -> rows), `late` and its sentences, and `profile`; None without the documents."""
    if not material.examples:
        return dict.fromkeys(("groups", "late", "late_sentences", "profile"))
    systems, test = material.systems, [material.examples[p.id] for p in material.finished[0].predictions]
    return {
        "groups": {by: [_plain_interval(row) for row in analysis.slices(systems, test, by)] for by in ("length", "speakers")},
        "late": [
            {
                "system": row["system"],
                "early": _plain_interval(row["early"]),
                "late": _plain_interval(row["late"]),
                "difference": row["difference"] and asdict(row["difference"]),
            }
            for row in analysis.late(systems, test)
        ],
        "late_sentences": analysis.late_sentences(systems, test),
        "profile": analysis.profile(systems, test),
    }


def _plain_interval(row: dict) -> dict:
    """A row with `low` and `high` in place of its interval; without them where there are too few documents for one."""
    ends = {"low": row["interval"].low, "high": row["interval"].high} if row["interval"] else {}
    return {key: value for key, value in row.items() if key != "interval"} | ends


def _system(line: comparison.Line, encoder: str | None) -> dict:
    summary = metrics.summarize(line.rows)
    scores = {name: value for name, value in summary.items() if isinstance(value, dict) and "mean" in value}
    beside = summary["companions"]
    if line.run:
        corpus = companions.corpus(line.run.predictions)
        beside |= {name: {"mean": found["score"], "low": found["low"], "high": found["high"]} for name, found in corpus.items()}
        if encoder:
            beside["bertscore"] = asdict(bootstrap(encoder_score.score(line.run.predictions, encoder)))
    return {"name": line.name, "method": line.run and line.run.method, "scores": scores, "companions": beside}


def _signatures(systems: Sequence[comparison.Line], encoder: str | None) -> dict[str, str]:
    """How the measures of the test set as a whole were taken."""
    run = next(line.run for line in systems if line.run)
    found = {name: measured["signature"] for name, measured in companions.corpus(run.predictions).items()}
    return found | ({"bertscore": f"last layer of {Path(encoder).name}, F1, best reference, no rescaling"} if encoder else {})


def _curves(finished: Sequence[runs.Finished]) -> dict[str, list[dict]]:
    """Method -> step, loss and validation loss; None where nothing finite was logged."""
    logs = {run.method: read_log(run.folder / "log.csv") for run in finished if (run.folder / "log.csv").is_file()}
    return {
        method: [{"step": row["step"], **{key: _finite(row.get(key)) for key in ("loss", "validation_loss")}} for row in log]
        for method, log in logs.items()
    }


def _finite(value):
    """Plain data, or a part of it, with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _examples(material: Material) -> list[dict]:
    """For each document the ROUGE-1 of every system, the kinds of flags of every run, and how widely the runs' scores are spread."""
    ran = [s for s in material.systems if s.run]
    found = []
    for number, row in enumerate(ran[0].rows):
        scores = {s.name: s.rows[number]["rouge1"] for s in material.systems}
        own = [scores[s.name] for s in ran]
        flags = {s.name: [flag.kind for flag in material.flags[s.name][number]] for s in ran}
        found.append({"id": row["id"], "rouge1": scores, "spread": max(own) - min(own), "flags": flags})
    return found


def _texts(material: Material) -> list[dict]:
    """For each document its title, turns, references and summaries, and how strongly (0 to 3) each summary leans on each turn."""
    ran = [s for s in material.systems if s.run]
    found = []
    for number, item in enumerate(ran[0].run.predictions):
        document = material.examples[item.id].document if material.examples else ""
        summaries = []
        for s in ran:
            text = s.run.predictions[number].prediction
            levels = [sum(share >= limit for limit in LEVELS) for share in tracing.leaning(text, document)]
            turns = [turn for turn, level in enumerate(levels, 1) if level]
            summaries.append({"system": s.name, "text": text, "flags": material.flags[s.name][number], "levels": levels, "turns": turns})
        title = shorten(item.references[0][:400], 120, placeholder=" ...")
        found.append({"title": title, "turns": texts.units(document), "references": item.references, "summaries": summaries})
    return found


def _notes(finished: Sequence[runs.Finished], systems: Sequence[comparison.Line]) -> list[str]:
    """What the records say of data and model, and where a record's score is not that of its predictions."""
    said = []
    for run in finished:
        said += run.record["data"].get("notes", []) + run.record["config"]["recipe"].get("notes", [])
    for line in systems:
        recorded = line.run.record["metrics"].get("rouge1") if line.run else None
        again = fmean(line.values("rouge1"))
        if recorded and abs(recorded["mean"] - again) > 0.05:
            said.append(
                f"The record of {line.name} says {recorded['mean']:.1f} ROUGE-1; its predictions give {again:.1f}, which stands here. "
                "One of the two files was changed, or the record was made with another protocol."
            )
    return list(dict.fromkeys(said))


def _settings(records: Sequence[Mapping]) -> dict:
    """Every value of the records but the scores: `shared` by all runs (path -> value), and `differing` (path -> method -> value)."""
    flat = {record["method"]: dict(_flat({k: v for k, v in record.items() if k != "metrics"})) for record in records}
    shared, differing = {}, {}
    for path in dict.fromkeys(path for values in flat.values() for path in values):
        values = {method: found[path] for method, found in flat.items() if path in found}
        same = len(values) == len(flat) and all(value == next(iter(values.values())) for value in values.values())
        (shared if same else differing)[path] = next(iter(values.values())) if same else values
    return {"shared": shared, "differing": differing}


def _flat(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _page(facts: dict, pictures: Mapping[str, plots.Picture], texts: Sequence[dict]) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_visible)
    environment.filters |= {"sha256": _sha256, "p_value": comparison.p_text, "plain": _plain, "data_uri": _data_uri}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        facts=facts, record=facts["runs"][0], recipe=facts["runs"][0]["config"]["recipe"], pictures=pictures, texts=texts,
        names=plots.METHOD_NAMES, kinds=flagging.KINDS, labels=companions.LABELS, meanings=companions.MEANINGS, costs=comparison.COSTS,
        ran=[s["name"] for s in facts["systems"] if s["method"]], measures=_decimals(facts["systems"]), steps=_steps(facts["curves"]),
    )  # fmt: skip


def _steps(curves: Mapping[str, Sequence[dict]], most: int = 30) -> list[tuple[int, dict]]:
    """Rows of the curves' table: step -> (method, kind of loss) -> value; of long runs some `most` steps, and all with a validation."""
    rows = {}
    for method, log in curves.items():
        for row in log:
            given = {(method, key): row[key] for key in ("loss", "validation_loss") if row[key] is not None}
            rows.setdefault(row["step"], {}).update(given)
    every = -(-len(rows) // most)
    kept = [i % every == 0 or any(key == "validation_loss" for _, key in rows[step]) for i, step in enumerate(sorted(rows))]
    return [(step, rows[step]) for step, keep in zip(sorted(rows), kept, strict=True) if keep]


def _decimals(systems: Sequence[dict]) -> dict[str, int]:
    """Companion -> decimals to show: shares with two, what goes into the tens with one."""
    largest = {}
    for system in systems:
        for key, found in system["companions"].items():
            largest[key] = max(largest.get(key, 0), found["high"])
    return {key: 1 if value >= 10 else 2 for key, value in largest.items()}


def _visible(value: object) -> object:
    """Characters that a page must not hold become U+FFFD; what the template itself made passes."""
    return _UNSEEN.sub("\ufffd", value) if type(value) is str else value


def _sha256(text: str) -> str:
    """As a Content-Security-Policy names the one script and the one style that may run."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data_uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _plain(value: object) -> str:
    """A value of a record as a reader writes it."""
    if value is None or value == [] or value == {}:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)
