"""Where plugins come from: files, folders that are packages, and what is installed.

A plugin's module is a file ``x.py``, or the ``__init__.py`` of a folder ``x``, or what an entry
point names. There is its class ``Plugin``, with ``version``, ``priority`` and ``Schema`` beside it,
or beside the class where that is imported from.
"""

from __future__ import annotations

import ast
import importlib.machinery
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, Callable, Optional, Union

from ..exception import PluginError
from .definition import Plugin, Stamp, define_plugin
from .importing import LoadFailed, import_module
from .names import Space, installed_in, may_be_plugin, stamp

logger = logging.getLogger("kong_pdk.server")

_SUFFIXES = tuple(importlib.machinery.all_suffixes())
_INITS = tuple(f"__init__{suffix}" for suffix in _SUFFIXES)

#: What names a plugin: a class, its module, a file or a folder, or the name of an installed one.
Spec = Union[type, ModuleType, str, "os.PathLike[str]"]


def load(
    spec: Spec,
    name: Optional[str] = None,
    *,
    version: Optional[str] = None,
    priority: Optional[int] = None,
    schema: Optional[Any] = None,
    fresh: bool = False,
) -> Plugin:
    """Load a plugin from wherever it is.

    Each call loads a file or folder anew, with modules of its own; ``plugin.code.forget()``
    releases them.

    Args:
        spec: its class, its module, its file or folder, or the name under which it is installed. A
            text is a path if it has a ``/``, ends like a Python file, or if there is such a file or
            package; else a name.
        name: of the plugin; else that of the file, the folder or the entry point.
        version, priority, schema: stand in for what the plugin does not say itself.
        fresh: compile a plugin's own files, whatever Python keeps of them.

    Raises:
        PluginError: there is no such thing, it cannot be imported, or is no valid plugin.
    """
    given = Given(version, priority, schema)
    if isinstance(spec, type):
        return _load_class(spec, name, given)
    if isinstance(spec, ModuleType):
        path = getattr(spec, "__file__", None)
        where = path or f"module {spec.__name__}"
        own = spec.__name__.rpartition(".")[2]
        return define_from(spec, name or own, where, given=given, path=path)
    if is_path(spec):
        return load_path(os.fspath(spec), name, given, fresh)
    from .installed import load_installed

    return load_installed(os.fspath(spec), name, given)


def is_path(spec: Union[str, os.PathLike[str]]) -> bool:
    """Whether a text names a file or folder, and not what is installed."""
    if not isinstance(spec, str):
        return True
    return os.sep in spec or spec.endswith(_SUFFIXES) or os.path.isfile(spec) or is_package(spec)


def is_package(path: str) -> bool:
    """Whether a folder is a package of Python's."""
    return any(os.path.isfile(os.path.join(path, init)) for init in _INITS)


class Given:
    """What is taken where a plugin does not say it itself."""

    def __init__(
        self,
        version: Optional[str] = None,
        priority: Optional[int] = None,
        schema: Optional[Any] = None,
    ) -> None:
        self.version = version
        self.priority = priority
        self.Schema = schema


def _load_class(factory: type, name: Optional[str], given: Given) -> Plugin:
    module = sys.modules.get(factory.__module__)
    own = factory.__module__.rpartition(".")[2].strip("_")
    if module is None:
        module = ModuleType(factory.__module__)
    return define_from(
        module, name or own, f"class {factory.__module__}.{factory.__qualname__}", factory=factory,
        given=given, path=getattr(module, "__file__", None),
    )  # fmt: skip


def define_from(
    module: ModuleType,
    name: str,
    where: str,
    *,
    factory: Optional[object] = None,
    given: Optional[Given] = None,
    path: Optional[str] = None,
) -> Plugin:
    """The plugin that a module defines.

    Args:
        module: it has all that the plugin says of itself, or the module of its class has.
        name: of the plugin.
        where: for errors.
        factory: its class, if that is not the module's ``Plugin``.
        given: what stands in for what is said nowhere.
        path: its file.

    Raises:
        PluginError: it is no valid plugin.
    """
    if factory is None:
        if not hasattr(module, "Plugin"):
            raise PluginError(f"{where}: it has no class Plugin")
        factory = module.Plugin
    home = sys.modules.get(getattr(factory, "__module__", ""))

    def said(field: str) -> Any:
        for place in (module, home, given or Given()):
            if hasattr(place, field):
                return getattr(place, field)
        return None

    return define_plugin(
        name, factory, said("version"), said("priority"), said("Schema"),
        where=where, path=path, module=module,
    )  # fmt: skip


class FileCode:
    """The code of a plugin in a file or folder.

    Args:
        name: of the plugin.
        path: its file or folder.
        given: what stands in for what is said nowhere.
        fresh: see :class:`kong_pdk.plugins.names.Space`.
    """

    def __init__(
        self, name: str, path: str, given: Optional[Given] = None, fresh: bool = False
    ) -> None:
        self.path = os.path.abspath(path)
        self._name, self._given = name, given
        real = os.path.realpath(path)  # it may be linked into a folder from where it lives
        self._main = real
        beside = [os.path.dirname(real), os.path.dirname(self.path)]
        self._space = Space(name, beside, name, real, fresh=fresh)
        self._folders = set(beside)

    @property
    def origin(self) -> str:
        """The place, for people."""
        return self._main

    def stamps(self) -> Mapping[str, Stamp]:
        """See :class:`kong_pdk.plugins.definition.Code`."""
        return dict(self._space.stamps)

    def folders(self) -> set[str]:
        """See :class:`kong_pdk.plugins.definition.Code`."""
        inner = {self._main} if os.path.isdir(self._main) else set()
        return self._folders | inner | set(map(os.path.dirname, self.stamps()))

    def changed(self) -> set[str]:
        """See :class:`kong_pdk.plugins.definition.Code`."""
        if os.path.realpath(self.path) != self._main:
            return {self.path}  # linked from elsewhere
        return changes_since(self._space.stamps)

    def is_gone(self) -> bool:
        """See :class:`kong_pdk.plugins.definition.Code`."""
        return not (os.path.isfile(self.path) or is_package(self.path))

    def load(self) -> Plugin:
        """Load it, once.

        Raises:
            PluginError: it cannot be imported, or is no valid plugin.
        """
        main = self._main
        if not os.path.isdir(main) and not main.endswith(_SUFFIXES):
            self.forget()
            raise PluginError(f"{main}: Python cannot import such a file")
        plugin = load_space(
            self._space,
            lambda module: define_from(
                module, self._name, main, given=self._given, path=getattr(module, "__file__", None)
            ),
            main,
        )
        plugin.code = self
        return plugin

    def load_again(self) -> Plugin:
        """See :class:`kong_pdk.plugins.definition.Code`."""
        return FileCode(self._name, self.path, self._given, fresh=True).load()

    def forget(self) -> None:
        """See :class:`kong_pdk.plugins.definition.Code`."""
        self._space.forget()


def changes_since(stamps: Mapping[str, Stamp]) -> set[str]:
    """Those of some files that are not as they were."""
    return {path for path, before in dict(stamps).items() if stamp(path) != before}


def load_space(space: Space, define: Callable[[ModuleType], Plugin], where: str) -> Plugin:
    """Import a plugin's module and make a plugin of it; leaves nothing behind if that fails.

    Args:
        space: its modules.
        define: makes the plugin.
        where: for errors.

    Raises:
        LoadFailed: it cannot be imported, or is no valid plugin.
    """
    try:
        return define(import_module(space.load, where, space.stamps, space.find_sharers))
    except BaseException as exc:
        space.forget()
        if isinstance(exc, PluginError):
            failed = exc if isinstance(exc, LoadFailed) else LoadFailed(str(exc))
            failed.stamps = dict(space.stamps)
            if failed is not exc:
                raise failed from exc
        raise


def load_path(
    path: str, name: Optional[str] = None, given: Optional[Given] = None, fresh: bool = False
) -> Plugin:
    """Load the plugin in a file, or in a folder with ``__init__.py``.

    Args:
        path: of the file or folder.
        name: of the plugin; that of the file or folder if None.
        given: what stands in for what is said nowhere.
        fresh: see :class:`kong_pdk.plugins.names.Space`.

    Raises:
        PluginError: it cannot be imported, or is no valid plugin.
    """
    if os.path.isdir(path) and not is_package(path):
        raise PluginError(f"{path}: a folder is a plugin if it has an __init__.py")
    own = os.path.basename(os.path.abspath(path)).split(".", 1)[0]
    return FileCode(name or own, path, given, fresh).load()


def load_file(path: str, name: str) -> Plugin:
    """Load the plugin in one file; see :func:`load_path`."""
    return load_path(path, name)


def load_directory(directory: str, fresh: bool = False) -> dict[str, Plugin]:
    """Load every plugin of a folder, the files and the packages.

    What is no plugin is skipped with a line in the log.

    Args:
        directory: the folder.
        fresh: see :class:`kong_pdk.plugins.names.Space`.

    Raises:
        PluginError: the folder cannot be read, or two plugins have the same name.
    """
    plugins: dict[str, Plugin] = {}
    skipped: list[tuple[str, PluginError]] = []
    for name, path in find_candidates(directory):
        try:
            plugin = _load_candidate(path, name, fresh)
        except PluginError as exc:
            skipped.append((path, exc))
            continue
        add(plugins, plugin)
        logger.debug("loaded plugin %s %s from %s", name, plugin.version, path)
    _tell_skipped(skipped, plugins.values())
    return plugins


def load_places(
    directories: Iterable[str], specs: Iterable[str], installed: bool, fresh: bool = False
) -> dict[str, Plugin]:
    """Load the plugins of several places.

    Args:
        directories: folders of plugins.
        specs: single plugins; see :func:`load`.
        installed: all that are installed, too.
        fresh: see :class:`kong_pdk.plugins.names.Space`.

    Raises:
        PluginError: there is none in one of the places, or two have the same name; or what is wrong
            with one of ``specs``.
    """
    plugins: dict[str, Plugin] = {}
    for directory in directories:
        found = load_directory(directory, fresh)
        if not found:
            raise PluginError(f"there is no plugin in {directory}")
        for plugin in found.values():
            add(plugins, plugin)
    for spec in specs:
        add(plugins, load(spec, fresh=fresh))
    if installed:
        from .installed import load_all_installed

        every = load_all_installed()
        if not every:
            raise PluginError("no plugin is installed in this Python")
        for name, plugin in every.items():
            if name not in plugins or plugins[name].origin != plugin.origin:  # named by itself too
                add(plugins, plugin)
    return plugins


def find_candidates(directory: str) -> list[tuple[str, str]]:
    """What may be a plugin of a folder: its name and its path.

    Raises:
        PluginError: the folder cannot be read.
    """
    try:
        entries = sorted(os.listdir(directory))
    except OSError as exc:
        raise PluginError(f"plugins directory {directory}: {exc.strerror}") from exc
    found = []
    libraries = installed_in(directory)
    for entry in entries:
        path = os.path.join(directory, entry)
        if entry.startswith((".", "__")):
            continue
        if entry.split(".", 1)[0] in libraries and not entry.endswith(".py"):
            continue
        if os.path.isdir(path):
            if is_package(path) or _has_modules(path) or entry.endswith(_SUFFIXES):
                found.append((entry, path))
        elif entry.endswith(_SUFFIXES):
            found.append((entry.split(".", 1)[0], path))
    return found


def _has_modules(path: str) -> bool:
    """Whether there are Python's files in a folder, which may have been meant to be a plugin."""
    try:
        return any(entry.endswith(_SUFFIXES) for entry in os.listdir(path))
    except OSError:
        return False


def _load_candidate(path: str, name: str, fresh: bool) -> Plugin:
    if not may_be_plugin(path):  # need not be run to know that
        raise PluginError(f"{os.path.realpath(path)}: it has no class Plugin")
    return load_path(path, name, fresh=fresh)


def add(plugins: dict[str, Plugin], plugin: Plugin) -> None:
    """Add a plugin to others.

    Raises:
        PluginError: there is one of that name.
    """
    other = plugins.get(plugin.name)
    if other is not None:
        plugin_at, other_at = plugin.origin, other.origin
        if plugin.code is not None:
            plugin.code.forget()
        raise PluginError(
            f"there are two plugins {plugin.name!r}: {other_at} and {plugin_at}: "
            f"rename or remove one of them"
        )
    plugins[plugin.name] = plugin


def _tell_skipped(skipped: Iterable[tuple[str, PluginError]], plugins: Iterable[Plugin]) -> None:
    """Log what was skipped; what the plugins import is where it belongs, and not worth a line."""
    paths = [path for path, _ in skipped]
    if not paths:
        return
    used = set().union(*(plugin.files for plugin in plugins))
    imported = set().union(*map(_imports_of, {*used, *paths}))
    libraries = set().union(*map(installed_in, set(map(os.path.dirname, paths))))
    for path, exc in skipped:
        helper = not may_be_plugin(path) or os.path.isdir(path)
        name = os.path.basename(path).split(".", 1)[0]
        if helper and (os.path.realpath(path) in used or name in imported or name in libraries):
            logger.debug("skipped what plugins import: %s", exc)
            continue
        logger.warning("skipped what is no plugin: %s", exc)
        logger.debug("cause", exc_info=exc)


def _imports_of(path: str) -> set[str]:
    """The first names of all that a source imports, in functions too."""
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return set()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(alias.name for alias in node.names if not node.module)
            found.add((node.module or "").partition(".")[0])
    return found


def plugin_of_class(
    name: object, factory: object, version: object, priority: object, schema: object
) -> Plugin:
    """The plugin that an embedded server was started with.

    Args:
        schema: None stands for the ``Schema`` of the module that defines the class.

    Raises:
        PluginError: what is wrong with it.
    """
    module = sys.modules.get(getattr(factory, "__module__", ""), None)
    if schema is None:
        schema = getattr(module, "Schema", None)
    path = getattr(module, "__file__", None)
    return define_plugin(
        name, factory, version, priority, schema, where=f"plugin {name!r}", path=path
    )
