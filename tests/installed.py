"""What the installed versions of the libraries offer: whether a name is there, and what may be passed to it.

A library that dropped an argument which it takes through `**kwargs` would ignore it in silence, so there the name must stand in its source.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from typing import Any

from versions import HF_LAYER

LIBRARIES = HF_LAYER | {"nbclient", "papermill", "sacrebleu", "torch"}
# Where what these take as **kwargs goes.
PASSED_ON = {
    r"papermill\.execute_notebook": ["nbclient.NotebookClient"],
    r"torch\.nn\.Module\.compile": ["torch.compile"],
    r"transformers\.AutoModel\w*\.from_pretrained": ["transformers.PreTrainedModel.from_pretrained"],
    r"transformers\.AutoTokenizer\.from_pretrained": ["transformers.PreTrainedTokenizerBase.from_pretrained"],
    r"transformers\.\w+\.forward": ["transformers.utils.generic.TransformersKwargs"],
    r"transformers\.GenerationMixin\.generate": ["transformers.GenerationConfig", "transformers.LlamaForCausalLM.forward"],
}
OPEN = inspect.Parameter.VAR_KEYWORD
BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Gone(Exception):
    """A name that the installed version does not have."""


def watched(name: str) -> bool:
    return name.split(".")[0] in LIBRARIES


@cache
def is_installed(name: str) -> bool:
    return importlib.util.find_spec(name.split(".")[0]) is not None


@cache
def find(name: str) -> Any:
    """The object of a dotted name.

    Raises:
        Gone: there is no such object.
    """
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        if length > 1 and (shadow := getattr(importlib.import_module(".".join(parts[: length - 1])), parts[length - 1], None)) is not None:
            found = shadow  # a package may give a module's name to what is in it, and an import from the package takes that
        try:
            for part in parts[length:]:
                found = getattr(found, part)
        except (AttributeError, ImportError) as error:
            raise Gone(name) from error
        return found
    raise Gone(name)


def is_there(name: str) -> bool:
    try:
        find(name)
    except Gone:
        return False
    return True


def is_class(name: str) -> bool:
    return watched(name) and is_installed(name) and is_there(name) and inspect.isclass(find(name))


def has_signature(name: str) -> bool:
    try:
        return bool(inspect.signature(find(name)))
    except (Gone, ValueError, TypeError):
        return False


def complaints(target: str, positional: int, keywords: frozenset[str], *, bound: bool = False, complete: bool = True) -> list[str]:
    """What the installed version has against a call; nothing where it has no signature, as much of torch.

    Args:
        bound: called on an instance, so that `self` is given.
        complete: the arguments named are all that there are.
    """
    try:
        found = find(target)
    except Gone:
        return [f"{target} is gone"]
    try:
        parameters = list(inspect.signature(found).parameters.values())
    except (ValueError, TypeError):
        return []
    if parameters and parameters[0].name == "self" and (bound or inspect.isclass(found)):
        parameters = parameters[1:]
    kinds = {parameter.kind for parameter in parameters}
    by_position = [parameter for parameter in parameters if parameter.kind in BY_POSITION]
    unknown = keywords - {parameter.name for parameter in parameters if parameter.kind not in (OPEN, inspect.Parameter.POSITIONAL_ONLY)}
    if OPEN in kinds:
        unknown = {name for name in unknown if not is_documented(target, name)}
    said = [f"{target} takes no {name}" for name in sorted(unknown)]
    if positional > len(by_position) and inspect.Parameter.VAR_POSITIONAL not in kinds:
        said.append(f"{target} takes {len(by_position)} arguments by position, not {positional}")
    if complete:
        given = {parameter.name for parameter in by_position[:positional]} | keywords
        wanted = {p.name for p in parameters if p.default is p.empty and p.kind in (*BY_POSITION, inspect.Parameter.KEYWORD_ONLY)}
        said.extend(f"{target} now needs {name}" for name in sorted(wanted - given))
    return said


def is_documented(target: str, name: str) -> bool:
    """Whether the source of what is called, or of what it passes its arguments on to, knows the name."""
    further = [goal for pattern, goals in PASSED_ON.items() if re.fullmatch(pattern, target) for goal in goals]
    return any(re.search(rf"\b{re.escape(name)}\b", source(part)) for part in [target, *further])


@cache
def source(name: str) -> str:
    """The source of a function or module, or of a class and those of its bases that belong to these libraries; none of what is compiled."""
    found, texts = find(name), []
    ours = (*LIBRARIES, "tqdm")  # on which the hub client's own stands
    for part in [base for base in found.__mro__ if base.__module__.split(".")[0] in ours] if inspect.isclass(found) else [found]:
        with contextlib.suppress(OSError, TypeError):
            texts.append(textwrap.dedent(inspect.getsource(part)))
    return "\n".join(texts)


@cache
def members(name: str) -> frozenset[str]:
    """The names that instances of a class have: of the class, and those that its methods set on `self`."""
    stored = (node for node in ast.walk(ast.parse(source(name))) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    fields = (field for base in find(name).__mro__ for field in getattr(base, "__annotations__", ()))
    return frozenset(dir(find(name))).union((node.attr for node in stored if getattr(node.value, "id", "") == "self"), fields)


def subclass_complaints(base: str, node: ast.ClassDef, used: set[str]) -> Iterator[str]:
    """What would silently stop working in a subclass, if the installed version no longer calls, passes or reads what it relies on.

    Args:
        used: the names of attributes that the lab itself reads somewhere.
    """
    theirs, methods = members(base), {part.name: part for part in node.body if isinstance(part, ast.FunctionDef)}
    attributes = [part for part in ast.walk(node) if isinstance(part, ast.Attribute)]
    of_self = [part for part in attributes if getattr(part.value, "id", "") == "self"]
    stored = {part.attr for part in of_self if isinstance(part.ctx, ast.Store)}
    plain = {target.id for part in node.body if isinstance(part, ast.Assign) for target in part.targets if isinstance(target, ast.Name)}
    for name, method in methods.items():
        if name in theirs:
            yield from refused_overrides(base, method)
        elif name not in used:
            yield f"nothing calls {node.name}.{name}, since {base} has no such method"
    for name in sorted(stored - theirs - used):
        yield f"{node.name} sets {name}, which {base} does not know"
    inherited = {part.attr for part in attributes if isinstance(part.value, ast.Call) and getattr(part.value.func, "id", "") == "super"}
    read = {part.attr for part in of_self if isinstance(part.ctx, ast.Load)} - stored - set(methods) - plain
    for name in sorted((read | inherited) - theirs):
        yield f"{base} has no {name}, which {node.name} uses"


def refused_overrides(base: str, method: ast.FunctionDef) -> list[str]:
    """What a method of the library takes, and its override does not."""
    try:
        theirs = inspect.signature(getattr(find(base), method.name)).parameters.values()
    except (AttributeError, ValueError, TypeError):
        return []
    ours = {argument.arg for argument in (*method.args.posonlyargs, *method.args.args, *method.args.kwonlyargs)}
    fixed = [parameter.name for parameter in theirs if parameter.kind in (*BY_POSITION, inspect.Parameter.KEYWORD_ONLY)]
    missing = [] if method.args.kwarg else [name for name in fixed if name not in ours]
    return [f"{base}.{method.name} takes {name}, which its override does not" for name in missing]
