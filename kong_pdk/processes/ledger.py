"""What is owed on each connection, kept where it outlives the worker that owes it.

A worker notes there what it reads, and that it has answered (``Connection.share``); the parent
looks when the worker has died, and answers in its place.
"""

from __future__ import annotations

import collections
import os
import time
from typing import NamedTuple

from .. import _wire
from ..config import MAX_WORKERS, ServerConfig
from .memory import allocate, attach

#: Bounds of the number of places. Those of closed connections are given out again as late as can
#: be: a worker may not know yet that one is closed.
LEAST_SLOTS, MOST_SLOTS = 1 << 16, 1 << 22


def beat(numbers: memoryview, index: int) -> None:
    """Note that a worker's loop is alive.

    Args:
        numbers: the ledger's memory.
        index: of the worker.
    """
    numbers[len(numbers) - MAX_WORKERS + index] = int(1000 * time.monotonic())


def life_of(numbers: memoryview, index: int) -> int:
    """How many processes have died in a worker's place.

    Args:
        numbers: the ledger's memory.
        index: of the worker.
    """
    return int(numbers[len(numbers) - 2 * MAX_WORKERS + index])


class Debt(NamedTuple):
    """What is owed on a connection.

    Attributes:
        owes: as ``Connection.owes``; 0 for nothing.
        age: for how long, seconds.
        missing: bytes of the request that are to come; 0 if that is not known.
    """

    owes: int
    age: float
    missing: int

    @property
    def owner(self) -> int:
        """The index of the worker that it was lent to; -1 if that is the one that reads."""
        return self.owes >> _wire.OWES_OWNER & 0x3FF if self.owes & _wire.OWES_LENT else -1


class Ledger:
    """The parent's side.

    Args:
        config: the server's settings.

    Attributes:
        fd: of the memory, for the workers.

    Raises:
        OSError: the system gives no memory.
    """

    def __init__(self, config: ServerConfig) -> None:
        wanted = 2 * max(1, config.workers) * config.max_connections
        self._size = min(MOST_SLOTS, max(LEAST_SLOTS, wanted))
        self.fd = allocate(8 * (_wire.DEBT_SIZE * self._size + 2 * MAX_WORKERS))
        self._memory = attach(self.fd)
        self._numbers = memoryview(self._memory).cast("Q")
        self._fresh = 0  # those from here on have never been used
        self._free: collections.deque[int] = collections.deque()

    def open(self) -> int:
        """A place for a new connection; -1 if there is none, and nobody can answer for a worker."""
        if self._fresh < self._size:
            self._fresh += 1
            return self._fresh - 1
        if not self._free:
            return -1
        slot = self._free.popleft()
        self.inherit(slot, lent=False)
        return slot

    def close(self, slot: int) -> None:
        """Take back the place of a connection that is no more."""
        if slot >= 0:
            self._free.append(slot)

    def look(self, slot: int) -> Debt:
        """What is owed on a connection."""
        if slot < 0:
            return Debt(_wire.OWES_UNKNOWN, 0.0, 0)
        index = _wire.DEBT_SIZE * slot
        owes, since, missing, reading = self._numbers[index : index + 4]
        if reading:  # what it has read last is not noted yet, if it has read anything
            begin = 8 * (index + 4)
            head = self._memory[begin : begin + _wire.HEAD_SIZE]
            if head[0]:
                return Debt(_wire.debt_of_head(head), 0.0, 0)
        return Debt(owes, time.monotonic() - since / 1000, missing)

    def bury(self, index: int) -> None:
        """Note that a worker has died; before what was lent to it is looked up.

        A step that is on its way to it then is none of its successor's, which says where the
        parent has not seen it.
        """
        self._numbers[len(self._numbers) - 2 * MAX_WORKERS + index] += 1

    def silence(self, index: int) -> float:
        """For how long a worker's loop has done nothing, seconds."""
        return time.monotonic() - self._numbers[len(self._numbers) - MAX_WORKERS + index] / 1000

    def inherit(self, slot: int, lent: bool) -> None:
        """Note that a connection's reader is no more, and what that owed is the parent's business.

        Args:
            slot: of the connection.
            lent: the answer is another worker's business.
        """
        if slot >= 0:
            index = _wire.DEBT_SIZE * slot
            self._numbers[index + 3] = 0
            if not lent:
                self._numbers[index] = 0

    def settle(self, slot: int, owes: int) -> bool:
        """Note that the parent answers what was lent; False if that has been done already.

        Only where the worker that it was lent to is no more.
        """
        index = _wire.DEBT_SIZE * slot
        if slot < 0 or self._numbers[index] != owes:
            return False
        self._numbers[index] = 0
        return True

    def release(self) -> None:
        """Let go of the memory."""
        self._numbers.release()
        self._memory.close()
        os.close(self.fd)
