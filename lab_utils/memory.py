"""What training holds in memory: predicted by part, and measured."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab_utils import environment
from lab_utils.errors import LabError


class Peak:
    """The most memory held inside a `with` block, in GB: the GPU's where there is one, else this process's resident memory."""

    def __init__(self, interval: float = 0.05):
        self.gb = 0.0
        self._interval = interval
        self._done = threading.Event()

    def __enter__(self):
        self._on_gpu = environment.machine().device == "cuda"
        if self._on_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def _watch(self):
        import psutil

        process, waiting = psutil.Process(), True
        while waiting:
            waiting = not self._done.wait(self._interval if self.gb else 0)  # looks at once, and once more at the end
            self.gb = max(self.gb, process.memory_info().rss / 1e9)

    def __exit__(self, *_):
        if self._on_gpu:
            import torch

            self.gb = torch.cuda.max_memory_allocated() / 1e9
        else:
            self._done.set()
            self._thread.join()


# In what torch and, last, oneDNN say: for a CPU's memory neither has an error of its own.
RAN_OUT = ("out of memory", "alloc_cpu", "not enough memory", "can't allocate memory", "could not create a primitive")


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there was too little memory, on a GPU or a CPU."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(word in str(error).lower() for word in RAN_OUT))


class Smaller:
    """Work on several things at a time, and on fewer from the moment that memory has run out.

    Args:
        things: what they are called.
        say: takes the line that says so.
    """

    def __init__(self, things: str, say: Callable[[str], None]):
        self._things, self._say = things, say
        self._limit: int | None = None

    def each(self, work: Callable[[Sequence], list], items: Sequence) -> list:
        """What `work`, which returns one result an item, makes of the items, given as many at a time as memory allows.

        Raises:
            LabError: there is too little memory for one.
        """
        done: list = []
        while len(done) < len(items):
            part = items[len(done) :][: self._limit]
            try:
                done += work(part)
                continue
            except (MemoryError, RuntimeError) as error:
                if not ran_out(error):
                    raise
                if len(part) == 1:
                    raise LabError(
                        f"Out of memory with one of the {self._things} at a time: close other programs, shorten document_tokens, or choose "
                        "a smaller model; `lab plan` says what fits."
                    ) from error
            self._limit = len(part) // 2  # the error, whose traceback holds on to tensors, is gone here
            gc.collect()
            environment.return_memory()
            self._say(f"Out of memory with {len(part)} {self._things} at a time: going on with {self._limit}.")
        return done


@dataclass(frozen=True)
class Ledger:
    """Bytes by part, in GB. Activations depend on batch and length, so they are measured, not predicted here."""

    weights: float
    gradients: float
    optimizer: float

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer


WEIGHT_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0, "nf4": 0.5 + 0.127 / 8}


def ledger(parameters: int, trainable: int, weights: str = "float32", quantized: int = 0, quantization: str = "nf4") -> Ledger:
    """Memory of weights, gradients and AdamW's two moments.

    Trainable weights, their gradients and both moments are float32: 16 bytes a parameter. Frozen ones cost their storage
    format alone; NF4 stores 4 bits and, with double quantization, 0.127 bits of constants a parameter (Dettmers et al. 2023, section 3).

    Args:
        parameters: of the base model. trainable: how many are trained (adapters, or all of the base).
        weights: storage format of the frozen ones. quantized: how many of them are stored as `quantization` instead.
    """
    frozen = 0 if trainable >= parameters else parameters
    stored = (frozen - quantized) * WEIGHT_BYTES[weights] + quantized * WEIGHT_BYTES[quantization] + 4 * trainable
    return Ledger(weights=stored / 1e9, gradients=4 * trainable / 1e9, optimizer=8 * trainable / 1e9)
