"""Threads: each handler has a real one of its own while it runs; they are bounded, and they end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from kongwire import Connection, Kong, RemoteError
from servers import Flavour, Start, running, wait_until

PLUGINS = Path(__file__).parent / "plugins"
pytestmark = pytest.mark.modes("threads", "processes")

NATIVE = """
import threading

def access(self, kong):
    native, thread = threading.get_native_id(), threading.current_thread()
    assert thread.native_id == native and thread is not threading.main_thread()
    same = []
    for number in range(6):
        kong.log(native)
        same.append(threading.get_native_id() == native and threading.current_thread() is thread)
    kong.response.exit(200, same)
"""
#: How a handler keeps its thread where no library of Python's could let others run, and its end.
STUCK = {
    "read": ("os.read(self.a, 1)", "os.write(self.b, b'x')"),
    "ctypes": (
        "ctypes.CDLL(None).read(self.a, ctypes.create_string_buffer(1), 1)",
        "os.write(self.b, b'x')",
    ),
    "computing": ("while not self.go: sum(range(1000))", "self.go = True"),
}
STICKING = """
import ctypes, os, threading

def start(self, config):
    self.go, self.inside = False, threading.Semaphore(0)
    self.a, self.b = os.pipe()

def access(self, kong):
    kong.log("before")
    self.inside.release()
    STUCK
    kong.log("after")

def rewrite(self, kong): self.inside.acquire()

def response(self, kong):
    END

def log(self, kong):
    os.close(self.a)
    os.close(self.b)
"""
WAITS = "def access(self, kong): kong.log(self.config['name'])"


@pytest.mark.one_process
def test_each_handler_has_a_thread_and_keeps_it(kong: Kong) -> None:
    instance = kong.start_author(NATIVE)
    connections = [kong.connect() for _ in range(12)]
    turns = [one.handle_event(instance) for one in connections]
    threads = [turn.args[0] for turn in turns]
    assert len(set(threads)) == len(threads)
    for _ in range(6):
        connections.append(connections.pop(0))  # each step on the neighbour's connection
        assert [turn.args[0] for turn in turns] == threads
        turns = [one.step(turn.event_id) for one, turn in zip(connections, turns)]
    assert [turn.args for turn in turns] == [[200, [True] * 6]] * len(turns)


@pytest.mark.one_process
@pytest.mark.parametrize("how", STUCK)
def test_a_handler_that_lets_nobody_run_holds_nobody_up(kong: Kong, how: str) -> None:
    stuck, end = STUCK[how]
    instance = kong.start_author(STICKING.replace("STUCK", stuck).replace("END", end))
    other = kong.start_author(WAITS, name="other")
    with kong.connect() as connection:
        msgid = connection.send_step(connection.handle_event(instance).event_id)
        assert kong.handle_event(instance, "rewrite").is_return  # it is in there
        for _ in range(10):
            assert kong.run_event(other).calls == [("kong.log", ["other"])]
        assert not connection.has_data()
        assert kong.handle_event(instance, "response").is_return
        turn = connection.turn(msgid)
        assert turn.args == ["after"]
        assert connection.step(turn.event_id).is_return
    assert kong.handle_event(instance, "log").is_return


# --- --threads ------------------------------------------------------------------------------------


def begun(sent: list[tuple[Connection, int]]) -> list[tuple[Connection, int]]:
    """Those of the events sent whose handlers have made their call."""
    return [(connection, msgid) for connection, msgid in sent if connection.has_data()]


@pytest.mark.one_process
@pytest.mark.parametrize("limit", [1, 4])
def test_no_more_handlers_than_threads_run_at_the_same_time(start: Start, limit: int) -> None:
    source = """
import threading
def access(self, kong): kong.log(threading.get_native_id())
"""
    threads = set()
    with start("--threads", str(limit)).kong() as kong, kong.connect() as fresh:
        instance = kong.start_author(source)
        waiting = [(one, one.send_event(instance)) for one in (kong.connect() for _ in range(12))]
        while waiting:
            wait_until(lambda: len(begun(waiting)) == limit, "as many as may have begun")
            for connection, msgid in begun(waiting):
                turn = connection.turn(msgid)
                threads.add(turn.args[0])
                waiting.remove((connection, msgid))
                # Order is kept on each connection only, so whoever has begun gets its step; and
                # that needs no free thread.
                assert fresh.step(turn.event_id).is_return
    assert len(threads) == limit


#: A server whose idle threads end at once; the flags have no word for it.
IMPATIENT = """
import sys
from kong_pdk.config import ServerConfig
from kong_pdk.plugins import load_directory
from kong_pdk.server.lifecycle import serve

serve(load_directory(sys.argv[1]), ServerConfig(prefix=sys.argv[2], idle_timeout=0.0))
"""


@pytest.mark.modes("threads")
def test_idle_threads_end(flavour: Flavour, prefix: Path) -> None:
    command = [sys.executable, "-c", IMPATIENT, str(PLUGINS), str(prefix)]
    with running(command, prefix, env=flavour.env) as server, server.kong() as kong:
        instance = kong.start_author(WAITS, name="x")
        for _ in range(2):  # and new ones are made
            connections = [kong.connect() for _ in range(30)]
            turns = [one.handle_event(instance) for one in connections]
            assert server.threads() > 30
            for connection, turn in zip(connections, turns):
                assert connection.step(turn.event_id).is_return
            wait_until(lambda: server.threads() < 5, "idle threads have ended")
            for connection in connections:  # those that lingered have given them back
                turn = connection.handle_event(instance)
                assert connection.step(turn.event_id).is_return


RECURSES = """
import sys

def access(self, kong):
    def down():
        kong.request.get_headers()
        down()

    sys.setrecursionlimit(150)
    down()

def rewrite(self, kong):
    sys.setrecursionlimit(1000)
"""


def test_a_handler_without_an_end_harms_nobody(start: Start) -> None:
    """Its stack may be at an end in the middle of our own code."""
    server = start()
    with server.kong() as kong:
        instance = kong.start_author(RECURSES)
        with kong.connect() as connection:
            try:
                turn = connection.handle_event(instance)
                while turn.function == "kong.request.get_headers":
                    turn = connection.step(turn.event_id, {"a": ["b"]})
                assert turn.function in ("kong.log.err", "kong.response.exit")
            except (ConnectionError, RemoteError):
                pass  # cut: what had arrived was lost
        assert kong.handle_event(instance, "rewrite").is_return
    server.stop()
