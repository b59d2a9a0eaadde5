"""Intervals and tests: exact where they can be, honest where they cannot. Simulations count how often they are right."""

import tracemalloc

import numpy as np
import pytest

from lab_utils import significance
from lab_utils.significance import (
    RESAMPLES,
    Interval,
    bootstrap,
    correlation,
    half_widths,
    holm,
    minimum_detectable_difference,
    paired_difference,
    permutation_test,
)


def scores(n: int, seed: int) -> np.ndarray:
    """Skewed values between 0 and 100, as ROUGE of single documents is; their true mean is 100 * 2 / 7."""
    return 100 * np.random.default_rng(seed).beta(2, 5, n)


TRUE_MEAN = 100 * 2 / 7


def two_systems(n: int, seed: int, gain: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two systems on the same documents, some hard for both; the first has `gain` points more in the mean."""
    rng = np.random.default_rng([seed, n])
    document = 100 * rng.beta(2, 5, n)
    return document + gain + rng.normal(0, 6, n), document + rng.normal(0, 6, n)


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


def skewed(seed: int) -> np.ndarray:
    return scores(60, seed)


def with_zeros(seed: int) -> np.ndarray:
    """ROUGE-2 of short summaries: a fifth of the documents have no bigram in common; the mean is 0.8 * 100 * 2 / 9."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(60) < 0.2, 0, 100 * rng.beta(2, 7, 60))


def gaps_of_two_systems(seed: int) -> np.ndarray:
    """Two skewed scores that share the document's difficulty; the systems are equally good."""
    rng = np.random.default_rng(seed)
    document = rng.beta(2, 5, 60)
    return 100 * document * (rng.beta(5, 2, 60) - rng.beta(5, 2, 60))


@pytest.mark.parametrize(("draw", "truth"), [(skewed, TRUE_MEAN), (with_zeros, 80 * 2 / 9), (gaps_of_two_systems, 0.0)])
def test_a_95_percent_interval_holds_the_truth_93_to_97_times_in_100_at_60_documents(draw, truth):
    """With 3,000 samples the share itself is known to 0.4 points (one standard error)."""
    intervals = [bootstrap(draw(seed), seed=seed, resamples=1000) for seed in range(3000)]
    assert 0.93 <= np.mean([interval.low <= truth <= interval.high for interval in intervals]) <= 0.97


def test_an_interval_from_ten_documents_promises_too_much():
    intervals = [bootstrap(scores(10, seed), seed=seed, resamples=1000) for seed in range(3000)]
    assert 0.88 <= np.mean([interval.low <= TRUE_MEAN <= interval.high for interval in intervals]) <= 0.92


@pytest.mark.parametrize("n", [1, 2, 7, 60, 500])
def test_drawing_in_blocks_gives_the_very_numbers_of_one_draw(n, monkeypatch):
    """Recorded scores rest on them."""
    values = scores(n, seed=n)
    means = values[np.random.default_rng(4).integers(0, n, (1000, n))].mean(axis=1)
    expected = Interval(values.mean(), *np.percentile(means, [2.5, 97.5]))
    assert bootstrap(values, seed=4, resamples=1000) == expected
    monkeypatch.setattr(significance, "BLOCK", 101)
    assert bootstrap(values, seed=4, resamples=1000) == expected


@pytest.mark.parametrize("statistic", [bootstrap, lambda values, resamples: permutation_test(values, values[::-1], resamples=resamples)])
def test_memory_does_not_grow_with_the_documents(statistic):
    """1,000 resamples of the 11,490 documents of CNN/DailyMail are 92 MB of indices at once."""
    values = scores(11_490, seed=0)
    tracemalloc.start()
    statistic(values, resamples=1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12e6


def test_the_order_of_the_documents_changes_an_interval_by_chance_only():
    values = scores(60, seed=0)
    shuffled = np.random.default_rng(1).permutation(values)
    one, other = bootstrap(values), bootstrap(shuffled)
    assert other.mean == pytest.approx(one.mean, rel=1e-12)
    assert [other.low, other.high] == pytest.approx([one.low, one.high], abs=0.03 * width(one))


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


def missing(values: list) -> list:
    return [
        lambda: bootstrap(values),
        lambda: paired_difference(values, [1.0] * len(values)),
        lambda: permutation_test([1.0] * len(values), values),
        lambda: minimum_detectable_difference(values),
        lambda: half_widths(values, [2]),
        lambda: correlation(values, range(len(values)), range(len(values))),
    ]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_missing_value_is_refused_and_never_becomes_a_result(value):
    for statistic in missing([1.0, value, 3.0]):
        with pytest.raises(ValueError, match="1 of 3 have none"):
            statistic()


@pytest.mark.parametrize(
    ("gaps", "p"),
    [
        ([1, 2, 3], 2 / 8),  # sums of +-1 +-2 +-3: only 6 and -6 reach 6
        ([3, 1, -1], 6 / 8),  # |sum| is 3; of +-3 +-1 +-1, 5 and -5 occur once each, 3 and -3 twice each, 1 and -1 once each
        ([2, -1], 4 / 4),  # |sum| is 1; sums are 3, 1, -1, -3
        ([0, 0, 5], 1.0),  # a flipped zero changes nothing: 5 or -5, always
        ([4], 1.0),  # one document cannot show anything
    ],
)
def test_few_documents_have_an_exact_p_value(gaps, p):
    theirs = np.arange(len(gaps)) * 7.0
    assert permutation_test(theirs + gaps, theirs) == p
    assert permutation_test(theirs, theirs + gaps) == p


def test_all_sign_flips_are_tried_where_they_are_no_more_than_the_resamples():
    """13 documents, all better: of 2^13 = 8,192 ways, all plus and all minus are as extreme. 14 documents have 16,384 ways: drawn."""
    assert permutation_test(np.ones(13), np.zeros(13)) == 2 / 8192
    drawn = permutation_test(np.ones(14), np.zeros(14))
    assert drawn * (RESAMPLES + 1) == pytest.approx(round(drawn * (RESAMPLES + 1)))


def test_drawn_sign_flips_come_near_the_exact_p_value():
    """12 documents have 4,096 ways; a share p of 4,095 draws has a standard error of sqrt(p (1 - p) / 4095), below 0.008."""
    for seed in range(5):
        ours, theirs = two_systems(12, seed, gain=2)
        assert permutation_test(ours, theirs, resamples=4095) == pytest.approx(permutation_test(ours, theirs, resamples=4096), abs=0.03)


@pytest.mark.parametrize("n", [5, 60])
def test_systems_that_are_equal_but_for_rounding_have_p_1(n):
    """0.1 + 0.2 is 0.30000000000000004: all differences have one sign and are none."""
    values = scores(n, seed=0)
    assert permutation_test(values, values) == 1
    assert permutation_test([0.1 + 0.2] * n, [0.3] * n) == 1


def test_ties_that_rounding_sets_apart_count_as_ties():
    tenths = np.array([1, 2, 3, 4, -5, 6, 7, -8, 9, 10])
    zeros = np.zeros(10)
    in_whole_numbers = permutation_test(tenths, zeros)
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(10)
        assert permutation_test(tenths[order] * 0.1, zeros) == in_whole_numbers


def test_a_p_value_is_never_zero():
    """None of 10,000 draws of 60 signs is all plus or all minus: (0 + 1) / (10,000 + 1)."""
    assert permutation_test(np.ones(60), np.zeros(60)) == 1 / 10_001


def test_which_system_comes_first_does_not_matter():
    ours, theirs = two_systems(60, seed=0, gain=2)
    assert permutation_test(ours, theirs) == permutation_test(theirs, ours)


def test_the_order_of_the_documents_leaves_an_exact_p_value_alone_and_a_drawn_one_nearly():
    for n, tolerance in [(12, 0), (60, 0.02)]:
        ours, theirs = two_systems(n, seed=3, gain=2)
        for seed in range(5):
            order = np.random.default_rng(seed).permutation(n)
            assert permutation_test(ours[order], theirs[order]) == pytest.approx(permutation_test(ours, theirs), abs=tolerance)


def test_drawing_signs_in_blocks_changes_no_p_value(monkeypatch):
    pairs = [two_systems(n, seed=0, gain=1) for n in (11, 60)]
    expected = [permutation_test(*pair) for pair in pairs]
    monkeypatch.setattr(significance, "BLOCK", 1001)
    assert [permutation_test(*pair) for pair in pairs] == expected


def found(gain: float, samples: int) -> float:
    """How often the test finds a difference at 60 documents, at the 5% level. 999 resamples make 5% attainable: 50 of 1,000."""
    return np.mean([permutation_test(*two_systems(60, seed, gain), seed=seed, resamples=999) <= 0.05 for seed in range(samples)])


def test_equal_systems_alarm_4_to_6_times_in_100_at_60_documents():
    """With 5,000 samples the share itself is known to 0.3 points (one standard error)."""
    assert 0.04 <= found(gain=0, samples=5000) <= 0.06


def test_a_larger_true_difference_is_found_more_often():
    shares = [found(gain, samples=300) for gain in (0, 1, 2, 3, 5)]
    assert shares == sorted(shares)
    assert shares[0] < 0.1 and shares[-1] > 0.95


@pytest.mark.parametrize(
    ("given", "corrected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 3 * 0.01; 2 * 0.03; 1 * 0.04 would be below 0.06, which was smaller before
        ([0.02, 0.02], [0.04, 0.04]),
        ([0.5, 0.6], [1.0, 1.0]),  # 2 * 0.5; 1 * 0.6 would be below it
        ([0.4, 0.9, 0.001], [0.8, 0.9, 0.003]),  # 3 * 0.001; 2 * 0.4; 1 * 0.9
        ([0.7, 0.8, 0.9], [1.0, 1.0, 1.0]),  # 2.1 is no probability
        ([0.03], [0.03]),
        ([], []),
    ],
)
def test_holm_multiplies_step_by_step_in_the_order_given(given, corrected):
    assert holm(given) == pytest.approx(corrected)


@pytest.mark.parametrize("wrong", [-0.01, 1.01, float("nan")])
def test_holm_refuses_what_is_no_probability(wrong):
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, wrong])


def test_holm_keeps_any_false_alarm_among_six_pairs_at_5_in_100():
    """Four equal systems, all pairs, as notebook 05 compares them. Uncorrected, some pair alarms in about one sample of five."""
    raw, corrected = [], []
    for seed in range(800):
        rng = np.random.default_rng(seed)
        document = 100 * rng.beta(2, 5, 60)
        systems = document + rng.normal(0, 6, (4, 60))
        p = [permutation_test(systems[i], systems[j], seed=seed, resamples=999) for i in range(4) for j in range(i)]
        raw.append(min(p) <= 0.05)
        corrected.append(min(holm(p)) <= 0.05)
    assert np.mean(raw) > 0.12
    assert 0.02 <= np.mean(corrected) <= 0.06


def test_the_minimum_detectable_difference_by_hand():
    """sd of 1, -1, 1, -1 is sqrt(4 / 3) = 1.154701; z of 0.975 is 1.959964, z of 0.8 is 0.841621; the root of 4 is 2:
    (1.959964 + 0.841621) * 1.154701 / 2 = 1.617496."""
    gaps = [1.0, -1.0, 1.0, -1.0]
    assert minimum_detectable_difference(gaps) == pytest.approx(1.617496, abs=1e-6)
    assert minimum_detectable_difference(gaps, n=16) == pytest.approx(1.617496 / 2, abs=1e-6)
    assert minimum_detectable_difference(gaps, power=0.5) == pytest.approx(1.959964 * 1.154701 / 2, abs=1e-6)
    assert minimum_detectable_difference(gaps, level=0.01) == pytest.approx((2.575829 + 0.841621) * 1.154701 / 2, abs=1e-6)


def test_only_the_spread_of_the_gaps_counts_for_what_can_be_detected():
    gaps = np.subtract(*two_systems(60, seed=0))
    assert minimum_detectable_difference(gaps + 50) == pytest.approx(minimum_detectable_difference(gaps))
    assert minimum_detectable_difference([2.5, 2.5]) == 0


def test_the_minimum_detectable_difference_is_detected_four_times_in_five():
    """The gaps of `two_systems` are differences of two normal errors: their sd is 6 * sqrt(2)."""
    spread = np.array([-1, 1]) * 6  # two gaps -6 and 6 have the sd sqrt(72 / 1) = 6 * sqrt(2)
    gain = minimum_detectable_difference(spread, n=60)
    assert gain == pytest.approx(2.801585 * 6 * np.sqrt(2 / 60), abs=1e-5)
    assert 0.75 <= found(gain, samples=2000) <= 0.85


@pytest.mark.parametrize(
    ("gaps", "options", "match"),
    [
        ([1.0], {}, "1 gaps"),
        ([1.0, 2.0], {"n": 0}, "n = 0"),
        ([1.0, 2.0], {"power": 1.0}, "level below power"),
        ([1.0, 2.0], {"power": 0.04}, "level below power"),
        ([1.0, 2.0], {"level": 0.0}, "level below power"),
        ([], {}, "no values"),
    ],
)
def test_what_has_no_spread_or_no_sense_has_no_detectable_difference(gaps, options, match):
    with pytest.raises(ValueError, match=match):
        minimum_detectable_difference(gaps, **options)


def test_half_widths_by_hand():
    """Draws from 0 and 1: of two documents both tails reach the ends, (1 - 0) / 2; of 400, 1.96 * 0.5 / 20 = 0.049."""
    assert half_widths([0.0, 1.0], [2, 400]) == pytest.approx([0.5, 0.049], abs=0.002)


def test_the_half_width_at_the_size_of_the_sample_is_that_of_its_interval_whatever_else_is_asked():
    values = scores(60, seed=0)
    half = width(bootstrap(values)) / 2
    assert half_widths(values, [60]) == [half]
    assert half_widths(values, [10, 60, 240])[1] == half


def test_half_widths_shrink_with_the_root_of_the_size():
    ten, forty, many = half_widths(scores(60, seed=0), [10, 40, 1000])
    assert ten / forty == pytest.approx(2, abs=0.1)
    assert ten / many == pytest.approx(10, abs=0.5)


def test_a_test_set_without_documents_has_no_width():
    with pytest.raises(ValueError, match="one document or more; got 0"):
        half_widths([1.0, 2.0], [5, 0])


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.8),  # rank differences -1, 1, -1, 1, 0: 1 - 6 * 4 / (5 * 24)
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([10, 20, 1000], [0.1, 0.2, 0.25], 1.0),  # ranks, not sizes
        ([7, 7, 9], [1, 2, 3], 0.8660254),  # ranks 1.5 1.5 3 about 2: (0.5 + 0 + 1) / sqrt(1.5 * 2)
        ([1, 2, 2, 3], [5, 5, 6, 6], 0.7071068),  # ranks about 2.5: -1.5 0 0 1.5 and -1 -1 1 1: 3 / sqrt(4.5 * 4)
    ],
)
def test_rank_correlation_by_hand(x, y, expected):
    """Each item four times: that changes no coefficient, but few resamples of three items vary."""
    assert correlation(4 * x, 4 * y, range(4 * len(x))).mean == pytest.approx(expected)


def written_out(x, y, groups, seed, resamples) -> Interval:
    """The same by definition: every resample's items one after another, ranked by counting."""

    def rho(items):
        a, b = (np.array([(v < value).sum() + ((v == value).sum() + 1) / 2 for value in v]) for v in (x[items], y[items]))
        return np.corrcoef(a, b)[0, 1] if a.std() and b.std() else None

    names = list(dict.fromkeys(groups))
    members = {name: [i for i, group in enumerate(groups) if group == name] for name in names}
    drawn = np.random.default_rng(seed).integers(0, len(names), (resamples, len(names)))
    found = [rho([i for k in row for i in members[names[k]]]) for row in drawn]
    return Interval(rho(list(range(len(x)))), *np.percentile([r for r in found if r is not None], [2.5, 97.5]))


@pytest.mark.parametrize(("items", "documents"), [(6, 2), (20, 5), (60, 15)])
def test_the_interval_of_a_correlation_is_that_of_resampled_documents_written_out(items, documents, monkeypatch):
    rng = np.random.default_rng(items)
    x = rng.integers(1, 6, items).astype(float)
    y = x + rng.integers(-3, 4, items)
    groups = [f"d{k}" for k in rng.integers(0, documents, items)]
    expected = written_out(x, y, groups, seed=1, resamples=200)
    for block in (significance.BLOCK, 50):
        monkeypatch.setattr(significance, "BLOCK", block)
        interval = correlation(x, y, groups, seed=1, resamples=200)
        assert [interval.mean, interval.low, interval.high] == pytest.approx([expected.mean, expected.low, expected.high])


def test_copies_of_every_item_add_no_certainty():
    """Five copies of 20 items are still 20 documents: their interval is that of the 20, and wider than that of 100 items."""
    x, y = two_systems(20, seed=0)
    single, fivefold = correlation(x, y, range(20)), correlation(np.repeat(x, 5), np.repeat(y, 5), np.repeat(range(20), 5))
    assert [fivefold.mean, fivefold.low, fivefold.high] == pytest.approx([single.mean, single.low, single.high])
    naive = correlation(np.repeat(x, 5), np.repeat(y, 5), range(100))
    assert width(naive) < 0.7 * width(single)


def test_the_interval_of_a_correlation_holds_the_truth_about_95_times_in_100():
    """30 documents with 4 summaries each; errors shared within a document. For normal values of correlation r, Spearman's is
    6 / pi * asin(r / 2) (Pearson 1907); here r = 1 / 2 by halves of the variance in common."""
    truth = 6 / np.pi * np.arcsin(0.25)
    groups = np.repeat(range(30), 4)

    def held(seed):
        rng = np.random.default_rng(seed)
        common, x, y = (rng.normal(size=30)[groups] + rng.normal(size=120) for _ in range(3))
        interval = correlation(common + x, common + y, groups, seed=seed, resamples=500)
        return interval.low <= truth <= interval.high

    assert 0.91 <= np.mean([held(seed) for seed in range(600)]) <= 0.98


@pytest.mark.parametrize(
    ("x", "groups"),
    [([4, 4, 4], "abc"), ([1, 2, 3], "aaa"), ([5], "a")],
    ids=["constant", "one document", "one item"],
)
def test_where_no_correlation_can_be_known_there_is_none(x, groups):
    y = list(range(len(x)))
    assert correlation(x, y, groups) is None
    assert correlation(y, x, groups) is None


@pytest.mark.parametrize(("others", "known"), [(1, False), (2, False), (3, True)])
def test_nearly_constant_values_have_no_correlation_either(others, known):
    """Of ten items, all but a few alike: a resample misses one other in 0.9^10 = 35% of cases, two in 11%, three in 2.8%."""
    interval = correlation([1] * (10 - others) + [5] * others, range(10), range(10))
    assert (interval is not None) is known
    assert interval is None or -1 <= interval.low < interval.mean < interval.high <= 1


def test_documents_with_hostile_names_stay_apart():
    names = ["a", "a\0", "\ud800", "", "\u202ea"]
    assert correlation([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], names) == correlation([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], range(5))


def test_every_item_of_a_correlation_needs_its_pair_and_its_document():
    with pytest.raises(ValueError, match="got 2 and 1"):
        correlation([1, 2], [1], "ab")
    with pytest.raises(ValueError, match="2 items and 3 groups"):
        correlation([1, 2], [1, 2], "abc")
