"""Whether a submission's numbers hold: scores counted again, work that adds up, full length, losses, limits, the usual range.

Each check takes a case and yields what it found, as (method, state, sentence).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from lab_utils import expected
from lab_utils.config import Settings
from lab_utils.significance import bootstrap
from lab_utils.submissions.expectations import Case, recorded
from lab_utils.submissions.fairness import FINE, LOOK, WRONG, Said
from lab_utils.submissions.records import at, decisive, minutes, named, number, peak_memory, recounted, shown, total

ROUNDING = 0.01  # points of ROUGE: far above what versions of numpy round differently, far below what anybody would edit for
ALMOST_ALL = 0.95  # of the assigned steps: training leaves out examples whose summary is too long


def scores(case: Case) -> Iterator[Said]:
    """What the record says of its summaries, counted again from these."""
    for method, record in case.finished.items():
        rows, name = case.rows(method), named(method)
        again = recounted(rows)
        if again is None:
            state, why = (WRONG, "they are far longer than any model writes, or lack references") if rows else (LOOK, "there are none")
            yield method, state, f"The scores of {name} could not be counted again from its summaries: {why}."
            continue
        wrong, odd = list(_wrong_scores(record, rows, again)), list(_odd_interval(record, again))
        if wrong or odd:
            yield method, WRONG if wrong else LOOK, f"The record of {name} is not what its summaries give: {'; '.join(wrong + odd)}."
        else:
            mean = fmean(again["rouge1"])
            yield method, FINE, f"The scores of {name}, counted again from {len(rows)} summaries, are those recorded: ROUGE-1 {mean:.1f}."


def _wrong_scores(record: dict, rows: Sequence[dict], again: dict[str, list[float]]) -> Iterator[str]:
    means = {f"metrics.{name}.mean": (expected.MEASURES.get(name, "ROUGE-Lsum"), fmean(values)) for name, values in again.items()}
    counts = {
        "metrics.n": ("the number of documents", len(rows)),
        "generation.examples": ("the number of summaries", len(rows)),
        "generation.stopped_share": ("the share that ended by itself", fmean(bool(row["stopped"]) for row in rows)),
    }
    for path, (what, right) in (means | counts).items():
        if not _close(at(record, path), right):
            yield f"{what} is recorded as {shown(at(record, path))} and is {round(right, 2):g}"


def _odd_interval(record: dict, again: dict[str, list[float]]) -> Iterator[str]:
    """Another version of numpy may draw another interval, so this alone is no contradiction."""
    low, high = at(record, "metrics.rouge1.low"), at(record, "metrics.rouge1.high")
    right = bootstrap(again["rouge1"])
    if not (_close(low, right.low) and _close(high, right.high)):
        yield f"the interval of ROUGE-1 is recorded as {shown(low)} to {shown(high)} and is {right.low:.2f} to {right.high:.2f}"


def _close(given: Any, right: float) -> bool:
    return (found := number(given)) is not None and abs(found - right) <= ROUNDING


def budget(case: Case) -> Iterator[Said]:
    """Documents, steps, tokens and seconds against settings and data, and the same budget for methods that were assigned the same."""
    for method, record in case.finished.items():
        wrong = list(_wrong_work(case, method, record)) if method != "zero_shot" else []
        wrong += _wrong_pace(record, case.rows(method))
        if wrong:
            yield method, WRONG, f"What the record of {named(method)} says of its work does not agree: {'; '.join(wrong)}."
        else:
            yield method, FINE, f"The work that the record of {named(method)} speaks of agrees with its settings and adds up."
    plans = [case.settings[method] for method in case.trained]
    assigned_same = len({(s.recipe.data, s.training.epochs, s.training.batch_size) for s in plans}) == 1
    own = {m: [shown(at(r, path)) for path in ("data.train", "data.validation", "training.examples")] for m, r in case.trained.items()}
    if assigned_same and len(set(map(tuple, own.values()))) > 1:
        which = "; ".join(f"{named(method)} {', '.join(values)}" for method, values in own.items())
        yield None, WRONG, f"The methods got different budgets (training documents, validation documents, examples seen): {which}."


def _wrong_work(case: Case, method: str, record: dict) -> Iterator[str]:
    corpus, training = case.corpus(method), case.settings[method].training
    for split in ("train", "validation") if corpus else ():
        given, right = at(record, f"data.{split}"), len(getattr(corpus, split))
        if given != right:
            yield f"{shown(given)} {split} documents (should be {right})"
    steps, seen, assigned = number(at(record, "training.steps")), number(at(record, "training.examples")), case.steps(method)
    if not steps or steps < 1 or not seen:
        yield "steps or examples are missing"
        return
    if assigned and (steps > assigned or expected.SMOKE * assigned <= steps < ALMOST_ALL * assigned):
        yield f"{steps:g} steps (the settings ask for {assigned})"
    if not (steps - math.ceil(training.epochs)) * training.batch_size < seen <= steps * training.batch_size:
        yield f"{seen:g} examples in {steps:g} steps of {training.batch_size}"


def _wrong_pace(record: dict, rows: Sequence[dict]) -> Iterator[str]:
    """Tokens, seconds and tokens a second that contradict each other, beyond the rounding of the latter two to a tenth."""
    parts = {"training": at(record, "training.tokens")} if "training" in record else {}
    if rows:
        parts["generation"] = sum(row["tokens"] for row in rows)
    for part, given in parts.items():
        tokens, seconds, rate = (number(v) for v in (given, at(record, f"{part}.seconds"), at(record, f"{part}.tokens_per_second")))
        if tokens is None or seconds is None or rate is None or min(tokens, seconds, rate) < 0 or (tokens == 0 and part == "training"):
            yield f"{part}: tokens, seconds or tokens a second are missing or not positive"
        elif abs(tokens - rate * seconds) > 0.05 * (rate + seconds) + 0.01 * tokens + 1:
            yield f"{part}: {tokens:g} tokens in {seconds:g} s are not {rate:g} tokens a second"


def length(case: Case) -> Iterator[Said]:
    """Runs on fewer steps or documents than assigned, as one makes to try things out."""
    for method, record in case.finished.items():
        corpus, assigned = case.corpus(method), case.steps(method)
        documents = len(corpus.test) if corpus else case.settings[method].recipe.data.test_examples
        said = []
        if assigned and (number(at(record, "training.steps")) or 0) < expected.SMOKE * assigned:
            said.append(f"{shown(at(record, 'training.steps'))} of {assigned} training steps")
        if documents and (number(at(record, "metrics.n")) or 0) < documents:
            said.append(f"{shown(at(record, 'metrics.n'))} of {documents} test documents")
        if said:
            yield method, WRONG, f"The run of {named(method)} is a try-out, not a run: {' and '.join(said)}."
        else:
            yield method, FINE, f"The run of {named(method)} has its full length."


def losses(case: Case) -> Iterator[Said]:
    """First and last loss of every training."""
    for method, record in case.trained.items():
        first, last = (number(at(record, f"training.{name}")) for name in ("first_loss", "last_loss"))
        if first is None or last is None:
            yield method, WRONG, f"The training loss of {named(method)} is missing or no number: the training may have diverged."
        else:
            yield method, FINE, f"The training loss of {named(method)} went from {first:.2f} to {last:.2f}."


def limits(case: Case) -> Iterator[Said]:
    """What the runs took against what the assignment allows. Time depends on the machine, so it is never wrong by itself."""
    allowed, records = case.assignment.limits, case.finished
    checked = [
        ("the peak memory was", peak_memory(records), allowed.memory_gb, "GB", WRONG),
        ("the checkpoints take", total(records, ["model.checkpoint_mb"], 1e-3), allowed.disk_gb, "GB", LOOK),
        ("the submission takes", number(case.submission.megabytes), allowed.upload_mb, "MB", WRONG),
        ("training and summaries took", minutes(records), allowed.minutes, "minutes", LOOK),
    ]
    for what, found, limit, unit, state in checked:
        if limit is not None and found is not None and found > limit:
            yield None, state, f"Over a limit of the assignment: {what} {found:.1f} {unit}, and {limit:g} {unit} are allowed."


def bands(case: Case) -> Iterator[Said]:
    """Scores of trained methods beside the recorded interval, where all but the seed is as it was recorded."""
    for method, record in case.trained.items():
        settings, mean, name = case.settings[method], number(at(record, "metrics.rouge1.mean")), named(method)
        band = _band(settings, record)
        if band is None or mean is None:
            yield method, FINE, f"The lab has no record of a run like that of {name} to compare its score with."
            continue
        width = band.high - band.low
        far = not band.low - width <= mean <= band.high + width
        where = f"{'far ' if far else ''}{band.side(mean)} the recorded interval, {band}"
        yield method, LOOK if far else FINE, f"ROUGE-1 of {name}, {mean:.1f}, is {where}."


def _band(settings: Settings, record: dict) -> expected.Band | None:
    own = recorded(settings.recipe.name, settings.method)
    if own is None or any(at(record, path) != at(own, path) for path in ("model.fingerprint", "data.fingerprint")):
        return None
    assigned, then = (decisive(config, settings.method) | {"seed": None} for config in (settings.model_dump(mode="json"), own["config"]))
    return expected.bands(settings.recipe.name)[settings.method]["rouge1"] if assigned == then else None
