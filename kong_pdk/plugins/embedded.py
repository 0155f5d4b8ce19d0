"""The plugin of a script that is its own server, and how to have it again.

Changed code is had by running the script once more, as a module of another name, up to its call of
``start_dedicated_server``, which only notes what it was called with then. For that the test
``if __name__ == "__main__":`` holds there.
"""

from __future__ import annotations

import ast
import logging
import os
import sys
import threading
from collections.abc import Mapping
from types import CodeType, ModuleType
from typing import Any, Optional

from ..exception import PluginError
from .definition import Plugin, Stamp
from .installed import files_below, places_of
from .loading import changes_since, load_space, plugin_of_class
from .names import Enough, Space, stamp

logger = logging.getLogger("kong_pdk.server")

#: In the thread that runs a script once more: true.
_again = threading.local()

#: What lies there is installed, and belongs to no script.
_LIBRARIES = ("site-packages", "dist-packages")


class Started(Enough):
    """The call of ``start_dedicated_server`` in a script that is run once more.

    Args:
        call: its arguments: name, class, version, priority, schema.
    """

    def __init__(self, *call: Any) -> None:
        super().__init__()
        self.call = call


def start(
    name: object, factory: object, version: object, priority: object, schema: object
) -> ScriptCode:
    """Note that a script wants to be a server; to be called first of all.

    Args:
        name, factory, version, priority, schema: of its plugin.

    Raises:
        Started: it was only run to have its code again.
    """
    call = (name, factory, version, priority, schema)
    if getattr(_again, "on", False):
        raise Started(*call)
    return ScriptCode(call)


class ScriptCode:
    """The code of a script's plugin.

    Args:
        call: what ``start_dedicated_server`` was called with.
        space: its modules, if it has been run once more.
        first: the script's own code.
    """

    def __init__(
        self,
        call: tuple[Any, ...],
        space: Optional[Space] = None,
        first: Optional[ScriptCode] = None,
    ) -> None:
        self._call, self._space, self._first = call, space, first or self
        self._stamps: dict[str, Stamp] = {}  # of what is imported by its own name
        self._script: str
        self._main: str  # the name of its module
        self._path: Optional[str]  # of that, if it is not to be looked for
        self._roots: dict[str, list[str]]  # what is imported by its own name, and is the plugin's
        if first is not None:
            self._script, self._roots = first._script, first._roots
            self._main, self._path = first._main, first._path
            return
        main: Any = sys.modules["__main__"]
        self._script = os.path.realpath(getattr(main, "__file__", None) or sys.argv[0])
        spec = getattr(main, "__spec__", None)
        tops = {getattr(call[1], "__module__", "").partition(".")[0]} - {"", "__main__"}
        self._path = self._script
        self._main = f"{os.path.basename(self._script).partition('.')[0]} (script)"
        if spec is not None and spec.name:  # python -m
            self._path, self._main = None, spec.name
            tops.add(spec.name.partition(".")[0])
        self._roots = {top: places_of(top) for top in tops}
        self._note_files()

    @property
    def origin(self) -> str:
        """The place, for people."""
        return self._script

    def _note_files(self) -> Mapping[str, Stamp]:
        if self._space is not None:
            return self._space.stamps
        files = {self._script}.union(*map(files_below, self._roots), self._files_beside())
        for path in files - set(self._stamps):
            self._stamps[path] = stamp(path)
        return self._stamps

    def _files_beside(self) -> set[str]:
        """The files of all modules that come from the script's folder."""
        found, folder = set(), os.path.dirname(self._script) + os.sep
        for module in list(sys.modules.values()):
            path = getattr(module, "__file__", None)
            path = os.path.realpath(path) if isinstance(path, str) else ""
            inner = path[len(folder) :].split(os.sep) if path.startswith(folder) else ()
            if inner and not set(inner) & set(_LIBRARIES) and inner[0] != "kong_pdk":
                found.add(path)
        return found

    def stamps(self) -> Mapping[str, Stamp]:
        """See :class:`kong_pdk.plugins.definition.Code`."""
        return dict(self._note_files())

    def folders(self) -> set[str]:
        """See :class:`kong_pdk.plugins.definition.Code`."""
        return {os.path.dirname(self._script), *map(os.path.dirname, self.stamps())}

    def changed(self) -> set[str]:
        """See :class:`kong_pdk.plugins.definition.Code`."""
        return changes_since(self._note_files())

    def is_gone(self) -> bool:
        """See :class:`kong_pdk.plugins.definition.Code`."""
        return not os.path.exists(self._script)

    def load(self) -> Plugin:
        """The plugin as the script has described it.

        Raises:
            PluginError: what is wrong with it.
        """
        plugin = plugin_of_class(*self._call)
        plugin.code = self
        return plugin

    def load_present(self) -> Plugin:
        """As :meth:`load`, with changed code if the files have changed since the script was run.

        Raises:
            PluginError: what is wrong with it.
        """
        if self.changed():
            try:
                return self.load_again()
            except PluginError as exc:
                logger.error("changed code is not taken over, the former serves: %s", exc)
        return self.load()

    def load_again(self) -> Plugin:
        """See :class:`kong_pdk.plugins.definition.Code`."""
        name = self._call[0]
        space = Space(
            name, [os.path.dirname(self._script)], self._main, self._path,
            roots=self._roots, fresh=True, rewrite=hold_guard,
        )  # fmt: skip

        def define(_: ModuleType) -> Plugin:
            if not isinstance(space.enough, Started):
                raise PluginError(f"{self._script}: it does not call start_dedicated_server")
            call = space.enough.call
            if call[0] != name:
                raise PluginError(
                    f"{self._script}: its name has become {call[0]!r}, by which Kong does not know "
                    f"it: its server must be started anew"
                )
            return ScriptCode(call, space, self._first).load()

        _again.on = True
        try:
            return load_space(space, define, self._script)
        finally:
            _again.on = False

    def forget(self) -> None:
        """See :class:`kong_pdk.plugins.definition.Code`."""
        if self._space is not None:
            self._space.forget()


class _Guard(ast.NodeTransformer):
    """Makes ``__name__ == "__main__"`` true."""

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        sides = [node.left, *node.comparators]
        named = any(isinstance(one, ast.Name) and one.id == "__name__" for one in sides)
        main = any(isinstance(one, ast.Constant) and one.value == "__main__" for one in sides)
        if named and main and len(sides) == 2 and isinstance(node.ops[0], ast.Eq):
            return ast.copy_location(ast.Constant(True), node)
        return self.generic_visit(node)


def hold_guard(source: bytes, path: str) -> CodeType:
    """The code of a script, in which it is the main program whatever its name.

    Raises:
        SyntaxError: it is no Python.
    """
    tree = _Guard().visit(ast.parse(source, path))
    code: CodeType = compile(tree, path, "exec", dont_inherit=True)
    return code
