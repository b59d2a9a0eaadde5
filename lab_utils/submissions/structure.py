"""What a submission's JSON must look like, so that whoever goes on with it may rely on names and types.

Only that is judged here. Whether a score is right is another question (`verifying`).
"""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lab_utils.check.exercise import SIGNS
from lab_utils.submissions.layout import one_line, too_deep

DIGITS = 18  # of a whole number; more do not fit into the 64 bits that tables have
PROBLEMS = 3  # that are told of one file

Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", protected_namespaces=())


class _Estimate(_Part):
    mean: Number
    low: Number
    high: Number


class _Metrics(_Part):
    protocol: dict[str, Any]
    n: Count
    rouge1: _Estimate
    rouge2: _Estimate
    rougeL: _Estimate
    rougeLsum: _Estimate


class _Data(_Part):
    name: str
    source: str
    fingerprint: str
    train: Count
    validation: Count
    test: Count


class _Model(_Part):
    name: str
    source: str
    fingerprint: str
    parameters: Count


class _Training(_Part):
    steps: Count
    examples: Count
    tokens: Count
    seconds: Number
    tokens_per_second: Number
    peak_memory_gb: Number
    first_loss: Number
    last_loss: Number


class _Generation(_Part):
    examples: Count
    seconds: Number
    tokens_per_second: Number
    peak_memory_gb: Number
    stopped_share: Number


class _Lengths(_Part):
    document_tokens: Count


class _Decoding(_Part):
    max_new_tokens: Count


class _Recipe(_Part):
    name: str
    model: dict[str, Any]
    data: dict[str, Any]
    prompt: dict[str, Any]
    lengths: _Lengths
    generation: _Decoding


class _Config(_Part):
    recipe: _Recipe
    method: str
    seed: Count


class _Record(_Part):
    status: Literal["finished", "failed", "stopped"]
    method: str
    assignment: str | None = None
    student: str | int | None = None
    started: str | None = None
    error: str | None = None


class _Finished(_Record):
    recipe: str
    seed: Count
    config: _Config
    environment: dict[str, Any]
    data: _Data
    model: _Model
    generation: _Generation
    metrics: _Metrics


class _Trained(_Finished):
    training: _Training


class _Prediction(_Part):
    id: str
    prediction: str
    references: Annotated[list[str], Field(min_length=1)]
    tokens: Count
    stopped: bool


class _About(_Part):
    student: str | int
    assignment: str | None = None
    packed: str | None = None
    files: dict[str, str] = {}


class _State(_Part):
    state: Literal[tuple(SIGNS)]
    tries: Count = 0


class _Answer(_Part):
    code: str


class _Cell(_Part):
    cell_type: Literal["code", "markdown", "raw"]
    source: str | list[str]
    metadata: dict[str, Any] = {}
    outputs: list[dict[str, Any]] = []


class _Notebook(_Part):
    cells: list[_Cell]
    metadata: dict[str, Any] = {}


PREDICTION, ABOUT, STATE, ANSWER, NOTEBOOK = (TypeAdapter(kind) for kind in (_Prediction, _About, _State, _Answer, _Notebook))
NAMED = TypeAdapter(dict[str, Any])
FIELDS_OF_A_PREDICTION = tuple(_Prediction.model_fields)
_RECORDS = {kind: TypeAdapter(kind) for kind in (_Record, _Finished, _Trained)}


def problems(kind: TypeAdapter, value: Any) -> list[str]:
    """What is wrong with a value of a kind, each as the end of a sentence."""
    try:
        kind.validate_python(value)
    except ValidationError as error:
        found = [_in_words(each["loc"], each["msg"]) for each in error.errors(include_url=False, include_input=False)]
        return found[:PROBLEMS] + ([f"and {len(found) - PROBLEMS} more"] if len(found) > PROBLEMS else [])
    return []


def _in_words(place: tuple, message: str) -> str:
    return f"{one_line('.'.join(map(str, place))) or 'it'}: {message[0].lower()}{message[1:]}"


def record_problems(record: Any, method: str) -> list[str]:
    """What is wrong with a method's run.json. A finished one must have all that comparisons take from it; others need a status only."""
    if not isinstance(record, dict) or record.get("status") != "finished":
        kind = _Record
    else:
        kind = _Finished if method == "zero_shot" else _Trained
    found = problems(_RECORDS[kind], record)
    return found if found or record["method"] == method else [f"it is a record of another method than {method}"]


def loaded(text: str) -> tuple[Any, list[str]]:
    """The value of a JSON text, and what is odd in it, each as the end of a sentence.

    Python reads more than JSON allows and than others can go on with. A number that is none or too large becomes None here, of a name
    that is given twice the last value counts, and half of a surrogate pair becomes a question mark.

    Raises:
        ValueError: it is no JSON, or nested beyond reason.
    """
    odd: dict[str, None] = {}

    def no_number(word: str) -> None:
        odd[f"{word[:20]}, which is no number that can be used"] = None

    def whole(digits: str) -> int | None:
        return int(digits) if len(digits) <= DIGITS else no_number(digits)

    def decimal(digits: str) -> float | None:
        return value if math.isfinite(value := float(digits)) else no_number(digits)

    def pairs(items: list[tuple[str, Any]]) -> dict:
        if len(made := dict(items)) < len(items):
            odd["the same name twice"] = None
        return made

    try:
        value = json.loads(text, parse_constant=no_number, parse_int=whole, parse_float=decimal, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno} is no JSON") from error
    except RecursionError as error:
        raise ValueError("it is nested beyond reason") from error
    if too_deep(value):
        raise ValueError("it is nested beyond reason")
    if re.search(r"\\u[dD][89a-fA-F]", text):
        whole_text = json.dumps(value, ensure_ascii=False)
        if (mended := whole_text.encode("utf-8", "replace").decode()) != whole_text:
            odd["half a character"] = None
            value = json.loads(mended)
    return value, list(odd)
