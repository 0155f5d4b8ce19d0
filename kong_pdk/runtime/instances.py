"""The instances of plugins: one for each configuration and nginx worker of Kong."""

from __future__ import annotations

import copy
import itertools
import json
import secrets
import time
from typing import Any, Callable, Optional

from .. import _wire
from ..exception import RPCError, UnknownInstance
from .plugins import Plugin

#: Ids begin anywhere below 2^52, so that those of a restarted server are new: Kong goes on using
#: the ids that it has, and must not meet another configuration under one. Lua is exact up to 2^53.
ID_BITS = 52

Handler = Callable[[Any], Any]


class Instance:
    """A plugin's object for one configuration.

    Args:
        instance_id: its id.
        plugin: what it is an instance of.
        config: its configuration; the author's object gets a copy, to do with what it likes.
        handlers: stand in for the methods of the author's object, which is not made then.

    Attributes:
        started: when Kong has started it, seconds since the epoch.
        handlers: the object's methods by phase.
    """

    __slots__ = ("config", "handlers", "id", "plugin", "started")

    def __init__(
        self,
        instance_id: int,
        plugin: Plugin,
        config: Any,
        handlers: Optional[dict[str, Handler]] = None,
    ) -> None:
        self.id = instance_id
        self.plugin = plugin
        self.config = config
        self.started = time.time()
        if handlers is None:
            target = plugin.factory(copy.deepcopy(config))
            handlers = {phase: getattr(target, phase) for phase in plugin.phases}
        self.handlers = handlers

    def describe(self) -> dict[str, Any]:
        """What Kong is told of the instance."""
        return {
            "Name": self.plugin.name,
            "Id": self.id,
            "Config": self.config,
            "StartTime": self.started,
        }


class Instances:
    """All instances of this process, by id."""

    def __init__(self, plugins: dict[str, Plugin]) -> None:
        self.plugins = plugins
        self._ids = itertools.count(secrets.randbits(ID_BITS) + 1)
        self.by_id: dict[int, Instance] = {}

    def __iter__(self) -> Any:
        return iter(list(self.by_id.values()))

    def start(self, name: object, config_text: object) -> Instance:
        """Make an instance; runs the author's ``__init__``.

        Args:
            name: of the plugin.
            config_text: its configuration, as JSON.

        Raises:
            RPCError: no such plugin, or no configuration that can be read.
            Exception: whatever the author's ``__init__`` raises.
        """
        plugin, config = self.read(name, config_text)
        instance = Instance(next(self._ids), plugin, config)
        self.by_id[instance.id] = instance
        plugin.last_start = instance.started
        return instance

    def read(self, name: object, config_text: object) -> tuple[Plugin, Any]:
        """The plugin and the configuration that an instance is to have.

        Raises:
            RPCError: no such plugin, or no configuration that can be read.
        """
        plugin = self.plugins.get(name) if isinstance(name, str) else None
        if plugin is None:
            known = ", ".join(sorted(self.plugins)) or "none"
            raise RPCError(f"there is no plugin {name!r} here (known: {known})")
        if not isinstance(config_text, (str, bytes)):
            raise RPCError(f"plugin {name}: Config must be a JSON text")
        try:
            config = json.loads(config_text)
        except ValueError as exc:
            raise RPCError(f"plugin {name}: Config is no JSON: {exc}") from exc
        try:
            _wire.pack_value(config)  # the answer holds it
        except Exception as exc:
            raise RPCError(f"plugin {name}: Config holds what cannot be sent: {exc}") from exc
        return plugin, config

    def report(self) -> tuple[list[tuple[int, str, float]], dict[str, tuple[float, float]]]:
        """What there is, and when something was done last.

        Returns:
            Id, plugin's name and start of each instance; by plugin's name, when an instance was
            started and closed last. Seconds since the epoch, 0 for never.
        """
        alive = [(one.id, one.plugin.name, one.started) for one in self]
        return alive, {
            plugin.name: (plugin.last_start, plugin.last_close) for plugin in self.plugins.values()
        }

    def look_up(self, instance_id: object) -> Instance:
        """What there is to tell of an instance; its handlers may be missing.

        Raises:
            UnknownInstance: there is none of this id.
        """
        return self.get(instance_id)

    def find_elsewhere(self, instance_id: int) -> Optional[Instance]:
        """Look for an instance that is not in :attr:`by_id`: there is no other place."""
        return None

    def get(self, instance_id: object) -> Instance:
        """Raises UnknownInstance if there is none of this id."""
        instance = self.by_id.get(instance_id) if isinstance(instance_id, int) else None
        if instance is None:
            raise UnknownInstance(instance_id)
        return instance

    def close(self, instance_id: object) -> Instance:
        """Forget an instance; events that run on it go on.

        Raises:
            UnknownInstance: there is none of this id.
        """
        instance = self.get(instance_id)
        if self.by_id.pop(instance.id, None) is None:
            raise UnknownInstance(instance_id)
        instance.plugin.last_close = time.time()
        return instance
