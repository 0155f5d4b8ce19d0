"""Plugins that are installed: distributions with an entry point in the group ``kong_pdk.plugins``.

The entry point's name is the plugin's, its value the module, or the class as ``module:Class``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Optional

from ..exception import PluginError
from .definition import Plugin, Stamp
from .importing import import_module
from .loading import Given, add, changes_since, define_from, load_space
from .names import Space, stamp

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

logger = logging.getLogger("kong_pdk.server")

#: Of the entry points.
GROUP = "kong_pdk.plugins"


class Entry:
    """An entry point.

    Args:
        point: of Python's metadata.
        owner: name and version of its distribution.
    """

    def __init__(self, point: EntryPoint, owner: str) -> None:
        self.name = point.name
        self.value = point.value
        self.module, _, self.attribute = point.value.partition("[")[0].strip().partition(":")
        self.module, self.attribute = self.module.strip(), self.attribute.strip()
        self.owner = owner

    @property
    def origin(self) -> str:
        """Where the plugin is, for people."""
        return f"entry point {self.name} = {self.value} of {self.owner}"


def find_entries() -> list[Entry]:
    """All entry points for plugins in this Python."""
    from importlib.metadata import distributions

    found: dict[tuple[str, str, str], Entry] = {}
    for distribution in distributions():
        for point in distribution.entry_points:
            if point.group == GROUP:
                name = distribution.metadata["Name"]
                owner = f"{name} {distribution.version}"
                # One distribution may be found by several ways.
                found.setdefault((name, point.name, point.value), Entry(point, owner))
    return sorted(found.values(), key=lambda one: (one.name, one.owner))


def load_installed(
    name: str, rename: Optional[str] = None, given: Optional[Given] = None
) -> Plugin:
    """Load an installed plugin.

    Args:
        name: of the entry point.
        rename: the plugin's, if another.
        given: what stands in for what is said nowhere.

    Raises:
        PluginError: there is none, or two; it cannot be imported, or is no valid plugin.
    """
    entries = find_entries()
    wanted = [one for one in entries if one.name == name]
    if not wanted:
        known = ", ".join(sorted({one.name for one in entries})) or "none"
        raise PluginError(
            f"no plugin {name!r} is installed in this Python (installed: {known}): install a "
            f"distribution with an entry point of that name in the group {GROUP}, or name a file"
        )
    if len(wanted) > 1:
        raise PluginError(
            f"there are two plugins {name!r}: {wanted[0].origin} and {wanted[1].origin}: "
            f"uninstall one of them"
        )
    return InstalledCode(wanted[0], rename or name, given).load()


def load_all_installed() -> dict[str, Plugin]:
    """Load every installed plugin; one that cannot be loaded is skipped with a line in the log.

    Raises:
        PluginError: two have the same name.
    """
    plugins: dict[str, Plugin] = {}
    entries = find_entries()
    for one, other in zip(entries, entries[1:]):
        if one.name == other.name:
            raise PluginError(
                f"there are two plugins {one.name!r}: {one.origin} and {other.origin}: "
                f"uninstall one of them"
            )
    for entry in entries:
        try:
            add(plugins, InstalledCode(entry, entry.name).load())
        except PluginError as exc:
            logger.warning("skipped an installed plugin: %s", exc)
            logger.debug("cause", exc_info=exc)
    return plugins


class InstalledCode:
    """The code of an installed plugin.

    It is imported by its own name, as what is installed is there once for all; anew, for changed
    code, with modules of its own.

    Args:
        entry: names it.
        name: of the plugin.
        given: what stands in for what is said nowhere.
        space: its modules if it is loaded anew.
    """

    def __init__(
        self,
        entry: Entry,
        name: str,
        given: Optional[Given] = None,
        space: Optional[Space] = None,
    ) -> None:
        self._entry, self._name, self._given = entry, name, given
        self._space = space
        self._top = entry.module.partition(".")[0]
        self._stamps: dict[str, Stamp] = {}  # of what is imported by its own name

    @property
    def origin(self) -> str:
        """The place, for people."""
        return self._entry.origin

    def _note_files(self) -> Mapping[str, Stamp]:
        if self._space is not None:
            return self._space.stamps
        for path in files_below(self._top) - set(self._stamps):
            self._stamps[path] = stamp(path)
        return self._stamps

    def stamps(self) -> Mapping[str, Stamp]:
        """See :class:`kong_pdk.plugins.definition.Code`."""
        return dict(self._note_files())

    def folders(self) -> set[str]:
        """See :class:`kong_pdk.plugins.definition.Code`."""
        return set(map(os.path.dirname, self.stamps()))

    def changed(self) -> set[str]:
        """See :class:`kong_pdk.plugins.definition.Code`."""
        return changes_since(self._note_files())

    def is_gone(self) -> bool:
        """See :class:`kong_pdk.plugins.definition.Code`."""
        return not any(map(os.path.exists, self.stamps()))

    def load(self) -> Plugin:
        """Load it, once.

        Raises:
            PluginError: it cannot be imported, or is no valid plugin.
        """
        where, module = self._entry.origin, self._entry.module
        if self._space is None:
            found = import_module(
                lambda: importlib.import_module(module), where, places_of(self._top)
            )
            plugin = self._define(found)
            self._note_files()
        else:
            plugin = load_space(self._space, self._define, where)
        plugin.code = self
        return plugin

    def _define(self, module: ModuleType) -> Plugin:
        factory = None
        where, attribute = self._entry.origin, self._entry.attribute
        if attribute:
            try:
                factory = functools.reduce(getattr, attribute.split("."), module)
            except AttributeError:
                raise PluginError(
                    f"{where}: there is no {attribute} in {module.__name__}"
                ) from None
        path = getattr(module, "__file__", None)
        return define_from(module, self._name, where, factory=factory, given=self._given, path=path)

    def load_again(self) -> Plugin:
        """See :class:`kong_pdk.plugins.definition.Code`."""
        roots = {self._top: places_of(self._top)}
        space = Space(self._name, (), self._entry.module, roots=roots, fresh=True)
        return InstalledCode(self._entry, self._name, self._given, space).load()

    def forget(self) -> None:
        """See :class:`kong_pdk.plugins.definition.Code`."""
        if self._space is not None:
            self._space.forget()


def places_of(top: str) -> list[str]:
    """Where a module of the first level is: its file, or the folders of a package."""
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # without a spec
        spec = None
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return list(spec.submodule_search_locations)
    return [spec.origin] if spec.origin else []


def files_below(top: str) -> set[str]:
    """The files of a module of the first level and of all below it that are imported."""
    found = set()
    for name, module in list(sys.modules.items()):
        if name == top or name.startswith(top + "."):
            path = getattr(module, "__file__", None)
            if path:
                found.add(os.path.realpath(path))
    return found
