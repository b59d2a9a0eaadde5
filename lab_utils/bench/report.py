"""The tables of a bench, as Markdown, with its figures beside them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab_utils import architectures, files, pace
from lab_utils.bench.cases import Case, Size, settings_of
from lab_utils.bench.figures import FIGURES
from lab_utils.bench.results import MODELS, TITLES, UNITS, Section, Spread, loss_difference, names, peak, rate, ratio, speeds, times
from lab_utils.devices import Device
from lab_utils.needs import Needs
from lab_utils.plots import METHOD_NAMES

NOTICED = 0.1  # share of the processors that other processes may take before the report says so


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
            ("The plan", plan_table(section)),
        ):
            if table:
                parts += [f"### {title}", table]
                parts += pay_back(section) if title == "One thing at a time" else []
    if record["course"]:
        parts += ["## The course", course_table(record["course"])]
    return "\n\n".join(parts) + "\n"


def _conditions(record: dict[str, Any]) -> str:
    kind = "Quick bench, no evidence. " if record["quick"] else ""
    unfinished = "" if record["status"] == "finished" else "Not all cases were measured. "
    counts = [len(found) for section in record["sections"].values() for found in section["results"].values()] or [0]
    most = "once" if max(counts) == 1 else f"{max(counts)} times"
    times_run = most if min(counts) == max(counts) else f"{min(counts)} to {most}"
    return (
        f"{kind}{unfinished}{record['date']}, commit {record['commit']}. Each case ran in a process of its own, {times_run}, "
        "the cases in turn; a warm-up step is left out. Figures are medians with the lowest and highest round, where there was more than "
        "one; ratios are taken within a round. Tokens are real ones: padding does not count. " + " ".join(record["skipped"])
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
    return told + _plan_finding(section)


def _plan_finding(section: Section) -> list[str]:
    """How far the plan's predictions are from what was measured, at most."""
    measured = [case for case in section.of("plan") if section.good(case.name)]
    if not measured:
        return []
    apart = [
        (planned / found - 1 for planned, found in zip(predicted(section, case), _peak_and_step(section, case), strict=True))
        for case in measured
    ]
    memory, time = (f"{min(each):+.0%} to {max(each):+.0%}" for each in zip(*apart, strict=True))
    return [
        f"`lab plan --time`, {len(measured)} case{'s' * (len(measured) > 1)}: peak memory {memory} off, time of a step {time} off "
        "(its two constants were fitted to steps of this kind)."
    ]


def _setting(section: Section) -> str:
    size, machine = section.size, section.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{size['examples']} training dialogues of the packaged set in batches of {size['batch']} "
        f"({size['micro_batch']} at a time for systems that are tuned), "
        f"{size['answers']} test dialogues to summarize; {machine['threads']} threads; {versions}."
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
    said = {case.name: names(case) for case in section.cases}
    for case in section.turned:
        row = {"one thing turned": names(case), "beside": said.get(case.against, "")}
        if failure := section.failure(case.name):
            rows.append(row | {"tokens/s": f"failed: {failure}"})
            continue
        row |= {"tokens/s": f"{Spread.of(section.rates(case.name)):.0f}"}
        own, beside = section.beside(case)
        if beside:
            row["of the speed"] = times(speeds(own, beside))
            row["of the memory"] = f"{peak(own) / peak(beside):.2f} x"
            if case.same_losses:
                row["largest difference of a loss"] = f"{loss_difference(own, beside):.1e}"
        rows.append(row)
    return _table(rows)


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


def plan_table(section: Section) -> str:
    """What `lab plan` predicts beside what was measured: memory at the peak, seconds a step."""
    rows = []
    for case in section.of("plan"):
        row = {"method": METHOD_NAMES[case.method], "document tokens": f"{case.growth[1]:g}"}
        if failure := section.failure(case.name):
            rows.append(row | {"peak GB": f"failed: {failure}"})
            continue
        gigabytes, seconds = predicted(section, case)
        reached, step = _peak_and_step(section, case)
        row |= {"planned GB": f"{gigabytes:.2f}", "peak GB": f"{reached:.2f}"}
        row["memory off by"] = f"{gigabytes / reached - 1:+.0%}"
        row |= {"planned s a step": f"{seconds:.2f}", "s a step": f"{step:.2f}", "time off by": f"{seconds / step - 1:+.0%}"}
        rows.append(row)
    return _table(rows)


def _peak_and_step(section: Section, case: Case) -> tuple[float, float]:
    """Peak memory in GB and seconds a step."""
    return section.peak(case.name), statistics.median(result["seconds"] / result["steps"] for result in section.good(case.name))


def predicted(section: Section, case: Case) -> tuple[float, float]:
    """The plan's peak memory in GB and seconds a step, at the rates measured before training and the mean lengths of its examples."""
    settings = settings_of(case, Size())
    capability = section.machine.get("capability")
    device = Device("measured", section.machine["memory_gb"], tuple(capability) if capability else None)
    result = section.good(case.name)[0]
    needs = Needs(settings, architectures.shape_of(settings.recipe.model.source), device, result["precision"])
    rates = pace.Rates(*(statistics.median(one["rates"][part] for one in section.good(case.name)) for part in ("products", "elementwise")))
    prompt, answer = (statistics.mean(lengths) for lengths in zip(*result["lengths"], strict=True))
    return sum(needs.training().values()), pace.step_seconds(needs, rates, round(prompt), round(answer))


def pay_back(section: Section) -> list[str]:
    """When torch.compile has earned what it cost, where it was measured."""
    case = next((case for case in section.of("ablation") if case.changes.get("compile") and section.good(case.name)), None)
    compiled, plain = section.beside(case) if case else ([], [])
    if not plain:
        return []
    long, short = (statistics.median(result["warmup_seconds"] for result in results) for results in (compiled, plain))
    fast, slow = (statistics.median(map(rate, results)) for results in (compiled, plain))
    extra = long - short
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


def write(record: dict[str, Any], cases: Sequence[Case], path: Path) -> None:
    """Writes the tables to that Markdown file and the figures beside it, each with its text."""
    files.write_text(path, text(record, cases))
    for device, found in record["sections"].items():
        section = Section(found, cases)
        for name, figure in FIGURES.items():
            if picture := figure(section):
                picture.save(path.with_name(f"{path.stem}-{device}-{name}.png"))
