"""Finished runs side by side: the table, the paired differences, and what they allow one to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from lab_utils import baselines, companions, config, contamination, data, fields, metrics
from lab_utils.errors import LabError
from lab_utils.plots import METHOD_NAMES
from lab_utils.runs import Finished, read_all, unlike
from lab_utils.significance import Interval, bootstrap, holm, minimum_detectable_difference, paired_difference, permutation_test
from lab_utils.texts import capitalized


@dataclass(frozen=True)
class Line:
    """Scores of one system, document by document. `run` is None for a reference line such as lead-3."""

    name: str
    rows: list[dict]
    run: Finished | None = None

    def values(self, metric: str) -> list[float]:
        """One value per document; documents that a companion does not apply to are left out."""
        return [row[metric] for row in self.rows if row[metric] is not None]


@dataclass(frozen=True)
class Difference:
    """One system minus another on the same documents."""

    name: str
    interval: Interval
    wins: int
    ties: int
    losses: int
    p: float  # two-sided permutation test
    p_holm: float  # after Holm's correction over the pairs that were compared together
    pairs: int  # how many these were
    detectable: float | None  # the smallest true difference that would have been found 4 times in 5; None for a single document

    @property
    def detected(self) -> bool:
        """Whether the data show a difference: the corrected test and the interval must agree."""
        return self.p_holm < LEVEL and self.interval.excludes_zero()

    def numbers(self) -> str:
        """Interval, n and p, as they stand behind a sentence."""
        i, n, p = self.interval, self.wins + self.ties + self.losses, p_text(self.p_holm)
        corrected = f" with Holm's correction over {self.pairs} pairs" if self.pairs > 1 else ""
        return f"95% interval {i.low:+.1f} to {i.high:+.1f}, n = {n}, p {p if p[0] == '<' else f'= {p}'}{corrected}"

    def sentence(self) -> str:
        pair, mean = capitalized(self.name), self.interval.mean
        if self.detected:
            return f"{pair}: {'better' if mean > 0 else 'worse'} by {abs(mean):.1f} points of ROUGE-1 ({self.numbers()})."
        said = f"{pair}: no detectable difference ({mean:+.1f} points of ROUGE-1, {self.numbers()})."
        if self.detectable:
            missed = f"a true difference below {self.detectable:.1f} points would be missed more than once in five times"
            said += f" With so many documents, {missed}."
        return said


LEVEL = 0.05
HUMAN = "one reference against the others"


def p_text(value: float) -> str:
    """A p-value as a table shows it."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def test_examples(run_dir, data_dir: str | None = None):
    """The test set that the runs were scored on, where it can still be read and is the same."""
    finished = read_all(run_dir)
    if not finished:
        return None
    try:
        recorded = config.recorded(finished[0].record["config"]).recipe.data
        corpus = data.load(recorded if data_dir is None else fields.changed(recorded, source=str(data_dir)))
    except LabError:
        return None
    return corpus.test if corpus.fingerprint == finished[0].record["data"]["fingerprint"] else None


def lines(finished: Sequence[Finished], documents: Mapping[str, str] | None = None) -> list[Line]:
    """One line per run, among the reference lines: copies of parts of the document, and one reference against the others.

    Args:
        documents: id -> text of the test documents, for the copies; without it, or where one is missing, there are none.

    Raises:
        LabError: nothing to compare, runs that must not be compared, with every reason, or predictions that are lost.
    """
    if not finished:
        raise LabError("No finished run to compare: run at least notebook 01 first (`lab run --only 01`).")
    if reasons := unlike(finished):
        raise LabError(f"These runs cannot be compared: {'; '.join(reasons)}. Run them again with one recipe.")
    items = finished[0].predictions
    if not items:
        raise LabError(f"There are no predictions of {finished[0].method}: its predictions.jsonl is empty. Run it again.")
    for run in finished:
        if [p.id for p in run.predictions] != [p.id for p in items]:
            raise LabError(f"The predictions of {run.method} are not for the documents of {finished[0].method}: run it again.")
    if documents is not None and any(p.id not in documents for p in items):
        documents = None
    found = []
    if documents is not None:
        for name, copied in baselines.LINES.items():
            copies = [_Candidate(p.id, copied(documents[p.id]), p.references) for p in items]
            found.append(Line(name, metrics.score(copies, documents)))
    found += [Line(METHOD_NAMES[run.method], metrics.score(run.predictions, documents), run) for run in finished]
    if all(len(p.references) > 1 for p in items):
        found.append(Line(HUMAN, _leave_one_out(items, documents)))
    return found


@dataclass(frozen=True)
class _Candidate:
    id: str
    prediction: str
    references: Sequence[str]


def _leave_one_out(items, documents: Mapping[str, str] | None) -> list[dict]:
    """Each reference scored against the others, averaged: what agreement between writers is worth in ROUGE."""
    result = []
    for item in items:
        rows = []
        for i, reference in enumerate(item.references):
            others = item.references[:i] + item.references[i + 1 :]
            rows += metrics.score([_Candidate(item.id, reference, others)], documents)
        result.append({"id": item.id} | {key: companions.mean(row[key] for row in rows) for key in rows[0] if key != "id"})
    return result


def differences(systems: Sequence[Line]) -> list[Difference]:
    """Every pair of runs, later minus earlier, in ROUGE-1 over the same documents."""
    return _compared([(later, earlier) for earlier, later in combinations([s for s in systems if s.run], 2)])


def _compared(pairs: Sequence[tuple[Line, Line]]) -> list[Difference]:
    values = [(ours.values("rouge1"), theirs.values("rouge1")) for ours, theirs in pairs]
    raw = [permutation_test(ours, theirs) for ours, theirs in values]
    found = []
    for (ours, theirs), (a, b), p, p_holm in zip(pairs, values, raw, holm(raw), strict=True):
        gaps = [x - y for x, y in zip(a, b, strict=True)]
        found.append(
            Difference(
                f"{ours.name} against {theirs.name}",
                paired_difference(a, b),
                wins=sum(gap > 1e-9 for gap in gaps),
                ties=sum(abs(gap) <= 1e-9 for gap in gaps),
                losses=sum(gap < -1e-9 for gap in gaps),
                p=p,
                p_holm=p_holm,
                pairs=len(pairs),
                detectable=minimum_detectable_difference(gaps, level=LEVEL / len(pairs)) if len(gaps) > 1 else None,
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
    """What the numbers allow one to say, in sentences: methods against zero-shot and each other, the highest mean against the reference
    lines, and what the base model is known to have seen."""
    said = [difference.sentence() for difference in differences(systems)]
    ran = [s for s in systems if s.run]
    best = max(ran, key=_mean_rouge1)
    copies = [s for s in systems if s.name in baselines.LINES]
    bars = [max(copies, key=_mean_rouge1)] if copies else []
    bars += [s for s in systems if s.name == HUMAN]
    for bar, difference in zip(bars, _compared([(best, bar) for bar in bars]), strict=True):
        mean = difference.interval.mean
        verdict = ("above" if mean > 0 else "below") if difference.detected else "not detectably different from"
        what = f"the best copy of the document, '{bar.name}'" if bar in copies else f"the line '{bar.name}'"
        said.append(f"The highest mean, {best.name}, is {verdict} {what} ({mean:+.1f} points of ROUGE-1, {difference.numbers()}).")
    config = ran[0].run.record["config"]["recipe"]
    seen = contamination.note(config.get("model", {}).get("source", ""), config.get("data", {}).get("source", ""))
    return said + ([seen] if seen else [])


def _mean_rouge1(system: Line) -> float:
    return fmean(system.values("rouge1"))
