"""Connections that come and go by the thousand, and are closed at whatever moment."""

from __future__ import annotations

import contextlib
import random

import pytest
from kongwire import Connection, Kong, pack
from servers import Server, wait_until

COUNT = 10_000
#: So many are open at the same time; they are closed in another order than they were opened in.
OPEN = 200
CALL = "def access(self, kong): kong.log(kong.request.get_header('x')[0])"
QUIET = "def access(self, kong): pass"


def event_frame(instance: int) -> bytes:
    return pack([0, 1, "plugin.HandleEvent", [{"InstanceId": instance, "EventName": "access"}]])


def rest(server: Server, kong: Kong, instance: int) -> tuple[int, int]:
    """Its sockets and threads when nothing is going on."""
    kong.run_event(instance)
    assert kong.call("plugin.GetPluginNames") == ["author", "hello"]
    return server.sockets(), server.threads()


class Crowd:
    """Connections of every kind.

    Args:
        server: that they go to.
        kong: steps on from a connection of its own where theirs is gone.
    """

    def __init__(self, server: Server, kong: Kong) -> None:
        self.path = server.paths[0]
        self.kong = kong
        self.calls, self.quiet = kong.start_author(CALL), kong.start_author(QUIET)
        self.waiting: list[int] = []  # events whose connection is closed, or will be
        self.open: list[Connection] = []

    def silent(self, connection: Connection, number: int) -> None:
        """Without a byte, as Kong 3.1 to 3.4 look whether the server lives."""

    def half(self, connection: Connection, number: int) -> None:
        """A part of a frame, cut anywhere."""
        frame = event_frame(self.calls)
        connection.send_raw(frame[: 1 + number % (len(frame) - 1)])

    def unread(self, connection: Connection, number: int) -> None:
        """An event whose reply nobody reads."""
        connection.send_event(self.quiet)

    def waits(self, connection: Connection, number: int) -> None:
        """An event that waits for its step when the connection is closed."""
        self.waiting.append(connection.handle_event(self.calls).event_id)

    def half_a_step(self, connection: Connection, number: int) -> None:
        """The same, with a part of the step."""
        self.waits(connection, number)
        frame = pack([0, 2, "plugin.Step", [{"EventId": self.waiting[-1], "Data": "lost"}]])
        connection.send_raw(frame[: 1 + number % (len(frame) - 1)])

    def ends(self, connection: Connection, number: int) -> None:
        """A whole event."""
        assert connection.handle_event(self.quiet).is_return

    KINDS = (silent, half, silent, unread, silent, half, waits, silent, half_a_step, ends)

    def run(self, count: int) -> None:
        """Open and close so many."""
        random_ = random.Random(11)
        for number in range(count):
            connection = Connection(self.path)
            self.open.append(connection)
            self.KINDS[number % len(self.KINDS)](self, connection, number)
            if len(self.open) > OPEN:
                self.open.pop(random_.randrange(OPEN)).close()
            if len(self.waiting) > OPEN:
                self.end(self.waiting.pop(0))
        self.close()
        while self.waiting:
            self.end(self.waiting.pop())

    def close(self) -> None:
        """Close all that are open."""
        while self.open:
            self.open.pop().close()

    def end(self, event_id: int) -> None:
        """Step through an event that has waited."""
        turn = self.kong.step(event_id, str(event_id))
        assert turn.args == [str(event_id)]
        assert self.kong.step(event_id).is_return


def test_ten_thousand_connections_opened_and_closed(kong: Kong, server: Server) -> None:
    with contextlib.closing(Crowd(server, kong)) as crowd:
        crowd.run(500)
        sockets, threads = rest(server, kong, crowd.quiet)
        crowd.run(COUNT)
        wait_until(lambda: server.sockets() <= sockets, "all connections are closed")
        assert server.threads() <= 2 * threads + 64  # as many as were at work at once; not COUNT
        run = kong.run_event(crowd.calls, answers={"kong.request.get_header": "y"})
        assert run.calls[-1] == ("kong.log", ["y"])


@pytest.mark.parametrize("then", ["closed", "reset"])
def test_a_connection_closed_after_each_byte(kong: Kong, server: Server, then: str) -> None:
    instance = kong.start_author(CALL)
    frame = event_frame(instance)
    sockets, _ = rest(server, kong, instance)
    for cut in range(1, len(frame)):
        with Connection(server.paths[0]) as connection:
            if then == "reset":  # what nobody has read makes the kernel say so
                connection.request("plugin.GetPluginNames")
                wait_until(connection.has_data, "the reply lies there")
            connection.send_raw(frame[:cut])
    wait_until(lambda: server.sockets() <= sockets, "all connections are closed")
    assert kong.run_event(instance).functions == ["kong.request.get_header", "kong.log"]
