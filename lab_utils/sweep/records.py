"""Which points belong to a sweep, and what is recorded of each."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lab_utils import fields, files, locks
from lab_utils.errors import LabError
from lab_utils.sweep.grid import Point

PLAN = "sweep.json"


class Planned(fields.Section):
    """What a report must know of a point that may not have been run."""

    number: int
    label: str
    key: str
    method: str
    seed: int
    varied: dict[str, Any]


class Plan(fields.Section):
    """Which points belong to a sweep: sweep.json."""

    title: str
    points: Annotated[list[Planned], Field(min_length=1)]


def keep_plan(points: Sequence[Point], out: Path) -> None:
    """Writes down which points belong to the sweep, so that a report can name those that are missing."""
    planned = [
        Planned(number=p.number, label=p.label, key=p.key, method=p.settings.method, seed=p.settings.seed, varied=p.varied) for p in points
    ]
    plan = Plan(title=points[0].title, points=planned)
    with contextlib.suppress(locks.Busy), locks.hold(out / PLAN, patience=0):  # else another job of the same sweep is writing the same
        files.write_text(out / PLAN, plan.model_dump_json(indent=2) + "\n")


def read_plan(out: Path) -> Plan:
    hint = "write it with `lab sweep GRID.yaml --out DIR`, or copy it from where the sweep was run"
    try:
        return fields.build(Plan, json.loads((out / PLAN).read_text(encoding="utf-8")), PLAN)
    except FileNotFoundError as error:
        raise LabError(f"'{out}' holds no sweep ({PLAN} is missing): {hint}.") from error
    except (OSError, ValueError, LabError) as error:
        raise LabError(f"{PLAN} in '{out}' cannot be read ({str(error).rstrip('.')}): {hint}.") from error


def record_of(out: Path, key: str, method: str) -> dict:
    """The record of a point under any number, the finished one where there are several; empty where none can be read."""
    found: list[dict] = []
    for path in sorted(out.glob(f"*-{key}/{method}/run.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):  # being copied, cut off, or something else of that name
            found.append(dict(json.loads(path.read_text(encoding="utf-8"))))
    return max(found, key=lambda record: record.get("status") == "finished", default={})
