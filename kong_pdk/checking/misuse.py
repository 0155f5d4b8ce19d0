"""Results of PDK calls that are used as if they were the data: in Lua style they are tuples.

``if not kong.request.get_header("x-key")`` never holds, because ``(None, None)`` is true: such a
check lets everybody in. Only what no author wants of a tuple is reported.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Optional

from ..pdk.functions import FunctionSpec
from .findings import Finding, in_order
from .values import Result, Scope, Value

if TYPE_CHECKING:
    from .calls import Analysis

#: The code of these findings.
CODE = "tuple-as-value"

_TUPLE = frozenset(dir(tuple))
_OF_DATA = ("int", "float", "bool", "len", "set", "sorted", "sum", "min", "max")


class Misuse:
    """What a walker says of results; see ``calls.py`` for the other half."""

    analysis: Analysis
    scope: Scope
    log_depth: int

    def error(self, code: str, text: str, node: ast.AST) -> None:
        """Report an error at a node."""
        raise NotImplementedError

    def warn(self, code: str, text: str, node: ast.AST) -> None:
        """Report a warning at a node."""
        raise NotImplementedError

    def _result(self, node: ast.expr) -> Optional[Result]:
        """The result that an expression is, if that is a tuple and nowhere taken for one."""
        if not self.analysis.lua_style:
            return None
        value = self.scope.value(node)
        if isinstance(node, ast.Name) and node.id in self.scope.taken_apart:
            return None
        return value if isinstance(value, Result) else None

    def _misused(self, result: Result, how: str, node: ast.AST) -> None:
        self.warn(
            CODE,
            f"{result.path} returns data and error in Lua style, and {how}: write "
            f"data, err = {result.path}(...)",
            node,
        )

    def attribute_of_result(self, result: Result, node: ast.Attribute) -> None:
        """``call().lower()``."""
        if node.attr not in _TUPLE and self._result(node.value):
            self._misused(result, f"this pair has no {node.attr!r}", node)

    def item_of_result(self, result: Result, node: ast.Subscript) -> None:
        """``call()["name"]``."""
        index = node.slice
        name = index.value if isinstance(index, ast.Constant) else None
        if isinstance(name, str) and self._result(node.value):
            self._misused(result, f"this pair has no item {name!r}", node)

    def call_with_result(self, node: ast.Call) -> None:
        """``int(call())``."""
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in _OF_DATA and self.scope.is_builtin(name) and len(node.args) == 1:
            result = self._result(node.args[0])
            if result is not None:
                self._misused(result, f"{name}() gets the pair here", node)

    def result_as_argument(self, spec: FunctionSpec, node: ast.expr) -> None:
        """``kong.response.set_header("x", call())``, which raises."""
        result = self._result(node)
        if result is not None and spec.params and not all(p.kind == "any" for p in spec.params):
            self._misused(result, f"{spec.name} gets the pair here, which it refuses", node)

    def _truth(self, node: ast.expr) -> None:
        result = self._result(node)
        if result is not None:
            self._misused(result, "this pair is always true", node)

    def visit_If(self, node: ast.If) -> None:
        """``if call()``."""
        self._truth(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        """``while call()``."""
        self._truth(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """``a if call() else b``."""
        self._truth(node.test)
        self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> None:
        """``assert call()``."""
        self._truth(node.test)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """``call() or ""``; the last one may be any value."""
        for value in node.values[:-1]:
            self._truth(value)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """``not call()``."""
        if isinstance(node.op, ast.Not):
            self._truth(node.operand)
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        """``for name in call()``."""
        result = self._result(node.iter)
        if result is not None:
            self._misused(result, "this goes through the pair", node.iter)
        self.generic_visit(node)

    def visit_FormattedValue(self, node: ast.FormattedValue) -> None:
        """``f"hello {call()}"``; in a log line somebody may want to see all of it."""
        result = self._result(node.value)
        if result is not None and not self.log_depth and node.conversion == -1:
            self._misused(result, "the pair is written here", node.value)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """``"x" + call()``."""
        for one, other in ((node.left, node.right), (node.right, node.left)):
            result = self._result(one)
            if result is not None and isinstance(other, (ast.Constant, ast.JoinedStr)):
                self._misused(result, "the pair stands here", one)
        self.generic_visit(node)

    def comparison(self, node: ast.Compare) -> None:
        """``call() == "x"``."""
        sides = [node.left, *node.comparators]
        for operator, left, right in zip(node.ops, sides, sides[1:]):
            for one, other in ((left, right), (right, left)):
                result = self._result(one)
                if result is None:
                    continue
                is_in = isinstance(operator, (ast.In, ast.NotIn))
                if isinstance(other, ast.Constant) or (is_in and one is left):
                    self._misused(result, "the pair is compared here", node)

    def unpacking(self, target: ast.expr, value: Optional[Value]) -> None:
        """``a, b, c = call()`` in Lua style, ``data, err = call()`` in the other one."""
        if not isinstance(target, (ast.Tuple, ast.List)) or not isinstance(value, Result):
            return
        if any(isinstance(each, ast.Starred) for each in target.elts):
            return
        count = len(target.elts)
        self.analysis.unpacks = self.analysis.unpacks or count == 2
        if self.analysis.lua_style and count != 2:
            self._misused(value, f"not {count} values", target)
        elif not self.analysis.lua_style and self.analysis.style_is_sure and count == 2:
            self.warn(
                CODE,
                f"{value.path} returns the data alone in Python style, and no error with it: "
                f"write data = {value.path}(...)",
                target,
            )

    if TYPE_CHECKING:  # ast.NodeVisitor has it

        def generic_visit(self, node: ast.AST) -> None: ...


def one_for_all(findings: Sequence[Finding]) -> list[Finding]:
    """One finding for those of a plugin whose author may have meant the other style.

    Nothing in it says which style it is for, and everywhere it takes results for data.
    """
    first, *others = in_order(findings)
    places = ""
    if others:
        places = f", and so in {len(others)} other place{'s' * (len(others) > 1)}"
    text = (
        f"{first.text}{places}. If the plugin is for a server with --no-lua-style, annotate "
        f"handlers with kong_pdk.pdk.python_style, or check it with --python-style"
    )
    return [replace(first, text=text)]
