"""Tables and figures of a bench record: medians over rounds, ratios taken within a round, the lowest and highest beside them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab_utils import plots
from lab_utils.bench_cases import Case
from lab_utils.plots import METHOD_NAMES

MODELS = {"causal": "SmolLM2-135M (decoder)", "seq2seq": "random T5, 140M (encoder-decoder)"}
TITLES = {"causal": "decoder, 135M", "seq2seq": "encoder-decoder, 140M"}
UNITS = {"examples": "training examples", "length": "document tokens", "batch": "examples a batch", "rank": "adapter rank"}
STRONG, WEAK, DEFAULT = "#D55E00", plots.QUIET, "#CC79A7"
SYSTEM_COLORS = {"lab": plots.ACCENT, "student": WEAK, "one_by_one": WEAK, "trl": DEFAULT, "trl_best": STRONG, "stock_best": STRONG}
NOTICED = 0.1  # share of the processors that other processes may take before the report says so


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
        return f"{self.median:{form}} ({self.low:{form}} to {self.high:{form}})"


def rate(result: dict[str, Any]) -> float:
    """Real tokens a second."""
    return result["tokens"] / result["seconds"]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours over theirs, round by round, since a round's cases ran side by side; a round that only one of them has is left out."""
    return Spread.of([a / b for a, b in zip(ours, theirs, strict=False)])


def times(spread: Spread) -> str:
    return f"{spread.median:.2f} x ({spread.low:.2f} to {spread.high:.2f})"


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

    def failure(self, name: str) -> str | None:
        return next((result["failed"] for result in self.results[name] if "failed" in result), None)

    def rates(self, name: str) -> list[float]:
        return [rate(result) for result in self.good(name)]

    def peak(self, name: str) -> float:
        """The most of all rounds, in GB: a machine must have it."""
        return max(result["peak_gb"] for result in self.good(name))

    def product_rate(self, precision: str) -> float | None:
        """Operations a second of matrix products alone, the median over rounds."""
        found = [result["operations_per_second"] for result in self.good(f"products-{precision}")]
        return statistics.median(found) if found else None

    def floor(self, name: str, precision: str | None = None) -> float | None:
        """Real tokens a second if a case did nothing but its arithmetic, in the number format that it used or another."""
        result = self.good(name)[0]
        products = self.product_rate(precision or result["precision"])
        return products and result["tokens"] * products / result["operations"]


def text(record: dict[str, Any], cases: Sequence[Case]) -> str:
    """The whole record as Markdown."""
    parts = ["# Bench", _conditions(record)]
    for device, found in record["sections"].items():
        section = Section(found, cases)
        parts.append(f"## {'GPU' if device == 'cuda' else 'CPU'}: {section.machine['hardware']}")
        parts += [part for part in (_setting(section), _rates(section), disturbance(section)) if part]
        parts += ["\n".join(f"- {sentence}" for sentence in found)] if (found := findings(section)) else []
        for title, table in (
            ("Training", training_table(section)),
            ("Generation", generation_table(section)),
            ("One thing at a time", ablation_table(section)),
            ("Growth", growth_table(section)),
        ):
            if table:
                parts += [f"### {title}", table]
                parts += pay_back(section) if title == "One thing at a time" else []
    if record["course"]:
        parts += ["## The course", course_table(record["course"])]
    return "\n\n".join(parts) + "\n"


def _conditions(record: dict[str, Any]) -> str:
    kind = "Quick bench, no evidence. " if record["quick"] else ""
    unfinished = "" if record["status"] == "finished" else "It was stopped before its end. "
    return (
        f"{kind}{unfinished}{record['date']}, commit {record['commit']}. Each case ran in a process of its own, {record['rounds']} times, "
        "the cases in turn; a warm-up step is left out. Figures are medians with the lowest and highest round; ratios are taken within a "
        "round. Tokens are real ones: padding does not count. " + " ".join(record["skipped"])
    ).strip()


def findings(section: Section) -> list[str]:
    """A sentence for each system that the lab's own row was measured beside."""
    told = []
    for case in [*section.of("training"), *section.of("generation")]:
        own = f"{case.family}-summaries-lab" if case.generates else f"{case.family}-{case.method}-lab"
        if case.system == "lab" or not section.good(case.name) or not section.good(own):
            continue
        what = "Summaries" if case.generates else METHOD_NAMES[case.method][0].upper() + METHOD_NAMES[case.method][1:]
        speed = times(ratio(section.rates(own), section.rates(case.name)))
        memory = section.peak(own) / section.peak(case.name)
        told.append(f"{what}, {TITLES[case.family]}: {speed} the tokens a second of {case.says}, in {memory:.2f} x its memory.")
    return told


def _setting(section: Section) -> str:
    size, machine = section.size, section.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{size['examples']} training dialogues of the packaged set in batches of {size['batch']}, {size['answers']} test dialogues to "
        f"summarize; {machine['threads']} threads; {versions}."
    )


def _rates(section: Section) -> str:
    found = {precision: section.product_rate(precision) for precision in ("float32", "bfloat16", "float16")}
    told = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {precision}" for precision, rate in found.items() if rate)
    if not told:
        return ""
    return f"Matrix products alone: {told}. The floor is a method's arithmetic at that rate, in the number format of the row."


def disturbance(section: Section) -> str:
    """A sentence on what else ran, where it took more than a tenth of the processors."""
    shares = {name: max((r.get("taken_by_others", 0) for r in section.good(name)), default=0) for name in section.results}
    disturbed = [name for name, share in shares.items() if share > NOTICED]
    if not disturbed:
        return ""
    return (
        f"Other processes took up to {max(shares.values()):.0%} of the processors while {len(disturbed)} of {len(shares)} cases ran: "
        "their figures are too low, and the bench should run again alone."
    )


def training_table(section: Section) -> str:
    rows = []
    for case in section.of("training"):
        row = {"model": MODELS[case.family], "method": METHOD_NAMES[case.method]}
        own = f"{case.family}-{case.method}-lab"
        padding = {"computed per real token": _padding(section, case.name)}
        rows.append(row | {"system": case.says} | _measured(section, case, own) | padding)
        if case.name == own:
            rows += [row | bound for bound in _bound(section, own)]
    return _table(rows)


def generation_table(section: Section) -> str:
    rows = []
    for case in section.of("generation"):
        if case.against:
            continue
        own = f"{case.family}-summaries-lab"
        row = {"model": MODELS[case.family], "system": case.says} | _measured(section, case, own)
        if good := section.good(case.name):
            row["summaries a minute"] = f"{60 * statistics.median(r['examples'] / r['seconds'] for r in good):.1f}"
        rows.append(row)
        if case.name == own:
            rows += [{"model": MODELS[case.family]} | bound for bound in _bound(section, own)]
    return _table(rows)


def _bound(section: Section, own: str) -> list[dict[str, str]]:
    """The row of the arithmetic floor below the lab's own one, in the lab's number format."""
    floor = section.floor(own) if section.good(own) else None
    if not floor:
        return []
    precision = section.good(own)[0]["precision"]
    lab = Spread.of([rate / floor for rate in section.rates(own)])
    return [{"system": f"the arithmetic alone, {precision}", "tokens/s": f"{floor:,.0f}", "this lab's speed": times(lab)}]


def _measured(section: Section, case: Case, own: str) -> dict[str, str]:
    """Speed, memory, and how the lab's own row compares."""
    if failure := section.failure(case.name):
        return {"tokens/s": f"failed: {failure}"}
    rates, floor = section.rates(case.name), section.floor(case.name)
    cells = {"tokens/s": f"{Spread.of(rates):.0f}", "peak GB": f"{section.peak(case.name):.2f}"}
    if floor:
        cells["share of the floor"] = f"{statistics.median(rates) / floor:.0%}"
    if case.name != own and section.good(own):
        cells["this lab's speed"] = times(ratio(section.rates(own), rates))
        cells["this lab's memory"] = f"{section.peak(own) / section.peak(case.name):.2f} x"
    return cells


def _padding(section: Section, name: str) -> str:
    good = section.good(name)
    return f"{good[0]['padded_tokens'] / good[0]['tokens']:.2f}" if good else ""


def ablation_table(section: Section) -> str:
    rows = []
    names = {case.name: _names(case) for case in section.cases}
    for case in section.turned:
        row = {"one thing turned": _names(case), "beside": names.get(case.against, "")}
        if failure := section.failure(case.name):
            rows.append(row | {"tokens/s": f"failed: {failure}"})
            continue
        row |= {"tokens/s": f"{Spread.of(section.rates(case.name)):.0f}"}
        if section.good(case.against):
            row["of the speed"] = times(ratio(section.rates(case.name), section.rates(case.against)))
            row["of the memory"] = f"{section.peak(case.name) / section.peak(case.against):.2f} x"
            if case.same_losses:
                row["largest difference of a loss"] = f"{loss_difference(section.good(case.name), section.good(case.against)):.1e}"
        rows.append(row)
    return _table(rows)


def _names(case: Case) -> str:
    return f"summaries: {case.says}" if case.generates else case.says


def loss_difference(some: Sequence[dict], others: Sequence[dict]) -> float:
    """The largest difference between two cases' losses at the same step of the same round."""
    return max(
        abs(a - b) for one, other in zip(some, others, strict=False) for a, b in zip(one["losses"], other["losses"], strict=True)
    )  # fmt: skip


def growth_table(section: Section) -> str:
    rows = []
    for case in section.of("growth"):
        axis, value = case.growth
        row = {"what grows": UNITS[axis], "to": f"{value:g}"}
        if failure := section.failure(case.name):
            rows.append(row | {"seconds": f"failed: {failure}"})
            continue
        good = section.good(case.name)
        row["seconds"] = f"{Spread.of([r['seconds'] for r in good]):.1f}"
        row |= {"tokens/s": f"{Spread.of(section.rates(case.name)):.0f}", "peak GB": f"{section.peak(case.name):.2f}"}
        rows.append(row)
    return _table(rows) + (f"\n\nLoRA training of the decoder on {section.size['growth']} dialogues unless they grow." if rows else "")


def pay_back(section: Section) -> list[str]:
    """When torch.compile has earned what it cost, where it was measured."""
    case = next((case for case in section.of("ablation") if case.switch == "compile" and section.good(case.name)), None)
    if case is None or not section.good(case.against):
        return []
    extra = statistics.median(r["warmup_seconds"] for r in section.good(case.name)) - statistics.median(
        r["warmup_seconds"] for r in section.good(case.against)
    )
    slow, fast = statistics.median(section.rates(case.against)), statistics.median(section.rates(case.name))
    if fast <= slow:
        return [f"torch.compile costs {extra:.0f} s before the first step and brings nothing here."]
    tokens = extra / (1 / slow - 1 / fast)
    return [f"torch.compile costs {extra:.0f} s before the first step; it pays from about {tokens:,.0f} tokens on."]


def course_table(course: dict[str, Any]) -> str:
    rows = [{"notebook": name, "seconds": f"{seconds:.0f}"} for name, seconds in course["notebooks"].items()]
    rows.append({"notebook": "**all**", "seconds": f"**{course['seconds']:.0f}**"})
    told = [
        f"{METHOD_NAMES[method]}: " + ", ".join(f"{part} {seconds:.0f} s" for part, seconds in parts.items())
        for method, parts in course["methods"].items()
    ]
    return _table(rows) + ("\n\nOf these: " + "; ".join(told) + "." if told else "")


def _table(rows: Sequence[dict[str, str]]) -> str:
    if not rows:
        return ""
    head = list(dict.fromkeys(name for row in rows for name in row))
    lines = [head, ["---"] * len(head), *([row.get(name, "") for name in head] for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


# --- figures ----------------------------------------------------------------------------------------------------------------


def speed_figure(section: Section) -> plots.Picture | None:
    """Real tokens a second of each system, with the lowest and highest round, and the floor of the lab's own row as a line."""
    shown = [case for case in [*section.of("training"), *section.of("generation")] if section.good(case.name) and not case.against]
    if not shown:
        return None
    names = [f"{'summaries' if case.generates else METHOD_NAMES[case.method]}, {case.says}" for case in shown]
    families = list(dict.fromkeys(case.family for case in shown))
    with plots.axes(5.4 * len(families), 1.4 + 0.34 * len(shown) / len(families), columns=len(families), squeeze=False) as (figure, panels):
        told = []
        for axis, family in zip(panels[0], families, strict=True):
            own = [(name, case) for name, case in zip(names, shown, strict=True) if case.family == family]
            for y, (name, case) in enumerate(own):
                found = Spread.of(section.rates(case.name))
                axis.barh(y, found.median, color=SYSTEM_COLORS[case.system])
                axis.plot([found.low, found.high], [y, y], color="black", linewidth=1.2)
                axis.annotate(f"{found.median:,.0f}", (found.high, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9)
                told.append(f"{MODELS[family]}, {name} {found.median:,.0f}")
                floor = section.floor(case.name)
                if case.system == "lab" and not case.generates and floor:
                    axis.plot([floor, floor], [y - 0.45, y + 0.45], color="black", linewidth=2.5)
                    told.append(f"its floor {floor:,.0f}")
            axis.set_yticks(range(len(own)), [name for name, _ in own], fontsize=9)
            axis.invert_yaxis()
            axis.set(title=TITLES[family], xlabel="real tokens a second\n(thick line: the arithmetic alone)")
            axis.margins(x=0.14)
        return plots.Picture(figure, "Bars of real tokens a second. " + "; ".join(told) + ".")


def ablation_figure(section: Section) -> plots.Picture | None:
    """What is left of the speed when one thing is turned."""
    rows = {}
    for case in section.turned:
        if section.good(case.name) and section.good(case.against):
            rows[_names(case)] = ratio(section.rates(case.name), section.rates(case.against))
    if not rows:
        return None
    with plots.axes(plots.NARROW + 1.6, 0.9 + 0.36 * len(rows)) as (figure, axis):
        for y, found in enumerate(rows.values()):
            color = plots.QUIET if found.low <= 1 <= found.high else plots.ACCENT
            axis.plot([found.low, found.high], [y, y], color=color, linewidth=2.5, solid_capstyle="butt")
            axis.plot(found.median, y, "o", color=color, markersize=8)
        axis.axvline(1, color="black", linewidth=1)
        axis.set_yticks(range(len(rows)), list(rows), fontsize=9)
        axis.invert_yaxis()
        axis.set(xlabel="speed (1: the row that it is beside)")
        told = "; ".join(f"{name} {found:.2f}" for name, found in rows.items())
        return plots.Picture(figure, f"Speed with one thing turned, as a share of the lab's own. {told}.")


def growth_figure(section: Section) -> plots.Picture | None:
    """Tokens a second and memory along each axis of growth."""
    axes = list(dict.fromkeys(case.growth[0] for case in section.of("growth") if section.good(case.name)))
    if not axes:
        return None
    with plots.axes(2.7 * len(axes), 2.9, columns=len(axes), squeeze=False) as (figure, panels):
        told = []
        for number, (panel, name) in enumerate(zip(panels[0], axes, strict=True)):
            points = [case for case in section.of("growth") if case.growth[0] == name and section.good(case.name)]
            places = [case.growth[1] for case in points]
            rates = [statistics.median(section.rates(case.name)) for case in points]
            peaks = [section.peak(case.name) for case in points]
            panel.plot(places, rates, "o-", color=plots.ACCENT)
            panel.set(xlabel=UNITS[name], ylim=(0, 1.15 * max(rates)))
            panel.set_xscale("log", base=2)
            panel.set_xticks(places, [f"{place:g}" for place in places])
            panel.minorticks_off()
            memory = panel.twinx()
            memory.plot(places, peaks, "s--", color=plots.SECOND)
            memory.set(ylim=(0, 1.15 * max(peaks)))
            memory.spines["right"].set_visible(True)
            if number == 0:
                panel.set_ylabel("tokens/s (circles)")
            if number == len(axes) - 1:
                memory.set_ylabel("peak GB (squares)")
            told.append(
                f"{UNITS[name]} " + ", ".join(f"{p:g}: {r:,.0f}, {gb:.1f} GB" for p, r, gb in zip(places, rates, peaks, strict=True))
            )
        return plots.Picture(figure, "Tokens a second and peak memory of LoRA training. " + "; ".join(told) + ".")


def write(record: dict[str, Any], cases: Sequence[Case], path: Path) -> None:
    """Writes the tables to that Markdown file and the figures beside it, each with its text."""
    path.write_text(text(record, cases), encoding="utf-8")
    for device, found in record["sections"].items():
        section = Section(found, cases)
        for name, figure in (("speed", speed_figure), ("ablation", ablation_figure), ("growth", growth_figure)):
            if picture := figure(section):
                picture.save(path.with_name(f"{path.stem}-{device}-{name}.png"))
