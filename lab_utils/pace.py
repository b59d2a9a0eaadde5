"""How long a step takes on this machine: its arithmetic at the rate of plain products, and its elementwise work.

The second part is what elementwise operations (norms, activation functions, casts, adapters' sums) and the optimizer cost. They wait
for memory, not for arithmetic, and on small models they take about as long as the products.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from lab_utils import activations, arithmetic
from lab_utils.needs import Needs

# Fitted to nine steps of SmolLM2-135M on 2 CPU cores (three methods, three lengths; the bench's plan cases); not checked on a GPU.
ELEMENTWISE = 8.8  # seconds of elementwise work for a kept byte, in those that a byte of the timed activation function takes
OPTIMIZER = 3.0  # the same for each trained parameter's casts, clipping and AdamW
# Fitted to summaries of SmolLM2-135M on the same cores (the bench's generation cases: one row and 30 at a time, bfloat16 and float32).
READING = 1 / 3  # of the elementwise work of a step: the forward pass alone, which keeps nothing
WEIGHTS = 0.4  # seconds for a byte of the weights, which each new token reads once for all rows, in those of the timed function
CACHE = 1.3  # the same for a byte of keys and values, which each new token reads and copies
DISPATCH = 0.0008  # seconds until a layer's operations are under way, whatever they compute; on a small model half of a new token


@dataclass(frozen=True)
class Rates:
    """What this machine does at most."""

    products: float  # operations a second in matrix products of one number format
    elementwise: float  # bytes a second that a gated activation function keeps for its backward pass, forward and backward


def measure(precision: str, device: str) -> Rates:
    """The rates of this machine in that number format; takes a second or two."""
    return Rates(product_rate(precision, device), elementwise_rate(precision, device))


def step_seconds(needs: Needs, rates: Rates, prompt: int, answer: int) -> float:
    """Predicted seconds of one optimizer step whose examples have so many tokens of prompt and of answer."""
    plan = needs.settings.training
    rank, targets = getattr(plan, "rank", None), getattr(plan, "target_modules", "all-linear")
    operations = plan.batch_size * arithmetic.training_flops(needs.shape, [(prompt, answer)], rank, targets)
    elementwise = ELEMENTWISE * plan.batch_size * needs.kept(prompt, answer) + OPTIMIZER * needs.trainable
    return operations / rates.products + elementwise / rates.elementwise


def reading_seconds(needs: Needs, rates: Rates, prompt: int, answer: int = 1) -> float:
    """Predicted seconds of one pass over an example without gradients: a prompt that is read, or an answer whose loss is asked for."""
    setup = activations.Setup(needs.products, needs.device.capability is not None, adapted=frozenset())
    operations = arithmetic.generation_flops(needs.shape, [(prompt, answer)])
    elementwise = READING * ELEMENTWISE * activations.kept(needs.shape, setup, prompt, answer)
    return operations / rates.products + elementwise / rates.elementwise


def generation_seconds(needs: Needs, rates: Rates, examples: int, prompt: int, new: int) -> float:
    """Predicted seconds of summaries, in batches of `generation_batch`.

    Args:
        examples: how many. prompt: tokens that each reads. new: tokens that the longest of a batch writes; the others wait for it.
    """
    if not examples:
        return 0.0
    batch, writer = needs.settings.recipe.generation.generation_batch, needs.shape.stacks[-1]
    read = examples * reading_seconds(needs, rates, prompt)
    reads, writes = (arithmetic.generation_flops(needs.shape, [(prompt, tokens)]) for tokens in (1, new))
    cached = examples * new * (prompt + new / 2) * 2 * writer.layers * writer.key_value * needs.products
    turns = math.ceil(examples / batch) * new  # each writes one token in every row of a batch
    moved = WEIGHTS * turns * needs.shape.parameters * needs.products + CACHE * cached
    return read + examples * (writes - reads) / rates.products + moved / rates.elementwise + turns * DISPATCH * writer.layers


def product_rate(precision: str, device: str, size: int = 2048, repeats: int = 15) -> float:
    """Operations a second of square matrix products in that number format on this machine, the median of several."""
    import torch

    dtype = getattr(torch, precision)
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    return 2 * size**3 / _seconds(lambda: left @ right, device, repeats)


def elementwise_rate(precision: str, device: str, rows: int = 768, width: int = 1536, repeats: int = 25) -> float:
    """Bytes of inputs a second of `silu(gate) * up`, forward and backward, the median of several. A layer does much of the kind."""
    import torch

    gate, up = torch.randn(2, rows, width, device=device).to(getattr(torch, precision)).requires_grad_().unbind()
    weight = torch.ones_like(gate)
    each = _seconds(lambda: torch.autograd.grad(torch.nn.functional.silu(gate) * up, (gate, up), weight), device, repeats)
    return 2 * rows * width * gate.element_size() / each


def _seconds(work: Callable, device: str, repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 2):  # the first two warm caches and kernels
        started = now(device)
        work()
        seconds.append(now(device) - started)
    return statistics.median(seconds[2:])


def now(device: str) -> float:
    """A clock that waits until the GPU is done with what it was given."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()
