"""What a method will need, before anything is downloaded: parameters, memory by part, steps, and where it fits."""

from __future__ import annotations

import math
import textwrap
from dataclasses import asdict, dataclass, replace
from typing import Any

from lab_utils import architectures, environment, pace, processes
from lab_utils.architectures import Architecture
from lab_utils.config import Settings
from lab_utils.devices import DEVICES, FIRST_WITH_KERNELS, THIS_MACHINE, Device, this_machine
from lab_utils.fields import changed
from lab_utils.needs import Needs, training_examples

USABLE = 0.95  # of a device's memory


@dataclass(frozen=True)
class Fit:
    """Whether a device holds the run as the settings have it, and what else would fit."""

    fits: bool
    peak_gb: float
    largest_micro_batch: int | None  # 0: not even one example; None: nothing is trained
    precision: str
    note: str = ""


@dataclass(frozen=True)
class Plan:
    recipe: str
    method: str
    model: str
    parameters: int  # of the base
    trainable: int
    trainable_share: float  # of the total, adapter included
    adapter_mb: float | None  # what an adapter's file takes
    model_mb: float | None  # what a fully trained model's files take
    training: dict[str, float]  # GB by part; empty when nothing is trained
    generating: dict[str, float]
    peak_gb: float
    steps: int | None  # None: nothing is trained, or the number of examples is not known
    examples: int | None
    step_seconds: float | None  # of the longest examples, where the machine's rates were measured
    device: str  # that `training`, `generating` and `peak_gb` are about
    precision: str
    longest: tuple[int, int]  # tokens of prompt and answer that the memory was counted for
    fits: dict[str, Fit]


def make(settings: Settings, device: Device | None = None, rates: pace.Rates | None = None) -> Plan:
    """The plan of one method.

    Args:
        device: what the memory by part is about; by default this machine.
        rates: what that device does at most, for the time of a step.

    Raises:
        LabError: a model whose configuration is not known, or target modules that it does not have.
    """
    recipe, method = settings.recipe, settings.method
    shape = architectures.shape_of(recipe.model.source)
    device = device or this_machine()
    needs = Needs(settings, shape, device, _precision(settings, device)[0])
    trained, full = needs.trainable, method == "full"
    examples = training_examples(settings)
    return Plan(
        recipe=recipe.name,
        method=method,
        model=recipe.model.label,
        parameters=shape.parameters,
        trainable=trained,
        trainable_share=1.0 if full else trained / (shape.parameters + trained),
        adapter_mb=4 * trained / 1e6 if trained and not full else None,
        model_mb=shape.parameters * needs.products / 1e6 if full else None,
        training=needs.training(),
        generating=needs.generating(),
        peak_gb=needs.peak(),
        steps=optimizer_steps(settings, examples) if trained and examples else None,
        examples=examples if trained else None,
        step_seconds=pace.step_seconds(needs, rates, *needs.lengths) if trained and rates else None,
        device=device.name,
        precision=needs.precision,
        longest=needs.lengths,
        fits={one.name: fit(settings, shape, one) for one in _devices(device)},
    )


def _devices(device: Device) -> list[Device]:
    others = [one for one in DEVICES if one.name != device.name]
    return [*others, device] if device not in DEVICES else list(DEVICES)


def fit(settings: Settings, shape: Architecture, device: Device) -> Fit:
    """Whether that device holds the run, in the precision that it computes well."""
    precision, refused = _precision(settings, device)
    needs = Needs(settings, shape, device, precision)
    usable, peak = USABLE * device.memory_gb, needs.peak()
    largest = needs.largest_micro_batch(usable) if needs.trains else None
    if refused:
        return Fit(False, peak, largest, precision, refused)
    notes = []
    if device.note:
        notes.append(device.note)
    if device.capability and device.capability < FIRST_WITH_KERNELS:
        notes.append("current torch builds lack kernels for it")
    if sum(needs.training().values()) > usable:
        notes.append(_less_training(settings, needs, largest, usable))
    if sum(needs.generating().values()) > usable:
        batch = needs.largest_generation_batch(usable)
        notes.append(f"to generate, lower generation_batch to {batch}" if batch else "too small to generate")
    return Fit(peak <= usable, peak, largest, precision, "; ".join(notes))


def fitting_micro_batch(settings: Settings, device: Device | None = None) -> int:
    """The settings' micro-batch, or the largest below it that fills a batch and that the device holds (1 if it holds none).

    Raises:
        LabError: a model whose configuration is not known.
    """
    shape, device, wanted = architectures.shape_of(settings.recipe.model.source), device or this_machine(), settings.training
    needs, usable = Needs(settings, shape, device, _precision(settings, device)[0]), USABLE * device.memory_gb
    if sum(needs.training().values()) <= usable:
        return wanted.micro_batch
    rows = wanted.batch_size // processes.count()  # each process fills its share of a batch
    return max([1, *(size for size in range(1, needs.largest_micro_batch(usable) + 1) if rows % size == 0)])


def _less_training(settings: Settings, needs: Needs, largest: int, usable: float) -> str:
    """What to change so that training fits, if anything helps: a smaller micro-batch, then recomputed activations."""
    plan = settings.training
    if largest:
        return f"to train, lower micro_batch to {fitting_micro_batch(settings, needs.device)}"
    one = sum(needs.training(1).values())
    if not plan.activation_checkpointing:
        patient = changed(plan, activation_checkpointing=True)
        recipe = settings.recipe.model_copy(update={settings.method: patient})
        needs = replace(needs, settings=settings.model_copy(update={"recipe": recipe}))
        if largest := needs.largest_micro_batch(usable):
            return f"one example takes {one:.1f} GB; activation_checkpointing=true makes room for {largest}"
    return f"one example takes {one:.1f} GB"


def _precision(settings: Settings, device: Device) -> tuple[str, str]:
    """The precision of the products on a device, and why the one that was asked for is refused there."""
    model = settings.recipe.model
    if device.capability:
        best = environment.cuda_precision(device.capability, model.family)
    else:
        best = environment.cpu_precision(environment.cpu_has_bf16())
    if model.precision in ("auto", best.name):
        return best.name, ""
    refused = environment.refusal(model.precision, model.family, device.capability)
    return (best.name, f"{model.precision} is refused: {refused}") if refused else (model.precision, "")


def optimizer_steps(settings: Settings, examples: int) -> int:
    """Optimizer steps as transformers' Trainer counts them: an unfilled last batch is a step, a begun epoch's share is rounded up."""
    plan = settings.training
    accumulation = plan.batch_size // plan.micro_batch
    return math.ceil(plan.epochs * max(1, math.ceil(math.ceil(examples / plan.micro_batch) / accumulation)))


# --- words ------------------------------------------------------------------------------------------------------------


def describe(plan: Plan) -> str:
    """The plan as `lab plan` prints it, in lines of at most 100 characters."""
    lines = [f"{plan.recipe}, {plan.method}: {plan.model}", ""]
    lines.append(_fact("parameters", f"{plan.parameters:,}"))
    if plan.trainable:
        of_what = "" if plan.model_mb else " of the total with adapter"
        lines.append(_fact("trainable", f"{plan.trainable:,}", f"({100 * plan.trainable_share:.2f} %{of_what})"))
        lines.append(_fact(*(("model", f"{plan.model_mb:,.0f} MB") if plan.model_mb else ("adapter", f"{plan.adapter_mb:,.1f} MB"))))
        if plan.steps:
            lines.append(_fact("steps", f"{plan.steps:,}", f"({plan.examples:,} training examples)"))
        else:
            lines.append(_fact("steps", "depends on the number of examples in your data"))
        if plan.step_seconds:
            in_all = f", {plan.steps * plan.step_seconds / 60:,.1f} minutes in all" if plan.steps else ""
            lines.append(_fact("a step", f"{plan.step_seconds:.2f} s", f"(of the longest examples{in_all})"))
    else:
        lines.append("Nothing is trained.")
    lines += ["", f"Memory on {_where(plan)}, {plan.precision} products, in GB:", ""]
    lines += _parts(plan)
    lines += ["", f"{'device':<14}{'precision':<11}{'needs':>9}  {'fits':<5}{'largest micro-batch':<21}"]
    for name, fit in plan.fits.items():
        largest = "-" if fit.largest_micro_batch is None else f"{fit.largest_micro_batch:,}"
        row = f"{name:<14}{fit.precision:<11}{fit.peak_gb:>6.1f} GB  {'yes' if fit.fits else 'NO':<5}{largest:<8}{fit.note}"
        lines += _wrapped(row.rstrip(), indent=48)
    prompt, answer = plan.longest
    lines += ["", f"Counted for the longest batches that the limits allow: {prompt:,} tokens of prompt, {answer:,} of answer."]
    return "\n".join(lines)


def _fact(name: str, value: str, remark: str = "") -> str:
    return f"{name:<12}{value:>18}  {remark}".rstrip()


def _where(plan: Plan) -> str:
    return plan.device if plan.device == THIS_MACHINE else f"a {plan.device}"


def _parts(plan: Plan) -> list[str]:
    columns = [(title, parts) for title, parts in (("training", plan.training), ("generating", plan.generating)) if parts]
    names = list(dict.fromkeys(name for _, parts in columns for name in parts))
    lines = [f"{'':<16}" + "".join(f"{title:>12}" for title, _ in columns)]
    for name in names:
        lines.append(f"{name:<16}" + "".join(f"{_gb(parts.get(name)):>12}" for _, parts in columns))
    lines.append(f"{'together':<16}" + "".join(f"{_gb(sum(parts.values())):>12}" for _, parts in columns))
    return lines


def _gb(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if value >= 0.005 else "< 0.01"


def _wrapped(line: str, indent: int, width: int = 100) -> list[str]:
    return textwrap.wrap(line, width, subsequent_indent=" " * indent, drop_whitespace=True, replace_whitespace=False)


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain values, GB and MB rounded."""
    values = asdict(plan)
    for name in ("training", "generating"):
        values[name] = {part: round(size, 3) for part, size in values[name].items()}
    for name in ("adapter_mb", "model_mb", "peak_gb", "step_seconds", "trainable_share"):
        values[name] = values[name] if values[name] is None else round(values[name], 6 if name == "trainable_share" else 3)
    values["fits"] = {name: asdict(replace(fit, peak_gb=round(fit.peak_gb, 3))) for name, fit in plan.fits.items()}
    return values
