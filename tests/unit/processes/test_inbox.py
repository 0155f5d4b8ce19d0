"""Steps that go to another worker, with the connection that they came on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from kong_pdk import _wire
from kong_pdk._codec import Connection, Request
from kong_pdk.config import MAX_WORKERS, ServerConfig
from kong_pdk.exception import RPCError
from kong_pdk.processes import inbox as module
from kong_pdk.processes.channel import Channel
from kong_pdk.processes.inbox import Forwarder, Lent, read_inbox
from kong_pdk.processes.link import open_pair
from kong_pdk.runtime.events import new_events, owner_of

#: An event of worker 1, whose request is refused if its plugin fails.
THEIRS = (MAX_WORKERS + 1) << 1 | _wire.CLOSED_BIT


class Yard:
    """Worker 0 of two, the inbox of worker 1, and a connection of Kong's to worker 0."""

    def __init__(self) -> None:
        receiver, sender = open_pair()
        self.inbox, outbox = Channel(receiver), Channel(sender)
        own, self.unused = open_pair()
        self.outboxes = [Channel(own), outbox]
        self.forward = Forwarder(0, self.outboxes)
        ours, self.kong = socket.socketpair()
        self.kong.settimeout(5)
        self.connection = Connection(ours)
        self.memory = bytearray(8 * _wire.DEBT_SIZE * 3)
        self.connection.share(self.memory, 2)
        self.taken: list[Lent] = []
        self.missed: list[tuple[int, int]] = []

    @property
    def noted(self) -> int:
        """What others see of what the connection owes."""
        return memoryview(self.memory).cast("Q")[2 * _wire.DEBT_SIZE]

    def receive_step(self) -> Request:
        """Let Kong send a step of worker 1, and read it."""
        self.kong.sendall(msgpack.packb([0, 7, "plugin.Step", [{"EventId": THEIRS}]]))
        request = self.connection.receive()
        assert request is not None
        return request

    def miss(self, slot: int, owes: int) -> None:
        self.missed.append((slot, owes))

    def close(self) -> None:
        for lent in self.taken:
            lent.sock.close()
        for each in (self.inbox, *self.outboxes, self.unused, self.kong, self.connection):
            each.close()


@pytest.fixture
def yard() -> Iterator[Yard]:
    made = Yard()
    yield made
    made.close()


def step(event_id: int, value: Any = None) -> Request:
    return Request(_wire.STEP, 7, event_id, value)


def test_ids_tell_the_worker() -> None:
    for index in (0, 1, 5, MAX_WORKERS - 1):
        events = new_events(ServerConfig(), index, MAX_WORKERS)
        ids = [events.next_id() for _ in range(100)]
        assert len(set(ids)) == 100
        assert {owner_of(each, MAX_WORKERS) for each in ids} == {index}
        assert all(0 < each < 2**53 and not each & _wire.CLOSED_BIT for each in ids)
        closed = events.next_id(True)
        assert closed & _wire.CLOSED_BIT and owner_of(closed, MAX_WORKERS) == index


def test_a_step_goes_to_its_owner(yard: Yard) -> None:
    value = [{"x": ["ä\udcff", b"\xff", None]}, 1.5]
    assert yard.forward(step(THEIRS, value), yard.connection, wait=False)
    read_inbox(yard.inbox, yard.taken.append, yard.miss)
    ((sock, request, *_),) = yard.taken
    assert (request.kind, request.msgid) == (_wire.STEP, 7)
    assert (request.target, request.value) == (THEIRS, value)
    sock.sendall(b"answer")
    assert yard.kong.recv(10) == b"answer"


@pytest.mark.parametrize(
    "event_id", [0, 1, 2 * MAX_WORKERS, -2 * MAX_WORKERS, 4, 2 * MAX_WORKERS - 1, 2**80 + 9]
)
@pytest.mark.parametrize("wait", [True, False])
def test_what_is_no_other_workers(yard: Yard, event_id: int, wait: bool) -> None:
    assert not yard.forward(step(event_id), yard.connection, wait=wait)
    assert not yard.noted & _wire.OWES_LENT


def test_a_borrowed_connection_goes_no_further(yard: Yard) -> None:
    yard.connection.borrowed = True
    assert not yard.forward(step(THEIRS), yard.connection, wait=True)


def test_a_full_inbox(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    count = 0
    while yard.forward(step(THEIRS, "x" * 1000), yard.connection, wait=False):
        count += 1
    with pytest.raises(RPCError, match=r"cannot be handed to worker 1: .*too slow"):
        yard.forward(step(THEIRS), yard.connection, wait=True)
    for _ in range(count // module.BATCH + 1):
        read_inbox(yard.inbox, yard.taken.append, yard.miss)
    assert len(yard.taken) == count
    assert yard.forward(step(THEIRS), yard.connection, wait=False)


def test_a_value_that_cannot_cross(yard: Yard) -> None:
    request = step(THEIRS, msgpack.ExtType(5, b"x"))
    assert not yard.forward(request, yard.connection, wait=False)
    with pytest.raises(RPCError, match="cannot be handed to worker 1"):
        yard.forward(request, yard.connection, wait=True)


def test_an_empty_inbox(yard: Yard) -> None:
    read_inbox(yard.inbox, yard.taken.append, yard.miss)
    assert yard.taken == []


def test_what_is_noted_of_a_step_under_way(yard: Yard) -> None:
    request = yard.receive_step()
    owed = yard.connection.owes
    assert yard.noted == owed == 7 | _wire.OWES_EXIT
    assert yard.forward(request, yard.connection, wait=False)
    read_inbox(yard.inbox, yard.taken.append, yard.miss)
    (lent,) = yard.taken
    assert lent.slot == 2
    assert yard.noted == lent.owes == owed | _wire.OWES_LENT | 1 << _wire.OWES_OWNER
    assert yard.connection.owes == 0, "the answer is the other worker's business"
    yard.kong.sendall(msgpack.packb([0, 8, "plugin.GetStatus", []]))
    assert yard.connection.receive() is not None
    assert yard.noted == 8 | _wire.OWES_ERROR, "the next request"


def test_who_answers_a_step_notes_it(yard: Yard) -> None:
    assert yard.forward(yard.receive_step(), yard.connection, wait=False)
    read_inbox(yard.inbox, yard.taken.append, yard.miss)
    (lent,) = yard.taken
    with_it = Connection(lent.sock)
    with_it.share(yard.memory, lent.slot, lent.owes)
    with_it.send(b"answer")
    assert yard.noted == 0


def test_a_step_that_nobody_takes_is_owed_here_again(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    while yard.forward(step(THEIRS, "x" * 1000), yard.connection, wait=False):
        pass
    request = yard.receive_step()
    owed = yard.noted
    assert not yard.forward(request, yard.connection, wait=False)
    assert yard.noted == yard.connection.owes == owed
    with pytest.raises(RPCError):
        yard.forward(request, yard.connection, wait=True)
    assert yard.noted == yard.connection.owes == owed


def test_a_step_that_was_answered_for_a_dead_worker(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent may be faster than the failure to hand it over."""
    request = yard.receive_step()

    def send(*_: Any) -> None:
        memoryview(yard.memory).cast("Q")[2 * _wire.DEBT_SIZE] = 0
        raise OSError("gone")

    monkeypatch.setattr(yard.outboxes[1], "send", send)
    assert yard.forward(request, yard.connection, wait=True)
    assert yard.connection.owes == 0


def test_a_step_whose_connection_is_lost_on_the_way(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many descriptors are open in the worker that it is for: its parent answers."""
    request = yard.receive_step()
    owed = yard.connection.owes
    send = yard.outboxes[1].send
    monkeypatch.setattr(
        yard.outboxes[1], "send", lambda step, fds, timeout: send(step, (), timeout)
    )
    assert yard.forward(request, yard.connection, wait=False)
    read_inbox(yard.inbox, yard.taken.append, yard.miss)
    assert yard.taken == []
    assert yard.missed == [(2, owed | _wire.OWES_LENT | 1 << _wire.OWES_OWNER)]
