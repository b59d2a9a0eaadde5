"""Every recipe, on a shrunken model of its own architecture and data in its own layout: all its methods, all its notebooks."""

import subprocess
import sys
from functools import cache

import pytest
import shrunken

from lab_utils import config, course, data, methods, prompts, runs

KINDS = {
    "flan-t5-base-dialogsum": "flan-t5",
    "flan-t5-base-dialogsum-r8": "flan-t5",
    "flan-t5-large-samsum": "flan-t5",
    "flan-t5-xxl-samsum-int8": "flan-t5",
    "phi-2-dialogsum": "phi",
    "qwen3-0.6b-dialogsum": "qwen3",
    "smollm2-dialogsum": "smollm2",
    "tinyllama-cnn-dailymail": "tinyllama",
}
# Shrunken they differ from a neighbour in a setting or two; the third is run whole, as smollm2-everyday.
AS_ANOTHER = ("flan-t5-base-dialogsum-r8", "flan-t5-large-samsum", "smollm2-dialogsum")
EACH = pytest.mark.parametrize("recipe", [pytest.param(name, marks=pytest.mark.course if name in AS_ANOTHER else ()) for name in KINDS])
OTHER_MODELS = {"google/gemma-2b-it": "gemma", "microsoft/phi-2": "phi", "mistralai/Mistral-7B-Instruct-v0.2": "mistral"}
OFFLINE = ["smollm2-everyday", "tiny-causal", "tiny-seq2seq"]  # run as they are in other tests
SMALL = {"train_examples": 8, "validation_examples": 2, "test_examples": 3, "epochs": 1.0}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Shrunken models and data, built once."""
    folder = tmp_path_factory.mktemp("shrunken")
    for kind in shrunken.KINDS:
        shrunken.build(kind, folder / kind)
    shrunken.dialogues(folder / "dialogues")
    shrunken.articles(folder / "articles")
    return folder


def parameters_of(recipe, place, model=None):
    """What turns a recipe into its shrunken self; `model` is another one of its models."""
    kind = OTHER_MODELS[model] if model else KINDS[recipe]
    layout = "articles" if config.load_recipe(recipe).data.source == "abisee/cnn_dailymail" else "dialogues"
    chosen = {"model": model} if model else {}
    return {"model_dir": str(place / kind), "data_dir": str(place / layout), **SMALL, **chosen}


@pytest.fixture(scope="module")
def executed(place, tmp_path_factory):
    """Runs a recipe's notebooks, once; gives the finished process and its run directory."""

    @cache
    def run(recipe):
        out = tmp_path_factory.mktemp(recipe)
        words = [f"-p{name}={value}" for name, value in parameters_of(recipe, place).items()]
        command = [sys.executable, "-m", "lab_utils", "run", "--recipe", recipe, "--out", str(out), *words]
        return subprocess.run(command, cwd=course.root(), capture_output=True, text=True), out

    return run


def test_no_recipe_is_left_out():
    assert set(config.recipe_names()) == {*KINDS, *OFFLINE}
    assert set(OTHER_MODELS) == set(config.load_recipe("tinyllama-cnn-dailymail").models)


@pytest.mark.notebook
@EACH
def test_every_notebook_runs_and_every_method_finishes(executed, recipe):
    done, out = executed(recipe)
    assert done.returncode == 0, done.stdout + done.stderr
    offered = config.load_recipe(recipe).methods
    assert [run.method for run in runs.read_all(out)] == offered
    expected = {n.name for n in course.NOTEBOOKS if n.method in (None, *offered)}
    assert {path.stem for path in out.glob("*.ipynb")} == expected
    assert (out / "report.html").is_file()


@pytest.mark.notebook
@EACH
def test_a_notebook_whose_method_is_not_offered_is_left_out_with_the_reason(executed, recipe):
    done, _ = executed(recipe)
    for notebook in course.NOTEBOOKS:
        left_out = notebook.method is not None and notebook.method not in config.load_recipe(recipe).methods
        assert (f"{notebook.name} is left out. Recipe '{recipe}' offers no {notebook.method}: " in done.stdout) == left_out


@pytest.mark.parametrize("method", ["lora", "qlora"])
@pytest.mark.parametrize("model", OTHER_MODELS)
def test_a_recipes_other_models_train_and_answer(place, tmp_path, model, method):
    recipe = "tinyllama-cnn-dailymail"
    record = methods.run(config.resolve(recipe, method, 0, **parameters_of(recipe, place, model)), tmp_path).record
    assert record["status"] == "finished"
    assert record["training"]["examples"] == SMALL["train_examples"]


@pytest.mark.parametrize("model", [None, *OTHER_MODELS])
def test_another_model_brings_the_prompt_that_it_was_trained_to_read(place, model):
    from transformers import AutoTokenizer

    recipe = "tinyllama-cnn-dailymail"
    values = parameters_of(recipe, place, model)
    settings = config.resolve(recipe, "zero_shot", 0, **{k: v for k, v in values.items() if k != "epochs"})
    tokenizer = AutoTokenizer.from_pretrained(values["model_dir"])
    document = data.load(settings.recipe.data).test[0].document
    text = prompts.prompt_text(tokenizer, settings.recipe.prompt, document)
    assert {None: "<|user|>", "google/gemma-2b-it": "<start_of_turn>user", "microsoft/phi-2": "Instruct:"}.get(model, "[INST]") in text


@pytest.mark.parametrize("recipe", [*KINDS, *OFFLINE])
def test_a_recipe_says_what_it_does_not_offer(recipe):
    loaded = config.load_recipe(recipe)
    assert set(loaded.methods) | set(loaded.omitted) == set(config.METHODS)
    for method in loaded.omitted:
        assert "{" not in config.why_not(loaded, method)
