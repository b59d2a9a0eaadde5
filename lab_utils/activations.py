"""What a forward pass leaves in memory for the backward pass, counted operation by operation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab_utils.architectures import Architecture, Linear, Stack


@dataclass(frozen=True)
class Setup:
    """What decides how much of a layer's results the backward pass needs."""

    products: int  # bytes of a number in matrix products: 2 (autocast) or 4
    on_gpu: bool
    adapted: frozenset[Linear] | None = None  # the layers with an adapter; None: full fine-tuning
    quantization: str = "none"
    rank: int = 0
    dropout: float = 0.0  # the adapter's own
    dora: bool = False
    checkpointing: bool = False

    @property
    def full(self) -> bool:
        return self.adapted is None

    @property
    def residual(self) -> int:
        """Bytes of a number between layers: that of the embedding's weights."""
        return 4 if self.full else self.products

    def mask(self, number: int) -> int:
        """Bytes of a number of dropout's mask: the GPU keeps a flag, the CPU a factor in the number format of its input."""
        return 1 if self.on_gpu else number


def kept(architecture: Architecture, setup: Setup, source: int, answer: int) -> float:
    """Bytes that one example of `source` prompt and `answer` tokens leaves for the backward pass, logits left out.

    Counted are the inputs of the layers whose weights, or whose adapter's weights, are trained; queries, keys, values and result of
    attention (whose scores a fused kernel computes anew), with keys and values repeated for each query head; the mask, which the
    kernel reads as numbers; norms, which compute in float32; activation functions and their products; dropout masks. Autocast makes
    a 16-bit copy of an input for each layer that reads it, and peft a float32 one, cast back.

    With checkpointing, the layers' inputs and one layer's results.
    """
    first, *second = architecture.stacks
    tokens = source if second else source + answer
    layers = [(first, tokens, _layer(architecture, first, setup, tokens))]
    if second:
        layers.append((second[0], answer, _layer(architecture, second[0], setup, answer, source)))
    if setup.checkpointing:
        inputs = sum(stack.layers * tokens * stack.hidden * setup.residual for stack, tokens, _ in layers)
        return inputs + max(size for _, _, size in layers)
    return sum(stack.layers * size for stack, _, size in layers)


def _layer(architecture: Architecture, stack: Stack, setup: Setup, tokens: int, source: int = 0) -> float:
    """Bytes that one layer keeps of one example; `source` tokens of another stack are read by its cross-attention."""
    t5, phi, c = architecture.model_type == "t5", architecture.model_type == "phi", setup.products
    wide, hidden = stack.intermediate, stack.hidden
    parts = {(l.inside, l.name): l for l in architecture.linears}
    attention = [l for (inside, _), l in parts.items() if inside in ("self_attn", "SelfAttention")]
    feed_forward = [l for (inside, _), l in parts.items() if inside in ("mlp", "DenseReluDense")]
    normed = 4 if phi and setup.on_gpu else setup.residual  # autocast computes LayerNorm in float32 on a GPU
    model_dropout = architecture.dropout > 0

    token = (1 if phi else 2) * _norm(architecture, setup, hidden)
    token += _inputs(setup, hidden, attention[:3], normed) + _inputs(setup, stack.attention, attention[3:], c, held=True)
    token += _inputs(setup, hidden, feed_forward[:-1], normed, held=phi) + _inputs(setup, wide, feed_forward[-1:], c)
    token += _activation_function(architecture, stack, setup) * wide
    if architecture.model_type == "qwen3":
        token += (4 + (c if setup.full else 0)) * (stack.attention + stack.key_value)
    if model_dropout:
        token += setup.mask(c) * (2 * hidden + (wide if t5 else 0))
    size = tokens * token + _attention(architecture, stack, setup, tokens, tokens)
    if stack.cross:
        crossing = [l for (inside, _), l in parts.items() if inside == "EncDecAttention"]
        token = _norm(architecture, setup, hidden) + setup.mask(c) * hidden * model_dropout
        token += _inputs(setup, hidden, crossing[:1], normed) + _inputs(setup, stack.attention, crossing[3:], c, held=True)
        size += tokens * token + _attention(architecture, stack, setup, tokens, source)
        size += source * _inputs(setup, hidden, crossing[1:3], normed, held=True)
    return size


def _inputs(setup: Setup, width: int, readers: Sequence[Linear], number: int, held: bool = False) -> float:
    """Bytes a token that linear layers keep of the tensor that they all read.

    Args:
        number: bytes of a number of that tensor. held: it is kept anyway, so only copies of it count.
    """
    c = setup.products
    shared = 0 if held else c * width
    if setup.full:
        return shared if number == c else len(readers) * c * width
    adapted = [l for l in readers if l in setup.adapted]
    size = sum(setup.rank * c + (2 * c * l.n_out if setup.dora else 0) for l in adapted)
    quantized = setup.quantization != "none" and not any(l.name == "wo" for l in readers)  # T5's wo never is
    if setup.quantization == "int8" and quantized:
        size += 0 if held else number * width  # bitsandbytes keeps the tensor itself
        held = True
    if setup.dropout and adapted:
        return size + len(adapted) * (c + setup.mask(number if quantized else 4)) * width
    if number == c and (quantized or c == 4):
        return size + (c * width if adapted and not held else 0)
    return size + len(adapted) * c * width


def _norm(architecture: Architecture, setup: Setup, width: int) -> float:
    """Bytes a token that a norm keeps: its input in float32 and, if its own weights are trained, its result."""
    if architecture.model_type == "phi":
        return width * (4 if setup.on_gpu else setup.residual)
    if setup.full:
        return (4 + 4) * width
    return (4 + (2 if architecture.model_type == "t5" and setup.products == 2 else 0)) * width  # T5 keeps the 16-bit input too


def _activation_function(architecture: Architecture, stack: Stack, setup: Setup) -> int:
    """Bytes that activation function and gating keep for each of the layer's wide results.

    T5 and Phi compute GELU from its formula, which keeps four results, on a GPU under autocast (where powers are float32) at 14 bytes.
    """
    c = setup.products
    if architecture.model_type not in ("t5", "phi"):
        return 3 * c  # input, result, and what the result multiplies
    if architecture.model_type == "t5" and not stack.gated:
        return c
    in_float32 = setup.on_gpu and c == 2
    formula = 14 if in_float32 else 4 * c
    return formula + ((4 if in_float32 else c) + c if stack.gated else 0)


def _attention(architecture: Architecture, stack: Stack, setup: Setup, queries: int, keys: int) -> float:
    """Bytes that attention keeps of one example.

    A decoder's mask is the same for all heads. T5 adds a bias of its own for each head, so its mask has a number for each score; and
    on a CPU its dropout or a trained bias rules out the fused kernel, so that the scores themselves are kept, in float32.
    """
    c, each = setup.products, setup.products
    scores = queries * keys * c
    if architecture.model_type == "t5":
        per_score = c
        if not setup.on_gpu and architecture.dropout > 0:
            per_score, each = 12, 4  # the shares, the dropout mask, the product of the two
        elif not setup.on_gpu and setup.full and not (stack.cross and queries != keys):
            per_score, each = 4, 4
        scores = stack.heads * queries * keys * per_score
    read = stack.key_value if stack.key_value_heads == 1 else stack.attention  # a single head is repeated without a copy
    return each * (2 * queries * stack.attention + 2 * keys * read) + 4 * stack.heads * queries + scores
