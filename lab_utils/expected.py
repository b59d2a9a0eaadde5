"""What a run of a recorded recipe should score, as bands from the recorded runs, and the usual causes where it does not.

A band is the 95% interval of the recorded mean over its test documents (`significance.bootstrap`): how far that mean would move with
another draw of documents of the same kind. It is no spread between trainings. The same seed, versions and machine gave the recorded means
again to the last digit; other versions and machines round differently, and another seed draws another adapter and another order: one seed
on one machine was recorded, so how far these move a mean is in no band. A miss has a cause worth finding; a hit does not prove that
nothing went wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab_utils import config
from lab_utils.errors import LabError

RECORDED = Path(__file__).parent / "recorded"
MEASURES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
SMOKE = 0.5  # of the recorded steps: fewer are a try-out, not a training
FEWER_ENDED = 0.1  # share of answers that ended by themselves: a loss of more than this lowers ROUGE
NO_MATTER = {"micro_batch", "activation_checkpointing", "compile", "tensorboard"}  # they change time, memory and rounding only
# What is left to check by hand where a record shows no difference.
USUAL = {
    ("zero_shot", "below"): "cells that ran out of order or twice, so that another prompt or model was scored",
    ("zero_shot", "above"): "a model in memory that an earlier cell had already trained",
    ("full", "below"): "cells that ran out of order, so that the training did not begin at the base, or another model was scored",
    ("adapter", "below"): "a new adapter attached after training, whose B is zero, or cells that ran out of order",
    ("trained", "above"): "a model that was already trained when this training began, or test documents among the training ones",
}


@dataclass(frozen=True)
class Band:
    """Between which values a mean of a recorded run lies, and where that was measured."""

    low: float
    high: float
    n: int  # test documents
    machine: str
    date: str | None  # of the run; None in records that do not say it

    def __str__(self) -> str:
        return f"{self.low:.1f} to {self.high:.1f}"

    def side(self, value: float) -> str:
        """`below`, `inside` or `above`, of the numbers as they are shown."""
        value, low, high = (round(number, 1) for number in (value, self.low, self.high))
        return "below" if value < low else "above" if value > high else "inside"

    @property
    def measured(self) -> str:
        return f"measured with n = {self.n} on {self.machine}" + (f", {self.date}" if self.date else "")


def recipes(folder: Path = RECORDED) -> list[str]:
    """Names of the recipes of which finished runs are recorded."""
    return sorted({path.parents[1].name for path in folder.glob("*/*/run.json")})


def bands(recipe: str, folder: Path = RECORDED) -> dict[str, dict[str, Band]]:
    """Method -> measure -> band, from the recorded runs of a recipe; nothing for a recipe that was not recorded."""
    return {method: _bands(record) for method, record in _records(recipe, folder)}


def sentence(record: dict, measure: str = "rouge1", folder: Path = RECORDED) -> str:
    """One run's mean beside its band: inside, or below or above with what differs from the recorded run, the usual causes first.

    A run with another base or test set is not judged, and the sentence says which; one with changed parameters never without naming them.

    Args:
        record: a run's `run.json`, as `runs.Run.record` or `runs.Finished.record` hold it.
        measure: one of `MEASURES`.
    """
    if "metrics" not in record:
        return "This run has no scores yet: nothing to compare."
    scored = record["metrics"][measure]
    said = f"{MEASURES[measure]} {scored['mean']:.1f}"
    recorded = dict(_records(record["recipe"], folder)).get(record["method"])
    if recorded is None:
        return f"{said}: nothing comparable was recorded for method {record['method']} of recipe '{record['recipe']}'."
    band, n = _bands(recorded)[measure], record["metrics"]["n"]
    if record["model"]["fingerprint"] != recorded["model"]["fingerprint"]:
        theirs, ours = (f"{each['model']['name']}, fingerprint {each['model']['fingerprint']}" for each in (recorded, record))
        return f"{said}: nothing comparable was recorded, since the recorded runs have another base model ({theirs}; this one: {ours})."
    if record["data"]["fingerprint"] != recorded["data"]["fingerprint"]:
        theirs = f"{band.n} documents of {recorded['data']['name']}, {recorded['data']['source']}"
        if n < band.n and record["data"]["name"] == recorded["data"]["name"]:
            own = f"{scored['low']:.1f} to {scored['high']:.1f}"
            return f"{said} with n = {n}, 95% interval {own}: not judged, since the recorded {band} is of the mean over {theirs}."
        return f"{said}: nothing comparable was recorded, since the recorded runs have another test set ({theirs})."
    side = band.side(scored["mean"])
    said = f"{said}: {side} {band}, {band.measured}."
    if side == "inside":
        changed = changes(record, recorded)
        return f"{said} This run has other parameters: {', '.join(changed)}." if changed else said
    found = causes(record, recorded, side)
    if found:
        return f"{said} What differs from the recorded run, the usual causes first: {'; '.join(found)}."
    kind = "trained" if side == "above" else "adapter" if record["method"] in ("lora", "qlora") else "full"
    usual = USUAL[("zero_shot" if record["method"] == "zero_shot" else kind, side)]
    return (
        f"{said} Its parameters, steps, versions and seed are those of the recorded run. The usual cause is then {usual}: "
        "restart the kernel and run this notebook from its first cell."
    )


def changes(record: dict, recorded: dict) -> list[str]:
    """The parameters that decide a score and are not as recorded, such as `rank=4 (recorded: 16)`."""
    here, there = _parameters(record), _parameters(recorded)
    return [_differing(name, here.get(name), there.get(name)) for name in here | there if here.get(name) != there.get(name)]


def causes(record: dict, recorded: dict, side: str = "below") -> list[str]:
    """What differs from the recorded run, in the order in which it usually explains a miss on that side of the band."""
    found = changes(record, recorded)
    steps, then = (each.get("training", {}).get("steps") for each in (record, recorded))
    if steps != then:
        found.append(f"{'a smoke run, ' if (steps or 0) < SMOKE * (then or 0) else ''}{steps} training steps (recorded: {then})")
    ended, then = (each.get("generation", {}).get("stopped_share", 1.0) for each in (record, recorded))
    if side == "below" and ended < then - FEWER_ENDED:
        found.append(f"{ended:.0%} of the answers ended by themselves (recorded: {then:.0%})")
    found += _machine_differences(record.get("environment", {}), recorded.get("environment", {}))
    if record["method"] != "zero_shot" and record["seed"] != recorded["seed"]:
        found.append(f"seed {record['seed']} (recorded: {recorded['seed']})")
    return found


def _records(recipe: str, folder: Path) -> Iterator[tuple[str, dict]]:
    for method in config.METHODS:
        path = folder / recipe / method / "run.json"
        if path.is_file():
            yield method, json.loads(path.read_text(encoding="utf-8"))


def _bands(record: dict) -> dict[str, Band]:
    scores, device, date = record["metrics"], record["environment"]["device"], record.get("date")
    return {name: Band(scores[name]["low"], scores[name]["high"], scores["n"], device, date) for name in MEASURES}


def _parameters(record: dict) -> dict[str, Any]:
    """What decides this method's score, under the names of the notebooks' parameters."""
    method = record["method"]
    try:
        recipe = config.recorded(record["config"]).recipe.model_dump()  # fills in what an older record did not know
    except LabError:
        recipe = record["config"]["recipe"]
    found = {"prompt": recipe["prompt"], "document_tokens": recipe["lengths"]["document_tokens"]}
    found |= {"max_new_tokens": recipe["generation"]["max_new_tokens"], "precision": recipe["model"].get("precision")}
    if method != "zero_shot":
        found |= {"train_examples": record["data"]["train"], "summary_tokens": recipe["lengths"]["summary_tokens"]}
        found |= {name: recipe["data"].get(name) for name in ("data_seed", "keep_overlaps")}
        found |= {name: value for name, value in recipe[method].items() if name not in NO_MATTER}
    return found


def _differing(name: str, here: Any, there: Any) -> str:
    return "another prompt" if name == "prompt" else f"{name}={_shown(here)} (recorded: {_shown(there)})"


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _machine_differences(here: dict, there: dict) -> list[str]:
    """Versions of packages that both have, and the number format and kind of device of the products."""
    ours, theirs = map(_versions, (here, there))
    found = [f"{name} {ours[name]} (recorded: {theirs[name]})" for name in ours if ours[name] != theirs.get(name, ours[name])]
    products, recorded = map(_products, (here, there))
    return found + ([f"{products} (recorded: {recorded})"] if products != recorded else [])


def _versions(environment: dict) -> dict[str, str]:
    return {name: version.split("+")[0] for name, version in environment.get("packages", {}).items()}


def _products(environment: dict) -> str:
    device = "a CPU" if environment.get("device", "").startswith("CPU") else "a GPU"
    return f"{environment.get('precision')} products on {device}"
