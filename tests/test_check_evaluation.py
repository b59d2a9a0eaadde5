"""The exercises of notebook 05: right answers pass however they are written, and each usual wrong one gets its own sentence."""

import math
import random
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from exercises import almost

from lab_utils import check
from lab_utils.check import evaluation
from lab_utils.metrics import RougeProtocol

# --- unfair


@pytest.mark.parametrize("answer", ["bcd", "b, c, d", ["d", "b", "c"], {"b", "c", "d"}])
def test_the_unfair_comparisons_may_be_named_in_any_order_and_form(answer):
    assert check.unfair(answer).passed


@pytest.mark.parametrize(
    "answer, piece",
    [
        ("cd", "in the same way"),
        ("bd", "took part in a choice"),
        ("bc", "several tries"),
        ("abcd", "chosen with the same care"),
        ("bcde", "what a method costs"),
        ("ae", "You let one pass"),
        ("", "You let one pass"),
        ("bcx", "'x' is none of them"),
    ],
)
def test_a_missed_unfair_comparison_is_told_before_a_rejected_fair_one(answer, piece):
    assert piece in almost(check.unfair(answer))


# --- bootstrap_interval


def of_means(percentiles=(2.5, 97.5), replace=True, percentile=np.percentile, size=None):
    def interval(values, draws, seed):
        rng = np.random.default_rng(seed)
        means = [rng.choice(values, size or len(values), replace=replace).mean() for _ in range(draws)]
        return percentile(means, percentiles)

    return interval


def plain_python(values, draws, seed):
    draw = random.Random(seed)
    means = sorted(sum(draw.choices(list(values), k=len(values))) / len(values) for _ in range(draws))
    return [means[int(0.025 * draws)], means[int(0.975 * draws)]]


def at_once(values, draws, seed):
    rng = np.random.default_rng(seed)
    return tuple(np.quantile(values[rng.integers(0, len(values), (draws, len(values)))].mean(axis=1), [0.025, 0.975]))


def around(half):
    return lambda values, draws, seed: (values.mean() - half(values), values.mean() + half(values))


@pytest.mark.parametrize("answer", [of_means(), plain_python, at_once])
def test_a_bootstrap_interval_passes_however_it_is_drawn(answer):
    assert check.bootstrap_interval(answer).passed


@pytest.mark.parametrize(
    "answer, piece",
    [
        (of_means(replace=False), "without replacement"),
        (lambda values, draws, seed: np.percentile(values, [2.5, 97.5]), "where single documents lie"),
        (lambda values, draws, seed: np.percentile(np.random.default_rng(seed).choice(values, draws), [2.5, 97.5]), "far too wide"),
        (of_means((5, 95)), "90% interval"),
        (of_means((97.5, 2.5)), "wrong order"),
        (of_means((0.025, 0.975)), "from 0 to 100"),
        (of_means((2.5, 90)), "The upper end is off"),
        (of_means((16, 84)), "one standard error"),
        (around(lambda values: 1.96 * values.std()), "two standard deviations"),
        (around(lambda values: 1.96 * values.std(ddof=1) / math.sqrt(len(values))), "normal approximation"),
        (around(lambda values: values.std() / math.sqrt(len(values))), "one standard error"),
        (of_means(size=100), "Both ends are off"),
        (lambda values, draws, seed: of_means()(values, draws, None), "The same seed gives two"),
        (lambda values, draws, seed: of_means()(values, draws, 0), "is `seed` used"),
        (lambda values, draws, seed: of_means()(values, 3_000, seed), "is `draws` used"),
        (lambda values, draws, seed: values.mean(), "Two numbers are expected"),
        (lambda values, draws, seed: (30, 40), "far too wide|off by more"),
    ],
)
def test_a_wrong_interval_is_told_what_it_is(answer, piece):
    verdict = check.bootstrap_interval(answer)
    assert verdict.state == "almost" and any(part in verdict.says for part in piece.split("|")), verdict


# --- documents_needed


@pytest.mark.parametrize(
    "answer",
    [
        lambda half, n, wanted: math.ceil(n * (half / wanted) ** 2),
        lambda half, n, wanted: float(np.ceil(n * (half / wanted) ** 2)),
        lambda half, n, wanted: -int(-((half * math.sqrt(n) / wanted) ** 2 - 1e-6) // 1),
    ],
)
def test_the_square_root_law_passes_however_it_is_written(answer):
    assert check.documents_needed(answer).passed


@pytest.mark.parametrize(
    "answer, piece",
    [
        (lambda half, n, wanted: math.ceil(n * half / wanted), "falls with its square root"),
        (lambda half, n, wanted: n * math.sqrt(half / wanted), "on the wrong side"),
        (lambda half, n, wanted: n * (wanted / half) ** 2, "upside down"),
        (lambda half, n, wanted: math.ceil(n * (half / wanted) ** 2) - n, "documents to add"),
        (lambda half, n, wanted: (half / wanted) ** 2, "how many are there now"),
        (lambda half, n, wanted: math.ceil(n * (2 * half / wanted) ** 2), "neither is to be doubled"),
        (lambda half, n, wanted: n * (half / wanted) ** 2, "Documents come whole"),
        (lambda half, n, wanted: int(n * (half / wanted) ** 2), "one document too few"),
        (lambda half, n, wanted: int(n * (half / wanted) ** 2) + 1, "one document too many"),
        (lambda half, n, wanted: 7, "you say 7."),
    ],
)
def test_a_wrong_number_of_documents_is_told_what_it_is(answer, piece):
    assert piece in almost(check.documents_needed(answer))


# --- sign_flip_test


def flips(signs=(-1, 1), size=None, counts=lambda means, mean: np.abs(means) >= abs(mean), plus=(1, 1)):
    def test(gaps, draws, seed):
        drawn = np.random.default_rng(seed).choice(signs, size=(draws, size or len(gaps)))
        means = (drawn * gaps).mean(axis=1)
        return (counts(means, gaps.mean()).sum() + plus[0]) / (draws + plus[1])

    return test


def in_a_loop(gaps, draws, seed):
    draw, count = random.Random(seed), 1
    for _ in range(draws):
        count += abs(sum(gap * draw.choice((-1, 1)) for gap in gaps)) >= abs(sum(gaps)) - 1e-9
    return count / (draws + 1)


def shuffled(gaps, draws, seed):
    rng = np.random.default_rng(seed)
    return (sum(abs(rng.permutation(gaps).mean()) >= abs(gaps.mean()) - 1e-9 for _ in range(draws)) + 1) / (draws + 1)


def resampled(gaps, draws, seed):
    means = np.random.default_rng(seed).choice(gaps, (draws, len(gaps))).mean(axis=1)
    return ((np.abs(means) >= abs(gaps.mean())).sum() + 1) / (draws + 1)


@pytest.mark.parametrize("answer", [flips(), in_a_loop])
def test_a_sign_flip_test_passes_however_it_is_written(answer):
    assert check.sign_flip_test(answer).passed


@pytest.mark.parametrize(
    "answer, piece",
    [
        (flips(plus=(0, 0)), "no p value is zero"),
        (flips(plus=(0, 1)), "no p value is zero"),
        (flips(plus=(1, 0)), "not below it"),
        (flips(size=1), "one sign for all"),
        (shuffled, "Shuffling the gaps"),
        (flips(counts=lambda means, mean: means >= mean), "Only one direction"),
        (flips(counts=lambda means, mean: means >= abs(mean)), "Only one direction"),
        (flips(counts=lambda means, mean: means <= mean), "Only one direction"),
        (flips(counts=lambda means, mean: np.abs(means) >= mean), "absolute value of our own mean"),
        (flips(counts=lambda means, mean: np.abs(means) > abs(mean)), ">= and not >"),
        (lambda gaps, draws, seed: 1 - flips()(gaps, draws, seed), "1 - p"),
        (flips(signs=(0, 1)), "0 and 1"),
        (resampled, "that is the bootstrap"),
        (lambda gaps, draws, seed: 100 * flips()(gaps, draws, seed), "a share"),
        (lambda gaps, draws, seed: flips()(gaps, draws, None), "two different p values"),
        (lambda gaps, draws, seed: 0.001, "p is about 0.22; this gives 0.00"),
    ],
)
def test_a_wrong_p_value_is_told_what_it_is(answer, piece):
    assert piece in almost(check.sign_flip_test(answer))


# --- protocol_range

SUMMARIES = [
    SimpleNamespace(
        prediction="Bob pays the plumber. Ann is waiting.",
        references=("Ann waits. Bob is paying a plumber.", "Bob pays.", "The plumber was paid by Bob while Ann waited at home."),
    ),
    SimpleNamespace(
        prediction="They meet on Monday.", references=("Ann and Bob are meeting on Monday.", "A meeting on Monday.", "Monday.")
    ),
]


@pytest.fixture(scope="module")
def extremes():
    means = evaluation._all_protocols(SUMMARIES)
    assert len(means) == 12
    return min(means, key=means.get), max(means, key=means.get)


def test_the_lowest_and_the_highest_protocol_pass(extremes):
    verdict = check.protocol_range(list(extremes), predictions=SUMMARIES)
    assert verdict.passed and "The same summaries" in verdict.says


def test_the_twelve_means_are_those_of_the_labs_own_scores():
    from lab_utils import metrics

    items = [SimpleNamespace(id=str(number), **vars(item)) for number, item in enumerate(SUMMARIES)]
    for protocol, mean in evaluation._all_protocols(items).items():
        assert mean == pytest.approx(np.mean([row["rougeLsum"] for row in metrics.score(items, protocol=protocol)]))


def test_wrong_protocols_are_told_what_would_lead_further(extremes):
    lowest, highest = extremes
    assert "the lowest comes first" in almost(check.protocol_range([highest, lowest], predictions=SUMMARIES))
    assert "not the highest score" in almost(check.protocol_range([lowest, lowest], predictions=SUMMARIES))
    assert "not the lowest score" in almost(check.protocol_range([highest, highest], predictions=SUMMARIES))
    other = RougeProtocol(not lowest.stemmer, lowest.sentences, lowest.references)
    assert "changing its `stemmer` alone" in almost(check.protocol_range([other, highest], predictions=SUMMARIES))
    assert "Two protocols are expected" in almost(check.protocol_range([lowest, "best"], predictions=SUMMARIES))
    assert "is no protocol" in almost(check.protocol_range([lowest, RougeProtocol(references="last")], predictions=SUMMARIES))


def test_two_protocols_that_are_not_given_are_not_attempted():
    assert check.protocol_range([..., ...], predictions=SUMMARIES).state == "not attempted"


def test_with_one_reference_any_way_to_use_it_passes():
    single = [SimpleNamespace(prediction=item.prediction, references=item.references[:1]) for item in SUMMARIES]
    means = evaluation._all_protocols(single)
    low, high = min(means, key=means.get), max(means, key=means.get)
    for one, two in product(("mean", "best", "first"), repeat=2):
        pair = [RougeProtocol(low.stemmer, low.sentences, one), RougeProtocol(high.stemmer, high.sentences, two)]
        assert check.protocol_range(pair, predictions=single).passed


# --- claim


def scores(*shifts, n=60, noise=3.0):
    """Scores of methods a, b, ... that share the documents' difficulty and differ by these shifts."""
    rng = np.random.default_rng(4)
    difficulty = rng.normal(40, 12, n)
    return {name: list(difficulty + shift + rng.normal(0, noise, n)) for name, shift in zip("abcdef", shifts, strict=False)}


def stated(values, **changes):
    points = np.mean(values["b"]) - np.mean(values["a"])
    return {"measure": "rouge2", "first": "b", "second": "a", "points": points, "detected": True} | changes


def test_a_true_claim_passes_and_is_written_out():
    values = scores(0, 4)
    points = round(np.mean(values["b"]) - np.mean(values["a"]), 1)
    verdict = check.claim(stated(values, points=points), values={"rouge2": values})
    assert verdict.passed and "b against a, rouge2: higher by" in verdict.says
    turned = stated(values, first="a", second="b", points=-points)
    assert "lower by" in check.claim(turned, values={"rouge2": values}).says


def test_a_difference_that_is_not_detected_may_be_claimed_as_such():
    values = scores(0, 0)
    verdict = check.claim(stated(values, detected=False), values={"rouge2": values})
    assert verdict.passed and "no detectable difference" in verdict.says


@pytest.mark.parametrize(
    "shift, changes, piece",
    [
        (4, {"first": "a", "second": "b"}, "the other way round"),
        (4, {"points": 12.0}, "not +12.00"),
        (4, {"detected": False}, "own intervals overlap"),
        (60, {"detected": False}, "leaves zero out"),
        (0, {}, "is not detected"),
        (4, {"measure": "rouge1"}, "The table above"),
        (4, {"measure": "bleu"}, "`measure` is one of rouge2"),
        (4, {"first": "LoRA"}, "'LoRA' is not"),
        (4, {"second": "b"}, "name two"),
        (4, {"detected": "yes"}, "True or False"),
        (4, {"points": "4"}, "should be a number"),
    ],
)
def test_a_wrong_claim_is_told_what_is_wrong(shift, changes, piece):
    values = scores(0, shift)
    assert piece in almost(check.claim(stated(values, **changes), values={"rouge1": values, "rouge2": values}))


def test_a_claim_that_many_pairs_undo_is_told_of_the_correction():
    values = scores(0, 0.7, 0.1, 0.3, 0.2, 0.1)
    raw, corrected = evaluation._p_values(values, "b", "a")
    assert raw < 0.05 < 0.06 < corrected
    assert "after Holm's correction" in almost(check.claim(stated(values), values={"rouge2": values}))


def test_an_unfinished_claim_names_what_is_missing():
    assert "`first`" in almost(check.claim({"measure": "rouge2"}, values={"rouge2": scores(0, 4)}))
    assert check.claim(dict.fromkeys(evaluation.FACTS, ...), values={"rouge2": scores(0, 4)}).state == "not attempted"
