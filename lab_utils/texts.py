"""What a text is made of: sentences, turns, words, speakers, names, numbers. By rules alone: nothing is downloaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache

_LABEL = re.compile(r"\s*([^\s:][^:]{0,39}):(?:\s|$)")
WORD = re.compile(r"#\w+#|\w+(?:['’]\w+)*")
_NAME_PART = re.compile(r"#\w+#|[^\W_][\w']*|[^\w\s]|\n")


def split_sentences(text: str) -> list[str]:
    """Sentences, by punctuation followed by a space: needs no downloaded model, unlike NLTK's splitter."""
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", text) if part.strip()]


def units(document: str) -> list[str]:
    """What a document is read in: the turns (lines) of a dialogue, the sentences of a text in one line."""
    lines = [line for line in document.splitlines() if line.strip()]
    return split_sentences(lines[0]) if len(lines) == 1 else lines


def words(text: str) -> list[str]:
    """Lower-cased words; a tag such as `#Person1#` is one."""
    return re.findall(WORD, text.lower())


def ngrams(items: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """All sequences of `size` items that follow each other, in order."""
    return list(zip(*(items[start:] for start in range(size)), strict=False))


@cache
def stemmer() -> Callable[[str], str]:
    """Porter's stemmer (nltk); a word's stem is computed once, which is most of the time otherwise."""
    from nltk.stem.porter import PorterStemmer

    return cache(PorterStemmer().stem)


def capitalized(text: str) -> str:
    """The text with its first letter large, to begin a sentence."""
    return text[:1].upper() + text[1:]


_ORDINARY = frozenset(
    words(  # that often begin a sentence and name nobody
        "a about after all also although an and another any are as at be because before both but by can could customers despite did do "
        "does during due each either even every everyone everybody few finally first following for friends from had has have he her "
        "here his how however i if in instead is it its just later let many may maybe meanwhile more most mr mrs ms my neither next no "
        "nobody none not now of oh ok okay on once one only or other others otherwise our people perhaps person please several she "
        "should since so some someone soon still such that the their them then there these they this those though three to today "
        "tomorrow tonight two under until upon was we well were what when where whether which while who whose why will with without "
        "would yes yesterday yet you your"
    )
)
_ALSO_NAMES = frozenset(["may", "will"])  # function words that name somebody when they are written large inside a sentence
_TITLES = frozenset(["dr", "mr", "mrs", "ms", "prof", "st"])
_OPENING = frozenset("\"'“”‘([{-–—*•>")  # may stand before the first word of a sentence

_TEENS = words("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
_UNITS = {word: n for n, word in enumerate([*words("zero one two three four five six seven eight nine"), *_TEENS])}
_TENS = {word: 10 * n for n, word in enumerate(words("twenty thirty forty fifty sixty seventy eighty ninety"), 2)}
_ORDINALS = {
    word: n for n, word in enumerate(words("first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"), 1)
}
_ORDINALS |= {f"{word}th": n for n, word in enumerate(_TEENS[3:], 13)} | {"twentieth": 20, "thirtieth": 30}
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 1_000_000}
_LARGEST = 10**15
_NUMBER_PART = re.compile(r"[^\W\d_]+(?:\d\w*)?|\d+(?:[:.]\d+)*|[^\w\s]")
_PAIR_OF_PEOPLE = rf"\bthe two\b(?![\s-]+(?:{'|'.join(_SCALES)})\b)|\btwo (?:characters|friends|men|people|persons|speakers|women)\b"
_NO_NUMBER = re.compile(rf"#\w+#|\bperson\s?\d+\b|{_PAIR_OF_PEOPLE}")
_COUNTING = "|".join([*_UNITS, *_TENS, *_SCALES])
_NUMBER_HYPHEN = re.compile(rf"\b({_COUNTING})-(?=(?:{_COUNTING}|{'|'.join(_ORDINALS)})\b)")
_QUARTERS = {"half": 30, "quarter": 15}
_BEFORE_A_TIME = frozenset(words("about after around at before by is just nearly s till until"))  # "s" is that of "it's"


def speakers(document: str) -> list[str]:
    """Speaker labels in order of appearance, for documents whose lines read `Speaker: words`.

    A label has at most 40 characters and four words, none of them ending in a comma or a sentence mark: "10:30" and a news sentence
    with a colon label nobody.
    """
    labels = (match[1].strip() for line in document.splitlines() if (match := _LABEL.match(line)))
    return [label for label in dict.fromkeys(labels) if len(label.split()) <= 4 and not re.search(r"[,;!?](?:\s|$)", label)]


def named_speakers(text: str, labels: Iterable[str]) -> set[str]:
    """Those of the labels that a text names, as whole words in the same case: "Will" is not named by "he will".

    A tag is also named without its marks: `#Person1#` by "Person1" and by "Person 1".
    """
    parts = _cased_words(text)
    found, joined = set(parts), f" {' '.join(parts)} "
    named = set()
    for label in labels:
        sought = _cased_words(label)
        if sought and (sought[0] in found if len(sought) == 1 else f" {' '.join(sought)} " in joined):
            named.add(label)
    return named


def _cased_words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", _joined_tags(text))


def _joined_tags(text: str) -> str:
    return re.sub(r"\b[Pp]erson[ _]?(\d+)\b", r"Person\1", text)


def names(text: str, ordinary: Iterable[str] = ()) -> set[str]:
    """Names in a text: capitalised words and `#Person1#` tags. A rule, not a model: days, places and products count as well.

    The first word of a sentence counts unless it is a function word or stands in `ordinary`. Of "Marie-Claire" each part is a name.
    A script without capitals has none.

    Args:
        ordinary: lower-case words that are no names here, for example those written small elsewhere in the document.
    """
    ordinary = _ORDINARY.union(ordinary)
    found, starts, last = set(), True, ""
    for part in _name_parts(text):
        if part[0].isalnum() or len(part) > 1:
            name = _without_ending(part)
            skipped = ordinary if starts else _ORDINARY - _ALSO_NAMES
            if (name[0] == "#" or name[0].isupper() and len(name) > 1) and not (name.lower() in skipped or name.lower().endswith("n't")):
                found.add(name)
            starts = False
        elif part in ".!?:\n…":
            starts = part != "." or last.lower() not in _TITLES
        elif part not in _OPENING:
            starts = False
        last = part
    return found


def _name_parts(text: str) -> list[str]:
    """Words, signs and line ends; "Person 1" is one word, and so is "Rock'n'Roll"."""
    return _NAME_PART.findall(_joined_tags(text).replace("’", "'"))


def _without_ending(part: str) -> str:
    return re.sub(r"'(?:s|m|d|ll|ve|re)?$", "", part)


def small_words(*texts: str) -> set[str]:
    """Words that the texts write in small letters somewhere: what `names` needs to know that "Customers" begins a sentence."""
    return {word for text in texts for word in re.findall(r"[^\W\d_]+", text) if word.islower()}


def plain_words(text: str) -> set[str]:
    """Words without case, tag marks, possessive and plural ending, so that a name is found again whatever was done to it."""
    return {_plain(word) for word in re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower().replace("’", "'"))}


def _plain(word: str) -> str:
    return word.lower().strip("#").removesuffix("'s").removesuffix("s")


def unknown_names(text: str, *known: str) -> set[str]:
    """Names in a text that none of the known texts has, in any case or form: "Thursdays" is known from "thursday"."""
    there = set().union(*map(plain_words, known), *({_plain(_without_ending(part)) for part in _name_parts(text)} for text in known))
    return {name for name in names(text, small_words(text, *known)) if _plain(name) not in there}


@lru_cache(maxsize=10_000)  # the same documents and references are read for every system
def numbers(text: str) -> frozenset[str]:
    """Numbers in a text, written alike: `1,000` and "a thousand" are `1000`, "the fifth" and `5th` are `5`, `8:00` is `8`; times of day
    such as "half past seven", "half seven", "seven thirty" and `7.30` are `7:30`.

    One and the first three ordinals are left out, spelled or not ("one" is a pronoun, "second" a time), and so are "the two" and "two
    people", who are those that speak, and digits that belong to a word or a tag (`B12`, "Person 2").
    """
    text = _NO_NUMBER.sub(" ", text.lower())
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text).replace("half a dozen", "six")
    text = _NUMBER_HYPHEN.sub(r"\1 ", text)
    tokens = _NUMBER_PART.findall(text)
    found, position = set(), 0
    while position < len(tokens):
        number, used = _time(tokens, position)
        if not used:
            number, used = _number(tokens, position)
        if number and number != "1":
            found.add(number)
        position += max(used, 1)
    return frozenset(found)


def _number(tokens: list[str], start: int) -> tuple[str, int]:
    """The number at `start` in its one spelling, and how many tokens it takes: ("", 0) where there is none."""
    if not tokens[start][0].isdecimal():
        value, used = _whole(tokens, start)
        return (str(value) if used else "", used)
    value, used = _whole(tokens, start)
    if used:
        ordinal = used == 1 and tokens[start + 1 : start + 2] in (["st"], ["nd"], ["rd"], ["th"])
        return ("" if ordinal and value < 4 else str(value), used + ordinal)
    parts = re.split(r"([:.])", tokens[start])
    if max(map(len, parts)) > 15:
        return tokens[start], 1
    parts[0] = str(int(parts[0]))
    if not int(parts[-1]) and len(parts) == 3:
        return parts[0], 1
    if len(parts) == 3 and len(parts[2]) == 2 and int(parts[0]) <= 24 and int(parts[2]) < 60:
        parts[1] = ":"
    return "".join(parts), 1


def _whole(tokens: list[str], start: int) -> tuple[int, int]:
    """The whole number that begins at `start`, spelled or in digits, and how many tokens it takes: (0, 0) where there is none."""
    total = current = scale = 0
    position, last = start, "start"
    while position < len(tokens) and total + current < _LARGEST:
        token = tokens[position]
        after = tokens[position + 1] if position + 1 < len(tokens) else ""
        if token.isdecimal() and last == "start" and len(token) <= 15:
            current, last = int(token), "digits"
        elif token in _UNITS and (last in ("start", "scale", "and") or last == "tens" and 0 < _UNITS[token] < 10):
            current, last = current + _UNITS[token], "unit"
        elif token in _TENS and last in ("start", "scale", "and"):
            current, last = current + _TENS[token], "tens"
        elif token in _ORDINALS and (
            _ORDINALS[token] > 3 and last in ("start", "scale", "and") or last == "tens" and _ORDINALS[token] < 10
        ):
            return total + current + _ORDINALS[token], position + 1 - start
        elif token in _SCALES and (last in ("unit", "tens", "digits", "scale") or last == "start" and tokens[start - 1 : start] == ["a"]):
            current, last, scale = max(current, 1) * _SCALES[token], "end" if token == "dozen" else "scale", _SCALES[token]
            if scale >= 1000:
                total, current = total + current, 0
        elif (
            token == "and"
            and last == "scale"
            and (after in _UNITS or after in _TENS or _ORDINALS.get(after, 0) > 3)
            and all(
                _SCALES.get(later, _LARGEST) > scale for later in tokens[position + 2 : position + 4]
            )  # 2 million and 3 million are two
        ):
            last = "and"
        else:
            break
        position += 1
    return total + current, position - start


def _time(tokens: list[str], start: int) -> tuple[str, int]:
    """The time of day in words at `start`, and how many tokens it takes: ("", 0) where there is none."""
    minutes, used = _QUARTERS.get(tokens[start], 0), 1
    named = minutes > 0
    if not named:
        minutes, used = _whole(tokens, start)
    relation = tokens[start + used] if used and start + used < len(tokens) else ""
    if relation in ("past", "to") and 0 < minutes < 60:
        hour, more = _whole(tokens, start + used + 1)
        before = tokens[start - 1] if start else "at"
        if more and 1 <= hour <= 12:
            if relation == "past":
                return _clock(hour, minutes), used + 1 + more
            if named and minutes == 15 or minutes in (5, 10, 20, 25) and before in _BEFORE_A_TIME:
                return _clock(hour - 1 or 12, 60 - minutes), used + 1 + more
    if tokens[start] == "half" and 1 <= (hour := _UNITS.get(relation, 0)) <= 12:
        return _clock(hour, 30), 2
    hour = _UNITS.get(tokens[start], 0)
    if 1 <= hour <= 12 and used == 1 and relation and not relation.isdecimal():
        minutes, more = _whole(tokens, start + 1)
        following = tokens[start + 1 + more] if start + 1 + more < len(tokens) else ""
        if 10 <= minutes < 60 and following not in ("-", *_SCALES):
            return _clock(hour, minutes), 1 + more
    return "", 0


def _clock(hour: int, minutes: int) -> str:
    return f"{hour}:{minutes:02d}"
