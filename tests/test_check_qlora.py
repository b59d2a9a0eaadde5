"""The exercises of notebook 04: right answers pass however they are written, and each usual wrong answer is told what is wrong with it."""

import numpy as np
import pytest
import torch
from exercises import almost

from lab_utils import check
from lab_utils.check import qlora
from lab_utils.check.exercise import NOT_ATTEMPTED

NF4 = qlora.nf4_levels()


@pytest.mark.parametrize("name", ["int4", "nf4_block", "bits_per_weight"])
def test_the_labs_own_answer_passes(name):
    exercise = check.EXERCISES[name]
    assert exercise(exercise.solution()).passed


# --- int4 -----------------------------------------------------------------------------------------------------------------------


def absmax(rows):
    return rows.abs().amax(1, keepdim=True).clamp(min=1e-12)


def int4_with_loops(rows):
    found = torch.zeros_like(rows)
    for i, row in enumerate(rows.tolist()):
        scale = max(map(abs, row))
        for j, value in enumerate(row):
            found[i, j] = round(7 * value / scale) * scale / 7 if scale else 0.0
    return found


def int4_with_numpy(rows):
    rows = rows.numpy().astype(np.float64)
    scale = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-30) / 7
    return torch.from_numpy(np.floor(rows / scale + 0.5) * scale)


@pytest.mark.parametrize("answer", [int4_with_loops, int4_with_numpy])
def test_int4_may_be_written_with_loops_or_in_numpy(answer):
    assert check.int4(answer).passed


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda rows: rows, "Nothing was rounded"),
        (lambda rows: rows.round(), "before any division"),
        (lambda rows: (rows / absmax(rows) * 7).round(), "These are the codes"),
        (lambda rows: (rows / absmax(rows) * 7).round() / 7, "not multiplied back"),
        (lambda rows: (rows / absmax(rows) * 7).round() * absmax(rows), "7 times too large"),
        (lambda rows: (rows / rows.abs().max() * 7).round() / 7 * rows.abs().max(), "All rows share one absmax"),
        (lambda rows: (rows / rows.abs().amax(0) * 7).round() / 7 * rows.abs().amax(0), "down the columns"),
        (lambda rows: (rows / rows.amax(1, True) * 7).round() / 7 * rows.amax(1, True), "not always the largest absolute value"),
        (lambda rows: (rows / absmax(rows) * 7).floor() / 7 * absmax(rows), "which may be the one above"),
        (lambda rows: (rows / absmax(rows) * 7).ceil() / 7 * absmax(rows), "which may be the one below"),
        (lambda rows: (rows / absmax(rows) * 7).int() / 7 * absmax(rows), "cuts decimals off"),
        (lambda rows: (rows / absmax(rows) * 8).round() / 8 * absmax(rows), "are 17: more than the 16"),
        (lambda rows: (rows / absmax(rows) * 15).round() / 15 * absmax(rows), "are 31"),
        (lambda rows: (rows / rows.abs().amax(1, True) * 7).round() / 7 * rows.abs().amax(1, True), "NaN"),
        (lambda rows: (rows / absmax(rows) * 7).round().T, "The shape is"),
    ],
)
def test_a_wrong_int4_is_told_what_is_wrong(answer, words):
    assert words in almost(check.int4(answer))


# --- NF4 ------------------------------------------------------------------------------------------------------------------------


def by_distance(rows, levels):
    return ((rows / absmax(rows))[..., None] - levels).abs().argmin(-1), rows.abs().amax(1)


def with_loops(rows, levels):
    codes, largest = torch.zeros(rows.shape, dtype=torch.uint8), []
    for i, row in enumerate(rows.tolist()):
        largest.append(max(map(abs, row)))
        for j, value in enumerate(row):
            codes[i, j] = min(range(16), key=lambda code: abs(levels[code] * largest[i] - value))  # noqa: B023
    return codes, torch.tensor(largest)


def with_the_library(rows, levels):
    """bitsandbytes' own codes, where its table is the one asked for and its block sizes fit; our definition elsewhere."""
    if rows.shape[1] != 64 or not torch.allclose(levels, NF4, atol=1e-6):
        return by_distance(rows, levels)
    functional = pytest.importorskip("bitsandbytes").functional
    packed, state = functional.quantize_4bit(rows, blocksize=64, quant_type="nf4")
    return torch.stack([packed >> 4, packed & 15], -1).reshape(rows.shape), state.absmax


@pytest.mark.parametrize("answer", [by_distance, with_loops, with_the_library])
def test_codes_may_be_found_by_distances_in_loops_or_by_bitsandbytes(answer):
    assert check.nf4_block(answer).passed


def test_the_judges_levels_are_those_of_bitsandbytes():
    functional = pytest.importorskip("bitsandbytes").functional
    theirs = torch.tensor(functional.get_4bit_type("nf4", device="cpu").tolist())
    assert torch.allclose(NF4, theirs, atol=1e-6)


def codes_of(scaled, levels):
    return torch.bucketize(scaled, (levels[1:] + levels[:-1]) / 2)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda rows, levels: (codes_of(rows, levels), absmax(rows)), "division by the absmax is missing"),
        (lambda rows, levels: (codes_of(rows / rows.abs().max(), levels), absmax(rows)), "All rows were divided by one absmax"),
        (lambda rows, levels: (codes_of(rows / rows.abs().max(), levels), rows.abs().max()), "one absmax for all rows"),
        (lambda rows, levels: (codes_of(rows * absmax(rows), levels), absmax(rows)), "multiplied by the absmax"),
        (lambda rows, levels: (codes_of(rows / rows.amax(1, True), levels), rows.amax(1)), "not always the largest absolute value"),
        (lambda rows, levels: (codes_of(rows / absmax(rows), levels), rows.std(1)), "not the largest absolute value of each row"),
        (lambda rows, levels: (torch.bucketize(rows / absmax(rows), levels, right=True) - 1, absmax(rows)), "the levels below"),
        (lambda rows, levels: (torch.bucketize(rows / absmax(rows), levels), absmax(rows)), "the levels above"),
        (lambda rows, levels: (levels[codes_of(rows / absmax(rows), levels)], absmax(rows)), "the levels themselves"),
        (lambda rows, levels: (codes_of(rows / absmax(rows), levels) - 8, absmax(rows)), "run from -8 to 7"),
        (lambda rows, levels: (codes_of(rows / absmax(rows), levels) + 1, absmax(rows)), "run from 1 to 16"),
        (lambda rows, levels: (((rows / absmax(rows) + 1) * 7.5).round(), absmax(rows)), "16 even levels"),
        (lambda rows, levels: (codes_of(rows / absmax(rows), NF4), absmax(rows)), "codes of NF4's levels"),
        (lambda rows, levels: codes_of(rows / absmax(rows), levels), "Two results were expected"),
        (lambda rows, levels: (absmax(rows), codes_of(rows / absmax(rows), levels)), "The shape is"),
    ],
)
def test_wrong_codes_are_told_what_is_wrong(answer, words):
    assert words in almost(check.nf4_block(answer))


def test_two_stubs_in_a_pair_are_not_attempted():
    assert check.nf4_block(lambda rows, levels: (..., ...)).state == NOT_ATTEMPTED


# --- bits and bytes -------------------------------------------------------------------------------------------------------------


def test_bits_may_be_counted_for_many_weights_and_divided():
    def counted(block, constant_bits, second_block=None):
        weights = block * (second_block or 1) * 1000
        constants = weights // block
        return (weights * 4 + constants * constant_bits + (32 * constants // second_block if second_block else 0)) / weights

    assert check.bits_per_weight(counted).passed


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda b, c, s=None: c / b + (32 / (b * s) if s else 0), "the 4 bits of the weight's own code"),
        (lambda b, c, s=None: (4 + c / b + (32 / (b * s) if s else 0)) / 8, "These are bytes"),
        (lambda b, c, s=None: 4 * b + c + (32 / s if s else 0), "a whole block"),
        (lambda b, c, s=None: 4 + c / b, "constants of the constants"),
        (lambda b, c, s=None: 4 + c + (32 / s if s else 0), "Each weight pays for a whole constant"),
        (lambda b, c, s=None: 4 + c / b + (32 / s if s else 0), "each of these serves many weights"),
        (lambda b, c, s=None: 4 + c / b + (c / (b * s) if s else 0), "whatever the first ones have"),
        (lambda b, c, s=None: 4 + c / b + (8 / (b * s) if s else 0), "more than 8 bits"),
        (lambda b, c, s=None: 4 + c / b + (32 / b if s else 0), "`second_block` blocks share one"),
        (lambda b, c, s=None: 4 + 32 / b + (32 / (b * s) if s else 0), "`constant_bits` says how many"),
        (lambda b, c, s=None: 4.5, "For (64, 8, 256) it gives 4.5 bits, and that is too many"),
        (lambda b, c, s=None: 4 + c / b + 32 / (b * s), "TypeError"),
    ],
)
def test_wrong_bits_are_told_what_is_wrong(answer, words):
    assert words in almost(check.bits_per_weight(answer))


def test_the_large_base_may_be_rounded():
    assert check.base_gb(3.6).passed and check.base_gb(torch.tensor(3.611)).passed
    assert check.base_gb(0.516, parameters=1e9).passed


@pytest.mark.parametrize(
    "answer, words",
    [
        (3.5, "the constants are missing"),
        (3.94, "without double quantization"),
        (28.9, "gigabits"),
        (3.363, "GiB"),
        (3.611e9, "bytes"),
        (7, "8 bits"),
        (14, "16 bits"),
        (28, "32 bits"),
        (4.127, "one weight takes, in bits"),
        (0.516, "one weight takes, in bytes"),
        (2, "too little"),
        (100, "too much"),
        ("3.6", "should be a number"),
    ],
)
def test_a_wrong_size_of_the_base_is_told_what_is_wrong(answer, words):
    assert words in almost(check.base_gb(answer))


# --- what is harmed, what is trained --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def layers():
    """`far` has the largest error of weights, `aimed` that of outputs, `large` moves farthest, `calm` suffers least."""
    draw = torch.Generator().manual_seed(0)
    W, X = torch.randn(64, 64, generator=draw), torch.randn(32, 64, generator=draw)
    far = W.clone()
    far[:, 0] = 40  # every block has one far-out weight ...
    other = W.clone()
    other[:, :32] *= 0.01  # small weights, which the others in their block make inexact ...
    quiet, aimed = X.clone(), X.clone()
    quiet[:, 0], quiet[:, 1:] = 1.0, 0.001 * X[:, 1:]  # ... that is exact itself, and nearly all of the input
    aimed[:, 32:] = 0.0  # ... and all of the input falls on them
    return {"calm": (far, quiet), "aimed": (other, aimed), "large": (100 * W, X), "plain": (W, X)}


def test_the_layer_whose_output_suffers_most_is_the_one_to_keep(layers):
    assert check.what_to_keep("aimed", layers=layers).passed


@pytest.mark.parametrize(
    "answer, words",
    [
        ("calm", "weights lose most"),
        ("large", "moves farthest"),
        ("plain", "there is a layer with more"),
        ("lm_head", "name of a layer"),
        ({"aimed": 1.0}, "name of a layer"),
    ],
)
def test_a_layer_that_is_not_the_one_is_told_why(layers, answer, words):
    assert words in almost(check.what_to_keep(answer, layers=layers))


def test_the_least_harmed_layer_is_named_as_such(layers):
    exact = (torch.eye(64), layers["plain"][1])
    assert "suffers least" in almost(check.what_to_keep("exact", layers={**layers, "exact": exact}))


@pytest.mark.parametrize("answer", ["cde", "E, C, D", ["c", "d", "e"], {"c", "d", "e"}])
def test_adapters_and_the_input_get_a_gradient(answer):
    assert check.qlora_gradients(answer).passed


@pytest.mark.parametrize(
    "answer, words",
    [
        ("acde", "codes are whole numbers"),
        ("bcde", "frozen base"),
        ("cd", "those before it need"),
        ("ce", "trained is missing"),
        ("q", "none of them"),
    ],
)
def test_a_wrong_choice_of_gradients_is_told_why(answer, words):
    assert words in almost(check.qlora_gradients(answer))
