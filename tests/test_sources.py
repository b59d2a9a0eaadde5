"""Rows wherever they lie: every file format, every naming of the splits, and one sentence for whatever is wrong with a file."""

import csv
import json

import pytest

from lab_utils import sources
from lab_utils.config import Data
from lab_utils.data import SPLITS, load
from lab_utils.errors import LabError

ROWS = [
    {"id": "a", "document": 'Ann: "Hello", she said,\nand went.\nBen: Bye; see you.', "summary": "They part, 'politely'."},
    {"id": "b", "document": "Zoë: déjà vu 😀", "summary": "日本"},
    {"id": "c", "document": "Cem: One, two, three.", "summary": 'He counts "to three".'},
]


def write(path, rows):
    """The rows in the format that the file's name says."""
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def rows_of(path) -> list[dict]:
    return [row for _, row in sources.read_file(path)]


def places_of(rows) -> list[str]:
    return [place for place, _ in rows]


def refusal(call, *arguments) -> str:
    with pytest.raises(LabError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message and message.endswith("."), message
    return message


# --- formats


@pytest.mark.parametrize("suffix", sources.FORMATS)
def test_the_same_rows_come_out_of_every_format(tmp_path, suffix):
    assert rows_of(write(tmp_path / f"train{suffix}", ROWS)) == ROWS


@pytest.mark.parametrize("suffix", sources.FORMATS)
def test_a_folder_of_any_format_is_the_same_corpus(tmp_path, suffix):
    for folder, kind in ((tmp_path / "a", ".jsonl"), (tmp_path / "b", suffix)):
        for split, row in zip(SPLITS, ROWS, strict=True):
            write(folder / f"{split}{kind}", [row])
    first, second = (load(Data(source=str(tmp_path / name))) for name in "ab")
    assert all(getattr(first, split) == getattr(second, split) for split in SPLITS)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path, suffix):
    path = write(tmp_path / f"train{suffix}", ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert rows_of(path) == ROWS


def test_a_csv_row_is_named_by_the_line_that_it_begins_on(tmp_path):
    path = write(tmp_path / "train.csv", ROWS)
    path.write_bytes(path.read_bytes().replace(b"\r\nc,", b"\r\n\r\nc,"))  # and an empty line before the last
    assert places_of(sources.read_file(path)) == ["train.csv, line 2", "train.csv, line 5", "train.csv, line 7"]


def test_the_parts_of_a_parquet_split_are_joined_in_order(tmp_path):
    for split, rows in (("train", ROWS), ("validation", ROWS[:1]), ("test", ROWS[:1])):
        write(tmp_path / f"{split}-00000-of-00002.parquet", rows[:1])
        write(tmp_path / f"{split}-00001-of-00002.parquet", rows[1:] or [ROWS[2]])
    train = sources.read(str(tmp_path))["train"]
    assert [row for _, row in train] == ROWS and len(train) == 3
    first, second = (f"train-0000{part}-of-00002.parquet, row" for part in (0, 1))
    assert places_of(train) == [f"{first} 1", f"{second} 1", f"{second} 2"]


def test_a_part_that_is_missing_is_an_error_and_not_less_data(tmp_path):
    write(tmp_path / "train-00001-of-00002.parquet", ROWS)
    assert "1 of the 2 train files" in refusal(sources.read, str(tmp_path))


# --- names of the files


def test_the_authors_names_are_understood_and_the_hidden_test_set_is_left_alone(tmp_path):
    for name, row in zip(("train", "dev", "test", "hiddentest"), [*ROWS, {"fname": "hidden"}], strict=True):
        write(tmp_path / f"dialogsum.{name}.jsonl", [row])
    assert {split: [row["id"] for _, row in rows] for split, rows in sources.read(str(tmp_path)).items()} == {
        "train": ["a"],
        "validation": ["b"],
        "test": ["c"],
    }


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("training-set.json", "train"),
        ("My_Train_2.csv", "train"),
        ("valid.csv", "validation"),
        ("val.jsonl", "validation"),
        ("dev-00000-of-00001.parquet", "validation"),
        ("TEST.jsonl", "test"),
        ("train-00000-of-00001-b37d2a7fe1f0.parquet", "train"),
        ("latest.csv", None),
        ("trainer_state.json", None),
        ("hiddentest.jsonl", None),
        ("test.txt", None),
    ],
)
def test_a_word_of_the_name_says_the_split(tmp_path, name, split):
    (tmp_path / name).touch()
    assert list(sources.split_files(tmp_path)) == ([split] if split else [])


@pytest.mark.parametrize("names", [("train.jsonl", "train.csv"), ("test.jsonl", "my-test.jsonl"), ("dev.csv", "validation.csv")])
def test_two_files_that_could_be_one_split_are_refused(tmp_path, names):
    for name in names:
        write(tmp_path / name, ROWS)
    message = refusal(sources.read, str(tmp_path))
    assert all(name in message for name in names) and "more than one" in message


def test_a_folder_in_the_place_of_a_file_is_no_file(tmp_path):
    (tmp_path / "train.jsonl").mkdir()
    write(tmp_path / "test.jsonl", ROWS)
    assert list(sources.split_files(tmp_path)) == ["test"]


def test_what_is_neither_here_nor_a_hub_id_is_named_with_what_may_be_given(tmp_path):
    message = refusal(sources.read, str(tmp_path / "nowhere"))
    assert "nowhere" in message and all(kind in message for kind in (*SPLITS, *sources.FORMATS, "everyday", "hub id"))


def test_another_kind_of_file_is_refused_with_the_accepted_ones(tmp_path):
    (tmp_path / "train.xlsx").write_bytes(b"PK")
    message = refusal(sources.read, str(tmp_path / "train.xlsx"))
    assert "train.xlsx" in message and all(kind in message for kind in sources.FORMATS)


# --- files that cannot be read


@pytest.mark.parametrize(
    ("name", "text", "place", "reason"),
    [
        ("a.jsonl", '{"id": 1}\n\n{"id": 2\n', "line 3", "not valid JSON"),
        ("a.json", '[{"id": 1},\n {"id": 2},\n {"id" 3}]', "line 3", "not valid JSON"),
        ("a.csv", 'id,text\n1,"two\nlines"\n2,x,y\n', "line 4", "3 columns, not the 2 of the first line"),
        ("a.csv", "id,text\n1,x\n\n2\n", "line 4", "1 columns, not the 2 of the first line"),
        ("a.csv", 'id,text\n1,x\n2,"never closed\n3,y\n', "line 3", "not valid CSV"),
        ("a.csv", 'id,text\n1,"x" y\n', "line 2", "not valid CSV"),
    ],
    ids=["jsonl", "json", "csv-too-many", "csv-too-few", "csv-open-quote", "csv-after-quote"],
)
def test_a_broken_line_is_refused_by_its_number(tmp_path, name, text, place, reason):
    (tmp_path / name).write_text(text, encoding="utf-8")
    message = refusal(sources.read_file, tmp_path / name)
    assert message.startswith(f"{name}, {place}: ") and reason in message


@pytest.mark.parametrize("suffix", sources.FORMATS)
def test_a_row_without_text_is_refused_by_its_number_in_every_format(tmp_path, suffix):
    path = write(tmp_path / f"chats{suffix}", [ROWS[1], ROWS[2] | {"document": ""}, ROWS[0]])
    where = {".jsonl": "line 2", ".json": "object 2", ".csv": "line 3", ".parquet": "row 2"}[suffix]
    message = refusal(load, Data(source=str(path)))
    assert message.startswith(f"chats{suffix}, {where}: the document is empty")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_text_that_is_not_utf_8_is_refused_by_its_line(tmp_path, suffix):
    path = tmp_path / f"train{suffix}"
    lines = {
        ".jsonl": ['{"id": 1}'] * 2000 + ['{"id": "Zoë"}'],
        ".json": ["["] + ['{"id": 1},'] * 1999 + ['{"id": "Zoë"}]'],
        ".csv": ["id,text"] + ["1,x"] * 1999 + ["2,Zoë"],
    }
    path.write_bytes("\n".join(lines[suffix]).encode("latin-1"))
    message = refusal(sources.read_file, path)
    assert message.startswith(f"train{suffix}, line 2001: not UTF-8 text")


JUNK = bytes(range(256)) * 40


@pytest.mark.parametrize("content", [JUNK, b"PAR1" + JUNK + b"PAR1", b"PAR1", b""], ids=["junk", "junk-between-marks", "mark", "empty"])
@pytest.mark.parametrize("suffix", sources.FORMATS)
def test_binary_junk_under_a_files_name_is_one_sentence(tmp_path, suffix, content):
    (tmp_path / f"train{suffix}").write_bytes(content)
    assert f"train{suffix}" in refusal(load, Data(source=str(tmp_path / f"train{suffix}")))


def test_a_parquet_file_that_was_cut_off_is_one_sentence(tmp_path):
    path = write(tmp_path / "train.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    assert "train.parquet" in refusal(sources.read_file, path)


@pytest.mark.parametrize(("suffix", "content"), [(".jsonl", b"\n \n"), (".json", b"[]"), (".csv", b"document,summary\n")])
def test_a_file_without_examples_is_refused(tmp_path, suffix, content):
    (tmp_path / f"dev{suffix}").write_bytes(content)
    assert f"dev{suffix} holds no examples" in refusal(sources.read_file, tmp_path / f"dev{suffix}")


def test_a_json_file_holds_a_list(tmp_path):
    (tmp_path / "train.json").write_text('{"train": []}')
    assert "must hold a list of objects; found dict" in refusal(sources.read_file, tmp_path / "train.json")


# --- the hub, its client replaced; tests/test_hub.py speaks to a stub of the hub itself


@pytest.mark.parametrize(("source", "is_one"), [("knkarthick/dialogsum", True), ("a/b/c", False), ("./data", False), ("everyday", False)])
def test_owner_slash_name_is_a_hub_id_unless_there_is_such_a_folder(tmp_path, monkeypatch, source, is_one):
    monkeypatch.chdir(tmp_path)
    assert sources.is_hub_id(source) == is_one
    (tmp_path / source).mkdir(parents=True)
    assert not sources.is_hub_id(source)


def raising(monkeypatch, error):
    """datasets.load_dataset raises this."""

    def load_dataset(*_, **__):
        raise error

    monkeypatch.setattr("datasets.load_dataset", load_dataset)


def hub_refusal(source="me/chats", revision=None) -> str:
    return refusal(sources.read, source, None, revision)


def test_a_dataset_whose_name_holds_the_word_gated_is_not_gated(monkeypatch):
    from datasets.exceptions import DatasetNotFoundError

    raising(monkeypatch, DatasetNotFoundError("Dataset 'me/aggregated' doesn't exist on the Hub or cannot be accessed."))
    assert hub_refusal("me/aggregated").startswith("No data 'me/aggregated'")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Dataset scripts are no longer supported, but found chats.py"),
        ValueError("Config name is missing.\nPlease pick one among the available configs: ['1.0.0', '2.0.0']"),
        OSError("Consistency check failed: file should be of size 3 but has size 2 (/home/someone/.cache/train.csv)."),
    ],
)
def test_whatever_else_the_hubs_client_says_is_one_sentence_without_paths(monkeypatch, error):
    raising(monkeypatch, error)
    message = hub_refusal()
    assert message.startswith("The data 'me/chats' cannot be loaded (") and "/root" not in message


@pytest.mark.parametrize("kind", ["EmptyDatasetError", "DataFilesNotFoundError", "DatasetGenerationError"])
def test_a_dataset_that_cannot_be_built_is_one_sentence(monkeypatch, kind):
    import datasets.data_files
    from datasets import exceptions

    raising(monkeypatch, getattr(exceptions, kind, None) or getattr(datasets.data_files, kind))
    assert "'me/chats'" in hub_refusal()


def test_the_hubs_rows_without_text_are_left_out_and_said(monkeypatch):
    rows = {"train": [*ROWS, ROWS[0] | {"id": "d", "summary": None}], "validation": [{**ROWS[0], "document": "V"}]}
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: rows | {"test": [{**ROWS[0], "document": "T"}], "all": []})
    corpus = load(Data(source="me/chats"))
    assert (corpus.name, corpus.source, len(corpus.train)) == ("me/chats", "hub", 3)
    assert corpus.notes == ["me/chats train: 1 row without a document or summary left out."]
