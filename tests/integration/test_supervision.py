"""The process that runs plugin code dies: nothing gets past it, and Kong notices little."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import struct
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from failures import CLOSABLE, PHASES, refused, still_works
from kongwire import Connection, RemoteError, pack
from servers import (
    SUPERVISED,
    Server,
    directory_command,
    is_alive,
    is_at_rest,
    running,
    state_of,
    wait_until,
)

PLUGINS = Path(__file__).parent / "plugins"

CODECS: dict[str, dict[str, str]] = {"compiled": {}, "pure": {"KONG_PDK_PUREPYTHON": "1"}}
#: One is enough for what notes, in each codec, what is owed.
FLAVOURS = ["threads-compiled", "threads-pure", "gevent-compiled", "fork-compiled",
            "processes-compiled"]  # fmt: skip

#: Ends its process before it answers, in each phase.
DIES = "".join(
    f"def {phase}(self, kong):\n    import os\n    os.kill(os.getpid(), 9)\n" for phase in PHASES
)
#: Makes two calls, and tells the process.
CALLS = """
import os

def access(self, kong):
    kong.log(os.getpid())
    kong.log("again")
"""

StartSupervised = Callable[..., Server]


@pytest.fixture(params=FLAVOURS)
def start(request: pytest.FixtureRequest, prefix: Path) -> Iterator[StartSupervised]:
    """Start a supervised server of the test's own."""
    way, codec = request.param.split("-")
    with contextlib.ExitStack() as stack:

        def start(*flags: str, plugins: Path = PLUGINS) -> Server:
            command = directory_command(plugins, prefix, *SUPERVISED[way], *flags)
            return stack.enter_context(running(command, prefix, env=CODECS[codec]))

        yield start


def kill_workers(server: Server) -> None:
    """Kill all that runs plugin code, and wait until the server has noticed."""
    workers = server.workers()
    for pid in workers:
        wait_until(lambda pid=pid: is_at_rest(pid), "the worker has nothing to do")
        os.kill(pid, signal.SIGKILL)
    for pid in workers:
        server.wait_log(f"(pid {pid}) has ended: signal SIGKILL")


def wait_replaced(server: Server, count: int = 1) -> None:
    """Wait until so many workers have been replaced."""
    wait_until(lambda: server.log.count("is ready again") >= count, "the next worker is ready")


def test_the_handler_ends_the_process(start: StartSupervised) -> None:
    """In each phase, one after the other, on one connection that is never closed."""
    server = start()
    with server.kong() as kong, kong.connect() as connection:
        instance = kong.start_author(DIES)
        for phase in PHASES:
            if phase in CLOSABLE:
                assert refused(connection.handle_event(instance, phase)), phase
            else:
                with pytest.raises(RemoteError, match="worker process of this call has died"):
                    connection.handle_event(instance, phase)
    server.check()


def test_the_policy_is_open(start: StartSupervised) -> None:
    server = start("--on-error", "open")
    with server.kong() as kong:
        instance = kong.start_author(DIES)
        with pytest.raises(RemoteError, match="has died"):
            kong.handle_event(instance)


def test_killed_while_kong_is_at_a_call(start: StartSupervised) -> None:
    """The step finds no handler: the request is refused, not passed on with half of the plugin."""
    server = start()
    with server.kong() as kong:
        instance = kong.start_author(CALLS)
        connections = [kong.connect() for _ in range(6)]
        turns = [one.handle_event(instance) for one in connections]
        kill_workers(server)
        # On other connections than the events began on, before and after there is a next worker.
        steps = [
            (connection, connection.send_step(turn.event_id))
            for connection, turn in zip(connections[3:] + connections[:3], turns)
        ]
        for connection, msgid in steps:
            assert refused(connection.turn(msgid))
        still_works(kong)
    server.check()


def test_calls_wait_for_the_next_process(start: StartSupervised) -> None:
    """Instances are there again, and neither they nor the connections are missed by Kong."""
    server = start()
    with server.kong() as kong:
        instance = kong.start_author(CALLS)
        connections = [kong.connect() for _ in range(4)]
        pids = {one.handle_event(instance).args[0] for one in connections}
        kill_workers(server)
        fresh = kong.connect()
        sent = [(one, one.send_event(instance)) for one in (*connections, fresh)]
        for one, msgid in sent:
            turn = one.turn(msgid)
            assert turn.args[0] not in pids
            assert one.step(turn.event_id).args == ["again"]
    server.check()


def test_a_request_of_which_half_has_come(start: StartSupervised) -> None:
    """The dead process has read it: the rest is taken, then the request is refused."""
    server = start()
    with server.kong() as kong, kong.connect() as connection:
        turn = connection.handle_event(kong.start_author(CALLS))
        argument = {"EventId": turn.event_id, "Data": b"x" * 3_000_000}
        step = pack([0, 77, "plugin.Step", [argument]])
        connection.send_raw(
            step[:1_000_000]
        )  # more than the socket holds: some of it has been read
        wait_until(lambda: not unread(connection), "the server has read all of it")
        kill_workers(server)
        connection.send_raw(step[1_000_000:])
        assert refused(connection.turn(77))
        assert connection.call("plugin.GetPluginNames") == ["author", "hello"]
    server.check()


def unread(connection: Connection) -> int:
    """Bytes that the server has not read yet."""
    size = fcntl.ioctl(connection.sock, termios.TIOCOUTQ, b"\0" * 4)
    return int(struct.unpack("i", size)[0])


def test_an_init_that_ends_the_process(start: StartSupervised) -> None:
    server = start()
    with server.kong() as kong:
        source = "import os\ndef start(self, config):\n    os._exit(3)\n"
        with pytest.raises(RemoteError, match="has died"):
            kong.start_author(source)
        still_works(kong)


def test_an_init_that_blocks_in_the_next_process(start: StartSupervised, tmp_path: Path) -> None:
    """Kong has started the instance long ago; its events do not wait until they get through."""
    flag = tmp_path / "blocks"
    source = f"""
import os, time

def start(self, config):
    while os.path.exists({str(flag)!r}):
        time.sleep(0.05)

def access(self, kong): kong.log("fine")
"""
    server = start("--event-timeout", "1")
    with server.kong() as kong, kong.connect() as connection:
        instance = kong.start_author(source)
        kong.run_event(instance)
        flag.touch()
        kill_workers(server)
        for _ in range(2):
            turn = connection.handle_event(instance)
            assert turn.function == "kong.log.err"
            assert "its __init__ has not returned within 1 s" in turn.args[0]
            assert refused(connection.step(turn.event_id))
        flag.unlink()

        def is_made() -> bool:
            turn = connection.handle_event(instance)
            connection.step(turn.event_id)
            return turn.args == ["fine"]

        wait_until(is_made, "the instance is there")
    server.check()


def test_many_deaths_leave_nothing_behind(start: StartSupervised) -> None:
    server = start()
    with server.kong() as kong:
        instance, well = kong.start_author(DIES), kong.start_author(CALLS)
        kong.run_event(well)
        before = server.descriptors()
        for _ in range(4):
            assert refused(kong.handle_event(instance))
            kong.run_event(well)
        wait_until(lambda: server.descriptors() <= before + 8, "the descriptors are free")
    server.check()


def test_no_worker_comes(prefix: Path, tmp_path: Path) -> None:
    """Its plugin has been broken meanwhile: calls do not wait until Kong lets them through."""
    shutil.copy(PLUGINS / "hello.py", tmp_path)
    shutil.copy(PLUGINS / "author.py", tmp_path)
    command = directory_command(tmp_path, prefix, "--supervise")
    with running(command, prefix) as server, server.kong() as kong:
        instance, known = kong.start_author(CALLS), kong.connect()
        turn = known.handle_event(instance)
        source = (tmp_path / "hello.py").read_text()
        (tmp_path / "hello.py").write_text("import os\nos._exit(9)  # no Plugin\n")
        kill_workers(server)
        waits = known.send_step(turn.event_id)
        assert refused(known.turn(waits)), "the server has had patience, and then none"
        fresh = kong.connect()  # these are not even to wait
        assert refused(fresh.handle_event(instance))
        with pytest.raises(RemoteError, match="no worker process is ready"):
            fresh.call("plugin.GetStatus")
        with pytest.raises(RemoteError, match="no worker process is ready"):
            fresh.handle_event(instance, "log")
        assert "exit status 9, before it was ready" in server.log
        (tmp_path / "hello.py").write_text(source)
        wait_replaced(server)
        for connection in (known, fresh):
            assert connection.handle_event(instance).function == "kong.log"
        server.check()


def test_handlers_that_do_not_end_at_a_stop(start: StartSupervised) -> None:
    """They end with their process, and what they guard stays shut."""
    server = start("--graceful-timeout", "0.3")
    source = "import time\ndef access(self, kong):\n    time.sleep(60)\n"
    with server.kong() as kong, kong.connect() as connection:
        instance = kong.start_author(source)
        msgid = connection.send_event(instance)
        wait_until(lambda: not unread(connection), "the event has begun")
        time.sleep(0.1)
        server.send_signal(signal.SIGTERM)
        assert refused(connection.turn(msgid))
        assert server.wait() == 0
    server.check()


def test_a_stop_while_nobody_is_there(start: StartSupervised) -> None:
    server = start()
    with server.kong() as kong:
        instance, connection = kong.start_author(CALLS), kong.connect()
        connection.handle_event(instance)
        kill_workers(server)
        msgid = connection.send_event(instance)
        server.send_signal(signal.SIGTERM)
        turn = connection.turn(msgid)  # by the next worker if it was there in time
        assert turn.function in ("kong.log", "kong.response.exit")
        if turn.function == "kong.log":
            turn = connection.step(connection.step(turn.event_id).event_id)
            assert turn.is_return
        assert server.wait() == 0


def test_the_supervisor_dies(start: StartSupervised) -> None:
    server = start()
    workers = server.workers()
    server.process.kill()
    server.process.wait()
    wait_until(lambda: not any(map(is_alive, workers)), "no process is left")


def test_a_worker_that_is_stuck(prefix: Path) -> None:
    """It does not even notice that Kong is about to give up, so the parent answers."""
    source = "def access(self, kong):\n    import ctypes\n    ctypes.PyDLL(None).sleep(300)\n"
    command = directory_command(PLUGINS, prefix, "--supervise", "--answer-timeout", "7")
    with running(command, prefix) as server, server.kong() as kong:
        keeps_the_lock, well = kong.start_author(source), kong.start_author(CALLS)
        one, other = kong.connect(), kong.connect()
        kong.run_event(well)
        waits = one.send_event(keeps_the_lock)
        msgid = other.send_event(well)
        while select.select([other.sock], [], [], 0.5)[0]:  # before it is stuck
            turn = other.turn(msgid)
            goes_on = not turn.is_return
            msgid = other.send_step(turn.event_id) if goes_on else other.send_event(well)
        assert refused(one.turn(waits))
        assert refused(other.turn(msgid)), "nobody knows for how long it has waited"
        assert other.handle_event(well).function == "kong.log", "by the next worker"
        assert "lets Kong wait, and its loop does nothing: killed" in server.log
        server.check()


def test_a_worker_that_stands_still(prefix: Path) -> None:
    """It has not even read the call."""
    command = directory_command(PLUGINS, prefix, "--supervise", "--answer-timeout", "6")
    with running(command, prefix) as server, server.kong() as kong, kong.connect() as connection:
        instance = kong.start_author(CALLS)
        (pid,) = server.workers()
        os.kill(pid, signal.SIGSTOP)
        # Nobody knows for how long the call has waited, and a new handler would take more time.
        assert refused(connection.handle_event(instance))
        turn = connection.handle_event(instance)
        assert turn.args != [str(pid)], "the next one goes to the next worker"
        assert "lets Kong wait, and its loop does nothing: killed" in server.log
        server.check()


def test_a_worker_that_hangs_is_no_worker_that_has_died(start: StartSupervised) -> None:
    """A stopped process keeps what it owes; it may go on."""
    server = start()
    with server.kong() as kong, kong.connect() as connection:
        instance = kong.start_author(CALLS)
        connection.handle_event(instance)
        workers = server.workers()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
            wait_until(lambda pid=pid: state_of(pid) in "Tt", "the process stands still")
        msgid = connection.send_event(instance)
        time.sleep(0.3)
        assert not connection.has_data()
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        assert connection.turn(msgid).function == "kong.log"
