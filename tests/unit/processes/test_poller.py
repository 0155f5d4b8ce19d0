"""What the parent sleeps on: it hears of data where it wants to, and of the end of connections."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from kong_pdk.processes import poller as module
from kong_pdk.processes.poller import Poller


@pytest.fixture(params=["native", "poll"])
def poller(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Poller]:
    """With what this system has best, and with what all have."""
    if request.param == "poll":
        import select

        monkeypatch.setattr(module, "_EPOLL", False)
        monkeypatch.setattr(module, "_READ", select.POLLIN)
        monkeypatch.setattr(module, "_HANGUP", 0)
    made = Poller()
    yield made
    made.close()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_what_is_readable(poller: Poller, ends: tuple[socket.socket, socket.socket]) -> None:
    called: list[int] = []
    poller.watch(ends[0], lambda: called.append(1))
    poller.turn(0)
    assert called == []
    ends[1].send(b"x")
    poller.turn(5)
    poller.turn(5)
    assert called == [1, 1]
    poller.forget(ends[0])
    poller.forget(ends[0])
    poller.turn(0)
    assert called == [1, 1]


def test_the_end_of_a_connection(poller: Poller, ends: tuple[socket.socket, socket.socket]) -> None:
    called: list[int] = []
    poller.watch_end(ends[0], lambda: called.append(1))
    ends[1].send(b"x")
    poller.turn(0)
    assert called == []
    ends[1].close()
    poller.turn(5)
    assert called == [1]


def test_a_duplicate_that_is_shut_down_elsewhere(
    poller: Poller, ends: tuple[socket.socket, socket.socket]
) -> None:
    called: list[int] = []
    with ends[0].dup() as duplicate:
        poller.watch_end(duplicate, lambda: called.append(1))
        ends[0].shutdown(socket.SHUT_RDWR)
        poller.turn(5)
        assert called == [1]
        poller.forget(duplicate)


def test_one_callback_may_forget_another(poller: Poller) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    called: list[int] = []

    def first_come(number: int) -> None:
        called.append(number)
        poller.forget(pairs[1 - number][0])

    for number, (ours, theirs) in enumerate(pairs):
        poller.watch(ours, lambda number=number: first_come(number))  # type: ignore[misc]
        theirs.send(b"x")
    poller.turn(5)
    assert len(called) == 1
    for pair in pairs:
        for sock in pair:
            sock.close()
