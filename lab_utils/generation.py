"""Greedy summaries in batches: left-padded, sorted by length, dropout off."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lab_utils import environment, layers, memory, mirror, processes
from lab_utils.batching import pad_left, pad_right
from lab_utils.data import Example
from lab_utils.models import Base, weights_hash
from lab_utils.predictions import Kept, Prediction
from lab_utils.progress import Progress, duration

CACHE_SHARE = 0.25  # of the free memory: how much keys and values of a batch may take; reading its prompts takes about as much


@dataclass
class Generated:
    """Predictions in the order of the examples, and what they cost."""

    predictions: list[Prediction] = field(repr=False)
    seconds: float
    peak_memory_gb: float
    cut_documents: int  # longer than `document_tokens`, so their end was not read

    def describe(self) -> dict:
        count = len(self.predictions)
        tokens = sum(p.tokens for p in self.predictions)
        return {
            "examples": count,
            "seconds": round(self.seconds, 1),
            "tokens_per_second": round(tokens / self.seconds, 1),
            "peak_memory_gb": round(self.peak_memory_gb, 2),
            "stopped_share": round(sum(p.stopped for p in self.predictions) / count, 4),
            "cut_documents": self.cut_documents,
        }


@contextmanager
def evaluation_mode(model):
    """Dropout off inside, the model's former mode after: Trainer leaves models in training mode."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def decoding(base: Base):
    """The one decoding configuration of the lab: greedy, one new token at a time, until EOS or `max_new_tokens`."""
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=base.settings.recipe.generation.max_new_tokens,
        eos_token_id=list(base.stops),
        pad_token_id=base.tokenizer.pad_token_id,
        decoder_start_token_id=base.model.config.decoder_start_token_id if base.family == "seq2seq" else None,
    )


def summarize(
    model,
    base: Base,
    examples: Sequence[Example],
    *,
    shots: Sequence[Example] = (),
    say: Callable[[str], None] | None = None,
    unfinished: Path | None = None,
) -> Generated:
    """One summary for each example, from the prompt that training uses.

    Adapters are merged and 4-bit layers unpacked for the pass (`layers.merged`). Several processes deal out the batches of one, so that
    each text comes from the same batch as with one process; all get all summaries. Where memory runs out, batches get smaller.

    Args:
        shots: worked examples put before each document (few-shot prompting).
        say: takes a line of progress every few seconds; by default it is printed.
        unfinished: a file. A pass of the same model over the same prompts that was interrupted goes on with what it kept there.

    Raises:
        LabError: out of memory with one document at a time.
    """
    say = say or environment.say
    prompts = [base.encoder.prompt_of(example.document, shots) for example in examples]
    kept = Kept(unfinished, _key(model, base, prompts), say) if unfinished else None
    found = dict(kept.predictions) if kept else {}
    if found:
        say(f"An earlier start wrote {len(found)} of {len(examples)} summaries: going on from there.")
    before = kept.seconds if kept else 0.0
    started = time.perf_counter()
    with evaluation_mode(model), memory.Peak() as peak, layers.merged(model, base.precision):
        mine = processes.share(_batches([len(prompt) for prompt in prompts], model, base))
        progress = Progress(sum(map(len, mine)), "summaries", say, done=len(found))
        smaller = memory.Smaller("documents", say)
        for chosen in mine:
            if all(i in found for i in chosen):
                continue
            answers = smaller.each(lambda part: _generate(model, base, [prompts[i] for i in part]), chosen)
            made = {i: _prediction(base, examples[i], ids) for i, ids in zip(chosen, answers, strict=True)}
            found |= made
            if kept:
                kept.add(list(made), list(made.values()), before + time.perf_counter() - started)
                mirror.on_the_way(kept.path.parent, kept.path.name, say)
            progress.at(len(found))
    environment.return_memory()
    shares = processes.gather((found, peak.gb))
    found = {i: prediction for share, _ in shares for i, prediction in share.items()}
    seconds = before + time.perf_counter() - started
    say(f"{len(found)} {'summary' if len(found) == 1 else 'summaries'} in {duration(seconds)}")
    cut = sum(base.encoder.is_cut(example.document) for example in examples)
    return Generated([found[i] for i in range(len(examples))], seconds, max(gb for _, gb in shares), cut)


def _key(model, base: Base, prompts: Sequence[Sequence[int]]) -> str:
    """A hash of all that decides what a model answers."""
    decides = prompts, decoding(base).to_dict(), base.precision.name, weights_hash(model.named_parameters())
    return hashlib.sha256(repr(decides).encode()).hexdigest()[:16]


def _batches(lengths: Sequence[int], model, base: Base) -> list[list[int]]:
    """Indices of the prompts by batch: the longest first, so that too little memory shows at once, `generation_batch` at most
    together, fewer where their keys and values would take more than a quarter of the free memory."""
    limits = base.settings.recipe.generation
    room = min(processes.gather(CACHE_SHARE * layers.free_bytes(model.device) / cache_bytes(model)))
    left = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    found = []
    while left:
        size = max(1, min(limits.generation_batch, int(room / (lengths[left[0]] + limits.max_new_tokens))))
        found.append(left[:size])
        left = left[size:]
    return found


def cache_bytes(model) -> int:
    """Bytes of keys and values that one token of one text leaves in the cache, in all layers."""
    config = model.config
    layer_count = getattr(config, "num_decoder_layers", None) or config.num_hidden_layers
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "d_kv", None) or getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * layer_count * heads * width * model.dtype.itemsize


def _generate(model, base: Base, prompts: list[list[int]]) -> list[list[int]]:
    """New token ids of each prompt, cut after the first one that ends an answer (which is kept).

    A decoder writes after the last position of every row, so its prompts are padded on the left; an encoder's on the right.
    """
    import torch

    pad = pad_left if base.family == "causal" else pad_right
    ids = torch.tensor(pad(prompts, base.tokenizer.pad_token_id), device=model.device)
    mask = torch.tensor(pad([[1] * len(p) for p in prompts], 0), device=model.device)
    # Of a prompt only the last position's logits matter; an index keeps them contiguous, which a slice does not.
    last = {"logits_to_keep": torch.tensor([-1], device=model.device)} if base.family == "causal" else {}
    with torch.no_grad(), base.precision.autocast(model.device.type):
        output = model.generate(input_ids=ids, attention_mask=mask, generation_config=decoding(base), **last)
    first_new = ids.shape[1] if base.family == "causal" else 1  # an encoder-decoder's output begins with its start token
    answers = []
    for row in output[:, first_new:].tolist():
        end = next((i for i, token in enumerate(row) if token in base.stops), len(row))
        answers.append(row[: end + 1])
    return answers


def _prediction(base: Base, example: Example, ids: list[int]) -> Prediction:
    stopped = bool(ids) and ids[-1] in base.stops
    text = base.tokenizer.decode(ids, skip_special_tokens=True).strip()
    return Prediction(example.id, text, example.references, len(ids) - stopped, stopped)
