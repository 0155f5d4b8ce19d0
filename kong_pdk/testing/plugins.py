"""What a test names as its plugin, and how this process and another one can have it."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Optional, Union

from ..exception import PluginError
from ..gateway.plugin import calls_starter
from ..plugins import Plugin, define_plugin, load_file

#: A plugin as a test names it: its class, its module, its file or folder, or the name of one that
#: is installed.
PluginLike = Union[type, ModuleType, str, "os.PathLike[str]"]

#: Where installed plugins are found.
GROUP = "kong_pdk.plugins"

_VERSION = "1.0.0"  # of a class in a module that states none: a test module, mostly


@dataclass(frozen=True)
class Target:
    """A plugin that is to be tested.

    Attributes:
        plugin: what it is, with the class.
        by_name: what to give :func:`resolve` in another process; ``None`` for a class or a module,
            which it has to import.
    """

    plugin: Plugin
    by_name: Optional[str] = None


def resolve(given: PluginLike, schema: Optional[Sequence[Any]] = None) -> Target:
    """Return the plugin that a test names.

    Args:
        given: its class, its module, its file or folder, or the name of an installed one.
        schema: the fields of its configuration, in place of those that its module states.

    Raises:
        PluginError: it is not there, or no plugin that Kong could use.
        TypeError: this cannot name one.
    """
    if isinstance(given, type):
        return Target(_of_class(given, schema))
    if isinstance(given, ModuleType):
        return Target(_of_module(given, given.__name__.rpartition(".")[2], schema))
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError(
            "the plugin must be a class, a module, a path or the name of an installed one, "
            f"got {given!r}"
        )
    path = Path(given)
    if path.exists():
        return Target(_of_path(path.absolute(), schema), str(path.absolute()))
    if isinstance(given, str) and not given.endswith(".py") and os.sep not in given:
        return Target(_of_class_or_module(given, _installed(given), schema), given)
    raise PluginError(f"there is no plugin {os.fspath(given)}: neither a file nor a folder")


def _of_class(factory: type, schema: Optional[Sequence[Any]]) -> Plugin:
    module = sys.modules.get(factory.__module__)
    stem = factory.__module__.rpartition(".")[2]
    name = factory.__name__ if factory.__name__ != "Plugin" else stem
    return _define(_plain(name), factory, module, schema, lenient=True)


def _of_module(
    module: ModuleType, name: str, schema: Optional[Sequence[Any]], lenient: bool = True
) -> Plugin:
    where = getattr(module, "__file__", None) or module.__name__
    factory = getattr(module, "Plugin", None)
    if factory is None:
        raise PluginError(f"{where}: it has no class Plugin")
    return _define(name, factory, module, schema, lenient)


def _define(
    name: str,
    factory: object,
    module: Optional[ModuleType],
    schema: Optional[Sequence[Any]],
    lenient: bool,
) -> Plugin:
    version = getattr(module, "version", None)
    priority = getattr(module, "priority", None)
    path = getattr(module, "__file__", None)
    return define_plugin(
        name,
        factory,
        _VERSION if version is None and lenient else version,
        0 if priority is None and lenient else priority,
        getattr(module, "Schema", ()) if schema is None else schema,
        where=f"plugin {name!r}" if path is None else f"{path}: plugin {name!r}",
        path=path,
    )


def _of_path(path: Path, schema: Optional[Sequence[Any]]) -> Plugin:
    if path.is_dir():
        return _of_module(_import_folder(path), path.name, schema, lenient=False)
    if schema is None and not _starts_itself(path):
        return load_file(str(path), path.stem)
    spec = importlib.util.spec_from_file_location(f"kong_pdk.plugin.{path.stem}", path)
    return _of_module(_import(spec, path), path.stem, schema)


def _starts_itself(path: Path) -> bool:
    """Whether a file states its version and so on in a call of ``start_dedicated_server``."""
    try:
        return calls_starter(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False  # loading it says what is wrong


def _import_folder(path: Path) -> ModuleType:
    file = path / "__init__.py"
    if not file.is_file():
        raise PluginError(f"{path}: a folder is a plugin if it has an __init__.py")
    spec = importlib.util.spec_from_file_location(
        f"kong_pdk.plugin.{path.name}", file, submodule_search_locations=[str(path)]
    )
    return _import(spec, file)


def _import(spec: Any, path: Path) -> ModuleType:
    if spec is None or spec.loader is None:
        raise PluginError(f"{path}: Python cannot import such a file")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # its neighbours, behind the libraries
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[spec.name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise PluginError(f"{path}: cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _installed(name: str) -> Any:
    from importlib import metadata

    found = metadata.entry_points()
    if hasattr(found, "select"):
        entries = list(found.select(group=GROUP))
    else:  # Python 3.9
        entries = list(found.get(GROUP, ()))
    for entry in entries:
        if entry.name == name:
            return entry.load()
    known = ", ".join(sorted({entry.name for entry in entries})) or "none"
    raise PluginError(
        f"there is no plugin {name!r}: neither a file or folder, nor installed (entry points of "
        f"{GROUP}: {known})"
    )


def _of_class_or_module(name: str, loaded: Any, schema: Optional[Sequence[Any]]) -> Plugin:
    if inspect.ismodule(loaded):
        return _of_module(loaded, name, schema, lenient=False)
    module = sys.modules.get(getattr(loaded, "__module__", ""))
    return _define(name, loaded, module, schema, lenient=False)


def _plain(name: str) -> str:
    """A name that Kong takes for a plugin's."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", name).lstrip("-_") or "plugin"
