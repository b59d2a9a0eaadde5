"""YAML files as people mean them: numbers and flags of YAML 1.2, no name given twice, and the line of everything that may need mending."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lab_utils.errors import LabError

LARGEST = 1_000_000  # bytes; a recipe or an assignment has a few thousand
LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
# The core schema of YAML 1.2 (yaml.org/spec/1.2.2, chapter 10.3). PyYAML follows 1.1, where 2e-4 is a text, 010 is eight and `no` is false.
CORE = {
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+.0123456789"),
}


class _Mistake(Exception):
    """Valid YAML that would not do what its author meant."""

    def __init__(self, what: str, node: yaml.Node):
        self.what, self.line = what, node.start_mark.line + 1


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict = {}  # not those of YAML 1.1


for _name, (_pattern, _first) in CORE.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_pattern})$"), ["" if c == "\0" else c for c in _first])


@dataclass(frozen=True)
class Document:
    """What a YAML file says, and where."""

    name: str  # of the file
    values: dict[str, Any]
    lines: dict[tuple[Hashable, ...], int] = field(repr=False)

    def line(self, *path: Hashable) -> int | None:
        """The line of what stands at a path of names and positions; of the nearest thing around it where there is nothing."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)


def read(path: Path) -> Document:
    """A YAML file of `name: value` lines.

    Raises:
        LabError: it cannot be read, is no YAML, or says one thing twice; with the line.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise LabError(f"{path.name} has {path.stat().st_size:,} bytes, which is no file of settings: give the right one.")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabError(f"{path.name} is not UTF-8 text (byte {error.start}): save it as UTF-8 and run again.") from error
    except OSError as error:
        raise LabError(f"{path.name} cannot be read ({error.strerror}): check its path and its permissions.") from error
    lines: dict[tuple[Hashable, ...], int] = {}
    values = _parsed(text, path.name, lines)
    if not isinstance(values, dict):
        found = "nothing" if values is None else f"one {type(values).__name__}"
        raise LabError(f"{path.name} must hold 'name: value' lines; found {found}.")
    return Document(path.name, values, lines)


def value(text: str, name: str) -> Any:
    """A single value, as `-p rank=8` gives it.

    Args:
        name: what to call it where something is wrong.

    Raises:
        LabError: it is no YAML.
    """
    return _parsed(text, name, {})


def _parsed(text: str, name: str, lines: dict[tuple[Hashable, ...], int]) -> Any:
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            return None if node is None else _value(node, loader, (), lines, ())
        finally:
            loader.dispose()
    except _Mistake as mistake:
        raise LabError(f"{name}, line {mistake.line}: {mistake.what}.") from mistake
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be parsed"
        raise LabError(f"{name}{place} is not valid YAML ({problem}): mend it and run again.") from error
    except RecursionError as error:
        raise LabError(f"{name} is nested too deeply to be meant: mend its brackets and run again.") from error


def _value(node, loader: _Loader, path: tuple, lines: dict, around: tuple) -> Any:
    """The value of a node. Notes the line of everything inside."""
    lines.setdefault(path, node.start_mark.line + 1)
    if any(node is outer for outer in around):
        raise _Mistake("an alias stands inside what it stands for", node)
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if kind not in ("str", "map", "seq", *CORE):
        raise _Mistake(f"the tag '{node.tag}' is not accepted: write a plain value", node)
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key, inner in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _Mistake("a name must be a word", key)
            inside = (*path, key.value)
            if key.value in found:
                raise _Mistake(f"'{key.value}' is given a second time (first in line {lines[inside]}), and only one can count", key)
            lines[inside] = key.start_mark.line + 1
            found[key.value] = _value(inner, loader, inside, lines, (*around, node))
        return _merged(found, node, path, lines)
    if isinstance(node, yaml.SequenceNode):
        return [_value(inner, loader, (*path, place), lines, (*around, node)) for place, inner in enumerate(node.value)]
    return node.value if kind == "str" else _scalar(kind, node, loader)


def _merged(found: dict[str, Any], node: yaml.Node, path: tuple, lines: dict) -> dict[str, Any]:
    """A mapping with what `<<: *another` brings into it (a merge key, yaml.org/type/merge.html); names of its own come first."""
    if "<<" not in found:
        return found
    other = found.pop("<<")
    if not isinstance(other, dict):
        raise _Mistake("'<<' takes an alias of other 'name: value' lines, such as *lora", node)
    for name in other:
        lines.setdefault((*path, name), lines[(*path, "<<")])
    return other | found


def _scalar(kind: str, node, loader: _Loader) -> Any:
    text = node.value
    if kind in ("int", "float") and LEADING_ZERO.fullmatch(text):
        plain = text.lstrip("-+0_") or "0"
        raise _Mistake(f"{text} begins with a zero, which some read as octal: write {plain}, or '{text}' in quotes for a text", node)
    try:
        if kind == "int":
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        return getattr(loader, f"construct_yaml_{kind}")(node)
    except (ValueError, KeyError) as error:  # an explicit tag over something else, or thousands of digits
        raise _Mistake(f"'{text[:20]}' is no {kind}", node) from error
