"""The memory of a run by part, from configurations alone.

Everything follows from configurations; neither torch nor weights are loaded. GB are 10^9 bytes. What is assumed:

- The longest batch decides: `document_tokens`, about 40 tokens of prompt and `summary_tokens`. Shorter texts need less.
- Trained weights, their gradients and AdamW's two moments are float32, 16 bytes a parameter; 8-bit AdamW holds 2 bytes of moments
  instead of 8, but 8 for an embedding; Adafactor holds sums over rows and columns. Frozen weights have the device's precision.
- Quantization reaches linear layers only: embeddings, norms and the output layer keep the precision of the products, T5's `wo` float32.
- Autocast to 16 bits casts each trained weight once a step and keeps the copy until the backward pass ends.
- Activations: see `activations.kept`. The logits of the answer's positions cost 12 bytes each while the loss is differentiated:
  log-probabilities, their gradient and the logits' gradient, in float32. Of many that is so for a part at a time; the others wait
  with their gradients in the precision of the products.
- All parts are added up, as if held at once. With gradient accumulation they are; without it gradients replace activations as the
  backward pass goes, and the sum is an upper bound.
- Generation holds the weights as they are after training, keys and values for a whole `generation_batch` at full length, one layer's
  results of reading the prompts, and the last position's logits. Other sampling or beams would cost more.
- A CUDA context takes 0.7 GB, a Python process with torch, transformers and peft 0.65 GB (measured). On a CPU, batches of changing
  length leave gaps in the heap that the C library does not return: 0.6 of the activations (measured with SmolLM2-135M: 0.55 to 0.65),
  1.1 where layers are unpacked between them (0.9 to 1.3), and 0.3 in full fine-tuning, whose gradients fill some of them (-0.3 to 0.7).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass

from lab_utils import activations, architectures
from lab_utils.architectures import Architecture
from lab_utils.config import Settings
from lab_utils.devices import Device
from lab_utils.memory import WEIGHT_BYTES

PROMPT_TOKENS = 40  # instruction, cue and the template's own tokens
CUDA_CONTEXT_GB = 0.7
PROCESS_GB = 0.65
HEAP_GAPS, WHILE_UNPACKING, FILLED_WITH_GRADIENTS = 0.6, 1.1, 0.3
LOGITS_AT_ONCE = 1 << 25  # numbers; 0.4 GB at 12 bytes
# Published numbers of documents: training, validation, test. DialogSum's 1,500 test rows are 500 dialogues.
SPLIT_SIZES = {
    "everyday": (240, 40, 60),
    "knkarthick/dialogsum": (12_460, 500, 500),
    "knkarthick/samsum": (14_732, 818, 819),
    "abisee/cnn_dailymail": (287_113, 13_368, 11_490),
}


@dataclass(frozen=True)
class Needs:
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
        kept = micro_batch * self.kept(prompt, answer)
        parts = {
            "weights": 4 * self.trainable + (0 if self.full else self.base),
            "16-bit copies": 2 * trained_linear if self.products == 2 else 0,
            "gradients": 4 * self.trainable,
            "optimizer": self._optimizer(),
            "activations": kept,
            "logits": self._logits(micro_batch * answer),
            "heap gaps": 0 if self.device.capability else self._gaps * kept,
            "overhead": self.overhead,
        }
        return _gigabytes(parts)

    def kept(self, prompt: int, answer: int) -> float:
        """Bytes of activations that one example of so many tokens keeps for the backward pass."""
        plan = self.settings.training
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
        return activations.kept(self.shape, setup, prompt, answer)

    @property
    def _gaps(self) -> float:
        """Bytes of the heap between activations, for each byte of them."""
        if self.full:
            return FILLED_WITH_GRADIENTS
        return HEAP_GAPS if self.settings.quantization == "none" else WHILE_UNPACKING

    def _logits(self, rows: int) -> float:
        numbers = rows * self.shape.vocabulary
        at_once = max(self.shape.vocabulary, min(numbers, LOGITS_AT_ONCE))
        return 12 * at_once + (2 * self.products * numbers if numbers > at_once else 0)

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
    """The largest batch within `usable` GB, since what a batch needs grows with every row."""

    def fits(rows: int) -> bool:
        return sum(needs(rows).values()) <= usable * (1 + 1e-9)

    too_many = 1
    while fits(too_many):
        too_many *= 2
    return max(0, bisect.bisect_left(range(too_many), True, lo=1, key=lambda rows: not fits(rows)) - 1)


def _gigabytes(parts: dict[str, float]) -> dict[str, float]:
    return {name: size / 1e9 for name, size in parts.items() if size}


def training_examples(settings: Settings) -> int | None:
    """Number of training examples as far as it is known without the data: of published sets, or as many as the settings allow."""
    spec = settings.recipe.data
    published = SPLIT_SIZES.get(spec.source, (None,))[0]
    if published is None:
        return spec.train_examples
    return min(published, spec.train_examples or published)
