"""Worker processes: what is shared among them, and what happens when one of them ends."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from failures import refused
from kongwire import LIMIT, Connection, Kong, RemoteError
from servers import (
    DIRECTORY_SOCKETS,
    Server,
    accepts,
    directory_command,
    embedded_command,
    is_alive,
    is_at_rest,
    run_command,
    running,
    short_directory,
    wait_until,
)

PLUGINS = Path(__file__).parent / "plugins"
WAYS = {
    "spawn": (),
    "fork": ("--start-method", "fork"),
    "spawn-gevent": ("-g",),
}

#: Tells who runs it, how often it has run on this object, and what it was told.
COUNTS = """
import os

def start(self, config): self.count = 0

def access(self, kong):
    self.count += 1
    kong.response.set_header("pid", os.getpid())
    told, err = kong.request.get_header("x")
    kong.response.exit(200, [os.getpid(), self.count, told])

def log(self, kong): pass
"""


@pytest.fixture(scope="module", params=list(WAYS))
def way(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """How workers are made and what they use: flags."""
    return WAYS[request.param]


@pytest.fixture(scope="module")
def shared(way: tuple[str, ...]) -> Iterator[Server]:
    """A server with two workers, shared by the tests of this module that leave it as it was."""
    with short_directory() as prefix:
        command = directory_command(PLUGINS, prefix, "-m", "--workers", "2", *way)
        with running(command, prefix) as server:
            yield server


@pytest.fixture
def kong(shared: Server) -> Iterator[Kong]:
    with shared.kong() as kong:
        yield kong
    shared.check()


StartWorkers = Callable[..., Server]


@pytest.fixture
def start(prefix: Path) -> Iterator[StartWorkers]:
    """Start a server of the test's own, with two workers."""
    with contextlib.ExitStack() as stack:

        def start(*flags: str, plugins: Path = PLUGINS) -> Server:
            command = directory_command(plugins, prefix, "-m", "--workers", "2", *flags)
            return stack.enter_context(running(command, prefix))

        yield start


def pid_of(connection: Connection, instance: int) -> int:
    """The worker that reads a connection."""
    turn = connection.handle_event(instance)
    connection.step(connection.step(turn.event_id).event_id, "x")
    return int(turn.args[1])


def of_each(kong: Kong, instance: int) -> tuple[Connection, Connection]:
    """Two connections that different workers read."""
    first = kong.connect()
    pid = pid_of(first, instance)
    for _ in range(50):
        other = kong.connect()
        if pid_of(other, instance) != pid:
            return first, other
    raise AssertionError("all connections are dealt to one worker")


# --- events and instances -------------------------------------------------------------------------


def test_no_plugin_runs_in_the_parent(shared: Server, kong: Kong) -> None:
    instance = kong.start_author(COUNTS)
    pids = {pid_of(kong.connect(), instance) for _ in range(4)}
    assert pids == set(shared.workers())
    assert shared.pid not in pids
    assert kong.call("plugin.GetStatus")["Pid"] == shared.pid
    maps = Path(f"/proc/{shared.pid}/task").iterdir()
    assert len(list(maps)) == 1  # it could not fork otherwise


def test_each_worker_keeps_the_state_of_its_own_object(kong: Kong) -> None:
    instance = kong.start_author(COUNTS)
    connections = of_each(kong, instance)
    seen: dict[int, list[int]] = {}
    for number in range(10):
        connection = connections[number % 2]
        turn = connection.handle_event(instance)
        turn = connection.step(connection.step(turn.event_id).event_id, "x")
        pid, count, told = turn.args[1]
        assert told == "x"
        seen.setdefault(pid, []).append(count)
    assert len(seen) == 2
    for counts in seen.values():
        assert counts == list(range(counts[0], counts[0] + 5))


def test_a_step_may_arrive_at_another_worker(kong: Kong) -> None:
    instance = kong.start_author(COUNTS)
    one, other = of_each(kong, instance)
    for first, second, third in (
        (one, other, one), (one, one, other), (other, one, one), (one, other, other),
    ):  # fmt: skip
        turn = first.handle_event(instance)
        pid = turn.args[1]
        turn = second.step(turn.event_id)
        assert turn.function == "kong.request.get_header"
        turn = third.step(turn.event_id, "told")
        assert turn.args[1][0] == pid
        assert turn.args[1][2] == "told"


def test_scattered_events_of_many(kong: Kong) -> None:
    instance = kong.start_author(COUNTS)
    connections = [kong.connect() for _ in range(12)]
    for round_ in range(20):
        turns = [one.handle_event(instance) for one in connections]
        for shift in (1, 3):
            sent = []
            for number, turn in enumerate(turns):
                connection = connections[(number + shift * (round_ + 1)) % len(connections)]
                sent.append((connection, connection.send_step(turn.event_id, f"to {number}")))
            turns = [connection.turn(msgid) for connection, msgid in sent]
        assert [turn.args[1][2] for turn in turns] == [f"to {n}" for n in range(len(turns))]


@pytest.mark.parametrize("size", [1000, 16 * 1024, 1 << 19])
def test_a_step_of_any_size_crosses(kong: Kong, size: int) -> None:
    source = """
def access(self, kong):
    kong.log("begin")
    kong.ctx.shared.set("x", kong.request.get_header("x")[0])
"""
    instance = kong.start_author(source)
    one, other = of_each(kong, kong.start_author(COUNTS))
    for first, second in ((one, other), (other, one)):
        turn = first.step(first.handle_event(instance).event_id)
        value = ["ä\udcff" * size, b"\xff" * size, {"deep": [1, 2.5, None, True]}]
        turn = second.step(turn.event_id, value)
        assert turn.args == ["x", value]
        assert first.step(turn.event_id).is_return


def test_a_deep_value_crosses(kong: Kong) -> None:
    source = """
def access(self, kong):
    value, depth = kong.request.get_header("x")[0], 0
    while value:
        (value,), depth = value, depth + 1
    kong.log(depth)
"""
    instance = kong.start_author(source)
    one, other = of_each(kong, kong.start_author(COUNTS))
    deep = b"\x91" * 900 + b"\x90"
    for first, second in ((one, other), (other, one)):
        turn = first.handle_event(instance)
        argument = b"\x82\xa7EventId\xcf" + turn.event_id.to_bytes(8, "big") + b"\xa4Data" + deep
        second.send_raw(b"\x94\x00\x05\xabplugin.Step\x91" + argument)
        assert second.turn(5).args == ["900"]


def test_requests_behind_a_step_for_another_worker(kong: Kong) -> None:
    """A peer that does not wait loses nothing."""
    instance = kong.start_author(COUNTS)
    one, other = of_each(kong, instance)
    turn = one.handle_event(instance)
    step = other.send_step(turn.event_id)
    names = other.request("plugin.GetPluginNames")
    replies = {reply.msgid: reply for reply in (other.reply(), other.reply())}
    assert replies[names].result == ["author", "hello"]
    assert replies[step].result["Data"]["Method"] == "kong.request.get_header"


def test_steps_for_nobody(kong: Kong) -> None:
    instance = kong.start_author(COUNTS)
    one, other = of_each(kong, instance)
    event_id = one.handle_event(instance).event_id
    wrong = [event_id + 1024, event_id - 2048, event_id + 1, event_id + 7, 0, -5, 2**60]
    for connection in (one, other):
        for number in wrong:
            if number & 1:  # of a request that is to be refused
                assert refused(connection.step(number))
                continue
            with pytest.raises(RemoteError, match=f"no event {number} is waiting"):
                connection.step(number)
    turn = other.step(event_id)
    assert turn.function == "kong.request.get_header"
    assert refused(one.step(turn.event_id + 2048))


def test_a_closed_instance_is_closed_everywhere(kong: Kong) -> None:
    instance = kong.start_author(COUNTS)
    one, other = of_each(kong, instance)
    result = one.call("plugin.CloseInstance", instance)
    assert (result["Name"], result["Id"]) == ("author", instance)
    for connection in (one, other):
        with pytest.raises(RemoteError, match=f"no plugin instance {instance}"):
            connection.call("plugin.CloseInstance", instance)
        with pytest.raises(RemoteError, match=f"no plugin instance {instance}"):
            connection.call("plugin.InstanceStatus", instance)

        def forgotten(connection: Connection = connection) -> bool:
            try:
                pid_of(connection, instance)
            except RemoteError as exc:
                assert "no plugin instance" in str(exc)
                return True
            return False

        wait_until(forgotten, "the other worker is told")


def test_the_status_knows_the_instances_of_all(kong: Kong) -> None:
    one, other = of_each(kong, kong.start_author(COUNTS))
    argument = {"Name": "author", "Config": '{"source": ""}'}
    ids = {connection.call("plugin.StartInstance", argument)["Id"] for connection in (one, other)}
    assert len(ids) == 2
    for connection in (one, other):
        status = connection.call("plugin.GetStatus")["Plugins"]["author"]
        assert ids <= {each["Id"] for each in status["Instances"]}
        assert status["LastStartInstance"] > 0
        for each in ids:
            found = connection.call("plugin.InstanceStatus", each)
            assert (found["Id"], found["Config"]) == (each, {"source": "REDACTED"})


def test_an_instance_that_only_one_worker_can_make(kong: Kong, tmp_path: Path) -> None:
    """What it guards is refused there, and it is tried again."""
    flag = tmp_path / "broken"
    source = f"""
import os

def start(self, config):
    if os.path.exists({str(flag)!r}):
        raise ValueError("there is something wrong")

def access(self, kong): kong.log("fine")
"""
    one, other = of_each(kong, kong.start_author(COUNTS))
    argument = {"Name": "author", "Config": kong_config(source)}
    instance = one.call("plugin.StartInstance", argument)["Id"]
    flag.touch()
    assert one.handle_event(instance).args == ["fine"]
    turn = other.handle_event(instance)
    assert turn.function == "kong.log.err"
    assert "there is something wrong" in turn.args[0]
    turn = other.step(turn.event_id)
    assert (turn.function, turn.args[0]) == ("kong.response.exit", 500)
    flag.unlink()
    assert other.handle_event(instance).args == ["fine"]


def kong_config(source: str) -> str:
    return json.dumps({"source": source})


def test_events_that_want_an_instance_at_once_share_one(kong: Kong, tmp_path: Path) -> None:
    made = tmp_path / "made"
    source = f"""
import os, time

def start(self, config):
    time.sleep(0.2)
    with open({str(made)!r}, "a") as file:
        file.write(f"{{os.getpid()}}\\n")

def access(self, kong): kong.log("fine")
"""
    counts = kong.start_author(COUNTS)
    one, other = of_each(kong, counts)
    pid = pid_of(other, counts)
    argument = {"Name": "author", "Config": kong_config(source)}
    instance = one.call("plugin.StartInstance", argument)["Id"]
    same = [other]
    while len(same) < 6:
        connection = kong.connect()
        if pid_of(connection, counts) == pid:
            same.append(connection)
    sent = [(connection, connection.send_event(instance)) for connection in same]
    assert pid_of(other_than(kong, counts, pid), counts) != pid  # nobody else is held up
    for connection, msgid in sent:
        assert connection.turn(msgid).args == ["fine"]
    assert sorted(made.read_text().split()).count(str(pid)) == 1


def other_than(kong: Kong, instance: int, pid: int) -> Connection:
    connection = kong.connect()
    while pid_of(connection, instance) == pid:
        connection = kong.connect()
    return connection


def test_connections_leave_no_descriptors(shared: Server, kong: Kong) -> None:
    kong.call("plugin.GetPluginNames")
    before = shared.descriptors()
    for _ in range(1000):
        Connection(shared.paths[0]).close()
    wait_until(lambda: shared.descriptors() <= before, "all connections are closed")
    assert kong.call("plugin.GetPluginNames")


# --- the end of a worker --------------------------------------------------------------------------


def test_a_worker_that_dies_is_replaced(start: StartWorkers, way: tuple[str, ...]) -> None:
    server = start(*way)
    with server.kong() as kong:
        instance = kong.start_author(COUNTS)
        one, other = of_each(kong, instance)
        turn = one.handle_event(instance)
        elsewhere = other.handle_event(instance)
        pid = int(turn.args[1])
        waits = one.send_step(turn.event_id)
        assert one.turn(waits)
        wait_until(lambda: is_at_rest(pid), "the worker has nothing to do")
        os.kill(pid, signal.SIGKILL)
        assert other.step(elsewhere.event_id).function == "kong.request.get_header"
        assert refused(other.step(turn.event_id)), "its handler is no more"
        server.wait_log("is ready again")
        assert pid_of(one, instance) != pid, "its connections are another one's"
        assert f"(pid {pid}) has ended: signal SIGKILL; " in server.log
        workers = server.workers()
        assert len(workers) == 2
        assert pid not in workers
        fresh = [kong.connect() for _ in range(6)]
        assert {pid_of(connection, instance) for connection in fresh} == set(workers)
        turn = fresh[0].handle_event(instance)
        for connection in fresh[1:3]:
            turn = connection.step(turn.event_id, "still")
        assert turn.args[1][2] == "still"


def test_a_worker_that_dies_with_another_ones_connection(start: StartWorkers) -> None:
    """It was to answer there: the request is refused, and its reader goes on."""
    source = """
import os, signal

def access(self, kong):
    kong.log("begin")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    server = start()
    with server.kong() as kong:
        counts, instance = kong.start_author(COUNTS), kong.start_author(source)
        one, other = of_each(kong, counts)
        pid = pid_of(other, counts)
        turn = one.handle_event(instance)
        assert refused(other.step(turn.event_id))
        assert pid_of(other, counts) == pid
        server.wait_log("is ready again")
        assert pid_of(one, counts)


def test_a_worker_whose_successor_dies_at_once_is_replaced(
    start: StartWorkers, way: tuple[str, ...], tmp_path: Path
) -> None:
    """It is tried again, and the other workers go on."""
    shutil.copy(PLUGINS / "hello.py", tmp_path)
    server = start(*way, plugins=tmp_path)
    once = tmp_path / "once"
    (tmp_path / "dies.py").write_text(
        f"""# no Plugin
import os
if not os.path.exists({str(once)!r}):
    open({str(once)!r}, "w").close()
    os._exit(9)
"""
    )
    os.kill(server.workers()[0], signal.SIGKILL)
    server.wait_log("exit status 9, before it was ready")
    with server.kong() as kong:
        assert kong.call("plugin.GetPluginNames") == ["hello"]
    server.wait_log("is ready again")
    assert len(server.workers()) == 2


def test_a_plugin_that_only_one_worker_can_load(prefix: Path, tmp_path: Path) -> None:
    """Kong would let the requests of the others through."""
    shutil.copy(PLUGINS / "hello.py", tmp_path)
    (tmp_path / "greedy.py").write_text(
        f"""
import os
os.close(os.open({str(tmp_path / "mine")!r}, os.O_CREAT | os.O_EXCL))
version, priority, Schema = "1.0.0", 1, ()
class Plugin:
    def __init__(self, config): pass
    def access(self, kong): pass
"""
    )
    done = run_command(*directory_command(tmp_path, prefix, "-m", "--workers", "2"))
    assert done.returncode == 1
    assert "lacks plugins: greedy" in done.stderr.splitlines()[-1]
    assert not list(prefix.iterdir())


def test_a_stop_while_a_handler_hangs_whose_step_came_through_another_worker(
    start: StartWorkers,
) -> None:
    """The connection is not closed under it: it ends with its process, and is refused."""
    source = """
import time

def access(self, kong):
    kong.log("begin")
    time.sleep(60)
"""
    server = start("--graceful-timeout", "0.5")
    with server.kong() as kong:
        counts, instance = kong.start_author(COUNTS), kong.start_author(source)
        one, other = of_each(kong, counts)
        pid = pid_of(other, counts)
        turn = one.handle_event(instance)
        msgid = other.send_step(turn.event_id)
        wait_until(lambda: is_at_rest(pid), "the step has been handed on")
        server.send_signal(signal.SIGTERM)
        assert refused(other.turn(msgid))
        assert server.wait() == 0


def test_a_worker_that_ends_itself(start: StartWorkers) -> None:
    server = start()
    with server.kong() as kong:
        instance = kong.start_author("import os\ndef access(self, kong): os._exit(7)")
        assert refused(kong.handle_event(instance))
        server.wait_log("has ended: exit status 7; 1 calls")
        server.wait_log("is ready again")


def test_it_stops_while_a_worker_is_missing(start: StartWorkers) -> None:
    server = start()
    os.kill(server.workers()[0], signal.SIGKILL)
    server.wait_log("has ended")
    server.stop()


def test_the_death_of_the_parent_leaves_no_process(
    start: StartWorkers, way: tuple[str, ...]
) -> None:
    server = start(*way)
    workers = server.workers()
    with server.kong() as kong:
        kong.handle_event(kong.start_author(COUNTS))
        assert len(workers) == 2
        server.process.kill()
        server.process.wait(LIMIT)
    wait_until(lambda: not any(map(is_alive, workers)), "the workers have ended")


def test_a_stop_under_load_answers_all(start: StartWorkers, way: tuple[str, ...]) -> None:
    """Events that have begun go on to their end, on whatever connection."""
    server = start(*way)
    workers = server.workers()
    with server.kong() as kong:
        instance = kong.start_author(COUNTS)
        connections = [kong.connect() for _ in range(20)]
        turns = [one.handle_event(instance) for one in connections]
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: not any(map(os.path.lexists, server.paths)), "nothing new is accepted")
        for shift in (1, 2):
            sent = []
            for number, turn in enumerate(turns):
                connection = connections[(number + shift) % len(connections)]
                sent.append((connection, connection.send_step(turn.event_id, "x")))
            turns = [connection.turn(msgid) for connection, msgid in sent]
        assert {turn.args[1][2] for turn in turns} == {"x"}
        assert server.wait() == 0
    assert not any(map(is_alive, workers))
    assert "still running" not in server.log
    server.check()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_for_all_processes(start: StartWorkers, number: signal.Signals) -> None:
    """As a terminal or a service manager sends it: workers obey the parent alone."""
    server = start()
    with server.kong() as kong:
        turn = kong.handle_event(kong.start_author(COUNTS))
        for pid in [*server.workers(), server.pid]:
            os.kill(pid, number)
        turn = kong.step(turn.event_id)
        assert kong.step(turn.event_id, "x").args[1][2] == "x"
    assert server.wait() == 0
    server.check()


def test_connections_while_it_works(start: StartWorkers) -> None:
    """Events go on while others come and go."""
    server = start()
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            with contextlib.suppress(BlockingIOError):  # faster than they are accepted
                Connection(server.paths[0]).close()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        with server.kong() as kong:
            instance = kong.start_author(COUNTS)
            for _ in range(50):
                assert kong.run_event(instance, answers={"kong.request.get_header": "y"})
    finally:
        stop.set()
        thread.join()


# --- the start ------------------------------------------------------------------------------------

EMBEDDED = """
import os
Schema = ()
version = "1.0.0"
priority = 1

class Plugin:
    lock = __import__("threading").Lock()  # nothing that could be pickled

    def __init__(self, config): self.lock = Plugin.lock

    def access(self, kong): kong.log(os.getpid())

if __name__ == "__main__":
    from kong_pdk.cli import start_dedicated_server
    start_dedicated_server("mine", Plugin, version, priority)
"""


@pytest.mark.parametrize("way", [*WAYS.values(), ("-g", "--start-method", "fork")], ids=" ".join)
def test_an_embedded_server(prefix: Path, way: tuple[str, ...]) -> None:
    script = prefix / "mine.py"
    script.write_text(EMBEDDED)
    command = embedded_command(script, prefix, "-m", "--workers", "2", *way)
    with running(command, prefix, ("mine.sock",)) as server, server.kong() as kong:
        instance = kong.start_instance("mine", {})
        connections = [kong.connect() for _ in range(4)]
        pids = {int(connection.handle_event(instance).args[0]) for connection in connections}
        assert pids == set(server.workers())


def test_a_plugin_that_cannot_be_loaded(prefix: Path, way: tuple[str, ...]) -> None:
    script = prefix / "mine.py"
    script.write_text(EMBEDDED.replace('"1.0.0"', '"one"'))
    done = run_command(*embedded_command(script, prefix, "-m", "--workers", "2", *way))
    assert (done.returncode, done.stdout) == (1, "")
    assert "version must be a string of three numbers like '1.0.0', got 'one'" in done.stderr
    assert done.stderr.count("mine.py:") == 1
    assert "Traceback" not in done.stderr
    assert not list(prefix.glob("*.sock*"))


def test_a_worker_that_dies_before_it_is_ready(prefix: Path) -> None:
    (prefix / "dies.py").write_text("import os\nos._exit(9)  # no Plugin\n")
    done = run_command(*directory_command(prefix, prefix, "-m", "--workers", "2"))
    assert done.returncode == 1
    assert "has ended: exit status 9, before it was ready" in done.stderr
    assert not any(os.path.lexists(prefix / name) for name in DIRECTORY_SOCKETS)


def test_the_first_worker_alone_speaks_of_files_that_are_none(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("")
    (tmp_path / "hello.py").write_text((PLUGINS / "hello.py").read_text())
    command = directory_command(tmp_path, prefix, "-m", "--workers", "2")
    with running(command, prefix) as server:
        assert server.log.count("skipped what is no plugin") == 1


def test_a_socket_in_use(start: StartWorkers, prefix: Path) -> None:
    server = start()
    done = run_command(*directory_command(PLUGINS, prefix, "-m", "--workers", "2"))
    assert done.returncode == 1
    assert "is in use by another server" in done.stderr
    assert all(accepts(path) for path in server.paths)


def test_the_cores_are_the_default(prefix: Path) -> None:
    command = ["taskset", "-c", "0", *directory_command(PLUGINS, prefix, "-m")]
    with running(command, prefix) as server:
        assert len(server.workers()) == 1
