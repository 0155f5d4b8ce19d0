"""The instances of all workers: the parent knows what there is, each worker has objects of its own.

A worker makes an instance when Kong starts it there, or when the first event for it arrives there.
"""

from __future__ import annotations

import collections
import logging
import threading
import time
from typing import Any, Callable, NamedTuple, NoReturn, Optional

from ..config import ServerConfig
from ..exception import RPCError, UnknownInstance
from ..plugins.definition import Plugin
from ..runtime.instances import Instance, Instances, new_ids

logger = logging.getLogger("kong_pdk.server")

# Questions of a worker.
START, FIND, LOOK_UP, CLOSE, REPORT = "start", "find", "look_up", "close", "report"
NUMBER = "number"

#: Puts a question to the parent, and returns its answer.
Ask = Callable[..., Any]


class Record(NamedTuple):
    """What the parent knows of an instance; plain values, to be sent."""

    name: str
    config: Any  # the text that Kong sent, str or bytes
    started: float


class Registry:
    """The parent's knowledge of the instances of all workers. Holds no object of a plugin.

    Args:
        on_close: called with the id of an instance that is no more.
        config: the server's settings.
    """

    def __init__(
        self, on_close: Callable[[int], None], config: Optional[ServerConfig] = None
    ) -> None:
        self._config = config or ServerConfig()
        self._sweep_due = 0.0
        self._new_id = new_ids()
        self._records: dict[int, Record] = {}
        self._used: dict[int, float] = {}  # when each was used last, by the monotonic clock
        self._numbers: dict[str, int] = {}  # of all plugins that any worker has ever had
        self._last_start: dict[str, float] = {}
        self._last_close: dict[str, float] = {}
        self._on_close = on_close
        self._answers: dict[str, Callable[..., Any]] = {
            START: self._start, FIND: self._find, LOOK_UP: self._look_up, CLOSE: self._close,
            REPORT: self._report, NUMBER: self._number,
        }  # fmt: skip

    def answer(self, question: tuple[Any, ...]) -> Any:
        """Answer a worker's question, a name and its arguments."""
        return self._answers[question[0]](*question[1:])

    def _start(self, name: str, config: Any, started: float, closed: bool) -> int:
        instance_id = self._new_id(closed)
        self._records[instance_id] = Record(name, config, started)
        self._used[instance_id] = time.monotonic()
        self._last_start[name] = started
        return instance_id

    def _find(self, instance_id: int) -> Optional[tuple[Any, ...]]:
        self.note_use([instance_id])
        return self._look_up(instance_id)

    def _look_up(self, instance_id: int) -> Optional[tuple[Any, ...]]:
        record = self._records.get(instance_id)
        return record and tuple(record)

    def _close(self, instance_id: int) -> Optional[tuple[Any, ...]]:
        record = self._records.pop(instance_id, None)
        if record is None:
            return None
        del self._used[instance_id]
        self._last_close[record.name] = time.time()
        self._on_close(instance_id)
        return tuple(record)

    def _report(self) -> tuple[list[tuple[int, str, float]], dict[str, float], dict[str, float]]:
        alive = [(key, one.name, one.started) for key, one in self._records.items()]
        return alive, self._last_start, self._last_close

    def _number(self, names: list[str]) -> list[int]:
        """The numbers of plugins; a folder may have other ones when a worker starts again."""
        return [self._numbers.setdefault(name, len(self._numbers)) for name in names]

    @property
    def numbered(self) -> int:
        """How many plugins have a number; these begin at 0, in the order of the first names."""
        return len(self._numbers)

    def count(self) -> dict[str, int]:
        """How many instances there are, by plugin; for any thread."""
        return dict(collections.Counter(one.name for one in list(self._records.values())))

    def note_use(self, instance_ids: list[int]) -> None:
        """Note that a worker has used instances."""
        now = time.monotonic()
        for instance_id in instance_ids:
            if instance_id in self._used:  # it may have been closed meanwhile
                self._used[instance_id] = now

    def tick(self, now: float) -> None:
        """Close the instances that no worker has used for too long; to be called now and then.

        Args:
            now: by the monotonic clock, seconds.
        """
        ttl, interval = self._config.instance_ttl, self._config.sweep_interval
        if not ttl or now < self._sweep_due:
            return
        self._sweep_due = now + interval
        # Workers say at each sweep of theirs what they have used.
        late = now - ttl - 2 * interval
        for instance_id in [key for key, used in self._used.items() if used < late]:
            name = self._records[instance_id].name
            logger.info("plugin %s: dropped instance %d: no event for %g s", name, instance_id, ttl)
            self._close(instance_id)


class _Making:
    """An instance that is about to be made, beside those that wait for it."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.begun = False
        self.users = 0
        self.closed = False
        self.made: Optional[Instance] = None


class SharedInstances(Instances):
    """A worker's instances: those that it has made already, and all others on demand.

    Args:
        plugins: by name.
        ask: puts a question to the parent.
        config: the server's settings.
        tell_used: tells the parent which instances have been used, by their ids.
    """

    def __init__(
        self,
        plugins: dict[str, Plugin],
        ask: Ask,
        config: Optional[ServerConfig] = None,
        tell_used: Callable[[list[int]], object] = lambda _: None,
    ) -> None:
        super().__init__(plugins, config)
        self._ask = ask
        self._tell_used = tell_used
        self._making: dict[int, _Making] = {}

    def start(self, name: object, config_text: object) -> Instance:
        """As :meth:`Instances.start`; all other workers can make the instance from then on."""
        plugin, config = self.read(name, config_text)
        with self.holding(plugin):
            with self.starting(plugin):
                instance = Instance(0, plugin, config)  # may raise: then there is nothing to forget
            try:
                closed = self.config.closes(plugin.on_error)
                instance.id = self._ask(START, plugin.name, config_text, instance.started, closed)
                instance.closed = closed
            except BaseException:
                self.retire(instance)
                raise
            instance.used = self.ticks
            self.by_id[instance.id] = instance
        self.keep_up(instance)
        return instance

    def find_elsewhere(self, instance_id: int) -> Optional[Instance]:
        """Make this worker's own object of an instance that Kong has started in another one.

        Only those wait for an author's ``__init__`` who want that instance, and not for ever: it
        runs beside them. If it fails, what they get has handlers that raise the same error; the
        next event tries again.
        """
        with self._lock:
            making = self._making.setdefault(instance_id, _Making())
            making.users += 1
        try:
            record = self._ask(FIND, instance_id)
            return None if record is None else self._share(instance_id, Record(*record), making)
        finally:
            with self._lock:
                making.users -= 1
                if not making.users and (making.done.is_set() or not making.begun):
                    self._end_making(instance_id, making)

    def _share(self, instance_id: int, record: Record, making: _Making) -> Optional[Instance]:
        """Have the object made, or wait until it is."""
        plugin, config = self.read(record.name, record.config)
        patience = self._patience
        try:
            with self.starting(plugin):
                with self._lock:
                    found = self.by_id.get(instance_id)
                    if found is not None:  # made since it was looked for
                        return found
                    begin, making.begun = not making.begun, True
                if begin:
                    self._begin_making(instance_id, plugin, config, record.started, making)
                if not making.done.wait(patience):
                    raise RPCError(f"its __init__ has not returned within {patience:g} s")
                return making.made
        except RPCError as exc:
            return Instance(instance_id, plugin, config, _failing(plugin, exc))

    @property
    def _patience(self) -> float:
        """How long an event waits for its instance, seconds; it may have waited for a thread."""
        return min(self.config.event_timeout, (self.config.answer_timeout or 60.0) * 0.8)

    def _begin_making(
        self, instance_id: int, plugin: Plugin, config: Any, started: float, making: _Making
    ) -> None:
        try:
            self.closer.spawn(lambda: self._make(instance_id, plugin, config, started, making))
        except RuntimeError as exc:  # no thread
            with self._lock:
                making.begun = False
            raise RPCError(f"there is no thread for its __init__: {exc}") from exc

    def _make(
        self, instance_id: int, plugin: Plugin, config: Any, started: float, making: _Making
    ) -> None:
        with self.holding(plugin):
            instance, failed = _try_to_make(instance_id, plugin, config)
            instance.started, instance.used = started, self.ticks
            with self._lock:
                making.made = instance
                if not making.closed and not failed:
                    self.by_id[instance_id] = instance
                if failed or not making.users:
                    self._end_making(instance_id, making)
        if making.closed:
            self.retire(instance)  # no event begins on it
        elif not failed:
            self.keep_up(instance)
        making.done.set()
        with self._lock:
            if not making.users:
                self._end_making(instance_id, making)

    def _end_making(self, instance_id: int, making: _Making) -> None:
        """Let the next one who wants the instance make it; with the lock held."""
        if self._making.get(instance_id) is making:
            del self._making[instance_id]

    def forget(self, instance_id: int) -> None:
        """Drop an instance that Kong has closed; events that run on it go on."""
        with self._lock:
            instance = self.by_id.pop(instance_id, None)
            making = self._making.get(instance_id)
            if making is not None:
                making.closed = True
        if instance is not None:
            self.retire(instance)

    def sweep(self) -> None:
        """Drop unused objects of this worker, and tell the parent which ones are used.

        The parent closes an instance that no worker has used. Until then it can be made again.
        """
        super().sweep()
        # What is said may be lost where the parent is slow: it is said twice.
        since = self.ticks - 2 * self.config.sweep_interval
        self._tell_used([one.id for one in self if one.running or one.used >= since])

    def look_up(self, instance_id: object) -> Instance:
        """As :meth:`Instances.look_up`; makes no object."""
        return self._describe(instance_id, LOOK_UP)

    def close(self, instance_id: object) -> Instance:
        """As :meth:`Instances.close`, in all workers."""
        closed = self._describe(instance_id, CLOSE)
        self.forget(closed.id)
        return closed

    def _describe(self, instance_id: object, question: str) -> Instance:
        record = self._ask(question, instance_id) if isinstance(instance_id, int) else None
        if record is None:
            raise UnknownInstance(instance_id)
        name, text, started = record
        plugin, config = self.read(name, text)
        assert isinstance(instance_id, int)
        found = Instance(instance_id, plugin, config, {})
        found.started = started
        return found

    def report(self) -> tuple[list[tuple[int, str, float]], dict[str, tuple[float, float]]]:
        """As :meth:`Instances.report`, of all workers."""
        alive, started, closed = self._ask(REPORT)
        times = {name: (started.get(name, 0.0), closed.get(name, 0.0)) for name in self.plugins}
        return alive, times


def _try_to_make(instance_id: int, plugin: Plugin, config: Any) -> tuple[Instance, bool]:
    """An instance, and whether it is one that can only fail."""
    try:
        return Instance(instance_id, plugin, config), False
    except BaseException as exc:
        return Instance(instance_id, plugin, config, _failing(plugin, exc)), True


def _failing(plugin: Plugin, exc: BaseException) -> dict[str, Callable[[Any], NoReturn]]:
    """Handlers for an instance that could not be made: each event fails, and none goes through."""

    def fail(_: Any) -> NoReturn:
        raise RPCError(
            f"its instance cannot be made in this worker: {type(exc).__name__}: {exc}"
        ) from exc

    return dict.fromkeys(plugin.phases, fail)
