"""Figures of a class: how its scores, times and memory are spread, and how its exercises went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from lab_utils.check.exercise import ALMOST, NOT_ATTEMPTED, PASSED
from lab_utils.plots import COLORS, MARKERS, METHOD_NAMES, QUIET, Picture, axes

ROWS = 9  # heights at which the points of one method lie, so that equal values stay apart
LOOKS = {PASSED: ("#009E73", ""), ALMOST: ("#E69F00", "///"), NOT_ATTEMPTED: ("#d9d9d9", "...")}


def spread(values: Mapping[str, Sequence[float]], what: str) -> Picture:
    """One point per student in a line per method, with the median as an upright bar.

    Args:
        values: method -> one number per student.
        what: the numbers' name and unit.
    """
    with axes(width=6.4, height=0.9 + 0.6 * len(values)) as (figure, axis):
        for line, (method, numbers) in enumerate(values.items()):
            heights = [line + 0.07 * (place % ROWS - ROWS // 2) for place in range(len(numbers))]
            look = {"color": COLORS.get(method, QUIET), "marker": MARKERS.get(method, "o")}
            axis.plot(sorted(numbers), heights, linestyle="none", markersize=4.5, alpha=0.6, **look)
            axis.plot([median(numbers)] * 2, [line - 0.38, line + 0.38], color="black", linewidth=2)
        axis.set_yticks(range(len(values)), [METHOD_NAMES.get(method, method) for method in values])
        axis.set(xlabel=what, ylim=(len(values) - 0.45, -0.55), axisbelow=True)
        axis.grid(axis="x", color="#e4e4e4", linewidth=0.8)
        told = "; ".join(
            f"{METHOD_NAMES.get(method, method)} {min(own):.1f} to {max(own):.1f}, median {median(own):.1f}, {len(own)} students"
            for method, own in values.items()
        )
        return Picture(figure, f"{what} of every student by method. {told}.")


def exercises(counts: Mapping[str, Mapping[str, int]]) -> Picture:
    """One bar per exercise: how many students passed, nearly passed, and did not attempt it.

    Args:
        counts: exercise -> state -> students.
    """
    with axes(width=6.4, height=1.2 + 0.34 * len(counts)) as (figure, axis):
        left = [0] * len(counts)
        for state, (color, hatch) in LOOKS.items():
            numbers = [row.get(state, 0) for row in counts.values()]
            axis.barh(list(counts), numbers, left=left, color=color, hatch=hatch, edgecolor="white", label=state)
            left = [before + number for before, number in zip(left, numbers, strict=True)]
        axis.invert_yaxis()
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set(xlabel="students")
        axis.margins(y=0.4 / len(counts))
        axis.legend(ncols=len(LOOKS), loc="lower left", bbox_to_anchor=(0, 1.0))
        told = "; ".join(f"{name} {', '.join(f'{row.get(state, 0)} {state}' for state in LOOKS)}" for name, row in counts.items())
        return Picture(figure, f"Students by state of each exercise. {told}.")
