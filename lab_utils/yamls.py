"""YAML files as people mean them: numbers and flags of YAML 1.2, no name given twice, and the line of everything that may need mending."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lab_utils import scrubbing
from lab_utils.errors import LabError

LARGEST = 200_000  # bytes; a recipe or an assignment has a few thousand
MOST_VALUES = 20_000  # with those that aliases repeat: nine aliases of nine aliases of ... fill any memory
MOST_SHOWN = 200  # characters of a value in a message
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
    values = 0  # so many were made


for _name, (_pattern, _first) in CORE.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_pattern})$"), ["" if c == "\0" else c for c in _first])


_KINDS = {yaml.MappingNode: ("map",), yaml.SequenceNode: ("seq",), yaml.ScalarNode: ("str", *CORE)}  # tags that a node may have


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
        LabError: it cannot be read, is no YAML, says one thing twice, or holds a token; with the line.
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
        LabError: it is no YAML, or a token.
    """
    return _parsed(text, name, {})


def shown(value: Any) -> str:
    """A given value as a message quotes it: as Python writes it, on one line, and only its beginning where it is long."""
    try:
        said = repr(value) if isinstance(value, str) else " ".join(repr(value).split())
    except (ValueError, RecursionError):  # thousands of digits or of brackets
        return f"a very long {type(value).__name__}"
    return said if len(said) <= MOST_SHOWN else f"{said[:MOST_SHOWN]}..."


def _parsed(text: str, name: str, lines: dict[tuple[Hashable, ...], int]) -> Any:
    if scrubbing.without_secrets(text) != text:
        scrubbing.refuse({f"{name}, line {number},": line for number, line in enumerate(text.splitlines(), 1)})
        scrubbing.refuse({name: text})
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
        raise LabError(f"{name}{place} is not valid YAML ({problem[:MOST_SHOWN]}): mend it and run again.") from error
    except RecursionError as error:
        raise LabError(f"{name} is nested too deeply to be meant: mend its brackets and run again.") from error


def _value(node, loader: _Loader, path: tuple, lines: dict, around: tuple) -> Any:
    """The value of a node. Notes the line of everything inside."""
    lines.setdefault(path, node.start_mark.line + 1)
    loader.values += 1
    if loader.values > MOST_VALUES:
        raise _Mistake(f"with what its aliases stand for it holds more than {MOST_VALUES:,} values, which is no file of settings", node)
    if any(node is outer for outer in around):
        raise _Mistake("an alias stands inside what it stands for", node)
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if kind not in _KINDS[type(node)]:
        raise _Mistake(f"the tag {shown(node.tag)} is not accepted here: write a plain value", node)
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key, inner in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _Mistake("a name must be a word", key)
            name = _characters(key)
            inside = (*path, name)
            if name in found:
                raise _Mistake(f"{shown(name)} is given a second time (first in line {lines[inside]}), and only one can count", key)
            lines[inside] = key.start_mark.line + 1
            found[name] = _value(inner, loader, inside, lines, (*around, node))
        return _merged(found, node, path, lines)
    if isinstance(node, yaml.SequenceNode):
        return [_value(inner, loader, (*path, place), lines, (*around, node)) for place, inner in enumerate(node.value)]
    return _characters(node) if kind == "str" else _scalar(kind, node, loader)


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


def _characters(node) -> str:
    """The text of a node, in which a pair of escapes (as JSON writes an emoji) is one character."""
    try:
        return node.value.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise _Mistake(f"{shown(node.value)} holds half of a character: write the whole one, or none", node) from error


def _scalar(kind: str, node, loader: _Loader) -> Any:
    text = node.value
    if kind in ("int", "float") and LEADING_ZERO.fullmatch(text):
        plain = text.lstrip("-+0_") or "0"
        raise _Mistake(f"{text} begins with a zero, which some read as octal: write {plain}, or '{text}' in quotes for a text", node)
    try:
        if kind == "int":
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        return getattr(loader, f"construct_yaml_{kind}")(node)
    except (ValueError, KeyError, IndexError) as error:  # an explicit tag over something else, or thousands of digits
        raise _Mistake(f"{shown(text[:20])} is no {kind}", node) from error
