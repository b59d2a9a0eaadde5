"""The exercises of notebook 01: right answers pass however they are written, and usual slips are named."""

import math
import time
from collections import Counter
from functools import cache

import pytest
from exercises import almost

from lab_utils import check
from lab_utils.check.exercise import NOT_ATTEMPTED

DOCUMENT = (
    "Ana: Is the boat ready?\nBen: No, there is rot in two planks.\nAna: How late?\nBen: Three weeks.\nAna: I'll pay the nine hundred then."
)
REFERENCE = "Ben found rot in Ana's boat. She pays nine hundred for a repair of three weeks."
TRUE = "Ben found rot, and Ana pays nine hundred for three weeks of repair."
FALSE = REFERENCE.replace("rot", "no rot")


def f1(shared, summary, reference):
    return 200 * shared / (len(summary) + len(reference)) if shared else 0.0


def clipped(summary, reference):
    return sum(min(n, reference.count(word)) for word, n in Counter(summary).items())


def longest_common(summary, reference):
    @cache
    def longest(i, j):
        if i == len(summary) or j == len(reference):
            return 0
        return 1 + longest(i + 1, j + 1) if summary[i] == reference[j] else max(longest(i + 1, j), longest(i, j + 1))

    return longest(0, 0)


def by_numpy(summary, reference):
    import numpy as np

    vocabulary = sorted({*summary, *reference})
    mine, theirs = (np.array([text.count(word) for word in vocabulary]) for text in (summary, reference))
    return np.float64(f1(int(np.minimum(mine, theirs).sum()), summary, reference))


def by_quantile(lengths, share):
    import numpy as np

    return np.quantile(lengths, 1 - share, method="inverted_cdf")


@pytest.mark.parametrize(
    "answer",
    [
        lambda s, r: f1(clipped(s, r), s, r),
        by_numpy,
        lambda s, r: f1(sum((Counter(s) & Counter(r)).values()), s, r),
    ],
)
def test_rouge1_passes_whether_written_with_counters_lists_or_numpy(answer):
    assert check.rouge1(answer).passed


@pytest.mark.parametrize(
    "answer, said",
    [
        (lambda s, r: f1(len(set(s) & set(r)), set(s), set(r)), "once only"),
        (lambda s, r: f1(len(set(s) & set(r)), s, r), "once only"),
        (lambda s, r: f1(sum(word in r for word in s), s, r), "must not help"),
        (lambda s, r: f1(sum(a == b for a, b in zip(s, r, strict=False)), s, r), "wherever it stands"),
        (lambda s, r: 100 * clipped(s, r) / len(s), "precision alone"),
        (lambda s, r: 100 * clipped(s, r) / len(r), "recall alone"),
        (lambda s, r: 50 * clipped(s, r) * (1 / len(s) + 1 / len(r)), "not the harmonic"),
        (lambda s, r: f1(clipped(s, r), s, r) / 2, "factor"),
        (lambda s, r: f1(clipped(s, r), s, r) / 100, "from 0 to 100"),
        (lambda s, r: clipped(s, r), "not yet which share"),
        (lambda s, r: 100 * clipped(s, r) / (len(s) + len(r) - clipped(s, r)), "Jaccard"),
        (lambda s, r: 200 * (c := clipped(s, r)) ** 2 / (len(s) * len(r)) / (c / len(s) + c / len(r)), "ZeroDivisionError"),
        (lambda s, r: f1(clipped(s, r), s, r) or math.nan, "no word in common"),
        (lambda s, r: (50, 50, 50), "one number"),
    ],
)
def test_rouge1_names_the_slip(answer, said):
    assert said in almost(check.rouge1(answer))


def test_the_pair_that_stops_the_readers_code_is_shown():
    def divides_by_what_is_shared(summary, reference):
        shared = clipped(summary, reference)
        return 200 / (len(summary) / shared + len(reference) / shared)

    assert "With ['mia', 'sold', 'her', 'boat'] and ['nobody', 'came']" in almost(check.rouge1(divides_by_what_is_shared))


def test_rouge_l_passes_as_a_table_or_as_a_recursion_that_remembers():
    assert check.rouge_l(lambda s, r: f1(longest_common(s, r), s, r)).passed
    assert check.rouge_l(check.rouge_l.solution()).passed


def forgetful(summary, reference):
    if not summary or not reference:
        return 0
    if summary[0] == reference[0]:
        return 1 + forgetful(summary[1:], reference[1:])
    return max(forgetful(summary[1:], reference), forgetful(summary, reference[1:]))


def neighbours(summary, reference):
    text = f" {' '.join(reference)} "
    starts = range(len(summary))
    return max((j - i for i in starts for j in range(i + 1, len(summary) + 1) if f" {' '.join(summary[i:j])} " in text), default=0)


def greedy(summary, reference):
    rest = list(reference)
    shared = 0
    for word in summary:
        if word in rest:
            rest = rest[rest.index(word) + 1 :]
            shared += 1
    return shared


def bigrams(summary, reference):
    mine, theirs = [*zip(summary, summary[1:], strict=False)], [*zip(reference, reference[1:], strict=False)]
    return f1(clipped(mine, theirs), mine, theirs)


@pytest.mark.parametrize(
    "answer, said",
    [
        (lambda s, r: f1(neighbours(s, r), s, r), "run of neighbours"),
        (lambda s, r: f1(greedy(s, r), s, r), "first match"),
        (lambda s, r: f1(greedy(r, s), s, r), "first match"),
        (lambda s, r: f1(clipped(s, r), s, r), "ROUGE-1"),
        (bigrams, "ROUGE-2"),
        (lambda s, r: longest_common(tuple(s), tuple(r)), "not yet which share"),
        (lambda s, r: 100 * longest_common(s, r) / len(r), "recall alone"),
        (lambda s, r: f1(longest_common(s, r), s, r) / 100, "from 0 to 100"),
        (lambda s, r: f1(forgetful(s, r), s, r), "again and again"),
    ],
)
def test_rouge_l_names_the_slip(answer, said):
    assert said in almost(check.rouge_l(answer))


def test_a_right_but_exponential_rouge_l_is_found_out_within_a_second():
    started = time.process_time()
    check.rouge_l(lambda s, r: f1(forgetful(s, r), s, r))
    assert time.process_time() - started < 1


def candidates(lengths, share):
    return min(n for n in lengths if sum(other > n for other in lengths) <= share * len(lengths))


@pytest.mark.parametrize(
    "answer", [candidates, by_quantile, lambda n, share: sorted(n)[len(n) - 1 - int(share * len(n))], check.length_limit.solution()]
)
def test_the_length_limit_passes_by_counting_sorting_or_as_a_quantile(answer):
    assert check.length_limit(answer).passed


def interpolated(lengths, share):
    import numpy as np

    return float(np.quantile(lengths, 1 - share))


@pytest.mark.parametrize(
    "answer, said",
    [
        (lambda n, share: max(n), "longest text"),
        (lambda n, share: candidates(n, 1 - share) if share else 0, "exchanged"),
        (lambda n, share: n[len(n) - 1 - int(share * len(n))], "any order"),
        (interpolated, "interpolated"),
        (lambda n, share: math.ceil(interpolated(n, share)), "interpolated"),
        (lambda n, share: int(interpolated(n, share)), "interpolated"),
        (lambda n, share: candidates(n, share) + 1, "One token too many"),
        (lambda n, share: sorted(n)[min(len(n) - int(share * len(n)), len(n) - 1)], "One text too far"),
        (lambda n, share: sum(n) / len(n), "mean length"),
        (lambda n, share: candidates(n, share) - 1, "more than allowed"),
        (lambda n, share: candidates(n, share) + 2, "a smaller limit"),
    ],
)
def test_the_length_limit_names_the_slip(answer, said):
    assert said in almost(check.length_limit(answer))


@pytest.mark.parametrize("answer", [{"a", "b", "e"}, ["e", "b", "a"], "abe", "a, b, e"])
def test_what_the_model_reads_may_be_given_as_a_set_a_list_or_a_string(answer):
    assert check.model_reads(answer).passed


@pytest.mark.parametrize(
    "answer, said",
    [
        ("abde", "for scoring"),
        ("abef", "without any"),
        ("abce", "which side"),
        ("a", "is missing"),
        ("ab", "got to"),
        ("abez", "none of them"),
        (set(), "something"),
    ],
)
def test_what_the_model_reads_names_the_slip(answer, said):
    assert said in almost(check.model_reads(answer))


def fooled(honest=TRUE, false=FALSE, lie="no rot"):
    return check.fool_rouge((honest, false, lie), document=DOCUMENT, reference=REFERENCE)


def test_a_false_summary_above_a_true_one_above_lead_3_passes():
    verdict = fooled()
    assert verdict.passed and "lead-3" in verdict.says


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"honest": "People talk."}, "and lead-3 has"),
        ({"honest": REFERENCE.upper()}, "true summary is the reference"),
        ({"false": REFERENCE}, "false summary is the reference"),
        ({"honest": "there is rot in two planks"}, "piece of the document"),
        ({"lie": "no planks"}, "do not stand like that"),
        ({"lie": "rot"}, "true summary as well"),
        ({"false": "There was no rot."}, "and the true one has"),
        ({"lie": " "}, "at least one word"),
        ({"lie": 7}, "is a text"),
    ],
)
def test_a_pair_of_summaries_that_proves_nothing_is_told_why(changes, said):
    check.fool_rouge.wrong_answers = 0
    verdict = fooled(**changes)
    assert not verdict.passed and said in verdict.says


@pytest.mark.parametrize(
    "exercise, answer", [(check.fool_rouge, (..., ..., ...)), (check.fool_rouge, (TRUE, ..., ...)), (check.prompt_choice, (..., "cost"))]
)
def test_an_answer_with_a_part_still_open_is_not_attempted(exercise, answer):
    assert exercise(answer).state == NOT_ATTEMPTED


LEVEL = {
    0: {"scores": [20.0, 31.0, 24.0, 22.0, 30.0, 25.0], "tokens": 200},
    1: {"scores": [25.0, 27.0, 24.0, 26.0, 28.0, 26.0], "tokens": 400},
    3: {"scores": [5.0, 8.0, 6.0, 7.0, 9.0, 5.0], "tokens": 800},
}
SETTLED = {
    0: {"scores": [20.0, 21.0, 24.0, 22.0, 20.0, 21.0], "tokens": 200},
    1: {"scores": [35.0, 37.0, 34.0, 36.0, 38.0, 36.0], "tokens": 400},
}


def test_the_cheapest_of_the_level_ones_wins_by_cost_and_a_clear_winner_by_score():
    assert check.prompt_choice((0, "cost"), tried=LEVEL).passed
    assert check.prompt_choice((1, "score"), tried=SETTLED).passed


@pytest.mark.parametrize(
    "answer, tried, said",
    [
        ((1, "score"), LEVEL, "shorter prompts"),
        ((3, "score"), LEVEL, "it loses"),
        ((0, "score"), LEVEL, "not by the score"),
        ((0, "cost"), SETTLED, "it loses"),
        ((1, "cost"), SETTLED, "not by the cost"),
        ((2, "cost"), LEVEL, "not tried"),
        ((0, "beauty"), LEVEL, "none of them"),
        ((0, {"cost", "score"}), LEVEL, "One reason"),
        (0, LEVEL, "2 parts"),
    ],
)
def test_the_choice_of_a_prompt_is_held_against_the_table(answer, tried, said):
    assert said in almost(check.prompt_choice(answer, tried=tried))
