"""The cases of `make bench`: who does what, with which model and settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lab_utils import cache, config, data, environment, pretrained
from lab_utils.batching import IGNORED, Encoder
from lab_utils.data import Example

BATCH = 8  # for everyone: the default of transformers and of TRL
MICRO_BATCH = {"cpu": 2, "cuda": BATCH}  # rows at a time for the lab and for whoever is at its best: what is fastest there
T5_VERSION = 1
# What every contender does: one pass over the same examples, adapters of the same size.
COMMON = {
    "batch_size": BATCH, "epochs": 1, "rank": 16, "alpha": 32, "dropout": 0.0, "target_modules": "all-linear",
    "activation_checkpointing": False,
}  # fmt: skip
LORA = "causal-lora-lab"


@dataclass(frozen=True)
class Case:
    """One row of the bench.

    `changes` replace values of the recipe; `switch` turns one thing of the lab off (or on) that no recipe names.
    """

    name: str
    section: str  # "training", "generation", "ablation", "growth", "plan", "floor"
    says: str
    family: str = "causal"  # or "seq2seq"
    method: str = "lora"
    system: str = "lab"  # "student", "trl", "trl_best", "stock_best", "one_by_one"; "products": matrix products alone
    changes: dict[str, Any] = field(default_factory=dict)
    switch: str | None = None
    against: str | None = None  # the case that it is compared with
    same_losses: bool = False  # it promises the losses of that case
    growth: tuple[str, float] | None = None  # which axis of growth, and where on it
    quick: bool = False

    @property
    def generates(self) -> bool:
        return self.section == "generation"


@dataclass(frozen=True)
class Size:
    """How much work a case does, and with which models: `small` (a laptop's) or `tiny` (random weights, for tests)."""

    models: str = "small"
    examples: int = 24
    answers: int = 30


def settings_of(case: Case, size: Size, **changes: Any) -> config.Settings:
    """The lab's settings of a case; the other systems take prompt, lengths and adapter from them."""
    if size.models == "tiny":
        recipe, own = f"tiny-{case.family}", {"train_examples": 240, "test_examples": 60}  # the whole set
    elif case.family == "causal":
        recipe, own = "smollm2-everyday", {}
    else:
        own = {"model_dir": str(cache.prepared(f"bench-t5-{T5_VERSION}", _build_t5)), "data": "everyday", "max_new_tokens": 72}
        recipe = "flan-t5-base-dialogsum"
    values = COMMON | own | case.changes | changes
    return config.resolve(recipe, case.method, 0, **config.applicable(values, case.method))


def _build_t5(folder: Path) -> None:
    """A T5 of random weights, as wide as SmolLM2 and with its vocabulary: 140 million parameters, dropout as T5 was published."""
    environment.quiet()
    import torch
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    spec = config.load_recipe("smollm2-everyday").model
    tokenizer = AutoTokenizer.from_pretrained(pretrained.checkpoint_folder(spec), trust_remote_code=False)
    shape = T5Config(
        vocab_size=len(tokenizer), d_model=576, d_kv=64, num_heads=9, d_ff=1536, num_layers=12, feed_forward_proj="gated-gelu",
        dropout_rate=0.1, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        T5ForConditionalGeneration(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def cases() -> list[Case]:
    """Everything that is measured, in the order in which it is measured."""
    return [*_floor(), *_training(), *_generation(), *_ablations(), *_growth(), *_plan()]


def _floor() -> list[Case]:
    return [
        Case(
            f"products-{precision}",
            "floor",
            f"matrix products, {precision}",
            system="products",
            changes={"precision": precision},
            quick=True,
        )
        for precision in ("float32", "bfloat16", "float16")
    ]


def _training() -> list[Case]:
    says = {
        "student": "student script", "trl": "TRL, defaults", "trl_best": "TRL, at its best", "stock_best": "Trainer, at its best",
        "lab": "this lab",
    }  # fmt: skip
    systems = {"causal": ("student", "trl", "trl_best", "lab"), "seq2seq": ("student", "stock_best", "lab")}
    return [
        Case(f"{family}-{method}-{system}", "training", says[system], family, method, system, quick=method == "lora")
        for family in systems
        for method in ("full", "lora", "qlora")
        for system in systems[family]
    ]


def _generation() -> list[Case]:
    found = []
    for family in ("causal", "seq2seq"):
        name = f"{family}-summaries"
        found.append(Case(f"{name}-one_by_one", "generation", "one by one, float32", family, system="one_by_one", quick=True))
        found.append(Case(f"{name}-lab", "generation", "this lab", family, quick=True))
    name = "causal-summaries-lab"
    turned = [
        Case(f"{name}-unmerged", "generation", "without merged adapters", switch="unmerged", against=name),
        Case(f"{name}-static_cache", "generation", "with a static cache", switch="static_cache", against=name),
        Case(f"{name}-single", "generation", "without batches", changes={"generation_batch": 1}, against=name),
        Case(f"{name}-unsorted", "generation", "without sorting by length", switch="unsorted", against=name),
        Case(f"{name}-float32", "generation", "without 16-bit products", changes={"precision": "float32"}, against=name),
    ]
    return found + turned


def _ablations() -> list[Case]:
    """One thing turned at a time. `without`: the lab does it; `with`: it does not, and the row says what it would bring."""

    def row(
        name: str, says: str, switch: str | None = None, same: bool = False, against: str = LORA, quick: bool = False, **changes
    ) -> Case:
        return Case(f"{LORA}-{name}", "ablation", says, switch=switch, changes=changes, against=against, same_losses=same, quick=quick)

    exact = {"precision": "float32"}
    return [
        row("ungrouped", "without length grouping", "ungrouped", quick=True),
        row("all_logits", "without answer-only logits", "all_logits", same=True, quick=True),
        row("float32", "without 16-bit products", quick=True, **exact),
        row("float32-all_logits", "in float32, without answer-only logits", "all_logits", same=True, against=f"{LORA}-float32", **exact),
        row("dropout", "with dropout 0.05", dropout=0.05, quick=True),
        row("unfused", "without the fused optimizer", "unfused", same=True),
        row("eager", "without fused attention", "eager"),
        row("checkpointing", "with checkpointing", same=True, activation_checkpointing=True),
        row("micro8", "with a whole batch at a time", same=True, micro_batch=BATCH),
        row("usual_pass", "without the lean pass through adapters", "usual_pass", same=True, quick=True),
        row("usual_allocator", "without keeping large blocks", "usual_allocator", same=True, quick=True),
        row("compile", "with torch.compile", same=True, compile=True),
    ]  # fmt: skip


def _growth() -> list[Case]:
    def point(axis: str, value: int, **changes) -> Case:
        return Case(f"growth-{axis}-{value}", "growth", f"{axis} {value}", changes=changes, growth=(axis, value))

    return [
        *(point("examples", n) for n in (8, 16, 32)),
        *(point("length", n, document_tokens=n) for n in (64, 128, 256, 512)),
        *(point("batch", n, batch_size=n, micro_batch=n) for n in (1, 2, 8)),
        *(point("rank", n, rank=n, alpha=2 * n) for n in (4, 16, 64)),
    ]


def _plan() -> list[Case]:
    """Documents that all fill their limit, so that the plan's longest batch is every batch."""
    return [
        Case(f"plan-{method}-{tokens}", "plan", f"{tokens} document tokens", method=method, growth=("length", tokens),
             changes={"document_tokens": tokens, "batch_size": 4, "micro_batch": 4})
        for method in ("full", "lora", "qlora")
        for tokens in (96, 192, 384)
    ]  # fmt: skip


# --- what a case works on ---------------------------------------------------------------------------------------------------


def encoder_of(settings: config.Settings) -> Encoder:
    from transformers import AutoTokenizer

    spec = settings.recipe.model
    tokenizer = AutoTokenizer.from_pretrained(pretrained.checkpoint_folder(spec), trust_remote_code=False)
    return Encoder(tokenizer, spec.family, settings.recipe.prompt, settings.recipe.lengths)


def examples_of(case: Case, settings: config.Settings, encoder: Encoder, count: int) -> list[Example]:
    """The first training examples; for growth with length, each document repeated until the limit cuts it."""
    examples = data.load(settings.recipe.data).train[:count]
    if case.growth and case.growth[0] == "length":
        limit = settings.recipe.lengths.document_tokens

        def filled(text: str) -> str:
            tokens = len(encoder.tokenizer(text, add_special_tokens=False)["input_ids"])
            return " ".join([text] * math.ceil(1 + limit / tokens))

        examples = [replace(example, document=filled(example.document)) for example in examples]
    return list(examples)


def tokens_of(encoder: Encoder, example: Example) -> tuple[int, int]:
    """Tokens of an example's prompt and of its answer."""
    row = encoder(example)
    answer = sum(label != IGNORED for label in row["labels"])
    return len(row["input_ids"]) - (answer if encoder.family == "causal" else 0), answer


def precision_of(case: Case, settings: config.Settings) -> str:
    if case.system in ("student", "one_by_one") and case.method != "qlora":
        return "float32"
    spec = settings.recipe.model
    return environment.precision(spec.family, spec.precision).name
