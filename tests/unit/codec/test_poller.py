"""Poller: connections that nobody reads."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

STATUS = msgpack.packb([0, 1, "plugin.GetStatus", []])


class Bench:
    """A poller, and connections with their peers."""

    def __init__(self, codec: Any) -> None:
        self.codec = codec
        self.poller = codec.Poller()
        self.events = codec.Events(1)
        self.opened: list[Any] = []
        self.begun: list[tuple[Any, int]] = []
        self.routed: list[tuple[Any, int]] = []
        self.lost: list[tuple[Any, Exception]] = []

    def connect(self) -> tuple[Any, socket.socket]:
        ours, peer = socket.socketpair()
        connection = self.codec.Connection(ours)
        self.opened += [connection, peer]
        return connection, peer

    def read(self) -> None:
        self.poller.read_ready(
            self.events,
            lambda connection, request: self.begun.append((connection, request.msgid)),
            lambda connection, request: self.routed.append((connection, request.msgid)),
            lambda connection, exc: self.lost.append((connection, exc)),
            lambda: False,
        )

    def is_readable(self) -> bool:
        poll = select.poll()
        poll.register(self.poller.fileno(), select.POLLIN)
        return bool(poll.poll(0))


@pytest.fixture
def bench(codec: Any) -> Iterator[Bench]:
    one = Bench(codec)
    yield one
    one.poller.close()
    for each in one.opened:
        each.close()


def test_a_parked_connection_is_found_once(bench: Bench) -> None:
    connection, peer = bench.connect()
    bench.poller.park(connection)
    assert bench.poller.take_ready() == [] and not bench.is_readable()
    peer.sendall(STATUS)
    assert bench.is_readable()
    assert bench.poller.take_ready() == [connection]
    assert bench.poller.take_ready() == [] and not bench.is_readable()
    bench.poller.park(connection)  # what has arrived before is seen
    assert bench.poller.take_ready() == [connection]


def test_only_the_ready_ones_are_found(bench: Bench) -> None:
    pairs = [bench.connect() for _ in range(300)]
    for connection, _ in pairs:
        bench.poller.park(connection)
    for _, peer in pairs[::3]:
        peer.sendall(STATUS)
    found: set[Any] = set()
    while bench.is_readable():
        found.update(bench.poller.take_ready())
    assert found == {connection for connection, _ in pairs[::3]}


def test_a_closed_peer_makes_a_connection_ready(bench: Bench) -> None:
    connection, peer = bench.connect()
    bench.poller.park(connection)
    peer.close()
    assert bench.poller.take_ready() == [connection]


def test_a_forgotten_connection_is_not_found(bench: Bench) -> None:
    connection, peer = bench.connect()
    bench.poller.park(connection)
    peer.sendall(STATUS)
    bench.poller.forget(connection)
    bench.poller.forget(connection)
    assert bench.poller.take_ready() == [] and not bench.is_readable()


@pytest.mark.parametrize("how", ["park", "keep"])
def test_who_unparks_a_connection_learns_whether_it_was_parked(bench: Bench, how: str) -> None:
    connection, peer = bench.connect()
    assert bench.poller.unpark(connection) is False
    getattr(bench.poller, how)(connection)
    peer.sendall(STATUS)
    assert bench.poller.unpark(connection) is True
    assert bench.poller.unpark(connection) is False
    assert not bench.is_readable()
    bench.poller.park(connection)
    assert bench.poller.take_ready() == [connection]
    assert bench.poller.unpark(connection) is False  # somebody is about to read it
    bench.poller.park(connection)
    assert bench.poller.take_ready() == [connection]
    connection.close()
    assert bench.poller.unpark(connection) is False


def test_a_closed_connection_cannot_be_parked(bench: Bench) -> None:
    connection, _ = bench.connect()
    connection.close()
    with pytest.raises((OSError, ValueError)):
        bench.poller.park(connection)
    bench.poller.forget(connection)


def test_a_kept_connection_stays_watched(bench: Bench) -> None:
    connection, peer = bench.connect()
    bench.poller.keep(connection)
    for _ in range(3):
        peer.sendall(STATUS)
        bench.read()
    assert bench.routed == [(connection, 1)] * 3
    bench.read()
    assert len(bench.routed) == 3


def test_all_that_has_arrived_is_read(bench: Bench) -> None:
    connection, peer = bench.connect()
    bench.poller.keep(connection)
    peer.sendall(STATUS * 100 + STATUS[:3])
    while bench.is_readable():
        bench.read()
    assert len(bench.routed) == 100
    peer.sendall(STATUS[3:])
    bench.read()
    assert len(bench.routed) == 101


def test_a_step_goes_to_the_greenlet_that_waits_for_it(bench: Bench) -> None:
    connection, peer = bench.connect()
    bench.poller.keep(connection)
    event = bench.codec.Event(bench.events, None, "access", None, 1, None, None)
    given: list[Any] = []
    event.sleeper = type("Greenlet", (), {"switch": lambda self, request: given.append(request)})()
    bench.events.waiting[event.id] = event
    step = msgpack.packb([0, 9, "plugin.Step", [{"EventId": event.id, "Data": "x"}]])
    peer.sendall(step + step)
    bench.read()
    (request,) = given
    assert (request.msgid, request.value) == (9, "x")
    assert (event.msgid, event.connection) == (9, connection)
    assert bench.routed == [(connection, 9)]  # the second one: nobody waits for it any more
    assert not bench.events.waiting


def test_what_begins_an_event(bench: Bench) -> None:
    connection, peer = bench.connect()
    bench.poller.keep(connection)
    argument = {"InstanceId": 1, "EventName": "access"}
    peer.sendall(msgpack.packb([0, 3, "plugin.HandleEvent", [argument]]))
    bench.read()
    assert (bench.begun, bench.routed) == ([(connection, 3)], [])


def test_a_failing_connection_is_lost_alone(bench: Bench) -> None:
    (bad, bad_peer), (gone, gone_peer), (good, good_peer) = (bench.connect() for _ in range(3))
    for connection in (bad, gone, good):
        bench.poller.keep(connection)
    bad_peer.sendall(b"GET / HTTP/1.1\r\n")
    gone_peer.close()
    good_peer.sendall(STATUS)
    bench.read()
    assert bench.routed == [(good, 1)]
    assert {connection: type(exc).__name__ for connection, exc in bench.lost} == {
        bad: "ProtocolError", gone: "ConnectionClosed",
    }  # fmt: skip


def test_a_connection_that_is_closed_by_another_ones_request(bench: Bench) -> None:
    pairs = [bench.connect() for _ in range(2)]
    for connection, peer in pairs:
        bench.poller.keep(connection)
        peer.sendall(STATUS)

    def close_both(connection: Any, request: Any) -> None:
        bench.routed.append((connection, request.msgid))
        for each, _ in pairs:
            bench.poller.forget(each)
            each.close()

    bench.poller.read_ready(bench.events, close_both, close_both, lambda *_: None, lambda: True)
    assert len(bench.routed) == 1
    assert not bench.is_readable()
