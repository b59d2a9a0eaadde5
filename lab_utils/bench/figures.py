"""Figures of a bench: speed of each system, what each thing is worth, growth."""

from __future__ import annotations

import statistics

from lab_utils import plots
from lab_utils.bench.results import MODELS, TITLES, UNITS, Section, Spread, names, speeds
from lab_utils.plots import METHOD_NAMES

STRONG, WEAK, DEFAULT = "#D55E00", plots.QUIET, "#CC79A7"
SYSTEM_COLORS = {"lab": plots.ACCENT, "student": WEAK, "one_by_one": WEAK, "trl": DEFAULT, "trl_best": STRONG, "stock_best": STRONG}


def speed_figure(section: Section) -> plots.Picture | None:
    """Real tokens a second of each system, with the lowest and highest round, and the floor of the lab's own row as a line."""
    shown = [case for case in [*section.of("training"), *section.of("generation")] if section.good(case.name) and not case.against]
    if not shown:
        return None
    labels = [f"{'summaries' if case.generates else METHOD_NAMES[case.method]}, {case.says}" for case in shown]
    families = list(dict.fromkeys(case.family for case in shown))
    with plots.axes(5.4 * len(families), 1.4 + 0.34 * len(shown) / len(families), columns=len(families), squeeze=False) as (figure, panels):
        told = []
        for axis, family in zip(panels[0], families, strict=True):
            own = [(name, case) for name, case in zip(labels, shown, strict=True) if case.family == family]
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
        own, beside = section.beside(case)
        if beside:
            rows[names(case)] = speeds(own, beside)
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


FIGURES = {"speed": speed_figure, "ablation": ablation_figure, "growth": growth_figure}
