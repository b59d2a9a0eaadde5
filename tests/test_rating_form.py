"""The terminal form through its pipe, and the widget form by its values and clicks."""

import subprocess
import sys

import pytest
from rating_toys import documents, write_runs

from lab_utils import blind, cli, rating_form, sheets
from lab_utils.errors import LabError

HOSTILE = {
    "escape sequences": "\x1b[2J\x1b]0;title\x07 red \x1b[31m \x9b31m",
    "control characters": "a\x00b\x08c\rd\x7f",
    "lone surrogate": "half \ud83d",
    "direction switches": "abc \u202egnp.exe\u2066",
    "markup": "<img src=x onerror=alert(1)><script>alert(2)</script> $x^2$ &amp;",
    "emoji and Arabic": "\U0001f469\u200d\U0001f680 مرحبا",
    "long line": "word " * 20_000,
    "long word": "w" * 100_000,
    "hyphens": "-" * 100_000,
    "empty": "",
    "blank": " \n\t ",
}


@pytest.fixture
def finished(tmp_path):
    return write_runs(tmp_path, count=2)


def type_in(monkeypatch, capsys, folder, text, rater="anna", texts=None, **options):
    """What the terminal shows when this is typed."""
    from io import StringIO

    monkeypatch.setattr(sys, "stdin", StringIO(text))
    finished = write_runs(folder, count=2) if texts is None else write_runs(folder, count=2, text=lambda method, i: texts)
    shown = documents(finished) if texts is None else dict.fromkeys(documents(finished), texts)
    rating_form.terminal(folder, shown, rater, **options)
    return capsys.readouterr().out


def rows(folder):
    return sheets.parse(sheets.file_of(folder, "anna")).rows


# --- terminal


def test_answers_typed_are_kept_and_the_next_call_goes_on(tmp_path, monkeypatch, capsys):
    out = type_in(monkeypatch, capsys, tmp_path, "1\n2\n3\n4\nwho\nq\n")
    assert "0 of 8" in out and "Stopped." in out
    (row,) = rows(tmp_path)
    assert dict(row.scores) == {"fluency": 1, "faithfulness": 2, "coverage": 3, "conciseness": 4} and row.error == "who"
    assert "1 of 8" in type_in(monkeypatch, capsys, tmp_path, "q\n")
    assert len(rows(tmp_path)) == 1


def test_a_whole_round_ends_with_thanks_and_asks_nothing_again(tmp_path, monkeypatch, capsys):
    document = "4\n4\n4\n4\nnone\n" * 3 + "b\n"
    assert "All 8 items are answered" in type_in(monkeypatch, capsys, tmp_path, document * 2)
    assert [row.task for row in rows(tmp_path)] == ["rate", "rate", "rate", "choose"] * 2
    assert all(row.preferred == row.other for row in rows(tmp_path) if row.task == "choose")
    again = type_in(monkeypatch, capsys, tmp_path, "")
    assert "All 8 items are answered" in again and "fluency" not in again


def test_wrong_input_is_asked_again_in_one_line(tmp_path, monkeypatch, capsys):
    out = type_in(monkeypatch, capsys, tmp_path, "6\n\ngood\n0\n5\n4\n4\n4\nn\nx\nnu\nq\n")
    assert out.count("is none of 1, 2, 3, 4, 5") == 4
    assert out.count("is none of none, who, what, number, invented") == 2  # n may be none or number
    assert rows(tmp_path)[0].error == "number"


def test_a_skipped_item_is_missing_and_half_an_item_is_not_kept(tmp_path, monkeypatch, capsys):
    type_in(monkeypatch, capsys, tmp_path, "4\n4\ns\n3\n3\nq\n")
    (row,) = rows(tmp_path)
    assert row.scores == {} and row.error is None


def test_the_scales_and_the_document_are_shown_on_request(tmp_path, monkeypatch, capsys):
    out = type_in(monkeypatch, capsys, tmp_path, "?\nd\nq\n")
    assert all(meaning in out for meaning in (*sheets.SCALES.values(), *sheets.ERRORS.values()))
    assert out.count("Ann: This is") == 2


def test_no_method_is_named(tmp_path, monkeypatch, capsys):
    from io import StringIO

    finished = write_runs(tmp_path, count=2, text=lambda method, i: f"Summary {len(method)}{i}.")
    monkeypatch.setattr(sys, "stdin", StringIO("4\n4\n4\n4\nnone\n" * 3 + "a\n"))
    rating_form.terminal(tmp_path, dict.fromkeys(documents(finished), "Ann: Hi."), "anna")
    out = capsys.readouterr().out.lower()
    assert "summary" in out and not any(word in out for word in ("zero", "lora", "doc-0", sheets.key("doc-0", "Reference 0.")))


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_reaches_the_terminal_as_plain_text(tmp_path, monkeypatch, capsys, text):
    out = type_in(monkeypatch, capsys, tmp_path, "4\n4\n4\n4\nnone\nq\n", texts=text)
    assert not set(out) & set(map(chr, [*range(9), *range(11, 32), *range(127, 160), 0x202E, 0x2066, 0xD83D]))
    assert len(rows(tmp_path)) == 1
    if not text.strip():
        assert "(empty)" in out


def test_a_wrong_name_is_asked_again_and_the_end_of_input_is_no_error(tmp_path, monkeypatch, capsys):
    out = type_in(monkeypatch, capsys, tmp_path, "../me\nmodel-me\nAnna\n5\n", rater=None)
    assert out.count("Your name") == 3 and "anna: 0 of 8" in out
    assert "The input has ended" in out and not (tmp_path / "ratings").exists()


def command(*words, given=b"", **environment):
    import os

    return subprocess.run(
        [sys.executable, "-m", "lab_utils", "rate", *words], input=given, capture_output=True, timeout=60, env=os.environ | environment
    )


@pytest.fixture
def own_data(tmp_path):
    """A run of the tiny recipe's settings on a data folder, as far as rating needs it."""
    import json

    from lab_utils import config, data

    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "validation", "test"):
        line = {"id": f"doc-{split}", "document": f"Ann: \x1b[31m{split} \U0001f600", "summary": "Ann says so."}
        (folder / f"{split}.jsonl").write_text(json.dumps(line) + "\n")
    settings = config.resolve("tiny-causal", "zero_shot", data_dir=str(folder), train_examples=1, validation_examples=1, test_examples=1)
    run = tmp_path / "run"
    write_runs(run, count=1, ids=lambda i: "doc-test")
    for method in ("zero_shot", "lora"):
        record = json.loads((run / method / "run.json").read_text())
        record |= {
            "config": settings.model_dump() | {"recipe": settings.model_dump()["recipe"] | {"data": {"source": "data"}}},
            "data": {"fingerprint": data.load(settings.recipe.data).fingerprint, "test": 1},
        }
        (run / method / "run.json").write_text(json.dumps(record))
    return run, folder


def test_the_command_rates_through_a_pipe_in_any_encoding(own_data):
    run, folder = own_data
    given = b"4\n\xff\n4\n4\n4\nnone\n" + b"4\n4\n4\n4\ninv\n" * 2 + b"a\n"
    done = command(str(run), "--rater", "Anna", "--data-dir", str(folder), given=given, PYTHONIOENCODING="ascii")
    assert done.returncode == cli.DONE and not done.stderr, done.stderr
    assert b"All 4 items" in done.stdout and b"\x1b" not in done.stdout
    assert len(sheets.read(run).rows) == 4


def test_the_command_says_what_to_do_where_nothing_can_be_typed(own_data):
    run, folder = own_data
    done = command(str(run), "--rater", "anna", "--data-dir", str(folder))
    assert done.returncode == cli.DONE and b"run `lab rate` in a terminal" in done.stdout and not done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "No folder 'nowhere'"),
        (["{run}", "--rater", "a b"], "--data-dir"),
        (["{run}", "--rater", "a b", "--data-dir", "{data}"], "A rater's name"),
        (["{run}", "--rater", "anna", "--data-dir", "{data}", "--items", "0"], "At least one document"),
        (["{run}", "--rater", "anna", "--data-dir", "{data}", "--judge", "tiny-causal"], "not both"),
        (["{run}", "--judge", "tiny-casual", "--data-dir", "{data}"], "did you mean 'tiny-causal'"),
    ],
)
def test_a_mistake_is_one_sentence(own_data, words, said, capsys):
    run, folder = own_data
    assert cli.main(["rate", *(word.format(run=run, data=folder) for word in words)]) == cli.FAILED
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


# --- notebook


def parts(box):
    status, texts, questions, buttons, message = box.children
    return status, texts, questions, dict(zip(("save", "skip"), buttons.children, strict=True)), message


def fill(box, *values):
    for question, value in zip(parts(box)[2].children, values, strict=True):
        question.children[1].value = value


def open_form(folder, finished, **options):
    return rating_form.form(folder, "anna", documents(finished), **options)


@pytest.mark.parametrize("rater", [None, "", "  "])
def test_without_a_rater_the_form_is_one_sentence_and_reads_nothing(tmp_path, rater, capsys):
    assert rating_form.form(tmp_path / "nowhere", rater, None) is None
    out = capsys.readouterr().out
    assert "set rater to your name" in out and out.count("\n") == 1 and str(tmp_path) not in out


def test_an_open_form_that_nobody_clicks_writes_nothing(tmp_path, finished):
    open_form(tmp_path, finished)
    assert not (tmp_path / "ratings").exists()


def test_each_click_keeps_one_answer_and_shows_the_next_task(tmp_path, finished):
    box = open_form(tmp_path, finished)
    before = parts(box)[1].value
    fill(box, "5", "4", "3", "2", "invented")
    parts(box)[3]["save"].click()
    (row,) = rows(tmp_path)
    assert dict(row.scores) == {"fluency": 5, "faithfulness": 4, "coverage": 3, "conciseness": 2} and row.error == "invented"
    status, texts, questions, _, message = parts(box)
    assert "1 of 8" in status.value and texts.value != before and message.value.count("Still") == 0
    assert all(question.children[1].value is None for question in questions.children)


def test_an_unfinished_item_is_not_kept_and_says_what_is_open(tmp_path, finished):
    box = open_form(tmp_path, finished)
    fill(box, "5", None, "3", None, "none")
    parts(box)[3]["save"].click()
    assert "Still open: faithfulness, conciseness" in parts(box)[4].value and not (tmp_path / "ratings").exists()


def test_the_form_goes_through_all_tasks_and_the_terminal_finds_them_done(tmp_path, finished, monkeypatch, capsys):
    box = open_form(tmp_path, finished)
    for _ in range(8):
        fill(box, *(["4"] * 4 + ["none"] if len(parts(box)[2].children) == 5 else ["B"]))
        parts(box)[3]["save"].click()
    assert "8 of 8" in parts(box)[0].value and parts(box)[3]["save"].disabled and parts(box)[3]["skip"].disabled
    parts(box)[3]["save"].click()  # a click that was under way
    assert len(rows(tmp_path)) == 8
    assert "All 8 items" in type_in(monkeypatch, capsys, tmp_path, "")
    assert "8 of 8" in parts(open_form(tmp_path, finished))[0].value


def test_skip_leaves_an_item_missing(tmp_path, finished):
    box = open_form(tmp_path, finished)
    fill(box, "5", "5", "5", "5", "none")
    parts(box)[3]["skip"].click()
    assert rows(tmp_path)[0].scores == {} and "1 of 8" in parts(box)[0].value


def test_a_file_that_cannot_be_written_is_said_in_the_form_and_the_task_stays(tmp_path, finished):
    (tmp_path / "ratings").write_text("in the way")
    box = open_form(tmp_path, finished)
    before = parts(box)[1].value
    fill(box, "5", "5", "5", "5", "none")
    parts(box)[3]["save"].click()
    assert "Cannot write" in parts(box)[4].value and parts(box)[1].value == before


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_shown_and_not_executed(tmp_path, text):
    finished = write_runs(tmp_path, count=1, text=lambda method, i: text)
    box = rating_form.form(tmp_path, "anna", {"doc-0": text + "."})
    for _ in range(2):
        shown = parts(box)[1].value
        shown.encode()  # what goes to the browser must be encodable
        assert "<script" not in shown and "<img" not in shown and "\x1b" not in shown and "\x00" not in shown
        parts(box)[3]["skip"].click()
    assert finished and "2 of 2" in parts(box)[0].value


def test_the_form_uses_plain_html_which_leaves_dollar_signs_alone(tmp_path, finished):
    """HTMLMath would typeset "$5 and $6"."""
    assert {type(part).__name__ for part in open_form(tmp_path, finished).children} == {"HTML", "VBox", "HBox"}


def test_a_name_for_models_cannot_be_taken_by_a_person(tmp_path, finished):
    with pytest.raises(LabError, match="kept for judging models"):
        rating_form.form(tmp_path, "model-x", documents(finished))


def test_form_and_terminal_ask_for_the_same_tasks(tmp_path, finished):
    session = blind.start(tmp_path, finished, documents(finished), "anna")
    assert session.task.document.split("\n")[0] in parts(open_form(tmp_path, finished))[1].value
