"""What the names in a plugin's source stand for, as far as that is certain.

A name stands for something only if all that is ever bound to it in its scope is the same: then the
order of the statements does not matter, and nothing is found that is not there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional, Union, cast

from ..pdk.proxy import ITEMS, NAMESPACES, SPECS
from .modules import FunctionNode, Module, Modules, find_class

#: Modules whose names are for annotations, with the style that they stand for.
STUBS = {"kong_pdk.pdk.kong": "lua", "kong_pdk.pdk.python_style": "python"}


@dataclass(frozen=True)
class Pdk:
    """A place in Kong's PDK: a namespace or a function, by its full name."""

    path: str


@dataclass(frozen=True)
class Result:
    """What a call of a PDK function has returned."""

    path: str


@dataclass(frozen=True)
class Stub:
    """A module of the PDK's types, by its style."""

    style: str


@dataclass(frozen=True)
class ModuleOf:
    """A module of the plugin."""

    module: Module


@dataclass(frozen=True)
class Class:
    """A class of the plugin."""

    module: Module
    node: ast.ClassDef


@dataclass(frozen=True)
class Instance:
    """An object of a class of the plugin."""

    of: Class


@dataclass(frozen=True)
class Super:
    """What ``super()`` gives: the methods that come after those of a class."""

    of: Class
    object: Instance


@dataclass(frozen=True)
class Function:
    """A function or method of the plugin.

    Attributes:
        module: where it is defined.
        node: its definition.
        bound: what its first parameter stands for, if that is given already.
        scope: the one around it, if it is defined in a function.
        owner: the class whose method it is.
    """

    module: Module
    node: FunctionNode
    bound: Union[Instance, Class, None] = None
    scope: Optional[Scope] = None
    owner: Optional[Class] = None


Value = Union[Pdk, Result, Stub, ModuleOf, Class, Instance, Super, Function]
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class Scope:
    """The names of a function, or of a module.

    Args:
        world: of the plugin.
        module: where the code is.
        node: the function, or the module's tree.
        parent: the scope around it.
        given: what the parameters stand for, those that are known.
        owner: the class whose method the function is, and the object it is called for.
    """

    def __init__(
        self,
        world: World,
        module: Module,
        node: Union[FunctionNode, ast.Module],
        parent: Optional[Scope] = None,
        given: Optional[dict[str, Value]] = None,
        owner: Optional[tuple[Class, Instance]] = None,
    ) -> None:
        self.world = world
        self.module = module
        self.parent = parent
        inherited = parent.owner if parent is not None else None
        self.owner: Optional[tuple[Class, Instance]] = owner or inherited
        self.known: dict[str, Optional[Value]] = dict(given or {})
        #: Everything that is bound to a name; None: what it is cannot be known.
        self.bound: dict[str, list[Optional[ast.AST]]] = {}
        self.elsewhere: set[str] = set()
        #: Names whose value is taken apart somewhere, as a tuple is.
        self.taken_apart: set[str] = set()
        if not isinstance(node, ast.Module):
            for name in parameters(node):
                self.bound.setdefault(name, []).append(None)
        body = node.body if isinstance(node.body, list) else [node.body]
        for child in body:
            self._collect(child)
        for name in list(self.known):
            if len(self.bound.get(name, ())) > 1:  # a parameter that is assigned to
                self.known[name] = None

    def _bind(self, name: str, value: Optional[ast.AST]) -> None:
        self.bound.setdefault(name, []).append(value)

    def _collect(self, node: ast.AST) -> None:
        if isinstance(node, _DEFINITIONS):
            self._bind(node.name, node)
            for inner in ast.walk(node):
                if isinstance(inner, (ast.Nonlocal, ast.Global)):
                    for name in inner.names:
                        self._bind(name, None)
            for part in [*node.decorator_list, *getattr(node, "bases", ())]:
                self._collect(part)
            return
        if isinstance(node, ast.Lambda):
            return
        if isinstance(node, (ast.Global, ast.Nonlocal)):
            self.elsewhere |= set(node.names)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                whole = isinstance(node, ast.Import) and alias.asname is None
                self._bind(alias.asname or alias.name.split(".")[0], None if whole and
                           "." in alias.name else _Import(node, alias))  # fmt: skip
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                self._assign(target, node.value)
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                self._assign(node.target, node.value)
        elif isinstance(node, ast.NamedExpr):
            self._assign(node.target, node.value)
        elif isinstance(node, ast.ExceptHandler) or type(node).__name__ in ("MatchAs", "MatchStar"):
            caught: Optional[str] = getattr(node, "name", None)
            if caught:
                self._bind(caught, None)
        elif type(node).__name__ == "MatchMapping":
            if getattr(node, "rest", None):
                self._bind(getattr(node, "rest"), None)  # noqa: B009  # of Python 3.10
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            self._bind(node.id, None)  # for, with, del, augmented assignments, comprehensions
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            if _is_index(node.slice):
                self.taken_apart.add(node.value.id)
        elif isinstance(node, ast.Starred) and isinstance(node.value, ast.Name):
            self.taken_apart.add(node.value.id)
        targets: set[int] = set()
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)):
            found = node.targets if isinstance(node, ast.Assign) else [node.target]
            targets = {id(target) for target in found if isinstance(target, ast.Name)}
        for child in ast.iter_child_nodes(node):
            if id(child) not in targets:
                self._collect(child)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self._bind(target.id, value)
        elif isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, ast.Name):
            self.taken_apart.add(value.id)

    def lookup(self, name: str) -> Optional[Value]:
        """What a name stands for here."""
        if name in self.elsewhere or (name not in self.bound and name not in self.known):
            return self.parent.lookup(name) if self.parent is not None else None
        if name not in self.known:
            self.known[name] = None  # while it is looked for: it may depend on itself
            values = [self._value_of(each) for each in self.bound[name]]
            if all(value == values[0] for value in values):
                self.known[name] = values[0]
        return self.known[name]

    def _value_of(self, node: Optional[ast.AST]) -> Optional[Value]:
        if isinstance(node, _Import):
            return self.world.imported(self.module, node)
        if isinstance(node, ast.ClassDef):
            return Class(self.module, node) if self.parent is None else None
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return Function(self.module, node, scope=self) if not node.decorator_list else None
        return self.value(node) if isinstance(node, ast.expr) else None

    def value(self, node: ast.expr) -> Optional[Value]:
        """What an expression stands for."""
        if isinstance(node, ast.Name):
            return self.lookup(node.id)
        if isinstance(node, ast.Attribute):
            base = self.value(node.value)
            return self.world.member(base, node.attr) if base is not None else None
        if isinstance(node, ast.NamedExpr):
            return self.value(node.value)
        if isinstance(node, ast.IfExp):
            one, other = self.value(node.body), self.value(node.orelse)
            return one if one == other else None
        if isinstance(node, ast.Lambda):
            return Function(self.module, node, scope=self)
        if isinstance(node, ast.Call):
            return self._result(node)
        return None

    def _result(self, node: ast.Call) -> Optional[Value]:
        if isinstance(node.func, ast.Name) and self.is_builtin(node.func.id):
            if node.func.id == "super" and not node.args and self.owner is not None:
                return Super(*self.owner)
            got = got_attribute(node)
            if got is not None:
                base = self.value(got[0])
                return self.world.member(base, got[1]) if base is not None else None
        called = self.value(node.func)
        if isinstance(called, Class):
            return Instance(called)
        if isinstance(called, Pdk) and called.path in SPECS:
            return Result(called.path)
        return None

    def is_builtin(self, name: str) -> bool:
        """Whether no scope here binds a name."""
        scope: Optional[Scope] = self
        while scope is not None:
            if name in scope.bound:
                return False
            scope = scope.parent
        return True


class _Import(ast.AST):
    """A name that an import binds."""

    _fields = ()

    def __init__(self, node: Union[ast.Import, ast.ImportFrom], alias: ast.alias) -> None:
        super().__init__()
        self.node = node
        self.alias = alias


class World:
    """All modules of a plugin, and what is in them.

    Args:
        modules: its source.
    """

    def __init__(self, modules: Modules) -> None:
        self.modules = modules
        self._scopes: dict[str, Scope] = {}

    def scope(self, module: Module) -> Scope:
        """The names of a module."""
        if module.path not in self._scopes:
            self._scopes[module.path] = Scope(self, module, module.tree)
        return self._scopes[module.path]

    def imported(self, module: Module, what: _Import) -> Optional[Value]:
        """What an import gives a name."""
        node, name = what.node, what.alias.name
        if isinstance(node, ast.Import):
            return self._module(self.modules.absolute(module, name), name)
        if node.level:
            source = self.modules.relative(module, node.level, node.module)
            inner = f"{node.module}.{name}" if node.module else name
            below = self.modules.relative(module, node.level, inner)
        else:
            full = f"{node.module}.{name}"
            if full in STUBS:
                return Stub(STUBS[full])
            source = self.modules.absolute(module, node.module or "")
            below = self.modules.absolute(module, full)
        if source is not None:
            found = self.scope(source).lookup(name)
            if found is not None:
                return found
        return ModuleOf(below) if below is not None else None

    def _module(self, module: Optional[Module], name: str) -> Optional[Value]:
        if name in STUBS:
            return Stub(STUBS[name])
        return ModuleOf(module) if module is not None else None

    def member(self, base: Value, name: str) -> Optional[Value]:
        """What an attribute of something stands for."""
        if isinstance(base, Pdk):
            full = f"{base.path}.{name}"
            return Pdk(full) if full in SPECS or full in NAMESPACES or full in ITEMS else None
        if isinstance(base, ModuleOf):
            return self.scope(base.module).lookup(name)
        if isinstance(base, Instance):
            return self.method(base.of, name, base) or self._attribute(base.of, name)
        if isinstance(base, Class):
            return self.method(base, name, None)
        if isinstance(base, Super):
            for parent in self._parents(base.of):
                found = self.method(parent, name, base.object)
                if found is not None:
                    return found
        return None

    def method(
        self, of: Class, name: str, instance: Optional[Instance], depth: int = 0
    ) -> Optional[Function]:
        """A method of a class, or of those that it derives from."""
        found: Union[ast.FunctionDef, ast.AsyncFunctionDef, None] = None
        for node in of.node.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name:
                found = node
        if found is not None:
            kinds = {getattr(each, "id", "other") for each in found.decorator_list}
            if kinds - {"staticmethod", "classmethod", "override"}:
                return None
            bound: Union[Instance, Class, None] = instance
            if "staticmethod" in kinds:
                bound = None
            elif "classmethod" in kinds:
                bound = of
            return Function(of.module, found, bound, owner=of)
        if depth < 20:
            for parent in self._parents(of):
                inherited = self.method(parent, name, instance, depth + 1)
                if inherited is not None:
                    return inherited
        return None

    def _parents(self, of: Class) -> Iterator[Class]:
        scope = self.scope(of.module)
        for base in of.node.bases:
            value = scope.value(base)
            if isinstance(value, Class):
                yield value

    def _attribute(self, of: Class, name: str) -> Optional[Value]:
        """What an attribute of an object stands for: an object of a class, if it always is."""
        values: list[Optional[Value]] = []
        scope = self.scope(of.module)
        for method in of.node.body:
            if not isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            first = next(iter(parameters(method)), "")
            for node in ast.walk(method):
                if not isinstance(node, ast.Attribute) or isinstance(node.ctx, ast.Load):
                    continue
                if node.attr == name and getattr(node.value, "id", None) == first:
                    values.append(_assigned(method, node, scope))
        if values and all(value == values[0] for value in values):
            return values[0] if isinstance(values[0], Instance) else None
        return None

    def class_of(self, name: str) -> Optional[Class]:
        """The class of that name in the plugin's main module, wherever it comes from."""
        node = find_class(self.modules.main, name)
        if node is not None:
            return Class(self.modules.main, node)
        found = self.scope(self.modules.main).lookup(name)
        return found if isinstance(found, Class) else None


def _assigned(method: FunctionNode, target: ast.Attribute, scope: Scope) -> Optional[Value]:
    for node in ast.walk(method):
        if isinstance(node, ast.Assign) and target in node.targets:
            return scope.value(node.value)
        if isinstance(node, ast.AnnAssign) and node.target is target and node.value is not None:
            return scope.value(node.value)
    return None


def got_attribute(node: ast.Call) -> Optional[tuple[ast.expr, str]]:
    """The object and the name of a ``getattr(x, "name")``."""
    if getattr(node.func, "id", "") == "getattr" and len(node.args) == 2 and not node.keywords:
        name = node.args[1]
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            return node.args[0], name.value
    return None


def parameters(node: FunctionNode) -> list[str]:
    """The names of a function's parameters: those that may be positional come first."""
    args = node.args
    named = [*args.posonlyargs, *args.args]
    others = [*args.kwonlyargs, *(each for each in (args.vararg, args.kwarg) if each is not None)]
    return [each.arg for each in [*named, *others]]


def positional(node: FunctionNode) -> list[ast.arg]:
    """A function's positional parameters."""
    return [*node.args.posonlyargs, *node.args.args]


def _is_index(node: ast.AST) -> bool:
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return isinstance(node, ast.Slice) or (
        isinstance(node, ast.Constant) and isinstance(node.value, int)
    )


def literal(node: ast.expr, unknown: object) -> object:
    """The value of an expression that is written out, else ``unknown``."""
    try:
        return cast(object, ast.literal_eval(node))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return unknown
