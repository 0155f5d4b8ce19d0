"""At a bound the server refuses what is too much, says so once, and recovers."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from kongwire import Connection, Kong, RemoteError, pack
from servers import Flavour, Start, wait_until

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
@pytest.mark.parametrize("phase", ["access", "log"])
def test_too_many_events(start: Start, flavour: Flavour, tmp_path: Path, phase: str) -> None:
    threads = () if flavour.mode == "gevent" else ("--threads", "2")
    server = start("--max-events", "6", *threads)
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


def test_too_many_connections(start: Start) -> None:
    server = start("--max-connections", "3")
    open_ones = []
    for _ in range(3 * max(1, len(server.workers()))):
        open_ones.append(Connection(server.paths[0]))
        assert open_ones[-1].call("plugin.GetPluginNames") == ["author", "hello"]
    with Connection(server.paths[0]) as late:
        msgid = late.request("plugin.GetPluginNames")
        server.wait_log("which is the limit (--max-connections)")
        assert not late.has_data()
        open_ones.pop().close()
        assert late.result(msgid) == ["author", "hello"], "it has only waited"
    for one in open_ones:
        one.close()


def test_a_message_that_is_too_large(start: Start) -> None:
    server = start("--max-message", "10000")
    with server.kong() as kong:
        with kong.connect() as connection:
            connection.send_raw(pack([0, 1, "plugin.GetPluginInfo", ["x" * 20_000]])[:15_000])
            wait_until(connection.is_closed_by_server, "the connection to be closed")
        assert "max_message" in server.log
        assert kong.call("plugin.GetPluginNames") == ["author", "hello"]
