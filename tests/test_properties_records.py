"""Whatever texts a run, a rating or a class holds: files that are UTF-8, read back as they were written, and compute nothing."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import FORMULAS, dialogues, summaries, texts, wild_texts
from test_report import save

from lab_utils import config, files, report, runs, sheets
from lab_utils.data import Example, whole_characters
from lab_utils.generation import Prediction
from lab_utils.submissions import gradebook

FORMULA = re.compile(r"[ \t]*[=+\-@\uff1d\uff0b\uff0d\uff20]")
cells = st.one_of(wild_texts, st.sampled_from(FORMULAS), st.builds("{}{}".format, texts, st.sampled_from(FORMULAS)))
# Half of a character is written as its escape; two halves that stand together come back as the one that they are.
predictions = st.builds(
    lambda name, prediction, references: Prediction(name, prediction, tuple(references), 3, True),
    wild_texts, wild_texts, st.lists(wild_texts, min_size=1, max_size=3),
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


def joined_halves(text):
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def as_read(item):
    return Prediction(
        joined_halves(item.id), joined_halves(item.prediction), tuple(map(joined_halves, item.references)), item.tokens, item.stopped
    )


@given(st.lists(predictions, max_size=4), wild_texts)
@settings(max_examples=150)
@example([Prediction("\ud83d", "\x85 \u2028 \r\n \x1e", ("\ud83d\ude00",), 1, True)], "\x00")
def test_a_record_and_its_predictions_are_read_back_as_they_were_written(folder, found, text):
    run = runs.Run(files.make_folder(folder / "lora"), {})
    run.save_predictions(found)
    run.add(status="finished", note=text, config={text: [text]})
    for name in ("run.json", "predictions.jsonl"):
        (run.folder / name).read_bytes().decode("utf-8")
    again = runs.read(folder, "lora")
    assert again.predictions == list(map(as_read, found))
    assert again.record["note"] == joined_halves(text)


settings_of_any_words = st.fixed_dictionaries(
    {},
    optional={
        "data_dir": wild_texts,
        "model_dir": wild_texts,
        "document_column": wild_texts,
        "target_modules": st.lists(texts, min_size=1, max_size=2),
    },
)


@given(settings_of_any_words)
@settings(max_examples=100)
def test_settings_are_read_back_from_a_record_as_they_were(folder, words):
    found = config.resolve(
        "tiny-causal", "lora", **{name: joined_halves(value) if isinstance(value, str) else value for name, value in words.items()}
    )
    files.write_json(folder / "settings.json", found.model_dump())
    assert config.recorded(json.loads((folder / "settings.json").read_text(encoding="utf-8"))) == found


# --- the page


class Page(HTMLParser):
    """A page as a browser takes it apart: every tag is closed, and no text became a tag."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text = [], set(), ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        assert not any(name.startswith("on") for name, _ in attributes)
        self.tags.add(tag)
        if tag not in ("meta", "img", "input", "br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


examples = st.lists(
    st.builds(lambda d, r: (whole_characters(d), tuple(map(whole_characters, r))), dialogues, st.lists(summaries, min_size=1, max_size=2)),
    min_size=3, max_size=5, unique=True,
)  # fmt: skip


@given(examples, st.data())
@settings(max_examples=2)  # each draws all of a report's figures
def test_a_report_of_any_texts_is_a_whole_page(tmp_path_factory, found, data):
    folder = tmp_path_factory.mktemp("report")
    test = [Example(f"{number}{data.draw(texts)}", document, references) for number, (document, references) in enumerate(found)]
    for method in ("zero_shot", "lora"):
        save(folder, method, [Prediction(e.id, data.draw(wild_texts), e.references, 3, data.draw(st.booleans())) for e in test])
    page = Page(report.write(folder, test).read_bytes().decode("utf-8"))
    assert page.open == [] and not {"script-x", "iframe", "object", "svg"} & page.tags
    assert "Traceback" not in page.text


# --- tables


def begins_a_formula(text):
    """Whether a spreadsheet would compute a cell of this line, be commas or semicolons (or tabs) what it separates cells by."""
    return any(FORMULA.match(part) for part in re.split(r"[;\n]", text) if not re.fullmatch(r"[-+]?[0-9.]+", part))


rows = st.builds(
    lambda *given: dict(zip(("student", "verdict", "points", "left out"), given, strict=True)),
    cells,
    cells,
    st.floats(-5, 5),
    cells | st.none(),
)


@given(st.lists(rows, max_size=3))
@settings(max_examples=300)
@example([{"student": "ada;=cmd()", "verdict": "\n=cmd()", "points": -1.5, "left out": None}])
@example([{"student": "x;\t=cmd()", "verdict": "\ud800=1", "points": 0.0, "left out": "\r=1"}])
def test_no_cell_of_a_classs_table_is_computed_by_a_spreadsheet(rows):
    text = gradebook._csv(rows)
    text.encode("utf-8")
    header, *read = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    assert header == list(rows[0] if rows else ["student"]) and len(read) == len(rows)
    for row, line in zip(rows, read, strict=True):
        assert not any(begins_a_formula(cell) for name, cell in zip(header, line, strict=True) if name != "points")
        shown = [re.sub("'", "", sheets.printable(row[name] or "")) for name in ("student", "verdict", "left out")]
        assert [re.sub("'", "", line[header.index(name)]) for name in ("student", "verdict", "left out")] == shown


@given(st.lists(st.tuples(cells, wild_texts, st.sampled_from(sheets.MARKS)), min_size=1, max_size=4))
@settings(max_examples=100)
def test_a_raters_sheet_is_read_back_and_computes_nothing(tmp_path_factory, answers):
    path = sheets.file_of(tmp_path_factory.mktemp("rated"), "ann")
    for document, summary, mark in answers:
        row = {"rater": "ann", "task": "rate", "document": document, "item": sheets.key(document, summary), "fluency": mark}
        sheets.append(path, row)
    text = path.read_bytes().decode("utf-8")
    assert not any(begins_a_formula(cell) for line in csv.reader(io.StringIO(text)) for cell in line)
    read = sheets.parse(path)
    assert [(row.item, row.scores["fluency"]) for row in read.rows] == [(sheets.key(d, s), int(mark)) for d, s, mark in answers]


@given(st.binary(max_size=60) | wild_texts.map(lambda t: t.encode("utf-8", "surrogatepass")), st.booleans())
@settings(max_examples=200)
def test_any_bytes_in_a_raters_sheet_are_rows_or_one_sentence(folder, content, headed):
    path = folder / "ann.csv"
    path.write_bytes((",".join(sheets.COLUMNS) + "\n").encode() * headed + content)
    try:
        sheets.parse(path)
    except sheets.LabError as error:
        assert "ann.csv" in str(error) and len(str(error).splitlines()) == 1


@given(wild_texts)
@settings(max_examples=100)
@example("con.txt")
@example("\u2025" * 70)
def test_any_name_of_a_file_is_one_that_every_system_takes_or_one_sentence(name):
    try:
        safe = files.safe_name(name)
    except files.LabError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert len(safe) <= 61 and re.fullmatch(r"[\w.@-]+", safe) and not safe.startswith(("-", ".")) and not files.DEVICE.match(safe)
    safe.encode("utf-8")
