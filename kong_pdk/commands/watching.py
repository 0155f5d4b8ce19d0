"""Changes of the plugin that is being tried, heard of by ``kong-pdk try --reload``."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from typing import Callable

from ..plugins.watching import Watcher, check_watchfiles

__all__ = ["changes", "check_watchfiles", "folders_of", "root_of"]

#: A file's time and size; another one means that it has changed.
Stamp = tuple[int, int]


def root_of(plugin: str) -> str:
    """Return the file or folder of a plugin; "" if it is not to be found.

    Args:
        plugin: its file, its package's folder, or the name under which it is installed.
    """
    if os.path.exists(plugin):
        return plugin
    import importlib.util

    from ..plugins.installed import find_entries

    for entry in find_entries():
        if entry.name == plugin:
            # Only the topmost module can be found without running any of them.
            with suppress(ImportError, ValueError):
                spec = importlib.util.find_spec(entry.module.partition(".")[0])
                if spec is not None and spec.submodule_search_locations:
                    return next(iter(spec.submodule_search_locations))
                return spec.origin or "" if spec is not None else ""
    return ""


def folders_of(path: str) -> set[str]:
    """Return the folders that a plugin's code is in.

    Args:
        path: a package's folder, whose inner folders all count, or a file. Beside a file lie the
            modules that it imports, and packages: folders with an ``__init__.py``.
    """
    path = os.path.realpath(path)
    is_package = os.path.isdir(path)
    top = path if is_package else os.path.dirname(path)
    found = set()
    for folder, inner, files in os.walk(top):
        if folder != top and not is_package and "__init__.py" not in files:
            inner.clear()
            continue
        found.add(folder)
        inner[:] = [name for name in inner if not name.startswith((".", "__"))]
    return found


async def changes(path: str, others: Collection[str] = ()) -> AsyncIterator[list[str]]:
    """Yield the files of a plugin that have been changed, added or removed, some at a time.

    Only Python's source files count, so that a plugin may write beside its code.

    Args:
        path: the plugin's file, or its package's folder.
        others: further files to watch.
    """
    loop = asyncio.get_running_loop()
    files = {os.path.realpath(other) for other in others}
    something = asyncio.Event()

    def folders() -> set[str]:
        return folders_of(path) | {os.path.dirname(file) for file in files}

    def notify(_: set[str]) -> None:
        with suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(something.set)

    def start(run: Callable[[], None]) -> None:
        threading.Thread(target=run, daemon=True).start()

    known = _stamps(folders(), files)
    watcher = Watcher(folders, notify, time.sleep)
    watcher.start(start)
    try:
        while True:
            await something.wait()
            something.clear()
            present = _stamps(folders(), files)
            changed = [name for name in {*known, *present} if known.get(name) != present.get(name)]
            known = present
            if changed:
                yield sorted(changed)
    finally:
        watcher.stop()


def _stamps(folders: Collection[str], files: Collection[str]) -> dict[str, Stamp]:
    """Return the stamps of the files that count."""
    found = {}
    for folder in folders:
        with suppress(OSError):
            names = [name for name in os.listdir(folder) if name.endswith(".py")]
            for path in (os.path.join(folder, name) for name in names):
                found[path] = _stamp(path)
    found.update((path, _stamp(path)) for path in files)
    return found


def _stamp(path: str) -> Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0)  # it went away meanwhile
    return (status.st_mtime_ns, status.st_size)
