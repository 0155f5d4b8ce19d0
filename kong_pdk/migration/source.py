"""What a plugin's source relies on that is so in the published package, and is not here.

It is read, never run. What ``kong-pdk check`` finds in PDK calls is not looked for again.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Optional, Union

from ..checking.findings import Finding, in_order
from ..checking.modules import Module, Modules, find_class, find_line, top_level
from ..pdk.functions import PHASES

#: Levels of findings: it must be changed; see whether it matters; it is only said.
CHANGE, LOOK, NOTE = "change", "look", "note"

#: What is there for plugins; all else of this package may change with any version.
PUBLIC = (
    "kong_pdk", "kong_pdk.cli", "kong_pdk.exception", "kong_pdk.pdk", "kong_pdk.pdk.kong",
    "kong_pdk.pdk.python_style", "kong_pdk.pdk.types", "kong_pdk.pdk.helpers", "kong_pdk.schema",
    "kong_pdk.testing",
)  # fmt: skip
#: What to use in place of modules of the published package that are not here.
_INSTEAD = {
    "kong_pdk.logger": "logging, or kong.log in a handler",
    "kong_pdk.const": "kong_pdk.__version__ for the version",
    "kong_pdk.listener": "kong_pdk.cli.start_dedicated_server to serve, kong_pdk.testing to test",
    "kong_pdk.module": "kong_pdk.testing for tests",
    "kong_pdk.server": "kong_pdk.cli.start_dedicated_server to serve, kong_pdk.testing to test",
    "kong_pdk.kong": "kong_pdk.pdk.kong",
    "kong_pdk.pdk": "the kong that a handler gets, or kong_pdk.testing for tests",
}
_STARTER = "start_dedicated_server"
_ENDS = (["response", "exit"], ["response", "error"])
_CHANGERS = (
    "append", "add", "update", "extend", "insert", "setdefault", "pop", "popitem", "clear",
    "remove", "discard", "appendleft", "popleft",
)  # fmt: skip
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]


@dataclass(frozen=True)
class Style:
    """How the plugin's server is run, as far as it matters here.

    Attributes:
        lua_style: PDK calls return data and error.
        multiprocessing: handlers run in worker processes.
        gevent: they run in greenlets.
    """

    lua_style: bool = True
    multiprocessing: bool = False
    gevent: bool = False


@dataclass
class Source:
    """The source of one plugin.

    Attributes:
        findings: what it relies on.
        state: modules beside the plugin that keep what handlers change, with a line of each.
        on_error: whether the plugin says what becomes of requests when it fails.
    """

    findings: list[Finding] = field(default_factory=list)
    state: dict[str, int] = field(default_factory=dict)
    on_error: bool = False


def examine(path: str, name: str, style: Style) -> Source:
    """Look at a plugin's source.

    Args:
        path: the file with its class.
        name: of the class.
        style: how its server is run.

    Raises:
        OSError: it cannot be read.
        SyntaxError, ValueError: it is no Python.
    """
    modules = Modules(path)
    found = Source(on_error=find_line(modules.main, "on_error") > 0)
    for module in _own_modules(modules):
        reader = _Reader(module, style)
        found.findings += reader.findings()
        line = reader.state_line()
        if line and module is not modules.main:
            found.state[module.path] = line
    plugin = find_class(modules.main, name)
    if plugin is not None:
        found.findings += _raised(modules.main, plugin, found.on_error)
    found.findings += _started(modules.main)
    found.findings = in_order(found.findings)
    return found


def _own_modules(modules: Modules) -> list[Module]:
    """The plugin's module, and those of its own that it imports."""
    found: dict[str, Module] = {}
    wanted: list[Optional[Module]] = [modules.main]
    while wanted:
        module = wanted.pop()
        if module is None or module.path in found or not module.own:
            continue
        found[module.path] = module
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                wanted += [modules.absolute(module, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f".{alias.name}" for alias in node.names]
                for each in ["", *names]:
                    full = f"{node.module or ''}{each}".strip(".")
                    if node.level:
                        wanted.append(modules.relative(module, node.level, full))
                    elif full:
                        wanted.append(modules.absolute(module, full))
    return list(found.values())


class _Reader:
    """Reads one module."""

    def __init__(self, module: Module, style: Style) -> None:
        self.module = module
        self.style = style
        self._globals = set(_mutable_globals(module))

    def findings(self) -> Iterator[Finding]:
        for node in ast.walk(self.module.tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                yield from self._imported(node)
            elif isinstance(node, _FUNCTIONS):
                yield from self._errors_used(node)
            elif isinstance(node, ast.Call) and self.style.gevent and _patches(node):
                yield self._found(
                    LOOK, "monkey-patch",
                    "-g has patched the standard library before the plugin is imported: take this "
                    "call out",
                    node,
                )  # fmt: skip
            for name in ("body", "orelse", "finalbody"):
                block = getattr(node, name, None)
                if isinstance(block, list):
                    yield from self._after_exit(block)
        yield from self._kept()

    def _found(self, level: str, code: str, text: str, node: ast.AST) -> Finding:
        line, column = getattr(node, "lineno", 0), getattr(node, "col_offset", -1) + 1
        return Finding(level, code, text, self.module.path, line, column)

    def _imported(self, node: Union[ast.Import, ast.ImportFrom]) -> Iterator[Finding]:
        if isinstance(node, ast.Import):
            wanted = [(alias.name, "") for alias in node.names]
        elif node.level or node.module is None:
            return
        else:
            wanted = [(node.module, alias.name) for alias in node.names]
        for module, name in wanted:
            if module.split(".")[0] != "kong_pdk":
                continue
            full = f"{module}.{name}" if name else module
            if not _is_here(module, name):
                instead = next(
                    (_INSTEAD[each] for each in (full, module) if each in _INSTEAD), ""
                )  # fmt: skip
                hint = f"; use {instead}" if instead else ""
                yield self._found(CHANGE, "private-import", f"there is no {full} here{hint}", node)
            elif module not in PUBLIC and full not in PUBLIC:
                yield self._found(
                    LOOK, "private-import",
                    f"{full} is not for plugins, and may be another one than before: use what is "
                    f"in {', '.join(PUBLIC[1:4])}",
                    node,
                )  # fmt: skip

    def _after_exit(self, block: Sequence[object]) -> Iterator[Finding]:
        """Statements that stand behind a kong.response.exit and are not run any more."""
        for statement, after in zip(block, block[1:]):
            if not isinstance(statement, (ast.Expr, ast.Assign)):
                continue
            call = statement.value
            if not isinstance(call, ast.Call) or _chain(call.func)[-2:] not in _ENDS:
                continue
            if isinstance(after, (ast.Return, ast.Pass, ast.Raise, ast.Break, ast.Continue)):
                continue
            line = getattr(after, "lineno", 0)
            yield self._found(
                LOOK, "after-exit",
                f"{'.'.join(_chain(call.func))} ends the handler here: line {line} and what "
                f"follows is not run; what is to be done in any case belongs before it, or "
                f"into finally",
                call,
            )  # fmt: skip

    def _errors_used(self, function: _Function) -> Iterator[Finding]:
        """``data, err = kong...()``, where err is looked at."""
        if not self.style.lua_style:
            return
        loaded = {
            node.id
            for node in ast.walk(function)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        }
        for node in _inside(function):
            if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
                continue
            called = _chain(node.value.func)
            target = node.targets[0]
            if called[:1] != ["kong"] or not isinstance(target, ast.Tuple):
                continue
            error = target.elts[-1]
            if len(target.elts) == 2 and isinstance(error, ast.Name) and error.id in loaded:
                yield self._found(
                    LOOK, "error-used",
                    f"{error.id} has what Kong says, which is nothing from 3.0 on; a call that "
                    f"Kong would not take raises CallError here, also in Lua style: catch that, "
                    f"if it is to be caught",
                    node,
                )  # fmt: skip

    # --- what is kept between requests ------------------------------------------------------------

    def _kept(self) -> Iterator[Finding]:
        """What handlers change of modules and instances, without a lock around it."""
        for node, name in self._changes():
            if not self.style.multiprocessing:
                text = (
                    f"{name} is changed without a lock that can be seen, and handlers of one "
                    f"plugin run side by side: put threading.Lock around it"
                )
            elif name.startswith("self."):
                text = (
                    f"{name} is changed: with -m each worker has its own and keeps it between "
                    f"requests, where such a change was lost after each event"
                )
            else:
                text = f"{name} is changed: with -m each worker has its own, as before"
                yield self._found(NOTE, "state", text, node)
                continue
            yield self._found(LOOK, "state", text, node)

    def _changes(self) -> Iterator[tuple[ast.AST, str]]:
        seen: set[str] = set()
        for function in ast.walk(self.module.tree):
            if not isinstance(function, _FUNCTIONS) or function.name == "__init__":
                continue
            shared = {
                name
                for node in ast.walk(function)
                if isinstance(node, ast.Global)
                for name in node.names
            }
            own = {arg.arg for arg in function.args.args} | _bound(function)
            first = function.args.args[0].arg if function.args.args else ""
            is_method = first == "self"
            for node in _inside(function, locked=self.style.multiprocessing):
                for name in _changed(node):
                    root = name.split(".")[0]
                    is_global = name in shared or (root in self._globals and root not in own)
                    if name not in seen and (is_global or (is_method and name.startswith("self."))):
                        seen.add(name)
                        yield node, name

    def state_line(self) -> int:
        """A line in which the module's own state is changed, 0 if there is none."""
        for node, name in self._changes():
            if not name.startswith("self."):
                return getattr(node, "lineno", 0)
        return 0


def _inside(function: _Function, locked: bool = True) -> Iterator[ast.AST]:
    """The nodes of a function, not of those within; without ``locked`` none under a lock."""
    nodes: list[ast.AST] = list(function.body)
    while nodes:
        node = nodes.pop(0)
        yield node
        if isinstance(node, (*_FUNCTIONS, ast.Lambda, ast.ClassDef)):
            continue
        if not locked and isinstance(node, ast.With):
            held = " ".join(ast.unparse(item.context_expr) for item in node.items).lower()
            if any(word in held for word in ("lock", "mutex", "semaphore", "condition")):
                continue
        nodes[:0] = ast.iter_child_nodes(node)


def _changed(node: ast.AST) -> Iterator[str]:
    """The names that a node changes, or whose contents."""
    targets: Sequence[ast.AST] = ()
    if isinstance(node, (ast.Assign, ast.Delete)):
        targets = node.targets
    elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
        targets = [node.target]
    elif isinstance(node, ast.Call):
        *chain, method = _chain(node.func) or [""]
        if method in _CHANGERS and chain and chain[0] != "kong":
            yield ".".join(chain)
    for target in targets:
        inner = target
        while isinstance(inner, ast.Subscript):
            inner = inner.value
        chain = _chain(inner)
        if chain:
            yield ".".join(chain)


def _mutable_globals(module: Module) -> Iterator[str]:
    """Names of a module that stand for what can be changed."""
    kinds = (ast.Dict, ast.List, ast.Set, ast.Call, ast.DictComp, ast.ListComp, ast.SetComp)
    for node in top_level(module.tree.body):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, kinds):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def _bound(function: _Function) -> set[str]:
    """Names that are a function's own."""
    return {
        node.id
        for node in _inside(function)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def _patches(node: ast.Call) -> bool:
    """Whether a call is ``gevent.monkey.patch_all()``, or as it is after ``from gevent``."""
    return _chain(node.func) in (["monkey", "patch_all"], ["gevent", "monkey", "patch_all"])


def _chain(node: ast.AST) -> list[str]:
    """``kong.response.exit`` as its names, [] for what is no such chain."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return [node.id, *names] if isinstance(node, ast.Name) else []


def _is_here(module: str, name: str) -> bool:
    """Whether this package has a module, and a name in it."""
    try:
        if importlib.util.find_spec(module) is None:
            return False
        if name in ("", "*"):
            return True
        found = importlib.import_module(module)
    except ModuleNotFoundError as exc:
        return not (exc.name or "").startswith("kong_pdk")  # an extra's is missing
    except ImportError:
        return True
    if hasattr(found, name):
        return True
    try:
        return importlib.util.find_spec(f"{module}.{name}") is not None
    except ModuleNotFoundError:
        return False


def _raised(module: Module, plugin: ast.ClassDef, on_error: bool) -> Iterator[Finding]:
    """A ``raise`` in a handler of a plugin that does not say what becomes of the request."""
    if on_error:
        return
    for handler in plugin.body:
        if not isinstance(handler, _FUNCTIONS) or handler.name not in PHASES:
            continue
        if handler.name == "log":  # the request is over
            continue
        guarded = {
            id(inner)
            for node in _inside(handler)
            if isinstance(node, ast.Try) and node.handlers
            for statement in node.body
            for inner in ast.walk(statement)
        }
        for node in _inside(handler):
            if isinstance(node, ast.Raise) and id(node) not in guarded:
                yield Finding(
                    LOOK, "fails-closed",
                    f"what {handler.name} raises refuses the request with status 500, which passed "
                    f'before: set on_error = "open" in the module if it may',
                    module.path, node.lineno, node.col_offset + 1,
                )  # fmt: skip


def _started(module: Module) -> Iterator[Finding]:
    """How a script starts its server."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call) or _chain(node.func)[-1:] != [_STARTER]:
            continue
        place = module.path, node.lineno, node.col_offset + 1
        names = [keyword.arg for keyword in node.keywords]
        given = len(node.args) + sum(name in ("schema", "_schema", None) for name in names)
        starred = any(isinstance(each, ast.Starred) for each in node.args)
        has_schema = find_line(module, "Schema") > 0
        if has_schema and not starred and len(node.args) < 5 and given == len(node.args):
            text = (
                f"{_STARTER} gets no schema: the plugin had no configuration, and has the Schema "
                f"of {os.path.basename(module.path)} here"
            )
            yield Finding(LOOK, "schema-taken", text, *place)
