"""Those whom the lab is measured beside: a student script, TRL, transformers' Trainer at its best, and a loop over `generate`.

Each takes the same examples, tokenised by the same prompt, and returns a function that trains once, as a warm-up or in earnest.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from lab_utils import config, environment, pretrained
from lab_utils.batching import IGNORED, Encoder
from lab_utils.bench.cases import BATCH, MICRO_BATCH, Case, precision_of
from lab_utils.data import Example
from lab_utils.errors import LabError

PADDED = 512  # what the student script pads everything to
STUDENT_DROPOUT = 0.05
WITHOUT_TRL = "TRL is not installed: `pip install '.[bench]'` adds its rows"

Pass = Callable[[bool], list[float]]  # warm-up or not -> losses by step


def student(case, size, settings, encoder, examples, meter, stack) -> Pass:
    """What most notebooks and course labs do: transformers' Trainer, everything padded to 512, float32, loss over all tokens.

    A causal model takes DataCollatorForLanguageModeling; an encoder-decoder's labels are padded with ordinary pad tokens. LoRA goes on all
    linear layers with dropout 0.05; QLoRA goes, as in the tutorials, through peft's prepare_model_for_kbit_training, which checkpoints.
    """
    from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments, default_data_collator

    model = plain_model(case, settings, "float32")
    if case.method == "qlora":
        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(model)
    if case.method != "full":
        model = plain_adapter(model, settings, STUDENT_DROPOUT)
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


def stock_best(case, size, settings, encoder, examples, meter, stack) -> Pass:
    """transformers' Trainer at its best, where TRL has nothing to offer (encoder-decoders): batches padded to their longest row,
    rows of similar length together, the fastest micro-batch, labels masked, 16-bit products, a 16-bit base under an adapter without
    dropout."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    precision = precision_of(case, settings)
    model = plain_model(case, settings, "float32" if case.method == "full" else precision)
    if case.method != "full":
        model = plain_adapter(model, settings, 0.0)
    rows = [encoder(example) for example in examples]
    for row in rows:
        row["attention_mask"] = [1] * len(row["input_ids"])
    options = {
        "learning_rate": 2e-4, "train_sampling_strategy": "group_by_length", "bf16": precision == "bfloat16",
        "fp16": precision == "float16", **_fastest_micro_batch(),
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


def trl(case, size, settings, encoder, examples, meter, stack, best: bool = False) -> Pass:
    """TRL's SFTTrainer. By default it has 16-bit products over a float32 model, checkpointing, loss over all tokens.

    Raises:
        LabError: TRL is not installed.
    """
    try:
        from trl import SFTConfig, SFTTrainer
    except ImportError as error:
        raise LabError(f"{WITHOUT_TRL} ({error})") from error
    from datasets import Dataset

    precision = precision_of(case, settings)
    model = plain_model(case, settings, precision if best and case.method != "full" else "float32")
    if case.method != "full":
        model = plain_adapter(model, settings, 0.0)
    rows = []
    for example in examples:
        row = encoder(example)
        rows.append({"input_ids": row["input_ids"]})
        if best:
            rows[-1]["completion_mask"] = [int(label != IGNORED) for label in row["labels"]]
    options: dict[str, Any] = {}
    if best:
        options = {"gradient_checkpointing": False, "completion_only_loss": True, "train_sampling_strategy": "group_by_length"}
        options |= _fastest_micro_batch()
    if precision != "bfloat16":  # its default would be emulated here, or refused
        options |= {"bf16": False, "fp16": precision == "float16"}
    return _passes(
        lambda given: meter.around(SFTTrainer)(
            model=model, args=SFTConfig(**given), train_dataset=Dataset.from_list(rows), processing_class=encoder.tokenizer
        ),
        options,
        stack,
    )


def trl_best(*given) -> Pass:
    """TRL's SFTTrainer as fast as its options make it: no checkpointing, loss (and logits) of the answer alone, rows of similar length
    together, the micro-batch that is fastest here, a 16-bit base under an adapter. Packing would need flash-attention, which CPUs and older
    GPUs lack."""
    return trl(*given, best=True)


def _fastest_micro_batch() -> dict[str, int]:
    rows = MICRO_BATCH[environment.machine().device]
    return {"per_device_train_batch_size": rows, "gradient_accumulation_steps": BATCH // rows}


def _passes(build: Callable[[dict], Any], options: dict[str, Any], stack: contextlib.ExitStack) -> Pass:
    """One call of a new Trainer's `train` each time, so that warm-up leaves no optimizer behind."""
    from transformers.trainer_callback import PrinterCallback

    folder = stack.enter_context(tempfile.TemporaryDirectory())
    common = {
        "output_dir": folder, "num_train_epochs": 1, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "seed": 0,
        "use_cpu": environment.machine().device == "cpu", "dataloader_pin_memory": environment.machine().device == "cuda",
    }  # fmt: skip

    def once(warmup: bool) -> list[float]:
        trainer = build(common | options | ({"max_steps": 1, "learning_rate": 0.0} if warmup else {}))
        trainer.remove_callback(PrinterCallback)
        mean = trainer.train().training_loss
        return [row["loss"] for row in trainer.state.log_history if "loss" in row] or [mean]

    return once


def plain_model(case: Case, settings: config.Settings, precision: str):
    """The model as a script without the lab loads it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, BitsAndBytesConfig

    spec = settings.recipe.model
    auto = AutoModelForCausalLM if spec.family == "causal" else AutoModelForSeq2SeqLM
    options: dict[str, Any] = {"dtype": getattr(torch, precision), "use_safetensors": True, "trust_remote_code": False}
    if case.method == "qlora":
        compute = environment.precision(spec.family).dtype
        options["device_map"] = {"": environment.machine().device}
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
        )
    return auto.from_pretrained(pretrained.checkpoint_folder(spec), **options)


def plain_adapter(model, settings: config.Settings, dropout: float):
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    torch.manual_seed(0)
    plan, causal = settings.training, settings.recipe.model.family == "causal"
    task = TaskType.CAUSAL_LM if causal else TaskType.SEQ_2_SEQ_LM
    return get_peft_model(
        model, LoraConfig(r=plan.rank, lora_alpha=plan.alpha, lora_dropout=dropout, target_modules=plan.target_modules, task_type=task)
    )


def one_by_one(model, encoder: Encoder, settings: config.Settings, examples: Sequence[Example]) -> list[int]:
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


RIVALS: dict[str, Callable[..., Pass]] = {"student": student, "stock_best": stock_best, "trl": trl, "trl_best": trl_best}
