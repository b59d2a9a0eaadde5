"""Exercises in general: what a check says, whatever it is given."""

import json

import pytest

from lab_utils import check
from lab_utils.check.exercise import ALMOST, NOT_ATTEMPTED, PASSED, Almost, Exercise, ask, choice, close, number


def judge(answer):
    if ask(answer, [3]) != 4:
        raise Almost("It is not one more.")
    return "One more."


@pytest.fixture
def one_more():
    return Exercise("one_more", "01_zero_shot_baseline", "build", "Add one", ("first", "second"), judge, solution=lambda: "the lab's own")


def test_a_stub_is_not_attempted_whether_it_returns_an_ellipsis_or_raises(one_more):
    def unfinished(values):
        raise NotImplementedError

    verdicts = [one_more(...), one_more(lambda values: ...), one_more(unfinished)]
    assert {verdict.state for verdict in verdicts} == {NOT_ATTEMPTED}
    assert {verdict.best for verdict in verdicts} == {"the lab's own"}


def test_a_right_answer_passes_and_is_what_the_notebook_goes_on_with(one_more):
    mine = lambda values: values[0] + 1  # noqa: E731
    verdict = one_more(mine)
    assert verdict.passed and verdict.best is mine and "One more." in repr(verdict)


def test_hints_grow_with_every_wrong_answer_and_never_run_out(one_more):
    said = [one_more(lambda values: 0).says for _ in range(4)]
    assert said[0] == "It is not one more."
    assert said[1].endswith("Hint 1: first")
    assert said[2].endswith("Hint 1: first Hint 2: second") and said[3] == said[2]


def test_an_unfinished_answer_costs_no_hint(one_more):
    one_more(...)
    assert "Hint" not in one_more(lambda values: 0).says


@pytest.mark.parametrize(
    "answer, said",
    [
        (lambda values: values[7], "values[7]"),
        (lambda: 4, "TypeError"),
        (lambda values: None, "return"),
        (5, "function was expected"),
        (lambda values: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_an_answer_that_breaks_is_almost_and_the_reason_is_said(one_more, answer, said):
    verdict = one_more(answer)
    assert verdict.state == ALMOST and said in verdict.says and verdict.best == "the lab's own"


def test_an_answer_that_changes_its_input_does_not_change_the_judges(one_more):
    def greedy(values):
        values[0] += 1
        return values.pop()

    assert [one_more(greedy).state, one_more(greedy).state] == [PASSED, PASSED]


def test_what_a_verdict_shows_is_escaped_and_told_without_colour(one_more):
    verdict = one_more(lambda values: int("<b>"))
    assert "<b>'" not in verdict._repr_html_() and "almost" in verdict._repr_html_()


def test_numbers_come_as_any_number_and_as_nothing_else():
    import torch

    assert [number(3), number(torch.tensor(3.0)), close(0.3, 0.1 + 0.2)] == [3.0, 3.0, True]
    for wrong in ("3", True, [3, 4], torch.ones(2)):
        with pytest.raises(Almost):
            number(wrong)


def test_a_choice_is_one_letter_or_several_of_those_offered():
    assert choice("a", "abc") == {"a"} and choice(["a", "b"], "abc") == {"a", "b"}
    with pytest.raises(Almost, match="'d' is none of them"):
        choice("d", "abc")


@pytest.mark.parametrize("name", sorted(check.EXERCISES))
def test_every_exercise_is_offered_by_name_and_has_hints_that_grow(name):
    exercise = check.EXERCISES[name]
    assert getattr(check, name) is exercise
    assert len(exercise.hints) >= 2 and exercise.__doc__


@pytest.mark.parametrize("answer", [None, 0, "", "x", [], {}, float("nan"), object(), lambda: 1, lambda *given: given, lambda *given: 0])
@pytest.mark.parametrize("name", sorted(check.EXERCISES))
def test_no_check_raises_or_passes_whatever_nonsense_it_is_given(name, answer):
    assert check.EXERCISES[name](answer).state in (ALMOST, NOT_ATTEMPTED)


# --- kept beside the records ----------------------------------------------------------------------------------------------------


@pytest.fixture
def noted(tmp_path):
    """A run directory in which verdicts are kept; returns what stands there of a notebook."""
    check.note_in(tmp_path)
    yield lambda notebook: json.loads((tmp_path / "exercises" / f"{notebook}.json").read_text(encoding="utf-8"))
    check.note_in(None)


def test_the_last_state_and_the_number_of_tries_are_kept(noted):
    check.unfair(...)
    assert noted("05_evaluation") == {"unfair": {"state": "not attempted", "tries": 0}}
    check.unfair("a")
    assert noted("05_evaluation") == {"unfair": {"state": "almost", "tries": 1}}
    check.unfair("bcd")
    assert noted("05_evaluation") == {"unfair": {"state": "passed", "tries": 2}}


def test_exercises_of_other_notebooks_have_a_file_of_their_own(noted):
    check.unfair("bcd")
    check.count_lora(...)
    assert list(noted("05_evaluation")) == ["unfair"] and list(noted("03_lora")) == ["count_lora"]


def test_nothing_is_kept_unless_it_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check.unfair("bcd")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["{", "[]", '{"unfair": 3}', "\xff"])
def test_a_broken_file_of_notes_is_begun_anew(noted, tmp_path, content):
    (tmp_path / "exercises").mkdir()
    (tmp_path / "exercises" / "05_evaluation.json").write_bytes(content.encode("latin-1"))
    check.unfair("bcd")
    assert noted("05_evaluation")["unfair"] == {"state": "passed", "tries": 1}


def test_a_verdict_that_cannot_be_kept_is_still_given_and_says_so(tmp_path):
    (tmp_path / "exercises").write_text("a file where a folder should be")
    check.note_in(tmp_path)
    try:
        verdict = check.unfair("bcd")
    finally:
        check.note_in(None)
    assert verdict.passed and "not noted for your submission" in verdict.says
