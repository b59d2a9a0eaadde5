"""What the facts of a machine mean for the lab: findings, with the cure and the entry of the troubleshooting page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lab_utils import config, course, devices, scrubbing
from lab_utils.doctor import advice, versions
from lab_utils.doctor.facts import Compute, Facts, System, Unknown
from lab_utils.needs import PROCESS_GB

OK, WARN, FAIL = "ok", "warn", "FAIL"
PAGE = "notebooks/TROUBLESHOOTING.md"
NEEDED_GB = {"runs": 2.0, "the lab's cache": 1.0}  # for a whole run, and for the model as it is unpacked
ELSEWHERE = {
    "runs": "work in a folder of your own, or choose one with --out (run_dir in a notebook)",
    "the lab's cache": "set LAB_CACHE to a folder of your own",
    "the download cache": "set HF_HOME to a folder of your own",
}
WORTH_IT = 1.3  # times as fast as float32: then a 16-bit format may pay although the hardware is not known for it
PLATFORMS = {"kaggle": "Kaggle", "colab": "Colab", "local": "this computer"}
GPUS_ARE = {"kaggle": " (Settings > Accelerator has some)", "colab": " (Runtime > Change runtime type has some)"}
FIRST_CELL = "run the first cell of a notebook again"
NEEDS_NONE = "the default recipe needs none"


@dataclass(frozen=True)
class Finding:
    name: str
    status: str  # OK, WARN or FAIL
    text: str
    cure: str = ""
    anchor: str = ""  # of an entry of the troubleshooting page; every warning and failure has one

    @property
    def link(self) -> str:
        return f"{PAGE}#{self.anchor}" if self.anchor else ""


def findings(facts: Facts) -> list[Finding]:
    """All findings, row by row. A row whose facts are not known says so."""
    return [one for name, needs, judge in ROWS for one in _row(facts, name, needs, judge)]


def _row(facts: Facts, name: str, needs: tuple[str, ...], judge: Callable[[Facts], Iterator[Finding]]) -> list[Finding]:
    unknown = next((one for one in (getattr(facts, need) for need in needs) if isinstance(one, Unknown)), None)
    try:
        if unknown is None:
            return list(judge(facts))
        reason = unknown.reason
    except Exception as error:  # of a package that is needed to judge, such as packaging, in a broken environment
        reason = scrubbing.reason(error)
    cure, anchor = "mend what else is marked, then ask again", "lab-doctor-could-not-check-something"
    return [Finding(name, WARN, f"could not be checked ({reason})", cure, anchor)]


def where(facts: Facts) -> str:
    """`kaggle`, `colab` or `local`."""
    return facts.system.where if isinstance(facts.system, System) else "local"


def _platform(facts: Facts) -> Iterator[Finding]:
    system = facts.system
    name = {"Darwin": "macOS"}.get(system.name, system.name) + (" inside Windows (WSL)" if system.wsl else "")
    untried = ", where the lab was never tried" if system.name == "Windows" else ""
    yield Finding("platform", OK, f"{PLATFORMS[system.where]}, {name} {system.processor}{untried}")


def _python(facts: Facts) -> Iterator[Finding]:
    is_supported, supported = versions.supports(facts.system.python)
    if is_supported:
        yield Finding("Python", OK, facts.system.python)
        return
    cure = "run `make install` with one of these" if where(facts) == "local" else "choose another version of the runtime"
    text = f"{facts.system.python} is not supported: the lab takes {supported}"
    yield Finding("Python", FAIL, text, cure, "versions-differ-from-the-tested-ones")


def _packages(facts: Facts) -> Iterator[Finding]:
    packages, anchor = facts.packages, "versions-differ-from-the-tested-ones"
    hosted = where(facts) != "local"
    install = FIRST_CELL if hosted else "run `make install` in the lab's folder"
    outside, newer = versions.outside(packages.installed), versions.newer(packages.installed)
    if outside:
        yield Finding("packages", FAIL, f"not as the lab needs them: {', '.join(outside)}", install, anchor)
    if packages.broken:
        text = "; ".join(f"{name} cannot be imported ({reason})" for name, reason in packages.broken.items())
        yield Finding("packages", FAIL, text, f"{install}, then restart the session", "import-error-right-after-installing")
    if packages.old_torchao:
        cure = FIRST_CELL if hosted else "run `pip uninstall -y torchao` in this environment"
        yield Finding("torchao", FAIL, "is so old that peft refuses to add LoRA beside it", cure, "peft-fails-with-torchao")
    if newer:
        cure = "most often that is fine; when in doubt, install the tested ones"
        yield Finding("packages", WARN, f"newer than tested: {', '.join(newer)}", cure, anchor)
    if not (outside or packages.broken or newer):
        yield Finding("packages", OK, f"all {len(packages.installed)} in their ranges, torch {packages.installed['torch']}")


def _four_bits(facts: Facts) -> Iterator[Finding]:
    if facts.four_bits.fault:
        text = f"bitsandbytes does not work here ({facts.four_bits.fault}), so QLoRA does not either"
        yield Finding("4 bits", WARN, text, "leave notebook 04 out, or run it in Colab", "bitsandbytes-does-not-work-here")
    else:
        yield Finding("4 bits", OK, "a weight was stored in NF4 and read again")


def _device(facts: Facts) -> Iterator[Finding]:
    compute = facts.compute
    cores = "1 core" if compute.cores == 1 else f"{compute.cores} cores"
    if compute.gpu:
        major, minor = compute.gpu.capability
        yield Finding("device", OK, f"{compute.gpu.name}, compute capability {major}.{minor}, ran an operation; beside it {cores}")
        if len(compute.gpus) > 1:
            text = f"{len(compute.gpus)} are there, one is used; `accelerate launch` takes all (README, More than one process)"
            yield Finding("GPUs", OK, text, anchor="two-gpus-and-one-is-used")
    elif compute.gpus or compute.fault:
        name = compute.gpus[0].name if compute.gpus else "the GPU"
        reason, cure, anchor = _idle(facts, compute)
        yield Finding("device", WARN, f"{name} does not compute ({reason}); the CPU does, {cores}", cure, anchor)
    elif isinstance(facts.system, System) and (facts.system.name, facts.system.processor) == ("Darwin", "arm64"):
        yield Finding("device", OK, f"the CPU, {cores}; Apple's GPU is not used here", anchor="the-apple-gpu-is-not-used")
    else:
        yield Finding("device", OK, f"the CPU, {cores}; there is no GPU{GPUS_ARE.get(where(facts), '')}")


def _idle(facts: Facts, compute: Compute) -> tuple[str, str, str]:
    """Why a GPU does not compute, what to do, and the entry about it."""
    fails, unused = "cuda-is-available-but-the-first-operation-fails", "the-gpu-is-not-used"
    too_old = any(gpu.capability < devices.FIRST_WITH_KERNELS for gpu in compute.gpus) or "no kernel image" in (compute.fault or "")
    if compute.hidden:
        return "CUDA_VISIBLE_DEVICES hides it", "unset that variable and restart", unused
    if compute.fault and too_old:
        other = "choose Settings > Accelerator > GPU T4 x2" if where(facts) == "kaggle" else "use a GPU of compute capability 7.0 or more"
        return f"torch {compute.torch} has no code for it: {compute.fault}", other, fails
    if compute.fault:
        return compute.fault, "restart the session, and end other programs that use the GPU", fails
    if "+cpu" in compute.torch:
        return f"torch {compute.torch} is a build for CPUs", "install PyTorch's build for CUDA (README, Start)", unused
    return f"torch {compute.torch} does not see it", "update the GPU's driver, or install the build of torch that fits it", unused


def _precision(facts: Facts) -> Iterator[Finding]:
    """The precision of the packaged model's products, held against what was measured."""
    family = config.load_recipe(course.DEFAULT_RECIPE).model.family
    chosen = advice.precision(facts, family)
    rates = ", ".join(f"{name} {advice.ratio(facts, name):.1f} x" for name in facts.speed.products if name != "float32")
    text = f"{chosen.name}: {chosen.reason}; measured against float32: {rates}"
    if advice.is_slow(facts, advice.usual(facts, family)):
        yield Finding("precision", WARN, text, "train with `lab train` and -p precision=float32", "bf16-is-slow")
    elif facts.compute.gpu and facts.compute.claims_bf16 and chosen.name != "bfloat16":
        text = f"{text}; torch says that the GPU takes bfloat16, but not how slowly"
        yield Finding("precision", OK, text, anchor="bf16-is-slow")
    elif chosen.name == "float32" and (advice.ratio(facts, "bfloat16") or 0) > WORTH_IT:
        yield Finding("precision", OK, f"{text}; `lab train` with -p precision=bfloat16 may be worth a try")
    else:
        yield Finding("precision", OK, text)


def _memory(facts: Facts) -> Iterator[Finding]:
    memory = facts.memory
    limited = f" of the machine's {memory.machine_gb:.1f}, by the limit of a {memory.limited_by}" if memory.limited_by != "machine" else ""
    text = f"{memory.limit_gb:.1f} GB{limited}; {memory.free_gb:.1f} GB free"
    if isinstance(facts.compute, Unknown):
        yield Finding("memory", OK, text)
    elif facts.compute.gpu is None:
        yield _room(facts, "memory", text, memory.free_gb + PROCESS_GB)  # which this process holds already
    else:
        gpu, free = facts.compute.gpu, facts.compute.gpu_free_gb
        yield Finding("memory", OK, text)
        yield _room(facts, "GPU memory", f"{gpu.memory_gb:.1f} GB; {free:.1f} GB free", free)


def _room(facts: Facts, name: str, text: str, free: float) -> Finding:
    """Whether the default recipe's methods fit into that memory, and into what is free of it."""
    fits = advice.fits(course.DEFAULT_RECIPE, facts)
    small = [f"{method} takes {fit.peak_gb:.1f} GB" for method, fit in fits.items() if not fit.fits]
    tight = [f"{method} takes {fit.peak_gb:.1f} GB" for method, fit in fits.items() if fit.fits and fit.peak_gb > free]
    anchor, text = "out-of-memory-while-training", f"{text}; {', '.join(small or tight)}" if small or tight else text
    if len(small) == len(fits):
        return Finding(name, FAIL, text, "use another machine, such as a free Colab session", anchor)
    if small:
        return Finding(name, WARN, text, "leave that out, as the command below does", anchor)
    return Finding(name, WARN, text, "end other programs and notebooks first", anchor) if tight else Finding(name, OK, text)


def _disk(facts: Facts) -> Iterator[Finding]:
    same: dict[str, list[str]] = {}  # folders of one disk have the same room
    for one in facts.folders:
        same.setdefault(f"{one.free_gb:.1f} GB free", []).append(one.what)
    free = "; ".join(f"{room} for {', '.join(folders)}" for room, folders in same.items())
    short = [f"{one.what} needs {NEEDED_GB[one.what]:g} GB" for one in facts.folders if one.free_gb < NEEDED_GB.get(one.what, 0)]
    if short:
        cure = "free some space, or choose other places: --out (run_dir in a notebook) for runs, LAB_CACHE and HF_HOME for the caches"
        yield Finding("disk", FAIL, f"{free}; {', '.join(short)}", cure, "the-disk-is-full")
    else:
        yield Finding("disk", OK, free)


def _access(facts: Facts) -> Iterator[Finding]:
    refused = [one for one in facts.folders if one.fault]
    for one in refused:
        is_full = any(word in one.fault.lower() for word in ("space", "quota"))
        cure, anchor = ("free some space", "the-disk-is-full") if is_full else (ELSEWHERE[one.what], "no-write-access")
        status = FAIL if one.what in NEEDED_GB else WARN  # downloads are for other recipes
        yield Finding("writing", status, f"nothing can be written for {one.what} ({one.fault})", cure, anchor)
    if not refused:
        yield Finding("writing", OK, f"works for {', '.join(one.what for one in facts.folders)}")


def _network(facts: Facts) -> Iterator[Finding]:
    hub = facts.hub
    if hub.switched_off:
        yield Finding("network", OK, f"switched off by HF_HUB_OFFLINE; {NEEDS_NONE}")
    elif hub.fault:
        cure = "turn on Settings > Internet" if where(facts) == "kaggle" else "connect, or give folders as model_dir and data_dir"
        text = f"{hub.host} cannot be reached ({hub.fault}); {NEEDS_NONE}"
        yield Finding("network", WARN, text, f"for other recipes {cure}", "no-network-or-a-gated-model")
    else:
        yield Finding("network", OK, f"{hub.host} answers")


def _token(facts: Facts) -> Iterator[Finding]:
    if facts.token.source:
        yield Finding("token", OK, f"there is one in {facts.token.source}; it is not shown")
    else:
        secret = " (a Colab secret is not asked for)" if where(facts) == "colab" else ""
        yield Finding("token", OK, f"none{secret}; only gated models and publishing need one")


# Name, the facts that must be known, and who judges them.
ROWS: tuple[tuple[str, tuple[str, ...], Callable[[Facts], Iterator[Finding]]], ...] = (
    ("platform", ("system",), _platform),
    ("Python", ("system",), _python),
    ("packages", ("packages",), _packages),
    ("device", ("compute",), _device),
    ("precision", ("compute", "speed"), _precision),
    ("4 bits", ("four_bits",), _four_bits),
    ("memory", ("memory",), _memory),
    ("disk", ("folders",), _disk),
    ("writing", ("folders",), _access),
    ("network", ("hub",), _network),
    ("token", ("token",), _token),
)
