"""Human evaluation: blind tasks, files that survive kills and spreadsheets, agreement and what may be said."""

import math
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import combinations

import pytest
from rating_toys import GOOD, answer_all, documents, lines, write_runs

from lab_utils import blind, rating, sheets
from lab_utils.blind import tasks
from lab_utils.errors import LabError

FOUR = ("zero_shot", "full", "lora", "qlora")


def one_sentence(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text and text.endswith("."), text
    return text


@pytest.fixture
def finished(tmp_path):
    return write_runs(tmp_path)


# --- what is shown


def test_each_document_shows_every_system_and_the_hidden_reference_once_and_then_a_pair(tmp_path):
    runs = write_runs(tmp_path, methods=FOUR)
    shown = tasks(runs, documents(runs), "anna", count=3)
    assert [task.kind for task in shown] == (["rate"] * 5 + ["choose"]) * 3
    for i in {task.document_id for task in shown}:
        texts = {task.summary for task in shown if task.document_id == i and task.kind == "rate"}
        number = i.removeprefix("doc-")
        assert texts == {f"Reference {number}."} | {f"{method} on {number}." for method in FOUR}


def test_all_raters_of_a_seed_see_the_same_items_in_another_order(finished):
    anna, ben = (tasks(finished, documents(finished), name, count=5) for name in ("anna", "ben"))
    assert {t.identity for t in anna} == {t.identity for t in ben}
    assert [t.identity for t in anna] != [t.identity for t in ben]
    assert anna == tasks(finished, documents(finished), "anna", count=5)


def test_another_seed_draws_other_documents_and_a_larger_count_keeps_those_drawn(finished):
    def drawn(**options):
        return {t.document_id for t in tasks(finished, documents(finished), "anna", **options)}

    assert drawn(count=4) < drawn(count=6)
    assert len({frozenset(drawn(count=4, seed=seed)) for seed in range(5)}) > 1
    assert len(drawn(count=99)) == 8


def test_pairs_are_of_methods_balanced_and_never_of_the_reference(tmp_path):
    runs = write_runs(tmp_path, count=20, methods=FOUR)
    shown = [t for t in tasks(runs, documents(runs), "anna", count=20) if t.kind == "choose"]
    pairs = Counter(frozenset((t.summary.split()[0], t.other_summary.split()[0])) for t in shown)
    assert set(pairs) == {frozenset(pair) for pair in combinations(FOUR, 2)}
    assert set(pairs.values()) == {3, 4}  # 20 documents, 6 pairs


def test_sides_of_a_pair_are_drawn_for_each_rater(finished):
    first = Counter(t.summary.split()[0] for name in "abcdef" for t in tasks(finished, documents(finished), name) if t.kind == "choose")
    assert first["zero_shot"] + first["lora"] == 48 and 12 < first["lora"] < 36


def test_the_same_words_of_two_systems_are_shown_once_and_never_as_a_pair(tmp_path):
    runs = write_runs(
        tmp_path, methods=("full", "lora"), text=lambda method, i: f"The  same {i}.\n" if method == "full" else f"The same {i}."
    )
    shown = tasks(runs, documents(runs), "anna", count=8)
    assert [t.kind for t in shown] == ["rate"] * 16  # the two are one, and the reference


def test_the_same_words_about_two_documents_are_two_items():
    assert sheets.key("a", "Yes.") != sheets.key("b", "Yes.")


@pytest.mark.parametrize("text", ["", " \n", "\ud800", "\0", "=1+1", "<script>", "x" * 100_000])
def test_every_text_has_a_key_that_no_spreadsheet_takes_for_a_number_or_formula(text):
    assert sheets._KEY.fullmatch(sheets.key("\ud800", text))


def test_runs_on_other_test_sets_and_missing_documents_are_refused(tmp_path, finished):
    finished[1].record["data"]["fingerprint"] = "other"
    with pytest.raises(LabError, match="another test set"):
        tasks(finished, documents(finished), "anna")
    finished[1].record["data"]["fingerprint"] = "d"
    with pytest.raises(LabError, match="1 of 8 documents"):
        tasks(finished, {i: t for i, t in documents(finished).items() if i != "doc-3"}, "anna")
    with pytest.raises(LabError, match="--data-dir"):
        blind.start(tmp_path, finished, None, "anna")
    with pytest.raises(LabError, match="notebook 01"):
        tasks([], {}, "anna")


def test_without_a_run_it_is_runs_that_are_missing_and_not_documents(tmp_path):
    with pytest.raises(LabError, match="No finished run to rate") as caught:
        blind.start(tmp_path, [], {}, "anna")
    one_sentence(caught)


# --- the file


def test_a_file_names_no_system_and_holds_none_of_their_words(tmp_path):
    runs = write_runs(tmp_path, text=lambda method, i: f'=HYPERLINK("http://{method}") {i}', ids=lambda i: f"=cmd|{i}")
    session = answer_all(tmp_path, runs, "anna", lambda task: GOOD if task.kind == "rate" else {"preferred": "A"})
    text = session.path.read_text()
    assert not any(word in text for word in ("zero", "lora", "reference", "HYPERLINK", "Reference", "=", "|", "Ann:"))
    assert text.splitlines()[0] == ",".join(sheets.COLUMNS)
    cells = [cell for line in text.splitlines()[1:] for cell in line.split(",")]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]


def test_nothing_is_written_before_the_first_answer(tmp_path, finished):
    blind.start(tmp_path, finished, documents(finished), "anna")
    assert not (tmp_path / "ratings").exists()


def test_a_session_goes_on_after_the_last_answer(tmp_path, finished):
    first = blind.start(tmp_path, finished, documents(finished), "anna")
    for _ in range(3):
        first.save(**GOOD)
    again = blind.start(tmp_path, finished, documents(finished), "Anna ")
    assert again.progress == (3, 32) and again.task == first.task


def test_what_is_skipped_is_a_missing_answer_and_is_not_asked_again(tmp_path, finished):
    session = blind.start(tmp_path, finished, documents(finished), "anna")
    session.save()
    assert blind.start(tmp_path, finished, documents(finished), "anna").progress[0] == 1
    (row,) = sheets.read(tmp_path).rows
    assert row.scores == {} and row.error is None and row.overall is None


def test_an_answer_that_is_not_offered_is_refused_and_not_written(tmp_path, finished):
    session = blind.start(tmp_path, finished, documents(finished), "anna")
    for wrong in ({"fluency": "6"}, {"fluency": ""}, {"error": "good"}, {"preferred": "A"}, {"colour": "1"}):
        with pytest.raises(LabError, match="is no answer"):
            session.save(**wrong)
    assert not session.path.exists()


@pytest.mark.parametrize("name", ["", "  ", "../up", "a b", "Jürgen", "-x", "x" * 41, "a/b", "a\nb", "=x", "model-x"])
def test_names_that_files_and_spreadsheets_could_mistake_are_refused(name):
    with pytest.raises(LabError) as caught:
        sheets.rater_name(name)
    one_sentence(caught)


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from rating_toys import answer_all, GOOD
from lab_utils import runs
answer_all(Path(sys.argv[1]), runs.read_all(sys.argv[1]), "anna", lambda task: GOOD if task.kind == "rate" else {"preferred": "A"})
"""


def test_killing_the_process_keeps_every_answer_but_the_one_being_written(tmp_path):
    runs = write_runs(tmp_path, count=400)
    process = subprocess.Popen([sys.executable, "-c", KILLED.replace('"anna",', '"anna", count=400, answers='), str(tmp_path)])
    path, deadline = sheets.file_of(tmp_path, "anna"), time.time() + 30
    while time.time() < deadline and not (path.exists() and path.stat().st_size > 3000):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    whole = path.read_text().count("\n") - 1
    session = blind.start(tmp_path, runs, documents(runs), "anna", count=400)
    assert 30 < whole < 1600 and session.progress[0] == whole
    session.save()
    assert len(sheets.read(tmp_path).rows) == whole + 1


def test_a_line_cut_off_at_any_byte_costs_at_most_that_item(tmp_path, finished):
    """Whatever was on the disk when the power failed: the lines before stand, half a line is never taken for an answer."""
    answer_all(tmp_path, finished, "anna", lambda task: GOOD if task.kind == "rate" else {"preferred": "B"}, count=1)
    path = sheets.file_of(tmp_path, "anna")
    raw, rows = path.read_bytes(), sheets.parse(path).rows
    assert [row.task for row in rows] == ["rate"] * 3 + ["choose"]
    starts = [i + 1 for i, byte in enumerate(raw) if byte == 10]
    for cut in range(len(raw)):
        path.write_bytes(raw[:cut])
        found = sheets.parse(path)
        whole = max(0, sum(start <= cut for start in starts) - 1)
        assert found.rows == rows[: len(found.rows)] and whole <= len(found.rows) <= whole + 1
        blind.start(tmp_path, finished, documents(finished), "anna", count=2).save()
        after = sheets.parse(path)
        assert len(after.rows) == len(found.rows) + 1 and after.torn_at is None


def test_half_a_line_is_told_and_asked_again(tmp_path, finished):
    session = blind.start(tmp_path, finished, documents(finished), "anna")
    session.save(**GOOD)
    second = session.task
    with session.path.open("a") as file:
        file.write(f"anna,rate,doc,{second.item},,5,")
    again = blind.start(tmp_path, finished, documents(finished), "anna")
    assert again.task == second and "will be asked again" in again.notes[0]
    assert "cut off" in sheets.read(tmp_path).notes[0]
    again.save(**GOOD)
    assert not sheets.read(tmp_path).notes and session.path.read_text().count("\n") == 3


def test_an_answer_after_the_last_task_is_refused(tmp_path, finished):
    session = answer_all(tmp_path, finished, "anna", lambda task: {}, count=1)
    with pytest.raises(LabError, match="nothing left"):
        session.save(**GOOD)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, finished):
    (tmp_path / "ratings").write_text("in the way")
    session = blind.start(tmp_path, finished, documents(finished), "anna")
    with pytest.raises(LabError, match="nothing of this item is kept") as caught:
        session.save(**GOOD)
    one_sentence(caught)
    assert session.progress[0] == 0


def test_a_file_that_may_not_be_written_is_one_sentence_and_the_item_stays_open(tmp_path, finished, monkeypatch):
    session = blind.start(tmp_path, finished, documents(finished), "anna")
    session.save(**GOOD)
    present, text = session.task, session.path.read_text()

    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(sheets.Path, "open", refuse)
        with pytest.raises(LabError, match="Permission denied"):
            session.save(**GOOD)
    assert session.task == present and session.path.read_text() == text


def saved_by_a_spreadsheet(text: str) -> dict[str, bytes]:
    rows = [line.split(",") for line in text.splitlines()]
    plain = [",".join(row) for row in rows]
    return {
        "byte-order mark and CRLF": b"\xef\xbb\xbf" + "\r\n".join([*plain, ""]).encode(),
        "semicolons": "\r\n".join([*(";".join(row) for row in rows), ""]).encode(),
        "tabs": "\n".join([*("\t".join(row) for row in rows), ""]).encode(),
        "every cell quoted": "\n".join([*(",".join(f'"{cell}"' for cell in row) for row in rows), ""]).encode(),
        "sep line": "\r\n".join(["sep=;", *(";".join(row) for row in rows), ""]).encode(),
        "trailing commas lost": "\n".join([plain[0], *(line.rstrip(",") for line in plain[1:]), ""]).encode(),
        "no last line break": "\n".join(plain).encode(),
        "empty lines": "\n\n".join([*plain, "," * 10, ""]).encode(),
        "old Macintosh": "\r".join([*plain, ""]).encode(),
        "capitals": "\n".join(
            [plain[0].upper(), *(line.replace("none", "None").replace("rate", "Rate") for line in plain[1:]), ""]
        ).encode(),
        "columns moved and a comment": "\n".join(
            [*(",".join([f'"note, {n}"' if n else "comment", *reversed(row)]) for n, row in enumerate(rows)), ""]
        ).encode(),
        "two files joined": "\n".join([*plain[:3], *plain, ""]).encode(),
    }


@pytest.mark.parametrize("how", saved_by_a_spreadsheet("a"))
def test_a_file_saved_again_by_a_spreadsheet_is_read_and_continued(tmp_path, finished, how):
    answer_all(tmp_path, finished, "anna", lambda task: GOOD if task.kind == "rate" else {"preferred": "B"}, count=2)
    path, expected = sheets.file_of(tmp_path, "anna"), set(map(repr, sheets.read(tmp_path).rows))
    path.write_bytes(saved_by_a_spreadsheet(path.read_text())[how])
    found = sheets.read(tmp_path)
    assert set(map(repr, found.rows)) == expected and not found.notes
    session = blind.start(tmp_path, finished, documents(finished), "anna", count=3)
    assert session.progress == (8, 12)
    session.save(**GOOD)
    assert blind.start(tmp_path, finished, documents(finished), "anna", count=3).progress == (9, 12)


HEAD = ",".join(sheets.COLUMNS) + "\n"
A, B = "s" + 12 * "a", "s" + 12 * "b"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (f"anna,rate,d,{A},,6,,,,,\n", "anna.csv, line 2, column fluency: '6'"),
        (f"anna,rate,d,{A},,1,,,,,\nanna,rate,d,{B},,1,good,,,,\n", "line 3, column faithfulness: 'good'"),
        (f"anna,rate,d,{A},,1,2,3,4.5,,\n", "column conciseness: '4.5'"),
        (f"anna,rate,d,{A},,1,2,0,4,,\n", "column coverage: '0'"),
        (f"anna,rate,d,{A},,1,2,-1,4,,\n", "column coverage: '-1'"),
        (f"anna,rate,d,{A},,1,2,٣,4,,\n", "column coverage: '٣'"),
        (f"anna,rate,d,{A},,1,2,3,4,names,\n", "column error: 'names'"),
        (f"anna,judge,d,{A},,1,2,3,4,,\n", "column task: 'judge'"),
        ("anna,rate,d,1.2E+11,,1,2,3,4,,\n", "column item: '1.2E+11'"),
        (f"anna,choose,d,{A},,,,,,,{A}\n", "column other: ''"),
        (f"anna,choose,d,{A},{B},,,,,,A\n", "column preferred: 'A'"),
        (f"anna,choose,d,{A},{B},,,,,,tie\n", "column preferred: 'tie'"),
        (f"An na,rate,d,{A},,1,2,3,4,,\n", "column rater: 'An na'"),
        (f"anna,rate,d,{A},,1,2,3,4,,,,,,\n", "15 cells for 11 columns"),
        (f'anna,rate,d,{A},,1,2,3,4,"none,\n', "line 2: quotes"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_by_file_line_and_column(tmp_path, lines, said):
    (tmp_path / "ratings").mkdir()
    (tmp_path / "ratings" / "anna.csv").write_text(HEAD + lines, encoding="utf-8")
    with pytest.raises(LabError) as caught:
        sheets.read(tmp_path)
    text = one_sentence(caught)
    assert "anna.csv, line " in text and said in text


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (HEAD.replace("error,", "").encode(), "no column error"),
        (b"rater\n", "no column task, document"),
        (HEAD.encode() + b"anna,rate,\xff\n", "line 2: this is not UTF-8"),
        (HEAD.encode("utf-16"), "this is not UTF-8"),
        (b"PK\x03\x04\xe9\x00\n", "this is not UTF-8"),
        (HEAD.encode() + b"x" * 200_000 + b"\n", "line 2"),
    ],
    ids=["a column missing", "one column", "latin-1", "utf-16", "a workbook", "a huge cell"],
)
def test_a_file_that_is_no_rating_file_is_refused_in_one_sentence(tmp_path, raw, said):
    (tmp_path / "ratings").mkdir()
    (tmp_path / "ratings" / "anna.csv").write_bytes(raw)
    with pytest.raises(LabError, match=said) as caught:
        sheets.read(tmp_path)
    one_sentence(caught)


@pytest.mark.parametrize("raw", [b"", b"\n", b"\xef\xbb\xbf", b"rater,ta", HEAD.strip().encode(), HEAD.encode(), b"\0\0\0"])
def test_a_file_without_answers_is_a_beginning(tmp_path, finished, raw):
    (tmp_path / "ratings").mkdir()
    (tmp_path / "ratings" / "anna.csv").write_bytes(raw)
    assert sheets.read(tmp_path).rows == []
    blind.start(tmp_path, finished, documents(finished), "anna").save(**GOOD)
    assert len(sheets.read(tmp_path).rows) == 1


def test_files_that_editors_leave_are_not_read(tmp_path):
    (tmp_path / "ratings").mkdir()
    for name in (".~lock.anna.csv#", "~$anna.csv", ".anna.csv", "notes.txt"):
        (tmp_path / "ratings" / name).write_text("nonsense")
    assert sheets.read(tmp_path).rows == []


def test_raters_merge_and_the_later_answer_to_an_item_counts(tmp_path):
    (tmp_path / "ratings").mkdir()
    (tmp_path / "ratings" / "anna.csv").write_text(HEAD + f"anna,rate,d,{A},,1,1,1,1,,\nanna,rate,d,{B},,2,2,2,2,,\n")
    (tmp_path / "ratings" / "copied.csv").write_text(HEAD + f"anna,rate,d,{A},,5,5,5,5,,\nBen,rate,d,{A},,3,,,,,\n")
    found = sheets.read(tmp_path)
    assert {(row.rater, row.item): row.scores["fluency"] for row in found.rows} == {("anna", A): 5, ("anna", B): 2, ("ben", A): 3}
    assert "1 items were answered before" in found.notes[0]


# --- agreement, against published examples


def by_item(*raters: str) -> dict:
    """Item -> rater -> answer from one string of answers per rater, `.` where missing."""
    columns = [line.split() for line in raters]
    return {
        i: {str(r): int(c[i]) if c[i].isdigit() else c[i] for r, c in enumerate(columns) if c[i] != "."} for i in range(len(columns[0]))
    }


# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section C (repository.upenn.edu/asc_papers/43): four observers, twelve
# units, missing data. The same data stand in R's irr::kripp.alpha, which prints .743 nominal, .815 ordinal, .849 interval.
SECTION_C = by_item(
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
)
# Section B of the same paper: two observers, twelve units, none missing; alpha = 155/224 = .692.
BEN, GERRY = "a a b b d c c c e d d a", "b a b b b c c c e d d d"


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815)])
def test_alpha_is_that_of_krippendorffs_example_with_missing_data(level, published):
    found = rating.agreement(SECTION_C, level)
    assert found.alpha == pytest.approx(published, abs=0.0005)
    assert found.items == 11  # the twelfth unit has one observer


def test_two_raters_with_missing_items_have_the_alpha_of_krippendorffs_two_observers():
    """Items that only one of the two answered say nothing about agreement: alpha stays the published one."""
    whole = rating.agreement(by_item(BEN, GERRY), "nominal")
    assert whole.alpha == pytest.approx(155 / 224) and round(whole.alpha, 3) == 0.692
    gaps = rating.agreement(by_item(f"{BEN} a c . . e .", f"{GERRY} . . b a . ."), "nominal")
    assert (gaps.alpha, gaps.items) == (pytest.approx(155 / 224), 12)


def test_alpha_of_two_raters_by_hand():
    """Units (1,1) (1,2) (2,2): of six values three are 1 and three 2. Observed disagreement 2/6; expected 2*3*3/(6*5) = 18/30."""
    assert rating.agreement(by_item("1 1 2", "1 2 2"), "nominal").alpha == pytest.approx(1 - (2 / 6) / (18 / 30))


def test_agreement_of_error_types_reaches_the_results_through_the_files(tmp_path):
    """Ben's and Gerry's twelve units as kinds of error of twelve summaries; the others are skipped by one of the two."""
    kinds = dict(zip("abcde", sheets.ERRORS, strict=True))
    runs = write_runs(tmp_path, count=8)
    items = sorted({t.item for t in tasks(runs, documents(runs), "ben") if t.kind == "rate"})
    for name, letters in (("ben", BEN), ("gerry", GERRY)):
        given = dict(zip(items, (kinds[letter] for letter in letters.split()), strict=False))
        if name == "ben":
            given |= {item: "who" for item in items[12:18]}
        answer_all(
            tmp_path,
            runs,
            name,
            lambda task, given=given: {"error": given[task.item]} if task.kind == "rate" and task.item in given else {},
        )
    found = rating.results(tmp_path, lines(runs))["agreement"]["error"]
    assert (found["alpha"], found["items"]) == (pytest.approx(155 / 224), 12)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (by_item("1 2 3"), "one rater"),
        (by_item("1 2 . .", ". . 3 4"), "no item was answered by two"),
        (by_item("4 4 . 1", "4 4 2 ."), "all answers are the same"),
        ({}, "one rater"),
    ],
)
def test_agreement_that_cannot_be_computed_has_a_reason_and_no_number(answers, reason):
    found = rating.agreement(answers, "ordinal")
    assert found.alpha is None and reason in found.reason


def test_ordinal_agreement_forgives_near_misses_that_nominal_does_not():
    near, far = by_item("1 2 3 4 5 1 5", "1 2 4 4 5 2 5"), by_item("1 2 3 4 5 1 5", "1 2 5 4 5 5 5")
    assert rating.agreement(near, "ordinal").alpha > 0.9 > rating.agreement(far, "ordinal").alpha
    assert rating.agreement(near, "nominal").alpha < 0.7


# --- results


def marks(**changes):
    return GOOD | changes


def test_nobody_rated_is_none(tmp_path, finished):
    assert rating.results(tmp_path, lines(finished)) is None


def test_means_are_over_raters_and_then_over_documents_and_join_back_to_their_systems(tmp_path, finished):
    """LoRA's fluency: anna 5 and ben 2 on every document, so 3.5; zero-shot's 4 from both; ben skips every reference."""

    def of(rater):
        def answers(task):
            if task.kind == "choose" or rater == "ben" and task.summary.startswith("Reference"):
                return {}
            return marks(fluency={"anna": "5", "ben": "2"}[rater]) if task.summary.startswith("lora") else GOOD

        return answers

    for rater in ("anna", "ben"):
        answer_all(tmp_path, finished, rater, of(rater), count=4)
    found = rating.results(tmp_path, lines(finished))
    assert found["raters"] == ["anna", "ben"] and (found["documents"], found["summaries"]) == (4, 12)
    assert found["scores"]["LoRA"]["fluency"] == {"mean": 3.5, "low": 3.5, "high": 3.5, "n": 4}
    assert found["scores"]["zero-shot"]["fluency"]["mean"] == 4 and found["scores"]["reference"]["fluency"]["n"] == 4
    assert found["scores"]["LoRA"][rating.OVERALL]["mean"] == pytest.approx((3.5 + 4 + 4 + 4) / 4)
    assert found["choices"] == []


def test_a_mean_of_four_needs_all_four(tmp_path, finished):
    answer_all(tmp_path, finished, "anna", lambda task: {"fluency": "5"} if task.kind == "rate" else {})
    scores = rating.results(tmp_path, lines(finished))["scores"]["LoRA"]
    assert scores["fluency"]["mean"] == 5 and scores["coverage"] is None and scores[rating.OVERALL] is None


def test_one_rating_of_the_same_words_counts_for_both_systems(tmp_path):
    runs = write_runs(tmp_path, methods=FOUR, text=lambda method, i: f"{'Both' if method in ('full', 'lora') else method} {i}.")
    answer_all(
        tmp_path, runs, "anna", lambda t: {"preferred": "A"} if t.kind == "choose" else marks(coverage="1" if t.summary[0] == "B" else "5")
    )
    scores = rating.results(tmp_path, lines(runs))["scores"]
    assert scores["full fine-tuning"]["coverage"]["mean"] == scores["LoRA"]["coverage"]["mean"] == 1
    assert scores["QLoRA"]["coverage"]["mean"] == 5


def test_shares_of_errors_are_of_summaries_and_by_kind(tmp_path, finished):
    """Anna sees a wrong person in half of LoRA's summaries, ben in none: a quarter."""

    def anna(task):
        odd = int(task.document_id[-1]) % 2
        return {} if task.kind == "choose" else marks(error="who" if odd and task.summary.startswith("lora") else "none")

    answer_all(tmp_path, finished, "anna", anna)
    answer_all(tmp_path, finished, "ben", lambda task: GOOD if task.kind == "rate" else {})
    errors = rating.results(tmp_path, lines(finished))["errors"]
    assert errors["LoRA"]["share"]["mean"] == errors["LoRA"]["types"]["who"] == 0.25 and errors["LoRA"]["types"]["none"] == 0.75
    assert errors["zero-shot"]["share"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "n": 8}


def prefers(word):
    return lambda task: {"preferred": "A" if word in task.summary else "B"} if task.kind == "choose" else {}


def test_choices_count_whichever_side_the_winner_was_on(tmp_path, finished):
    for rater in ("anna", "ben"):
        answer_all(tmp_path, finished, rater, prefers("lora"))
    (choice,) = rating.results(tmp_path, lines(finished))["choices"]
    assert choice["pair"] == "LoRA against zero-shot"
    assert (choice["wins"], choice["losses"], choice["ties"], choice["documents"]) == (16, 0, 0, 8)
    assert choice["p"] == pytest.approx(2 / 2**8)  # eight documents, not sixteen answers


def test_a_preference_needs_enough_documents_however_many_raters(tmp_path):
    runs = write_runs(tmp_path, count=4)
    for rater in "abcdefgh":
        answer_all(tmp_path, runs, rater, prefers("lora"))
    found = rating.results(tmp_path, lines(runs))
    assert found["choices"][0]["wins"] == 32 and found["choices"][0]["p"] == pytest.approx(2 / 2**4)
    assert any("No detectable preference" in sentence for sentence in found["findings"])


@pytest.mark.parametrize(
    ("wins", "losses", "p"), [(0, 0, 1), (1, 0, 1), (5, 5, 1), (6, 0, 2 / 64), (8, 1, 2 * (1 + 9) / 512), (1, 8, 20 / 512)]
)
def test_the_sign_test_by_hand(wins, losses, p):
    assert rating.sign_test(wins, losses) == pytest.approx(p)


def test_a_method_that_every_rater_marks_higher_is_said_to_be(tmp_path, finished):
    answer_all(
        tmp_path, finished, "anna", lambda t: {} if t.kind == "choose" else marks(coverage="5" if t.summary.startswith("lora") else "1")
    )
    found = rating.results(tmp_path, lines(finished))
    (gap,) = found["differences"]
    assert (gap["mean"], gap["n"]) == (1.0, 8) and gap["p"] == pytest.approx(2 / 2**8)  # four marks in coverage, one in the mean of four
    assert any(s.startswith("LoRA against zero-shot: rated higher, +1.0") for s in found["findings"])


def test_low_agreement_sends_the_guideline_back_to_work(tmp_path, finished):
    for rater, shift in (("anna", 0), ("ben", 1)):
        answer_all(
            tmp_path, finished, rater,
            lambda t, shift=shift: {} if t.kind == "choose" else marks(fluency=str(1 + (int(t.document_id[-1]) + 2 * shift) % 5),
                                                                    coverage=str(1 + int(t.document_id[-1]) % 5)),
        )  # fmt: skip
    found = rating.results(tmp_path, lines(finished))
    assert found["agreement"]["fluency"]["alpha"] < 0.4 and found["agreement"]["coverage"]["alpha"] == 1
    (sentence,) = [s for s in found["findings"] if "guideline" in s]
    assert "below 0.4 for fluency:" in sentence
    assert any("No agreement for faithfulness, conciseness, error: all answers are the same" in s for s in found["findings"])


def test_one_rater_alone_has_no_agreement_and_is_told_why(tmp_path, finished):
    answer_all(tmp_path, finished, "anna", lambda t: GOOD if t.kind == "rate" else {})
    assert any("there is one rater" in s for s in rating.results(tmp_path, lines(finished))["findings"])


def test_human_marks_that_follow_rouge_correlate_and_constant_ones_do_not(tmp_path, finished):
    answer_all(tmp_path, finished, "anna", lambda t: {} if t.kind == "choose" else marks(coverage=str(1 + int(t.document_id[-1]) % 5)))
    found = rating.results(tmp_path, lines(finished, rouge=lambda method, i: 1 + i % 5))["correlations"]
    assert found["coverage"]["rho"] == pytest.approx(1) and found["coverage"]["n"] == 16  # two methods, eight documents; no reference
    assert found["fluency"] is None


def test_no_correlation_is_said_in_words(tmp_path):
    runs = write_runs(tmp_path, count=20)
    answer_all(tmp_path, runs, "anna", lambda t: {} if t.kind == "choose" else marks(coverage=str(1 + hash_of(t.document_id) % 5)))
    found = rating.results(tmp_path, lines(runs, rouge=lambda method, i: hash_of(f"{method}{i}") % 50))
    assert found["correlations"]["coverage"]["low"] < 0 < found["correlations"]["coverage"]["high"]
    assert any(s.startswith("No detectable correlation of ROUGE-1") for s in found["findings"])


def hash_of(text):
    return int(sheets.key("", text)[1:], 16)


def test_too_few_documents_have_no_correlation(tmp_path, finished):
    answer_all(
        tmp_path, finished, "anna", lambda t: {} if t.kind == "choose" else marks(coverage=str(1 + int(t.document_id[-1]) % 5)), count=5
    )
    assert rating.results(tmp_path, lines(finished))["correlations"]["coverage"] is None


def test_answers_about_summaries_that_are_gone_are_counted_and_named(tmp_path, finished):
    answer_all(tmp_path, finished, "anna", lambda t: {"preferred": "A"} if t.kind == "choose" else GOOD)
    again = write_runs(tmp_path, text=lambda method, i: f"{method} on {i}." if method == "zero_shot" else f"new {i}")
    found = rating.results(tmp_path, lines(again))
    assert found["notes"] == found["findings"][-1:] and found["notes"][0].startswith("16 of 32 answers of anna are about summaries")
    assert found["scores"]["LoRA"]["fluency"] is None and found["scores"]["zero-shot"]["fluency"]["n"] == 8


def test_results_do_not_depend_on_the_order_of_lines_or_files(tmp_path, finished):
    for rater in ("anna", "ben"):
        answer_all(
            tmp_path, finished, rater, lambda t: {"preferred": "A"} if t.kind == "choose" else marks(coverage=str(1 + hash_of(t.item) % 5))
        )
    before = rating.results(tmp_path, lines(finished))
    for path in (tmp_path / "ratings").glob("*.csv"):
        head, *rest = path.read_text().splitlines()
        path.write_text("\n".join([head, *reversed(rest), ""]))
        path.rename(path.with_name(f"z{'ba'[path.name < 'b']}.csv"))
    after = rating.results(tmp_path, lines(finished))
    assert before == after


def test_no_number_is_nan(tmp_path, finished):
    answer_all(tmp_path, finished, "anna", lambda t: {"preferred": "A"} if t.kind == "choose" else GOOD, count=1)

    def numbers(value):
        if isinstance(value, dict):
            value = list(value.values())
        return [n for v in value for n in numbers(v)] if isinstance(value, list) else [value]

    assert not [n for n in numbers(rating.results(tmp_path, lines(finished))) if isinstance(n, float) and math.isnan(n)]
