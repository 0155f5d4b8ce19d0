"""Channels: whole messages with descriptors, small and large, and what there is without any."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kong_pdk._wire import MAX_DEPTH_LIMIT
from kong_pdk.processes.channel import SMALL, Channel
from kong_pdk.processes.link import open_pair


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    ends = tuple(Channel(sock) for sock in open_pair())
    yield ends  # type: ignore[misc]
    for end in ends:
        end.close()


VALUES = {
    "simple": [None, True, 0, -1, 2**63, 1.5, "", "ä\udcff", b"\xff", [], {}, ("deal", 7)],
    "keys": {"a": [1, {"b": None}], 2: b"x", None: 1.0},
    "nearly large": "x" * (SMALL - 10),
    "large": "x" * SMALL,
    "larger": "ä\udcff" * (1 << 20),
    "many": [b"x" * 100] * 5000,
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_arrives_as_it_is(pair: tuple[Channel, Channel], name: str) -> None:
    one, other = pair
    for sender, receiver in ((one, other), (other, one)):
        sender.send(VALUES[name])
        assert receiver.receive() == (VALUES[name], [], False)


def test_a_value_as_deep_as_a_message_may_be(pair: tuple[Channel, Channel]) -> None:
    value: Any = []
    for _ in range(MAX_DEPTH_LIMIT):
        value = [value]
    pair[0].send(value)
    value, depth = pair[1].receive().value, 0
    while value:
        (value,), depth = value, depth + 1
    assert depth == MAX_DEPTH_LIMIT


def test_messages_stay_apart_and_in_order(pair: tuple[Channel, Channel]) -> None:
    for number in range(50):
        pair[0].send([number, "x" * (SMALL if number % 7 == 0 else 1)])
    assert [pair[1].receive().value[0] for _ in range(50)] == list(range(50))


@pytest.mark.parametrize("size", [1, SMALL, 1 << 21])
def test_descriptors_come_along(pair: tuple[Channel, Channel], size: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pair[0].send("x" * size, [theirs.fileno()])
        message = pair[1].receive()
        assert message.value == "x" * size
        (fd,) = message.fds
        assert fd != theirs.fileno()
        assert not os.get_inheritable(fd)
        with socket.socket(fileno=fd) as duplicate:
            duplicate.sendall(b"it is the same")
            assert ours.recv(100) == b"it is the same"


def test_large_messages_leave_no_descriptor(pair: tuple[Channel, Channel]) -> None:
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        pair[0].send("x" * (SMALL + 1))
        pair[1].receive()
    assert len(os.listdir("/dev/fd")) == before


def test_nothing_there(pair: tuple[Channel, Channel]) -> None:
    with pytest.raises(BlockingIOError):
        pair[0].receive()
    with pytest.raises(BlockingIOError):
        pair[0].receive(timeout=0.01)


def test_waiting_for_a_message(pair: tuple[Channel, Channel]) -> None:
    thread = threading.Timer(0.05, lambda: pair[0].send("late"))
    thread.start()
    assert pair[1].receive(timeout=None).value == "late"
    thread.join()


def fill(channel: Channel) -> int:
    count = 0
    while True:
        try:
            channel.send("x" * 1000)
        except BlockingIOError:
            return count
        count += 1


def test_a_full_channel(pair: tuple[Channel, Channel]) -> None:
    count = fill(pair[0])
    assert count > 0
    begin = time.monotonic()
    with pytest.raises(BlockingIOError, match="too slow"):
        pair[0].send("one too many", timeout=0.05)
    assert time.monotonic() - begin >= 0.05
    for _ in range(count):
        assert pair[1].receive().value == "x" * 1000
    pair[0].send("room again")
    assert pair[1].receive().value == "room again"


def test_waiting_for_room(pair: tuple[Channel, Channel]) -> None:
    count = fill(pair[0])
    thread = threading.Timer(0.05, lambda: [pair[1].receive() for _ in range(count)])
    thread.start()
    pair[0].send("last", timeout=None)
    thread.join()
    assert pair[1].receive().value == "last"


def test_the_other_end_is_closed(pair: tuple[Channel, Channel]) -> None:
    pair[1].send("the last word")
    pair[1].close()
    assert pair[0].receive().value == "the last word"
    with pytest.raises(EOFError):
        pair[0].receive()
    with pytest.raises(OSError):
        pair[0].send("to nobody")


def test_closed_with_messages_unread(pair: tuple[Channel, Channel]) -> None:
    pair[0].send("unread")
    pair[1].close()
    with pytest.raises(EOFError):
        pair[0].receive(timeout=None)


def test_what_cannot_be_sent(pair: tuple[Channel, Channel]) -> None:
    with pytest.raises(ValueError):
        pair[0].send(object())
    pair[0].send("still works")
    assert pair[1].receive().value == "still works"
