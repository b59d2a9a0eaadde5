import errno
import hashlib
import json
import os
import zipfile
from datetime import datetime
from pathlib import Path

import pytest
from submitted import ROWS, code, markdown, notebook, printed, record, run_directory, write_method, write_notebook

import lab_utils
from lab_utils.config import METHODS
from lab_utils.errors import LabError
from lab_utils.submissions import answers, layout
from lab_utils.submissions.packing import pack

TOKEN = "hf_" + "NobodyMayReadThisToken"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A current folder without notebooks."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "runs" / "week-1"
    folder.mkdir(parents=True)
    return run_directory(folder)


def contents(packed):
    with zipfile.ZipFile(packed.path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def in_json(packed, name):
    return json.loads(contents(packed)[name])


def one_sentence(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text and text.endswith("."), text
    return text


# --- what is in it


def test_a_submission_lies_beside_the_run_and_is_named_by_assignment_and_student(run_dir):
    packed = pack(run_dir)
    assert packed.path == run_dir.parent / "week-1-anna.zip"
    assert packed.megabytes == packed.path.stat().st_size / 1e6


def test_it_holds_records_predictions_logs_exercises_and_ratings(run_dir):
    packed = contents(pack(run_dir))
    method = [f"{m}/{name}" for m in ("zero_shot", "lora") for name in layout.FILES_OF_A_METHOD if (run_dir / m / name).exists()]
    assert list(packed) == ["submission.json", *method, "exercises/03_lora.json", "ratings/anna.csv"]
    for name in packed:
        if name != "submission.json":
            assert packed[name].decode() == (run_dir / name).read_text(encoding="utf-8") or name.endswith("json"), name
    assert json.loads(packed["lora/run.json"]) == record("lora")
    assert [json.loads(line) for line in packed["lora/predictions.jsonl"].decode().splitlines()] == ROWS


def test_it_says_whose_it_is_when_it_was_packed_and_what_each_file_was(run_dir):
    packed = pack(run_dir)
    about = in_json(packed, "submission.json")
    assert (about["schema"], about["student"], about["assignment"], about["lab"]) == (1, "anna", "week-1", lab_utils.__version__)
    assert datetime.fromisoformat(about["packed"]).utcoffset().total_seconds() == 0
    others = {name: content for name, content in contents(packed).items() if name != "submission.json"}
    assert about["files"] == {name: hashlib.sha256(content).hexdigest() for name, content in others.items()}


def test_equal_work_makes_equal_files_in_equal_order(run_dir, tmp_path):
    first, second = (contents(pack(run_dir, out=tmp_path / f"{name}.zip")) for name in "ab")
    assert list(first) == list(second)
    assert {n: c for n, c in first.items() if n != "submission.json"} == {n: c for n, c in second.items() if n != "submission.json"}


def test_weights_reports_and_what_nobody_knows_stay_out(run_dir):
    for name in (
        "lora/adapter/adapter_model.safetensors",
        "full/model/model.safetensors",
        "lora/figures/a.png",
        "report.html",
        "lora/x.json",
    ):
        (run_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (run_dir / name).write_bytes(b"<left out>")
    assert not any(b"<left out>" in content for content in contents(pack(run_dir)).values())


def test_secrets_and_folders_are_taken_out_of_every_file_and_counted(run_dir, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "correct-horse-battery")
    write_method(run_dir, error="in /home/anna/lab/x.py\n/home/anna/y.py", rows=[ROWS[0] | {"prediction": TOKEN}])
    (run_dir / "lora" / "log.csv").write_text("step\ncorrect-horse-battery\n", encoding="utf-8")
    (run_dir / "ratings" / "anna.csv").write_text('rater\n"C:\\Users\\anna\\x.py"\n', encoding="utf-8")
    write_notebook(run_dir, "03_lora", code("check.merge(mine)  # /home/anna/z.py", printed(TOKEN)))
    packed = pack(run_dir)
    text = b"".join(contents(packed).values()).decode()
    assert "Nobody" not in text and "battery" not in text and "/home" not in text and "Users" not in text
    assert in_json(packed, "lora/run.json")["error"] == "in x.py\ny.py"
    assert packed.removed == 7 and "7 secrets and folders" in str(packed)


def test_an_unfinished_record_goes_along_and_is_named_with_its_reason(run_dir):
    write_method(run_dir, "full", status="failed", error="TrainingDiverged: the loss became nan")
    write_method(run_dir, "qlora", status="stopped")
    (run_dir / "full" / "run.json").write_text('{"status": "failed", "error": "TrainingDiverged"', encoding="utf-8")
    packed = pack(run_dir)
    assert contents(packed)["full/run.json"].decode().startswith('{"status": "failed"')
    assert any("full/run.json is no record" in sentence for sentence in packed.missing)
    assert any(sentence.startswith("qlora is stopped") for sentence in packed.missing)


def test_missing_records_predictions_and_notebooks_are_named(run_dir):
    (run_dir / "lora" / "predictions.jsonl").unlink()
    missing = " ".join(pack(run_dir).missing)
    for expected in (
        "lora has no predictions",
        "Notebook 03_lora is",
        "Notebook 05_evaluation is",
    ):
        assert expected in missing
    assert "Notebook 02" not in missing and "no record of lora" not in missing


def test_of_an_assignment_that_is_known_here_every_run_is_missed(run_dir):
    missing = " ".join(pack(run_dir, assignment="first-week").missing)
    assert "no record of full" in missing and "no record of qlora" not in missing


def test_nothing_is_said_to_be_missing_of_a_whole_course(run_dir):
    for method in METHODS:
        write_method(run_dir, method)
    for name in ("01_zero_shot_baseline", "02_full_fine_tuning", "03_lora", "04_qlora", "05_evaluation"):
        write_notebook(run_dir, name)
    assert pack(run_dir).missing == []


def test_what_the_assignment_does_not_hand_out_is_not_missed(run_dir, tmp_path):
    (run_dir / "lora" / "run.json").unlink()
    from lab_utils import assignments

    handed_out = {notebook.method for notebook in assignments.load("first-week").notebooks}
    missing = " ".join(pack(run_dir, assignment="first-week").missing)
    for method in METHODS[1:]:
        assert (f"no record of {method}" in missing) == (method in handed_out)


# --- whose it is


def test_a_student_may_be_given_where_the_records_name_none(run_dir):
    for method in ("zero_shot", "lora"):
        write_method(run_dir, method, student=None, assignment=None)
    packed = pack(run_dir, student=" Anna Müller/7 ")
    assert packed.path.name == "submission-Anna-Müller-7.zip"
    about = in_json(packed, "submission.json")
    assert (about["student"], about["assignment"]) == ("Anna Müller/7", None)


def test_without_a_student_it_says_how_to_give_one(run_dir):
    for method in ("zero_shot", "lora"):
        write_method(run_dir, method, student=None)
    with pytest.raises(LabError) as caught:
        pack(run_dir)
    assert "--student" in one_sentence(caught)


def test_records_of_two_students_are_refused_and_named(run_dir):
    write_method(run_dir, "full", student="ben")
    with pytest.raises(LabError) as caught:
        pack(run_dir, student="anna")
    assert "ben" in one_sentence(caught) and "anna" in str(caught.value)


def test_an_id_counts_in_any_case_and_may_be_a_number(run_dir):
    write_method(run_dir, "full", student="Anna")
    pack(run_dir)
    for method in ("zero_shot", "lora", "full"):
        write_method(run_dir, method, student=12345)
    assert pack(run_dir).path.name == "week-1-12345.zip"


def test_another_student_than_the_records_name_is_told(run_dir):
    packed = pack(run_dir, student="ben")
    assert packed.path.name == "week-1-ben.zip"
    assert any("'anna'" in sentence and "'ben'" in sentence for sentence in packed.missing)


@pytest.mark.parametrize("student", ["../..", "***", "...", "/"])
def test_an_id_that_makes_no_file_name_is_refused(run_dir, student):
    with pytest.raises(LabError) as caught:
        pack(run_dir, student=student)
    one_sentence(caught)


@pytest.mark.parametrize("student", ["../../anna", "a/b", "C:\\x", "<b>anna</b>", "anna\n\x1b[31m", "x" * 500, "日本", "\ud800a"])
def test_every_other_id_makes_a_file_beside_the_run(run_dir, student):
    packed = pack(run_dir, student=student)
    assert packed.path.parent == run_dir.parent and packed.path.is_file() and len(packed.path.name) < 80


@pytest.mark.parametrize("assignment", ["week-2", "notebooks/assignments/week-2.yaml", Path("x") / "week-2.yml"])
def test_an_assignment_goes_by_its_name_or_file(run_dir, assignment):
    assert pack(run_dir, assignment=assignment).path.name == "week-2-anna.zip"


# --- what cannot be packed


def test_no_folder_and_an_empty_one_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(LabError) as caught:
            pack(folder, "anna")
        assert folder.name in one_sentence(caught)


def test_links_out_of_the_run_directory_are_left_out_and_named(run_dir, tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text("private", encoding="utf-8")
    (run_dir / "ratings" / "link.csv").symlink_to(secret)
    outside = write_method(tmp_path / "other", "full")
    (run_dir / "full").symlink_to(outside)
    packed = pack(run_dir)
    assert not any("full" in name or "link" in name for name in contents(packed))
    assert sum("is a link" in sentence for sentence in packed.missing) == 3


def test_a_run_directory_may_itself_be_a_link(run_dir, tmp_path):
    (tmp_path / "mine").symlink_to(run_dir)
    assert "lora/run.json" in contents(pack(tmp_path / "mine"))


def test_a_file_that_is_too_large_is_left_out_and_named(run_dir, monkeypatch):
    (run_dir / "lora" / "log.csv").write_bytes(b"1,2,3\n" * (layout.LARGEST // 6 + 1))
    packed = pack(run_dir)
    assert "lora/log.csv" not in contents(packed)
    assert any("lora/log.csv" in sentence and "20 MB" in sentence for sentence in packed.missing)


@pytest.mark.parametrize("raw", [b"\xff\x00\xfe", bytes(range(256)), b"\xff\xfe\x00\x00a\x00\x00\x00"])
def test_a_file_that_is_no_text_is_left_out_and_named(run_dir, raw):
    (run_dir / "ratings" / "anna.csv").write_bytes(raw)
    packed = pack(run_dir)
    assert "ratings/anna.csv" not in contents(packed) and any("UTF-8" in sentence for sentence in packed.missing)


def test_text_that_an_editor_on_windows_saved_is_packed_as_utf8(run_dir):
    (run_dir / "ratings" / "anna.csv").write_text("rater,Ü\r\n", encoding="utf-16", newline="")
    assert contents(pack(run_dir))["ratings/anna.csv"].decode() == "rater,Ü\r\n"


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{", "[" * 100_000, '{"student": ["a"], "status": {}}', '{"config": 3, "student": true}']
)
def test_a_record_of_odd_shape_is_no_error(run_dir, text):
    (run_dir / "lora" / "run.json").write_text(text, encoding="utf-8")
    assert pack(run_dir).missing


def test_half_of_a_surrogate_pair_is_packed_as_its_escape(run_dir):
    (run_dir / "lora" / "predictions.jsonl").write_text('{"prediction": "a\\ud83cb"}\n', encoding="utf-8")
    assert json.loads(contents(pack(run_dir))["lora/predictions.jsonl"])["prediction"] == "a\ud83cb"


# --- where it goes


def test_it_goes_into_a_folder_or_a_file(run_dir, tmp_path):
    assert pack(run_dir, out=tmp_path / "to" / "there").path == tmp_path / "to" / "there" / "week-1-anna.zip"
    assert pack(run_dir, out=tmp_path / "mine.zip").path == tmp_path / "mine.zip"


def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(run_dir, monkeypatch):
    before = pack(run_dir).path.read_bytes()

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(LabError) as caught:
        pack(run_dir)
    assert "No space left" in one_sentence(caught)
    assert [path.name for path in run_dir.parent.glob("*.zip")] == ["week-1-anna.zip"]
    assert (run_dir.parent / "week-1-anna.zip").read_bytes() == before


# --- notebooks and answers


def names_of_notebooks(packed):
    return [name.removeprefix("notebooks/") for name in contents(packed) if name.startswith("notebooks/")]


def test_executed_notebooks_of_the_run_directory_come_first(run_dir, tmp_path):
    write_notebook(run_dir, "03_lora", code("1", printed("of the run")))
    write_notebook(tmp_path / "here", "03_lora", code("1", printed("of here")))
    write_notebook(tmp_path / "here" / "notebooks", "05_evaluation", code("1", printed("of here")))
    write_notebook(tmp_path / "here", "04_qlora", code("1", count=None))
    packed = pack(run_dir)
    assert names_of_notebooks(packed) == ["03_lora.ipynb", "05_evaluation.ipynb"]
    assert b"of the run" in contents(packed)["notebooks/03_lora.ipynb"]


def test_notebooks_beside_the_one_that_packs_are_found_and_come_before_those_here(run_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "week 1" / "05_evaluation.ipynb"))
    write_notebook(tmp_path / "week 1", "03_lora", code("1", printed("of the week")))
    write_notebook(tmp_path / "here", "03_lora", code("1", printed("of here")))
    assert b"of the week" in contents(pack(run_dir))["notebooks/03_lora.ipynb"]


def test_of_several_copies_the_last_changed_wins(run_dir, tmp_path):
    for age, name in ((10, "03_lora"), (0, "03_lora (1)"), (5, "Copy of 03_lora")):
        path = write_notebook(tmp_path / "here", name, code("1", printed(f"<{name}>")))
        os.utime(path, (1_700_000_000 - age, 1_700_000_000 - age))
    packed = pack(run_dir)
    assert names_of_notebooks(packed) == ["03_lora.ipynb"] and b"<03_lora (1)>" in contents(packed)["notebooks/03_lora.ipynb"]


def test_a_folder_of_notebooks_may_be_given_and_those_without_outputs_are_named(run_dir, tmp_path):
    write_notebook(run_dir, "05_evaluation")
    write_notebook(tmp_path / "mine", "03_lora", code("check.merge(...)", count=None))
    packed = pack(run_dir, notebooks=tmp_path / "mine")
    assert names_of_notebooks(packed) == ["03_lora.ipynb"]
    assert any("03_lora" in sentence and "without outputs" in sentence for sentence in packed.missing)
    with pytest.raises(LabError, match="--notebooks"):
        pack(run_dir, notebooks=tmp_path / "nowhere")


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"\xff\xff", b"null", b'{"cells": 3}', b'{"cells": [1, {"cell_type": "code"}]}', b"[" * 99_999]
)
def test_a_broken_notebook_is_no_error(run_dir, raw):
    (run_dir / "03_lora.ipynb").write_bytes(raw)
    assert any("03_lora" in sentence for sentence in pack(run_dir).missing)


def test_the_answer_to_an_exercise_is_the_cell_that_calls_its_check(run_dir):
    cells = [
        code("import torch\n"),
        code("def merge(W, A, B):\n    return W\n\n\nverdict = check.merge(merge)\nverdict"),
        markdown("Because it is **linear**.", id="a1b2c3d4"),
        markdown("More.", id="e5"),
        markdown("## The lab's next part", id="cell-17"),
        markdown("A note elsewhere.", id="f6"),
        code("%%time\n!ls\nlab_utils.check.break_even(501)"),
        code("check.nothing_known(1)\ncheck.EXERCISES.get('x')"),
        code("# check.count_lora(1)"),
    ]
    write_notebook(run_dir, "03_lora", *cells)
    found = in_json(pack(run_dir), "answers.json")
    assert set(found) == {"merge", "break_even"}
    assert found["merge"] == {"notebook": "03_lora", "code": cells[1]["source"], "answer": "Because it is **linear**.\n\nMore."}
    assert found["break_even"]["answer"] == ""


@pytest.mark.parametrize(
    "source",
    [
        "%%bash\nls",
        "def f(:\n    ...\ncheck.merge(f)",
        "check.merge(" + "(" * 5000,
        "x = '\x00'\ncheck.merge(x)",
        "r = '\\d'\ncheck.merge(r)",
    ],
)
def test_a_cell_that_is_no_python_is_no_error_and_still_an_answer(source):
    found = answers.of("03_lora", notebook(code(source)))
    assert set(found) == ({"merge"} if "merge" in source else set())


def test_the_last_of_several_answers_counts_and_one_cell_may_answer_two():
    found = answers.of("03_lora", notebook(code("check.merge(1)"), code("check.merge(2); check.break_even(3)")))
    assert found["merge"]["code"] == found["break_even"]["code"] == "check.merge(2); check.break_even(3)"


def test_every_exercise_of_the_course_is_found_in_its_notebook():
    from lab_utils import check, course

    for each in course.NOTEBOOKS:
        path = course.source(each).with_suffix(".ipynb")
        found = answers.of(each.name, json.loads(path.read_text(encoding="utf-8")))
        assert set(found) == {name for name, exercise in check.EXERCISES.items() if exercise.notebook == each.name}
        assert not any(answer["answer"] for answer in found.values())


def test_it_prints_where_it_is_and_what_is_missing_without_a_folder_of_the_machine(run_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, *others = str(pack("runs/week-1")).splitlines()
    assert first.startswith(f"To hand in: {Path('runs') / 'week-1-anna.zip'} (") and str(tmp_path) not in first
    assert others and all(line.startswith("- ") and line.endswith(".") for line in others)
