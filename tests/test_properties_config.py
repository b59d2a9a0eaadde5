"""Whatever stands in a recipe, an assignment or a parameter: a value that lasts, or one sentence. Never another error, never a hang."""

import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import one_line, texts, values, wild_texts, written_texts

from lab_utils import assignment_file, assignments, config, course, fields, runner, yamls
from lab_utils.errors import LabError

RECIPE = config.load_recipe("tiny-causal").model_dump()
TOKENS = (
    *("a: ", "b: ", "a", "- ", "[", "]", "{", "}", ", ", ": ", "&x ", "*x", "<<: ", "? ", "'", '"', "\n", "  ", "|\n", ">-\n"),
    *("!!int ", "!!float ", "!!bool ", "!!null ", "!!map ", "!!seq ", "!!str ", "!!binary ", "!own ", "!a%0Ab ", "# ", "---\n"),
    *("%YAML 1.2\n", "%TAG ! x\n", "...\n", "0x1f", "010", ".nan", "-.inf", "1e400", "2026-01-01", "12:30", "yes", "true", "~"),
    *("\\ud800", "\\", "\t", "\x00", "\x85", "\u2028", "\ufeff"),
)
yaml_texts = st.lists(st.sampled_from(TOKENS) | texts, max_size=25).map("".join)
file_contents = st.one_of(yaml_texts.map(lambda text: text.encode("utf-8")), st.binary(max_size=60))
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{n}: &{n} [{','.join([f'*{o}'] * 9)}]\n" for o, n in zip("abcdefgh", "bcdefghi", strict=True)
)
TREE = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{n}: &{n} {{x: *{o}, y: *{o}}}\n" for o, n in zip("abcdefghijklmnopqrst", "bcdefghijklmnopqrstu", strict=True)
)


def accepted(call, *given, **named):
    """What a call returns, or None where it refuses in one sentence."""
    try:
        return call(*given, **named)
    except LabError as error:
        assert one_line(str(error)), str(error)
        return None


def lasts(found: config.Settings) -> bool:
    """Whether a record that keeps these settings gives the same again."""
    return config.recorded(json.loads(json.dumps(found.model_dump()))) == found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


# --- files


@given(file_contents)
@settings(max_examples=400)
@example(b'a: !!float ""')
@example(b"a: !!map x")
@example(b"!!seq x")
@example(b"a: !!int [1]")
@example(b"a: !a%0Ab x")
@example(b'{"a\\nb": 1, "a\\nb": 2}')
@example(b'a: "\\ud800"')
@example(b"a: &x\n  <<: *x\n")
def test_any_bytes_are_a_file_of_settings_or_one_sentence(folder, content):
    path = folder / "week.yaml"
    path.write_bytes(content)
    document = accepted(yamls.read, path)
    if document is not None:
        assert all(isinstance(name, str) for name in document.values)
        assert document.line() is not None
        json.dumps(document.values, ensure_ascii=False).encode("utf-8")


LONG = {
    "aliases": BOMB,
    "aliases-in-maps": TREE,
    "lists": "a: [" + "[], " * 20_000 + "]",
    "brackets": "a: " + "[" * 30_000,
    "dashes": "- " * 30_000,
    "questions": "? " * 30_000,
    "colons": ":" * 190_000,
    "tags": "!" * 190_000,
    "quotes": "'" + "''" * 90_000,
    "anchors": "".join(f"- &a{i} x\n" for i in range(10_000)),
    "words": "a: " + "x " * 90_000,
    "names": "\n".join(f"k{i}: " for i in range(10_000)),
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_no_file_keeps_the_reader_busy(folder, text):
    path = folder / "long.yaml"
    path.write_text(text, encoding="utf-8")
    started = time.process_time()
    accepted(yamls.read, path)
    assert time.process_time() - started < 10


def test_a_file_that_repeats_itself_by_aliases_beyond_measure_is_refused(folder):
    for text in (BOMB, TREE):
        (folder / "bomb.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(LabError, match="bomb.yaml, line .*aliases"):
            yamls.read(folder / "bomb.yaml")


@given(file_contents)
@settings(max_examples=100)
def test_any_bytes_are_a_recipe_or_one_sentence(folder, content):
    path = folder / "mine.yaml"
    path.write_bytes(content)
    config._recipe.cache_clear()
    found = accepted(config.load_recipe, path)
    assert found is None or isinstance(found, config.Recipe)


@given(wild_texts)
@example("x" * 300)
@example("x" * 300 + ".yaml")
@example("a\nb")
@example("\0.yaml")
def test_any_name_of_a_recipe_or_assignment_is_known_or_refused_in_one_sentence(name):
    recipe, assignment = accepted(config.load_recipe, name), accepted(assignments.load, name)
    assert recipe is None or isinstance(recipe, config.Recipe)
    assert assignment is None or isinstance(assignment, assignments.Assignment)


SECTIONS = {
    "model": config.Model, "data": config.Data, "prompt": config.Prompt, "lengths": config.Lengths, "generation": config.Generation,
    "full": config.Training, "lora": config.Adapter, "qlora": config.Adapter, "publishing": config.Publishing, "": config.Recipe,
}  # fmt: skip
FIELDS = [(section, field) for section, model in SECTIONS.items() for field in model.model_fields]


def with_value(section, field, value):
    """The tiny recipe with one value replaced."""
    return RECIPE | ({section: (RECIPE[section] or {"learning_rate": 1e-3}) | {field: value}} if section else {field: value})


@pytest.mark.parametrize("section, field", FIELDS, ids=[".".join(filter(None, place)) for place in FIELDS])
def test_a_wrong_type_is_told_with_the_fields_name_and_what_is_accepted(section, field):
    with pytest.raises(LabError) as caught:
        fields.build(config.Recipe, with_value(section, field, [[1]]), "recipe mine.yaml")
    message = str(caught.value)
    assert one_line(message) and f"{section}.{field}".strip(".") in message
    assert "expected" in message or "should be" in message


@given(st.sampled_from(FIELDS), values)
@settings(max_examples=400)
@example(("", "omitted"), {"full": "has {parameters} of {memory} {0} {"})
@example(("publishing", "publish_to"), ["hf_aTokenPastedByMistake"])
def test_any_value_of_any_field_is_kept_or_refused_in_one_sentence(place, value):
    recipe = accepted(fields.build, config.Recipe, with_value(*place, value), "recipe mine.yaml")
    if recipe is not None:
        assert fields.build(config.Recipe, json.loads(json.dumps(recipe.model_dump())), "recipe") == recipe
        assert one_line(config.why_not(recipe, "full").replace("\n", " "))


@given(st.text("abcdefghij", min_size=20, max_size=30))
def test_a_token_pasted_where_to_publish_stands_is_not_repeated(secret):
    """Of any kind: those of the hub are known by how they begin."""
    for value in (secret, [secret], {"token": secret}):
        for publishing in (value, {"publish_to": value}):
            with pytest.raises(LabError) as caught:
                fields.build(config.Recipe, RECIPE | {"publishing": publishing}, "recipe mine.yaml")
            assert secret not in str(caught.value)


# --- parameters

NAMES = sorted(config.recipe_parameters())


@given(st.sampled_from(config.METHODS), st.dictionaries(st.sampled_from(NAMES), values, max_size=3), st.one_of(st.integers(), values))
@settings(max_examples=400)
@example("lora", {}, 2**32)
@example("lora", {"epochs": 1e308, "batch_size": 10**30}, 0)
@example("lora", {"target_modules": 7}, 0)
@example("lora", {"batch_size": True}, 0)
@example("lora", {"data_dir": "\ud800"}, 0)
def test_any_value_of_any_parameter_lasts_or_is_refused_in_one_sentence(method, parameters, seed):
    found = accepted(config.resolve, "tiny-causal", method, seed, **parameters)
    assert found is None or lasts(found)


@pytest.mark.parametrize("name", ["rank", "alpha", "seed", "model", "model_dir", "data_dir", "keep_overlaps", "target_modules", "schedule"])
def test_a_number_with_more_digits_than_python_writes_is_refused_in_one_sentence(name):
    """Hypothesis cannot write it either, so that it is no strategy's."""
    assert accepted(config.resolve, "tiny-causal", "lora", **{name: 10**5000}) is None
    assert accepted(config.resolve, "tiny-causal", "lora", **{name: [10**5000]}) is None
    assert course.fit("seed", "x", 0)[1] and course.fit(name, [10**5000], "text")[1]


@given(wild_texts)
def test_any_unknown_parameter_is_refused_in_one_sentence(name):
    if name not in NAMES:
        assert accepted(config.resolve, "tiny-causal", "lora", **{name: 1}) is None


@given(st.sampled_from(course.NOTEBOOKS), st.data())
@settings(max_examples=300)
def test_any_value_of_any_notebooks_parameter_is_filled_in_or_refused_in_one_sentence(notebook, data):
    own = sorted(course.parameters_of(notebook))
    layer = data.draw(st.dictionaries(st.sampled_from(own), values, max_size=3))
    found = accepted(course.filled, notebook, [{"recipe": "tiny-causal"}, layer])
    if found is not None:
        assert found.keys() == set(own)
        assert lasts(course.settings(notebook, found))
        assert course.filled(notebook, [found]) == found


@given(st.lists(st.builds("{}={}".format, st.sampled_from(["seed", "rank", "x"]), yaml_texts) | wild_texts, max_size=3))
@settings(max_examples=200)
@example(["a\nb"])
@example(["a\nb=["])
def test_any_words_of_the_command_line_are_parameters_or_one_sentence(words):
    found = accepted(runner.parse_assignments, words)
    assert found is None or all(isinstance(name, str) for name in found)


# --- assignments

SHEET = {"title": "Week", "recipe": "tiny-causal"}
tame = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**40) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
own = st.dictionaries(st.sampled_from(NAMES), tame, max_size=2)
recipes = st.lists(st.sampled_from(["tiny-causal", "phi-2-dialogsum", "x" * 300]), max_size=2)
likely = {
    "hand_out": st.lists(st.sampled_from([1, "01", "03_lora", 5, "six"]), max_size=3),
    "common": st.dictionaries(st.sampled_from([*NAMES, "seed", "recipe", "student", "run_dir"]), tame, max_size=3),
    "notebooks": st.dictionaries(st.sampled_from(["1", "03", "05_evaluation", "x"]), own, max_size=2),
    "vary": st.fixed_dictionaries({"salt": written_texts}, optional={"seed": st.integers(-1, 99), "recipes": recipes}),
    "extends": texts,
    "exercises": st.lists(texts | st.just("merge"), max_size=2),
}


@given(st.sampled_from(sorted(assignment_file.Sheet.model_fields)), st.data())
@settings(max_examples=200)
def test_any_assignment_is_read_or_refused_with_its_file(folder, field, data):
    value = data.draw(tame | likely[field] if field in likely else tame)
    path = folder / "week.yaml"
    path.write_text(json.dumps(SHEET | {field: value}), encoding="utf-8")
    try:
        assignment = assignments.load(path)
    except LabError as error:
        head, *problems = str(error).split("\n")
        assert "week.yaml" in head and all(line.startswith("  ") for line in problems)
        return
    assert [lasts(found) for found in assignment.settings().values()].count(False) == 0


@pytest.fixture(scope="module")
def varied(load_assignment):
    return load_assignment("title: Week\ncommon: {train_examples: 8}\nvary: {salt: pepper, seed: 50, data_seed: 7}\n")


@given(student=wild_texts)
@example(student="\udcff")
def test_whoever_the_student_is_the_values_are_in_range_and_the_same_again(varied, student):
    first, again = varied.values(student), varied.values(f" {student.upper().lower()} " if student.isascii() else student)
    assert first == again or not student.isascii() or first["03_lora"]["student"] != again["03_lora"]["student"]
    if student.strip():
        assert 0 <= first["03_lora"]["seed"] < 50 and 0 <= first["03_lora"]["data_seed"] < 7
