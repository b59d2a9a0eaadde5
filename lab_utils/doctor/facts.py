"""What `lab doctor` knows of a machine: plain values, so that any machine can be written down."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unknown:
    """What could not be looked at, and why."""

    reason: str


@dataclass(frozen=True)
class System:
    where: str  # "kaggle", "colab" or "local"
    name: str  # "Linux", "Darwin" or "Windows"
    processor: str
    wsl: bool
    python: str


@dataclass(frozen=True)
class Packages:
    installed: dict[str, str]  # version of each requirement that is there
    broken: dict[str, str]  # why a package that is there cannot be imported
    old_torchao: bool  # so old that peft refuses to work beside it


@dataclass(frozen=True)
class Gpu:
    name: str
    memory_gb: float
    capability: tuple[int, int]


@dataclass(frozen=True)
class Compute:
    cores: int
    gpus: tuple[Gpu, ...]  # that the driver names
    hidden: bool  # all of them, by CUDA_VISIBLE_DEVICES
    torch: str
    gpu: Gpu | None  # on which an operation ran; None: the CPU computes
    gpu_free_gb: float | None
    fault: str | None  # what torch said when the operation failed
    cpu_bf16: bool  # whether the CPU multiplies bfloat16 in hardware
    claims_bf16: bool | None  # whether torch says that the GPU takes bfloat16


@dataclass(frozen=True)
class Speed:
    products: dict[str, float]  # operations a second in matrix products, by number format


@dataclass(frozen=True)
class FourBits:
    fault: str | None  # None: weights can be stored in 4 bits and read again


@dataclass(frozen=True)
class Memory:
    machine_gb: float
    limit_gb: float  # what this process may take of it
    free_gb: float
    limited_by: str  # one of `limits.Limit.whose`


@dataclass(frozen=True)
class Folder:
    what: str
    free_gb: float
    fault: str | None  # why nothing can be written there


@dataclass(frozen=True)
class Hub:
    host: str
    switched_off: bool
    fault: str | None


@dataclass(frozen=True)
class Token:
    source: str | None  # where it was found; the token itself is nobody's business


@dataclass(frozen=True)
class Facts:
    system: System | Unknown
    packages: Packages | Unknown
    compute: Compute | Unknown
    speed: Speed | Unknown
    four_bits: FourBits | Unknown
    memory: Memory | Unknown
    folders: tuple[Folder, ...] | Unknown
    hub: Hub | Unknown
    token: Token | Unknown
