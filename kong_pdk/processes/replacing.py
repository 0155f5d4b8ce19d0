"""Workers that use too much memory make room for new ones (``--worker-memory``).

One place is vacant. A new worker is started there first. When it is ready, the old one gets no more
connections, gives back each that it has as soon as no answer is owed there, and ends when its last
event has: so no call waits, and none is lost. Then its place is the vacant one. One worker is
replaced at a time, so there is never more than one process too many.
"""

from __future__ import annotations

import logging
import time
from typing import Optional

from ..config import ServerConfig
from ..runtime.tally import Table
from ..server.usage import resident_memory
from .crew import END, END_PATIENCE, LEAVE, LEAVE_PATIENCE, Worker

logger = logging.getLogger("kong_pdk.server")

#: A worker that has served for less than this has not had the time to leak, seconds; nor has one
#: that had to wait until all others had been replaced, twice.
STEADY = 60.0
#: Waits between the end of a worker that was replaced and the start of the next new one, seconds,
#: the longer the more of them have used too much soon after their start: no limit that is too low
#: shall have the server do nothing but start workers.
PAUSES = (1.0, 2.0, 5.0, 10.0)

_MIB = 1 << 20


class Replacing:
    """Replaces workers; for the parent's thread.

    Args:
        config: the server's settings.
        crew: all workers; those that no process belongs to are vacant.
        table: where it is noted what they use.

    Attributes:
        new: the worker that takes another one's place; None if none is replaced.
    """

    def __init__(self, config: ServerConfig, crew: list[Worker], table: Table) -> None:
        self._limit = config.worker_memory
        self._steady = max(STEADY, 2 * PAUSES[-1] * config.workers)
        self._crew = crew
        self._table = table
        self._old: Optional[Worker] = None
        self.new: Optional[Worker] = None
        self._soon = 0  # workers in a row that have used too much soon after their start
        self._due = 0.0
        for worker in crew[config.workers :]:
            self._set_vacant(worker, True)

    def tick(self, now: float) -> None:
        """Look what each worker uses; to be called about once a second.

        Args:
            now: by the monotonic clock, seconds.
        """
        for worker in self._crew:
            if worker.ready:
                worker.memory = resident_memory(worker.pid)
                self._table.note_memory(worker.index, worker.memory)
        if self._limit and self._old is None and now >= self._due:
            large = [one for one in self._crew if one.ready and one.memory > self._limit]
            if large:
                self._begin(max(large, key=lambda one: one.memory), now)

    def _begin(self, worker: Worker, now: float) -> None:
        """Have a new worker started in place of one."""
        (vacant,) = (one for one in self._crew if one.vacant)
        age = now - worker.started
        self._soon = self._soon + 1 if age < self._steady else 0
        hint = ", which may be too low" if self._soon > 1 else ""
        logger.warning(
            "worker %d (pid %d) uses %d MiB of memory, %d s after its start; --worker-memory is %d "
            "MiB%s: worker %d takes its place",
            worker.index, worker.pid, worker.memory / _MIB, age, self._limit / _MIB, hint,
            vacant.index,
        )  # fmt: skip
        self._old, self.new = worker, vacant
        self._set_vacant(vacant, False)

    def go_on(self) -> None:
        """Let the old worker go when the new one is ready, and end when nothing is left to it."""
        old, new = self._old, self.new
        if old is None or new is None:
            return
        if not old.leaving:
            if new.ready and old.ready:
                logger.info(
                    "worker %d (pid %d) is ready: worker %d ends when its events have",
                    new.index, new.pid, old.index,
                )  # fmt: skip
                old.leaving = True
                old.doomed = time.monotonic() + LEAVE_PATIENCE + END_PATIENCE
                old.tell(LEAVE)
        elif old.quiet and not old.connections and not old.told_end:
            old.told_end = True
            old.tell(END)

    def note_end(self, worker: Worker, now: float) -> bool:
        """Note that a worker's process has ended.

        Args:
            worker: the worker.
            now: by the monotonic clock, seconds.

        Returns:
            Whether that was meant.
        """
        if worker is not self._old:
            return False
        meant = worker.told_end
        if meant:
            worker.note_success()
        if self.new is not None and self.new.is_missing:  # it has not come up yet
            self.new.due = min(self.new.due, worker.due)
        self._old = self.new = None
        self._due = now + PAUSES[min(self._soon, len(PAUSES) - 1)]
        self._set_vacant(worker, True)
        return meant

    def _set_vacant(self, worker: Worker, vacant: bool) -> None:
        worker.vacant = vacant
        worker.due = 0.0
        self._table.note_vacant(worker.index, vacant)
