"""Data files in every accepted spelling, and how a wrong line is named."""

import json

import pytest

from lab_utils.config import Data
from lab_utils.data import Example, fingerprint, lead, load, speakers
from lab_utils.errors import LabError


def line(**row) -> str:
    return json.dumps(row, ensure_ascii=False)


GOOD = line(document="Ann: Hello.\nBen: Bye.", summary="They meet.")


def first(folder) -> Example:
    return load(Data(source=str(folder))).train[0]


def refusal(source, **spec) -> str:
    with pytest.raises(LabError) as caught:
        load(Data(source=str(source), **spec))
    return str(caught.value)


@pytest.mark.parametrize(
    ("row", "references"),
    [
        ({"document": "D", "references": ["A", "B"]}, ("A", "B")),
        ({"dialogue": "D", "references": ["A"]}, ("A",)),
        ({"document": "D", "summary": "A"}, ("A",)),
        ({"dialogue": "D", "summary": "A"}, ("A",)),
        ({"dialogue": "D", "summary1": "A", "summary2": "B", "summary3": "C"}, ("A", "B", "C")),
        ({"summary3": "C", "summary1": "A", "dialogue": "D", "summary2": "B"}, ("A", "B", "C")),
    ],
    ids=["references", "dialogue-references", "summary", "samsum", "dialogsum-test", "any-order"],
)
def test_every_accepted_spelling_gives_the_same_example(write_lines, row, references):
    assert first(write_lines([line(id=7, topic="tea", **row)])) == Example("7", "D", references, "tea")


def test_training_uses_the_first_reference(write_lines):
    assert first(write_lines([line(document="D", references=["A", "B"])])).summary == "A"


def test_several_references_are_one_test_item(write_lines):
    corpus = load(Data(source=str(write_lines([line(dialogue="D", summary1="A", summary2="B"), GOOD]))))
    assert len(corpus.test) == 2


def test_dialogsums_file_name_is_the_id(write_lines):
    assert first(write_lines([line(fname="train_0", dialogue="D", summary="A")])).id == "train_0"


def test_an_example_without_id_is_named_by_its_file_and_line(write_lines):
    corpus = load(Data(source=str(write_lines(["", GOOD, GOOD]))))
    assert [example.id for example in corpus.validation] == ["validation-2", "validation-3"]


def test_each_split_comes_from_its_own_file(write_lines):
    folder = write_lines(*([line(document=f"D{i}", summary="A")] for i in range(3)))
    corpus = load(Data(source=str(folder)))
    assert [part[0].document for part in (corpus.train, corpus.validation, corpus.test)] == ["D0", "D1", "D2"]


def test_windows_line_ends_and_unicode_line_separators_do_not_break_a_line(write_lines):
    assert first(write_lines([line(document="A\u2028B\x85C", summary="S") + "\r", GOOD])).document == "A\u2028B\x85C"


def test_accents_and_emoji_arrive_as_written(write_lines):
    assert first(write_lines([line(document="Zoë: déjà vu 😀", summary="日本")])) == Example("train-1", "Zoë: déjà vu 😀", ("日本",))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ('{"document": "D", ', "not valid JSON"),
        ('["D", "A"]', "expected an object"),
        ('"text"', "expected an object"),
        (line(summary="A"), "no 'document' text (found summary)"),
        (line(document="D"), "no 'summary' text (found document)"),
        (line(document=3, summary="A"), "no 'document' text"),
        (line(document="D", summary=None), "no 'summary' text"),
        (line(document="D", references=["A", 3]), "no 'summary' text"),
        (line(document="D", references=[]), "no 'summary' text"),
        (line(document="D", references="A"), "'references' must be a list"),
        (line(document=" \n", summary="A"), "the document is empty"),
        (line(document="D", summary=" "), "the summary is empty"),
        (line(document="D", references=["A", ""]), "the summary is empty"),
        (line(dialogue="D", summary1="A", summary2="\t"), "the summary is empty"),
    ],
)
def test_a_line_that_does_not_fit_is_refused_by_its_number(write_lines, bad, reason):
    message = refusal(write_lines([GOOD, "", bad, GOOD]))
    assert "train.jsonl, line 3: " in message and reason in message


def test_the_file_of_a_wrong_line_is_named(write_lines):
    assert "test.jsonl, line 2: " in refusal(write_lines([GOOD], [GOOD], [GOOD, "{"]))


def test_an_id_that_stands_twice_is_refused(write_lines):
    message = refusal(write_lines([line(id="a", document="D", summary="A"), line(id="a", document="E", summary="B")]))
    assert "train.jsonl, line 2: the id 'a' stands on an earlier line too" in message


def test_text_that_is_not_utf_8_is_refused_by_its_line(write_lines):
    folder = write_lines([GOOD])
    (folder / "train.jsonl").write_bytes(GOOD.encode() + b"\n" + line(document="Zoë", summary="A").encode("latin-1"))
    assert "train.jsonl, line 2: not UTF-8 text" in refusal(folder)


def test_a_file_without_examples_is_refused(write_lines):
    assert "validation.jsonl holds no examples" in refusal(write_lines([GOOD], ["", " "]))


def test_a_folder_that_is_absent_is_named_with_what_it_must_hold(tmp_path):
    message = refusal(tmp_path / "nowhere")
    assert "nowhere" in message and all(f"{split}.jsonl" in message for split in ("train", "validation", "test"))


def test_a_file_that_is_absent_is_named(write_lines):
    folder = write_lines([GOOD])
    (folder / "test.jsonl").unlink()
    assert "No file 'test.jsonl' in 'data'" in refusal(folder)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_asking_for_more_examples_than_there_are_is_refused(write_lines, split):
    folder = write_lines([GOOD, GOOD])
    message = refusal(folder, **{f"{split}_examples": 3})
    assert f"{split}_examples is 3" in message and f"{split}.jsonl has 2" in message
    assert len(getattr(load(Data(source=str(folder), **{f"{split}_examples": 2})), split)) == 2


def test_fewer_examples_are_the_first_ones(write_lines):
    corpus = load(Data(source=str(write_lines([line(document=f"D{i}", summary="A") for i in range(4)])), train_examples=2))
    assert [example.document for example in corpus.train] == ["D0", "D1"]
    assert len(corpus.test) == 4


def test_the_packaged_dialogues_are_the_default():
    corpus = load(Data())
    assert (corpus.name, corpus.source) == ("everyday", "packaged")


def test_a_corpus_describes_itself_without_this_machines_paths(write_lines):
    folder = write_lines([GOOD, GOOD], [GOOD])
    described = load(Data(source=str(folder))).describe()
    assert {key: described[key] for key in ("name", "source", "train", "validation", "test")} == {
        "name": "data",
        "source": "local folder",
        "train": 2,
        "validation": 1,
        "test": 2,
    }
    assert str(folder.parent) not in json.dumps(described)


PAIR = [Example("a", "D", ("A", "BC")), Example("b", "E", ("C",))]


def test_equal_examples_have_equal_fingerprints():
    again = [Example("a", "D", ("A", "BC")), Example("b", "E", ("C",))]
    assert fingerprint(again) == fingerprint(PAIR)
    assert len(fingerprint(PAIR)) == 16


@pytest.mark.parametrize(
    "changed",
    [
        PAIR[::-1],
        PAIR[:1],
        [Example("a", "d", ("A", "BC")), PAIR[1]],
        [Example("x", "D", ("A", "BC")), PAIR[1]],
        [Example("a", "D", ("A", "BD")), PAIR[1]],
        [Example("a", "D", ("A",)), PAIR[1]],
        [Example("a", "D", ("BC", "A")), PAIR[1]],
        [Example("a", "D", ("AB", "C")), PAIR[1]],
        [Example("a", "DA", ("", "BC")), PAIR[1]],
    ],
    ids=["order", "count", "text", "id", "reference", "fewer-references", "reference-order", "where-a-reference-ends", "where-a-text-ends"],
)
def test_a_fingerprint_depends_on_order_text_and_references(changed):
    assert fingerprint(changed) != fingerprint(PAIR)


def test_a_corpus_is_fingerprinted_by_its_test_set(write_lines):
    other = line(document="other", summary="A")
    same = load(Data(source=str(write_lines([GOOD], [GOOD], [GOOD])))).fingerprint
    assert load(Data(source=str(write_lines([other], [other], [GOOD])))).fingerprint == same
    assert load(Data(source=str(write_lines([GOOD], [GOOD], [other])))).fingerprint != same


def test_speakers_come_in_order_of_appearance_once_each():
    document = "Ben: At 10:30?\n#Person1#: Yes: ten.\nBen: Good.\n\nno speaker here"
    assert speakers(document) == ["Ben", "#Person1#"]


def test_lead_is_the_first_turns_without_blank_lines():
    document = "A: 1\n\n  \nB: 2\nA: 3\nB: 4"
    assert lead(document) == "A: 1\nB: 2\nA: 3"
    assert lead(document, 1) == "A: 1"
    assert lead("one line") == "one line"
