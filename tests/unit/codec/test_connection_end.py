"""Connection: how it ends, by either side, and what each end is called."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

import msgpack
import pytest

from kong_pdk.exception import (
    ConnectionClosed,
    MessageTooLarge,
    NestingTooDeep,
    ProtocolError,
    ReplyLost,
)

PATIENCE = 30.0  # for what is about to happen; reached only by a failure
LARGE = 8 << 20  # far more than a socket's buffers hold

GET_STATUS = msgpack.packb([0, 77, "plugin.GetStatus", []])


def step(event_id: int, value: Any = None) -> bytes:
    return msgpack.packb([0, event_id, "plugin.Step", [{"EventId": event_id, "Data": value}]])


@pytest.mark.parametrize("how", ["receive", "exchange"])
def test_end_of_stream(pair: Any, how: str) -> None:
    def read() -> Any:
        if how == "receive":
            return pair.connection.receive()
        return pair.connection.exchange(b"", pair.waiter)

    pair.peer.sendall(step(1) + step(2)[:5])
    pair.peer.close()
    assert read().msgid == 1  # what came before the end is answered
    for _ in range(2):
        with pytest.raises(ConnectionClosed, match=r"^closed by the peer$") as caught:
            read()
        assert type(caught.value) is ConnectionClosed
        assert isinstance(caught.value, ConnectionError)


@pytest.mark.parametrize("how", ["receive", "exchange"])
def test_a_peer_that_has_not_read_its_reply(pair: Any, how: str) -> None:
    pair.connection.send(b"reply")
    pair.peer.close()
    with pytest.raises(ReplyLost, match=r"^cannot read: Connection reset by peer$"):
        if how == "receive":
            pair.connection.receive()
        else:
            pair.connection.exchange(b"", pair.waiter)


@pytest.mark.parametrize("how", ["send", "send_nowait", "exchange"])
def test_a_peer_that_is_gone_before_the_reply(pair: Any, how: str) -> None:
    pair.peer.close()
    with pytest.raises(ReplyLost, match=r"^cannot write: Broken pipe$"):
        if how == "exchange":
            pair.connection.exchange(b"reply", pair.waiter)
        else:
            getattr(pair.connection, how)(b"reply")


def test_a_peer_that_goes_in_the_middle_of_the_reply(pair: Any, spawn: Any) -> None:
    task = spawn(pair.connection.send, bytes(LARGE))
    assert pair.read(1) == b"\0"
    pair.peer.close()
    with pytest.raises(ReplyLost, match=r"^cannot write: "):
        task.result()


def test_an_exchange_whose_peer_goes(pair: Any, spawn: Any) -> None:
    task = spawn(pair.connection.exchange, b"call", pair.waiter)
    assert pair.read(4) == b"call"
    pair.peer.close()
    with pytest.raises(ConnectionClosed, match=r"^closed by the peer$"):
        task.result()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", ProtocolError),
        (b"\x90", ProtocolError),
        (step(1, "x" * 100), MessageTooLarge),
        (step(1, [[[[1]]]]), NestingTooDeep),
    ],
    ids=["start", "request", "size", "depth"],
)
@pytest.mark.parametrize("how", ["receive", "exchange"])
def test_what_is_no_request(small: Any, data: bytes, error: type, how: str) -> None:
    small.peer.sendall(step(1) + data)
    small.peer.shutdown(socket.SHUT_WR)
    assert small.connection.receive().msgid == 1
    consumed = small.connection.consumed
    seen = []
    for _ in range(3):
        with pytest.raises(ProtocolError) as caught:
            if how == "receive":
                small.connection.receive()
            else:
                small.connection.exchange(b"x", small.waiter)
        seen.append(caught.value)
    assert type(seen[0]) is error
    assert seen[1] is seen[0] and seen[2] is seen[0]
    assert small.connection.consumed == consumed


def test_close_twice(pair: Any) -> None:
    assert pair.connection.fileno() >= 0
    pair.connection.close()
    assert pair.connection.fileno() == -1
    pair.connection.close()
    assert pair.read(1) == b""


@pytest.mark.parametrize("how", ["receive", "send", "send_nowait", "exchange"])
def test_a_closed_connection_says_so(pair: Any, how: str) -> None:
    pair.connection.close()
    pair.waiter.wake()  # an exchange that does not notice must not sleep for ever
    with pytest.raises(ConnectionClosed):
        if how == "receive":
            pair.connection.receive()
        elif how == "exchange":
            pair.connection.exchange(b"", pair.waiter)
        else:
            getattr(pair.connection, how)(b"x")


def test_shutdown_by_another_thread_ends_an_exchange(pair: Any, spawn: Any) -> None:
    task = spawn(pair.connection.exchange, b"call", pair.waiter)
    assert pair.read(4) == b"call"
    pair.connection.shutdown()
    with pytest.raises(ConnectionClosed):
        task.result()
    assert pair.connection.fileno() >= 0  # closing is for its owner


def test_shutdown_by_another_thread_ends_a_send(pair: Any, spawn: Any) -> None:
    task = spawn(pair.connection.send, bytes(LARGE))
    assert pair.read(1) == b"\0"
    pair.connection.shutdown()
    with pytest.raises(ReplyLost):
        task.result()


def test_shutdown_may_come_late_and_again(pair: Any) -> None:
    pair.connection.shutdown()
    pair.connection.shutdown()
    pair.connection.close()
    pair.connection.shutdown()


TIMEOUT_SCRIPT = """
import importlib, socket, sys
from kong_pdk import _wire
_wire.SEND_TIMEOUT_MS = 1  # the compiled codec takes it over when it is imported
from kong_pdk.exception import ReplyLost
codec = importlib.import_module(sys.argv[1])
ours, theirs = socket.socketpair()
try:
    codec.Connection(ours).send(bytes(8 << 20))
except ReplyLost as exc:
    sys.exit(str(exc))
"""


def test_a_peer_that_never_reads_its_reply(codec: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", TIMEOUT_SCRIPT, codec.__name__],
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert (done.returncode, done.stderr.strip()) == (1, "the peer does not read its reply")
