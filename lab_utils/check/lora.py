"""The exercises of notebook 03_lora."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from lab_utils.check.exercise import Almost, NotAttempted, ask, exercise, number, tensor

SLOW = 0.25  # seconds for a product of matrices with 128 rows, which takes a thousandth of that
SIDE = 1000  # inputs and outputs of the layer in `break_even`
LEAST = 0.9  # share of its budget that an adapter must use, and share of the squares that `effective_rank` asks for

# --- counting -----------------------------------------------------------------------------------------------------------------


@exercise(
    "03_lora",
    "recall",
    "Say from which rank on LoRA is larger than the layer",
    hints=(
        "Write down the shapes of A and B for this layer: each has the rank as one side.",
        "Together they have 2,000 numbers for each unit of the rank. The layer has a million.",
    ),
)
def break_even(answer):
    """Judges a whole number: the smallest rank at which A and B have more parameters than their layer of 1,000 inputs and 1,000 outputs."""
    rank = number(answer, "rank")
    even = SIDE * SIDE // (2 * SIDE)
    if rank == even + 1:
        return f"At rank {even} the two factors have exactly as many numbers as the layer, and from here on they have more."
    if rank == even:
        raise Almost("At this rank there are exactly as many parameters, not more.")
    if rank in (SIDE, SIDE + 1):
        raise Almost("This counts one of the two factors only.")
    if rank == SIDE * SIDE or rank == 2 * SIDE:
        raise Almost("This is a number of parameters. The rank is asked for.")
    if not rank.is_integer():  # neither is "not a number"
        raise Almost("A rank is a whole number: it counts rows.")
    if rank < even:
        raise Almost("At this rank the adapter still has fewer parameters than the layer.")
    raise Almost("At this rank the adapter has more parameters, and so it has at a rank below already.")


def _count_lora():
    def count(shapes, rank, chosen):
        return sum(rank * (n_in + n_out) for n_in, n_out in (shapes[name] for name in chosen))

    return count


_TOY = {"first.query": (6, 4), "first.value": (6, 4), "first.up": (4, 10), "first.down": (10, 4)}


def _wrong_counts(shapes, rank, chosen) -> dict[str, int]:
    pairs = [shapes[name] for name in chosen]
    right, frozen = _count_lora()(shapes, rank, chosen), sum(n_in * n_out for n_in, n_out in pairs)
    return {
        "This counts every layer; only the chosen ones get an adapter.": _count_lora()(shapes, rank, shapes),
        "This counts A and leaves B out.": sum(rank * n_in for n_in, _ in pairs),
        "This counts B and leaves A out.": sum(rank * n_out for _, n_out in pairs),
        "The rank is missing.": right // rank,
        "These are the layers' own weights, which stay frozen.": frozen,
        "Inputs times outputs is the size of the layer's own matrix; A and B are thinner.": rank * frozen,
        "This counts the frozen weights as well.": frozen + right,
        "B is taken to be as long as A; a layer's outputs may differ from its inputs.": sum(2 * rank * n_in for n_in, _ in pairs),
        "A is taken to be as long as B; a layer's inputs may differ from its outputs.": sum(2 * rank * n_out for _, n_out in pairs),
        "Layers of one shape are counted once; each has an adapter of its own.": sum(rank * sum(pair) for pair in set(pairs)),
    }


@exercise(
    "03_lora",
    "build",
    "Count the parameters of an adapter",
    hints=(
        "Go through the chosen names; shapes[name] is a pair, inputs and outputs.",
        "A has rank rows and n_in columns; B has n_out rows and rank columns. Count both.",
        "rank * n_in + n_out * rank for each chosen layer, all added up.",
    ),
    solution=_count_lora,
)
def count_lora(answer, shapes=None, rank=None):
    """Judges `f(shapes, rank, chosen)`: how many numbers all A (rank, n_in) and B (n_out, rank) of the chosen layers have together.

    Args:
        shapes: of a notebook's own model, name -> (n_in, n_out), and `rank`: tried as well.
    """
    cases = [(_TOY, 3, ["first.query", "first.value", "first.up"]), (_TOY, 1, list(_TOY)), (_TOY, 2, [])]
    cases += [(dict(shapes), rank, list(shapes))] if shapes and rank else []
    for case in cases:
        expected, found = _count_lora()(*case), number(ask(answer, *case), "count")
        if found == expected:
            continue
        if not case[2]:
            raise Almost("It is right for some layers, and wrong where none is chosen.")
        for why, wrong in _wrong_counts(*case).items():
            if found == wrong:
                raise Almost(why)
        layers, which = f"{len(case[2])} of {len(case[0])} layers", "many" if found > expected else "few"
        raise Almost(f"For {layers} and rank {case[1]} it gives {found:g}, which is too {which}.")
    return "It needs shapes only: no weight was loaded for it."


@exercise(
    "03_lora",
    "explore",
    "Spend a budget of parameters",
    hints=(
        "A name stands for every layer of that name. Multiply its parameters at rank 1 by the rank.",
        "With all kinds of layers one rank is too low and the next too high. Leave kinds out, and raise the rank.",
        "Take one kind alone, with few parameters at rank 1: the budget divided by them, rounded down, is a rank that fits.",
    ),
)
def within_budget(answer, *, shapes, budget):
    """Judges a pair, rank and names of layers as peft takes them (["q_proj", "v_proj"]): an adapter of 90% to 100% of the budget.

    Args:
        shapes: of the model's linear layers, name -> (n_in, n_out).
        budget: number of parameters.
    """
    rank, names = _rank_and_names(answer)
    kinds = list(dict.fromkeys(layer.rsplit(".", 1)[-1] for layer in shapes))
    for name in names:
        if not any(_hits(name, layer) for layer in shapes):
            raise Almost(f"'{name}' is no layer of this model; it has {', '.join(kinds)}.")
    hit = [layer for layer in shapes if any(_hits(name, layer) for name in names)]
    size = _count_lora()(shapes, rank, hit)
    said = f"Rank {rank} on {len(hit)} layers makes {size:,} parameters, {size / budget:.1%} of the budget"
    if size > budget:
        raise Almost(f"{said}: {size - budget:,.0f} too many{', although no rank is lower' if rank == 1 else ''}.")
    if size < LEAST * budget:
        raise Almost(f"{said}: {LEAST * budget - size:,.0f} more would be the least.")
    if any(rank > min(shapes[layer]) for layer in hit):
        said += "; but a rank above the shorter side of a layer buys nothing, since no matrix of that shape has a higher rank"
    return f"{said}."


def _rank_and_names(answer: Any) -> tuple[int, list[str]]:
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Almost("Hand over two things in brackets: the rank, and the list of names.")
    rank, names = answer
    if rank is ... or names is ...:
        raise NotAttempted
    whole = number(rank, "rank")
    if not whole.is_integer() or whole < 1:
        raise Almost("A rank is a whole number, 1 or more.")
    names = [names] if isinstance(names, str) else list(names) if isinstance(names, list | tuple | set) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise Almost('The second thing should be a list of names, such as ["q_proj", "v_proj"].')
    if not names:
        raise Almost("No layer is chosen.")
    return int(whole), names


def _hits(name: str, layer: str) -> bool:
    """Whether peft would adapt the layer for that name: its whole path, or the end of it from a dot on."""
    return f".{layer}".endswith(f".{name}")


# --- matrices -----------------------------------------------------------------------------------------------------------------


def _lora_forward():
    def forward(x, W, A, B, alpha):
        return x @ W.T + alpha / A.shape[0] * (x @ A.T) @ B.T

    return forward


def _merge():
    def merge(W, A, B, alpha):
        return W + alpha / A.shape[0] * B @ A

    return merge


def _wrong_forwards(x, W, A, B, alpha) -> dict[str, Any]:
    plain, update, r = x @ W.T, (x @ A.T) @ B.T, len(A)
    return {
        "This is the frozen layer alone: the update is missing.": plain,
        "This is the update alone: the output of the frozen layer is missing.": alpha / r * update,
        "The scale belongs to the update only, not to the frozen layer's output.": alpha / r * (plain + update),
        "The update is subtracted.": plain - alpha / r * update,
    } | {why: plain + scale * update for why, scale in _wrong_scales(W, r, alpha).items()}


def _wrong_merges(W, A, B, alpha) -> dict[str, Any]:
    update, r = B @ A, len(A)
    found = {
        "This is the frozen matrix: the update is missing.": W,
        "This is the update alone: W is missing.": alpha / r * update,
        "The scale belongs to the update only, not to W.": alpha / r * (W + update),
        "The update is subtracted: that is how an adapter is taken out again.": W - alpha / r * update,
    } | {why: W + scale * update for why, scale in _wrong_scales(W, r, alpha).items()}
    if W.shape == (r, r):  # the one case where these have a result of the right shape
        found["The product is taken in the other order, and A B is another matrix than B A."] = W + alpha / r * A @ B
        found["The update is transposed: its rows belong to the outputs, as those of W do."] = W + alpha / r * update.T
    return found


def _wrong_scales(W, r: int, alpha: float) -> dict[str, float]:
    n_out, n_in = W.shape
    return {
        "The update is not scaled.": 1,
        "The update is multiplied by alpha, and not divided by r.": alpha,
        "The scale is upside down.": r / alpha,
        "The scale divides by the number of inputs, which is not r.": alpha / n_in,
        "The scale divides by the number of outputs, which is not r.": alpha / n_out,
        "This divides by the square root of r, as rsLoRA does; LoRA divides by r.": alpha / r**0.5,
    }


@exercise(
    "03_lora",
    "build",
    "Write the forward pass of a LoRA layer",
    hints=(
        "Start with the frozen layer alone: x @ W.T. Its update has the same shape.",
        "x goes through A first, which leaves r numbers, then through B: (x @ A.T) @ B.T.",
        "The update is multiplied by alpha / r, and r is the number of rows of A.",
    ),
    solution=_lora_forward,
)
def lora_forward(answer):
    """Judges `f(x, W, A, B, alpha)`: x is (n, n_in), W (n_out, n_in), A (r, n_in), B (n_out, r), the result (n, n_out), and a gradient
    must reach A and B; Hu et al. 2021, equation 3."""
    cases = [(*_drawn((3, 6), (5, 6), (2, 6), (5, 2)), 8.0), (*_drawn((1, 4), (3, 4), (1, 4), (3, 1)), 0.5)]
    _compare(answer, cases, _lora_forward(), _wrong_forwards)
    _in_time(answer, *_drawn((128, 128), (128, 128), (8, 128), (128, 8)), 8.0)
    x, W, A, B, alpha = cases[0]
    if not ask(answer, x, W, A.requires_grad_(), B.requires_grad_(), alpha).requires_grad:
        raise Almost("The numbers are right, but no gradient reaches A and B: leave out numpy, detach() and no_grad().")
    return "It equals the layer with W + (alpha / r) B A in place of W."


@exercise(
    "03_lora",
    "build",
    "Merge an adapter into its layer",
    hints=(
        "The result has the shape of W: n_out rows, n_in columns. Which product of A and B has that shape too?",
        "B has n_out rows and A has n_in columns, so it is B @ A. The scale is that of the forward pass.",
        "W + alpha / r * (B @ A), with r = A.shape[0]. It must be a new matrix: W itself stays as it is.",
    ),
    solution=_merge,
)
def merge(answer):
    """Judges `f(W, A, B, alpha)`: W is (n_out, n_in), A (r, n_in), B (n_out, r); a new matrix that stands for the layer and its adapter,
    with W left as it was; Hu et al. 2021, section 4.1."""
    square = (*_drawn((3, 3), (3, 3), (3, 3)), 6.0)  # all sides alike, so that the other order of the product has a result too
    cases = [square, (*_drawn((5, 4), (2, 4), (5, 2)), 8.0), (*_drawn((4, 7), (1, 7), (4, 1)), 0.5)]
    _compare(answer, cases, _merge(), _wrong_merges)
    _in_time(answer, *_drawn((128, 128), (8, 128), (128, 8)), 8.0)
    W, A, B, alpha = square
    before = W.clone()
    answer(W, A, B, alpha)
    if not W.equal(before):
        raise Almost("The numbers are right, but W itself was changed: whoever uses it next has another base. Make a new matrix.")
    return "One matrix now stands for the layer and its adapter."


def _drawn(*shapes: tuple[int, int]):
    import torch

    draw = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=draw) for shape in shapes]


def _compare(answer: Any, cases: Sequence[tuple], right: Callable, wrong: Callable[..., dict[str, Any]]) -> None:
    """Raises `Almost` at the first case that the answer gets wrong, with the reason where it gives what a known wrong answer does."""
    for case in cases:
        expected = right(*case)
        found = tensor(ask(answer, *case), like=expected)
        if found.dtype != expected.dtype:
            raise Almost(f"The result is {found.dtype}, and what was given is {expected.dtype}: leave the format as it is.")
        if not _equal(found, expected):
            known = (why for why, other in wrong(*case).items() if _equal(found, other))
            raise Almost(next(known, "The shape is right and the numbers are not."))


def _in_time(answer: Any, *arguments: Any) -> None:
    """Raises `Almost` for an answer that goes through single numbers: the notebook goes on with it, on layers of a million."""
    started = time.perf_counter()
    ask(answer, *arguments)
    if time.perf_counter() - started > SLOW:
        raise Almost("The numbers are right, but one by one: on a real layer that takes minutes. Use products of whole matrices.")


def _equal(found, other) -> bool:
    import torch

    return torch.allclose(found, other, rtol=1e-4, atol=1e-4)


# --- singular values ----------------------------------------------------------------------------------------------------------


def _effective_rank():
    def effective_rank(values):
        wanted, held = LEAST * sum(value**2 for value in values), 0.0
        for count, value in enumerate(values):
            if held >= wanted:
                return count
            held += value**2
        return len(values)

    return effective_rank


def _wrong_ranks(values: list[float]) -> dict[str, float]:
    right, squares = _effective_rank()(values), [value**2 for value in values]
    return {
        "These hold 90% of the sum of the values; the sum of their squares was asked for.": _effective_rank()([v**0.5 for v in values]),
        "One too few: so many still hold less than 90%.": right - 1,
        "One too many: so many hold 90%, but so did one fewer.": right + 1,
        "This is the rank: it counts every value above zero, however small.": sum(value > 0 for value in values),
        "This is the number of values, whatever they hold.": len(values),
        "This compares each value with the largest; the running sum of squares is to be compared with the whole.": sum(
            value >= 0.1 * values[0] for value in values
        ),
        "This is the share that they hold; how many they are was asked for.": sum(squares[:right]) / sum(squares),
    }


@exercise(
    "03_lora",
    "build",
    "Count the directions that matter",
    hints=(
        "Square every value first. The sum of all squares is the whole.",
        "Add up the squares from the largest on, and stop as soon as the running sum is at least 0.9 of the whole.",
        "The answer is how many were added when the sum got there. With a whole of 0 it is there before the first.",
    ),
    solution=_effective_rank,
)
def effective_rank(answer):
    """Judges `f(values)`: how many singular values, of a list of floats with the largest first, it takes from the largest on to hold at
    least 90% of the sum of all squares, which is the matrix's squared Frobenius norm; 0 where all are zero."""
    halves = [2.0**-i for i in range(12)]
    cases = [[6.0, 3.0, 3.0, 1.0, 1.0, 1.0, 0.1, 0.0], [1.0], [2.0] * 8, [10.0, 1.0], halves, [3.0, 2.0, 0.0]]
    expected = [_effective_rank()(values) for values in cases]
    found = [number(ask(answer, values), "count") for values in cases]
    if found != expected:
        for why in _wrong_ranks(cases[0]):
            if found == [_wrong_ranks(values)[why] for values in cases]:
                raise Almost(why)
        values, right, mine = next(three for three in zip(cases, expected, found, strict=True) if three[1] != three[2])
        raise Almost(f"For {values} it gives {mine:g}, which is too {'many' if mine > right else 'few'}.")
    try:
        nothing = number(ask(answer, [0.0, 0.0]), "count")
    except Almost as almost:
        raise Almost(f"For an update that is all zero: {almost}") from almost
    if nothing != 0:
        raise Almost(f"An update that is all zero has no direction, and for it this gives {nothing:g}.")
    return "The squares add up to the squared size of the update, so this is a share of the update itself."
