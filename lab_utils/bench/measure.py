"""One case of the bench, run in this process: what `python -m lab_utils.bench --case` prints."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from typing import Any

from lab_utils import adapters, architectures, arithmetic, config, data, devices, environment, generation, models, pace, training
from lab_utils.bench import rivals
from lab_utils.bench.cases import MICRO_BATCH, Case, Size, encoder_of, examples_of, precision_of, settings_of, tokens_of
from lab_utils.bench.meter import Meter, Prompts, Stopwatch, now, process_peak_gb
from lab_utils.bench.switches import AROUND_GENERATION, AROUND_TRAINING, BEFORE_LOADING, patched
from lab_utils.data import Example
from lab_utils.memory import Peak

NO_LEARNING = 1e-30  # the learning rate of warm-up steps: they leave the weights as they are


def measure(case: Case, size: Size) -> dict[str, Any]:
    """Runs a case in this process and returns its figures, losses and peak memory; a LabError or any other error goes on."""
    environment.quiet()
    device = environment.machine().device
    if case.system == "products":
        rates = pace.measure(case.changes["precision"], device)
        return {"operations_per_second": rates.products, "elementwise_bytes_per_second": rates.elementwise}
    with contextlib.ExitStack() as stack:
        if case.switch in BEFORE_LOADING:
            stack.enter_context(BEFORE_LOADING[case.switch]())
        peak = stack.enter_context(Peak()) if device == "cuda" else None  # on a CPU its thread would only disturb
        result = (_generate if case.generates else _train)(case, size, stack)
    return result | {"peak_gb": peak.gb if peak else process_peak_gb()}


def machine() -> dict[str, Any]:
    """What the figures of this process depend on."""
    import torch

    found = environment.machine()
    versions = environment.versions()
    with contextlib.suppress(metadata.PackageNotFoundError):
        versions["trl"] = metadata.version("trl")
    precisions = {family: environment.precision(family).name for family in ("causal", "seq2seq")}
    here = devices.this_machine()
    return {
        "memory_gb": here.memory_gb,
        "capability": here.capability,
        "device": found.device,
        "hardware": found.hardware,
        "threads": torch.get_num_threads(),
        "precisions": precisions,
        "versions": versions,
    }


def _train(case: Case, size: Size, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Trains one warm-up step at a rate of nothing, then one pass over the examples, which is what is timed."""
    settings = _settings(case, size)
    precision = precision_of(case, settings)
    rates = vars(pace.measure(precision, environment.machine().device)) if case.section == "plan" else None  # as `lab plan --time` does
    encoder = encoder_of(settings)
    count = case.growth[1] if case.growth and case.growth[0] == "examples" else size.examples
    examples = examples_of(case, settings, encoder, int(count))
    pairs = [tokens_of(encoder, example) for example in examples]
    meter = Meter(encoder)
    contender = _lab if case.system == "lab" else rivals.RIVALS[case.system]
    once = contender(case, size, settings, encoder, examples, meter, stack)
    started = now()
    once(True)
    warmup_seconds = now() - started
    meter.reset()
    losses = once(False)
    plan = settings.training
    rank, targets = getattr(plan, "rank", None), getattr(plan, "target_modules", "all-linear")
    flops = arithmetic.training_flops(architectures.shape_of(settings.recipe.model.source), pairs, rank, targets)
    return {
        "tokens": meter.tokens,
        "padded_tokens": meter.padded,
        **meter.watch.describe(),
        "steps": meter.steps,
        "warmup_seconds": warmup_seconds,
        "losses": losses,
        "lengths": pairs,
        "operations": flops,
        "precision": precision,
        "rates": rates,
    }


def _settings(case: Case, size: Size, **changes: Any) -> config.Settings:
    """The settings of a training case, with the micro-batch that is fastest on this device unless the case names one."""
    fastest = {} if "micro_batch" in case.changes else {"micro_batch": MICRO_BATCH[environment.machine().device]}
    return settings_of(case, size, **fastest, **changes)


def _lab(case, size, settings, encoder, examples, meter, stack) -> rivals.Pass:
    """What `lab train` runs, with one switch turned where the case says so."""
    base = models.load(settings)
    model = base.model if case.method == "full" else adapters.attach_lora(base)
    if case.switch in AROUND_TRAINING:
        stack.enter_context(AROUND_TRAINING[case.switch](model))
    made = training.trainer_class
    stack.enter_context(patched(training, "trainer_class", lambda losses: meter.around(made(losses))))
    warm = replace(base, settings=_settings(case, size, learning_rate=NO_LEARNING))

    def once(warmup: bool) -> list[float]:
        steps = 2 if case.changes.get("compile") else 1
        history = training.train(model, warm if warmup else base, examples, say=_silent, max_steps=steps if warmup else None)
        return [row["loss"] for row in history.log if "loss" in row]

    return once


def _silent(line: str) -> None:
    return None


def _generate(case: Case, size: Size, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Summarizes test documents with a new adapter, which changes no answer; two are summarized before the clock starts."""
    settings = settings_of(case, size)
    examples = list(data.load(settings.recipe.data).test[: size.answers])
    seen = Prompts()
    if case.system == "one_by_one":
        encoder = encoder_of(settings)
        model = rivals.plain_adapter(rivals.plain_model(case, settings, "float32"), settings, 0.0).eval()
        model.to(environment.machine().device)

        def answers(chosen: Sequence[Example]) -> list[int]:
            return rivals.one_by_one(model, encoder, settings, chosen)
    else:
        base = models.load(settings)
        model, encoder = adapters.attach_lora(base), base.encoder
        if case.switch in AROUND_GENERATION:
            stack.enter_context(AROUND_GENERATION[case.switch](model))

        def answers(chosen: Sequence[Example]) -> list[int]:
            made = generation.summarize(model, base, chosen, say=_silent).predictions
            return [p.tokens + p.stopped for p in made]

    stack.enter_context(patched(model, "generate", seen.around(model.generate)))
    answers(examples[:2])
    seen.padded = 0
    watch = Stopwatch()
    watch.start()
    new = answers(examples)
    watch.stop()
    shape = architectures.shape_of(settings.recipe.model.source)
    prompts = [len(encoder.prompt_of(example.document)) for example in examples]
    return {
        "tokens": sum(new),
        "padded_tokens": seen.padded,
        "examples": len(examples),
        **watch.describe(),
        "operations": arithmetic.generation_flops(shape, zip(prompts, new, strict=True)),
        "precision": precision_of(case, settings),
    }
