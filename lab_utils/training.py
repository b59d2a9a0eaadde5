"""Fine-tuning on transformers' Trainer: loss over the answer only, accumulation that changes nothing, failures that stop."""

from __future__ import annotations

import gc
import importlib.util
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lab_utils import checkpoints as keeping
from lab_utils import encoding, environment, memory, processes
from lab_utils.batching import IGNORED
from lab_utils.checkpoints import Keeper
from lab_utils.config import Settings
from lab_utils.data import Example
from lab_utils.errors import LabError
from lab_utils.models import Base
from lab_utils.needs import LOGITS_AT_ONCE
from lab_utils.plan import fitting_micro_batch
from lab_utils.progress import through
from lab_utils.trainer import loraplus, trainer_class, training_arguments
from lab_utils.watching import watch


@dataclass
class History:
    """What happened: one row per optimizer step (`log`), and the totals."""

    steps: int
    examples: int
    tokens: int  # prompt and answer tokens read, padding left out
    seconds: float  # validation passes and the writing of checkpoints left out
    peak_memory_gb: float
    log: list[dict] = field(repr=False)
    continued_from: list[int] = field(default_factory=list)  # steps at which an interrupted training went on
    micro_batch: int | None = None  # where memory asked for a smaller one than the settings say

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    def describe(self) -> dict:
        losses = [row["loss"] for row in self.log if row.get("loss") is not None]
        validated = [row["validation_loss"] for row in self.log if row.get("validation_loss") is not None]
        return {
            "steps": self.steps,
            "examples": self.examples,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 1),
            "tokens_per_second": round(self.tokens_per_second, 1),
            "peak_memory_gb": round(self.peak_memory_gb, 2),
            "first_loss": losses[0],
            "last_loss": losses[-1],
            "validation_losses": validated,
            **({"continued_from_steps": self.continued_from} if self.continued_from else {}),
            **({"micro_batch": self.micro_batch} if self.micro_batch else {}),
        }


def token_losses(model, batch: dict):
    """Sum of the cross-entropy over the supervised tokens of a batch, and their number.

    Logits are computed only for positions whose next token is supervised: the same loss as from all logits, a fraction of
    the memory, since a vocabulary of 49,152 makes logits the largest tensor of a step.
    """

    inputs = {key: value for key, value in batch.items() if key != "labels"}
    targets = batch["labels"]
    if "decoder_input_ids" not in batch:  # causal: the logits at a position predict the next token
        targets = targets[:, 1:]
        inputs["logits_to_keep"] = (targets != IGNORED).any(0).nonzero().squeeze(1)
        targets = targets[:, inputs["logits_to_keep"]]
    logits = model(**inputs, use_cache=False).logits.flatten(0, 1)
    return _cross_entropy(logits, targets.flatten()), (targets != IGNORED).sum()


def _cross_entropy(logits, targets):
    """Sum over the rows. Many rows are taken in parts, each computed again for the backward pass: the float32 copies, log-probabilities
    and their gradients of one part are in memory at a time, and sum and gradient are what they would be in one."""
    import torch
    from torch.utils.checkpoint import checkpoint

    def one(logits, targets):
        return torch.nn.functional.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="sum")

    if logits.numel() <= LOGITS_AT_ONCE:
        return one(logits, targets)
    rows = max(1, LOGITS_AT_ONCE // logits.shape[-1])
    parts = zip(logits.split(rows), targets.split(rows), strict=True)
    return torch.stack([checkpoint(one, *part, use_reentrant=False) for part in parts]).sum()


def validation_loss(model, base: Base, examples: Sequence[Example], batch_size: int = 4, say=None) -> float:
    """Mean cross-entropy per answer token, in nats, over all examples. Dropout is off; the model's mode is restored.

    Several processes deal out the batches and all get the mean.
    """
    import torch

    rows = sorted(encoding.rows(base.encoder, examples), key=lambda row: len(row["input_ids"]))
    batches = processes.share([rows[start : start + batch_size] for start in range(0, len(rows), batch_size)])
    device, was_training = model.device, model.training
    model.eval()
    total = count = 0.0
    try:
        with torch.no_grad(), base.precision.autocast(device.type):
            for chosen in through(batches, "batches of validation documents", say):
                batch = base.collator(chosen)
                loss, tokens = token_losses(model, {key: value.to(device) for key, value in batch.items()})
                total, count = total + loss.item(), count + tokens.item()
    finally:
        model.train(was_training)
    sums = processes.gather((total, count))
    return sum(total for total, _ in sums) / sum(count for _, count in sums)


def train(
    model,
    base: Base,
    examples: Sequence[Example],
    validation: Sequence[Example] = (),
    *,
    validations: int = 2,
    max_steps: int | None = None,
    log_file: Path | None = None,
    say: Callable[[str], None] | None = None,
    checkpoints: Path | None = None,
) -> History:
    """Trains the model in place by its settings and returns what happened. The model is left in evaluation mode.

    Several processes each take their share of every batch (DDP): the steps, their examples and the mean over a batch's answer tokens are
    those of one process. All must call it with the same arguments; the main one writes and speaks.

    Args:
        examples: training examples; rows of similar length share a batch.
        validation: examples whose loss is measured before training and then `validations` times, evenly spaced.
        max_steps: stop after so many optimizer steps, for experiments; the schedule shrinks with it.
        log_file: a CSV with one row per step, written as training goes.
        say: takes a line of progress every few seconds; by default it is printed.
        checkpoints: a folder. A training that was interrupted goes on from what it kept there, to the end it would have had anyway.
            What is kept stays until the folder is removed. Not with a model that FSDP split.

    Raises:
        TrainingDiverged: a loss or gradient that is not a number, with the step, the examples and the usual causes.
        LabError: out of memory with one example at a time.
    """
    import torch
    from transformers.trainer_callback import PrinterCallback

    precision, say = base.precision, say or environment.say
    plan = _that_fits(base.settings, say)
    instead = environment.optimizer(plan.optimizer)[1]
    if instead:
        say(f"{instead}.")
    if plan.tensorboard:
        _prepare_tensorboard(log_file)
    with processes.first_on_each_node():
        rows = encoding.rows(base.encoder, examples)
    device = environment.machine().device
    keeper = earlier = None
    if checkpoints is not None and not processes.sharded():
        key = keeping.key(base, examples, validation, max_steps=max_steps, validations=validations)
        keeper = Keeper(checkpoints, key, say)
        earlier = keeper.latest()
    gc.collect()
    environment.return_memory()  # of models that a notebook has dropped
    # Micro-batch losses are already sums over the tokens of the whole batch: see AnswerTrainer.compute_loss.
    with keeper.room() if keeper else tempfile.TemporaryDirectory() as scratch, memory.Peak() as peak:
        arguments = training_arguments(plan, scratch, base.settings.seed, precision, device, max_steps)
        validate = partial(validation_loss, base=base, examples=validation, batch_size=min(8, base.settings.training.micro_batch), say=say)
        log_file = log_file if processes.is_main() else None
        watcher = watch(precision.name, validate if validation else None, len(validation), validations, log_file, say)
        trainer = trainer_class(token_losses)(
            model=model,
            args=arguments,
            train_dataset=rows,
            data_collator=base.collator,
            callbacks=[watcher],
            optimizers=(loraplus(model, plan), None),
            names=[example.id for example in examples],
            say=say,
            keeper=keeper,
        )
        trainer.remove_callback(PrinterCallback)
        watcher.follow(trainer, peak, earlier)
        if processes.index():  # dropout of its own; the main process draws as one process does
            torch.manual_seed(base.settings.seed + processes.index())
        with processes.meeting(), _compiled(model, plan.compile, say):
            trainer.train(resume_from_checkpoint=str(earlier.folder) if earlier else None)
    inner = trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    inner.__dict__.pop("_is_accelerate_prepared", None)  # else accelerate leaves autocast out when this model is trained again
    trainer.optimizer = trainer.lr_scheduler = None
    model.zero_grad(set_to_none=True)
    model.eval()
    environment.return_memory()
    seen, tokens, peaks = zip(*processes.gather((trainer.rows_seen, trainer.tokens_seen, max(peak.gb, watcher.peak_before))), strict=True)
    smaller = math.ceil(plan.micro_batch / trainer.pieces)
    return History(
        steps=trainer.state.global_step,
        examples=sum(seen),
        tokens=sum(tokens),
        seconds=watcher.training_seconds,
        peak_memory_gb=max(peaks),
        log=watcher.rows,
        continued_from=watcher.continued_from,
        micro_batch=smaller if smaller < base.settings.training.micro_batch else None,
    )


def _that_fits(settings: Settings, say):
    """The method's plan, with a smaller micro-batch where this machine's memory asks for one: the same steps, the same losses."""
    wanted = settings.training
    try:
        fitting = fitting_micro_batch(settings)
    except LabError:  # a model that the arithmetic of memory does not know
        return wanted
    if fitting == wanted.micro_batch:
        return wanted
    say(f"micro_batch={wanted.micro_batch} would not fit into memory: {fitting} at a time, which changes nothing but the time.")
    return wanted.model_copy(update={"micro_batch": fitting})


@contextmanager
def _compiled(model, wanted: bool, say):
    """The model compiled inside, where that is wanted, for batches of any length; as it was afterwards.

    What lies inside an adapter's wrapper is compiled: accelerate gives the wrapper another forward for each Trainer.

    Raises:
        LabError: no C++ compiler, which torch needs on a CPU.
    """
    if not wanted:
        yield
        return
    if environment.machine().device == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        raise LabError("compile=true needs a C++ compiler on a CPU, and none was found: install g++, or leave it out.")
    say("Compiling: the first steps take minutes.")
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    inner.compile(dynamic=True)
    try:
        yield
    finally:
        inner._compiled_call_impl = None


def _prepare_tensorboard(log_file: Path | None) -> None:
    """Tells transformers where to write, beside the run's own log.

    Raises:
        LabError: tensorboard is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise LabError(
            "tensorboard=true needs the package tensorboard: run `pip install tensorboard`, or leave it out; log.csv has the same numbers."
        )
    os.environ["TENSORBOARD_LOGGING_DIR"] = str((log_file.parent if log_file else Path("runs")) / "tensorboard")
