"""What a test names as its plugin, and how this process and another one can have it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Optional

from ..exception import PluginError
from ..gateway.plugin import calls_starter
from ..plugins import Plugin, load, plugin_of_class
from ..plugins.loading import Spec, is_path

#: What a test's own class, or a script that starts its server itself, need not say in its module.
VERSION = "1.0.0"
PRIORITY = 0


@dataclass(frozen=True)
class Target:
    """A plugin that is to be tested.

    Attributes:
        plugin: what it is, with the class.
        spec: its path or the name under which it is installed; ``None`` for a class or a module,
            which another process has to import.
        complete: it says itself all that a server wants to know.
        schema: what the test has given for one that has no Schema.
    """

    plugin: Plugin
    spec: Optional[str]
    complete: bool
    schema: Optional[Sequence[Any]]


def resolve(given: Spec, schema: Optional[Sequence[Any]] = None) -> Target:
    """Return the plugin that a test names.

    Args:
        given: its class, its module, its file or folder, or the name of an installed one.
        schema: the fields of its configuration: a class's own, or for what has none.

    Raises:
        PluginError: it is not there, or no plugin that Kong could use.
        TypeError: this cannot name one.
    """
    if isinstance(given, (type, ModuleType)):
        name = _plain(given.__name__) if isinstance(given, type) else None
        name = None if name == "Plugin" else name
        if isinstance(given, type) and schema is not None:
            return Target(_with_schema(given, name, schema), None, False, schema)
        plugin = load(given, name, version=VERSION, priority=PRIORITY, schema=schema)
        return Target(plugin, None, False, schema)
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError(
            "the plugin must be a class, a module, a path or the name of an installed one, "
            f"got {given!r}"
        )
    spec = os.fspath(given)
    if is_path(given):
        if not os.path.exists(spec):
            raise PluginError(f"there is no plugin {spec}: neither a file nor a folder")
        spec = os.path.abspath(spec)
    if schema is None and not _starts_itself(spec):
        return Target(load(spec), spec, True, None)
    return Target(load_leniently(spec, schema), spec, False, schema)


def _with_schema(factory: type, name: Optional[str], schema: Sequence[Any]) -> Plugin:
    """A class of a module whose Schema is another one's: there may be several in a test's."""
    module = sys.modules.get(factory.__module__)
    return plugin_of_class(
        name or _plain(factory.__module__.rpartition(".")[2]),
        factory,
        getattr(module, "version", VERSION),
        getattr(module, "priority", PRIORITY),
        schema,
    )


def load_leniently(spec: str, schema: Optional[Sequence[Any]]) -> Plugin:
    """Load a plugin that does not say all that a server wants to know."""
    return load(spec, version=VERSION, priority=PRIORITY, schema=schema)


def _starts_itself(path: str) -> bool:
    """Whether a file states its version and so on in a call of ``start_dedicated_server``."""
    try:
        return calls_starter(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False  # it is no file, or loading it says what is wrong


def _plain(name: str) -> str:
    """A name that Kong takes for a plugin's."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", name).lstrip("-_") or "Plugin"
