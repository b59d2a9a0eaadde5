"""The packaged dialogues keep what their data card promises."""

import json
import re
from collections import Counter
from difflib import SequenceMatcher
from itertools import combinations
from statistics import median

import pytest

from lab_utils.config import Data
from lab_utils.data import EVERYDAY, SPLITS, load
from lab_utils.texts import speakers

COUNTS = {"train": 240, "validation": 40, "test": 60}
REFERENCES = {"train": 1, "validation": 1, "test": 3}
TURN = re.compile(r"(#Person[1-4]#|[A-Z][\w'’-]*): \S.*")
TAG = re.compile(r"#Person\d+#")
CAPITALISED = re.compile(r"(?<![\w#'’-])[A-Z][\w'’-]*")
FIRST_OR_SECOND_PERSON = re.compile(r"\b(I|me|my|myself|we|us|our|ours|ourselves|you|your|yours|yourself)\b", re.IGNORECASE)
# Words that begin a sentence of a summary with a capital and need not stand in the dialogue; every other capitalised word is a name.
OPENERS = {
    "after", "although", "as", "at", "because", "both", "he", "her", "his", "in", "instead", "on", "rather", "she",
    "since", "they", "to", "when", "with",
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus():
    return load(Data())


@pytest.fixture(scope="module")
def everything(corpus):
    return [*corpus.train, *corpus.validation, *corpus.test]


@pytest.fixture(scope="module", params=SPLITS)
def split(request):
    return request.param


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower().replace("’", "'").replace("'", ""))


def spoken(document: str) -> list[str]:
    """The words of a dialogue without its speaker labels."""
    return words("\n".join(line.split(":", 1)[1] for line in document.split("\n")))


def runs(sequence: list[str], length: int) -> set[tuple[str, ...]]:
    return {tuple(sequence[i : i + length]) for i in range(len(sequence) - length + 1)}


def is_tagged(example) -> bool:
    return TAG.match(example.document) is not None


def names_without_source(summary: str, document: str) -> list[str]:
    """Capitalised words of a summary that the dialogue does not have, capitalised or typed in small letters as in a text message."""
    missing = []
    for found in CAPITALISED.finditer(summary):
        word = re.sub(r"['’]s?$", "", found.group())
        before = summary[: found.start()].rstrip()
        opens = not before or before[-1] in ".!?"
        if opens and word.lower() in OPENERS:
            continue
        if not re.search(rf"\b{re.escape(word)}(s|es)?\b", document, re.IGNORECASE):
            missing.append(word)
    return missing


def test_a_split_has_the_number_of_dialogues_and_summaries_that_its_card_says(corpus, split):
    examples = getattr(corpus, split)
    assert len(examples) == COUNTS[split]
    assert {len(example.references) for example in examples} == {REFERENCES[split]}
    assert f"| `{split}.jsonl` | {COUNTS[split]} | {REFERENCES[split]}" in (EVERYDAY / "README.md").read_text(encoding="utf-8")


def test_every_row_has_the_four_fields_and_no_other(split):
    rows = [json.loads(line) for line in (EVERYDAY / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {tuple(row) for row in rows} == {("id", "topic", "document", "references")}
    assert [row["id"] for row in rows] == [f"everyday-{split}-{number:03d}" for number in range(1, COUNTS[split] + 1)]
    assert all(row["topic"].strip() for row in rows)


def test_texts_carry_no_stray_space(everything):
    for example in everything:
        for text in (example.document, *example.references):
            assert text == text.strip() and not re.search(r" {2}| \n|\n\n|\r|\t|\ufffd", text), example.id
        assert not any("\n" in reference for reference in example.references), example.id


def test_dialogues_have_50_to_220_words_and_a_median_of_100_to_125(corpus, split):
    counts = [len(example.document.split()) for example in getattr(corpus, split)]
    assert min(counts) >= 50
    assert max(counts) <= 220
    assert 100 <= median(counts) <= 125


def test_summaries_have_12_to_45_words(everything):
    wrong = {example.id: reference for example in everything for reference in example.references if not 12 <= len(reference.split()) <= 45}
    assert not wrong


def test_every_turn_is_labelled(everything):
    wrong = [(example.id, line) for example in everything for line in example.document.split("\n") if not TURN.fullmatch(line)]
    assert not wrong


def test_a_dialogue_has_2_to_4_speakers(everything):
    counts = Counter(len(speakers(example.document)) for example in everything)
    assert set(counts) == {2, 3, 4}


def test_a_dialogue_tags_all_its_speakers_or_none(everything):
    mixed = [e.id for e in everything if len({bool(TAG.fullmatch(speaker)) for speaker in speakers(e.document)}) != 1]
    assert not mixed


def test_tags_are_numbered_without_a_gap(everything):
    for example in filter(is_tagged, everything):
        expected = {f"#Person{number}#" for number in range(1, len(speakers(example.document)) + 1)}
        assert set(speakers(example.document)) == expected, example.id


def test_half_the_dialogues_of_a_split_tag_their_speakers_and_half_name_them(corpus, split):
    tagged = [is_tagged(example) for example in getattr(corpus, split)]
    assert abs(sum(tagged) - (len(tagged) - sum(tagged))) <= 1


def test_there_are_at_least_40_topics_and_every_topic_of_the_test_is_trained(corpus):
    topics = {split: {example.topic for example in getattr(corpus, split)} for split in SPLITS}
    assert len(topics["train"]) >= 40
    assert topics["test"] | topics["validation"] <= topics["train"]


def test_no_two_dialogues_share_eight_words_in_a_row(everything):
    owner, shared = {}, []
    for example in everything:
        for run in runs(spoken(example.document), 8):
            if owner.setdefault(run, example.id) != example.id:
                shared.append((owner[run], example.id, " ".join(run)))
    assert not shared


def test_no_dialogue_comes_twice_with_other_names_or_small_changes(everything):
    """Measured by the share of neighbouring word pairs: one word changed in ten still leaves far more than 15% in common."""
    pairs = {example.id: runs(spoken(example.document), 2) for example in everything}
    alike = [(a, b) for a, b in combinations(pairs, 2) if len(pairs[a] & pairs[b]) > 0.15 * len(pairs[a] | pairs[b])]
    assert not alike


def test_no_summary_stands_at_two_dialogues(everything):
    counts = Counter(" ".join(words(reference)) for example in everything for reference in set(example.references))
    assert max(counts.values()) == 1


def test_every_tag_in_a_summary_is_a_speaker_of_its_dialogue(everything):
    wrong = {
        example.id: extra
        for example in everything
        for reference in example.references
        if (extra := set(TAG.findall(reference)) - set(speakers(example.document)))
    }
    assert not wrong


def test_a_summary_calls_at_least_one_speaker_as_the_dialogue_does(everything):
    nameless = [e.id for e in everything for reference in e.references if not any(speaker in reference for speaker in speakers(e.document))]
    assert not nameless


def test_every_name_in_a_summary_occurs_in_its_dialogue(everything):
    wrong = [(e.id, missing) for e in everything for reference in e.references if (missing := names_without_source(reference, e.document))]
    assert not wrong


def test_the_search_for_names_finds_a_name_that_the_dialogue_lacks():
    document = "Anna: Meet me on Tuesdays at upton's.\nBen: Fine."
    assert names_without_source("Ann meets Ben. Instead, Carla waits on Tuesday with Mark's sister.", document) == ["Ann", "Carla", "Mark"]
    assert names_without_source("Anna meets Ben on Tuesday at Upton's. They agree.", document) == []


def test_no_summary_copies_seven_words_in_a_row(everything):
    copied = [
        (example.id, " ".join(run))
        for example in everything
        for reference in example.references
        for run in runs(words(reference), 7) & (runs(spoken(example.document), 7) | runs(words(example.document), 7))
    ]
    assert not copied


def test_no_summary_speaks_in_the_first_or_second_person(everything):
    wrong = [(e.id, found.group()) for e in everything for r in e.references if (found := FIRST_OR_SECOND_PERSON.search(r))]
    assert not wrong


def test_the_three_summaries_of_a_test_dialogue_are_three_different_texts(corpus):
    """Shared words in shared order, from 0 to 1 (difflib): 0.85 is a copy with a few words changed, 0.5 the same facts in other words."""
    alike = {
        (example.id, one, other): SequenceMatcher(None, words(one), words(other), autojunk=False).ratio()
        for example in corpus.test
        for one, other in combinations(example.references, 2)
    }
    assert len(alike) == 3 * COUNTS["test"]
    assert not {pair: ratio for pair, ratio in alike.items() if ratio > 0.85}
    assert median(alike.values()) < 0.5
