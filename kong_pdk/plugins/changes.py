"""What has changed in plugins that are loaded, and what of it Kong does not know."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ..exception import PluginError
from .definition import Plugin, Stamp
from .loading import changes_since, find_candidates, is_package
from .names import may_be_plugin


def differences(old: Plugin, new: Plugin) -> list[str]:
    """What Kong has been told of a plugin, and is not so any more, in words."""
    found = []
    for field in ("version", "priority"):
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            found.append(f"{field} (from {before} to {after})")
    if set(old.phases) != set(new.phases):
        found.append(f"phases ({_compare(old.phases, new.phases)})")
    if old.schema != new.schema:
        found.append(f"Schema ({_compare_fields(old.schema, new.schema)})")
    if old.entity_checks != new.entity_checks:
        found.append("the entity checks of the Schema")
    if old.on_error != new.on_error:
        found.append(
            f"on_error (from {old.on_error or 'none'} to {new.on_error or 'none'}; instances that "
            f"there are keep the former one)"
        )
    return found


def _compare(before: Iterable[str], after: Iterable[str]) -> str:
    before, after = list(before), list(after)
    added = [one for one in after if one not in before]
    gone = [one for one in before if one not in after]
    parts = []
    if added:
        parts.append(f"new: {', '.join(added)}")
    if gone:
        parts.append(f"gone: {', '.join(gone)}")
    return "; ".join(parts)


def _compare_fields(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str:
    was = {name: field for entry in before for name, field in entry.items()}
    now = {name: field for entry in after for name, field in entry.items()}
    parts = [_compare(was, now)]
    other = [name for name in was if name in now and was[name] != now[name]]
    if other:
        parts.append(f"changed: {', '.join(other)}")
    return "; ".join(filter(None, parts)) or "in another order"


class Changes:
    """Finds out which plugins have changed files.

    Args:
        plugins: those that are served, by name; the present ones at any time.
        directories: folders of plugins that are served.
    """

    def __init__(self, plugins: Mapping[str, Plugin], directories: Iterable[str]) -> None:
        self._plugins = plugins
        self._directories = tuple(directories)
        # The files of an attempt that has failed, and the text of its error.
        self._failed: dict[str, Mapping[str, Stamp]] = {}
        self._told: dict[str, str] = {}
        self._gone: set[str] = set()
        self._known = set(self._names())

    def folders(self) -> set[str]:
        """The folders in which something of interest may change."""
        found = set(map(os.path.realpath, self._directories))
        for plugin in list(self._plugins.values()):
            if plugin.code is not None:
                found |= plugin.code.folders()
        for stamps in list(self._failed.values()):
            found.update(map(os.path.dirname, stamps))
        return found

    def find(self, paths: set[str]) -> list[Plugin]:
        """The plugins that are to be loaded again.

        Args:
            paths: what is said to have changed.
        """
        return [one for one in list(self._plugins.values()) if self._is_changed(one, paths)]

    def _is_changed(self, plugin: Plugin, paths: set[str]) -> bool:
        code = plugin.code
        if code is None or code.is_gone() or not code.changed():
            return False
        failed = self._failed.get(plugin.name)
        if not failed or changes_since(failed):
            return True
        # What has failed may lack a file that is there now.
        folders = code.folders().union(map(os.path.dirname, failed))
        return any(
            path.endswith(".py") and os.path.dirname(path) in folders and path not in failed
            for path in paths
        )

    def note_failure(self, plugin: Plugin, error: Exception) -> bool:
        """Note that a plugin cannot be loaded, or taken over; returns whether that is news.

        Args:
            plugin: as it goes on being served.
            error: why; its ``stamps``, if it has any, are those of the files that were tried.
        """
        self._failed[plugin.name] = getattr(error, "stamps", {})
        text, before = str(error), self._told.get(plugin.name)
        self._told[plugin.name] = text
        return text != before

    def note_success(self, plugin: Plugin) -> None:
        """Note that a plugin has been taken over."""
        self._failed.pop(plugin.name, None)
        self._told.pop(plugin.name, None)

    # --- plugins that come and go -----------------------------------------------------------------

    def take_new(self) -> list[str]:
        """Paths that may be plugins and were not there before."""
        names = self._names()
        found = [path for name, path in names.items() if name not in self._known]
        self._known = set(names)
        return sorted(found)

    def _names(self) -> dict[str, str]:
        found = {}
        for directory in self._directories:
            try:
                candidates = find_candidates(directory)
            except PluginError:
                continue
            for name, path in candidates:
                if name in self._plugins:
                    continue
                if (is_package(path) or os.path.isfile(path)) and may_be_plugin(path):
                    found[path] = path
        return found

    def take_gone(self) -> list[Plugin]:
        """Plugins whose own file is not there any more, each once; it may come back."""
        found = []
        for plugin in list(self._plugins.values()):
            gone = plugin.code is not None and plugin.code.is_gone()
            if gone and plugin.name not in self._gone:
                self._gone.add(plugin.name)
                found.append(plugin)
            elif not gone:
                self._gone.discard(plugin.name)
        return found
