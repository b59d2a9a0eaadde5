"""Values that people write: what each kind may be, and a sentence for everything that does not fit."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError

from lab_utils.errors import LabError
from lab_utils.yamls import shown


def _not_a_flag(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"expected a number, got {str(value).lower()}")
    return value


HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # owner/name


def _a_hub_name(value: Any) -> Any:
    if not HUB_ID.fullmatch(str(value)):
        raise ValueError("expected 'owner/name' as on the hub (a token is never a parameter: set HF_TOKEN)")
    return value


def _at_most(limit: float) -> AfterValidator:
    """Refuses what no machine could do, before something overflows on the way."""

    def checked(value: Any) -> Any:
        if value > limit:
            at_most = f"{limit:,}" if isinstance(limit, int) else f"{limit:g}"
            raise ValueError(f"expected at most {at_most}, got {shown(value)}")
        return value

    return AfterValidator(checked)


def _module_names(value: Any) -> Any:
    if not (isinstance(value, str) or isinstance(value, list) and value and all(isinstance(name, str) for name in value)):
        raise ValueError(f"expected all-linear, attention, query-value or a list of module names, got {shown(value)}")
    return value


def _flag_or_text(value: Any) -> Any:
    if not isinstance(value, bool | str):
        raise ValueError(f"expected true, false or a text, got {shown(value)}")
    return value


HubName = Annotated[str, BeforeValidator(_a_hub_name)]
LARGEST_SEED = 2**32 - 1  # numpy takes no larger one
LARGEST_COUNT = 10**9
LARGEST_NUMBER = 1e38  # float32 goes no further
Flag = Annotated[bool, Strict()]
FlagOrText = Annotated[bool | str, BeforeValidator(_flag_or_text)]
ModuleNames = Annotated[str | list[str], BeforeValidator(_module_names)]
Seed = Annotated[int, Field(ge=0), BeforeValidator(_not_a_flag), _at_most(LARGEST_SEED)]
Count = Annotated[int, Field(ge=1), BeforeValidator(_not_a_flag), _at_most(LARGEST_COUNT)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(_not_a_flag), _at_most(LARGEST_NUMBER)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_not_a_flag), _at_most(LARGEST_NUMBER)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False), BeforeValidator(_not_a_flag)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


AnySection = TypeVar("AnySection", bound=Section)


def did_you_mean(word: str, known) -> str:
    """ ", did you mean 'rank'?" when something known is close, else nothing."""
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f", did you mean '{close[0]}'?" if close else ""


def unknown_parameter(name: str, known, where: str) -> str:
    """What to say of a parameter that a notebook, or something else with parameters, does not have."""
    near = did_you_mean(name, known)
    return f"unknown parameter {shown(name)} for {where}{near or ' (known: ' + ', '.join(sorted(known)) + ')'}"


class Mistakes(LabError):
    """Values that do not fit: `problems` holds the place of each, as a path of names, and what to say about it."""

    def __init__(self, what: str, problems: list[tuple[tuple[str | int, ...], str]], line: Callable[..., int | None] | None = None):
        said = [f"line {line(*path)}: {words}" if line else words for path, words in problems]
        super().__init__(f"{what[0].upper()}{what[1:]}: {'; '.join(said)}.")
        self.problems = problems


def build(model: type[AnySection], values: dict, what: str, line: Callable[..., int | None] | None = None) -> AnySection:
    """The values as a section.

    Args:
        what: what to call them where they do not fit.
        line: gives the line of a path of names, where they stand in a file.

    Raises:
        Mistakes: all that does not fit, at once.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise Mistakes(what, [(problem["loc"], _explain(model, problem)) for problem in error.errors()], line) from error


def changed(section: AnySection, **changes: Any) -> AnySection:
    """The section with some values replaced, checked like any other."""
    return build(type(section), section.model_dump() | changes, type(section).__name__.lower())


MEANT_AS_FLAGS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def flag_meant(given: Any) -> str:
    """ " (write true)" for a word that other versions of YAML read as a flag, else nothing."""
    meant = MEANT_AS_FLAGS.get(given.lower()) if isinstance(given, str) else None
    return f" (write {meant})" if meant else ""


def _explain(model: type[Section], problem: dict) -> str:
    """One problem in words: where, what was given, what is accepted."""
    path = [str(part) for part in problem["loc"] if part != "[key]"]  # a name itself, which is no path
    where, given = ".".join(path) or "values", problem["input"]
    if problem["type"] == "extra_forbidden":
        known = _fields_at(model, path[:-1])
        return f"unknown name {shown(where)}{did_you_mean(path[-1], known)} (known: {', '.join(sorted(known))})"
    if problem["type"] == "missing":
        return f"{shown(where)} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("model_type", "dict_type"):
        message = "expected 'name: value' lines"
    may_be_secret = "publish_to" in path or path[-1:] == ["publishing"]  # a token, pasted by mistake
    if problem["type"] != "value_error" and not isinstance(given, dict) and not may_be_secret:
        message += f", got {shown(given)}" + (flag_meant(given) if problem["type"].startswith("bool") else "")
    return f"{shown(where)[1:-1]}: {message[0].lower()}{message[1:]}"


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """Names that a section has, at a path of names and positions within a model."""
    for part in path:
        found = model.model_fields[part].annotation if part in model.model_fields else model
        model = next((inner for inner in _inside(found) if isinstance(inner, type) and issubclass(inner, BaseModel)), model)
    return list(model.model_fields)


def _inside(annotation: Any) -> Iterator[Any]:
    """A type, and the types that it is made of."""
    yield annotation
    for part in get_args(annotation):
        yield from _inside(part)
