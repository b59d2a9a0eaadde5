"""The exercises of notebook 01_zero_shot_baseline."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from lab_utils.check.exercise import Almost, NotAttempted, ask, choice, close, exercise, number

Words = list[str]
Score = Callable[[Words, Words], float]


def _split(*texts: str) -> tuple[Words, ...]:
    return tuple(text.split() for text in texts)


WITHOUT_OVERLAP = (_split("mia sold her boat", "nobody came"), ([], ["rain"]), (["rain"], []), ([], []))


def _by_library(name: str, pairs: Sequence[tuple[Words, Words]]) -> list[float]:
    """F1 from 0 to 100 by rouge-score, without stemmer."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([name], use_stemmer=False)
    return [100 * scorer.score(" ".join(reference), " ".join(summary))[name].fmeasure for summary, reference in pairs]


def _scores(answer, pairs: Sequence[tuple[Words, Words]]) -> list[float]:
    """The reader's scores of these pairs; what goes wrong is said with the pair."""
    found = []
    for summary, reference in pairs:
        try:
            found.append(number(ask(answer, summary, reference), "score"))
        except Almost as almost:
            raise Almost(f"With {summary} and {reference}: {almost}") from almost
    return found


def _judge_scores(answer, name: str, pairs: Sequence[tuple[Words, Words]], wrong: Sequence[tuple[Score, str]]) -> None:
    """Compares with the library on pairs that share words, then on those that share none."""
    found, expected = _scores(answer, pairs), _by_library(name, pairs)
    if not _all_close(found, expected):
        for other, why in wrong:
            if _all_close(found, [other(*pair) for pair in pairs]):
                raise Almost(why)
        pair, mine = next((p, f) for p, f, e in zip(pairs, found, expected, strict=True) if not close(f, e))
        raise Almost(f"With {pair[0]} and {pair[1]} it gives {mine:.2f}, and that is not the score.")
    for pair, score in zip(WITHOUT_OVERLAP, _scores(answer, WITHOUT_OVERLAP), strict=True):
        if not close(score, 0):
            raise Almost(f"{pair[0]} and {pair[1]} have no word in common, and it gives {score:.2f}.")


def _all_close(found: Sequence[float], expected: Sequence[float]) -> bool:
    return all(close(f, e) for f, e in zip(found, expected, strict=True))


def _f1(shared: float, mine: int, theirs: int) -> float:
    return 200 * shared / (mine + theirs) if mine + theirs else 0.0


def _in_parts(shared: Score) -> list[tuple[Score, str]]:
    """The usual slips after the shared words were counted rightly."""
    return [
        (
            lambda s, r: 100 * shared(s, r) / len(s),
            "This is the precision alone: what the reference has and the summary lacks costs nothing.",
        ),
        (lambda s, r: 100 * shared(s, r) / len(r), "This is the recall alone: words too many in the summary cost nothing."),
        (
            lambda s, r: 50 * (shared(s, r) / len(s) + shared(s, r) / len(r)),
            "This is the ordinary mean of precision and recall, not the harmonic one.",
        ),
        (lambda s, r: _f1(shared(s, r), len(s), len(r)) / 2, "This is half of F1: look at the factor in the harmonic mean."),
        (lambda s, r: _f1(shared(s, r), len(s), len(r)) / 100, "The score goes from 0 to 1 here, and from 0 to 100 in this course."),
        (lambda s, r: float(shared(s, r)), "This is how many words are shared, not yet which share of the two texts that is."),
        (
            lambda s, r: 100 * shared(s, r) / (len(s) + len(r) - shared(s, r)),
            "This is shared words among all words of both texts (Jaccard's index), not F1.",
        ),
    ]


def _rouge1():
    def rouge1(summary, reference):
        shared = sum((Counter(summary) & Counter(reference)).values())
        return 200 * shared / (len(summary) + len(reference)) if shared else 0.0

    return rouge1


def _shared(summary: Words, reference: Words) -> int:
    return (Counter(summary) & Counter(reference)).total()


def _types(summary: Words, reference: Words) -> int:
    return len(set(summary) & set(reference))


def _found_in(summary: Words, reference: Words) -> int:
    return sum(word in reference for word in summary)


def _unclipped(summary: Words, reference: Words) -> float:
    precision, recall = _found_in(summary, reference) / len(summary), _found_in(reference, summary) / len(reference)
    return 200 * precision * recall / (precision + recall)


def _same_place(summary: Words, reference: Words) -> int:
    return sum(a == b for a, b in zip(summary, reference, strict=False))


ONCE = "A word that occurs several times in both texts is counted once only."
REPEATED = "A word that the summary repeats counts every time, also where the reference has it once: repeating a good word must not help."
PLACE = "Only words at the same place are compared: a word counts wherever it stands."


@exercise(
    "01_zero_shot_baseline",
    "build",
    "Write ROUGE-1",
    hints=(
        "Count each text first: `Counter(summary)` tells how often each word occurs.",
        "A word is shared as often as it occurs in both: the smaller of its two counts. Between two Counters, `&` does that.",
        "With `shared` such words, precision is shared / len(summary), recall shared / len(reference), F1 = 2 P R / (P + R), "
        "and 0 where nothing is shared.",
    ),
    solution=_rouge1,
)
def rouge1(answer):
    """Judges `f(summary, reference)`: two lists of words; returns F1 from 0 to 100, 0 where they share none (Lin 2004, ROUGE-N with N = 1).

    The oracle is rouge-score without stemmer.
    """
    pairs = [
        _split("mia sold her boat", "mia sold her boat"),
        _split("mia mia mia mia", "mia sold the old boat"),
        _split("the boat and the oars and the sail", "the sail the oars and a boat"),
        _split("boat old the", "the old boat was sold"),
        _split("ben ben calls", "ben calls ben ben calls"),
    ]
    wrong = [
        (lambda s, r: _f1(_types(s, r), len(set(s)), len(set(r))), ONCE),
        (lambda s, r: _f1(_types(s, r), len(s), len(r)), ONCE),
        (_unclipped, REPEATED),
        (lambda s, r: _f1(_found_in(s, r), len(s), len(r)), REPEATED),
        (lambda s, r: _f1(_found_in(r, s), len(s), len(r)), REPEATED),
        (lambda s, r: _f1(_same_place(s, r), len(s), len(r)), PLACE),
        *_in_parts(_shared),
    ]
    _judge_scores(answer, "rouge1", pairs, wrong)
    return "It agrees with rouge-score, also where texts are empty or share nothing."


def _rouge_l():
    def rouge_l(summary, reference):
        row = [0] * (len(reference) + 1)
        for word in summary:
            above, row = row, [0]
            for j, other in enumerate(reference):
                row.append(above[j] + 1 if word == other else max(above[j + 1], row[j]))
        return 200 * row[-1] / (len(summary) + len(reference)) if row[-1] else 0.0

    return rouge_l


def _common(summary: Words, reference: Words) -> int:
    """Length of the longest common subsequence, by its definition: every choice of words of the summary is tried."""

    def stands_in(chosen: Words) -> bool:
        rest = iter(reference)
        return all(word in rest for word in chosen)

    choices = range(2 ** len(summary))
    return max(len(c) for c in ([w for i, w in enumerate(summary) if n >> i & 1] for n in choices) if stands_in(c))


def _longest_run(summary: Words, reference: Words) -> int:
    runs = {tuple(reference[i:j]) for i in range(len(reference)) for j in range(i + 1, len(reference) + 1)}
    return max((j - i for i in range(len(summary)) for j in range(i + 1, len(summary) + 1) if tuple(summary[i:j]) in runs), default=0)


def _first_come(summary: Words, reference: Words) -> int:
    shared = place = 0
    for word in summary:
        if word in reference[place:]:
            shared, place = shared + 1, reference.index(word, place) + 1
    return shared


def _pairs_of_words(summary: Words, reference: Words) -> float:
    mine, theirs = ([*zip(text, text[1:], strict=False)] for text in (summary, reference))
    return _f1(_shared(mine, theirs), len(mine), len(theirs))


class _Word(str):
    """A word that counts how often it is compared."""

    compared = 0

    def __eq__(self, other):
        _Word.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


WASTEFUL = 20  # comparisons for each cell of the table; one is enough, plain recursion needs some 200 already for two lists of 8 words


@exercise(
    "01_zero_shot_baseline",
    "build",
    "Write ROUGE-L",
    hints=(
        "The words need not be neighbours, but their order must be the same in both texts. Find how many can be kept at most.",
        "Fill a table: `best[i][j]` for the first i words of one text and the first j of the other. Row 0 and column 0 are 0.",
        "Same word: best[i-1][j-1] + 1. Another word: the larger of best[i-1][j] and best[i][j-1]. "
        "The last cell takes the place of the shared words in F1.",
    ),
    solution=_rouge_l,
)
def rouge_l(answer):
    """Judges `f(summary, reference)`: two lists of words; returns F1 from 0 to 100 over their longest common subsequence.

    This is ROUGE-L of Lin 2004, section 3.1. The oracle is rouge-score's rougeL without stemmer. Work must grow as the product of
    the two lengths, not exponentially.
    """
    pairs = [
        _split("mia sold her boat", "mia sold her boat"),
        _split("mia will call ben at noon", "mia calls ben before noon"),
        _split("ben the old boat sold", "the old boat sold ben"),
        _split("the old boat sold ben", "ben the old boat sold"),
        _split("boat the old the boat sold", "the boat was old the boat"),
        _split("oars", "a boat with oars and a sail"),
    ]
    wrong = [
        (
            lambda s, r: _f1(_longest_run(s, r), len(s), len(r)),
            "This is the longest common run of neighbours: other words may stand between the words of a common sequence.",
        ),
        (
            lambda s, r: _f1(_first_come(s, r), len(s), len(r)),
            "The first match is always taken, and it can spoil a longer sequence that starts later.",
        ),
        (
            lambda s, r: _f1(_first_come(r, s), len(s), len(r)),
            "The first match is always taken, and it can spoil a longer sequence that starts later.",
        ),
        (lambda s, r: _f1(_shared(s, r), len(s), len(r)), "This is ROUGE-1: the order of the words makes no difference."),
        (lambda s, r: _f1(_same_place(s, r), len(s), len(r)), PLACE),
        (_pairs_of_words, "This is ROUGE-2: it counts pairs of neighbours."),
        *_in_parts(_common),
    ]
    _judge_scores(answer, "rougeL", pairs, wrong)
    size = 8
    apart = [[_Word(f"{text}{i}") for i in range(size)] for text in ("s", "r")]
    _Word.compared = 0
    ask(answer, *apart)
    if _Word.compared > WASTEFUL * size * size:
        raise Almost(
            f"The scores are right, but two lists of {size} words took {_Word.compared:,} comparisons of words: the same question is "
            "answered again and again, and two whole summaries would take years."
        )
    return "It agrees with rouge-score, and its work grows only as the product of the two lengths."


TOY_DOCUMENT = (
    "Ana: Is the boat ready?\nBen: No, there is rot in two planks.\nAna: How late are we?\nBen: Three weeks, and nine hundred.\nAna: Do it."
)
TOY_REFERENCE = "Ben found rot in Ana's boat. She agrees to a repair of three weeks for nine hundred."


def _parts(answer, names: Sequence[str]) -> list:
    """The parts of an answer that consists of several.

    Raises:
        NotAttempted, Almost
    """
    if not isinstance(answer, tuple | list) or len(answer) != len(names):
        raise Almost(f"The answer has {len(names)} parts: {', '.join(names)}.")
    if any(part is ... for part in answer):
        raise NotAttempted
    return list(answer)


def _words(text: str) -> Words:
    return re.findall(r"[a-z0-9]+", text.lower())


def _stands_in(part: Words, whole: Words) -> bool:
    return any(whole[i : i + len(part)] == part for i in range(len(whole) - len(part) + 1))


@exercise(
    "01_zero_shot_baseline",
    "explore",
    "Write a true summary, and a false one that scores higher",
    hints=(
        "For the true one: the names and the outcome are what any writer mentions. Short beats long, since words too many cost precision.",
        "For the false one: which single word of a good summary carries the most meaning, and what does ROUGE lose if it changes?",
        "Take the reference itself and put one number, one name or one 'not' in it that makes it wrong.",
    ),
)
def fool_rouge(answer, document: str = TOY_DOCUMENT, reference: str = TOY_REFERENCE):
    """Judges `(honest, false, false_words)`: two summaries, and the words that make the second one false.

    By ROUGE-1 without stemmer against one reference, the honest one must be above lead-3 and the false one above the honest one. That the
    words are false only a reader can tell, and that is the point.

    Args:
        document: what is summarized.
        reference: its first reference.
    """
    from lab_utils.baselines import lead

    parts = _parts(answer, ("a true summary", "a false one", "the words in it that are false"))
    if not all(isinstance(part, str) and _words(part) for part in parts):
        raise Almost("Each of the three parts is a text with at least one word.")
    honest, false, lie = map(_words, parts)
    target = _words(reference)
    lead3, true_score, false_score = _by_library("rouge1", [(text, target) for text in (_words(lead(document)), honest, false)])
    if target in (honest, false):
        which = "true" if honest == target else "false"
        raise Almost(f"The {which} summary is the reference, word for word.")
    if _stands_in(honest, _words(document)):
        raise Almost("The true summary is a piece of the document, word for word: lead-3 is such a copy too.")
    if true_score <= lead3:
        raise Almost(f"The true summary reaches {true_score:.1f}, and lead-3 has {lead3:.1f}.")
    if not _stands_in(lie, false):
        raise Almost("The words that are false do not stand like that in the false summary.")
    if _stands_in(lie, honest):
        raise Almost("The words that are false stand in the true summary as well: one of the two is not what it should be.")
    if false_score <= true_score:
        raise Almost(f"The false summary reaches {false_score:.1f}, and the true one has {true_score:.1f}.")
    return (
        f"ROUGE-1: lead-3 {lead3:.1f}, true {true_score:.1f}, false {false_score:.1f}. The false words cost next to nothing, because ROUGE "
        "counts words and does not know which of them matter. That they are false, no score has checked: show them to a neighbour."
    )


def _lose(lengths: Sequence[int], limit: float) -> int:
    return sum(length > limit for length in lengths)


def _smallest(lengths: Sequence[int], share: float) -> int:
    return next(limit for limit in range(max(lengths) + 1) if _lose(lengths, limit) <= share * len(lengths))


def _length_limit():
    def length_limit(lengths, share):
        return sorted(lengths)[len(lengths) - 1 - int(share * len(lengths))]

    return length_limit


def _interpolated(lengths: Sequence[int], share: float) -> float:
    ordered, place = sorted(lengths), (1 - share) * (len(lengths) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


@exercise(
    "01_zero_shot_baseline",
    "build",
    "Find the smallest limit",
    hints=(
        "Write down for one limit how many texts are longer than it. A text of exactly that length is kept whole.",
        "The number of texts that lose their end changes only at lengths that occur, so only those need to be tried.",
        "Try the sorted lengths from the shortest on; return the first at which at most share * len(lengths) texts are longer.",
    ),
    solution=_length_limit,
)
def length_limit(answer):
    """Judges `f(lengths, share)`: the smallest limit, a whole number of tokens, at which at most that share of the texts lose their end.

    `lengths` are whole numbers in any order, `share` is from 0 to below 1. This is the (1 - share) quantile without interpolation
    (numpy's "inverted_cdf"); the oracle counts texts at one limit after another.
    """
    lengths = [12, 7, 7, 30, 18, 25, 9, 41, 16, 22]
    cases = [
        (lengths, 0.2),
        (lengths, 0.15),
        (lengths, 0.5),
        ([40, 10, 30, 20], 0.25),
        ([50, 50, 10, 50], 0.5),
        ([33], 0.25),
        (lengths, 0.0),
    ]
    found = [number(ask(answer, *case), "limit") for case in cases]
    expected = [_smallest(*case) for case in cases]
    if found == expected:
        return "At one token less, more texts than allowed would lose their end."
    between = (
        "This is an interpolated percentile, a length between two texts: fewer tokens can do, or a token may be split. "
        "A limit is a whole number, and the smallest that keeps the promise."
    )
    for wrong, why in (
        (lambda n, share: max(n), "This is the longest text: then none is cut, and one outlier decides how much memory is needed."),
        (
            lambda n, share: _smallest(n, 1 - share) if share else 0,
            "The share that may lose its end and the share that is kept whole are exchanged.",
        ),
        (lambda n, share: n[len(n) - int(share * len(n)) - 1], "The lengths come in any order, and here they are taken as if sorted."),
        (_interpolated, between),
        (lambda n, share: round(_interpolated(n, share)), between),
        (lambda n, share: int(_interpolated(n, share)), between),
        (lambda n, share: -(-_interpolated(n, share) // 1), between),
        (
            lambda n, share: _smallest(n, share) + 1,
            "One token too many: a text of exactly as many tokens as the limit loses nothing.",
        ),
        (
            lambda n, share: sorted(n)[min(len(n) - int(share * len(n)), len(n) - 1)],
            "One text too far: a text of exactly as many tokens as the limit loses nothing.",
        ),
        (lambda n, share: sum(n) / len(n), "This is the mean length, and the share makes no difference."),
        (lambda n, share: _lose(n, share * max(n)), "This is a number of texts, and a limit is a number of tokens."),
    ):
        if _all_close(found[:-1], [wrong(*case) for case in cases[:-1]]):
            raise Almost(why)
    (given, share), limit = next((case, f) for case, f, e in zip(cases, found, expected, strict=True) if f != e)
    lost = _lose(given, limit)
    said = f"With {given} and {share} it gives {limit:g}, where {lost} of {len(given)} texts lose their end"
    raise Almost(f"{said}, more than allowed." if lost > share * len(given) else f"{said}: a smaller limit keeps the promise too.")


READ = {
    "a": "the instruction",
    "b": "the beginning of the document",
    "c": "the end of a document that is longer than the limit",
    "d": "the reference",
    "e": "the tokens that it has written so far",
    "f": "summaries of training documents",
}


@exercise(
    "01_zero_shot_baseline",
    "recall",
    "Say what the model reads",
    hints=(
        "Two of them stand in the decoded prompt. Two more are kept away from it on purpose, one is cut off.",
        "A model writes one token at a time. What does it read before it writes the next?",
    ),
)
def model_reads(answer):
    """Judges a set of letters, or a string of them: what a model reads while it summarizes a test document without examples (`READ`)."""
    if isinstance(answer, str) and len(answer) > 1:
        answer = set(re.sub(r"[\s,]", "", answer))
    if not isinstance(answer, str | set | list | tuple):
        raise Almost("The answer is one letter or several, such as {'a', 'c'}.")
    chosen = choice(answer, tuple(READ))
    for wrong, why in (
        (not chosen, "It reads something."),
        ("d" in chosen, "A model that reads the reference has only to copy it: references are for scoring."),
        ("f" in chosen, "Summaries of other documents would be examples, and here it is asked without any."),
        ("c" in chosen, "Look again at what the limit does to a long document, and on which side."),
        (not {"a", "b"} <= chosen, "Something that stands in the decoded prompt is missing."),
        ("e" not in chosen, "From the prompt alone it could not know where its own sentence has got to."),
    ):
        if wrong:
            raise Almost(why)
    return "The prompt, and its own words: that is why one wrong word early can lead the rest astray."


TOY_TRIALS = {0: {"scores": [20.0, 31.0, 24.0], "tokens": 200}, 1: {"scores": [25.0, 27.0, 24.0], "tokens": 400}}
REASONS = ("score", "cost")


@exercise(
    "01_zero_shot_baseline",
    "explore",
    "Choose the number of examples",
    hints=(
        "Look at the differences, not at the means: does the interval of a difference to the highest mean contain 0?",
        "All numbers of examples whose interval contains 0 are level with the highest mean. Among those, what else does the table tell?",
        "If only the highest mean is left, choose it by 'score'. If several are level, choose the shortest prompts, by 'cost'.",
    ),
)
def prompt_choice(answer, tried: Mapping[int, Mapping] = TOY_TRIALS):
    """Judges `(shots, reason)`: the cheapest number of examples that is not detectably worse than the highest mean, and what decided.

    The reason is "score" where the score settles it alone, "cost" where several are level. Differences are paired over the documents,
    with a 95% bootstrap interval.

    Args:
        tried: number of examples -> `scores`, one for each document in the same order, and `tokens` of the longest prompt.
    """
    from lab_utils.significance import paired_difference

    shots, reason = _parts(answer, ("a number of examples", "'score' or 'cost'"))
    shots = number(shots, "number of examples")
    if shots not in tried:
        raise Almost(f"{shots:g} examples were not tried; the table has {', '.join(map(str, tried))}.")
    reasons = choice(reason, REASONS)
    if len(reasons) != 1:
        raise Almost("One reason decides: 'score' or 'cost'.")
    highest = max(tried, key=lambda k: fmean(tried[k]["scores"]))
    gaps = {k: paired_difference(tried[k]["scores"], tried[highest]["scores"]) for k in tried}
    level = [k for k in tried if not gaps[k].excludes_zero()]
    cheapest = min(tried[k]["tokens"] for k in level)
    if shots not in level:
        gap = gaps[shots]
        raise Almost(f"Against the highest mean it loses {-gap.mean:.1f} points, and the interval of that difference does not contain 0.")
    if tried[shots]["tokens"] > cheapest:
        raise Almost("Another number of examples has shorter prompts, and the data do not show that it scores lower.")
    if reasons == {"score"} and len(level) > 1:
        raise Almost("The number is right, but not by the score: the interval of at least one difference contains 0.")
    if reasons == {"cost"} and len(level) == 1:
        raise Almost("The number is right, but not by the cost: no other comes near its score, whatever it costs.")
    if len(level) == 1:
        return "Every other number of examples scores detectably lower on these documents."
    return f"{len(level)} of {len(tried)} are level on these documents: the score does not settle it, so the shortest prompt wins."
