"""What `make bench` compares: each case trains or generates once in a process of its own and says what it took."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lab_utils import architectures, bench_floor, cache, config, data, environment, generation, models, training
from lab_utils.batching import IGNORED, Encoder
from lab_utils.data import Example
from lab_utils.errors import LabError
from lab_utils.memory import Peak

BATCH = 8  # for everyone: the default of transformers and of TRL
PADDED = 512  # what the student script pads everything to
STUDENT_DROPOUT = 0.05
NO_LEARNING = 1e-30  # the learning rate of warm-up steps: they leave the weights as they are
T5_VERSION = 1
# What every contender does: one pass over the same examples, adapters of the same size.
COMMON = {
    "batch_size": BATCH, "micro_batch": BATCH, "epochs": 1, "rank": 16, "alpha": 32, "dropout": 0.0, "target_modules": "all-linear",
    "activation_checkpointing": False,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One row of the bench.

    `changes` replace values of the recipe; `switch` turns one thing of the lab off (or on) that no recipe names.
    """

    name: str
    section: str  # "training", "generation", "ablation", "growth", "floor"
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
    examples: int = 48
    answers: int = 60


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
    tokenizer = AutoTokenizer.from_pretrained(models.checkpoint_folder(spec))
    shape = T5Config(
        vocab_size=len(tokenizer), d_model=576, d_kv=64, num_heads=9, d_ff=1536, num_layers=12, feed_forward_proj="gated-gelu",
        dropout_rate=0.1, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        T5ForConditionalGeneration(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure(case: Case, size: Size) -> dict[str, Any]:
    """Runs a case in this process and returns its figures, losses and peak memory; a LabError or any other error goes on."""
    environment.quiet()
    device = environment.machine().device
    if case.system == "products":
        return {"operations_per_second": bench_floor.product_rate(case.changes["precision"], device)}
    if case.switch in BEFORE_LOADING:
        BEFORE_LOADING[case.switch]()
    with contextlib.ExitStack() as stack:
        peak = stack.enter_context(Peak()) if device == "cuda" else None  # on a CPU its thread would only disturb
        result = (_generate if case.generates else _train)(case, size, stack)
    return result | {"peak_gb": peak.gb if peak else process_peak_gb()}


def process_peak_gb() -> float:
    """The most memory that this process has held, in GB.

    Linux's VmHWM, since `ru_maxrss` of a new process starts at what its parent held; elsewhere `ru_maxrss`.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / 1e9


def machine() -> dict[str, Any]:
    """What the figures of this process depend on."""
    import torch

    found = environment.machine()
    versions = environment.versions()
    with contextlib.suppress(Exception):
        from importlib import metadata

        versions["trl"] = metadata.version("trl")
    precisions = {family: environment.precision(family).name for family in ("causal", "seq2seq")}
    return {
        "device": found.device,
        "hardware": found.hardware,
        "threads": torch.get_num_threads(),
        "precisions": precisions,
        "versions": versions,
    }


# --- training -----------------------------------------------------------------------------------------------------------


class Meter:
    """Counts and times one call of a Trainer's `train`, whoever wrote the Trainer."""

    def __init__(self, encoder: Encoder):
        self.pad_id, self.family = encoder.tokenizer.pad_token_id, encoder.family
        self.reset()

    def reset(self) -> None:
        self.tokens = self.padded = self.steps = 0
        self.watch = Stopwatch()

    def see(self, inputs: dict) -> None:
        """Counts the tokens of a batch: real ones, and all that the model computes on. What a second stack reads counts too."""
        self.tokens += int(inputs["attention_mask"].sum())
        self.padded += inputs["attention_mask"].numel()
        if self.family == "seq2seq":
            labels = inputs["labels"]
            self.tokens += int(((labels != IGNORED) & (labels != self.pad_id)).sum())
            self.padded += labels.numel()

    def around(self, trainer_class: type) -> type:
        """That Trainer class with this meter in it."""
        from transformers import TrainerCallback

        meter = self

        class Clock(TrainerCallback):
            def on_train_begin(self, args, state, control, **kwargs):
                meter.watch.start()

            def on_train_end(self, args, state, control, **kwargs):
                meter.watch.stop()
                meter.steps = state.global_step

        class Metered(trainer_class):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                self.add_callback(Clock())

            def training_step(self, model, inputs, *args, **kwargs):
                meter.see(inputs)
                return super().training_step(model, inputs, *args, **kwargs)

        return Metered


class Stopwatch:
    """Seconds between `start` and `stop`, and the share of this machine's processors that other processes took meanwhile."""

    seconds = others = 0.0

    def start(self) -> None:
        self._busy, self._own, self._since = _busy_seconds(), time.process_time(), _now()

    def stop(self) -> None:
        self.seconds = _now() - self._since
        busy, own = _busy_seconds() - self._busy, time.process_time() - self._own
        self.others = max(0.0, busy - own) / (self.seconds * (os.cpu_count() or 1))

    def describe(self) -> dict[str, float]:
        return {"seconds": self.seconds, "taken_by_others": round(self.others, 3)}


def _busy_seconds() -> float:
    """Processor seconds that this machine has spent on anything since it started."""
    import psutil

    spent = psutil.cpu_times()
    idle = {"idle", "iowait", "guest", "guest_nice"}  # guests are counted among user and nice already
    return sum(seconds for name, seconds in spent._asdict().items() if name not in idle)


def _now() -> float:
    return bench_floor.now(environment.machine().device)


def _train(case: Case, size: Size, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Trains one warm-up step at a rate of nothing, then one pass over the examples, which is what is timed."""
    settings = settings_of(case, size)
    encoder = _encoder(settings)
    count = case.growth[1] if case.growth and case.growth[0] == "examples" else size.examples
    examples = _examples(case, settings, encoder, int(count))
    pairs = [_tokens(encoder, example) for example in examples]
    meter = Meter(encoder)
    once = SYSTEMS[case.system](case, size, settings, encoder, examples, meter, stack)
    started = _now()
    once(True)
    warmup_seconds = _now() - started
    meter.reset()
    losses = once(False)
    plan = settings.training
    rank, targets = getattr(plan, "rank", None), getattr(plan, "target_modules", "all-linear")
    flops = bench_floor.training_flops(architectures.shape_of(settings.recipe.model.source), pairs, rank, targets)
    return {
        "tokens": meter.tokens,
        "padded_tokens": meter.padded,
        **meter.watch.describe(),
        "steps": meter.steps,
        "warmup_seconds": warmup_seconds,
        "losses": losses,
        "operations": flops,
        "precision": _precision(case, settings),
    }


def _encoder(settings: config.Settings) -> Encoder:
    from transformers import AutoTokenizer

    spec = settings.recipe.model
    tokenizer = AutoTokenizer.from_pretrained(models.checkpoint_folder(spec))
    return Encoder(tokenizer, spec.family, settings.recipe.prompt, settings.recipe.lengths)


def _examples(case: Case, settings: config.Settings, encoder: Encoder, count: int) -> list[Example]:
    """The first training examples; for growth with length, each document repeated until the limit cuts it."""
    examples = data.load(settings.recipe.data).train[:count]
    if case.growth and case.growth[0] == "length":
        limit = settings.recipe.lengths.document_tokens

        def filled(text: str) -> str:
            tokens = len(encoder.tokenizer(text, add_special_tokens=False)["input_ids"])
            return " ".join([text] * math.ceil(1 + limit / tokens))

        examples = [replace(example, document=filled(example.document)) for example in examples]
    return list(examples)


def _tokens(encoder: Encoder, example: Example) -> tuple[int, int]:
    """Tokens of an example's prompt and of its answer."""
    row = encoder(example)
    answer = sum(label != IGNORED for label in row["labels"])
    return len(row["input_ids"]) - (answer if encoder.family == "causal" else 0), answer


def _precision(case: Case, settings: config.Settings) -> str:
    if case.system in ("student", "one_by_one") and case.method != "qlora":
        return "float32"
    spec = settings.recipe.model
    return environment.precision(spec.family, spec.precision).name


Pass = Callable[[bool], list[float]]  # warm-up or not -> losses by step


def _lab(case, size, settings, encoder, examples, meter, stack) -> Pass:
    """What `lab train` runs, with one switch turned where the case says so."""
    base = models.load(settings)
    model = base.model if case.method == "full" else models.attach_lora(base)
    if case.switch in AROUND_TRAINING:
        stack.enter_context(AROUND_TRAINING[case.switch](model))
    made = training._trainer_class
    stack.enter_context(_patched(training, "_trainer_class", lambda: meter.around(made())))
    warm = replace(base, settings=settings_of(case, size, learning_rate=NO_LEARNING))

    def once(warmup: bool) -> list[float]:
        steps = 2 if case.switch == "compile" else 1
        history = training.train(model, warm if warmup else base, examples, say=_silent, max_steps=steps if warmup else None)
        return [row["loss"] for row in history.log if "loss" in row]

    return once


def _silent(line: str) -> None:
    return None


def _student(case, size, settings, encoder, examples, meter, stack) -> Pass:
    """What most notebooks and course labs do: transformers' Trainer, everything padded to 512, float32, loss over all tokens.

    A causal model takes DataCollatorForLanguageModeling; an encoder-decoder's labels are padded with ordinary pad tokens. LoRA goes on all
    linear layers with dropout 0.05; QLoRA goes, as in the tutorials, through peft's prepare_model_for_kbit_training, which checkpoints.
    """
    from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments, default_data_collator

    model = _plain_model(case, settings, "float32")
    if case.method == "qlora":
        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(model)
    if case.method != "full":
        model = _plain_adapter(model, settings, STUDENT_DROPOUT)
    pad = encoder.tokenizer.pad_token_id
    if encoder.family == "causal":
        rows = [_padded(encoder(example)["input_ids"], pad) for example in examples]
        collator = DataCollatorForLanguageModeling(encoder.tokenizer, mlm=False)
    else:
        rows = [encoder(example) for example in examples]
        rows = [_padded(row["input_ids"], pad) | {"labels": _padded(row["labels"], pad)["input_ids"]} for row in rows]
        collator = default_data_collator
    return _passes(
        lambda options: meter.around(Trainer)(
            model=model, args=TrainingArguments(logging_steps=1, **options), train_dataset=rows, data_collator=collator
        ),
        {"learning_rate": 2e-4, "per_device_train_batch_size": BATCH},
        stack,
    )


def _padded(ids: Sequence[int], pad: int) -> dict[str, list[int]]:
    """`input_ids` and `attention_mask` of a row, cut or filled to 512."""
    ids = list(ids[:PADDED])
    missing = PADDED - len(ids)
    return {"input_ids": ids + [pad] * missing, "attention_mask": [1] * len(ids) + [0] * missing}


def _stock_best(case, size, settings, encoder, examples, meter, stack) -> Pass:
    """transformers' Trainer at its best, where TRL has nothing to offer (encoder-decoders): batches padded to their longest row,
    rows of similar length together, labels masked, 16-bit products, a 16-bit base under an adapter without dropout."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    precision = _precision(case, settings)
    model = _plain_model(case, settings, "float32" if case.method == "full" else precision)
    if case.method != "full":
        model = _plain_adapter(model, settings, 0.0)
    rows = [encoder(example) for example in examples]
    for row in rows:
        row["attention_mask"] = [1] * len(row["input_ids"])
    options = {
        "learning_rate": 2e-4, "per_device_train_batch_size": BATCH, "train_sampling_strategy": "group_by_length",
        "bf16": precision == "bfloat16", "fp16": precision == "float16",
    }  # fmt: skip
    return _passes(
        lambda given: meter.around(Trainer)(
            model=model,
            args=TrainingArguments(logging_steps=1, **given),
            train_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(encoder.tokenizer, model=model),
        ),
        options,
        stack,
    )


def _trl(case, size, settings, encoder, examples, meter, stack, best: bool = False) -> Pass:
    """TRL's SFTTrainer. By default it has 16-bit products over a float32 model, checkpointing, loss over all tokens.

    Raises:
        LabError: TRL is not installed.
    """
    try:
        from trl import SFTConfig, SFTTrainer
    except ImportError as error:
        raise LabError(f"{WITHOUT_TRL} ({error})") from error
    from datasets import Dataset

    precision = _precision(case, settings)
    model = _plain_model(case, settings, precision if best and case.method != "full" else "float32")
    if case.method != "full":
        model = _plain_adapter(model, settings, 0.0)
    rows = []
    for example in examples:
        row = encoder(example)
        rows.append({"input_ids": row["input_ids"]})
        if best:
            rows[-1]["completion_mask"] = [int(label != IGNORED) for label in row["labels"]]
    options: dict[str, Any] = {}
    if best:
        options = {"gradient_checkpointing": False, "completion_only_loss": True, "train_sampling_strategy": "group_by_length"}
    if precision != "bfloat16":  # its default would be emulated here, or refused
        options |= {"bf16": False, "fp16": precision == "float16"}
    return _passes(
        lambda given: meter.around(SFTTrainer)(
            model=model, args=SFTConfig(**given), train_dataset=Dataset.from_list(rows), processing_class=encoder.tokenizer
        ),
        options,
        stack,
    )


def _trl_best(*given) -> Pass:
    """TRL's SFTTrainer as fast as its options make it: no checkpointing, loss (and logits) of the answer alone, rows of similar length
    together, a 16-bit base under an adapter. Packing would need flash-attention, which CPUs and older GPUs lack."""
    return _trl(*given, best=True)


def _passes(build: Callable[[dict], Any], options: dict[str, Any], stack: contextlib.ExitStack) -> Pass:
    """One call of a new Trainer's `train` each time, so that warm-up leaves no optimizer behind."""
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    common = {
        "output_dir": folder, "num_train_epochs": 1, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "seed": 0,
        "use_cpu": environment.machine().device == "cpu", "dataloader_pin_memory": environment.machine().device == "cuda",
    }  # fmt: skip

    def once(warmup: bool) -> list[float]:
        trainer = build(common | options | ({"max_steps": 1, "learning_rate": 0.0} if warmup else {}))
        trainer.remove_callback(training._printer())
        mean = trainer.train().training_loss
        return [row["loss"] for row in trainer.state.log_history if "loss" in row] or [mean]

    return once


def _plain_model(case: Case, settings: config.Settings, precision: str):
    """The model as a script without the lab loads it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, BitsAndBytesConfig

    spec = settings.recipe.model
    auto = AutoModelForCausalLM if spec.family == "causal" else AutoModelForSeq2SeqLM
    options: dict[str, Any] = {"dtype": getattr(torch, precision)}
    if case.method == "qlora":
        compute = environment.precision(spec.family).dtype
        options["device_map"] = {"": environment.machine().device}
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
        )
    return auto.from_pretrained(models.checkpoint_folder(spec), **options)


def _plain_adapter(model, settings: config.Settings, dropout: float):
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    torch.manual_seed(0)
    plan, causal = settings.training, settings.recipe.model.family == "causal"
    task = TaskType.CAUSAL_LM if causal else TaskType.SEQ_2_SEQ_LM
    return get_peft_model(
        model, LoraConfig(r=plan.rank, lora_alpha=plan.alpha, lora_dropout=dropout, target_modules=plan.target_modules, task_type=task)
    )


WITHOUT_TRL = "TRL is not installed: `pip install '.[bench]'` adds its rows"
SYSTEMS: dict[str, Callable[..., Pass]] = {
    "lab": _lab, "student": _student, "stock_best": _stock_best, "trl": _trl, "trl_best": _trl_best,
}  # fmt: skip


# --- generation ---------------------------------------------------------------------------------------------------------


def _generate(case: Case, size: Size, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Summarizes test documents with a new adapter, which changes no answer; two are summarized before the clock starts."""
    settings = settings_of(case, size)
    examples = list(data.load(settings.recipe.data).test[: size.answers])
    seen = _Prompts()
    if case.system == "one_by_one":
        encoder = _encoder(settings)
        model = _plain_adapter(_plain_model(case, settings, "float32"), settings, 0.0).eval()
        model.to(environment.machine().device)

        def answers(chosen: Sequence[Example]) -> list[int]:
            return _one_by_one(model, encoder, settings, chosen)
    else:
        base = models.load(settings)
        model, encoder = models.attach_lora(base), base.encoder
        if case.switch in AROUND_GENERATION:
            stack.enter_context(AROUND_GENERATION[case.switch](model))

        def answers(chosen: Sequence[Example]) -> list[int]:
            made = generation.summarize(model, base, chosen, say=_silent).predictions
            return [p.tokens + p.stopped for p in made]

    stack.enter_context(_patched(model, "generate", seen.around(model.generate)))
    answers(examples[:2])
    seen.padded = 0
    watch = Stopwatch()
    watch.start()
    new = answers(examples)
    watch.stop()
    shape = architectures.shape_of(settings.recipe.model.source)
    prompts = [len(encoder.prompt_of(example.document)) for example in examples]
    return {
        "tokens": sum(new),
        "padded_tokens": seen.padded,
        "examples": len(examples),
        **watch.describe(),
        "operations": bench_floor.generation_flops(shape, zip(prompts, new, strict=True)),
        "precision": _precision(case, settings),
    }


class _Prompts:
    """Counts the prompt tokens that `generate` is given, padding included."""

    def __init__(self):
        self.padded = 0

    def around(self, generate: Callable) -> Callable:
        def counted(*args, **kwargs):
            self.padded += kwargs["input_ids"].numel()
            return generate(*args, **kwargs)

        return counted


def _one_by_one(model, encoder: Encoder, settings: config.Settings, examples: Sequence[Example]) -> list[int]:
    """New tokens of each answer, one document after the other, as most notebooks evaluate: a loop over `generate`, float32."""
    import torch

    first = 1 if encoder.family == "seq2seq" else None
    counts = []
    for example in examples:
        ids = torch.tensor([encoder.prompt_of(example.document)], device=model.device)
        with torch.no_grad():
            output = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=settings.recipe.generation.max_new_tokens,
                do_sample=False,
                eos_token_id=encoder.tokenizer.eos_token_id,
                pad_token_id=encoder.tokenizer.pad_token_id,
            )
        counts.append(output.shape[1] - (first or ids.shape[1]))
    return counts


# --- switches: one thing of the lab turned off or on ------------------------------------------------------------------------


@contextlib.contextmanager
def _patched(owner: Any, name: str, value: Any) -> Iterator[None]:
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

        return _patched(training, "training_arguments", changed)

    return switch


def all_logits(model):
    """Logits of every position, prompt and padding included, as a model computes them unless told otherwise."""
    return _patched(training, "token_losses", plain_token_losses)


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
    return _patched(generation, "sorted", lambda values, key=None: list(values))


BEFORE_LOADING: dict[str, Callable[[], None]] = {"allocator": keep_large_blocks}
AROUND_TRAINING: dict[str, Callable[[Any], contextlib.AbstractContextManager]] = {
    "ungrouped": _arguments(train_sampling_strategy="random"),
    "all_logits": all_logits,
    "unfused": _arguments(optim="adamw_torch"),
    "no_input_casts": no_input_casts,
    "compile": compiled,
}
AROUND_GENERATION: dict[str, Callable[[Any], contextlib.AbstractContextManager]] = {"unsorted": unsorted}
