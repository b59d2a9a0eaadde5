"""transformers' Trainer with the lab's loss and batches, a checkpoint that is whole, an answer to too little memory, and its arguments."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from typing import Any

from lab_utils import environment, memory, processes
from lab_utils.batching import Shares, SimilarLengths, filler
from lab_utils.checkpoints import Keeper
from lab_utils.errors import LabError, TrainingDiverged

NAMED_AT_MOST = 8  # examples in a sentence


def trainer_class(token_losses: Callable[[Any, dict], tuple]):
    """The class, made on demand because it inherits from transformers'.

    Args:
        token_losses: gives the sum of a batch's losses and the number of its answer tokens.
    """
    import torch
    from transformers import Trainer

    class AnswerTrainer(Trainer):
        """A Trainer whose loss is the mean over the answer tokens of the whole batch, however it is split.

        Args:
            names: of the rows, for messages.
            keeper: of checkpoints, and `progress`, which gives what to keep beside one.
        """

        def __init__(self, *args, names: Sequence[str], say: Callable[[str], None], keeper: Keeper | None = None, **kwargs):
            super().__init__(*args, **kwargs)
            # The loss below is divided by the batch's token count over all processes, so Trainer must count and must not divide again.
            self.model_accepts_loss_kwargs = True
            self.tokens_seen = self.rows_seen = 0
            self.pieces = 1  # that a micro-batch is computed in
            self.order = SimilarLengths([len(row["input_ids"]) for row in self.train_dataset], self.get_total_train_batch_size(self.args))
            self.keeper, self.progress = keeper, dict
            self._names, self._say = names, say
            self._step: list[dict] = []  # the micro-batches of the step at hand
            self._done = 0  # how many of them
            self._seen_before = (0, 0)

        def _get_train_sampler(self, train_dataset=None):
            """Rows grouped by length within the batches of all processes; transformers would group within those of one."""
            if self.args.train_sampling_strategy != "group_by_length":
                return super()._get_train_sampler(train_dataset)
            return self.order

        def get_train_dataloader(self):
            """This process's micro-batches. accelerate's own dealing repeats examples where the last batch is not full."""
            from torch.utils.data import DataLoader

            rows = self.train_dataset
            return DataLoader(
                list(enumerate([*rows, filler(rows)])),
                batch_sampler=Shares(self._get_train_sampler(), len(rows), self.args.train_batch_size),
                collate_fn=self._collated,
                pin_memory=self.args.dataloader_pin_memory,
            )

        def _collated(self, numbered):
            numbers, rows = zip(*numbered, strict=True)
            return self.data_collator(rows) | {"numbers": torch.tensor(numbers)}

        def get_batch_samples(self, *args, **kwargs):
            found = super().get_batch_samples(*args, **kwargs)
            self._step, self._done, self._seen_before = found[0], 0, (self.tokens_seen, self.rows_seen)
            return found

        def training_step(self, model, inputs, num_items_in_batch=None):
            """Loss and gradient of one micro-batch.

            Where memory runs out, gradients of this step are dropped and its micro-batches so far are computed again in halves. They are
            sums over examples, so the step stays what it was.
            """
            ahead = [inputs]
            while True:
                try:
                    for micro in ahead:
                        loss = sum(super(AnswerTrainer, self).training_step(model, piece, num_items_in_batch) for piece in self._cut(micro))
                    self._done += 1
                    return loss
                except (MemoryError, RuntimeError) as error:
                    if not memory.ran_out(error):
                        raise
                    self._halve(error)
                # The error, whose traceback holds on to tensors, is gone here.
                model.zero_grad(set_to_none=True)
                gc.collect()
                environment.return_memory()
                self.tokens_seen, self.rows_seen = self._seen_before
                ahead = self._step[: self._done + 1]

        def _cut(self, micro: dict) -> list[dict]:
            parts = {name: tensor.tensor_split(min(self.pieces, len(tensor))) for name, tensor in micro.items()}
            return [dict(zip(parts, piece, strict=True)) for piece in zip(*parts.values(), strict=True)]

        def _halve(self, error: BaseException) -> None:
            """Cuts micro-batches into twice as many pieces.

            Raises:
                LabError: there is nothing to cut, or the other processes would wait for this one.
            """
            size = math.ceil(self.args.train_batch_size / self.pieces)
            step = self.state.global_step + 1
            if processes.count() > 1 and size > 1:
                raise LabError(
                    f"Out of memory at step {step} with {size} examples at a time in each process: give -p micro_batch={size // 2}."
                ) from error
            if size == 1:
                raise LabError(
                    f"Out of memory at step {step} with one example at a time: shorten document_tokens, set activation_checkpointing=true, "
                    "or choose lora or qlora; `lab plan` says what fits."
                ) from error
            self.pieces *= 2
            self._say(
                f"Out of memory at step {step} with {size} examples at a time: going on with {math.ceil(size / 2)}. "
                f"The batch of {self.get_total_train_batch_size(self.args)} and its gradient stay the same; a step takes longer."
            )

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            numbers = inputs.pop("numbers")
            loss, tokens = token_losses(model, inputs)
            if tokens:  # else it is only there to take part in the step
                self.tokens_seen += int(inputs["attention_mask"].sum())
                self.rows_seen += len(inputs["labels"])
            if "decoder_input_ids" in inputs:
                self.tokens_seen += int(tokens)
            if not math.isfinite(loss.item()):
                raise self.diverged("loss", loss.item(), [numbers])
            # Gradients, and losses for the log, are averaged over processes, but each holds only a share of the batch's sum.
            return loss * processes.count() / (tokens if num_items_in_batch is None else num_items_in_batch)

        def diverged(self, what: str, value: float, numbers=None) -> TrainingDiverged:
            """The error for a loss or gradient that is not a number, with the examples of its batch."""
            numbers = [micro["numbers"] for micro in self._step] if numbers is None else numbers
            names = [self._names[number] for micro in numbers for number in micro.tolist() if number < len(self._names)]
            more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
            step = self.state.global_step + (what == "loss")  # a gradient is looked at when the step is done
            return TrainingDiverged(
                f"The {what} became {value} at step {step}, on {', '.join(names[:NAMED_AT_MOST])}{more}: the usual causes are a learning "
                f"rate that is too high (here {self.args.learning_rate:g}) and float16 overflow in T5; try a third of the rate, or float32."
            )

        def _save_checkpoint(self, model, trial):
            with self.keeper.writing(self.state.global_step, self.progress):
                super()._save_checkpoint(model, trial)

    return AnswerTrainer


def accumulation(plan) -> int:
    """How many micro-batches each process reads for one step.

    Raises:
        LabError: a batch that so many processes cannot share in whole micro-batches.
    """
    count = processes.count()
    rows = plan.micro_batch * count
    if plan.batch_size % rows:
        fits = math.gcd(plan.batch_size // count, plan.micro_batch) if plan.batch_size % count == 0 else 0
        cure = f"set micro_batch={fits}" if fits else f"start a number of processes that divides {plan.batch_size}"
        raise LabError(
            f"A batch of {plan.batch_size} examples cannot be shared by {count} processes that take {plan.micro_batch} at a time: {cure}, "
            f"or batch_size={rows * math.ceil(plan.batch_size / rows)}, which changes the training."
        )
    return plan.batch_size // rows


def training_arguments(plan, folder: str, seed: int, precision: environment.Precision, device: str, max_steps: int | None = None):
    """transformers' TrainingArguments for a method's plan."""
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=plan.micro_batch,
        gradient_accumulation_steps=accumulation(plan),
        num_train_epochs=plan.epochs,
        max_steps=max_steps or -1,
        learning_rate=plan.learning_rate,
        lr_scheduler_type=plan.schedule,
        warmup_steps=plan.warmup,  # below 1: a share of all steps
        weight_decay=plan.weight_decay,
        max_grad_norm=plan.max_grad_norm,
        optim=environment.optimizer(plan.optimizer)[0],
        bf16=precision.name == "bfloat16",
        fp16=precision.name == "float16",
        use_cpu=device == "cpu",
        train_sampling_strategy="group_by_length",
        ddp_find_unused_parameters=False,  # each is used in every step
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="tensorboard" if plan.tensorboard else "none",
        remove_unused_columns=False,
        dataloader_pin_memory=device == "cuda",
        disable_tqdm=True,
        seed=seed,
        **_checkpointing(plan.activation_checkpointing),
    )


def _checkpointing(wanted: bool) -> dict[str, Any]:
    """What tells transformers to compute activations again in the backward pass: 5.15 calls it by another name than 5.23."""
    from transformers import TrainingArguments

    name = "activation_checkpointing"
    name = name if name in TrainingArguments.__dataclass_fields__ else "gradient_checkpointing"
    return {name: wanted, f"{name}_kwargs": {"use_reentrant": False}}


def loraplus(model, plan):
    """AdamW with a higher learning rate for `B` than for `A` (Hayou et al. 2024), where the plan asks for it."""
    if not getattr(plan, "loraplus_ratio", None):
        return None
    import torch
    from peft.optimizers import create_loraplus_optimizer

    return create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=plan.learning_rate, loraplus_lr_ratio=plan.loraplus_ratio, weight_decay=plan.weight_decay
    )
