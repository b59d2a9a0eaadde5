"""Whatever a text holds: the measures answer, within their bounds and as they say of themselves, in time in proportion to its length."""

import html
import math
import time
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import dialogues, summaries, wild_texts

from lab_utils import baselines, companions, flagging, highlights, metrics, tracing
from lab_utils import texts as lab_texts
from lab_utils.data import Example
from lab_utils.generation import Prediction
from lab_utils.sheets import printable
from lab_utils.texts import speakers, split_sentences, units, unknown_names, words

MANY = settings(max_examples=200)
any_document = dialogues | wild_texts
any_summary = summaries | wild_texts
few_words = st.lists(st.sampled_from(["a", "b", "c"]), max_size=12)
SHARES = (
    "coverage",
    "novel_bigrams",
    "repetition",
    "empty",
    "unstopped",
    *(f"{of}_{what}" for of in ("speaker", "name", "number") for what in ("precision", "recall")),
)


def dense(text: str) -> str:
    return "".join(text.split())


# --- sentences, turns, words


@given(wild_texts)
@MANY
def test_sentences_and_turns_hold_all_of_a_text_but_its_spaces(text):
    for parts in (split_sentences(text), units(text)):
        assert all(map(str.strip, parts)) and dense("".join(parts)) == dense(text)


@given(wild_texts)
@MANY
def test_words_are_small_and_those_of_two_texts_are_those_of_both_together(text):
    found = words(text)
    assert all(word and word == word.lower() for word in found)
    assert words(f"{text}\n{text}") == found * 2


@given(any_document, st.integers(1, 5))
@MANY
def test_lead_is_how_a_document_begins(document, count):
    lead = baselines.lead(document, count).split()
    assert lead == document.split()[: len(lead)]
    assert lead or not document.split()


@given(any_document, st.integers(1, 5))
@MANY
def test_the_longest_turns_are_turns_in_their_order(document, count):
    turns = [turn.split() for turn in units(document)]
    longest = baselines.longest(document, count).split()
    kept = sorted((len(turn) for turn in turns), reverse=True)[:count]
    assert len(longest) == sum(kept)
    rest = iter(document.split())
    assert all(word in rest for word in longest)


@given(any_document)
@MANY
@example("#Person1#:\n#Person2#:")
def test_speakers_are_different_labels_with_which_lines_begin(document):
    labels = speakers(document)
    assert len(set(labels)) == len(labels)
    assert all(1 <= len(label) <= 40 and len(label.split()) <= 4 for label in labels)
    assert all(any(line.strip().startswith(label) and ":" in line for line in document.splitlines()) for label in labels)
    assert lab_texts.named_speakers(document, labels) <= set(labels)


@given(any_summary, any_document)
@MANY
@example("Foo_bar", "Foo_bar")
@example("Person 1 leaves.", "Person 1: Bye.")
@example("They play Rock'n'Roll.", "Rock'n'Roll!")
def test_no_name_of_a_known_text_is_unknown(text, other):
    assert unknown_names(text, other) <= lab_texts.names(text)
    assert unknown_names(text, text) == set() == unknown_names(text, other, text)


@given(wild_texts)
@MANY
@example("9" * 5000)
@example("\u0663:\u0660\u0660 \u00b2 \u2460")
def test_numbers_are_written_as_some_texts_and_never_one(text):
    found = lab_texts.numbers(text)
    assert all(found) and "1" not in found
    assert found == lab_texts.numbers(text.upper().lower()) or text.upper().lower() != text.lower()


# --- ROUGE


@given(wild_texts)
@MANY
def test_a_text_has_the_highest_rouge_with_itself_where_it_has_words(text):
    found = metrics.rouge(text, text)
    tokens = metrics._scorer(True)._tokenizer.tokenize(text)
    assert found["rouge1"] == pytest.approx(100 if tokens else 0)
    assert found["rouge2"] == pytest.approx(100 if len(tokens) > 1 else 0)
    assert found["rougeL"] == found["rougeLsum"] == found["rouge1"]


@given(any_summary, any_summary)
@MANY
def test_rouge_lies_between_0_and_100_and_is_the_same_the_other_way_round(first, second):
    found, back = metrics.rouge(first, second), metrics.rouge(second, first)
    assert all(0 <= value <= 100 + 1e-9 for value in found.values())
    assert [found[name] for name in metrics.ROUGE[:3]] == pytest.approx([back[name] for name in metrics.ROUGE[:3]])


items = st.builds(lambda p, r: SimpleNamespace(prediction=p, references=r), any_summary, st.lists(any_summary, min_size=1, max_size=3))


@given(st.lists(items, min_size=1, max_size=4), st.randoms(use_true_random=False), any_document)
@settings(max_examples=60)
def test_the_order_of_documents_changes_no_score(found, chance, document):
    for number, item in enumerate(found):
        item.id = str(number)
    documents = {item.id: document for item in found}
    mixed = chance.sample(found, len(found))
    rows = metrics.score(found, documents)
    assert sorted(metrics.score(mixed, documents), key=lambda row: row["id"]) == rows
    assert all(row[f"best_{name}"] >= row[name] - 1e-9 for row in rows for name in metrics.ROUGE)
    first, second = (metrics.summarize(given) for given in (rows, metrics.score(mixed, documents)))
    assert {k: v["mean"] for k, v in first["companions"].items()} == pytest.approx({k: v["mean"] for k, v in second["companions"].items()})
    assert all(
        first[name]["low"] <= first[name]["mean"] + 1e-9 and first[name]["mean"] <= first[name]["high"] + 1e-9 for name in metrics.MEASURES
    )


@given(st.lists(items, min_size=1, max_size=3))
@settings(max_examples=15)
def test_bleu_and_chrf_of_any_texts_are_finite_and_lie_between_0_and_100(found):
    for measured in companions.corpus(found).values():
        values = [measured[name] for name in ("low", "score", "high")]
        assert all(math.isfinite(value) and -1e-9 <= value <= 100 + 1e-6 for value in values)


# --- companions


@given(any_summary, st.lists(any_summary, min_size=1, max_size=3), st.none() | any_document, st.sampled_from([True, False, None]))
@settings(max_examples=400)
def test_companions_are_finite_and_shares_are_shares(prediction, references, document, stopped):
    found = companions.describe(prediction, references, document, stopped)
    for name, value in found.items():
        assert value is None or math.isfinite(value) and value >= 0, name
        assert value is None or name not in SHARES or value <= 1 + 1e-9, name
    against = ("compression", "coverage", "density", "novel_bigrams", "name_precision", "number_precision")
    assert document is not None or all(found[name] is None for name in against)
    assert (found["words"] == 0) == (found["empty"] == 1)
    if found["density"] is not None:
        assert found["density"] <= found["words"] and (found["coverage"] > 0) == (found["density"] > 0)


@given(any_document)
@MANY
@example("Foo_bar and Person 2")
def test_a_copy_of_the_document_invents_nothing(document):
    found = companions.describe(document, [document], document)
    exact = {"coverage": 1, "novel_bigrams": 0, "compression": 1, "length_ratio": 1, "density": found["words"]}
    exact |= {f"{of}_{what}": 1 for of in ("speaker", "name", "number") for what in ("precision", "recall")}
    for name, value in exact.items():
        assert found[name] in (value, None), name
    assert found["coverage"] == 1 or not words(document)


def sought(summary, document):
    """Fragments as the paper writes them down, by looking everywhere."""
    lengths, start = [], 0
    while start < len(summary):
        sizes = [
            size
            for size in range(1, len(summary) - start + 1)
            for place in range(len(document))
            if document[place : place + size] == summary[start : start + size]
        ]
        longest = max(sizes, default=0)
        lengths += [longest] if longest else []
        start += max(longest, 1)
    return lengths


@given(few_words, few_words)
@settings(max_examples=300)
def test_fragments_are_those_found_by_looking_everywhere(summary, document):
    assert companions.fragments(summary, document) == sought(summary, document)


# --- what a summary rests on, and what looks wrong


@given(any_summary, any_document)
@settings(max_examples=300)
def test_what_a_summary_rests_on_are_shares_of_the_documents_turns(summary, document):
    shares = tracing.leaning(summary, document)
    assert len(shares) == len(units(document)) and all(share >= 0 for share in shares) and sum(shares) <= 1 + 1e-9
    turns, marked = tracing.traced(summary, document)
    assert ["".join(text for text, _ in turn) for turn in turns] == units(document)
    assert "".join(text for text, _ in marked) == summary
    place = tracing.where_it_matters(Example("1", document, (summary,)))
    assert math.isnan(place) or 0 <= place <= 1
    profile = tracing.leaning_profile({"ours": [summary]}, [document])["ours"]
    assert sum(profile) == pytest.approx(1) if any(profile) else profile == [0, 0, 0]


@given(any_summary, any_document, st.lists(any_summary, min_size=1, max_size=2), st.booleans())
@settings(max_examples=300)
def test_flags_are_of_known_kinds_and_fit_on_a_line(summary, document, references, stopped):
    found = flagging.flags(Prediction("1", summary, tuple(references), 3, stopped), Example("1", document, tuple(references)))
    kinds = [flag.kind for flag in found]
    assert kinds == [kind for kind in flagging.KINDS if kind in kinds]
    assert all(flag.detail and len(flag.detail) < 400 for flag in found)
    assert ("empty" in kinds) == (not words(summary)) and ("unstopped" in kinds) == (not stopped)


@given(any_document)
@settings(max_examples=200)
@example("Foo_bar and Person 2")
def test_a_copy_of_the_document_has_no_number_and_no_name_from_nowhere(document):
    found = flagging.flags(Prediction("1", document, (document,), 3, True), Example("1", document, (document,)))
    assert {flag.kind for flag in found} <= {"empty", "repeats"}


class Shown(HTMLParser):
    """The text of a page, and whether its tags close each other."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.text, self.open = "", []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        assert tag in ("figure", "figcaption", "div", "mark", "b", "em") and all(
            name in ("class", "style", "dir") for name, _ in attributes
        )
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@given(any_summary, any_document)
@settings(max_examples=150)
def test_a_marked_document_is_a_whole_page_that_shows_its_text(summary, document):
    marked = highlights.mark(summary, document, "<b>lora")
    page = marked._repr_html_()
    page.encode("utf-8")
    shown = Shown(page)
    assert shown.open == []
    for turn in units(document):
        assert html.unescape(html.escape(printable(turn))).replace("\r", "\n") in shown.text.replace("\r", "\n")
    assert "\ud800" not in repr(marked)


# --- long texts

LENGTH = 60_000
LONG = {
    "one-word": "a" * LENGTH,
    "one-letter-words": "a " * (LENGTH // 2),
    "turns": "A: x\n" * (LENGTH // 5),
    "accents": "e\u0301" * (LENGTH // 2),
    "numbers": "one million and one thousand and 1,1:30 " * (LENGTH // 40),
    "signs": "#a'.\"1, " * (LENGTH // 8),
    "spaces": ". \n" + " " * LENGTH + "\n" * LENGTH,
}
SHORT = "Ann meets Ben at 8:00 and gives him 1,000 euros."


@pytest.mark.parametrize("name", LONG)
def test_a_long_document_is_measured_in_seconds(name):
    document, started = LONG[name], time.process_time()
    companions.describe(SHORT, [SHORT], document)
    companions.describe(document, [SHORT], document)
    flagging.flags(Prediction("1", SHORT, (SHORT,), 5, True), Example("1", document, (SHORT,)))
    highlights.mark(SHORT, document, "x")._repr_html_()
    metrics.rouge(baselines.lead(document), SHORT)
    assert time.process_time() - started < 6


@pytest.mark.parametrize("word", ["a", "ab"])
def test_a_long_text_compared_with_itself_takes_time_in_proportion(word):
    long, started = list(word) * (300_000 // len(word)), time.process_time()
    assert companions.fragments(long, long) == [len(long)]
    assert time.process_time() - started < 3
