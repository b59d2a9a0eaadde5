"""What a student's record says, read with care: it may hold anything anywhere."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from statistics import fmean
from typing import TYPE_CHECKING, Any

from lab_utils import expected, metrics
from lab_utils.plots import METHOD_NAMES
from lab_utils.sheets import printable

if TYPE_CHECKING:
    from lab_utils.submissions.reading import Submission

# Sections of a recipe that decide a score, with the fields of each that change only time, memory or words in tables.
DECISIVE = {"model": {"label"}, "data": set(), "prompt": set(), "lengths": set(), "generation": {"generation_batch"}}
LONGEST = 1e8  # word pairs that ROUGE compares in one method's summaries; 11,490 news articles take half of it


def at(value: Any, path: str) -> Any:
    """What stands at a path of names with dots; None where it ends early."""
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def number(value: Any) -> float | None:
    """The value if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number beyond 10^308
        return None


def shown(value: Any, longest: int = 80) -> str:
    """A value of any kind and length as a sentence has it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return "no number" if number(value) is None else f"{value:g}" if abs(value) < 1e-3 else f"{round(value, 4):.12g}"
    text = " ".join(printable(str(value)).split())
    return text if len(text) <= longest else f"{text[: longest - 4]} ..."


def named(method: str) -> str:
    """The method's name in a sentence."""
    return METHOD_NAMES.get(method, shown(method))


def moment(value: Any) -> datetime | None:
    """The time that an ISO text names, in UTC; None where it names none."""
    try:
        found = datetime.fromisoformat(value)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):  # no text, no time, or one beyond the calendar
        return None


def writable(text: str) -> str:
    """The text without halves of characters, which JSON can hold and no hash or page takes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def finished(submission: Submission, methods: Iterable[str]) -> dict[str, dict]:
    """The finished records of those methods, by method."""
    return {m: submission.records[m] for m in methods if at(submission.records.get(m), "status") == "finished"}


def decisive(config: Any, method: str) -> dict[str, Any]:
    """Whatever decides a method's scores in a record's `config`, by a name such as "rank" or "prompt instruction".

    Fields that `expected.NO_MATTER` names are left out: they change time, memory and rounding only.
    """
    found = {"recipe": at(config, "recipe.name"), "seed": at(config, "seed")}
    for section, left_out in (DECISIVE | {method: expected.NO_MATTER}).items():
        fields = at(config, f"recipe.{section}")
        for name, value in fields.items() if isinstance(fields, dict) else ():
            if name not in left_out:
                called = section if name == "source" else f"{section} {name}" if section in ("model", "prompt") else name
                found[called] = value
    return found


def recounted(predictions: Sequence[Mapping[str, Any]]) -> dict[str, list[float]] | None:
    """ROUGE of recorded summaries, one value per document for each measure; None where there are none, or texts beyond reason.

    Args:
        predictions: rows with `prediction` and `references`, as `Submission.predictions` holds them.
    """
    pairs = sum(_words(row["prediction"]) * sum(map(_words, row["references"])) for row in predictions)
    if not predictions or pairs > LONGEST or not all(row["references"] for row in predictions):
        return None
    rows = [_rouge(row["prediction"], tuple(row["references"])) for row in predictions]
    return {name: list(values) for name, values in zip(metrics.ROUGE, zip(*rows, strict=True), strict=True)}


def _words(text: str) -> int:
    return len(re.findall(r"\w+", text))


@lru_cache(maxsize=200_000)  # a class shares its baseline's summaries, and often more
def _rouge(prediction: str, references: tuple[str, ...]) -> tuple[float, ...]:
    """As `metrics.score` by its protocol, without the companions, which nobody counts again and which take half as long once more."""
    pairs = [metrics.rouge(prediction, reference) for reference in references]
    return tuple(fmean(pair[name] for pair in pairs) for name in metrics.ROUGE)


def minutes(records: Mapping[str, dict]) -> float | None:
    """Training and summaries of all these records together; None where none says it."""
    return total(records, ("training.seconds", "generation.seconds"), 1 / 60)


def peak_memory(records: Mapping[str, dict]) -> float | None:
    """The most memory in GB that any part of these records took; None where none says it."""
    return max(_numbers(records, ("training.peak_memory_gb", "generation.peak_memory_gb")), default=None)


def total(records: Mapping[str, dict], paths: Sequence[str], factor: float) -> float | None:
    """The sum of what stands at these paths, times a factor; None where nothing does."""
    found = _numbers(records, paths)
    return factor * sum(found) if found else None


def _numbers(records: Mapping[str, dict], paths: Sequence[str]) -> list[float]:
    return [value for record in records.values() for path in paths if (value := number(at(record, path))) is not None]
