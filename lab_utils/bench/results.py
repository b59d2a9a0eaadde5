"""The results of a bench read back: medians over rounds, ratios taken within a round, the lowest and highest beside them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab_utils.bench.cases import Case

MODELS = {"causal": "SmolLM2-135M (decoder)", "seq2seq": "random T5, 140M (encoder-decoder)"}
TITLES = {"causal": "decoder, 135M", "seq2seq": "encoder-decoder, 140M"}
UNITS = {"examples": "training examples", "length": "document tokens", "batch": "examples a batch", "rank": "adapter rank"}


@dataclass(frozen=True)
class Spread:
    """A median over rounds with the lowest and the highest value."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __format__(self, form: str) -> str:
        """The median with its range, or a single value alone."""
        middle, low, high = (f"{value:{form}}" for value in (self.median, self.low, self.high))
        return middle if self.low == self.high else f"{middle} ({low} to {high})"


def rate(result: dict[str, Any]) -> float:
    """Real tokens a second."""
    return result["tokens"] / result["seconds"]


def peak(results: Sequence[dict]) -> float:
    """The most of all rounds, in GB: a machine must have it."""
    return max(result["peak_gb"] for result in results)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours over theirs, round by round, since a round's cases ran side by side; a round that only one of them has is left out."""
    return Spread.of([a / b for a, b in zip(ours, theirs, strict=False)])


def speeds(ours: Sequence[dict], theirs: Sequence[dict]) -> Spread:
    """The ratio of their real tokens a second."""
    return ratio([rate(result) for result in ours], [rate(result) for result in theirs])


def times(spread: Spread) -> str:
    return f"{spread:.2f}".replace(" (", " x (") if spread.low < spread.high else f"{spread:.2f} x"


def in_words(result: dict[str, Any]) -> str:
    """One result in a few words, for the progress."""
    if "failed" in result:
        return f"failed: {result['failed']}"
    if "operations_per_second" in result:
        return f"{result['operations_per_second'] / 1e9:,.0f} GFLOP/s"
    return f"{rate(result):,.1f} tokens/s, {result['peak_gb']:.2f} GB"


class Section:
    """The results of one device, with the cases that they are results of."""

    def __init__(self, section: dict[str, Any], cases: Sequence[Case]):
        self.machine, self.size = section["machine"], section["size"]
        self.results = section["results"]
        self.cases = [case for case in cases if case.name in self.results]

    def of(self, part: str) -> list[Case]:
        return [case for case in self.cases if case.section == part]

    @property
    def turned(self) -> list[Case]:
        """The cases that differ from another one in one thing, of training first."""
        return [case for case in self.cases if case.against]

    def good(self, name: str) -> list[dict[str, Any]]:
        """The rounds in which a case did what it should."""
        return [result for result in self.results.get(name, []) if "failed" not in result]

    def beside(self, case: Case) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Round by round, a turned case's results and those of the case that it differs from, which ran right after it."""
        pairs = [(result, result["beside"]) for result in self.good(case.name) if "failed" not in result["beside"]]
        return [own for own, _ in pairs], [other for _, other in pairs]

    def failure(self, name: str) -> str | None:
        return next((result["failed"] for result in self.results[name] if "failed" in result), None)

    def rates(self, name: str) -> list[float]:
        return [rate(result) for result in self.good(name)]

    def peak(self, name: str) -> float:
        return peak(self.good(name))

    def product_rate(self, precision: str) -> float | None:
        """Operations a second of matrix products alone, the median over rounds."""
        found = [result["operations_per_second"] for result in self.good(f"products-{precision}")]
        return statistics.median(found) if found else None

    def floor(self, name: str, precision: str | None = None) -> float | None:
        """Real tokens a second if a case did nothing but its arithmetic, in the number format that it used or another."""
        result = self.good(name)[0]
        products = self.product_rate(precision or result["precision"])
        return products and result["tokens"] * products / result["operations"]


def names(case: Case) -> str:
    return f"summaries: {case.says}" if case.generates else case.says


def loss_difference(some: Sequence[dict], others: Sequence[dict]) -> float:
    """The largest difference between two cases' losses at the same step of the same round."""
    return max(
        abs(a - b) for one, other in zip(some, others, strict=False) for a, b in zip(one["losses"], other["losses"], strict=True)
    )  # fmt: skip
