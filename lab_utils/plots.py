"""Figures in one style: colour-blind safe, readable on a phone, each with a text that says what it shows."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

from lab_utils import files

METHOD_NAMES = {"zero_shot": "zero-shot", "full": "full fine-tuning", "lora": "LoRA", "qlora": "QLoRA"}
# Okabe and Ito's palette (jfly.uni-koeln.de/color), which stays distinct under the common colour-vision deficiencies.
COLORS = {"zero_shot": "#999999", "full": "#D55E00", "lora": "#0072B2", "qlora": "#009E73"}
MARKERS = {"zero_shot": "D", "full": "s", "lora": "o", "qlora": "^"}
NARROW = 4.8  # inches: a figure of the report, whose letters can still be read on a phone
ACCENT, SECOND, QUIET = "#0072B2", "#E69F00", "#999999"


@contextmanager
def axes(width: float = 6.4, height: float = 3.4, columns: int = 1, **options):
    """A new figure's axes in the lab's style."""
    import matplotlib.pyplot as plt

    style = {
        "font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 11,
        "axes.titlelocation": "left", "legend.frameon": False, "figure.dpi": 110,
        "svg.hashsalt": "lab",
    }  # fmt: skip
    with plt.rc_context(style):
        figure, axis = plt.subplots(1, columns, figsize=(width, height), layout="constrained", **options)
        try:
            yield figure, axis
        finally:
            plt.close(figure)


class Picture:
    """A figure with its alternative text: as PNG, which it shows in a notebook, and as SVG, for the report."""

    def __init__(self, figure, alt: str):
        self.png, self.svg, self.alt = _saved(figure, format="png"), _saved(figure, format="svg", metadata={"Date": None}), alt

    def save(self, path: Path) -> Picture:
        """Writes the PNG, and its text beside it.

        Raises:
            LabError: they cannot be written.
        """
        files.write_bytes(path, self.png)
        files.write_text(path.with_suffix(".txt"), self.alt + "\n")
        return self

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"image/png": self.png, "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


def _saved(figure, **options) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, **options)
    return buffer.getvalue()


def mask(tokens: Sequence[str], kinds: Sequence[str], supervised: Sequence[bool], most: int = 20) -> Picture:
    """One training row: a strip of all its tokens to scale, and below it the tokens of each part as blocks.

    Args:
        tokens: the row's tokens as text.
        kinds: the part of the row that each belongs to, such as "prompt", "answer", "end token", "padding".
        supervised: whether each is supervised: blue with bold letters if so, grey if not.
        most: tokens of one part that are shown; the middle of a longer part is left out and counted.
    """
    parts: list[list] = []
    for token, kind, counts in zip(tokens, kinds, supervised, strict=True):
        if not parts or parts[-1][:2] != [kind, counts]:
            parts.append([kind, counts, []])
        parts[-1][2].append(token)
    lines, sentences = [], []
    for kind, counts, texts in parts:
        said = f"{kind}: {len(texts):,} {'token' if len(texts) == 1 else 'tokens'}, {'supervised' if counts else 'not supervised'}"
        sentences.append(said)
        lines.append((None, counts, said))
        lines += [(blocks, counts, "") for blocks in _flowed(_shortened(texts, most), CHARACTERS)]
    share = sum(map(bool, supervised)) / max(1, len(supervised))
    with axes(NARROW, 0.55 + LINE * len(lines)) as (figure, axis):
        place = 0
        for _, counts, texts in parts:
            axis.barh(0, len(texts) * CHARACTERS / len(tokens), left=place, height=0.8, **_look(counts))
            place += len(texts) * CHARACTERS / len(tokens)
        for y, (blocks, counts, said) in enumerate(lines, 1):
            if blocks is None:
                axis.text(0, y + 0.15, said, va="center", parse_math=False, weight="bold")
            for x, text in blocks or []:
                if text == GAP:
                    axis.text(x + len(text) / 2, y, text, ha="center", va="center", color="#444444")
                    continue
                axis.barh(y, len(text) + 0.4, left=x - 0.2, height=0.82, **_look(counts))
                letters = {"color": "white", "weight": "bold"} if counts else {"color": "#333333"}
                axis.text(x + len(text) / 2, y, text, ha="center", va="center", parse_math=False, family="monospace", size=10, **letters)
        axis.set(xlim=(-0.6, CHARACTERS + 0.6), ylim=(len(lines) + 0.6, -0.6))
        axis.axis("off")
        return Picture(figure, f"One training row. {'; '.join(sentences)}. Supervised: {share:.0%} of {len(tokens):,} tokens.")


CHARACTERS, LINE, GAP = 54, 0.235, " ... "  # letters in a line of a figure of NARROW inches; inches between lines; what is left out


def _look(supervised: bool) -> dict:
    if supervised:
        return {"facecolor": ACCENT, "edgecolor": "white", "linewidth": 1}
    return {"facecolor": "#ececec", "edgecolor": "#8a8a8a", "linewidth": 0.8}


def _shortened(texts: Sequence[str], most: int) -> list[str]:
    shown = [_drawable(text) for text in texts]
    return shown if len(shown) <= most else [*shown[: most // 2], GAP, *shown[len(shown) - most // 2 :]]


def _drawable(text: str) -> str:
    """A token's text without line breaks and without letters that the figure's font lacks."""
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont("monospace"))
    text = "".join(c if font.get_char_index(ord(c)) else "\ufffd" for c in text.replace("\n", "\\n").replace("\t", "\\t"))
    return text if len(text) <= 24 else f"{text[:20]}..."


def _flowed(texts: Sequence[str], width: int) -> list[list[tuple[int, str]]]:
    """Texts in lines of at most so many letters, each with the column where it starts."""
    found: list[list[tuple[int, str]]] = [[]]
    x = 0
    for text in texts:
        if x and x + len(text) > width:
            found.append([])
            x = 0
        found[-1].append((x, text))
        x += len(text) + 1
    return found


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
    """Training loss per step (thin: as logged; thick: smoothed) and validation loss (marks on a dashed line) of one or more methods."""
    with axes(NARROW, 3.6) as (figure, axis):
        sentences = []
        for number, (name, log) in enumerate(histories.items()):
            color, marker = COLORS.get(name, [ACCENT, SECOND, "#009E73", "#CC79A7"][number % 4]), MARKERS.get(name, "ov*P"[number % 4])
            label = METHOD_NAMES.get(name, name)
            steps = [row["step"] for row in log if row.get("loss") is not None]
            loss = [row["loss"] for row in log if row.get("loss") is not None]
            if loss:
                axis.plot(steps, loss, color=color, alpha=0.3, linewidth=1)
                axis.plot(steps, smoothed(loss), color=color, linewidth=2, label=None if len(histories) > 1 else "training, smoothed")
                sentences.append(f"{label}: training loss from {loss[0]:.2f} to {loss[-1]:.2f}")
            points = [(row["step"], row["validation_loss"]) for row in log if row.get("validation_loss") is not None]
            if points:
                axis.plot(*zip(*points, strict=True), "--", marker=marker, color=color, linewidth=1,
                          label=label if len(histories) > 1 else "validation")  # fmt: skip
                sentences.append(f"{label}: validation loss from {points[0][1]:.2f} to {points[-1][1]:.2f}")
            elif loss and len(histories) > 1:
                axis.lines[-1].set_label(label)
        axis.set(xlabel="optimizer step", ylabel="loss (nats per answer token)")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0), columnspacing=1.2, handlelength=1.6)
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


def intervals(
    rows: dict[str, tuple[float, float, float]], xlabel: str, zero_line: bool = False, clear: Collection[str] | None = None
) -> Picture:
    """A point with its 95% interval per row, its name and numbers above it: a forest plot.

    Args:
        clear: the rows in colour with a filled point, the others being grey and hollow; without it, with a zero line, those whose interval
            leaves zero out, and otherwise all.
    """
    if clear is None:
        clear = [name for name, (_, low, high) in rows.items() if not zero_line or low > 0 or high < 0]
    with axes(NARROW, 0.7 + 0.48 * len(rows)) as (figure, axis):
        for y, (name, (mean, low, high)) in enumerate(rows.items()):
            color, fill = (ACCENT, ACCENT) if name in clear else ("#6b6b6b", "white")
            axis.plot([low, high], [y, y], color=color, linewidth=2.5, solid_capstyle="butt")
            axis.plot(mean, y, "o", color=color, markerfacecolor=fill, markeredgewidth=2, markersize=8)
            sign = "+" if zero_line else ""
            for x, side, text in ((0, "left", name), (1, "right", f"{mean:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]")):
                axis.text(
                    x,
                    y - 0.22,
                    text,
                    transform=axis.get_yaxis_transform(),
                    ha=side,
                    va="bottom",
                    parse_math=False,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
                )
        if zero_line:
            axis.axvline(0, color="black", linewidth=1, ymax=1 - 0.3 / len(rows))
        axis.spines["left"].set_visible(False)
        axis.grid(axis="x", color="#e4e4e4", linewidth=0.8)
        axis.set(xlabel=xlabel, ylim=(len(rows) - 0.6, -0.85), yticks=[], axisbelow=True)
        text = "; ".join(f"{name} {m:.1f} [{low:.1f}, {high:.1f}]" for name, (m, low, high) in rows.items())
        return Picture(figure, f"Means with 95% intervals, {xlabel}. {text}.")


def cost_and_quality(points: dict[str, tuple[float, float, float, float]], xlabel: str, ylabel: str) -> Picture:
    """Each method at its cost (x) and score (y, low, high)."""
    with axes(NARROW) as (figure, axis):
        for method, (x, y, low, high) in points.items():
            axis.errorbar(x, y, yerr=[[y - low], [high - y]], fmt=MARKERS.get(method, "o"), color=COLORS.get(method, QUIET), markersize=9,
                          capsize=3, label=METHOD_NAMES.get(method, method))  # fmt: skip
        axis.margins(x=0.12)
        axis.grid(color="#e4e4e4", linewidth=0.8)
        axis.set(xlabel=xlabel, ylabel=ylabel, axisbelow=True)
        axis.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0), columnspacing=1.2, handletextpad=0.3)
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


def grouped(rows: dict[str, Sequence[float]], groups: Sequence[str], ylabel: str) -> Picture:
    """Shares from 0 to 1 in groups of bars, one bar for each named row, such as where in a document each system's summaries look."""
    own = {METHOD_NAMES[method]: color for method, color in COLORS.items()}
    others = cycle(["#000000", "#E69F00", "#CC79A7", "#56B4E9"])
    width = 0.8 / max(1, len(rows))
    with axes(width=7.2) as (figure, axis):
        for number, (name, values) in enumerate(rows.items()):
            label = METHOD_NAMES.get(name, name)
            color = own.get(label) or next(others)
            places = [place + (number - (len(rows) - 1) / 2) * width for place in range(len(groups))]
            axis.bar(places, values, width=0.92 * width, color=color, label=label)
        axis.set_xticks(range(len(groups)), list(groups))
        axis.yaxis.set_major_formatter("{x:.0%}")
        axis.set(ylabel=ylabel)
        if rows:
            axis.legend(ncols=min(3, len(rows)), loc="lower left", bbox_to_anchor=(0, 1.0))
        told = "; ".join(f"{METHOD_NAMES.get(name, name)} {', '.join(f'{v:.0%}' for v in values)}" for name, values in rows.items())
        return Picture(figure, f"{ylabel}: {', '.join(groups)}. {told}.")
