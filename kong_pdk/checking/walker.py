"""Goes through one function of a plugin, and says what is wrong with its use of the PDK."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from ..exception import CallError
from ..pdk import checks
from ..pdk._table import UNREACHABLE
from ..pdk.functions import FunctionSpec
from ..pdk.proxy import ITEMS, NAMESPACES, SPECS, explain
from .findings import ERROR, WARNING
from .misuse import Misuse
from .modules import FunctionNode
from .values import (
    Class,
    Function,
    Instance,
    Pdk,
    Result,
    Scope,
    Stub,
    got_attribute,
    literal,
)  # fmt: skip

if TYPE_CHECKING:
    from .calls import Analysis

#: Functions that end the handler.
TERMINAL = ("kong.response.exit", "kong.response.error")
#: What a handler that is ended raises, and what else catches it.
EXITS = ("BaseException", "HandlerExit", "ResponseSent")

_ABILITIES = frozenset(dir(object))


class Site:
    """Where a finding is to be shown: in the plugin, where it calls something of ours."""

    def __init__(self, path: str, node: ast.AST, through: str = "") -> None:
        self.path = path
        self.line: int = getattr(node, "lineno", 0)
        self.column: int = getattr(node, "col_offset", -1) + 1
        self.through = through


class Walker(Misuse, ast.NodeVisitor):
    """Goes through the body of one function.

    Args:
        analysis: of the plugin.
        scope: the function's names.
        phase: in which it is called.
        site: where findings are shown, None for where they are.
        depth: of calls.
        name: of the function.
    """

    def __init__(
        self, analysis: Analysis, scope: Scope, phase: str, site: Optional[Site], depth: int,
        name: str,
    ) -> None:  # fmt: skip
        self.analysis = analysis
        self.scope = scope
        self.phase = phase
        self.site = site
        self.depth = depth
        self.name = name
        #: Whether what has been gone through may end the handler.
        self.ends = False
        self._caught: list[set[str]] = []
        self.log_depth = 0

    def site_of(self, node: ast.AST) -> Site:
        """Where a finding at a node is shown."""
        if self.site is not None:
            return self.site
        # Of a chain of attributes the end of it: that is the function's name.
        site = Site(self.scope.module.path, node)
        if self.name and self.name != self.phase:
            site.through = f" ({self.name} is reached from {self.phase})"
        return site

    def error(self, code: str, text: str, node: ast.AST) -> None:
        """Report an error at a node."""
        self.analysis.report(ERROR, code, text, self._plain_site(node))

    def warn(self, code: str, text: str, node: ast.AST) -> None:
        """Report a warning at a node."""
        self.analysis.report(WARNING, code, text, self._plain_site(node))

    def _plain_site(self, node: ast.AST) -> Site:
        site = self.site_of(node)
        if self.site is None:
            site.through = ""
        return site

    def _is_caught(self, *names: str) -> bool:
        """Whether the code around catches an exception on purpose."""
        return any(names_of & set(names) for names_of in self._caught)

    # --- names and calls of the PDK ---------------------------------------------------------------

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        base = self.scope.value(node.value)
        if isinstance(base, Pdk):
            self._check_member(base, node.attr, node)
        elif isinstance(base, Stub) and isinstance(node.ctx, ast.Load):
            self._check_stub(base, node)
        elif isinstance(base, Result):
            self.attribute_of_result(base, node)

    def _check_member(self, base: Pdk, name: str, node: ast.expr) -> None:
        full = f"{base.path}.{name}"
        if isinstance(getattr(node, "ctx", None), (ast.Store, ast.Del)):
            hint = f"; write {base.path}[{name!r}]" if base.path in ITEMS else ""
            self.error("unknown-function", f"{full} cannot be assigned to{hint}", node)
        elif full in SPECS or full in NAMESPACES or full in ITEMS or name in _ABILITIES:
            self._check_release(full, node)
        elif base.path in SPECS and base.path not in NAMESPACES:
            self.error(
                "unknown-function",
                f"{base.path} is a function and has no {name!r}: is () missing after it?", node,
            )  # fmt: skip
        elif self._is_caught("AttributeError", "UnreachableError", "PDKException"):
            return
        elif full in UNREACHABLE:
            self.error(
                "unreachable-function",
                f"{full} cannot be used from a plugin server: {UNREACHABLE[full]}", node,
            )  # fmt: skip
        else:
            hint = f"; values are {base.path}[{name!r}]" if base.path in ITEMS else ""
            self.error("unknown-function", explain(full) + hint, node)

    def _check_release(self, full: str, node: ast.expr) -> None:
        wanted, spec = self.analysis.kong_version, SPECS.get(full)
        if wanted is None or spec is None or not spec.since[:1].isdigit():
            return
        major, _, minor = spec.since.partition(".")
        if (int(major), int(minor)) > wanted:
            self.error(
                "newer-function",
                f"{full} came with Kong {spec.since}, and this is for {wanted[0]}.{wanted[1]}",
                node,
            )

    def _check_stub(self, stub: Stub, node: ast.Attribute) -> None:
        from ..pdk import kong as names

        if node.attr in names.__all__ or node.attr in _ABILITIES or node.attr.startswith("__"):
            return
        self.error(
            "unknown-function",
            f"{ast.unparse(node.value)} is the module of the PDK's types here, not what the "
            f"handler got: hand the handler's argument on to this function", node,
        )  # fmt: skip

    def visit_Call(self, node: ast.Call) -> None:
        called = self.scope.value(node.func)
        is_log = isinstance(called, Pdk) and called.path.startswith("kong.log")
        self.log_depth += is_log
        self.generic_visit(node)
        self.log_depth -= is_log
        got = got_attribute(node)
        if got is not None and self.scope.is_builtin("getattr"):
            base = self.scope.value(got[0])
            if isinstance(base, Pdk):
                self._check_member(base, got[1], node)
        if isinstance(called, Pdk):
            self._check_call(called.path, node)
        elif isinstance(called, Function):
            self._follow(called, node)
        elif isinstance(called, Class):
            made = self.analysis.world.method(called, "__init__", Instance(called))
            if made is not None:
                self._follow(made, node)
        else:
            self.call_with_result(node)

    def _follow(self, called: Function, node: ast.Call) -> None:
        site = self.site
        if site is None and not called.module.own:
            site = Site(self.scope.module.path, node)
            site.through = f" (made by {ast.unparse(node.func)})"
        given = self.analysis.arguments(called, node, self.scope)
        if self.analysis.visit(called, given, self.phase, site, self.depth + 1):
            self.ends = True

    def _check_call(self, path: str, node: ast.Call) -> None:
        spec = SPECS.get(path)
        if spec is None:
            self.error("unknown-function", f"{path} is no function: {_members(path)}", node)
            return
        self._check_phase(spec, node)
        if path in TERMINAL:
            self.ends = True
        if any(isinstance(each, ast.Starred) for each in node.args):
            return
        if any(each.arg is None for each in node.keywords):
            return
        args = tuple([self._argument(each) for each in node.args])
        named = {each.arg: self._argument(each.value) for each in node.keywords if each.arg}
        if self._is_caught("CallError", "ArgumentError", "ArgumentValueError", "PDKException"):
            return
        try:
            checks.examine(spec, args, named)
        except CallError as exc:
            self.error("wrong-arguments", str(exc), node)
            return
        if not spec.variadic:
            for each in [*node.args, *(each.value for each in node.keywords)]:
                self.result_as_argument(spec, each)

    def _argument(self, node: ast.expr) -> object:
        return literal(node, checks.UNKNOWN)

    def _check_phase(self, spec: FunctionSpec, node: ast.AST) -> None:
        if self.phase not in spec.phases and not self._is_caught("PhaseError", "CallError"):
            self.analysis.report_phase(spec.name, self.phase, self.site_of(node))

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.generic_visit(node)
        base = self.scope.value(node.value)
        if isinstance(base, Result):
            self.item_of_result(base, node)
        elif isinstance(base, Pdk):
            self._check_item(base, node, not isinstance(node.ctx, ast.Load))

    def _check_item(self, base: Pdk, node: ast.AST, changes: bool) -> None:
        if base.path not in ITEMS:
            self.error(
                "unknown-function", f"{base.path} has no values: {_members(base.path)}", node
            )
            return
        _, read, write = ITEMS[base.path]
        if changes and write is None:
            self.error("unknown-function", f"{base.path} cannot be changed, only read", node)
        else:
            self._check_phase(SPECS[write if changes and write else read], node)

    def visit_Compare(self, node: ast.Compare) -> None:
        self.generic_visit(node)
        self.comparison(node)
        for operator, right in zip(node.ops, node.comparators):
            base = self.scope.value(right)
            if isinstance(operator, (ast.In, ast.NotIn)) and isinstance(base, Pdk):
                self._check_item(base, right, False)

    # --- what else goes wrong ---------------------------------------------------------------------

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        value = self.scope.value(node.value)
        for target in node.targets:
            self.unpacking(target, value)
            if not isinstance(target, ast.Attribute) or not isinstance(value, Pdk):
                continue
            if self.scope.owner and self.scope.value(target.value) == self.scope.owner[1]:
                self.warn(
                    "stored-kong",
                    f"{value.path} is kept in {ast.unparse(target)}: requests share the object, "
                    f"so another one's handler may use it; hand it on as an argument",
                    node,
                )

    def visit_Try(self, node: ast.Try) -> None:
        before, self.ends = self.ends, False
        self._caught.append({name for each in node.handlers for name in _caught_names(each)})
        for child in node.body:
            self.visit(child)
        self._caught.pop()
        if self.ends:
            self._check_handlers(node)
        self.ends = self.ends or before
        for part in [*node.handlers, *node.orelse, *node.finalbody]:
            self.visit(part)

    def visit_TryStar(self, node: Any) -> None:
        """From Python 3.11 on."""
        self.visit_Try(node)

    def _check_handlers(self, node: ast.Try) -> None:
        for handler in node.handlers:
            names = _caught_names(handler)
            if handler.type is not None and not names & set(EXITS):
                continue
            if not _raises(handler.body):
                shown = "except:" if handler.type is None else f"except {ast.unparse(handler.type)}"
                self.warn(
                    "swallowed-exit",
                    f"{shown} also catches what kong.response.exit ends the handler with, which "
                    f"goes on then although Kong has answered: catch Exception, or raise it again",
                    handler,
                )
            break
        for child in node.finalbody:
            if isinstance(child, ast.Return):
                self.warn(
                    "swallowed-exit",
                    "return in finally swallows what kong.response.exit ends the handler with",
                    child,
                )

    def visit_With(self, node: ast.With) -> None:
        before, self.ends = self.ends, False
        self.generic_visit(node)
        for item in node.items:
            call = item.context_expr
            if not (self.ends and isinstance(call, ast.Call)):
                continue
            suppressed = call.args if _last_name(call.func) == "suppress" else []
            if any(_last_name(each) in EXITS for each in suppressed):
                self.warn(
                    "swallowed-exit",
                    f"{ast.unparse(call)} also swallows what kong.response.exit ends the "
                    f"handler with: name Exception",
                    call,
                )
        self.ends = self.ends or before

    def visit_FunctionDef(self, node: FunctionNode) -> None:
        """A function within: it most likely runs as long as the handler does."""
        inner = Function(self.scope.module, node, scope=self.scope)
        self.analysis.visit(inner, {}, self.phase, self.site, self.depth + 1)

    visit_AsyncFunctionDef = visit_FunctionDef
    visit_Lambda = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """What a class within a function does is not followed."""


def _members(path: str) -> str:
    prefix = path + "."
    names = sorted(
        name[len(prefix) :]
        for name in {*SPECS, *NAMESPACES, *ITEMS}
        if name.startswith(prefix) and "." not in name[len(prefix) :]
    )
    return f"it has {', '.join(names)}"


def _caught_names(handler: ast.ExceptHandler) -> set[str]:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {_last_name(kind) for kind in kinds if kind is not None}


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _raises(body: Sequence[ast.stmt]) -> bool:
    """Whether there is a ``raise`` in some statements, but for those of functions within."""
    for statement in body:
        nodes: list[ast.AST] = [statement]
        while nodes:
            node = nodes.pop()
            if isinstance(node, ast.Raise):
                return True
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                nodes += ast.iter_child_nodes(node)
    return False
