"""Human evaluation: what the raters' answers allow one to say, how far they agree, and how it goes with ROUGE.

The four scales are those of SummEval and DialSummEval under plain names; agreement is Krippendorff's alpha (Krippendorff 2011).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import comb
from pathlib import Path
from statistics import fmean

from lab_utils import significance
from lab_utils.blind import REFERENCE, texts_of
from lab_utils.comparison import LEVEL, Line
from lab_utils.sheets import ERRORS, SCALES, TIE, Row, key, read
from lab_utils.texts import capitalized

OVERALL = "mean of the four"
LOW_ALPHA = 0.4  # agreement below it: mend the guideline before trusting the marks
FEWEST = 6  # documents: with fewer no exact two-sided test of signs can fall below 5% (2 / 2**5 = 6%)


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha, 1 for perfect agreement and 0 for that of chance, or the reason why there is none."""

    alpha: float | None
    items: int  # that two or more raters answered: only these count
    reason: str | None = None


def agreement(answers: Mapping[object, Mapping[str, object]], level: str) -> Agreement:
    """Alpha over items (item -> rater -> answer, absent where missing), at level `ordinal` or `nominal` (Krippendorff 2011)."""
    import krippendorff

    shared = [list(given.values()) for given in answers.values() if len(given) > 1]
    if len({rater for given in answers.values() for rater in given}) < 2:
        return Agreement(None, 0, "there is one rater, and agreement needs two")
    if not shared:
        return Agreement(None, 0, "no item was answered by two raters")
    domain = sorted({answer for values in shared for answer in values})
    if len(domain) < 2:
        return Agreement(None, len(shared), "all answers are the same, so that agreement cannot be told from habit")
    counts = [[values.count(answer) for answer in domain] for values in shared]
    codes = domain if level == "ordinal" else range(len(domain))
    return Agreement(float(krippendorff.alpha(value_counts=counts, value_domain=list(codes), level_of_measurement=level)), len(shared))


def results(run_dir: str | Path, systems: Sequence[Line]) -> dict | None:
    """What the raters said of each system, how far they agree, and how that goes with ROUGE-1; None where nobody has rated.

    `raters`, `summaries`, `documents`; `scores` (system -> scale -> mean, low, high, n), `errors` (system -> n, share, types),
    `differences` and `choices` (pairs of methods), `agreement` (column -> alpha, items, reason), `correlations` (scale -> rho, low,
    high, n), `judges` (models, kept apart from people), `notes`, and `findings`, which are sentences. Intervals are over documents;
    a document's value is the mean over its raters. Systems are those of `systems` that have a run, and the hidden reference.

    Raises:
        LabError: a file with a value that is not accepted.
    """
    ratings = read(run_dir)
    if not ratings.rows:
        return None
    runs = {line.name: line for line in systems if line.run}
    texts = texts_of({name: line.run for name, line in runs.items()}) if runs else {}
    owners: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, written in texts.items():
        for i, text in written.items():
            owners[key(i, text)].append((i, name))
    known = [row for row in ratings.rows if row.item in owners and (not row.other or row.other in owners)]
    people = [row for row in known if not row.by_model]
    rates = [row for row in people if row.task == "rate" and (row.scores or row.error)]
    choices = [row for row in people if row.preferred]
    names = [name for name in texts if name != REFERENCE]
    values = _per_document(rates, owners)
    found = {
        "raters": sorted({row.rater for row in [*rates, *choices]}),
        "summaries": len({row.item for row in rates}),
        "documents": len({owners[row.item][0][0] for row in [*rates, *choices]}),
        "scores": {name: {scale: _interval(values[name, scale]) for scale in (*SCALES, OVERALL)} for name in texts},
        "errors": {name: _error_shares(rates, owners, name) for name in texts},
        "differences": _differences(values, names),
        "choices": _preferences(choices, owners, names),
        "agreement": _agreements(rates),
        "correlations": {scale: _correlation(values, runs, scale) for scale in (*SCALES, OVERALL)},
        "judges": _judges([row for row in known if row.by_model and row.preferred], choices, owners, names),
        "notes": ratings.notes + _strangers(ratings.rows, known),
    }
    return found | {"findings": _findings(found)}


def _strangers(rows: Iterable[Row], known: Iterable[Row]) -> list[str]:
    total, kept = Counter(row.rater for row in rows), Counter(row.rater for row in known)
    return [
        f"{total[rater] - kept[rater]} of {total[rater]} answers of {rater} are about summaries that no present run wrote, "
        "most likely because a method was run again since: they are left out."
        for rater in sorted(total)
        if kept[rater] < total[rater]
    ]


def _per_document(rates: Iterable[Row], owners) -> dict[tuple[str, str], dict[str, float]]:
    """(system, scale) -> document -> mean over raters."""
    collected = defaultdict(lambda: defaultdict(list))
    for row in rates:
        marks = dict(row.scores) | ({} if row.overall is None else {OVERALL: row.overall})
        for i, name in owners[row.item]:
            for scale, mark in marks.items():
                collected[name, scale][i].append(mark)
    means = {pair: {i: fmean(marks) for i, marks in by_document.items()} for pair, by_document in collected.items()}
    return defaultdict(dict, means)


def _interval(by_document: Mapping[str, float]) -> dict | None:
    if not by_document:
        return None
    return asdict(significance.bootstrap(list(by_document.values()))) | {"n": len(by_document)}


def _error_shares(rates: Iterable[Row], owners, name: str) -> dict:
    """`n` documents; `types`: share of each kind; `share`: with any error, and its interval. A document's share is that of its raters."""
    named = defaultdict(list)
    for row in rates:
        if row.error:
            for i, owner in owners[row.item]:
                if owner == name:
                    named[i].append(row.error)
    types = {kind: fmean(fmean(e == kind for e in given) for given in named.values()) if named else None for kind in ERRORS}
    anything = {i: fmean(e != "none" for e in given) for i, given in named.items()}
    return {"n": len(named), "types": types, "share": _interval(anything)}


def _differences(values, names: Sequence[str]) -> list[dict]:
    """Later method minus earlier, in the mean of the four scales, over the documents rated for both, with the p of a paired permutation
    test after Holm's correction over the pairs."""
    found = []
    for earlier, later in combinations(names, 2):
        a, b = values[later, OVERALL], values[earlier, OVERALL]
        if both := [i for i in a if i in b]:
            ours, theirs = [a[i] for i in both], [b[i] for i in both]
            gap = asdict(significance.paired_difference(ours, theirs))
            found.append({"pair": f"{later} against {earlier}", "n": len(both), **gap, "p": significance.permutation_test(ours, theirs)})
    return _corrected(found)


def _corrected(tests: list[dict]) -> list[dict]:
    return [test | {"p": p} for test, p in zip(tests, significance.holm([test["p"] for test in tests]), strict=True)]


def _preferences(choices: Iterable[Row], owners, names: Sequence[str]) -> list[dict]:
    """For each pair of methods how often the later one was preferred. `p`: exact sign test over documents (not over answers, since
    raters of one document are no new evidence about others), after Holm's correction over the pairs."""
    found = []
    for earlier, later in combinations(names, 2):
        wins, losses, ties, votes = 0, 0, 0, defaultdict(int)
        for row in choices:
            first, second = ({name for _, name in owners[item]} for item in (row.item, row.other))
            if {earlier, later} <= first | second and not ({earlier, later} <= first or {earlier, later} <= second):
                owner = first if row.preferred == row.item else second
                won = 0 if row.preferred == TIE else 1 if later in owner else -1
                wins, losses, ties = wins + (won > 0), losses + (won < 0), ties + (won == 0)
                votes[owners[row.item][0][0]] += won
        if wins + losses + ties:
            p = sign_test(sum(v > 0 for v in votes.values()), sum(v < 0 for v in votes.values()))
            counts = {"wins": wins, "losses": losses, "ties": ties, "documents": len(votes)}
            found.append({"pair": f"{later} against {earlier}", **counts, "p": p})
    return _corrected(found)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p of so uneven a split, or a more uneven one, if either side were as likely."""
    n = wins + losses
    return min(1.0, 2 * sum(comb(n, k) for k in range(min(wins, losses) + 1)) / 2**n)


def _agreements(rates: Sequence[Row]) -> dict[str, dict]:
    found = {}
    for column in (*SCALES, "error"):
        answers = defaultdict(dict)
        for row in rates:
            answer = row.error if column == "error" else row.scores.get(column)
            if answer is not None:
                answers[row.item][row.rater] = answer
        found[column] = asdict(agreement(answers, "nominal" if column == "error" else "ordinal"))
    return found


def _correlation(values, runs: Mapping[str, Line], scale: str) -> dict | None:
    """Spearman's rho of ROUGE-1 and the mean human score over (document, method), resampled by document; None where it has no value."""
    rouge = {(name, row["id"]): row["rouge1"] for name, line in runs.items() for row in line.rows}
    points = [(i, rouge[name, i], mark) for name in runs for i, mark in values[name, scale].items() if rouge.get((name, i)) is not None]
    if not points:
        return None
    groups, x, y = (list(column) for column in zip(*points, strict=True))
    rho = significance.correlation(x, y, groups) if len(set(groups)) >= FEWEST else None
    return rho and {"rho": rho.mean, "low": rho.low, "high": rho.high, "n": len(points)}


def _judges(rows: Sequence[Row], choices: Sequence[Row], owners, names: Sequence[str]) -> dict[str, dict]:
    """Model -> its choices, how many were consistent in both orders, and how often these agree with the people's on the same pair."""
    said = defaultdict(list)
    for row in choices:
        said[row.identity].append(row.preferred)
    found = {}
    for judge in sorted({row.rater for row in rows}):
        own = [row for row in rows if row.rater == judge]
        firm = [row for row in own if row.preferred != TIE]
        same = [row.preferred == answer for row in firm for answer in said[row.identity]]
        found[judge] = {
            "pairs": len(own),
            "consistent": len(firm),
            "agrees_with_people": fmean(same) if same else None,
            "compared_with": len(same),
            "choices": _preferences(own, owners, names),
        }
    return found


def _findings(found: dict) -> list[str]:
    """What the answers allow one to say, in sentences."""
    said = []
    if found["raters"]:
        people = _count(len(found["raters"]), "person", "people")
        said.append(f"{people} rated {_count(found['summaries'], 'summary', 'summaries')} of {_count(found['documents'], 'document')}.")
    elif not found["judges"]:
        said.append("There are files of raters, but no answer in them that could be used.")
    overall = {name: scales[OVERALL] for name, scales in found["scores"].items() if scales[OVERALL]}
    if overall:
        listed = ", ".join(f"{name} {i['mean']:.1f} [{i['low']:.1f}, {i['high']:.1f}]" for name, i in overall.items())
        said.append(f"Mean of the four scales, 1 to 5, with 95% intervals over documents: {listed}.")
    said += _difference_sentences(found["differences"])
    shares = {name: errors["share"] for name, errors in found["errors"].items() if errors["share"]}
    if shares:
        listed = ", ".join(f"{name} {share['mean']:.0%}" for name, share in shares.items())
        said.append(f"Summaries with an error, in the raters' eyes: {listed}.")
    said += _choice_sentences(found["choices"])
    if found["raters"] and found["summaries"]:
        said += _agreement_sentences(found["agreement"])
    said += _correlation_sentences({scale: rho for scale, rho in found["correlations"].items() if rho})
    for judge, of_judge in found["judges"].items():
        said.append(_judge_sentence(judge, of_judge))
        said += [f"{judge}: {sentence}" for sentence in _choice_sentences(of_judge["choices"])]
    return said + found["notes"]


def _difference_sentences(gaps: Sequence[dict]) -> list[str]:
    """One sentence for each pair that differs, and one for all the others."""
    said, open_pairs = [], []
    for gap in gaps:
        numbers = f"{gap['mean']:+.1f} [{gap['low']:+.1f}, {gap['high']:+.1f}]"
        if gap["p"] < LEVEL and (gap["low"] > 0 or gap["high"] < 0):
            verdict = f"rated {'higher' if gap['mean'] > 0 else 'lower'}, {numbers} on {_count(gap['n'], 'document')}"
            said.append(f"{capitalized(gap['pair'])}: {verdict}, p = {gap['p']:.2g} after Holm's correction.")
        else:
            open_pairs.append(f"{gap['pair']} {numbers}")
    return said + ([f"No detectable difference in the marks: {'; '.join(open_pairs)}."] if open_pairs else [])


def _choice_sentences(choices: Sequence[dict]) -> list[str]:
    """The same for the pairs that raters chose from."""
    said, open_pairs = [], []
    for choice in choices:
        ties = f", {_count(choice['ties'], 'tie')}" if choice["ties"] else ""
        n = choice["wins"] + choice["losses"] + choice["ties"]
        votes = f"{choice['wins']} of {_count(n, 'choice')} on {_count(choice['documents'], 'document')}{ties}"
        if choice["p"] < LEVEL:
            how = "preferred" if choice["wins"] > choice["losses"] else "the other one is preferred"
            said.append(
                f"{capitalized(choice['pair'])}: {how}, {votes}, p = {choice['p']:.2g} (sign test over documents, Holm's correction)."
            )
        else:
            open_pairs.append(f"{choice['pair']} {votes}")
    return said + ([f"No detectable preference (sign test over documents): {'; '.join(open_pairs)}."] if open_pairs else [])


def _correlation_sentences(correlations: Mapping[str, dict]) -> list[str]:
    said, unclear = [], []
    for scale, rho in correlations.items():
        numbers = f"{rho['rho']:.2f} [{rho['low']:.2f}, {rho['high']:.2f}]"
        if rho["low"] <= 0 <= rho["high"]:
            unclear.append(f"{scale} {numbers}")
        else:
            sign = "positive" if rho["rho"] > 0 else "negative"
            said.append(
                f"ROUGE-1 and {scale}: a {sign} correlation, Spearman's rho {numbers} over {_count(rho['n'], 'summary', 'summaries')} "
                "of all methods together; it may come from differences between methods alone."
            )
    return said + ([f"No detectable correlation of ROUGE-1 (Spearman's rho) with {'; '.join(unclear)}."] if unclear else [])


def _agreement_sentences(agreements: Mapping[str, dict]) -> list[str]:
    known = {column: a["alpha"] for column, a in agreements.items() if a["alpha"] is not None}
    said = []
    if known:
        listed = ", ".join(f"{column} {alpha:.2f}" for column, alpha in known.items())
        said.append(f"Agreement between raters (Krippendorff's alpha; 1 is perfect, 0 is chance): {listed}.")
    if low := [column for column, alpha in known.items() if alpha < LOW_ALPHA]:
        said.append(
            f"Alpha is below {LOW_ALPHA} for {', '.join(low)}: these marks are not reliable enough to use. Perhaps the raters do not mean "
            "the same by it, and the guideline needs work; perhaps the summaries hardly differ in it. Talk about the items you differ on, "
            "write down the rule, and rate others."
        )
    by_reason = defaultdict(list)
    for column, a in agreements.items():
        if a["alpha"] is None:
            by_reason[a["reason"]].append(column)
    return said + [f"No agreement for {', '.join(columns)}: {reason}." for reason, columns in by_reason.items()]


def _judge_sentence(judge: str, found: dict) -> str:
    consistent = f"{found['consistent']} of {_count(found['pairs'], 'pair')}"
    sentence = f"{judge}, which is no person, chose the same summary in both orders for {consistent}"
    if found["compared_with"]:
        sentence += f"; these agree with {found['agrees_with_people']:.0%} of the {_count(found['compared_with'], 'human choice')} on them"
    return sentence + "."


def _count(n: int, one: str, many: str | None = None) -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"
