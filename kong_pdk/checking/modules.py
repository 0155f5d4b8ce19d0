"""The source of a plugin, read without running it: its module, and those of its own beside it."""

from __future__ import annotations

import ast
import os
from typing import Optional, Union

#: Definitions of functions.
FunctionNode = Union[ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda]

#: Of this package only the helpers are followed: they make PDK calls with the plugin's ``kong``.
HELPERS = "kong_pdk.pdk.helpers"


class Module:
    """One module of the plugin.

    Args:
        path: its file.
        package: the folder that its relative imports start from.
        own: whether it is the plugin's, so that findings in it are of use to the author.

    Raises:
        OSError: it cannot be read.
        SyntaxError, ValueError: it is no Python.
    """

    def __init__(self, path: str, package: str, own: bool = True) -> None:
        self.path = path
        self.package = package
        self.own = own
        with open(path, "rb") as file:  # as bytes: the file itself says which encoding it has
            self.tree = ast.parse(file.read(), path)

    def __repr__(self) -> str:
        return f"<module {self.path}>"


class Modules:
    """Modules by their files, each read once; what cannot be read is not there.

    Args:
        path: the file of the plugin's class.
    """

    def __init__(self, path: str) -> None:
        path = os.path.realpath(path)
        self._modules: dict[str, Optional[Module]] = {}
        main = Module(path, os.path.dirname(path))
        self._modules[path] = main
        #: The module with the plugin's class.
        self.main = main

    def relative(self, module: Module, level: int, name: Optional[str]) -> Optional[Module]:
        """What ``from ..name import x`` imports from, as seen by a module."""
        folder = module.package
        for _ in range(level - 1):
            folder = os.path.dirname(folder)
        return self._find(folder, name or "", module.own)

    def absolute(self, module: Module, name: str) -> Optional[Module]:
        """The module that a dotted name stands for, if it is the plugin's own or the helpers."""
        if name == HELPERS:
            from ..pdk import helpers

            path = os.path.realpath(helpers.__file__)
            return self._read(path, os.path.dirname(path), own=False)
        found = self._find(module.package, name, module.own)
        if found is not None:
            return found
        # A module of a package that names its package in full.
        folder, top = module.package, name.split(".")[0]
        while os.path.isfile(os.path.join(folder, "__init__.py")):
            if os.path.basename(folder) == top:
                return self._find(os.path.dirname(folder), name, module.own)
            folder = os.path.dirname(folder)
        return None

    def _find(self, folder: str, name: str, own: bool) -> Optional[Module]:
        base = os.path.join(folder, *name.split(".")) if name else folder
        for path, package in (
            (os.path.join(base, "__init__.py"), base),
            (base + ".py", os.path.dirname(base)),
        ):
            if os.path.isfile(path):
                return self._read(os.path.realpath(path), package, own)
        return None

    def _read(self, path: str, package: str, own: bool) -> Optional[Module]:
        if path not in self._modules:
            try:
                self._modules[path] = Module(path, package, own)
            except (OSError, SyntaxError, ValueError):
                self._modules[path] = None
        return self._modules[path]


def find_class(module: Module, name: str) -> Optional[ast.ClassDef]:
    """The class of that name at a module's top level, or in an ``if`` or ``try`` there."""
    found = None
    for node in top_level(module.tree.body):
        if isinstance(node, ast.ClassDef) and node.name == name:
            found = node
    return found


def find_line(module: Module, name: str) -> int:
    """The line that defines a name at a module's top level, 0 if none does."""
    line = 0
    for node in top_level(module.tree.body):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        else:
            continue
        if name in names:
            line = node.lineno
    return line


def top_level(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements, and those within ``if``, ``try`` and the like."""
    found: list[ast.stmt] = []
    for node in body:
        found.append(node)
        for part in ("body", "orelse", "finalbody"):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found += top_level(getattr(node, part, []))
        for handler in getattr(node, "handlers", []):
            found += top_level(handler.body)
    return found
