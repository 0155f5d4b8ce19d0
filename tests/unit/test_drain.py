"""Requests that are refused before all of them has come."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from kong_pdk.server import drain as module
from kong_pdk.server.drain import Drain

ANSWER = b"an answer"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, kong = socket.socketpair()
    kong.settimeout(5)
    yield ours, kong
    ours.close()
    kong.close()


Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any silence is long enough."""
    monkeypatch.setattr(module, "QUIET", 0.0)


def test_the_end_is_known(pair: Pair) -> None:
    ours, kong = pair
    drain = Drain(ours, ANSWER, 10)
    kong.sendall(b"x" * 6)
    drain.read()
    drain.tick()
    assert drain.done is None
    kong.sendall(b"x" * 4 + b"next request")  # what comes after it is left alone
    drain.read()
    assert drain.done is True
    assert kong.recv(100) == ANSWER
    assert ours.recv(100) == b"next request"


def test_the_end_is_not_known(pair: Pair, silent: None) -> None:
    ours, kong = pair
    drain = Drain(ours, ANSWER)
    kong.sendall(b"x" * 100)
    drain.read()
    drain.tick()
    assert drain.done is None, "Kong has not taken the answer yet"
    assert kong.recv(100) == ANSWER
    drain.tick()
    assert drain.done is True


def test_kong_goes_on_sending_after_a_pause(pair: Pair, silent: None) -> None:
    """It has not looked for the answer yet, so this is still the same request."""
    ours, kong = pair
    drain = Drain(ours, ANSWER)
    drain.tick()
    kong.sendall(b"x" * 100)
    drain.read()
    drain.tick()
    assert drain.done is None
    assert kong.recv(100) == ANSWER
    drain.tick()
    assert drain.done is True


@pytest.mark.parametrize(
    ("data", "goes_on"),
    [
        (b"x", False),
        (b"\x94\x00\x05\xa1x\x90", False),
        (b"\x94\x00\x05\xabplugin.Step\x91", True),
        (b"\x94\x00\xcd\x0a\x0a\xd9\x24plugin.HandleEvent", True),
        (b" \x94\x00\x05\xabplugin.Step\x91", False),
    ],
)
def test_the_rest_or_the_next_request(pair: Pair, silent: None, data: bytes, goes_on: bool) -> None:
    ours, kong = pair
    drain = Drain(ours, ANSWER)
    drain.tick()
    assert kong.recv(100) == ANSWER
    kong.sendall(data)
    drain.read()
    assert drain.done is goes_on
    assert ours.recv(100) == data, "nothing of it is lost"


def test_silence_is_waited_for(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, kong = pair
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    drain = Drain(ours, ANSWER)
    now += module.QUIET - 0.01
    kong.sendall(b"x")
    drain.read()
    now += module.QUIET - 0.01
    drain.tick()
    ours.setblocking(False)
    kong.setblocking(False)
    with pytest.raises(BlockingIOError):
        kong.recv(1)
    now += 0.02
    drain.tick()
    assert kong.recv(100) == ANSWER


def test_less_is_missing_than_was_said(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has counted may have died before all was counted."""
    ours, kong = pair
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    drain = Drain(ours, ANSWER, 10)
    kong.sendall(b"x" * 5)
    drain.read()
    now += module.LONG_QUIET + 0.01
    drain.tick()
    assert kong.recv(100) == ANSWER
    drain.tick()
    assert drain.done is True


@pytest.mark.parametrize("missing", [0, 10])
def test_kong_goes_away(pair: Pair, missing: int) -> None:
    ours, kong = pair
    drain = Drain(ours, ANSWER, missing)
    kong.close()
    drain.read()
    assert drain.done is False
    drain.finish()
    assert ours.fileno() == -1


def test_it_has_an_end(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = pair
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    drain = Drain(ours, ANSWER)
    now += module.PATIENCE + 1
    drain.tick()
    assert drain.done is False


def test_at_a_stop_it_is_answered_at_once(pair: Pair) -> None:
    ours, kong = pair
    Drain(ours, ANSWER, 1000).finish()
    assert kong.recv(100) == ANSWER
    assert kong.recv(100) == b""
