"""Steps for a worker that has died, as its successor finds them in its inbox."""

from __future__ import annotations

import mmap
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from kong_pdk import _wire
from kong_pdk._codec import Connection, Request
from kong_pdk.config import MAX_WORKERS, ServerConfig
from kong_pdk.processes.inbox import Lent
from kong_pdk.processes.ledger import Ledger
from kong_pdk.processes.worker import WorkerLoop

OWNER, SLOT = 1, 2
STEP = Request(_wire.STEP, 7, (MAX_WORKERS + OWNER) << 1, None)


class Successor(WorkerLoop):
    """A worker whose first life has ended, without the rest of the loop."""

    def __init__(self, ledger: Ledger) -> None:
        self._config = ServerConfig()
        self.ledger = mmap.mmap(ledger.fd, 0)
        self._debts = memoryview(self.ledger).cast("Q")
        self._life = 1
        self.told: list[tuple[Any, ...]] = []

    def _tell(self, *message: Any) -> None:
        self.told.append(message)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    ledger = Ledger(ServerConfig(workers=2))
    yield ledger
    ledger.release()


def lend(ledger: Ledger, successor: Successor) -> tuple[Lent, socket.socket]:
    """A step for the worker's first life, lent by another one, and Kong's end of its connection."""
    ours, kong = socket.socketpair()
    theirs = ours.dup()
    connection = Connection(ours)
    connection.share(successor.ledger, SLOT, 7 | _wire.OWES_ERROR)
    owes = connection.lend(OWNER)
    assert ledger.look(SLOT).owes == owes
    connection.close()
    return Lent(theirs, STEP, SLOT, owes, 0), kong


def test_the_parent_is_told_of_a_step_that_it_has_not_seen_in_the_ledger(ledger: Ledger) -> None:
    successor = Successor(ledger)
    lent, kong = lend(ledger, successor)
    with kong:
        successor._take(lent)
    assert successor.told == [("missed", SLOT, lent.owes)]
    assert ledger.settle(SLOT, lent.owes)  # as the parent does before it answers


def test_a_step_that_the_parent_has_answered_is_left_alone(ledger: Ledger) -> None:
    successor = Successor(ledger)
    lent, kong = lend(ledger, successor)
    with kong:
        assert ledger.settle(SLOT, lent.owes)
        successor._take(lent)
    assert successor.told == []
