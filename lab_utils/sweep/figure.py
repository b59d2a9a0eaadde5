"""The figure of a sweep: validation loss along one parameter, a line for each combination of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from lab_utils import plots
from lab_utils.sweep.grid import shown

SPREAD = 8  # the largest value over the smallest from which on an axis is logarithmic
LINE_COLORS = (plots.ACCENT, "#D55E00", "#009E73", plots.SECOND, "#CC79A7", "#56B4E9", "#000000")
LINE_MARKERS, LINE_STYLES = "osD^vP*X", ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Group:
    """The points that differ in their seed only: a row of the table."""

    method: str
    varied: dict[str, Any]
    rows: list[dict]

    @property
    def label(self) -> str:
        return " ".join([self.method, *(f"{name} {shown(value)}" for name, value in self.varied.items())])

    @property
    def is_complete(self) -> bool:
        return all(row["validation_loss"] is not None for row in self.rows)

    @property
    def loss(self) -> float:
        return fmean(self.values("validation_loss"))

    def values(self, name: str) -> list[float]:
        return [row[name] for row in self.rows if row[name] is not None]


def is_numeric(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def figure(groups: Sequence[Group], names: Sequence[str]) -> plots.Picture | None:
    """Mean validation loss (bars: lowest to highest seed) over the first parameter with several numbers; a level line for who lacks it."""
    measured = [group for group in groups if group.values("validation_loss")]
    along = next((n for n in names if len({g.varied[n] for g in measured if is_numeric(g.varied.get(n))}) > 1), None)
    if along is None:
        return None
    curves: dict[str, list[Group]] = {}
    for group in measured:
        others = {name: value for name, value in group.varied.items() if name != along}
        curves.setdefault(replace(group, varied=others).label, []).append(group)
    told = []
    with plots.axes(plots.NARROW, 3.2 + 0.24 * len(curves)) as (drawing, axis):
        ticks = sorted({group.varied[along] for group in measured if is_numeric(group.varied.get(along))})
        for number, (name, members) in enumerate(curves.items()):
            look = {"color": LINE_COLORS[number % 7], "linestyle": LINE_STYLES[number % 4], "label": name.replace("$", r"\$")}
            placed = sorted((g for g in members if is_numeric(g.varied.get(along))), key=lambda group: group.varied[along])
            if not placed:
                axis.axhline(members[0].loss, **look)
                told.append(f"{name}: {members[0].loss:.3f}")
                continue
            x, y = [g.varied[along] for g in placed], [g.loss for g in placed]
            below = [g.loss - min(g.values("validation_loss")) for g in placed]
            above = [max(g.values("validation_loss")) - g.loss for g in placed]
            axis.errorbar(x, y, yerr=[below, above], marker=LINE_MARKERS[number % 8], capsize=3, **look)
            told.append(f"{name}: {', '.join(f'{loss:.3f} at {shown(value)}' for value, loss in zip(x, y, strict=True))}")
        if ticks[0] > 0 and ticks[-1] / ticks[0] > SPREAD:
            axis.set_xscale("log")
            axis.minorticks_off()
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set(xlabel=along, ylabel="validation loss (nats per answer token)")
        axis.grid(color="#e4e4e4", linewidth=0.8)
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1.0))
        return plots.Picture(drawing, f"Validation loss against {along}. {'; '.join(told)}.")
