"""One thing of the lab turned off, or something tried on it, for the ablations of the bench."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any

from lab_utils import generation, training
from lab_utils.batching import IGNORED
from lab_utils.errors import LabError


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


def no_input_casts(model):
    """peft casts the input of every adapter to the adapter's float32, and autocast casts it back."""
    from peft.helpers import disable_input_dtype_casting

    return disable_input_dtype_casting(model)


def compiled(model):
    """torch.compile with shapes left open, since batches differ in length.

    The model inside the adapter's wrapper: accelerate replaces the wrapper's own forward for each Trainer, which would compile anew.
    """
    model.get_base_model().compile(dynamic=True)
    return contextlib.nullcontext()


def keep_large_blocks() -> None:
    """glibc keeps freed blocks up to 2 GB for the next step instead of returning their pages, each of which faults when it comes back."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        raise LabError("The allocator of this platform has no mallopt (glibc has): this row is left out.")
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    if not (mallopt(mmap_threshold, 1 << 30) and mallopt(trim_threshold, (1 << 31) - 1)):
        raise LabError("glibc refused the allocator's settings: this row is left out.")


def unsorted(model):
    """Batches in the order of the documents instead of by length."""
    return patched(generation, "sorted", lambda values, key=None: list(values))


BEFORE_LOADING: dict[str, Callable[[], None]] = {"allocator": keep_large_blocks}
AROUND_TRAINING: dict[str, Callable[[Any], contextlib.AbstractContextManager]] = {
    "ungrouped": _arguments(train_sampling_strategy="random"),
    "all_logits": all_logits,
    "unfused": _arguments(optim="adamw_torch"),
    "no_input_casts": no_input_casts,
    "compile": compiled,
}
AROUND_GENERATION: dict[str, Callable[[Any], contextlib.AbstractContextManager]] = {"unsorted": unsorted}
