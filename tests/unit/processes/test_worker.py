"""A worker: steps for one that has died, as its successor finds them, and one that leaves."""

from __future__ import annotations

import collections
import mmap
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from kong_pdk import _wire
from kong_pdk._codec import Connection, Poller, Request
from kong_pdk.config import MAX_WORKERS, ServerConfig
from kong_pdk.processes.channel import Channel
from kong_pdk.processes.inbox import Lent
from kong_pdk.processes.ledger import Ledger
from kong_pdk.processes.link import open_pair
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

    def _tell(self, *message: Any) -> bool:
        self.told.append(message)
        return True


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


class Mode:
    """Has some events that wait for Kong, and does nothing else."""

    takes_connections = True

    def __init__(self) -> None:
        self.waiting = 0

    def leave(self) -> None: ...

    def is_busy(self, connected: bool) -> bool:
        return bool(self.waiting) and connected


class Leaver(WorkerLoop):
    """A worker that has been told to leave, and has no connection; without the rest of the loop."""

    def __init__(self, control: Channel) -> None:
        self._control, self._mode = control, Mode()
        self._connections, self._drains, self._to_drain = set(), {}, collections.deque()
        self._dealt, self._poller = {}, Poller()
        self._kept, self._quiet, self._sweep_due = None, 0, 0.0
        self.ledger = mmap.mmap(-1, 4096)
        self._debts = memoryview(self.ledger).cast("Q")
        self.stopping = self._leaving = self._alone = self._may_go = self._told_quiet = False
        self._on_leave()

    def look(self) -> bool:
        """Whether it ends, having looked so often that it is sure."""
        return [self._is_quiet() for _ in range(5)][-1]


@pytest.fixture
def channels() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = (Channel(sock) for sock in open_pair())
    yield ours, theirs
    ours.close()
    theirs.close()


def messages(channel: Channel) -> list[Any]:
    found = []
    try:
        while True:
            found.append(channel.receive().value)
    except BlockingIOError:
        return found


def test_that_it_is_quiet_is_said_until_it_is_heard(channels: tuple[Channel, Channel]) -> None:
    """Hundreds of connections that are given back leave no room for it."""
    control, parent = channels
    leaver = Leaver(control)
    with pytest.raises(BlockingIOError):
        while True:
            control.send(("released", 1, 2))
    assert not leaver.look()
    assert ("quiet", True) not in messages(parent)
    assert not leaver.look()
    assert messages(parent) == [("quiet", True)]
    assert not leaver.look()
    assert messages(parent) == []  # once is enough


def test_an_event_that_the_parent_has_not_heard_of_goes_on(
    channels: tuple[Channel, Channel],
) -> None:
    """The end crosses the news: steps still come, through other workers."""
    leaver = Leaver(channels[0])
    assert not leaver.look()
    leaver._mode.waiting = 1
    leaver._on_end()
    assert not leaver.look()
    assert messages(channels[1]) == [("quiet", True), ("quiet", False)]
    leaver._mode.waiting = 0
    assert leaver.look()


def test_a_connection_that_is_given_back_may_come_again(channels: tuple[Channel, Channel]) -> None:
    """A server that stops deals it to whoever is left, and it has the same descriptor there."""
    leaver = Leaver(channels[0])
    ours, kong = socket.socketpair()
    with kong, ours.dup() as parents:
        connection, fd = Connection(ours), ours.fileno()
        leaver._connections.add(connection)
        leaver._dealt[connection.slot] = parents.fileno(), 1
        leaver._poller.park(connection)
        kong.send(b"x")
        assert leaver._poller.take_ready() == [connection]
        assert parents.recv(1) == b"x"  # a thread has done so, and answered
        leaver.park(connection)
        assert ("released", parents.fileno(), 1) in messages(channels[1])
        assert not leaver._connections
        os.dup2(parents.fileno(), fd)
        again = Connection(socket.socket(fileno=fd))
        leaver._poller.park(again)
        kong.send(b"y")
        assert leaver._poller.take_ready() == [again]
        again.close()
    leaver._poller.close()


def test_a_connection_whose_step_waits_for_room_is_kept(channels: tuple[Channel, Channel]) -> None:
    """With gevent the loop goes on meanwhile; should there be no room, it is answered here."""
    leaver = Leaver(channels[0])
    ours, kong = socket.socketpair()
    with kong:
        connection = Connection(ours)
        leaver._connections.add(connection)
        leaver._dealt[SLOT] = 5, 1
        connection.share(leaver.ledger, SLOT, 7 | _wire.OWES_ERROR)
        leaver._poller.park(connection)
        owes = connection.lend(OWNER)
        leaver._release_parked()
        assert leaver._connections == {connection}
        assert connection.reclaim(owes)
        assert connection.send_nowait(b"no") == 2
        leaver._release_parked()
        assert not leaver._connections
    leaver._poller.close()
