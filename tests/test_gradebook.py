"""Marks of a class: the table, the page of the class, and the pages of the students."""

import csv
import io
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from classroom import copied, edited_scores, half_finished, honest

from lab_utils import assignments
from lab_utils.errors import LabError
from lab_utils.submissions import gradebook

FILE = """
title: Ranks & <b>rates</b>
recipe: tiny-causal
hand_out: [1, 3]
common: {test_examples: 4}
exercises: {lora_forward: 3, merge: 1.5}
marking:
  - {criterion: "Says what <n> means", points: 4, look_for: "n & interval"}
"""
ATTACK = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


@pytest.fixture(scope="module")
def assignment(tmp_path_factory):
    path = tmp_path_factory.mktemp("assignments") / "week.yaml"
    path.write_text(FILE, encoding="utf-8")
    return assignments.load(path)


@pytest.fixture(scope="module")
def submissions(assignment):
    ada = honest(assignment, "ada", states={"merge": "almost"})
    return [
        honest(assignment, "Zoë Ångström").submission(),
        ada.submission(),
        copied(ada, "grace").submission(),
        edited_scores(honest(assignment, "alan")).submission(),
        half_finished(honest(assignment, "edsger"), "lora").submission(),
    ]


@pytest.fixture(scope="module")
def marks(submissions, assignment, tmp_path_factory):
    return gradebook.mark(submissions, assignment, tmp_path_factory.mktemp("marks") / "week", roster=["ADA ", "grace", "barbara"])


class Page(HTMLParser):
    """A page as a browser takes it apart."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.words, self.open = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def pages(marks):
    return {
        path.name: Page(path.read_text(encoding="utf-8")) for path in [marks.folder / "index.html", *(marks.folder / "students").iterdir()]
    }


def page_of(marks, beginning):
    return next(page for name, page in pages(marks).items() if name.startswith(beginning))


def table(marks):
    return list(csv.DictReader(io.StringIO((marks.folder / "marks.csv").read_text(encoding="utf-8-sig"))))


def test_the_table_has_a_row_for_each_student_in_alphabetical_order(marks):
    rows = table(marks)
    assert [row["student"] for row in rows] == ["ada", "alan", "edsger", "grace", "Zoë Ångström"] == [row["student"] for row in marks.rows]
    assert (marks.folder / "marks.csv").read_bytes().startswith(b"\xef\xbb\xbf")


def test_a_row_says_points_states_scores_costs_and_verdict(marks, submissions):
    ada = table(marks)[0]
    assert (ada["points"], ada["of"], ada["lora_forward"], ada["merge"]) == ("3.0", "4.5", "passed", "almost")
    recorded = submissions[1].records
    assert float(ada["ROUGE-1 LoRA"]) == pytest.approx(recorded["lora"]["metrics"]["rouge1"]["mean"], abs=0.01)
    assert float(ada["peak memory GB"]) == 0.7
    assert ada["verdict"] == f"{ada['look']} to look at" and ada["wrong"] == "0"


def test_an_edited_score_is_wrong_and_the_table_holds_what_the_summaries_give(marks, submissions):
    alan = table(marks)[1]
    assert int(alan["wrong"]) >= 1 and "wrong" in alan["verdict"]
    assert float(alan["ROUGE-1 LoRA"]) == pytest.approx(submissions[3].records["lora"]["metrics"]["rouge1"]["mean"] - 5, abs=0.01)


def test_an_unfinished_run_leaves_its_cell_empty(marks):
    edsger = table(marks)[2]
    assert edsger["ROUGE-1 LoRA"] == "" and edsger["ROUGE-1 zero-shot"] != "" and edsger["wrong"] != "0"


def test_who_of_the_roster_is_missing_and_who_is_alike_stands_on_the_page_of_the_class_only(marks):
    assert marks.missing == ["barbara"]
    assert [(pair.first, pair.second) for pair in marks.pairs] == [("ada", "grace")]
    found = pages(marks)
    assert "barbara" in found["index.html"].text and "worth a talk" in found["index.html"].text
    assert all("grace" not in page.text for name, page in found.items() if name.startswith("ada"))


def test_without_a_roster_nobody_is_missing(submissions, assignment, tmp_path):
    found = gradebook.mark(submissions[:1], assignment, tmp_path)
    assert found.missing == [] and "Handed in nothing" not in pages(found)["index.html"].text


def test_a_students_page_has_findings_by_state_answers_medians_and_an_empty_marking_guide(marks):
    page = page_of(marks, "alan")
    assert page.text.index("Wrong (") < page.text.index("Fine (")
    assert "ROUGE-1 is recorded as" in page.text and "median of the class" in page.text
    assert "verdict = check.merge(answer)" in page.text
    assert "Says what <n> means" in page.text and "n & interval" in page.text
    fields = page.all("input")
    assert len(fields) == 2 and all("value" not in field and field["aria-label"] for field in fields)


def test_pages_are_valid_self_contained_and_say_states_in_words(marks):
    for name, page in pages(marks).items():
        policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv"))
        assert policy.startswith("default-src 'none'") and page.all("script") == [] and page.all("link") == []
        assert all(image["src"].startswith("data:image/svg+xml;base64,") and len(image["alt"]) > 40 for image in page.all("img")), name
        assert "✗ wrong" in page.text or "✓ fine" in page.text
        assert all(not link["href"].startswith(("http", "/")) for link in page.all("a"))


def test_every_link_of_the_class_leads_to_a_file(marks):
    links = [link["href"] for link in page_of(marks, "index").all("a")]
    assert len(links) == 6 and all((marks.folder / link).is_file() for link in links)


def test_figures_lie_beside_the_page_with_their_text(marks):
    names = {path.name for path in (marks.folder / "figures").iterdir()}
    assert {f"{name}.{kind}" for name in ("scores", "time", "memory", "exercises") for kind in ("png", "txt")} == names
    assert "LoRA" in (marks.folder / "figures" / "scores.txt").read_text(encoding="utf-8")
    assert "merge 3 passed, 2 almost, 0 not attempted" in (marks.folder / "figures" / "exercises.txt").read_text(encoding="utf-8")


def test_the_same_class_gives_the_same_files(submissions, assignment, marks, tmp_path):
    again = gradebook.mark(list(reversed(submissions)), assignment, tmp_path, roster=["ADA ", "grace", "barbara"])
    for path in sorted(marks.folder.rglob("*.*")):
        other = again.folder / path.relative_to(marks.folder)
        assert path.read_bytes() == other.read_bytes(), path.name


def test_of_two_submissions_of_a_student_the_last_packed_counts_and_the_other_is_named(assignment, tmp_path):
    first, second = (honest(assignment, student, states=states) for student, states in (("ada", {}), ("Ada ", {"merge": "almost"})))
    first.packed, second.packed = "2026-03-05T08:00:00+01:00", "2026-03-05T07:30:00+00:00"
    undated = replace(first.submission(name="undated.zip"), packed="soon")
    found = gradebook.mark([second.submission(name="late.zip"), undated, first.submission(name="early.zip")], assignment, tmp_path)
    [row] = found.rows
    assert row["submission"] == "late.zip" and row["left out"] == "undated.zip, early.zip" and row["points"] == 3
    assert "early.zip" in page_of(found, "ada").text and "early.zip" in page_of(found, "index").text


def test_no_cell_is_a_formula(assignment, tmp_path):
    work = honest(assignment, "ada").submission()
    starts = ["=", "+", "-", "@", "\t=", "\r@", "\n=", "＝"]
    class_ = [replace(work, student=f"{start}cmd|' /C calc'!A{number}", name=f"{start}.zip") for number, start in enumerate(starts)]
    rows = table(gradebook.mark(class_, assignment, tmp_path))
    assert len(rows) == len(starts)
    for row in rows:
        assert row["student"].startswith("'") and row["submission"].startswith("'")
        assert not [cell for cell in row.values() if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝"))]


NAMES = [ATTACK, "../../etc/passwd", "..", "C:\\con", "con", "\ud800", "\u202egnp.exe", "", "x" * 400, "名前", "a\0b"]


def test_no_name_leaves_the_folder_or_the_text_of_a_page(assignment, tmp_path):
    work = honest(assignment, "ada").submission(problems=[ATTACK])
    hostile = replace(work, answers=dict.fromkeys(work.answers, ATTACK), packed=ATTACK)
    class_ = [replace(hostile, student=name, name=name) for name in NAMES]
    found = gradebook.mark(class_, assignment, tmp_path / "out", roster=[ATTACK + "2"])
    assert {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")} == {"out"}
    files = list((found.folder / "students").iterdir())
    assert len(files) == len(NAMES)
    assert all(len(file.name) < 70 and file.name.isascii() and file.stem.lower() not in ("con", "nul") for file in files)
    for page in pages(found).values():
        assert page.all("script") == [] and "alert(1)" in page.text
        assert all(set(image) == {"alt", "src"} for image in page.all("img"))


def test_different_students_have_different_pages(assignment, tmp_path):
    work = honest(assignment, "ada").submission()
    names = ["a b", "a-b", "a_b", "ä b", "名前", "前名", "AB"]
    found = gradebook.mark([replace(work, student=name) for name in names], assignment, tmp_path)
    assert len(list((found.folder / "students").iterdir())) == len(names) == len(found.rows)


def test_an_empty_class_and_empty_submissions_have_pages_too(assignment, tmp_path):
    assert gradebook.mark([], assignment, tmp_path / "none", roster=["ada"]).missing == ["ada"]
    empty = replace(honest(assignment, "ada").submission(), records={}, predictions={}, exercises={}, answers={}, notebooks={}, packed=None)
    found = gradebook.mark([empty], assignment, tmp_path / "one")
    assert found.rows[0]["points"] == 0 and "No run is finished" in page_of(found, "ada").text


def test_a_folder_that_cannot_be_written_is_named(assignment, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LabError, match="Cannot write to"):
        gradebook.mark([], assignment, tmp_path / "file" / "marks")


def test_marking_says_nothing_by_itself(submissions, assignment, tmp_path, capsys):
    gradebook.mark(submissions[:1], assignment, tmp_path)
    assert capsys.readouterr() == ("", "")
