"""Looking at this machine: each fact by a function that may fail without harm to the others."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import re
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from shutil import disk_usage
from typing import Any
from urllib.parse import urlsplit

from lab_utils import bootstrap, cache, devices, environment, limits, pace, requirements, scrubbing
from lab_utils.doctor import versions
from lab_utils.doctor.facts import Compute, Facts, Folder, FourBits, Gpu, Hub, Memory, Packages, Speed, System, Token, Unknown

IMPORTED = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets", "rouge_score")  # each must really load
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
HUB_SECONDS = 3.0  # how long the hub may take to answer
SILENT_SECONDS = 5.0  # what takes longer says what it is doing


def gather(say: Callable[[str], None] = environment.say) -> Facts:
    """The facts of this machine, in about ten seconds; most of it is the import of torch and transformers.

    Args:
        say: is told what takes longer than `SILENT_SECONDS`.
    """
    return Facts(**{name: _looked(look, say, doing) for name, (doing, look) in LOOKS.items()})


def _looked(look: Callable[[], Any], say: Callable[[str], None], doing: str) -> Any:
    """What a function finds, or `Unknown` where it fails in any way: a doctor must not fall ill."""
    patience = threading.Timer(SILENT_SECONDS, say, [f"Still {doing} ..."])
    patience.daemon = True
    patience.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they say becomes a finding
            return look()
    except Exception as error:
        return Unknown(scrubbing.reason(error))
    finally:
        patience.cancel()


def _system() -> System:
    wsl = "microsoft" in platform.release().lower()
    return System(environment.where(), platform.system(), platform.machine(), wsl, platform.python_version())


def _packages() -> Packages:
    with contextlib.suppress(Exception):  # it imports a part of transformers, and whether that works is found out below
        environment.quiet()
    names, broken = [one.name for one in versions.requirements()], {}
    installed = {name: version for name in names if (version := requirements.installed(name))}
    for module in IMPORTED:
        name = module.replace("_", "-")
        try:
            if name in installed:
                importlib.import_module(module)
        except Exception as error:  # a missing library of the system is an OSError, one built for another numpy a ValueError
            broken[name] = scrubbing.reason(error)
    return Packages(installed, broken, bootstrap.torchao_breaks_peft())


def _compute() -> Compute:
    import torch

    machine = environment.machine()
    named = tuple(Gpu(one.note, one.memory_gb, one.capability) for one in devices.gpus() if one)
    gpu = free = fault = None
    if machine.device == "cuda":
        gpu = Gpu(machine.device_name, machine.memory_gb * 2**30 / 1e9, tuple(torch.cuda.get_device_capability()))
        free = torch.cuda.mem_get_info()[0] / 1e9
    elif torch.cuda.is_available():
        fault = environment.kernel_fault()
    return Compute(
        cores=machine.cores,
        gpus=named or ((gpu,) if gpu else ()),
        hidden=os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip() in ("", "-1"),
        torch=torch.__version__,
        gpu=gpu,
        gpu_free_gb=free,
        fault=fault,
        cpu_bf16=environment.cpu_has_bf16(),
        claims_bf16=torch.cuda.is_bf16_supported() if torch.cuda.is_available() else None,
    )


def _speed() -> Speed:
    """The best of five small products in each format, which take a fraction of a second in all."""
    import torch

    device = environment.machine().device
    size, formats = (2048, ("float32", "bfloat16", "float16")) if device == "cuda" else (512, ("float32", "bfloat16"))
    with torch.random.fork_rng():  # a notebook's random numbers stay what they are
        return Speed({name: max(pace.product_rate(name, device, size, repeats=1) for _ in range(5)) for name in formats})


def _four_bits() -> FourBits:
    import torch

    weight = torch.arange(4096.0, device=environment.machine().device).sin().view(64, 64)
    try:
        from bitsandbytes import functional

        packed, state = functional.quantize_4bit(weight, quant_type="nf4")
        error = (functional.dequantize_4bit(packed, state) - weight).abs().mean().item()
    except Exception as error:
        return FourBits(scrubbing.reason(error))
    return FourBits(None if error < 0.1 else f"a weight that was stored comes back {error:.2f} off")


def _memory() -> Memory:
    found = limits.of_memory()
    least = min(found, key=lambda limit: limit.size)
    return Memory(found[0].size / 1e9, least.size / 1e9, environment.available_memory() / 1e9, least.whose)


def _folders() -> tuple[Folder, ...]:
    places = {"runs": Path("runs"), "the lab's cache": cache.folder()}
    try:
        from huggingface_hub.constants import HF_HUB_CACHE

        places["the download cache"] = Path(HF_HUB_CACHE)
    except ImportError:  # the packages' own row says so
        pass
    return tuple(_folder(what, path.absolute()) for what, path in places.items())


def _folder(what: str, path: Path) -> Folder:
    """Room and access of a folder, or of the one that it would be made in. What is written for it is gone at once."""
    there = next(place for place in (path, *path.parents) if os.path.lexists(place))
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(1 << 16))
            file.flush()
        fault = None
    except OSError as error:
        fault = error.strerror or scrubbing.reason(error)
    return Folder(what, disk_usage(there).free / 1e9, fault)


def _hub() -> Hub:
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    host, faults = urlsplit(constants.ENDPOINT).hostname or "the hub", []
    if constants.HF_HUB_OFFLINE:
        return Hub(host, True, None)

    def ask():
        try:
            status = get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS).status_code
            faults.append(f"it answers with status {status}" if status >= 500 or status == 407 else None)
        except Exception as error:
            faults.append(re.sub(r"^\[Errno -?\d+\] ", "", scrubbing.reason(error)))

    asking = threading.Thread(target=ask, daemon=True)  # the name's own lookup knows no limit
    asking.start()
    asking.join(HUB_SECONDS)
    return Hub(host, False, faults[0] if faults else f"no answer in {HUB_SECONDS:g} seconds")


def _token() -> Token:
    """Where a token is. A Colab secret is not asked for: that waits for somebody's click."""
    from huggingface_hub import constants

    variable = next((name for name in TOKEN_VARIABLES if os.environ.get(name, "").strip()), None)
    if variable:
        return Token(f"the variable {variable}")
    file = Path(constants.HF_TOKEN_PATH)
    return Token("the hub's token file" if file.is_file() and file.stat().st_size else None)


# What each takes its time with, and the function; in the order in which they run.
LOOKS: dict[str, tuple[str, Callable[[], Any]]] = {
    "system": ("asking the system", _system),
    "packages": ("importing the packages", _packages),
    "compute": ("trying an operation on the device", _compute),
    "speed": ("timing matrix products", _speed),
    "four_bits": ("storing a weight in 4 bits", _four_bits),
    "memory": ("asking for memory limits", _memory),
    "folders": ("writing a small file", _folders),
    "hub": ("waiting for the hub", _hub),
    "token": ("looking for a token", _token),
}
