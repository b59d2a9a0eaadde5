"""What hypothesis makes for the property tests: text as nobody would write it, dialogues, and values of every kind.

The examples are the same in every run (`derandomize`), so that a test passes or fails whoever runs it; nothing is kept on the disk.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

settings.register_profile("lab", derandomize=True, deadline=None, database=None, max_examples=50)
settings.load_profile("lab")

LINE_ENDS = ("\n", "\r\n", "\r", "\x85", "\u2028", "\x0b")
SPECIAL = (
    "<|im_end|>",
    "<|im_start|>",
    "<|endoftext|>",
    "</s>",
    "<s>",
    "<pad>",
    "<unk>",
    "<eos>",
    "<extra_id_0>",
    "\uff1c/s\uff1e",
    "<end_of_turn>",
)
FORMULAS = ("=cmd()", "+1", "-1", "@SUM(A1)", ";=cmd()", "\t=cmd()", '"=cmd()')
MARKUP = ("<script>", "</style>", "&amp;", '"', "'", "{{ x }}", "{% if %}", "-->", "$x$", "`")
SPEAKERS = ("#Person1#:", "#Person2#:", "Ann:", "Ben:", "Mr. O'Neill:", "10:30", ":", "#Person1#", "Person 2", "##")
NUMBERS = (
    "1,000",
    "half past seven",
    "a hundred and",
    "zero thousand",
    "7.30",
    "\u0663",
    "\u00b2",
    "100, 000",
    "9" * 30,
    "twenty-first",
    "0",
)
LETTERS = (
    "I\u0307",
    "\u0130",
    "\u00df",
    "\ufb01",
    "e\u0301",
    "\u0e01\u0e33",
    "\u65e5\u672c",
    "\u05e9\u05dc\u05d5\u05dd",
    "\U0001f469\u200d\U0001f467",
    "\ufeff",
    "\x00",
    "\u202e",
)
WORDS = ("Ann", "the", "the", "will", "Will", "meets", "Ben's", "don't", "and", "and", "ten", "a", "word", "word", "word", "no")
SIGNS = (".", "!", "?", ",", "...", "\u2019", "#", "_", " ", "  ", "\t")
HALVES = ("\ud800", "\udfff", "\ud83d")  # of characters

pieces = st.sampled_from([*LINE_ENDS, *SPECIAL, *FORMULAS, *MARKUP, *SPEAKERS, *NUMBERS, *LETTERS, *WORDS, *SIGNS])


def _pieced(piece) -> st.SearchStrategy[str]:
    return st.builds(lambda parts, between: between.join(parts), st.lists(piece, max_size=20), st.sampled_from(["", " ", "\n", " "]))


# Any text that UTF-8 can write, and any text at all, with halves of characters.
texts = st.one_of(_pieced(pieces), st.text(max_size=40))
wild_texts = st.one_of(texts, _pieced(pieces | st.sampled_from(HALVES)), st.text(st.characters(), max_size=40))
written_texts = texts.filter(str.strip)  # what a document or a summary may be

turns = st.builds("{} {}".format, st.sampled_from(["#Person1#:", "#Person2#:", "Ann:", "Ben:"]), st.lists(pieces, max_size=6).map(" ".join))
dialogues = st.one_of(
    st.lists(turns, min_size=1, max_size=6).map("\n".join),
    st.lists(st.sampled_from(["#Person1#:", "#Person2#:"]), min_size=1, max_size=4).map("\n".join),  # nobody says anything
    st.sampled_from(WORDS),
    written_texts,
)
summaries = st.one_of(written_texts, dialogues)

whole_numbers = st.one_of(st.integers(-5, 40), st.integers(), st.sampled_from([2**31, 2**32, 2**64, 10**400, -(10**4000)]))
scalars = st.one_of(st.none(), st.booleans(), whole_numbers, st.floats(), wild_texts, st.binary(max_size=6))
values = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)), max_leaves=5
)


def one_line(message: str) -> bool:
    """Whether this is one sentence for one line of a terminal, without the words of a library."""
    jargon = ("pydantic", "instance of", "Traceback", "://errors.", "NoneType object")
    return len(message.splitlines()) == 1 and message.endswith((".", "?")) and not any(word in message for word in jargon)
