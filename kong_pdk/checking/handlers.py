"""Methods that look like handlers and are none: misspelt phases, and those for Lua only."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator

from ..pdk.functions import ALIKE, PHASES, close_matches
from .findings import WARNING, Finding
from .modules import Module, find_class

#: Phases in which plugins in Lua are called, and plugin servers are not.
LUA_ONLY = (
    "init_worker", "configure", "header_filter", "body_filter", "balancer", "ws_handshake",
    "ws_client_frame", "ws_upstream_frame", "ws_close",
)  # fmt: skip
#: What a plugin server calls besides the handlers.
_OTHERS = ("close",)


def find_unreached(path: str, name: str) -> list[Finding]:
    """Find the methods of a plugin's class that seem to be meant as handlers and are none.

    Args:
        path: the file with the class.
        name: the class.

    Raises:
        OSError, SyntaxError, ValueError: the file cannot be read, or is no Python.
    """
    module = Module(path, os.path.dirname(path))
    plugin = find_class(module, name)
    if plugin is None:
        return []
    used = {node.attr for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)}
    return list(_unreached(plugin, used, path))


def _unreached(plugin: ast.ClassDef, used: set[str], path: str) -> Iterator[Finding]:
    for node in plugin.body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        method = node.name
        if method.startswith("_") or method in used or method in (*PHASES, *_OTHERS):
            continue
        if method in LUA_ONLY:
            text = (
                f"Kong does not call plugin servers in {method}, so this is never run; their "
                f"phases are {', '.join(PHASES)}"
            )
        else:
            near = close_matches(method.lower(), PHASES, cutoff=ALIKE)
            if not near:
                continue
            text = f"{method} is no phase, so Kong never calls it; did you mean {near[0]}?"
        yield Finding(WARNING, "never-called", text, path, node.lineno, node.col_offset + 1)
