"""Which recipe, methods and precision a machine is good for, from its facts and the plan's arithmetic. Nothing is asked of this machine."""

from __future__ import annotations

from dataclasses import dataclass, field

from lab_utils import architectures, config, course, environment, plan
from lab_utils.devices import Device
from lab_utils.doctor.facts import Compute, Facts, Folder, FourBits, Hub, Memory, Speed, Unknown
from lab_utils.environment import Precision

SLOWER = 0.9  # of float32's rate: below it a 16-bit format is a loss, whatever the hardware is said to do
BYTES_ON_DISK = 4  # of a parameter, at most


@dataclass(frozen=True)
class Advice:
    recipe: str
    methods: tuple[str, ...]  # that fit; none: the machine is too small
    left_out: dict[str, str]  # a method that the recipe offers and that does not work here -> why
    precision: Precision | None  # None: what computes here is not known
    measured_slow: bool  # the precision is float32 because the usual one was measured to be slower
    why: str  # this recipe
    larger: dict[str, tuple[str, ...]] = field(default_factory=dict)  # recipes of larger models, and which of their methods fit


def make(facts: Facts) -> Advice:
    """The advice for a machine of these facts.

    With a GPU and the hub it is the largest model of which most methods fit, since the lab compares methods; else the packaged one.
    """
    default = course.DEFAULT_RECIPE
    if isinstance(facts.compute, Unknown) or room_gb(facts) is None:
        return Advice(default, tuple(config.load_recipe(default).methods), {}, None, False, "it needs the least")
    if facts.compute.gpu is None:
        return _of(default, facts, "larger models take hours without a GPU")
    if not isinstance(facts.hub, Hub) or facts.hub.switched_off or facts.hub.fault:
        return _of(default, facts, "it needs nothing from the hub")
    fitting = {name: methods_that_fit(name, facts)[0] for name in _candidates(facts)}
    best = max(fitting, key=lambda name: (len(fitting[name]), _parameters(name), name != default))
    larger = {name: fitting[name] for name in sorted(fitting, key=_parameters) if _parameters(name) > _parameters(best)}
    useful = {name: methods for name, methods in larger.items() if set(methods) - {"zero_shot"}}
    return _of(best, facts, "its model is the largest that fits with so many methods", useful)


def _of(name: str, facts: Facts, why: str, larger: dict[str, tuple[str, ...]] | None = None) -> Advice:
    methods, left_out = methods_that_fit(name, facts)
    family = config.load_recipe(name).model.family
    if methods:
        peaks = {method: fit.peak_gb for method, fit in fits(name, facts).items() if method in methods}
        largest = max(peaks, key=peaks.get)
        why = f"{why} ({largest} takes {peaks[largest]:.1f} of {room_gb(facts):.1f} GB)"
    return Advice(name, methods, left_out, precision(facts, family), is_slow(facts, usual(facts, family)), why, larger or {})


def _candidates(facts: Facts) -> list[str]:
    """Recipes for real work whose model has room on the disk."""
    folders = facts.folders if isinstance(facts.folders, tuple) else ()
    free = min((one.free_gb for one in folders if isinstance(one, Folder)), default=float("inf"))
    names = [name for name in config.recipe_names() if not config.load_recipe(name).model.source.startswith("random:")]
    return [name for name in names if name == course.DEFAULT_RECIPE or _parameters(name) * BYTES_ON_DISK / 1e9 < free]


def _parameters(name: str) -> int:
    return architectures.shape_of(config.load_recipe(name).model.source).parameters


def methods_that_fit(name: str, facts: Facts) -> tuple[tuple[str, ...], dict[str, str]]:
    """The methods of a recipe that work there with the recipe's own values, and why the others do not."""
    quantizes = not (isinstance(facts.four_bits, FourBits) and facts.four_bits.fault)
    left_out = {}
    for method, fit in fits(name, facts).items():
        if config.resolve(name, method).quantization != "none" and not quantizes:
            left_out[method] = f"{method} needs bitsandbytes, which does not work here"
        elif not fit.fits:
            left_out[method] = f"{method} takes {fit.peak_gb:.1f} of {room_gb(facts):.1f} GB"
    return tuple(method for method in config.load_recipe(name).methods if method not in left_out), left_out


def fits(name: str, facts: Facts) -> dict[str, plan.Fit]:
    """The plan of each method of a recipe, in the precision that is advised there."""
    recipe, gpu = config.load_recipe(name), facts.compute.gpu
    device = Device("the machine", room_gb(facts), gpu.capability if gpu else None)
    shape, chosen = architectures.shape_of(recipe.model.source), precision(facts, recipe.model.family).name
    return {method: plan.fit(config.resolve(name, method, precision=chosen), shape, device) for method in recipe.methods}


def room_gb(facts: Facts) -> float | None:
    """The memory that a run may fill: of the GPU where one computes, else what the system allows this process."""
    if isinstance(facts.compute, Compute) and facts.compute.gpu:
        return facts.compute.gpu.memory_gb
    return facts.memory.limit_gb if isinstance(facts.memory, Memory) else None


def precision(facts: Facts, family: str) -> Precision:
    """What the lab would choose there, or float32 where that was measured to be slower."""
    by_hardware = usual(facts, family)
    if not is_slow(facts, by_hardware):
        return by_hardware
    share = ratio(facts, by_hardware.name)
    return Precision("float32", f"{by_hardware.name}, the lab's own choice here, was measured at {share:.1f} x the speed of float32")


def usual(facts: Facts, family: str) -> Precision:
    """What the lab chooses on that machine by its hardware."""
    compute = facts.compute
    return environment.cuda_precision(compute.gpu.capability, family) if compute.gpu else environment.cpu_precision(compute.cpu_bf16)


def is_slow(facts: Facts, chosen: Precision) -> bool:
    share = ratio(facts, chosen.name)
    return share is not None and share < SLOWER


def ratio(facts: Facts, name: str) -> float | None:
    """How many times as fast as in float32 products run in that format; None where it was not measured."""
    if not isinstance(facts.speed, Speed) or not {name, "float32"} <= facts.speed.products.keys():
        return None
    return facts.speed.products[name] / facts.speed.products["float32"]


# --- words ------------------------------------------------------------------------------------------------------------


def describe(advice: Advice, where: str = "local") -> list[str]:
    """The advice in lines: what to use, why, and what to type."""
    if not advice.methods:
        return [f"Nothing of {advice.recipe} fits into this machine's memory: use another one, such as a free Colab session."]
    offered = tuple(config.load_recipe(advice.recipe).methods)
    methods = "all methods" if advice.methods == offered else f"methods {', '.join(advice.methods)}"
    lines = [f"Use recipe {advice.recipe}, {methods}, precision {advice.precision.name if advice.precision else 'auto'}, because"]
    reasons = [advice.why, *advice.left_out.values()] + ([advice.precision.reason] if advice.precision else [])
    lines += [f"- {reason}" for reason in reasons]
    lines.append(f"Run it: {command(advice, where)}")
    if advice.recipe != course.DEFAULT_RECIPE:
        lines.append(f'or set recipe = "{advice.recipe}" and run_dir = "runs/{advice.recipe}" in each notebook\'s parameters cell.')
    if advice.larger:
        also = ", ".join(f"{name} ({', '.join(methods)})" for name, methods in advice.larger.items())
        lines.append(f"Larger models that fit with fewer methods: {also}.")
    return lines


def command(advice: Advice, where: str = "local") -> str:
    """What to type to run what is advised."""
    lab = "lab" if where == "local" else "!python -m lab_utils"
    if advice.measured_slow:  # the notebooks have no such parameter
        method = "lora" if "lora" in advice.methods else advice.methods[-1]
        return f"{lab} train --recipe {advice.recipe} --method {method} -p precision=float32, and so for each method"
    recipe = "" if advice.recipe == course.DEFAULT_RECIPE else f" --recipe {advice.recipe}"
    numbers = [one.number for one in course.NOTEBOOKS if one.method is None or one.method in advice.methods]
    return f"{lab} run{recipe}" + (f" --only {','.join(numbers)}" if advice.left_out else "")
