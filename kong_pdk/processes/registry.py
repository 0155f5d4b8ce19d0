"""The instances of all workers: the parent knows what there is, each worker has objects of its own.

A worker makes an instance when Kong starts it there, or when the first event for it arrives there.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from typing import Any, Callable, NamedTuple, NoReturn, Optional

from ..exception import RPCError, UnknownInstance
from ..runtime.instances import ID_BITS, Instance, Instances
from ..runtime.plugins import Plugin

# Questions of a worker.
START, FIND, CLOSE, REPORT = "start", "find", "close", "report"

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
    """

    def __init__(self, on_close: Callable[[int], None]) -> None:
        self._ids = itertools.count(secrets.randbits(ID_BITS) + 1)
        self._records: dict[int, Record] = {}
        self._last_start: dict[str, float] = {}
        self._last_close: dict[str, float] = {}
        self._on_close = on_close
        self._answers: dict[str, Callable[..., Any]] = {
            START: self._start, FIND: self._find, CLOSE: self._close, REPORT: self._report,
        }  # fmt: skip

    def answer(self, question: tuple[Any, ...]) -> Any:
        """Answer a worker's question, a name and its arguments."""
        return self._answers[question[0]](*question[1:])

    def _start(self, name: str, config: Any, started: float) -> int:
        instance_id = next(self._ids)
        self._records[instance_id] = Record(name, config, started)
        self._last_start[name] = started
        return instance_id

    def _find(self, instance_id: int) -> Optional[tuple[Any, ...]]:
        record = self._records.get(instance_id)
        return record and tuple(record)

    def _close(self, instance_id: int) -> Optional[tuple[Any, ...]]:
        record = self._records.pop(instance_id, None)
        if record is None:
            return None
        self._last_close[record.name] = time.time()
        self._on_close(instance_id)
        return tuple(record)

    def _report(self) -> tuple[list[tuple[int, str, float]], dict[str, float], dict[str, float]]:
        alive = [(key, one.name, one.started) for key, one in self._records.items()]
        return alive, self._last_start, self._last_close


class _Making:
    """An instance that a thread is about to make; others that want it wait for the lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.closed = False


class SharedInstances(Instances):
    """A worker's instances: those that it has made already, and all others on demand.

    Args:
        plugins: by name.
        ask: puts a question to the parent.
    """

    def __init__(self, plugins: dict[str, Plugin], ask: Ask) -> None:
        super().__init__(plugins)
        self._ask = ask
        self._lock = threading.Lock()
        self._making: dict[int, _Making] = {}

    def start(self, name: object, config_text: object) -> Instance:
        """As :meth:`Instances.start`; all other workers can make the instance from then on."""
        plugin, config = self.read(name, config_text)
        instance = Instance(0, plugin, config)  # may raise: then there is nothing to forget
        instance.id = self._ask(START, plugin.name, config_text, instance.started)
        self.by_id[instance.id] = instance
        return instance

    def find_elsewhere(self, instance_id: int) -> Optional[Instance]:
        """Make this worker's own object of an instance that Kong has started in another one.

        Only those wait for an author's ``__init__`` who want that instance. If it fails, what is
        returned has handlers that raise the same error; the next event tries again.
        """
        with self._lock:
            making = self._making.setdefault(instance_id, _Making())
            making.users += 1
        try:
            with making.lock:
                found = self.by_id.get(instance_id)
                if found is not None:  # somebody was faster
                    return found
                record = self._ask(FIND, instance_id)
                return record and self._make(instance_id, Record(*record), making)
        finally:
            with self._lock:
                making.users -= 1
                if not making.users:
                    del self._making[instance_id]

    def _make(self, instance_id: int, record: Record, making: _Making) -> Instance:
        plugin, config = self.read(record.name, record.config)
        try:
            instance = Instance(instance_id, plugin, config)
        except BaseException as exc:
            return Instance(instance_id, plugin, config, _failing(plugin, exc))
        instance.started = record.started
        with self._lock:
            if not making.closed:
                self.by_id[instance_id] = instance
        return instance

    def forget(self, instance_id: int) -> None:
        """Drop an instance that Kong has closed; events that run on it go on."""
        with self._lock:
            self.by_id.pop(instance_id, None)
            making = self._making.get(instance_id)
            if making is not None:
                making.closed = True

    def look_up(self, instance_id: object) -> Instance:
        """As :meth:`Instances.look_up`; makes no object."""
        return self._describe(instance_id, FIND)

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


def _failing(plugin: Plugin, exc: BaseException) -> dict[str, Callable[[Any], NoReturn]]:
    """Handlers for an instance that could not be made: each event fails, and none goes through."""

    def fail(_: Any) -> NoReturn:
        raise RPCError(
            f"its instance cannot be made in this worker: {type(exc).__name__}: {exc}"
        ) from exc

    return dict.fromkeys(plugin.phases, fail)
