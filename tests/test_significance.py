"""Intervals: exact where they can be, honest where they cannot."""

import numpy as np
import pytest

from lab_utils.significance import RESAMPLES, Interval, bootstrap, paired_difference


def scores(n: int, seed: int) -> np.ndarray:
    """Skewed values between 0 and 100, as ROUGE of single documents is; their true mean is 100 * 2 / 7."""
    return 100 * np.random.default_rng(seed).beta(2, 5, n)


TRUE_MEAN = 100 * 2 / 7


def width(interval: Interval) -> float:
    return interval.high - interval.low


def test_the_mean_is_that_of_the_values_and_not_of_the_resamples():
    values = [1.0, 2.0, 4.0, 9.0]
    assert bootstrap(values, resamples=7).mean == 4.0


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = scores(30, seed=1)
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3)
    assert bootstrap(values, seed=3) != bootstrap(values, seed=4)


def test_the_global_random_state_neither_matters_nor_changes():
    values = scores(30, seed=1)
    np.random.seed(1)
    expected, state = bootstrap(values), np.random.get_state()[1].copy()
    assert (np.random.get_state()[1] == state).all()
    np.random.seed(2)
    assert bootstrap(values) == expected


@pytest.mark.parametrize("seed", range(10))
def test_the_interval_contains_the_mean(seed):
    interval = bootstrap(scores(20, seed))
    assert interval.low < interval.mean < interval.high


def test_two_values_give_an_interval_from_one_to_the_other():
    """Means of two draws from {0, 1} are 0, 1/2 and 1 with probability 1/4, 1/2 and 1/4: both tails reach the ends."""
    assert bootstrap([0.0, 1.0]) == Interval(0.5, 0.0, 1.0)


def test_one_value_is_its_own_interval():
    assert bootstrap([37.5]) == Interval(37.5, 37.5, 37.5)


@pytest.mark.parametrize("value", [0.0, 0.1, 100 / 3])
def test_constant_values_have_an_interval_of_no_width(value):
    assert width(bootstrap([value] * 60)) == 0


def test_no_values_are_refused():
    with pytest.raises(ValueError, match="no values"):
        bootstrap([])


def test_an_interval_is_near_the_normal_one_when_there_are_many_values():
    values = scores(2000, seed=0)
    half = 1.96 * values.std() / np.sqrt(values.size)
    interval = bootstrap(values, resamples=4000)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.08 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.08 * half)


def test_four_times_the_documents_halve_the_interval():
    ratio = np.mean([width(bootstrap(scores(50, s), resamples=1000)) / width(bootstrap(scores(200, s), resamples=1000)) for s in range(20)])
    assert ratio == pytest.approx(2, abs=0.15)


def test_about_95_of_100_intervals_hold_the_true_mean_at_60_documents():
    intervals = [bootstrap(scores(60, seed), seed=seed, resamples=500) for seed in range(400)]
    covered = np.mean([interval.low <= TRUE_MEAN <= interval.high for interval in intervals])
    assert 0.91 <= covered <= 0.98


def test_the_default_number_of_resamples_leaves_the_first_decimal_alone():
    values = scores(60, seed=0)
    lows = [bootstrap(values, seed=seed).low for seed in range(5)]
    assert RESAMPLES >= 10_000 and max(lows) - min(lows) < 0.4


@pytest.mark.parametrize(
    ("interval", "excludes"),
    [((1, 0.1, 2), True), ((-1, -2, -0.1), True), ((1, -0.1, 2), False), ((1, 0, 2), False), ((-1, -2, 0), False), ((0, 0, 0), False)],
)
def test_an_interval_that_touches_zero_does_not_exclude_it(interval, excludes):
    assert Interval(*interval).excludes_zero() is excludes


def test_a_paired_difference_is_ours_minus_theirs():
    assert paired_difference([5.0, 7.0], [1.0, 1.0]).mean == 5.0
    assert paired_difference([1.0, 1.0], [5.0, 7.0]).mean == -5.0


def test_the_interval_of_a_paired_difference_is_that_of_the_differences():
    ours, theirs = scores(40, 1), scores(40, 2)
    assert paired_difference(ours, theirs, seed=5) == bootstrap(ours - theirs, seed=5)


@pytest.mark.parametrize(("ours", "theirs"), [([1.0, 2.0], [1.0]), ([1.0], [1.0, 2.0]), ([1.0, 2.0, 3.0], [1.0, 2.0])])
def test_values_of_different_documents_cannot_be_paired(ours, theirs):
    with pytest.raises(ValueError, match=f"got {len(ours)} and {len(theirs)}"):
        paired_difference(ours, theirs)


def test_nothing_cannot_be_paired_with_nothing():
    with pytest.raises(ValueError, match="no values"):
        paired_difference([], [])


def test_pairing_is_tighter_where_documents_are_hard_for_both():
    """Theirs is ours less two points and a little noise: pairs show the two points, two separate intervals would not."""
    ours = scores(60, seed=0)
    theirs = ours - 2 + np.random.default_rng(1).normal(0, 1, 60)
    paired, apart = paired_difference(ours, theirs), paired_difference(ours, np.roll(theirs, 7))
    assert width(paired) < 0.2 * width(apart)
    assert width(paired) < 0.2 * np.hypot(width(bootstrap(ours)), width(bootstrap(theirs)))
    assert paired.excludes_zero() and not apart.excludes_zero()


def test_equal_systems_do_not_differ():
    values = scores(60, seed=0)
    assert not paired_difference(values, values).excludes_zero()
