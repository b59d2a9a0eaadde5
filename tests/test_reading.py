import io
import json
import random
import shutil
import stat
import struct
import time
import zipfile
import zlib

import pytest
from submitted import ROWS, code, record, run_directory, write_method, write_notebook

from lab_utils.errors import LabError
from lab_utils.submissions import structure, unpacking
from lab_utils.submissions.packing import pack
from lab_utils.submissions.reading import MOST, read, read_all

RUN = "lora/run.json"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "runs" / "week-1"
    folder.mkdir(parents=True)
    write_notebook(folder, "03_lora", code("check.merge(mine)"))
    return run_directory(folder)


@pytest.fixture
def honest(run_dir):
    return pack(run_dir).path


def text_of(value):
    return value if isinstance(value, bytes | str) else json.dumps(value)


def zip_of(path, files, **kwargs):
    """A zip of name (or ZipInfo) and content, in order, names as they are."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, text_of(content), **kwargs)
    return path


def good(**changes):
    return (RUN, record("lora", **changes))


def read_zip(tmp_path, *files):
    return read(zip_of(tmp_path / "x.zip", files))


def problem(submission, *words):
    """The one problem with these words in it."""
    found = [each for each in submission.problems if all(word in each for word in words)]
    assert len(found) == 1, submission.problems
    assert found[0].endswith(".") and "\n" not in found[0]
    return found[0]


# --- what was packed comes back


def test_what_was_packed_comes_back(run_dir, honest):
    found = read(honest)
    assert (found.name, found.student, found.assignment, found.problems) == ("week-1-anna.zip", "anna", "week-1", [])
    assert found.records == {"zero_shot": record("zero_shot"), "lora": record("lora")}
    assert found.predictions == {"zero_shot": ROWS, "lora": ROWS}
    assert found.exercises == {"lora_forward": {"state": "passed", "tries": 2}, "merge": {"state": "almost", "tries": 1}}
    assert found.answers == {"merge": "check.merge(mine)"}
    assert found.notebooks["03_lora"]["cells"][0]["source"] == "check.merge(mine)"
    assert found.ratings == {"anna.csv": "rater,task\nanna,rate\n"}
    assert found.megabytes == honest.stat().st_size / 1e6 and found.packed


def test_an_unpacked_submission_reads_like_the_zip(honest, tmp_path):
    with zipfile.ZipFile(honest) as archive:
        archive.extractall(tmp_path / "out" / "wrapped")
    for folder in (tmp_path / "out", tmp_path / "out" / "wrapped"):
        found, packed = read(folder), read(honest)
        assert found.problems == []
        for name in ("student", "assignment", "packed", "records", "predictions", "exercises", "answers", "notebooks", "ratings"):
            assert getattr(found, name) == getattr(packed, name)


def test_a_run_directory_reads_without_being_packed(run_dir):
    (run_dir / "lora" / "adapter").mkdir()
    (run_dir / "lora" / "adapter" / "adapter_model.safetensors").write_bytes(b"x" * 1000)
    found = read(run_dir)
    assert (found.student, found.assignment, found.packed, found.problems) == ("anna", "week-1", None, [])
    assert found.answers == {"merge": "check.merge(mine)"} and set(found.notebooks) == {"03_lora"}


def test_one_folder_around_and_what_systems_leave_behind_are_no_problem(honest, tmp_path):
    with zipfile.ZipFile(honest) as archive:
        files = [(f"week 1/{name}", archive.read(name)) for name in archive.namelist()]
    junk = ["__MACOSX/week 1/._submission.json", "week 1/.DS_Store", "week 1/lora/desktop.ini", ".DS_Store", "week 1/Thumbs.db"]
    found = read(zip_of(tmp_path / "again.zip", [*files, *((name, b"\0\1\2") for name in junk)]))
    assert found.problems == [] and set(found.records) == {"zero_shot", "lora"}


def test_two_folders_around_are_too_many(tmp_path):
    assert "holds nothing" in problem(read_zip(tmp_path, ("a/b/" + RUN, record())))


# --- a changed submission


@pytest.mark.parametrize(
    ("name", "said"),
    [("lora/run.json", "run.json of lora"), ("exercises/03_lora.json", "03_lora.json"), ("lora/log.csv", "log.csv of lora")],
)
def test_a_file_that_was_edited_added_or_removed_after_packing_is_named(honest, tmp_path, name, said):
    with zipfile.ZipFile(honest) as archive:
        files = {each: archive.read(each) for each in archive.namelist()}
    edited = files | {name: files[name].replace(b"1", b"2")}
    assert problem(read(zip_of(tmp_path / "edited.zip", edited.items())), "changed") == f"{said} was changed after it was packed."
    gone = {each: content for each, content in files.items() if each != name}
    assert problem(read(zip_of(tmp_path / "gone.zip", gone.items())), "packed") == f"{said} is missing, though it was packed."
    about = json.loads(files["submission.json"])
    del about["files"][name]
    added = files | {"submission.json": json.dumps(about).encode()}
    assert problem(read(zip_of(tmp_path / "added.zip", added.items())), "packed") == f"{said} was added after it was packed."


def test_a_zip_that_the_lab_did_not_make_is_named(tmp_path):
    found = read_zip(tmp_path, good())
    assert "submission.json is missing" in problem(found) and found.student == "anna" and "lora" in found.records


@pytest.mark.parametrize(
    "about",
    ["", "{", "[]", "null", 3, {"student": ["a"]}, {"student": "a", "files": [1]}, {"student": "a", "files": {"a": 1}}, {"files": {}}],
)
def test_a_broken_submission_json_is_a_problem_and_the_records_tell_the_student(tmp_path, about):
    found = read_zip(tmp_path, ("submission.json", about), good())
    assert found.student == "anna" and found.records and problem(found, "submission.json")


def test_without_any_id_the_name_of_the_file_stands_in(tmp_path):
    path = zip_of(tmp_path / "Ben Müller.ZIP", [good(student=None)])
    assert read(path).student == "Ben Müller"


# --- hostile zips


def entry(name, **fields):
    info = zipfile.ZipInfo("x")
    info.filename = name  # as it is: the constructor would clean it
    info.compress_type = zipfile.ZIP_DEFLATED
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "/lora/run.json",
        "../lora/run.json",
        "lora/../../run.json",
        "lora/../lora/run.json",
        "..",
        "lora\\run.json",
        "..\\..\\lora\\run.json",
        "C:/lora/run.json",
        "c:run.json",
        "\\\\server\\share\\run.json",
        "lora/NUL",
        "con.json",
        "lora/aux.run.json",
        "COM1/run.json",
        "lora/run\n.json",
        "lora/\x1b[31mrun.json",
        "lora/run.json\x00.txt",
        "lora.zip",
        "lora/inner.tar.gz",
        "more.7Z",
    ],
)
def test_an_entry_with_a_hostile_name_is_named_and_the_rest_is_read(tmp_path, name):
    found = read_zip(tmp_path, ("submission.json", {"student": "anna"}), (entry(name), b"{}"), good())
    told = problem(found, "Left out")
    assert "\x1b" not in told and "\x00" not in told
    assert found.records == {"lora": record()}


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_devices_in_a_zip_are_not_followed(tmp_path, kind):
    found = read_zip(tmp_path, (entry(RUN, external_attr=(kind | 0o777) << 16, create_system=3), json.dumps(record())))
    assert found.records == {} and problem(found, "Left out", "run.json")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", [RUN, "LORA/run.json", "lora/RUN.json"])
def test_a_file_that_is_there_twice_is_not_read_at_all(tmp_path, second):
    found = read_zip(tmp_path, good(), (second, record(status="failed")), ("zero_shot/run.json", record("zero_shot")))
    assert set(found.records) == {"zero_shot"}
    problem(found, "more than once" if second == RUN else "capitals", "run.json")


def with_flags(path, flag):
    """The same zip with a flag set in the local header and the table of contents of its first entry."""
    raw = bytearray(path.read_bytes())
    for signature, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = raw.index(signature) + place
        raw[at : at + 2] = struct.pack("<H", struct.unpack("<H", raw[at : at + 2])[0] | flag)
    path.write_bytes(raw)
    return path


def test_a_locked_entry_is_named(tmp_path):
    path = with_flags(zip_of(tmp_path / "x.zip", [good(), ("zero_shot/run.json", record("zero_shot"))]), 1)
    found = read(path)
    assert set(found.records) == {"zero_shot"} and problem(found, "password", "lora/run.json")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_only_the_two_usual_ways_of_packing_are_read(tmp_path, method):
    found = read_zip(tmp_path, (entry(RUN, compress_type=method), json.dumps(record())))
    assert found.records == {} and problem(found, "method")


def test_a_bomb_that_says_so_is_not_opened(tmp_path):
    found = read_zip(tmp_path, (RUN, b"0" * (unpacking.LARGEST + 1)))
    assert found.records == {} and "20 MB" in problem(found)


def with_sizes(path, size):
    """The same zip with other uncompressed sizes."""
    raw = bytearray(path.read_bytes())
    for signature, place in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        at = raw.index(signature) + place
        raw[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(raw)
    return path


def test_a_bomb_that_lies_about_its_size_is_stopped(tmp_path):
    path = with_sizes(zip_of(tmp_path / "x.zip", [(RUN, b"0" * 30_000_000)]), 1000)
    found = read(path)
    assert found.records == {} and "CRC" in problem(found, "run.json of lora")


@pytest.mark.parametrize("size", [0, 0xFFFFFFFE, 0xFFFFFFFF])
def test_other_lies_about_sizes_are_problems(tmp_path, size):
    found = read(with_sizes(zip_of(tmp_path / "x.zip", [good()]), size))
    assert found.records == {} and found.problems


def test_many_files_are_too_large_together(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "TOTAL", 100_000)
    files = [(f"ratings/{number:03d}.csv", b"0" * 1000) for number in range(200)]
    found = read_zip(tmp_path, *files)
    assert len(found.ratings) == 100 and problem(found, "together")


def test_a_zip_larger_than_any_submission_is_not_read(tmp_path, monkeypatch):
    path = zip_of(tmp_path / "x.zip", [good()])
    monkeypatch.setattr(unpacking, "TOTAL", 100)
    assert read(path).records == {} and problem(read(path), "is not read")


def test_a_zip_with_too_many_entries_is_not_read(tmp_path):
    found = read_zip(tmp_path, good(), *((f"ratings/{number}.csv", b"") for number in range(unpacking.MEMBERS)))
    assert found.records == {} and "entries" in problem(found)


def test_a_table_of_contents_that_is_too_large_is_not_read(tmp_path):
    count = 25_000
    path = zip_of(tmp_path / "x.zip", [(f"{number:060d}", b"") for number in range(count)])
    start = time.perf_counter()
    found = read(path)
    assert found.problems and time.perf_counter() - start < 1


def overlapping(path):
    """Two entries that share one compressed content, as in bombs without nesting."""
    zip_of(path, [good(), ("zero_shot/run.json", record("zero_shot"))])
    raw = bytearray(path.read_bytes())
    second = raw.index(b"PK\1\2", raw.index(b"PK\1\2") + 4)
    raw[second + 42 : second + 46] = struct.pack("<I", 0)  # where the second's header lies: at the first's
    path.write_bytes(raw)
    return path


def test_entries_that_overlap_are_not_read(tmp_path):
    found = read(overlapping(tmp_path / "x.zip"))
    assert found.records == {} and problem(found, "overlap")


def test_a_wrong_checksum_is_named(tmp_path):
    path = zip_of(tmp_path / "x.zip", [good(), ("zero_shot/run.json", record("zero_shot"))])
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\1\2") + 16
    raw[at] ^= 0xFF
    path.write_bytes(raw)
    found = read(path)
    assert set(found.records) == {"zero_shot"} and "CRC" in problem(found, "run.json of lora")


def test_sizes_of_64_bits_that_lie_are_problems(tmp_path):
    """Sizes of 4 bytes say 'see the extra field', which names an absurd size, or is cut off."""
    for extra in (struct.pack("<HHQQ", 1, 16, 2**62, 2**62), struct.pack("<HHQ", 1, 16, 5), struct.pack("<HH", 1, 0)):
        block = io.BytesIO()
        content = zlib.compress(b"{}")[2:-4]
        block.write(struct.pack("<4s5H3L2H", b"PK\3\4", 45, 0, 8, 0, 33, zlib.crc32(b"{}"), len(content), 2, len(RUN), 0))
        block.write(RUN.encode() + content)
        start = block.tell()
        sizes = (0xFFFFFFFF, 0xFFFFFFFF)
        head = struct.pack("<4s6H3L5H2L", b"PK\1\2", 45, 45, 0, 8, 0, 33, zlib.crc32(b"{}"), *sizes, len(RUN), len(extra), 0, 0, 0, 0, 0)
        block.write(head + RUN.encode() + extra)
        block.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, block.tell() - start, start, 0))
        (tmp_path / "x.zip").write_bytes(block.getvalue())
        found = read(tmp_path / "x.zip")
        assert found.records == {} and found.problems


@pytest.mark.parametrize("raw", [b"", b"PK", b"no zip", b"Rar!\x1a\x07", b"PK\5\6" + bytes(18), b"%PDF-1.7", bytes(1000)])
def test_what_is_no_zip_or_an_empty_one_is_a_problem(tmp_path, raw):
    (tmp_path / "ben.zip").write_bytes(raw)
    found = read(tmp_path / "ben.zip")
    assert found.student == "ben" and len(found.problems) == 1


def test_a_zip_cut_off_anywhere_is_a_problem(honest, tmp_path):
    raw = honest.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.99):
        (tmp_path / "cut.zip").write_bytes(raw[: int(len(raw) * share)])
        found = read(tmp_path / "cut.zip")
        assert found.problems and not found.records


def test_a_zip_with_any_bytes_changed_is_read_as_it_was_or_named(honest, tmp_path):
    raw, dice, whole = honest.read_bytes(), random.Random(0), read(honest)
    for _ in range(150):
        changed = bytearray(raw)
        for _ in range(dice.choice([1, 3, 20])):
            at = dice.randrange(len(raw)) if dice.random() < 0.5 else len(raw) - 1 - dice.randrange(1000)
            changed[at] = dice.randrange(256)
        (tmp_path / "x.zip").write_bytes(changed)
        found = read(tmp_path / "x.zip")
        assert found.problems or (found.records, found.predictions) == (whole.records, whole.predictions)


def test_nothing_is_written_while_reading(tmp_path):
    path = zip_of(tmp_path / "x.zip", [(entry("../out.txt"), b"x"), (entry("/out.txt"), b"x"), good()])
    before = sorted(tmp_path.rglob("*"))
    read(path)
    assert sorted(tmp_path.rglob("*")) == before


# --- folders


def test_links_out_of_a_folder_are_named_and_not_followed(run_dir, tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(record("full")), encoding="utf-8")
    (run_dir / "full").mkdir()
    (run_dir / "full" / "run.json").symlink_to(secret)
    found = read(run_dir)
    assert "full" not in found.records and problem(found, "link", "full/run.json")


@pytest.mark.parametrize("name", ["nothing.zip", "nothing"])
def test_a_place_with_nothing_is_a_problem_for_read(tmp_path, name):
    assert len(read(tmp_path / name).problems) == 1


def test_an_empty_folder_and_one_of_other_things_are_problems(tmp_path):
    (tmp_path / "empty").mkdir()
    assert problem(read(tmp_path / "empty"), "holds nothing")


# --- encodings and JSON


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_files_that_editors_saved_again_are_read(tmp_path, encoding):
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    files = [(RUN, record(recipe="Grüße")), ("ratings/a.csv", "Ü\r\n"), ("lora/predictions.jsonl", "\r\n".join(map(json.dumps, ROWS)))]
    found = read_zip(tmp_path, *((name, (mark + text_of(content)).encode(encoding)) for name, content in files))
    assert found.records["lora"]["recipe"] == "Grüße" and found.predictions["lora"] == ROWS and found.ratings == {"a.csv": "Ü\r\n"}


@pytest.mark.parametrize("raw", [b"\xff", "Ü".encode("latin-1"), "a".encode("utf-32"), b"\xff\xfea", bytes(range(128, 256))])
def test_other_bytes_are_a_problem(tmp_path, raw):
    for name in (RUN, "ratings/a.csv", "lora/predictions.jsonl"):
        problem(read_zip(tmp_path, (name, raw)), "UTF-8")


NESTED = "[" * 100_000
BAD_JSON = ["", "{", "nul", NESTED, NESTED + "]" * 100_000, '{"a":' * 500 + "1" + "}" * 500, "{'a': 1}", '{"a": 1} {}', "\0", '{"a": "\n"}']


@pytest.mark.parametrize("name", [RUN, "lora/predictions.jsonl", "exercises/03_lora.json", "notebooks/03_lora.ipynb", "answers.json"])
@pytest.mark.parametrize("text", [*BAD_JSON, "null", "[]", "3", '"a"', "true", "[1]", '{"cells": 3}', '{"a": 1}', '{"a": [{}]}'])
def test_what_is_not_the_json_that_was_expected_is_a_problem(tmp_path, name, text):
    found = read_zip(tmp_path, ("submission.json", {"student": "anna"}), (name, text))
    assert not (found.records or found.predictions or found.notebooks or found.answers or found.exercises)
    assert any(name.rpartition("/")[2] in each for each in found.problems)


def test_numbers_that_are_none_or_beyond_use_become_none_and_are_named():
    text = '{"a": NaN, "b": -Infinity, "c": 1e999, "d": 1' + "0" * 400 + ', "e": 1.5, "f": -12, "g": [1' + "0" * 9000 + "]}"
    value, odd = structure.loaded(text)
    assert value == {"a": None, "b": None, "c": None, "d": None, "e": 1.5, "f": -12, "g": [None]}
    assert any("NaN" in each for each in odd) and all(len(each) < 80 for each in odd)


def test_a_name_that_is_given_twice_is_named_and_the_last_counts(tmp_path):
    text = json.dumps(record())[:-1] + ', "seed": 7}'
    found = read_zip(tmp_path, (RUN, text))
    assert found.records["lora"]["seed"] == 7 and problem(found, "same name twice")


def test_half_characters_are_replaced_so_that_texts_can_be_written(tmp_path):
    found = read_zip(tmp_path, (RUN, json.dumps(record(student="an\ud800na", recipe="🎈"))))
    assert (found.student, found.records["lora"]["recipe"]) == ("an?na", "🎈")
    assert problem(found, "half a character")


# --- records


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("status",), "done"), (("status",), None), (("method",), "full"), (("method",), 3), (("student",), ["a"]), (("started",), 5),
        (("config",), None), (("config", "recipe"), "x"), (("config", "recipe", "prompt"), None), (("config", "recipe", "lengths"), {}),
        (("data",), []), (("data", "fingerprint"), 5), (("data", "test"), "60"), (("data", "test"), True), (("data", "test"), -1),
        (("model", "fingerprint"), None), (("training",), None), (("training", "seconds"), "1"), (("generation", "stopped_share"), None),
        (("metrics",), {}), (("metrics", "n"), 6.5), (("metrics", "rouge1"), 30), (("metrics", "rouge1", "mean"), "30"),
        (("metrics", "rouge1", "mean"), float("nan")), (("metrics", "rougeLsum", "high"), None), (("environment",), "x"),
    ],
)  # fmt: skip
def test_a_finished_record_with_a_wrong_type_anywhere_is_left_out_and_the_place_named(tmp_path, place, value):
    changed = record()
    inside = changed
    for name in place[:-1]:
        inside = inside[name]
    inside[place[-1]] = value
    found = read_zip(tmp_path, ("submission.json", {"student": "b"}), (RUN, changed), ("zero_shot/run.json", record("zero_shot")))
    assert set(found.records) == {"zero_shot"} and problem(found, "run.json of lora", "cannot be used", place[-1])


def test_a_finished_record_that_lacks_anything_is_left_out(tmp_path):
    for name in ("status", "method", "config", "data", "model", "training", "generation", "metrics", "environment", "seed"):
        lacking = {key: value for key, value in record().items() if key != name}
        assert read_zip(tmp_path, (RUN, lacking)).records == {}, name


def test_a_record_of_a_run_that_did_not_finish_needs_no_more_than_its_status(tmp_path):
    found = read_zip(
        tmp_path, (RUN, {"status": "failed", "method": "lora", "error": "x"}), ("full/run.json", {"status": "stopped", "method": "full"})
    )
    assert set(found.records) == {"lora", "full"}


def test_all_records_that_the_lab_keeps_are_accepted():
    for method in ("zero_shot", "full", "lora", "qlora"):
        assert structure.record_problems(record(method), method) == []


# --- predictions, exercises, answers


@pytest.mark.parametrize(
    "change",
    [
        {"id": 1}, {"id": None}, {"prediction": None}, {"prediction": ["a"]}, {"references": []}, {"references": "a"}, {"references": [1]},
        {"tokens": "4"}, {"tokens": -1}, {"tokens": 1.5}, {"tokens": True}, {"stopped": 1}, {"stopped": "true"},
    ],
)  # fmt: skip
def test_a_method_with_one_bad_prediction_is_left_out_and_the_line_named(tmp_path, change):
    rows = "\n".join(json.dumps(row) for row in [ROWS[0], ROWS[1] | change])
    found = read_zip(tmp_path, ("lora/predictions.jsonl", rows), ("full/predictions.jsonl", json.dumps(ROWS[0])))
    assert set(found.predictions) == {"full"} and problem(found, "predictions.jsonl of lora, line 2", next(iter(change)))


def test_line_separators_inside_a_summary_end_no_line_and_other_names_are_dropped(tmp_path):
    row = ROWS[0] | {"prediction": "a\u2028b\x85c", "more": 1}
    found = read_zip(tmp_path, ("lora/predictions.jsonl", json.dumps(row, ensure_ascii=False) + "\n\n"))
    assert found.predictions == {"lora": [ROWS[0] | {"prediction": "a\u2028b\x85c"}]}


def test_states_that_no_check_gives_are_dropped_and_named(tmp_path):
    notes = {
        "merge": {"state": "passed", "tries": 1},
        "rouge1": {"state": "perfect", "tries": 1},
        "int4": {"state": "almost", "tries": -1},
        "base_gb": "passed",
        "<b>x</b>": {"state": "passed"},
        "break_even": {"state": "not attempted"},
    }
    found = read_zip(tmp_path, ("exercises/03_lora.json", notes))
    assert found.exercises == {"merge": {"state": "passed", "tries": 1}, "break_even": {"state": "not attempted", "tries": 0}}
    for name in ("rouge1", "int4", "base_gb", "<b>x</b>"):
        assert problem(found, f"'{name}'")


def test_answers_without_code_are_dropped(tmp_path):
    found = read_zip(tmp_path, ("answers.json", {"merge": {"code": "x"}, "int4": {"code": 3}, "base_gb": []}))
    assert found.answers == {"merge": "x"}


def test_problems_beyond_counting_are_counted(tmp_path):
    found = read_zip(tmp_path, ("exercises/03_lora.json", {f"x{number}": 1 for number in range(1000)}))
    assert len(found.problems) == MOST + 1 and "problems more" in found.problems[-1]


# --- a class


def submission(path, student):
    path.parent.mkdir(parents=True, exist_ok=True)
    return zip_of(path, [("submission.json", {"student": student}), good(student=student)])


def students(found):
    return [each.student for each in found]


def test_a_folder_of_zips_and_folders_is_a_class(tmp_path, run_dir):
    submission(tmp_path / "class" / "ben.zip", "ben")
    submission(tmp_path / "class" / "cem.ZIP", "cem")
    shutil.copytree(run_dir, tmp_path / "class" / "anna")
    (tmp_path / "class" / "notes.txt").write_text("x")
    (tmp_path / "class" / "__MACOSX").mkdir()
    assert students(read_all([tmp_path / "class"])) == ["anna", "ben", "cem"]


def test_what_learning_platforms_export_is_read(tmp_path):
    moodle = tmp_path / "moodle"
    submission(moodle / "Anna Alt_101_assignsubmission_file_" / "x.zip", "anna")
    (moodle / "Ben Alt_102_assignsubmission_file_").mkdir()
    (moodle / "Ben Alt_102_assignsubmission_file_" / "x.zip").write_bytes(b"broken")
    (moodle / "Cem Alt_103_assignsubmission_file_").mkdir()
    (moodle / "Cem Alt_103_assignsubmission_file_" / "x.rar").write_bytes(b"Rar!")
    found = read_all([moodle])
    assert students(found) == ["anna", "Ben Alt", "Cem Alt"]
    assert [bool(each.records) for each in found] == [True, False, False] and all(each.problems for each in found[1:])
    submission(tmp_path / "canvas" / "altanna_123_456_week-1.zip", "anna")
    assert students(read_all([tmp_path / "canvas"])) == ["anna"]


def test_every_submission_is_read_once(tmp_path):
    path = submission(tmp_path / "class" / "ben.zip", "ben")
    assert len(read_all([path, tmp_path / "class", str(path)])) == 1


@pytest.mark.parametrize("name", ["nowhere", "nowhere.zip", "empty"])
def test_a_path_without_a_submission_is_the_instructors_mistake(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(LabError) as caught:
        read_all([tmp_path / name])
    assert name in str(caught.value) and str(caught.value).endswith(".")


def test_a_broken_file_does_not_stop_the_class(tmp_path):
    submission(tmp_path / "class" / "a.zip", "anna")
    (tmp_path / "class" / "b.zip").write_bytes(b"broken")
    write_method(tmp_path / "class" / "c", student="cem")
    assert students(read_all([tmp_path / "class"])) == ["anna", "b", "cem"]
