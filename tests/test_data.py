"""From rows to a corpus: spellings, references grouped, overlaps found, splits made, subsets drawn; and how a wrong row is named."""

import csv
import json

import pytest

from lab_utils.config import Data, load_recipe
from lab_utils.data import SPLITS, Example, fingerprint, load
from lab_utils.errors import LabError


def line(**row) -> str:
    return json.dumps(row, ensure_ascii=False)


GOOD = line(document="Ann: Hello.\nBen: Bye.", summary="They meet.")


def lines(words, **row) -> list[str]:
    """A line per word, with that word as the document."""
    return [line(document=word, summary=f"About {word}.", **row) for word in words]


def first(folder) -> Example:
    return load(Data(source=str(folder))).train[0]


def documents(examples) -> list[str]:
    return [example.document for example in examples]


def refusal(source, **spec) -> str:
    with pytest.raises(LabError) as caught:
        load(Data(source=str(source), **spec))
    message = str(caught.value)
    assert "\n" not in message and message.endswith("."), message
    return message


# --- one row


@pytest.mark.parametrize(
    ("row", "references"),
    [
        ({"document": "D", "references": ["A", "B"]}, ("A", "B")),
        ({"dialogue": "D", "references": ["A"]}, ("A",)),
        ({"document": "D", "summary": "A"}, ("A",)),
        ({"dialogue": "D", "summary": "A"}, ("A",)),
        ({"article": "D", "highlights": "A"}, ("A",)),
        ({"text": "D", "summary": ["A", "B"]}, ("A", "B")),
        ({"dialogue": "D", "summary1": "A", "summary2": "B", "summary3": "C"}, ("A", "B", "C")),
        ({"summary3": "C", "summary1": "A", "dialogue": "D", "summary2": "B"}, ("A", "B", "C")),
        ({"dialogue": "D", **{f"summary{n}": str(n) for n in range(1, 12)}}, tuple(map(str, range(1, 12)))),
        ({"dialogue": "D", "summary1": "A", "summary2": None}, ("A",)),
        ({"dialogue": "D", "summary1": "A", "summary2": "B", "summary3": "A"}, ("A", "B")),
    ],
    ids=[
        "references", "dialogue-references", "summary", "samsum", "cnn-dailymail", "a-list", "dialogsum-test", "any-order", "by-number",
        "fewer-references", "equal-references",
    ],
)  # fmt: skip
def test_every_accepted_spelling_gives_the_same_example(write_lines, row, references):
    assert first(write_lines([line(id=7, topic="tea", **row)])) == Example("7", "D", references, "tea")


def test_training_uses_the_first_reference(write_lines):
    assert first(write_lines([line(document="D", references=["A", "B"])])).summary == "A"


def test_dialogsums_file_name_is_the_id(write_lines):
    assert first(write_lines([line(fname="train_0", dialogue="D", summary="A")])).id == "train_0"


@pytest.mark.parametrize("row", [{}, {"id": None}, {"id": ""}])
def test_an_example_without_id_is_named_by_its_file_and_its_number_there(write_lines, row):
    corpus = load(Data(source=str(write_lines([GOOD], ["", *lines("DE", **row)]))))
    assert [example.id for example in corpus.validation] == ["validation-1", "validation-2"]


def test_windows_line_ends_and_unicode_line_separators_do_not_break_a_line(write_lines):
    assert first(write_lines([line(document="A\u2028B\x85C", summary="S") + "\r", GOOD])).document == "A\u2028B\x85C"


def test_windows_line_ends_within_a_document_are_plain_ones(write_lines):
    assert first(write_lines([line(document="Ann: Hi.\r\nBen: Bye.", summary="S")])).document == "Ann: Hi.\nBen: Bye."


def test_accents_and_emoji_arrive_as_written(write_lines):
    assert first(write_lines([line(document="Zoë: déjà vu 😀", summary="日本")])) == Example("train-1", "Zoë: déjà vu 😀", ("日本",))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ('{"document": "D", ', "not valid JSON"),
        ('["D", "A"]', "expected an object"),
        ('"text"', "expected an object"),
        (line(summary="A"), "no 'document' text (found summary); name its column with document_column"),
        (line(document="D"), "no 'summary' text (found document); name its column with summary_column"),
        ("{}", "no 'document' text (found nothing)"),
        (line(document=3, summary="A"), "the document must be text, found int"),
        (line(document=None, summary="A"), "the document is empty"),
        (line(document="D", summary=None), "the summary is empty"),
        (line(document="D", summary={"text": "A"}), "the summary must be text, found dict"),
        (line(document="D", references=["A", 3]), "the summary must be text, found int"),
        (line(document="D", references=[]), "the summary is empty"),
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


# --- columns of one's own


def test_columns_with_names_of_ones_own_are_read_by_those_names(write_lines):
    row = {"chat": "D", "gist": "A", "document": "not this", "summary": "nor this"}
    folder = write_lines([line(**row)], [line(**row | {"chat": "E"})], [line(**row | {"chat": "F"})])
    corpus = load(Data(source=str(folder), document_column="chat", summary_column="gist"))
    assert [(e.document, e.summary) for split in SPLITS for e in getattr(corpus, split)] == [("D", "A"), ("E", "A"), ("F", "A")]


@pytest.mark.parametrize(("which", "name"), [("document_column", "caht"), ("summary_column", "gits")])
def test_a_wrong_column_name_is_refused_with_the_columns_that_there_are(write_lines, which, name):
    row = line(chat="D", gist="A")
    message = refusal(write_lines([row], [row], [row]), **{"document_column": "chat", "summary_column": "gist", which: name})
    assert message == f"train.jsonl, line 1: no column '{name}' (found chat, gist); set {which} to one of these."


# --- splits


def test_each_split_comes_from_its_own_file(write_lines):
    corpus = load(Data(source=str(write_lines(*(lines([word]) for word in "DEF")))))
    assert [documents(getattr(corpus, split)) for split in SPLITS] == [["D"], ["E"], ["F"]]


@pytest.mark.parametrize("missing", SPLITS)
def test_a_split_that_is_missing_is_named_with_those_found(write_lines, missing):
    folder = write_lines([GOOD])
    (folder / f"{missing}.jsonl").unlink()
    found = ", ".join(split for split in SPLITS if split != missing)
    message = refusal(folder)
    assert f"'data' has no {missing} split (found {found}): add it" in message
    assert ("test_from=validation" in message) == (missing == "test")


def test_a_folder_without_data_has_no_split(tmp_path):
    (tmp_path / "notes.txt").write_text("train")
    assert "has no train and no validation and no test split (found none)" in refusal(tmp_path)


def test_a_part_of_the_validation_split_can_be_the_test_set(write_lines):
    folder = write_lines(lines("AB"), lines("CDEFG"))
    (folder / "test.jsonl").unlink()
    corpus = load(Data(source=str(folder), test_from="validation", test_examples=2))
    assert sorted(documents([*corpus.validation, *corpus.test])) == list("CDEFG")
    assert len(corpus.test) == 2 and documents(corpus.train) == ["A", "B"]
    assert any("2 documents of the validation split" in note for note in corpus.notes)
    assert load(Data(source=str(folder), test_from="validation", test_examples=2)).fingerprint == corpus.fingerprint
    assert len(load(Data(source=str(folder), test_from="validation")).test) == 2  # half of them


def test_a_test_set_as_large_as_the_validation_split_is_refused(write_lines):
    folder = write_lines(lines("AB"), lines("CD"))
    assert "leaves none for validation" in refusal(folder, test_from="validation", test_examples=2)


def table(path, rows) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


@pytest.fixture
def chats(tmp_path):
    """One CSV file of 30 documents in columns of its own, ten of them on two rows."""
    rows = [{"chat": f"Ann: Number {n}?\nBen: Yes, {n}.", "gist": f"Ann asks about {n}."} for n in range(30)]
    return table(tmp_path / "chats.csv", rows + [row | {"gist": "Another summary."} for row in rows[:10]])


def test_one_file_is_split_in_three_and_no_document_stands_in_two(chats):
    corpus = load(Data(source=chats, document_column="chat", summary_column="gist"))
    found = [set(documents(getattr(corpus, split))) for split in SPLITS]
    assert [len(part) for part in found] == [24, 3, 3] and len(set.union(*found)) == 30
    assert (corpus.source, corpus.overlaps) == ("local file", {})
    assert any("24 training, 3 validation, 3 test documents" in note for note in corpus.notes)


def test_one_file_is_split_the_same_way_for_the_same_data_seed_and_another_way_for_another(chats):
    def split(seed):
        corpus = load(Data(source=chats, document_column="chat", summary_column="gist", data_seed=seed))
        return [documents(getattr(corpus, name)) for name in SPLITS]

    assert split(1) == split(1) != split(2)


def test_a_copy_that_differs_in_spaces_is_not_trained_on_when_one_file_is_split(tmp_path):
    rows = [{"document": f"Number {n // 2}{'!' * (n % 2)}", "summary": "A"} for n in range(40)]
    corpus = load(Data(source=table(tmp_path / "pairs.csv", rows)))
    held_out = {document.rstrip("!") for document in documents([*corpus.validation, *corpus.test])}
    assert held_out.isdisjoint(document.rstrip("!") for document in documents(corpus.train))


def test_two_documents_cannot_be_split_in_three(tmp_path):
    assert "has 2 documents; at least 3" in refusal(table(tmp_path / "few.csv", [{"document": d, "summary": "A"} for d in "DE"]))


# --- several references

TURNS = "Ann: Is it {0}?\nBen: It is {0}."


@pytest.fixture
def authors(write_lines):
    """The authors' layout of a test split: a dialogue a line, with summary1 to summary3."""
    rows = [
        {"fname": f"test_{n}", "dialogue": TURNS.format(n)} | {f"summary{k}": f"{n}, said {k} times." for k in (1, 2, 3)} for n in range(4)
    ]
    topics = [{f"topic{k}": f"topic {n}{k}" for k in (1, 2, 3)} for n in range(4)]
    return write_lines([GOOD], None, [line(**row, **topic) for row, topic in zip(rows, topics, strict=True)])


@pytest.fixture
def flattened(write_lines):
    """The hub's layout of the same: a row for each summary."""

    def write(name="test"):
        rows = [
            {"id": f"{name}_{n}_{k}", "dialogue": TURNS.format(n), "summary": f"{n}, said {k} times.", "topic": f"topic {n}{k}"}
            for n in range(4)
            for k in (1, 2, 3)
        ]
        return {"test": ([GOOD], None), "train": ()}[name] + ([line(**row) for row in rows],)

    return lambda name="test": write_lines(*write(name))


def test_the_hubs_rows_of_one_dialogue_are_one_item_with_the_authors_id_references_and_fingerprint(authors, flattened):
    ours = load(Data(source=str(authors)))
    assert [(e.id, e.topic, len(e.references)) for e in ours.test] == [(f"test_{n}", f"topic {n}1", 3) for n in range(4)]
    hubs = load(Data(source=str(flattened())))
    assert hubs.test == ours.test and hubs.fingerprint == ours.fingerprint
    assert any("test split's 12 rows are 4 documents" in note for note in hubs.notes)
    assert not any("rows are" in note for note in ours.notes)


def test_training_rows_with_one_document_stay_apart(flattened):
    train = load(Data(source=str(flattened("train")))).train
    assert [e.id for e in train] == [f"train_{n}_{k}" for n in range(4) for k in (1, 2, 3)]
    assert {len(e.references) for e in train} == {1}


def test_two_different_rows_with_one_document_keep_the_first_ones_id(write_lines):
    """dev_12 and dev_77 are not the first and second reference of 'dev'."""
    rows = [line(id=f"dev_{n}", document=word, summary=str(n)) for n, word in ((12, "D"), (30, "E"), (77, "D"), (78, "E"))]
    found = load(Data(source=str(write_lines([GOOD], rows)))).validation
    assert [(e.id, e.references) for e in found] == [("dev_12", ("12", "77")), ("dev_30", ("30", "78"))]


# --- overlaps

COPIES = ["ann:  is it ready?\nBEN: Not yet!", "Ann: Is it ready? Ben: Not yet"]
HELD_OUT = "Ann: Is it ready?\nBen: Not yet."


def test_training_leaves_out_documents_of_the_other_splits_whatever_their_case_punctuation_and_spaces(write_lines):
    folder = write_lines(lines([*COPIES, "Cem: Hello."]), lines([HELD_OUT, "Dua: One."]), lines(["DUA one", "Eva: Two."]))
    corpus = load(Data(source=str(folder)))
    assert documents(corpus.train) == ["Cem: Hello."]
    assert corpus.overlaps == {"validation in train": 1, "test in validation": 1}
    assert corpus.describe()["overlaps"] == corpus.overlaps and corpus.describe()["train"] == 1
    notes = " ".join(corpus.describe()["notes"])
    assert "1 of 2 validation documents also stand in the training split, in 2 rows." in notes
    assert "These 2 rows are left out of training" in notes and "1 test documents also stand in the validation split." in notes


def test_overlaps_can_be_kept_and_are_counted_all_the_same(write_lines):
    folder = write_lines(lines([*COPIES, "Cem: Hello."]), lines([HELD_OUT]), lines(["Eva: Two."]))
    corpus = load(Data(source=str(folder), keep_overlaps=True))
    assert len(corpus.train) == 3 and corpus.overlaps == {"validation in train": 1}
    assert not any("left out" in note for note in corpus.notes)


def test_documents_that_only_begin_alike_are_no_overlap(write_lines):
    start = "Ann: Good morning, this is the station, how can I help you today? "
    corpus = load(Data(source=str(write_lines(lines([start + "One."]), lines([start + "Two."]), lines([start])))))
    assert (len(corpus.train), corpus.overlaps, corpus.notes) == (1, {}, [])


def test_a_copy_of_a_long_document_is_found(write_lines):
    long = "word " * 500
    folder = write_lines(lines([long + "end", long]), lines([long.upper() + " End."]))
    assert documents(load(Data(source=str(folder))).train) == [long]


def test_nothing_left_to_train_on_is_one_sentence(write_lines):
    message = refusal(write_lines([GOOD], [GOOD]))
    assert "No train examples are left in 'data'" in message


# --- subsets


@pytest.mark.parametrize("split", SPLITS)
def test_asking_for_more_examples_than_there_are_takes_all_and_says_so(write_lines, split):
    folder = write_lines(lines("AB"), lines("CD"), lines("EF"))
    corpus = load(Data(source=str(folder), **{f"{split}_examples": 3}))
    assert len(getattr(corpus, split)) == 2
    assert corpus.notes == [f"{split}_examples is 3; there are 2, and all of them are used."]


def test_fewer_examples_are_drawn_by_the_data_seed_and_keep_their_order(write_lines):
    folder = write_lines(lines("ABCDEFGHIJ"))

    def drawn(seed, count=4):
        return documents(load(Data(source=str(folder), train_examples=count, data_seed=seed)).train)

    assert all(drawn(seed) == sorted(drawn(seed)) and len(drawn(seed)) == 4 for seed in range(5))
    assert drawn(0) == drawn(0) and len({tuple(drawn(seed)) for seed in range(5)}) > 1
    assert drawn(0) != list("ABCD")  # not simply the first ones: a file may be sorted
    assert drawn(0, 10) == drawn(1, 10) == drawn(0, None) == list("ABCDEFGHIJ")


@pytest.mark.parametrize("changes", [{}, {"train_examples": 240, "test_examples": 60}])
def test_what_the_packaged_recipe_trains_and_tests_on_does_not_depend_on_the_data_seed(changes):
    """Only its validation examples are drawn, a few of 40; a count equal to the size draws nothing."""
    spec = load_recipe("smollm2-everyday").data
    first, second = (load(spec.model_copy(update={"data_seed": seed, **changes})) for seed in (0, 1))
    assert (first.train, first.test) == (second.train, second.test)
    assert (len(first.train), len(first.validation), len(first.test)) == (240, spec.validation_examples, 60)
    assert first.notes == [] and first.overlaps == {}


# --- a corpus


def test_the_packaged_dialogues_are_the_default():
    corpus = load(Data())
    assert (corpus.name, corpus.source) == ("everyday", "packaged")


def test_a_corpus_describes_itself_without_this_machines_paths(write_lines):
    folder = write_lines(lines("AB"))
    described = load(Data(source=str(folder))).describe()
    assert {key: described[key] for key in ("name", "source", "train", "validation", "test")} == {
        "name": "data",
        "source": "local folder",
        "train": 2,
        "validation": 1,
        "test": 1,
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
    def of(train, test):
        return load(Data(source=str(write_lines(lines(train), None, lines(test))))).fingerprint

    assert of("A", "T") == of("B", "T") != of("A", "U")


def test_half_a_character_becomes_the_replacement_character_since_no_tokenizer_reads_it(write_lines):
    folder = write_lines(['{"document": "A: \\ud83d bye \\ud83d\\ude00", "summary": "A \\udfff."}'])
    [example] = load(Data(source=str(folder))).train
    assert (example.document, example.summary) == ("A: \ufffd bye \U0001f600", "A \ufffd.")
