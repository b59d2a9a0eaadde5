"""One thing of the lab turned off, or something tried on it, for the ablations of the bench."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from lab_utils import environment, generation, layers, training
from lab_utils.batching import IGNORED


@contextlib.contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute replaced inside, and what was there, or its absence, restored after."""
    missing = object()
    before = vars(owner).get(name, missing)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is missing:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def _arguments(**changes: Any):
    """A switch that changes values of transformers' TrainingArguments after the lab has made them."""

    def switch(model):
        made = training.training_arguments

        def changed(*args, **kwargs):
            arguments = made(*args, **kwargs)
            for name, value in changes.items():
                setattr(arguments, name, value)
            return arguments

        return patched(training, "training_arguments", changed)

    return switch


def all_logits(model):
    """Logits of every position, prompt and padding included, as a model computes them unless told otherwise."""
    return patched(training, "token_losses", plain_token_losses)


def plain_token_losses(model, batch: dict):
    """What `training.token_losses` computes, from all logits."""
    import torch

    inputs = {key: value for key, value in batch.items() if key != "labels"}
    logits, targets = model(**inputs, use_cache=False).logits.float(), batch["labels"]
    if "decoder_input_ids" not in batch:
        logits, targets = logits[:, :-1], targets[:, 1:]
    total = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    return total, (targets != IGNORED).sum()


@contextlib.contextmanager
def eager(model):
    """Attention from its formula, in place of torch's fused kernel."""
    before = model.config._attn_implementation
    model.get_base_model().set_attn_implementation("eager")
    try:
        yield
    finally:
        model.get_base_model().set_attn_implementation(before)


def unsorted(model):
    """Batches in the order of the documents instead of by length."""
    return patched(generation, "sorted", lambda values, key=None: list(values))


def static_cache(model):
    """Keys and values in tensors of their final length from the start."""
    made = generation.decoding

    def decoding(base):
        configuration = made(base)
        configuration.cache_implementation = "static"
        return configuration

    return patched(generation, "decoding", decoding)


BEFORE_LOADING: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
    "usual_allocator": lambda: patched(environment, "keep_large_blocks", lambda: None),
    "usual_pass": lambda: patched(layers, "lean", lambda model: None),
}
AROUND_TRAINING: dict[str, Callable[[Any], contextlib.AbstractContextManager]] = {
    "ungrouped": _arguments(train_sampling_strategy="random"),
    "all_logits": all_logits,
    "unfused": _arguments(optim="adamw_torch"),
    "eager": eager,
}
AROUND_GENERATION: dict[str, Callable[[Any], contextlib.AbstractContextManager]] = {
    "unsorted": unsorted,
    "unmerged": lambda model: patched(layers, "merged", lambda *_: contextlib.nullcontext()),
    "static_cache": static_cache,
}
