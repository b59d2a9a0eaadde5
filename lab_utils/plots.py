"""Figures in one style: colour-blind safe, readable on a phone, each with a text that says what it shows."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

METHOD_NAMES = {"zero_shot": "zero-shot", "full": "full fine-tuning", "lora": "LoRA", "qlora": "QLoRA"}
# Okabe and Ito's palette (jfly.uni-koeln.de/color), which stays distinct under the common colour-vision deficiencies.
COLORS = {"zero_shot": "#999999", "full": "#D55E00", "lora": "#0072B2", "qlora": "#009E73"}
ACCENT, SECOND, QUIET = "#0072B2", "#E69F00", "#999999"


@contextmanager
def axes(width: float = 6.4, height: float = 3.4, columns: int = 1, **options):
    """A new figure's axes in the lab's style."""
    import matplotlib.pyplot as plt

    style = {
        "font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 11,
        "axes.titlelocation": "left", "legend.frameon": False, "figure.dpi": 110,
    }  # fmt: skip
    with plt.rc_context(style):
        figure, axis = plt.subplots(1, columns, figsize=(width, height), layout="constrained", **options)
        try:
            yield figure, axis
        finally:
            plt.close(figure)


class Picture:
    """A figure as PNG with its alternative text; shows itself in a notebook."""

    def __init__(self, figure, alt: str):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        self.png, self.alt = buffer.getvalue(), alt

    def save(self, path: Path) -> Picture:
        path.write_bytes(self.png)
        path.with_suffix(".txt").write_text(self.alt + "\n", encoding="utf-8")
        return self

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"image/png": self.png, "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


def lengths(counts: dict[str, Sequence[int]], limits: dict[str, int]) -> Picture:
    """Histograms of token counts with the limit that cuts them."""
    with axes(columns=len(counts), width=7.2, height=2.9, squeeze=False) as (figure, panels):
        sentences = []
        for axis, (name, values) in zip(panels[0], counts.items(), strict=True):
            axis.hist(values, bins=20, color=ACCENT, alpha=0.85)
            axis.axvline(limits[name], color="black", linestyle="--", linewidth=1.2)
            axis.annotate(f"limit {limits[name]}", (limits[name], axis.get_ylim()[1]), xytext=(-4, -2), textcoords="offset points",
                          ha="right", va="top", rotation=90)  # fmt: skip
            axis.set(title=name, xlabel="tokens", ylabel="how many")
            over = sum(value > limits[name] for value in values)
            sentences.append(f"{name}: {min(values)} to {max(values)} tokens, {over} over the limit of {limits[name]}")
        return Picture(figure, "Histograms. " + "; ".join(sentences) + ".")


def losses(histories: dict[str, Sequence[dict]]) -> Picture:
    """Training loss per step (thin: as logged; thick: smoothed) and validation loss (points) of one or more methods."""
    with axes() as (figure, axis):
        sentences = []
        for number, (name, log) in enumerate(histories.items()):
            color = COLORS.get(name, [ACCENT, SECOND, "#009E73", "#CC79A7"][number % 4])
            label = METHOD_NAMES.get(name, name)
            steps = [row["step"] for row in log if row.get("loss") is not None]
            loss = [row["loss"] for row in log if row.get("loss") is not None]
            if loss:
                axis.plot(steps, loss, color=color, alpha=0.3, linewidth=1)
                axis.plot(steps, smoothed(loss), color=color, linewidth=2, label=f"{label}, training")
                sentences.append(f"{label}: training loss from {loss[0]:.2f} to {loss[-1]:.2f}")
            points = [(row["step"], row["validation_loss"]) for row in log if row.get("validation_loss") is not None]
            if points:
                axis.plot(*zip(*points, strict=True), "o--", color=color, linewidth=1, label=f"{label}, validation")
                sentences.append(f"{label}: validation loss from {points[0][1]:.2f} to {points[-1][1]:.2f}")
        axis.set(xlabel="optimizer step", ylabel="loss (nats per answer token)")
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
        return Picture(figure, "Loss curves. " + "; ".join(sentences) + ".")


def smoothed(values: Sequence[float], weight: float = 0.7) -> list[float]:
    """Exponential moving average that starts at the first value."""
    result = []
    for value in values:
        result.append(value if not result else weight * result[-1] + (1 - weight) * value)
    return result


def stacked(rows: dict[str, dict[str, float]]) -> Picture:
    """One horizontal bar per row, split into its parts, given in GB; shown in MB where all are below 1 GB."""
    unit, factor = ("GB", 1) if max(sum(row.values()) for row in rows.values()) >= 1 else ("MB", 1000)
    rows = {name: {part: size * factor for part, size in row.items()} for name, row in rows.items()}
    palette = [ACCENT, SECOND, "#009E73", "#CC79A7", QUIET]
    parts = list(dict.fromkeys(part for row in rows.values() for part in row))
    with axes(height=1.2 + 0.55 * len(rows)) as (figure, axis):
        left = [0.0] * len(rows)
        for part, color in zip(parts, cycle(palette), strict=False):
            sizes = [row.get(part, 0.0) for row in rows.values()]
            axis.barh(list(rows), sizes, left=left, color=color, label=part)
            left = [a + b for a, b in zip(left, sizes, strict=True)]
        for y, total in enumerate(left):
            axis.annotate(f"{total:.2f}", (total, y), xytext=(4, 0), textcoords="offset points", va="center")
        axis.invert_yaxis()
        axis.set(xlabel=unit, xlim=(0, 1.15 * max(left) or 1))
        axis.legend(ncols=min(4, len(parts)), loc="lower center", bbox_to_anchor=(0.5, 1.0))
        totals = "; ".join(f"{name} {total:.2f} {unit}" for name, total in zip(rows, left, strict=True))
        return Picture(figure, f"Stacked bars of {', '.join(parts)}. Totals: {totals}.")


def intervals(rows: dict[str, tuple[float, float, float]], xlabel: str, zero_line: bool = False) -> Picture:
    """A point with its 95% interval per row: a forest plot."""
    with axes(height=1.1 + 0.45 * len(rows)) as (figure, axis):
        for y, (mean, low, high) in enumerate(rows.values()):
            clear = not zero_line or low > 0 or high < 0
            axis.plot([low, high], [y, y], color=ACCENT if clear else QUIET, linewidth=2.5)
            axis.plot(mean, y, "o", color=ACCENT if clear else QUIET, markersize=8)
        if zero_line:
            axis.axvline(0, color="black", linewidth=1)
        axis.set_yticks(range(len(rows)), list(rows))
        axis.set(xlabel=xlabel, ylim=(len(rows) - 0.5, -0.5))
        text = "; ".join(f"{name} {m:.1f} [{low:.1f}, {high:.1f}]" for name, (m, low, high) in rows.items())
        return Picture(figure, f"Means with 95% intervals, {xlabel}. {text}.")


def cost_and_quality(points: dict[str, tuple[float, float, float, float]], xlabel: str, ylabel: str) -> Picture:
    """Each method at its cost (x) and score (y, low, high)."""
    with axes() as (figure, axis):
        for method, (x, y, low, high) in points.items():
            color = COLORS.get(method, QUIET)
            axis.errorbar(x, y, yerr=[[y - low], [high - y]], fmt="o", color=color, markersize=9, capsize=3)
            axis.annotate(METHOD_NAMES.get(method, method), (x, y), xytext=(9, 5), textcoords="offset points", color=color)
        axis.margins(x=0.25)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        text = "; ".join(f"{METHOD_NAMES.get(m, m)} {y:.1f} at {x:.3g}" for m, (x, y, _, _) in points.items())
        return Picture(figure, f"{ylabel} against {xlabel}. {text}.")


def lines(curves: dict[str, tuple[Sequence[float], Sequence[float]]], xlabel: str, ylabel: str, alt: str) -> Picture:
    """Named curves on one pair of axes."""
    with axes() as (figure, axis):
        for name, (x, y) in curves.items():
            axis.plot(x, y, "o-", label=name)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        if len(curves) > 1:
            axis.legend()
        return Picture(figure, alt)
