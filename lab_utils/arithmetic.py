"""Floating-point operations of training and of summarizing, counted from a model's shape."""

from __future__ import annotations

from collections.abc import Iterable

from lab_utils.architectures import OUTPUT, Architecture, Linear, Stack

# Of a linear layer: the product itself, the gradient of its input, and, where its weights are trained, their gradient.
FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = 1, 1, 1
ATTENTION_BACKWARD = 2  # two products back for each of scores and mixture


def training_flops(shape: Architecture, examples: Iterable[tuple[int, int]], rank: int | None = None, targets="all-linear") -> float:
    """Floating-point operations (a multiplication and an addition are two) of one pass over the examples, forward and backward.

    Counted are the products of linear layers, attention over the positions that a token may see, logits of the answer alone, and the
    adapters. Not counted is what does not multiply matrices: norms, activation functions, the optimizer, casts, dequantization (so QLoRA
    has LoRA's count). Every layer's input gradient counts, the first layer's too, which LoRA could leave out (under 1% here).

    Args:
        examples: tokens of prompt and answer of each; no padding.
        rank: of the adapters; None: full fine-tuning, where weights have gradients.
        targets: the adapted layers, as in a recipe.
    """
    adapted = set() if rank is None else set(shape.targets(targets))
    passes = FORWARD + INPUT_GRADIENT + (WEIGHT_GRADIENT if rank is None else 0)
    total = 0.0
    for prompt, answer in examples:
        for linear in shape.linears:
            reads = _reads(shape, linear, prompt, answer)
            total += passes * 2 * linear.n_in * linear.n_out * reads
            if linear in adapted:
                total += (FORWARD + INPUT_GRADIENT + WEIGHT_GRADIENT) * 2 * rank * (linear.n_in + linear.n_out) * reads
        total += (1 + ATTENTION_BACKWARD) * _attention(shape, prompt, answer)
    return total


def generation_flops(shape: Architecture, examples: Iterable[tuple[int, int]]) -> float:
    """Operations of reading each prompt once and writing each answer with a cache; adapters merged, so they cost nothing.

    Args:
        examples: tokens of prompt and of new tokens of each. The last new token is written and not read.
    """
    total = 0.0
    for prompt, new in examples:
        read = new - 1 if shape.family == "causal" else new  # a decoder of its own reads the start token besides
        for linear in shape.linears:
            reads = new if linear.name == OUTPUT else _reads(shape, linear, prompt, read)
            total += 2 * linear.n_in * linear.n_out * reads
        total += _attention(shape, prompt, read)
    return total


def _reads(shape: Architecture, linear: Linear, prompt: int, answer: int) -> int:
    """How many vectors pass through all layers of that name together, for one example."""
    if linear.name == OUTPUT:
        return answer
    if len(shape.stacks) == 1:
        return linear.count * (prompt + answer)
    if linear.inside == "EncDecAttention":
        return linear.count * (prompt if linear.name in ("k", "v") else answer)
    encoder, decoder = shape.stacks
    return encoder.layers * prompt + decoder.layers * answer


def _attention(shape: Architecture, prompt: int, answer: int) -> float:
    """Operations of scores and mixtures, forward: two products for each pair of a position and one that it may see."""

    def each(stack: Stack, pairs: float) -> float:
        return stack.layers * 2 * 2 * stack.attention * pairs

    if len(shape.stacks) == 1:
        return each(shape.stacks[0], _causal(prompt + answer))
    encoder, decoder = shape.stacks
    return each(encoder, prompt * prompt) + each(decoder, _causal(answer) + prompt * answer)


def _causal(tokens: int) -> float:
    return tokens * (tokens + 1) / 2
