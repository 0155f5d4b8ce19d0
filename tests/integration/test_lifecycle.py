"""The server's life: how it ends, and what it does not wait for."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest
from failures import refused
from kongwire import LIMIT, Connection, Kong, RemoteError
from servers import (
    DIRECTORY_SOCKETS,
    SERVER,
    Flavour,
    Server,
    Start,
    accepts,
    clean_environment,
    directory_command,
    is_alive,
    run_command,
    running,
    wait_until,
)

PLUGINS = Path(__file__).parent / "plugins"
ONE_CODEC = True
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
CALLS = """
def start(self, config): self.notes = []

def access(self, kong):
    try:
        kong.log("first")
        kong.log("second")
    finally:
        print("the end of the handler", flush=True)
"""
STUCK = """
import threading

def access(self, kong):
    threading.Event().wait()
"""
DEAF = """
import threading

def access(self, kong):
    try:
        kong.log("first")
    except BaseException:
        threading.Event().wait()
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_it(start: Start, number: signal.Signals) -> None:
    start().stop(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_with_idle_connections(start: Start, number: signal.Signals) -> None:
    server = start()
    with server.kong() as kong:
        fresh, called, used = kong.connect(), kong.connect(), kong.connect()
        called.call("plugin.GetPluginNames")
        instance = kong.start_author("def access(self, kong): kong.log('x')")
        assert used.step(used.handle_event(instance).event_id).is_return
        half = kong.connect()
        half.send_raw(b"\x94\x00\x01")
        server.stop(number)
        for connection in (fresh, called, used):
            assert connection.is_closed_by_server()
        half.read_to_end()  # with worker processes it may even be refused


@pytest.mark.parametrize("number", SIGNALS)
def test_an_event_under_way_is_let_finish(start: Start, number: signal.Signals) -> None:
    server = start()
    with server.kong() as kong:
        turn = kong.handle_event(kong.start_author(CALLS))
        other = kong.connect()
        other.call("plugin.GetPluginNames")
        server.send_signal(number)
        wait_until(lambda: not any(map(os.path.lexists, server.paths)), "nothing new is accepted")
        assert not any(accepts(path) for path in server.paths)
        turn = kong.step(turn.event_id)
        assert turn.args == ["second"]
        assert other.step(turn.event_id).is_return  # on any connection, still
        assert server.wait() == 0
    server.check()
    assert "stopped with handlers still running" not in server.log


def open_when_read(pipe: Path) -> int:
    """Open a named pipe for writing, once somebody reads it."""
    opened: list[int] = []

    def look() -> bool:
        with contextlib.suppress(OSError):
            opened.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return bool(opened)

    wait_until(look, "the handler reads the pipe")
    return opened[0]


def test_a_blocked_handler_is_let_finish(start: Start, prefix: Path) -> None:
    gate = prefix / "gate"
    os.mkfifo(gate)
    # Opening the pipe blocks the whole process in gevent mode, so a child waits for it.
    source = f"""
import subprocess
import time

def access(self, kong):
    subprocess.run(["cat", {str(gate)!r}], check=True)
"""
    server = start()
    with server.kong() as kong:
        connection = kong.connect()
        msgid = connection.send_event(kong.start_author(source))
        writer = open_when_read(gate)
        try:
            server.send_signal(signal.SIGTERM)
            wait_until(lambda: not os.path.lexists(server.paths[0]), "nothing new is accepted")
            assert server.process.poll() is None
        finally:
            os.close(writer)
        assert connection.turn(msgid).is_return
        assert server.wait() == 0
    server.check()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_ends_what_is_left(start: Start, number: signal.Signals) -> None:
    server = start()
    with server.kong() as kong:
        kong.handle_event(kong.start_author(CALLS))
        server.send_signal(number)
        wait_until(lambda: not os.path.lexists(server.paths[0]), "nothing new is accepted")
        server.send_signal(number)
        assert server.wait() == 0
    assert "the end of the handler" in server.log  # its finally block has run
    assert "stopped with handlers still running" in server.log
    server.check()


def test_a_handler_that_never_ends_does_not_keep_it(start: Start) -> None:
    server = start()
    with server.kong() as kong:
        connection = kong.connect()
        msgid = connection.send_event(kong.start_author(STUCK))
        kong.call("plugin.GetPluginNames")
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: not os.path.lexists(server.paths[0]), "nothing new is accepted")
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert refused(connection.turn(msgid)), "what it guards stays shut"
        assert connection.is_closed_by_server()
    server.check()


def test_what_never_ends_is_ended_after_its_time(start: Start) -> None:
    """A handler that is stuck, one whose step does not come, and one that no exception ends."""
    server = start("--graceful-timeout", "0.5")
    family = server.processes()
    sources = [STUCK, CALLS, DEAF]
    with server.kong() as kong:
        connections = [kong.connect() for _ in sources]
        for connection, source in zip(connections, sources):
            connection.send_event(kong.start_author(source))
        for connection in connections[1:]:
            assert connection.message()
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert refused(connections[0].turn(1)), "what it guards stays shut"
        for connection in connections:
            connection.read_to_end()
    assert "handlers still running" in server.log or "killed" in server.log
    assert not any(map(is_alive, family))
    assert not any(map(os.path.lexists, server.paths))
    server.check()


class Client(threading.Thread):
    """Begins one event after the other until it is told to stop, and ends each."""

    def __init__(self, server: Server, instance: int) -> None:
        super().__init__()
        self.connections = [Connection(server.paths[0]) for _ in range(2)]
        self.instance = instance
        self.events = 0
        self.failed: Optional[Exception] = None
        self.enough = threading.Event()

    def run(self) -> None:
        try:
            while not self.enough.is_set():
                first, second = self.connections
                turn = first.handle_event(self.instance)
                assert turn.args == ["first"]
                turn = second.step(turn.event_id)
                assert turn.args == ["second"]
                assert first.step(turn.event_id).is_return
                self.events += 1
        except Exception as exc:
            self.failed = exc
        finally:
            for connection in self.connections:
                connection.close()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stop_under_load_leaves_no_event_unanswered(start: Start, number: signal.Signals) -> None:
    """Kong goes on with new events on the connections that it has, for a while."""
    server = start()
    family = server.processes()
    with server.kong() as kong:
        instance = kong.start_author(
            "def access(self, kong): kong.log('first'); kong.log('second')"
        )
        clients = [Client(server, instance) for _ in range(8)]
        for client in clients:
            client.start()
        wait_until(lambda: all(client.events > 5 for client in clients), "they are at work")
        turn = kong.handle_event(instance)  # so that there is no moment with nothing to do
        server.send_signal(number)
        wait_until(lambda: not any(map(os.path.lexists, server.paths)), "nothing new is accepted")
        some = sum(client.events for client in clients) + 50
        wait_until(lambda: sum(client.events for client in clients) > some, "they go on")
        for client in clients:
            client.enough.set()
        for client in clients:
            client.join()
            assert client.failed is None, client.failed
        assert kong.step(kong.step(turn.event_id).event_id).is_return
    assert server.wait() == 0
    assert not any(map(is_alive, family))
    assert "still running" not in server.log and "killed" not in server.log
    server.check()


def test_requests_while_it_stops_are_answered_or_cut_off(start: Start) -> None:
    """But Kong does not wait for anything."""
    server = start()
    with server.kong() as kong:
        instance = kong.start_author(CALLS)
        turn = kong.handle_event(instance)
        others = [kong.connect() for _ in range(5)]
        for other in others:
            other.call("plugin.GetPluginNames")
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: not os.path.lexists(server.paths[0]), "nothing new is accepted")
        for other in others:
            try:
                other.handle_event(instance)
            except (ConnectionError, RemoteError):
                pass
        kong.step(turn.event_id)
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    server.check()


def test_a_signal_at_once(prefix: Path, flavour: Flavour) -> None:
    """There is no moment, once it listens, at which a signal would end it the hard way."""
    for _ in range(5):
        server = Server(directory_command(PLUGINS, prefix, *flavour.flags), prefix)
        try:
            deadline = time.monotonic() + LIMIT
            while not all(map(accepts, server.paths)):  # no pause: the moment would be over
                assert server.process.poll() is None, server.log
                assert time.monotonic() < deadline
            server.stop()
        finally:
            server.kill()


@pytest.mark.parametrize("kind", ["daemon", "other"])
def test_threads_that_a_plugin_leaves_behind(start: Start, kind: str) -> None:
    source = f"""
import threading

def start(self, config):
    threading.Thread(target=threading.Event().wait, daemon={kind == "daemon"}).start()

def access(self, kong): pass
"""
    server = start()
    with server.kong() as kong:
        for _ in range(3):
            assert kong.handle_event(kong.start_author(source)).is_return
    server.stop()


def test_a_second_signal_while_it_waits_for_such_a_thread(start: Start) -> None:
    """It has removed its sockets and said that it has stopped: that is a clean end."""
    source = """
import threading

def start(self, config): threading.Thread(target=threading.Event().wait).start()
"""
    server = start()
    with server.kong() as kong:
        kong.start_author(source)
    server.send_signal(signal.SIGTERM)
    server.wait_log("stopped")
    server.send_signal(signal.SIGTERM)
    assert server.wait() == 0


def test_children_that_a_plugin_leaves_behind(start: Start) -> None:
    source = """
import subprocess
import time

def access(self, kong):
    child = subprocess.Popen(["sleep", "1000"])
    kong.log(child.pid)
"""
    server = start()
    with server.kong() as kong:
        ((_, (told,)),) = kong.run_event(kong.start_author(source)).calls
    pid = int(told)
    try:
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert is_alive(pid)
        assert not any(map(os.path.lexists, server.paths))
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_plugin_cannot_make_it_deaf(prefix: Path) -> None:
    """A plugin that ignores a signal while it is imported does not make the server immortal."""
    (prefix / "deaf.py").write_text(
        "import signal\n"
        "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):\n"
        "    signal.signal(number, signal.SIG_IGN)\n"
        "version, priority = '1.0.0', 1\n"
        "class Plugin:\n"
        "    def __init__(self, config): pass\n"
        "    def access(self, kong): pass\n"
    )
    with running(directory_command(prefix, prefix), prefix) as server:
        server.stop()


# --- the parent -----------------------------------------------------------------------------------


@pytest.fixture
def orphan(prefix: Path, flavour: Flavour) -> Iterator[tuple[subprocess.Popen[bytes], list[str]]]:
    """A server, its sockets, and the parent that is to die."""
    command = directory_command(PLUGINS, prefix, *flavour.flags)
    parent = subprocess.Popen(
        ["sh", "-c", '"$@" & cat', "sh", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=clean_environment(flavour.env),
        cwd=prefix,
    )
    paths = [str(prefix / name) for name in DIRECTORY_SOCKETS]
    try:
        wait_until(lambda: all(map(accepts, paths)), "the server listens")
        yield parent, paths
    finally:
        parent.kill()
        assert parent.stdin is not None
        parent.stdin.close()
        parent.wait()
        if accepts(paths[0]):
            with Kong(paths[0]) as kong:
                os.kill(kong.call("plugin.GetStatus")["Pid"], signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_death_of_the_parent_ends_it(
    orphan: tuple[subprocess.Popen[bytes], list[str]], number: signal.Signals
) -> None:
    parent, paths = orphan
    with Kong(paths[0]) as kong:
        pid = kong.call("plugin.GetStatus")["Pid"]
        assert is_alive(pid)
        parent.send_signal(number)
        parent.wait()
        wait_until(lambda: not is_alive(pid), "the server has ended")
    assert not any(map(os.path.lexists, paths))


def test_the_death_of_the_parent_with_an_event_waiting(
    orphan: tuple[subprocess.Popen[bytes], list[str]],
) -> None:
    parent, paths = orphan
    with Kong(paths[0]) as kong:
        pid = kong.call("plugin.GetStatus")["Pid"]
        turn = kong.handle_event(kong.start_author(CALLS))
        parent.kill()
        parent.wait()
        wait_until(lambda: not any(map(os.path.lexists, paths)), "it has noticed")
        turn = kong.step(turn.event_id)
        assert kong.step(turn.event_id).is_return
        wait_until(lambda: not is_alive(pid), "the server has ended")


# --- environment ----------------------------------------------------------------------------------


def test_it_runs_with_an_empty_environment(prefix: Path) -> None:
    """nginx leaves nothing of it."""
    command = ["env", "-i", *directory_command(PLUGINS, prefix)]
    with running(command, prefix) as server, server.kong() as kong:
        assert kong.call("plugin.GetPluginNames") == ["author", "hello"]
        source = "def access(self, kong): kong.log('ä\\udcff', 'print'); print('ä')"
        assert kong.run_event(kong.start_author(source)).functions == ["kong.log"]


def test_it_runs_without_standard_streams(prefix: Path) -> None:
    script = 'exec 0<&- 1>&- 2>&-; exec "$@"'
    command = ["sh", "-c", script, "sh", *directory_command(PLUGINS, prefix, "-v")]
    with running(command, prefix) as server, server.kong() as kong:
        source = "def access(self, kong): print('x'); kong.log('x')"
        assert kong.run_event(kong.start_author(source)).functions == ["kong.log"]


def test_output_that_nobody_reads_any_more(prefix: Path) -> None:
    """Kong's end of the log is a pipe, and Kong may be gone before the server is."""
    script = '"$@" 2>&1 | true'
    parent = subprocess.Popen(
        ["sh", "-c", script, "sh", SERVER, "-v", "-d", str(PLUGINS), "-p", str(prefix)],
        stdin=subprocess.DEVNULL,
        env=clean_environment(),
    )
    path = str(prefix / DIRECTORY_SOCKETS[0])
    try:
        wait_until(lambda: accepts(path), "the server listens")
        with Kong(path) as kong:
            pid = kong.call("plugin.GetStatus")["Pid"]
            source = "def access(self, kong): raise ValueError('to the log')"
            for _ in range(20):
                assert kong.run_event(kong.start_author(source)).functions == [
                    "kong.log.err",
                    "kong.response.exit",
                ]
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not is_alive(pid), "the server has ended")
        assert not os.path.lexists(path)
    finally:
        parent.kill()
        parent.wait()


def test_interrupted_while_it_loads(prefix: Path) -> None:
    """A stop that comes before it serves leaves nothing behind."""
    (prefix / "slow.py").write_text(
        "# no Plugin\nimport os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = run_command(*directory_command(prefix, prefix))
    assert done.returncode in (0, -signal.SIGTERM)
    assert not any(os.path.lexists(prefix / name) for name in DIRECTORY_SOCKETS)
