"""The exercises of notebook 04_qlora."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist

from lab_utils.check.exercise import Almost, NotAttempted, ask, choice, close, exercise, number, tensor

CODES = 16  # what 4 bits can tell apart
TINY = 1e-12  # in place of the absmax of a block of zeros


def nf4_levels():
    """The 16 levels of NF4, as quantiles of the normal distribution (Dettmers et al. 2023, section 3 and appendix E)."""
    import torch

    tail = 1 - (1 / 32 + 1 / 30) / 2
    below, above = ([NormalDist().inv_cdf(tail + (0.5 - tail) * i / count) for i in range(count)] for count in (7, 8))
    levels = torch.tensor(sorted([-q for q in below] + [0.0] + above))
    return levels / levels.max()


def _nearest(rows, levels, absmax=None):
    """Places of the levels nearest to each row over its absmax: by definition, by comparing with all of them."""
    absmax = rows.abs().amax(1, keepdim=True).clamp(min=TINY) if absmax is None else absmax
    return ((rows / absmax)[..., None] - levels).abs().argmin(-1)


def _drawn(*shape: int, seed: int = 0):
    """Blocks of normally distributed numbers, as rows; in the first the number that is farthest out is negative."""
    import torch

    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    rows[0, shape[1] // 2] = -1.25 * rows[0].abs().max()
    return rows


def _same(found, expected) -> bool:
    import torch

    return found.shape == expected.shape and torch.allclose(found.double(), expected.double(), rtol=1e-4, atol=1e-7)


# --- int4 -----------------------------------------------------------------------------------------------------------------------


def _int4():
    def int4(rows):
        absmax = rows.abs().amax(1, keepdim=True)
        codes = (rows / absmax.clamp(min=TINY) * 7).round()
        return codes / 7 * absmax

    return int4


@exercise(
    "04_qlora",
    "build",
    "Round blocks of weights to int4",
    hints=(
        "Three steps: a factor for each row, whole numbers, and the way back.",
        "`rows.abs().amax(1, keepdim=True)` is one number for each row, in a shape that divides the rows.",
        "The codes are `(rows / absmax * 7).round()`; undo the two factors in the opposite order, and see to absmax = 0.",
    ),
    solution=_int4,
)
def int4(answer):
    """Judges `f(rows)`: rows is (n, size), each row one block; what is left of it after absmax int4 (codes -7 to 7), in the same shape.

    A block of zeros comes back as zeros. The definition: the nearest of the 15 levels -7/7, -6/7 ... 7/7, times the block's absmax.
    """
    import torch

    levels = torch.arange(-7, 8) / 7
    scaled = _drawn(3, 5, seed=1) * torch.tensor([[1e-3], [1.0], [100.0]])
    for rows in (_drawn(4, 64), scaled, torch.tensor([[0.0, 0.0, 0.0], [0.3, -1.0, 0.2]]), torch.tensor([[-2.0], [0.5]])):
        found = tensor(ask(answer, rows), like=rows)
        if found.isnan().any():
            raise Almost("A block of zeros came back as NaN, for it was divided by an absmax of 0.")
        if not _same(found, levels[_nearest(rows, levels)] * rows.abs().amax(1, keepdim=True)):
            raise Almost(_why_not_int4(rows, found))
    return "Each block lies on at most 15 levels of its own, zero among them."


def _why_not_int4(rows, found) -> str:
    import torch

    absmax = rows.abs().amax(1, keepdim=True).clamp(min=TINY)
    codes = (rows / absmax * 7).round()

    def rounded(scale, steps=7, rounding=torch.round):
        return rounding(rows / scale * steps) / steps * scale

    known = [
        (rows, "Nothing was rounded: the weights came back as they were."),
        (rows.round(), "The weights were rounded as they are, before any division by the absmax."),
        (codes, "These are the codes, whole numbers. The weights that they stand for are missing."),
        (codes / 7, "These lie between -1 and 1: the absmax was divided out and not multiplied back."),
        (codes * absmax, "These are 7 times too large: one of the two factors was not undone."),
        (rounded(rows.abs().max()), "All rows share one absmax here, and each row is a block with an absmax of its own."),
        (rounded(rows.abs().amax(0, keepdim=True)), "The absmax was taken down the columns, and a block is a row."),
        (rounded(rows.amax(1, keepdim=True)), "The largest weight is not always the largest absolute value."),
        (rounded(absmax, rounding=torch.floor), "This rounds down. A weight belongs to the nearest level, which may be the one above."),
        (rounded(absmax, rounding=torch.ceil), "This rounds up. A weight belongs to the nearest level, which may be the one below."),
        (rounded(absmax, rounding=torch.trunc), "This cuts decimals off, and the nearest level may be the other one."),
    ]
    for steps in (3, 8, 15, 16, 127):
        fits = "more than" if 2 * steps + 1 > CODES else "too few of"
        why = f"Codes from -{steps} to {steps} are {2 * steps + 1}: {fits} the {CODES} that 4 bits have."
        known.append((rounded(absmax, steps), why))
    return next((why for wrong, why in known if _same(found, wrong)), "The shape is right and the numbers are not.")


# --- NF4 ------------------------------------------------------------------------------------------------------------------------


def _nf4_block():
    def nf4_block(rows, levels):
        import torch

        absmax = rows.abs().amax(1, keepdim=True)
        half_way = (levels[1:] + levels[:-1]) / 2
        return torch.bucketize(rows / absmax.clamp(min=TINY), half_way), absmax

    return nf4_block


@exercise(
    "04_qlora",
    "build",
    "Find codes and absmax of blocks, given the levels",
    hints=(
        "Two steps: bring each row between -1 and 1, then ask which of the 16 levels is nearest.",
        "`(x[..., None] - levels).abs()` holds the distances of every number to every level.",
        "The code is `.argmin(-1)` of these. With less memory: `torch.bucketize`, given the 15 points half-way between two levels.",
    ),
    solution=_nf4_block,
)
def nf4_block(answer):
    """Judges `f(rows, levels)`: rows is (n, size), each row one block; levels (16,), ascending from -1 to 1. It returns
    `codes`, whole numbers 0 to 15 in the shape of rows, and `absmax`, one for each row: (n,) or (n, 1).

    The definition: `levels[code]` is the level nearest to the weight over its block's absmax (Dettmers et al. 2023, section 2), as
    in bitsandbytes' `quantize_4bit`, block size 64. Half-way, either level will do; in a block of zeros any code will.
    """
    import torch

    nf4, even = nf4_levels(), torch.linspace(-1, 1, CODES)
    zeros = torch.cat([torch.zeros(1, 64), _drawn(1, 64, seed=2)])
    for rows, levels in ((_drawn(4, 64), nf4), (_drawn(3, 5, seed=1) * 0.02, nf4), (zeros, nf4), (_drawn(4, 64, seed=3), even)):
        codes, absmax = _codes_and_absmax(ask(answer, rows, levels), rows, levels)
        if not _same(absmax, rows.abs().amax(1, keepdim=True)):
            raise Almost(_why_not_absmax(rows, absmax))
        scaled = rows / absmax.clamp(min=TINY)
        distances = (scaled[..., None] - levels).abs()
        chosen = distances.gather(-1, codes[..., None])[..., 0]
        if not ((chosen <= distances.amin(-1) + 1e-5) | (absmax == 0)).all():
            raise Almost(_why_not_nearest(rows, levels, codes, absmax))
    return "Sixteen levels, and every weight on the nearest."


def _codes_and_absmax(found, rows, levels):
    """Both results as tensors: codes (n, size) of whole numbers in range, absmax (n, 1)."""
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise Almost("Two results were expected, in this order: `return codes, absmax`.")
    if any(part is ... for part in found):
        raise NotAttempted
    codes, absmax = tensor(found[0], like=rows), found[1]
    if codes.isnan().any():
        raise Almost("Some codes are NaN: a block of zeros was divided by an absmax of 0.")
    if not _same(codes, codes.double().round()):
        values = levels[_nearest(rows, levels)]
        what = "These are the levels themselves" if _same(codes, values) else "These are no whole numbers"
        raise Almost(f"{what}: a code is the place of a level in the table, counted from 0.")
    codes = codes.long()
    if codes.min() < 0 or codes.max() >= CODES:
        raise Almost(f"The codes run from {codes.min()} to {codes.max()}, and places in the table run from 0 to {CODES - 1}.")
    if getattr(absmax, "numel", lambda: 1)() == 1 and len(rows) > 1:
        raise Almost("There is one absmax for all rows here, and each row is a block with an absmax of its own.")
    if getattr(absmax, "shape", None) == (len(rows),):
        absmax = absmax[:, None]
    return codes, tensor(absmax, like=rows[:, :1])


def _why_not_absmax(rows, absmax) -> str:
    if _same(absmax, rows.amax(1, keepdim=True)):
        return "The largest weight is not always the largest absolute value."
    if _same(absmax, rows.abs().max().expand(len(rows), 1)):
        return "Every row has the same absmax here, and each row is a block with an absmax of its own."
    return "The absmax is not the largest absolute value of each row."


def _why_not_nearest(rows, levels, codes, absmax) -> str:
    import torch

    absmax, ones = absmax.clamp(min=TINY), torch.ones(1)
    scaled = rows / absmax
    known = [
        (_nearest(rows, levels, ones), "The weights were compared with the levels as they are: the division by the absmax is missing."),
        (_nearest(rows, levels, rows.abs().max()), "All rows were divided by one absmax, the largest of all, and each block has its own."),
        (_nearest(rows, levels, 1 / absmax), "The weights were multiplied by the absmax before the comparison."),
        ((torch.bucketize(scaled, levels, right=True) - 1).clamp(0), "These are the levels below, and the one above may be nearer."),
        (torch.bucketize(scaled, levels), "These are the levels above, and the one below may be nearer."),
        (((scaled + 1) / 2 * (CODES - 1)).round(), "These are codes of 16 even levels, and another table was handed in."),
        (_nearest(rows, nf4_levels()), "These are codes of NF4's levels, and another table was handed in."),
    ]
    return next((why for wrong, why in known if _same(codes, wrong)), "Some codes are not those of the nearest level.")


# --- bits and bytes -------------------------------------------------------------------------------------------------------------


def _bits_per_weight():
    def bits_per_weight(block, constant_bits, second_block=None):
        bits = 4 + constant_bits / block
        return bits if second_block is None else bits + 32 / (block * second_block)

    return bits_per_weight


@exercise(
    "04_qlora",
    "build",
    "Count the bits that a weight really costs",
    hints=(
        "Count for one block: the codes of its weights, and its constant. Then divide by the number of weights.",
        "A constant of `constant_bits` serves `block` weights.",
        "A second constant of 32 bits serves `second_block` constants, and so `block * second_block` weights.",
    ),
    solution=_bits_per_weight,
)
def bits_per_weight(answer):
    """Judges `f(block, constant_bits, second_block)`: bits for a weight of 4 bits, its share of a constant of `constant_bits` for each
    `block` weights, and, unless `second_block` is None, its share of a float32 for each `second_block` constants (Dettmers et al. 2023,
    section 3, "Double Quantization").
    """
    cases = [(64, 32, None), (64, 8, 256), (16, 32, None), (32, 8, 64), (128, 16, 32), (1, 32, None)]
    found = [number(ask(answer, *case)) for case in cases]
    shares = [(1 / block, constant, 0 if second is None else 1 / second) for block, constant, second in cases]
    expected = [4 + b * c + 32 * b * s for b, c, s in shares]
    if all(close(mine, bits, 1e-4) for mine, bits in zip(found, expected, strict=True)):
        return "QLoRA's setting is (64, 8, 256)."
    for wrong, why in (
        (lambda b, c, s: b * c + 32 * b * s, "These are the constants alone: the 4 bits of the weight's own code are missing."),
        (lambda b, c, s: (4 + b * c + 32 * b * s) / 8, "These are bytes, and bits were asked for."),
        (lambda b, c, s: (4 + b * c + 32 * b * s) / b, "These are the bits of a whole block, and those of one weight were asked for."),
        (lambda b, c, s: 4 + b * c, "The constants of the constants are missing."),
        (lambda b, c, s: 4 + c + 32 * s, "Each weight pays for a whole constant here, and a block shares one."),
        (lambda b, c, s: 4 + b * c + 32 * s, "A second constant serves many constants, and each of these serves many weights."),
        (lambda b, c, s: 4 + b * c + c * b * s, "The second constants have 32 bits, whatever the first ones have."),
        (lambda b, c, s: 4 + b * c + 8 * b * s, "A second constant is a float32, and that has more than 8 bits."),
        (
            lambda b, c, s: 4 + b * c + 32 * b * (s > 0),
            "Each block has a second constant of its own here, and `second_block` blocks share one.",
        ),
        (lambda b, c, s: 4 + 32 * b + 32 * b * s, "The first constants do not always have 32 bits: `constant_bits` says how many."),
    ):
        if all(close(mine, wrong(*share), 1e-4) for mine, share in zip(found, shares, strict=True)):
            raise Almost(why)
    case, mine, bits = next(row for row in zip(cases, found, expected, strict=True) if not close(row[1], row[2], 1e-4))
    raise Almost(f"For {case} it gives {mine:g} bits, and that is too {'many' if mine > bits else 'few'}.")


@exercise(
    "04_qlora",
    "recall",
    "Say how many GB a base takes in NF4 with double quantization",
    hints=(
        "Bits for a weight, times weights, over 8, are bytes; a GB is a thousand million of them.",
        "QLoRA's blocks have 64 weights; constants have 8 bits, and 256 of them share a float32: `bits(64, 8, 256)`.",
    ),
)
def base_gb(answer, parameters: float = 7e9):
    """Judges a number: GB (10^9 bytes) of so many weights in NF4 with double quantization, to 1%; adapters and activations left out."""
    given = number(answer)
    right = _bits_per_weight()

    def gb(bits):
        return bits * parameters / 8e9

    expected = gb(right(64, 8, 256))
    if close(given, expected, 0.01):
        return f"{expected:.2f} GB, and {gb(16):.0f} GB in 16 bits."
    for wrong, why in (
        (gb(4), "These are the codes alone: the constants are missing."),
        (gb(right(64, 32)), "This is NF4 without double quantization: its constants are still float32."),
        (8 * expected, "These are gigabits, and a byte has 8 bits."),
        (expected * 1e9 / 2**30, "These are GiB, of 2^30 bytes; a GB has 10^9."),
        (expected * 1e9, "These are bytes."),
        (gb(8), "This is the base in 8 bits."),
        (gb(16), "This is the base in 16 bits."),
        (gb(32), "This is the base in 32 bits."),
        (right(64, 8, 256) / 8, "This is what one weight takes, in bytes."),
        (right(64, 8, 256), "This is what one weight takes, in bits."),
    ):
        if close(given, wrong, 0.005):
            raise Almost(why)
    raise Almost(f"That is too {'much' if given > expected else 'little'}." if given == given else "The answer is no number.")


# --- what is harmed, what is trained --------------------------------------------------------------------------------------------


@exercise(
    "04_qlora",
    "explore",
    "Find the layer whose output suffers most in 4 bits",
    hints=(
        "For each layer compare two outputs for the same inputs: with its weights, and with what NF4 leaves of them.",
        "A layer's output is `X @ W.T`. The error of its output is `X @ (stored(W) - W).T`.",
        "The share is the norm of the error over the norm of the output, and `max(harm, key=harm.get)` is the name of the largest.",
    ),
)
def what_to_keep(answer, layers: Mapping):
    """Judges a layer's name: the one whose output changes most, as a share of its norm, when its weights are stored in NF4.

    Args:
        layers: name -> (W, X), W (n_out, n_in) and X (tokens, n_in), both float32. Layers within 1% of the largest error are right too.
    """
    if not isinstance(answer, str) or answer not in layers:
        raise Almost(f"The answer is the name of a layer, such as '{next(iter(layers))}'.")
    outputs, weights, sizes = {}, {}, {}
    for name, (W, X) in layers.items():
        error = _after_nf4(W) - W
        sizes[name] = (X @ error.T).norm().item()
        outputs[name] = sizes[name] / max(TINY, (X @ W.T).norm().item())
        weights[name] = (error.norm() / W.norm()).item()
    worst = max(outputs, key=outputs.get)
    if outputs[answer] >= 0.99 * outputs[worst]:
        too = " Its weights lose most, too." if answer == max(weights, key=weights.get) else " Its weights are not those that lose most."
        return f"Its output changes by {outputs[answer]:.1%} of its norm.{too}"
    if answer == max(weights, key=weights.get):
        raise Almost("This layer's weights lose most. Inputs are not the same in all directions, so its output need not.")
    if answer == max(sizes, key=sizes.get):
        raise Almost("This layer's output moves farthest, but that output is large. Compare the change with the size of the output.")
    if answer == min(outputs, key=outputs.get):
        raise Almost("This is the layer whose output suffers least.")
    raise Almost(f"The output of {answer} changes by {outputs[answer]:.1%} of its norm, and there is a layer with more.")


def _after_nf4(W, size: int = 64):
    """What NF4 leaves of a matrix, in blocks of `size` along its rows, the last one filled up with zeros."""
    import torch

    levels = nf4_levels()
    flat = W.flatten()
    rows = torch.nn.functional.pad(flat, (0, -len(flat) % size)).reshape(-1, size)
    absmax = rows.abs().amax(1, keepdim=True)
    codes = torch.bucketize(rows / absmax.clamp(min=TINY), (levels[1:] + levels[:-1]) / 2)
    return (levels[codes] * absmax).flatten()[: len(flat)].reshape(W.shape)


@exercise(
    "04_qlora",
    "recall",
    "Choose what gets a gradient in a QLoRA layer",
    hints=(
        "Two things are asked: what is trained here, and what must be known to train the layers before this one.",
        "y = unpacked(W) x + (alpha / r) B A x. What is trained has a gradient; and the chain rule goes on through x.",
    ),
)
def qlora_gradients(answer):
    """Judges letters: (a) the codes of W, (b) their absmax constants, (c) A, (d) B, (e) the layer's input x.

    Updates need the gradients of the adapter alone; computing them leads through the unpacked weights (Dettmers et al. 2023, section 3).
    """
    letters = [c for c in answer if not c.isspace() and c not in ",;"] if isinstance(answer, str) else answer
    chosen = choice([c.lower() if isinstance(c, str) else c for c in letters], "abcde")
    if chosen == set("cde"):
        return "The base is read in both directions and written in none."
    if "a" in chosen:
        raise Almost("The codes are whole numbers and frozen: there is no small step from one code to the next.")
    if "b" in chosen:
        raise Almost("The absmax constants belong to the frozen base: they are read, not trained.")
    if not {"c", "d"} <= chosen:
        raise Almost("Something that is trained is missing.")
    raise Almost("With these alone only the last adapted layer could learn: those before it need a gradient that comes through this one.")
