"""Finished runs side by side: the table, the paired differences, and what they allow one to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from lab_utils import metrics
from lab_utils.data import lead
from lab_utils.errors import LabError
from lab_utils.plots import METHOD_NAMES
from lab_utils.runs import Finished, unlike
from lab_utils.significance import Interval, bootstrap, paired_difference


@dataclass(frozen=True)
class Line:
    """Scores of one system, document by document. `run` is None for a reference line such as lead-3."""

    name: str
    rows: list[dict]
    run: Finished | None = None

    def values(self, metric: str) -> list[float]:
        return [row[metric] for row in self.rows]


@dataclass(frozen=True)
class Difference:
    name: str
    interval: Interval
    wins: int
    ties: int
    losses: int

    def sentence(self) -> str:
        i, n = self.interval, self.wins + self.ties + self.losses
        numbers = f"95% interval {i.low:+.1f} to {i.high:+.1f}"
        pair = self.name[0].upper() + self.name[1:]
        if not i.excludes_zero():
            return f"{pair}: no detectable difference at n = {n} ({i.mean:+.1f} points of ROUGE-1, {numbers})."
        return f"{pair}: {'better' if i.mean > 0 else 'worse'} by {abs(i.mean):.1f} points of ROUGE-1 ({numbers}, n = {n})."


def lines(finished: Sequence[Finished], documents: dict[str, str] | None = None) -> list[Line]:
    """One line per run, after the reference lines: lead-3, and one reference against the others where there are several.

    Args:
        documents: id -> text of the test documents, for lead-3.

    Raises:
        LabError: nothing to compare, or runs that must not be compared, with every reason.
    """
    if not finished:
        raise LabError("No finished run to compare: run at least notebook 01 first (`lab run --only 01`).")
    if reasons := unlike(finished):
        raise LabError(f"These runs cannot be compared: {'; '.join(reasons)}. Run them again with one recipe.")
    for run in finished:
        if [p.id for p in run.predictions] != [p.id for p in finished[0].predictions]:
            raise LabError(f"The predictions of {run.method} are not for the documents of {finished[0].method}: run it again.")
    items = finished[0].predictions
    found = []
    if documents is not None:
        found.append(Line("lead-3", metrics.score([_Candidate(p.id, lead(documents[p.id]), p.references) for p in items])))
    found += [Line(METHOD_NAMES[run.method], metrics.score(run.predictions), run) for run in finished]
    if all(len(p.references) > 1 for p in items):
        found.append(Line("one reference against the others", _leave_one_out(items)))
    return found


@dataclass(frozen=True)
class _Candidate:
    id: str
    prediction: str
    references: Sequence[str]


def _leave_one_out(items) -> list[dict]:
    """Each reference scored against the others, averaged: what agreement between writers is worth in ROUGE."""
    result = []
    for item in items:
        rows = []
        for i, reference in enumerate(item.references):
            others = item.references[:i] + item.references[i + 1 :]
            rows += metrics.score([_Candidate(item.id, reference, others)])
        result.append({"id": item.id} | {key: sum(row[key] for row in rows) / len(rows) for key in rows[0] if key != "id"})
    return result


def differences(systems: Sequence[Line], metric: str = "rouge1") -> list[Difference]:
    """Every pair of runs, later minus earlier, over the same documents."""
    found = []
    for first, second in combinations([s for s in systems if s.run], 2):
        a, b = second.values(metric), first.values(metric)
        gaps = [x - y for x, y in zip(a, b, strict=True)]
        found.append(
            Difference(
                f"{second.name} against {first.name}",
                paired_difference(a, b),
                wins=sum(gap > 1e-9 for gap in gaps),
                ties=sum(abs(gap) <= 1e-9 for gap in gaps),
                losses=sum(gap < -1e-9 for gap in gaps),
            )
        )
    return found


def table(systems: Sequence[Line]) -> list[dict]:
    """One row per system: ROUGE as `mean [low, high]`, and what it cost. Missing costs are None."""
    rows = []
    for system in systems:
        row = {"system": system.name}
        for label, metric in [
            ("ROUGE-1", "rouge1"),
            ("ROUGE-2", "rouge2"),
            ("ROUGE-L", "rougeL"),
            ("ROUGE-1, best reference", "best_rouge1"),
        ]:
            row[label] = str(bootstrap(system.values(metric)))
        rows.append(row | (_costs(system.run.record) if system.run else dict.fromkeys(COSTS)))
    return rows


COSTS = ("trained share", "training s", "peak GB", "saved MB", "ended by itself")


def _costs(record: dict) -> dict:
    model, training = record["model"], record.get("training")
    ended = f"{record['generation']['stopped_share']:.0%}"
    if training is None:
        return dict(zip(COSTS, ("0%", "0", f"{record['generation']['peak_memory_gb']:.1f}", "0", ended), strict=True))
    trained = model["trainable_parameters"]
    total = model["parameters"] + (trained if record["method"] != "full" else 0)
    values = (
        f"{trained / total:.2%}",
        f"{training['seconds']:.0f}",
        f"{training['peak_memory_gb']:.1f}",
        f"{model['checkpoint_mb']:.0f}",
        ended,
    )
    return dict(zip(COSTS, values, strict=True))


def ledger(finished: Sequence[Finished]) -> list[dict]:
    """What each run cost and scored, for the table that grows from notebook to notebook; zero-shot's memory is that of generating."""
    rows = []
    for run in finished:
        record = run.record
        training = record.get("training", {"seconds": 0, "peak_memory_gb": record["generation"]["peak_memory_gb"]})
        rows.append(
            {
                "method": METHOD_NAMES[run.method],
                "trainable parameters": f"{record['model'].get('trainable_parameters', 0):,}",
                "peak memory GB": training["peak_memory_gb"],
                "training minutes": round(training["seconds"] / 60, 1),
                "checkpoint MB": record["model"].get("checkpoint_mb", 0),
                "ROUGE-1": str(Interval(**record["metrics"]["rouge1"])),
            }
        )
    return rows


def findings(systems: Sequence[Line]) -> list[str]:
    """What the numbers allow one to say, in sentences: methods against zero-shot and each other, then against the reference lines."""
    said = [difference.sentence() for difference in differences(systems)]
    by_name = {system.name: system for system in systems}
    best = max((s for s in systems if s.run), key=lambda s: bootstrap(s.values("rouge1")).mean)
    for name in ("lead-3", "one reference against the others"):
        if name in by_name:
            gap = paired_difference(best.values("rouge1"), by_name[name].values("rouge1"))
            verdict = "above" if gap.low > 0 else "below" if gap.high < 0 else "not detectably different from"
            numbers = f"{gap.mean:+.1f} points, 95% interval {gap.low:+.1f} to {gap.high:+.1f}"
            said.append(f"The highest mean, {best.name}, is {verdict} the line '{name}' ({numbers}).")
    return said
