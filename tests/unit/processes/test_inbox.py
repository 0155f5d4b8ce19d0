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
from kong_pdk.processes.inbox import Forwarder, read_inbox, refuse_step
from kong_pdk.processes.link import open_pair
from kong_pdk.runtime.events import new_events


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
        self.taken: list[tuple[socket.socket, Request]] = []

    def take(self, sock: socket.socket, request: Request) -> None:
        self.taken.append((sock, request))

    def close(self) -> None:
        for sock, _ in self.taken:
            sock.close()
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
        assert {each % MAX_WORKERS for each in ids} == {index}
        assert all(0 < each < 2**53 for each in ids)


def test_a_step_goes_to_its_owner(yard: Yard) -> None:
    value = [{"x": ["ä\udcff", b"\xff", None]}, 1.5]
    assert yard.forward(step(MAX_WORKERS + 1, value), yard.connection, wait=False)
    read_inbox(yard.inbox, yard.take)
    ((sock, request),) = yard.taken
    assert (request.kind, request.msgid) == (_wire.STEP, 7)
    assert (request.target, request.value) == (MAX_WORKERS + 1, value)
    sock.sendall(b"answer")
    assert yard.kong.recv(10) == b"answer"


@pytest.mark.parametrize("event_id", [0, MAX_WORKERS, -MAX_WORKERS, 2, MAX_WORKERS - 1, 2**80 + 9])
@pytest.mark.parametrize("wait", [True, False])
def test_what_is_no_other_workers(yard: Yard, event_id: int, wait: bool) -> None:
    assert not yard.forward(step(event_id), yard.connection, wait=wait)
    assert yard.connection.lent is None


def test_a_borrowed_connection_goes_no_further(yard: Yard) -> None:
    yard.connection.borrowed = True
    assert not yard.forward(step(1), yard.connection, wait=True)


def test_a_full_inbox(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    count = 0
    while yard.forward(step(1, "x" * 1000), yard.connection, wait=False):
        count += 1
    with pytest.raises(RPCError, match=r"cannot be handed to worker 1: .*too slow"):
        yard.forward(step(1), yard.connection, wait=True)
    for _ in range(count // module.BATCH + 1):
        read_inbox(yard.inbox, yard.take)
    assert len(yard.taken) == count
    assert yard.forward(step(1), yard.connection, wait=False)


def test_a_value_that_cannot_cross(yard: Yard) -> None:
    request = step(1, msgpack.ExtType(5, b"x"))
    assert not yard.forward(request, yard.connection, wait=False)
    with pytest.raises(RPCError, match="cannot be handed to worker 1"):
        yard.forward(request, yard.connection, wait=True)


def test_an_empty_inbox(yard: Yard) -> None:
    read_inbox(yard.inbox, yard.take)
    assert yard.taken == []


def test_in_place_of_a_worker_that_is_no_more(yard: Yard) -> None:
    assert yard.forward(step(1), yard.connection, wait=False)
    read_inbox(yard.inbox, refuse_step)
    kind, msgid, error, result = msgpack.unpackb(yard.kong.recv(1000))
    assert (kind, msgid, result) == (1, 7, None)
    assert error.startswith("no event 1 is waiting")


def test_what_is_noted_of_a_step_under_way(yard: Yard) -> None:
    """As long as nothing else has come on the connection, another worker owes its answer."""
    yard.kong.sendall(msgpack.packb([0, 1, "plugin.Step", [{"EventId": 1}]]))
    request = yard.connection.receive()
    assert request is not None
    assert yard.forward(request, yard.connection, wait=False)
    assert yard.connection.lent == (1, yard.connection.consumed)
    yard.kong.sendall(msgpack.packb([0, 2, "plugin.GetStatus", []]))
    assert yard.connection.receive() is not None
    assert yard.connection.lent != (1, yard.connection.consumed)
