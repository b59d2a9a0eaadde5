"""What happens during a training: log, progress with the time left, validation, checkpoints when they are due."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab_utils import memory, processes
from lab_utils.checkpoints import Checkpoint
from lab_utils.files import write_text
from lab_utils.progress import Lines, duration

LOG_FIELDS = ("step", "epoch", "loss", "grad_norm", "learning_rate", "seconds", "validation_loss")


def watch(
    precision: str,
    validate: Callable[[Any], float] | None,
    examples: int,
    validations: int,
    log_file: Path | None,
    say: Callable[[str], None],
):
    """The callback that looks after one training, to be told which with `follow`.

    Args:
        precision: of the products; in float16 a step whose gradient overflows is skipped.
        validate: gives a model's validation loss, on so many `examples`; `validations` times, and before the first step.
    """
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        """Validates, writes the CSV, says how far it is, asks for checkpoints, and stops at a gradient that is not a number."""

        def __init__(self):
            self.rows: list[dict[str, Any]] = []
            self.not_training = 0.0  # seconds of validation
            self.seconds_before = self.peak_before = 0.0  # of the interrupted training that goes on
            self.steps_before = 0
            self.continued_from: list[int] = []
            self.started = time.perf_counter()
            self.lines = Lines()
            self.stopped_at = None

        def follow(self, trainer, peak: memory.Peak, earlier: Checkpoint | None):
            """Watches this trainer, which goes on from a checkpoint if there is one."""
            self.trainer, trainer.progress = trainer, lambda: self._progress(peak)
            if earlier is None:
                return
            known = earlier.progress
            self.rows, self.seconds_before, self.peak_before = known["log"], known["seconds"], known["peak_memory_gb"]
            self.steps_before, self.continued_from = earlier.step, [*known["continued_from"], earlier.step]
            trainer.tokens_seen, trainer.rows_seen = known["seen"][processes.index()]
            if earlier.step % math.ceil(len(trainer.train_dataset) / trainer.order.batch_size):  # within an epoch
                trainer.order.go_on(known["order"])

        def _progress(self, peak: memory.Peak) -> dict[str, Any]:
            """What a training that goes on must know besides what the Trainer keeps."""
            return {
                "log": self.rows,
                "seconds": self.training_seconds,
                "peak_memory_gb": max(peak.gb, self.peak_before),
                "continued_from": self.continued_from,
                "seen": processes.gather((self.trainer.tokens_seen, self.trainer.rows_seen)),
                "order": self.trainer.order.state,
            }

        @property
        def training_seconds(self) -> float:
            writing = self.trainer.keeper.seconds if self.trainer.keeper else 0.0
            return self.seconds_before + (self.stopped_at or time.perf_counter()) - self.started - self.not_training - writing

        def on_train_begin(self, args, state, control, model=None, **kwargs):
            together = f" in {args.world_size} processes" if args.world_size > 1 else ""
            rows = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
            say(f"Training{together}: {state.max_steps} steps of {rows} examples, {precision} products, seed {args.seed}.")
            if state.global_step:
                done = state.global_step == state.max_steps
                say(f"An earlier start came to step {state.global_step}: {'nothing is left to train' if done else 'going on from there'}.")
            self.started = time.perf_counter()
            self._write_log()
            if not state.global_step:
                self._validate(model, step=0, epoch=0.0)

        def on_step_end(self, args, state, control, **kwargs):
            keeper = self.trainer.keeper
            if keeper is None:
                return
            args.save_only_model = state.global_step == state.max_steps  # nothing more will be asked of the optimizer
            control.should_save = args.save_only_model or keeper.is_due(self._left(state))

        def on_log(self, args, state, control, logs=None, model=None, **kwargs):
            if "loss" not in logs:
                return
            if not math.isfinite(logs.get("grad_norm", 0.0)) and precision != "float16":  # float16 skips such steps by design
                raise self.trainer.diverged("gradient", logs["grad_norm"])
            self._add(
                step=state.global_step,
                epoch=round(state.epoch, 4),
                loss=logs["loss"],
                grad_norm=logs.get("grad_norm"),
                learning_rate=logs["learning_rate"],
            )
            self._say_progress(state, logs["loss"])
            every = max(1, round(state.max_steps / validations)) if validations else state.max_steps
            if state.global_step % every == 0 or state.global_step == state.max_steps:
                self._validate(model, state.global_step, state.epoch)

        def on_train_end(self, args, state, control, **kwargs):
            self.stopped_at = time.perf_counter()
            self._write_log()

        def _left(self, state) -> float:
            """Seconds until all steps are done, by the pace since this process began."""
            pace = (self.training_seconds - self.seconds_before) / max(1, state.global_step - self.steps_before)
            return pace * (state.max_steps - state.global_step)

        def _say_progress(self, state, loss):
            last = state.global_step == state.max_steps
            if not self.lines.due() and not last:
                return
            rate = self.trainer.tokens_seen * processes.count() / self.training_seconds  # the others have read about as many
            left = "" if last else f"  {duration(self._left(state))} left"
            say(f"step {state.global_step}/{state.max_steps}  loss {loss:.3f}  {rate:.0f} tokens/s{left}")

        def _validate(self, model, step, epoch):
            if validate is None:
                return
            start = time.perf_counter()
            value = validate(model)
            self.not_training += time.perf_counter() - start
            self._add(step=step, epoch=round(epoch, 4), validation_loss=value)
            say(f"step {step}: validation loss {value:.3f} on {examples} examples")

        def _add(self, **values):
            row = {**values, "seconds": round(self.training_seconds, 2)}
            self.rows.append(row)
            if log_file:
                with suppress(OSError), log_file.open("a", newline="", encoding="utf-8") as file:  # it is written anew at the end
                    csv.DictWriter(file, LOG_FIELDS).writerow(row)

        def _write_log(self):
            """The header, and all rows so far."""
            if log_file:
                text = io.StringIO(newline="")
                writer = csv.DictWriter(text, LOG_FIELDS)
                writer.writeheader()
                writer.writerows(self.rows)
                write_text(log_file, text.getvalue())

    return Watch()
