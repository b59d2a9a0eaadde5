"""Recipes, settings and assignments: what is accepted, and how a mistake is named."""

import copy
import subprocess
import sys

import pytest
import yaml
from pydantic import ValidationError

from lab_utils import config
from lab_utils.config import (
    Adapter,
    Data,
    Generation,
    Lengths,
    Publishing,
    Recipe,
    Settings,
    Training,
    load_recipe,
    resolve,
)
from lab_utils.errors import LabError

VALID = {
    "title": "a toy",
    "model": {"source": "random:causal", "label": "toy", "family": "causal"},
    "data": {"source": "everyday"},
    "prompt": {"style": "chat", "instruction": "Summarize."},
    "lengths": {"document_tokens": 100},
    "generation": {"max_new_tokens": 8},
    "full": {"learning_rate": 1e-3},
    "lora": {"learning_rate": 1e-2, "rank": 4},
    "qlora": {"learning_rate": 1e-2, "rank": 4, "quantization": "nf4"},
}


def numbers_of(section: str, model) -> list[str]:
    """Dotted names of a section's numeric fields, as a recipe file spells them."""
    fields = model.model_json_schema()["properties"].items()
    numeric = [name for name, field in fields if {"integer", "number"} & {c.get("type") for c in [field, *field.get("anyOf", [])]}]
    return [f"{section}.{name}".lstrip(".") for name in numeric]


SECTIONS = {"": Recipe, "data": Data, "lengths": Lengths, "generation": Generation, "full": Training, "lora": Adapter}
NUMBERS = [name for section, model in SECTIONS.items() for name in numbers_of(section, model)]


@pytest.fixture
def recipe_file(tmp_path):
    """Writes a valid recipe with some places changed (`{"lora.rank": 0}`; None removes the place); returns its path."""

    def write(changes=None):
        values = copy.deepcopy(VALID)
        for place, value in (changes or {}).items():
            *parents, last = place.split(".")
            section = values
            for parent in parents:
                section = section[parent]
            section[last] = value
            if value is None:
                del section[last]
        path = tmp_path / "toy.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return str(path)

    return write


def refusal(call, *arguments, **parameters) -> str:
    with pytest.raises(LabError) as caught:
        call(*arguments, **parameters)
    return str(caught.value)


# Recipe files


@pytest.mark.parametrize("name", config.recipe_names())
def test_every_packaged_recipe_loads_under_its_own_name(name):
    assert load_recipe(name).name == name


@pytest.mark.parametrize("name", config.recipe_names())
def test_every_method_of_every_packaged_recipe_resolves(name):
    methods = load_recipe(name).methods
    assert [resolve(name, method).method for method in methods] == methods


def test_the_numeric_fields_are_found():
    assert {"minutes", "data.train_examples", "lengths.document_tokens", "full.learning_rate", "lora.rank", "lora.alpha"} <= set(NUMBERS)


def test_a_recipe_file_is_named_after_itself_and_states_only_what_differs(recipe_file):
    recipe = load_recipe(recipe_file())
    assert recipe.name == "toy"
    assert recipe.lengths.document_tokens == 100
    assert recipe.lengths.summary_tokens == Lengths().summary_tokens
    assert recipe.methods == ["zero_shot", "full", "lora", "qlora"]


@pytest.mark.parametrize(
    ("place", "meant"),
    [
        ("titel", "title"),
        ("model.sourse", "source"),
        ("data.train_example", "train_examples"),
        ("prompt.instructions", "instruction"),
        ("lengths.document_token", "document_tokens"),
        ("generation.max_tokens", "max_new_tokens"),
        ("full.learning_rte", "learning_rate"),
        ("lora.ranks", "rank"),
        ("qlora.quantisation", "quantization"),
    ],
)
def test_an_unknown_name_is_refused_at_every_level_with_the_nearest_known_one(recipe_file, place, meant):
    assert f"unknown name '{place}', did you mean '{meant}'?" in refusal(load_recipe, recipe_file({place: 1}))


def test_an_adapters_field_is_unknown_to_full_fine_tuning(recipe_file):
    assert "unknown name 'full.rank'" in refusal(load_recipe, recipe_file({"full.rank": 4}))


def test_every_problem_stands_in_one_message(recipe_file):
    changes = {"title": None, "model.family": "decoder", "lengths.document_tokens": -1, "lora.rnak": 8, "full.schedule": "cosinus"}
    message = refusal(load_recipe, recipe_file(changes))
    assert "'title' is missing" in message
    assert "model.family: input should be 'causal' or 'seq2seq', got 'decoder'" in message
    assert "lengths.document_tokens: input should be greater than or equal to 1, got -1" in message
    assert "unknown name 'lora.rnak'" in message
    assert "full.schedule" in message and "'cosinus'" in message
    assert "toy.yaml" in message


def test_an_exponent_that_yaml_reads_as_text_is_the_number(recipe_file):
    assert yaml.safe_load("2e-4") == "2e-4"
    assert load_recipe(recipe_file({"lora.learning_rate": "2e-4"})).lora.learning_rate == 0.0002


@pytest.mark.parametrize("place", NUMBERS)
def test_true_is_not_a_number(recipe_file, place):
    assert f"{place}: expected a number, got true" in refusal(load_recipe, recipe_file({place: True}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "nan", "inf"])
@pytest.mark.parametrize("place", NUMBERS)
def test_nan_and_infinity_are_refused(recipe_file, place, value):
    assert f"{place}: " in refusal(load_recipe, recipe_file({place: value}))


@pytest.mark.parametrize("place", NUMBERS)
def test_a_negative_number_is_refused(recipe_file, place):
    message = refusal(load_recipe, recipe_file({place: -1}))
    assert f"{place}: input should be greater than" in message and "got -1" in message


@pytest.mark.parametrize("place", ["full.learning_rate", "full.epochs", "full.batch_size", "lora.rank", "data.test_examples"])
def test_zero_is_refused_where_it_would_leave_nothing_to_do(recipe_file, place):
    assert f"{place}: " in refusal(load_recipe, recipe_file({place: 0}))


def test_a_count_is_a_whole_number(recipe_file):
    assert "lora.rank: " in refusal(load_recipe, recipe_file({"lora.rank": 2.5}))


def test_dropout_of_everything_is_refused(recipe_file):
    assert "lora.dropout: " in refusal(load_recipe, recipe_file({"lora.dropout": 1.0}))


def test_a_plain_prompt_has_no_system_message(recipe_file):
    message = refusal(load_recipe, recipe_file({"prompt.style": "plain", "prompt.system": "You summarize."}))
    assert "prompt: a plain prompt has no system message" in message


def test_a_batch_is_a_multiple_of_the_micro_batch(recipe_file):
    message = refusal(load_recipe, recipe_file({"full.batch_size": 6, "full.micro_batch": 4}))
    assert "full: batch_size 6 is not a multiple of micro_batch 4" in message
    assert load_recipe(recipe_file({"full.batch_size": 6, "full.micro_batch": 3})).full.micro_batch == 3


def test_an_unknown_recipe_is_named_with_the_nearest_one_or_else_with_all():
    assert "'smollm2-everday', did you mean 'smollm2-everyday'?" in refusal(load_recipe, "smollm2-everday")
    assert all(name in refusal(load_recipe, "mine") for name in config.recipe_names())


def test_a_recipe_file_that_is_absent_is_named(tmp_path):
    assert "absent.yaml" in refusal(load_recipe, str(tmp_path / "absent.yaml"))


def test_broken_yaml_is_refused_with_its_line(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("title: a toy\nmodel: {source: x\nprompt: [", encoding="utf-8")
    message = refusal(load_recipe, str(path))
    assert "broken.yaml, line 3" in message or "broken.yaml, line 4" in message


def test_a_yaml_file_without_names_is_refused(tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text("- title\n- model\n", encoding="utf-8")
    assert "list.yaml must hold 'name: value' lines; found one list" in refusal(load_recipe, str(path))


# resolve


def test_none_keeps_the_recipes_value():
    parameters = dict.fromkeys(config.recipe_parameters())
    assert resolve("tiny-causal", "lora", **parameters) == resolve("tiny-causal", "lora")


def test_an_override_reaches_the_methods_own_section_and_no_other():
    before, after = load_recipe("tiny-causal"), resolve("tiny-causal", "lora", rank=2, learning_rate=0.5).recipe
    assert (after.lora.rank, after.lora.learning_rate) == (2, 0.5)
    assert after.qlora == before.qlora and after.full == before.full
    assert after.lora.alpha == before.lora.alpha


def test_overrides_reach_data_lengths_and_generation():
    recipe = resolve("tiny-causal", "zero_shot", train_examples=3, document_tokens=50, max_new_tokens=5).recipe
    assert (recipe.data.train_examples, recipe.lengths.document_tokens, recipe.generation.max_new_tokens) == (3, 50, 5)


def test_another_model_or_data_folder_replaces_the_source_and_the_model_is_named_after_its_folder():
    recipe = resolve("tiny-causal", "zero_shot", model_dir="some/where/my-model", data_dir="my/data").recipe
    assert (recipe.model.source, recipe.model.label, recipe.data.source) == ("some/where/my-model", "my-model", "my/data")


def test_no_field_name_stands_in_two_sections():
    """Else a parameter of that name would mean two places. The sources have names of their own."""
    places = [name for section in (Data, Lengths, Generation, Publishing, Adapter) for name in section.model_fields if name != "source"]
    assert len(places) == len(set(places))
    renamed = {"model", "model_dir", "model_revision", "precision", "data", "data_dir"}
    assert {*places, *renamed} == set(config.recipe_parameters()) and renamed.isdisjoint(places)
    assert set(Adapter.model_fields) >= set(Training.model_fields)


@pytest.mark.parametrize("order", [1, -1])
def test_a_folder_outranks_a_hub_id_in_either_order(order):
    """`model_dir` says where the weights of `model` lie; label and prompt stay those of the model that was chosen."""
    given = {"model": "google/gemma-2b-it", "model_dir": "here/gemma", "data": "me/chats", "data_dir": "here/chats"}
    recipe = resolve("tinyllama-cnn-dailymail", "lora", **dict(list(given.items())[::order])).recipe
    assert (recipe.model.source, recipe.data.source) == ("here/gemma", "here/chats")
    assert recipe.prompt == resolve("tinyllama-cnn-dailymail", "lora", model="google/gemma-2b-it").recipe.prompt


def test_another_model_of_the_recipe_brings_its_label_and_prompt(recipe_file):
    choice = {"label": "Another (2B)", "prompt": {"style": "plain", "instruction": "Sum up."}}
    path = recipe_file({"models": {"me/another": choice, "me/third": {"label": "Third"}}})
    another, third, unknown = (resolve(path, "lora", model=f"me/{name}").recipe for name in ("another", "third", "unknown"))
    assert (another.model.source, another.model.label, another.prompt.instruction) == ("me/another", "Another (2B)", "Sum up.")
    assert (third.model.label, third.prompt.instruction) == ("Third", "Summarize.")
    assert (unknown.model.label, unknown.prompt.instruction) == ("unknown", "Summarize.")


def test_revision_and_precision_of_the_model_are_parameters():
    model = resolve("tiny-causal", "lora", model_revision="v2", precision="float32").recipe.model
    assert (model.revision, model.precision) == ("v2", "float32")
    assert "recipe.model.precision: input should be 'auto', " in refusal(resolve, "tiny-causal", "lora", precision="float8")


@pytest.mark.parametrize("name", ["keep_overlaps", "activation_checkpointing", "tensorboard", "dora", "rslora", "pissa", "publish_merged"])
def test_a_switch_is_true_or_false(name):
    settings = resolve("tiny-causal", "lora", **{name: True})
    assert f"'{name}': True" in str(settings.model_dump())
    assert f".{name}: " in refusal(resolve, "tiny-causal", "lora", **{name: 1})
    assert f".{name}: " in refusal(resolve, "tiny-causal", "lora", **{name: "yes"})


@pytest.mark.parametrize("value", ["somebody", "a/b/c", "owner/na me", "-/../x"])
def test_where_to_publish_is_owner_and_name_and_what_was_given_is_not_repeated(value):
    """It may be a token, pasted by mistake."""
    message = refusal(resolve, "tiny-causal", "lora", publish_to=value)
    assert "expected 'owner/name'" in message and "HF_TOKEN" in message and value not in message


@pytest.mark.parametrize(("field", "value"), [("test_from", "train"), ("data_seed", -1), ("data_seed", True), ("train_examples", 0)])
def test_data_parameters_that_do_not_fit_are_refused(field, value):
    assert f"recipe.data.{field}: " in refusal(resolve, "tiny-causal", "lora", **{field: value})


def test_a_method_that_is_left_out_says_why(recipe_file):
    path = recipe_file({"full": None, "omitted": {"full": "too large for 16 GB"}})
    message = refusal(resolve, path, "full")
    assert message == "Recipe 'toy' offers no full: too large for 16 GB; choose one of zero_shot, lora, qlora."
    assert "omitted" in refusal(load_recipe, recipe_file({"omitted": {"fulll": "no"}}))


def test_the_reason_holds_the_plans_figures():
    assert "11,135,332,352 " in refusal(resolve, "flan-t5-xxl-samsum-int8", "full")


def test_an_override_does_not_leak_into_the_next_call():
    resolve("tiny-causal", "lora", rank=2)
    assert resolve("tiny-causal", "lora").training.rank == load_recipe("tiny-causal").lora.rank


def test_an_override_may_be_an_exponent_read_as_text():
    assert resolve("tiny-causal", "lora", learning_rate="2e-4").training.learning_rate == 0.0002


def test_an_override_that_does_not_fit_is_refused_like_the_recipes_value():
    message = refusal(resolve, "tiny-causal", "lora", rank=True, dropout=float("nan"), alpha=-1)
    assert all(f"recipe.lora.{name}: " in message for name in ("rank", "dropout", "alpha"))


def test_an_unknown_method_is_named_with_the_nearest_one():
    assert "'lorra', did you mean 'lora'?" in refusal(resolve, "tiny-causal", "lorra")


def test_an_unknown_parameter_is_named_with_the_nearest_one_even_when_it_is_none():
    assert "'learning_rat', did you mean 'learning_rate'?" in refusal(resolve, "tiny-causal", "lora", learning_rat=None)


def test_an_unknown_recipe_is_named_by_resolve_too():
    assert "'tiny-casual', did you mean 'tiny-causal'?" in refusal(resolve, "tiny-casual", "lora")


def test_a_method_that_the_recipe_does_not_offer_is_refused_with_those_it_offers(recipe_file):
    message = refusal(resolve, recipe_file({"qlora": None}), "qlora")
    assert "offers no qlora; choose one of zero_shot, full, lora" in message


@pytest.mark.parametrize(("method", "parameter"), [("zero_shot", "learning_rate"), ("full", "rank"), ("full", "quantization")])
def test_a_parameter_of_another_method_is_refused(method, parameter):
    assert f"Parameter '{parameter}' does not apply to {method}" in refusal(resolve, "tiny-causal", method, **{parameter: 1})


def test_a_batch_that_the_recipes_micro_batch_does_not_fill_goes_in_its_largest_equal_parts():
    training = resolve("tiny-causal", "full", batch_size=6).training
    assert (training.batch_size, training.micro_batch) == (6, 2)


@pytest.mark.parametrize("names", [("batch_size", "micro_batch"), ("micro_batch", "batch_size")])
def test_a_batch_and_a_micro_batch_given_together_must_fit_in_either_order(names):
    values = {"batch_size": 6, "micro_batch": 4}
    message = refusal(resolve, "tiny-causal", "full", **{name: values[name] for name in names})
    assert "batch_size 6 is not a multiple of micro_batch 4" in message


@pytest.mark.parametrize("micro_batch", [0, "two"])
@pytest.mark.parametrize("names", [("batch_size", "micro_batch"), ("micro_batch", "batch_size")])
def test_a_micro_batch_that_is_no_count_is_refused_in_either_order(names, micro_batch):
    values = {"batch_size": 6, "micro_batch": micro_batch}
    assert "micro_batch: " in refusal(resolve, "tiny-causal", "full", **{name: values[name] for name in names})


@pytest.mark.parametrize("seed", [-1, True, 1.5])
def test_a_seed_is_a_whole_number_from_zero_on(seed):
    assert "seed: " in refusal(resolve, "tiny-causal", "lora", seed)
    assert resolve("tiny-causal", "lora", 7).seed == 7


def test_settings_know_their_quantization():
    found = {method: resolve("tiny-causal", method).quantization for method in config.METHODS}
    assert found == {"zero_shot": "none", "full": "none", "lora": "none", "qlora": "nf4"}
    assert resolve("tiny-causal", "lora", quantization="int8").quantization == "int8"


def test_settings_survive_the_way_through_a_record():
    settings = resolve("tiny-seq2seq", "qlora", 3, rank=2, target_modules=["q", "v"])
    assert Settings.model_validate(settings.model_dump(mode="json")) == settings


def test_settings_cannot_be_changed_after_they_were_checked():
    with pytest.raises(ValidationError):
        resolve("tiny-causal", "lora").training.rank = 0


# What need not be installed to read a recipe

REFUSE_HEAVY = """
import sys
{code}
heavy = {{"torch", "transformers", "pandas", "matplotlib"}} & set(sys.modules)
assert not heavy, heavy
"""
RUN_COMMAND = """
from lab_utils.cli import main
try:
    code = main({arguments})
except SystemExit as stop:
    code = stop.code
assert not code, code
"""


@pytest.mark.parametrize(
    "code",
    ["import lab_utils.config, lab_utils.cli", *(RUN_COMMAND.format(arguments=a) for a in (["--help"], ["run", "--help"], ["recipes"]))],
    ids=["import", "help", "run-help", "recipes"],
)
def test_recipes_and_help_do_not_load_torch(code):
    done = subprocess.run([sys.executable, "-c", REFUSE_HEAVY.format(code=code)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_the_recipes_command_lists_every_recipe():
    done = subprocess.run([sys.executable, "-m", "lab_utils", "recipes"], capture_output=True, text=True, timeout=60)
    listed = [line.split()[0] for line in done.stdout.splitlines()]
    assert set(config.recipe_names()) <= set(listed)
