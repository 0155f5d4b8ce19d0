"""--worker-memory: a worker that uses too much makes room for a new one, and no request is lost."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from clients import Clients
from failures import refused
from kongwire import Connection, Kong, Turn
from servers import SUPERVISED, Server, directory_command, is_alive, running, wait_until

from kong_pdk.config import MAX_WORKERS

PLUGINS = Path(__file__).parent / "plugins"

LIMIT_MIB, GROWTH_MIB = 200, 250

#: Says which process it is in; takes memory when it is told to.
GROWS = """
import os

kept = []


def access(self, kong):
    size, err = kong.request.get_header("x-grow")
    if size:
        kept.append(b"x" * (int(size) << 20))
    kong.response.set_header("x-pid", str(os.getpid()))
"""

StartLimited = Callable[..., Server]


# What the codecs have to do with it, tests/unit/codec holds.
@pytest.fixture(params=SUPERVISED)
def start(request: pytest.FixtureRequest, prefix: Path) -> Iterator[StartLimited]:
    """Start a server of the test's own whose workers are limited."""
    with contextlib.ExitStack() as stack:

        def start(*flags: str, plugins: Path = PLUGINS, limit: int = LIMIT_MIB) -> Server:
            limited = ("--worker-memory", str(limit), "-v", *SUPERVISED[request.param], *flags)
            command = directory_command(plugins, prefix, *limited)
            return stack.enter_context(running(command, prefix))

        yield start


one_way = pytest.mark.parametrize("start", ["threads"], indirect=True)


def pid_on(connection: Connection, instance: int, grow: int = 0) -> int:
    """Run an event; the process that it has run in."""
    turn = connection.handle_event(instance)
    assert turn.function == "kong.request.get_header"
    turn = connection.step(turn.event_id, str(grow) if grow else None)
    assert turn.function == "kong.response.set_header"
    pid = int(turn.args[1])
    assert connection.step(turn.event_id).is_return
    return pid


def grow(kong: Kong, instance: int) -> int:
    """Let a worker use too much; its process."""
    with kong.connect() as connection:
        return pid_on(connection, instance, GROWTH_MIB)


def together(kong: Kong, instance: int) -> tuple[int, list[Connection]]:
    """A worker and connections to it, two at least."""
    pids = {one: pid_on(one, instance) for one in [kong.connect() for _ in range(8)]}
    pid = next(iter(pids.values()))
    found = [one for one in pids if pids[one] == pid]
    assert len(found) >= 2
    return pid, found


def wait_leaving(server: Server, count: int = 1) -> None:
    """Wait until so many workers have been told to make room."""
    wait_until(
        lambda: server.log.count("ends when its events have") == count, "the new one is ready"
    )


def errors_of(server: Server) -> list[str]:
    return [line for line in server.log.splitlines() if "[ERROR]" in line]


def busy(server: Server, instance: int) -> Clients:
    """Clients that run events."""
    return Clients(server, lambda kong: run_event(kong, instance), count=4)


def run_event(kong: Kong, instance: int) -> None:
    with kong.borrowed() as connection:
        pid_on(connection, instance)


def leave_with_an_event(server: Server, kong: Kong, instance: int) -> tuple[int, Connection, Turn]:
    """Have a worker make room while its event waits; the process, the connection, the call."""
    pid, (connection, other, *_) = together(kong, instance)
    turn = connection.handle_event(instance)
    assert pid_on(other, instance, GROWTH_MIB) == pid
    wait_leaving(server)
    return pid, connection, turn


def test_no_request_is_lost(start: StartLimited) -> None:
    server = start()
    count = len(server.workers())
    with server.kong() as kong:
        instance = kong.start_author(GROWS)
        with busy(server, instance) as clients:
            for _ in range(2):
                pid = grow(kong, instance)
                wait_until(lambda pid=pid: not is_alive(pid), "it has ended")
                server.wait_log(f"(pid {pid}) has ended: exit status 0")
                assert clients.failures == []
        assert clients.failures == []

        def workers() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = kong.call("plugin.GetStatus")["Workers"]
            return found

        wait_until(lambda: all(one["Memory"] for one in workers()), "it is looked at")
        assert len(workers()) == count == len(server.workers())
        assert all(one["Ready"] and one["Restarts"] == 0 for one in workers())
        assert all(one["Memory"] < LIMIT_MIB << 20 for one in workers())
    assert errors_of(server) == []
    assert re.search(r"uses 2\d\d MiB of memory, \d+ s after its start; --worker-memory is 200 MiB",
                     server.log)  # fmt: skip


def test_events_under_way_go_on(start: StartLimited) -> None:
    """Their steps come on other connections, which are another worker's by then, and on theirs."""
    server = start()
    with server.kong() as kong:
        instance = kong.start_author(GROWS)
        pid, (idle, *connections) = together(kong, instance)
        turns = [(one, one.handle_event(instance)) for one in connections]
        assert pid_on(idle, instance, GROWTH_MIB) == pid
        wait_leaving(server)
        with kong.connect() as fresh:
            assert pid_on(fresh, instance) != pid
            assert is_alive(pid)
            for number, (connection, turn) in enumerate(turns):
                other = fresh if number % 2 else connection
                turn = other.step(turn.event_id)
                assert turn.args == ["x-pid", str(pid)]
                assert connection.step(turn.event_id).is_return
        wait_until(lambda: not is_alive(pid), "it has ended")
        assert pid not in {pid_on(one, instance) for one in [idle, *connections]}
    assert errors_of(server) == []
    assert "abandoned" not in server.log


def test_idle_connections_go_on(start: StartLimited) -> None:
    server = start()
    with server.kong() as kong:
        instance = kong.start_author(GROWS)
        connections = [kong.connect() for _ in range(100)]
        assert [kong.call("plugin.GetPluginNames") for _ in connections]
        before = {pid_on(one, instance) for one in connections}
        pid = grow(kong, instance)
        wait_until(lambda: not is_alive(pid), "it has ended")
        after = {pid_on(one, instance) for one in connections}
        assert pid in before and pid not in after
        sockets = server.sockets()
        for one in connections:
            one.close()
        wait_until(lambda: server.sockets() <= sockets - 100, "they are closed")
    assert errors_of(server) == []


def test_half_a_request_is_read_to_its_end(start: StartLimited) -> None:
    server = start()
    with server.kong() as kong:
        instance = kong.start_author(GROWS)
        pid, (connection, other, *_) = together(kong, instance)
        frame = b"\x94\x00\x01\xb5plugin.GetPluginNames\x90"
        connection.send_raw(frame[:9])
        assert pid_on(other, instance, GROWTH_MIB) == pid
        wait_leaving(server)
        connection.send_raw(frame[9:])
        assert "author" in connection.result(1)
        wait_until(lambda: not is_alive(pid), "it has ended")
        assert pid_on(connection, instance) != pid
    assert errors_of(server) == []


def test_a_stop_meanwhile(start: StartLimited) -> None:
    server = start("--graceful-timeout", "0.2")
    with server.kong() as kong:
        instance = kong.start_author(GROWS)
        _, connection, turn = leave_with_an_event(server, kong, instance)
        server.stop()
        assert connection.is_closed_by_server()
    assert f"event {turn.event_id} is abandoned: the server stops" in server.log


def test_it_dies_meanwhile(start: StartLimited) -> None:
    """What it had to answer is refused, and nobody comes in its place: that is taken already."""
    server = start()
    count = len(server.workers())
    with server.kong() as kong:
        instance = kong.start_author(GROWS)
        pid, connection, turn = leave_with_an_event(server, kong, instance)
        os.kill(pid, signal.SIGKILL)
        server.wait_log(f"(pid {pid}) has ended: signal SIGKILL")
        assert refused(connection.step(turn.event_id))
        assert pid_on(connection, instance) != pid
        states = kong.call("plugin.GetStatus")["Workers"]
        assert [one["Ready"] for one in states] == [True] * count
        assert "is ready again" not in server.log
        # The next one is replaced as well.
        pid = grow(kong, instance)
        wait_until(lambda: not is_alive(pid), "it has ended")


@one_way
def test_no_new_worker_can_be_had(start: StartLimited, tmp_path: Path) -> None:
    """The old one serves on until there is one."""
    path = tmp_path / "plugins" / "grows.py"
    path.parent.mkdir()
    source = f"{GROWS}\nversion, priority = '1.0.0', 10\n\nclass Plugin:\n    access = access\n"
    source += "    def __init__(self, config): pass\n"
    path.write_text(source)
    server = start(plugins=path.parent)
    with server.kong() as kong:
        instance = kong.start_instance("grows", {})
        path.write_text("1 / 0\n" + source)
        pid = grow(kong, instance)
        wait_until(lambda: server.log.count("before it was ready") >= 2, "it is tried again")
        with kong.connect() as connection:
            assert pid_on(connection, instance) == pid
            path.write_text(source)
            wait_until(lambda: not is_alive(pid), "it is replaced")
            assert pid_on(connection, instance) != pid
    assert "ZeroDivisionError" in server.log


def test_a_step_for_the_vacant_place(start: StartLimited) -> None:
    """Of an event that a server before this one had: nobody reads there, and Kong is answered."""
    server = start()
    vacant = len(server.workers())
    with server.kong() as kong:
        turn = kong.handle_event(kong.start_author(GROWS))
        owner = (turn.event_id >> 1) % MAX_WORKERS
        assert refused(kong.step(turn.event_id + (vacant - owner << 1)))
        assert kong.step(turn.event_id).function == "kong.response.set_header"


@one_way
def test_a_limit_that_is_too_low(start: StartLimited) -> None:
    """Workers come and go, less and less often, and requests are answered."""
    server = start(limit=1)
    with server.kong() as kong:
        instance = kong.start_author(GROWS)
        with busy(server, instance) as clients:
            server.wait_log("--worker-memory is 1 MiB, which may be too low: worker ")
        assert clients.failures == []
    assert errors_of(server) == []
