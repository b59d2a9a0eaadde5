"""The exercises of notebook 03: right answers of every kind pass, and each usual wrong one is told what is wrong with it."""

import numpy
import pytest
import torch
from exercises import almost

from lab_utils import check
from lab_utils.check.exercise import NOT_ATTEMPTED

SHAPES = {
    f"model.layers.{i}.{name}": shape
    for i in range(2)
    for name, shape in {"attn.q": (8, 8), "attn.v": (8, 6), "mlp.up": (8, 32), "mlp.down": (32, 8)}.items()
}
BUDGET = 550  # a unit of the rank costs 2 * (16 + 14 + 40 + 40) = 220 on all layers


# --- break_even ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [501, 501.0, torch.tensor(501)])
def test_lora_has_more_parameters_from_the_rank_on_at_which_its_factors_outgrow_the_layer(answer):
    assert check.break_even(answer).passed


@pytest.mark.parametrize(
    "answer, said",
    [
        (500, "exactly as many"),
        (1000, "one of the two factors"),
        (1001, "one of the two factors"),
        (1_000_000, "number of parameters"),
        (500.5, "whole number"),
        (32, "still has fewer"),
        (502, "at a rank below"),
        (float("inf"), "whole number"),
        ("501", "should be a number"),
    ],
)
def test_a_wrong_break_even_rank_is_told_on_which_side_it_lies(answer, said):
    assert said in almost(check.break_even(answer))


# --- count_lora ---------------------------------------------------------------------------------------------------------------


def counted_by_numpy(shapes, rank, chosen):
    return sum(numpy.zeros((rank, shapes[n][0])).size + numpy.zeros((shapes[n][1], rank)).size for n in chosen)


def counted_in_a_loop(shapes, rank, chosen):
    total = 0
    for name, (n_in, n_out) in shapes.items():
        if name in chosen:
            total += n_in * rank
            total += rank * n_out
    return total


@pytest.mark.parametrize("answer", [counted_by_numpy, counted_in_a_loop, lambda *given: float(counted_in_a_loop(*given))])
def test_any_way_of_counting_both_factors_passes(answer):
    verdict = check.count_lora(answer, shapes=SHAPES, rank=4)
    assert verdict.passed and verdict.best is answer


def test_the_labs_count_is_what_peft_adds_to_a_model():
    from peft import LoraConfig, inject_adapter_in_model

    model = torch.nn.ModuleDict({"q": torch.nn.Linear(6, 4), "up": torch.nn.Linear(4, 10), "down": torch.nn.Linear(10, 4)})
    shapes = {name: (layer.in_features, layer.out_features) for name, layer in model.items()}
    inject_adapter_in_model(LoraConfig(r=3, target_modules=["q", "down"]), model)
    added = sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)
    assert check.count_lora(...).best(shapes, 3, ["q", "down"]) == added


@pytest.mark.parametrize(
    "answer, said",
    [
        (lambda s, r, c: counted_in_a_loop(s, r, s), "every layer"),
        (lambda s, r, c: sum(r * s[n][0] for n in c), "leaves B out"),
        (lambda s, r, c: sum(r * s[n][1] for n in c), "leaves A out"),
        (lambda s, r, c: sum(sum(s[n]) for n in c), "rank is missing"),
        (lambda s, r, c: sum(s[n][0] * s[n][1] for n in c), "stay frozen"),
        (lambda s, r, c: sum(r * s[n][0] * s[n][1] for n in c), "thinner"),
        (lambda s, r, c: sum(2 * r * s[n][0] for n in c), "as long as A"),
        (lambda s, r, c: sum(2 * r * s[n][1] for n in c), "as long as B"),
        (lambda s, r, c: sum(r * sum(pair) for pair in {s[n] for n in c}), "counted once"),
        (lambda s, r, c: sum(s[n][0] * s[n][1] + r * sum(s[n]) for n in c), "frozen weights as well"),
        (lambda s, r, c: counted_in_a_loop(s, r, c or s), "none is chosen"),
        (lambda s, r, c: counted_in_a_loop(s, r, c) + 5, "too many"),
        (lambda s, r, c: s["q_proj"], "KeyError"),
    ],
)
def test_a_wrong_count_is_told_what_it_counts(answer, said):
    assert said in almost(check.count_lora(answer, shapes=SHAPES, rank=4))


# --- lora_forward and merge ---------------------------------------------------------------------------------------------------


def forward_merged_first(x, W, A, B, alpha):
    return torch.nn.functional.linear(x, W + (alpha / A.size(0)) * torch.einsum("or,ri->oi", B, A))


def forward_in_columns(x, W, A, B, alpha):
    return (W @ x.T + B @ (A @ x.T) * alpha / B.shape[1]).T


def forward_in_doubles(x, W, A, B, alpha):
    return forward_merged_first(*(matrix.double() for matrix in (x, W, A, B)), alpha)


@pytest.mark.parametrize("answer", [forward_merged_first, forward_in_columns])
def test_any_way_of_writing_the_forward_pass_of_lora_passes(answer):
    verdict = check.lora_forward(answer)
    assert verdict.passed and verdict.best is answer


def wrong_forward(scale=lambda x, W, A, alpha: alpha / len(A), plain=1.0):
    return lambda x, W, A, B, alpha: plain * x @ W.T + scale(x, W, A, alpha) * (x @ A.T) @ B.T


@pytest.mark.parametrize(
    "answer, said",
    [
        (wrong_forward(scale=lambda x, W, A, alpha: 0), "frozen layer alone"),
        (wrong_forward(plain=0), "update alone"),
        (wrong_forward(scale=lambda x, W, A, alpha: 1), "not scaled"),
        (wrong_forward(scale=lambda x, W, A, alpha: alpha), "not divided by r"),
        (wrong_forward(scale=lambda x, W, A, alpha: len(A) / alpha), "upside down"),
        (wrong_forward(scale=lambda x, W, A, alpha: alpha / A.shape[1]), "number of inputs"),
        (wrong_forward(scale=lambda x, W, A, alpha: alpha / W.shape[0]), "number of outputs"),
        (wrong_forward(scale=lambda x, W, A, alpha: alpha / len(A) ** 0.5), "rsLoRA"),
        (wrong_forward(scale=lambda x, W, A, alpha: -alpha / len(A)), "subtracted"),
        (lambda x, W, A, B, alpha: alpha / len(A) * (x @ W.T + (x @ A.T) @ B.T), "update only"),
        (lambda x, W, A, B, alpha: x @ W.T + 4 * (x @ A.T) @ B.T, "numbers are not"),
        (forward_in_doubles, "float64"),
        (lambda x, W, A, B, alpha: x @ W, "shapes cannot be multiplied"),
        (lambda x, W, A, B, alpha: forward_in_columns(x, W, A, B, alpha).T, "The shape is (5, 3)"),
        (lambda x, W, A, B, alpha: forward_in_columns(x, W, A, B, alpha).detach(), "no gradient"),
        (lambda x, W, A, B, alpha: forward_in_columns(*(m.numpy() for m in (x, W, A, B)), alpha), "A tensor was expected"),
    ],
)
def test_a_wrong_forward_pass_is_told_what_it_computes(answer, said):
    assert said in almost(check.lora_forward(answer))


def merge_in_loops(W, A, B, alpha):
    merged, r = W.clone(), len(A)
    for row in range(W.shape[0]):
        for column in range(W.shape[1]):
            merged[row, column] += alpha / r * sum(B[row, k] * A[k, column] for k in range(r))
    return merged


def merge_as_outer_products(W, A, B, alpha):
    return W + alpha * torch.stack([torch.outer(b, a) for b, a in zip(B.T, A, strict=True)]).mean(0)


def merge_with_numpy_inside(W, A, B, alpha):
    return torch.from_numpy(W.numpy() + alpha / len(A) * B.numpy() @ A.numpy())


@pytest.mark.parametrize("answer", [merge_as_outer_products, merge_with_numpy_inside])
def test_any_way_of_merging_into_a_new_matrix_passes(answer):
    verdict = check.merge(answer)
    assert verdict.passed and verdict.best is answer


def test_the_labs_merge_and_forward_are_pefts():
    from peft import LoraConfig, inject_adapter_in_model

    linear, x = torch.nn.Linear(6, 5, bias=False), torch.randn(3, 6)
    options = LoraConfig(r=2, lora_alpha=8, target_modules=["0"], init_lora_weights=False)  # so that B is not zero
    layer = inject_adapter_in_model(options, torch.nn.Sequential(linear))[0]
    matrices = linear.weight, layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.testing.assert_close(check.lora_forward(...).best(x, *matrices, 8), layer(x))
    torch.testing.assert_close(check.merge(...).best(*matrices, 8), linear.weight + layer.get_delta_weight("default"))


def added_in_place(W, A, B, alpha):
    W += alpha / len(A) * B @ A
    return W


@pytest.mark.parametrize(
    "answer, said",
    [
        (lambda W, A, B, alpha: W + alpha / len(A) * A @ B, "other order"),
        (lambda W, A, B, alpha: W + alpha / len(A) * (B @ A).T, "transposed"),
        (lambda W, A, B, alpha: W + B @ A, "not scaled"),
        (lambda W, A, B, alpha: W + alpha * B @ A, "not divided by r"),
        (lambda W, A, B, alpha: W + alpha / W.shape[1] * B @ A, "number of inputs"),
        (lambda W, A, B, alpha: W + alpha / W.shape[0] * B @ A, "number of outputs"),
        (lambda W, A, B, alpha: W + len(A) / alpha * B @ A, "upside down"),
        (lambda W, A, B, alpha: W - alpha / len(A) * B @ A, "subtracted"),
        (lambda W, A, B, alpha: alpha / len(A) * B @ A, "W is missing"),
        (lambda W, A, B, alpha: alpha / len(A) * (W + B @ A), "update only"),
        (lambda W, A, B, alpha: W.clone(), "update is missing"),
        (lambda W, A, B, alpha: W + alpha * (B @ A) / 3, "numbers are not"),
        (added_in_place, "W itself was changed"),
        (merge_in_loops, "one by one"),
    ],
)
def test_a_wrong_merge_is_told_what_it_computes(answer, said):
    assert said in almost(check.merge(answer))


# --- within_budget ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        (9, ["q", "v"]),
        (9, {"q", "v"}),
        [16, ["q"]],
        (16, "attn.q"),
        (5, ["up", "v"]),
        (4, ["up", "model.layers.0.mlp.down", "model.layers.0.attn.q"]),
    ],
)
def test_any_choice_that_uses_nine_tenths_of_the_budget_or_more_passes(answer):
    verdict = check.within_budget(answer, shapes=SHAPES, budget=BUDGET)
    assert verdict.passed and "% of the budget" in verdict.says


def test_a_rank_above_the_shorter_side_passes_with_a_remark():
    assert "buys nothing" in check.within_budget((9, ["q", "v"]), shapes=SHAPES, budget=BUDGET).says
    assert "buys nothing" not in check.within_budget((5, ["up", "v"]), shapes=SHAPES, budget=BUDGET).says


@pytest.mark.parametrize(
    "answer, said",
    [
        ((2, ["q", "v", "up", "down"]), "55 more would be the least"),
        ((3, ["q", "v", "up", "down"]), "110 too many"),
        ((1000, ["v"]), "too many"),
        ((9, ["q_proj"]), "'q_proj' is no layer of this model; it has q, v, up, down"),
        ((9, ["p"]), "'p' is no layer"),
        ((9.5, ["q"]), "whole number"),
        ((0, ["q"]), "whole number"),
        ((9, []), "No layer"),
        ((9, [1, 2]), "list of names"),
        ((9, 2), "list of names"),
        (9, "two things"),
        ((9, "q", "v"), "two things"),
        (("9", ["q"]), "should be a number"),
    ],
)
def test_a_choice_outside_the_budget_is_told_how_far_off_it_is(answer, said):
    assert said in almost(check.within_budget(answer, shapes=SHAPES, budget=BUDGET))


@pytest.mark.parametrize("answer", [..., (..., ...), (8, ...), (..., ["q"])])
def test_half_a_choice_is_none_yet(answer):
    assert check.within_budget(answer, shapes=SHAPES, budget=BUDGET).state == NOT_ATTEMPTED


# --- effective_rank -----------------------------------------------------------------------------------------------------------


def by_cumulated_shares(values):
    squares = numpy.square(values)
    return int(numpy.searchsorted(numpy.cumsum(squares), 0.9 * squares.sum())) + 1 if squares.sum() else 0


def from_the_smallest_on(values):
    squares = [value**2 for value in values]
    return next(k for k in range(len(values) + 1) if sum(squares[k:]) <= 0.1 * sum(squares))


def with_torch(values):
    squares = torch.tensor(values).square()
    return (squares.cumsum(0) < 0.9 * squares.sum()).sum() + (squares.sum() > 0)


@pytest.mark.parametrize("answer", [by_cumulated_shares, from_the_smallest_on, with_torch])
def test_any_way_of_counting_the_directions_that_hold_nine_tenths_passes(answer):
    verdict = check.effective_rank(answer)
    assert verdict.passed and verdict.best is answer


@pytest.mark.parametrize(
    "answer, said",
    [
        (lambda values: by_cumulated_shares(numpy.sqrt(values)), "sum of their squares"),
        (lambda values: by_cumulated_shares(values) - 1, "One too few"),
        (lambda values: by_cumulated_shares(values) + 1, "One too many"),
        (lambda values: sum(value > 0 for value in values), "above zero"),
        (lambda values: len(values), "number of values"),
        (lambda values: sum(value >= 0.1 * values[0] for value in values), "with the largest"),
        (lambda values: sum(v**2 for v in values[: by_cumulated_shares(values)]) / sum(v**2 for v in values), "the share that they hold"),
        (lambda values: by_cumulated_shares(values) if sum(values) else 1, "all zero"),
        (lambda values: by_cumulated_shares(values) if 1 / sum(values) else 1, "all zero: The code stopped"),
        (lambda values: 3, "which is too many"),
        (lambda values: values.square(), "AttributeError"),
    ],
)
def test_a_wrong_count_of_directions_is_told_what_it_counts(answer, said):
    assert said in almost(check.effective_rank(answer))


def test_the_labs_own_answers_are_right_ones():
    for name in ("count_lora", "lora_forward", "merge", "effective_rank"):
        exercise = check.EXERCISES[name]
        assert exercise(exercise.solution()).passed
