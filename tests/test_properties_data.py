"""Whatever lies in a data file: a corpus that holds what it promises, or one sentence that names the file."""

import csv
import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from strategies import LINE_ENDS, dialogues, one_line, summaries, texts, values, wild_texts, written_texts

from lab_utils import data, sources
from lab_utils.config import Data
from lab_utils.data import SPLITS
from lab_utils.errors import LabError

PARQUET_IS_SLOW = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
names = st.sampled_from(["a", "b", "a_1", "a_2", "a-1", "a-2", "all-1", "test-1", "c_1", "c_2", 1, "1", 0, "", None, "\u0661"])
rows = st.fixed_dictionaries({"document": dialogues, "summary": summaries}, optional={"id": names, "topic": texts})
wild_rows = st.one_of(
    st.fixed_dictionaries(
        {name: wild_texts | values for name in ("document", "summary")},
        optional={"id": values, "topic": values, "references": values, "summary2": values},
    ),
    st.fixed_dictionaries({"dialogue": dialogues, "references": st.lists(wild_texts | st.just(""), max_size=3)}),
    st.fixed_dictionaries({"dialogue": dialogues, "summary1": summaries}, optional={"summary2": st.none() | texts, "summary10": summaries}),
    st.dictionaries(wild_texts, values, max_size=3),
    values,
)
specs = st.builds(
    dict,
    data_seed=st.integers(0, 3),
    train_examples=st.none() | st.integers(1, 6),
    validation_examples=st.none() | st.integers(1, 3),
    test_examples=st.none() | st.integers(1, 3),
    test_from=st.sampled_from(["test", "validation"]),
    keep_overlaps=st.booleans(),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def loaded(source, *names_said, **spec):
    """The corpus, or None where it is refused in one sentence that holds one of these names."""
    try:
        return data.load(Data(source=str(source), **spec))
    except LabError as error:
        assert one_line(str(error)), str(error)
        assert not names_said or any(name in str(error) for name in names_said), str(error)
        return None


def dumped(row) -> str:
    """A row as JSON, which writes neither bytes nor numbers of thousands of digits."""
    return json.dumps(row, default=lambda value: value.hex(), allow_nan=True)


def words_of(document):
    return tuple(data._words(document))


def assert_holds(corpus, spec):
    for split in SPLITS:
        examples = getattr(corpus, split)
        assert examples and len({example.id for example in examples}) == len(examples)
        wanted = spec.get(f"{split}_examples")
        assert wanted is None or len(examples) <= wanted
        for one in examples:
            assert one.document.strip() and one.references and all(map(str.strip, one.references))
            assert len(set(one.references)) == len(one.references)
            "".join([one.id, one.document, *one.references, one.topic]).encode("utf-8")
    held_out = {words_of(one.document) for split in ("validation", "test") for one in getattr(corpus, split)}
    if not spec.get("keep_overlaps"):
        assert held_out.isdisjoint(words_of(one.document) for one in corpus.train)
    for split in ("validation", "test"):
        documents = [one.document for one in getattr(corpus, split)]
        assert len(set(documents)) == len(documents)
    json.dumps(corpus.describe()).encode("utf-8")


# --- files of any content


@given(st.sampled_from(sources.FORMATS), st.binary(max_size=80) | wild_texts.map(lambda t: t.encode("utf-8", "surrogatepass")))
@settings(max_examples=300)
@example(".json", b"[" * 100_000)
@example(".jsonl", b'{"a": ' + b"[" * 100_000)
@example(".jsonl", b'{"id": ' + b"9" * 5000 + b"}")
@example(".json", b'[{"id": ' + b"9" * 5000 + b"}]")
@example(".parquet", b"PAR1")
@example(".csv", b"document,document\na,b\n")
@example(".csv", b'document,summary\r"a",b\r')
@example(".csv", b"a\x00,b\n1,2\n")
def test_any_bytes_in_a_file_are_rows_or_one_sentence_that_names_it(folder, ending, content):
    path = folder / f"all{ending}"
    path.write_bytes(content)
    corpus = loaded(path, path.name)
    if corpus is not None:
        assert_holds(corpus, {})


@given(st.sampled_from([".jsonl", ".json"]), st.lists(wild_rows, min_size=1, max_size=2))
@settings(max_examples=300)
@example(".jsonl", [{"document": "\ud800", "summary": "\ud83d\ude00", "topic": "\udfff"}])
@example(".jsonl", [{"a\nb": 1}])
def test_any_rows_are_a_corpus_or_one_sentence_that_names_the_file_and_the_line(folder, ending, found):
    """Among rows that fit, so that a single one decides."""
    path = folder / f"all{ending}"
    found = [{"document": f"Ann: {number}", "summary": "A."} for number in range(3)] + found
    text = "\n".join(map(dumped, found)) if ending == ".jsonl" else f"[{','.join(map(dumped, found))}]"
    path.write_text(text, encoding="utf-8")
    try:
        corpus = data.load(Data(source=str(path)))
    except LabError as error:
        message = str(error)
        assert one_line(message) and path.name in message
        assert any(words in message for words in (f"{path.name}, line ", f"{path.name}, object ", "holds no examples", "at least 3")), (
            message
        )
        return
    assert_holds(corpus, {})


@given(st.lists(st.lists(texts, max_size=3), min_size=1, max_size=5), st.sampled_from(LINE_ENDS), st.booleans())
@settings(max_examples=200)
def test_any_table_is_a_corpus_or_one_sentence_that_names_the_file(folder, table, end, marked):
    path = folder / "all.csv"
    with path.open("w", encoding="utf-8-sig" if marked else "utf-8", newline="") as file:
        csv.writer(file, lineterminator=end).writerows([["document", "summary", "id"], *table])
    corpus = loaded(path, path.name)
    if corpus is not None:
        assert_holds(corpus, {})


@given(st.lists(st.sampled_from([b"Ann: Hi.", b"\xff", b"\xed\xa0\x80", b""]), min_size=3, max_size=4))
@PARQUET_IS_SLOW
def test_a_parquet_file_whose_texts_are_no_texts_is_refused_in_one_sentence(folder, documents):
    """What declares its columns as text is not checked when it is written."""
    import pyarrow
    from pyarrow import parquet

    column = pyarrow.array(documents, pyarrow.binary()).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"document": column, "summary": ["A."] * len(documents)}), folder / "all.parquet")
    corpus = loaded(folder / "all.parquet", "all.parquet")
    assert corpus is None or set(documents) == {b"Ann: Hi."}


@given(st.sampled_from(["d", "timestamp"]), st.integers(-(2**40), 2**40))
@PARQUET_IS_SLOW
def test_a_parquet_file_with_dates_beyond_pythons_is_refused_or_read(folder, kind, number):
    import pyarrow
    from pyarrow import parquet

    made = pyarrow.array([number] * 3, pyarrow.int64()).cast(pyarrow.timestamp("s")) if kind == "timestamp" else None
    made = pyarrow.array([number % 2**31] * 3, pyarrow.int32()).view(pyarrow.date32()) if made is None else made
    parquet.write_table(pyarrow.table({"document": list("abc"), "summary": list("abc"), "topic": made}), folder / "all.parquet")
    corpus = loaded(folder / "all.parquet", "all.parquet")
    assert corpus is None or len(corpus.train) == 1


@given(wild_texts)
@example("x" * 300)
@example("x/" + "y" * 300)
@example("\0")
def test_any_name_of_data_that_is_not_there_is_one_sentence(name):
    name = f"{name}.nothing"
    if not sources.is_hub_id(name):
        with pytest.raises(LabError) as caught:
            sources.read(name)
        assert one_line(str(caught.value))


# --- rows that fit


def write(path, found):
    """The rows in one of the formats; a column that a row lacks is null, or empty in a table of texts."""
    columns = list(dict.fromkeys(name for row in found for name in row))
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([columns, *([row.get(name, "") for name in columns] for row in found)])
    elif path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({name: [row.get(name) for row in found] for name in columns}), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8", newline="")


named_rows = st.fixed_dictionaries({"document": dialogues, "summary": summaries, "topic": texts}, optional={"id": texts.filter(str.strip)})


@given(st.lists(named_rows, min_size=3, max_size=6))
@settings(PARQUET_IS_SLOW, max_examples=60)
@example([{"document": f"Ann:\r{n}\u2028\x85", "summary": '"', "topic": ""} for n in range(3)])
def test_the_same_rows_are_the_same_corpus_in_every_format(folder, found):
    corpora = []
    for ending in sources.FORMATS:
        write(folder / f"all{ending}", found)
        corpus = loaded(folder / f"all{ending}", "all")
        corpora.append(corpus and [getattr(corpus, split) for split in SPLITS])
    assert all(corpus == corpora[0] for corpus in corpora)


def split_files(folder, train, validation, test):
    for split, found in zip(SPLITS, (train, validation, test), strict=True):
        (folder / f"{split}.jsonl").write_text("".join(dumped(row) + "\n" for row in found), encoding="utf-8")
    return folder


A, B, C, D = ({"document": f"Ann: {letter}.", "summary": f"{letter}."} for letter in "ABCD")
several = st.lists(rows, min_size=1, max_size=6)


@given(several, several, several, specs)
@settings(max_examples=150)
@example([A], [B], [C | {"id": "a_1"}, C | {"id": "a_2", "summary": "D."}, D | {"id": "a"}], {})
@example(
    [{"document": "a" + " " * 400 + "b c", "summary": "A."}, B],
    [{"document": "a b c", "summary": "A."}],
    [{"document": "z", "summary": "A."}],
    {},
)
@example(
    [{"document": "\u0130x y", "summary": "A."}, B], [{"document": "\u0130x, y", "summary": "A."}], [{"document": "z", "summary": "A."}], {}
)
def test_splits_hold_what_they_promise_or_are_refused_in_one_sentence(tmp_path_factory, train, validation, test, spec):
    folder = split_files(tmp_path_factory.mktemp("splits"), train, validation, test)
    corpus = loaded(folder, **spec)
    if corpus is not None:
        assert_holds(corpus, spec)
        assert data.load(Data(source=str(folder), **spec)) == corpus


@given(st.lists(rows, min_size=3, max_size=9), specs)
@settings(max_examples=100)
def test_one_file_that_is_split_holds_what_it_promises(folder, found, spec):
    (folder / "all.jsonl").write_text("".join(dumped(row) + "\n" for row in found), encoding="utf-8")
    corpus = loaded(folder / "all.jsonl", "all.jsonl", **spec)
    if corpus is not None:
        assert_holds(corpus, spec)


@given(st.lists(rows, min_size=1, max_size=6))
@example([A | {"id": "a-3"}, A | {"id": "a"}, A | {"id": "a"}])
def test_rows_of_the_hub_get_ids_of_their_own_and_empty_ones_are_counted(found):
    """The hub's rows cannot be mended here: an id that stands twice, or a row without text, is no error."""
    found = [*found, {"document": "D", "summary": " "}]
    notes = []
    made = data._examples(sources.Rows("hub", found), Data(), True, notes)
    assert len(made) == len(found) - 1 == len({one.id for one in made})
    assert notes == ["hub: 1 row without a document or summary left out."]


@given(st.permutations([A, B, C, D]))
def test_a_fingerprint_tells_rows_in_another_order_apart(folder, found):
    def of(test):
        return loaded(split_files(folder / "order", [A | {"document": "T"}], [A | {"document": "V"}], test)).fingerprint

    (folder / "order").mkdir(exist_ok=True)
    ordered = [row | {"id": row["document"]} for row in found]
    assert (of(ordered) == of(sorted(ordered, key=str))) == (ordered == sorted(ordered, key=str))


@given(written_texts, summaries)
def test_a_document_in_another_case_and_other_spaces_is_known_as_a_copy(document, summary):
    assert words_of(document) == words_of(f"  {document}\n") or not any(map(str.isalnum, document))
