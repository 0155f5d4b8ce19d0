"""Where plugins come from: files, and folders of files."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import logging
import os
import sys
from types import ModuleType

from ..exception import PluginError
from .definition import Plugin, define_plugin

logger = logging.getLogger("kong_pdk.server")

_SUFFIXES = tuple(importlib.machinery.all_suffixes())


def load_file(path: str, name: str) -> Plugin:
    """Load the plugin in one file. It can import the modules beside it.

    Raises:
        PluginError: it cannot be imported, or is no valid plugin.
    """
    path = os.path.realpath(path)  # a plugin may be linked into the folder from where it lives
    folder = os.path.dirname(path)
    if folder not in sys.path:
        sys.path.append(folder)  # behind the libraries, which a plugin's file must not shadow
    module = _import_file(path, name)
    if not hasattr(module, "Plugin"):
        raise PluginError(f"{path}: it has no class Plugin")
    return define_plugin(
        name,
        module.Plugin,
        getattr(module, "version", None),
        getattr(module, "priority", None),
        getattr(module, "Schema", ()),
        where=path,
        path=path,
    )


def _import_file(path: str, name: str) -> ModuleType:
    # A name of its own, so that a plugin jwt.py does not stand in for the library jwt.
    module_name = f"kong_pdk.plugin.{name}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path}: Python cannot import such a file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)  # pyright: ignore[reportAttributeAccessIssue]  # of 3.9
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # sys.exit() in a script that happens to lie there
        del sys.modules[module_name]
        raise PluginError(f"{path}: cannot be imported: {type(exc).__name__}: {exc}") from exc
    return module


def load_directory(directory: str) -> dict[str, Plugin]:
    """Load every plugin of a folder; files that are none are skipped with a line in the log.

    Raises:
        PluginError: the folder cannot be read, or two files define plugins of the same name.
    """
    try:
        entries = sorted(os.listdir(directory))
    except OSError as exc:
        raise PluginError(f"plugins directory {directory}: {exc.strerror}") from exc
    plugins: dict[str, Plugin] = {}
    for entry in entries:
        suffix = next((s for s in _SUFFIXES if entry.endswith(s)), None)
        if suffix is None or entry.startswith((".", "__")):
            continue
        name = entry.split(".", 1)[0]
        path = os.path.join(directory, entry)
        try:
            plugin = load_file(path, name)
        except PluginError as exc:
            logger.warning("skipped a file that is no plugin: %s", exc)
            logger.debug("cause", exc_info=exc)
            continue
        if name in plugins:
            raise PluginError(f"{path}: another file defines a plugin {name!r} already")
        plugins[name] = plugin
        logger.debug("loaded plugin %s %s from %s", name, plugin.version, path)
    return plugins
