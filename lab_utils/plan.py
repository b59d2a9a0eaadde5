"""What a method will need, before anything is downloaded: parameters, memory by part, steps, and where it fits.

Everything follows from configurations; neither torch nor weights are loaded. GB are 10^9 bytes. What is assumed:

- The longest batch decides: `document_tokens`, about 40 tokens of prompt and `summary_tokens`. Shorter texts need less.
- Trained weights, their gradients and AdamW's two moments are float32, 16 bytes a parameter; 8-bit AdamW holds 2 bytes of moments
  instead of 8, but 8 for an embedding; Adafactor holds sums over rows and columns. Frozen weights have the device's precision.
- Quantization reaches linear layers only: embeddings, norms and the output layer keep the precision of the products, T5's `wo` float32.
- Autocast to 16 bits casts each trained weight once a step and keeps the copy until the backward pass ends.
- Activations: see `activations.kept`. The logits of the answer's positions cost 12 bytes each while the loss is differentiated:
  log-probabilities, their gradient and the logits' gradient, in float32.
- All parts are added up, as if held at once. With gradient accumulation they are; without it gradients replace activations as the
  backward pass goes, and the sum is an upper bound.
- Generation holds the weights as they are after training, keys and values for a whole `generation_batch` at full length, one layer's
  results of reading the prompts, and the last position's logits. Other sampling or beams would cost more.
- A CUDA context takes 0.7 GB, a Python process with torch, transformers and peft 0.65 GB (measured). On a CPU, batches of changing
  length leave gaps in the heap that the C library does not return: 0.6 of the activations (measured with SmolLM2-135M: 0.55 to 0.65).
- A device is taken to be full at 95%.
"""

from __future__ import annotations

import csv
import math
import os
import platform
import subprocess
import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import metadata
from typing import Any

from lab_utils import activations, architectures, environment
from lab_utils.architectures import Architecture
from lab_utils.config import Settings, changed
from lab_utils.memory import WEIGHT_BYTES

PROMPT_TOKENS = 40  # instruction, cue and the template's own tokens
CUDA_CONTEXT_GB = 0.7
PROCESS_GB = 0.65
HEAP_GAPS = 0.6
USABLE = 0.95
FIRST_WITH_KERNELS = (7, 0)  # compute capability that today's torch builds start at
# Published numbers of documents: training, validation, test. DialogSum's 1,500 test rows are 500 dialogues.
SPLIT_SIZES = {
    "everyday": (240, 40, 60),
    "knkarthick/dialogsum": (12_460, 500, 500),
    "knkarthick/samsum": (14_732, 818, 819),
    "abisee/cnn_dailymail": (287_113, 13_368, 11_490),
}


@dataclass(frozen=True)
class Device:
    name: str
    memory_gb: float  # that CUDA, or the operating system, reports
    capability: tuple[int, int] | None = None  # None: a CPU
    note: str = ""


T4 = Device("T4 16 GB", 15.8, (7, 5))
P100 = Device("P100 16 GB", 17.1, (6, 0))
A100 = Device("A100 40 GB", 42.4, (8, 0))
H200 = Device("H200 141 GB", 150.0, (9, 0))
DEVICES = (T4, P100, A100, H200)
THIS_MACHINE = "this machine"


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
    device: str  # that `training`, `generating` and `peak_gb` are about
    precision: str
    longest: tuple[int, int]  # tokens of prompt and answer that the memory was counted for
    fits: dict[str, Fit]


def make(settings: Settings, device: Device | None = None) -> Plan:
    """The plan of one method.

    Args:
        device: what the memory by part is about; by default this machine.

    Raises:
        LabError: a model whose configuration is not known, or target modules that it does not have.
    """
    recipe, method = settings.recipe, settings.method
    shape = architectures.shape_of(recipe.model.source)
    device = device or this_machine()
    needs = _Needs(settings, shape, device, _precision(settings, device)[0])
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
    needs = _Needs(settings, shape, device, precision)
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


def _less_training(settings: Settings, needs: _Needs, largest: int, usable: float) -> str:
    """What to change so that training fits, if anything helps: a smaller micro-batch, then recomputed activations."""
    plan = settings.training
    if largest:
        divisor = max(size for size in range(1, largest + 1) if plan.batch_size % size == 0)
        return f"to train, lower micro_batch to {divisor}"
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


@dataclass(frozen=True)
class _Needs:
    """The memory arithmetic of one run on one device, in one precision."""

    settings: Settings
    shape: Architecture
    device: Device
    precision: str

    @property
    def trains(self) -> bool:
        return self.settings.method != "zero_shot"

    @property
    def full(self) -> bool:
        return self.settings.method == "full"

    @property
    def products(self) -> int:
        return int(WEIGHT_BYTES[self.precision])

    @property
    def trainable(self) -> int:
        if not self.trains or self.full:
            return self.shape.parameters if self.full else 0
        plan = self.settings.training
        return self.shape.adapter_parameters(plan.rank, plan.target_modules, plan.dora)

    @property
    def lengths(self) -> tuple[int, int]:
        """Tokens of prompt and answer of the longest example."""
        lengths = self.settings.recipe.lengths
        return lengths.document_tokens + PROMPT_TOKENS, lengths.summary_tokens

    @property
    def base(self) -> float:
        """Bytes of the frozen model; of the fully trained one once it is saved and only generates."""
        quantization = self.settings.quantization
        if quantization == "none":
            return self.shape.parameters * self.products
        quantized, exact = self.shape.linear_parameters, self.shape.exact_parameters
        return quantized * WEIGHT_BYTES[quantization] + 4 * exact + (self.shape.parameters - quantized - exact) * self.products

    @property
    def overhead(self) -> float:
        return (CUDA_CONTEXT_GB if self.device.capability else PROCESS_GB) * 1e9

    def training(self, micro_batch: int | None = None) -> dict[str, float]:
        """GB by part while training, at the settings' micro-batch or another."""
        if not self.trains:
            return {}
        plan, (prompt, answer) = self.settings.training, self.lengths
        micro_batch = micro_batch or plan.micro_batch
        trained_linear = sum(l.weights for l in self.shape.linears) if self.full else self.trainable
        setup = activations.Setup(
            products=self.products,
            on_gpu=self.device.capability is not None,
            adapted=None if self.full else frozenset(self.shape.targets(plan.target_modules)),
            quantization=self.settings.quantization,
            rank=getattr(plan, "rank", 0),
            dropout=getattr(plan, "dropout", 0.0),
            dora=getattr(plan, "dora", False),
            checkpointing=plan.activation_checkpointing,
        )
        kept = micro_batch * activations.kept(self.shape, setup, prompt, answer)
        parts = {
            "weights": 4 * self.trainable + (0 if self.full else self.base),
            "16-bit copies": 2 * trained_linear if self.products == 2 else 0,
            "gradients": 4 * self.trainable,
            "optimizer": self._optimizer(),
            "activations": kept,
            "logits": 12 * self.shape.vocabulary * answer * micro_batch,
            "heap gaps": 0 if self.device.capability else HEAP_GAPS * kept,
            "overhead": self.overhead,
        }
        return _gigabytes(parts)

    def _optimizer(self) -> float:
        plan, shape = self.settings.training, self.shape
        if plan.optimizer == "adamw":
            return 8 * self.trainable
        if plan.optimizer != "adafactor":
            embedding = shape.others["embedding"] if self.full else 0
            return 2 * (self.trainable - embedding) + 8 * embedding
        if self.full:
            matrices = [l for l in shape.linears if not (shape.tied and l.name == architectures.OUTPUT)]
            edges = sum(l.count * (l.n_in + l.n_out) for l in matrices) + shape.vocabulary + shape.stacks[0].hidden
            return 4 * (edges + shape.others["norms"] + sum(l.biases for l in matrices))
        return 4 * sum(l.count * (l.n_in + l.n_out + 2 * plan.rank) for l in shape.targets(plan.target_modules))

    def generating(self, batch: int | None = None) -> dict[str, float]:
        """GB by part while summarizing, at the settings' generation batch or another."""
        generation, (prompt, _) = self.settings.recipe.generation, self.lengths
        batch = batch or generation.generation_batch
        reader, writer = self.shape.stacks[0], self.shape.stacks[-1]
        attention = 4 * reader.hidden + self.products * (2 * reader.attention + 2 * reader.key_value)
        feed_forward = self.products * (reader.hidden + (3 if reader.gated else 2) * reader.intermediate)
        scores = prompt * self.products * (reader.heads if self.shape.model_type == "t5" else 1)
        parts = {
            "weights": self.base + (0 if self.full else 4 * self.trainable),
            "KV cache": batch * (prompt + generation.max_new_tokens) * 2 * writer.layers * writer.key_value * self.products,
            "activations": batch * prompt * (self.products * reader.hidden + max(attention, feed_forward) + scores),
            "logits": batch * self.shape.vocabulary * (self.products + 4),
            "overhead": self.overhead,
        }
        return _gigabytes(parts)

    def peak(self) -> float:
        return max(sum(self.training().values()), sum(self.generating().values()))

    def largest_micro_batch(self, usable: float) -> int:
        """0 if not even one example fits; never more than there are examples."""
        return min(_largest(self.training, usable), training_examples(self.settings) or math.inf)

    def largest_generation_batch(self, usable: float) -> int:
        return _largest(self.generating, usable)


def _largest(needs: Callable[[int], dict[str, float]], usable: float) -> int:
    """The largest batch within `usable` GB; what a batch needs grows by the same amount with every row."""
    one, two = sum(needs(1).values()), sum(needs(2).values())
    return max(0, math.floor((usable - one) / (two - one) + 1 + 1e-9))


def _gigabytes(parts: dict[str, float]) -> dict[str, float]:
    return {name: size / 1e9 for name, size in parts.items() if size}


def training_examples(settings: Settings) -> int | None:
    """Number of training examples as far as it is known without the data: of published sets, or as many as the settings allow."""
    spec = settings.recipe.data
    published = SPLIT_SIZES.get(spec.source, (None,))[0]
    if published is None:
        return spec.train_examples
    return min(published, spec.train_examples or published)


def optimizer_steps(settings: Settings, examples: int) -> int:
    """Optimizer steps as transformers' Trainer counts them: an unfilled last batch is a step, a begun epoch's share is rounded up."""
    plan = settings.training
    accumulation = plan.batch_size // plan.micro_batch
    return math.ceil(plan.epochs * max(1, math.ceil(math.ceil(examples / plan.micro_batch) / accumulation)))


@cache
def this_machine() -> Device:
    """The GPU that the lab would use here, else the CPU with the machine's memory; asked without torch."""
    import psutil

    return _gpu() or Device(THIS_MACHINE, psutil.virtual_memory().total / 1e9, note=f"CPU ({platform.machine()})")


def _gpu() -> Device | None:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    try:
        if visible in ("", "-1") or metadata.version("torch").endswith("+cpu"):
            return None
    except metadata.PackageNotFoundError:
        pass  # a machine that is only asked what would fit
    query = ["nvidia-smi", "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        rows = list(csv.reader(found.splitlines(), skipinitialspace=True))
        name, mebibytes, capability = rows[int(visible) if visible.isdigit() and int(visible) < len(rows) else 0]
        major, minor = map(int, capability.split("."))
        return Device(THIS_MACHINE, int(mebibytes) * 2**20 / 1e9, (major, minor), name)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


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
    for name in ("adapter_mb", "model_mb", "peak_gb", "trainable_share"):
        values[name] = values[name] if values[name] is None else round(values[name], 6 if name == "trainable_share" else 3)
    values["fits"] = {name: asdict(replace(fit, peak_gb=round(fit.peak_gb, 3))) for name, fit in plan.fits.items()}
    return values
