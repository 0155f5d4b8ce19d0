"""At a bound the server refuses what is too much, says so once, and recovers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from failures import refused
from kongwire import Connection, Kong, RemoteError, pack
from servers import Flavour, Server, Start, wait_until

ONE_CODEC = True

#: Waits until there is a file.
HOLDS = """
import os, time
def wait(path):
    while not os.path.exists(path):
        time.sleep(0.02)
def access(self, kong):
    wait(self.config["path"])
def log(self, kong):
    wait(self.config["path"])
"""
BUSY = [
    503,
    '{"message":"Service unavailable"}',
    {"Content-Type": "application/json; charset=utf-8"},
]


@pytest.mark.one_process
@pytest.mark.parametrize(("phase", "threads"), [("access", 2), ("log", 2), ("access", None)])
def test_too_many_events(
    start: Start, flavour: Flavour, tmp_path: Path, phase: str, threads: Optional[int]
) -> None:
    limited = flavour.mode != "gevent" and threads is not None
    # Else as many as by default: more than there may be events.
    server = start("--max-events", "6", *(("--threads", str(threads)) if limited else ()))
    path = tmp_path / "go"
    with server.kong() as kong, contextlib.ExitStack() as stack:
        instance = kong.start_author(HOLDS, path=str(path))
        held = [stack.enter_context(kong.connect()) for _ in range(6)]
        sent = [one.send_event(instance, phase) for one in held]
        for _ in range(3):
            wait_until(lambda: is_refused(kong, instance, phase), "an event to be refused")
        assert server.log.count("which is the limit (--max-events)") == 1
        path.touch()
        for one, msgid in zip(held, sent):
            assert one.turn(msgid).is_return, "those that were taken are run"
        wait_until(lambda: not is_refused(kong, instance, phase), "events to be taken again")
        server.wait_log("events are taken again")


@pytest.mark.one_process
@pytest.mark.modes("threads", "processes")
def test_a_peer_that_does_not_wait_to_be_refused(start: Start, tmp_path: Path) -> None:
    server = start("--max-events", "2", "--threads", "2")
    path = tmp_path / "go"
    with server.kong() as kong, contextlib.ExitStack() as stack:
        instance = kong.start_author(HOLDS, path=str(path))
        held = [stack.enter_context(kong.connect()) for _ in range(2)]
        sent = [one.send_event(instance) for one in held]
        wait_until(lambda: is_refused(kong, instance, "access"), "an event to be refused")
        event = pack([0, 1, "plugin.HandleEvent", [{"InstanceId": instance, "EventName": "log"}]])
        with kong.connect() as connection:
            with contextlib.suppress(ConnectionError):  # closed before all of it is sent
                connection.send_raw(event * 2000)
            wait_until(connection.is_closed_by_server, "the connection to be closed")
        path.touch()
        for one, msgid in zip(held, sent):
            assert one.turn(msgid).is_return
    assert "Traceback" not in server.log


def is_refused(kong: Kong, instance: int, phase: str) -> bool:
    with kong.connect() as connection:
        msgid = connection.send_event(instance, phase)
        with contextlib.suppress(TimeoutError):
            connection.sock.settimeout(1.0)
            try:
                turn = connection.turn(msgid)
            except RemoteError as exc:
                assert "too much to do" in str(exc) and phase == "log"
                return True
            if turn.is_return:
                return False
            assert (turn.function, turn.args) == ("kong.response.exit", BUSY)
            return True
    return False


@contextlib.contextmanager
def one_too_many(start: Start) -> Iterator[tuple[Server, list[Connection], Connection, int]]:
    """A server with as many connections as it may have, and one that waits with a request."""
    server = start("--max-connections", "3")
    with contextlib.ExitStack() as stack:
        open_ones = []
        for _ in range(3 * max(1, len(server.workers()))):
            open_ones.append(stack.enter_context(Connection(server.paths[0])))
            assert open_ones[-1].call("plugin.GetPluginNames") == ["author", "hello"]
        late = stack.enter_context(Connection(server.paths[0]))
        msgid = late.request("plugin.GetPluginNames")
        server.wait_log("which is the limit (--max-connections)")
        yield server, open_ones, late, msgid


def test_too_many_connections(start: Start) -> None:
    with one_too_many(start) as (_, open_ones, late, msgid):
        assert not late.has_data()
        open_ones.pop().close()
        assert late.result(msgid) == ["author", "hello"], "it has only waited"


def test_connections_that_wait_when_the_server_stops(start: Start) -> None:
    with one_too_many(start) as (server, _, late, msgid):
        server.stop()
        assert late.result(msgid) == ["author", "hello"]
    assert "still running" not in server.log and "killed" not in server.log


GETS_BODY = """
def access(self, kong):
    kong.request.get_raw_body()

def log(self, kong):
    kong.request.get_headers()
"""


def test_a_message_that_is_too_large(start: Start) -> None:
    """Kong sends all of it in any case; then it reads why, and the connection goes on."""
    server = start("--max-message", "10000")
    with server.kong() as kong, kong.connect() as connection:
        with pytest.raises(RemoteError, match=r"at least \d+ bytes, 10000 are allowed"):
            connection.call("plugin.GetPluginInfo", "x" * 20_000)
        assert connection.call("plugin.GetPluginNames") == ["author", "hello"]
        assert "max_message" in server.log


@pytest.mark.parametrize(
    ("flags", "phase", "closed"),
    [((), "access", True), ((), "log", False), (("--on-error", "open"), "access", False)],
)
def test_a_step_that_is_too_large_does_not_let_the_request_through(
    start: Start, flags: tuple[str, ...], phase: str, closed: bool
) -> None:
    server = start("--max-message", "1000000", *flags)
    with server.kong() as kong, kong.connect() as connection:
        turn = connection.handle_event(kong.start_author(GETS_BODY), phase)
        # More than the socket holds: the client would hang if nobody read the rest.
        msgid = connection.send_step(turn.event_id, b"x" * 3_000_000)
        if closed:
            assert refused(connection.turn(msgid))
        else:
            with pytest.raises(RemoteError, match="1000000 are allowed"):
                connection.turn(msgid)
        assert connection.call("plugin.GetPluginNames") == ["author", "hello"]


def test_a_step_that_is_too_large_whose_event_comes_last(start: Start) -> None:
    """The server's policy decides then."""
    server = start("--max-message", "10000")
    with server.kong() as kong, kong.connect() as connection:
        turn = connection.handle_event(kong.start_author(GETS_BODY))
        argument = {"Data": b"x" * 20_000, "EventId": turn.event_id}
        assert refused(connection.turn(connection.request("plugin.Step", argument)))


def test_a_message_that_is_too_deep(start: Start) -> None:
    server = start("--max-depth", "10")
    with server.kong() as kong, kong.connect() as connection:
        turn = connection.handle_event(kong.start_author(GETS_BODY))
        msgid = connection.send_step(turn.event_id, [[[[[[[[[[[1]]]]]]]]]]])
        assert refused(connection.turn(msgid))
        assert "max_depth" in server.log or "deeper than 10" in server.log
        assert connection.call("plugin.GetPluginNames") == ["author", "hello"]


@pytest.mark.parametrize("method", ["x", "plugin.Foo", "y" * 100, 5])
def test_a_client_cannot_plant_a_method_that_lets_its_large_body_through(
    start: Start, method: Any
) -> None:
    """``_method`` in a JSON body that is too large: Kong calls that in place of a step."""
    server = start("--max-message", "10000")
    with server.kong() as kong, kong.connect() as connection:
        turn = connection.handle_event(kong.start_author(GETS_BODY))
        msgid = connection.send_step(turn.event_id, {"_method": method, "x": "x" * 20_000}, method)
        assert refused(connection.turn(msgid))


@pytest.mark.modes("threads")
def test_no_request_waits_for_a_thread_until_kong_lets_it_through(start: Start) -> None:
    server = start("--threads", "1", "--answer-timeout", "1")
    source = "import time\ndef access(self, kong):\n    time.sleep(6)\n"
    with server.kong() as kong:
        instance = kong.start_author(source)
        first, second = kong.connect(), kong.connect()
        msgid = first.send_event(instance)
        waits = second.send_event(instance)
        assert refused(first.turn(msgid)), "its thread goes on"
        turn = second.turn(waits)
        assert (turn.function, turn.args[0]) == ("kong.response.exit", 503)
        assert "has waited too long for a thread (--threads)" in server.log
