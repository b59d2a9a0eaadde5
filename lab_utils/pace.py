"""How long a step takes on this machine: its arithmetic at the rate of plain products, and its elementwise work.

The second part is what elementwise operations (norms, activation functions, casts, adapters' sums) and the optimizer cost. They wait
for memory, not for arithmetic, and on small models they take about as long as the products.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from lab_utils import arithmetic
from lab_utils.needs import Needs

# Fitted to nine steps of SmolLM2-135M on 2 CPU cores (three methods, three lengths; the bench's plan cases); not checked on a GPU.
ELEMENTWISE = 8.8  # seconds of elementwise work for a kept byte, in those that a byte of the timed activation function takes
OPTIMIZER = 21.0  # the same for each trained parameter's casts, clipping and AdamW


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
