"""The exercises of notebook 05_evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from statistics import fmean

from lab_utils.check.exercise import Almost, NotAttempted, ask, choice, close, exercise, number

NOTEBOOK = "05_evaluation"


# --- which comparisons are fair -----------------------------------------------------------------------------------------------

REJECTED = {
    "b": "You let one pass in which the two methods did not write their summaries in the same way.",
    "c": "You let one pass in which the test set took part in a choice before it judged.",
    "d": "You let one pass in which one side had several tries and the other had one.",
}
KEPT = {
    "a": "You send one back whose methods differ in a setting that was chosen with the same care for both, and without the test set.",
    "e": "You send one back for what a method costs: costs stand beside a score, and do not make its comparison unfair.",
}


@exercise(
    NOTEBOOK,
    "recall",
    "Say which comparisons you would send back",
    hints=(
        "Ask of each: is the method the only thing that differs? And had both sides the same chances?",
        "A method may have settings of its own. What counts is on which documents they were chosen.",
        "Three of the five are unfair.",
    ),
)
def unfair(answer):
    """Judges letters from a to e, as a string, a list or a set: the comparisons of the notebook that are unfair.

    What must be alike is what `lab_utils.runs.unlike` asks for, and equal care in tuning (Dodge et al. 2019, Show Your Work).
    """
    letters = [letter for letter in answer if letter not in " ,;"] if isinstance(answer, str) else answer
    chosen = choice(list(letters), "abcde")
    missed, fair = (sorted(letters) for letters in (REJECTED.keys() - chosen, KEPT.keys() & chosen))
    if missed:
        raise Almost(REJECTED[missed[0]])
    if fair:
        raise Almost(KEPT[fair[0]])
    return "Prompt and decoding, choices on the test set, and the number of tries: each can move a score further than a method does."


# --- the interval of a mean ---------------------------------------------------------------------------------------------------


def _bootstrap_interval():
    import numpy as np

    def bootstrap_interval(values, draws, seed):
        rng = np.random.default_rng(seed)
        means = [rng.choice(values, len(values)).mean() for _ in range(draws)]
        low, high = np.percentile(means, [2.5, 97.5])
        return low, high

    return bootstrap_interval


@exercise(
    NOTEBOOK,
    "build",
    "Write the bootstrap interval of a mean",
    hints=(
        "One draw: as many values as there are, with replacement. Keep its mean, and nothing else of it.",
        "rng.choice(values, len(values)) draws with replacement. Collect `draws` means in a list.",
        "The interval leaves 2.5% of these means out at each end: np.percentile(means, [2.5, 97.5]).",
    ),
    solution=_bootstrap_interval,
)
def bootstrap_interval(answer):
    """Judges `f(values, draws, seed)` -> (low, high): the 95% percentile interval of the mean of `values`, one number per document.

    Efron 1979. The oracle is `lab_utils.significance.bootstrap` with other draws; the tolerance, 0.15 standard errors, is about five
    times what 10,000 draws leave to chance, and half of what lies between a 95% and a 90% interval.
    """
    import numpy as np

    scores = 100 * np.random.default_rng(5).beta(2, 5, 40)
    for values in (scores, scores[:15]):
        _judge_interval(*_ends(ask(answer, values, 10_000, 0)), values)
    if _ends(ask(answer, np.full(8, 31.5), 20, 0)) != (31.5, 31.5):
        raise Almost("Eight documents with the score 31.5 have the mean 31.5 in every draw; both ends should be that.")
    first, again, other, more = (_ends(ask(answer, scores, *given)) for given in ((200, 3), (200, 3), (200, 4), (300, 3)))
    if first != again:
        raise Almost("The same seed gives two different intervals: draw from np.random.default_rng(seed).")
    if first == other:
        raise Almost("Another seed gives the very same interval: is `seed` used?")
    if first == more:
        raise Almost("Another number of draws gives the very same interval: is `draws` used?")
    return "It agrees with the library up to the luck of the draw."


def _ends(found) -> tuple[float, float]:
    try:
        low, high = found
    except (TypeError, ValueError) as error:
        raise Almost("Two numbers are expected: return low, high.") from error
    return number(low, "lower end"), number(high, "upper end")


def _judge_interval(low: float, high: float, values) -> None:
    import numpy as np

    from lab_utils.significance import bootstrap

    right, mean, spread = bootstrap(values, seed=1, resamples=50_000), values.mean(), values.std()
    error = spread / math.sqrt(len(values))  # how far such a mean lies from its expectation
    rng = np.random.default_rng(2)
    means = rng.choice(values, (20_000, len(values))).mean(axis=1)

    def near(a, b):
        return abs(low - a) < 0.15 * error and abs(high - b) < 0.15 * error

    def around(half):
        """The mean plus and minus that much, to within what a sample's and a population's standard deviation differ in."""
        middle = abs((low + high) / 2 - mean) < 1e-6 * spread
        return middle and abs((high - low) / 2 - half) < 0.06 * half

    if low > high and near(right.high, right.low):
        raise Almost("The two ends are right, and in the wrong order: low comes first.")
    if close(low, mean) and close(high, mean):
        raise Almost("Both ends are the mean itself: without replacement every draw has all documents again, and so the same mean.")
    if np.allclose([low, high], np.percentile(values, [2.5, 97.5])):
        raise Almost("These are percentiles of the values. They say where single documents lie, not where their mean may lie.")
    if around(1.96 * spread):
        raise Almost("This is the mean plus and minus two standard deviations of the values: it holds single documents, not means.")
    if around(1.96 * error):
        raise Almost("This is the normal approximation. It is close, but the task is to draw: the percentiles of the draws' means.")
    if around(error) or near(right.mean - error, right.mean + error):
        raise Almost("This is one standard error on each side of the mean, which holds two means of three and not 95 in 100.")
    if near(*np.percentile(means, [5, 95])):
        raise Almost("This is a 90% interval: 5% of the means are left out at each end.")
    if high < mean - error or low > mean + error:
        raise Almost("Both ends lie on one side of the mean: np.percentile counts from 0 to 100, np.quantile from 0 to 1.")
    if high - low > 2 * (right.high - right.low):
        raise Almost("The interval is far too wide for a mean: is it taken over the means of many draws, each as large as `values`?")
    if not near(right.low, right.high):
        lower, upper = (abs(found - sought) > 0.15 * error for found, sought in ((low, right.low), (high, right.high)))
        which = "Both ends are" if lower and upper else f"The {'lower' if lower else 'upper'} end is"
        raise Almost(f"{which} off by more than the luck of the draw.")


# --- how many documents -------------------------------------------------------------------------------------------------------


def _documents_needed():
    def documents_needed(half_width, n, wanted):
        return math.ceil(n * (half_width / wanted) ** 2)

    return documents_needed


@exercise(
    NOTEBOOK,
    "build",
    "Say how many documents an interval needs",
    hints=(
        "The half width falls with the square root of the number of documents. Then what must become of that number for half the width?",
        "Half the width needs four times the documents; a third of it needs nine times.",
        "n times the square of (half_width / wanted), rounded up with math.ceil.",
    ),
    solution=_documents_needed,
)
def documents_needed(answer):
    """Judges `f(half_width, n, wanted)` -> documents for a half width of `wanted`, where `n` documents give `half_width`; both in points.

    The standard error of a mean of n independent values is s / sqrt(n).
    """
    for half_width, n, wanted in ((4.0, 60, 1.0), (3.0, 50, 2.0), (3.3, 60, 1.0), (2.0, 80, 4.0), (1.5, 37, 1.5)):
        found = number(ask(answer, half_width, n, wanted), "number of documents")
        exact = n * (half_width / wanted) ** 2
        needed = math.ceil(exact - 1e-9)
        if close(found, needed):
            continue
        given = f"{n} documents give plus or minus {half_width:g}; for {wanted:g} you say {found:g}."
        for wrong, why in (
            (exact, "Documents come whole: round up."),
            (math.floor(exact), "That is one document too few: round up, not down."),
            (needed + 1, "That is one document too many where the number is whole: math.ceil rounds up only what is not."),
            (needed - n, "These are the documents to add; the task asks for all of them."),
            (n * half_width / wanted, "This would hold if the half width fell in proportion to the number; it falls with its square root."),
            (n * math.sqrt(half_width / wanted), "The square root is on the wrong side: the width falls with it."),
            (n * (wanted / half_width) ** 2, "The ratio is upside down: a narrower interval needs more documents."),
            ((half_width / wanted) ** 2, "This is how many times as many documents are needed; how many are there now?"),
            (n * (2 * half_width / wanted) ** 2, "Both numbers are half widths: neither is to be doubled."),
        ):  # fmt: skip
            if any(close(found, kind(wrong)) for kind in (float, math.ceil)):
                raise Almost(f"{given} {why}")
        raise Almost(given)
    return "It is the square-root law: ten times narrower needs a hundred times the documents."


# --- a test of two methods ----------------------------------------------------------------------------------------------------


def _sign_flip_test():
    import numpy as np

    def sign_flip_test(gaps, draws, seed):
        signs = np.random.default_rng(seed).choice([-1, 1], size=(draws, len(gaps)))
        as_far = np.abs((signs * gaps).mean(axis=1)) >= abs(np.mean(gaps)) - 1e-12
        return (as_far.sum() + 1) / (draws + 1)

    return sign_flip_test


@exercise(
    NOTEBOOK,
    "build",
    "Write the sign-flip test of paired differences",
    hints=(
        "One flip: every gap keeps its size and gets a sign of its own, + or -, by a coin. Then take the mean.",
        "A flip counts if its mean is at least as far from zero as ours, on either side: compare absolute values with >=.",
        "The p value is (flips that count + 1) / (draws + 1): what we observed is one of the ways the signs can stand.",
    ),
    solution=_sign_flip_test,
)
def sign_flip_test(answer):
    """Judges `f(gaps, draws, seed)` -> p, where `gaps` are one method's scores minus another's on the same documents.

    The two-sided permutation test of Fisher (1935) and Pitman (1937), with the observation counted among the draws (Phipson and Smyth
    2010). The oracle is the test with all sign flips tried, which few documents allow; the tolerance, 0.025, is over four standard errors.
    """
    import numpy as np

    from lab_utils.significance import permutation_test

    draws = 4_999
    clear = np.arange(1.0, 31.0)  # no flip of thirty comes near it
    mild = np.array([-9.5, -4.25, 3.5, -6.0, 1.75, -7.5, 2.25, -3.0, 5.5, -2.75, -1.5, 0.5])
    tied = np.array([1.0] * 6 + [-1.0])
    two = np.array([4.0, -3.0])
    p = [number(ask(answer, gaps, draws, 0), "p value") for gaps in (clear, mild, tied, two)]
    signs = np.array(list(product((-1, 1), repeat=len(mild))))
    flipped, observed = signs @ mild, mild.sum()
    resampled = np.random.default_rng(1).choice(mild, (5_000, len(mild))).sum(axis=1)

    def near(found, share):
        return abs(found - share) < 0.025

    right = permutation_test(mild, np.zeros(len(mild)))
    below, above = (flipped <= observed).mean(), (flipped >= observed).mean()
    if close(p[0], 1 / draws, 1e-9):
        raise Almost("The observation is counted above the line and not below it.")
    if not all(0 <= value <= 1 for value in p):
        raise Almost("A p value is a share, between 0 and 1.")
    if p[0] == 0:
        raise Almost("p is 0 for thirty gaps of one sign. What we observed is itself one way the signs can stand: no p value is zero.")
    if near(p[1], 1 - right):
        raise Almost("This is 1 - p: count the flips that lie as far out as ours, not those that do not.")
    if p[0] > 0.9 and not near(p[1], below):
        raise Almost("Every flip counts. Shuffling the gaps leaves their mean as it is, and so does one sign for all: each needs its own.")
    if p[1] > 0.95:
        raise Almost("With a negative mean every flip counts: take the absolute value of our own mean too.")
    if near(p[1], below) and near(p[3], 0.75) and p[0] < 0.9:
        raise Almost("The signs are 0 and 1: that drops gaps instead of turning them round.")
    if near(p[1], below) or near(p[1], above):
        raise Almost("Only one direction counts here. The test has two sides: a mean as far below zero says as much.")
    if near(p[1], (np.abs(resampled) >= abs(observed)).mean()):
        raise Almost("The documents are drawn anew: that is the bootstrap. Here all of them stay, and only the signs change.")
    if abs(p[2] - 2 / 2**7) < 0.01:
        raise Almost("A flip that lies exactly as far out as ours counts as well: >= and not >.")
    for gaps, found, expected in ((mild, p[1], right), (tied, p[2], 0.125), (two, p[3], 1.0)):
        if not near(found, expected):
            raise Almost(f"For the gaps {', '.join(f'{gap:g}' for gap in gaps)} p is about {expected:.2f}; this gives {found:.2f}.")
    if p[0] > 3 / draws:
        raise Almost(f"For thirty gaps of one sign p is about 1 / (draws + 1); this gives {p[0]:.3g}.")
    if not close(ask(answer, np.zeros(6), 99, 0), 1):
        raise Almost("Where all gaps are zero every flip is as far out as what we observed, and p is 1.")
    if ask(answer, mild, 199, 5) != ask(answer, mild, 199, 5):
        raise Almost("The same seed gives two different p values: draw from np.random.default_rng(seed).")
    return "It agrees with all sign flips tried, up to the luck of the draw."


# --- what a protocol can do ---------------------------------------------------------------------------------------------------


@exercise(
    NOTEBOOK,
    "explore",
    "Find the lowest and the highest score of the same summaries",
    hints=(
        "There are 2 x 2 x 3 protocols. Change one of the three choices at a time and keep what moves the score your way.",
        "The best of several references cannot score below their mean. Is the first one above or below it? That depends on the data.",
        "A loop can try all twelve: itertools.product((True, False), ('rule', 'none'), ('mean', 'best', 'first')).",
    ),
)
def protocol_range(answer, predictions):
    """Judges two `RougeProtocol`s: the one with the lowest and the one with the highest mean ROUGE-Lsum of these predictions.

    Protocols within 0.01 points of the lowest or highest pass as well: with one reference a document, three ways are one.

    Args:
        predictions: what is scored, with `prediction` and `references`.
    """
    from lab_utils.metrics import RougeProtocol

    given = list(answer)
    if ... in given:
        raise NotAttempted
    if len(given) != 2 or not all(isinstance(protocol, RougeProtocol) for protocol in given):
        raise Almost("Two protocols are expected, the lowest first: [Protocol(...), Protocol(...)].")
    means = _all_protocols(predictions)
    if unknown := [protocol for protocol in given if protocol not in means]:
        raise Almost(f"{unknown[0]!r} is no protocol: stemmer is True or False, sentences 'rule' or 'none', references one of three.")
    low, high = (means[protocol] for protocol in given)
    if low > high + 0.01:
        raise Almost(f"The first gives {low:.1f} and the second {high:.1f}: the lowest comes first.")
    for name, protocol, sign in (("lowest", given[0], 1), ("highest", given[1], -1)):
        if better := [other for other in means if sign * (means[protocol] - means[other]) > 0.01]:
            steps = [field for other in better if len(fields := _differ(protocol, other)) == 1 for field in fields]
            where = f"changing its `{steps[0]}` alone leads further" if steps else "more than one of its choices must change to get further"
            raise Almost(f"{means[protocol]:.1f} is not the {name} score of these summaries: {where}.")
    return f"The same summaries, {low:.1f} and {high:.1f} points: {high - low:.1f} points between two protocols."


def _all_protocols(predictions) -> dict:
    """Mean ROUGE-Lsum under each of the twelve protocols. Pairs are scored once for the three ways to use references."""
    from lab_utils.metrics import RougeProtocol, rouge

    ways = {"mean": fmean, "best": max, "first": lambda scores: scores[0]}
    means = {}
    for stemmer, sentences in product((True, False), ("rule", "none")):
        protocol = RougeProtocol(stemmer, sentences)
        scores = [[rouge(p.prediction, reference, protocol)["rougeLsum"] for reference in p.references] for p in predictions]
        for way, taken in ways.items():
            means[RougeProtocol(stemmer, sentences, way)] = fmean(map(taken, scores))
    return means


def _differ(one, other) -> list[str]:
    return [name for name in ("stemmer", "sentences", "references") if getattr(one, name) != getattr(other, name)]


# --- what may be said ---------------------------------------------------------------------------------------------------------

TOLD = "rouge1"  # the measure of the notebook's own table
FACTS = ("measure", "first", "second", "points", "detected")


@exercise(
    NOTEBOOK,
    "explore",
    "State what these documents show of two methods",
    hints=(
        "`points` is the mean of the first-named method minus the mean of the second.",
        "Look at the pair's own interval and at its p value, not at the intervals of the two methods.",
        "`detected` is True where the corrected p value is below 0.05 and the interval of the difference leaves zero out.",
    ),
)
def claim(answer, values: Mapping[str, Mapping[str, Sequence[float]]]):
    """Judges a dictionary with `measure`, `first`, `second`, `points` (first minus second) and `detected` (True or False).

    Recomputed from the documents' scores: the paired bootstrap interval, and the permutation test with Holm's correction over all pairs.

    Args:
        values: measure -> method -> one score per document, in one order.
    """
    from lab_utils.significance import bootstrap, paired_difference

    if not isinstance(answer, Mapping):
        raise Almost(f"A dictionary with {', '.join(FACTS)} is expected.")
    if missing := [name for name in FACTS if name not in answer]:
        raise Almost(f"The claim does not say `{missing[0]}`.")
    measure, first, second, points, detected = (answer[name] for name in FACTS)
    if any(fact is ... for fact in (measure, first, second, points, detected)):
        raise NotAttempted
    if measure == TOLD:
        raise Almost("The table above says that already: take another measure.")
    if measure not in values:
        raise Almost(f"`measure` is one of {', '.join(name for name in values if name != TOLD)}; {measure!r} is not.")
    scores = values[measure]
    for name in (first, second):
        if name not in scores:
            raise Almost(f"A method is one of {', '.join(scores)}; {name!r} is not.")
    if first == second:
        raise Almost("A method does not differ from itself: name two.")
    ours, theirs = scores[first], scores[second]
    difference = paired_difference(ours, theirs)
    precise = 0.051 if max(map(abs, (*ours, *theirs))) > 1.5 else 0.0051  # shares need a decimal more
    if abs(number(points, "difference") - difference.mean) > precise:
        said = "the other way round" if abs(points + difference.mean) <= precise else f"not {points:+.2f}"
        raise Almost(f"{first} minus {second} is {said}: `points` is the first mean minus the second, to one decimal (shares: two).")
    if detected not in (True, False):
        raise Almost("`detected` is True or False.")
    raw, corrected = _p_values(scores, first, second)
    border = 0.03 * (difference.high - difference.low)  # so near to it two seeds may disagree
    surely = corrected < 0.04 and (difference.low > border or difference.high < -border)
    surely_not = corrected > 0.06 or difference.low < -border and difference.high > border
    if detected and surely_not:
        if raw < 0.05 < corrected:
            raise Almost("Alone this pair would count. It is one of several: after Holm's correction its p value is 0.05 or more.")
        raise Almost(f"The means differ, but a difference of {difference.signed()} with a corrected p of {corrected:.3f} is not detected.")
    if not detected and surely:
        own = [bootstrap(ours), bootstrap(theirs)]
        if own[0].low <= own[1].high and own[1].low <= own[0].high:
            raise Almost("The two methods' own intervals overlap, and still their difference is detected: look at the paired one.")
        raise Almost("The corrected p value is below 0.05 and the interval of the difference leaves zero out.")
    said = f"{'higher' if difference.mean > 0 else 'lower'} by {abs(difference.mean):.2g}" if detected else "no detectable difference"
    numbers = f"{difference.signed()}, n = {len(ours)}, corrected p {corrected:.3f}"
    return f"You may write: {first} against {second}, {measure}: {said} ({numbers})."


def _p_values(scores: Mapping[str, Sequence[float]], first: str, second: str) -> tuple[float, float]:
    """This pair's p value, alone and after Holm's correction over all pairs."""
    from lab_utils.significance import holm, permutation_test

    pairs = [frozenset(pair) for pair in combinations(scores, 2)]
    raw = [permutation_test(*(scores[name] for name in sorted(pair))) for pair in pairs]
    place = pairs.index(frozenset((first, second)))
    return raw[place], holm(raw)[place]
