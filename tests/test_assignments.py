"""Assignment files: what they may say, how mistakes are named, how values vary."""

import itertools
import json
from collections import Counter

import jsonschema
import pytest

from lab_utils import assignment_file, assignments, check, config, course, yamls
from lab_utils.errors import LabError

HEAD = "title: Ranks\nrecipe: tiny-causal\n"


@pytest.fixture
def write(tmp_path):
    def write(text, name="week1"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def refusal(write):
    def refusal(text):
        with pytest.raises(LabError) as caught:
            assignments.load(write(text))
        return str(caught.value)

    return refusal


# --- what a file says ---------------------------------------------------------------------------------------------------------


def test_a_title_is_enough(write):
    found = assignments.load(write("title: Ranks\n"))
    assert found.name == "week1" and found.notebooks == list(course.NOTEBOOKS)
    assert found.exercises == dict.fromkeys(check.EXERCISES, 1.0)
    assert found.values()["03_lora"]["recipe"] == course.DEFAULT_RECIPE


def test_a_notebooks_part_outranks_the_common_one_and_the_rest_stays(write):
    values = assignments.load(write(HEAD + "common: {seed: 1, rank: 2}\nnotebooks: {03: {rank: 4}}\n")).values()
    assert (values["03_lora"]["rank"], values["04_qlora"]["rank"], values["03_lora"]["seed"]) == (4, 2, 1)
    assert "rank" not in values["01_zero_shot_baseline"]
    assert values["03_lora"]["sweep_ranks"] == course.parameters_of(course.named("03"))["sweep_ranks"]


def test_records_will_name_the_assignment_and_lie_in_its_folder(write):
    values = assignments.load(write(HEAD)).values("ann")["01_zero_shot_baseline"]
    assert (values["assignment"], values["student"], values["run_dir"]) == ("week1", "ann", "runs/week1")


@pytest.mark.parametrize("word", ["3", "03", "'03'", "03_lora", "'3'"])
def test_a_notebook_is_named_by_number_or_name(write, word):
    assert assignments.load(write(HEAD + f"notebooks: {{{word}: {{rank: 4}}}}\n")).values()["03_lora"]["rank"] == 4


def test_notebooks_are_handed_out_in_the_courses_order(write):
    found = assignments.load(write(HEAD + "hand_out: [5, '03', 1]\n"))
    assert [notebook.number for notebook in found.notebooks] == ["01", "03", "05"]
    assert {check.EXERCISES[name].notebook[:2] for name in found.exercises} == {"01", "03", "05"}


def test_notebooks_that_the_recipe_does_not_offer_are_left_out(write):
    found = assignments.load(write("title: t\nrecipe: phi-2-dialogsum\n"))
    assert "full" not in {notebook.method for notebook in found.notebooks} and set(found.settings()) == {"zero_shot", "lora", "qlora"}


def test_exercises_have_a_point_each_or_the_points_that_are_given(write):
    assert assignments.load(write(HEAD + "exercises: [merge, int4]\n")).exercises == {"merge": 1, "int4": 1}
    assert assignments.load(write(HEAD + "exercises: {merge: 2.5, int4: 0}\n")).exercises == {"merge": 2.5, "int4": 0}
    assert assignments.load(write(HEAD + "exercises: []\n")).exercises == {}


def test_settings_are_those_that_the_notebooks_resolve(write):
    found = assignments.load(write(HEAD + "common: {seed: 5}\nnotebooks: {3: {rank: 3}}\n")).settings()
    assert found["lora"] == config.resolve("tiny-causal", "lora", 5, rank=3)
    assert found["zero_shot"] == config.resolve("tiny-causal", "zero_shot", 5)


# --- extends ------------------------------------------------------------------------------------------------------------------


def test_what_a_file_says_lies_over_what_it_extends(write):
    write(HEAD + "about: A\ncommon: {seed: 1, learning_rate: 1e-3}\nexercises: [merge, int4]\nlimits: {minutes: 5}\n", "base")
    write("title: Mine\nextends: base\ncommon: {seed: 2}\nlimits: {memory_gb: 4}\n", "week1")
    found = assignments.load(write("title: Last\nextends: week1.yaml\nexercises: [merge]\n", "week2"))
    assert (found.title, found.about, found.sheet.common) == ("Last", "A", {"seed": 2, "learning_rate": 1e-3})
    assert (found.limits.minutes, found.limits.memory_gb, list(found.exercises)) == (5, 4, ["merge"])


def test_null_takes_back_what_was_set(write):
    write(HEAD + "common: {learning_rate: 1e-3}\n", "base")
    found = assignments.load(write("title: t\nextends: base\ncommon: {learning_rate: null}\n"))
    assert found.settings()["lora"] == config.resolve("tiny-causal", "lora")


def test_a_mistake_in_what_is_extended_is_named_with_that_file(write, refusal):
    write(HEAD + "common:\n  rnk: 2\n", "base")
    assert "base.yaml, line 4: unknown parameter 'rnk'" in refusal("title: t\nextends: base\n")


def test_files_that_extend_one_another_are_refused(write, refusal):
    write("title: t\nextends: week1\n", "other")
    message = refusal("title: t\nextends: other\n")
    assert "other.yaml, line 2" in message and "stand alone" in message


def test_a_file_may_extend_one_that_comes_with_the_lab(write):
    assert assignments.load(write("title: Ours\nextends: first-week\n")).sheet.common == assignments.load("first-week").sheet.common


# --- mistakes -----------------------------------------------------------------------------------------------------------------

# ruff: noqa: E501
MALFORMED = {
    "a misspelled name": ("title: t\ntitel: u\n", "line 2: unknown name 'titel', did you mean 'title'?"),
    "no title": ("recipe: tiny-causal\n", "'title' is missing"),
    "a title that is a number": ("title: 3\n", "line 1: title: input should be a valid string, got 3"),
    "an unknown recipe": ("title: t\nrecipe: tiny-casual\n", "line 2: Unknown recipe 'tiny-casual', did you mean 'tiny-causal'?"),
    "a recipe file that is not there": ("title: t\nrecipe: mine.yaml\n", "line 2: No recipe file 'mine.yaml'"),
    "an unknown parameter for all": (HEAD + "common:\n  sede: 1\n", "line 4: unknown parameter 'sede' for any notebook that is handed out, did you mean 'seed'?"),
    "an unknown parameter for one": (HEAD + "notebooks:\n  03:\n    rnk: 1\n", "line 5: unknown parameter 'rnk' for 03_lora, did you mean 'rank'?"),
    "a parameter of another notebook": (HEAD + "notebooks: {03: {hand_steps: 1}}\n", "line 3: 'hand_steps' is no parameter of 03_lora; 02_full_fine_tuning has it"),
    "a parameter of no handed-out one": (HEAD + "hand_out: [1]\ncommon:\n  rank: 1\n", "line 5: 'rank' is no parameter of any notebook that is handed out"),
    "a parameter at the top": (HEAD + "rank: 4\n", "line 3: unknown name 'rank'"),
    "an unknown notebook": (HEAD + "notebooks:\n  06: {}\n", "line 4: no notebook '06'"),
    "an unknown notebook by name": (HEAD + "notebooks:\n  03_lra: {}\n", "line 4: no notebook '03_lra', did you mean '03_lora'?"),
    "a notebook that is not handed out": (HEAD + "hand_out: [1]\nnotebooks:\n  03: {}\n", "line 5: 03_lora is not handed out"),
    "an unknown notebook to hand out": (HEAD + "hand_out:\n  - 1\n  - 9\n", "line 5: no notebook '9'"),
    "a method the recipe lacks": ("title: t\nrecipe: phi-2-dialogsum\nhand_out: [2]\n", "line 3: recipe 'phi-2-dialogsum' offers no full"),
    "a leading zero": (HEAD + "common:\n  seed: 010\n", "line 4: 010 begins with a zero"),
    "a word for a number": (HEAD + "common:\n  seed: many\n", "line 4: seed: expected a whole number like 0, got 'many'"),
    "a fraction for a count": (HEAD + "common:\n  seed: 1.5\n", "line 4: seed: expected a whole number like 0, got 1.5"),
    "a flag for a number": (HEAD + "common:\n  seed: true\n", "line 4: seed: expected a whole number like 0, got True"),
    "a rank of nothing": (HEAD + "notebooks:\n  03:\n    rank: 0\n", "line 5: rank: input should be greater than or equal to 1, got 0"),
    "a learning rate in words": (HEAD + "common:\n  learning_rate: fast\n", "line 4: learning_rate: input should be a valid number"),
    "a rate that is no number": (HEAD + "common:\n  learning_rate: .nan\n", "line 4: learning_rate: input should be"),
    "an unknown quantization": (HEAD + "notebooks:\n  04:\n    quantization: nf3\n", "line 5: quantization: input should be 'none', 'int8' or 'nf4', got 'nf3'"),
    "batches that do not divide": (HEAD + "notebooks:\n  03: {batch_size: 8, micro_batch: 3}\n", "line 4: "),
    "one name twice": (HEAD + "common: {seed: 1}\ncommon: {seed: 2}\n", "line 4: 'common' is given a second time (first in line 3)"),
    "broken brackets": (HEAD + "common: {seed: 1\n", "not valid YAML"),
    "a list of lines": ("- title: t\n", "must hold 'name: value' lines"),
    "nothing": ("", "must hold 'name: value' lines"),
    "a common part that is a list": (HEAD + "common: [1]\n", "line 3: common: "),
    "a notebook's part that is a number": (HEAD + "notebooks: {03: 4}\n", "line 3: notebooks.03: "),
    "an unknown exercise": (HEAD + "exercises: [merge, lora_foward]\n", "line 3: no exercise 'lora_foward', did you mean 'lora_forward'?"),
    "points below nothing": (HEAD + "exercises:\n  merge: -1\n", "line 4: exercises.merge: "),
    "points in words": (HEAD + "exercises:\n  merge: two\n", "line 4: exercises.merge: "),
    "an exercise elsewhere": (HEAD + "hand_out: [1]\nexercises: [merge]\n", "line 4: exercise 'merge' stands in 03_lora, which is not handed out"),
    "an unknown artefact": (HEAD + "required: [records, weights]\n", "line 3: required.1: "),
    "a limit below nothing": (HEAD + "limits:\n  minutes: -5\n", "line 4: limits.minutes: "),
    "an unknown limit": (HEAD + "limits:\n  minuts: 5\n", "line 4: unknown name 'limits.minuts', did you mean 'minutes'?"),
    "a criterion without points": (HEAD + "marking:\n  - criterion: Good\n", "line 4: 'marking.0.points' is missing"),
    "a variation without salt": (HEAD + "vary:\n  seed: 10\n", "'vary.salt' is missing"),
    "a variation that changes nothing": ("title: t\nvary: {salt: abcd, data_seed: 9}\n", "line 2: it draws training documents only where 'train_examples'"),
    "a test set for each": ("title: t\ncommon: {train_examples: 9, test_examples: 9}\nvary: {salt: abcd, data_seed: 9}\n", "another test set"),
    "a test set for each by the recipe": (HEAD + "vary: {salt: abcd, data_seed: 9}\n", "line 3: each student would have another test set"),
    "an unknown recipe to vary among": (HEAD + "vary: {salt: abcd, recipes: [tiny-cusal]}\n", "Unknown recipe 'tiny-cusal'"),
    "recipes that offer different things": (HEAD + "vary: {salt: abcd, recipes: [phi-2-dialogsum]}\n", "offer different methods"),
    "what the lab fills in": (HEAD + "common:\n  student: ann\n", "line 4: 'student' does not stand here"),
    "a recipe under common": ("title: t\ncommon:\n  recipe: tiny-causal\n", "line 3: 'recipe' does not stand here"),
    "extends what is not there": ("title: t\nextends: frist-week\n", "week1.yaml, line 2: No assignment 'frist-week', did you mean 'first-week'?"),
    "extends itself": ("title: t\nextends: week1\n", "stand alone"),
    "a foreign tag": ("title: !!python/name:os.system t\n", "line 1: the tag"),
    "a token for a name": (HEAD + "common:\n  publish_to: hf_abcdefghijklmnop\n", "line 4, holds what looks like a token"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "words"), MALFORMED.values(), ids=MALFORMED)
def test_a_mistake_is_named_with_its_line(refusal, text, words):
    message = refusal(text)
    assert words in message
    assert "\n" not in message, "one mistake, one sentence"


def test_thirty_kinds_of_mistakes_and_more_are_tried():
    assert len(MALFORMED) >= 30


def test_a_token_is_not_repeated(refusal):
    assert "hf_abc" not in refusal(*MALFORMED["a token for a name"][:1])


def test_everything_that_is_wrong_is_said_at_once_in_the_order_of_lines(refusal):
    message = refusal("titel: t\nrecipe: tiny-causal\ncommon:\n  sede: 1\n  rank: 0\nexercises: [mrge]\nnotebooks: {07: {}}\n")
    assert "has 6 problems" in message
    lines = [int(line.split("line ")[1].split(":")[0]) for line in message.splitlines()[1:]]
    assert lines == sorted(lines) and set(lines) == {1, 4, 5, 6, 7}


def test_one_mistake_that_reaches_two_notebooks_is_said_once(refusal):
    assert refusal(HEAD + "common: {rank: 0}\n").count("rank") == 1


def test_an_assignment_that_is_absent_is_named_with_the_nearest(tmp_path):
    with pytest.raises(LabError, match="No assignment 'first-weak', did you mean 'first-week'"):
        assignments.load("first-weak")
    with pytest.raises(LabError, match="No assignment file"):
        assignments.load(tmp_path / "nowhere.yaml")


# --- variation ----------------------------------------------------------------------------------------------------------------

VARIED = HEAD + "vary: {salt: spring-2027, seed: 1000, recipes: [tiny-causal, tiny-seq2seq]}\n"
CLASS = [f"s{number}@school.org" for number in range(200)]


def test_a_student_gets_the_same_values_each_time(write):
    one, other = (assignments.load(write(VARIED, name)).choice("ann") for name in ("week1", "other"))
    assert one == other and set(one) == {"recipe", "seed"}


@pytest.mark.parametrize("spelling", ["Ann", " ann ", "ANN\t"])
def test_spelling_of_an_id_does_not_matter(write, spelling):
    given = assignments.load(write(VARIED))
    assert given.choice(spelling) == given.choice("ann")


def test_another_salt_deals_out_other_values(write):
    one, other = (assignments.load(write(text)) for text in (VARIED, VARIED.replace("spring", "autumn")))
    assert sum(one.choice(s) != other.choice(s) for s in CLASS) > 190


def test_recipes_are_dealt_out_evenly_and_seeds_stay_below_the_number(write):
    given = assignments.load(write(VARIED))
    chosen = [given.choice(student) for student in CLASS]
    count = Counter(one["recipe"] for one in chosen)
    assert 60 <= count["tiny-causal"] <= 140  # a fair coin leaves this range once in hundreds of millions of classes
    assert all(0 <= one["seed"] < 1000 for one in chosen)
    assert len({one["seed"] for one in chosen}) > 150


def test_a_students_values_reach_every_notebook(write):
    given = assignments.load(write(VARIED))
    chosen = given.choice("ann")
    for values in given.values("ann").values():
        assert {name: values[name] for name in chosen} == chosen
    assert all(one.recipe.name == chosen["recipe"] and one.seed == chosen["seed"] for one in given.settings("ann").values())


def test_documents_of_students_differ_and_their_test_set_does_not(write):
    from lab_utils import data

    given = assignments.load(write("title: t\ncommon: {train_examples: 40}\nvary: {salt: abcd, data_seed: 1000}\n"))
    one, other = (data.load(given.settings(student)["lora"].recipe.data) for student in ("ann", "ben"))
    assert one.fingerprint == other.fingerprint and {e.id for e in one.train} != {e.id for e in other.train}


# --- those that come with the lab ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", assignment_file.known())
def test_every_assignment_of_the_lab_fits_and_can_be_marked(name):
    given = assignments.load(name)
    assert given.values("a student") and given.exercises and given.deadline and given.about
    assert len(given.marking) >= 3 and all(line.look_for for line in given.marking)


def test_there_are_four_kinds_of_assignments():
    assert {"first-week", "lora-rank-study", "quantization-study", "reproduce-phi-2"} <= set(assignment_file.known())


# --- for editors --------------------------------------------------------------------------------------------------------------


def accepted(text):
    return not list(jsonschema.Draft202012Validator(assignment_file.schema()).iter_errors(yamls._parsed(text, "x", {})))


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(assignment_file.schema())


def test_the_written_schema_is_that_of_the_notebooks_as_they_stand():
    path = course.root() / assignment_file.FOLDER / assignment_file.SCHEMA_FILE
    assert json.loads(path.read_text(encoding="utf-8")) == assignment_file.schema(), "run: make notebooks"


@pytest.mark.parametrize("name", assignment_file.known())
def test_the_schema_accepts_the_labs_own_assignments(name):
    assert accepted((course.root() / assignment_file.FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


BEYOND_A_SCHEMA = {  # what needs the recipe, another file or a second look
    "a recipe file that is not there", "a parameter of no handed-out one", "an unknown notebook to hand out", "a notebook that is not handed out",
    "a method the recipe lacks", "a leading zero", "batches that do not divide", "one name twice", "broken brackets", "an exercise elsewhere",
    "a variation that changes nothing", "a test set for each", "a test set for each by the recipe", "an unknown recipe to vary among", "recipes that offer different things",
    "extends what is not there", "extends itself", "a foreign tag", "a rate that is no number", "a token for a name",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(MALFORMED) - BEYOND_A_SCHEMA))
def test_the_schema_refuses_what_the_lab_refuses(name):
    assert not accepted(MALFORMED[name][0])


def test_the_schema_knows_every_parameter():
    every = set(itertools.chain.from_iterable(course.parameters_of(notebook) for notebook in course.NOTEBOOKS))
    assert set(assignment_file.schema()["properties"]["common"]["properties"]) == every - set(assignment_file.SET_BY_THE_LAB)
