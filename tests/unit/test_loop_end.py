"""The loop ends when all that has arrived is read, however often it is turned before."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from kong_pdk._codec import Connection, Request
from kong_pdk.config import ServerConfig
from kong_pdk.server.loop import Loop

#: Turns at once, as by several watchers of a hub that has not run for a while.
TURNS = 10


class Reading:
    """A mode whose connections the loop reads when it says so, as the one with greenlets."""

    takes_connections = False

    def __init__(self) -> None:
        self.stopped = False

    def route(self, connection: Connection, request: Request) -> None: ...

    def tick(self, tick: int) -> None: ...

    def is_busy(self, connected: bool) -> bool:
        return False

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Kong's end of a connection, and the server's."""
    kong, ours = socket.socketpair()
    with kong, ours:
        yield kong, ours


def test_nothing_that_has_arrived_is_left_unread(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    kong, ours = pair
    mode, loop = Reading(), Loop(ServerConfig())
    loop.start(mode)
    loop.stop()
    kong.sendall(b"\x94")  # the first byte of a request
    loop.adopt(ours)
    for _ in range(TURNS):
        assert loop.turn(0), "it has ended, and nobody has read the connection"
    loop.close(next(iter(loop._connections)))
    assert not all(loop.turn(0) for _ in range(TURNS))
    assert mode.stopped


def test_connections_on_which_nothing_arrives_hold_up_no_end(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    mode, loop = Reading(), Loop(ServerConfig())
    loop.start(mode)
    loop.adopt(pair[1])
    loop.stop()
    assert not all(loop.turn(0) for _ in range(TURNS))
    assert mode.stopped
