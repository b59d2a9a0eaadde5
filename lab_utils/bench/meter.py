"""What a bench case took: tokens, seconds, memory, and how much of the machine others took meanwhile."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lab_utils import environment, pace
from lab_utils.batching import IGNORED, Encoder


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
        self._busy, self._own, self._since = _busy_seconds(), time.process_time(), now()

    def stop(self) -> None:
        self.seconds = now() - self._since
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


def now() -> float:
    return pace.now(environment.machine().device)


class Prompts:
    """Counts the prompt tokens that `generate` is given, padding included."""

    def __init__(self):
        self.padded = 0

    def around(self, generate: Callable) -> Callable:
        def counted(*args, **kwargs):
            self.padded += kwargs["input_ids"].numel()
            return generate(*args, **kwargs)

        return counted


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
