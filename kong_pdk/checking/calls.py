"""The PDK calls of a plugin that can be seen in its source, and what is wrong with them.

From each handler its ``kong`` is followed through the plugin's own methods and functions, so that
each call is looked at once for every phase that it can be reached from. What is not certain is
passed over: a finding here is a defect, hardly ever a mistake of this code.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Optional

from ..pdk.functions import PHASES
from ..pdk.proxy import SPECS
from .findings import ERROR, Finding, in_order
from .misuse import CODE, one_for_all
from .modules import Modules
from .values import Function, Instance, Pdk, Scope, Stub, Value, World, positional
from .walker import Site, Walker

_DEEPEST = 40


class Analysis:
    """Looks at one plugin.

    Args:
        path: the file that defines its class.
        name: of the class.
        phases: that it has handlers for.
        lua_style: PDK calls return data and error; None: what its annotations say, Lua style where
            they say nothing.
        kong_version: the release that it is for; None: the newest.

    Raises:
        OSError: the file cannot be read.
        SyntaxError, ValueError: it is no Python.
    """

    def __init__(
        self,
        path: str,
        name: str = "Plugin",
        phases: Sequence[str] = PHASES,
        lua_style: Optional[bool] = None,
        kong_version: Optional[tuple[int, int]] = None,
    ) -> None:
        self.modules = Modules(path)
        self.world = World(self.modules)
        self._name = name
        self._handlers = phases
        self.kong_version = kong_version
        self._findings: list[Finding] = []
        #: By place and function: phases in which a call is made and Kong does not take it.
        self._wrong: dict[tuple[str, int, int, str], list[str]] = {}
        self._through: dict[tuple[str, int, int, str], str] = {}
        self._ends: dict[object, bool] = {}
        annotated = self._annotated_style()
        self.lua_style = annotated != "python" if lua_style is None else lua_style
        #: Whether a result is taken apart into data and error anywhere.
        self.unpacks = False
        #: Whether the style is known, not only what most plugins have.
        self.style_is_sure = lua_style is not None or annotated is not None

    def _annotated_style(self) -> Optional[str]:
        scope = self.world.scope(self.modules.main)
        styles = {value.style for value in map(scope.lookup, scope.bound) if type(value) is Stub}
        return styles.pop() if len(styles) == 1 else None

    def run(self) -> list[Finding]:
        """Look at everything that the handlers reach."""
        plugin = self.world.class_of(self._name)
        if plugin is None:
            return []  # made at run time, say by a function
        instance = Instance(plugin)
        for phase in self._handlers:
            handler = self.world.member(instance, phase)
            if isinstance(handler, Function):
                given = self._arguments(handler, [Pdk("kong")], {})
                self.visit(handler, given, phase, None, 0)
        for (path, line, column, function), phases in self._wrong.items():
            allowed = ", ".join(phase for phase in PHASES if phase in SPECS[function].phases)
            found = " and ".join(phase for phase in PHASES if phase in phases)
            through = self._through[path, line, column, function]
            text = (
                f"{function} cannot be called in the {found} phase{'s' * (len(phases) > 1)}, only "
                f"in: {allowed or 'none in which Kong calls plugin servers'}{through}"
            )
            self._findings.append(Finding(ERROR, "wrong-phase", text, path, line, column))
        findings = in_order(self._findings)
        if not self.style_is_sure and not self.unpacks:
            pairs = [one for one in findings if one.code == CODE]
            if pairs:
                others = [one for one in findings if one.code != CODE]
                findings = in_order([*others, *one_for_all(pairs)])
        return findings

    def visit(
        self, what: Function, given: dict[str, Value], phase: str, site: Optional[Site], depth: int
    ) -> bool:
        """Look at a function as it is called in a phase; say whether it may end the handler."""
        key = (what.node, frozenset(given.items()), phase, site)
        if key in self._ends or depth > _DEEPEST:
            return self._ends.get(key, False)
        self._ends[key] = False  # while it is looked at: it may call itself
        owner = None
        if what.owner is not None and isinstance(what.bound, Instance):
            owner = (what.owner, what.bound)
        parent = what.scope or self.world.scope(what.module)
        scope = Scope(self.world, what.module, what.node, parent, given, owner)
        walker = Walker(self, scope, phase, site, depth, getattr(what.node, "name", ""))
        body: list[ast.AST] = (
            [what.node.body] if isinstance(what.node, ast.Lambda) else list(what.node.body)
        )
        for node in body:
            walker.visit(node)
        self._ends[key] = walker.ends
        return walker.ends

    def arguments(self, what: Function, node: ast.Call, scope: Scope) -> dict[str, Value]:
        """What the parameters of a function stand for in a call."""
        values = [
            None if isinstance(each, ast.Starred) else scope.value(each) for each in node.args
        ]
        for index, each in enumerate(node.args):
            if isinstance(each, ast.Starred):  # what follows it may be anywhere
                values = values[:index]
                break
        named = {each.arg: scope.value(each.value) for each in node.keywords if each.arg}
        return self._arguments(what, values, named)

    @staticmethod
    def _arguments(
        what: Function, values: Sequence[Optional[Value]], named: dict[str, Optional[Value]]
    ) -> dict[str, Value]:
        all_values = list(values) if what.bound is None else [what.bound, *values]
        given = {each.arg: value for each, value in zip(positional(what.node), all_values)}
        given.update(named)
        return {name: value for name, value in given.items() if value is not None}

    # --- findings ---------------------------------------------------------------------------------

    def report(self, level: str, code: str, text: str, site: Site) -> None:
        """Keep a finding."""
        self._findings.append(
            Finding(level, code, text + site.through, site.path, site.line, site.column)
        )

    def report_phase(self, function: str, phase: str, site: Site) -> None:
        """Keep that a function is called in a phase that is wrong for it."""
        key = (site.path, site.line, site.column, function)
        phases = self._wrong.setdefault(key, [])
        if phase not in phases:
            phases.append(phase)
        self._through[key] = site.through
