"""Where we are, what computes here, in which precision, and why."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import platform
import sys
import warnings
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from lab_utils import limits, processes, scrubbing
from lab_utils.errors import LabError

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets", "tokenizers", "rouge-score", "evaluate", "numpy")


def where() -> str:
    """`kaggle`, `colab` or `local`. Kaggle first: its images carry Colab's variables too."""
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        return "kaggle"
    if "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ:
        return "colab"
    return "local"


@dataclass(frozen=True)
class Precision:
    """The number format of matrix products. Trainable weights are float32 whatever it says."""

    name: str  # "bfloat16", "float16" or "float32"
    reason: str

    @property
    def dtype(self):
        import torch

        return getattr(torch, self.name)

    def autocast(self, device: str):
        """A context in which matrix products run in this format (a no-op for float32)."""
        import torch

        if self.name == "float32":
            return contextlib.nullcontext()
        return torch.autocast(device, self.dtype)


@dataclass(frozen=True)
class Machine:
    platform: str
    device: str  # "cuda" or "cpu"
    device_name: str
    cores: int
    memory_gb: float  # of the GPU where there is one, else of the machine

    @property
    def hardware(self) -> str:
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        return f"{self.device_name}, {cores}, {self.memory_gb:.0f} GB"

    def __str__(self):
        return f"{self.platform}, {self.hardware}"


@cache
def machine() -> Machine:
    """What computes here: the first GPU on which a kernel really runs, else the CPU."""
    quiet()
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if torch.cuda.is_available():
        fault = kernel_fault()
        if fault is None:
            properties = torch.cuda.get_device_properties(processes.local_index())
            return Machine(where(), "cuda", properties.name, cores, properties.total_memory / 2**30)
        warnings.warn(
            f"This GPU ({torch.cuda.get_device_name(0)}) is not usable with the installed torch ({fault}); "
            "the CPU is used. On Kaggle choose Settings > Accelerator > GPU T4 x2.",
            stacklevel=2,
        )
    return Machine(where(), "cpu", f"CPU ({platform.machine()})", cores, memory_limit() / 2**30)


def kernel_fault() -> str | None:
    """What torch says when it is asked to compute on its GPU, in one line; None where it does.

    A P100 under a build without sm_60 calls itself available and then fails here.
    """
    import torch

    try:
        (torch.ones(2, device="cuda") * 2).sum().item()
    except RuntimeError as error:
        return scrubbing.reason(error)
    return None


def memory_limit() -> int:
    """Bytes that this process may hold: the machine's memory, or less where a container, a batch system or `ulimit` allows less."""
    return min(limit.size for limit in limits.of_memory())


def available_memory() -> int:
    """Bytes of it that are free."""
    return min(limit.free for limit in limits.of_memory())


def precision(family: str = "causal", wanted: str = "auto") -> Precision:
    """The precision for a model family on this machine, with the reason in words.

    bfloat16 is chosen where the hardware computes it, never because torch accepts it: a T4 accepts and emulates it.

    Args:
        wanted: `auto`, or a precision that the machine and the model can bear.

    Raises:
        LabError: float16 where it overflows (T5) or brings nothing (CPU), bfloat16 on a GPU that only emulates it.
    """
    capability = None
    if machine().device == "cuda":
        import torch

        capability = torch.cuda.get_device_capability()
    best = cuda_precision(capability, family) if capability else cpu_precision(cpu_has_bf16())
    if wanted in ("auto", best.name):
        return best
    refused = refusal(wanted, family, capability)
    if refused:
        raise LabError(f"precision={wanted} is refused: {refused}. Use precision=auto ({best.name} here) or float32.")
    return Precision(wanted, f"asked for; this machine's own choice would be {best.name}")


def refusal(wanted: str, family: str, capability: tuple[int, int] | None) -> str | None:
    """Why a precision would do harm on a GPU of that compute capability (None: a CPU); None where it would not."""
    if wanted == "float16" and family == "seq2seq":
        return "T5's activations overflow in float16, and the loss becomes NaN"
    if wanted == "float16" and capability is None:
        return "CPUs do not compute float16 faster, and it overflows"
    if wanted == "bfloat16" and capability and capability < (8, 0):
        return f"compute capability {capability[0]}.{capability[1]} only emulates bfloat16"
    return None


def cuda_precision(capability: tuple[int, int], family: str) -> Precision:
    """The precision for a GPU of that compute capability."""
    major, minor = capability
    if capability >= (8, 0):
        return Precision("bfloat16", f"the GPU (compute capability {major}.{minor}) computes bfloat16 in hardware")
    if family == "seq2seq":
        return Precision("float32", f"compute capability {major}.{minor} only emulates bfloat16, and T5's activations overflow in float16")
    return Precision("float16", f"compute capability {major}.{minor} only emulates bfloat16; float16 products, float32 trainable weights")


def cpu_precision(has_bf16: bool) -> Precision:
    if has_bf16:
        return Precision("bfloat16", "the CPU has bfloat16 instructions (AVX512-BF16 or AMX)")
    return Precision("float32", "the CPU has no bfloat16 instructions; emulating them would be slower than float32")


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in hardware; asked of Linux itself, elsewhere of torch."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        flags = cpuinfo.read_text(encoding="utf-8", errors="replace")
        return "avx512_bf16" in flags or "amx_bf16" in flags
    import torch

    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def optimizer(wanted: str) -> tuple[str, str | None]:
    """transformers' name of an optimizer, and the reason in words where this machine gets another one than it asked for."""
    names = {"adamw": "adamw_torch_fused", "adamw_8bit": "adamw_8bit", "paged_adamw_8bit": "paged_adamw_8bit", "adafactor": "adafactor"}
    if "8bit" not in wanted:
        return names[wanted], None
    try:
        import bitsandbytes  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        return names[
            "adamw"
        ], f"{wanted} needs bitsandbytes, which does not work here; adamw is used: the same steps, 6 more bytes a weight"
    if wanted == "paged_adamw_8bit" and machine().device == "cpu":
        return names["adamw_8bit"], "paged_adamw_8bit pages between GPU and CPU memory; without a GPU it is adamw_8bit"
    return names[wanted], None


def versions() -> dict[str, str]:
    """Installed version of every package that can change a result."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def keep_large_blocks() -> None:
    """Lets glibc reuse the memory of large tensors from step to step.

    By default it returns every block above 32 MB at once, and the next one of that size costs a page fault for each 4 kB. What it now
    keeps goes back with `return_memory`. Other C libraries are left alone.
    """
    mallopt = getattr(_c_library(), "mallopt", None)
    if mallopt:
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, -1)  # never


def return_memory() -> None:
    """Gives what is free back to the operating system or the GPU."""
    trim = getattr(_c_library(), "malloc_trim", None)
    if trim:
        trim(0)
    if machine().device == "cuda":
        import torch

        torch.cuda.empty_cache()


def _c_library():
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows has none to be found so
        return None


def quiet() -> None:
    """Silences what a reader can do nothing about, by name; everything else stays audible."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if processes.count() == 1:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # with two, Trainer would silently use DataParallel
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # "failed to load gemm_4bit_forward": a slower path is used
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)  # int8 casts its inputs, and says so at every product
    logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)  # each retry; the last one becomes our own sentence
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def say(line: str) -> None:
    """Prints a line of progress, in the main process. The dot lets `lab run` tell progress from a notebook's other output."""
    if processes.is_main():
        print(f"· {scrubbing.without_secrets(line)}", flush=True)
