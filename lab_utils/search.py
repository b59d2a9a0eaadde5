"""Choosing a learning rate on validation data, never on test data, and keeping the evidence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lab_utils import adapters, config, data, environment, files, models, training


def learning_rates(recipe: str, method: str, rates: Sequence[float], seed: int = 0, **parameters) -> dict:
    """Trains once for each rate, each time from the same base, and measures the validation loss.

    Returns:
        The record: `recipe`, `method`, `seed`, what was fixed, the machine, and `tried`, one row per rate, the lowest loss first.
    """
    tried = []
    for rate in rates:
        settings = config.resolve(recipe, method, seed, learning_rate=rate, **parameters)
        corpus, base = data.load(settings.recipe.data), models.load(settings)
        model = base.model if method == "full" else adapters.attach_lora(base)
        environment.say(f"{method}, learning rate {rate:g}")
        history = training.train(model, base, corpus.train)
        loss = training.validation_loss(model, base, corpus.validation)
        environment.say(f"validation loss {loss:.4f}")
        seconds = round(history.seconds, 1)
        tried.append({"learning_rate": rate, "validation_loss": round(loss, 4), "steps": history.steps, "seconds": seconds})
    fixed = settings.training.model_dump(exclude={"learning_rate"})
    return {
        "recipe": settings.recipe.name,
        "method": method,
        "seed": seed,
        "validation_examples": len(corpus.validation),
        "fixed": fixed,
        "machine": str(environment.machine()),
        "precision": base.precision.name,
        "packages": environment.versions(),
        "tried": sorted(tried, key=lambda row: row["validation_loss"]),
    }


def add(record: dict, path: Path) -> None:
    """Puts the record into a JSON file of searches, in place of an older one of the same recipe and method."""
    searches = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    kept = [s for s in searches if (s["recipe"], s["method"]) != (record["recipe"], record["method"])]
    files.write_text(path, json.dumps([*kept, record], indent=2) + "\n")
