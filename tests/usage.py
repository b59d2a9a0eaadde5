"""How the lab uses other libraries, read from its source: calls with their arguments, subclasses, private names, attributes it sets.

A call is followed where its object comes from an import, through names, attributes, `a if b else c`, instances and `**` of dict literals.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from installed import LIBRARIES, is_class, watched

PROBED = ("getattr", "hasattr", "setattr", "delattr", "pop")  # calls whose text arguments are names of attributes


@dataclass(frozen=True)
class Call:
    """One call of a library, as it stands in the lab."""

    place: str
    target: str  # dotted name of what is called
    bound: bool  # on an instance, so that `self` is given
    positional: int
    keywords: frozenset[str]
    complete: bool  # neither `*` nor `**` hides arguments


@dataclass(frozen=True)
class Subclass:
    place: str
    base: str
    node: ast.ClassDef = field(compare=False)


@dataclass
class Usage:
    """What one file does with the libraries."""

    calls: list[Call] = field(default_factory=list)
    subclasses: list[Subclass] = field(default_factory=list)
    unresolved: list[Call] = field(default_factory=list)  # of what no import leads to, such as methods of a model: `.name`, or `?name`
    names: dict[str, str] = field(default_factory=dict)  # each dotted name of a library, and where
    optional: set[str] = field(default_factory=set)  # dotted names that the lab asks for with hasattr
    private: dict[str, str] = field(default_factory=dict)  # underscored names on objects that are not the lab's, and where
    written: dict[str, str] = field(default_factory=dict)  # attributes set on objects other than self, and where


Places = set[tuple[str, bool]]  # dotted names, and whether an instance of it is meant


def _imported(node: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """Name in the file and dotted name of each thing that a statement imports; nothing for relative imports."""
    if isinstance(node, ast.ImportFrom):
        return {} if node.level else {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    tops = {alias: alias.name.split(".")[0] for alias in node.names}
    return {alias.asname or top: alias.name if alias.asname else top for alias, top in tops.items()}


class _Scope:
    """The names of one function or module, with those of the scopes around it."""

    def __init__(self, node: ast.AST, outer: _Scope | None):
        self.node, self.outer = node, outer
        self.values: dict[str, list[ast.expr]] = {}
        self.imports: dict[str, str] = {}
        self.keys: dict[str, list[ast.expr]] = {}
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self.values = {argument.arg: [] for argument in ast.walk(node.args) if isinstance(argument, ast.arg)}
        self.nodes = list(self._inside())
        for part in self.nodes:
            self._bind(part)

    def _inside(self) -> Iterator[ast.AST]:
        """What belongs to the scope, and the functions and classes that stand in it without their insides."""
        waiting = list(ast.iter_child_nodes(self.node))
        while waiting:
            node = waiting.pop()
            yield node
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                waiting.extend(ast.iter_child_nodes(node))

    def _bind(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            self.imports |= _imported(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    self.values.setdefault(target.id, []).append(node.value)
                elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
                    self.keys.setdefault(target.value.id, []).append(target.slice)
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            self.values.setdefault(node.target.id, []).append(node.value)
        elif isinstance(node, ast.withitem) and isinstance(node.optional_vars, ast.Name):
            self.values.setdefault(node.optional_vars.id, []).append(node.context_expr)

    def _where(self, name: str) -> _Scope | None:
        if name in self.values or name in self.imports:
            return self
        return self.outer and self.outer._where(name)

    def resolve(self, node: ast.AST, depth: int = 0) -> Places:
        """What an expression may stand for; empty where that is not known."""
        if depth > 8:
            return set()
        if isinstance(node, ast.Name):
            scope = self._where(node.id)
            if scope is None:
                return set()
            found = {(scope.imports[node.id], False)} if node.id in scope.imports else set()
            return found.union(*(scope.resolve(value, depth + 1) for value in scope.values.get(node.id, ())))
        if isinstance(node, ast.Attribute):
            owners = self.resolve(node.value, depth + 1)
            return {(f"{name}.{node.attr}", bound) for name, bound in owners if not bound or is_class(name)}
        if isinstance(node, ast.IfExp):
            return self.resolve(node.body, depth + 1) | self.resolve(node.orelse, depth + 1)
        if isinstance(node, ast.Call):
            return {(name, True) for name, bound in self.resolve(node.func, depth + 1) if not bound and watched(name) and is_class(name)}
        return set()

    def spread(self, node: ast.AST, depth: int = 0) -> tuple[set[str], bool]:
        """The keys of what stands after `**`, and whether these are all."""
        if isinstance(node, ast.Dict):
            keys, complete = set(), True
            for key, value in zip(node.keys, node.values, strict=True):
                if key is None:
                    more, whole = self.spread(value, depth + 1)
                    keys, complete = keys | more, complete and whole
                elif isinstance(key, ast.Constant):
                    keys.add(key.value)
                else:
                    complete = False
            return keys, complete
        parts: list[ast.expr] = []
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            parts = [node.left, node.right]
        elif isinstance(node, ast.IfExp):
            parts = [node.body, node.orelse]
        elif isinstance(node, ast.Name) and (scope := self._where(node.id)) and depth < 8 and scope.values.get(node.id):
            subscripts = scope.keys.get(node.id, [])
            known = {key.value for key in subscripts if isinstance(key, ast.Constant)}
            found = [scope.spread(value, depth + 1) for value in scope.values[node.id]]
            return known.union(*(keys for keys, _ in found)), len(known) == len(subscripts) and all(whole for _, whole in found)
        found = [self.spread(part, depth + 1) for part in parts]
        return set().union(*(keys for keys, _ in found)), bool(parts) and all(whole for _, whole in found)


def usage(source: str, place: str, makers: dict[str, Subclass] | None = None, bases: dict[str, str] | None = None) -> Usage:
    """What a file does with the libraries.

    Args:
        makers: functions of the lab that return a subclass of a library's class, by name: see `makers`.
        bases: of classes whose base is an argument, by the class's name.
    """
    found, tree = Usage(), ast.parse(source)
    _read(_Scope(tree, None), found, place, makers or {}, bases or {})
    return found


def _read(scope: _Scope, found: Usage, place: str, makers: dict[str, Subclass], bases: dict[str, str]) -> None:
    inside = []
    for node in scope.nodes:
        at = f"{place}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call):
            calls = list(_calls(node, scope, at, makers))
            found.calls.extend(call for call in calls if watched(call.target))
            found.unresolved.extend(call for call in calls if call.target[0] in ".?")
            if getattr(node.func, "id", getattr(node.func, "attr", None)) in PROBED:
                texts = [part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
                found.private |= {text: at for text in texts if _is_private(text)}
                found.optional |= {f"{name}.{text}" for text in texts for name, _ in scope.resolve(node.args[0]) if watched(name)}
        elif isinstance(node, ast.Attribute):
            _note_attribute(node, scope, found, at)
        elif isinstance(node, ast.ClassDef):
            known = {name for base in node.bases for name, _ in scope.resolve(base)}.union(filter(None, [bases.get(node.name)]))
            found.subclasses.extend(Subclass(at, name, node) for name in sorted(known) if watched(name))
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found.names |= {name: at for name in _imported(node).values() if watched(name)}
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside.append(node)
    for node in inside:
        _read(_Scope(node, scope), found, place, makers, bases)


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name.isidentifier()


def _note_attribute(node: ast.Attribute, scope: _Scope, found: Usage, at: str) -> None:
    roots = scope.resolve(node)
    found.names |= {name: at for name, bound in roots if watched(name) and not bound and isinstance(node.ctx, ast.Load)}
    owner = {name.split(".")[0] for name, _ in scope.resolve(node.value)}
    if owner and not owner & LIBRARIES or isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
        return  # the lab's own, or the standard library's
    if _is_private(node.attr):
        found.private[node.attr] = at
    if isinstance(node.ctx, ast.Store):
        found.written[node.attr] = at


def _calls(node: ast.Call, scope: _Scope, at: str, makers: dict[str, Subclass]) -> Iterator[Call]:
    keywords, complete = set(), not any(isinstance(part, ast.Starred) for part in node.args)
    for keyword in node.keywords:
        more, whole = ({keyword.arg}, True) if keyword.arg else scope.spread(keyword.value)
        keywords, complete = keywords | more, complete and whole
    targets, given = scope.resolve(node.func), len(node.args)
    if isinstance(node.func, ast.Call):  # a class made by a function
        maker = makers.get(getattr(node.func.func, "attr", getattr(node.func.func, "id", "")))
        if maker:
            targets, keywords = {(maker.base, False)}, keywords - own_parameters(maker.node)
        else:
            classes = {name for part in node.func.args for name, _ in scope.resolve(part) if watched(name)}
            targets = {(name, False) for name in classes if is_class(name)}
    if not targets and isinstance(node.func, ast.Attribute | ast.Name):
        targets = {(f".{node.func.attr}" if isinstance(node.func, ast.Attribute) else f"?{node.func.id}", True)}
    for name, bound in sorted(targets):
        if not (bound and is_class(name)):  # calling an instance is not making one
            yield Call(at, name, bound, given, frozenset(keywords), complete)


def own_parameters(node: ast.ClassDef) -> set[str]:
    """What a subclass's `__init__` takes for itself."""
    made = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
    return {argument.arg for part in made for argument in (*part.args.args, *part.args.kwonlyargs)}


def makers(sources: dict[str, str]) -> dict[str, Subclass]:
    """The functions of these files that return a subclass of a library's class which they define, by name."""
    found = {}
    for place, source in sources.items():
        if not re.search(rf"import ({'|'.join(LIBRARIES)})|from ({'|'.join(LIBRARIES)})[. ]", source):
            continue
        made = {(use.node.name, use.node.lineno): use for use in usage(source, place).subclasses}
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                returned = {part.value.id for part in node.body if isinstance(part, ast.Return) and isinstance(part.value, ast.Name)}
                inside = [(part.name, part.lineno) for part in node.body if isinstance(part, ast.ClassDef) and part.name in returned]
                for key in inside:
                    found |= {node.name: made[key]} if key in made else {}
    return found
