"""What the server counts, in memory that its processes share, and what can be told from it.

One writer for each number: a worker counts the events that it runs and tells once a second what is
under way; the parent notes which workers there are. What a worker has counted outlives it, for its
successor goes on counting there: so no number goes down. Readers take no lock. A number is read in
one piece, but not all of them at the same moment.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from .. import _columns
from .._codec import Tally
from ..exception import ConfigError
from ..pdk.functions import PHASES

#: Most plugins of a server: the memory is laid out before they are known. What is not used costs
#: nothing.
MAX_PLUGINS = 1024

#: What the percentiles are of, as GetStatus names them.
PERCENTILES = {"P50": 0.5, "P90": 0.9, "P99": 0.99}

_NUMBER = 8  # bytes
_ROWS = 1 + MAX_PLUGINS * len(PHASES)  # of a worker: its gauges, then plugins by phases
_BLOCK = _ROWS * _columns.COLUMNS  # numbers of a worker
_SERVER = _columns.COLUMNS  # numbers of the server as a whole, in front of them

# Columns of a worker's own row. The parent writes the first ones, the worker the others.
(
    _PID, _READY, _RESTARTS, _REPLACED, _VACANT, _MEMORY,
    _CONNECTIONS, _RUNNING, _QUEUED, _WAITING, _SHED,
) = range(11)  # fmt: skip

# The server's own row.
_START = 0  # nanoseconds since the epoch


@dataclass(frozen=True)
class Counts:
    """What has been counted of the events of one plugin in one phase.

    Attributes:
        started: those that have begun.
        errors: handlers that have raised, or have had their time.
        refused: requests that were closed because of that.
        abandoned: those whose answer nobody waited for.
        lost: those that have died with their process.
        calls: PDK calls of those that have ended.
        seconds: how long these took, all together.
        buckets: how many ended within each of ``_columns.BOUNDS``, and, at last, after all of them.
    """

    started: int
    errors: int
    refused: int
    abandoned: int
    lost: int
    calls: int
    seconds: float
    buckets: tuple[int, ...]

    @property
    def ended(self) -> int:
        """How many have ended, without those that are lost."""
        return sum(self.buckets)

    @property
    def in_flight(self) -> int:
        """How many are under way."""
        # One may end between the reading of these numbers.
        return max(0, self.started - self.ended - self.lost)

    @property
    def mean(self) -> Optional[float]:
        """How long they take on average, seconds; None if none has ended."""
        return self.seconds / self.ended if self.ended else None

    def quantile(self, share: float) -> Optional[float]:
        """How long so many of them take at the most, seconds; None if none has ended.

        Interpolated within a bucket, as Prometheus' ``histogram_quantile`` does it. What is behind
        the last bound counts as if it were there.

        Args:
            share: of those that have ended, 0.5 for the median.
        """
        rank, below, start = share * self.ended, 0, 0.0
        if not self.ended:
            return None
        for end, count in zip(_columns.BOUNDS, self.buckets):
            if count and below + count >= rank:
                return start + (end - start) * max(0.0, rank - below) / count
            below, start = below + count, end
        return _columns.BOUNDS[-1]


@dataclass(frozen=True)
class WorkerState:
    """One process that runs plugins, as it was about a second ago at the most.

    Attributes:
        index: of the worker, from 0.
        pid: 0 if there is none at the moment.
        ready: it takes events.
        restarts: how often it has died, and another process has come in its place.
        replaced: how often it has made room for another worker (``--worker-memory``).
        vacant: no process belongs there at the moment; the next one that takes another's place
            comes there.
        memory: what its process has in memory, bytes; 0 if that cannot be told.
        connections: of Kong.
        running: handlers, and instances that are being made.
        queued: events that wait for a thread.
        waiting: events that wait for Kong to answer a PDK call.
        shed: events that were refused for lack of room (``--max-events``).
    """

    index: int
    pid: int
    ready: bool
    restarts: int
    replaced: int
    vacant: bool
    memory: int
    connections: int
    running: int
    queued: int
    waiting: int
    shed: int


def size_of(workers: int) -> int:
    """How much memory the numbers of so many workers take, bytes; most of it is never touched."""
    return (_SERVER + workers * _BLOCK) * _NUMBER


class Table:
    """All numbers of a server.

    Args:
        memory: of :func:`size_of` bytes, all zero at first; this process's own, for one worker, if
            None.
    """

    def __init__(self, memory: Any = None) -> None:
        self._memory = mmap.mmap(-1, size_of(1)) if memory is None else memory
        self._numbers = memoryview(self._memory).cast("B").cast("Q")
        self.workers = (len(self._numbers) - _SERVER) // _BLOCK

    # --- writing ---------------------------------------------------------------------------------

    def tally(self) -> Tally:
        """What counts here; see :meth:`rows`."""
        return Tally(self._memory)

    def rows(
        self, worker: int, plugins: Iterable[str], numbers: Optional[Mapping[str, int]] = None
    ) -> dict[str, dict[str, int]]:
        """Where a worker counts the events of each plugin and phase.

        Args:
            worker: its index.
            plugins: the names of all plugins.
            numbers: of each, the same in all workers; their order by name if None.

        Returns:
            By plugin and phase; a plugin whose number is too high is not there.

        Raises:
            ConfigError: there are too many.
        """
        names = sorted(plugins)
        if len(names) > MAX_PLUGINS:
            raise ConfigError(
                f"{len(names)} plugins in one server, which can have {MAX_PLUGINS}: "
                f"divide them among several servers"
            )
        if numbers is None:
            numbers = {name: number for number, name in enumerate(names)}
        return {
            name: {phase: self._row(worker, numbers[name], phase) for phase in PHASES}
            for name in names
            if numbers[name] < MAX_PLUGINS
        }

    def start(self, now: Optional[float] = None) -> None:
        """Note when the server was started, seconds since the epoch: now, if it is not said."""
        self._numbers[_START] = int((time.time() if now is None else now) * 1e9)

    def note_process(self, worker: int, pid: int, ready: bool) -> None:
        """Note which process a worker is."""
        place = self._worker(worker)
        self._numbers[place + _PID], self._numbers[place + _READY] = pid, ready

    def note_vacant(self, worker: int, vacant: bool) -> None:
        """Note whether a worker's place is to be empty."""
        self._numbers[self._worker(worker) + _VACANT] = vacant

    def note_memory(self, worker: int, size: int) -> None:
        """Note what a worker's process has in memory, bytes."""
        self._numbers[self._worker(worker) + _MEMORY] = size

    def note_gauges(
        self, worker: int, connections: int, running: int, queued: int, waiting: int
    ) -> None:
        """Note what is under way in a worker."""
        place = self._worker(worker)
        for column, number in (
            (_CONNECTIONS, connections), (_RUNNING, running), (_QUEUED, queued),
            (_WAITING, waiting),
        ):  # fmt: skip
            self._numbers[place + column] = max(0, number)

    def shed_place(self, worker: int) -> int:
        """Where a worker counts the events that it has refused for lack of room."""
        return self._worker(worker) + _SHED

    def settle(
        self, worker: int, plugins: int, restarts: bool = True, replaced: bool = False
    ) -> None:
        """Close the account of a process that has ended: nothing is under way there any more.

        Args:
            worker: its index; no process may be there.
            plugins: how many have a number.
            restarts: it has died, and another one comes in its place.
            replaced: it has made room for another worker.
        """
        self.note_process(worker, 0, False)
        self.note_memory(worker, 0)
        self.note_gauges(worker, 0, 0, 0, 0)
        self._numbers[self._worker(worker) + _RESTARTS] += restarts
        self._numbers[self._worker(worker) + _REPLACED] += replaced
        for plugin in range(min(plugins, MAX_PLUGINS)):
            for phase in PHASES:
                row = self._row(worker, plugin, phase)
                self._numbers[row + _columns.LOST] += self._read([row]).in_flight

    # --- reading ---------------------------------------------------------------------------------

    @property
    def started(self) -> float:
        """When the server was started, seconds since the epoch."""
        return self._numbers[_START] / 1e9

    def counts(self, plugin: int, phase: str) -> Counts:
        """What all workers have counted.

        Args:
            plugin: its number.
            phase: one of :data:`PHASES`.
        """
        return self._read([self._row(worker, plugin, phase) for worker in range(self.workers)])

    def state(self, worker: int) -> WorkerState:
        """What is known of a worker."""
        place = self._worker(worker)
        pid, ready, restarts, replaced, vacant, *others = self._numbers[
            place : place + _SHED + 1
        ].tolist()
        return WorkerState(worker, pid, bool(ready), restarts, replaced, bool(vacant), *others)

    def states(self) -> list[WorkerState]:
        """What is known of all workers."""
        return [self.state(worker) for worker in range(self.workers)]

    # --- where things are ------------------------------------------------------------------------

    @staticmethod
    def _worker(worker: int) -> int:
        return _SERVER + worker * _BLOCK

    def _row(self, worker: int, plugin: int, phase: str) -> int:
        row = 1 + plugin * len(PHASES) + PHASES.index(phase)
        return self._worker(worker) + row * _columns.COLUMNS

    def _read(self, rows: Sequence[int]) -> Counts:
        """The sum of some rows."""
        read = [self._numbers[row : row + _columns.COLUMNS].tolist() for row in rows]
        sums = [sum(column) for column in zip(*read)]
        return Counts(
            started=sums[_columns.STARTED],
            errors=sums[_columns.ERRORS],
            refused=sums[_columns.REFUSED],
            abandoned=sums[_columns.ABANDONED],
            lost=sums[_columns.LOST],
            calls=sums[_columns.CALLS],
            seconds=sums[_columns.NANOSECONDS] / 1e9,
            buckets=tuple(sums[_columns.BUCKETS : _columns.BUCKETS + len(_columns.BOUNDS) + 1]),
        )
