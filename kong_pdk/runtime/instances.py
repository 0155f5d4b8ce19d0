"""The instances of plugins: one for each configuration and nginx worker of Kong."""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import logging
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable, Optional

from .. import _wire
from .._codec import BaseInstance
from ..config import ServerConfig
from ..exception import RPCError, SettingsError, TooManyStarts, UnknownInstance
from ..pdk.functions import PHASES
from ..plugins.definition import Plugin
from ..refusals import is_closed_id
from .closing import Closer
from .failures import log_failure

logger = logging.getLogger("kong_pdk.server")

#: Ids begin anywhere below 2^52, so that those of a restarted server are new: Kong goes on using
#: the ids that it has, and must not meet another configuration under one. Lua is exact up to 2^53.
#: The lowest bit is ``_wire.CLOSED_BIT``, the others count.
ID_BITS = 51

Handler = Callable[[Any], Any]


def new_ids() -> Callable[[bool], int]:
    """Gives out ids of instances; its argument is whether the plugin's requests are refused if it
    fails.
    """
    numbers = itertools.count(secrets.randbits(ID_BITS) + 1)
    return lambda closed: next(numbers) << 1 | closed


def _do_nothing(_: Any) -> None:
    """The handler of a phase that the plugin has had."""


class Instance(BaseInstance):
    """A plugin's object for one configuration.

    Args:
        instance_id: its id.
        plugin: what it is an instance of.
        config: its configuration; the author's object gets a copy, to do with what it likes.
        handlers: stand in for the methods of the author's object, which is not made then.

    Raises:
        RPCError: the configuration does not fit the class that the author asks for.
        Exception: whatever the author's ``__init__`` raises.

    Attributes:
        started: when Kong has started it, seconds since the epoch.
        close: the object's method of that name; None if it has none, or when it is taken care of.
    """

    __slots__ = ("close", "config", "id", "plugin", "started")

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
        self.close: Optional[Callable[[], Any]] = None
        if handlers is None:
            try:
                own = plugin.configure(config)
            except SettingsError as exc:
                raise RPCError(f"plugin {plugin.name}: {exc}") from exc
            target = plugin.factory(own)
            handlers = {phase: getattr(target, phase) for phase in plugin.phases}
            handlers.update(dict.fromkeys(plugin.idle, _do_nothing))
            if plugin.closes:
                self.close = target.close
        super().__init__(handlers, is_closed_id(instance_id), plugin.rows)

    def describe(self) -> dict[str, Any]:
        """What Kong is told of the instance."""
        return {
            "Name": self.plugin.name,
            "Id": self.id,
            "Config": self.config,
            "StartTime": self.started,
        }


class _Former:
    """Code that has been replaced.

    Args:
        plugin: what it was the code of.
        instances: those that were replaced; None when they have been retired.
        since: the tick at which they were replaced.

    Attributes:
        leaving: those that have been retired.
    """

    def __init__(self, plugin: Plugin, instances: list[Instance], since: int) -> None:
        self.plugin = plugin
        self.instances: Optional[list[Instance]] = instances
        self.leaving: list[Instance] = []
        self.since = since


class Instances:
    """All instances of this process, by id.

    Args:
        plugins: by name.
        config: the server's settings.

    Attributes:
        closer: calls the ``close`` of objects.
        ticks: the number of the last :meth:`tick`.
    """

    def __init__(self, plugins: dict[str, Plugin], config: Optional[ServerConfig] = None) -> None:
        self.plugins = plugins
        self.config = config or ServerConfig()
        self.closer = Closer()
        self.ticks = 0
        self._sweep_due = 0.0  # the tick
        self._lock = threading.Lock()
        self._starting: collections.Counter[str] = collections.Counter()
        self._new_id = new_ids()
        self.by_id: dict[int, Instance] = {}
        # Plugins whose code has been replaced, with the instances of it that are no more to begin
        # with, and since when, in ticks; None when those have been retired.
        self._former: list[_Former] = []
        self._held: collections.Counter[int] = collections.Counter()  # plugins, by their id()

    def __iter__(self) -> Any:
        return iter(list(self.by_id.values()))

    def start(self, name: object, config_text: object) -> Instance:
        """Make an instance; runs the author's ``__init__``.

        Args:
            name: of the plugin.
            config_text: its configuration, as JSON.

        Raises:
            RPCError: no such plugin, or no configuration that can be read.
            TooManyStarts: of this plugin.
            Exception: whatever the author's ``__init__`` raises.
        """
        plugin, config = self.read(name, config_text)
        with self.holding(plugin):
            with self.starting(plugin):
                closed = self.config.closes(plugin.on_error)
                instance = Instance(self._new_id(closed), plugin, config)
            instance.used = self.ticks
            self.by_id[instance.id] = instance
        plugin.last_start = instance.started
        self.keep_up(instance)
        return instance

    @contextlib.contextmanager
    def starting(self, plugin: Plugin) -> Iterator[None]:
        """Count what may run an author's ``__init__``, or waits for one that runs.

        Kong gives up such a call after 60 s and makes it again, while ``__init__`` may block for
        ever: the threads of one plugin must not become all that there are.

        Raises:
            TooManyStarts: there are ``max_starts`` of that plugin already.
        """
        limit = self.config.max_starts
        with self._lock:
            if self._starting[plugin.name] >= limit:
                raise TooManyStarts(
                    f"plugin {plugin.name}: {limit} of its instances are being started already, "
                    f"which is the limit (--max-starts): does its __init__ block?"
                )
            self._starting[plugin.name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._starting[plugin.name] -= 1

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

    def count(self) -> dict[str, int]:
        """How many instances there are, by plugin; for any thread."""
        return dict(collections.Counter(one.plugin.name for one in self))

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
        if not self.drop(instance):
            raise UnknownInstance(instance_id)
        return instance

    def drop(self, instance: Instance) -> bool:
        """Forget an instance; False if that has been done already."""
        dropped = self.by_id.pop(instance.id, None)  # may have taken its place
        if dropped is None:
            return False
        dropped.plugin.last_close = time.time()
        self.retire(dropped)
        return True

    def drop_all(self) -> None:
        """Forget all instances."""
        for instance in self:
            self.drop(instance)
        self._tend_former(float("inf"))

    def retire(self, instance: Instance) -> None:
        """Have an instance's object closed, now or when the last event on it has ended."""
        instance.closing = True
        if not instance.running:
            self.left(instance)

    def left(self, instance: Instance) -> None:
        """Have an instance's object closed, on which no event runs any more, unless it was."""
        if instance.close is None:
            return
        with self._lock:
            close, instance.close = instance.close, None
        if close is not None:
            self.closer.add(instance.plugin.name, instance.id, close)

    # --- changed code -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def holding(self, *plugins: Plugin) -> Iterator[None]:
        """Keep plugins' code while objects of it are on their way to :attr:`by_id`, or from there.

        Code that has been replaced meanwhile would be forgotten, and what ``__init__`` imports then
        would be gone.
        """
        held = [id(plugin) for plugin in plugins]
        with self._lock:
            self._held.update(held)
        try:
            yield
        finally:
            with self._lock:
                self._held.subtract(held)
                self._held += collections.Counter()  # without those that are zero

    def let_idle(self, plugin: Plugin) -> None:
        """Have a plugin do nothing in phases that it has not: Kong may know of former ones."""
        plugin.idle = tuple(phase for phase in PHASES if phase not in plugin.phases)

    def make_anew(self, instance: Instance, plugin: Plugin) -> Instance:
        """Make an instance that is to take the place of one; runs the author's ``__init__``.

        Args:
            instance: the present one.
            plugin: what the new one is of.

        Raises:
            Exception: whatever the author's ``__init__`` raises.
        """
        new = Instance(instance.id, plugin, instance.config)
        new.started = instance.started
        new.rows = instance.rows
        return new

    def replace(self, plugin: Plugin, made: list[tuple[Instance, Instance]]) -> None:
        """Have changed code of a plugin take the place of the former one.

        Events that run go on; the former objects are closed when they have ended.

        Args:
            plugin: the changed one.
            made: the present and the new one of each instance that there was.
        """
        former = self.plugins[plugin.name]
        plugin.rows, plugin.number = former.rows, former.number
        plugin.last_start, plugin.last_close = former.last_start, former.last_close
        self.plugins[plugin.name] = plugin
        replaced = [old for old, new in made if self._put(old, new)]
        with self._lock:
            self._former.append(_Former(former, replaced, self.ticks))
        for instance in self:  # begun meanwhile
            self.keep_up(instance)

    def _put(self, old: Instance, new: Instance) -> bool:
        """Put an instance in the place of another, unless that is gone."""
        new.used = old.used
        with self._lock:
            found = self.by_id.get(old.id) is old
            if found:
                self.by_id[old.id] = new
        if not found:
            self.retire(new)
        return found

    def keep_up(self, instance: Instance) -> None:
        """See that an instance is not left with code that was replaced while it was made."""
        plugin = self.plugins.get(instance.plugin.name)
        if plugin is None or plugin is instance.plugin:
            return
        try:
            self.closer.spawn(lambda: self._catch_up(instance, plugin))
        except RuntimeError as exc:
            logger.error("no thread to take over changed code: %s", exc)

    def _catch_up(self, old: Instance, plugin: Plugin) -> None:
        with self.holding(old.plugin, plugin):
            self._put_anew(old, plugin)

    def _put_anew(self, old: Instance, plugin: Plugin) -> None:
        try:
            new = self.make_anew(old, plugin)
        except BaseException as exc:
            log_failure(
                exc, "plugin %s: an instance goes on with former code: __init__ raised %s "
                "(instance %d)", plugin.name, type(exc).__name__, old.id,
                plugin=plugin.name, instance=old.id,
            )  # fmt: skip
            return
        if self._put(old, new):
            with self._lock:
                self._former.append(_Former(old.plugin, [old], self.ticks))
            self.keep_up(new)

    def _tend_former(self, tick: float) -> None:
        """Retire instances that have been replaced; forget code that nothing uses any more."""
        with self._lock:
            former = list(self._former)
        for one in former:
            # Not at once: whoever has looked an instance up begins an event on it at any moment,
            # and would find that it is closing.
            if one.instances is not None and tick > one.since + 1:
                one.leaving, one.instances = one.instances, None
                for instance in one.leaving:
                    self.retire(instance)
        with self._lock:  # before by_id is looked at: objects are on their way there
            in_use = set(self._held)
        in_use |= {id(one.plugin) for one in self}
        for one in former:
            if one.instances is not None or any(each.running for each in one.leaving):
                in_use.add(id(one.plugin))
        pending = self.closer.pending() if former else []
        for one in former:
            if id(one.plugin) not in in_use and one.plugin.name not in pending:
                with self._lock:
                    self._former.remove(one)
                if one.plugin.code is not None:
                    one.plugin.code.forget()

    def tick(self, tick: int) -> None:
        """Do what is due.

        Args:
            tick: counts up about once a second; :attr:`BaseInstance.used` is in it too.
        """
        self.ticks = tick
        self.closer.retry()
        if self._former:
            self._tend_former(tick)
        if self.config.instance_ttl and tick >= self._sweep_due:
            self._sweep_due = tick + self.config.sweep_interval
            self.sweep()

    def sweep(self) -> None:
        """Drop the instances that have not been used for too long.

        Kong never closes those of plugins that are deleted, or of nginx workers that have died.
        """
        ttl = self.config.instance_ttl
        for instance in self:
            # One that is used again at this very moment is closed after that.
            if not instance.running and instance.used < self.ticks - ttl and self.drop(instance):
                logger.info(
                    "plugin %s: dropped instance %d: no event for %g s",
                    instance.plugin.name, instance.id, ttl,
                )  # fmt: skip
