"""Connection: requests and replies over a real socket."""

from __future__ import annotations

import socket
import time
from typing import Any, Callable

import msgpack
import pytest

from kong_pdk import _wire

PATIENCE = 30.0  # for what is about to happen; reached only by a failure
LARGE = 8 << 20  # far more than a socket's buffers hold

GET_STATUS = msgpack.packb([0, 77, "plugin.GetStatus", []])


def step(event_id: int, value: Any = None) -> bytes:
    return msgpack.packb([0, event_id, "plugin.Step", [{"EventId": event_id, "Data": value}]])


# --- receive --------------------------------------------------------------------------------------


def test_receive_does_not_block(pair: Any) -> None:
    assert pair.connection.receive() is None
    pair.peer.sendall(GET_STATUS[:5])
    assert pair.connection.receive() is None
    assert pair.connection.pending == 5
    pair.peer.sendall(GET_STATUS[5:])
    request = pair.connection.receive()
    assert (request.kind, request.msgid) == (_wire.CALL, 77)
    assert pair.connection.consumed == len(GET_STATUS)
    assert pair.connection.receive() is None


def test_receive_makes_the_socket_non_blocking(codec: Any) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE)
    connection = codec.Connection(ours)
    assert ours.gettimeout() == 0.0
    connection.close()
    theirs.close()


def test_many_requests_in_one_packet(pair: Any) -> None:
    pair.peer.sendall(GET_STATUS * 50 + GET_STATUS[:3])
    for taken in range(1, 51):
        assert pair.connection.receive().msgid == 77
        assert pair.connection.consumed == taken * len(GET_STATUS)
    assert pair.connection.receive() is None
    assert pair.connection.pending == 3


def test_a_request_byte_by_byte(pair: Any) -> None:
    for byte in GET_STATUS:
        assert pair.connection.receive() is None
        pair.peer.sendall(bytes((byte,)))
    assert pair.connection.receive().msgid == 77


def test_golden_request_over_a_socket(
    pair: Any, golden_request: Any, fields: Callable[[Any], Any]
) -> None:
    pair.peer.sendall(golden_request.data)
    assert repr(fields(pair.connection.receive())) == repr(golden_request.fields)


@pytest.mark.parametrize(
    "value", [b"\x00\xff" * (LARGE // 2), ["abc"] * 100_000], ids=["bin", "list"]
)
def test_a_request_larger_than_every_buffer(pair: Any, value: Any, spawn: Any) -> None:
    task = spawn(pair.peer.sendall, step(1, value) + step(2, "next"))
    assert pair.connection.exchange(b"", pair.waiter).value == value
    assert pair.connection.exchange(b"", pair.waiter).value == "next"
    task.result()


def test_what_was_fed_counts_too(pair: Any) -> None:
    """A connection is a decoder: bytes may come another way."""
    pair.connection.feed(GET_STATUS[:4])
    pair.peer.sendall(GET_STATUS[4:])
    assert pair.connection.receive().msgid == 77
    pair.connection.feed(GET_STATUS)
    assert pair.connection.next().msgid == 77


# --- send -----------------------------------------------------------------------------------------


def test_send(pair: Any) -> None:
    pair.connection.send(b"reply")
    assert pair.read(5) == b"reply"


def test_send_nothing(pair: Any) -> None:
    pair.connection.send(b"")
    assert pair.has_sent() == b""


@pytest.mark.parametrize("how", ["send", "exchange"])
def test_a_slow_reader_gets_everything(pair: Any, how: str, spawn: Any) -> None:
    data = bytes(range(256)) * (LARGE // 256)
    if how == "send":
        task = spawn(pair.connection.send, data)
    else:
        task = spawn(pair.connection.exchange, data, pair.waiter)
    assert pair.read(1) == data[:1]
    assert task.is_alive()  # most of it does not fit into the socket's buffers
    assert pair.read(LARGE - 1) == data[1:]
    if how == "exchange":
        pair.peer.sendall(step(9))
        assert task.result().msgid == 9
    else:
        assert task.result() is None
    assert pair.has_sent() == b""


def test_opening_goes_out_once_in_front_of_the_first_reply(pair: Any) -> None:
    assert pair.connection.opening == b""
    pair.connection.opening = b"hello "
    pair.peer.sendall(GET_STATUS)
    assert pair.connection.exchange(b"", pair.waiter).msgid == 77
    assert pair.has_sent() == b""
    pair.connection.send(b"first ")
    pair.connection.send(b"second")
    assert pair.read(18) == b"hello first second"
    assert pair.connection.opening == b""


def test_send_without_waiting(pair: Any) -> None:
    assert pair.connection.send_nowait(b"") == 0
    assert pair.connection.send_nowait(b"reply") == 5
    assert pair.connection.send_nowait(b"replies", 5) == 7
    assert pair.read(7) == b"replyes"


def test_send_without_waiting_says_how_much_went_out(pair: Any) -> None:
    data = bytes(range(256)) * (LARGE // 256)
    sent = pair.connection.send_nowait(data)
    assert 0 < sent < LARGE
    assert pair.connection.send_nowait(data, sent) == sent  # still nobody reads
    received = b""
    while sent < LARGE:
        received += pair.has_sent()
        sent = pair.connection.send_nowait(data, sent)
    received += pair.read(LARGE - len(received))
    assert received == data


def test_opening_goes_out_with_an_exchange_too(pair: Any) -> None:
    pair.connection.opening = b"hello "
    pair.peer.sendall(GET_STATUS * 2)
    assert pair.connection.exchange(b"first ", pair.waiter).msgid == 77
    assert pair.connection.exchange(b"second", pair.waiter).msgid == 77
    assert pair.read(18) == b"hello first second"


# --- exchange -------------------------------------------------------------------------------------


def test_exchange_returns_the_request_that_follows(pair: Any, spawn: Any) -> None:
    task = spawn(pair.connection.exchange, b"call", pair.waiter)
    assert pair.read(4) == b"call"
    pair.peer.sendall(step(5, "answer"))
    request = task.result()
    assert (request.kind, request.target, request.value) == (_wire.STEP, 5, "answer")


def test_exchange_in_portions(pair: Any, spawn: Any) -> None:
    task = spawn(pair.connection.exchange, b"call", pair.waiter)
    assert pair.read(4) == b"call"
    for byte in step(5, "answer"):
        pair.peer.sendall(bytes((byte,)))
    assert task.result().value == "answer"


def test_exchange_takes_a_request_that_is_there_already(pair: Any) -> None:
    pair.peer.sendall(step(1) + step(2) + step(3))
    assert pair.connection.receive().msgid == 1
    assert pair.connection.exchange(b"", pair.waiter).msgid == 2
    assert pair.connection.exchange(b"x", pair.waiter).msgid == 3
    assert pair.read(1) == b"x"


def test_a_thousand_exchanges(pair: Any, spawn: Any) -> None:
    def answer() -> None:
        for number in range(1000):
            assert pair.read(4) == b"call"
            pair.peer.sendall(step(number, number))

    task = spawn(answer)
    for number in range(1000):
        assert pair.connection.exchange(b"call", pair.waiter).value == number
    task.result()


def test_a_wake_ends_an_exchange(pair: Any, spawn: Any) -> None:
    task = spawn(pair.connection.exchange, b"call", pair.waiter)
    assert pair.read(4) == b"call"
    pair.waiter.wake()
    assert task.result() is None


def test_a_wake_before_the_exchange_is_not_lost(pair: Any) -> None:
    pair.waiter.wake()
    assert pair.connection.exchange(b"call", pair.waiter) is None
    assert pair.read(4) == b"call"


def test_a_wake_is_taken_once(pair: Any) -> None:
    pair.waiter.wake()
    pair.waiter.wake()
    assert pair.connection.exchange(b"", pair.waiter) is None
    pair.peer.sendall(step(1))
    assert pair.connection.exchange(b"", pair.waiter).msgid == 1


def test_a_wake_goes_before_a_request_and_loses_nothing(pair: Any) -> None:
    pair.peer.sendall(step(1))
    pair.waiter.wake()
    assert pair.connection.exchange(b"", pair.waiter) is None
    assert pair.connection.exchange(b"", pair.waiter).msgid == 1


def test_a_request_in_the_buffer_goes_before_a_wake_and_loses_nothing(pair: Any) -> None:
    pair.connection.feed(step(1))
    pair.waiter.wake()
    assert pair.connection.exchange(b"", pair.waiter).msgid == 1
    assert pair.connection.exchange(b"", pair.waiter) is None


def test_half_a_request_survives_a_wake(pair: Any) -> None:
    data = step(1, "whole")
    pair.connection.feed(data[:6])
    pair.waiter.wake()
    assert pair.connection.exchange(b"", pair.waiter) is None
    pair.peer.sendall(data[6:])
    assert pair.connection.receive().value == "whole"


# --- a sleeper's connection taken over -----------------------------------------------------------


def wait_until_taken(waiter: Any) -> Any:
    """The connection that a sleeping thread reads, once it sleeps."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        taken = waiter.take_reading()
        if taken is not None:
            return taken
        time.sleep(0.001)
    raise AssertionError("the thread does not sleep")


def test_the_connection_of_a_sleeping_thread_can_be_taken(
    codec: Any, pair: Any, spawn: Any
) -> None:
    """The thread does not read it any more, whatever arrives, and sleeps until it is woken."""
    task = spawn(pair.connection.exchange, b"call", pair.waiter)
    assert pair.read(4) == b"call"
    assert wait_until_taken(pair.waiter) is pair.connection
    pair.peer.sendall(msgpack.packb([0, 7, "plugin.GetStatus", []]))
    mine = codec.Waiter()
    assert pair.connection.exchange(b"", mine).msgid == 7
    assert task.is_alive()
    pair.waiter.wake()
    assert task.result() is None
    assert pair.waiter.take_reading() is None
    mine.release()
    mine.close()


def test_half_a_request_goes_with_the_connection(codec: Any, pair: Any, spawn: Any) -> None:
    data = msgpack.packb([0, 7, "plugin.GetStatus", []])
    task = spawn(pair.connection.exchange, b"call", pair.waiter)
    pair.peer.sendall(data[:5])
    deadline = time.monotonic() + PATIENCE
    while pair.connection.pending < 5 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert wait_until_taken(pair.waiter) is pair.connection
    pair.peer.sendall(data[5:])
    mine = codec.Waiter()
    assert pair.connection.exchange(b"", mine).msgid == 7
    pair.waiter.wake()
    assert task.result() is None
    mine.release()
    mine.close()


def test_a_woken_thread_still_has_its_connection(pair: Any) -> None:
    pair.waiter.wake()
    assert pair.connection.exchange(b"call", pair.waiter) is None
    assert pair.waiter.take_reading() is pair.connection
    assert pair.waiter.take_reading() is None
