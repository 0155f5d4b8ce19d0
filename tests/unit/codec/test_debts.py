"""What a connection owes, as it knows it and as others see it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from kong_pdk import _wire
from kong_pdk.exception import ConnectionClosed, MessageTooLarge, NestingTooDeep, ProtocolError

SLOT = 1
ERROR, EXIT, POLICY, REST = (
    _wire.OWES_ERROR, _wire.OWES_EXIT, _wire.OWES_POLICY, _wire.OWES_REST,
)  # fmt: skip


class Line:
    """A connection of Kong's, and the memory in which it notes what it owes."""

    def __init__(self, codec: Any, **bounds: int) -> None:
        ours, self.kong = socket.socketpair()
        self.kong.settimeout(10)
        self.connection = codec.Connection(ours, **bounds)
        self.memory = bytearray(8 * _wire.DEBT_SIZE * 3)
        self.connection.share(self.memory, SLOT)

    @property
    def numbers(self) -> list[int]:
        return memoryview(self.memory).cast("Q").tolist()[_wire.DEBT_SIZE * SLOT :][:3]

    @property
    def noted(self) -> int:
        return self.numbers[0]

    def ask(self, message: Any) -> Any:
        self.kong.sendall(msgpack.packb(message))
        return self.connection.receive()

    def close(self) -> None:
        self.kong.close()
        self.connection.close()


@pytest.fixture
def line(codec: Any) -> Iterator[Line]:
    made = Line(codec)
    yield made
    made.close()


def event(instance: int, phase: str) -> list[Any]:
    return [0, 5, "plugin.HandleEvent", [{"InstanceId": instance, "EventName": phase}]]


def step(event_id: int, value: Any = None, msgid: int = 5) -> list[Any]:
    return [0, msgid, "plugin.Step", [{"EventId": event_id, "Data": value}]]


@pytest.mark.parametrize(
    ("message", "owes"),
    [
        (event(7, "access"), 5 | EXIT),
        (event(7, "response"), 5 | EXIT),
        (event(7, "log"), 5 | ERROR),
        (event(7, "certificate"), 5 | ERROR),
        (event(8, "access"), 5 | ERROR),
        (step(9), 5 | EXIT),
        (step(8), 5 | ERROR),
        (step(2**60 + 1), 5 | EXIT),
        ([0, 5, "plugin.StepError", [{"EventId": 9, "Data": "x"}]], 5 | EXIT),
        ([0, 5, "plugin.StartInstance", [{"Name": "x"}]], 5 | ERROR),
        ([0, 2**48 - 1, "plugin.GetStatus", []], 2**48 - 1 | ERROR),
        ([0, 2**48, "plugin.GetStatus", []], _wire.OWES_UNKNOWN),
        ([0, -1, "plugin.GetStatus", []], _wire.OWES_UNKNOWN),
        ([0, 0, "plugin.GetStatus", []], ERROR),
        ([2, "label", []], 0),
    ],
)
def test_a_request_is_owed_its_answer(line: Line, message: list[Any], owes: int) -> None:
    request = line.ask(message)
    assert line.connection.owes == line.noted == owes
    assert line.numbers[1] == pytest.approx(1000 * request.at, abs=1) or not owes


@pytest.mark.parametrize("send", ["send", "send_nowait"])
def test_an_answer_settles_it(line: Line, send: str) -> None:
    line.ask(step(9))
    getattr(line.connection, send)(b"answer")
    assert line.connection.owes == line.noted == 0


def test_nothing_that_is_sent_settles_nothing(line: Line) -> None:
    line.ask(step(9))
    line.connection.send_nowait(b"")
    assert line.connection.owes == line.noted == 5 | EXIT


def test_half_an_answer_settles_nothing(line: Line) -> None:
    line.ask(step(9))
    answer = b"x" * 4_000_000
    sent = line.connection.send_nowait(answer)
    assert 0 < sent < len(answer)
    assert line.noted == line.connection.owes == 5 | EXIT | _wire.OWES_CUT
    while sent < len(answer):
        line.kong.recv(1 << 20)
        sent = line.connection.send_nowait(answer, sent)
    assert line.connection.owes == line.noted == 0


def test_without_memory_it_knows_it_alone(codec: Any) -> None:
    ours, kong = socket.socketpair()
    with kong:
        connection = codec.Connection(ours)
        assert (connection.slot, connection.owes) == (-1, 0)
        kong.sendall(msgpack.packb(step(9)))
        assert connection.receive() is not None
        assert connection.owes == 5 | EXIT
        connection.send(b"x")
        assert connection.owes == 0
        connection.close()


@pytest.mark.parametrize("end", ["close", "shutdown"])
def test_nothing_is_owed_on_what_is_closed(line: Line, end: str) -> None:
    line.ask(step(9))
    getattr(line.connection, end)()
    assert line.connection.owes == line.noted == 0


def test_who_takes_the_socket_away_takes_the_debt_over(line: Line) -> None:
    line.ask(step(9))
    sock = line.connection.detach()
    assert line.connection.fileno() == -1
    assert (line.connection.owes, line.noted) == (0, 5 | EXIT)
    line.connection.close()
    assert line.noted == 5 | EXIT
    sock.sendall(b"still open")
    assert line.kong.recv(20) == b"still open"
    sock.close()


@pytest.mark.parametrize("slot", [-1, 3, 10**6])
def test_a_slot_that_is_not_there(line: Line, slot: int) -> None:
    with pytest.raises(IndexError, match="no slot"):
        line.connection.share(line.memory, slot)


@pytest.mark.parametrize("memory", [b"x" * 100, "x", None])
def test_memory_that_is_none(line: Line, memory: Any) -> None:
    with pytest.raises((TypeError, BufferError)):
        line.connection.share(memory, 0)
        line.ask(step(9))


def test_what_is_read_is_there_before_it_is_noted(line: Line) -> None:
    """The kernel writes it into the memory, and nothing is lost of it."""
    frame = msgpack.packb(step(9, "y" * 30_000))
    line.kong.sendall(frame)
    request = line.connection.receive()
    assert request.value == "y" * 30_000
    begin = 8 * (_wire.DEBT_SIZE * SLOT + 4)
    assert line.memory[begin : begin + _wire.HEAD_SIZE] == frame[: _wire.HEAD_SIZE]
    line.connection.send(b"x")
    assert line.ask(step(8)).target == 8
    short = msgpack.packb(step(8)).ljust(_wire.HEAD_SIZE, b"\0")
    assert line.memory[begin : begin + _wire.HEAD_SIZE] == short


def test_whether_something_is_read_that_is_not_noted(line: Line) -> None:
    reading = _wire.DEBT_SIZE * SLOT + 3

    def is_reading() -> int:
        return memoryview(line.memory).cast("Q").tolist()[reading]

    assert line.connection.receive() is None
    assert not is_reading()
    line.ask(step(9))
    assert not is_reading()
    line.kong.close()
    with pytest.raises(ConnectionClosed):
        line.connection.receive()
    assert not is_reading()


# --- requests that are not complete ---------------------------------------------------------------


def test_half_a_request(line: Line) -> None:
    frame = msgpack.packb(step(9, b"x" * 1000))
    line.kong.sendall(frame[:600])
    assert line.connection.receive() is None
    assert line.noted == 5 | EXIT | REST
    assert line.connection.missing == line.numbers[2] == len(frame) - 600
    line.kong.sendall(frame[600:])
    assert line.connection.receive() is not None
    assert line.noted == 5 | EXIT


@pytest.mark.parametrize(
    ("argument", "owes"),
    [
        ({"EventId": 9, "Data": b"x" * 500}, 5 | EXIT),
        ({"EventId": 8, "Data": b"x" * 500}, 5 | ERROR),
        ({"Data": b"x" * 500, "EventId": 9}, 5 | POLICY),
    ],
)
def test_what_half_a_step_tells(line: Line, argument: dict[str, Any], owes: int) -> None:
    line.kong.sendall(msgpack.packb([0, 5, "plugin.Step", [argument]])[:300])
    assert line.connection.receive() is None
    assert line.noted == owes | REST
    known = next(iter(argument)) == "EventId"
    assert bool(line.numbers[2]) is known, "as what follows the value cannot be told"


@pytest.mark.parametrize(
    ("method", "owes"),
    [
        ("plugin.HandleEvent", POLICY), ("plugin.Step", POLICY), ("x", POLICY), (None, POLICY),
        ("plugin.StartInstance", ERROR), ("plugin.CloseInstance", ERROR),
        ("plugin.InstanceStatus", ERROR), ("plugin.GetPluginInfo", ERROR),
        ("plugin.GetPluginNames", ERROR), ("plugin.GetStatus", ERROR),
    ],
)  # fmt: skip
def test_what_half_a_call_tells(line: Line, method: Any, owes: int) -> None:
    line.kong.sendall(msgpack.packb([0, 5, method, ["x" * 300]])[:200])
    assert line.connection.receive() is None
    assert line.noted == 5 | owes | REST


@pytest.mark.parametrize("method", ["foo", "plugin.Foo", "y" * 150, 5, True, ["x"], None])
def test_a_client_cannot_plant_a_method_that_changes_what_is_owed(line: Line, method: Any) -> None:
    """``?_method=…`` names the method of a step, large or small."""
    argument = {"EventId": 9, "Data": "z" * 500}
    frame = msgpack.packb([0, 5, method, [argument]])
    line.kong.sendall(frame[:300])
    assert line.connection.receive() is None
    assert line.noted in (5 | EXIT | REST, 5 | POLICY | REST)
    line.kong.sendall(frame[300:])
    assert line.connection.receive() is not None
    assert line.noted == 5 | EXIT


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_very_little_of_a_request(line: Line, size: int) -> None:
    line.kong.sendall(msgpack.packb(step(9))[:size])
    assert line.connection.receive() is None
    assert line.noted == (_wire.OWES_UNKNOWN if size < 3 else 5 | POLICY) | REST


def test_a_request_that_is_too_large(codec: Any) -> None:
    line = Line(codec, max_message=1000)
    frame = msgpack.packb(step(9, b"x" * 5000))
    line.kong.sendall(frame[:2000])
    with pytest.raises(MessageTooLarge):
        line.connection.receive()
    assert line.connection.owes & ~REST == 5 | EXIT
    assert line.connection.missing == len(frame) - 2000
    line.close()


@pytest.mark.parametrize(
    "argument", [{"Data": b"x" * 5000, "EventId": 9}, {"EventId": 9, "Data": ["x" * 5000, 1]}]
)
def test_a_request_that_is_too_large_and_whose_end_is_not_known(
    codec: Any, argument: dict[str, Any]
) -> None:
    line = Line(codec, max_message=1000)
    line.kong.sendall(msgpack.packb([0, 5, "plugin.Step", [argument]])[:2000])
    with pytest.raises(MessageTooLarge):
        line.connection.receive()
    assert line.connection.missing == 0
    line.close()


def test_a_request_that_is_too_deep(codec: Any) -> None:
    line = Line(codec, max_depth=5)
    line.kong.sendall(msgpack.packb(step(9, [[[[[[]]]]]])))
    with pytest.raises(NestingTooDeep):
        line.connection.receive()
    assert line.connection.owes & ~REST == 5 | EXIT
    line.close()


@pytest.mark.parametrize("garbage", [b"\x01", b"\x91\x00", b"\xc1", b"\x94\x00\x05\xc1"])
def test_garbage_is_owed_nothing_that_could_be_said(line: Line, garbage: bytes) -> None:
    line.kong.sendall(garbage + b"\x00" * 4)
    with pytest.raises(ProtocolError):
        line.connection.receive()
    assert line.connection.owes & ~REST in (_wire.OWES_UNKNOWN, 5 | POLICY)


# --- other processes ------------------------------------------------------------------------------


def test_a_connection_that_is_lent(codec: Any, line: Line) -> None:
    line.ask(step(9))
    owes = line.connection.lend(1023)
    assert line.noted == owes == 5 | EXIT | _wire.OWES_LENT | 1023 << _wire.OWES_OWNER
    assert line.connection.owes == 0
    line.connection.send(b"x")
    assert line.noted == owes, "what another one owes is its own business"
    assert line.connection.reclaim(owes)
    assert line.noted == line.connection.owes == 5 | EXIT


def test_what_has_been_answered_cannot_be_reclaimed(line: Line) -> None:
    line.ask(step(9))
    owes = line.connection.lend(1)
    line.memory[:] = bytes(len(line.memory))
    assert not line.connection.reclaim(owes)
    assert line.connection.owes == line.noted == 0


def test_an_answer_does_not_settle_the_next_request(codec: Any, line: Line) -> None:
    """Kong may be faster than the process that has answered for the reader."""
    line.ask(step(9))
    owes = line.connection.lend(1)
    other, end = socket.socketpair()
    borrower = codec.Connection(other)
    borrower.share(line.memory, SLOT, owes)
    assert borrower.owes == owes
    line.ask(step(9, msgid=6))
    borrower.send(b"answer to 5")
    assert (borrower.owes, line.noted) == (0, 6 | EXIT)
    borrower.close()
    end.close()
