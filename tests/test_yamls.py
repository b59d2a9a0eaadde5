"""YAML as people mean it."""

import math

import pytest

from lab_utils import yamls
from lab_utils.errors import LabError


@pytest.fixture
def file(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "week.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return path

    return write


def refusal(call, *given):
    with pytest.raises(LabError) as caught:
        call(*given)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2e-4", 2e-4), ("1E5", 1e5), ("-3", -3), ("+4", 4), (".5", 0.5), ("1.", 1.0), ("0", 0), ("0.5", 0.5), ("0o17", 15), ("0x1F", 31),
        ("true", True), ("FALSE", False), ("yes", "yes"), ("no", "no"), ("on", "on"), ("Off", "Off"), ("y", "y"),
        ("12:30", "12:30"), ("2026-12-04", "2026-12-04"), ("2026-12-04 18:00", "2026-12-04 18:00"), ("'010'", "010"), ('"2e-4"', "2e-4"),
        ("~", None), ("", None), ("null", None), ("[2, 8]", [2, 8]), ("{a: 1e-3}", {"a": 1e-3}), (".inf", math.inf), ("1.2.3", "1.2.3"),
    ],
)  # fmt: skip
def test_a_value_is_what_a_person_reads(text, meant):
    found = yamls.value(text, "x")
    assert found == meant and type(found) is type(meant)


@pytest.mark.parametrize(("text", "cure"), [("010", "write 10,"), ("-007", "write 7,"), ("00", "write 0,"), ("[1, 02]", "write 2,")])
def test_a_leading_zero_is_refused_since_readers_differ(text, cure):
    assert cure in refusal(yamls.value, text, "x")


def test_names_are_texts_even_where_they_look_like_numbers(file):
    assert yamls.read(file("01: {seed: 1}\nyes: 2\n")).values == {"01": {"seed": 1}, "yes": 2}


def test_every_place_has_its_line_and_an_unknown_place_that_of_what_is_around_it(file):
    document = yamls.read(file("a: 1\n\nb:\n  c: 2\n  d:\n    - x\n    - {e: 3}\n"))
    assert [document.line(*path) for path in [("a",), ("b",), ("b", "c"), ("b", "d", 0), ("b", "d", 1, "e")]] == [1, 3, 4, 6, 7]
    assert document.line("b", "nothing", "here") == 3 and document.line("nothing") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", ["line 3", "'a'", "first in line 1"]),
        ("a:\n  b: 1\n  b: 2\n", ["line 3", "'b'", "first in line 2"]),
        ("a: [1, 2\n", ["line 2", "not valid YAML"]),
        ("a: b: c\n", ["line 1", "not valid YAML"]),
        ("\ta: 1\n", ["line 1", "not valid YAML"]),
        ("a: 'x\n", ["not valid YAML"]),
        ("a: 1\n---\nb: 2\n", ["line 2"]),
        ("a: !!python/object/apply:os.system [ls]\n", ["line 1"]),
        ("a: !own 3\n", ["line 1", "!own"]),
        ("a: &x [*x]\n", ["line 1", "alias"]),
        ("a: *nothing\n", ["not valid YAML"]),
        ("? [1, 2]\n: 3\n", ["line 1", "a word"]),
        ("a: !!int many\n", ["line 1", "no int"]),
        ("a: !!bool maybe\n", ["line 1", "no bool"]),
        ("a: " + "9" * 5000 + "\n", ["line 1", "no int"]),
        ("a: \x01\n", ["not valid YAML"]),
        ("[1, 2]\n", ["found one list"]),
        ("just words\n", ["found one str"]),
        ("", ["found nothing"]),
        ("# only a comment\n", ["found nothing"]),
        ("a: " + "[" * 5000, ["nested too deeply"]),
        (b"\xff\xfe\x00", ["not UTF-8"]),
        (b"a: \xe9\n", ["not UTF-8"]),
        ("a: " + "x" * 1_100_000, ["no file of settings"]),
    ],
)
def test_what_would_not_do_what_its_author_meant_is_refused_with_its_line(file, text, words):
    message = refusal(yamls.read, file(text))
    assert message.startswith("week.yaml") and all(word in message for word in words)


def test_a_mark_at_the_beginning_that_editors_leave_is_ignored(file):
    assert yamls.read(file("a: 1\n", "utf-8-sig")).values == {"a": 1}


def test_a_file_that_is_absent_or_a_folder_is_named(tmp_path):
    assert "nowhere.yaml" in refusal(yamls.read, tmp_path / "nowhere.yaml")
    (tmp_path / "folder.yaml").mkdir()
    assert "folder.yaml" in refusal(yamls.read, tmp_path / "folder.yaml")


def test_an_anchor_used_twice_is_fine(file):
    assert yamls.read(file("a: &x {seed: 1}\nb: *x\n")).values == {"a": {"seed": 1}, "b": {"seed": 1}}


def test_a_merge_key_brings_in_what_is_not_said(file):
    document = yamls.read(file("a: &x {seed: 1, rank: 2}\nb:\n  <<: *x\n  rank: 3\n"))
    assert document.values["b"] == {"seed": 1, "rank": 3}
    assert (document.line("b", "seed"), document.line("b", "rank")) == (3, 4)
    assert "takes an alias" in refusal(yamls.read, file("a: {<<: 3}\n"))
