"""About how many minutes a notebook computes: from its settings, the lengths of its texts, and what the lab has measured."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab_utils import architectures, config, course, data, fields, pace
from lab_utils import plan as planning
from lab_utils.config import Settings
from lab_utils.course import Notebook
from lab_utils.devices import Device
from lab_utils.errors import LabError
from lab_utils.needs import PROMPT_TOKENS, SPLIT_SIZES, Needs

# The machine of the recorded bench and its rates there ("products-..."), for minutes where no other machine was measured.
BENCH = Device("2 CPU cores without GPU", 25.3)
BENCH_RATES = {"bfloat16": pace.Rates(3.85e11, 2.74e9), "float32": pace.Rates(1.60e11, 4.39e9)}
# Characters of a token, counted with SmolLM2's tokenizer in packaged dialogues and summaries (their lengths are in the bench's record).
DOCUMENT_CHARACTERS, SUMMARY_CHARACTERS = 3.2, 3.9
CHECKPOINTING = 1.4  # seconds of a step, in those without it (the bench's ablation)
COMPILING = 112.0  # seconds before the first compiled step (the same)
LOADING = 2.5e8  # bytes of a checkpoint a second that are read, hashed and converted; assumed
VALIDATIONS = 3  # passes over the validation documents: before training, half-way, at its end
COMPARED_BASES = 3  # that notebook 04 asks: not quantized, int8, NF4


@dataclass(frozen=True)
class Around:
    """What a notebook does besides training, its test documents, and the experiments that have parameters: counted in its cells.

    The seconds are what was left of the recorded course, whose notebooks' times the bench keeps.
    """

    loads: int  # models
    summaries: int  # of one document each
    readings: int  # documents whose loss is asked for
    seconds: float  # kernel, imports, models of a few thousand weights, checks, scores, figures


AROUND = {
    "zero_shot": Around(1, 4, 0, 20),
    "full": Around(2, 2, 8, 25),
    "lora": Around(3, 6, 12, 25),
    "qlora": Around(4, 4, 20, 35),
    None: Around(0, 0, 0, 33),
}


@dataclass(frozen=True)
class Task:
    """A notebook that will run: its parameters, and the settings that they come to."""

    notebook: Notebook
    values: Mapping[str, Any]
    settings: Settings


def task_of(notebook: Notebook, values: Mapping[str, Any]) -> Task:
    return Task(notebook, values, course.settings(notebook, values))


def holds(needs: Needs) -> bool:
    """Whether the device computes what was asked for, one example at a time if need be: batches become smaller by themselves."""
    usable = planning.USABLE * needs.device.memory_gb
    accepted = needs.settings.recipe.model.precision in ("auto", needs.precision)
    trained = not needs.trains or needs.largest_micro_batch(usable) > 0
    return accepted and trained and needs.largest_generation_batch(usable) > 0


@dataclass(frozen=True)
class Texts:
    """How many documents there are (None: not known without the data), and the tokens of an average one."""

    train: int | None
    validation: int | None
    test: int | None
    prompt: int
    answer: int
    measured: bool  # whether the tokens are those of the texts


def _texts(spec: config.Data, lengths: config.Lengths) -> Texts:
    """Of the data itself where it is on this machine; else published numbers, and lengths half of the limits."""
    if spec.source == "everyday" or Path(spec.source).exists():
        corpus = data.load(spec)
        numbers = (len(corpus.train), len(corpus.validation), len(corpus.test))
        documents = [one.document for one in (*corpus.train, *corpus.test)]
        prompt = PROMPT_TOKENS + _average(documents, DOCUMENT_CHARACTERS, lengths.document_tokens)
        answer = 1 + _average([one.summary for one in corpus.train], SUMMARY_CHARACTERS, lengths.summary_tokens)  # and the end token
        return Texts(*numbers, prompt, answer, True)
    wanted = (spec.train_examples, spec.validation_examples, spec.test_examples)
    published = SPLIT_SIZES.get(spec.source, wanted)
    numbers = (one if limit is None else min(one, limit) for one, limit in zip(published, wanted, strict=True))
    return Texts(*numbers, PROMPT_TOKENS + lengths.document_tokens // 2, 1 + lengths.summary_tokens // 2, False)


def _average(texts: Sequence[str], characters: float, limit: int) -> int:
    return round(sum(min(len(text) / characters, limit) for text in texts) / len(texts))


class Clock:
    """Counts minutes: those of a device whose rates are known, else those of the bench's machine."""

    def __init__(self, device: Device, rates: pace.Rates | None):
        self.device, self.rates = (device, rates) if rates else (BENCH, None)
        self._texts, self._course = functools.cache(_texts), functools.cache(self._measured_course)

    def texts(self, settings: Settings) -> Texts:
        return self._texts(settings.recipe.data, settings.recipe.lengths)

    def steps(self, settings: Settings) -> int | None:
        examples = self.texts(settings).train
        return planning.optimizer_steps(settings, examples) if settings.training and examples else None

    def minutes(self, task: Task) -> float | None:
        """About how long a notebook computes; None where that is not known, or where its model is too large for the machine."""
        seconds, own = self._seconds(task), self._course(task.values["recipe"])
        scale = 60 * task.settings.recipe.minutes / sum(own.values()) if own else 1.0
        return None if seconds is None else scale * seconds / 60

    def notes(self, tasks: Sequence[Task]) -> list[str]:
        """Where the minutes come from, in sentences."""
        found, seconds = [], {task.notebook.name: self._seconds(task) for task in tasks}
        for task in tasks:
            recipe, own = task.settings.recipe, self._course(task.values["recipe"])
            if self.rates:
                found.append(f"Minutes are estimated from what {self.device.name} was measured to do at most.")
            elif not own:
                found.append(
                    f"Minutes are estimated for {BENCH.name}, where {recipe.name} was not measured; a GPU takes a small part of that."
                )
            elif seconds == own:
                found.append(f"Measured by the lab on {BENCH.name}: {recipe.minutes:g} minutes in all; the shares are estimated.")
            else:
                found.append(f"Minutes are estimated for {BENCH.name}, where the recipe's own values take {recipe.minutes:g} in all.")
        if not all(self.texts(task.settings).measured for task in tasks):
            found.append("Texts that are not on this machine are taken to be half as long as the limits allow.")
        return list(dict.fromkeys(found))

    def _measured_course(self, recipe: str) -> dict[str, float]:
        """Seconds, as counted here, of each notebook that was measured with the recipe's own values; none where rates are known."""
        chosen = config.load_recipe(recipe)
        if self.rates or not chosen.minutes:
            return {}
        notebooks = course.offered(course.NOTEBOOKS, chosen)
        own = {notebook.name: self._seconds(task_of(notebook, course.filled(notebook, [{"recipe": recipe}]))) for notebook in notebooks}
        return {} if None in own.values() else own

    def _seconds(self, task: Task) -> float | None:
        method, values, settings = task.notebook.method, task.values, task.settings
        around = AROUND[method]
        if method is None:
            return around.seconds
        texts, needs = self.texts(settings), self._needs(settings)
        if needs is None or None in ((texts.train, texts.validation, texts.test) if needs.trains else (texts.test,)):
            return None
        rates, new = self.rates or BENCH_RATES[needs.precision], settings.recipe.generation.max_new_tokens
        reading = pace.reading_seconds(needs, rates, texts.prompt, texts.answer)

        def summaries(count: int, shots: int = 0) -> float:
            worked = shots * (texts.prompt - PROMPT_TOKENS + texts.answer)
            return pace.generation_seconds(needs, rates, count, texts.prompt + worked, new)

        seconds = around.seconds + around.loads * 4 * needs.shape.parameters / LOADING + around.readings * reading
        seconds += around.summaries * summaries(1) + summaries(texts.test)
        if method == "zero_shot":
            return seconds + sum(summaries(values["prompt_examples"], shots) for shots in values["shots_tried"])
        step = _step_seconds(needs, rates, texts)
        seconds += self.steps(settings) * step + VALIDATIONS * texts.validation * reading
        if settings.training.compile:
            seconds += COMPILING
        if method == "full":
            return seconds + values["hand_steps"] * step * settings.training.micro_batch / settings.training.batch_size
        if method == "lora":
            return seconds + len(values["sweep_ranks"]) * (values["sweep_steps"] * step + values["sweep_validation"] * reading)
        compared = values["quantization_examples"]
        return seconds + COMPARED_BASES * (summaries(compared) + compared * reading)

    def _needs(self, settings: Settings) -> Needs | None:
        """What the run needs of the clock's machine; None where that is not known, or more than it has."""
        try:
            shape = architectures.shape_of(settings.recipe.model.source)
        except LabError:  # the notebook's row says so
            return None
        on_bench = "float32" if settings.recipe.model.precision == "float32" else "bfloat16"
        needs = Needs(settings, shape, self.device, planning.make(settings, self.device).precision if self.rates else on_bench)
        return needs if holds(needs) else None


def _step_seconds(needs: Needs, rates: pace.Rates, texts: Texts) -> float:
    """Seconds of a step of average texts, and never less than it takes to start its operations, one micro-batch after the other."""
    plan, slower = needs.settings.training, 1.0
    layers = sum(stack.layers for stack in needs.shape.stacks)
    if plan.activation_checkpointing:
        slower, recipe = CHECKPOINTING, needs.settings.recipe
        recipe = recipe.model_copy(update={needs.settings.method: fields.changed(plan, activation_checkpointing=False)})
        needs = Needs(needs.settings.model_copy(update={"recipe": recipe}), needs.shape, needs.device, needs.precision)
    started = plan.batch_size / plan.micro_batch * 3 * pace.DISPATCH * layers  # forward, and twice as much backward
    return slower * max(started, pace.step_seconds(needs, rates, texts.prompt, texts.answer))
